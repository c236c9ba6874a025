"""Other names of an edit's subject and other wordings of its prompt that a language model proposes, checked one by one.

The model is shown a few worked examples and asked once for names and once for wordings, greedily. Small models propose
much nonsense, so a proposal is taken only if it passes every check; each that does not is kept with the reason, so that
a person can see what was done. What is taken becomes the edit's ``aliases`` and ``paraphrases``, which the memory
stores as vectors of their own.

This file knows the words of an edit and what else is in memory. It knows nothing of routing or of answering.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from classifiers import ScopeCandidate, ScopeClassifier, TextEncoder
from memedit.chat_format import ChatFormat
from memedit.counterfactual import GREEDY
from memedit.passes import folded_head, pad_left
from memedit.prompts import Neutraliser
from memory_store import Edit, EditMemory, Hit

__all__ = ["MOST_PROPOSALS", "Expansion", "Proposer", "Proposing", "Refused", "expand"]

MOST_PROPOSALS = 3
"""How many names, and how many wordings, an edit gets at most."""

MAX_NAME_CHARACTERS = 60
MAX_WORDING_CHARACTERS = 300
_ANSWER_TOKENS = 64
_NEIGHBOURS = 10

_NAMES_WANTED = "Give other names of the same thing or person, separated by semicolons. If there are none, say: none."
_NAMES_SHOWN = (
    ("United States of America", "United States; USA; America"),
    ("Queen Elizabeth II", "Elizabeth II; Elizabeth Windsor"),
    ("Kraftwerk", "none"),
    ("Massachusetts Institute of Technology", "MIT; Massachusetts Tech"),
)
_WORDINGS_WANTED = "Say the same in other words, separated by semicolons. Do not complete it."
_WORDINGS_SHOWN = (
    (
        "The headquarters of Acme Rockets is in",
        "Acme Rockets is based in; Where is Acme Rockets based?; The head office of Acme Rockets is in",
    ),
    (
        "Which language does Ida Holm speak?",
        "What language is spoken by Ida Holm?; Ida Holm speaks; The language that Ida Holm speaks is",
    ),
    (
        "The director of Night Train is",
        "Night Train was directed by; Who directed Night Train?; The film Night Train is by the director",
    ),
)
_NUMBER = re.compile(r"\w*\d\w*|jr|sr|junior|senior|[ivx]{2,}")
"""A word that tells one from others of the same name; in folded form."""

_WORD = re.compile(r"[^\W_]+")
_LISTED = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")

Kind = Literal["alias", "paraphrase"]
"""What a proposal is: another name of the subject, or another wording of the prompt."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A proposal that was not taken.

    Attributes:
        kind: What it was to be.
        text: What was proposed.
        why: The check that it failed.
    """

    kind: Kind
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a model proposed for an edit.

    Attributes:
        edit: The edit as it was.
        aliases: Names that were taken.
        paraphrases: Wordings that were taken.
        refused: What was not, and why.
    """

    edit: Edit
    aliases: tuple[str, ...]
    paraphrases: tuple[str, ...]
    refused: tuple[Refused, ...]

    @property
    def expanded(self) -> Edit:
        """The edit with what was taken."""
        return replace(
            self.edit,
            aliases=(*self.edit.aliases, *self.aliases),
            paraphrases=(*self.edit.paraphrases, *self.paraphrases),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns what was taken and what was not as a JSON object, without the edit."""
        return {
            "aliases": list(self.aliases),
            "paraphrases": list(self.paraphrases),
            "refused": [asdict(one) for one in self.refused],
        }


class Proposing(Protocol):
    """Proposes names and wordings."""

    def propose(self, edits: Sequence[Edit]) -> list[tuple[list[str], list[str]]]:
        """For each edit names of its subject and wordings of its prompt, best first."""


class Proposer:
    """Asks a causal language model for names and wordings.

    Args:
        model: The model, unedited.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._neutral = Neutraliser.for_tokenizer(tokenizer)
        self._chats = ChatFormat.from_tokenizer(tokenizer) is not None

    def propose(self, edits: Sequence[Edit]) -> list[tuple[list[str], list[str]]]:
        """For each edit names of its subject and wordings of its prompt; no names where it has no subject.

        Args:
            edits: The edits; all are asked about in one batch.
        """
        asked: list[list[int]] = []
        for edit in edits:
            asked.append(self._ids(_NAMES_WANTED, _NAMES_SHOWN, edit.subject or edit.prompt))
            asked.append(self._ids(_WORDINGS_WANTED, _WORDINGS_SHOWN, edit.prompt))
        said = iter(self._said(asked))
        proposed = [(_listed(next(said)), _listed(next(said))) for _ in edits]
        return [
            (names if edit.subject else [], wordings) for edit, (names, wordings) in zip(edits, proposed, strict=True)
        ]

    def _ids(self, wanted: str, shown: Sequence[tuple[str, str]], text: str) -> list[int]:
        asked = self._neutral(text)
        tokenizer = self._tokenizer
        if not self._chats:
            lines = "".join(f"{one} = {answer}\n" for one, answer in shown)
            return list(tokenizer(f"{wanted}\n\n{lines}{asked} =", split_special_tokens=True)["input_ids"])
        messages = []
        for one, answer in shown:
            messages += [{"role": "user", "content": f"{wanted}\n{one}"}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": f"{wanted}\n{asked}"})
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])

    def _said(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """The first line of what the model says behind each prompt."""
        import torch

        if not prompts:
            return []
        pad = self._tokenizer.pad_token_id
        pad = self._tokenizer.eos_token_id if pad is None else pad
        ids, mask = pad_left(prompts, device=self._model.device, pad=pad)
        with torch.inference_mode(), folded_head(self._model):
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=_ANSWER_TOKENS, pad_token_id=pad, **GREEDY
            )
        texts = self._tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [next(iter(text.strip().splitlines()), "") for text in texts]


def expand(
    edits: Sequence[Edit],
    proposing: Proposing,
    *,
    memory: EditMemory,
    encoder: TextEncoder,
    scope: ScopeClassifier,
    namespaces: Sequence[str],
    neutral: Neutraliser,
) -> list[Expansion]:
    """Has names and wordings proposed for edits, and checks each.

    Args:
        edits: Drafts, or edits that are in the memory.
        proposing: What proposes.
        memory: The memory that the edits go to: what belongs to another edit there is refused.
        encoder: The memory's encoder.
        scope: Has to find that a wording asks for the edit as it is.
        namespaces: Where in the memory other edits are looked for.
        neutral: What leaves a text without markup as it is.

    Returns:
        One expansion an edit, in order.
    """
    return [
        _checked(edit, names, wordings, _Checks(edit, memory, encoder, scope, tuple(namespaces), neutral))
        for edit, (names, wordings) in zip(edits, proposing.propose(edits), strict=True)
    ]


def _checked(edit: Edit, names: Sequence[str], wordings: Sequence[str], checks: _Checks) -> Expansion:
    aliases, refused = _taken("alias", names, (edit.subject or "", *edit.aliases), checks.name)
    paraphrases, more = _taken("paraphrase", wordings, (edit.prompt, edit.fact, *edit.paraphrases), checks.wording)
    return Expansion(edit, tuple(aliases), tuple(paraphrases), (*refused, *more))


def _taken(
    kind: Kind, proposals: Iterable[str], known: Iterable[str], check: Callable[[str], str | None]
) -> tuple[list[str], list[Refused]]:
    """Those that pass, as many as are wanted, and the others with what they failed."""
    seen = {_folded(text) for text in known}
    taken: list[str] = []
    refused: list[Refused] = []
    for text in proposals:
        if _folded(text) in seen:
            why: str | None = "it is there already"
        elif len(taken) >= MOST_PROPOSALS:
            why = f"{MOST_PROPOSALS} are enough"
        else:
            why = check(text)
        seen.add(_folded(text))
        if why is None:
            taken.append(text)
        else:
            refused.append(Refused(kind, text, why))
    return taken, refused


class _Checks:
    """The checks of one edit's proposals: each gives the reason against a text, or None."""

    def __init__(
        self,
        edit: Edit,
        memory: EditMemory,
        encoder: TextEncoder,
        scope: ScopeClassifier,
        namespaces: tuple[str, ...],
        neutral: Neutraliser,
    ) -> None:
        self._edit = edit
        self._memory = memory
        self._encoder = encoder
        self._scope = scope
        self._namespaces = namespaces
        self._neutral = neutral

    def name(self, text: str) -> str | None:
        """Why a text is not taken as another name of the subject."""
        subject = self._edit.subject or ""
        if subject not in self._edit.prompt:
            return "the prompt does not name the subject, so another name changes nothing"
        if (why := self._text(text, MAX_NAME_CHARACTERS)) is not None:
            return why
        if not any(sign.isalpha() for sign in text) or text.rstrip().endswith(("?", "!", ":")):
            return "it is no name"
        if subject != subject.lower() and text == text.lower():
            return "it is a word, not a name"
        if not _akin(text, subject):
            return "it is neither made of the subject's words nor its initials"
        if len(_words(text)) == 1 and len(_words(subject)) > 1 and _words(subject)[0] == _words(text)[0]:
            return "it is the first word of the subject alone"
        return self._named_elsewhere(text)

    def wording(self, text: str) -> str | None:
        """Why a text is not taken as another wording of the prompt."""
        if (why := self._text(text, MAX_WORDING_CHARACTERS)) is not None:
            return why
        edit = self._edit
        names = [name for name in (edit.subject, *edit.aliases) if name]
        if names and not any(_names(text, name) for name in names):
            return "it does not name the subject"
        if _folded(edit.prompt).startswith(_folded(text)):
            return "it is the beginning of the prompt"
        own, other = self._encoder.encode([edit.prompt, text])
        similarity = float(own @ other)
        as_it_is = ScopeCandidate(
            prompt=edit.prompt,
            target=edit.target,
            subject=edit.subject,
            matched_text=edit.prompt,
            similarity=similarity,
        )
        probability = float(self._scope.probabilities([text], [as_it_is])[0])
        if probability < self._scope.threshold:
            return f"it asks for something else ({self._scope.name} gives it {probability:.2f})"
        nearer = next((hit for hit in self._others(text) if hit.score > similarity), None)
        return None if nearer is None else f"it is nearer to another edit: {nearer.edit.prompt}"

    def _text(self, text: str, most: int) -> str | None:
        if not text.strip():
            return "it is empty"
        if self._neutral(text) != text:
            return "it holds markup or a label"
        if len(text) > most:
            return f"it has more than {most} characters"
        target = self._edit.target.strip()
        if _names(text, target) or _names(target, text):
            return "it names the target"
        return None

    def _named_elsewhere(self, name: str) -> str | None:
        edit = self._edit
        prompt = edit.prompt.replace(edit.subject or "", name)
        for hit in (*self._others(name), *self._others(prompt)):
            others = [other for other in (hit.edit.subject, *hit.edit.aliases) if other]
            if any(_names(other, name) for other in others):
                return f"it stands in the name of another edit's subject: {hit.edit.subject}"
            if _folded(hit.text) == _folded(prompt):
                return f"another edit has that prompt: {hit.edit.prompt}"
        return None

    def _others(self, text: str) -> Iterator[Hit]:
        """The nearest edits of the memory about another subject, or with another prompt where none is known."""
        edit = self._edit
        (hits,) = self._memory.search(self._encoder.encode([text]), _NEIGHBOURS, namespaces=self._namespaces)
        for hit in hits:
            same_subject = edit.subject is not None and _folded(hit.edit.subject or "") == _folded(edit.subject)
            if not same_subject and _folded(hit.edit.prompt) != _folded(edit.prompt):
                yield hit


def _listed(text: str) -> list[str]:
    """The proposals of a line: what stands between semicolons, without numbers, bullets and quotes; "none" is none."""
    pieces = (_LISTED.sub("", piece).strip().strip("\"'“”‘’").strip() for piece in text.split(";"))
    found = [piece.rstrip(".").rstrip() for piece in pieces]
    return [piece for piece in dict.fromkeys(found) if piece and piece.casefold() != "none"]


def _akin(name: str, subject: str) -> bool:
    """Whether a name is made of words of the subject, initials aside, or is the subject's initials.

    What a small model adds to a name, alters in it or says twice makes it another's: "Naga Chaitanya College", "Oscar
    Wilde". So does a number left out: "Atlantic hurricane season", or "Rama Rao" for his grandson with a "Jr.".
    """
    own, other = _words(name), _words(subject)
    if len(own) == 1 and own[0] in (_initials(other), _initials(word for word in other if len(word) > 2)):
        return True
    long = [word for word in own if len(word) > 2]
    numbers = {word for word in other if _NUMBER.fullmatch(word)}
    return bool(long) and set(long) <= set(other) and len(set(long)) == len(long) and numbers <= set(own)


def _initials(words: Iterable[str]) -> str:
    return "".join(word[0] for word in words)


def _names(text: str, name: str) -> bool:
    """Whether a text holds a name, from word to word."""
    words = " ".join(_words(name))
    return bool(words) and f" {words} " in f" {' '.join(_words(text))} "


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold().replace(".", ""))


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
