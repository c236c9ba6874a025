"""What a tokenizer's chat template looks like, learnt from the template itself.

Sentinel messages are rendered through ``apply_chat_template``; what stands around the sentinels is the template's
markup. No model name is looked at, so a template nobody has seen before works as well as a common one. The result reads
an already templated string back into turns, and says which markup parts two turns, so that turns can be spliced in.

This file knows nothing of edits, of prompts' wording, or of token ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal

__all__ = ["ChatFormat", "Role", "Turn"]

Role = Literal["system", "user", "assistant"]

# A template's markup falls into these: <...> and [...] markers, runs of white space, anything else.
_PIECES = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]|\s+|[^\s<\[]+|.", re.DOTALL)
_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")

# Words no template contains; without white space, so that a template that trims its contents leaves them alone.
_SYSTEM, _USER, _ASSISTANT, _NEXT_USER = "Zqsystemqz", "Zquserqz", "Zqassistantqz", "Zqnextqz"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a templated conversation.

    Attributes:
        role: Who speaks.
        content: The words of the turn, without markup.
        start: Where the content begins, in characters of the templated text.
        end: Where the content ends; ``text[start:end] == content``.
    """

    role: Role
    content: str
    start: int
    end: int


@dataclass(frozen=True)
class ChatFormat:
    """The markup a chat template puts around contents.

    Attributes:
        opening: What precedes the first user's content where no system message is given (begin-of-text token and a
            default system message included).
        user_start: What opens a later user turn.
        user_end: What closes a user turn.
        assistant_start: What opens an assistant turn in the middle of a conversation.
        assistant_end: What closes an assistant turn.
        generation_prompt: What stands between the last user's content and the words to be generated, the user turn's
            end included; for most templates ``user_end + assistant_start``, not for those that add or leave out white
            space or a thinking block.
        closing: What else stands behind the last turn where no generation prompt is asked for, as Phi 3 has it.
        system_start: What precedes a system message; None where the template has no markup of its own for it.
        system_end: What follows a system message, up to the user turn's opening (or, where the template puts the system
            message inside the first user turn, up to the user's content).
        system_inside_user: Whether the system message stands inside the first user turn, as Llama 2 has it.
        bos: The begin-of-text token, which a caller may have left away.
    """

    opening: str
    user_start: str
    user_end: str
    assistant_start: str
    assistant_end: str
    generation_prompt: str
    closing: str = ""
    system_start: str | None = None
    system_end: str | None = None
    system_inside_user: bool = False
    bos: str = ""
    _user: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _user_to_assistant: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _assistant_to_user: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _closed_user: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _closed_assistant: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _system: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the patterns that `parse` searches for."""
        user_start = self.user_start.removeprefix(self.bos)
        to_assistant = sorted({self.user_to_assistant, self.generation_prompt}, key=len, reverse=True)
        bos = f"(?:{re.escape(self.bos)})?"
        end = rf"(?:{_pattern(self.closing)})?\Z"
        patterns = {
            "_user": _pattern(user_start),
            "_user_to_assistant": "|".join(_pattern(markup) for markup in to_assistant),
            "_assistant_to_user": _pattern(self.assistant_end) + bos + _pattern(user_start),
            "_closed_user": _pattern(self.user_end) + end,
            "_closed_assistant": _pattern(self.assistant_end) + end,
        }
        for name, pattern in patterns.items():
            object.__setattr__(self, name, re.compile(pattern))
        object.__setattr__(self, "_system", self._system_pattern())

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> ChatFormat | None:
        """Learn the format of a tokenizer's chat template.

        Args:
            tokenizer: A ``transformers`` tokenizer.

        Returns:
            The format, or None where the tokenizer has no chat template, or one that cannot render a plain conversation
            of user, assistant and user.
        """
        if not getattr(tokenizer, "chat_template", None):
            return None
        user, assistant, following = _message("user"), _message("assistant"), _message("user", _NEXT_USER)
        conversation = _render(tokenizer, [user, assistant, following])
        alone = _render(tokenizer, [user])
        answered = _render(tokenizer, [user, assistant])
        asked = _render(tokenizer, [user], add_generation_prompt=True)
        if conversation is None or alone is None or asked is None:
            return None
        try:
            opening, to_assistant, to_user, _ = _around(conversation, _USER, _ASSISTANT, _NEXT_USER)
            user_tail = _around(alone, _USER)[1]
            user_end = _common_start(to_assistant, user_tail)
            generation_prompt = _around(asked, _USER)[1]
            answer_end = _around(answered, _USER, _ASSISTANT)[2] if answered is not None else to_assistant
        except ValueError:
            return None
        assistant_end = _common_start(to_user, answer_end)
        user_start = to_user.removeprefix(assistant_end)
        if not user_start.strip() or not (user_end + to_assistant).strip():
            return None
        bos = getattr(tokenizer, "bos_token", None) or ""
        if not opening.startswith(bos) or bos in generation_prompt:
            bos = ""  # it opens every turn, as ChatML has it: no mark of the text's beginning
        return cls(
            opening=opening,
            user_start=user_start,
            user_end=user_end,
            assistant_start=to_assistant.removeprefix(user_end),
            assistant_end=assistant_end,
            generation_prompt=generation_prompt,
            closing=user_tail.removeprefix(user_end),
            bos=bos,
            **_system_markup(tokenizer, opening=opening, user_start=user_start, bos=bos),
        )

    @property
    def user_to_assistant(self) -> str:
        """What parts a user's content from the answer in the middle of a conversation."""
        return self.user_end + self.assistant_start

    @property
    def assistant_to_user(self) -> str:
        """What parts an answer from the next user's content."""
        return self.assistant_end + self.user_start

    @property
    def markers(self) -> tuple[str, ...]:
        """The bracketed markers of the template, such as ``[INST]``, special tokens or not; sorted."""
        parts = (self.opening, self.user_to_assistant, self.assistant_to_user, self.generation_prompt)
        system = (self.system_start or "", self.system_end or "")
        return tuple(sorted({marker for part in (*parts, *system) for marker in _MARKER.findall(part)}))

    def parse(self, text: str) -> tuple[Turn, ...] | None:
        """Read a templated string back into its turns.

        Args:
            text: What ``apply_chat_template`` rendered, with or without begin-of-text token, generation prompt, or a
                final assistant turn that is not yet closed.

        Returns:
            The turns in order, or None where the text does not follow this template. A bare generation prompt is no
            turn. A default system message that the template itself puts in front is reported as a system turn where
            its markup can be told; a template that merges the system message into the first user turn without markup
            leaves it in that turn's content. Turns of other roles (tools) are part of the turn before them.
        """
        first = self._user.search(text)
        if first is None or not (_MARKER.search(self.user_start) or self._opens(text)):
            return None
        return tuple(self._turns(text, first))

    def _opens(self, text: str) -> bool:
        """Whether the text begins as the template begins; asked of templates whose markup is mere words."""
        text = text.removeprefix(self.bos).lstrip()
        openings = (self.opening.removeprefix(self.bos), self.system_start)
        return any(text.startswith(opening.strip()) for opening in openings if opening)

    def _turns(self, text: str, first: re.Match[str]) -> Iterator[Turn]:
        start = first.end()
        if self._system is not None:
            system = self._system.match(text, start) if self.system_inside_user else self._system.search(text)
            if system is not None and (self.system_inside_user or system.end("content") <= first.start()):
                yield _turn("system", text, *system.span("content"))
                start = system.end() if self.system_inside_user else start
        while True:
            answer = self._user_to_assistant.search(text, start)
            if answer is None:
                closed = self._closed_user.search(text, start)
                yield _turn("user", text, start, closed.start() if closed else len(text))
                return
            yield _turn("user", text, start, answer.start())
            following = self._assistant_to_user.search(text, answer.end())
            if following is None:
                closed = self._closed_assistant.search(text, answer.end())
                end = closed.start() if closed else len(text)
                if text[answer.end() :].strip():
                    yield _turn("assistant", text, answer.end(), end)
                return
            yield _turn("assistant", text, answer.end(), following.start())
            start = following.end()

    def _system_pattern(self) -> re.Pattern[str] | None:
        if self.system_start is None or self.system_end is None:
            return None
        after = _pattern(self.system_end)
        if not self.system_inside_user:
            after += f"(?={_pattern(self.user_start.removeprefix(self.bos))})"
        return re.compile(_pattern(self.system_start) + "(?P<content>.*?)" + after, re.DOTALL)


def _message(role: Role, content: str | None = None) -> dict[str, str]:
    sentinels = {"system": _SYSTEM, "user": _USER, "assistant": _ASSISTANT}
    return {"role": role, "content": content or sentinels[role]}


def _render(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = False
) -> str | None:
    """The messages as the template renders them; None where it refuses them."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except (TemplateError, TypeError, ValueError):
        return None


def _around(rendered: str, *sentinels: str) -> list[str]:
    """What stands before, between and after the sentinels.

    Raises:
        ValueError: The template dropped or changed a sentinel.
    """
    parts = []
    for sentinel in sentinels:
        before, found, rendered = rendered.partition(sentinel)
        if not found:
            raise ValueError(f"the chat template left out {sentinel!r}")
        parts.append(before)
    return [*parts, rendered]


def _common_start(one: str, other: str) -> str:
    """What two strings of markup share at their start, in whole markers."""
    pairs = zip(_PIECES.findall(one), _PIECES.findall(other), strict=False)
    return "".join(left for left, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _system_markup(tokenizer: Any, *, opening: str, user_start: str, bos: str) -> dict[str, Any]:
    """The fields of a `ChatFormat` that say how a system message is marked; empty where it is not."""
    rendered = _render(tokenizer, [_message("system"), _message("user")])
    if rendered is None:
        return {}
    try:
        before, between, _ = _around(rendered, _SYSTEM, _USER)
    except ValueError:
        return {}
    user_start = user_start.removeprefix(bos)
    inside = not between.endswith(user_start)
    if inside:
        before = before.removeprefix(opening)
    else:
        between, before = between.removesuffix(user_start), before.removeprefix(bos)
    if not before.strip() or (inside and not between.strip()):
        return {}
    return {"system_start": before, "system_end": between, "system_inside_user": inside}


def _pattern(markup: str) -> str:
    """A pattern for markup: white space at its ends may be missing, white space inside it may differ."""
    pieces = _PIECES.findall(markup)
    last = len(pieces) - 1
    return "".join(
        re.escape(piece) if not piece.isspace() else (f"(?:{re.escape(piece)})?" if place in (0, last) else r"\s*")
        for place, piece in enumerate(pieces)
    )


def _turn(role: Role, text: str, start: int, end: int) -> Turn:
    return Turn(role=role, content=text[start:end], start=start, end=end)
