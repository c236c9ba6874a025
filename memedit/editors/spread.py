"""What MEMIT, PMET and AlphaEdit share: the value is fitted at the last of several layers, and what it lacks is spread.

The layers are changed from the lowest up. At each one the keys are read anew, the residual between the fitted values
and what the model now gives at the last layer is measured anew, and a share of it is written into the layer (Meng et
al. 2023, Mass-Editing Memory in a Transformer, eq. 20 and algorithm 1): a weight W of keys K and residuals R becomes
W + Δ. What Δ is, how large the share, and where the value is fitted, is the method's own.

In families with a norm behind the MLP (Gemma 2 and 3, OLMo 2) what a projection writes is not what reaches the residual
stream. There the residual is measured at the projection of the last layer, where it can be met.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.architectures import architecture_of
from memedit.editors.activations import activations
from memedit.editors.editor import MethodInfo
from memedit.editors.locate_then_edit import LocateThenEdit
from memedit.editors.located import LocateConfig, LocatedFact
from memedit.editors.subject import Subject
from memedit.editors.target_values import target_values
from memedit.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["SpreadConfig", "SpreadingEditor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadConfig(LocateConfig):
    """What these methods have to be told besides.

    Attributes:
        layers: The layers R whose MLP output projections are changed, from 0. The value is fitted at the last.
    """

    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        LocateConfig.__post_init__(self)
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ConfigError(f"layers are different ones, from the lowest up, not {list(self.layers)}.")


class SpreadingEditor(LocateThenEdit):
    """A method that fits values at the last of some layers and writes them into all of these.

    Args:
        subject: The model, unedited.
        config: What such methods have in common.
        info: What the method is.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or a weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
        DataFileError: The text of the statistics cannot be read.
    """

    def __init__(self, subject: Subject, config: SpreadConfig, *, info: MethodInfo) -> None:
        super().__init__(subject, config, info=info, layers=config.layers)
        self._spread = config

    def _fitted_modules(self, layer: int) -> Sequence[str]:
        """Modules of the last layer that vectors are fitted at; the residual is measured at the first.

        As a rule the layer itself, whose output is the residual stream.
        """
        architecture = architecture_of(self.subject.model)
        return [architecture.module_name(layer, "mlp_out" if architecture.norm_behind_mlp else None)]

    def _share(self, left: int) -> float:
        """How much of the residual a layer takes that is followed by ``left - 1`` others."""
        return 1 / left

    @abstractmethod
    def _update(
        self, layer: int, keys: torch.Tensor, residuals: torch.Tensor, moment: torch.Tensor | None
    ) -> torch.Tensor:
        """The change of a layer's weight.

        Args:
            layer: The layer.
            keys: K, one a column, ``[k, facts]``; a fact that is worded in two ways has two.
            residuals: R, one a column, ``[v, facts]``.
            moment: C, ``[k, k]``; None for the identity.

        Returns:
            Δ, ``[v, k]``.
        """

    def _changed(self, facts: Sequence[LocatedFact], moments: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        model = self.subject.model
        last = self.projections[-1].layer
        modules = self._fitted_modules(last)
        first = target_values(model, facts, self._spread, layer=last, modules=modules).double()
        values = _of_wordings(facts, first, self._now(facts, modules[0], {}))
        changed: dict[str, torch.Tensor] = {}
        for place, projection in enumerate(self.projections):
            keys = self._keys(facts, projection.module, changed)
            residuals = values - self._now(facts, modules[0], changed)
            residuals = residuals * self._share(len(self.projections) - place)
            weight = model.get_parameter(projection.parameter).detach()
            delta = self._update(projection.layer, keys.mT, residuals.mT, moments.get(projection.layer))
            changed[projection.parameter] = (weight.double() + projection.turned(delta)).to(weight.dtype)
        return changed

    def _keys(self, facts: Sequence[LocatedFact], module: str, changed: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean over contexts of what goes into a projection at each fact's token, ``[facts and wordings, k]``."""
        import torch

        rows = [row for fact in facts for row in fact.rows]
        side = (module, False)
        read = activations(
            self.subject.model, [row.prompt for row in rows], [row.place for row in rows], [side], parameters=changed
        )[side].double()
        parts = torch.split(read, [len(fact.rows) for fact in facts])
        return torch.stack(
            [some[alike].mean(dim=0) for fact, some in zip(facts, parts, strict=True) for alike in fact.by_wording()]
        )

    def _now(self, facts: Sequence[LocatedFact], module: str, changed: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What a module writes at the token of each fact's bare prompt, ``[facts and wordings, v]``."""
        alone = [row for fact in facts for row in fact.rows[: fact.wordings]]
        side = (module, True)
        return activations(
            self.subject.model,
            [row.prompt for row in alone],
            [row.place for row in alone],
            [side],
            parameters=changed,
        )[side].double()


def _of_wordings(facts: Sequence[LocatedFact], first: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """The values of every wording: the vector that makes the first one's is added to what each has now.

    Args:
        facts: The facts.
        first: The values of their first wordings, ``[facts, v]``.
        now: What all wordings have, ``[facts and wordings, v]``.
    """
    import torch

    counts = torch.tensor([fact.wordings for fact in facts], device=now.device)
    lifts = first - now[counts.cumsum(0) - counts]
    return now + lifts.repeat_interleave(counts, dim=0)
