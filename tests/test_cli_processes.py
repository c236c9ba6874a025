"""What the command line shows only as a process of its own: imports, pipes, signals, terminals, added commands."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hashing_encoder import HashingEncoder

from memedit.commands.exits import ExitCode
from memory_store import Edit, EditMemory

ROOT = Path(__file__).resolve().parent.parent
MEMEDIT = [sys.executable, "-m", "memedit"]

SLOW_ENCODER = """
import time
from hashing_encoder import HashingEncoder
from memedit.cli import app
from memedit.commands.runtime import Runtime

class Slow(HashingEncoder):
    def encode(self, texts):
        time.sleep(0.2)
        return super().encode(texts)

app(prog_name="memedit", obj=Runtime(load_encoder=lambda name, progress: Slow()))
"""

TINY_MODEL = """
import memedit
from classifiers import SimilarityScope
from hashing_encoder import HashingEncoder
from memedit.cli import app
from memedit.commands.runtime import Runtime
from tiny import tiny_model, tiny_tokenizer

def load_model(config, memory, progress):
    model = tiny_model()
    model.generation_config.eos_token_id = None  # it goes on until it is stopped
    return memedit.wrap(model, tiny_tokenizer(), memory=memory, scope=SimilarityScope(threshold_similarity=0.7))

app(prog_name="memedit", obj=Runtime(load_encoder=lambda name, progress: HashingEncoder(), load_model=load_model))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MEMEDIT_", "_MEMEDIT"))}
    cache = {name: os.environ[name] for name in ("MEMEDIT_CACHE",) if name in os.environ}
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "tests")])
    return {**kept, **cache, "PYTHONPATH": path, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}


def run(
    folder: Path, environment: dict[str, str], *args: str, code: int = 0, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*MEMEDIT, *args], cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def filled(folder: Path, count: int) -> list[Edit]:
    """A memory with some edits, made in this process."""
    with EditMemory(folder / "memedit.db", encoder=HashingEncoder()) as memory:
        memory.add_many(Edit(prompt=f"The {n}th statement about Acme Rockets is", target=f"{n}") for n in range(count))
        return memory.list()


# -- start and streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["ask", "--help"], ["--version"], ["lst"]], ids=" ".join)
def test_starting_imports_nothing_heavy(tmp_path: Path, environment: dict[str, str], args: list[str]) -> None:
    program = (
        "import sys, json\nfrom memedit.cli import main\n"
        f"sys.argv = ['memedit', *{args!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'sqlalchemy', 'numpy', 'huggingface_hub'}\n"
        "open('heavy.json', 'w').write(json.dumps(sorted(heavy & sys.modules.keys())))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert json.loads((tmp_path / "heavy.json").read_text()) == []


@pytest.mark.parametrize("args", [["list"], ["stats"], ["export"], ["verify"]], ids=" ".join)
def test_commands_that_need_no_vectors_do_not_load_torch(
    tmp_path: Path, environment: dict[str, str], args: list[str]
) -> None:
    filled(tmp_path, 1)
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "memedit", *args],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "memory_store.store" in imported
    assert not imported & {"torch", "transformers", "sentence_transformers"}


def test_exit_codes_reach_the_shell(tmp_path: Path, environment: dict[str, str]) -> None:
    run(tmp_path, environment, "list", code=ExitCode.NOT_FOUND)
    run(tmp_path, environment, "list", "--nope", code=ExitCode.USAGE)
    (tmp_path / "memedit.db").write_text("no database")
    result = run(tmp_path, environment, "list", code=ExitCode.REFUSED)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_closed_pipe_is_quiet(tmp_path: Path, environment: dict[str, str]) -> None:
    filled(tmp_path, 2000)
    for command in ("export", "list"):
        with subprocess.Popen(
            [*MEMEDIT, command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == ExitCode.BROKEN_PIPE


def test_output_is_utf_8_lines_without_colour_whatever_the_locale(tmp_path: Path, environment: dict[str, str]) -> None:
    with EditMemory(tmp_path / "memedit.db", encoder=HashingEncoder()) as memory:
        memory.add("東京の人口は", "約一千四百万人", source="x" * 300)
    environment |= {"LC_ALL": "C", "COLUMNS": "20"}
    (line,) = run(tmp_path, environment, "list").stdout.splitlines()
    assert line.split("\t")[3:7] == ["東京の人口は", "約一千四百万人", "", "x" * 300]


def test_an_import_that_is_interrupted_goes_on_where_it_was(tmp_path: Path, environment: dict[str, str]) -> None:
    records = "".join(json.dumps({"prompt": f"Statement {n} is", "target": str(n)}) + "\n" for n in range(2000))
    (tmp_path / "facts.jsonl").write_text(records)
    command = [sys.executable, "-c", SLOW_ENCODER, "import", "facts.jsonl"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_for_edits(tmp_path / "memedit.db")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert stdout == ""
    told = re.fullmatch(r"interrupted with ([\d,]+) edits in the memory; run the same command again to go on\n", stderr)
    assert told is not None, stderr
    done = int(told[1].replace(",", ""))
    assert 0 < done < 2000
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    counts = {name: int(count.replace(",", "")) for count, name in re.findall(r"(\d[\d,]*) (\w+)", again.stdout)}
    assert counts["added"] + counts["unchanged"] == 2000
    assert counts["unchanged"] >= done


def _wait_for_edits(path: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size:
            with EditMemory(path) as memory:
                if memory.count():
                    return
        time.sleep(0.05)
    raise AssertionError("no edit was imported in a minute")


# -- completion and added commands -----------------------------------------------------------------------------------


def test_the_shell_completes_commands_and_edit_ids(tmp_path: Path, environment: dict[str, str]) -> None:
    edits = filled(tmp_path, 3)

    def completed(words: str) -> str:
        asked = {"_MEMEDIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return run(tmp_path, environment | asked).stdout

    assert "history" in completed("memedit hist").split()
    assert edits[1].id in completed(f"memedit show {edits[1].id[:6]}")
    assert completed("memedit show zz").split() == []
    assert completed("memedit show --memory absent.db ").split() == []


@pytest.fixture
def added_commands(tmp_path: Path) -> Path:
    """A package that adds one command that works and one that does not."""
    information = tmp_path / "added_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: added-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[memedit.commands]\nharvest = added_package:app\nbroken = added_package:absent\nlist = added_package:never\n"
    )
    (tmp_path / "added_package.py").write_text(
        "import typer\nfrom pathlib import Path\n"
        "Path('imported').touch()\n"
        "app = typer.Typer()\n"
        "@app.command()\ndef scope(epochs: int = 1) -> None:\n    print('scope', epochs)\n"
        "@app.command()\ndef fail() -> None:\n    from memory_store import EditNotFoundError\n"
        "    raise EditNotFoundError('no such thing')\n"
    )
    return tmp_path


def test_added_commands_are_listed_without_being_imported(added_commands: Path, environment: dict[str, str]) -> None:
    text = run(added_commands, environment, "--help").stdout
    assert re.search(r"harvest\s+From the package added_package", text)
    assert not (added_commands / "imported").exists()


def test_added_commands_run_and_their_errors_are_told(added_commands: Path, environment: dict[str, str]) -> None:
    assert run(added_commands, environment, "harvest", "scope", "--epochs", "3").stdout == "scope 3\n"
    assert "scope" in run(added_commands, environment, "harvest", "--help").stdout
    assert "error: no such thing" in run(added_commands, environment, "harvest", "fail", code=ExitCode.NOT_FOUND).stderr
    broken = run(added_commands, environment, "broken", code=ExitCode.ENVIRONMENT)
    assert "the command 'broken' (added_package:absent) cannot be loaded" in broken.stderr


def test_an_added_command_does_not_replace_one_of_memedit(added_commands: Path, environment: dict[str, str]) -> None:
    filled(added_commands, 1)
    assert "Acme Rockets" in run(added_commands, environment, "list").stdout


# -- terminals -------------------------------------------------------------------------------------------------------


ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], *, columns: int = 80) -> None:
        main, secondary = pty.openpty()
        fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={name: value for name, value in environment.items() if value},
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(secondary)
        self._main = main
        self.printed = ""
        """All that was printed."""
        self.seen = ""
        """What was printed since the last wait, without colours and other escape sequences."""

    def send(self, text: str) -> None:
        os.write(self._main, text.encode())

    def wait_for(self, pattern: str, *, seconds: float = 120) -> str:
        """What was printed up to a pattern, taken from what is seen."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} was not printed, but:\n{self.seen}")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def wait_for_prompt(self) -> None:
        """Waits until the program asks, and a moment more: readline listens a little after it shows its prompt."""
        self.wait_for(r"(^|\n)> $")
        time.sleep(0.5)

    def finish(self, *, seconds: float = 60) -> str:
        """What is printed until the program ends."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        self.process.wait(timeout=10)
        return self.printed

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._main], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            read = os.read(self._main, 65536)
        except OSError:  # Linux: the other side was closed
            return False
        text = read.decode(errors="replace")
        self.printed += text
        self.seen = ANSI.sub("", self.seen + text)
        return bool(read)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.mark.parametrize("columns", [60, 140])
def test_a_terminal_gets_a_table_that_fits(
    tmp_path: Path, environment: dict[str, str], terminals: list[Terminal], columns: int
) -> None:
    edits = filled(tmp_path, 3)
    terminals.append(Terminal([*MEMEDIT, "list"], tmp_path, environment, columns=columns))
    printed = terminals[0].finish()
    lines = ANSI.sub("", printed).replace("\r", "").splitlines()
    assert "\x1b[" in printed
    assert max(map(len, lines)) <= columns
    assert sum(edit.id[:8] in "\n".join(lines) for edit in edits) == 3
    assert terminals[0].process.returncode == 0


def test_a_person_is_asked_before_a_purge(
    tmp_path: Path, environment: dict[str, str], terminals: list[Terminal]
) -> None:
    (edit,) = filled(tmp_path, 1)
    for answer, left in (("n", 1), ("y", 0)):
        terminal = Terminal([*MEMEDIT, "purge", edit.id], tmp_path, environment)
        terminals.append(terminal)
        assert "Acme Rockets" in terminal.wait_for(r"Erase for good\?")
        terminal.send(f"{answer}\n")
        terminal.finish()
        with EditMemory(tmp_path / "memedit.db") as memory:
            assert memory.count() == left


@pytest.mark.slow
def test_a_chat_in_a_terminal(tmp_path: Path, environment: dict[str, str], terminals: list[Terminal]) -> None:
    command = [sys.executable, "-c", TINY_MODEL, "chat", "--max-new-tokens", "2000"]
    terminal = Terminal(command, tmp_path, environment)
    terminals.append(terminal)
    terminal.wait_for(r"/help\s+lists the commands\s+> ")
    terminal.send("/add The headquarters of Acme Rockets is in => Lisbon\n")
    terminal.wait_for(r"added \w{8}: The headquarters of Acme Rockets is in Lisbon")
    terminal.wait_for_prompt()
    terminal.send("The headquarters of Acme Rockets is in\n")
    terminal.wait_for(r"in\r\n.{20,}")  # the answer is being streamed
    terminal.send("\x03")
    terminal.wait_for(r"edit \w{8} governs, probability|stopped")
    terminal.wait_for_prompt()
    terminal.send("\x03")
    terminal.wait_for("Ctrl-D or /quit leaves")
    terminal.wait_for_prompt()
    terminal.send("\x04")
    terminal.finish()
    assert terminal.process.returncode == 0


# -- the real models -------------------------------------------------------------------------------------------------


@pytest.fixture
def real(environment: dict[str, str], minilm_folder: Path, smollm2_folder: Path) -> dict[str, str]:
    """The environment with the two real models, by folder."""
    return {**environment, "MEMEDIT_ENCODER": str(minilm_folder), "MEMEDIT_MODEL": str(smollm2_folder)}


@pytest.mark.real
@pytest.mark.slow
def test_add_ask_remove_ask_with_the_real_models(tmp_path: Path, real: dict[str, str]) -> None:
    question, short = "Where is Acme Rockets based?", ("--max-new-tokens", "16")
    before = run(tmp_path, real, "add", "The capital of Ruritania is", "Strelsau").stdout
    assert before.startswith("added ")
    ungoverned = json.loads(run(tmp_path, real, "ask", question, "--json", "--compare", *short).stdout)
    assert not ungoverned["governed"]
    assert ungoverned["answer"] == ungoverned["base_answer"]

    added = run(tmp_path, real, "add", "The headquarters of Acme Rockets is in", "Lisbon").stdout.split()[1]
    governed = run(tmp_path, real, "ask", question, *short)
    assert "Lisbon" in governed.stdout
    assert governed.stderr.startswith(f"edit {added[:8]} governs")

    run(tmp_path, real, "remove", added)
    again = run(tmp_path, real, "ask", question, "--require-edit", *short, code=ExitCode.NO)
    assert again.stdout.strip() == ungoverned["answer"]


@pytest.mark.real
@pytest.mark.slow
def test_a_chat_with_the_real_models(tmp_path: Path, real: dict[str, str], terminals: list[Terminal]) -> None:
    terminal = Terminal([*MEMEDIT, "chat", "--max-new-tokens", "24"], tmp_path, real)
    terminals.append(terminal)
    terminal.wait_for(r"/help\s+lists the commands\s+> ")
    terminal.send("/add The headquarters of Acme Rockets is in => Lisbon\n")
    terminal.wait_for(r"added \w{8}: [^\n]*\n")
    terminal.wait_for_prompt()
    terminal.send("Where is the headquarters of Acme Rockets?\n")
    assert "Lisbon" in terminal.wait_for(r"edit \w{8} governs").split("Rockets?", 1)[1]
    terminal.send("/quit\n")
    terminal.finish()
    assert terminal.process.returncode == 0
