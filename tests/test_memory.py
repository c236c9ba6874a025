from __future__ import annotations

import itertools
import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from hashing_encoder import HashingEncoder

from memory_store import (
    AmbiguousIdError,
    ConflictError,
    Edit,
    EditMemory,
    EditNotFoundError,
    EditStateError,
    EncoderMismatchError,
    EncoderRequiredError,
    InvalidArgumentError,
    InvalidEditError,
    MemoryClosedError,
    NotAMemoryError,
    ReadOnlyMemoryError,
    SchemaVersionError,
)

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
CAPITAL = "The capital of France is"


@pytest.fixture(params=["file", ":memory:"])
def memory(request, tmp_path):
    path = tmp_path / "facts.db" if request.param == "file" else ":memory:"
    with EditMemory(path, encoder=HashingEncoder()) as opened:
        yield opened


def recorder(steps):
    """A progress callback that notes what it is told."""
    return lambda *step: steps.append(step)


def found(memory, text=CAPITAL, k=5):
    return [hit.edit.id for hit in memory.search_text([text], k)[0]]


# -- adding -----------------------------------------------------------------------------------------------------------


def test_an_added_edit_is_found_and_comes_back_whole(memory):
    result = memory.add(
        CAPITAL, "Lyon", subject="France", aliases=["Gaul"], source="memo", author="me", metadata={"n": [1, None]}
    )
    assert (result.outcome, result.superseded) == ("added", ())
    edit = memory.get(result.edit.id)
    assert edit == result.edit
    assert (edit.target, edit.aliases, edit.version, edit.state) == ("Lyon", ("Gaul",), 1, "active")
    assert edit.metadata == {"n": [1, None]}
    hit = memory.search_text(["The capital of Gaul is"])[0][0]
    assert (hit.edit, hit.kind, hit.text) == (edit, "alias", "The capital of Gaul is")
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_the_same_edit_twice_is_one_and_is_encoded_once(memory):
    first = memory.add(CAPITAL, "Lyon", subject="France")
    encoded = memory.encoder.texts_encoded
    again = memory.add("the  capital of france is ", "Lyon")
    assert (again.outcome, again.edit) == ("unchanged", first.edit)
    assert (memory.count(), memory.sequence, memory.encoder.texts_encoded) == (1, 1, encoded)


def test_further_fields_make_a_new_version(memory):
    first = memory.add(CAPITAL, "Lyon", source="memo").edit
    second = memory.add(CAPITAL, "Lyon", paraphrases=["France's capital?"])
    assert (second.outcome, second.edit.id, second.edit.version) == ("updated", first.id, 2)
    assert (second.edit.source, second.edit.paraphrases) == ("memo", ("France's capital?",))
    assert memory.search_text(["France's capital?"])[0][0].kind == "paraphrase"


def test_an_edit_and_a_target_together_are_refused(memory):
    with pytest.raises(InvalidArgumentError):
        memory.add(Edit(prompt="a", target="b"), "c")
    with pytest.raises(InvalidEditError, match="no target"):
        memory.add("a")
    with pytest.raises(InvalidEditError, match="set by the memory"):
        memory.add("a", "b", version=3)


def test_namespaces_do_not_meet(memory):
    one = memory.add(CAPITAL, "Lyon", namespace="one").edit
    two = memory.add(CAPITAL, "Nice", namespace="two")
    assert two.superseded == ()
    assert memory.count() == 2
    assert [hit.edit.id for hit in memory.search_text([CAPITAL], namespaces=["one"])[0]] == [one.id]
    assert memory.search_text([CAPITAL], namespaces=["three"]) == [[]]
    assert set(found(memory)) == {one.id, two.edit.id}
    assert (memory.is_empty(namespaces=["one"]), memory.is_empty(namespaces=["three"])) == (False, True)


# -- conflicts --------------------------------------------------------------------------------------------------------


def test_supersede_puts_the_old_edit_out_of_force_and_history_keeps_both(memory):
    old = memory.add(CAPITAL, "Lyon").edit
    new = memory.add("the capital of FRANCE is", "Nice")
    assert new.superseded == (old.id,)
    assert memory.get(old.id).state == "superseded"
    assert found(memory) == [new.edit.id]
    assert [change.action for change in memory.history(old.id)] == ["add", "supersede"]
    assert [change.edit.target for change in memory.changes_since(0)] == ["Lyon", "Lyon", "Nice"]


def test_reject_leaves_everything_as_it_was(memory):
    old = memory.add(CAPITAL, "Lyon").edit
    with pytest.raises(ConflictError, match=old.id) as error:
        memory.add(CAPITAL, "Nice", on_conflict="reject")
    assert error.value.edit_id == old.id
    assert (memory.count(state=None), memory.sequence) == (1, 1)


def test_keep_both_keeps_both(memory):
    old = memory.add(CAPITAL, "Lyon").edit
    new = memory.add(CAPITAL, "Nice", on_conflict="keep_both")
    assert new.superseded == ()
    assert set(found(memory)) == {old.id, new.edit.id}
    assert memory.update(old.id, source="checked").state == "active"
    assert memory.get(new.edit.id).state == "active", "an update that says nothing else settles nothing"


def test_a_superseded_fact_added_again_comes_back_as_the_same_edit_without_encoding(memory):
    old = memory.add(CAPITAL, "Lyon").edit
    new = memory.add(CAPITAL, "Nice").edit
    encoded = memory.encoder.texts_encoded
    again = memory.add(CAPITAL, "Lyon")
    assert (again.outcome, again.edit.id, again.superseded) == ("updated", old.id, (new.id,))
    assert found(memory) == [old.id]
    assert memory.history(old.id)[-1].action == "restore"
    assert memory.encoder.texts_encoded == encoded + 1, "only the query was encoded"


def test_restore_follows_the_policy(memory):
    old = memory.add(CAPITAL, "Lyon").edit
    new = memory.add(CAPITAL, "Nice").edit
    with pytest.raises(ConflictError, match=new.id):
        memory.restore(old.id, on_conflict="reject")
    assert memory.restore(old.id).state == "active"
    assert memory.get(new.id).state == "superseded"
    memory.restore(new.id, on_conflict="keep_both")
    assert memory.count() == 2


def test_an_update_into_a_conflict_follows_the_policy(memory):
    lyon = memory.add(CAPITAL, "Lyon").edit
    other = memory.add("The capital of Spain is", "Nice").edit
    with pytest.raises(ConflictError):
        memory.update(other.id, prompt=CAPITAL, on_conflict="reject")
    memory.update(other.id, prompt=CAPITAL)
    assert memory.get(lyon.id).state == "superseded"
    assert found(memory) == [other.id]


def test_two_active_edits_never_say_the_same(memory):
    lyon = memory.add(CAPITAL, "Lyon").edit
    other = memory.add("The capital of Spain is", "Lyon").edit
    with pytest.raises(ConflictError, match=f"{lyon.id} says the same"):
        memory.update(other.id, prompt=CAPITAL, on_conflict="keep_both")
    memory.remove(lyon.id)
    memory.update(other.id, prompt=CAPITAL)
    with pytest.raises(ConflictError, match=other.id):
        memory.restore(lyon.id)


def test_an_expired_edit_stands_in_nobodys_way(memory):
    expired = memory.add(CAPITAL, "Lyon", expires_at=PAST).edit
    assert found(memory) == []
    assert (memory.is_empty(), memory.count(), memory.count(include_expired=False)) == (True, 1, 0)
    new = memory.add(CAPITAL, "Nice", on_conflict="reject")
    assert (new.superseded, found(memory)) == ((), [new.edit.id])
    assert memory.get(expired.id).state == "active"
    assert memory.stats().expired == 1


def test_an_expired_fact_added_again_holds_again(memory):
    expired = memory.add(CAPITAL, "Lyon", expires_at=PAST).edit
    again = memory.add(CAPITAL, "Lyon")
    assert (again.edit.id, again.outcome, again.edit.expires_at) == (expired.id, "updated", None)
    assert found(memory) == [expired.id]


def test_reviving_an_expired_edit_by_update_settles_conflicts(memory):
    expired = memory.add(CAPITAL, "Lyon", expires_at=PAST).edit
    new = memory.add(CAPITAL, "Nice").edit
    memory.update(expired.id, expires_at=FUTURE)
    assert (memory.get(new.id).state, found(memory)) == ("superseded", [expired.id])


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["supersede", "reject", "keep_both"], 2)))
def test_the_policy_of_a_call_goes_before_that_of_the_memory(first, second, tmp_path):
    expected = {"supersede": 1, "keep_both": 2}
    with EditMemory(encoder=HashingEncoder(), conflict_policy=first) as memory:
        memory.add(CAPITAL, "Lyon")
        if second == "reject":
            with pytest.raises(ConflictError):
                memory.add(CAPITAL, "Nice", on_conflict=second)
        else:
            memory.add(CAPITAL, "Nice", on_conflict=second)
            assert memory.count() == expected[second]


def test_an_unknown_policy_is_refused():
    with pytest.raises(InvalidArgumentError, match="keep_both"):
        EditMemory(conflict_policy="overwrite")  # type: ignore[arg-type]


# -- changing ---------------------------------------------------------------------------------------------------------


def test_an_update_is_a_new_version_found_by_its_new_text_only(memory):
    edit = memory.add(CAPITAL, "Lyon").edit
    updated = memory.update(edit.id, prompt="The seat of Spain's king is", target="Madrid")
    assert (updated.id, updated.version, updated.created_at) == (edit.id, 2, edit.created_at)
    texts = [hit.text for hit in memory.search_text([CAPITAL], 10)[0]]
    assert texts == [text for text in texts if "Spain" in text]
    assert [change.version for change in memory.history(edit.id)] == [1, 2]
    assert memory.update(edit.id, target="Madrid") == updated, "no change, no version"


def test_an_update_of_what_does_not_matter_for_search_encodes_nothing(memory):
    edit = memory.add(CAPITAL, "Lyon").edit
    encoded = memory.encoder.texts_encoded
    assert memory.update(edit.id, source="memo", metadata={"a": 1}).version == 2
    assert memory.encoder.texts_encoded == encoded


def test_remove_and_restore(memory):
    edit = memory.add(CAPITAL, "Lyon").edit
    encoded = memory.encoder.texts_encoded
    assert memory.remove(edit.id).state == "removed"
    assert memory.remove(edit.id).state == "removed"
    assert (memory.is_empty(), memory.list(), memory.sequence) == (True, [], 2)
    assert memory.restore(edit.id).state == "active"
    assert memory.restore(edit.id).state == "active"
    assert memory.encoder.texts_encoded == encoded
    assert found(memory) == [edit.id]
    assert [change.action for change in memory.history(edit.id)] == ["add", "remove", "restore"]


def test_only_an_active_edit_is_updated(memory):
    edit = memory.add(CAPITAL, "Lyon").edit
    memory.remove(edit.id)
    with pytest.raises(EditStateError, match="restore it"):
        memory.update(edit.id, target="Nice")
    with pytest.raises(InvalidEditError, match="namespace"):
        memory.update(edit.id, namespace="other")


def test_an_id_may_be_shortened(memory):
    edit = memory.add(CAPITAL, "Lyon").edit
    assert memory.get(edit.id[:4]) == edit
    for bad in ("", edit.id[:3], "%%%"):
        with pytest.raises(AmbiguousIdError, match="too short"):
            memory.get(bad)
    for bad in ("zzzzzz", "____", "%%%%"):
        with pytest.raises(EditNotFoundError):
            memory.get(bad)


def test_an_ambiguous_beginning_of_an_id_is_refused(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        one, two = (memory.add(f"prompt {n}", "x").edit.id for n in range(2))
    with sqlite3.connect(tmp_path / "facts.db") as connection:
        connection.execute("UPDATE edits SET id = 'aaaa1' WHERE id = ?", (one,))
        connection.execute("UPDATE edits SET id = 'aaaa12' WHERE id = ?", (two,))
    connection.close()
    with EditMemory(tmp_path / "facts.db") as memory:
        with pytest.raises(AmbiguousIdError, match="aaaa12"):
            memory.get("aaaa")
        assert memory.get("aaaa1").prompt == "prompt 0", "a whole id is never ambiguous"


def test_purge_leaves_only_the_place_in_the_history(memory):
    edit = memory.add(CAPITAL, "Lyon").edit
    memory.update(edit.id, target="Nice")
    memory.purge(edit.id)
    memory.purge(edit.id)
    assert [(change.action, change.edit) for change in memory.history(edit.id)] == [
        ("add", None),
        ("update", None),
        ("purge", None),
    ]
    for operation in (memory.get, memory.remove, memory.restore):
        with pytest.raises(EditNotFoundError, match="purged"):
            operation(edit.id)
    assert (found(memory), memory.list(state=None), memory.is_empty()) == ([], [], True)
    assert memory.add(CAPITAL, "Nice").outcome == "added"
    assert memory.verify().ok


# -- reading ----------------------------------------------------------------------------------------------------------


def test_filters_and_pages(memory):
    memory.add_many(
        Edit(prompt=f"Prompt {n} 100%", target="T_x" if n % 2 else "Tyx", source=f"s{n % 3}", subject="S", author="A")
        for n in range(30)
    )
    assert [edit.prompt for edit in memory.list(source="s1", limit=2, offset=1)] == ["Prompt 4 100%", "Prompt 7 100%"]
    assert memory.list(limit=1, newest_first=True)[0].prompt == "Prompt 29 100%"
    assert (memory.count(contains="t_X"), memory.count(contains="prompt 2"), memory.count(contains="9 100%")) == (
        15,
        11,
        3,
    )
    assert (memory.count(subject="S", author="A", source="s0"), memory.count(author="B")) == (10, 0)
    assert (memory.list(limit=0), len(memory.list(offset=28))) == ([], 2)
    with pytest.raises(InvalidArgumentError):
        memory.list(offset=-1)


@pytest.mark.parametrize("newest_first", [False, True])
def test_iterate_pages_through_everything(memory, newest_first):
    memory.add_many(Edit(prompt=f"Prompt {n}", target="x") for n in range(1203))
    assert list(memory.iterate(newest_first=newest_first)) == memory.list(newest_first=newest_first)
    assert memory.count() == 1203


def test_as_of_shows_what_was_in_force_then(memory):
    before = datetime.now(UTC) - timedelta(seconds=1)
    lyon = memory.add(CAPITAL, "Lyon").edit
    spain = memory.add("The capital of Spain is", "Madrid", expires_at=FUTURE, namespace="other").edit
    nice = memory.add(CAPITAL, "Nice").edit
    removed = memory.remove(spain.id)
    assert memory.as_of(before) == []
    assert memory.as_of(lyon.updated_at) == [lyon]
    assert memory.as_of(spain.updated_at) == [lyon, spain]
    assert memory.as_of(nice.updated_at) == [spain, nice]
    assert memory.as_of(nice.updated_at, namespace="other") == [spain]
    assert memory.as_of(removed.updated_at) == [nice]
    assert memory.as_of(FUTURE) == [nice]
    memory.purge(nice.id)
    assert memory.as_of(nice.updated_at) == [spain]


def test_changes_since_continue_where_one_left_off(memory):
    for n in range(5):
        memory.add(f"prompt {n}", "x")
    assert [change.sequence for change in memory.changes_since(2)] == [3, 4, 5]
    assert [change.sequence for change in memory.changes_since(2, limit=1)] == [3]
    assert memory.changes_since(memory.sequence) == []


def test_settings_stay_with_the_memory(memory):
    assert memory.get_setting("thresholds", {"default": 0.5}) == {"default": 0.5}
    memory.set_setting("thresholds", {"tenant": 0.7})
    memory.set_setting("thresholds", {"tenant": 0.8})
    assert memory.get_setting("thresholds") == {"tenant": 0.8}
    memory.set_setting("thresholds", None)
    assert memory.get_setting("thresholds") is None


# -- add_many ---------------------------------------------------------------------------------------------------------


def test_add_many_streams_and_acknowledges_each_chunk(memory):
    taken, acknowledged = [], []

    def stream():
        for n in range(10):
            taken.append(n)
            yield Edit(prompt=f"prompt {n}", target="x")

    def on_chunk(progress):
        assert len(taken) == progress.seen, "no further than the chunk"
        acknowledged.extend(progress.ids)

    report = memory.add_many(stream(), chunk_size=4, on_chunk=on_chunk)
    assert (report.seen, report.added, report.unchanged) == (10, 10, 0)
    assert acknowledged == [edit.id for edit in memory.list()]


def test_add_many_twice_encodes_once(memory):
    edits = [Edit(prompt=f"prompt {n % 50}", target="x") for n in range(100)]
    report = memory.add_many(edits, chunk_size=30)
    assert (report.added, report.unchanged) == (50, 50)
    encoded = memory.encoder.texts_encoded
    assert encoded == 100, "two texts for each of fifty edits"
    assert memory.add_many(edits).unchanged == 100
    assert memory.encoder.texts_encoded == encoded


def test_conflicts_within_a_chunk_follow_the_order_of_the_stream(memory):
    edits = [Edit(prompt=CAPITAL, target=target) for target in ("Lyon", "Nice", "Lyon", "Metz", "Nice")]
    report = memory.add_many(edits)
    assert (report.added, report.updated, report.superseded) == (3, 2, 4)
    assert [edit.target for edit in memory.list()] == ["Nice"]
    with EditMemory(encoder=HashingEncoder()) as one_by_one:
        for edit in edits:
            one_by_one.add(edit)
        assert [(c.action, c.edit and c.edit.target) for c in one_by_one.changes_since(0)] == [
            (c.action, c.edit and c.edit.target) for c in memory.changes_since(0)
        ]
    assert memory.verify().ok


def test_an_invalid_edit_stops_at_its_chunk_and_says_where(memory):
    edits = [Edit(prompt=f"prompt {n}", target="x" if n != 7 else "") for n in range(12)]
    with pytest.raises(InvalidEditError, match=r"Edit 7 of the stream.*first 6 edits") as error:
        memory.add_many(edits, chunk_size=3)
    assert (error.value.position, error.value.committed, memory.count()) == (7, 6, 6)


def test_a_rejected_conflict_stops_at_its_chunk_and_says_where(memory):
    edits = [Edit(prompt=f"prompt {n % 7}", target=f"{n // 7}") for n in range(12)]
    with pytest.raises(ConflictError) as error:
        memory.add_many(edits, chunk_size=3, on_conflict="reject")
    assert (error.value.position, error.value.committed, memory.count()) == (7, 6, 6)


# -- opening ----------------------------------------------------------------------------------------------------------


def test_everything_is_there_after_opening_again(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        edits = [memory.add(f"prompt {n}", "x", namespace=f"n{n % 3}").edit for n in range(9)]
        memory.remove(edits[0].id)
    encoder = HashingEncoder()
    with EditMemory(tmp_path / "facts.db", encoder=encoder) as memory:
        assert memory.list() == edits[1:]
        assert found(memory, "prompt 5", 1) == [edits[5].id]
        assert encoder.texts_encoded == 1


def test_another_encoder_is_refused_and_can_be_taken_deliberately(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        kept = memory.add(CAPITAL, "Lyon", paraphrases=["France's capital?"]).edit
        removed = memory.add("The capital of Spain is", "Madrid").edit
        memory.remove(removed.id)
    for other in (HashingEncoder(salt="b"), HashingEncoder(dimension=32)):
        with pytest.raises(EncoderMismatchError, match=r"hashing-64-.*reindex"):
            EditMemory(tmp_path / "facts.db", encoder=other)
        steps: list[tuple[str, int, int]] = []
        with EditMemory(tmp_path / "facts.db", encoder=other, reencode=True, progress=recorder(steps)) as memory:
            assert ("encoding again", 2, 2) in steps
            assert found(memory, "France's capital?") == [kept.id]
            memory.restore(removed.id)
            assert len(found(memory)) == 2
            assert memory.verify().ok
            memory.remove(removed.id)
        with EditMemory(tmp_path / "facts.db", encoder=other) as memory:
            assert found(memory) == [kept.id]
        with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder(), reencode=True):
            pass


def test_a_process_that_has_the_old_encoder_notices_at_its_next_query(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as old:
        old.add(CAPITAL, "Lyon")
        assert len(found(old)) == 1
        with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder(salt="b"), reencode=True):
            with pytest.raises(EncoderMismatchError):
                found(old)
            with pytest.raises(EncoderMismatchError):
                old.add("another prompt", "x")


def test_without_an_encoder_everything_works_that_needs_no_new_vectors(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        edit = memory.add(CAPITAL, "Lyon").edit
    with EditMemory(tmp_path / "facts.db") as memory:
        assert memory.search(HashingEncoder().encode([CAPITAL]))[0][0].edit == edit
        assert memory.update(edit.id, source="memo").source == "memo"
        memory.restore(memory.remove(edit.id).id)
        memory.rebuild_index()
        assert (memory.verify().ok, memory.count(), memory.stats().vectors) == (True, 1, 2)
        assert memory.add(CAPITAL, "Lyon").outcome == "unchanged"
        for operation in (
            lambda: memory.add("a", "b"),
            lambda: memory.update(edit.id, target="Nice"),
            lambda: memory.search_text(["a"]),
            memory.reencode,
        ):
            with pytest.raises(EncoderRequiredError, match="encoder="):
                operation()
        assert memory.get(edit.id).target == "Lyon"


def test_files_that_are_no_memory_are_refused(tmp_path):
    (tmp_path / "text.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(NotAMemoryError, match="not an SQLite database"):
        EditMemory(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE birds (name)")
    connection.close()
    with pytest.raises(NotAMemoryError, match="birds"):
        EditMemory(tmp_path / "other.db")
    with pytest.raises(NotAMemoryError, match="folder"):
        EditMemory(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    EditMemory(tmp_path / "facts.db").close()
    with sqlite3.connect(tmp_path / "facts.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    connection.close()
    with pytest.raises(SchemaVersionError, match="99"):
        EditMemory(tmp_path / "facts.db")


def test_a_file_that_cannot_be_written_says_so(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        memory.add(CAPITAL, "Lyon")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):  # pytest's own folders are its user's alone
            parent.chmod(0o755)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)  # permissions do not bind root
            memory = EditMemory(tmp_path / "facts.db", encoder=HashingEncoder())
            try:
                memory.add("another prompt", "x")
            except ReadOnlyMemoryError:
                status = 0
        except ReadOnlyMemoryError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    tmp_path.chmod(0o755)


def test_a_closed_memory_says_so(memory):
    memory.close()
    memory.close()
    with pytest.raises(MemoryClosedError, match="open it again"):
        memory.count()


def test_statistics(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        memory.add(CAPITAL, "Lyon")
        memory.add(CAPITAL, "Nice")
        memory.purge(memory.add("x", "y", namespace="n").edit.id)
        memory.rebuild_index()
        stats = memory.stats()
    assert stats.edits == {"active": 1, "superseded": 1, "purged": 1}
    assert (stats.namespaces, stats.vectors, stats.sequence) == ({"default": 1}, 4, 5)
    assert (stats.encoder_fingerprint, stats.dimension) == ("hashing-64-", 64)
    assert (stats.path, stats.schema_version) == (str(tmp_path / "facts.db"), 2)
    assert stats.database_bytes > 4096
    assert stats.index_bytes > 2 * 64 * 4
