"""AdaLoRA: LoRA whose ranks go where they matter most, trained on the edits and merged.

Zhang et al. 2023, *AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning*. A change is kept as
P Lambda Q ("SVD-based adaptation"), Lambda diagonal, and the loss gets gamma times

    R(P, Q) = ||P^T P - I||_F^2 + ||Q Q^T - I||_F^2,     here on average over the adapted weights.

While it trains, the importance of each triplet of an entry of Lambda with its vectors is followed, smoothed by beta_1
and beta_2 ("importance-aware rank allocation"), and entries are set to 0 until a budget is kept: it falls from the
initial rank of every weight, from step t_i on, to the target rank on average, t_f steps before the end ("global budget
scheduler"). Which weights keep how many is for the importance to say. The adapters and the allocation are peft's, whose
scale is alpha over the initial rank; what is adapted, and how it is put back, is as in `memedit.editors.lora`.

The schedule is over all steps, so training does not end early. With several mini-batches a step is one of them.

This file knows nothing of benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.adapter_editor import AdapterConfig, AdapterEditor
from memedit.editors.adapters import ADAPTER
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = ["INFO", "SEARCH", "AdaLoraConfig", "AdaLoraEditor", "create", "default_config", "orthogonality"]

INFO = MethodInfo(
    name="adalora",
    title="Low-rank adaptation with adaptive ranks",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Zhang et al. 2023, AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
    summary="Trains low-rank changes of the query and value projections, with the ranks where they matter, and merges.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType({"learning_rate": (2e-3, 5e-3, 1e-2), "steps": (30, 60)})
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaLoraConfig(AdapterConfig):
    """How AdaLoRA trains: as `AdapterConfig`, the change being scaled by alpha / initial_rank.

    Attributes:
        initial_rank: The rank of every weight's change at first.
        target_rank: The rank on average at the end; less.
        warm_up: The share of the steps before the budget begins to fall, t_i.
        settled: The share of the steps at the end in which it stays, t_f; the two together are less than 1.
        every: After how many steps ranks are allocated anew, Delta_T.
        beta_1: How the importance is smoothed.
        beta_2: How its uncertainty is.
        gamma: The weight of the orthogonality.
    """

    initial_rank: int
    target_rank: int
    warm_up: float = 0.1
    settled: float = 0.4
    every: int = 1
    beta_1: float = 0.85
    beta_2: float = 0.85
    gamma: float = 0.1

    def __post_init__(self) -> None:
        AdapterConfig.__post_init__(self)
        check_fields(self, "target_rank", "every", least=1)
        if self.initial_rank <= self.target_rank:
            raise ConfigError(
                f"initial_rank must be above target_rank, {self.target_rank}; it is {self.initial_rank}. "
                "Where no rank is to be taken away, use lora."
            )
        if self.steps < 4:
            raise ConfigError(f"steps must be at least 4, to hold the schedule; they are {self.steps}.")
        if not (self.warm_up >= 0 and self.settled >= 0 and self.warm_up + self.settled < 1):
            raise ConfigError(
                f"warm_up and settled are shares, together below 1; they are {self.warm_up}, {self.settled}."
            )
        check_fields(self, "beta_1", "beta_2", above=0, below=1)
        check_fields(self, "gamma", least=0)


class AdaLoraEditor(AdapterEditor):
    """AdaLoRA on one model, whose weights it changes in place; see `AdapterEditor`.

    Attributes:
        config: How it trains.

    Args:
        subject: The model.
        config: By default as the table has it.
    """

    def __init__(self, subject: Subject, config: AdaLoraConfig | None = None) -> None:
        self.config = config if config is not None else default_config(subject.model)
        super().__init__(subject, self.config, info=INFO)

    def _loss(self, batch: Sequence[Example]) -> torch.Tensor:
        return super()._loss(batch) + self.config.gamma * orthogonality(self.subject.model, self.paths)

    def _after_step(self, tuner: Any) -> Callable[[], None]:
        """Allocates ranks anew."""
        made = 0

        def allocate() -> None:
            nonlocal made
            made += 1
            tuner.update_and_allocate(made)

        return allocate

    def _put_in(self, steps: int) -> Any:
        from peft import AdaLoraConfig as PeftConfig
        from peft import AdaLoraModel

        config = PeftConfig(
            init_r=self.config.initial_rank,
            target_r=self.config.target_rank,
            lora_alpha=self.config.alpha,
            total_step=steps,
            tinit=int(self.config.warm_up * steps),
            tfinal=int(self.config.settled * steps),
            deltaT=self.config.every,
            beta1=self.config.beta_1,
            beta2=self.config.beta_2,
            orth_reg_weight=self.config.gamma,
            target_modules=list(self.paths),
            lora_dropout=0.0,
            fan_in_fan_out=architecture_of(self.subject.model).transposed,
        )
        tuner: Any = AdaLoraModel
        return tuner(self.subject.model, config, ADAPTER)


def create(subject: Subject, config: AdaLoraConfig | None = None) -> AdaLoraEditor:
    """The method for a model."""
    return AdaLoraEditor(subject, config)


def default_config(model: Any) -> AdaLoraConfig:
    """How a model is trained where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return AdaLoraConfig(**chosen_values(model, "adalora"))


def orthogonality(model: Any, paths: Sequence[str]) -> torch.Tensor:
    """How far the adapters' vectors are from orthonormal, R(P, Q), on average over the adapted weights.

    Args:
        model: The model, with its adapters.
        paths: The adapted modules.
    """
    import torch

    apart = []
    for path in paths:
        layer = model.get_submodule(path)
        rows, columns = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        unit = torch.eye(len(rows), device=rows.device, dtype=rows.dtype)
        apart.append((columns.T @ columns - unit).square().sum() + (rows @ rows.T - unit).square().sum())
    return torch.stack(apart).mean()
