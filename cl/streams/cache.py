"""Decoded data sets: one file of tensors, checked, memory-mapped, written whole or not at all."""

import contextlib
import hashlib
import os
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl.files import atomic_path
from cl.streams.fetch import NoPlace, alone

FORMAT = 2  # 1: images of 16 bits a pixel were white


def cache_folder() -> Path:
    """Return the folder of decoded data sets: LETHE_CACHE, or a folder in the user's cache."""
    given = os.environ.get("LETHE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "lethe" / "decoded"


def decoded(
    name: str, spec: Sequence[Any], files: Sequence[Path], build: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what `build` returns, from the cache where it is there and sound.

    Args:
        name: for the file's name.
        spec: everything the result depends on, besides the files.
        files: what it was decoded from; a change of size or time of one of them makes the cached copy stale.
        build: returns a dictionary of tensors and plain values.

    Returns:
        the dictionary; tensors are memory-mapped, so that all processes share them.
    """
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr((FORMAT, list(spec), stamps)).encode()).hexdigest()[:16]
    target = cache_folder() / f"{name}-{key}.pt"
    found = _read(target)
    if found is not None:
        return found
    try:
        with alone(target):
            found = _read(target)  # another process may have made it meanwhile
            return found if found is not None else _kept(target, build())
    except NoPlace:
        return build()


def _kept(target: Path, built: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(OSError), atomic_path(target) as temporary:  # a full disk: decode again next time
        torch.save({"content": built, "crc": _crc(built)}, temporary)
    return built


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a cache file, or None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        stored = torch.load(path, mmap=True, weights_only=True)
        content: dict[str, Any] = stored["content"]
        return content if stored["crc"] == _crc(content) else None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError):
        return None


def _crc(content: dict[str, Any]) -> int:
    """Return a checksum of all tensors."""
    crc = 0
    for key in sorted(content):
        value = content[key]
        if isinstance(value, Tensor):
            crc = zlib.crc32(value.contiguous().numpy().data, crc)
    return crc
