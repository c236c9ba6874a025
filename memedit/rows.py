"""From a batch of token ids to prompts: each row's own tokens, its text, its turns and its question.

This is the one place where ids become text for routing. It knows the tokenizer and its chat template, but nothing of
edits or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.chat_format import ChatFormat, Turn
from memedit.errors import InvalidPromptError
from memedit.injection import StopTokens
from memedit.queries import Query, conversation_query, question_query

if TYPE_CHECKING:
    import torch

__all__ = ["PromptReader", "RowPrompt"]


@dataclass(frozen=True, slots=True)
class RowPrompt:
    """What one row of a batch says.

    Attributes:
        ids: The row's own token ids, padding left out.
        text: The ids as text, special tokens included.
        turns: The turns, where the text follows the tokenizer's chat template; else None.
        query: What is asked; None where nothing can be (an empty row, a conversation without a user turn).
    """

    ids: tuple[int, ...]
    text: str
    turns: tuple[Turn, ...] | None
    query: Query | None


class PromptReader:
    """Reads the rows of a batch of token ids.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat_format = ChatFormat.from_tokenizer(tokenizer)
        self._stops: dict[tuple[str, ...], StopTokens] = {}

    def read(self, ids: Sequence[int]) -> RowPrompt:
        """Read one row.

        Args:
            ids: The row's token ids without masked padding.
        """
        text = self.decode(ids)
        turns = self.chat_format.parse(text) if self.chat_format is not None else None
        try:
            query = conversation_query(turns) if turns is not None else question_query(self._plain(ids))
        except InvalidPromptError:
            query = None
        return RowPrompt(tuple(ids), text, turns, query)

    def read_batch(self, input_ids: torch.Tensor, mask: torch.Tensor) -> list[RowPrompt]:
        """Read every row of a batch.

        Args:
            input_ids: Token ids, ``[rows, width]``.
            mask: 1 for the row's own tokens, 0 for padding, ``[rows, width]``.
        """
        return [
            self.read([token for token, own in zip(row, kept, strict=True) if own])
            for row, kept in zip(input_ids.tolist(), mask.tolist(), strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The ids as text, special tokens written out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def token_at(self, ids: Sequence[int], character: int) -> int:
        """The index of the token with which a character of :meth:`decode`'s text begins.

        Args:
            ids: Token ids of the text.
            character: An offset into the text.

        Returns:
            The smallest index ``i`` such that the first ``i`` tokens hold at least ``character`` characters.
        """
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.decode(ids[:middle])) < character:
                low = middle + 1
            else:
                high = middle
        return low

    def stop_tokens(self, strings: Sequence[str]) -> StopTokens:
        """The tokens that hold one of some strings, and those that say nothing.

        Args:
            strings: Where a text is to end, such as a line's end.
        """
        key = tuple(strings)
        if key not in self._stops:
            vocabulary = range(len(self.tokenizer))
            texts = self.tokenizer.batch_decode([[token] for token in vocabulary], clean_up_tokenization_spaces=False)
            self._stops[key] = StopTokens(
                ids=tuple(token for token, text in enumerate(texts) if any(string in text for string in key)),
                blank=frozenset(token for token, text in enumerate(texts) if not text.strip()),
            )
        return self._stops[key]

    def _plain(self, ids: Sequence[int]) -> str:
        """A raw prompt's text, without special tokens and without a run of one token that pads its end.

        Some callers (lm-eval's likelihood requests) pad on the right and pass no mask; the run says nothing.
        """
        ids = list(ids)
        end = len(ids)
        while end >= 2 and ids[end - 1] == ids[end - 2] and ids[end - 1] in (0, self.tokenizer.pad_token_id):
            end -= 1
        if end < len(ids):
            ids = ids[: end - 1]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
