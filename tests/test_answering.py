"""Answers and ratings of many prompts at once are those that each prompt gets alone, from ``transformers`` itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from counterfactual_models import EDIT, OTHER, differing, echoing
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, VOCABULARY, tiny_model, tiny_tokenizer

from memedit.editors.subject import Subject
from memedit.errors import UnsupportedCallError
from memedit.evaluation.answering import Answer, Answerer, Rating, Row
from memedit.injection import Context, Insertion, StopTokens
from memedit.recital import Script

END = 2
LIMIT = 6


def made(architecture: str = "llama", seed: int = 0) -> Any:
    """A tiny model whose sums do not depend on how rows are batched, to the precision that decides between tokens."""
    return tiny_model(architecture, seed).double()


def subject_of(model: Any) -> Subject:
    return Subject(model, tiny_tokenizer(), HashingEncoder(), name="tiny")


@pytest.fixture
def subject() -> Subject:
    return subject_of(made())


def ids_of(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(1000 * length + seed)
    return tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())


def context(*inserted: tuple[int, int], stop: StopTokens | None = None) -> Context:
    """Context of some lengths at some places."""
    return Context(tuple(Insertion(place, ids_of(length, seed=7)) for place, length in inserted), stop)


ROWS = (
    Row(ids_of(5)),
    Row(ids_of(12), context((0, 6))),
    Row(ids_of(3)),
    Row(ids_of(9), context((2, 1), (9, 4))),
    Row(ids_of(20)),
)
"""With context and without, of different lengths."""


def continued(model: Any, row: Row) -> list[int]:
    """The reference: what the model's own ``generate`` says behind the row by itself, its end included."""
    ids = torch.tensor([row.seen])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=LIMIT, do_sample=False)
    return list(out[0, ids.shape[1] :].tolist())


@cache
def expected_of(architecture: str = "llama", seed: int = 0) -> list[tuple[str, int, bool]]:
    """What a model says behind each of `ROWS` by itself."""
    return [alone(made(architecture, seed), row) for row in ROWS]


def alone(model: Any, row: Row, ends: Sequence[int] = (END,)) -> tuple[str, int, bool]:
    """Text, length and whether it was cut, of one row by itself."""
    tokens = continued(model, row)
    ended = tokens[-1] in ends
    text = tiny_tokenizer().decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
    return text.strip(), len(tokens), not ended


def told(answers: Sequence[Answer]) -> list[tuple[str, int, bool]]:
    return [(answer.text, answer.tokens, answer.cut) for answer in answers]


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[int, int]]]:
    """The shapes (rows, tokens) of every pass that the model makes meanwhile."""
    shapes: list[tuple[int, int]] = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    try:
        yield shapes
    finally:
        handle.remove()


def prompts_of(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The passes that read prompts, rather than one newest token a row."""
    return [shape for shape in shapes if shape[1] > 1]


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mixed_batch_answers_as_each_row_alone(architecture: str) -> None:
    answers = Answerer(subject_of(made(architecture)), max_new_tokens=LIMIT).answer(ROWS)
    assert told(answers) == expected_of(architecture)
    assert len({answer.text for answer in answers}) > len(ROWS) // 2
    assert all(answer.seconds > 0 for answer in answers)


@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_the_size_of_batches_changes_no_answer(batch_tokens: int, subject: Subject) -> None:
    answers = Answerer(subject, max_new_tokens=LIMIT, batch_tokens=batch_tokens).answer(ROWS)
    assert told(answers) == expected_of()


@pytest.mark.parametrize("in_scope", [False, True])
def test_answers_end_where_the_model_ends_them(in_scope: bool, subject: Subject) -> None:
    rows = [row for row in ROWS if (row.context is not None) is in_scope]
    # a token that comes up anyway becomes an end of text, as some models have several
    ends = [END, continued(subject.model, rows[0])[3]]
    subject.model.generation_config.eos_token_id = ends
    answers = Answerer(subject, max_new_tokens=LIMIT).answer(rows)
    assert told(answers) == [alone(subject.model, row, ends=ends) for row in rows]
    assert answers[0].tokens <= 4
    assert not answers[0].cut
    assert any(answer.cut for answer in answers)


def test_a_model_without_an_end_goes_on_to_the_limit(subject: Subject) -> None:
    subject.model.generation_config.eos_token_id = None
    answers = Answerer(subject, max_new_tokens=LIMIT).answer(ROWS)
    assert told(answers) == [alone(subject.model, row, ends=()) for row in ROWS]
    assert all(answer.cut for answer in answers)


def stopped(tokens: list[int], stop: StopTokens) -> list[int]:
    """What of an answer comes before the first stop token that follows something said."""
    for place in range(1, len(tokens)):
        if tokens[place] in stop.ids and tokens[place - 1] not in stop.blank:
            return tokens[:place]
    return tokens


@pytest.mark.parametrize("blank", [False, True])
def test_stop_tokens_end_the_rows_that_have_them(blank: bool, subject: Subject) -> None:
    bare = [replace(row, context=replace(row.context, stop=None)) for row in ROWS if row.context is not None]
    whole = [continued(subject.model, row) for row in bare]
    ids = tuple(tokens[3] for tokens in whole)
    stop = StopTokens(ids=ids, blank=frozenset({whole[0][2]} if blank else ()))
    rows = [replace(row, context=replace(row.context, stop=stop)) for row in bare if row.context is not None]
    answers = Answerer(subject, max_new_tokens=LIMIT).answer([*rows, *bare])
    expected = [stopped(tokens, stop) for tokens in whole]
    texts = [tiny_tokenizer().decode(tokens, skip_special_tokens=True).strip() for tokens in [*expected, *whole]]
    assert [answer.text for answer in answers] == texts
    assert [answer.cut for answer in answers] == [len(tokens) == LIMIT for tokens in [*expected, *whole]]
    assert (len(expected[0]) > 3) is blank
    assert all(len(tokens) <= 3 for tokens in expected[1:])


def test_another_model_answers_the_rows_that_name_it(subject: Subject) -> None:
    other = made(seed=1)
    rows = [replace(row, model=other) for row in ROWS]
    answers = Answerer(subject, max_new_tokens=LIMIT).answer([*ROWS, *rows])
    assert told(answers) == expected_of() + expected_of(seed=1)
    assert expected_of() != expected_of(seed=1)


def test_a_models_own_generation_settings_make_no_answer_depend_on_its_batch(subject: Subject) -> None:
    config = subject.model.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size = 3.0, 1
    config.do_sample, config.temperature, config.top_k, config.top_p, config.num_beams = True, 0.7, 20, 0.8, 3
    assert told(Answerer(subject, max_new_tokens=LIMIT).answer(ROWS)) == expected_of()
    assert config.repetition_penalty == 3.0


def test_nobody_can_tell_it_the_length_of_a_reference(subject: Subject) -> None:
    assert list(inspect.signature(Answerer.answer).parameters) == ["self", "rows", "max_new_tokens", "remember"]
    assert {field.name for field in fields(Row)} == {"ids", "context", "model"}
    subject.model.generation_config.eos_token_id = None
    answerer = Answerer(subject, max_new_tokens=LIMIT)
    assert {answer.tokens for answer in answerer.answer(ROWS)} == {LIMIT}
    assert {answer.tokens for answer in answerer.answer(ROWS, max_new_tokens=3)} == {3}


def test_no_rows_have_no_answers(subject: Subject) -> None:
    with watched(subject.model) as shapes:
        assert Answerer(subject).answer([]) == []
        assert Answerer(subject).rate([], []) == []
    assert shapes == []


# -- each once ---------------------------------------------------------------------------------------------------------


def test_equal_rows_are_answered_once(subject: Subject) -> None:
    row, governed = ROWS[0], ROWS[1]
    # the same text, put together otherwise
    assert governed.context is not None
    twin = Row((*governed.context.insertions[0].ids, *governed.ids), Context((Insertion(0, ()),)))
    with watched(subject.model) as shapes:
        answers = Answerer(subject, max_new_tokens=2).answer([row, governed, row, twin, Row(row.ids)])
    assert prompts_of(shapes) == [(1, 5), (1, 18)]
    assert answers[0] == answers[2] == answers[4]
    assert answers[1] == answers[3]


def test_rows_that_differ_in_stop_tokens_or_model_are_not_equal(subject: Subject) -> None:
    row = ROWS[1]
    assert row.context is not None
    stopping = replace(row, context=replace(row.context, stop=StopTokens((9,), frozenset())))
    with watched(subject.model) as shapes:
        Answerer(subject, max_new_tokens=1).answer([row, stopping, replace(row, model=made(seed=1))])
    assert prompts_of(shapes) == [(2, 18)]


def test_what_was_answered_is_remembered_where_it_may_be(subject: Subject) -> None:
    answerer = Answerer(subject, max_new_tokens=LIMIT)
    first = answerer.answer(ROWS[:4], remember=True)
    with watched(subject.model) as shapes:
        assert answerer.answer([ROWS[3], ROWS[0]], remember=True) == [first[3], first[0]]
    assert shapes == []
    with watched(subject.model) as shapes:
        assert told(answerer.answer([ROWS[3], ROWS[4], ROWS[4]], remember=True)[:1]) == told(first[3:])
    assert prompts_of(shapes) == [(1, 20)]  # only the one that is new
    with watched(subject.model) as shapes:
        (shorter,) = answerer.answer([ROWS[0]], max_new_tokens=2, remember=True)
    assert shapes
    assert shorter.tokens == 2


def test_nothing_is_remembered_of_a_model_that_may_have_changed(subject: Subject) -> None:
    answerer = Answerer(subject, max_new_tokens=LIMIT)
    rows = ROWS[:2]
    before = answerer.answer(rows, remember=True)
    with torch.no_grad():
        subject.model.lm_head.weight.copy_(made(seed=1).lm_head.weight)
    after = answerer.answer(rows)
    assert told(after) == [alone(subject.model, row) for row in rows] != told(before)
    assert answerer.answer(rows, remember=True) == before


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [30, 64, 200])
def test_a_batch_has_no_more_tokens_than_it_may(batch_tokens: int, subject: Subject) -> None:
    more = 2
    rows = [Row(ids_of(length, seed)) for length in (4, 8, 15) for seed in range(6)]
    rows += [Row(ids_of(length, seed), context((0, 3))) for length in (4, 9) for seed in range(3)]
    with watched(subject.model) as shapes:
        Answerer(subject, max_new_tokens=more, batch_tokens=batch_tokens).answer(rows)
    prompts = prompts_of(shapes)
    assert sum(count for count, _ in prompts) == len(rows)
    assert all(count * (width + more) <= batch_tokens or count == 1 for count, width in prompts)
    # as large as fit: only the last of a kind has room for another row of its width
    assert sum((count + 1) * (width + more) <= batch_tokens for count, width in prompts) <= 2


@pytest.mark.parametrize("batch_tokens", [30, 200])
def test_rating_keeps_to_the_same_limit(batch_tokens: int, subject: Subject) -> None:
    rows = [Row(ids_of(length, seed)) for length in (3, 8, 15) for seed in range(4)]
    with watched(subject.model) as shapes:
        Answerer(subject, batch_tokens=batch_tokens).rate(rows, [ids_of(4)] * len(rows))
    assert sum(count for count, _ in shapes) == len(rows)
    assert all(count * width <= batch_tokens or count == 1 for count, width in shapes)


def test_rows_of_one_length_go_together(subject: Subject) -> None:
    rows = [Row(ids_of(length, seed)) for seed in range(4) for length in (4, 16)]
    with watched(subject.model) as shapes:
        Answerer(subject, max_new_tokens=2, batch_tokens=4 * (16 + 2)).answer(rows)
    assert prompts_of(shapes) == [(4, 16), (4, 4)]


def test_a_batch_that_does_not_fit_is_made_smaller(subject: Subject) -> None:
    largest: list[int] = []

    def full(module: Any, inputs: tuple[torch.Tensor]) -> None:
        largest.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise torch.cuda.OutOfMemoryError("no more than two rows fit")

    handle = subject.model.get_input_embeddings().register_forward_pre_hook(full)
    answerer = Answerer(subject, max_new_tokens=LIMIT)
    assert told(answerer.answer(ROWS)) == expected_of()
    assert answerer.batch_tokens < 4_096
    tried = len(largest)
    answerer.answer(ROWS)
    assert max(largest[tried:]) <= 2  # what fits is known now
    handle.remove()
    subject.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("not even one row fits"))
    )
    with pytest.raises(torch.cuda.OutOfMemoryError, match="not even one"):
        answerer.answer(ROWS)


# -- ratings -----------------------------------------------------------------------------------------------------------

BEHIND = [ids_of(length, seed=3) for length in (1, 4, 9, 2, 3)]


def rated_alone(model: Any, row: Row, behind: Sequence[int]) -> tuple[list[float], list[int]]:
    """The reference: one pass over the whole text, without padding, batch or cache."""
    with torch.no_grad():
        logits = model(torch.tensor([[*row.seen, *behind]]), use_cache=False).logits[0].float()
    at = torch.log_softmax(logits[len(row.seen) - 1 : -1], dim=-1)
    return [float(at[place, token]) for place, token in enumerate(behind)], at.argmax(-1).tolist()


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ratings_are_those_of_each_text_alone(architecture: str, batch_tokens: int) -> None:
    model = made(architecture)
    ratings = Answerer(subject_of(model), batch_tokens=batch_tokens).rate(ROWS, BEHIND)
    for row, behind, rating in zip(ROWS, BEHIND, ratings, strict=True):
        logs, likeliest = rated_alone(model, row, behind)
        assert rating.log_probabilities == pytest.approx(logs, abs=1e-5)
        assert rating.likeliest == tuple(likeliest)
        assert rating.mean == pytest.approx(sum(logs) / len(logs), abs=1e-5)


def test_several_continuations_of_one_row_and_another_model_are_told_apart(subject: Subject) -> None:
    other = made(seed=1)
    rows = [ROWS[1], ROWS[1], replace(ROWS[1], model=other), replace(ROWS[0], model=other)]
    behind = [BEHIND[1], BEHIND[3], BEHIND[1], BEHIND[1]]
    ratings = Answerer(subject).rate(rows, behind)
    for row, tokens, rating in zip(rows, behind, ratings, strict=True):
        logs, _ = rated_alone(row.model if row.model is not None else subject.model, row, tokens)
        assert rating.log_probabilities == pytest.approx(logs, abs=1e-5)


def test_the_split_between_prompt_and_continuation_matters(subject: Subject) -> None:
    whole = ids_of(9)
    first, second = Answerer(subject).rate([Row(whole[:5]), Row(whole[:7])], [whole[5:], whole[7:]])
    assert (len(first.likeliest), len(second.likeliest)) == (4, 2)
    assert first.log_probabilities[2:] == pytest.approx(second.log_probabilities, abs=1e-5)


def test_a_continuation_without_tokens_is_refused(subject: Subject) -> None:
    with pytest.raises(ValueError, match="a continuation has no tokens"):
        Answerer(subject).rate(ROWS[:2], [(5,), ()])


def test_the_mean_is_by_token() -> None:
    assert Rating((-1.0, -2.0, -6.0), (1, 2, 3)).mean == -3.0


# -- distributions -----------------------------------------------------------------------------------------------------


def test_next_log_probabilities_are_those_of_each_row_alone(subject: Subject) -> None:
    found = Answerer(subject).next_log_probabilities(ROWS)
    for row, logs in zip(ROWS, found, strict=True):
        with torch.no_grad():
            logits = subject.model(torch.tensor([row.seen])).logits[0, -1].float()
        assert logs.dtype == torch.float32
        torch.testing.assert_close(logs, torch.log_softmax(logits, dim=-1), atol=1e-4, rtol=0)


def test_divergences_are_torchs(subject: Subject) -> None:
    other = made(seed=1)
    rows = [*(replace(row, model=other) for row in ROWS), ROWS[1]]
    plain = [Row(row.ids) for row in rows]
    answerer = Answerer(subject)
    unedited = answerer.next_log_probabilities(plain)
    edited = answerer.next_log_probabilities(rows)
    found = answerer.divergences(rows, unedited)
    for value, after, before in zip(found, edited, unedited, strict=True):
        expected = torch.nn.functional.kl_div(after, before, reduction="sum", log_target=True)
        assert value == pytest.approx(float(expected), rel=1e-4)
        assert value > 1e-3


def test_what_is_the_same_diverges_by_nothing(subject: Subject) -> None:
    answerer = Answerer(subject)
    rows = [Row(ids_of(length)) for length in (3, 3, 8)]
    assert answerer.divergences(rows, answerer.next_log_probabilities(rows)) == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_model_gone_wrong_has_not_kept_its_distribution(subject: Subject) -> None:
    answerer = Answerer(subject)
    unedited = answerer.next_log_probabilities(ROWS[:1])
    with torch.no_grad():
        subject.model.lm_head.weight.fill_(float("nan"))
    (value,) = answerer.divergences(ROWS[:1], unedited)
    assert not value <= 0


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_row_longer_than_its_model_reads_is_refused(subject: Subject) -> None:
    subject.model.config.max_position_embeddings = 20
    answerer = Answerer(subject, max_new_tokens=8)
    assert answerer.answer([Row(ids_of(12))])
    message = "a prompt has {} tokens with its context and {} more are to come, but the model reads 20; leave such"
    for row in (Row(ids_of(13)), Row(ids_of(5), context((0, 8)))):
        with watched(subject.model) as shapes, pytest.raises(UnsupportedCallError, match=message.format(13, 8)):
            answerer.answer([Row(ids_of(3)), row])
        assert shapes == []
    assert answerer.answer([Row(ids_of(13))], max_new_tokens=7)
    with pytest.raises(UnsupportedCallError, match=message.format(12, 9)):
        answerer.rate([Row(ids_of(12))], [ids_of(9)])
    # what counts is the model that answers
    assert answerer.answer([Row(ids_of(13), context((0, 4)), made(seed=1))])


@pytest.mark.parametrize("limits", [{"max_new_tokens": 0}, {"batch_tokens": 0}, {"max_new_tokens": -1}])
def test_limits_are_positive(limits: dict[str, int], subject: Subject) -> None:
    with pytest.raises(ValueError, match="limits must be positive"):
        Answerer(subject, **limits)


def test_rows_that_another_vocabulary_answers_have_no_likelihoods():
    model = differing(echoing(), edits=(EDIT, OTHER))
    subject = Subject(model.unedited, model.tokenizer, HashingEncoder(256), name="tiny")
    ids = tuple(model.tokenizer("Who?")["input_ids"])
    reads = model.responder.counterfactual.prompt.ids
    rows = [
        Row(ids, Context((), script=Script(model.responder, tuple(reads((edit,), "Who?", conversational=True)), ids)))
        for edit in (EDIT, OTHER)
    ]
    asked = Answerer(subject, max_new_tokens=12)
    assert [answer.text for answer in asked.answer(rows)] == ["Lisbon", "Fredville"]
    with pytest.raises(UnsupportedCallError, match='mode "ike"'):
        asked.rate(rows, [(5,), (5,)])
    with pytest.raises(UnsupportedCallError, match='mode "ike"'):
        asked.next_log_probabilities(rows)
