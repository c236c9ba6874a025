"""What LoRA and AdaLoRA do alike: adapters are put in, trained on the edits by Adam, and merged into copies of weights.

A method says which adapters (`AdapterEditor._put_in`), and, where it needs more than the loss of the targets, what is
lowered and what follows a step. Putting in, taking out and merging are `memedit.editors.adapters`. The same edits and
the same seed give the same weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.editors.adapters import adapted, adapted_paths, check_peft, merged
from memedit.editors.descent import descend, mini_batches
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example, ExampleMaker, target_loss
from memedit.editors.subject import Subject
from memedit.editors.trained import TrainedEditor
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = ["AdapterConfig", "AdapterEditor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """What both have to be told.

    Attributes:
        alpha: What the change is scaled by, over the rank that it begins with.
        learning_rate: Adam's.
        steps: The most passes over the edits that are made together.
        batch_size: The most edits of a mini-batch.
        seed: What draws the adapters' first values.
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    alpha: int
    learning_rate: float
    steps: int = 50
    batch_size: int = 8
    seed: int = 0
    template: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, "steps", "batch_size", least=1)
        check_fields(self, "alpha", "learning_rate", above=0)


class AdapterEditor(TrainedEditor):
    """Adapters on one model, whose weights it changes in place.

    Attributes:
        paths: The modules that it adapts.

    Args:
        subject: The model.
        config: How it trains.
        info: What the method is.
        stop_loss: A mini-batch whose loss is below this is passed over; training ends when all are.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, its weights cannot be changed, or peft is not
            installed.
        ConfigError: The model has no chat template where one is asked for.
    """

    def __init__(self, subject: Subject, config: AdapterConfig, *, info: MethodInfo, stop_loss: float = 0.0) -> None:
        check_peft(info.name)
        self.paths = adapted_paths(subject)
        self._training = config
        self._stop_loss = stop_loss
        super().__init__(subject, info, ExampleMaker(subject, template=config.template))

    def _trained(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The adapted weights, with what the adapters have learnt."""
        import torch

        model, config = self.subject.model, self._training
        batches = mini_batches(examples, config.batch_size)
        total = config.steps * len(batches)
        with adapted(model, self.paths, lambda: self._put_in(total), seed=config.seed) as tuner:
            learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
            descend(
                torch.optim.Adam(learnt, lr=config.learning_rate),
                batches,
                self._loss,
                steps=config.steps,
                stop_loss=self._stop_loss,
                after_step=self._after_step(tuner),
            )
            return merged(model, self.paths)

    @abstractmethod
    def _put_in(self, steps: int) -> Any:
        """Put adapters into the model, for so many steps of training; returns what peft makes of it."""

    def _loss(self, batch: Sequence[Example]) -> torch.Tensor:
        """What is lowered, a scalar."""
        return target_loss(self.subject.model, {}, batch).mean()

    def _after_step(self, tuner: Any) -> Callable[[], None] | None:  # noqa: ARG002 - of what peft made
        """What follows each step, if anything does."""
        return None
