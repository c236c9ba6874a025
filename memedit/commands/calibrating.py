"""``calibrate``: the threshold of a namespace, chosen from ordinary traffic, shown, or forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memedit.commands.exits import ExitCode
from memedit.commands.options import (
    ConfigOption,
    EncoderOption,
    JsonOption,
    MemoryOption,
    NamespaceOption,
)
from memedit.commands.render import counted, plain_row, properties, short_id
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from datetime import datetime

    from memedit.calibrating import Calibration, Firing
    from memedit.routing import Router
    from memedit.thresholds import ChosenThreshold, NamespaceThreshold
    from memedit.traffic import Traffic
    from memory_store import EditMemory

__all__ = ["calibrate"]


def calibrate(
    ctx: typer.Context,
    traffic: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ordinary prompts, as users send them: JSON lines with prompt, question or messages, or one a line.",
        ),
    ] = None,
    max_false_fire: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of wrongly governed prompts to keep.")
    ] = 0.01,
    confidence: Annotated[float, typer.Option(metavar="SHARE", help="With what confidence.")] = 0.95,
    room_for: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many edits there may be later.", show_default="twice as many as there are"
        ),
    ] = None,
    governed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts that an edit governs rightly; they are left out of the traffic."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; keep the threshold as it is.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show the threshold; exit with 1 if its promise no longer holds.")
    ] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the classifier's own threshold.")] = False,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    encoder: EncoderOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose a namespace's threshold from ordinary prompts, so that false fires stay rare.

    With the confidence given, of prompts like these at most the share given is wrongly governed. The prompts need no
    labels. The threshold is kept with the memory; where there is too little traffic to promise it, nothing is changed.

    Example: memedit calibrate --traffic prompts.jsonl --max-false-fire 0.01
    """
    if [traffic is not None, show, reset].count(True) != 1:
        raise typer.BadParameter("give one of --traffic FILE, --show and --reset")
    for name, share in (("--max-false-fire", max_false_fire), ("--confidence", confidence)):
        if not 0.0 < share < 1.0:
            raise typer.BadParameter(f"{share} does not lie between 0 and 1, both excluded", param_hint=name)
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory, namespace=namespace, encoder=encoder)
    if show:
        _show(session)
    elif reset:
        _reset(session)
    elif traffic is not None:
        prompts = _read(traffic, governed)
        wanted = _Wanted(max_false_fire, confidence, room_for, keep=not dry_run)
        _tell(session, _calibrate(session, prompts, wanted))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be promised."""

    max_false_fire: float
    confidence: float
    room_for: int | None
    keep: bool


def _read(traffic: Path, governed: Path | None) -> Traffic:
    from memedit.traffic import read_traffic

    prompts = read_traffic(traffic)
    if governed is None:
        return prompts
    return prompts.marked({one.query for one in read_traffic(governed).prompts})


def _calibrate(session: Session, traffic: Traffic, wanted: _Wanted) -> Calibration:
    from memedit.calibrating import calibrate as choose

    with session.memory(encoder=True) as opened, session.output.progress() as progress:
        return choose(
            _router(opened, session.config.namespace),
            traffic,
            max_false_fire=wanted.max_false_fire,
            confidence=wanted.confidence,
            room_for=wanted.room_for,
            keep=wanted.keep,
            progress=progress,
        )


def _router(memory: EditMemory, namespace: str) -> Router:
    """The router that an edited model over this memory has."""
    from memedit.errors import ConfigError
    from memedit.loading import default_scope
    from memedit.routing import Router

    if memory.encoder is None:
        raise ConfigError(f"The memory {memory.path} was opened without an encoder, so no prompt can be routed.")
    return Router(memory, memory.encoder, default_scope(memory.encoder.fingerprint), namespaces=(namespace,))


def _tell(session: Session, found: Calibration) -> None:
    output = session.output
    if output.as_json:
        output.json(
            {
                "namespace": found.namespace,
                "threshold": found.chosen.threshold,
                "before": found.before.threshold,
                "kept": found.kept,
                "chosen": found.chosen.to_json(),
                "distinct_prompts": found.distinct,
                "highest": [_firing_json(firing) for firing in found.highest],
            }
        )
        return
    chosen = found.chosen
    values = {
        "threshold": f"{chosen.threshold:.6g} (before: {found.before.threshold:.6g}, {found.before.origin})",
        **_promise(chosen),
        "fires": f"{chosen.fires:,} of {counted(chosen.prompts, 'prompt')} ({found.distinct:,} different)",
    }
    properties(output, {name: value for name, value in values.items() if value})
    for place, firing in enumerate(found.highest, start=1):
        shown = [f"{firing.probability:.6g}", short_id(firing.edit.id), firing.edit.fact, firing.prompt]
        properties(output, {f"highest {place}": plain_row(["  ".join(shown)])})
    if found.highest:
        output.note(
            'mark those that an edit governs rightly ("in_scope": true, or --governed FILE): they make the threshold '
            "stricter than need be"
        )
    if not found.kept:
        output.note("dry run: the threshold was left as it is")


def _show(session: Session) -> None:
    from memedit.loading import default_scope
    from memedit.routing import DEFAULT_CANDIDATES
    from memedit.thresholds import NamespaceThreshold, kept_threshold, threshold_history

    namespace = session.config.namespace
    with session.memory() as opened:
        kept = kept_threshold(opened, namespace)
        fingerprint = opened.stats().encoder_fingerprint
        edits = opened.count(namespace=namespace, include_expired=False)
        history = threshold_history(opened, namespace)
    found = NamespaceThreshold.of(namespace, kept, default_scope(fingerprint), encoder_fingerprint=fingerprint)
    doubt = found.unused
    if kept is not None and found.in_force:
        doubt = kept.doubt(edits=edits, candidates=DEFAULT_CANDIDATES)
    if session.output.as_json:
        session.output.json(
            {
                "namespace": namespace,
                "threshold": found.threshold,
                "origin": found.origin,
                "in_force": found.in_force,
                "doubt": doubt,
                "edits": edits,
                "chosen": None if kept is None else kept.to_json(),
                "history": [
                    {"at": at.isoformat(), "chosen": None if one is None else one.to_json()} for at, one in history
                ],
            }
        )
    else:
        _show_lines(session, found, edits, history)
        if doubt is not None:
            session.output.note(f"warning: {doubt}", style="yellow")
    if doubt is not None:
        raise typer.Exit(ExitCode.NO)


def _show_lines(
    session: Session,
    found: NamespaceThreshold,
    edits: int,
    history: list[tuple[datetime, ChosenThreshold | None]],
) -> None:
    values = {
        "namespace": found.namespace,
        "threshold": f"{found.threshold:.6g}, {found.origin}",
        "edits": f"{edits:,}",
    }
    if found.chosen is not None:
        chosen = found.chosen
        values |= _promise(chosen)
        values |= {
            "fired": f"{chosen.fires:,} of {counted(chosen.prompts, 'prompt')}",
            "traffic": f"{chosen.traffic}, {chosen.traffic_bytes:,} bytes, SHA-256 {chosen.traffic_sha256}",
            "classifier": f"{chosen.classifier}, {chosen.classifier_fingerprint}",
            "encoder": chosen.encoder_fingerprint,
            "version": chosen.version,
        }
    earlier = history[:-1] if found.chosen is not None else history
    values["earlier"] = "\n".join(
        f"{at:%Y-%m-%d %H:%M} " + ("forgotten" if one is None else f"{one.threshold:.6g}, {one.origin}")
        for at, one in earlier
    )
    properties(session.output, {name: value for name, value in values.items() if value})


def _reset(session: Session) -> None:
    from memedit.loading import default_scope
    from memedit.thresholds import forget_threshold

    namespace = session.config.namespace
    with session.memory() as opened:
        forgotten = forget_threshold(opened, namespace)
        fingerprint = opened.stats().encoder_fingerprint
    own = default_scope(fingerprint).threshold
    if session.output.as_json:
        session.output.json({"namespace": namespace, "threshold": own, "forgotten": forgotten})
    else:
        session.output.line(
            f"{'forgotten' if forgotten else 'unchanged'}: the threshold is the classifier's own, {own:.6g}"
        )


def _promise(chosen: ChosenThreshold) -> dict[str, str]:
    from memedit.thresholds import percent

    return {
        "promise": (
            f"at most {percent(chosen.max_false_fire)} of prompts like these wrongly governed, "
            f"with a confidence of {percent(chosen.confidence)}"
        ),
        "room": f"for {counted(chosen.room_for, 'edit')}; {chosen.edits:,} when it was chosen",
        "marked": f"{counted(chosen.in_scope, 'prompt')} as in scope, left out" if chosen.in_scope else "",
    }


def _firing_json(firing: Firing) -> dict[str, Any]:
    return {
        "prompt": firing.prompt,
        "probability": firing.probability,
        "edit_id": firing.edit.id,
        "fact": firing.edit.fact,
    }
