"""The documentation is true: every block of code in it is run or checked, every link leads somewhere.

How a page is read:

- ``python`` blocks run in order, in one namespace and one temporary folder a page. What a block prints stands in a
  ``text`` block directly under it; a block without one must print nothing.
- ``console`` blocks are typed into a shell in the same folder, one shell a block: ``$ command``, further lines of
  the command behind ``> ``, then what is printed on either stream. A command must end with 0, unless ``$ echo $?``
  follows it.
- In what is expected, ``...`` stands for whatever it is that time: ids, times, the free words of a model.
- ``toml``, ``json``, ``csv`` and ``sh`` blocks are read by whatever reads such a file.
- ``mermaid`` is looked at by nobody. Any other language, or none, is an error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from memedit.calls import REFUSED_IN_FORWARD, REFUSED_IN_GENERATE
from memedit.cli import app
from memedit.commands.exits import ExitCode
from memedit.config import Config, read_config
from memedit.edit_files import BadRecord, read_edits

ROOT = Path(__file__).parent.parent
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
WITHOUT_MODELS = {"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "datasets.md"}
"""Pages whose code needs neither of the two default models."""

NOT_CHECKED = {"mermaid"}
_FENCE = re.compile(r"^(?P<indent>[ >]*)```(?P<language>\S*)[ \t]*$")
_STATUS = "\x1e"


class PageError(AssertionError):
    """A page that is not true."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: The word behind the fence.
        code: What stands between the fences.
        line: The line of the page on which the code begins, from 1.
        alone: Whether anything but an empty line stands between it and the block before.
    """

    language: str
    code: str
    line: int
    alone: bool


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    opened: tuple[str, int] | None = None
    closed_at = -10
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if fence["indent"]:
            raise PageError(f"line {number}: a block inside a list or a quotation is not read; move it out")
        if opened is None:
            opened = (fence["language"], number)
            continue
        language, start = opened
        between = "".join(lines[closed_at : start - 1]).strip()
        found.append(
            Block(language, "\n".join(lines[start : number - 1]) + "\n", start + 1, closed_at < 0 or bool(between))
        )
        opened, closed_at = None, number
    if opened is not None:
        raise PageError(f"line {opened[1]}: a block is not closed")
    return found


def agrees(expected: str, printed: str) -> bool:
    """Whether what was printed is what was expected, ``...`` standing for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    printed = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def check_toml(code: str, folder: Path) -> None:
    """A part of a pyproject.toml, or a memedit.toml."""
    if "project" in tomllib.loads(code):
        return
    file = folder / "from-the-page.toml"
    file.write_text(code)
    read_config(file)


def check_json(code: str, _: Path) -> None:
    """One JSON value."""
    json.loads(code)


def check_csv(code: str, folder: Path) -> None:
    """A file of edits."""
    file = folder / "from-the-page.csv"
    file.write_text(code)
    bad = [str(record) for record in read_edits(file) if isinstance(record, BadRecord)]
    if bad:
        raise PageError("; ".join(bad))


def check_sh(code: str, _: Path) -> None:
    """Commands that would install or measure: the shell can parse them, and make knows its targets."""
    subprocess.run(["bash", "-n"], input=code, text=True, check=True, timeout=60)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"] and not set(words[1:]) <= targets:
            raise PageError(f"{line!r}: the Makefile has {', '.join(sorted(targets))}")


CHECKS: Mapping[str, Callable[[str, Path], None]] = {
    "csv": check_csv,
    "json": check_json,
    "sh": check_sh,
    "toml": check_toml,
}


@dataclass
class Page:
    """A page being run, in a folder that is the current one."""

    blocks: Sequence[Block]
    folder: Path
    name: str = "page.md"
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self) -> None:
        """Runs or checks every block."""
        for place, block in enumerate(self.blocks):
            following = self.blocks[place + 1] if place + 1 < len(self.blocks) else None
            try:
                self._take(block, self.blocks[place - 1] if place else None, following)
            except Exception as error:
                raise PageError(f"{self.name}:{block.line}: {error}") from error

    def _take(self, block: Block, before: Block | None, following: Block | None) -> None:
        if block.language == "python":
            expected = following.code if following and following.language == "text" and not following.alone else ""
            self._python(block, expected)
        elif block.language == "console":
            self._console(block)
        elif block.language == "text":
            if before is None or before.language != "python" or block.alone:
                raise PageError("a text block is what the python block directly above it prints; there is none")
        elif block.language in CHECKS:
            CHECKS[block.language](block.code, self.folder)
        elif block.language not in NOT_CHECKED:
            raise PageError(f"nothing is known of blocks in the language {block.language!r}")

    def _python(self, block: Block, expected: str) -> None:
        code = compile("\n" * (block.line - 1) + block.code, self.name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.namespace)
        self._compare(expected, printed.getvalue())

    def _console(self, block: Block) -> None:
        steps = console_steps(block.code)
        ran = run_shell([command for command, _ in steps], self.folder)
        for place, ((command, expected), (printed, status)) in enumerate(zip(steps, ran, strict=True)):
            asked = place + 1 < len(steps) and steps[place + 1][0] == "echo $?"
            if status and not asked:
                raise PageError(f"`{command}` ended with {status}:\n{printed}")
            self._compare(expected, printed, f"`{command}`: ")

    def _compare(self, expected: str, printed: str, of: str = "") -> None:
        if not agrees(expected, printed):
            raise PageError(f"{of}expected\n{expected}\nbut it printed\n{printed}")


def console_steps(code: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it is to print."""
    steps: list[tuple[list[str], list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            steps.append(([line[2:]], []))
        elif not steps:
            raise PageError(f"a console block begins with a command behind '$ ', not with {line!r}")
        elif line.startswith("> ") and not steps[-1][1]:
            steps[-1][0].append(line[2:])
        else:
            steps[-1][1].append(line)
    return [("\n".join(command), "\n".join(printed)) for command, printed in steps]


def run_shell(commands: Sequence[str], folder: Path) -> list[tuple[str, int]]:
    """Runs commands in one shell and gives what each printed, on both streams, and its exit status."""
    # the status is handed on, so that the next command's $? is that of the command and not that of the marker
    script = "".join(
        f"{command}\nstatus=$?; printf '{_STATUS}%s{_STATUS}' $status; (exit $status)\n" for command in commands
    )
    settings = ("MEMEDIT_MEMORY", "MEMEDIT_CONFIG", "MEMEDIT_MODEL", "MEMEDIT_ENCODER", "MEMEDIT_NAMESPACE")
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONUNBUFFERED"] = "1"  # so that both streams come in the order in which they were written
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    pieces = ended.stdout.split(_STATUS)
    if len(pieces) != 2 * len(commands) + 1:
        raise PageError(f"the shell stopped early:\n{ended.stdout}")
    return [(pieces[2 * place], int(pieces[2 * place + 1])) for place in range(len(commands))]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=page.name, marks=() if page.name in WITHOUT_MODELS else (pytest.mark.real, pytest.mark.slow)
        )
        for page in PAGES
    ],
)
def test_page_is_true(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.name not in WITHOUT_MODELS:
        for pulled in ("minilm_folder", "smollm2_folder"):
            request.getfixturevalue(pulled)
    monkeypatch.chdir(tmp_path)
    Page(blocks_of(page.read_text()), tmp_path, str(page.relative_to(ROOT))).run()


# -- the reader itself: each way in which a page can be wrong is found -------------------------------------------------


def run_text(text: str, folder: Path) -> None:
    Page(blocks_of(text), folder).run()


def fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```\n"


def test_a_true_page_passes(tmp_path: Path) -> None:
    run_text(
        "Words.\n"
        + fenced("python", "x = 1\nprint('id', x, 'of many')")
        + "\n"
        + fenced("text", "id ... of many")
        + fenced("python", "assert x == 1")
        + fenced(
            "console", "$ cat > a.txt <<'END'\n> one\n> END\n$ cat a.txt missing\none\n...No such file...\n$ echo $?\n1"
        ),
        tmp_path,
    )


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (fenced("python", "print(1)") + fenced("text", "2"), "expected\n2"),
        (fenced("python", "print(1)"), "printed\n1"),
        (fenced("python", "x = 1") + fenced("text", "1"), "expected\n1"),
        (fenced("python", "print(1)") + "and so\n" + fenced("text", "1"), "printed\n1"),
        (fenced("text", "1"), "directly above"),
        (fenced("python", "1 / 0"), "division by zero"),
        (fenced("", "x"), "nothing is known"),
        (fenced("yaml", "x: 1"), "nothing is known"),
        (fenced("console", "ls"), "begins with a command"),
        (fenced("console", "$ false"), "ended with 1"),
        (fenced("console", "$ false\n$ echo $?\n0"), "expected\n0"),
        (fenced("console", "$ echo a\nb"), "expected\nb"),
        (fenced("console", "$ exit 3"), "stopped early"),
        (fenced("json", "{"), "Expecting"),
        (fenced("toml", "memroy = 'x'"), "memory"),
        (fenced("csv", "prompt,target\nWho,"), "target"),
        (fenced("sh", "make tset"), "Makefile has"),
        ("- a list\n  ```python\n  x\n  ```\n", "inside a list"),
        ("```python\nx", "not closed"),
    ],
)
def test_an_untrue_page_fails(page: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=re.escape(complaint)):
        run_text(page, tmp_path)


# -- links and completeness --------------------------------------------------------------------------------------------


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as hosts of Markdown make them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose_of(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path) if path else page
        assert leads_to.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors_of(leads_to), (
                f"{page.name} links to {target}; its headings: {anchors_of(leads_to)}"
            )


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        assert name == "README.md" or f"({name})" in readme, f"README.md does not link {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    """A file with its folder is there; one named alone is in one of the packages."""
    of_packages = {
        path.name for package in ("memory_store", "classifiers", "memedit") for path in (ROOT / package).rglob("*")
    }
    for name in re.findall(r"`([\w/.]+\.py|[\w.]+(?:/[\w.]+)*/)`", prose_of(page)):
        if name in {"models/", "facts.db.index/"}:  # on a user's machine
            continue
        assert (ROOT / name).exists() or name in of_packages, f"{page.name} names {name}, which is not there"


def documented(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_is_documented(name: str) -> None:
    page = documented("command-line.md")
    assert f"`memedit {name}`" in page or f"\n$ memedit {name} " in page, f"memedit {name} is not documented"
    options = {option for parameter in commands()[name].params for option in parameter.opts if option.startswith("--")}
    missing = {option for option in options - {"--help"} if f"`{option}" not in page}
    assert not missing, f"options of memedit {name} that are not documented: {missing}"


def test_every_exit_code_is_documented() -> None:
    rows = set(re.findall(r"^\| (\d+) \|", documented("command-line.md"), re.MULTILINE))
    assert rows == {str(int(code)) for code in ExitCode}


def test_every_setting_is_documented() -> None:
    blocks = [block.code for block in blocks_of(documented("command-line.md")) if block.language == "toml"]
    settings = tomllib.loads(blocks[0])
    assert Config().override(**{**settings, "memory": Path(settings["memory"])}) == Config()
    assert set(settings) == set(Config.__dataclass_fields__)


def test_every_refused_argument_is_documented() -> None:
    page = documented("model.md")
    missing = {name for name in {*REFUSED_IN_GENERATE, *REFUSED_IN_FORWARD} if f"`{name}`" not in page}
    assert not missing
