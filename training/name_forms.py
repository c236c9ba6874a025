"""Names by rule: shorter and fuller forms of a name, and names that look nearly the same but are of another thing.

`shorten` and `lengthen` give what a person might type for the same thing; `near_names` gives what a person would type
for another one, so the two never give the same text for one name. The rules go by the spelling alone. They know of no
entity: two persons may well share a surname, and a middle name that `lengthen` puts in is made up.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

__all__ = ["fold", "initials", "lengthen", "near_names", "shorten"]

_PERSONS = frozenset(
    "person human athlete musician actor singer politician writer scientist artist composer character ruler monarch "
    "fictional_character director philosopher footballer".split()
)
_PLACES = frozenset(
    "place city town country state region river mountain lake island continent location building airport "
    "capital municipality province landmark".split()
)
_ORGANISATIONS = frozenset(
    "organisation organization company university school band team club agency party newspaper publisher label "
    "sports_team political_party tv_network broadcaster airline league".split()
)
_WORKS = frozenset(
    "work film book song tv_show game album series novel play painting magazine television_series video_game opera "
    "poem software product".split()
)

_TITLES = frozenset(
    "sir dame dr dr. prof prof. professor mr mr. mrs mrs. ms ms. lord lady king queen prince princess emperor empress "
    "president senator governor general colonel captain major admiral saint st. pope reverend rev. archbishop bishop "
    "count baron".split()
)
_SUFFIXES = frozenset("jr jr. sr sr. ii iii iv".split())
_PARTICLES = frozenset(
    "van von der den de da di del della dos du la le ten ter af av bin ibn ben al el y e zu st. saint mac".split()
)
_SMALL = frozenset("of the and for in on at to a an de la du y et und der".split())
_LEGAL = frozenset(
    "inc inc. incorporated ltd ltd. limited llc llp corp corp. corporation co co. company plc gmbh ag s.a. sa n.v. nv "
    "se s.p.a. spa ab asa oyj a/s holdings kgaa pty".split()
)
_CLUB = frozenset("fc f.c. afc a.f.c. cf c.f. sc s.c. ac a.c. bk if".split())
_FAMILY_FIRST = frozenset(
    "mao zhou deng xi hu jiang li wang zhang liu chen zhao wu xu zhu guo ma song kim park choi jung moon roh "
    "nguyen tran pham".split()
)
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI")

_SHORT_FORMS = {
    "Saint": "St.", "Mount": "Mt.", "Fort": "Ft.", "Point": "Pt.", "Doctor": "Dr.", "Football Club": "FC",
    "F.C.": "FC", "and": "&", "University": "Univ.", "Brothers": "Bros.", "Department": "Dept.", "Street": "St.",
    "Part": "Pt.", "Volume": "Vol.", "versus": "vs.", "United States": "US",
}  # fmt: skip
"""A word or two, and what is written for short."""

_LEADING = frozenset(("Saint", "Mount", "Fort", "Doctor"))
"""Words that stand before a name, never at its end."""

_CALLED = {
    "Abraham": "Abe", "Albert": "Al", "Alexander": "Alex", "Alfred": "Fred", "Andrew": "Andy", "Anthony": "Tony",
    "Antonio": "Toni", "Barbara": "Barb", "Benjamin": "Ben", "Bernard": "Bernie", "Catherine": "Cathy",
    "Charles": "Charlie", "Christina": "Tina", "Christine": "Chris", "Christopher": "Chris", "Daniel": "Dan",
    "David": "Dave", "Deborah": "Debbie", "Donald": "Don", "Dorothy": "Dot", "Edward": "Ted", "Edwin": "Ed",
    "Elizabeth": "Liz", "Eugene": "Gene", "Frances": "Fran", "Francis": "Frank", "Francisco": "Paco",
    "Franklin": "Frank", "Frederick": "Fred", "Gabriel": "Gabe", "Geoffrey": "Geoff", "Gerald": "Gerry",
    "Gregory": "Greg", "Harold": "Harry", "Henry": "Hank", "Isabella": "Bella", "Jacob": "Jake", "Jacqueline": "Jackie",
    "James": "Jim", "Jeffrey": "Jeff", "Jennifer": "Jen", "Jessica": "Jess", "Joan": "Joanie", "John": "Jack",
    "Johannes": "Hans", "Jonathan": "Jon", "José": "Pepe", "Joseph": "Joe", "Joshua": "Josh", "Judith": "Judy",
    "Katherine": "Kate", "Kenneth": "Ken", "Lawrence": "Larry", "Leonard": "Len", "Louis": "Lou", "Margaret": "Peggy",
    "Martin": "Marty", "Matthew": "Matt", "Maximilian": "Max", "Michael": "Mike", "Nathaniel": "Nate",
    "Nicholas": "Nick", "Oliver": "Ollie", "Pamela": "Pam", "Patricia": "Pat", "Patrick": "Paddy", "Peter": "Pete",
    "Philip": "Phil", "Rebecca": "Becky", "Richard": "Dick", "Robert": "Bob", "Ronald": "Ron", "Samuel": "Sam",
    "Sandra": "Sandy", "Stephen": "Steve", "Steven": "Steve", "Susan": "Sue", "Theodore": "Ted", "Theresa": "Terry",
    "Thomas": "Tom", "Timothy": "Tim", "Victoria": "Vicky", "Vincent": "Vince", "Walter": "Walt", "William": "Bill",
    "Zachary": "Zach",
}  # fmt: skip
"""Given names and what those who bear them are called."""

_FORMAL = {
    "Abe": "Abraham", "Andy": "Andrew", "Ben": "Benjamin", "Bernie": "Bernard", "Beth": "Elizabeth", "Bill": "William",
    "Bob": "Robert", "Bobby": "Robert", "Charlie": "Charles", "Chuck": "Charles", "Dan": "Daniel", "Dave": "David",
    "Dick": "Richard", "Don": "Donald", "Ed": "Edward", "Fred": "Frederick", "Greg": "Gregory", "Jeff": "Jeffrey",
    "Jim": "James", "Jimmy": "James", "Joe": "Joseph", "Johnny": "John", "Josh": "Joshua", "Ken": "Kenneth",
    "Larry": "Lawrence", "Liz": "Elizabeth", "Matt": "Matthew", "Mick": "Michael", "Mike": "Michael",
    "Nick": "Nicholas", "Pete": "Peter", "Phil": "Philip", "Ron": "Ronald", "Sam": "Samuel", "Steve": "Stephen",
    "Ted": "Edward", "Tim": "Timothy", "Tom": "Thomas", "Tommy": "Thomas", "Tony": "Anthony", "Will": "William",
    "Zach": "Zachary",
}  # fmt: skip
"""What people are called, and the given name it most often stands for."""

_MIDDLE = (
    "Avery Bailey Blair Blake Cameron Carroll Dale Dana Drew Ellis Francis Grant Hayes Howard Jordan Kelly Lane Lee "
    "Leslie Logan Morgan Parker Quinn Reed Reese Robin Scott Shannon Sidney Taylor Terry Wells"
).split()
"""Middle names of either sex."""

_SPELLINGS = (
    ("ph", "f"), ("kh", "k"), ("iy", "y"), ("ya", "ia"), ("yu", "iu"), ("zh", "j"), ("ay", "ai"), ("ey", "ei"),
    ("vich", "vitch"), ("tch", "ch"), ("chev", "cheff"), ("ou", "u"), ("dj", "j"), ("ij", "y"), ("ae", "ä"),
)  # fmt: skip
"""Letters that are written for each other where a name comes from another script or alphabet."""

_SPELLED = tuple(
    tuple(group.split())
    for group in (
        "Aleksandr Alexander Alexandr", "Andrei Andrey", "Catherine Katherine Catharine", "Dmitri Dmitry Dimitri",
        "Elisabeth Elizabeth", "Fyodor Feodor Fedor", "Geoffrey Jeffrey", "Hussein Husayn Hussain", "Jakob Jacob",
        "Karl Carl", "Mikhail Michail Mihail", "Mohammed Muhammad Mohamed Mohammad", "Nikolai Nikolay",
        "Osama Usama", "Philip Phillip", "Sara Sarah", "Sergei Sergey", "Stephen Steven", "Vasily Vasili Vassily",
        "Yuri Yury Iurii", "Yusuf Yousef Youssef",
    )
)  # fmt: skip
"""Spellings of one given name."""

_TONGUES = tuple(
    tuple(group.split())
    for group in (
        "Alexander Alexandre Alessandro Alejandro", "Andrew Andrei Andreas Andrea", "Anna Anne Ann Hannah",
        "Charles Karl Carlos", "Elizabeth Isabel", "Frederick Frederic Friedrich Fredrik", "Theodore Fyodor",
        "George Georg Georges Jorge Yuri", "Henry Henri Heinrich Henrik Enrique", "Isabella Elizabeth",
        "John Johann Johan Jon Jean Juan Ivan", "Joseph Josef José", "Louis Lewis Ludwig Luis",
        "Maria Marie Mary Mariya", "Michael Michel Mikhail", "Nicholas Nicolas Nikolai Nikola",
        "Peter Pierre Pyotr Petr Pedro", "Philip Felipe", "Stephen Stefan", "William Wilhelm Guillermo",
    )
)  # fmt: skip
"""Given names that are one name in several tongues: rulers and saints go by any of them."""

_OPPOSITES = {
    one: other
    for pair in ("North South", "East West", "Northern Southern", "Eastern Western", "Upper Lower", "New Old",
                 "Great Little", "First Second", "Black White", "Red Blue", "Senior Junior", "Jr. Sr.", "King Queen",
                 "Prince Princess", "Brother Sister", "Son Daughter", "Man Woman", "Day Night", "Inner Outer",
                 "University College", "River Lake", "City County", "Men's Women's", "Summer Winter", "Records Films")
    for one, other in (pair.split(), pair.split()[::-1])
}  # fmt: skip
_FOLDED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "æ": "ae", "œ": "oe", "ß": "ss", "þ": "th"})
_MOST = 12
"""How many near names are given at most."""


def fold(name: str) -> str:
    """Gives a name without diacritics, case and punctuation: two names with one folding are spellings of one."""
    plain = unicodedata.normalize("NFKD", name.casefold()).translate(_FOLDED)
    kept = "".join(letter for letter in plain if not unicodedata.combining(letter) and letter not in "'’.`ʻ")
    return " ".join(re.sub(r"[^\w&#+$!]+", " ", kept).split())


def initials(name: str, *, every: bool = False) -> str:
    """Gives the first letters of the words.

    Args:
        name: The name.
        every: Of every word; otherwise "of", "the" and their like are passed over.
    """
    words = [word for word in re.split(r"[\s-]+", name) if word and word[0].isalnum()]
    return "".join(word[0].upper() for word in words if every or word.casefold() not in _SMALL)


def shorten(name: str, type: str) -> list[str]:  # noqa: A002 - the word for it in the relation bank
    """Gives shorter names of the same thing: what may be left out, abbreviated or written plainly.

    Args:
        name: The name.
        type: What it is, by a type of the relation bank; only what holds of any name is done with an unknown one.

    Returns:
        Other names, none twice, in a fixed order; none where there is nothing to shorten.
    """
    made: list[str] = [_without_diacritics(name), re.sub(r"(?<=\w)-(?=\w)", " ", name)]
    made += [form for long, short in _SHORT_FORMS.items() if (form := _replaced(name, long, short))]
    if type in _PERSONS:
        made += _shorter_person(name)
    elif type in _PLACES:
        made += _shorter_place(name)
    elif type in _ORGANISATIONS:
        made += _shorter_organisation(name)
    elif type in _WORKS:
        made += _shorter_work(name)
    return _others(name, made)


def lengthen(name: str, type: str, rng: random.Random) -> list[str]:  # noqa: A002 - as in `shorten`
    """Gives fuller names of the same thing: titles, middle names, legal forms, words written out.

    Args:
        name: The name.
        type: What it is, by a type of the relation bank.
        rng: Chooses what is made up (a middle name, a title).

    Returns:
        Other names, none twice; none where there is nothing to add.
    """
    made = [form for long, short in _SHORT_FORMS.items() if short != "&" and (form := _replaced(name, short, long))]
    if type in _PERSONS:
        made += _respelled(name)
    if type in _PERSONS:
        made += _fuller_person(name, rng)
    elif type in _PLACES:
        made += _fuller_place(name, type)
    elif type in _ORGANISATIONS:
        made += _fuller_organisation(name, type, rng)
    elif type in _WORKS:
        made += _fuller_work(name, type)
    return _others(name, made)


def near_names(name: str, rng: random.Random, pool: Sequence[str]) -> list[str]:
    """Gives names that look nearly the same but are of another thing.

    They are, in this order of preference: names of the pool that share a word with the name or differ from it by a
    letter; the name with a numeral, a number or a direction changed; and, for a name of two words, one of its words
    with one of another name of the pool.

    Args:
        name: The name.
        rng: Chooses among many, and the order.
        pool: Names of things of the same type; the same sequence at many calls is indexed once.

    Returns:
        At most a dozen names; none of them is the name itself, a part or an extension of it, a spelling of it or a
        form that `shorten` gives.
    """
    index = _index(tuple(pool))
    words = name.split()
    found = [*_sharing(name, rng, index), *_one_letter_off(words, index), *_swapped(words)]
    if len(words) == 2 and len(index.pairs) > 1 and words[0] not in ("The", "A"):
        found += _recombined(words, rng, index)
    same = {fold(form) for kind in ("person", "place", "organisation", "work") for form in shorten(name, kind)}
    same |= {fold(form) for long, short in _SHORT_FORMS.items() if (form := _replaced(name, short, long))}
    kept = [other for other in _others(name, found) if fold(other) not in same and not _may_be_same(name, other)]
    rng.shuffle(kept)
    return kept[:_MOST]


# -- shorter -----------------------------------------------------------------------------------------------------------


def _shorter_person(name: str) -> Iterator[str]:
    words = name.split()
    while len(words) > 1 and words[0].casefold() in _TITLES:
        words = words[1:]
    yield " ".join(words)
    if _is_regnal(words):
        return
    if words[-1].casefold() in _SUFFIXES and len(words) > 2:
        words = [*words[:-2], words[-2].rstrip(",")]
        yield " ".join(words)
    if len(words) < 2:
        return
    start = _surname_starts(words)
    if start == 0:  # the family name comes first
        yield words[0]
        yield " ".join([*words[1:], words[0]])
        return
    surname, given = " ".join(words[start:]), words[:start]
    yield surname
    yield f"{given[0]} {surname}"
    if len(given[0].rstrip(".")) > 1:
        yield f"{given[0][0]}. {surname}"
        if fold(given[0]) not in _SAME_PERSON:  # a common given name alone says nothing
            yield given[0]
    yield from _by_initials(given, surname)
    if given[0] in _CALLED:
        yield f"{_CALLED[given[0]]} {surname}"


def _by_initials(given: list[str], surname: str) -> Iterator[str]:
    if len(given) < 2 or not all(word[0].isupper() for word in given):
        return
    letters = [word[0] for word in given]
    yield f"{'. '.join(letters)}. {surname}"
    yield f"{''.join(letters)} {surname}"
    if len(given[0].rstrip(".")) > 1:
        yield f"{given[0]} {'. '.join(letters[1:])}. {surname}"
    if " " not in surname and len(given) == 2:
        yield "".join(letters) + surname[0]


def _is_regnal(words: list[str]) -> bool:
    """Whether words name a ruler, or a person by a place: "Henry VIII", "Peter the Great", "Joan of Arc"."""
    return words[-1] in _NUMERALS or any(word in ("the", "of") for word in words[1:])


def _surname_starts(words: list[str]) -> int:
    """The place of the first word of the surname, particles included; 0 where it comes first."""
    if words[0].casefold() in _FAMILY_FIRST and (len(words) == 3 or "-" in words[1] or words[0] not in ("Kim", "Park")):
        return 0
    start = len(words) - 1
    while start > 1 and words[start - 1].casefold() in _PARTICLES:
        start -= 1
    return start


def _shorter_place(name: str) -> Iterator[str]:
    yield name.removeprefix("The ")
    yield name.split(", ")[0]
    yield re.sub(r" \(.*\)$", "", name)
    for lead in ("City of", "Town of", "Republic of the", "Republic of", "Kingdom of", "State of", "Province of"):
        if name.startswith(lead + " "):
            yield name.removeprefix(lead + " ")
    words = name.split()
    if len(words) > 1 and words[-1] in ("River", "Mountains", "Desert", "Ocean", "Province", "Airport"):
        yield " ".join(words[:-1])
    if words[0] == "United" and len(words) > 1:
        letters = initials(name)
        yield letters
        yield ".".join(letters) + "."


def _shorter_organisation(name: str) -> Iterator[str]:
    yield name.removeprefix("The ")
    words = re.sub(r"[,()]", "", name).split()
    while len(words) > 1 and words[-1].casefold() in _LEGAL:
        words = words[:-1]
        if words[-1] not in ("&", "and"):
            yield " ".join(words)
    if len(words) > 2 and words[-2:] == ["Football", "Club"]:
        yield " ".join(words[:-2])
    for place in (0, -1):
        if len(words) > 1 and words[place].casefold() in _CLUB:
            yield " ".join(words[1:] if place == 0 else words[:-1])
            return
    yield from _acronym(" ".join(words).removeprefix("The "))


def _shorter_work(name: str) -> Iterator[str]:
    plain = re.sub(r" \(.*\)$", "", name)
    yield plain
    for lead in ("The ", "A ", "An "):
        if plain.startswith(lead) and len(plain) > len(lead) + 3:
            yield plain.removeprefix(lead)
    title = re.split(r"(?<=\w\w\w): | [–—-] ", plain)[0]
    yield title
    yield from _acronym(title.removeprefix("The "), every=True)


def _acronym(name: str, *, every: bool = False) -> Iterator[str]:
    """The initials of a name of three words or more."""
    words = [word for word in name.split() if every or word.casefold() not in _SMALL]
    if len(words) > 2 and all(word[0].isalpha() for word in words):
        letters = initials(name, every=every)
        if len(letters) > 6:
            return
        yield letters
        if len(letters) < 5:
            yield ".".join(letters) + "."


def _without_diacritics(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.translate(_FOLDED))
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


# -- fuller ------------------------------------------------------------------------------------------------------------


def _fuller_person(name: str, rng: random.Random) -> Iterator[str]:
    words = name.split()
    if len(words) < 2 or _is_regnal(words) or words[0].casefold() in _TITLES:
        return
    start = _surname_starts(words)
    middle = rng.choice([word for word in _MIDDLE if word not in words])
    if words[0] in _FORMAL:
        yield " ".join([_FORMAL[words[0]], *words[1:]])
    if start == 1 and len(words[0].rstrip(".")) > 1:
        first = _FORMAL.get(words[0], words[0])
        yield f"{first} {middle} {' '.join(words[1:])}"
        yield f"{words[0]} {middle[0]}. {' '.join(words[1:])}"
    yield f"{rng.choice(('Dr.', 'Professor', 'the great', 'the late', 'the famous'))} {name}"


def _fuller_place(name: str, kind: str) -> Iterator[str]:
    if kind in ("city", "town", "country") and len(name.split()) == 1:
        yield f"the {kind} of {name}"
    if kind == "city" and "City" not in name:
        yield f"City of {name}"
    if kind == "river" and "River" not in name:
        yield f"{name} River"
    if kind == "mountain" and name.split()[0] not in ("Mount", "Mt."):
        yield f"Mount {name}"


def _fuller_organisation(name: str, kind: str, rng: random.Random) -> Iterator[str]:
    last = name.split()[-1].casefold()
    if kind == "company" and last not in _LEGAL:
        yield from (f"{name} {form}" for form in rng.sample(("Inc.", "Corporation", "Ltd.", "Company", "Group"), 2))
    if kind in ("team", "club", "sports_team") and last not in _CLUB and not name.startswith("The "):
        yield f"{name} {rng.choice(('FC', 'F.C.', 'Football Club'))}" if len(name.split()) < 3 else f"the {name}"
    if kind in ("band", "party", "agency", "university", "newspaper") and not name.casefold().startswith("the "):
        yield f"the {name}"


def _fuller_work(name: str, kind: str) -> Iterator[str]:
    spoken = kind.replace("_", " ").replace("tv", "TV")
    if kind not in ("work", "product"):
        yield f"the {spoken} {name}"
        yield f"{name} ({spoken})"


def _respelled(name: str) -> Iterator[str]:
    """The name with one word, or one group of letters within words, written otherwise."""
    words = name.split()
    for group in _SPELLED:
        if words[0] in group:
            yield from (" ".join([other, *words[1:]]) for other in group[:3])
    for one, other in _SPELLINGS:
        if found := re.search(rf"(?<=\w){one}(?=\w)", name):
            yield name[: found.start()] + other + name[found.end() :]


def _replaced(name: str, old: str, new: str) -> str | None:
    """A name with whole words replaced once; "St." is a street only at the end, a saint only before a name."""
    found = re.search(rf"(?<![\w.]){re.escape(old)}(?![\w.])", name)
    if not found:
        return None
    is_last = found.end() == len(name)
    if (is_last and {old, new} & _LEADING) or (not is_last and "Street" in (old, new)):
        return None
    return name[: found.start()] + new + name[found.end() :]


# -- nearly the same ---------------------------------------------------------------------------------------------------


class _Index:
    """A pool of names by what they have in common."""

    def __init__(self, pool: tuple[str, ...]) -> None:
        self.sharing: dict[str, list[str]] = {}
        self.near_words: dict[str, list[str]] = {}
        self.pairs: list[list[str]] = []
        words: dict[str, None] = {}
        for name in pool:
            parts = name.split()
            if len(parts) == 2:
                self.pairs.append(parts)
            words.update(dict.fromkeys(parts))
            for word in set(fold(name).split()) - _SMALL:
                self.sharing.setdefault(word, []).append(name)
        for word in words:
            if len(word) > 3 and word.isalpha() and word[0].isupper():
                for key in _deletions(word.casefold()):
                    self.near_words.setdefault(key, []).append(word)
        self.names = {fold(name) for name in pool}


@lru_cache(maxsize=16)
def _index(pool: tuple[str, ...]) -> _Index:
    return _Index(pool)


def _deletions(word: str) -> Iterator[str]:
    """The word, and the word without each of its letters: words one letter apart have one of them in common."""
    yield word
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]


def _sharing(name: str, rng: random.Random, index: _Index) -> list[str]:
    """Names of the pool that share a word with a name, the rarer the word the better."""
    groups = sorted((index.sharing.get(word, []) for word in fold(name).split() if word not in _SMALL), key=len)
    found: list[str] = []
    for group in groups:
        found += rng.sample(group, min(4, len(group)))
    return found


def _one_letter_off(words: list[str], index: _Index) -> Iterator[str]:
    """The name with one word changed by a letter to a word of another name."""
    for place, word in enumerate(words):
        if len(word) < 4 or not word[0].isupper():
            continue
        others = {other for key in _deletions(word.casefold()) for other in index.near_words.get(key, ())}
        for other in sorted(others):
            if _sound(other) != _sound(word):
                yield " ".join([*words[:place], other, *words[place + 1 :]])


def _swapped(words: list[str]) -> Iterator[str]:
    """The name with a numeral, a number or one of two opposites changed."""
    for place, word in enumerate(words):
        other: list[str] = []
        if word in _OPPOSITES:
            other = [_OPPOSITES[word]]
        elif place and word in _NUMERALS:
            at = _NUMERALS.index(word)
            other = [*_NUMERALS[max(0, at - 1) : at], *_NUMERALS[at + 1 : at + 2]]
        elif word.isdecimal():
            other = [str(int(word) + step) for step in (-1, 1, 2) if int(word) + step > 0]
        yield from (" ".join([*words[:place], changed, *words[place + 1 :]]) for changed in other)


def _recombined(words: list[str], rng: random.Random, index: _Index) -> Iterator[str]:
    for _ in range(3):
        yield f"{rng.choice(index.pairs)[0]} {words[1]}"
        yield f"{words[0]} {rng.choice(index.pairs)[1]}"


def _may_be_same(name: str, other: str) -> bool:
    """Whether another name could be of the same thing: one says less, or each word could stand for the other's."""
    one, two = fold(name).split(), fold(other).split()
    if set(one) <= set(two) or set(two) <= set(one):
        return True
    return len(one) == len(two) and all(_could_be(first, second) for first, second in zip(one, two, strict=True))


def _could_be(one: str, other: str) -> bool:
    """Whether one word could be written, or said, for the other."""
    if _sound(one) == _sound(other):
        return True
    shorter, longer = sorted((one, other), key=len)
    if shorter.isdecimal() or shorter in _ROMAN or longer in _ROMAN:
        return False
    if longer.startswith(shorter):
        return True
    return _SAME_PERSON.get(one, {one}) & _SAME_PERSON.get(other, {other}) != set()


_ROMAN = frozenset(numeral.casefold() for numeral in _NUMERALS)
_SAME_PERSON: dict[str, set[str]] = {}
"""A given name, or what its bearer is called, to all that may be meant by it."""
for _group in (*_CALLED.items(), *_FORMAL.items(), *_SPELLED, *_TONGUES):
    for _name in map(fold, _group):
        _SAME_PERSON.setdefault(_name, {_name}).update(map(fold, _group))


_SOUNDS = tuple(tuple(pair.split(">")) for pair in "ph>f kh>k ou>u oe>o ae>a ue>u ck>k c>k y>i w>v z>s h>".split())
"""Letters and those that are written for them, replaced in this order."""


def _sound(word: str) -> str:
    """A word with letters that are written for each other made one, so that spellings of one name agree."""
    plain = fold(word)
    for one, other in _SOUNDS:
        plain = plain.replace(one, other)
    return re.sub(r"(.)\1", r"\1", plain)


def _others(name: str, made: Iterable[str]) -> list[str]:
    """What was made, tidied, without the name itself, empty texts and repetitions."""
    tidied = (" ".join(other.split()).strip(" ,") for other in made)
    return [other for other in dict.fromkeys(tidied) if len(other) > 1 and other != name]
