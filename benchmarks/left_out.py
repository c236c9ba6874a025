"""The scope classifier with one source of its training data left out, on every development set.

    python -m benchmarks.left_out --data ../shared/data --out runs/left-out [--without alias,zsre] [--steps 400]

One classifier is trained for each source, without it, and one on all sources, by ``memedit train scope``'s own course
over fewer steps; all are measured as ``python -m benchmarks.scope`` measures. A column is a classifier, a row a kind of
probe: in scope the share for which the right edit fired, out of scope the share for which the own edit did (of ordinary
questions an edit about something else, of neighbours of CounterFact one of another fact). What a source does for the
sets of others is read along a row. A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scope import SETS, chosen_scope, filled_sets, measured, routed
from classifiers import SentenceEncoder
from memedit import resolve
from memedit.known_models import DEFAULT_ENCODER
from memedit.routing import Router
from training import scope

ALL = "all sources"
LEFT_OUT = ("counterfact", "zsre", "relations", "traffic", "alias", "bank")
STEPS, MOST = 400, 150


def trained(data: Path, out: Path, without: str, steps: int) -> Path:
    """Trains a classifier without a source, or with all of them, and gives its folder."""
    folder = out / without.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    vectors = out / "cache"
    vectors.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        # what is encoded differs only where facts are left out
        (folder / "cache").symlink_to(vectors.resolve(), target_is_directory=True)
    settings = scope.ScopeSettings()
    sources = settings.sources if without == ALL else replace(settings.sources, **{without: 0.0})
    loop = replace(settings.loop, steps=steps, evaluate_every=steps)
    scope.run(replace(settings, sources=sources, loop=loop), out=folder, data_folder=data)
    return folder


def headline(kind: str, figures: Mapping[str, float]) -> float:
    """The one figure of a kind of probe that is shown."""
    if kind == "unrelated":
        return figures["elsewhere"]
    return next(figures[name] for name in ("right", "another fact", "own fires") if name in figures)


def table_of(every: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Table:
    """The figures for a person, percent: a column for each classifier.

    Args:
        every: The figures by set, kind, and classifier.
    """
    names = list(dict.fromkeys(name for kinds in every.values() for found in kinds.values() for name in found))
    shown = Table("set", "probe", "probes", "", *(name if name == ALL else f"without {name}" for name in names))
    for each, kinds in every.items():
        for kind, found in kinds.items():
            first = found[names[0]]
            what = "right" if "right" in first else "fires"
            cells = [f"{100 * headline(kind, found[name]):.1f}" for name in names]
            shown.add_row(each, kind, f"{first['probes']:.0f}", what, *cells)
    return shown


def compared(
    data: Path, folders: Mapping[str, Path], sets: Sequence[str], most: int
) -> Iterator[tuple[str, dict[str, dict[str, dict[str, float]]]]]:
    """Each set with its figures, by kind and classifier."""
    base = Path(resolve(DEFAULT_ENCODER))
    encoder = SentenceEncoder(base)
    scopes = {name: chosen_scope(str(folder), base) for name, folder in folders.items()}
    for one in filled_sets(encoder, data, sets, most=most):
        kinds: dict[str, dict[str, dict[str, float]]] = {}
        for name, classifier in scopes.items():
            asked = list(routed(Router(one.memory, encoder, classifier), one.cases, one.ids, limit=None))
            for kind, figures in measured(asked).items():
                kinds.setdefault(kind, {})[name] = figures
        yield one.name, kinds


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the classifiers are trained")
    parser.add_argument("--without", default=",".join(LEFT_OUT), help=f"sources to leave out, of {', '.join(LEFT_OUT)}")
    parser.add_argument("--steps", type=int, default=STEPS, help="how many steps each is trained")
    parser.add_argument("--sets", default=",".join((*SETS, "traffic")))
    parser.add_argument("--most", type=int, default=MOST, help="most probes of a kind")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    console = Console(width=160)
    arguments.out.mkdir(parents=True, exist_ok=True)
    folders: dict[str, Path] = {}
    for without in (ALL, *arguments.without.split(",")):
        folders[without] = trained(arguments.data, arguments.out, without, arguments.steps)
        console.print(f"trained: {without if without == ALL else f'without {without}'}", highlight=False)
    every: dict[str, Any] = {}
    for name, kinds in compared(arguments.data, folders, arguments.sets.split(","), arguments.most):
        every[name] = kinds
        if arguments.json:
            arguments.json.write_text(json.dumps(every, indent=1))
    console.print(table_of(every))


if __name__ == "__main__":
    main()
