"""Makes a decoding loop say what was written beforehand, in the tokens of its own vocabulary.

A model of another vocabulary cannot take part in the decoding loop. It writes its answer, a script, before the loop
begins; at each step the logits of a row with a script allow its next token alone, and behind the last one the end of
text. Whatever else the loop does stays as it is.

This file works on token ids. It knows nothing of edits or text, nor of who writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from memedit.errors import UnsupportedCallError
from memedit.quotations import Quotation

if TYPE_CHECKING:
    import torch

__all__ = ["Recital", "Script", "ScriptWriter", "Writing"]

_NEVER = -1e4
"""The logit of every token that a script does not allow: its probability is 0, and it is still a number where a logits
processor of the caller's forbids the token that the script does allow."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How scripts are to be written.

    Attributes:
        limit: The most tokens of a script that the caller can take; None where that is not known.
        least: The fewest tokens that the caller wants.
        copies: How many scripts of each row: more than one where several are sampled.
        beams: Whether the decoding loop carries several beams of each row along.
        sampling: Options of ``generate`` that say how to sample; empty for the likeliest token at each place.
    """

    limit: int | None = None
    least: int = 0
    copies: int = 1
    beams: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)


class ScriptWriter(Protocol):
    """A model of another vocabulary that answers governed rows beforehand."""

    def write(self, scripts: Sequence[Script], writing: Writing) -> list[list[tuple[int, ...]]]:
        """Write some scripts.

        Args:
            scripts: What is to be written.
            writing: How.

        Returns:
            For each script ``writing.copies`` of them, in tokens of the base model's vocabulary.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The writer's own token ids as text."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a governed row is made to say. It is written when it is wanted, together with those of other rows.

    Attributes:
        writer: What writes it.
        reads: What the writer reads, in its own token ids.
        behind: The last of the row's own token ids, which the script goes on from.
        may_be_empty: Whether there may be nothing left to say.
        quotations: Texts that it goes on quoting where it begins to, in the writer's own token ids.
    """

    writer: ScriptWriter
    reads: tuple[int, ...]
    behind: tuple[int, ...]
    may_be_empty: bool = False
    quotations: tuple[Quotation, ...] = ()

    @property
    def seen(self) -> str:
        """What the writer reads, as text."""
        return self.writer.decode(self.reads)


class Recital:
    """The scripts of one ``generate`` call, and how far they have come.

    Args:
        scripts: The script of each row that has one.
        writing: How they are written.
        end: The token that ends a row.
        padding: The token that rows which have ended are filled up with; None for ``end``.

    Raises:
        UnsupportedCallError: Nothing ends a row, or more tokens are wanted than a script has.
    """

    def __init__(
        self, scripts: Mapping[int, Script], writing: Writing, *, end: int | None, padding: int | None
    ) -> None:
        if end is None:
            raise UnsupportedCallError(
                "eos_token_id is not set, so a governed row would go on behind its answer; pass eos_token_id"
            )
        self._end = end
        self._fillers = {end, end if padding is None else padding}
        self._beams = writing.beams
        self._done: set[int] = set()
        self._scripts = _written(scripts, writing)
        for row, copies in self._scripts.items():
            shortest = min(map(len, copies))
            if shortest < writing.least:
                raise UnsupportedCallError(
                    f"min_new_tokens (or min_length) asks for {writing.least} tokens, and the answer to row {row}, "
                    f"which a model of another vocabulary has written, has {shortest}; ask for fewer"
                )

    @property
    def rows(self) -> frozenset[int]:
        """The rows that have a script."""
        return frozenset(self._scripts)

    def recite(self, logits: torch.Tensor, expansion: int, step: int) -> None:
        """Allow the next token of each script alone, in place; ``logits`` is ``[rows times beams, vocabulary]``."""
        for place, script in self._places(expansion):
            logits[place] = _NEVER
            # lower still, so that where the allowed token is forbidden, what is taken does not pass for the row's end
            logits[place, list(self._fillers)] = 2 * _NEVER
            logits[place, script[step] if step < len(script) else self._end] = 0.0

    def check(self, newest: Sequence[int], expansion: int, step: int) -> None:
        """See that the decoding loop has taken what the scripts allowed.

        Args:
            newest: The newest token of each row.
            expansion: Beams, or samples, of each row.
            step: How many tokens were generated.

        Raises:
            UnsupportedCallError: It has taken another token, because something forbade the right one.
        """
        if step == 0:
            return
        for place, script in self._places(expansion):
            # beam search has nothing to fill its other beams with; the best comes first
            if place in self._done or (self._beams and place % expansion):
                continue
            if step <= len(script) and newest[place] == script[step - 1]:
                continue
            self._done.add(place)
            if newest[place] not in self._fillers and not (self._beams and step > len(script)):
                raise UnsupportedCallError(
                    "a logits processor (no_repeat_ngram_size, bad_words_ids, a constraint of yours, ...) forbids what "
                    f"row {place // expansion} is to say: its answer was written beforehand by a model of another "
                    'vocabulary, and is taken as it is; leave the processor away, or use mode "ike"'
                )

    def _places(self, expansion: int) -> list[tuple[int, tuple[int, ...]]]:
        return [
            (row * expansion + place, copies[place % len(copies)])
            for row, copies in self._scripts.items()
            for place in range(expansion)
        ]


def _written(scripts: Mapping[int, Script], writing: Writing) -> dict[int, list[tuple[int, ...]]]:
    """The scripts of each row, each writer's written together."""
    written: dict[int, list[tuple[int, ...]]] = {}
    for writer in {id(script.writer): script.writer for script in scripts.values()}.values():
        rows = [row for row, script in scripts.items() if script.writer is writer]
        written.update(zip(rows, writer.write([scripts[row] for row in rows], writing), strict=True))
    return dict(sorted(written.items()))
