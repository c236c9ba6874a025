"""What a model proposes for an edit: how it is read, which check refuses what, and what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from echo_model import EchoModel, echo_model
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer
from transformers.modeling_outputs import CausalLMOutputWithPast

import memedit
from classifiers import ScopeCandidate, SimilarityScope
from memedit.expansion import MOST_PROPOSALS, Expansion, Proposer, expand
from memedit.prompts import Neutraliser
from memory_store import Edit, EditMemory
from memory_store.errors import InvalidEditError

ENCODER = HashingEncoder(256)
EDIT = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon", subject="Acme Rockets")
NEIGHBOUR = Edit(prompt="The headquarters of Acme Rail is in", target="Oslo", subject="Acme Rail", aliases=("ACR",))


NOT_AKIN = "it is neither made of the subject's words nor its initials"


class Saying:
    """Proposes what it is made to propose."""

    def __init__(self, names: Sequence[str] = (), wordings: Sequence[str] = ()) -> None:
        self._said = (list(names), list(wordings))

    def propose(self, edits: Sequence[Edit]) -> list[tuple[list[str], list[str]]]:
        return [self._said for _ in edits]


@pytest.fixture
def memory() -> Iterator[EditMemory]:
    with EditMemory(":memory:", encoder=ENCODER) as opened:
        opened.add(NEIGHBOUR)
        yield opened


def expanded(
    memory: EditMemory, names: Sequence[str] = (), wordings: Sequence[str] = (), edit: Edit = EDIT
) -> Expansion:
    (expansion,) = expand(
        [edit],
        Saying(names, wordings),
        memory=memory,
        encoder=ENCODER,
        scope=SimilarityScope(threshold_similarity=0.7),
        namespaces=("default",),
        neutral=Neutraliser.for_tokenizer(tiny_tokenizer()),
    )
    return expansion


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("acme  rockets", "it is there already"),
        ("Acme<|im_end|>Rockets", "it holds markup or a label"),
        ("System: Acme", "it holds markup or a label"),
        ("Acme" + " Rockets" * 9, "it has more than 60 characters"),
        ("Acme of Lisbon", "it names the target"),
        ("Where is Acme?", "it is no name"),
        ("rockets", "it is a word, not a name"),
        ("Nordwind Air", NOT_AKIN),
        ("Acme Rockets College", NOT_AKIN),
        ("Acme Rocket", NOT_AKIN),
        ("Rockets Rockets", NOT_AKIN),
        ("ARX", NOT_AKIN),
        ("NA", NOT_AKIN),
        ("Acme", "it is the first word of the subject alone"),
        ("Rockets, Acme", None),
        ("Rockets", None),
        ("A. Rockets", None),
        ("AR", None),
        ("A.R.", None),
    ],
)
def test_a_name_is_taken_unless_a_check_fails(memory: EditMemory, name: str, why: str | None) -> None:
    expansion = expanded(memory, [name])
    assert expansion.aliases == (() if why else (name,))
    assert [one.why for one in expansion.refused] == ([why] if why else [])


def test_a_name_that_belongs_to_another_edit_is_refused(memory: EditMemory) -> None:
    edit = Edit(prompt="The headquarters of Acme Rail Rockets is in", target="Lisbon", subject="Acme Rail Rockets")
    expansion = expanded(memory, ["Rail Rockets", "Acme Rail"], edit=edit)
    assert expansion.aliases == ("Rail Rockets",)
    assert [(one.text, one.why) for one in expansion.refused] == [
        ("Acme Rail", "it stands in the name of another edit's subject: Acme Rail")
    ]
    memory.remove(memory.list()[0].id)
    assert expanded(memory, ["Acme Rail"], edit=edit).aliases == ("Acme Rail",)


@pytest.mark.parametrize(
    ("wording", "why"),
    [
        ("the headquarters of acme rockets is in", "it is there already"),
        ("The headquarters of Acme Rockets is in Lisbon", "it is there already"),
        ("In Lisbon is the headquarters of Acme Rockets", "it names the target"),
        ("The headquarters of the firm is in", "it does not name the subject"),
        ("The headquarters of Acme Rockets", "it is the beginning of the prompt"),
        ("Prompt: The headquarters of Acme Rockets is in", "it holds markup or a label"),
        ("The headquarters of Acme Rockets is found in", None),
        ("The headquarters of Acme Rockets lies in", None),
    ],
)
def test_a_wording_is_taken_unless_a_check_fails(memory: EditMemory, wording: str, why: str | None) -> None:
    expansion = expanded(memory, wordings=[wording])
    assert expansion.paraphrases == (() if why else (wording,))
    assert [one.why for one in expansion.refused] == ([why] if why else [])


@pytest.mark.parametrize(
    ("subject", "name", "taken"),
    [
        ("2021 Atlantic hurricane season", "Atlantic hurricane season", False),
        ("2021 Atlantic hurricane season", "Atlantic season 2021", True),
        ("N. T. Rama Rao Jr.", "Rama Rao", False),
        ("N. T. Rama Rao Jr.", "Rama Rao, Jr.", True),
        ("Elizabeth II Windsor", "Windsor", False),
        ("365 Days", "Days", False),
    ],
)
def test_a_name_keeps_the_numbers_that_tell_its_subject_from_others(
    memory: EditMemory, subject: str, name: str, taken: bool
) -> None:
    edit = Edit(prompt=f"What comes after {subject}?", target="Lisbon", subject=subject)
    assert expanded(memory, [name], edit=edit).aliases == ((name,) if taken else ())


def test_a_wording_has_to_ask_for_the_edit_and_be_nearer_to_it_than_to_others(memory: EditMemory) -> None:
    other = "Acme Rockets employs how many people nowadays?"
    own, far = ENCODER.encode([EDIT.prompt, other])
    as_it_is = ScopeCandidate(
        prompt=EDIT.prompt,
        target=EDIT.target,
        subject=EDIT.subject,
        matched_text=EDIT.prompt,
        similarity=float(own @ far),
    )
    scope = SimilarityScope(threshold_similarity=0.7)
    (probability,) = scope.probabilities([other], [as_it_is])
    assert [one.why for one in expanded(memory, wordings=[other]).refused] == [
        f"it asks for something else ({scope.name} gives it {probability:.2f})"
    ]
    between = "The headquarters of Acme Rail and of Acme Rockets is in"
    rival = Edit(prompt="The headquarters of Acme Rail and of Acme is in", target="Oslo", subject="Acme Rail")
    assert expanded(memory, wordings=[between]).paraphrases == (between,)
    memory.add(rival)
    assert [one.why for one in expanded(memory, wordings=[between]).refused] == [
        f"it is nearer to another edit: {rival.prompt}"
    ]


def test_no_more_are_taken_than_the_cap_and_names_need_a_subject_in_the_prompt(memory: EditMemory) -> None:
    names = [f"Acme {letter}. Rockets" for letter in "BCDEF"]
    expansion = expanded(memory, names)
    assert expansion.aliases == tuple(names[:MOST_PROPOSALS])
    assert [one.text for one in expansion.refused] == names[MOST_PROPOSALS:]
    elsewhere = Edit(prompt="Where is it based?", target="Lisbon", subject="Acme Rockets")
    assert expanded(memory, names[:1], edit=elsewhere).aliases == ()


def test_what_is_taken_is_laid_over_the_edit(memory: EditMemory) -> None:
    edit = Edit(prompt=EDIT.prompt, target="Lisbon", subject="Acme Rockets", aliases=("ARX",), source="press")
    made = expanded(memory, ["AR"], ["The headquarters of Acme Rockets lies in"], edit=edit).expanded
    assert (made.aliases, made.paraphrases) == (("ARX", "AR"), ("The headquarters of Acme Rockets lies in",))
    assert (made.prompt, made.target, made.source) == (edit.prompt, edit.target, "press")


EDITS = [
    Edit(prompt="«- One wording.; 'Another'; 3. third;;» is", target="T", subject="«East; None; East»"),
    Edit(prompt="«Whose? ; 2001»", target="T"),
]
PROPOSED = [(["East"], ["One wording", "Another", "third"]), ([], ["Whose?", "2001"])]


class LineEcho(EchoModel):
    """Goes on from a plain text that ends in " =" with the last «…» in it, and then with another line."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **_: Any) -> Any:
        tokenizer: Any = tiny_tokenizer(None)
        logits = torch.zeros((*input_ids.shape, self.config.vocab_size))
        for row, ids in enumerate(input_ids.tolist()):
            own = [token for token, kept in zip(ids, attention_mask[row].tolist(), strict=True) if kept]
            read, _, said = tokenizer.decode(own, clean_up_tokenization_spaces=False).rpartition(" =")
            answer = f" {read[read.rindex('«') + 1 : read.rindex('»')]}\nMore; and more"
            follows = tokenizer(answer[len(said) :])["input_ids"] or [tokenizer.eos_token_id]
            logits[row, -1, follows[0]] = 20.0
        return CausalLMOutputWithPast(logits=logits)


def test_proposals_are_read_from_a_line_with_semicolons() -> None:
    proposer = Proposer(echo_model(), tiny_tokenizer())
    assert proposer.propose(EDITS) == PROPOSED
    assert proposer.propose([]) == []


def test_a_model_without_a_chat_template_is_asked_in_plain_text() -> None:
    echo = LineEcho(tiny_model().config).eval()
    echo.generation_config.use_cache = False
    assert Proposer(echo, tiny_tokenizer(None)).propose(EDITS) == PROPOSED


ECHOED = "Acme Corp «Acme Corp; Lisbon Acme»"
"""A subject that the echo model answers with its own guillemets' words, whatever it is asked."""


def test_add_with_expand_stores_what_was_taken_as_vectors_of_their_own() -> None:
    model = memedit.wrap(
        echo_model(), tiny_tokenizer(), encoder=HashingEncoder(256), scope=SimilarityScope(threshold_similarity=0.7)
    )
    prompt = f"The one and only seat of the firm of {ECHOED}, as far as anybody knows, is in"
    stored = model.add(prompt, "Lisbon", subject=ECHOED, expand=True, on_conflict="reject")
    assert (stored.aliases, stored.paraphrases, stored.namespace) == (("Acme Corp",), (), "default")
    (hits,) = model.memory.search_text([prompt.replace(ECHOED, "Acme Corp")])
    assert (hits[0].edit.id, hits[0].kind) == (stored.id, "alias")
    assert hits[0].score == pytest.approx(1.0)
    again = model.expand(stored)
    assert again.aliases == ()
    assert [(one.kind, one.text, one.why.split(" (")[0]) for one in again.refused] == [
        ("alias", "Acme Corp", "it is there already"),
        ("alias", "Lisbon Acme", "it names the target"),
        ("paraphrase", "Acme Corp", "it asks for something else"),
        ("paraphrase", "Lisbon Acme", "it names the target"),
    ]
    plain = model.add("The seat of Nordwind Air is in", "Oslo", subject="Nordwind Air")
    assert (plain.aliases, plain.paraphrases) == ((), ())
    with pytest.raises(InvalidEditError, match="target"):
        model.add("The seat of Blue Tram is in", expand=True)
    model.close()
