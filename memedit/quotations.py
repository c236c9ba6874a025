"""Has an answer that begins to quote a text say it to the end.

An edit's target may be a paragraph. A small model that quotes it word for word ends behind its first sentence now and
then: there "the end" and the next sentence are about as likely, since a short question may as well want a short answer.
While what was said is the beginning of such a text, word for word, and a sentence of it has just ended, the end has to
be likelier by far.

This file works on token ids and logits. It knows nothing of edits, text or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["FinishQuotations", "Quotation", "hold_back"]


@dataclass(frozen=True, slots=True)
class Quotation:
    """A text of several sentences that an answer may quote.

    Attributes:
        ids: The token ids of the whole text, as they would be said.
        pauses: Behind how many of them a sentence has ended and another one follows.
        ends: Tokens that would end the answer.
        reluctance: What is taken off their logits there.
    """

    ids: tuple[int, ...]
    pauses: frozenset[int]
    ends: tuple[int, ...]
    reluctance: float


def hold_back(logits: torch.Tensor, said: Sequence[int], quotations: Sequence[Quotation]) -> None:
    """Takes from the ends' logits, in place, where what was said is the beginning of a quotation and pauses.

    Args:
        logits: Those of the next token, ``[vocabulary]``.
        said: The token ids that were said so far.
        quotations: The texts that may be quoted.
    """
    for one in quotations:
        if len(said) in one.pauses and tuple(said) == one.ids[: len(said)]:
            logits[list(one.ends)] -= one.reluctance
            return


class FinishQuotations:
    """`hold_back` as a logits processor of ``generate``, one answer a row.

    Args:
        quotations: For each row the texts that may be quoted.
        width: How many tokens of each row are the prompt.
    """

    def __init__(self, quotations: Sequence[Sequence[Quotation]], *, width: int) -> None:
        self._quotations = quotations
        self._width = width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores of the next tokens, ``[rows, vocabulary]``, given what each row holds."""
        held = scores.clone()
        for logits, said, quotations in zip(held, input_ids[:, self._width :].tolist(), self._quotations, strict=True):
            hold_back(logits, said, quotations)
        return held
