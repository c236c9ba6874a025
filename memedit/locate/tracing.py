"""Causal tracing of one fact: how much each part inside a model does for the answer.

Meng et al. 2022, *Locating and Editing Factual Associations in GPT*, section 2 and appendix B. The model reads a prompt
three ways: clean, giving the answer the probability P; corrupted, with noise on the subject's embeddings, P*; and
corrupted with one part put back as it was in the clean run. The total effect is P - P*, the indirect effect of a part
what putting it back gains, both the mean over several noise samples. All restorations of a sample have the same noise.

A model is asked with the plain prompt, without a chat template, as published. How restorations are run together is in
`memedit.locate.restoring`; averages over many facts are in `memedit.locate.averages`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from memedit.architectures import architecture_of
from memedit.errors import ConfigError, InvalidPromptError, UnsupportedCallError
from memedit.locate.answers import AnswerTokens, answer_tokens, own_answer, token_labels
from memedit.locate.noise import common_subjects, draw, embedding_deviation
from memedit.locate.precision import Precision, computing
from memedit.locate.recording import Recording, record
from memedit.locate.records import Effect, Fact, FactTrace
from memedit.locate.restoring import CONTROL, Kind, Restoration, Restorer, restorations
from memedit.passes import max_positions
from memedit.ranges import check_fields
from memedit.subject_tokens import SubjectTokens, subject_tokens

if TYPE_CHECKING:
    import torch

__all__ = ["TraceConfig", "Tracer"]

Report = Callable[[int, int], None]
"""Is told how many restorations are done, and how many there are."""

_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""How far a run in which nothing is put back may be from the model's own, in probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceConfig:
    """How facts are traced. The defaults are the paper's.

    Attributes:
        kinds: What is put back.
        window: In how many layers together MLP and attention outputs are put back; 1 for single layers.
        samples: How many noise samples.
        noise: The noise's standard deviation, in standard deviations of the subjects' token embeddings (nu = 3 sigma).
        seed: What the noise is drawn by.
        score: Whether the probability of the answer's ``first`` token is measured, or that of the ``whole`` answer.
        precision: ``float32``, or ``bfloat16`` for matrix products in 16 bits: about as fast again on processors that
            have them, and an error that is told in ``docs/locate.md``.
        batch_tokens: The most tokens of a batch.
    """

    kinds: tuple[Kind, ...] = ("hidden", "mlp", "attention")
    window: int = 10
    samples: int = 10
    noise: float = 3.0
    seed: int = 0
    score: Literal["first", "whole"] = "first"
    precision: Precision = "float32"
    batch_tokens: int = 512

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in get_args(Kind):
                raise ConfigError(f"{kind!r} cannot be put back; what can: {', '.join(get_args(Kind))}.")
        if not self.kinds:
            raise ConfigError(f"say what is put back: {', '.join(get_args(Kind))}.")
        check_fields(self, "window", "samples", "batch_tokens", least=1)
        check_fields(self, "noise", above=0)
        if self.score not in ("first", "whole"):
            raise ConfigError(f"score is 'first' or 'whole', not {self.score!r}.")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision is one of {', '.join(get_args(Precision))}, not {self.precision!r}.")


class Tracer:
    """Traces facts in one model, which stays as it is.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        config: How.
        deviation: The standard deviation of the noise.

    Args:
        model: A model of a family in `memedit.architectures`.
        tokenizer: Its tokenizer, a fast one.
        config: How to trace.
        subjects: The body of subjects that the strength of the noise is measured over; None for the one that comes with
            memedit. With a file of facts, the paper takes the file's subjects.

    Raises:
        UnsupportedCallError: The model's family is not supported.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: TraceConfig | None = None,
        *,
        subjects: Sequence[str] | None = None,
    ) -> None:
        self.config = config if config is not None else TraceConfig()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._architecture = architecture_of(model)
        body = common_subjects() if subjects is None else subjects
        self.deviation = self.config.noise * embedding_deviation(model, tokenizer, body)

    def trace(self, fact: Fact, *, report: Report | None = None) -> FactTrace:
        """Trace a fact.

        Args:
            fact: The fact. Where it has no answer, the model's own likeliest next token is the answer.
            report: Is told how far it has come.

        Raises:
            InvalidPromptError: The subject does not stand in the prompt, or the prompt is too long for the model.
            UnsupportedCallError: The model cannot be run layer by layer.
        """
        import torch

        started = time.perf_counter()
        place, notes = self._placed(fact)
        with torch.no_grad(), computing(self.config.precision, self.model.device):
            answer = self._answer(fact, place)
            measured = answer.ids if self.config.score == "whole" else answer.ids[:1]
            if len(measured) < len(answer.ids):
                first = self.tokenizer.decode(list(measured)).strip()
                notes.append(f"the answer has {len(answer.ids)} tokens; measured is its first, {first!r}")
            if not answer.known and fact.answer is not None:
                notes.append(f"the model itself says {answer.says.strip()!r}, not {fact.answer.strip()!r}")
            recording = self._record(fact, place, measured)
            score = _probability_of(measured)
            runs = score(recording.logits)
            grids = self._grids(recording, place, len(measured), score, report)
        corrupted = runs[1:]
        control = grids.pop("control")
        _check_control(control, corrupted, self.config.precision)
        mean = float(corrupted.mean())
        effects = [
            _effect(kind, self._window(kind), grids[kind] - corrupted[:, None, None]) for kind in self.config.kinds
        ]
        return FactTrace(
            prompt=fact.prompt,
            subject=fact.subject.strip(),
            answer=self.tokenizer.decode(list(answer.ids)),
            known=answer.known,
            says=answer.says,
            tokens=token_labels(fact.prompt, place, self.tokenizer),
            subject_start=place.start,
            subject_end=place.end,
            clean=float(runs[0]),
            corrupted=mean,
            corrupted_runs=tuple(corrupted.tolist()),
            effects=tuple(effects),
            deviation=self.deviation,
            score=self.config.score,
            layers=len(recording.outputs),
            seconds=time.perf_counter() - started,
            notes=tuple(notes),
        )

    def knows(self, fact: Fact) -> bool:
        """Whether the model itself says a fact's answer, all of its tokens, choosing the likeliest each time.

        Raises:
            InvalidPromptError: As `trace`.
        """
        import torch

        place, _ = self._placed(fact)
        with torch.no_grad(), computing("float32", self.model.device):
            return self._answer(fact, place).known

    def _placed(self, fact: Fact) -> tuple[SubjectTokens, list[str]]:
        place = subject_tokens(self.tokenizer, fact.prompt, fact.subject)
        longest = max_positions(self.model)
        if longest is not None and len(place.ids) > longest:
            raise InvalidPromptError(f"the prompt has {len(place.ids)} tokens; the model reads {longest} at most")
        if place.occurrences > 1:
            times = "twice" if place.occurrences == 2 else f"{place.occurrences} times"
            return place, [f"the subject stands in the prompt {times}; the last one was corrupted"]
        return place, []

    def _answer(self, fact: Fact, place: SubjectTokens) -> AnswerTokens:
        if fact.answer is None:
            return own_answer(self.model, self.tokenizer, place.ids)
        return answer_tokens(self.model, self.tokenizer, fact.prompt, place.ids, fact.answer)

    def _record(self, fact: Fact, place: SubjectTokens, measured: Sequence[int]) -> Recording:
        tokens, width = place.end - place.start, self.model.get_input_embeddings().weight.shape[1]
        normal = draw(fact.prompt, seed=self.config.seed, samples=self.config.samples, tokens=tokens, width=width)
        return record(
            self.model,
            self._architecture,
            [*place.ids, *measured[:-1]],
            noise=self.deviation * normal,
            start=place.start,
            places=len(measured),
        )

    def _grids(
        self,
        recording: Recording,
        place: SubjectTokens,
        places: int,
        score: Callable[[torch.Tensor], torch.Tensor],
        report: Report | None,
    ) -> dict[str, torch.Tensor]:
        """The scores by kind, ``[samples, tokens, layers]``; and of the control, ``[samples]``."""
        import torch

        layers, tokens = len(recording.outputs), len(place.ids)
        restorer = Restorer(
            self.model,
            self._architecture,
            recording,
            score=score,
            places=places,
            batch_tokens=self.config.batch_tokens,
        )
        wanted = [one for kind in self.config.kinds for one in restorations(kind, layers, window=self.config.window)]
        nothing = Restoration(kind="hidden", layer=CONTROL, first=CONTROL, last=CONTROL)
        unchanged = score(recording.logits)[1:]
        rows = []
        control = unchanged
        for token in range(tokens):
            if token < place.start:  # both runs are the same up to here
                rows.append(unchanged.expand(len(wanted), -1))
                continue
            scores = restorer.at(token, [*wanted, nothing] if token == place.start else wanted)
            if token == place.start:
                control = scores[-1]
            rows.append(scores[: len(wanted)])
            if report is not None:
                report((token + 1 - place.start) * len(wanted), (tokens - place.start) * len(wanted))
        # [tokens, kinds, layers, samples] -> [kinds, samples, tokens, layers]
        all_scores = torch.stack(rows).view(tokens, len(self.config.kinds), layers, -1).permute(1, 3, 0, 2)
        return {"control": control, **dict(zip(self.config.kinds, all_scores, strict=True))}

    def _window(self, kind: Kind) -> int:
        return 1 if kind.startswith("hidden") else self.config.window


def _probability_of(ids: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The probability of some tokens, one after the other, from the logits at as many places."""
    import torch

    def score(logits: torch.Tensor) -> torch.Tensor:
        wanted = torch.tensor(list(ids), device=logits.device)
        told = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        steps = told.gather(2, wanted.expand(logits.shape[0], -1)[:, :, None])[:, :, 0]
        return steps.double().sum(dim=1).exp()

    return score


def _check_control(control: torch.Tensor, corrupted: torch.Tensor, precision: str) -> None:
    """Whether layers run one by one come to what the model comes to.

    Raises:
        UnsupportedCallError: They do not.
    """
    apart = float((control - corrupted).abs().max())
    if not apart <= _TOLERANCE[precision]:
        raise UnsupportedCallError(
            f"run layer by layer, the model gives the answer a probability that is {apart:.2g} away from its own; "
            "it cannot be traced"
        )


def _effect(kind: str, window: int, gains: torch.Tensor) -> Effect:
    """The record of one kind, from what each restoration gains, ``[samples, tokens, layers]``."""
    samples = gains.shape[0]
    spread = gains.std(dim=0) / math.sqrt(samples) if samples > 1 else gains.new_full(gains.shape[1:], math.nan)
    return Effect(
        kind=kind,
        window=window,
        indirect=tuple(map(tuple, gains.mean(dim=0).tolist())),
        errors=tuple(map(tuple, spread.tolist())),
    )
