"""Whether the layer that causal tracing names is the best one to edit, as Hase et al. 2023 asked.

    python -m benchmarks.traced_layer --data ../shared/data --out runs/traced-layer

Facts that SmolLM2 knows are traced at the last token of their subject, and each is edited by ROME at several layers, to
another answer of its relation. An edit at a layer is scored by the harmonic mean of three numbers: the target's
probability behind the edit's prompt; behind a rephrasing, another template of the relation, of several the one that the
unedited model answers best; and the share of neighbours kept, known facts of the same relation about others that are
still answered as before. ROME is configured as it comes, but for the layer, for plain prompts in the place of a chat,
since that is how facts are traced, and for two contexts, which take less time than five. Values are fitted many facts
at a time, and come out as they would one by one.

All is kept in the folder as it is made; a run that was stopped goes on when it is started again. Hase et al.: *Does
Localization Inform Editing? Surprising Differences in Causality-Based Localization vs. Knowledge Editing in Language
Models*.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from memedit.architectures import architecture_of
from memedit.continuation import continuation
from memedit.editors.activations import activations
from memedit.editors.located import FactLocator, LocatedFact
from memedit.editors.rome import RomeConfig, default_config, direction_of, least_update
from memedit.editors.subject import Subject
from memedit.editors.target_values import target_values
from memedit.editors.weights import output_projection
from memedit.errors import ConfigError
from memedit.evaluation.answering import Answerer, Rating, Row
from memedit.evaluation.files import write_atomically
from memedit.evaluation.statistics import Interval, bootstrap_interval
from memedit.hooks import restored
from memedit.known_models import DEFAULT_MODEL
from memedit.locate.answers import answers_known
from memedit.locate.figures import save_figure
from memedit.locate.noise import draw
from memedit.locate.precision import computing
from memedit.locate.recording import record
from memedit.locate.records import Fact
from memedit.locate.restoring import Kind, Restorer, restorations
from memedit.locate.tracing import TraceConfig, Tracer
from memedit.subject_tokens import subject_tokens
from memory_store import Edit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAYERS = (3, 8, 13, 23)
"""Where each fact is edited."""
KINDS: tuple[Kind, ...] = ("mlp", "hidden")
ASKED = 448
"""Facts of the file, from its beginning, that the model is asked."""
NEIGHBOURS = 3
"""The most neighbours of a fact."""
TOGETHER = 10
"""Facts whose values are fitted together."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A fact of the file.

    Attributes:
        fact: The fact.
        relation: What is told of the subject, such as ``P36``.
        template: Its prompt with ``{}`` in the place of the subject.
    """

    fact: Fact
    relation: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A fact to edit.

    Attributes:
        fact: The fact.
        target: What the model is to say instead.
        rephrasing: Another prompt for the fact.
        neighbours: Facts of the same relation that the model knows, about others.
    """

    fact: Fact
    target: str
    rephrasing: str
    neighbours: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What an edit at one layer came to.

    Attributes:
        prompt: The fact's prompt.
        layer: The layer.
        edit: The probability of the target behind the prompt.
        rephrased: Behind the rephrasing.
        kept: The share of neighbours that are answered as before.
    """

    prompt: str
    layer: int
    edit: float
    rephrased: float
    kept: float

    @property
    def score(self) -> float:
        """The harmonic mean of the three."""
        numbers = (self.edit, self.rephrased, self.kept)
        return 3 / sum(1 / number for number in numbers) if all(numbers) else 0.0


def read_known(path: Path) -> list[Known]:
    """The facts of ROME's ``known_facts.jsonl``; templates are taken from prompts, since those there lack words."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        fact = Fact(prompt=row["prompt"], subject=row["subject"], answer=row["attribute"])
        template = fact.prompt.replace(fact.subject, "{}")
        found.append(Known(fact=fact, relation=row["relation_id"], template=template))
    return found


def chances(answerer: Answerer, asked: Sequence[tuple[str, str]]) -> list[Rating]:
    """How likely the model finds answers behind plain prompts."""
    tokenizer = answerer.subject.tokenizer
    ids = [tuple(tokenizer(prompt)["input_ids"]) for prompt, _ in asked]
    answers = [continuation(tokenizer, prompt, own, answer) for (prompt, answer), own in zip(asked, ids, strict=True)]
    return answerer.rate([Row(own) for own in ids], answers)


def probability(rating: Rating) -> float:
    """The probability of a whole answer."""
    return float(np.exp(sum(rating.log_probabilities)))


def tasks_of(answerer: Answerer, held: Sequence[Known], *, limit: int) -> list[Task]:
    """The first facts that the model knows, and that have a rephrasing, another answer and a neighbour."""
    model, tokenizer = answerer.subject.model, answerer.subject.tokenizer
    said: list[bool] = []
    for begin in range(0, len(held), 64):
        said += answers_known(model, tokenizer, [one.fact for one in held[begin : begin + 64]])
    known = [one for one, is_known in zip(held, said, strict=True) if is_known]
    tasks: list[Task] = []
    for one in known:
        fact, draws = one.fact, Random(one.fact.prompt)
        same = [other for other in held if other.relation == one.relation]
        templates = sorted({other.template for other in same} - {one.template})
        targets = sorted({str(other.fact.answer) for other in same} - {str(fact.answer)})
        about_others = {other.fact.subject: other.fact for other in known if other.relation == one.relation}
        others = [other for subject, other in sorted(about_others.items()) if subject != fact.subject]
        if len(tasks) == limit or not (templates and targets and others):
            continue
        prompts = [template.replace("{}", fact.subject) for template in templates]
        rated = chances(answerer, [(prompt, str(fact.answer)) for prompt in prompts])
        tasks.append(
            Task(
                fact=fact,
                target=draws.choice(targets),
                rephrasing=prompts[int(np.argmax([probability(rating) for rating in rated]))],
                neighbours=tuple(draws.sample(others, min(NEIGHBOURS, len(others)))),
            )
        )
    return tasks


def effects_of(tracer: Tracer, fact: Fact) -> dict[str, list[float]]:
    """By kind, the indirect effect of each layer at the subject's last token, as `Tracer.trace` has it."""
    model, tokenizer, config = tracer.model, tracer.tokenizer, tracer.config
    architecture, place = architecture_of(model), subject_tokens(tokenizer, fact.prompt, fact.subject)
    answer = continuation(tokenizer, fact.prompt, place.ids, str(fact.answer))[0]
    shape = {"samples": config.samples, "tokens": place.end - place.start, "width": model.config.hidden_size}

    def score(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1].float().softmax(dim=-1)[:, answer]

    with torch.no_grad(), computing(config.precision, model.device):
        noise = tracer.deviation * draw(fact.prompt, seed=config.seed, **shape)
        recording = record(model, architecture, place.ids, noise=noise, start=place.start)
        restorer = Restorer(model, architecture, recording, score=score, places=1, batch_tokens=config.batch_tokens)
        layers = len(recording.outputs)
        wanted = [one for kind in config.kinds for one in restorations(kind, layers, window=config.window)]
        gains = restorer.at(place.last, wanted).mean(dim=1) - score(recording.logits)[1:].mean()
    return dict(zip(config.kinds, gains.double().view(len(config.kinds), layers).tolist(), strict=True))


def changes_of(subject: Subject, tasks: Sequence[Task], config: RomeConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """For each task the parameter that ROME changes for it alone, by name, and its new value."""
    projection = output_projection(subject, config.layer)
    locate = FactLocator(subject, config)
    facts: list[LocatedFact] = [
        locate(Edit(prompt=task.fact.prompt, target=task.target, subject=task.fact.subject)) for task in tasks
    ]
    wanted = target_values(subject.model, facts, config, layer=config.layer, modules=[projection.module])
    sides = ((projection.module, False), (projection.module, True))
    weight = subject.model.get_parameter(projection.parameter).detach().clone()
    for fact, value in zip(facts, wanted, strict=True):
        prompts, places = [row.prompt for row in fact.rows], [row.place for row in fact.rows]
        read = activations(subject.model, prompts, places, sides)
        keys, now = (read[side].double() for side in sides)
        columns = (keys[0], value.double() - now[0], direction_of(keys.mean(dim=0), None))
        change = least_update(*(column[:, None] for column in columns))
        yield projection.parameter, weight + projection.turned(change).to(weight.dtype)


def asked_of(answerer: Answerer, task: Task, layer: int) -> Trial:
    """What the model says, a task's edit in it."""
    asked = [(task.fact.prompt, task.target), (task.rephrasing, task.target)]
    near = [(one.prompt, str(one.answer)) for one in task.neighbours]
    rated = chances(answerer, [*asked, *near])
    tokenizer = answerer.subject.tokenizer
    kept = [
        rating.likeliest == continuation(tokenizer, prompt, tokenizer(prompt)["input_ids"], answer)
        for (prompt, answer), rating in zip(near, rated[2:], strict=True)
    ]
    return Trial(
        prompt=task.fact.prompt,
        layer=layer,
        edit=probability(rated[0]),
        rephrased=probability(rated[1]),
        kept=sum(kept) / len(kept),
    )


class Log:
    """What was measured, a line each, behind a line that says of what.

    Args:
        file: The file; continued if it is there.
        about: What is measured.

    Raises:
        ConfigError: The file is of something else.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self._file = file
        told = json.loads(json.dumps(about))
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        if lines and json.loads(lines[0]) != told:
            raise ConfigError(f"{file} is of something else: {lines[0]}. Name another folder with --out.")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines[1:]]
        if not lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(told) + "\n")

    def add(self, row: Mapping[str, Any]) -> None:
        """Write down a line."""
        with self._file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(row) + "\n")
        self.rows.append(dict(row))


def trials_of(subject: Subject, tasks: Sequence[Task], config: RomeConfig, log: Log, progress: Progress) -> list[Trial]:
    """Every task's edit at every layer, by task and layer; those in the log are not made again."""
    made = {(row["prompt"], row["layer"]): Trial(**row) for row in log.rows}
    answerer = Answerer(subject)
    bar = progress.add_task("editing", total=len(tasks) * len(LAYERS))
    for begin in range(0, len(tasks), TOGETHER):
        for layer in LAYERS:
            here = tasks[begin : begin + TOGETHER]
            missing = [task for task in here if (task.fact.prompt, layer) not in made]
            changes = changes_of(subject, missing, replace(config, layer=layer)) if missing else iter(())
            for task, (name, value) in zip(missing, changes, strict=True):
                with restored(subject.model, [name]), torch.no_grad():
                    subject.model.get_parameter(name).copy_(value)
                    trial = asked_of(answerer, task, layer)
                made[task.fact.prompt, layer] = trial
                log.add(asdict(trial))
            progress.advance(bar, len(here))
    return [made[task.fact.prompt, layer] for task in tasks for layer in LAYERS]


def traces_of(tracer: Tracer, tasks: Sequence[Task], log: Log, progress: Progress) -> list[dict[str, list[float]]]:
    """The effects of every task's fact; those in the log are not traced again."""
    made = {row["prompt"]: row["effects"] for row in log.rows}
    for task in progress.track(tasks, description="tracing"):
        if task.fact.prompt not in made:
            made[task.fact.prompt] = effects_of(tracer, task.fact)
            log.add({"prompt": task.fact.prompt, "effects": made[task.fact.prompt]})
    return [made[task.fact.prompt] for task in tasks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured, facts in one order.

    Attributes:
        effects: By kind, the indirect effect of each layer at the subject's last token, ``[facts, all layers]``.
        edit: The target's probability behind the prompt, ``[facts, edited layers]``.
        rephrased: Behind the rephrasing; the same shape.
        kept: The share of neighbours kept; the same shape.
        score: The harmonic mean; the same shape.
        layers: Which layers were edited.
    """

    effects: dict[str, Floats]
    edit: Floats
    rephrased: Floats
    kept: Floats
    score: Floats
    layers: tuple[int, ...] = LAYERS

    def nearest(self, layer: int) -> int:
        """The place of the edited layer that is nearest to a layer, the lower of two."""
        return int(np.argmin([abs(layer - one) for one in self.layers]))

    def best(self) -> NDArray[np.intp]:
        """The place of each fact's best layer, ``[facts]``; -1 where no layer has a score above 0."""
        return np.where(self.score.max(axis=1) > 0, self.score.argmax(axis=1), -1)

    def traced(self, kind: str) -> NDArray[np.intp]:
        """The place of each fact's own traced layer, ``[facts]``."""
        return np.array([self.nearest(int(layer)) for layer in self.effects[kind].argmax(axis=1)])


def measured(traces: Sequence[Mapping[str, Sequence[float]]], trials: Sequence[Trial]) -> Measured:
    """Brings traces and trials together; both are in the order of facts."""

    def grid(name: str) -> Floats:
        return np.array([getattr(one, name) for one in trials]).reshape(len(traces), len(LAYERS))

    return Measured(
        effects={kind: np.array([trace[kind] for trace in traces]) for kind in traces[0]},
        edit=grid("edit"),
        rephrased=grid("rephrased"),
        kept=grid("kept"),
        score=grid("score"),
    )


def choices(found: Measured) -> dict[str, Floats]:
    """The score of each fact when its layer is chosen in some way, ``[facts]``."""
    facts = np.arange(len(found.score))
    total = found.score.sum(axis=0)
    elsewhere = (total - found.score).argmax(axis=1)  # the best layer of all other facts
    made = {}
    for kind, effects in found.effects.items():
        place = found.nearest(int(effects.mean(axis=0).argmax()))
        made[f"its own traced layer ({kind})"] = found.score[facts, found.traced(kind)]
        made[f"the traced layers dealt at random ({kind})"] = found.score[:, found.traced(kind)].mean(axis=1)
        made[f"layer {found.layers[place]}, which tracing names on average ({kind})"] = found.score[:, place]
    made["the layer that is best for the other facts"] = found.score[facts, elsewhere]
    made["the best layer for itself, known afterwards"] = found.score.max(axis=1)
    return made


def correlations(found: Measured, kind: str) -> Floats:
    """Over the facts, between a layer's effect and the score of an edit there (Spearman), ``[edited layers]``."""
    from scipy.stats import spearmanr

    effects = found.effects[kind][:, list(found.layers)]
    return np.array([spearmanr(effects[:, place], found.score[:, place]).statistic for place in range(len(effects[0]))])


def explained(found: Measured, kind: str) -> tuple[float, float]:
    """The share of the scores' variance that the layer explains, and that layer and effect do."""
    effects = found.effects[kind][:, list(found.layers)]
    layer = np.tile(np.eye(len(found.layers)), (len(effects), 1))
    score = found.score.ravel()

    def share(columns: Floats) -> float:
        fitted = columns @ np.linalg.lstsq(columns, score, rcond=None)[0]
        return float(1 - ((score - fitted) ** 2).sum() / ((score - score.mean()) ** 2).sum())

    return share(layer), share(np.column_stack([layer, effects.ravel()]))


def interval_of(values: Floats) -> Interval | None:
    """The 95% interval of a mean over facts; None with fewer than two."""
    return bootstrap_interval(lambda drawn: drawn @ values / drawn.sum(axis=1), len(values))


def mean_told(values: Floats) -> str:
    """A mean over facts with its 95% interval."""
    interval = interval_of(values)
    return f"{values.mean():.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")


def tables(found: Measured) -> list[Table]:
    """What came of it."""
    by_layer = Table("layer", *found.effects, "edit", "rephrased", "kept", "score", "best for", title="by layer")
    best = np.bincount(found.best()[found.best() >= 0], minlength=len(found.layers))
    for place, layer in enumerate(found.layers):
        effects = [f"{one[:, layer].mean():.3f}" for one in found.effects.values()]
        means = [mean_told(getattr(found, name)[:, place]) for name in ("edit", "rephrased", "kept", "score")]
        by_layer.add_row(str(layer), *effects, *means, str(best[place]))
    by_choice = Table("layer chosen", "mean score", title=f"{len(found.score)} facts")
    for name, values in choices(found).items():
        by_choice.add_row(name, mean_told(values))
    apart = Table("", *found.effects, title="what a fact's trace tells of its edits")
    facts = np.arange(len(found.score))
    rows: dict[str, list[str]] = {}
    for kind in found.effects:
        traced = found.traced(kind)
        gained = found.score[facts, traced] - found.score[:, traced].mean(axis=1)
        own = found.best()
        hits, decided = int((traced == own).sum()), int((own >= 0).sum())
        by_chance = sum(float((traced == place).mean()) for place in own)
        alone, together = explained(found, kind)
        told = correlations(found, kind)
        for name, value in (
            ("traced layer is the best one, facts", f"{hits} of {decided}, by chance {by_chance:.1f}"),
            ("score over traced layers dealt at random", mean_told(gained)),
            ("Spearman by layer, mean", f"{np.nanmean(told):+.3f}"),
            ("Spearman by layer, each", " ".join(f"{one:+.2f}" for one in told)),
            ("variance explained by the layer", f"{alone:.3f}"),
            ("by layer and effect", f"{together:.3f}"),
        ):
            rows.setdefault(name, []).append(value)
    for name, cells in rows.items():
        apart.add_row(name, *cells)
    return [by_layer, by_choice, apart]


def figure_of(found: Measured) -> Any:
    """What tracing says and what editing says, layer by layer, and each fact's two best layers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 8.5, "axes.titlesize": 9, "legend.fontsize": 7.5, "legend.frameon": False}):
        figure = Figure(figsize=(10.2, 3.5), layout="constrained")
        tracing, editing, facts = figure.subplots(1, 3)
        _draw_tracing(tracing, found)
        _draw_editing(editing, found)
        _draw_facts(facts, found)
        for axes in (tracing, editing):
            axes.set_xlabel("layer")
            axes.grid(visible=True, color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
        figure.draw_without_rendering()
    return figure


def _draw_tracing(axes: Axes, found: Measured) -> None:
    looks = {"mlp": ("#d55e00", "-", "D", "MLP, 10 layers"), "hidden": ("#0072b2", "--", "o", "hidden state")}
    for kind, effects in found.effects.items():
        colour, dash, mark, name = looks[kind]
        axes.plot(effects.mean(axis=0), color=colour, linestyle=dash, marker=mark, markersize=3, label=name)
    axes.set_ylabel("average indirect effect")
    axes.set_title("tracing, at the last subject token")
    axes.legend()


def _draw_editing(axes: Axes, found: Measured) -> None:
    lines = (
        ("edit", "#0072b2", "--", "o", "P(target)"),
        ("rephrased", "#009e73", "-.", "s", "the same, rephrased"),
        ("kept", "#999999", ":", "v", "neighbours kept"),
        ("score", "#000000", "-", "D", "harmonic mean"),
    )
    for name, colour, dash, mark, told in lines:
        values: Floats = getattr(found, name)
        means = values.mean(axis=0)
        axes.plot(found.layers, means, color=colour, linestyle=dash, marker=mark, markersize=4, label=told)
    ends = [interval_of(column) for column in found.score.T]
    if all(ends):
        low, high = ([getattr(end, side) for end in ends] for side in ("low", "high"))
        axes.fill_between(found.layers, low, high, color="#000000", alpha=0.12, linewidth=0)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(found.layers)
    axes.set_title("editing, ROME at one layer")
    axes.legend(loc="lower center", ncols=2)


def _draw_facts(axes: Axes, found: Measured) -> None:
    best = found.best()
    pairs = np.column_stack([found.traced("mlp"), best])[best >= 0]
    places, counts = np.unique(pairs, axis=0, return_counts=True)
    ends = (-0.5, len(found.layers) - 0.5)
    axes.plot(ends, ends, color="#999999", linewidth=0.8, zorder=1)
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=[45 * count + 40 for count in counts],
        color="#8073ac",
        edgecolor="#2d004b",
        linewidth=0.6,
    )
    for place, count in zip(places, counts, strict=True):
        axes.annotate(str(count), tuple(place), ha="center", va="center", fontsize=7.5, color="white")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(found.layers)), labels=[str(layer) for layer in found.layers])
    axes.set(xlim=ends, ylim=ends)
    axes.set_xlabel("edited layer nearest to the traced one (MLP)")
    axes.set_ylabel("best layer to edit")
    axes.set_title(f"{len(pairs)} facts, one by one")


def main() -> None:
    """Measure what is not yet measured, print the tables, draw the figure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments.add_argument("--out", type=Path, default=Path("runs/traced-layer"))
    arguments.add_argument("--facts", type=int, default=50)
    arguments.add_argument("--samples", type=int, default=10, help="noise samples a fact (default: 10)")
    arguments.add_argument("--contexts", type=int, default=2, help="of ROME (default: 2)")
    given = arguments.parse_args()
    subject = Subject.load(DEFAULT_MODEL)
    held = read_known(given.data / "causal_tracing" / "known_facts.jsonl")
    rome = replace(default_config(subject.model), wording="plain", contexts=given.contexts, bfloat16=True, layer=0)
    tracing = TraceConfig(kinds=KINDS, samples=given.samples, precision="bfloat16")
    of = {"model": subject.fingerprint, "asked": ASKED}
    edits = Log(given.out / "trials.jsonl", {**of, "config": asdict(rome)})
    effects = Log(given.out / "effects.jsonl", {**of, "config": asdict(tracing)})
    tracer = Tracer(subject.model, subject.tokenizer, tracing, subjects=[one.fact.subject for one in held])
    with Progress(console=Console(stderr=True)) as progress:
        tasks = tasks_of(Answerer(subject), held[:ASKED], limit=given.facts)
        traces = traces_of(tracer, tasks, effects, progress)
        trials = trials_of(subject, tasks, rome, edits, progress)
    found = measured(traces, trials)
    console = Console()
    for made in tables(found):
        console.print(made)
    for file in save_figure(figure_of(found), given.out / "traced-layer"):
        console.print(f"written: {file}")


if __name__ == "__main__":
    main()
