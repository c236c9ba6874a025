"""The options that several commands share, so that each is spelled and explained the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from memedit.commands.completion import complete_edit_id
from memedit.known_models import DEFAULT_ENCODER, DEFAULT_MODEL

__all__ = [
    "AllNamespacesOption",
    "ConfigOption",
    "EditId",
    "EditIds",
    "EncoderOption",
    "JsonOption",
    "MaxNewTokensOption",
    "MemoryOption",
    "ModeOption",
    "ModelOption",
    "NamespaceOption",
    "OnConflictOption",
]

_SETTINGS = "Settings"

MemoryOption = Annotated[
    Path | None,
    typer.Option(
        "--memory",
        "-m",
        metavar="PATH",
        envvar="MEMEDIT_MEMORY",
        help="The memory's database file.",
        show_default="memedit.db",
        rich_help_panel=_SETTINGS,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="MEMEDIT_CONFIG",
        help="A configuration file.",
        show_default="memedit.toml of this folder, where there is one",
        rich_help_panel=_SETTINGS,
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        envvar="MEMEDIT_NAMESPACE",
        help="The namespace to work in.",
        show_default="default",
        rich_help_panel=_SETTINGS,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        envvar="MEMEDIT_MODEL",
        help="The base model: a known name, a folder or a hub id.",
        show_default=DEFAULT_MODEL,
        rich_help_panel=_SETTINGS,
    ),
]
ModeOption = Annotated[
    Literal["ike", "serac", "auto"] | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        envvar="MEMEDIT_MODE",
        help="Who answers where an edit governs: ike (the base model, in context), serac (the counterfactual model), "
        "or auto (whichever does better in a self-test).",
        show_default="ike",
        rich_help_panel=_SETTINGS,
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        envvar="MEMEDIT_ENCODER",
        help="The text encoder.",
        show_default=DEFAULT_ENCODER,
        rich_help_panel=_SETTINGS,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, for programs; errors too.", rich_help_panel=_SETTINGS)
]
AllNamespacesOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="The edits of every namespace.")]
OnConflictOption = Annotated[
    Literal["supersede", "reject", "keep_both"] | None,
    typer.Option(
        metavar="POLICY",
        help="Where the prompt has another target already: supersede it, reject the edit, or keep_both.",
        show_default="supersede",
    ),
]
MaxNewTokensOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The most tokens of an answer.", show_default="128")
]
EditId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The edit's id, or a unique beginning of it (4 characters at least).",
        autocompletion=complete_edit_id,
        show_default=False,
    ),
]
EditIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="The edits' ids, or unique beginnings of them (4 characters at least).",
        autocompletion=complete_edit_id,
        show_default=False,
    ),
]
