"""Scope classifiers on disk: what is written, what is refused, and that there is no pickle anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from classifiers import (
    ScopeCandidate,
    ScopeFormatError,
    ScopeVersionError,
    SimilarityScope,
    UnknownScopeKindError,
    load_scope,
    save_scope,
)
from classifiers.persistence import FORMAT_VERSION, SCOPE_KINDS


@dataclass(eq=False)
class LinearScope:
    """A classifier with a tensor, as a trained one has."""

    weights: NDArray[np.float32]
    name: str = "linear"
    fingerprint: str = ""
    threshold: float = 0.5
    floor: float = -1.0
    kind: ClassVar[str] = "linear"

    def probabilities(self, queries: Sequence[str], candidates: Sequence[ScopeCandidate]) -> NDArray[np.float32]:
        lengths = [[len(q), len(c.prompt)] for q, c in zip(queries, candidates, strict=True)]
        return np.asarray(lengths, dtype=np.float32) @ self.weights

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"threshold": self.threshold}, {"weights": self.weights}

    @classmethod
    def from_state(
        cls, parameters: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], **_encoder: str | Path | None
    ) -> Self:
        return cls(weights=tensors["weights"], **parameters)


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> LinearScope:
    monkeypatch.setitem(SCOPE_KINDS, "linear", f"{__name__}:LinearScope")
    return LinearScope(np.array([0.25, -0.5], dtype=np.float32), threshold=0.75)


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "scope.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_similarity_scope_comes_back_equal(tmp_path: Path):
    scope = SimilarityScope(0.62, steepness=12.5)
    save_scope(scope, tmp_path / "new" / "scope")
    loaded = load_scope(tmp_path / "new" / "scope")
    assert loaded == scope
    assert loaded.fingerprint == scope.fingerprint


def test_a_scope_without_tensors_is_one_json_file(tmp_path: Path):
    save_scope(SimilarityScope(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scope.json"]
    assert json.loads((tmp_path / "scope.json").read_text()) == {
        "format_version": FORMAT_VERSION,
        "kind": "similarity",
        "parameters": {"threshold_similarity": 0.7, "steepness": 20.0},
        "tensors": None,
    }


def test_tensors_come_back_bit_for_bit(tmp_path: Path, linear: LinearScope):
    save_scope(linear, tmp_path)
    loaded = load_scope(tmp_path)
    assert isinstance(loaded, LinearScope)
    assert loaded.threshold == 0.75
    assert loaded.weights.tobytes() == linear.weights.tobytes()
    pair = [ScopeCandidate(prompt="abc", target="t", matched_text="abc", similarity=0.0)]
    assert loaded.probabilities(["xy"], pair).tolist() == [2 * 0.25 - 3 * 0.5]


def test_saving_again_replaces_the_old_one_as_a_whole(tmp_path: Path, linear: LinearScope):
    save_scope(linear, tmp_path)
    save_scope(LinearScope(linear.weights * 2), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    loaded = load_scope(tmp_path)
    assert isinstance(loaded, LinearScope)
    assert loaded.weights.tolist() == [0.5, -1.0]
    save_scope(SimilarityScope(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scope.json"]


def test_a_writer_stopped_before_the_last_rename_leaves_the_old_one(tmp_path: Path, linear: LinearScope):
    save_scope(linear, tmp_path)
    before = (tmp_path / "scope.json").read_bytes()
    save_scope(LinearScope(linear.weights * 2), tmp_path / "other")
    (new,) = (tmp_path / "other").glob("*.safetensors")
    new.rename(tmp_path / new.name)  # the tensors of the new one are there, its scope.json is not
    assert (tmp_path / "scope.json").read_bytes() == before
    loaded = load_scope(tmp_path)
    assert isinstance(loaded, LinearScope)
    assert loaded.weights.tolist() == [0.25, -0.5]


def test_damaged_tensors_are_refused(tmp_path: Path, linear: LinearScope):
    save_scope(linear, tmp_path)
    (tensors,) = tmp_path.glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(ScopeFormatError, match="damaged"):
        load_scope(tmp_path)
    tensors.unlink()
    with pytest.raises(ScopeFormatError, match="not beside it"):
        load_scope(tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "weights.bin", 3])
def test_tensors_elsewhere_are_refused(tmp_path: Path, linear: LinearScope, name: object):
    save_scope(linear, tmp_path)
    edit_manifest(tmp_path, tensors={"file": name, "sha256": "0"})
    with pytest.raises(ScopeFormatError, match="not a safetensors file beside it"):
        load_scope(tmp_path)


def test_an_unknown_kind_names_the_nearest(tmp_path: Path):
    save_scope(SimilarityScope(), tmp_path)
    edit_manifest(tmp_path, kind="similarty")
    with pytest.raises(UnknownScopeKindError, match="did you mean 'similarity'"):
        load_scope(tmp_path)
    edit_manifest(tmp_path, kind="zzz")
    with pytest.raises(UnknownScopeKindError, match="known kinds: cross-encoder, similarity"):
        load_scope(tmp_path)


def test_a_newer_format_says_so(tmp_path: Path):
    save_scope(SimilarityScope(), tmp_path)
    edit_manifest(tmp_path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(ScopeVersionError, match="Upgrade memedit"):
        load_scope(tmp_path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"treshold": 1}, "treshold"), ({"threshold_similarity": 7}, "from -1 to 1"), ({"steepness": "x"}, "real number")],
)
def test_parameters_of_another_kind_are_refused(tmp_path: Path, parameters: dict[str, Any], message: str):
    save_scope(SimilarityScope(), tmp_path)
    edit_manifest(tmp_path, parameters=parameters)
    with pytest.raises(ScopeFormatError, match=message):
        load_scope(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format_version": "1"}', '{"format_version": 1}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str):
    (tmp_path / "scope.json").write_text(content)
    with pytest.raises(ScopeFormatError, match=r"scope\.json"):
        load_scope(tmp_path)


def test_an_empty_folder_says_what_is_missing(tmp_path: Path):
    with pytest.raises(ScopeFormatError, match=r"there is no scope\.json"):
        load_scope(tmp_path)


def test_what_has_no_state_cannot_be_saved(tmp_path: Path):
    class Bare:
        name = fingerprint = ""
        threshold = floor = 0.0

        def probabilities(self, queries: Sequence[str], candidates: Sequence[ScopeCandidate]) -> NDArray[np.float32]:
            return np.zeros(len(queries), dtype=np.float32)

    with pytest.raises(ScopeFormatError, match="Bare cannot be saved"):
        save_scope(Bare(), tmp_path)
    with pytest.raises(UnknownScopeKindError):
        save_scope(LinearScope(np.zeros(2, dtype=np.float32)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_pickle_in_the_packages():
    root = Path(__file__).parent.parent
    words = ("import pickle", "from pickle", "torch.load(", "joblib", "cloudpickle", "allow_pickle=True", "dill")
    files = [path for package in ("memory_store", "classifiers", "memedit") for path in (root / package).rglob("*.py")]
    assert len(files) > 5
    found = [(path.name, word) for path in files for word in words if word in path.read_text(encoding="utf-8")]
    assert found == []
