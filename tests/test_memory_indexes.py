"""What every kind of vector index must do, and how far the scores of each may be off."""

from __future__ import annotations

import numpy as np
import pytest
from coarse_index import COARSE

from memory_store import EXACT, FAISS_FLAT, FAISS_HALF

FLOAT32_ERROR = 1e-6
"""What adding up in single precision may change of a score by an index whose tolerance is 0."""

index_types = pytest.mark.parametrize(
    "index_type", [FAISS_HALF, FAISS_FLAT, EXACT, COARSE], ids=lambda index_type: index_type.name
)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(count, dimension, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def halfway_vectors(count, dimension):
    """Components (in a dimension that is a power of 4) just between two half-precision numbers, all rounded down."""
    signs = np.random.default_rng(2).choice([-1.0, 1.0], (count, dimension))
    return (signs * (1 + 2.0**-11) / np.sqrt(dimension)).astype(np.float32)


def spiky_vectors(count, dimension):
    """One large component, and the others too small for a normal number of half precision."""
    vectors = np.random.default_rng(3).uniform(-(2.0**-15), 2.0**-15, (count, dimension))
    vectors[np.arange(count), np.arange(count) % dimension] = 1.0
    return unit(vectors)


def filled(index_type, vectors):
    index = index_type.create(vectors.shape[1])
    index.add(np.arange(len(vectors)) * 10, vectors)
    return index


def by_id(ids, values):
    return values[np.argsort(ids)]


def scores_of_all(index, queries):
    """The score of each vector under each query, ``[queries, vectors]``, in the order of ids."""
    scores, ids = index.search(queries, len(index))
    return np.take_along_axis(scores, np.argsort(ids, axis=1), axis=1)


@index_types
def test_an_index_holds_what_it_says_it_holds(index_type):
    vectors = np.concatenate([random_vectors(50, 64), halfway_vectors(5, 64), spiky_vectors(5, 64)])
    index = filled(index_type, vectors)
    index.remove(np.array([0, 70, 590]))
    index.add(np.array([7]), vectors[:1])
    kept = np.concatenate([vectors[:1], np.delete(vectors, [0, 7, 59], axis=0)])
    assert len(index) == 58
    assert sorted(index.ids().tolist()) == [7, *(10 * n for n in range(60) if n not in {0, 7, 59})]
    np.testing.assert_array_equal(by_id(index.ids(), index.vectors()), index.as_held(kept))


@index_types
def test_a_dumped_index_is_loaded_as_it_was(index_type):
    index = filled(index_type, random_vectors(40, 64))
    again = index_type.load(index.dump())
    queries = random_vectors(3, 64, seed=1)
    np.testing.assert_array_equal(again.ids(), index.ids())
    np.testing.assert_array_equal(again.vectors(), index.vectors())
    np.testing.assert_array_equal(scores_of_all(again, queries), scores_of_all(index, queries))
    assert again.tolerance == index.tolerance


@pytest.mark.parametrize("index_type", [FAISS_HALF, FAISS_FLAT, EXACT], ids=lambda index_type: index_type.name)
def test_many_queries_at_once_are_answered_by_every_vector_held(index_type):
    """Kinds that have another way for many queries take it here, over several of the blocks they work in."""
    index = filled(index_type, random_vectors(9000, 16))
    index.remove(np.arange(100, 200) * 10)
    held = np.sort(index.ids())
    queries = random_vectors(100, 16, seed=1)
    products = queries @ by_id(index.ids(), index.vectors()).T
    for k in (1, 30, 8901):
        scores, ids = index.search(queries, k)
        there = min(k, 8900)
        own = np.take_along_axis(products, np.searchsorted(held, ids[:, :there]), axis=1)
        np.testing.assert_allclose(scores[:, :there], own, atol=FLOAT32_ERROR)
        np.testing.assert_allclose(scores[:, :there], -np.sort(-products, axis=1)[:, :k], atol=FLOAT32_ERROR)
        assert {len(set(row)) for row in ids[:, :there].tolist()} == {there}
        assert (ids[:, there:] == -1).all()


@pytest.mark.parametrize(("index_type", "other"), [(FAISS_HALF, FAISS_FLAT), (FAISS_FLAT, FAISS_HALF)])
def test_what_another_kind_dumped_is_refused(index_type, other):
    with pytest.raises(ValueError, match="Expected an Index"):
        index_type.load(filled(other, random_vectors(40, 64)).dump())


@index_types
@pytest.mark.parametrize("make", [random_vectors, halfway_vectors, spiky_vectors])
@pytest.mark.parametrize("dimension", [16, 64, 384, 4096])
def test_no_score_is_off_by_more_than_the_tolerance(index_type, make, dimension):
    vectors = make(60, dimension)
    queries = np.concatenate([unit(vectors[:10]), unit(np.sign(vectors[:10])), random_vectors(20, dimension, seed=1)])
    index = filled(index_type, vectors)
    true = queries.astype(np.float64) @ vectors.astype(np.float64).T
    assert np.abs(scores_of_all(index, queries) - true).max() <= index.tolerance + FLOAT32_ERROR


def test_the_bound_of_half_precision_is_no_larger_than_need_be():
    """Where every component is rounded by as much as can be, and in the query's favour, the bound is all but met."""
    vectors = halfway_vectors(1, 64)
    query = unit(vectors)
    index = filled(FAISS_HALF, vectors)
    error = abs(float(index.search(query, 1)[0][0, 0]) - float(query[0].astype(np.float64) @ vectors[0]))
    assert 0.9 * index.tolerance < error <= index.tolerance


@pytest.mark.parametrize("make", [random_vectors, halfway_vectors, spiky_vectors])
def test_half_precision_is_that_of_numpy(make):
    vectors = make(60, 384)
    expected = vectors.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(filled(FAISS_HALF, vectors).vectors(), expected)
