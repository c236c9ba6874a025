"""FT-M: fine-tune the output projection of one MLP layer on the new answers.

The method is FT-M of Zhang et al. 2024, *A Comprehensive Study of Knowledge Editing for Large Language Models*: Adam on
one layer's MLP output projection, by the cross-entropy of the target tokens alone, the prompt masked. For an edit with
prompt x and target y the loss is the mean of -log p(y_t | x, y_<t) over the target's tokens; for several edits, the
mean of theirs.

A model is trained on the prompt as it is asked. Where prompts go through a chat template, that is the edit's prompt as
a user's turn, then the target and the token that ends a turn, which counts as part of the target: an answer has to stop
behind it. Else it is the prompt's own text, a space and the target, as EasyEdit trains every model.

The change is computed on a copy of the one weight, in 32-bit precision, and written into the model at the end: the
model stays as it was until then, and if training fails. Nothing is drawn at random: the same edits give the same
weight.

Which layer, and how it is trained, is looked up in ``data/ft_m.toml`` (`memedit.editors.chosen`). For a model that is
not there these values were not chosen: pass a `FtConfig` of one's own to do better.

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.subject import Subject
from memedit.editors.weights import EditedWeights
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.passes import max_positions
from memedit.prompts import Neutraliser
from memory_store import Edit, InvalidEditError
from memory_store.records import checked

if TYPE_CHECKING:
    import torch

__all__ = [
    "INFO",
    "Example",
    "ExampleMaker",
    "FtConfig",
    "FtEditor",
    "create",
    "default_config",
    "fine_tuned",
    "target_loss",
]

INFO = MethodInfo(
    name="ft-m",
    title="Fine-tuning one MLP layer, prompt masked",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Zhang et al. 2024, A Comprehensive Study of Knowledge Editing for Large Language Models",
    summary="Trains the output projection of one MLP layer until the model gives the new answers.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

_IGNORED = -100
"""The label of a token that is no target; what ``cross_entropy`` leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FtConfig:
    """How FT-M trains.

    Attributes:
        layer: The layer whose MLP output projection is trained, from 0.
        learning_rate: Adam's.
        steps: The most passes over the edits that are made together.
        stop_loss: A mini-batch whose loss (nats a target token) is below this is passed over; training ends when all
            are.
        batch_size: The most edits of a mini-batch.
        weight_decay: Adam's (added to the gradient).
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    layer: int
    learning_rate: float
    steps: int = 25
    stop_loss: float = 1e-2
    batch_size: int = 8
    weight_decay: float = 0.0
    template: bool | None = None

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ConfigError(f"layer is counted from 0; it is {self.layer}.")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate must be above 0, not {self.learning_rate}.")
        for name in ("stop_loss", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, not {getattr(self, name)}.")


@dataclass(frozen=True, slots=True)
class Example:
    """What one edit trains the model to say.

    Attributes:
        prompt: Token ids of the prompt; no loss on them.
        target: Token ids that are to follow.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]


class FtEditor:
    """FT-M on one model, whose weight it changes in place.

    Attributes:
        config: How it trains.
        parameter: The name of the one weight that it trains.

    Args:
        subject: The model.
        config: How to train; by default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or its weight cannot be trained.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
    """

    def __init__(self, subject: Subject, config: FtConfig | None = None) -> None:
        architecture = architecture_of(subject.model)
        self.config = config if config is not None else default_config(subject.model)
        layers = architecture.layer_count(subject.model)
        if self.config.layer >= layers:
            raise ConfigError(f"{subject.name} has no layer {self.config.layer}; it has 0 to {layers - 1}.")
        self.parameter = architecture.parameter_name(self.config.layer, "mlp_out")
        weight = subject.model.get_parameter(self.parameter)
        if not weight.is_floating_point():
            raise UnsupportedCallError(
                f"{self.parameter} of {subject.name} is quantised ({weight.dtype}) and cannot be trained; load the "
                "model in float32, bfloat16 or float16"
            )
        self._subject = subject
        self._example = ExampleMaker(subject, template=self.config.template)
        self._weights = EditedWeights(subject.model)

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return INFO

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Train the weight, as earlier edits left it, on some edits together.

        Args:
            edits: Drafts. Of those with the same prompt the last one holds.

        Returns:
            What it cost. The weight as it was, which is kept for `undo`, is what the edits take; it is counted once.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model. Nothing is changed.
            ConfigError: Training diverged. Nothing is changed.
        """
        started = time.perf_counter()
        holding = {edit.prompt: edit for edit in edits}
        examples = [self._example(edit) for edit in holding.values()]
        stored = 0
        if examples:
            trained = fine_tuned(self._subject.model, self.parameter, examples, self.config)
            stored = self._weights.write({self.parameter: trained})
        return EditCost(edits=len(edits), seconds=time.perf_counter() - started, stored_bytes=stored)

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Leave every prompt as it is: the edits are in the weights."""
        return [Treatment()] * len(prompts)

    def undo(self) -> None:
        """Copy back the weight as it was before the first edit."""
        self._weights.restore()


def create(subject: Subject) -> FtEditor:
    """The method for a model."""
    return FtEditor(subject)


def default_config(model: Any) -> FtConfig:
    """How a model is trained where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return FtConfig(**chosen_values(model, "ft_m"))


def fine_tuned(model: Any, name: str, examples: Sequence[Example], config: FtConfig) -> torch.Tensor:
    """One weight, trained on some examples; the model itself is not changed.

    Args:
        model: The model, in evaluation mode.
        name: The weight's name.
        examples: What is to be learnt.
        config: How.

    Returns:
        The weight, in 32-bit precision or the model's own where that is higher.

    Raises:
        ConfigError: The loss or the weight is no longer finite.
    """
    import torch

    frozen: dict[str, torch.Tensor] = {key: value.detach() for key, value in model.named_parameters()}
    dtype = frozen[name].dtype
    trained = frozen[name].to(torch.promote_types(dtype, torch.float32), copy=True).requires_grad_(True)
    optimizer = torch.optim.Adam([trained], lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = [examples[start : start + config.batch_size] for start in range(0, len(examples), config.batch_size)]
    for _ in range(config.steps):
        stepped = False
        for batch in batches:
            with torch.enable_grad():
                loss = target_loss(model, {**frozen, name: trained.to(dtype)}, batch).mean()
            if loss.item() < config.stop_loss:
                continue
            (trained.grad,) = torch.autograd.grad(loss, [trained])
            optimizer.step()
            stepped = True
            if not (loss.isfinite() and trained.isfinite().all()):
                raise ConfigError(f"training diverged at learning_rate {config.learning_rate}; take a smaller one.")
        if not stepped:
            break
    return trained.detach()


def target_loss(model: Any, parameters: dict[str, torch.Tensor], examples: Sequence[Example]) -> torch.Tensor:
    """How far a model with other parameters is from saying each target.

    Args:
        model: The model; its own parameters are not read.
        parameters: The parameters in their place, by name.
        examples: What is to be said.

    Returns:
        For each example the mean of -log p over its target's tokens, in nats, ``[examples]``.
    """
    import torch
    from torch.nn.functional import cross_entropy

    device = next(iter(parameters.values())).device
    width = max(len(example.prompt) + len(example.target) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, _IGNORED)
    for row, example in enumerate(examples):
        end = len(example.prompt) + len(example.target)
        ids[row, :end] = torch.tensor([*example.prompt, *example.target])
        mask[row, :end] = 1
        labels[row, len(example.prompt) : end] = torch.tensor(example.target)
    # only where some row predicts a target token: over a large vocabulary the logits are most of the memory
    predicting = (labels[:, 1:] != _IGNORED).any(dim=0).nonzero()[:, 0]
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    options = {"use_cache": False, "logits_to_keep": predicting.to(device)}
    logits = torch.func.functional_call(model, parameters, kwargs={**inputs, **options}).logits
    wanted = labels[:, predicting + 1].to(device)
    losses = cross_entropy(logits.float().mT, wanted, ignore_index=_IGNORED, reduction="none")
    means: torch.Tensor = losses.sum(dim=1) / (wanted != _IGNORED).sum(dim=1)
    return means


class ExampleMaker:
    """Turns edits into what a model is trained on.

    Args:
        subject: The model.
        template: Whether prompts go through the chat template; None for wherever there is one.

    Raises:
        ConfigError: A template is asked for, and the model has none.
    """

    def __init__(self, subject: Subject, *, template: bool | None = None) -> None:
        if template and not subject.chats:
            raise ConfigError(f"{subject.name} has no chat template; leave 'template' away, or say false.")
        self._subject = subject
        self._tokenizer = subject.tokenizer
        self._neutral = Neutraliser.for_tokenizer(subject.tokenizer)
        self._limit = max_positions(subject.model)
        self._ending = _end_of_turn(subject)
        chats = subject.chats if template is None else template
        self._make: Callable[[str, str], Example] = self._chat if chats else self._raw

    def __call__(self, edit: Edit) -> Example:
        """The example of an edit; markup in its texts is broken up, so that it is not trained as such.

        Raises:
            UnsupportedCallError: The edit is incomplete, or too long for the model.
        """
        try:
            edit = checked(edit)
        except InvalidEditError as error:
            raise UnsupportedCallError(f"the edit {edit.prompt[:60]!r} cannot be trained: {error}") from error
        example = self._make(self._plain(edit.prompt), self._plain(edit.target).strip())
        length = len(example.prompt) + len(example.target)
        if self._limit is not None and length > self._limit:
            raise UnsupportedCallError(
                f"the edit {edit.prompt[:60]!r} cannot be trained: it has {length} tokens with its target, and the "
                f"model takes {self._limit}. Shorten it"
            )
        return example

    def _plain(self, text: str) -> str:
        """The text, as it is unless the tokenizer or its template would read markup in it."""
        return self._neutral(text) if self._neutral.markup.search(text) else text

    def _chat(self, prompt: str, target: str) -> Example:
        asked = self._subject.chat_ids([{"role": "user", "content": prompt}])
        return Example(asked, (*self._tokenizer(target, add_special_tokens=False)["input_ids"], *self._ending))

    def _raw(self, prompt: str, target: str) -> Example:
        asked = tuple(self._tokenizer(prompt)["input_ids"])
        text = f"{prompt}{'' if prompt[-1].isspace() else ' '}{target}"
        # tokenised as a whole, since some tokenizers put a space of their own before a text
        told = tuple(self._tokenizer(text)["input_ids"])
        if told[: len(asked)] != asked:  # a token reaches across the prompt's end
            return Example(asked, tuple(self._tokenizer(text[len(prompt) :], add_special_tokens=False)["input_ids"]))
        return Example(asked, told[len(asked) :])


def _end_of_turn(subject: Subject) -> tuple[int, ...]:
    """The tokens that close an answer, up to the one at which generation stops."""
    tokenizer, generation = subject.tokenizer, subject.model.generation_config.eos_token_id
    stops = {*(generation if isinstance(generation, list) else [generation]), tokenizer.eos_token_id} - {None}
    template = subject.reader.chat_format
    markup = tokenizer(template.assistant_end, add_special_tokens=False)["input_ids"] if template is not None else []
    for place, token in enumerate(markup):
        if token in stops:
            return tuple(markup[: place + 1])
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
