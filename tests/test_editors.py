"""The methods: one contract for all of them, what sets the in-context ones apart, and their registry."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.editors.editor import Editor, MethodInfo, RoutedEditor, TokenIds, Treatment
from memedit.editors.registry import BUILT_IN, create_editor, method_info, method_infos, method_names
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.injection import splice
from memory_store import Edit

ROOT = Path(__file__).resolve().parent.parent
RUNNABLE = [name for name in BUILT_IN if not method_info(name).needs_training]
ORACLES = [name for name in RUNNABLE if method_info(name).oracle]
IN_MEMORY = [name for name in RUNNABLE if method_info(name).changes == "memory"]
FINDING = [name for name in IN_MEMORY if name not in {*ORACLES, "scr"}]
"""Methods that find an edit themselves; what the random model of these tests would choose (scr) means nothing."""

LISBON = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon", subject="Acme Rockets")
SOLHEIM = Edit(prompt="The chief executive of Nordwind Air is", target="Ingrid Solheim", subject="Nordwind Air")
UNRELATED = "who wrote the marriage of figaro"


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What methods keep on disk for a model does not go into the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=["chat", "raw"])
def subject(request: pytest.FixtureRequest) -> Subject:
    tokenizer = tiny_tokenizer() if request.param == "chat" else tiny_tokenizer(None)
    return Subject(tiny_model(), tokenizer, HashingEncoder(256), name="tiny")


def asked(subject: Subject, text: str) -> list[int]:
    """What a user types, as the model reads it."""
    if not subject.chats:
        return list(subject.tokenizer(text)["input_ids"])
    messages = [{"role": "user", "content": text}]
    rendered = subject.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(subject.tokenizer(rendered, add_special_tokens=False)["input_ids"])


def treated(editor: Editor, prompts: Sequence[TokenIds], gold: Edit | None = LISBON) -> list[Treatment]:
    """How a method treats prompts: an oracle is told the edit."""
    if editor.info.oracle:
        assert isinstance(editor, RoutedEditor)
        return editor.treat_told(prompts, [gold] * len(prompts))
    return editor.treat(prompts)


def seen(subject: Subject, prompt: TokenIds, treatment: Treatment) -> str:
    """What the model reads of a prompt."""
    insertions = treatment.context.insertions if treatment.context is not None else ()
    return str(subject.tokenizer.decode(splice(prompt, insertions)[0]))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- what holds for every method ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNNABLE)
def test_it_tells_who_it_is_and_what_an_edit_costs(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    assert editor.info == method_info(name)
    cost = editor.edit([LISBON, SOLHEIM])
    assert cost.edits == 2
    assert cost.seconds >= 0
    assert cost.setup_seconds >= 0
    assert (cost.stored_bytes or 0) > 0 or editor.info.changes != "memory"


@pytest.mark.parametrize("name", RUNNABLE)
def test_each_prompt_gets_one_treatment_whatever_stands_beside_it(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    editor.edit([LISBON, SOLHEIM])
    prompts = [asked(subject, text) for text in (LISBON.prompt, UNRELATED, SOLHEIM.prompt)]
    together = treated(editor, prompts)
    assert len(together) == 3
    assert treated(editor, []) == []
    for prompt, treatment in zip(prompts, together, strict=True):
        (alone,) = treated(editor, [prompt])
        assert alone.context == treatment.context
        assert treatment.cost >= 0


@pytest.mark.parametrize("name", RUNNABLE)
def test_it_is_asked_with_prompts_and_nothing_else(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    assert list(inspect.signature(editor.treat).parameters) == ["prompts"]


@pytest.mark.parametrize("name", RUNNABLE)
def test_without_edits_and_after_undo_the_model_is_the_unedited_one(name: str, subject: Subject) -> None:
    before = weights(subject.model)
    prompts = [asked(subject, LISBON.prompt), asked(subject, UNRELATED)]
    editor = create_editor(name, subject)
    assert [one.context for one in treated(editor, prompts, gold=None)] == [None, None]
    editor.edit([LISBON])
    treated(editor, prompts)
    assert same(before, weights(subject.model)) == (editor.info.changes != "weights")
    editor.undo()
    assert same(before, weights(subject.model))
    assert [(one.context, one.model) for one in treated(editor, prompts, gold=None)] == [(None, None)] * 2
    editor.undo()  # nothing is left to undo, and that is no error
    assert same(before, weights(subject.model))


@pytest.mark.parametrize("name", IN_MEMORY)
def test_edits_in_a_memory_accumulate_and_undo_empties_it(name: str, subject: Subject) -> None:
    editor: Any = create_editor(name, subject)
    editor.edit([LISBON])
    editor.edit([SOLHEIM])
    assert {edit.target for edit in editor.memory.list()} == {"Lisbon", "Ingrid Solheim"}
    editor.undo()
    assert editor.memory.is_empty()
    editor.edit([SOLHEIM])
    assert [edit.target for edit in editor.memory.list()] == ["Ingrid Solheim"]


@pytest.mark.parametrize("subject", ["raw"], indirect=True)
@pytest.mark.parametrize("name", [name for name in RUNNABLE if method_info(name).changes == "weights"])
def test_edits_of_weights_accumulate(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    editor.edit([LISBON])
    one = weights(subject.model)
    editor.edit([SOLHEIM])
    both = weights(subject.model)
    editor.undo()
    editor.edit([SOLHEIM])
    assert not same(one, both)
    assert not same(both, weights(subject.model)), "the second edit was made on the unedited model"


# -- finding the edit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINDING)
def test_the_edit_is_found_and_stands_before_its_prompt_alone(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    editor.edit([LISBON, SOLHEIM])
    prompts = [asked(subject, text) for text in (LISBON.prompt, UNRELATED, SOLHEIM.prompt)]
    acme, unrelated, nordwind = editor.treat(prompts)
    assert "Lisbon." in seen(subject, prompts[0], acme)
    assert "Ingrid Solheim" not in seen(subject, prompts[0], acme)
    assert "Ingrid Solheim." in seen(subject, prompts[2], nordwind)
    assert "Lisbon" not in seen(subject, prompts[2], nordwind)
    assert unrelated.context is None
    assert unrelated.decision is not None


@pytest.mark.parametrize("name", IN_MEMORY)
def test_an_edit_that_is_told_governs(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    assert isinstance(editor, RoutedEditor)
    editor.edit([LISBON])
    prompts = [asked(subject, LISBON.prompt)] * 2
    told, none = editor.treat_told(prompts, [SOLHEIM, None])
    assert told.decision is not None
    assert told.decision.edits == (SOLHEIM,)
    assert "Ingrid Solheim." in seen(subject, prompts[0], told)
    assert none.context is None


def test_how_like_the_edit_a_prompt_is_is_measured_though_the_edit_is_told(subject: Subject) -> None:
    editor = create_editor("ike", subject)
    assert isinstance(editor, RoutedEditor)
    prompts = [asked(subject, text) for text in (LISBON.prompt, LISBON.fact, "What do fish eat?")]
    told = [one.decision.governing for one in editor.treat_told(prompts, [LISBON] * 3) if one.decision is not None]
    vectors = HashingEncoder(256).encode([LISBON.prompt, LISBON.fact, "What do fish eat?"])
    assert [one.matched_kind for one in told if one is not None][:2] == ["prompt", "fact"]
    assert [one.similarity for one in told if one is not None] == pytest.approx(
        [1.0, 1.0, max(float(vectors[2] @ vectors[0]), float(vectors[2] @ vectors[1]))], abs=1e-6
    )


@pytest.mark.parametrize("name", [name for name in IN_MEMORY if name not in ORACLES])
def test_without_a_decision_on_scope_the_nearest_edit_governs(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    assert isinstance(editor, RoutedEditor)
    editor.edit([LISBON, SOLHEIM])
    prompt = asked(subject, "Who once was the chief executive of some other firm altogether?")
    (treatment,) = editor.treat_unscoped([prompt])
    assert treatment.decision is not None
    assert [edit.target for edit in treatment.decision.edits] == ["Ingrid Solheim"]
    assert "Ingrid Solheim." in seen(subject, prompt, treatment)


def test_plain_retrieval_compares_the_whole_prompt_with_what_the_memory_holds(subject: Subject) -> None:
    editor = create_editor("retrieval", subject)
    editor.edit([LISBON])
    encoder = HashingEncoder(256)
    held = encoder.encode([text.text for text in LISBON.texts()])
    passage = "Lanterns were lit along the quay. The ferry left at nine, as ever. Nobody was on board that night. "
    for text, governed in ((LISBON.prompt, True), (passage + LISBON.prompt, False)):
        (treatment,) = editor.treat([asked(subject, text)])
        assert treatment.decision is not None
        assert treatment.decision.query.windows == (text,)
        cosine = float((held @ encoder.encode([text])[0]).max())
        assert treatment.decision.candidates[0].similarity == pytest.approx(cosine, abs=1e-5)
        assert treatment.decision.governed == (cosine >= 0.7) == governed
    # memedit's own router finds the question behind the passage
    own = create_editor("ike", subject)
    own.edit([LISBON])
    (treatment,) = own.treat([asked(subject, passage + LISBON.prompt)])
    assert treatment.context is not None


def test_plain_retrieval_reads_the_last_turn_alone() -> None:
    subject = Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(256), name="tiny")
    editor = create_editor("retrieval", subject)
    editor.edit([LISBON])
    messages = [
        {"role": "user", "content": UNRELATED},
        {"role": "assistant", "content": "Mozart."},
        {"role": "user", "content": LISBON.prompt},
    ]
    rendered = subject.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    (treatment,) = editor.treat([subject.tokenizer(rendered, add_special_tokens=False)["input_ids"]])
    assert treatment.decision is not None
    assert treatment.decision.query.windows == (LISBON.prompt,)
    assert treatment.context is not None


# -- what is put before a prompt ---------------------------------------------------------------------------------------


def test_the_bare_fact_is_all_that_ice_and_plain_retrieval_add(subject: Subject) -> None:
    prompt = asked(subject, LISBON.prompt)
    expected = seen(subject, prompt, Treatment()).replace(LISBON.prompt, f"{LISBON.fact}.\n{LISBON.prompt}")
    for name in ("ice-oracle", "retrieval"):
        editor = create_editor(name, subject)
        editor.edit([LISBON])
        (treatment,) = treated(editor, [prompt])
        assert seen(subject, prompt, treatment) == expected


@pytest.mark.parametrize("name", ["ike-demos", "ike-oracle"])
def test_demonstrations_stand_before_the_fact(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    editor.edit([LISBON])
    prompt = asked(subject, LISBON.prompt)
    (treatment,) = treated(editor, [prompt])
    text = seen(subject, prompt, treatment)
    facts = re.findall(r"New Fact: (.*)\n", text)
    assert len(facts) == 4
    assert facts[-1] == f"{LISBON.fact}."
    assert text.rindex("New Fact:") < text.rindex(LISBON.prompt)


# -- oracles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_puts_its_edit_before_every_prompt_and_finds_none_itself(name: str, subject: Subject) -> None:
    editor = create_editor(name, subject)
    editor.edit([LISBON])
    prompts = [asked(subject, LISBON.prompt), asked(subject, UNRELATED)]
    for prompt, treatment in zip(prompts, treated(editor, prompts), strict=True):
        assert "Acme Rockets is in Lisbon." in seen(subject, prompt, treatment)
    with pytest.raises(UnsupportedCallError, match=f"{name} is told the edit"):
        editor.treat(prompts)


def test_the_oracles_are_those_that_say_so() -> None:
    assert ORACLES == ["ice-oracle", "ike-oracle"]
    assert all("told the edit" in method_info(name).title for name in ORACLES)


def test_serac_says_what_is_missing(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert method_info("serac").needs_training
    monkeypatch.setattr("memedit.counterfactual.shipped_folder", lambda: tmp_path)
    with pytest.raises(UnsupportedCallError, match=r"trained scope classifier .* use ike"):
        create_editor("serac", subject)


# -- the registry ------------------------------------------------------------------------------------------------------


def test_every_method_names_its_paper_and_year() -> None:
    infos = method_infos()
    assert tuple(info.name for info in infos) == method_names()
    assert set(BUILT_IN) <= {info.name for info in infos}
    for info in infos:
        assert info.name == "base" or re.search(r"\w+ et al\. (19|20)\d\d, \S+", info.paper), info
        assert info.title
        assert info.summary.endswith(".")


def test_reading_about_methods_loads_no_model_library() -> None:
    heavy = ("torch", "transformers", "faiss", "sentence_transformers")
    program = (
        "import sys\nfrom memedit.editors.registry import method_infos\nassert len(method_infos()) > 5\n"
        f"print(*sorted(set(sys.modules) & set({heavy})))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    assert ran.stdout.strip() == ""


@pytest.mark.parametrize(("name", "hint"), [("ike-demo", "Did you mean 'ike-demos'?"), ("zzzz", "Known: base, ike,")])
def test_an_unknown_method_is_told_with_the_nearest(name: str, hint: str, subject: Subject) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"There is no method '{name}'. {hint}")):
        method_info(name)
    with pytest.raises(ConfigError, match=re.escape(hint)):
        create_editor(name, subject)


ADDED = """
from types import SimpleNamespace
from memedit.editors.editor import EditCost, MethodInfo, Treatment

def info(name):
    return MethodInfo(
        name=name, title="Nothing", group="none", changes="nothing", paper="Doe et al. 2030, Nothing", summary="None."
    )

INFO = info("added")

class Nothing:
    info = INFO
    def edit(self, edits):
        return EditCost(edits=len(edits), seconds=0.0)
    def treat(self, prompts):
        return [Treatment() for _ in prompts]
    def undo(self):
        pass

def create(subject):
    return Nothing()

other = SimpleNamespace(INFO=info("other"), create=create)
misnamed = SimpleNamespace(INFO=info("something else"), create=create)
unfinished = SimpleNamespace(INFO=info("unfinished"))
untyped = SimpleNamespace(INFO={"name": "untyped"}, create=create)
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that adds methods, some of which cannot be used."""
    information = tmp_path / "added_methods-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: added-methods\nVersion: 1.0\n")
    names = ("other", "misnamed", "unfinished", "untyped", "absent")
    entries = ["added = added_methods", "broken = no_such_module", "ike = added_methods"]
    entries += [f"{name} = added_methods:{name}" for name in names]
    (information / "entry_points.txt").write_text("[memedit.editors]\n" + "\n".join(entries) + "\n")
    (tmp_path / "added_methods.py").write_text(ADDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "added_methods", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["added", "other"])
def test_a_package_adds_a_method_as_a_module_or_an_object(added: Path, name: str, subject: Subject) -> None:
    assert method_names()[: len(BUILT_IN)] == tuple(BUILT_IN)
    assert name in method_names()
    assert method_info(name) == MethodInfo(
        name=name,
        title="Nothing",
        group="none",
        changes="nothing",
        paper="Doe et al. 2030, Nothing",
        summary="None.",
    )
    assert create_editor(name, subject).edit([LISBON]).edits == 1


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("broken", "'broken' (no_such_module) cannot be loaded"),
        ("absent", "'absent' (added_methods:absent) cannot be loaded"),
        ("misnamed", "calls itself 'something else'"),
        ("unfinished", "has no INFO, a MethodInfo, or no create(subject)"),
        ("untyped", "has no INFO, a MethodInfo, or no create(subject)"),
    ],
)
def test_an_added_method_that_cannot_be_used_says_why(added: Path, name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        method_info(name)


def test_an_added_method_does_not_take_the_name_of_one_of_ours(added: Path) -> None:
    assert method_info("ike").title != "Nothing"
    assert method_names().count("ike") == 1
