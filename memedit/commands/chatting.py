"""``chat``: a conversation with the edited model, in which facts can be changed between two questions."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer
from rich.cells import cell_len

from memedit.commands.exits import CommandError, ExitCode, describe
from memedit.commands.explaining import governed_by, show_explanation
from memedit.commands.options import (
    ConfigOption,
    EncoderOption,
    MaxNewTokensOption,
    MemoryOption,
    ModelOption,
    ModeOption,
    NamespaceOption,
)
from memedit.commands.output import printable
from memedit.commands.render import counted, edit_row, edit_table, short_id
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memedit.model import EditedModel

__all__ = ["WordWrap", "chat"]

PROMPT = "> "
ARROW = "=>"


def chat(
    ctx: typer.Context,
    max_new_tokens: MaxNewTokensOption = None,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mode: ModeOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Talk with the edited model; /help lists what can be done between questions.

    Ctrl-C stops an answer, Ctrl-D leaves. Piped, each line of stdin is a question.
    """
    session = Session.start(
        ctx,
        config_file,
        memory=memory,
        namespace=namespace,
        model=model,
        encoder=encoder,
        mode=mode,
        generation=None if max_new_tokens is None else {"max_new_tokens": max_new_tokens},
    )
    with session.model(create=True) as edited:
        conversation = _Conversation(session, edited)
        session.output.note(_greeting(session, edited))
        for line in _lines(session):
            if not conversation.take(line):
                break


def _greeting(session: Session, edited: EditedModel) -> str:
    config = session.config
    count = edited.memory.count(namespace=config.namespace)
    within = "" if config.namespace == "default" else f", namespace {config.namespace}"
    mode = "" if config.mode == "ike" else f", mode {edited.mode} ({edited.mode_reason})"
    return f"{config.model}{mode}, {counted(count, 'edit')} in {config.memory}{within}; /help lists the commands"


def _lines(session: Session) -> Iterator[str]:
    """What the person types, line by line; white space and empty lines left out."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        import readline  # noqa: F401 - gives `input` editing and recall
    interrupted = False
    while True:
        try:
            line = input(PROMPT) if interactive else sys.stdin.readline()
        except EOFError:
            session.output.note("")
            return
        except KeyboardInterrupt:
            if interrupted or not interactive:
                raise
            interrupted = True
            session.output.note("\nonce more, Ctrl-D or /quit leaves")
            continue
        if not line and not interactive:
            return
        interrupted = False
        if line.strip():
            yield line.strip()


class WordWrap:
    """Breaks text at words while it comes in pieces; the last word is held back until it is whole.

    Args:
        width: Columns of the terminal; None leaves the text as it is.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._column = 0
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be printed once this piece has come."""
        if self._width is None:
            return piece
        *whole, self._held = re.split(r"(?<=\s)(?=\S)", self._held + piece)
        return "".join(map(self._placed, whole))

    def end(self) -> str:
        """What is left to print."""
        return self._placed(self._held)

    def _placed(self, word: str) -> str:
        """The word with the white space behind it, on a new line where it would not fit on this one."""
        width = cell_len(word.rstrip())
        before = ""
        if self._width is not None and self._column and self._column + width > self._width:
            before, self._column = "\n", 0
        if "\n" in word:
            self._column = 0
        else:
            self._column += cell_len(word)
        return before + word


@dataclass(slots=True)
class _Conversation:
    """The turns so far, and what is done with each line."""

    session: Session
    edited: EditedModel
    messages: list[dict[str, str]] = field(default_factory=list)

    def take(self, line: str) -> bool:
        """Answers a question or carries out a command; False where the person leaves.

        An error that is not a defect is told, and the conversation goes on; so it does after Ctrl-C.
        """
        try:
            return self._command(line) if line.startswith("/") else self._answer(line)
        except KeyboardInterrupt:
            self.session.output.note("\nstopped")
            return True
        except Exception as error:
            failure = describe(error)
            if failure.code is ExitCode.DEFECT:
                raise
            self.session.output.fail(failure)
            return True

    def _answer(self, question: str) -> bool:
        turns = [*self.messages, {"role": "user", "content": question}]
        decision = self.edited.decide(turns)
        limit = self.session.config.generation.max_new_tokens
        pieces = self.edited.chat(turns, stream=True, max_new_tokens=limit)
        answer = self._stream(pieces)
        self.session.output.note(governed_by(decision))
        self.messages = [*turns, {"role": "assistant", "content": answer}]
        return True

    def _stream(self, pieces: Iterator[str]) -> str:
        """Prints an answer as it comes; Ctrl-C ends it early."""
        answer = ""
        wrapped = WordWrap(self.session.output.out.width if self.session.output.for_person else None)
        try:
            for piece in pieces:
                answer += piece
                sys.stdout.write(wrapped.feed(printable(piece)))
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.stdout.write(wrapped.feed(" ..."))
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        sys.stdout.write(wrapped.end() + "\n")
        sys.stdout.flush()
        return answer.strip()

    def _command(self, line: str) -> bool:
        name, _, rest = line[1:].partition(" ")
        command = _COMMANDS.get(name)
        if command is None:
            raise CommandError(f"there is no command /{name}", code=ExitCode.USAGE, hint="/help lists the commands")
        if command.needs and not rest.strip():
            raise CommandError(f"/{name} needs {command.needs}", code=ExitCode.USAGE, hint="/help shows how")
        command.run(self, rest.strip())
        return name != "quit"

    def add(self, text: str) -> None:
        """Adds ``PROMPT => TARGET``."""
        prompt, arrow, target = (part.strip() for part in text.partition(ARROW))
        if not arrow or not prompt or not target:
            raise CommandError(f"{text!r} is not PROMPT {ARROW} TARGET", code=ExitCode.USAGE)
        result = self.edited.memory.add(prompt, target, namespace=self.session.config.namespace)
        self.session.output.note(f"{result.outcome} {short_id(result.edit.id)}: {result.edit.fact}")
        for other in result.superseded:
            self.session.output.note(f"superseded {short_id(other)}")

    def remove(self, edit_id: str) -> None:
        """Removes an edit."""
        edit = self.edited.remove(edit_id)
        self.session.output.note(f"removed {short_id(edit.id)}: {edit.fact}")

    def restore(self, edit_id: str) -> None:
        """Restores an edit."""
        edit = self.edited.restore(edit_id)
        self.session.output.note(f"restored {short_id(edit.id)}: {edit.fact}")

    def edits(self, contains: str) -> None:
        """Lists the edits in force."""
        found = self.edited.memory.list(namespace=self.session.config.namespace, contains=contains or None)
        if not found:
            self.session.output.note("no edits")
        elif self.session.output.for_person:
            self.session.output.show(edit_table(found, now=self.session.now))
        else:
            for edit in found:
                self.session.output.line(edit_row(edit, now=self.session.now))

    def explain(self, question: str) -> None:
        """Explains how a question, or the last one, is answered."""
        if question:
            show_explanation(self.session.output, self.edited.explain(question))
        elif self.messages:
            show_explanation(self.session.output, self.edited.explain(self.messages[:-1]))
        else:
            raise CommandError("nothing was asked yet", code=ExitCode.USAGE, hint="/explain QUESTION")

    def new(self, _: str) -> None:
        """Forgets the conversation."""
        self.messages = []
        self.session.output.note("a new conversation; the edits stay")

    def help(self, _: str) -> None:
        """Lists the commands."""
        for command in _COMMANDS.values():
            self.session.output.note(f"{command.usage:<26} {command.help}")

    def quit(self, _: str) -> None:
        """Leaves."""


@dataclass(frozen=True, slots=True)
class _Command:
    """A command of the conversation."""

    usage: str
    help: str
    run: Callable[[_Conversation, str], None]
    needs: str = ""


_COMMANDS: Mapping[str, _Command] = {
    "add": _Command(f"/add PROMPT {ARROW} TARGET", "add an edit", _Conversation.add, f"PROMPT {ARROW} TARGET"),
    "remove": _Command("/remove ID", "remove an edit", _Conversation.remove, "an edit's id"),
    "restore": _Command("/restore ID", "restore an edit", _Conversation.restore, "an edit's id"),
    "edits": _Command("/edits [TEXT]", "list the edits, or those with a text in them", _Conversation.edits),
    "explain": _Command(
        "/explain [QUESTION]", "why the last answer, or one to another question", _Conversation.explain
    ),
    "new": _Command("/new", "begin a new conversation", _Conversation.new),
    "help": _Command("/help", "this list", _Conversation.help),
    "quit": _Command("/quit", "leave (so does Ctrl-D)", _Conversation.quit),
}
