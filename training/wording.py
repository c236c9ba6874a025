"""How a fact is worded: as an edit, as a question in or out of its scope.

Takes a relation's forms and puts subject and object in. Every choice is drawn from the caller's generator, so the same
seed gives the same words. It knows nothing of labels, models or batches.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from training.bank import Relation

__all__ = [
    "asked",
    "asked_backwards",
    "both_asked",
    "described",
    "edit_prompt",
    "excluding",
    "framed_yes_or_no",
    "in_context",
    "question",
    "roughly",
    "yes_or_no",
]

_STUB_FRAMES = (
    "The {l} of {s} is",
    "The {l} of {s} is",
    "{s}'s {l} is",
    "The name of the {l} of {s} is",
    "For {s}, the {l} is",
)
_QUESTION_FRAMES = (
    "What is the {l} of {s}?",
    "What is the {l} of {s}?",
    "What is {s}'s {l}?",
    "What's the {l} of {s}?",
    "Tell me the {l} of {s}.",
    "Can you tell me {s}'s {l}?",
    "I need to know the {l} of {s}.",
    "Do you know the {l} of {s}?",
    "Please name the {l} of {s}.",
    "{s} {l}",
    "{l} of {s}",
)
_YES_NO_FRAMES = (
    "Is the {l} of {s} {o}?",
    "Is {o} the {l} of {s}?",
    "Is {s}'s {l} {o}?",
    "Is it true that the {l} of {s} is {o}?",
    "The {l} of {s} is {o}, right?",
    "Can you confirm that {o} is the {l} of {s}?",
)
_EXCLUDING_FRAMES = (
    "The {l} of {s}, which is not {o}, is",
    "The name of the {l} of {s}, which is not {o}, is",
    "The {l} of {s} is not {o} but",
    "Other than {o}, what is the {l} of {s}?",
    "{s}'s {l}, not {o}, is",
    "Apart from {o}, the {l} of {s} is",
    "What is the {l} of {s}, if it is not {o}?",
    "If not {o}, what is the {l} of {s}?",
)


def asked(relation: Relation, subject: str, rng: random.Random, *, clause: bool = False) -> str:
    """A question or a statement to be completed, about one relation of a subject.

    Args:
        relation: What is asked.
        subject: Whom it is asked of, by name or by description.
        rng: What draws the form.
        clause: The subject is a description; forms that would put "'s" behind it are avoided.
    """
    draw = rng.random()
    forms: Sequence[str]
    if draw < 0.42:
        forms = relation.questions
    elif draw < 0.7:
        forms = relation.stubs
    else:
        frames = _QUESTION_FRAMES if draw < 0.87 else _STUB_FRAMES
        label = rng.choice(relation.labels)
        forms = [frame.replace("{l}", label) for frame in frames]
    if clause:
        forms = [form for form in forms if "{s}'s" not in form] or relation.questions
    return _filled(rng.choice(forms), subject)


def question(relation: Relation, subject: str, rng: random.Random) -> str:
    """A question about one relation of a subject, ending in a question mark."""
    label = rng.choice(relation.labels)
    framed = [frame.replace("{l}", label) for frame in _QUESTION_FRAMES if frame.endswith("?")]
    forms = [form for form in relation.questions if form.endswith("?")]
    return _filled(rng.choice(forms if forms and rng.random() < 0.75 else framed), subject)


def both_asked(first: Relation, second: Relation, subject: str, rng: random.Random) -> str:
    """A question about two relations of a subject at once, the subject named once or twice."""
    one, other = rng.choice(first.questions), rng.choice(second.questions)
    if rng.random() < 0.6 and "{s}'s" not in other:
        other = other.replace("{s}", rng.choice(("it", "they", "this one")))
    joint = rng.choice((" and ", ", and ", " and also, "))
    return _filled(f"{one.rstrip('?.! ')}{joint}{other[:1].lower()}{other[1:]}", subject)


def asked_backwards(relation: Relation, target: str, rng: random.Random) -> str | None:
    """A text that names the object and asks for the subject; None where the relation has no such form."""
    forms = (*relation.reversed_questions, *relation.reversed_stubs)
    return _filled(rng.choice(forms), "", target) if forms else None


def yes_or_no(relation: Relation, subject: str, target: str, rng: random.Random) -> str | None:
    """A yes/no question whether the object is this one; None where the relation has no such form."""
    return _filled(rng.choice(relation.yes_no), subject, target) if relation.yes_no else None


def framed_yes_or_no(relation: Relation, subject: str, target: str, rng: random.Random) -> str:
    """A yes/no question that names the relation by its label; every relation has such forms."""
    return _filled(rng.choice(_YES_NO_FRAMES).replace("{l}", rng.choice(relation.labels)), subject, target)


def excluding(relation: Relation, subject: str, target: str, rng: random.Random) -> str:
    """A prompt that names the object only to ask for another."""
    label = rng.choice(relation.labels)
    forms = [*relation.excluding, *(frame.replace("{l}", label) for frame in _EXCLUDING_FRAMES)]
    stubs = [stub for stub in relation.stubs if stub.endswith((" is", " are", " was"))]
    forms += [f"{stub.rpartition(' ')[0]}, which is not {{o}}, {stub.rpartition(' ')[2]}" for stub in stubs]
    return _filled(rng.choice(forms), subject, target)


def described(relation: Relation, subject: str, rng: random.Random) -> str:
    """A noun phrase that denotes the object of a subject."""
    if relation.descriptions and rng.random() < 0.75:
        return _filled(rng.choice(relation.descriptions), subject, opens=False)
    return f"the {rng.choice(relation.labels)} of {subject}"


def edit_prompt(relation: Relation, subject: str, rng: random.Random) -> str:
    """The prompt of an edit, as a person would word it."""
    draw = rng.random()
    label = rng.choice(relation.labels)
    if draw < 0.42:
        form = rng.choice(relation.stubs)
    elif draw < 0.78:
        form = rng.choice([one for one in relation.questions if one.endswith("?")] or relation.questions)
    else:
        form = rng.choice(("The {l} of {s} is", "What is the {l} of {s}?", "{s}'s {l} is")).replace("{l}", label)
    return _filled(form, subject)


def in_context(text: str, passage: str, rng: random.Random) -> str:
    """A text behind something else that was said before it, as one window would hold both."""
    words = passage.split()
    length = rng.randint(4, 40)
    start = rng.randrange(max(1, len(words) - length))
    before = " ".join(words[start : start + length]).rstrip(" ,;:")
    return f"{before[:1].upper()}{before[1:]}{'' if before.endswith(('.', '!', '?')) else '.'} {text}"


def roughly(text: str, rng: random.Random) -> str:
    """A text as it is typed in haste: no capitals, no question mark; or politely introduced."""
    draw = rng.random()
    if draw < 0.5:
        return text.lower().rstrip("?. ")
    if draw < 0.75 or not text.endswith(("?", ".")):
        return f"{rng.choice(('Quick question:', 'Hi!', 'Hello,', 'Please help:', 'Question:', 'Hey,'))} {text}"
    return f"{text} {rng.choice(('Thanks.', 'Answer briefly.', 'One word, please.', 'Be concise.'))}"


def _filled(form: str, subject: str, target: str = "", *, opens: bool = True) -> str:
    text = form.replace("{s}", subject).replace("{o}", target)
    text = re.sub(r"\b(the|The) (the|The) ", r"\1 ", text)
    return text[:1].upper() + text[1:] if opens and form.startswith(("{s}", "{o}")) else text
