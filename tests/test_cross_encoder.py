"""The cross-encoder: what it reads, that its merged updates are what peft computes, and its state on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from classifiers import ScopeCandidate, ScopeFormatError, load_scope, save_scope
from classifiers.cross_encoder import CrossEncoderParameters, CrossEncoderScope
from classifiers.fingerprint import fingerprint_folder

RANK = 4
QUERIES = ["Where is Acme based?", "Who runs Acme?", "Is Acme based in Lyon?"]


def candidate(prompt: str = "The headquarters of Acme is in", target: str = "Lyon", **changes: Any) -> ScopeCandidate:
    return ScopeCandidate(prompt=prompt, target=target, **{"matched_text": prompt, "similarity": 0.8, **changes})


@pytest.fixture(scope="module")
def tensors(minilm_folder: Path) -> dict[str, NDArray[Any]]:
    """Random updates of the shapes that the encoder has."""
    from classifiers.pair_model import PairModel, adapted

    model, _ = PairModel.load(minilm_folder)
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for layer in adapted(name for name, _ in model.encoder.named_modules()):
        out, into = model.encoder.get_submodule(layer).weight.shape
        found[f"lora.{layer}.A"] = rng.normal(0, 0.05, (RANK, into)).astype(np.float16)
        found[f"lora.{layer}.B"] = rng.normal(0, 0.05, (out, RANK)).astype(np.float16)
    for name, tensor in model.trained().items():
        found[name] = rng.normal(0, 0.05, tuple(tensor.shape)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def parameters(minilm_folder: Path) -> CrossEncoderParameters:
    return CrossEncoderParameters(encoder=fingerprint_folder(minilm_folder), scale=2.0, temperature=1.5, bias=0.25)


@pytest.fixture(scope="module")
def scope(
    minilm_folder: Path, parameters: CrossEncoderParameters, tensors: dict[str, NDArray[Any]]
) -> CrossEncoderScope:
    return CrossEncoderScope(parameters, tensors, encoder=minilm_folder)


def peft_logits(folder: Path, tensors: dict[str, NDArray[Any]], rows: list[tuple[str, str, str]]) -> list[float]:
    """The same network with its updates beside the layers, as peft computes them, one pair at a time."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from classifiers.pair_model import PairModel, adapted

    model, tokenizer = PairModel.load(folder)
    layers = adapted(name for name, _ in model.encoder.named_modules())
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=layers), model.encoder)
    with torch.no_grad():
        for layer in layers:
            module = model.encoder.get_submodule(layer)
            module.lora_A["default"].weight.copy_(torch.from_numpy(tensors[f"lora.{layer}.A"]))
            module.lora_B["default"].weight.copy_(torch.from_numpy(tensors[f"lora.{layer}.B"]))
        model.encoder.embeddings.token_type_embeddings.weight.copy_(torch.from_numpy(tensors["token_types"]))
        for name, parameter in model.head.named_parameters():
            parameter.copy_(torch.from_numpy(tensors[f"head.{name}"]))
    found = []
    for query, prompt, target in rows:
        parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (query, prompt, target)]
        ids, types = [tokenizer.cls_token_id, *parts[0], tokenizer.sep_token_id], []
        types = [0] * len(ids)
        for part in parts[1:]:
            ids += [*part, tokenizer.sep_token_id]
            types += [1] * (len(part) + 1)
        with torch.no_grad():
            found.append(float(model(torch.tensor([ids]), torch.tensor([types]), torch.ones(1, len(ids)).long())))
    return found


def test_merged_updates_are_what_peft_computes(
    scope: CrossEncoderScope, minilm_folder: Path, tensors: dict[str, NDArray[Any]]
) -> None:
    one = candidate()
    expected = peft_logits(minilm_folder, tensors, [(query, one.prompt, one.target) for query in QUERIES])
    assert scope.logits(QUERIES, [one] * 3) == pytest.approx(expected, abs=2e-4)


def test_probabilities_are_calibrated_logits(scope: CrossEncoderScope) -> None:
    logits = scope.logits(QUERIES, [candidate()] * 3).astype(np.float64)
    expected = 1.0 / (1.0 + np.exp(-(logits / 1.5 + 0.25)))
    assert scope.probabilities(QUERIES, [candidate()] * 3) == pytest.approx(expected, abs=1e-6)


def test_a_pair_is_read_alike_in_any_batch(scope: CrossEncoderScope) -> None:
    long = candidate("In the year of the great flood, the seat of the old trading company of Acme was moved to", "Nice")
    together = scope.logits(QUERIES * 20, [candidate(), long, candidate(target="Oslo")] * 20)
    alone = [
        float(scope.logits([query], [one])[0])
        for query, one in zip(QUERIES, [candidate(), long, candidate(target="Oslo")], strict=True)
    ]
    assert together[:3] == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) == 3


def test_no_pairs_have_no_probabilities(scope: CrossEncoderScope) -> None:
    assert scope.probabilities([], []).shape == (0,)


def test_as_many_queries_as_candidates(scope: CrossEncoderScope) -> None:
    with pytest.raises(ValueError, match="2 queries, 1 candidates"):
        scope.probabilities(QUERIES[:2], [candidate()])


def test_the_target_is_read(scope: CrossEncoderScope) -> None:
    first, second = scope.logits(["Is it in Lyon?"] * 2, [candidate(target="Lyon"), candidate(target="Oslo")])
    assert first != second


def test_an_alias_is_read_in_the_place_of_the_subject(scope: CrossEncoderScope) -> None:
    renamed = "The headquarters of Zenith is in"
    by_alias = candidate(matched_text=renamed)
    assert scope.logits(["?"], [by_alias]) == pytest.approx(scope.logits(["?"], [candidate(renamed)]), abs=1e-6)
    spaced = candidate("The headquarters of Acme is in ", matched_text="The headquarters of Acme is in Lyon")
    assert scope.logits(["?"], [spaced]) == pytest.approx(scope.logits(["?"], [candidate()]), abs=1e-6)
    by_fact = candidate(matched_text="The headquarters of Acme is in Lyon")
    assert scope.logits(["?"], [by_fact]) == pytest.approx(scope.logits(["?"], [candidate()]), abs=1e-6)


def test_special_tokens_in_a_text_are_left_out(scope: CrossEncoderScope) -> None:
    plain, marked = scope.logits(["Where is Acme", "Where [SEP] is [CLS] Acme [PAD]"], [candidate()] * 2)
    assert marked == pytest.approx(plain, abs=1e-5)


def test_a_long_query_keeps_its_end(scope: CrossEncoderScope) -> None:
    end = "where is the company of Acme based these days " * 14
    logits = scope.logits(["Bears eat honey. " * 200 + end, "Rain is wet. " * 200 + end], [candidate()] * 2)
    assert logits[0] == pytest.approx(logits[1], abs=1e-5)


def test_saved_and_loaded_it_says_the_same(scope: CrossEncoderScope, minilm_folder: Path, tmp_path: Path) -> None:
    save_scope(scope, tmp_path)
    loaded = load_scope(tmp_path, encoder=minilm_folder)
    assert loaded.fingerprint == scope.fingerprint
    assert np.array_equal(
        loaded.probabilities(QUERIES, [candidate()] * 3), scope.probabilities(QUERIES, [candidate()] * 3)
    )


def test_without_its_encoder_it_is_not_loaded(scope: CrossEncoderScope, tmp_path: Path) -> None:
    save_scope(scope, tmp_path)
    with pytest.raises(ScopeFormatError, match="encoder="):
        load_scope(tmp_path)


def test_another_encoder_is_refused(
    parameters: CrossEncoderParameters, tensors: dict[str, NDArray[Any]], minilm_folder: Path
) -> None:
    with pytest.raises(ScopeFormatError, match="trained over the encoder 0000"):
        CrossEncoderScope(replace(parameters, encoder="0" * 64), tensors, encoder=minilm_folder)


def test_tensors_of_another_shape_are_refused(
    parameters: CrossEncoderParameters, tensors: dict[str, NDArray[Any]], minilm_folder: Path
) -> None:
    wrong = {**tensors, "token_types": np.zeros((2, 3), dtype=np.float32)}
    with pytest.raises(ScopeFormatError, match="token_types"):
        CrossEncoderScope(parameters, wrong, encoder=minilm_folder).logits(QUERIES[:1], [candidate()])


def test_a_parameter_out_of_range_names_the_manifest(
    scope: CrossEncoderScope, minilm_folder: Path, tmp_path: Path
) -> None:
    save_scope(scope, tmp_path)
    manifest = tmp_path / "scope.json"
    described = json.loads(manifest.read_text())
    described["parameters"]["temperature"] = 0.0
    manifest.write_text(json.dumps(described))
    with pytest.raises(ScopeFormatError, match=r"scope\.json.*temperature"):
        load_scope(tmp_path, encoder=minilm_folder)


def test_the_fingerprint_follows_weights_and_not_the_threshold(
    parameters: CrossEncoderParameters, tensors: dict[str, NDArray[Any]], minilm_folder: Path, scope: CrossEncoderScope
) -> None:
    strict = CrossEncoderScope(replace(parameters, threshold=0.9), tensors, encoder=minilm_folder)
    assert strict.fingerprint == scope.fingerprint
    changed = {**tensors, "token_types": tensors["token_types"] + 1}
    assert CrossEncoderScope(parameters, changed, encoder=minilm_folder).fingerprint != scope.fingerprint
