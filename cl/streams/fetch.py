"""Getting data files: checked, atomic, resumed where they were cut, and unpacked without trusting the archive."""

import contextlib
import gzip
import hashlib
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO

from filelock import FileLock

from cl.errors import DataError
from cl.files import atomic_path

CHUNK = 1 << 20


class NoPlace(DataError):
    """A folder cannot be made or written."""


def checksum(path: Path, algorithm: str = "md5") -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, algorithm).hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file, algorithm)
        )


def _digest(file: IO[bytes], algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def fetch(urls: Sequence[str], target: Path, md5: str | None, timeout: float = 30.0) -> Path:
    """Download the first url that works to `target`, unless it is there already with the right checksum.

    The bytes go to ``target.part``; a download that was cut goes on from there by an HTTP Range request. The file gets
    its name only when it is whole and its checksum is right.

    Args:
        urls: mirrors, best first.
        target: the file to make.
        md5: its checksum, or None where none is known.
        timeout: seconds without an answer before a mirror is given up.

    Raises:
        DataError: no mirror could be reached, or what they sent has a wrong checksum.
    """
    with alone(target):
        return _fetch(urls, target, md5, timeout)


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process at a time make a file, so that the jobs of a sweep do not all fetch or decode it.

    Raises:
        NoPlace: the folder cannot be made or written.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise NoPlace(f"Expected a folder that can be written for {target}, got {error}; set data.root") from error
    try:
        yield
    finally:
        lock.release()


def _fetch(urls: Sequence[str], target: Path, md5: str | None, timeout: float) -> Path:
    if target.exists() and (md5 is None or checksum(target) == md5):
        return target
    part = target.with_name(target.name + ".part")
    reasons: list[str] = []
    for url in urls:
        print(f"fetching {url}", file=sys.stderr, flush=True)
        try:
            _download(url, part, timeout)
        except (urllib.error.URLError, HTTPException, OSError) as error:
            reasons.append(f"{url}: {error}")
            continue
        if md5 is not None and (found := checksum(part)) != md5:
            part.unlink()
            reasons.append(f"{url}: md5 {found} instead of {md5}")
            continue
        part.replace(target)
        return target
    raise DataError(
        f"Expected to fetch {target.name}, got {'; '.join(reasons)}. Without a network, download it elsewhere from "
        f"{urls[0]} and put it at {target}"
    )


def _download(url: str, part: Path, timeout: float) -> None:
    """Bring `part` to the full content of `url`, going on where it ends."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "lethe", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
            resumed = done > 0 and answer.status == 206
            expected = int(answer.headers.get("Content-Length", -1))
            with part.open("ab" if resumed else "wb") as file:
                start = file.tell()
                shutil.copyfileobj(answer, file, CHUNK)
                got = file.tell() - start
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to send: the part is whole, or it is of another file
            return
        raise
    if expected >= 0 and got < expected:
        raise OSError(f"the connection was cut after {got} of {expected} bytes")


def unpack_gzip(archive: Path, target: Path) -> Path:
    """Unpack a .gz file to `target`, whole or not at all.

    Raises:
        DataError: the archive is corrupt.
    """
    if target.exists():
        return target
    try:
        with gzip.open(archive) as packed, atomic_path(target) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(packed, file, CHUNK)
    except (OSError, EOFError) as error:
        raise DataError(f"Expected a whole gzip archive in {archive}, got {error}; delete it and try again") from error
    return target


def open_zip(archive: Path) -> zipfile.ZipFile:
    """Open a zip archive and refuse one that is corrupt or that names files outside itself.

    Raises:
        DataError: the archive is missing, is not a zip file, or a member's path is absolute or climbs out by "..".
    """
    try:
        opened = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"Expected a zip archive in {archive}, got {error}; fetch the file again") from error
    for name in opened.namelist():
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            opened.close()
            raise DataError(f"Expected {archive} to hold paths inside itself, got {name!r}; the archive is not safe")
    return opened


def unpack_zip_member(archive: Path, member: str, target: Path) -> Path:
    """Unpack one member of a zip archive to `target`, whole or not at all.

    Raises:
        DataError: the archive or the member is missing or corrupt.
    """
    with open_zip(archive) as opened:
        try:
            with opened.open(member) as packed, atomic_path(target) as temporary, temporary.open("wb") as file:
                shutil.copyfileobj(packed, file, CHUNK)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"Expected {member} in {archive}, got {error}; fetch the archive again") from error
    return target
