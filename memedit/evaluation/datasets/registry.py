"""The datasets by name, and reading one: ``load_cases("counterfact:dev", data=...)``.

A loader is named as "module:function" and imported when it is first used. Where the files are is the caller's to say;
this file knows only what they are called within a data folder.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path

from memedit.edit_files import BadRecord
from memedit.errors import ConfigError, DataFileError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.source import Source
from memedit.suggestions import suggestion

DATA_VARIABLE = "MEMEDIT_DATA"
"""The environment variable that names the data folder where a call does not."""

Loader = Callable[[Source], Iterator[EvalCase | BadRecord]]
"""What a dataset brings: the cases of a source, and in their places the records that hold none."""


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """What is known of a dataset before anything is read.

    Attributes:
        loader: The loader, as "module:function".
        splits: For each split the names of its files within the data folder, with ``*`` for any; of several names the
            first that is there is taken.
    """

    loader: str
    splits: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that cases were read from.

    Attributes:
        name: Its name, relative to the data folder.
        sha256: SHA-256 of its bytes, in hexadecimal.
    """

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The cases that were read, and everything needed to read them again.

    Attributes:
        name: Name and split, as given to `load_cases`.
        cases: The cases, in the order of the files.
        files: The files that they come from.
        bad: The records that were left out, with what is wrong with each.
        seed: What the loader drew by, where it had to draw.
        limit: How many cases were asked for at most; None for all.
    """

    name: str
    cases: tuple[EvalCase, ...]
    files: tuple[DataFile, ...]
    bad: tuple[BadRecord, ...] = ()
    seed: int = 0
    limit: int | None = None

    def probe_counts(self) -> dict[str, int]:
        """Returns how many probes there are of each kind."""
        return dict(sorted(Counter(probe.kind for case in self.cases for probe in case.probes).items()))


_KNOWEDIT_FACTS = "memedit.evaluation.datasets.knowedit:load"

_ZSRE_SPLITS = {
    "train": ("zsre/train.jsonl", "zsre/zsre_mend_train.json"),
    "dev_multi": ("zsre/dev_multi.jsonl",),
    "portability_dev": ("zsre/portability_dev.jsonl",),
    "eval": ("zsre/zsre_mend_eval.json",),
}

DATASETS: Mapping[str, DatasetFormat] = {
    "counterfact": DatasetFormat(
        "memedit.evaluation.datasets.counterfact:load",
        {
            "train": ("counterfact/train.jsonl",),
            "dev": ("counterfact/dev.jsonl",),
            "dev_multi": ("counterfact/dev_multi.jsonl",),
            "full": ("counterfact/counterfact.json",),
            "multi": ("counterfact/multi_counterfact.json",),
        },
    ),
    "zsre-answer": DatasetFormat("memedit.evaluation.datasets.zsre:load_answer", _ZSRE_SPLITS),
    "zsre-counterfactual": DatasetFormat("memedit.evaluation.datasets.zsre:load_counterfactual", _ZSRE_SPLITS),
    "knowedit-zsre": DatasetFormat(
        _KNOWEDIT_FACTS, {"dev": ("knowedit/zsre_dev.jsonl",), "test": ("knowedit/ZsRE/ZsRE-test-all.json",)}
    ),
    "knowedit-counterfact": DatasetFormat(
        _KNOWEDIT_FACTS,
        {
            "dev": ("knowedit/wiki_counterfact_dev.jsonl",),
            "train": ("knowedit/wiki_counterfact/train_cf.json",),
            "test": ("knowedit/wiki_counterfact/test_cf.json",),
        },
    ),
    "knowedit-recent": DatasetFormat(
        _KNOWEDIT_FACTS,
        {
            "train": ("knowedit/wiki_recent/recent_train.json",),
            "test": ("knowedit/wiki_recent/recent_test.json",),
        },
    ),
    "knowedit-wikibio": DatasetFormat(
        "memedit.evaluation.datasets.knowedit:load_wikibio",
        {
            "dev": ("knowedit/wikibio_dev.jsonl",),
            "train": ("knowedit/WikiBio/wikibio-train-all.json",),
            "test": ("knowedit/WikiBio/wikibio-test-all.json",),
        },
    ),
    "knowedit-convsent": DatasetFormat(
        "memedit.evaluation.datasets.convsent:load",
        {split: (f"knowedit/convsent/blender_{split}.json",) for split in ("train", "val", "test")},
    ),
    "knowedit-sanitation": DatasetFormat(
        "memedit.evaluation.datasets.sanitation:load",
        {split: (f"knowedit/Sanitation/trivia_qa_{split}.json",) for split in ("train", "test")},
    ),
    "mquake": DatasetFormat(
        "memedit.evaluation.datasets.mquake:load",
        {
            "hard_dev": ("mquake/hard_dev.jsonl",),
            "cf": ("mquake/MQuAKE-CF.json",),
            "cf_3k": ("mquake/MQuAKE-CF-3k.json",),
            "cf_3k_v2": ("mquake/MQuAKE-CF-3k-v2.json",),
            "t": ("mquake/MQuAKE-T.json",),
        },
    ),
    "halluedit": DatasetFormat(
        "memedit.evaluation.datasets.halluedit:load", {"dev": ("halluedit/dev.jsonl",), "all": ("halluedit/*.csv",)}
    ),
    "unke": DatasetFormat(
        "memedit.evaluation.datasets.unke:load", {"dev": ("unke/dev.jsonl",), "full": ("unke/final_data_v3.json",)}
    ),
    "ripple-edits": DatasetFormat(
        "memedit.evaluation.datasets.ripple_edits:load",
        {split: (f"ripple_edits/{split}.json",) for split in ("recent", "random", "popular")},
    ),
    "relations": DatasetFormat(
        "memedit.evaluation.datasets.relations:load",
        {
            "factual": ("relations/factual/*.json",),
            "commonsense": ("relations/commonsense/*.json",),
            "all": ("relations/*/*.json",),
        },
    ),
    "traffic": DatasetFormat(
        "memedit.evaluation.datasets.traffic:load",
        {"nq_dev": ("traffic/nq_dev.jsonl",), "triviaqa_dev": ("traffic/triviaqa_dev.jsonl",)},
    ),
    "jsonl": DatasetFormat("memedit.evaluation.datasets.own:load", {}),
}
"""Every dataset by name."""


def load_cases(
    name: str,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """Reads the cases of a dataset.

    Args:
        name: The dataset and, behind a colon, its split: ``"counterfact:dev"``. With ``data`` a single file the name
            of the dataset alone says its format.
        data: The data folder, or one file; None takes the folder that ``MEMEDIT_DATA`` names.
        limit: Cases are read up to this many, from the beginning; records behind them are not looked at.
        seed: What a loader draws by, where a benchmark leaves something open (ConvSent, relations).
        skip_bad: Leave out records that are malformed and list them, instead of stopping at the first.

    Returns:
        The cases, and what they were read from.

    Raises:
        ConfigError: The dataset or its split is not known, or nothing says where the files are.
        DataFileError: A file is absent or cannot be read, or holds a malformed record (named by file, line and field).
    """
    dataset, _, split = name.partition(":")
    known = DATASETS.get(dataset)
    if known is None:
        raise ConfigError(f"There is no dataset '{dataset}'. {suggestion(dataset, DATASETS)}")
    if limit is not None and limit < 0:
        raise ConfigError(f"limit must not be negative; it is {limit}.")
    source = _source(name, split, known, data=data, seed=seed)
    module, _, function = known.loader.partition(":")
    load: Loader = getattr(import_module(module), function)
    bad: list[BadRecord] = []
    cases = tuple(islice(_good(load(source), bad, skip_bad=skip_bad), limit))
    if not cases and not bad and limit != 0:
        raise DataFileError(f"{', '.join(source.relative(file) for file in source.files)}: no record in it.")
    files = tuple(DataFile(source.relative(file), _sha256(file)) for file in source.files)
    return Dataset(name=name, cases=cases, files=files, bad=tuple(bad), seed=seed, limit=limit)


def data_folder(data: str | Path | None) -> str | Path | None:
    """The data folder: the one that is given, or else that of the environment; None where neither says it."""
    return data if data is not None else os.environ.get(DATA_VARIABLE)


def _good(found: Iterator[EvalCase | BadRecord], bad: list[BadRecord], *, skip_bad: bool) -> Iterator[EvalCase]:
    """The cases, with bad records put aside, those included whose id an earlier one has."""
    places: dict[str, str] = {}
    for one in found:
        wrong = one if isinstance(one, BadRecord) else _taken(one, places)
        if wrong is None and isinstance(one, EvalCase):
            yield one
        elif wrong is not None and skip_bad:
            bad.append(wrong)
        elif wrong is not None:
            raise DataFileError(f"{wrong} Put it right, or leave such records out with skip_bad.")


def _taken(case: EvalCase, places: dict[str, str]) -> BadRecord | None:
    if case.source is None:
        return None
    place = f"{case.source.file}:{case.source.line}"
    if case.id not in places:
        places[case.id] = place
        return None
    problem = f"the id {case.id!r} is that of the record at {places[case.id]} already."
    return BadRecord(case.source.file, case.source.line, problem)


def _source(name: str, split: str, known: DatasetFormat, *, data: str | Path | None, seed: int) -> Source:
    given = data_folder(data)
    if not given:
        raise ConfigError(f"Nothing says where the files of '{name}' are; give data=, or set {DATA_VARIABLE}.")
    place = Path(given)
    if place.is_file():
        return Source(name=name, root=place.parent, files=(place,), seed=seed)
    if not place.is_dir():
        raise DataFileError(f"{place} is neither a folder nor a file.")
    if not known.splits:
        raise ConfigError(f"'{name}' is one file of your own; give it with data=. {place} is a folder.")
    if split not in known.splits:
        raise ConfigError(f"'{name}' names no split of the dataset. {suggestion(split, known.splits)}")
    for pattern in known.splits[split]:
        if files := sorted(file for file in place.glob(pattern) if file.is_file()):
            return Source(name=name, root=place, files=tuple(files), seed=seed)
    raise DataFileError(f"{place} holds no {' or '.join(known.splits[split])}, which '{name}' is read from.")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
