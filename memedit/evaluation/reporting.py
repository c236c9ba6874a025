"""From a run's folder to its report: every figure over everything that is in the folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any, TypeVar

from memedit.errors import ConfigError
from memedit.evaluation.ability import Ability, ChoiceScore, TextScore
from memedit.evaluation.figures import EvalReport, Figure, Unit
from memedit.evaluation.measures import comparability, facts_of, figures_of, in_order, summaries
from memedit.evaluation.results import CaseResult, Cell
from memedit.evaluation.routing_measures import calibration_of, risk_of, routing_figures
from memedit.evaluation.runfolder import RunFolder

__all__ = ["report_of"]

T = TypeVar("T")


def report_of(folder: RunFolder) -> tuple[EvalReport, dict[Cell, list[CaseResult]]]:
    """Work out a run's report.

    Args:
        folder: The run.

    Returns:
        The report, and the results by cell that it was worked out of.

    Raises:
        ConfigError: Nothing was run in the folder.
        DataFileError: A file of it cannot be read.
    """
    run = folder.read()
    if run is None:
        raise ConfigError(f"{folder.path} holds no run; memedit eval ... --out makes one.")
    results = {cell: list(folder.results(cell).values()) for cell in folder.cells(run)}
    methods: Mapping[str, Any] = run["facts"]["methods"]
    figures = (
        *figures_of(results, methods),
        *routing_figures(results, methods),
        *_abilities(folder, results, methods),
    )
    goes = run["runs"]
    last: Mapping[str, Any] = goes[-1] if goes else {}
    report = EvalReport(
        config=run["settings"],
        provenance={
            "command": last.get("command"),
            "revision": last.get("revision"),
            "versions": last.get("versions", {}),
            "machine": last.get("machine", {}),
            "model_fingerprint": run["facts"]["model"],
            "encoder_fingerprint": run["facts"]["encoder"],
            "data_sha256": run["facts"]["data"],
            "bad_records": run["facts"].get("bad_records", {}),
            "goes": [{name: go[name] for name in ("began", "seconds", "cases_asked", "workers")} for go in goes],
        },
        methods=methods,
        figures=in_order(figures),
        cells=(*summaries(results), *folder.skipped(run)),
        calibration=calibration_of(results, methods),
        risk=risk_of(results, methods),
    )
    return report, results


def _abilities(folder: RunFolder, cells: Iterable[Cell], methods: Mapping[str, Any]) -> Iterator[Figure]:
    """The figures of general ability, the seeds of a cell together."""
    seeds: dict[Cell, dict[int, Ability]] = {}
    for cell in cells:
        ability = folder.ability(cell)
        if ability is not None:
            seeds.setdefault(replace(cell, seed=0), {})[cell.seed] = ability
    for cell, by_seed in seeds.items():
        for name, kind in (("wikitext", "WikiText-2"), ("me_ppl", "ME-PPL")):
            texts: dict[int, TextScore] = _parts(by_seed, name)
            if texts:
                perplexities = {seed: (one.perplexity, one.before) for seed, one in texts.items()}
                over = {"cases": _first(texts).texts, "count": _first(texts).tokens}
                yield _figure(cell, methods, kind, None, "perplexity", perplexities, over)
                drifts = {seed: (one.kl_per_token, None) for seed, one in texts.items()}
                yield _figure(cell, methods, kind, "kl a token", "nats", drifts, over)
        choices: dict[int, ChoiceScore] = _parts(by_seed, "mmlu")
        if choices:
            shares = {seed: (one.accuracy, one.before) for seed, one in choices.items()}
            over = {"cases": _first(choices).questions, "count": _first(choices).questions}
            yield _figure(cell, methods, "MMLU", None, "share", shares, over)


def _figure(
    cell: Cell,
    methods: Mapping[str, Any],
    kind: str,
    reading: str | None,
    unit: Unit,
    by_seed: Mapping[int, tuple[float, float | None]],
    over: Mapping[str, int],
) -> Figure:
    """The mean over the seeds, each with what the unedited model has."""
    before = [earlier for _, earlier in by_seed.values() if earlier is not None]
    return Figure(
        dataset=cell.dataset,
        method=cell.method,
        protocol=cell.protocol,
        comparability=comparability(cell, facts_of(cell.method, methods)),
        edits=cell.edits,
        sequential=cell.sequential,
        measure="ability",
        kind=kind,
        reading=reading,
        value=fmean(value for value, _ in by_seed.values()),
        unit=unit,
        before=fmean(before) if before else None,
        by_seed={seed: value for seed, (value, _) in by_seed.items()},
        cases=over["cases"],
        count=over["count"],
    )


def _parts(by_seed: Mapping[int, Ability], name: str) -> dict[int, Any]:
    return {seed: part for seed, one in by_seed.items() if (part := getattr(one, name)) is not None}


def _first(parts: Mapping[int, T]) -> T:
    return next(iter(parts.values()))
