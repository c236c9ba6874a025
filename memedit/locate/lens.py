"""What a model would say after each layer, and what an edit moved inside it.

The logit lens (nostalgebraist 2020) reads every hidden state as if it were the last: final norm, then unembedding. The
footprint of an edit is the difference that it makes, layer by layer and token by token: how far each hidden state
moved, and how far what the lens reads of it did. Any `Editor` has one, whether it changed weights or put a context
before the prompt; a prompt that an edit does not concern should have none.

This file knows no method by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.continuation import continuation
from memedit.editors.editor import Editor, TokenIds
from memedit.editors.subject import Subject
from memedit.errors import InvalidPromptError, UnsupportedCallError
from memedit.injection import splice
from memedit.locate.recording import read_out, record
from memedit.locate.records import Grid
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["Footprint", "Lens", "footprints", "logit_lens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """What the logit lens reads of a prompt.

    Attributes:
        prompt: The prompt.
        tokens: Its tokens.
        answer: The token whose probability is given; the model's own next one where none was asked for.
        says: The likeliest next token after each layer, ``[tokens][layers]``.
        certainty: Its probability; the same shape.
        chance: The probability of the answer; the same shape.
    """

    prompt: str
    tokens: tuple[str, ...]
    answer: str
    says: tuple[tuple[str, ...], ...]
    certainty: Grid
    chance: Grid

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The difference that some edits make to one prompt.

    Attributes:
        method: The method that made them.
        prompt: The prompt.
        tokens: Its tokens.
        context: How many tokens the method put in, which are not among `tokens`.
        distance: How far each hidden state moved, as a share of its length, ``[tokens][layers]``.
        divergence: KL(before || after) of the next token as the lens reads it, in nats; the same shape. The last
            layer's is that of what the model says.
    """

    method: str
    prompt: str
    tokens: tuple[str, ...]
    context: int
    distance: Grid
    divergence: Grid

    @property
    def moved(self) -> bool:
        """Whether anything moved at all."""
        return any(value != 0 for row in self.distance for value in row)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {**asdict(self), "moved": self.moved}


def logit_lens(model: Any, tokenizer: Any, prompt: str, *, answer: str | None = None) -> Lens:
    """Read a prompt through the logit lens.

    Args:
        model: A model of a family in `memedit.architectures`.
        tokenizer: Its tokenizer.
        prompt: The prompt, read as it is, without a chat template.
        answer: Whose first token's probability is given; None for what the model says.

    Raises:
        InvalidPromptError: The prompt or the answer is empty.
    """
    ids = _ids(tokenizer, prompt)
    told = _read(model, ids, range(len(ids)))[1].exp()
    if answer is None:
        wanted = int(told[-1, -1].argmax())
    else:
        if not answer.strip():
            raise InvalidPromptError("the answer is empty; leave it away, or say what is expected")
        wanted = continuation(tokenizer, prompt, ids, answer.strip())[0]
    certainty, likeliest = told.max(dim=-1)
    names: list[list[str]] = [[tokenizer.decode([token]) for token in row] for row in likeliest.T.tolist()]
    return Lens(
        prompt=prompt,
        tokens=tuple(tokenizer.decode([token]) for token in ids),
        answer=tokenizer.decode([wanted]),
        says=tuple(map(tuple, names)),
        certainty=_grid(certainty),
        chance=_grid(told[:, :, wanted]),
    )


def footprints(subject: Subject, editor: Editor, edits: Sequence[Edit], prompts: Sequence[str]) -> list[Footprint]:
    """See what some edits move, and take them back.

    Args:
        subject: The model, with nothing edited.
        editor: A method attached to it.
        edits: The edits.
        prompts: The prompts, read as they are, without a chat template.

    Returns:
        One footprint a prompt.

    Raises:
        InvalidPromptError: A prompt is empty.
        UnsupportedCallError: Another model answers a prompt, so that there are no two states of one to compare; or the
            method is one that is told the edit.
    """
    rows = [_ids(subject.tokenizer, prompt) for prompt in prompts]
    before = [_read(subject.model, ids, range(len(ids))) for ids in rows]
    try:
        editor.edit(edits)
        found = []
        for prompt, ids, (states, told), treatment in zip(prompts, rows, before, editor.treat(rows), strict=True):
            if treatment.model is not None and treatment.model is not subject.model:
                raise UnsupportedCallError(
                    f"another model answers {prompt[:60]!r} in place of {subject.name}: {editor.info.name} has no "
                    "footprint in it"
                )
            seen, places = splice(ids, treatment.context.insertions if treatment.context is not None else ())
            after_states, after_told = _read(subject.model, seen, places)
            moved = (after_states - states).norm(dim=-1) / states.norm(dim=-1).clamp(min=1e-12)
            divergence = (told.exp() * (told - after_told)).sum(dim=-1).clamp(min=0)
            found.append(
                Footprint(
                    method=editor.info.name,
                    prompt=prompt,
                    tokens=tuple(subject.tokenizer.decode([token]) for token in ids),
                    context=len(seen) - len(ids),
                    distance=_grid(moved),
                    divergence=_grid(divergence),
                )
            )
    finally:
        editor.undo()
    return found


def _ids(tokenizer: Any, prompt: str) -> list[int]:
    if not prompt.strip():
        raise InvalidPromptError("a prompt is empty")
    return list(tokenizer(prompt)["input_ids"])


def _read(model: Any, ids: TokenIds, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What there is at some tokens after each layer.

    Returns:
        The hidden states, ``[layers, tokens, width]``, and the log-probabilities of the next token that the lens reads
        of them, ``[layers, tokens, vocabulary]``.
    """
    import torch

    architecture = architecture_of(model)
    width = model.get_input_embeddings().weight.shape[1]
    recording = record(model, architecture, ids, noise=torch.zeros(0, 0, width), start=0)
    with torch.no_grad():
        states = torch.stack([output[0, list(places)] for output in recording.outputs])
        told = torch.stack([read_out(model, architecture, layer).log_softmax(dim=-1) for layer in states])
    return states, told


def _grid(values: torch.Tensor) -> Grid:
    """Numbers by layer and token as a record has them, by token and layer."""
    return tuple(map(tuple, values.T.tolist()))
