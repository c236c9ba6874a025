"""T-Patcher: a neuron more in the last MLP for each token that the model gets wrong.

Huang et al. 2023, *Transformer-Patcher: One Mistake worth One Neuron*. The MLP of the last layer reads q. A
patch adds one neuron to it, a key k_p, a bias b_p and a value v_p, trained while the model stands still:

    FFN_p(q) = FFN(q) + a_p v_p,    a_p = Act(q k_p + b_p).

An edit gets one patch for each token of its target that is not the likeliest where it is predicted, the tokens before
it given; an edit that the model knows gets none. They are trained together, by Adam, on L = L_e + a L_a + m L_m:

    L_e = the cross-entropy of the target,
    L_a = mean of exp(-(q_e k_p + b_p)),                        a patch answers to its own query q_e,
    L_m = S(M k_p + b_p - beta) + S((M - q_e) k_p - gamma),     and not to the queries M of other texts,

where S averages the k largest of exp(x), and beta and gamma, not above 0, are margins. A key begins as q_e / ||q_e||^2,
so that its patch begins with an activation of 1, a bias and a value as 0.

Where the paper leaves room, or this goes its own way: Act is ReLU in every model, beside a gated MLP too, so that the
MLP's output stays as it is, to the last bit, where no patch answers. M is what the MLP reads at 48 ordinary prompts
(`ordinary_inputs`), at the other positions of the edit's own text, and at earlier edits, instead of a sample of the
training data. In Gemma 2 and 3 and OLMo 2 a patch stands before the norm behind the MLP. A model is trained on the
prompt as it is asked, through the chat template wherever there is one (`memedit.editors.examples`).

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.activations import inputs_of
from memedit.editors.attached import AttachedEditor
from memedit.editors.chosen import chosen_values
from memedit.editors.descent import descend
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example, frozen, target_loss
from memedit.editors.subject import Subject
from memedit.frozen_layers import FrozenLayers
from memedit.passes import logits_of
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

    from memedit.editors.patches import Patches

__all__ = [
    "INFO",
    "SEARCH",
    "TPatcherConfig",
    "TPatcherEditor",
    "activation_loss",
    "create",
    "default_config",
    "memory_loss",
]

INFO = MethodInfo(
    name="t-patcher",
    title="Transformer-Patcher, a neuron a mistake",
    group="merging knowledge into the model",
    changes="weights",
    paper="Huang et al. 2023, Transformer-Patcher: One Mistake worth One Neuron",
    summary="Adds a neuron to the last MLP for each token of an edit that the model gets wrong.",
    batch=False,
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"learning_rate": (2e-2, 5e-2), "memory_weight": (0.1, 1.0), "beta": (-3.0, -1.0)}
)
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TPatcherConfig:
    """How patches are trained.

    Attributes:
        learning_rate: Adam's.
        activation_weight: The weight a of L_a.
        memory_weight: The weight m of L_m.
        beta: The margin of other texts' activations; not above 0.
        gamma: The margin between them and the patch's own; not above 0.
        top_k: How many of the largest terms S averages, k.
        steps: The most steps for an edit.
        stop_loss: Training ends where the whole loss is below this.
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    learning_rate: float
    activation_weight: float = 1.0
    memory_weight: float = 1.0
    beta: float = -3.0
    gamma: float = -3.0
    top_k: int = 1000
    steps: int = 100
    stop_loss: float = 1e-2
    template: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, "top_k", "steps", least=1)
        check_fields(self, "learning_rate", above=0)
        check_fields(self, "activation_weight", "memory_weight", "stop_loss", least=0)
        check_fields(self, "beta", "gamma", most=0)


class TPatcherEditor(AttachedEditor["Patches"]):
    """T-Patcher on one model, beside whose last MLP its patches stand.

    Attributes:
        config: How they are trained.

    Args:
        subject: The model.
        config: By default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported.
        ConfigError: The model has no chat template where one is asked for.
    """

    learns_elsewhere = True

    def __init__(self, subject: Subject, config: TPatcherConfig | None = None) -> None:
        architecture = architecture_of(subject.model)
        self.config = config if config is not None else default_config(subject.model)
        self._last = architecture.layer_count(subject.model) - 1
        path = architecture.module_name(self._last, "mlp")
        super().__init__(subject, INFO, path=path, template=self.config.template)

    def _fresh(self) -> Patches:
        from memedit.editors.patches import Patches

        return Patches(self._subject.model.config.get_text_config().hidden_size, device=self._subject.model.device)

    def _learn(self, addition: Patches, example: Example) -> None:
        import torch

        model, fixed, first = self._subject.model, frozen(self._subject.model), len(example.prompt) - 1
        told = (*example.prompt, *example.target[:-1])
        with torch.no_grad():
            likeliest = logits_of(model, [told], keep=len(example.target))[0].argmax(dim=-1).tolist()
        places = [first + at for at, token in enumerate(example.target) if likeliest[at] != token]
        if not places:
            return
        (read,) = inputs_of(model, self.path, [told])
        queries = read[places].float()
        elsewhere = [at for at in range(first) if at not in places]
        memory = torch.cat([self._ordinary, read[elsewhere].float(), addition.queries])
        keys = (queries / queries.square().sum(dim=1, keepdim=True)).requires_grad_(True)
        biases = torch.zeros(len(places), device=queries.device, requires_grad=True)
        values = torch.zeros_like(queries, requires_grad=True)
        behind, layers = len(addition), FrozenLayers(model, self._last)

        def loss_of(batch: list[Example]) -> torch.Tensor:
            addition.hold(keys, biases, values, queries, behind=behind)
            own, others = (queries * keys).sum(dim=1), memory @ keys.T
            kept_quiet = memory_loss(own, others, biases, self.config)
            answers = activation_loss(own, biases)
            told_apart = self.config.activation_weight * answers + self.config.memory_weight * kept_quiet
            with layers.of(tuple(batch)):
                return target_loss(model, fixed, batch).mean() + told_apart

        descend(
            torch.optim.Adam([keys, biases, values], lr=self.config.learning_rate),
            [[example]],
            loss_of,
            steps=self.config.steps,
            stop_loss=self.config.stop_loss,
        )
        addition.hold(keys.detach(), biases.detach(), values.detach(), queries, behind=behind)


def create(subject: Subject, config: TPatcherConfig | None = None) -> TPatcherEditor:
    """The method for a model."""
    return TPatcherEditor(subject, config)


def default_config(model: Any) -> TPatcherConfig:
    """How it works on a model where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return TPatcherConfig(**chosen_values(model, "t_patcher"))


def activation_loss(own: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
    """How weakly patches answer to their own queries, L_a.

    Args:
        own: q_e k_p of each, ``[patches]``.
        biases: b_p, ``[patches]``.
    """
    return (-(own + biases)).exp().mean()


def memory_loss(own: torch.Tensor, others: torch.Tensor, biases: torch.Tensor, config: TPatcherConfig) -> torch.Tensor:
    """How strongly patches answer to other texts, L_m.

    Args:
        own: q_e k_p of each, ``[patches]``.
        others: M k_p, ``[texts, patches]``.
        biases: b_p, ``[patches]``.
        config: Has beta, gamma and k.
    """

    def largest(excess: torch.Tensor) -> torch.Tensor:
        terms = excess.exp().flatten()
        return terms.topk(min(config.top_k, len(terms))).values.mean()

    return largest(others + biases - config.beta) + largest(others - own - config.gamma)
