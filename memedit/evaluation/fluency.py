"""Fluency: the entropy of the n-grams of what a model says, which falls where it repeats itself.

Works on the continuation alone. It knows nothing of prompts, models or edits.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["ngram_entropy", "words_of"]

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")

_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Weight of the entropy of each length of n-gram, of which the mean is taken; so Zhang et al. 2018 weigh them."""

_LONGEST = max(_WEIGHTS)


def words_of(text: str) -> list[str]:
    """Split a text into words and marks, as they stand.

    A word is a run of letters, digits and underscores, with the apostrophes inside it ("don't" is one word); every
    other visible character is a word by itself. A script that puts no spaces between words comes out as whole runs:
    for such text give `ngram_entropy` the tokens of a tokenizer.
    """
    return _WORD.findall(text)


def ngram_entropy(continuation: str | Sequence[Hashable]) -> float | None:
    """How varied a continuation is: the weighted mean of the entropies of its bigrams and trigrams, in bits.

    The generation entropy of Meng et al. 2022 (Locating and Editing Factual Associations in GPT): the mean of
    ``2/3 H(bigrams)`` and ``4/3 H(trigrams)``, where ``H = - sum f log2 f`` over the relative frequencies ``f``. It
    grows with the continuation's length, so only continuations of about one length are to be compared.

    Args:
        continuation: What the model said, without the prompt: text, which is split into words, or tokens.

    Returns:
        The entropy; 0 for one n-gram over and over. None where there are fewer than three words, which have no trigram.
    """
    tokens = words_of(continuation) if isinstance(continuation, str) else continuation
    if len(tokens) < _LONGEST:
        return None
    weighted = [weight * _entropy(tokens, size) for size, weight in _WEIGHTS.items()]
    return math.fsum(weighted) / len(weighted)


def _entropy(tokens: Sequence[Hashable], size: int) -> float:
    counts = Counter(tuple(tokens[begin : begin + size]) for begin in range(len(tokens) - size + 1))
    total = counts.total()
    return math.fsum(count / total * math.log2(total / count) for count in counts.values())
