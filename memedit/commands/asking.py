"""``ask`` and ``explain``: one prompt, its answer, and why it is answered so."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memedit.commands.exits import ExitCode
from memedit.commands.explaining import answer_json, explanation_json, governed_by, show_explanation
from memedit.commands.options import (
    ConfigOption,
    EncoderOption,
    JsonOption,
    MaxNewTokensOption,
    MemoryOption,
    ModelOption,
    ModeOption,
    NamespaceOption,
)
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memedit.explanation import Answer
    from memedit.model import EditedModel

__all__ = ["ask", "explain"]

PromptArgument = Annotated[
    str, typer.Argument(metavar="PROMPT", help="The prompt; - reads it from stdin.", show_default=False)
]


def ask(
    ctx: typer.Context,
    prompt: PromptArgument,
    compare: Annotated[bool, typer.Option("--compare", help="Show the base model's own answer too.")] = False,
    require_edit: Annotated[
        bool, typer.Option("--require-edit", help="Exit with 1 where no edit governs the prompt.")
    ] = False,
    max_new_tokens: MaxNewTokensOption = None,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mode: ModeOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the edited model; stdout has the answer and nothing else.

    Which edit governed the answer, if any, is said on stderr.
    """
    session = Session.start(
        ctx,
        config_file,
        as_json=as_json,
        memory=memory,
        namespace=namespace,
        model=model,
        encoder=encoder,
        mode=mode,
        generation=_generation(max_new_tokens),
    )
    text = _read_prompt(prompt)
    with session.model() as edited:
        limits = {"max_new_tokens": session.config.generation.max_new_tokens}
        answer = edited.ask(text, **limits)
        base = _base_answer(edited, text, limits) if compare else None
    if as_json:
        session.output.json(answer_json(answer, base))
    else:
        session.output.text(answer.text)
        session.output.note(governed_by(answer.decision))
        if base is not None:
            session.output.note(f"base model: {base.text}")
    if require_edit and not answer.decision.governed:
        raise typer.Exit(ExitCode.NO)


def explain(
    ctx: typer.Context,
    prompt: PromptArgument,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mode: ModeOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain how a prompt would be answered: which edit, how probable, what the model reads, what it costs."""
    session = Session.start(
        ctx, config_file, as_json=as_json, memory=memory, namespace=namespace, model=model, encoder=encoder, mode=mode
    )
    text = _read_prompt(prompt)
    with session.model() as edited:
        explanation = edited.explain(text)
    if as_json:
        session.output.json(explanation_json(explanation))
    else:
        show_explanation(session.output, explanation)


def _read_prompt(prompt: str) -> str:
    return sys.stdin.read() if prompt == "-" else prompt


def _generation(max_new_tokens: int | None) -> dict[str, Any] | None:
    return None if max_new_tokens is None else {"max_new_tokens": max_new_tokens}


def _base_answer(edited: EditedModel, prompt: str, limits: dict[str, Any]) -> Answer:
    with edited.edits_disabled():
        return edited.ask(prompt, **limits)
