"""The public surface: each package exports what it says, documents it, and costs little to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("classifiers", "memedit", "memedit.editors", "memedit.evaluation", "memory_store")
HEAVY = ("torch", "transformers", "faiss", "sentence_transformers", "huggingface_hub", "scipy", "sklearn")
UNUSED_AT_IMPORT = {
    "classifiers": (*HEAVY, "sqlalchemy"),
    "memedit": (*HEAVY, "sqlalchemy", "numpy", "typer", "rich"),
    "memedit.editors": HEAVY,
    "memedit.evaluation": HEAVY,
    "memory_store": HEAVY,
}
"""What ``import package`` must not load."""


EXPORTS = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


def arguments_of(function: Any) -> list[str]:
    """The parameters that a caller fills by choice: without ``self``."""
    parameters = list(inspect.signature(function).parameters)
    return [name for name in parameters if name not in {"self", "cls"}]


def public_methods(made: type) -> Iterator[tuple[str, Any]]:
    """The methods and properties that a class defines itself, not what dataclasses and protocols generate."""
    for name, member in vars(made).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield name, member.fget
        elif isinstance(member, classmethod | staticmethod):
            yield name, member.__func__
        elif inspect.isfunction(member):
            yield name, member


def documented_constants(package: str) -> set[str]:
    """Names that are assigned at the top of a module and have a docstring straight below."""
    found = set()
    for path in (ROOT / package.replace(".", "/")).rglob("*.py"):
        body = ast.parse(path.read_text()).body
        for statement, below in pairwise(body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if (
                isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_distinct_and_sorted(package: str) -> None:
    listed = importlib.import_module(package).__all__
    # constants, then classes, then functions, each by name: the order that ruff keeps
    kinds = {True: 0}
    ordered = sorted(set(listed), key=lambda name: (kinds.get(name.isupper(), 1 if name[0].isupper() else 2), name))
    assert listed == ordered


@pytest.mark.parametrize("package", ["classifiers", "memedit.evaluation", "memory_store"])
def test_all_is_what_is_exported(package: str) -> None:
    module = importlib.import_module(package)
    exported = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert exported == set(module.__all__)


def test_memedit_exports_lazily_what_it_lists() -> None:
    """The three lists in ``memedit/__init__.py`` (for people, for type checkers, for loading) are one list."""
    import memedit

    tree = ast.parse(Path(memedit.__file__).read_text())
    (for_checkers,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module or ""
        for node in for_checkers.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(memedit.__all__) == set(dir(memedit))
    assert seen == memedit._HOME_OF
    for name in memedit.__all__:
        value = getattr(memedit, name)
        assert value is getattr(importlib.import_module(seen[name]), name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = memedit.lode


@pytest.mark.parametrize(("package", "name"), EXPORTS)
def test_public_name_has_a_docstring(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        assert name in documented_constants(package)
        return
    assert own_docstring(value), f"{name} has no docstring"
    if inspect.isfunction(value):
        check_arguments(name, value)
        return
    for method, function in public_methods(value):
        assert own_docstring(function), f"{name}.{method} has no docstring"
        check_arguments(f"{name}.{method}", function)


def own_docstring(value: Any) -> str:
    """A docstring that was written, not one that a dataclass makes of its signature."""
    docstring = value.__doc__ or ""
    return "" if docstring.startswith(f"{value.__name__}(") else docstring


def check_arguments(name: str, function: Any) -> None:
    """An Args section names the parameters that there are; from three on there is one, or a word on where to look.

    One or two arguments may be told of in the sentence itself.
    """
    docstring = inspect.getdoc(function) or ""
    arguments = arguments_of(function)
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        refers = re.search(r"\b[Ss]ee\b|``list``", docstring)
        assert len(arguments) < 3 or refers, f"{name}({', '.join(arguments)}) has no Args section"
        return
    told = set(re.findall(r"^    \*{0,2}(\w+):", section[1], re.MULTILINE))
    assert told == set(arguments), f"{name}: its Args section and its parameters differ: {told ^ set(arguments)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_import_is_cheap(package: str) -> None:
    program = f"import sys, {package}; print(*sorted(set(sys.modules) & set({UNUSED_AT_IMPORT[package]!r})))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    assert ran.stdout.strip() == ""


@pytest.mark.parametrize(("package", "name"), EXPORTS)
def test_public_name_is_in_the_documentation(package: str, name: str) -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    mentioned = re.compile(rf"\b{name}\b")
    assert any(mentioned.search(page.read_text()) for page in pages), f"{package}.{name} is in no page of docs/"


def test_version_is_that_of_the_project() -> None:
    import memedit

    written = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert written is not None
    assert memedit.__version__ == written[1]
    assert f"## [{written[1]}]" in (ROOT / "CHANGELOG.md").read_text()
