"""What becomes of a model as edits are made one after the other: one figure from a run's ``results.json``.

    memedit eval --methods rome,ft-m,serac --data counterfact:dev --edits 1,10,100 --limit 10 --sequential --ability
        --out runs/curve
    python -m benchmarks.curve runs/curve/results.json --out docs/sequential-edits

Above, the share of edit prompts that are answered with the new target when all edits are in place; below it the share
of neighbours that are answered as before; at the bottom the perplexity of the sentences of ME-PPL, with the unedited
model's as a line. Written as SVG and PNG.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from memedit.evaluation.figures import EvalReport
from memedit.evaluation.figures import Figure as Number
from memedit.evaluation.files import read_report
from memedit.locate.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = (
    ("#0072b2", "-", "o"),
    ("#d55e00", "-", "D"),
    ("#009e73", "--", "s"),
    ("#e69f00", "--", "^"),
    ("#cc79a7", "-", "P"),
    ("#56b4e9", ":", "v"),
    ("#000000", ":", "X"),
    ("#999999", "-.", "*"),
)
"""A colour, a dash and a mark for each method (Okabe and Ito 2008: colour-blind readers tell them apart)."""

PANELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("edits answered (%)", {"measure": "reliability", "kind": None, "reading": "anywhere"}),
    ("neighbours unchanged (%)", {"measure": "locality", "kind": None, "reading": "identical"}),
    ("perplexity, ME-PPL", {"measure": "ability", "kind": "ME-PPL", "reading": None}),
)
"""What is drawn, from above: how it is called, and what finds its numbers in a report."""


def points(report: EvalReport, method: str, wanted: dict[str, Any]) -> list[Number]:
    """A method's numbers by how many edits were made."""
    found = report.find(method=method, protocol="free", **wanted)
    return sorted((one for one in found if one.edits), key=lambda one: one.edits)


def curve(report: EvalReport) -> Figure:
    """The figure; methods without a number in a panel are left out of it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    methods = [name for name in report.methods if name != "base"]
    sizes = sorted({one.edits for one in report.figures if one.edits})
    with mpl.rc_context({"font.size": 8.5, "axes.titlesize": 9}):
        figure = Figure(figsize=(6.4, 7.2), layout="constrained")
        axes = figure.subplots(len(PANELS), 1, sharex=True)
        for axis, (title, wanted) in zip(axes, PANELS, strict=True):
            share = wanted["measure"] != "ability"
            for method, (colour, dash, mark) in zip(methods, LOOKS, strict=False):
                found = points(report, method, wanted)
                if found:
                    values = [100 * one.value if share else one.value for one in found]
                    axis.plot(
                        [one.edits for one in found], values, color=colour, linestyle=dash, marker=mark, label=method
                    )
            axis.set_ylabel(title)
            axis.set_xscale("log")
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.grid(visible=True, alpha=0.3)
            if share:
                axis.set_ylim(-4, 104)
            else:
                axis.set_yscale("log")
                before = [one.before for one in report.find(**wanted) if one.before]
                if before:
                    axis.axhline(before[0], color="#999999", linewidth=0.8)
        axes[0].legend(ncols=2, fontsize=7.5)
        axes[-1].set_xlabel("edits made, one after the other")
    return figure


def main() -> None:
    """Draw the figure of a run."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("docs/sequential-edits"))
    given = arguments.parse_args()
    png, svg = save_figure(curve(read_report(given.results)), given.out)
    Console().print(f"written: {svg}, {png}")


if __name__ == "__main__":
    main()
