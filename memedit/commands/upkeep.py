"""``verify`` and ``reindex``: is the memory sound, and what to do after a change of encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands.exits import ExitCode
from memedit.commands.options import ConfigOption, EncoderOption, JsonOption, MemoryOption
from memedit.commands.render import counted
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memory_store import VerifyReport

__all__ = ["reindex", "verify"]


def verify(
    ctx: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild the index where it is wrong.")] = False,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a memory: the database, every edit, every vector, the index. Exits with 1 if something is wrong."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory)
    with session.memory() as opened:
        report = opened.verify(repair=repair)
    if as_json:
        session.output.json(_report_json(report))
    else:
        _tell(session, report, repair=repair)
    if not report.ok:
        raise typer.Exit(ExitCode.NO)


def reindex(
    ctx: typer.Context,
    memory: MemoryOption = None,
    encoder: EncoderOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode every edit again and rebuild the index, as is needed after a change of encoder."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory, encoder=encoder)
    with session.memory(encoder=True, reencode=True) as opened:
        count = opened.stats().vectors
    if as_json:
        session.output.json({"vectors": count, "encoder": session.config.encoder})
    else:
        session.output.line(f"{counted(count, 'vector')} made with {session.config.encoder}")


def _report_json(report: VerifyReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "problems": list(report.problems),
        "repaired": list(report.repaired),
        "edits": report.edits,
        "vectors": report.vectors,
        "changes": report.changes,
        "indexes": report.indexes,
    }


def _tell(session: Session, report: VerifyReport, *, repair: bool) -> None:
    read = [(report.edits, "edit"), (report.vectors, "vector"), (report.changes, "change")]
    verdict = "ok" if report.ok else counted(len(report.problems), "problem")
    for problem in report.repaired:
        session.output.text(f"repaired: {problem}")
    for problem in report.problems:
        session.output.text(f"problem: {problem}")
    session.output.line(f"{verdict}: {', '.join(counted(*one) for one in read)} read")
    if not report.ok and not repair:
        session.output.note("memedit verify --repair rebuilds what can be rebuilt")
