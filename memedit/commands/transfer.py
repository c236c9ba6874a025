"""``import`` and ``export``: edits from files and to files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from memedit.commands.exits import CommandError, ExitCode
from memedit.commands.options import (
    AllNamespacesOption,
    ConfigOption,
    EncoderOption,
    JsonOption,
    MemoryOption,
    NamespaceOption,
    OnConflictOption,
)
from memedit.commands.render import counted
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memedit.edit_files import BadRecord
    from memory_store import JSON, Edit, EditMemory

__all__ = ["export_edits", "import_edits"]

_CHUNK = 256
"""Edits committed at once; an interrupted import goes on after the last chunk."""

_MOST_LISTED = 20
"""More bad records than this are counted, not listed, for a person."""


def import_edits(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A JSON lines or CSV file; - reads JSON lines from stdin.",
            show_default=False,
        ),
    ],
    format: Annotated[  # noqa: A002 - becomes --format
        Literal["jsonl", "csv"] | None,
        typer.Option(help="The file's format.", show_default="from its ending"),
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="Columns by field, such as prompt=question,target=answer; others are left out.",
        ),
    ] = None,
    on_conflict: OnConflictOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Import the rest where records are wrong or conflict.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file.")] = False,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    encoder: EncoderOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import edits from a file of JSON lines or CSV.

    A file is checked as a whole before anything is imported (a pipe is not). Importing the same file
    again passes over what is there, so an interrupted import is just run again. Edits that an export marks as
    removed or superseded are passed over too.

    CSV: the first row names the columns; several aliases or paraphrases in a cell are separated by |; a
    column metadata.NAME is an entry of the metadata.
    """
    session = Session.start(
        ctx,
        config_file,
        as_json=as_json,
        memory=memory,
        namespace=namespace,
        encoder=encoder,
        on_conflict=on_conflict,
    )
    source = _Source(file, format, _parse_mapping(mapping), session.config.namespace)
    total = None
    if dry_run or source.can_be_read_twice:
        tally = _check(source, skip_bad=skip_bad)
        total = tally.valid
    if not dry_run:
        tally = _import(session, source, total, skip_bad=skip_bad)
    _tell(session, tally, dry_run=dry_run)


def export_edits(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The file to write; - is stdout.", show_default=False)
    ] = Path("-"),
    contains: Annotated[str | None, typer.Option(metavar="TEXT", help="Only edits with this text in them.")] = None,
    subject: Annotated[str | None, typer.Option(metavar="NAME", help="Only edits about this subject.")] = None,
    source: Annotated[str | None, typer.Option(metavar="TEXT", help="Only edits from this source.")] = None,
    author: Annotated[str | None, typer.Option(metavar="NAME", help="Only edits of this author.")] = None,
    all_states: Annotated[
        bool,
        typer.Option("--all-states", help="Removed and superseded edits too, as a record; import passes over them."),
    ] = False,
    all_namespaces: AllNamespacesOption = False,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export edits as JSON lines, which import reads back.

    A file is replaced in one step, once all of it is written. --json tells how many edits a file got; on
    stdout the edits themselves are JSON already.
    """
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory, namespace=namespace)
    with session.memory() as opened:
        edits = opened.iterate(
            namespace=None if all_namespaces else session.config.namespace,
            state=None if all_states else "active",
            subject=subject,
            source=source,
            author=author,
            contains=contains,
        )
        _write(session, edits, file)
        settings = opened.namespace_settings()
    _tell_of_thresholds(session, settings, None if all_namespaces else session.config.namespace)


def _tell_of_thresholds(session: Session, settings: Mapping[str, Mapping[str, JSON]], namespace: str | None) -> None:
    """Says that a chosen threshold, which counts for this memory alone, does not go along."""
    from memedit.thresholds import SETTING

    chosen = [name for name, kept in settings.items() if SETTING in kept and namespace in {None, name}]
    if chosen:
        session.output.note(
            f"not exported: the threshold chosen for {', '.join(chosen)}; where these edits are imported, choose one "
            "anew (memedit calibrate)"
        )


def _write(session: Session, edits: Iterable[Edit], file: Path) -> None:
    from memedit.edit_files import write_edits

    if str(file) == "-":
        write_edits(edits, sys.stdout.buffer)
        return
    written = write_edits(edits, file)
    if session.output.as_json:
        session.output.json({"exported": written, "file": str(file)})
    else:
        session.output.note(f"{counted(written, 'edit')} exported to {file}", style="")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file of edits and how it is read."""

    file: Path
    format: Literal["jsonl", "csv"] | None
    mapping: dict[str, str] | None
    namespace: str

    @property
    def is_stdin(self) -> bool:
        """Whether the edits come from stdin."""
        return str(self.file) == "-"

    @property
    def can_be_read_twice(self) -> bool:
        """Whether it is a file on disk, not a pipe."""
        return not self.is_stdin and (self.file.is_file() or not self.file.exists())

    @property
    def name(self) -> str:
        """What the progress bar calls it."""
        return "stdin" if self.is_stdin else self.file.name

    def open(self) -> BinaryIO:
        """The bytes of the file.

        Raises:
            CommandError: If there is no such file, or it cannot be read.
        """
        if self.is_stdin:
            return sys.stdin.buffer
        try:
            return self.file.open("rb")
        except FileNotFoundError:
            raise CommandError(f"there is no file {self.file}", code=ExitCode.NOT_FOUND) from None
        except OSError as error:
            raise CommandError(f"{self.file} cannot be read: {error.strerror}", code=ExitCode.REFUSED) from error

    def records(self, stream: BinaryIO) -> Iterator[Edit | BadRecord]:
        """The records of the stream."""
        from memedit.edit_files import format_of, read_edits

        known = self.format or ("jsonl" if self.is_stdin else format_of(self.file))
        return read_edits(stream, format=known, mapping=self.mapping, namespace=self.namespace)


@dataclass(slots=True)
class _Tally:
    """What became of the records of a file."""

    valid: int = 0
    inactive: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    bad: list[str] = field(default_factory=list)

    def edits(self, records: Iterable[Edit | BadRecord], *, stop_at_bad: bool) -> Iterator[Edit]:
        """The edits to import among some records; the others are counted."""
        from memedit.edit_files import BadRecord

        for record in records:
            if isinstance(record, BadRecord):
                self.bad.append(str(record))
                if stop_at_bad:
                    return
            elif record.state != "active":
                self.inactive += 1
            else:
                self.valid += 1
                yield record


def _check(source: _Source, *, skip_bad: bool) -> _Tally:
    """Reads the whole file without importing anything.

    Raises:
        CommandError: If a record is wrong and wrong ones are not skipped.
    """
    tally = _Tally()
    with source.open() as stream:
        for _ in tally.edits(source.records(stream), stop_at_bad=False):
            pass
    if tally.bad and not skip_bad:
        raise _refusal(tally.bad, "nothing was imported")
    return tally


def _import(session: Session, source: _Source, total: int | None, *, skip_bad: bool) -> _Tally:
    tally = _Tally()
    try:
        with (
            session.memory(encoder=True, create=True) as opened,
            source.open() as stream,
            session.output.progress() as progress,
        ):
            edits = tally.edits(source.records(stream), stop_at_bad=not skip_bad)
            progress(f"importing {source.name}", 0, total)  # at once: the first chunk waits for the encoder to load
            while chunk := list(islice(edits, _CHUNK)):
                _add_chunk(opened, chunk, tally, skip_bad=skip_bad)
                progress(f"importing {source.name}", tally.valid, total)
            if tally.bad and not skip_bad:
                raise _refusal(tally.bad, f"{counted(_committed(tally), 'edit')} before it are in the memory")
    except KeyboardInterrupt:
        done = counted(_committed(tally), "edit")
        session.output.note(f"interrupted with {done} in the memory; run the same command again to go on", style="")
        raise
    return tally


def _add_chunk(opened: EditMemory, chunk: list[Edit], tally: _Tally, *, skip_bad: bool) -> None:
    """Adds a chunk in one transaction, without the edits that conflict where those are skipped."""
    from memory_store import ConflictError

    while chunk:
        try:
            report = opened.add_many(chunk)
        except ConflictError as error:
            place = error.position
            if not skip_bad or place is None:
                raise
            tally.bad.append(str(error.__cause__ or error))
            chunk = chunk[:place] + chunk[place + 1 :]
            continue
        tally.added += report.added
        tally.updated += report.updated
        tally.unchanged += report.unchanged
        tally.superseded += report.superseded
        return


def _committed(tally: _Tally) -> int:
    return tally.added + tally.updated + tally.unchanged


def _refusal(bad: list[str], state: str) -> CommandError:
    others = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
    return CommandError(
        f"{bad[0]}{others}; {state}",
        code=ExitCode.REFUSED,
        hint="mend the file, or import the rest with --skip-bad (with --dry-run: list every bad record)",
    )


def _tell(session: Session, tally: _Tally, *, dry_run: bool) -> None:
    counts = {"added": tally.added, "updated": tally.updated, "unchanged": tally.unchanged}
    counts |= {"superseded": tally.superseded, "not active": tally.inactive, "bad": len(tally.bad)}
    if dry_run:
        counts = {"valid": tally.valid, "not active": tally.inactive, "bad": len(tally.bad)}
    if session.output.as_json:
        session.output.json(
            {"dry_run": dry_run, **{name.replace(" ", "_"): count for name, count in counts.items()}}
            | {"bad_records": tally.bad}
        )
        return
    for problem in tally.bad[:_MOST_LISTED]:
        session.output.note(f"skipped {problem}", style="yellow")
    if len(tally.bad) > _MOST_LISTED:
        session.output.note(f"skipped {len(tally.bad) - _MOST_LISTED:,} more (--json lists all)", style="yellow")
    first = next(iter(counts))
    session.output.line(", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == first))


def _parse_mapping(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    mapping = {}
    for part in text.split(","):
        name, equals, column = part.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise typer.BadParameter(f"{part!r} is not FIELD=COLUMN", param_hint="--map")
        mapping[name.strip()] = column.strip()
    return mapping
