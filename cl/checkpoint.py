"""Checkpoints: one file of plain types, written atomically, with a checksum, the last two kept.

A file is one line of JSON (format, checksum, identity of the run) and then what `torch.save` wrote. The identity is
checked before the rest is read; the rest is loaded with ``weights_only``, so that a file cannot run code.
"""

import hashlib
import io
import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from cl.errors import DataError, LetheError
from cl.files import CHECKPOINT, CHECKPOINT_BEFORE, atomic_path

NEWEST, PREVIOUS = CHECKPOINT, CHECKPOINT_BEFORE
FORMAT = "lethe checkpoint 1"


class CheckpointMismatch(LetheError):
    """A checkpoint belongs to another configuration, code version or stream."""


def save(folder: Path, state: Mapping[str, Any], identity: Mapping[str, str]) -> Path:
    """Write a checkpoint; the one before is kept as the second newest.

    Args:
        folder: the run folder.
        state: plain types and tensors.
        identity: what must be equal for the state to be of use, e.g. the hashes of configuration, code and stream.

    Raises:
        OSError: no space or no permission; the checkpoints that were there still are.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    header = {"format": FORMAT, "checksum": _checksum(dict(identity), payload), "identity": dict(identity)}
    target = folder / NEWEST
    with atomic_path(target) as path:
        with path.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(payload)
        if target.exists():
            target.replace(folder / PREVIOUS)
    return target


def _checksum(identity: Mapping[str, str], payload: bytes | memoryview) -> str:
    """Return a checksum of all that a file holds, so that a changed identity is not taken for another run's."""
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode())
    digest.update(payload)
    return digest.hexdigest()


def exists(folder: Path) -> bool:
    """Return True if a run folder holds a checkpoint."""
    return (folder / NEWEST).exists() or (folder / PREVIOUS).exists()


def load(folder: Path, identity: Mapping[str, str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the newest checkpoint that is whole.

    Args:
        folder: the run folder.
        identity: of the run that wants to go on.

    Returns:
        the state (None if there is no readable checkpoint) and warnings about files that were passed over.

    Raises:
        CheckpointMismatch: a whole checkpoint is of another identity; the message shows the difference.
    """
    warnings: list[str] = []
    return next(_whole(folder, identity, warnings), None), warnings


def whole(folder: Path, identity: Mapping[str, str]) -> list[dict[str, Any]]:
    """Read all checkpoints that are whole, the newest first; see `load`."""
    return list(_whole(folder, identity, []))


def _whole(folder: Path, identity: Mapping[str, str], warnings: list[str]) -> Iterator[dict[str, Any]]:
    for name in (NEWEST, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            yield read(folder / name, identity)
        except DataError as error:
            warnings.append(str(error))


def read(path: Path, identity: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read one checkpoint file.

    Raises:
        DataError: it is truncated, changed, or holds more than plain types and tensors.
        CheckpointMismatch: it is of another identity.
    """
    content = path.read_bytes()
    line, _, payload = content.partition(b"\n")
    try:
        header = json.loads(line)
        found = dict(header["identity"])
        good = header["format"] == FORMAT and header["checksum"] == _checksum(found, payload)
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise DataError(f"Expected {path} to match its checksum, got a truncated or changed file")
    different = [n for n in (identity or {}) if found.get(n) != (identity or {})[n]]
    if different:
        listed = ", ".join(f"{n} (saved {found.get(n)}, now {(identity or {})[n]})" for n in different)
        raise CheckpointMismatch(
            f"Expected {path} to be of this run, got a different {listed}; start anew with resume=never"
        )
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"Expected {path} to hold plain types and tensors, got {str(error).splitlines()[0]}") from error
    return state
