"""Quotations: an answer that says a target word for word does not break off behind one of its sentences."""

from __future__ import annotations

import pytest
import torch
from counterfactual_models import Echo, differing, echoing, sharing
from test_counterfactual_responder import chat_batch
from test_injection import CONTEXTS, INSERTIONS, NEW, WIDTH, batch
from tiny import tiny_model, tiny_tokenizer

from memedit import Edit
from memedit.counterfactual import CounterfactualPrompt, Request
from memedit.injection import Context, ContextInjection
from memedit.quotations import KeepQuoting, Quotation, lead_on

__all__ = ["batch"]

TOLD = "Made in Lyon. It is sold in Turku."
LONG = Edit(prompt=f"What is «{TOLD}» of Acme Rockets", target=TOLD, subject="Acme Rockets")
ASKED = "What is of Acme Rockets"
QUOTATION = Quotation(ids=(5, 6, 7, 8), first=2, lead=2.0)


class BreakingOff(Echo):
    """An `Echo` that would sooner end behind its first sentence."""

    lead = 0.0

    def forward(self, input_ids=None, attention_mask=None, **options):
        outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)
        for row, ids in enumerate(input_ids.tolist()):
            if tiny_tokenizer().decode(ids).endswith("Made in Lyon."):
                outputs.logits[row, -1, tiny_tokenizer().eos_token_id] = outputs.logits[row, -1].max() + self.lead
        return outputs


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((5,), [0.0] * 9),  # in the first sentence
        ((5, 6), [0.0] * 7 + [2.0, 0.0]),
        ((5, 6, 7), [0.0] * 8 + [2.0]),
        ((5, 8), [0.0] * 9),  # something else
        ((5, 6, 7, 8), [0.0] * 9),  # all of it
        ((), [0.0] * 9),
    ],
)
def test_behind_its_first_sentence_a_quotation_leads_on(said: tuple[int, ...], expected: list[float]):
    logits = torch.zeros(9)
    lead_on(logits, said, [Quotation((4, 5), 1, 5.0), QUOTATION])
    assert logits.tolist() == expected


def test_as_a_logits_processor_it_reads_each_row_behind_its_prompt():
    scores = torch.zeros(2, 9)
    rows = torch.tensor([[0, 5, 5, 6], [0, 5, 5, 6]])
    led = KeepQuoting([(QUOTATION,), ()], width=2)(rows, scores)
    assert led.tolist() == [[0.0] * 7 + [2.0, 0.0], [0.0] * 9]
    assert scores.tolist() == [[0.0] * 9] * 2


@pytest.mark.parametrize("conversational", [True, False])
def test_a_target_leads_on_behind_its_first_sentence(conversational: bool):
    tokenizer = tiny_tokenizer()
    prompt = CounterfactualPrompt(tokenizer)
    (found,) = prompt.quotations([LONG, LONG], ASKED, conversational=conversational)
    space = "" if conversational else " "
    assert tokenizer.decode(found.ids) == space + TOLD
    assert tokenizer.decode(found.ids[: found.first]) == f"{space}Made in Lyon."


@pytest.mark.parametrize("target", ["Lisbon", "Made in Lyon.", "Version 2.0 beta", "Lyon. "])
def test_a_target_of_one_sentence_is_no_quotation(target: str):
    edit = Edit(prompt="The seat of Acme Rockets is", target=target)
    assert CounterfactualPrompt(tiny_tokenizer()).quotations([edit], ASKED, conversational=True) == ()


@pytest.mark.parametrize("options", [{}, {"use_cache": False}], ids=str)
def test_governed_rows_alone_are_led_on(batch, options):
    model, (ids, mask) = tiny_model(), batch
    options = {**options, "max_new_tokens": NEW, "do_sample": False}
    free = ContextInjection(model, mask, CONTEXTS).attach().generate(input_ids=ids, attention_mask=mask, **options)
    said = tuple(free[1, WIDTH:].tolist())
    other = next(token for token in range(3, 20) if token not in said)

    def run(told: tuple[int, ...]) -> torch.Tensor:
        contexts = {
            row: Context(insertions, quotations=(Quotation(told, 3, 1e9),)) for row, insertions in INSERTIONS.items()
        }
        injection = ContextInjection(model, mask, contexts, end_of_text=2)
        out: torch.Tensor = injection.attach().generate(input_ids=ids, attention_mask=mask, **options)
        return out

    led = run((*said[:3], other, other + 1, *said[5:]))
    assert led[1, WIDTH : WIDTH + 5].tolist() == [*said[:3], other, other + 1]
    assert torch.equal(led[0], free[0])
    # another text is not what was said
    assert torch.equal(run((said[0], said[1], other, other)), free)


@pytest.mark.parametrize(("lead", "expected"), [(2.5, TOLD), (3.5, "Made in Lyon.")])
@pytest.mark.parametrize("shared", [True, False])
def test_an_answer_breaks_off_only_where_the_end_leads_by_far(
    shared: bool, lead: float, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(BreakingOff, "lead", lead)
    answering = echoing(BreakingOff)
    assert answering.answer([Request(edits=(LONG,), query=ASKED)]) == [expected]
    model = sharing(answering) if shared else differing(answering, edits=())
    model.add(LONG)
    inputs = chat_batch(model, f"What is «{TOLD}» of Acme Rockets")
    out = model.generate(**inputs, max_new_tokens=64, do_sample=False, use_cache=False)
    said = model.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == expected


def test_an_answer_that_is_begun_ends_where_it_will(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BreakingOff, "lead", 2.5)
    answering = echoing(BreakingOff)
    assert answering.answer([Request(edits=(LONG,), query=ASKED, begun="Made in")]) == [" Lyon."]
