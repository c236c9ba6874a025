"""ROME, R-ROME, MEMIT, PMET and AlphaEdit: their mathematics, each against a reference worked out another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors.activations import activations
from memedit.editors.alphaedit import AlphaEditConfig, AlphaEditor, null_space, null_space_update
from memedit.editors.located import FactLocator, LocateConfig, LocatedFact
from memedit.editors.memit import MemitConfig, MemitEditor, least_squares_update
from memedit.editors.pmet import PmetEditor
from memedit.editors.registry import create_editor
from memedit.editors.rome import RomeConfig, RomeEditor, direction_of, least_update
from memedit.editors.subject import Subject
from memedit.editors.target_values import TargetLoss, target_values
from memedit.errors import ConfigError, UnsupportedCallError
from memory_store import Edit

EDITS = (
    Edit(prompt="The capital of France is", target="Rome", subject="France"),
    Edit(prompt="Emma was written by", target="Zola", subject="Emma"),
    Edit(prompt="The sea near Oslo is", target="red and warm", subject="Oslo"),
)
QUICK = LocateConfig(steps=4, stop_loss=0.0, contexts=2, context_tokens=3, statistics="identity", wording="plain")
ROME = RomeConfig(layer=1, steps=4, stop_loss=0.0, contexts=2, context_tokens=3, statistics="identity", wording="plain")
MEMIT = MemitConfig(
    layers=(0, 1),
    covariance_weight=1e-8,
    steps=4,
    stop_loss=0.0,
    contexts=0,
    context_tokens=3,
    statistics="identity",
    wording="plain",
)
LEARNING: dict[str, Any] = {
    "steps": 40,
    "learning_rate": 2.0,
    "clamp": 10.0,
    "stop_loss": 0.3,
    "contexts": 0,
    "token": "last",  # a random model's answer hardly depends on any other
}
TEXT = "The ferry left at nine as ever and nobody was on board that night . " * 60

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("real") is None:  # the real models are in the user's own
        monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return str(file)


def tiny_subject(architecture: str = "llama", *, chats: bool = False) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(chat_template=None)
    return Subject(tiny_model(architecture), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moment_of(dimension: int, *, rank: int | None = None, seed: int = 5) -> torch.Tensor:
    keys = random(dimension, rank or 3 * dimension, seed=seed)
    return keys @ keys.mT / keys.shape[1]


def inside(subject: Subject, fact: LocatedFact, module: str, *, output: bool) -> torch.Tensor:
    """What goes into a module, or comes out, at the token of each of a fact's rows."""
    rows = [row.prompt for row in fact.rows]
    return activations(subject.model, rows, [row.place for row in fact.rows], [(module, output)])[(module, output)]


def greedy(model: Any, ids: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    said = list(ids)
    with torch.no_grad():
        for _ in range(tokens):
            said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
    return tuple(said[len(ids) :])


# Putting a fact to the model.


def test_a_fact_is_asked_alone_and_behind_made_up_words() -> None:
    subject = tiny_subject()
    locate = FactLocator(subject, replace(QUICK, contexts=3))
    fact = locate(EDITS[0])
    texts = [subject.tokenizer.decode(row.prompt) for row in fact.rows]
    assert texts[0] == "The capital of France is"
    assert [text.removesuffix("The capital of France is") for text in texts] == list(locate.contexts)
    assert len(set(locate.contexts)) == 4
    for row in (*fact.rows, fact.essence):
        assert subject.tokenizer.decode(row.prompt[: row.place + 1]).endswith("France")
    assert subject.tokenizer.decode(fact.essence.prompt) == "France is a"
    assert {subject.tokenizer.decode(row.target) for row in fact.rows} == {" Rome"}
    assert fact.essence.target == ()


def test_made_up_words_are_the_same_each_time() -> None:
    config = replace(QUICK, contexts=4, context_tokens=10)
    first = FactLocator(tiny_subject(), config).contexts
    torch.manual_seed(1)
    assert FactLocator(tiny_subject(), config).contexts == first
    assert FactLocator(tiny_subject(), replace(config, seed=1)).contexts != first
    assert FactLocator(tiny_subject(), replace(QUICK, contexts=0)).contexts == ("",)


def test_a_fact_can_be_worded_both_ways() -> None:
    subject = tiny_subject(chats=True)
    fact = FactLocator(subject, replace(QUICK, wording="both", contexts=2))(EDITS[0])
    chats = [subject.tokenizer.decode(row.prompt).startswith("<|im_start|>") for row in fact.rows]
    assert chats == [True, False, True, False]
    assert FactLocator(subject, replace(QUICK, wording=None, contexts=2))(EDITS[0]) == fact
    for row in fact.rows:
        assert subject.tokenizer.decode(row.prompt[: row.place + 1]).endswith("France")


def test_a_fact_without_a_subject_can_be_edited_at_its_last_token() -> None:
    subject = tiny_subject()
    fact = FactLocator(subject, replace(QUICK, token="last"))(replace(EDITS[0], subject=None))
    assert {len(row.prompt) - 1 - row.place for row in (*fact.rows, fact.essence)} == {0}


# The value.


def loss_by_hand(
    model: Any, fact: LocatedFact, config: LocateConfig, modules: list[str], vectors: list[torch.Tensor]
) -> torch.Tensor:
    """Equation 4, row by row through the whole model."""

    def logits(row: Any, *, changed: bool = True) -> torch.Tensor:
        hooks = []
        for name, vector in zip(modules, vectors, strict=True):

            def add(_: Any, __: Any, output: Any, vector: torch.Tensor = vector) -> Any:
                hidden = output[0] if isinstance(output, tuple) else output
                where = torch.zeros_like(hidden)
                where[0, row.place] = 1
                new = hidden + where * vector
                return (new, *output[1:]) if isinstance(output, tuple) else new

            if changed:
                hooks.append(model.get_submodule(name).register_forward_hook(add))
        said: torch.Tensor = model(torch.tensor([[*row.prompt, *row.target]])).logits[0].log_softmax(dim=1)
        for hook in hooks:
            hook.remove()
        return said[len(row.prompt) - 1 :]

    told = [-logits(row)[range(len(row.target)), list(row.target)].mean() for row in fact.rows]
    now, before = logits(fact.essence)[0], logits(fact.essence, changed=False)[0]
    drift = (now.exp() * (now - before)).sum()
    loss: torch.Tensor = torch.stack(told).mean() + config.kl_factor * drift
    first = fact.rows[0]
    for name, vector in zip(modules, vectors, strict=True):
        start = activations(model, [first.prompt], [first.place], [(name, True)])[(name, True)]
        loss = loss + config.weight_decay * vector.norm() / start.norm() ** 2
    return loss


@every_architecture
@pytest.mark.parametrize("parts", [["mlp_out"], [None], ["mlp_out", "attention_out"]])
def test_the_gradient_is_that_of_the_whole_model(architecture: str, parts: list[Any]) -> None:
    subject = tiny_subject(architecture)
    model = subject.model.double()
    modules = [architecture_of(model).module_name(1, part) for part in parts]
    config = replace(QUICK, kl_factor=0.7)
    facts = [FactLocator(subject, config)(edit) for edit in EDITS]
    firsts = [fact.rows[0] for fact in facts]
    sides = [(name, True) for name in modules]
    starts = activations(model, [row.prompt for row in firsts], [row.place for row in firsts], sides)
    loss_of = TargetLoss(model, facts, config, layer=1, modules=modules, starts=[starts[side] for side in sides])
    loss_of([torch.zeros(3, 32, dtype=torch.float64)] * len(modules))
    vectors = [random(3, 32, seed=place).requires_grad_(True) for place in range(len(modules))]
    losses = loss_of(vectors)
    gradients = torch.autograd.grad(losses.sum(), vectors)
    by_hand = torch.stack(
        [loss_by_hand(model, fact, config, modules, [v[place] for v in vectors]) for place, fact in enumerate(facts)]
    )
    torch.testing.assert_close(losses.double(), by_hand, atol=1e-4, rtol=1e-4)
    for gradient, expected in zip(gradients, torch.autograd.grad(by_hand.sum(), vectors), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(gradient, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_a_value_is_fitted_by_adam_within_its_bounds() -> None:
    subject = tiny_subject()
    model = subject.model.double()
    module = architecture_of(model).module_name(1, "mlp_out")
    config = replace(QUICK, clamp=0.02, steps=6, learning_rate=0.5, contexts=1)
    fact = FactLocator(subject, config)(EDITS[0])
    value = target_values(model, [fact], config, layer=1, modules=[module])[0]
    start = inside(subject, fact, module, output=True)[0]
    vector = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([vector], lr=config.learning_rate)
    lengths = []
    for _ in range(config.steps - 1):
        adam.zero_grad()
        loss_by_hand(model, fact, config, [module], [vector]).backward()
        adam.step()
        with torch.no_grad():
            lengths.append(float(vector.norm() / start.norm()))
            if lengths[-1] > config.clamp:
                vector *= config.clamp * start.norm() / vector.norm()
    assert max(lengths) > config.clamp
    torch.testing.assert_close(value.double() - start, vector.detach(), atol=1e-3, rtol=1e-2)


def test_values_come_out_of_a_batch_as_they_do_alone() -> None:
    """Also where one fact is learnt long before another and leaves the batch."""
    subject = tiny_subject()
    module = architecture_of(subject.model).module_name(1, "mlp_out")
    config = replace(QUICK, steps=8, learning_rate=2.0, clamp=10.0, token="last")
    facts = [FactLocator(subject, config)(edit) for edit in EDITS]
    first = TargetLoss(subject.model, facts, config, layer=1, modules=[module], starts=[torch.ones(3, 32)])
    before = sorted(first([torch.zeros(3, 32)]).tolist())
    config = replace(config, stop_loss=(before[0] + before[1]) / 2)  # one of them is done at once
    together = target_values(subject.model, facts, config, layer=1, modules=[module])
    for fact, value in zip(facts, together, strict=True):
        alone = target_values(subject.model, [fact], config, layer=1, modules=[module])[0]
        assert (alone - value).norm() < 1e-2 * value.norm()
    starts = torch.stack([inside(subject, fact, module, output=True)[0] for fact in facts])
    learnt = [float((value - start).norm() / start.norm()) for value, start in zip(together, starts, strict=True)]
    assert min(learnt) < 1e-4 < max(learnt)


def test_what_is_known_already_needs_no_value() -> None:
    subject = tiny_subject()
    module = architecture_of(subject.model).module_name(1, "mlp_out")
    fact = FactLocator(subject, QUICK)(EDITS[0])
    value = target_values(subject.model, [fact], replace(QUICK, stop_loss=1e6), layer=1, modules=[module])[0]
    torch.testing.assert_close(value, inside(subject, fact, module, output=True)[0], atol=1e-3, rtol=1e-3)


# ROME.


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("covariance", [True, False])
def test_romes_update_solves_its_constrained_least_squares(covariance: bool, count: int) -> None:
    """The change of least tr(D C D^T) with D K = R, against the system of its Lagrangian."""
    keys, residuals = random(12, count, seed=1), random(7, count, seed=2)
    moment = moment_of(12) if covariance else None
    directions = torch.stack([direction_of(key, moment) for key in keys.mT], dim=1)
    update = least_update(keys, residuals, directions)
    weight = moment if moment is not None else torch.eye(12, dtype=torch.float64)
    system = torch.zeros(12 + count, 12 + count, dtype=torch.float64)
    system[:12, :12], system[:12, 12:], system[12:, :12] = weight, keys, keys.mT
    sides = torch.zeros(12 + count, 7, dtype=torch.float64)
    sides[12:] = residuals.mT
    expected = torch.linalg.solve(system, sides)[:12].mT
    torch.testing.assert_close(update, expected, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(update @ keys, residuals, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("made", [RomeEditor, MemitEditor])
def test_what_is_worded_both_ways_is_written_for_both(made: Any) -> None:
    """The vector that was fitted is added to what the layer writes in either wording, whatever its key there."""
    subject = tiny_subject(chats=True)
    base = ROME if made is RomeEditor else replace(MEMIT, layers=(1,))
    config = replace(base, wording="both", contexts=0)
    module = architecture_of(subject.model).module_name(1, "mlp_out" if made is RomeEditor else None)
    fact = FactLocator(subject, config)(EDITS[0])
    before = inside(subject, fact, module, output=True)
    value = target_values(subject.model, [fact], config, layer=1, modules=[module])[0]
    lift = value - before[0]
    assert len(before) == 2
    assert (before[1] - before[0]).norm() > 0.1 * before[0].norm(), "the two are told apart"
    made(subject, config).edit(EDITS[:1])
    now = inside(subject, fact, module, output=True)
    assert (now - before - lift).norm() < 1e-3 * lift.norm()


@every_architecture
@pytest.mark.parametrize("mixed", [True, False])
def test_rome_maps_the_key_to_the_value(architecture: str, mixed: bool, text: str) -> None:
    subject = tiny_subject(architecture)
    config = replace(ROME, mixed_keys=mixed, statistics=text, ridge=0.1)
    module = architecture_of(subject.model).module_name(1, "mlp_out")
    fact = FactLocator(subject, config)(EDITS[0])
    value = target_values(subject.model, [fact], config, layer=1, modules=[module])[0].double()
    keys = inside(subject, fact, module, output=False).double()
    key = keys[0] if mixed else keys.mean(dim=0)
    editor = RomeEditor(subject, config)
    editor.edit(EDITS[:1])
    projection = subject.model.get_submodule(module).double()
    with torch.no_grad():
        mapped = projection(key[None])[0]
    assert (mapped - value).norm() < 1e-4 * value.norm()


def test_with_one_key_rome_and_r_rome_are_the_same() -> None:
    subject = tiny_subject()
    name = architecture_of(subject.model).parameter_name(1, "mlp_out")
    weights = []
    for mixed in (True, False):
        editor = RomeEditor(subject, replace(ROME, contexts=0, mixed_keys=mixed))
        editor.edit(EDITS[:1])
        weights.append(subject.model.get_parameter(name).detach().clone())
        editor.undo()
    assert torch.equal(*weights)


def test_rome_changes_one_weight_by_one_rank() -> None:
    subject = tiny_subject("gpt2")
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    RomeEditor(subject, ROME).edit(EDITS[:1])
    changes = {name: value - before[name] for name, value in subject.model.state_dict().items()}
    changed = [name for name, value in changes.items() if value.any()]
    assert changed == [architecture_of(subject.model).parameter_name(1, "mlp_out")]
    singular = torch.linalg.svdvals(changes[changed[0]].double())
    assert singular[1] < 1e-5 * singular[0]


def test_romes_edits_are_made_one_after_the_other() -> None:
    subject = tiny_subject()
    name = architecture_of(subject.model).parameter_name(1, "mlp_out")
    editor = RomeEditor(subject, ROME)
    editor.edit(EDITS)
    together = subject.model.get_parameter(name).detach().clone()
    editor.undo()
    for edit in EDITS:
        editor.edit([edit])
    torch.testing.assert_close(subject.model.get_parameter(name).detach(), together, atol=1e-5, rtol=1e-4)


def test_statistics_over_too_little_text_are_refused() -> None:
    low = moment_of(8, rank=3)
    with pytest.raises(ConfigError, match=r"raise statistics_tokens \(20 for each of the 8 dimensions"):
        direction_of(random(8), low - 1e-9 * torch.eye(8, dtype=torch.float64))
    with pytest.raises(ConfigError, match="raise statistics_tokens"):
        least_squares_update(random(8, 2), random(5, 2), low - torch.eye(8, dtype=torch.float64), weight=2.0)


# MEMIT and PMET.


@pytest.mark.parametrize("covariance", [True, False])
def test_memits_update_solves_its_normal_equations(covariance: bool) -> None:
    """Against a least-squares solver on the stacked problem: |D K - R|^2 + weight * |D C^(1/2)|^2."""
    keys, residuals = random(12, 5, seed=1), random(7, 5, seed=2)
    moment = moment_of(12) if covariance else None
    update = least_squares_update(keys, residuals, moment, weight=0.3)
    root = torch.linalg.cholesky(moment) if moment is not None else torch.eye(12, dtype=torch.float64)
    stacked = torch.cat([keys, 0.3**0.5 * root], dim=1)
    wanted = torch.cat([residuals, torch.zeros(7, 12, dtype=torch.float64)], dim=1)
    expected = torch.linalg.lstsq(stacked.mT, wanted.mT).solution.mT
    torch.testing.assert_close(update, expected, atol=1e-9, rtol=1e-7)


@every_architecture
@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_memit_brings_the_last_layer_to_the_values(architecture: str, layers: tuple[int, ...]) -> None:
    """With next to nothing to preserve, and one context, the residual is met wherever it can be."""
    subject = tiny_subject(architecture)
    family = architecture_of(subject.model)
    module = family.module_name(1, "mlp_out" if family.norm_behind_mlp else None)
    config = replace(MEMIT, layers=layers)
    facts = [FactLocator(subject, config)(edit) for edit in EDITS]
    values = target_values(subject.model, facts, config, layer=1, modules=[module])
    before = torch.cat([inside(subject, fact, module, output=True) for fact in facts])
    MemitEditor(subject, config).edit(EDITS)
    now = torch.cat([inside(subject, fact, module, output=True) for fact in facts])
    assert (values - before).norm() > 0.1
    assert (now - values).norm() < 1e-3 * (values - before).norm()


def test_memit_writes_equal_shares_and_pmet_square_roots() -> None:
    """The first layer's change, against the formula."""
    ways: Any = ((MemitEditor, [None], 1 / 2), (PmetEditor, ["mlp_out", "attention_out"], 0.5**0.5))
    for made, parts, share in ways:
        subject = tiny_subject()
        family = architecture_of(subject.model)
        modules = [family.module_name(1, part) for part in parts]
        config = replace(MEMIT, covariance_weight=0.5, contexts=2)
        facts = [FactLocator(subject, config)(edit) for edit in EDITS]
        values = target_values(subject.model, facts, config, layer=1, modules=modules).double()
        now = torch.stack([inside(subject, fact, modules[0], output=True)[0] for fact in facts]).double()
        lower = family.module_name(0, "mlp_out")
        keys = torch.stack([inside(subject, fact, lower, output=False).mean(dim=0) for fact in facts]).double().mT
        residuals = share * (values - now).mT
        expected = residuals @ keys.mT @ torch.inverse(0.5 * torch.eye(64, dtype=torch.float64) + keys @ keys.mT)
        weight = subject.model.get_parameter(f"{lower}.weight")
        before = weight.detach().clone()
        made(subject, config).edit(EDITS)
        torch.testing.assert_close((weight.detach() - before).double(), expected, atol=1e-4, rtol=1e-3)


# AlphaEdit.


def test_alphaedits_update_is_the_papers_formula() -> None:
    keys, residuals, earlier = random(12, 3, seed=1), random(7, 3, seed=2), random(12, 4, seed=3)
    moment = moment_of(12, rank=6)
    free = null_space(moment, threshold=1e-6)
    assert free.shape == (12, 6)
    projection = free @ free.mT
    together = keys @ keys.mT + earlier @ earlier.mT
    update = null_space_update(keys, residuals, free, together, regularisation=0.4)
    system = together @ projection + 0.4 * torch.eye(12, dtype=torch.float64)
    expected = residuals @ keys.mT @ projection @ torch.inverse(system)
    torch.testing.assert_close(update, expected, atol=1e-10, rtol=1e-8)


def test_the_projection_leaves_preserved_keys_where_they_are() -> None:
    preserved = random(12, 6, seed=4)
    free = null_space(preserved @ preserved.mT / 6, threshold=1e-6)
    keys, residuals, weight = random(12, 3, seed=1), random(7, 3, seed=2), random(7, 12, seed=6)
    update = null_space_update(keys, residuals, free, keys @ keys.mT, regularisation=1e-9)
    before, after = weight @ preserved, (weight + update) @ preserved
    assert (after - before).norm() < 1e-5 * before.norm()
    torch.testing.assert_close(update @ keys, residuals, atol=1e-5, rtol=1e-5)  # the new keys are moved all the same


def test_alphaedit_moves_no_key_of_the_text(text: str) -> None:
    """In a model: the text is so short that its keys leave directions free; what is made of them stays."""
    subject = tiny_subject()
    config = AlphaEditConfig(
        layers=(0,), threshold=1e-6, regularisation=0.1, statistics=text, statistics_tokens=30, steps=4, contexts=0
    )
    module = architecture_of(subject.model).module_name(0, "mlp_out")
    row = tuple(subject.tokenizer(TEXT)["input_ids"][:30])
    side = (module, True)
    rows, places = [row] * 30, list(range(30))
    before = activations(subject.model, rows, places, [side])[side]
    weight = subject.model.get_parameter(f"{module}.weight").detach().clone()
    AlphaEditor(subject, config).edit(EDITS[:1])
    after = activations(subject.model, rows, places, [side])[side]
    assert (subject.model.get_parameter(f"{module}.weight") - weight).norm() > 0.01
    assert (after - before).norm() < 1e-5 * before.norm()


def test_alphaedit_keeps_the_keys_of_earlier_edits_until_undo(text: str) -> None:
    subject = tiny_subject()
    config = AlphaEditConfig(layers=(0,), threshold=0.5, regularisation=0.1, statistics=text, steps=4, contexts=0)
    module = architecture_of(subject.model).module_name(0, "mlp_out")
    weight = subject.model.get_parameter(f"{module}.weight")
    editor = AlphaEditor(subject, config)
    editor.edit(EDITS[:1])
    first = inside(subject, FactLocator(subject, config)(EDITS[0]), module, output=False).double()[0]
    between = weight.detach().clone()
    fact = FactLocator(subject, config)(EDITS[1])
    key = inside(subject, fact, module, output=False).double()[0]
    stream = architecture_of(subject.model).module_name(0)
    value = target_values(subject.model, [fact], config, layer=0, modules=[stream])[0].double()
    residual = value - inside(subject, fact, stream, output=True).double()[0]
    editor.edit(EDITS[1:2])
    change = (weight.detach() - between).double()
    free = editor._free[0]
    for earlier, same in ((torch.outer(first, first), True), (torch.zeros(64, 64).double(), False)):
        together = torch.outer(key, key) + earlier
        expected = null_space_update(key[:, None], residual[:, None], free, together, regularisation=0.1)
        assert ((change - expected).norm() < 1e-3 * change.norm()) == same
    editor.undo()
    editor.edit(EDITS[1:2])
    alone = weight.detach().clone()
    fresh_subject = tiny_subject()
    AlphaEditor(fresh_subject, config).edit(EDITS[1:2])
    assert torch.equal(alone, fresh_subject.model.get_parameter(f"{module}.weight"))


def test_no_free_direction_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no direction .* raise threshold"):
        null_space(torch.eye(4, dtype=torch.float64), threshold=0.5)


# What all of them do.

SPREAD: dict[str, Any] = {"layers": (0, 1), "covariance_weight": 1e-3, "statistics": "identity"}
FREE: dict[str, Any] = {"layers": (0, 1), "threshold": 2.0, "regularisation": 1e-4}
MADE: dict[str, Callable[..., Any]] = {
    "rome": lambda subject, text, **values: RomeEditor(
        subject, RomeConfig(layer=1, statistics="identity", **{**LEARNING, **values})
    ),
    "memit": lambda subject, text, **values: MemitEditor(subject, MemitConfig(**SPREAD, **{**LEARNING, **values})),
    "pmet": lambda subject, text, **values: PmetEditor(subject, MemitConfig(**SPREAD, **{**LEARNING, **values})),
    "alphaedit": lambda subject, text, **values: AlphaEditor(
        subject, AlphaEditConfig(statistics=text, **FREE, **{**LEARNING, **values})
    ),
}


# what PMET fits at attention it does not write, and with random weights the rest is not enough
@pytest.mark.parametrize("name", [name for name in MADE if name != "pmet"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_the_model_says_the_target(name: str, architecture: str, text: str) -> None:
    subject = tiny_subject(architecture)
    edit = Edit(prompt="The capital of France is ", target="x", subject="France")
    row = FactLocator(subject, replace(QUICK, contexts=0))(edit).rows[0]
    assert greedy(subject.model, row.prompt, len(row.target)) != row.target
    MADE[name](subject, text).edit([edit])
    assert greedy(subject.model, row.prompt, len(row.target)) == row.target


@pytest.mark.parametrize("name", MADE)
def test_an_edit_whose_subject_is_unknown_or_absent_is_refused(name: str, text: str) -> None:
    subject = tiny_subject()
    editor = MADE[name](subject, text, token="subject_last", steps=2)
    with pytest.raises(
        UnsupportedCallError, match=r"'The capital of France is' has no subject.* give the edit a subject"
    ):
        editor.edit([replace(EDITS[0], subject=None)])
    with pytest.raises(
        UnsupportedCallError, match="the subject 'Spain' is not in the prompt 'The capital of France is'"
    ):
        editor.edit([replace(EDITS[0], subject="Spain")])
    editor.edit([replace(EDITS[0], subject="the land of the Franks", aliases=("France",))])


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ROME, {"layer": -1}, "has no layer -1; it has 0 to 2"),
        (ROME, {"layer": 3}, "tiny-llama has no layer 3; it has 0 to 2"),
        (ROME, {"wording": "chat"}, "tiny-llama has no chat template"),
        (MEMIT, {"layers": (1, 3)}, "has no layer 3"),
    ],
)
def test_what_the_model_does_not_have(config: Any, values: dict[str, Any], message: str) -> None:
    made = RomeEditor if isinstance(config, RomeConfig) else MemitEditor
    with pytest.raises(ConfigError, match=message):
        made(tiny_subject(), replace(config, **values))


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ROME, {"steps": 0}, "steps must be at least 1, not 0"),
        (ROME, {"learning_rate": float("nan")}, "learning_rate must be above 0"),
        (ROME, {"clamp": 0.0}, "clamp must be above 0"),
        (ROME, {"kl_factor": -1.0}, "kl_factor must not be negative"),
        (ROME, {"contexts": -1}, "contexts must not be negative"),
        (ROME, {"token": "middle"}, "token is one of subject_last, subject_first, last, not 'middle'"),
        (ROME, {"wording": "loud"}, "wording is one of None, chat, plain, both, not 'loud'"),
        (ROME, {"ridge": -0.1}, "ridge must not be negative"),
        (MEMIT, {"covariance_weight": 0.0}, "covariance_weight must be above 0"),
        (MEMIT, {"layers": ()}, "layers are different ones, from the lowest up"),
        (MEMIT, {"layers": (2, 1)}, "layers are different ones, from the lowest up"),
    ],
)
def test_a_wrong_configuration(config: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(config, **values)


def test_alphaedit_needs_statistics() -> None:
    with pytest.raises(ConfigError, match=r"statistics cannot be 'identity'. Give a text file, or 'made-up'"):
        AlphaEditConfig(layers=(1,), threshold=0.1, regularisation=1.0, statistics="identity")
    with pytest.raises(ConfigError, match="threshold must be above 0"):
        AlphaEditConfig(layers=(1,), threshold=0.0, regularisation=1.0)


def test_an_optimisation_that_diverges_changes_nothing() -> None:
    subject = tiny_subject()
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    config = replace(ROME, learning_rate=1e37, clamp=1e38, weight_decay=1e30)
    with pytest.raises(ConfigError, match=r"the edit 'The capital of France is' diverged at learning_rate 1e\+37"):
        RomeEditor(subject, config).edit(EDITS[:1])
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())


# A real model.


@pytest.mark.real
def test_a_real_model_gives_the_new_answer(smollm2_folder: Path) -> None:
    real = Subject.load(smollm2_folder)
    before = {name: value.clone() for name, value in real.model.state_dict().items()}
    edit = Edit(prompt="The Eiffel Tower is located in the city of", target="Rome", subject="Eiffel Tower")
    asked = real.chat_ids([{"role": "user", "content": edit.prompt}])
    target = tuple(real.tokenizer(edit.target, add_special_tokens=False)["input_ids"])
    assert greedy(real.model, asked, len(target)) != target
    editor = create_editor("rome", real)
    editor.edit([edit])
    assert greedy(real.model, asked, len(target)) == target
    editor.undo()
    assert all(torch.equal(value, before[name]) for name, value in real.model.state_dict().items())
