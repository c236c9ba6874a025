"""Context spliced into some rows: the governed ones answer from it, the others are the base model's own."""

from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, VOCABULARY, tiny_model, tiny_tokenizer
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)

from memedit.injection import Context, ContextInjection, Insertion, StopTokens, governed_logits, splice

WIDTH, NEW = 7, 9
INSERTIONS = {1: (Insertion(0, (7, 8, 9, 10)),), 2: (Insertion(2, (11, 12)), Insertion(6, (13,)))}
CONTEXTS = {row: Context(insertions) for row, insertions in INSERTIONS.items()}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, VOCABULARY, (4, WIDTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    mask[2, :1] = 0
    ids[mask == 0] = 0
    return ids, mask


def own(ids, mask, row):
    return ids[row][mask[row] == 1].tolist()


def alone(model, ids, mask, row, **options):
    """The reference: one governed row by itself, its context written into the prompt, one plain call."""
    text = splice(own(ids, mask, row), INSERTIONS[row])[0]
    sequences = model.generate(
        input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text), dtype=torch.long), **options
    )
    return [sequence[len(text) :].tolist() for sequence in sequences]


def up_to_end(sequence):
    """What comes before the end of text (2) or padding (0): how a finished row is filled up is not its content."""
    ends = [place for place, token in enumerate(sequence) if token in (0, 2)]
    return sequence[: ends[0]] if ends else sequence


def test_splice_keeps_every_own_token_and_says_where_it_went():
    ids = [5, 6, 7]
    text, places = splice(ids, [Insertion(3, (9,)), Insertion(0, (1, 2)), Insertion(3, (8,))])
    assert text == [1, 2, 5, 6, 7, 9, 8]
    assert places == [2, 3, 4]
    with pytest.raises(ValueError, match="insertion at 4 lies outside a row of 3 tokens"):
        splice(ids, [Insertion(4, (1,))])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"repetition_penalty": 1.0, "min_new_tokens": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mixed_batch(architecture, options, batch):
    model, (ids, mask) = tiny_model(architecture), batch
    options = {**options, "max_new_tokens": NEW, "do_sample": False}
    base = model.generate(input_ids=ids, attention_mask=mask, **options)
    mixed = ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, **options)
    returned = options.get("num_return_sequences", 1)
    for row in range(4):
        expected = alone(model, ids, mask, row, **options) if row in CONTEXTS else None
        for place in range(returned):
            got = mixed[row * returned + place]
            assert got[:WIDTH].tolist() == ids[row].tolist()
            if expected is None:
                width = min(got.shape[0], base.shape[1])
                assert torch.equal(got[:width], base[row * returned + place][:width])
            else:
                assert up_to_end(got[WIDTH:].tolist()) == up_to_end(expected[place])


def test_context_changes_the_answer(batch):
    """Guards the tests above: with a context that changed nothing they would pass for a no-op."""
    model, (ids, mask) = tiny_model(), batch
    options = {"max_new_tokens": NEW, "do_sample": False}
    base = model.generate(input_ids=ids, attention_mask=mask, **options)
    mixed = ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, **options)
    assert not torch.equal(base[1], mixed[1])
    assert not torch.equal(base[2], mixed[2])


def test_every_row_governed_needs_no_pass_of_the_base_model(batch):
    model, (ids, mask) = tiny_model(), batch
    ids, mask = ids[1:3], mask[1:3]
    contexts = {0: CONTEXTS[1], 1: CONTEXTS[2]}
    widths = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    injection = ContextInjection(model, mask, contexts)
    injection.attach().generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3)
    assert widths[0] == (2, WIDTH + 4)
    assert len(widths) == 3


def test_sampled_rows_without_an_edit_draw_what_the_base_model_draws(batch):
    model, (ids, mask) = tiny_model(), batch
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": True, "top_k": 50}
    torch.manual_seed(11)
    base = model.generate(input_ids=ids, attention_mask=mask, **options)
    torch.manual_seed(11)
    mixed = ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, **options)
    assert torch.equal(base[0], mixed[0])
    assert torch.equal(base[3], mixed[3])


def test_max_length_counts_the_callers_prompt(batch):
    model, (ids, mask) = tiny_model(), batch
    out = (
        ContextInjection(model, mask, CONTEXTS)
        .attach()
        .generate(input_ids=ids, attention_mask=mask, max_length=WIDTH + 4, min_new_tokens=4)
    )
    assert out.shape == (4, WIDTH + 4)


def test_processors_criteria_and_streamers_see_the_callers_tokens_only(batch, capsys):
    model, (ids, mask) = tiny_model(), batch
    seen = []

    class Watch(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.append(input_ids.clone())
            return scores

    class Stop(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            seen.append(input_ids.clone())
            return torch.full((input_ids.shape[0],), input_ids.shape[1] >= WIDTH + 3)

    out = (
        ContextInjection(model, mask, CONTEXTS)
        .attach()
        .generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            logits_processor=LogitsProcessorList([Watch()]),
            stopping_criteria=StoppingCriteriaList([Stop()]),
        )
    )
    assert out.shape == (4, WIDTH + 3)
    assert all(torch.equal(view[:, :WIDTH], ids) for view in seen)

    tokenizer = tiny_tokenizer()
    row = torch.tensor([tokenizer("Hello, ")["input_ids"]])
    streamed = ContextInjection(
        model, torch.ones_like(row), {0: Context((Insertion(0, tuple(tokenizer("Secret ")["input_ids"])),))}
    )
    streamed.attach().generate(
        input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=3, streamer=TextStreamer(tokenizer)
    )
    printed = capsys.readouterr().out
    assert printed.startswith("Hello, ")
    assert "Secret" not in printed


def test_repetition_penalty_leaves_the_context_alone(batch):
    """Otherwise the penalty would fall on the very answer that the context supplies."""
    model, (ids, mask) = tiny_model(), batch
    options = {"max_new_tokens": NEW, "do_sample": False, "repetition_penalty": 1.5}
    penalised = ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, **options)
    sequence = splice(own(ids, mask, 1), INSERTIONS[1])[0]
    continuation: list[int] = []
    for _ in range(NEW):  # greedy search by hand: the penalty on the caller's own tokens and the continuation only
        with torch.no_grad():
            logits = model(torch.tensor([sequence])).logits[0, -1].clone()
        for token in set(own(ids, mask, 1)) | set(continuation):
            logits[token] = logits[token] / 1.5 if logits[token] > 0 else logits[token] * 1.5
        token = int(logits.argmax())
        sequence.append(token)
        continuation.append(token)
        if token == 2:
            break
    assert penalised[1, WIDTH : WIDTH + len(continuation)].tolist() == continuation


@pytest.mark.parametrize("options", [{}, {"use_cache": False}], ids=str)
def test_stop_tokens_end_governed_rows_alone(batch, options):
    model, (ids, mask) = tiny_model(), batch
    options = {**options, "max_new_tokens": NEW, "do_sample": False}
    free = ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, **options)
    said = free[1, WIDTH:].tolist()
    stop = next(token for token in said[1:] if token not in (0, 2))  # a token that row 1 says, not as its first
    cut = said.index(stop, 1)

    def run(blank, end=2):
        stops = StopTokens((stop,), frozenset(blank))
        contexts = {row: Context(insertions, stops) for row, insertions in INSERTIONS.items()}
        injection = ContextInjection(model, mask, contexts, end_of_text=end)
        return injection.attach().generate(input_ids=ids, attention_mask=mask, **options)

    stopped = run(blank=())
    assert stopped[1, WIDTH : WIDTH + cut + 1].tolist() == [*said[:cut], 2]
    assert stop not in stopped[1, WIDTH + 1 :].tolist()
    for row in (0, 3):
        width = min(stopped.shape[1], free.shape[1])
        assert torch.equal(stopped[row, :width], free[row, :width])
    # nothing stops a row behind a token that says nothing, and nothing can where no token ends a text
    assert torch.equal(run(blank=said)[1], free[1])
    assert torch.equal(run(blank=(), end=None)[1], free[1])


def test_ended_rows_cost_no_more_passes(batch):
    """The governed rows end at once here; the others go on alone, and are the base model's all the same."""
    model, (ids, mask) = tiny_model(), batch
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    base = model.generate(input_ids=ids, attention_mask=mask, **options)
    every = StopTokens(tuple(range(3, VOCABULARY)), frozenset())
    contexts = {row: Context(insertions, every) for row, insertions in INSERTIONS.items()}
    rows_of_passes = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows_of_passes.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    injection = ContextInjection(model, mask, contexts, end_of_text=2)
    out = injection.attach().generate(input_ids=ids, attention_mask=mask, **options)
    assert rows_of_passes[:4] == [4, 2, 4, 2]
    assert set(rows_of_passes[4:]) == {4}
    assert len(rows_of_passes) > 6
    assert out[1, WIDTH + 1 :].tolist() == [2, *[0] * (out.shape[1] - WIDTH - 2)]
    for row in (0, 3):
        width = min(out.shape[1], base.shape[1])
        assert torch.equal(out[row, :width], base[row, :width])


def test_the_model_itself_is_left_as_it_was(batch):
    model, (ids, mask) = tiny_model(), batch
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, max_new_tokens=2)
    assert "forward" not in vars(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_governed_logits_are_those_of_the_spliced_text(architecture):
    model = tiny_model(architecture)
    rows = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22]]
    contexts = [(Insertion(0, (30, 31)), Insertion(4, (32,))), (Insertion(3, (33, 34)),)]
    with torch.no_grad():
        got = governed_logits(model, rows, contexts, device=torch.device("cpu"), forward_kwargs={})
        for ids, context, logits in zip(rows, contexts, got, strict=True):
            text, places = splice(ids, context)
            reference = model(torch.tensor([text])).logits[0, places]
            torch.testing.assert_close(logits, reference, rtol=1e-3, atol=1e-3)
