from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from coarse_index import COARSE
from hashing_encoder import HashingEncoder
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memory_store import (
    EXACT,
    FAISS_FLAT,
    FAISS_HALF,
    ConflictError,
    Edit,
    EditMemory,
    EncoderMismatchError,
    InvalidArgumentError,
    InvalidEditError,
    InvalidVectorError,
)

NOW = datetime.now(UTC)
INDEX_TYPES = [FAISS_HALF, FAISS_FLAT, EXACT, COARSE]
index_types = pytest.mark.parametrize("index_type", INDEX_TYPES, ids=lambda index_type: index_type.name)
PLACES = ["France", "Spain", "Peru", "Chad", "Fiji"]


def exact_search(edits, encoder, query, k, now):
    """Every edit in force by its best text: the reference, from nothing but the edits themselves."""
    scored = []
    for edit in edits:
        if edit.is_live(now):
            vectors = np.stack([encode_once(encoder, text.text) for text in edit.texts()])
            scored.append((float((vectors @ query).max()), edit.id))
    return sorted(scored, reverse=True)[:k]


def encode_once(encoder, text, known={}):  # noqa: B006 - kept between calls on purpose
    key = (encoder.fingerprint, text)
    if key not in known:
        known[key] = encoder.encode([text])[0]
    return known[key]


def assert_exact(hits, expected, everything):
    """The same scores in the same order, and each edit with the score that is its own (ties may change places)."""
    assert [hit.score for hit in hits] == pytest.approx([score for score, _ in expected], abs=1e-5)
    own = {edit_id: score for score, edit_id in everything}
    assert [hit.score for hit in hits] == pytest.approx([own[hit.edit.id] for hit in hits], abs=1e-5)
    assert len({hit.edit.id for hit in hits}) == len(hits)


def random_edits(count, generator, **fields):
    words = [f"w{n}" for n in range(60)]
    for n in range(count):
        pick = lambda: " ".join(generator.choice(words, 5))  # noqa: E731
        yield Edit(
            prompt=f"{pick()} {n}",
            target=pick(),
            paraphrases=tuple(pick() for _ in range(int(generator.integers(0, 12)))),
            namespace=f"n{n % 3}",
            expires_at=NOW + timedelta(days=int(generator.integers(-3, 3))) if n % 4 == 0 else None,
            **fields,
        )


@index_types
def test_search_equals_exhaustive_search(tmp_path, index_type):
    generator = np.random.default_rng(7)
    encoder = HashingEncoder()
    with EditMemory(tmp_path / "facts.db", encoder=encoder, index_type=index_type) as memory:
        memory.add_many(random_edits(200, generator))
        for edit in memory.list()[::7]:
            memory.remove(edit.id)
        queries = encoder.encode([" ".join(generator.choice([f"w{n}" for n in range(60)], 4)) for _ in range(12)])
        for namespaces in (None, ["n1"], ["n0", "n2"]):
            edits = [edit for edit in memory.list() if namespaces is None or edit.namespace in namespaces]
            for k in (1, 3, 50, 1000):
                for now in (NOW, NOW - timedelta(days=30)):
                    found = memory.search(queries, k, namespaces=namespaces, now=now)
                    for query, hits in zip(queries, found, strict=True):
                        everything = exact_search(edits, encoder, query, len(edits), now)
                        assert_exact(hits, everything[:k], everything)


class CrowdedEncoder:
    """Unit vectors so close together that their order is lost in half precision.

    Args:
        spread: How far apart they are.
    """

    dimension = 48

    def __init__(self, spread):
        self.fingerprint = f"crowded-{spread}"
        self._spread = spread
        self._directions = HashingEncoder(self.dimension)

    def encode(self, texts):
        """Returns unit vectors, ``[texts, dimension]``."""
        centre = self._directions.encode(["centre"])
        vectors = centre + self._spread * self._directions.encode(list(texts))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@index_types
@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_search_is_exact_among_vectors_that_are_all_but_the_same(index_type, spread):
    """All scores lie within a few times the tolerance; some texts are equal, some edits have expired."""
    generator = np.random.default_rng(11)
    encoder = CrowdedEncoder(spread)
    near = 1e-12 if index_type.create(encoder.dimension).tolerance else 3e-7
    with EditMemory(encoder=encoder, index_type=index_type) as memory:
        memory.add_many(random_edits(150, generator))
        edits = memory.list()
        queries = encoder.encode(["w1 w2 w3", "w4 w5", "something else"])
        for k in (1, 4, 40, 500):
            found = memory.search(queries, k, now=NOW)
            for query, hits in zip(queries, found, strict=True):
                everything = exact_search(edits, encoder, query.astype(np.float64), len(edits), NOW)
                scores = {edit_id: score for score, edit_id in everything}
                assert len(hits) == min(k, len(everything))
                wanted = [score for score, _ in everything[:k]]
                assert [hit.score for hit in hits] == pytest.approx(wanted, abs=near, rel=0)
                own = [scores[hit.edit.id] for hit in hits]
                assert [hit.score for hit in hits] == pytest.approx(own, abs=near, rel=0)


def test_half_precision_alone_would_give_another_order():
    """What the test above rests on: the index's own order is wrong, and what is decided afterwards is not."""
    encoder = CrowdedEncoder(1e-3)
    texts = [f"text {n}" for n in range(200)]
    vectors = encoder.encode(texts)
    query = encoder.encode(["w1 w2 w3"])
    index = FAISS_HALF.create(encoder.dimension)
    index.add(np.arange(200), vectors)
    true_order = np.argsort(-(vectors.astype(np.float64) @ query[0]))
    assert index.search(query, 200)[1][0].tolist() != true_order.tolist()
    with EditMemory(encoder=encoder, index_type=FAISS_HALF) as memory:
        memory.add_many(Edit(prompt=text, target="x") for text in texts)
        hits = memory.search(query, 10)[0]
        assert hits == memory.search(query, 200)[0][:10]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        true = [float(encode_once(encoder, hit.text).astype(np.float64) @ query[0]) for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(true, abs=1e-12, rel=0)


@index_types
def test_a_score_is_not_less_than_itself(index_type):
    """``min_score`` at the very score of an edit keeps that edit, and everything better."""
    generator = np.random.default_rng(5)
    encoder = CrowdedEncoder(1e-3)
    with EditMemory(encoder=encoder, index_type=index_type) as memory:
        memory.add_many(random_edits(60, generator))
        query = encoder.encode(["w1 w2"])
        hits = memory.search(query, 60)[0]
        for hit in hits[:20]:
            better = [other for other in hits if other.score >= hit.score]
            assert memory.search(query, 60, min_score=hit.score)[0] == better


def test_where_nothing_passes_nothing_is_read(monkeypatch):
    encoder = HashingEncoder()
    with EditMemory(encoder=encoder) as memory:
        memory.add("alpha", "x")
        query = encoder.encode(["alpha"])
        assert len(memory.search(query, min_score=0.99)[0]) == 1
        monkeypatch.setattr("memory_store.ledger.texts_of", None)
        assert memory.search(encoder.encode(["beta"]), min_score=0.99) == [[]]


@index_types
def test_min_score_cuts_the_same_list_short(index_type):
    generator = np.random.default_rng(3)
    encoder = HashingEncoder()
    with EditMemory(encoder=encoder, index_type=index_type) as memory:
        memory.add_many(random_edits(200, generator))
        queries = encoder.encode(["w1 w2 w3", "w4 w5", "w59 w58 w57 w56"])
        everything = memory.search(queries, 200)
        for least in (-1.0, 0.1, 0.2, 0.3, 0.45, 0.99):
            for k in (2, 30, 200):
                cut = [[hit for hit in hits if hit.score >= least][:k] for hits in everything]
                assert memory.search(queries, k, min_score=least) == cut


@index_types
def test_one_edit_with_very_many_texts_does_not_crowd_out_others(index_type):
    with EditMemory(encoder=HashingEncoder(), index_type=index_type) as memory:
        loud = memory.add("alpha beta", "gamma", paraphrases=[f"alpha beta {n}" for n in range(900)]).edit
        quiet = memory.add("delta", "epsilon").edit
        assert [hit.edit.id for hit in memory.search_text(["alpha beta 5"], 2)[0]] == [loud.id, quiet.id]


@index_types
def test_many_expired_edits_do_not_hide_the_living(index_type):
    with EditMemory(encoder=HashingEncoder(), index_type=index_type) as memory:
        memory.add_many(Edit(prompt=f"alpha {n}", target="x", expires_at=NOW) for n in range(300))
        living = memory.add("something else altogether", "y").edit
        assert [hit.edit.id for hit in memory.search_text(["alpha 5"], 3)[0]] == [living.id]
        assert len(memory.search_text(["alpha 5"], 3, now=NOW - timedelta(days=1))[0]) == 3


def test_an_edit_expires_between_two_searches():
    with EditMemory(encoder=HashingEncoder()) as memory:
        end = datetime.now(UTC) + timedelta(hours=1)
        edit = memory.add("alpha", "x", expires_at=end).edit
        assert memory.search_text(["alpha"])[0][0].edit == edit
        assert memory.search_text(["alpha"], now=end) == [[]]
        assert memory.search_text(["alpha"], now=end - timedelta(microseconds=1))[0][0].edit == edit


def test_searches_that_make_no_sense_are_refused():
    encoder = HashingEncoder()
    with EditMemory(encoder=encoder) as memory:
        assert memory.search_text(["alpha"]) == [[]]
        assert memory.search(np.empty((0, 64), dtype=np.float32)) == []
        memory.add("alpha", "x")
        good = encoder.encode(["alpha"])
        assert memory.search_text([]) == []
        assert memory.search(np.empty((0, 64), dtype=np.float32)) == []
        for bad in (good[0], good[:, :10], good * 2, good * np.nan, np.zeros((1, 64), dtype=np.float32)):
            with pytest.raises(InvalidVectorError):
                memory.search(bad)
        with pytest.raises(InvalidArgumentError, match="k must"):
            memory.search(good, 0)
        with pytest.raises(InvalidArgumentError, match="list of texts"):
            memory.search_text("alpha")
        with pytest.raises(InvalidEditError, match="namespace"):
            memory.search(good, namespaces=[""])


@pytest.mark.parametrize("fault", ["short", "scaled", "nan", "wide"])
def test_an_encoder_that_returns_nonsense_stores_nothing(fault):
    class Broken(HashingEncoder):
        def encode(self, texts):
            vectors = super().encode(texts)
            return {
                "short": vectors[1:],
                "scaled": vectors * 1.01,
                "nan": vectors * np.float32("nan"),
                "wide": np.hstack([vectors, vectors]) / np.sqrt(2),
            }[fault]

    with EditMemory(encoder=Broken()) as memory:
        with pytest.raises(InvalidVectorError):
            memory.add("alpha", "x")
        assert (memory.count(state=None), memory.sequence) == (0, 0)


def test_adding_while_searching_in_other_threads(tmp_path):
    encoder = HashingEncoder()
    with EditMemory(tmp_path / "facts.db", encoder=encoder) as memory:
        stop = threading.Event()
        errors = []

        def search():
            while not stop.is_set():
                try:
                    before = memory.count()
                    hits = memory.search_text(["prompt"], 1000)[0]
                    if len(hits) < before:
                        errors.append(f"{len(hits)} hits after {before} edits")
                except Exception as error:  # noqa: BLE001 - any error in the thread fails the test
                    errors.append(repr(error))

        def add(worker):
            try:
                for n in range(40):
                    edit = memory.add(f"prompt w{worker} {n}", "x").edit
                    if memory.search_text([f"prompt w{worker} {n}"], 1)[0][0].edit.id != edit.id:
                        errors.append(f"{edit.id} is not found by its own prompt")
            except Exception as error:  # noqa: BLE001 - any error in the thread fails the test
                errors.append(repr(error))

        readers = [threading.Thread(target=search) for _ in range(2)]
        writers = [threading.Thread(target=add, args=(worker,)) for worker in range(3)]
        for thread in readers + writers:
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        assert errors == []
        assert memory.count() == 120
        assert memory.verify().ok


class MemoryMachine(RuleBasedStateMachine):
    """Random operations on a memory and on a plain dictionary that says what should be there."""

    index_type = FAISS_HALF

    def __init__(self):
        super().__init__()
        self.encoder = HashingEncoder(16)
        self.memory = EditMemory(encoder=self.encoder, index_type=self.index_type)
        self.model: dict[str, tuple[str, str, str]] = {}  # id -> (place, answer, state)

    def rivals(self, edit_id, place):
        return [i for i, (p, _, state) in self.model.items() if p == place and state == "active" and i != edit_id]

    def settle(self, edit_id, place, policy):
        """Applies the policy to the model; returns whether the operation is allowed."""
        rivals = self.rivals(edit_id, place)
        if policy == "reject" and rivals:
            return False
        if policy == "supersede":
            for rival in rivals:
                self.model[rival] = (*self.model[rival][:2], "superseded")
        return True

    def same(self, place, answer, state=None):
        return [i for i, (p, t, s) in self.model.items() if (p, t) == (place, answer) and (state is None or s == state)]

    @rule(
        place=st.sampled_from(PLACES),
        answer=st.sampled_from("xyz"),
        policy=st.sampled_from(["supersede", "reject", "keep_both"]),
    )
    def add(self, place, answer, policy):
        there = self.same(place, answer, "active") or self.same(place, answer, "removed") + self.same(
            place, answer, "superseded"
        )
        was_active = bool(self.same(place, answer, "active"))
        if len(there) > 1:
            return  # which of several that are out of force comes back is the memory's choice
        edit_id = there[0] if there else None
        rejected = policy == "reject" and not was_active and self.rivals(edit_id, place)
        if rejected:
            with pytest.raises(ConflictError):
                self.memory.add(f"The capital of {place} is", answer, on_conflict=policy)
            return
        result = self.memory.add(f"The capital of {place} is", answer, on_conflict=policy)
        assert edit_id in {None, result.edit.id}
        if policy == "supersede":
            self.settle(result.edit.id, place, policy)
        self.model[result.edit.id] = (place, answer, "active")

    @precondition(lambda self: self.model)
    @rule(
        data=st.data(),
        action=st.sampled_from(["remove", "restore", "purge"]),
        policy=st.sampled_from(["supersede", "reject", "keep_both"]),
    )
    def change(self, data, action, policy):
        edit_id = data.draw(st.sampled_from(list(self.model)))
        place, answer, state = self.model[edit_id]
        if action == "remove":
            self.memory.remove(edit_id)
            self.model[edit_id] = (place, answer, "removed")
        elif action == "purge":
            self.memory.purge(edit_id)
            del self.model[edit_id]
        elif state == "active":
            assert self.memory.restore(edit_id, on_conflict=policy).state == "active"
        elif self.same(place, answer, "active") or not self.settle(edit_id, place, policy):
            with pytest.raises(ConflictError):
                self.memory.restore(edit_id, on_conflict=policy)
        else:
            self.memory.restore(edit_id, on_conflict=policy)
            self.model[edit_id] = (place, answer, "active")

    @precondition(lambda self: self.model)
    @rule(data=st.data(), answer=st.sampled_from("xyz"))
    def update(self, data, answer):
        edit_id = data.draw(st.sampled_from(list(self.model)))
        place, before, state = self.model[edit_id]
        if state != "active" or answer == before:
            return
        if self.same(place, answer, "active"):
            with pytest.raises(ConflictError):
                self.memory.update(edit_id, target=answer)
            return
        self.memory.update(edit_id, target=answer)
        self.settle(edit_id, place, "supersede")
        self.model[edit_id] = (place, answer, "active")

    @rule(places=st.lists(st.sampled_from(PLACES), max_size=8), answer=st.sampled_from("xyz"))
    def add_many(self, places, answer):
        if any(len(self.same(place, answer)) > 1 for place in places):
            return
        edits = [Edit(prompt=f"The capital of {place} is", target=answer) for place in places]
        ids: list[str] = []
        self.memory.add_many(edits, chunk_size=3, on_chunk=lambda progress: ids.extend(progress.ids))
        for place, edit_id in zip(places, ids, strict=True):
            self.settle(edit_id, place, "supersede")
            self.model[edit_id] = (place, answer, "active")

    @invariant()
    def the_memory_holds_what_the_model_says(self):
        listed = {edit.id: (edit.prompt.split()[3], edit.target, edit.state) for edit in self.memory.list(state=None)}
        assert listed == self.model
        assert self.memory.is_empty() == (not any(state == "active" for *_, state in self.model.values()))

    @invariant()
    def search_equals_exhaustive_search(self):
        query = self.encoder.encode(["The capital of Peru is x"])
        edits = self.memory.list()
        everything = exact_search(edits, self.encoder, query[0], len(edits), datetime.now(UTC))
        assert_exact(self.memory.search(query, 4)[0], everything[:4], everything)

    def teardown(self):
        report = self.memory.verify()
        self.memory.close()
        assert report.problems == ()


class FlatMachine(MemoryMachine):
    """The same with float32 vectors."""

    index_type = FAISS_FLAT


class CoarseMachine(MemoryMachine):
    """The same with an index whose scores are far off."""

    index_type = COARSE


def as_test(machine):
    """The test case of a machine, run a few times at length."""
    machine.TestCase.settings = settings(
        max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return pytest.mark.slow(machine.TestCase)


TestAgainstAModel = as_test(MemoryMachine)
TestAgainstAModelFlat = as_test(FlatMachine)
TestAgainstAModelCoarse = as_test(CoarseMachine)


def test_reencoding_while_edits_change(tmp_path):
    path = tmp_path / "facts.db"
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        memory.add_many(Edit(prompt=f"prompt {n}", target="x") for n in range(300))
        with EditMemory(path) as other:

            def meddle(stage, done, total):
                if stage == "encoding again" and done == 128:
                    other.remove(other.list()[0].id)

            new = HashingEncoder(salt="new")
            with EditMemory(path, encoder=new, reencode=True, progress=meddle) as again:
                assert again.count() == 299
                assert again.verify().problems == ()
        with pytest.raises(EncoderMismatchError):
            memory.search_text(["prompt 5"])
