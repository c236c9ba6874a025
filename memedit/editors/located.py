"""What the methods that locate and then edit share of their settings, and how an edit is put to the model for them.

An edit becomes a few rows of token ids: its prompt alone, its prompt behind words that the model made up (so that what
is learnt does not depend on what stands before it; Meng et al. 2022, section 3.1), and an essence prompt, "<subject>
is a", that is to be answered as before (eq. 4). In each row one token is marked, as a rule the subject's last. Prompt
and target are worded as fine-tuning words them (`ExampleMaker`): through the chat template, as plain text, or in both
ways, since the key of a subject is another one in a chat and what is written for one is hardly heard in the other.
This file knows nothing of any method's mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from memedit.editors.examples import ExampleMaker
from memedit.editors.sampling import sampled
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.prompts import Neutraliser
from memedit.ranges import check_fields
from memedit.subject_tokens import TokenChoice, subject_token
from memory_store import Edit

__all__ = ["FactLocator", "FactRow", "LocateConfig", "LocatedFact", "Wording"]

Wording = Literal["chat", "plain", "both"]
"""How edits are worded: through the chat template, as plain text, or in turn in one and the other."""

_BEGINNINGS = ("The", "Therefore", "Because", "I", "You")
"""What made-up words begin with."""

_TOP = 5
"""Of how many of the likeliest tokens each one of the made-up words is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocateConfig:
    """What all of these methods have to be told. The symbols are those of Meng et al. 2022.

    Attributes:
        learning_rate: Adam's, of the vector that is added at the marked token.
        steps: The most steps of Adam.
        stop_loss: The loss (nats) at which an edit's optimisation ends.
        kl_factor: Weight of the divergence on the essence prompt (eq. 4, second term).
        weight_decay: Weight of the vector's length, over the squared length of what it is added to.
        clamp: The vector is at most so many times as long as what it is added to.
        token: Where the model is changed.
        contexts: How many made-up beginnings x_j there are, besides none (eq. 3).
        context_tokens: The length of the longer half of them; the others are half as long.
        wording: How prompts are worded; None for both ways, or plain where the model has no chat template.
        statistics: Over which text the second moments C of keys are taken: ``"made-up"`` for one that the model makes
            up itself, a file (JSON lines with a field ``text``, or plain text), or ``"identity"`` for none, with the
            identity in the place of C.
        statistics_tokens: How many tokens of it; None for 20 for each dimension of a key.
        seed: Of what is made up.
        bfloat16: Whether the optimisation multiplies matrices in that precision, where the processor does not merely
            imitate it. Keys and weights never are.
    """

    learning_rate: float = 0.5
    steps: int = 25
    stop_loss: float = 5e-2
    kl_factor: float = 0.0625
    weight_decay: float = 0.5
    clamp: float = 4.0
    token: TokenChoice = "subject_last"  # noqa: S105 - a place in a prompt
    contexts: int = 5
    context_tokens: int = 10
    wording: Wording | None = None
    statistics: str = "made-up"
    statistics_tokens: int | None = None
    seed: int = 0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "steps", "context_tokens", least=1)
        check_fields(self, "learning_rate", "clamp", above=0)
        check_fields(self, "stop_loss", "kl_factor", "weight_decay", "contexts", least=0)
        for name, known in (("token", get_args(TokenChoice)), ("wording", (None, *get_args(Wording)))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is one of {', '.join(map(str, known))}, not {getattr(self, name)!r}.")


@dataclass(frozen=True, slots=True)
class FactRow:
    """A prompt, one of its tokens, and what is to follow.

    Attributes:
        prompt: Token ids.
        place: The index of the marked token.
        target: Token ids that are to follow; empty for an essence prompt.
    """

    prompt: tuple[int, ...]
    place: int
    target: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LocatedFact:
    """An edit as it is put to the model.

    Attributes:
        name: The edit's prompt, shortened: for messages.
        rows: The prompt in its contexts; alone first, in each wording. The wordings take turns.
        essence: The essence prompt.
        wordings: In how many ways the prompt is worded.
    """

    name: str
    rows: tuple[FactRow, ...]
    essence: FactRow
    wordings: int = 1

    def by_wording(self) -> list[slice]:
        """Which rows are worded alike; the prompt alone is the first of each."""
        return [slice(first, None, self.wordings) for first in range(self.wordings)]


class FactLocator:
    """Turns edits into rows of token ids with the token marked at which they act.

    Args:
        subject: The model, unedited: it makes up the contexts when they are first wanted.
        config: How.

    Raises:
        ConfigError: A chat template is asked for, and the model has none.
    """

    def __init__(self, subject: Subject, config: LocateConfig) -> None:
        wording = config.wording or ("both" if subject.chats else "plain")
        templates = {"chat": (True,), "plain": (False,), "both": (True, False)}[wording]
        self._makers = [ExampleMaker(subject, template=template) for template in templates]
        self._subject = subject
        self._config = config
        self._neutral = Neutraliser.for_tokenizer(subject.tokenizer)
        self._contexts: tuple[str, ...] | None = None

    @property
    def contexts(self) -> tuple[str, ...]:
        """What is put before a prompt, beginning with nothing."""
        if self._contexts is None:
            self._contexts = ("", *_made_up(self._subject, self._config))
        return self._contexts

    def __call__(self, edit: Edit) -> LocatedFact:
        """The rows of an edit.

        Raises:
            UnsupportedCallError: The edit is incomplete or too long, has no subject, or not in its prompt.
        """
        alone = [self._row(edit, maker) for maker in self._makers]
        makers = len(self._makers)
        rows = [
            self._row(replace(edit, prompt=context + edit.prompt), self._makers[place % makers], prompt=edit.prompt)
            for place, context in enumerate(self.contexts[1:])
        ]
        return LocatedFact(edit.prompt[:60], (*alone, *rows), self._essence(edit), makers)

    def _row(self, edit: Edit, maker: ExampleMaker, *, prompt: str | None = None) -> FactRow:
        example = maker(edit)
        names = [name for name in (edit.subject, *edit.aliases) if name]
        place = subject_token(
            self._subject.reader,
            example.prompt,
            prompt=edit.prompt if prompt is None else prompt,
            names=names,
            place=self._config.token,
        )
        return FactRow(example.prompt, place, example.target)

    def _essence(self, edit: Edit) -> FactRow:
        """What else is known of the subject; where the method needs no subject, the prompt itself says what it is."""
        name = edit.subject or edit.prompt
        row = self._row(replace(edit, prompt=f"{name} is a", subject=name), self._makers[0])
        return replace(row, target=())


def _made_up(subject: Subject, config: LocateConfig) -> list[str]:
    """Beginnings of sentences, such as ``"The first of these . "``, half of them half as long."""
    import torch

    tokenizer = subject.tokenizer
    generator = torch.Generator().manual_seed(config.seed)
    neutral = Neutraliser.for_tokenizer(tokenizer)
    made: list[str] = []
    lengths = (max(1, config.context_tokens // 2), config.context_tokens)
    for half, tokens in enumerate(lengths):
        count = (config.contexts + half) // 2
        if not count:
            continue
        words = [_BEGINNINGS[place % len(_BEGINNINGS)] for place in range(count)]
        rows = sampled(
            subject.model,
            [tokenizer(word)["input_ids"] for word in words],
            tokens=tokens,
            generator=generator,
            top=_TOP,
            forbidden=sorted({*tokenizer.all_special_ids} & set(range(len(tokenizer)))),
        )
        for word, row in zip(words, rows, strict=True):
            text = tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            made.append(neutral(f"{word}{text}").rstrip(" .") + ". ")
    return made
