"""What an edit trains a model to say, and how far the model is from saying it.

A model is trained on the prompt as it is asked. Where prompts go through a chat template, that is the edit's prompt as
a user's turn, then the target and the token that ends a turn, which counts as part of the target: an answer has to stop
behind it. Else it is the prompt's own text, a space and the target, as EasyEdit trains every model.

Every method that is trained on its edits shares this file. It knows nothing of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.continuation import continuation
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.passes import max_positions
from memedit.prompts import Neutraliser
from memory_store import Edit, InvalidEditError
from memory_store.records import checked

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "Example", "ExampleMaker", "frozen", "mean_losses", "target_logits", "target_loss"]

IGNORED = -100
"""The label of a token that is no target; what ``cross_entropy`` leaves out."""


@dataclass(frozen=True, slots=True)
class Example:
    """What one edit trains the model to say.

    Attributes:
        prompt: Token ids of the prompt; no loss on them.
        target: Token ids that are to follow.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]


def target_loss(model: Any, parameters: dict[str, torch.Tensor], examples: Sequence[Example]) -> torch.Tensor:
    """How far a model with other parameters is from saying each target.

    Args:
        model: The model.
        parameters: Values in place of its own parameters, by name; one that is not named keeps its own.
        examples: What is to be said.

    Returns:
        For each example the mean of -log p over its target's tokens, in nats, ``[examples]``.
    """
    return mean_losses(*target_logits(model, parameters, examples))


def mean_losses(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """For each row the mean of -log p over the tokens that are due, in nats, ``[examples]``.

    Args:
        logits: ``[examples, places, vocabulary]``, as `target_logits` gives them.
        wanted: What is due, ``[examples, places]``; `IGNORED` where nothing is.
    """
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(logits.mT, wanted, ignore_index=IGNORED, reduction="none")
    means: torch.Tensor = losses.sum(dim=1) / (wanted != IGNORED).sum(dim=1)
    return means


def target_logits(
    model: Any, parameters: dict[str, torch.Tensor], examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model with other parameters would say at each place where a token of a target is due.

    Args:
        model: The model.
        parameters: Values in place of its own parameters, by name; one that is not named keeps its own.
        examples: What is to be said.

    Returns:
        Logits, ``[examples, places, vocabulary]``, in 32-bit precision or the model's own where that is higher, and the
        token that is due there, ``[examples, places]``; `IGNORED` at places that count for another example only.
    """
    import torch

    device = model.device
    width = max(len(example.prompt) + len(example.target) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        end = len(example.prompt) + len(example.target)
        ids[row, :end] = torch.tensor([*example.prompt, *example.target])
        mask[row, :end] = 1
        labels[row, len(example.prompt) : end] = torch.tensor(example.target)
    # only where some row predicts a target token: over a large vocabulary the logits are most of the memory
    predicting = (labels[:, 1:] != IGNORED).any(dim=0).nonzero()[:, 0]
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    options = {"use_cache": False, "logits_to_keep": predicting.to(device)}
    logits = torch.func.functional_call(model, parameters, kwargs={**inputs, **options}).logits
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return precise, labels[:, predicting + 1].to(device)


def frozen(model: Any) -> dict[str, torch.Tensor]:
    """A model's parameters by name, as no gradient goes through them; the values are its own, not copies."""
    return {name: value.detach() for name, value in model.named_parameters()}


class ExampleMaker:
    """Turns edits into what a model is trained on.

    Args:
        subject: The model.
        template: Whether prompts go through the chat template; None for wherever there is one.
        ending: Whether the token that ends a turn is part of the target where they do.

    Raises:
        ConfigError: A template is asked for, and the model has none.
    """

    def __init__(self, subject: Subject, *, template: bool | None = None, ending: bool = True) -> None:
        if template and not subject.chats:
            raise ConfigError(f"{subject.name} has no chat template; leave 'template' away, or say false.")
        self._subject = subject
        self._tokenizer = subject.tokenizer
        self._neutral = Neutraliser.for_tokenizer(subject.tokenizer)
        self._limit = max_positions(subject.model)
        self._ending = _end_of_turn(subject) if ending else ()
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
        return Example(asked, continuation(self._tokenizer, prompt, asked, target))


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
