"""Names that no model has by heart, to learn copying from: other scripts, accents, dashes, years, brackets.

They are made up by rule, so that nothing of a measured data set is in them. It knows nothing of facts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["odd_name"]

_SCRIPTS = (
    "абвгдежзиклмнопрстуфхцчшыьэюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "가나다라마바사아자차카타파하한국민대서울부산김이박최정",
    "東京大阪山田川口中村小林木本高橋北南西日月火水金土国学院",
    "अआइईउऊकखगघचजटडतदनपबमयरलवशसह",
    "あいうえおかきくけこさしすせそたちつてとなにのはまやゆらりる",
)
_ONSETS = (
    "b",
    "č",
    "d",
    "ð",
    "g",
    "gh",
    "j",
    "k",
    "ł",
    "m",
    "ñ",
    "p",
    "r",
    "ř",
    "s",
    "ş",
    "š",
    "t",
    "v",
    "w",
    "z",
    "ž",
)
_NUCLEI = (
    "a",
    "á",
    "à",
    "â",
    "ä",
    "å",
    "ã",
    "e",
    "é",
    "è",
    "ę",
    "ë",
    "i",
    "í",
    "ı",
    "o",
    "ó",
    "ô",
    "ö",
    "ø",
    "u",
    "ü",
    "ů",
    "y",
)
_CODAS = ("", "", "", "l", "n", "r", "sz", "th", "ck", "ń", "x", "dt")
_SERIES = (
    "Badminton Championships", "Division 2", "Cup", "Grand Prix", "Open", "General Election", "Film Festival",
    "Winter Games", "Second League", "Symposium", "Chess Olympiad", "Regatta",
)  # fmt: skip
_PARTS = ("men's singles", "women's doubles", "qualification", "mixed relay", "Group B", "medley", "part one")
_BODIES = (
    "Captaincy General of {}", "Viceroyalty of {}", "Archdiocese of {}", "University of {} Press", "Free State of {}",
    "{} County Historical Society", "Royal Institute of {}", "Grand Duchy of {}", "{} and District Railway",
    "Order of {}", "{} Memorial Prize", "Society for the Study of {}",
)  # fmt: skip
_BRACKETS = ("{} (band)", "{} ({year} film)", '"{}"', "{}, Jr.", "{} & Sons", "The {} Question", "{} no. {small}")


def odd_name(rng: random.Random, names: Sequence[str]) -> str:
    """Makes up a name.

    Args:
        rng: What it is drawn from.
        names: Ordinary names, of which some are built.
    """
    draw = rng.random()
    if draw < 0.2:
        letters = rng.choice(_SCRIPTS)
        return " ".join("".join(rng.choices(letters, k=rng.randint(2, 7))) for _ in range(rng.choice((1, 1, 2, 3))))
    if draw < 0.45:
        return " ".join(_word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    if draw < 0.65:
        return _of_a_series(rng, rng.choice(names))
    if draw < 0.85:
        return rng.choice(_BODIES).format(rng.choice((rng.choice(names), _word(rng))))
    form = rng.choice(_BRACKETS)
    return form.format(rng.choice(names), year=rng.randint(1890, 2030), small=rng.randint(2, 99))


def _word(rng: random.Random) -> str:
    syllables = (
        f"{rng.choice(_ONSETS)}{rng.choice(_NUCLEI)}{rng.choice(_CODAS)}" for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))
    )
    return "".join(syllables).capitalize()


def _of_a_series(rng: random.Random, place: str) -> str:
    year = rng.randint(1890, 2035)
    when = rng.choice((str(year), f"{year}–{(year + 1) % 100:02d}", f"{year}/{(year + 1) % 100:02d}"))
    part = rng.choice(("", f" – {rng.choice(_PARTS)}"))
    return f"{when} {place} {rng.choice(_SERIES)}{part}"
