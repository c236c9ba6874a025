"""Has an answer that begins to quote a text go on quoting it.

An edit's target may be a paragraph. A small model that quotes it word for word leaves it now and then: behind a
sentence, where the end is about as likely as the next one, since a short question may as well want a short answer; or
where a phrase occurs twice, from where it goes round in a circle. Once the first sentence of such a text has been said,
word for word, whatever is to be said in place of the text's next token has to be likelier by far.

This file works on token ids and logits. It knows nothing of edits, text or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["KeepQuoting", "Quotation", "lead_on"]


@dataclass(frozen=True, slots=True)
class Quotation:
    """A text of several sentences that an answer may quote.

    Attributes:
        ids: The token ids of the whole text, as they would be said.
        first: How many of them are its first sentence.
        lead: What is added to the logit of its next token from there on.
    """

    ids: tuple[int, ...]
    first: int
    lead: float


def lead_on(logits: torch.Tensor, said: Sequence[int], quotations: Sequence[Quotation]) -> None:
    """Adds to the logit of a quotation's next token, in place, where what was said is its beginning.

    Args:
        logits: Those of the next token, ``[vocabulary]``.
        said: The token ids that were said so far.
        quotations: The texts that may be quoted.
    """
    for one in quotations:
        if one.first <= len(said) < len(one.ids) and tuple(said) == one.ids[: len(said)]:
            logits[one.ids[len(said)]] += one.lead
            return


class KeepQuoting:
    """`lead_on` as a logits processor of ``generate``, one answer a row.

    Args:
        quotations: For each row the texts that may be quoted.
        width: How many tokens of each row are the prompt.
    """

    def __init__(self, quotations: Sequence[Sequence[Quotation]], *, width: int) -> None:
        self._quotations = quotations
        self._width = width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores of the next tokens, ``[rows, vocabulary]``, given what each row holds."""
        led = scores.clone()
        for logits, said, quotations in zip(led, input_ids[:, self._width :].tolist(), self._quotations, strict=True):
            lead_on(logits, said, quotations)
        return led
