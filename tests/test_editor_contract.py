"""What every method that changes a model keeps to, on tiny real models: one line a method in `METHODS`.

A method is made with few steps and little data, so that a test costs tenths of a second; whether its edits take is a
matter of its own tests. What holds for methods of every kind, memory methods too, is in ``test_editors.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

from memedit.editors import ke, mend, r_rome
from memedit.editors.adalora import AdaLoraConfig, AdaLoraEditor
from memedit.editors.alphaedit import AlphaEditConfig, AlphaEditor
from memedit.editors.editor import Editor
from memedit.editors.ft import FtConfig, FtEditor
from memedit.editors.ft_l import FtLConfig, FtLEditor
from memedit.editors.grace import GraceConfig, GraceEditor
from memedit.editors.hypernetwork_editor import HypernetworkEditor
from memedit.editors.kn import KnEditor
from memedit.editors.lora import LoraConfig, LoraEditor
from memedit.editors.memit import MemitConfig, MemitEditor
from memedit.editors.pmet import PmetEditor
from memedit.editors.registry import method_info
from memedit.editors.rome import RomeConfig, RomeEditor
from memedit.editors.subject import Subject
from memedit.editors.t_patcher import TPatcherConfig, TPatcherEditor
from memedit.editors.wise import WiseConfig, WiseEditor
from memedit.errors import MemeditError
from memory_store import Edit

Make = Callable[[Subject], Editor]

QUICK: dict[str, Any] = {"steps": 3, "stop_loss": 0.0, "contexts": 2, "context_tokens": 3, "statistics_tokens": 2_000}
SPREAD: dict[str, Any] = {**QUICK, "layers": (0, 1)}
ONE_KEY = RomeConfig(layer=1, ridge=0.01, mixed_keys=False, **QUICK)

METHODS: dict[str, Make] = {
    "ft-m": lambda subject: FtEditor(subject, FtConfig(layer=1, learning_rate=0.01, steps=3, stop_loss=0.0)),
    "ft-l": lambda subject: FtLEditor(subject, FtLConfig(layer=1, learning_rate=0.01, steps=3)),
    "lora": lambda subject: LoraEditor(subject, LoraConfig(rank=2, alpha=4, learning_rate=0.05, steps=3)),
    "adalora": lambda subject: AdaLoraEditor(
        subject, AdaLoraConfig(initial_rank=2, target_rank=1, alpha=16, learning_rate=0.05, steps=4)
    ),
    "grace": lambda subject: GraceEditor(subject, GraceConfig(layer=1, epsilon=0.1, learning_rate=0.5, steps=3)),
    "wise": lambda subject: WiseEditor(
        subject, WiseConfig(layer=1, learning_rate=0.05, alpha=1.0, beta=4.0, gamma=2.0, steps=3)
    ),
    "t-patcher": lambda subject: TPatcherEditor(subject, TPatcherConfig(learning_rate=0.1, steps=3)),
    "ke": lambda subject: HypernetworkEditor(
        subject, ke.Ke(subject, ke.KeConfig(layers=(0, 2), hidden=4, condition=3, scale=10.0))
    ),
    "mend": lambda subject: HypernetworkEditor(
        subject, mend.Mend(subject, mend.MendConfig(layers=(0, 2), learning_rate=0.01))
    ),
    "rome": lambda subject: RomeEditor(subject, RomeConfig(layer=1, statistics="identity", **QUICK)),
    "r-rome": lambda subject: RomeEditor(subject, ONE_KEY, info=r_rome.INFO),
    "memit": lambda subject: MemitEditor(subject, MemitConfig(covariance_weight=1.0, **SPREAD)),
    "pmet": lambda subject: PmetEditor(subject, MemitConfig(covariance_weight=1.0, **SPREAD)),
    "alphaedit": lambda subject: AlphaEditor(subject, AlphaEditConfig(threshold=0.5, regularisation=0.1, **SPREAD)),
    "kn": KnEditor,
}
"""Each method by its name, made quick."""

EDITS = (
    Edit(prompt="The capital of France is", target="Rome", subject="France"),
    Edit(prompt="Emma was written by", target="Zola", subject="Emma"),
    Edit(prompt="The sea near Oslo is", target="red and warm", subject="Oslo"),
)
PROMPT = "The capital of France is"
IMPOSSIBLE = Edit(prompt="The sea near Oslo is", target=" ", subject="Oslo")

every_method = pytest.mark.parametrize("name", METHODS)


@dataclass
class State:
    """A model, looked at from outside: every parameter and buffer, what it answers, and what hangs on it."""

    tensors: dict[str, torch.Tensor]
    logits: torch.Tensor
    hooks: int
    flags: dict[str, tuple[bool, bool, int]]

    def differences(self, other: State) -> list[str]:
        names = sorted(self.tensors.keys() | other.tensors.keys())
        absent = torch.tensor([])
        found = [n for n in names if not torch.equal(self.tensors.get(n, absent), other.tensors.get(n, absent))]
        found += [] if torch.equal(self.logits, other.logits) else ["logits"]
        return found + [name for name in ("hooks", "flags") if getattr(self, name) != getattr(other, name)]


def state_of(subject: Subject) -> State:
    model = subject.model
    asked = subject.chat_ids([{"role": "user", "content": PROMPT}]) if subject.chats else None
    ids = torch.tensor([list(asked if asked is not None else subject.tokenizer(PROMPT)["input_ids"])])
    with torch.no_grad():
        logits = model(ids).logits.clone()
    return State(
        tensors={name: value.clone() for name, value in model.state_dict().items()},
        logits=logits,
        hooks=sum(
            len(hooks)
            for module in model.modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        )
        + sum("forward" in vars(module) for module in model.modules()),
        flags={name: (p.requires_grad, p.grad is None, p.data_ptr()) for name, p in model.named_parameters()},
    )


def tiny_subject(architecture: str = "llama", *, chats: bool = True) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(chat_template=None)
    return Subject(tiny_model(architecture), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What methods keep on disk for a model does not go into the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@every_method
def test_it_goes_by_its_name(name: str) -> None:
    editor = METHODS[name](tiny_subject())
    assert editor.info is method_info(name)
    assert editor.info.changes == "weights"


# a window of a few tokens does not reach from a chat's subject to where the answer begins: nothing can be edited there
@every_method
@pytest.mark.parametrize(
    ("architecture", "chats"),
    [(one, chats) for one in ARCHITECTURES for chats in (True, False) if not (chats and "sliding" in one)],
)
def test_an_edit_changes_the_model_and_every_bit_comes_back(name: str, architecture: str, chats: bool) -> None:
    subject = tiny_subject(architecture, chats=chats)
    before = state_of(subject)
    editor = METHODS[name](subject)
    assert state_of(subject).differences(before) == []
    editor.edit(EDITS[:2])
    one = state_of(subject)
    assert "logits" in one.differences(before)
    assert one.logits.isfinite().all()
    editor.edit(EDITS[2:])
    assert state_of(subject).differences(one)
    editor.undo()
    assert state_of(subject).differences(before) == []
    editor.undo()  # nothing is left to undo
    assert state_of(subject).differences(before) == []


@every_method
def test_no_edits_change_nothing(name: str) -> None:
    subject = tiny_subject()
    before = state_of(subject)
    editor = METHODS[name](subject)
    cost = editor.edit([])
    assert (cost.edits, cost.stored_bytes) == (0, 0)
    assert state_of(subject).differences(before) == []


@every_method
def test_the_same_edits_give_the_same_model(name: str) -> None:
    """Whatever random numbers others have drawn, whether the editor is new or used; and it draws none of theirs."""
    subject = tiny_subject()
    editor = METHODS[name](subject)
    editor.edit(EDITS)
    first = state_of(subject)
    editor.undo()
    torch.manual_seed(12345)
    drawn = torch.get_rng_state()
    editor.edit(EDITS)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert state_of(subject).differences(first) == []
    editor.undo()
    again = METHODS[name](subject)
    again.edit(EDITS)
    assert state_of(subject).differences(first) == []


@every_method
def test_flags_and_gradients_are_as_they_were(name: str) -> None:
    subject = tiny_subject()
    for place, parameter in enumerate(subject.model.parameters()):
        parameter.requires_grad_(place % 2 == 0)
    before = state_of(subject)
    with torch.no_grad():
        editor = METHODS[name](subject)
        editor.edit(EDITS[:1])
    assert state_of(subject).flags == before.flags
    assert not subject.model.training
    with torch.enable_grad():
        editor.undo()
    assert state_of(subject).differences(before) == []


@every_method
def test_edits_go_on_from_what_earlier_ones_left(name: str) -> None:
    subject = tiny_subject()
    editor = METHODS[name](subject)
    editor.edit(EDITS[:1])
    editor.edit(EDITS[1:2])
    both = state_of(subject)
    editor.undo()
    editor.edit(EDITS[1:2])
    assert state_of(subject).differences(both)


@every_method
def test_what_an_edit_costs(name: str) -> None:
    editor = METHODS[name](tiny_subject())
    first, second = editor.edit(EDITS[:2]), editor.edit(EDITS[2:])
    assert (first.edits, second.edits) == (2, 1)
    for cost in (first, second):
        assert cost.seconds > 0
        assert cost.setup_seconds >= 0
    assert (first.stored_bytes or 0) > 0
    assert second.setup_seconds == 0, "what is done once was done before"


@every_method
def test_an_edit_that_cannot_be_made_leaves_those_before_it(name: str) -> None:
    subject = tiny_subject()
    before = state_of(subject)
    editor = METHODS[name](subject)
    editor.edit(EDITS[:1])
    between = state_of(subject)
    with pytest.raises(MemeditError, match="The sea near Oslo is"):
        editor.edit([EDITS[1], IMPOSSIBLE])
    assert state_of(subject).differences(between) == []
    editor.undo()
    assert state_of(subject).differences(before) == []


@every_method
@pytest.mark.parametrize("call", [1, 3])
def test_an_exception_in_the_middle_leaves_what_was_there(name: str, call: int) -> None:
    """Also one from elsewhere, such as an interrupt; editing goes on afterwards as if it had not been."""
    subject = tiny_subject()
    before = state_of(subject)
    editor = METHODS[name](subject)
    editor.edit(EDITS[:1])
    between = state_of(subject)
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt

    hook = subject.model.get_submodule(_last_layer(subject)).register_forward_hook(interrupt)
    try:
        editor.edit(EDITS[1:2])
    except KeyboardInterrupt:
        pass
    else:
        pytest.skip(f"{name} needs no more than {len(calls)} passes for an edit")
    finally:
        hook.remove()
    assert state_of(subject).differences(between) == []
    editor.edit(EDITS[1:2])
    after = state_of(subject)
    editor.undo()
    assert state_of(subject).differences(before) == []
    editor.edit(EDITS[:1])
    editor.edit(EDITS[1:2])
    assert state_of(subject).differences(after) == []


def _last_layer(subject: Subject) -> str:
    from memedit.architectures import architecture_of

    architecture = architecture_of(subject.model)
    return architecture.module_name(architecture.layer_count(subject.model) - 1)


@every_method
def test_it_edits_after_another_method_has_failed(name: str) -> None:
    subject = tiny_subject()
    editor = METHODS[name](subject)
    editor.edit(EDITS[:1])
    expected = state_of(subject)
    editor.undo()
    for other in METHODS.values():
        with pytest.raises(MemeditError):
            other(subject).edit([IMPOSSIBLE])
    fresh = METHODS[name](subject)
    fresh.edit(EDITS[:1])
    assert state_of(subject).differences(expected) == []


@every_method
def test_every_prompt_gets_its_treatment(name: str) -> None:
    subject = tiny_subject()
    editor = METHODS[name](subject)
    editor.edit(EDITS[:1])
    prompts = [tuple(subject.tokenizer(text)["input_ids"]) for text in (PROMPT, "no")]
    assert len(editor.treat(prompts)) == 2
    assert editor.treat([]) == []
