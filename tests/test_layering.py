"""Which way imports run: every import of every package, lazy ones included, is parsed and held to the order.

The rules are functions over sources, so that each is also shown a planted violation that it must find.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "memory_store": set(),
    "classifiers": set(),
    "memedit": {"memory_store", "classifiers"},
    "training": {"memory_store", "classifiers", "memedit"},
}
"""Of the project's own packages, those that each may import besides itself."""
OWN = {*MAY_IMPORT, "tests", "benchmarks"}

GROUND: dict[str, dict[str, set[str]]] = {
    "memory_store": {"errors": set(), "records": {"errors"}, "indexes": set()},
    "classifiers": {"errors": set(), "protocols": set()},
    "memedit": {
        "errors": set(),
        "known_models": set(),
        "suggestions": set(),
        "config": {"errors", "known_models", "suggestions"},
        "evaluation.cases": {"errors", "suggestions"},
        "evaluation.matching": set(),
    },
    "training": {"errors": set(), "progress": set(), "config": {"errors"}, "settings": {"config", "errors"}},
}
"""Modules at the bottom of a package, and what each may import of it."""

SHELL = (
    "memedit.commands",
    "memedit.cli",
    "memedit.__main__",
    "memedit.demo",
    "training.cli",
    "training.bars",
)
"""What stands on top of the library: nothing in the library imports it."""

FACADES = {"memory_store", "classifiers", "memedit", "training"}
"""Packages that gather names from their own modules; importing one's own façade would be a cycle."""

_BY_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")

Sources = Mapping[str, str]


def sources_of(package: str) -> dict[str, str]:
    """The modules of a package by their dotted names; a package's ``__init__`` has the package's own name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def names_imported(module: str, source: str, *, is_package: bool) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in it the import stands.

    ``from a import b`` gives ``a.b``, which may be a module or a name in one. A string that names what is to be loaded
    (``"classifiers.similarity:SimilarityScope"``, ``import_module("...")``) is an import too.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _BY_NAME.fullmatch(node.value):
            yield node.value.partition(":")[0]


def imports_of(sources: Sources) -> dict[str, set[str]]:
    """What each module imports."""
    packages = {name for name in sources if any(other.startswith(f"{name}.") for other in sources)} | FACADES
    return {
        module: set(names_imported(module, source, is_package=module in packages)) for module, source in sources.items()
    }


def wrong_packages(sources: Sources) -> list[str]:
    """Imports of packages that lie above, or beside."""
    return [
        f"{module} imports {name}"
        for module, names in imports_of(sources).items()
        for name in sorted(names)
        if (package := name.partition(".")[0]) in OWN
        and package != (own := module.partition(".")[0])
        and package not in MAY_IMPORT[own]
    ]


def module_of(name: str, sources: Sources) -> str | None:
    """The module that an imported name is, or is found in; None where it is none of the sources'."""
    while name and name not in sources and name not in FACADES:
        name = name.rpartition(".")[0]
    return name or None


def inner_imports(sources: Sources) -> dict[str, set[str]]:
    """Which of the sources each module imports; façades, which gather names from everywhere, are left out."""
    return {
        module: {found for name in names if (found := module_of(name, sources)) and found not in {module, *FACADES}}
        for module, names in imports_of(sources).items()
        if module not in FACADES
    }


def cycles(sources: Sources) -> list[str]:
    """A cycle of imports between the modules, if there is one."""
    try:
        TopologicalSorter(inner_imports(sources)).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def facade_imports(sources: Sources) -> list[str]:
    """Modules that import a public name through the façade of their own package."""
    return [
        f"{module} imports {name}"
        for module, names in imports_of(sources).items()
        for name in sorted(names)
        if module not in FACADES and not is_shell(module) and module_of(name, sources) == module.partition(".")[0]
    ]


def above_ground(sources: Sources) -> list[str]:
    """Modules at the bottom of a package that import more of it than they may."""
    inner = inner_imports(sources)
    return [
        f"{package}.{module} imports {name}"
        for package, modules in GROUND.items()
        for module, allowed in modules.items()
        for name in sorted(inner.get(f"{package}.{module}", ()))
        if name not in {f"{package}.{one}" for one in allowed}
    ]


def is_shell(module: str) -> bool:
    return any(module == top or module.startswith(f"{top}.") for top in SHELL)


def shell_imports(sources: Sources) -> list[str]:
    """Library modules that import the command line."""
    return [
        f"{module} imports {name}"
        for module, names in imports_of(sources).items()
        for name in sorted(names)
        if not is_shell(module) and is_shell(name)
    ]


RULES = (wrong_packages, cycles, facade_imports, above_ground, shell_imports)
PACKAGES = [package for package in MAY_IMPORT if (ROOT / package).is_dir()]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_imports_keep_their_order(rule, package: str) -> None:
    assert rule(sources_of(package)) == []


def test_the_packages_are_found() -> None:
    assert {"memory_store", "classifiers", "memedit", "training"} == set(PACKAGES)
    modules = sources_of("memedit")
    assert {
        "memedit",
        "memedit.model",
        "memedit.commands",
        "memedit.commands.asking",
        "memedit.evaluation.cases",
    } <= set(modules)
    imported = imports_of(modules)
    assert "torch" in imported["memedit.model"]  # inside a function
    assert "memedit.evaluation.datasets.unke" in imported["memedit.evaluation.datasets.registry"]  # by name
    assert "memory_store.EditMemory" in imported["memedit.loading"]
    assert "classifiers.similarity" in imports_of(sources_of("classifiers"))["classifiers.persistence"]  # by name


@pytest.mark.parametrize("package", PACKAGES)
def test_the_ground_is_there(package: str) -> None:
    assert {f"{package}.{module}" for module in GROUND.get(package, ())} <= set(sources_of(package))


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        (wrong_packages, {"memory_store.store": "import memedit"}),
        (wrong_packages, {"memory_store.store": "from classifiers import TextEncoder"}),
        (wrong_packages, {"classifiers.encoders": "def f():\n    from memory_store.store import EditMemory"}),
        (wrong_packages, {"classifiers.encoders": "if TYPE_CHECKING:\n    import memedit.model"}),
        (wrong_packages, {"classifiers.persistence": "KINDS = {'x': 'memedit.routing:Router'}"}),
        (wrong_packages, {"classifiers.persistence": "import_module('memory_store.store')"}),
        (wrong_packages, {"memedit.model": "def f():\n    import training.loop"}),
        (wrong_packages, {"classifiers.cross_encoder": "from training.scope import run"}),
        (wrong_packages, {"training.scope": "from benchmarks import scope"}),
        (wrong_packages, {"memedit.model": "from benchmarks import memory"}),
        (wrong_packages, {"memedit.model": "import tests.tiny"}),
        (cycles, {"memedit.a": "from memedit.b import x", "memedit.b": "def f():\n    from memedit import a"}),
        (cycles, {"memedit.a": "from . import b", "memedit.b": "from .c import x", "memedit.c": "from .a import y"}),
        (facade_imports, {"memory_store.ledger": "from memory_store import Edit"}),
        (facade_imports, {"memedit.loading": "def f():\n    import memedit"}),
        (facade_imports, {"training.scope": "from training import train"}),
        (above_ground, {"memory_store.errors": "from memory_store.records import Edit", "memory_store.records": ""}),
        (above_ground, {"memory_store.records": "from memory_store import store", "memory_store.store": ""}),
        (above_ground, {"memedit.errors": "from memedit.routing import Router", "memedit.routing": ""}),
        (shell_imports, {"memedit.model": "from memedit.commands.output import Output"}),
        (shell_imports, {"memedit.pulling": "def f():\n    from memedit import cli"}),
        (shell_imports, {"training.scope": "from memedit.commands.output import Output"}),
        (shell_imports, {"training.loop": "from training.bars import training_progress"}),
    ],
)
def test_a_planted_violation_is_found(rule, planted: Sources) -> None:
    assert rule(planted)


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (wrong_packages, {"memedit.model": "import torch\nfrom memory_store import Edit\nfrom classifiers import x"}),
        (wrong_packages, {"training.loop": "from memedit import prompts"}),
        (cycles, {"memedit.a": "from memedit.b import x", "memedit.b": "import memedit.c", "memedit.c": ""}),
        (facade_imports, {"memedit.cli": "from memedit import __version__", "memedit.a": "from memory_store import E"}),
        (facade_imports, {"memedit.a": "from memedit import b", "memedit.b": ""}),
        (above_ground, {"memory_store.records": "from memory_store.errors import X", "memory_store.errors": ""}),
        (shell_imports, {"memedit.cli": "from memedit.commands import asking", "memedit.commands": ""}),
    ],
)
def test_what_is_in_order_passes(rule, allowed: Sources) -> None:
    assert rule(allowed) == []
