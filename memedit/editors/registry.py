"""The methods by name: what is known of each, and attaching one to a model.

A method is a module, or any other object, with two attributes: ``INFO``, a `MethodInfo`, and ``create``, which attaches
it to a `Subject`. Another package adds one with an entry point, and needs nothing else of this project::

    [project.entry-points."memedit.editors"]
    my-method = "my_package.my_method"

Our own are entries of the same kind, listed here. A method is imported when it is first asked for; reading what is
known of one loads no model library. This file knows nothing of any method.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from memedit.editors.editor import Editor, MethodInfo
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.suggestions import suggestion

__all__ = [
    "BUILT_IN",
    "EDITORS_ENTRY_POINT",
    "Method",
    "create_editor",
    "load_method",
    "method_info",
    "method_infos",
    "method_names",
]

EDITORS_ENTRY_POINT = "memedit.editors"
"""The entry point group of methods that other packages add."""

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "base": "memedit.editors.base",
        "ike": "memedit.editors.ike",
        "ike-demos": "memedit.editors.ike_demos",
        "scr": "memedit.editors.scr",
        "retrieval": "memedit.editors.retrieval",
        "ft-m": "memedit.editors.ft",
        "ft-l": "memedit.editors.ft_l",
        "lora": "memedit.editors.lora",
        "adalora": "memedit.editors.adalora",
        "grace": "memedit.editors.grace",
        "wise": "memedit.editors.wise",
        "t-patcher": "memedit.editors.t_patcher",
        "ke": "memedit.editors.ke",
        "mend": "memedit.editors.mend",
        "rome": "memedit.editors.rome",
        "r-rome": "memedit.editors.r_rome",
        "memit": "memedit.editors.memit",
        "pmet": "memedit.editors.pmet",
        "alphaedit": "memedit.editors.alphaedit",
        "kn": "memedit.editors.kn",
        "serac": "memedit.editors.serac",
        "auto": "memedit.editors.auto",
        "ice-oracle": "memedit.editors.ice_oracle",
        "ike-oracle": "memedit.editors.ike_oracle",
    }
)
"""Our own methods, each with the module that holds it, in the order in which they are listed."""


@runtime_checkable
class Method(Protocol):
    """What stands behind a name: a module or another object with these two attributes.

    Attributes:
        INFO: What is known of the method; its ``name`` is the one it is registered under.
    """

    INFO: MethodInfo

    def create(self, subject: Subject) -> Editor:
        """Attaches it to a model, with its options at their defaults.

        Args:
            subject: The model, with nothing edited.

        Raises:
            MemeditError: It cannot edit this model; says why.
        """


def method_names() -> tuple[str, ...]:
    """The names of all methods, our own first; none is imported."""
    return tuple(_entries())


def method_info(name: str) -> MethodInfo:
    """What is known of a method.

    Args:
        name: Its name.

    Raises:
        ConfigError: There is none of that name, or it cannot be loaded.
    """
    return load_method(name).INFO


def method_infos() -> tuple[MethodInfo, ...]:
    """What is known of every method, in the order of `method_names`.

    Raises:
        ConfigError: One that another package adds cannot be loaded.
    """
    return tuple(method_info(name) for name in method_names())


def create_editor(name: str, subject: Subject) -> Editor:
    """Attaches a method to a model.

    Args:
        name: Its name.
        subject: The model, with nothing edited.

    Raises:
        ConfigError: There is none of that name, or it cannot be loaded.
        MemeditError: It cannot edit this model; says why.
    """
    return load_method(name).create(subject)


def load_method(name: str) -> Method:
    """What stands behind a name.

    Args:
        name: The method's name.

    Raises:
        ConfigError: There is none of that name, or it cannot be loaded.
    """
    entries = _entries()
    if name not in entries:
        raise ConfigError(f"There is no method '{name}'. {suggestion(name, entries)}")
    entry = entries[name]
    try:
        method: Any = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The method '{name}' ({entry.value}) cannot be loaded: {error}. Reinstall the package that adds it."
        ) from error
    if not isinstance(method, Method) or not isinstance(method.INFO, MethodInfo):
        raise ConfigError(
            f"The method '{name}' ({entry.value}) has no INFO, a MethodInfo, or no create(subject); "
            "the entry point has to name a module or an object that has both."
        )
    if method.INFO.name != name:
        raise ConfigError(
            f"The method '{name}' ({entry.value}) calls itself '{method.INFO.name}' in its INFO; "
            "results need one name: use that of the entry point."
        )
    return method


def _entries() -> dict[str, EntryPoint]:
    """Every method's entry. One of ours cannot be replaced: a result under its name has to be its own."""
    own = {name: EntryPoint(name, value, EDITORS_ENTRY_POINT) for name, value in BUILT_IN.items()}
    added = {entry.name: entry for entry in entry_points(group=EDITORS_ENTRY_POINT)}
    return {**own, **{name: added[name] for name in sorted(added) if name not in own}}
