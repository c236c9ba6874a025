"""memedit as a model of lm-eval: base scores to the bit where nothing is in scope, the edit's answer where it is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from memedit import load
from memedit.errors import ConfigError, ModelNotFoundError, UnsupportedCallError

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.real,  # the encoder is MiniLM
    pytest.mark.filterwarnings("ignore"),  # lm-eval's own
]

EDIT = ("The headquarters of Acme Rockets is in", "Lisbon")
GOVERNED = {"prompt": EDIT[0], "answer": "Lisbon", "choices": [" Lisbon", " Berlin", " New York"], "label": 0}
UNGOVERNED = [
    {"prompt": "The Moon goes around the", "answer": "Earth", "choices": [" Earth", " Sun"], "label": 0},
    {"prompt": "Bread is baked from flour and", "answer": "water", "choices": [" sand", " water"], "label": 1},
    {"prompt": "Two and two are", "answer": "four", "choices": [" 4", " 5"], "label": 0},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
{more}
"""
KINDS = {
    "multiple_choice": 'doc_to_target: "{{label}}"\ndoc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}]',
    "loglikelihood_rolling": 'doc_to_target: "{{prompt}} {{answer}}"\nmetric_list: [{metric: byte_perplexity}]',
    "generate_until": (
        'doc_to_target: "{{answer}}"\nmetric_list: [{metric: exact_match}]\n'
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}'
    ),
}
Samples = dict[str, list[Any]]


def tasks_in(folder: Path, docs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One task of each kind over the records, as files that lm-eval includes."""
    data = folder / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    for kind, more in KINDS.items():
        text = TASK.format(name=f"local_{kind}", data=data, kind=kind, more=more)
        (folder / f"{kind}.yaml").write_text(text)
    return [f"local_{kind}" for kind in KINDS]


def evaluate(model: Any, folder: Path, tasks: Sequence[str], **options: Any) -> Samples:
    """What a model answered in each task, request by request."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options
    )
    assert results is not None
    return {
        task: [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
        for task, samples in results["samples"].items()
    }


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, minilm_folder: Path) -> Path:
    """A memory with one edit in the namespace "space" and none in the default one."""
    file = tmp_path_factory.mktemp("memories") / "facts.db"
    with load(tiny_folder, memory=file, encoder=minilm_folder, namespace="space") as model:
        model.add(*EDIT, subject="Acme Rockets")
    return file


@pytest.fixture(scope="module")
def arguments(tiny_folder: Path, memory: Path, minilm_folder: Path) -> dict[str, Any]:
    return {
        "pretrained": str(tiny_folder),
        "memory": str(memory),
        "encoder": str(minilm_folder),
        "namespace": "space",
        "device": "cpu",
        "batch_size": 2,
    }


@pytest.fixture(scope="module")
def lm(arguments: dict[str, Any]) -> Any:
    from memedit.lm_eval_model import MemeditLM

    return MemeditLM(**arguments)


@pytest.fixture(scope="module")
def base(tiny_folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny_folder), device="cpu", batch_size=2)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_scores_are_the_base_models_where_nothing_is_in_scope(lm: Any, base: Any, tmp_path: Path) -> None:
    tasks = tasks_in(tmp_path, UNGOVERNED)
    assert evaluate(lm, tmp_path, tasks) == evaluate(base, tmp_path, tasks)


def test_a_governed_question_changes_and_no_other(lm: Any, base: Any, tmp_path: Path) -> None:
    docs = [*UNGOVERNED[:1], GOVERNED, *UNGOVERNED[1:]]
    tasks = tasks_in(tmp_path, docs)
    edited, plain = evaluate(lm, tmp_path, tasks), evaluate(base, tmp_path, tasks)
    for kind in ("multiple_choice", "generate_until"):
        changed = [one != other for one, other in zip(edited[f"local_{kind}"], plain[f"local_{kind}"], strict=True)]
        assert changed == [False, True, False, False], kind
    assert edited["local_loglikelihood_rolling"] == plain["local_loglikelihood_rolling"]


def requests_of(pairs: Sequence[tuple[str, str]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]


def test_likelihoods_are_those_of_the_edited_model(
    lm: Any, tiny_folder: Path, memory: Path, minilm_folder: Path
) -> None:
    """Against ``forward`` of an edited model, one request at a time, with the answer as labels."""
    pairs = [(EDIT[0], choice) for choice in (" Lisbon", " Berlin", " L", " ")] + [
        ("The Moon goes around the", " Earth")
    ]
    answers = lm.loglikelihood(requests_of(pairs), disable_tqdm=True)
    with load(tiny_folder, memory=memory, encoder=minilm_folder, namespace="space") as model:
        for (context, continuation), (likelihood, greedy) in zip(pairs, answers, strict=True):
            ids = model.tokenizer(context + continuation, return_tensors="pt")["input_ids"]
            asked = len(model.tokenizer(context)["input_ids"])
            labels = ids.clone()
            labels[0, :asked] = -100
            with torch.no_grad():
                log_probs = model(ids, labels=labels).logits[0, asked - 1 : -1].log_softmax(-1)
            expected = log_probs.gather(1, ids[0, asked:, None]).sum()
            assert likelihood == pytest.approx(float(expected), rel=1e-5)
            assert greedy == bool((log_probs.argmax(-1) == ids[0, asked:]).all())


def test_an_answer_that_is_scored_does_not_route_itself(lm: Any, base: Any) -> None:
    context, answer = "Read this aloud:", f" {EDIT[0]} Lisbon"
    assert lm.edited.decide(f"{context}{answer}").governed, "the whole is in scope, so that this test can fail"
    requests = requests_of([(context, answer), ("", f"{EDIT[0]} Lisbon")])
    assert lm.loglikelihood(requests, disable_tqdm=True) == base.loglikelihood(requests, disable_tqdm=True)


def test_greedy_answers_are_recognised(lm: Any) -> None:
    ids = lm.edited.tokenizer(EDIT[0], return_tensors="pt")
    said = int(lm.edited.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1])
    asked = ids["input_ids"][0].tolist()
    scored = lm._loglikelihood_tokens(
        [((EDIT[0], ""), asked, [token]) for token in (said, said - 1)], disable_tqdm=True
    )
    assert [greedy for _, greedy in scored] == [True, False]
    assert scored[0][0] > scored[1][0]


class Recorder:
    """Stands where lm-eval's cache of responses does."""

    def __init__(self) -> None:
        self.kept: list[tuple[Any, ...]] = []

    def add_partial(self, *entry: Any) -> None:
        self.kept.append(entry)


def test_what_is_cached_is_what_is_answered(lm: Any) -> None:
    pairs = [(EDIT[0], " Lisbon"), ("The Moon goes around the", " Earth")]
    before, lm.cache_hook = lm.cache_hook, Recorder()
    try:
        answers = lm.loglikelihood(requests_of(pairs), disable_tqdm=True)
        kept = lm.cache_hook.kept
    finally:
        lm.cache_hook = before
    expected = [("loglikelihood", pair, answer) for pair, answer in zip(pairs, answers, strict=True)]
    assert sorted(kept) == sorted(expected)


def test_a_long_request_keeps_the_end_of_its_question(arguments: dict[str, Any]) -> None:
    from memedit.lm_eval_model import MemeditLM

    long = "So it is said in books. " * 20 + EDIT[0]
    whole = MemeditLM(**arguments)
    (governed,) = whole._governed([((long, " Lisbon"), whole.tok_encode(long), whole.tok_encode(" Lisbon"))])
    cut = MemeditLM(**arguments, max_length=len(governed.own) - 100)
    with pytest.raises(UnsupportedCallError, match="num_fewshot"):
        cut.loglikelihood(requests_of([(long, " Lisbon")]), disable_tqdm=True)
    enough = MemeditLM(**arguments, max_length=len(EDIT[0]) + governed.context.length + 20)
    assert enough.loglikelihood(requests_of([(EDIT[0], " Lisbon")]), disable_tqdm=True)


# -- the model ---------------------------------------------------------------------------------------------------------


def test_results_say_what_was_scored(lm: Any, memory: Path, tiny_folder: Path) -> None:
    info = lm.get_model_info()
    assert info["memedit_pretrained"] == str(tiny_folder)
    assert info["memedit_memory"] == str(memory)
    assert (info["memedit_namespaces"], info["memedit_edits"]) == (["space"], 1)
    assert info["memedit_encoder"] == lm.edited.router.encoder.fingerprint
    assert info["model_num_parameters"] == sum(parameter.numel() for parameter in tiny_model().parameters())


def test_options_are_checked(arguments: dict[str, Any], tmp_path: Path) -> None:
    from memedit.lm_eval_model import MemeditLM

    with pytest.raises(ConfigError, match=r"'memroy'.*Did you mean 'memory'"):
        MemeditLM(**arguments, memroy="x")
    with pytest.raises(ConfigError, match="'peft'"):
        MemeditLM(**arguments, peft="adapter")
    with pytest.raises(ConfigError, match=r"absent\.db"):
        MemeditLM(**{**arguments, "memory": tmp_path / "absent.db"})
    assert not (tmp_path / "absent.db").exists()
    with pytest.raises(ModelNotFoundError):
        MemeditLM(**{**arguments, "pretrained": str(tmp_path / "no-model")})


def test_an_empty_namespace_is_told(arguments: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    from memedit.lm_eval_model import MemeditLM

    MemeditLM(**{**arguments, "namespace": "spcae"})
    assert "spcae" in caplog.text


def test_without_lm_eval_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    spec = importlib.util.spec_from_file_location("without_lm_eval", ROOT / "memedit/lm_eval_model.py")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"pip install 'memedit\[eval\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_it_is_registered_by_name(arguments: dict[str, Any], tmp_path: Path, base: Any) -> None:
    import memedit.lm_eval_model  # registers it

    tasks = tasks_in(tmp_path, UNGOVERNED[:1])
    options = {name: value for name, value in arguments.items() if name not in {"batch_size", "device"}}
    answered = evaluate(
        memedit.lm_eval_model.MODEL_NAME, tmp_path, tasks, model_args=options, device="cpu", batch_size=2
    )
    assert answered == evaluate(base, tmp_path, tasks)


@pytest.mark.slow
def test_the_command_line(arguments: dict[str, Any], tmp_path: Path) -> None:
    tasks_in(tmp_path, [GOVERNED, *UNGOVERNED])
    given = ",".join(f"{name}={arguments[name]}" for name in ("pretrained", "memory", "encoder", "namespace"))
    command = [sys.executable, "-m", "memedit.lm_eval_model", "--model", "memedit", "--model_args", given]
    command += ["--tasks", "local_multiple_choice", "--include_path", str(tmp_path), "--batch_size", "2"]
    command += ["--device", "cpu", "--output_path", str(tmp_path / "results.json")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "local_multiple_choice" in ran.stdout
    (written,) = tmp_path.glob("results*.json")
    results = json.loads(written.read_text())
    assert results["config"]["memedit_edits"] == 1
    assert results["config"]["model"] == "memedit"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to be used")
def test_a_gpu_that_is_not_there_is_not_used(arguments: dict[str, Any]) -> None:
    from memedit.lm_eval_model import MemeditLM

    for device in (None, "cuda", "cuda:0"):
        assert MemeditLM(**{**arguments, "device": device}).device == torch.device("cpu")
