"""General ability after editing: perplexity on plain text, multiple choice, and how far the distributions moved.

Nothing here is about any edit: a method that leaves a model alone scores exactly what the unedited model scores. Each
text and each question is a prompt like any other, so a memory editor decides on it (`Editor.treat`), and what it puts
into a prompt is before the model's eyes while the prompt's own tokens, and only those, are scored.

A prompt that a method leaves alone (no context, no other model, no changed weights) is not computed again: its score is
the unedited model's, which `Unedited` remembers and all methods share.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from memedit.editors.editor import Editor, TokenIds, Treatment
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.evaluation.ability_data import LETTERS, AbilityData, ChoiceQuestion, drawn, stratified, token_windows
from memedit.injection import Insertion, splice
from memedit.passes import logits_of, max_positions
from memedit.ranges import check_range

if TYPE_CHECKING:
    import torch

__all__ = [
    "Ability",
    "AbilityBench",
    "AbilitySettings",
    "ChoiceScore",
    "TextScore",
    "Unedited",
    "mmlu",
    "perplexity",
]

WINDOW_TOKENS = 512
"""Width of a window of running text."""

_LOGIT_BYTES = 256 * 1024**2
"""What the logits of one pass may take, in single precision, unless one text takes more by itself."""

_HIDDEN_TOKENS = 4_096
"""Tokens of a pass of which only the last distributions are wanted."""

_SOFTMAX_TOKENS = 64
"""Distributions that are normalised at once: a vocabulary may have a quarter of a million tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbilitySettings:
    """How much is measured, and what draws it.

    Attributes:
        wikitext_tokens: Tokens of WikiText-2, in whole windows of 512; 0 leaves it out.
        sentences: Sentences of ME-PPL; 0 leaves it out.
        questions: Questions of MMLU; 0 leaves it out.
        seed: Draws windows, sentences and questions.
    """

    wikitext_tokens: int = 16 * WINDOW_TOKENS
    sentences: int = 100
    questions: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("wikitext_tokens", "sentences", "questions"):
            check_range(f"ability.{name}", getattr(self, name), least=0)


# -- what comes of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    """How well a model foretells some texts.

    Attributes:
        perplexity: ``exp`` of the mean negative log-likelihood of a token, over all tokens of all texts alike.
        before: The unedited model's.
        kl_per_token: Mean Kullback-Leibler divergence of the edited model's next-token distribution from the unedited
            one's, ``KL(unedited || edited)``, in nats.
        tokens: Tokens that were foretold.
        texts: Texts.
        treated: Of them, those that the method answered otherwise than by the unedited model's own pass.
        seconds: What it took.
    """

    perplexity: float
    before: float
    kl_per_token: float
    tokens: int
    texts: int
    treated: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceScore:
    """How many multiple-choice questions are answered rightly.

    Attributes:
        accuracy: Share of right answers.
        before: The unedited model's.
        questions: Questions.
        treated: Of them, those that the method answered otherwise than by the unedited model's own pass.
        changed: Of them, those at which another letter was chosen than by the unedited model.
        seconds: What it took.
    """

    accuracy: float
    before: float
    questions: int
    treated: int
    changed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What a model can do apart from its edits; a part is None where it was not measured.

    Attributes:
        wikitext: On WikiText-2, in windows of 512 tokens. By tokens of the model, so not to be compared between models
            of different vocabularies, nor with published perplexities a word.
        me_ppl: On the sentences of ME-PPL.
        mmlu: On MMLU, without worked examples.
    """

    wikitext: TextScore | None = None
    me_ppl: TextScore | None = None
    mmlu: ChoiceScore | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object; parts that were not measured are left out."""
        return {name: part for name, part in asdict(self).items() if part is not None}

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            TypeError: A field is unknown or missing.
        """
        parts: dict[str, Any] = {"wikitext": TextScore, "me_ppl": TextScore, "mmlu": ChoiceScore}
        unknown = mapping.keys() - parts.keys()
        if unknown:
            raise TypeError(f"ability has no part {min(unknown)!r}; it has {', '.join(parts)}")
        return cls(**{name: parts[name](**part) for name, part in mapping.items()})


# -- the unedited model ------------------------------------------------------------------------------------------------


class Unedited:
    """The unedited model, and what it said so far, so that no method asks it twice.

    Args:
        subject: The model, in which no edit is in place now.
        keep_model: Keep a copy of the weights. It is needed beside methods that change weights, and takes as much
            memory again as the model.
    """

    def __init__(self, subject: Subject, *, keep_model: bool = False) -> None:
        self._kept = copy.deepcopy(subject.model) if keep_model else None
        self._own = subject.model
        self.nats: dict[tuple[int, ...], float] = {}
        """Negative log-likelihood of texts, over all their tokens but the first."""
        self.choices: dict[tuple[int, ...], int] = {}
        """The choice made at prompts, as the place of its letter."""

    def model_beside(self, editor: Editor) -> Any:
        """The model to ask while a method's edits are in place.

        Args:
            editor: The method.

        Raises:
            UnsupportedCallError: The method changed the weights, and no copy of the unedited ones was kept.
        """
        if self._kept is not None:
            return self._kept
        if editor.info.changes == "weights":
            raise UnsupportedCallError(
                f"{editor.info.name} changes the model's weights, so the unedited model cannot be asked beside it; "
                "make Unedited(subject, keep_model=True) before the first edit"
            )
        return self._own


def _treated(editor: Editor, treatment: Treatment) -> bool:
    """Whether anything but the unedited model's own pass answers the prompt."""
    return editor.info.changes == "weights" or treatment.context is not None or treatment.model is not None


def _insertions(treatment: Treatment) -> tuple[Insertion, ...]:
    return treatment.context.for_likelihoods() if treatment.context is not None else ()


def _by_model(
    subject: Subject, treatments: Sequence[Treatment], moved: Iterable[int]
) -> Iterator[tuple[Any, list[int]]]:
    """Each model that answers treated prompts, with their places."""
    answering: dict[int, tuple[Any, list[int]]] = {}
    for place in sorted(moved):
        model = treatments[place].model if treatments[place].model is not None else subject.model
        answering.setdefault(id(model), (model, []))[1].append(place)
    yield from answering.values()


# -- measuring ---------------------------------------------------------------------------------------------------------


def perplexity(subject: Subject, editor: Editor, texts: Sequence[TokenIds], *, unedited: Unedited) -> TextScore:
    """How well the edited model foretells texts, beside the unedited one.

    Args:
        subject: The model.
        editor: The method, its edits in place. It sees each text as a prompt.
        texts: Token ids of each text. Its first token is not foretold; those of a context never are.
        unedited: The unedited model.

    Raises:
        UnsupportedCallError: The method changes weights and the unedited model was not kept, or a text with its context
            is longer than the model reads.
        ConfigError: No text has two tokens.
    """
    started = time.perf_counter()
    own = [tuple(text) for text in texts if len(text) > 1]
    if not own:
        raise ConfigError("Perplexity needs texts of at least two tokens; there is none.")
    treatments = editor.treat(own)
    base = unedited.model_beside(editor)
    moved = {place for place, treatment in enumerate(treatments) if _treated(editor, treatment)}
    _remember_nats(base, [text for place, text in enumerate(own) if place not in moved], unedited)
    edited: dict[int, _Drift] = {}
    for model, places in _by_model(subject, treatments, moved):
        rows = [_Row.text(own[place], _insertions(treatments[place])) for place in places]
        _check_lengths(model, rows)
        for batch in _batches(rows, _logit_tokens(model)):
            drifts = _drifts(model, base, [(own[places[index]], rows[index]) for index in batch])
            edited.update(zip((places[index] for index in batch), drifts, strict=True))
    for place, drift in edited.items():
        unedited.nats.setdefault(own[place], drift.nats_before)
    before = math.fsum(unedited.nats[text] for text in own)
    after = math.fsum(edited[place].nats if place in edited else unedited.nats[text] for place, text in enumerate(own))
    tokens = sum(len(text) - 1 for text in own)
    return TextScore(
        perplexity=_exp(after / tokens),
        before=_exp(before / tokens),
        kl_per_token=math.fsum(drift.kl for drift in edited.values()) / tokens,
        tokens=tokens,
        texts=len(own),
        treated=len(moved),
        seconds=time.perf_counter() - started,
    )


def mmlu(subject: Subject, editor: Editor, questions: Sequence[ChoiceQuestion], *, unedited: Unedited) -> ChoiceScore:
    """How many questions the edited model answers rightly, beside the unedited one.

    The answer is the likeliest of the letters A to D behind the prompt; nothing is generated.

    Args:
        subject: The model.
        editor: The method, its edits in place.
        questions: What is asked, each as `ChoiceQuestion.prompt` words it, without a chat template.
        unedited: The unedited model.

    Raises:
        UnsupportedCallError: As `perplexity`; or the tokenizer does not tell the letters apart by one token.
        ConfigError: There are no questions.
    """
    started = time.perf_counter()
    if not questions:
        raise ConfigError("There are no questions to ask.")
    stem, letters = _letter_tokens(subject.tokenizer)
    prompts = [tuple(subject.tokenizer(question.prompt)["input_ids"]) for question in questions]
    treatments = editor.treat(prompts)
    base = unedited.model_beside(editor)
    asked = [(*prompt, *stem) for prompt in prompts]
    new = sorted(set(asked) - unedited.choices.keys())
    unedited.choices.update(zip(new, _choices(base, [_Row.prompt(one) for one in new], letters), strict=True))
    before = [unedited.choices[prompt] for prompt in asked]
    after = list(before)
    moved = {place for place, treatment in enumerate(treatments) if _treated(editor, treatment)}
    for model, places in _by_model(subject, treatments, moved):
        rows = [_Row.prompt(asked[place], _insertions(treatments[place])) for place in places]
        for place, choice in zip(places, _choices(model, rows, letters), strict=True):
            after[place] = choice
    right = [question.answer for question in questions]
    return ChoiceScore(
        accuracy=fmean(map(int.__eq__, after, right)),
        before=fmean(map(int.__eq__, before, right)),
        questions=len(questions),
        treated=len(moved),
        changed=sum(map(int.__ne__, after, before)),
        seconds=time.perf_counter() - started,
    )


class AbilityBench:
    """Measures the ability of one model under many methods: texts are cut once, and the unedited model asked once.

    Args:
        subject: The model, in which no edit is in place now.
        data: Texts and questions.
        settings: How much of them is measured.
        keep_model: Keep a copy of the unedited weights: needed for methods that change weights.
    """

    def __init__(
        self,
        subject: Subject,
        data: AbilityData,
        *,
        settings: AbilitySettings | None = None,
        keep_model: bool = False,
    ) -> None:
        self.settings = settings if settings is not None else AbilitySettings()
        self.unedited = Unedited(subject, keep_model=keep_model)
        self._subject = subject
        seed, tokenizer = self.settings.seed, subject.tokenizer
        windows = token_windows(tokenizer, data.wikitext, width=WINDOW_TOKENS) if self.settings.wikitext_tokens else []
        self._windows = drawn(
            windows, math.ceil(self.settings.wikitext_tokens / WINDOW_TOKENS), seed=f"{seed}:wikitext"
        )
        sentences = drawn(data.sentences, self.settings.sentences, seed=f"{seed}:me-ppl")
        self._sentences = [tuple(tokenizer(sentence)["input_ids"]) for sentence in sentences]
        self._questions = stratified(data.questions, self.settings.questions, seed=seed)

    def measure(self, editor: Editor) -> Ability:
        """Measure what the model can do with a method's edits in place.

        Args:
            editor: The method.

        Raises:
            UnsupportedCallError: As `perplexity` and `mmlu`.
        """
        subject, unedited = self._subject, self.unedited
        return Ability(
            wikitext=perplexity(subject, editor, self._windows, unedited=unedited) if self._windows else None,
            me_ppl=perplexity(subject, editor, self._sentences, unedited=unedited) if self._sentences else None,
            mmlu=mmlu(subject, editor, self._questions, unedited=unedited) if self._questions else None,
        )


def _exp(nats: float) -> float:
    """``exp``, infinite where a float cannot hold it: some methods ruin a model."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


# -- passes over the model ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt as a model reads it.

    Attributes:
        ids: Its tokens, a context among them.
        reads: The places at which the next token's distribution is wanted.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]

    @classmethod
    def text(cls, own: Sequence[int], insertions: Sequence[Insertion] = ()) -> Self:
        """A text, read where each of its own tokens but the first is foretold."""
        spliced, places = splice(own, insertions)
        return cls(tuple(spliced), tuple(place - 1 for place in places[1:]))

    @classmethod
    def prompt(cls, own: Sequence[int], insertions: Sequence[Insertion] = ()) -> Self:
        """A prompt, read where the model goes on."""
        spliced, _ = splice(own, insertions)
        return cls(tuple(spliced), (len(spliced) - 1,))


class _Pass:
    """One pass of a model over some rows, padded on the left.

    Args:
        model: The model.
        rows: The rows.
    """

    def __init__(self, model: Any, rows: Sequence[_Row]) -> None:
        import torch

        from_end = [[len(row.ids) - place for place in row.reads] for row in rows]
        kept = max(map(max, from_end))
        with torch.no_grad():
            self._logits = logits_of(model, [row.ids for row in rows], keep=kept)
        self._places = [[kept - back for back in row] for row in from_end]

    def logits(self, row: int, span: slice = slice(None)) -> torch.Tensor:
        """The logits at some of a row's reads, ``[reads, vocabulary]``, in single precision."""
        return self._logits[row, self._places[row][span]].float()


def _spans(length: int) -> Iterator[slice]:
    return (slice(begin, begin + _SOFTMAX_TOKENS) for begin in range(0, length, _SOFTMAX_TOKENS))


def _nats(row: _Pass, place: int, own: Sequence[int]) -> float:
    """Negative log-likelihood of a text's own tokens but the first."""
    return math.fsum(_foretold(row.logits(place, span).log_softmax(-1), own[1:][span]) for span in _spans(len(own) - 1))


def _foretold(log_probs: torch.Tensor, targets: Sequence[int]) -> float:
    """Negative log-likelihood of some tokens; ``log_probs`` is ``[tokens, vocabulary]``."""
    import torch

    chosen = log_probs.gather(1, torch.tensor(targets, device=log_probs.device).unsqueeze(1))
    return -float(chosen.double().sum())


@dataclass(frozen=True, slots=True)
class _Drift:
    """What a method did to one text: in nats, summed over its tokens."""

    nats: float
    nats_before: float
    kl: float


def _drifts(model: Any, base: Any, texts: Sequence[tuple[TokenIds, _Row]]) -> list[_Drift]:
    """How the answering model and the unedited one foretell each text, side by side.

    Args:
        model: The model that answers.
        base: The unedited model.
        texts: Each text's own tokens, and what the answering model reads.
    """
    after = _Pass(model, [row for _, row in texts])
    before = _Pass(base, [_Row.text(own) for own, _ in texts])
    drifts = []
    for place, (own, _) in enumerate(texts):
        parts = []
        for span in _spans(len(own) - 1):
            edited, unedited = (one.logits(place, span).log_softmax(-1) for one in (after, before))
            targets = own[1:][span]
            parts.append((_foretold(edited, targets), _foretold(unedited, targets), _divergence(unedited, edited)))
        drifts.append(_Drift(*map(math.fsum, zip(*parts, strict=True))))
    return drifts


def _divergence(unedited: torch.Tensor, edited: torch.Tensor) -> float:
    """``KL(unedited || edited)``, summed over tokens; both are log-probabilities ``[tokens, vocabulary]``."""
    import torch

    each = torch.where(unedited > -math.inf, unedited.exp() * (unedited - edited), 0.0)
    return float(each.double().sum())


def _remember_nats(base: Any, texts: Sequence[TokenIds], unedited: Unedited) -> None:
    """Ask the unedited model for texts that it has not been asked for."""
    new = sorted({tuple(text) for text in texts} - unedited.nats.keys())
    rows = [_Row.text(text) for text in new]
    _check_lengths(base, rows)
    for batch in _batches(rows, _logit_tokens(base)):
        one = _Pass(base, [rows[index] for index in batch])
        unedited.nats.update({new[index]: _nats(one, place, new[index]) for place, index in enumerate(batch)})


def _choices(model: Any, rows: Sequence[_Row], letters: Sequence[int]) -> list[int]:
    """The likeliest letter behind each prompt, as its place."""
    _check_lengths(model, rows)
    chosen = [0] * len(rows)
    for batch in _batches(rows, _HIDDEN_TOKENS):
        one = _Pass(model, [rows[index] for index in batch])
        for place, index in enumerate(batch):
            chosen[index] = int(one.logits(place)[-1, list(letters)].argmax())
    return chosen


def _batches(rows: Sequence[_Row], tokens: int) -> Iterator[list[int]]:
    """Rows of about one length together, the longest first, so many that with their padding they have ``tokens``.

    No row is padded to more than twice its length.
    """
    batch: list[int] = []
    width = 0
    for index in sorted(range(len(rows)), key=lambda index: -len(rows[index].ids)):
        if batch and ((len(batch) + 1) * width > tokens or 2 * len(rows[index].ids) < width):
            yield batch
            batch = []
        width = width if batch else len(rows[index].ids)
        batch.append(index)
    if batch:
        yield batch


def _logit_tokens(model: Any) -> int:
    """How many tokens a pass may have of which every distribution is wanted."""
    return max(1, _LOGIT_BYTES // (4 * int(model.config.get_text_config().vocab_size)))


def _check_lengths(model: Any, rows: Sequence[_Row]) -> None:
    longest = max_positions(model)
    width = max((len(row.ids) for row in rows), default=0)
    if longest is not None and width > longest:
        raise UnsupportedCallError(
            f"a text has {width} tokens, its context among them, more than the {longest} that the model reads"
        )


def _letter_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How the tokenizer writes " A", " B" ... behind a prompt: what they have in common, and the token of each.

    Raises:
        UnsupportedCallError: They differ in more than their last token.
    """
    bare = tokenizer("Answer:")["input_ids"]
    written = [tokenizer(f"Answer: {letter}")["input_ids"] for letter in LETTERS]
    stems = {tuple(ids[len(bare) : -1]) for ids in written}
    letters = tuple(ids[-1] for ids in written)
    if len(stems) > 1 or len(set(letters)) < len(LETTERS) or any(ids[: len(bare)] != bare for ids in written):
        raise UnsupportedCallError(
            f"the tokenizer writes ' A', ' B', ' C' and ' D' behind 'Answer:' as {written}, which do not differ in "
            "their last token alone, so multiple choice cannot be scored by it"
        )
    return stems.pop(), letters
