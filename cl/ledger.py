"""The ledger: what runs there are, in which state, with which numbers.

The run folders are the truth. The index (SQLite, one file in the folder that is looked at) only saves reading them
again: it is brought up to date by comparing times, may be deleted at any moment, and is safe for several processes.
"""

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import filelock
import yaml

from cl.errors import expect
from cl.files import CHECKPOINT, CHECKPOINT_BEFORE

INDEX = ".index.sqlite"
_VERSION = 2
STATES = ("complete", "failed", "interrupted", "running", "cut", "incomplete")  # see `Entry`


@dataclass(frozen=True)
class Entry:
    """One run as the ledger knows it.

    Attributes:
        path: run folder, relative to the folder of the ledger.
        state: ``complete``, ``failed``, ``interrupted``, ``running``, ``cut`` (it was running and its process is gone)
            or ``incomplete`` (files are missing).
        resumable: True if a checkpoint is there to go on from.
        stream, scenario, strategy, seed: from its configuration.
        configuration: its hash, equal for the seeds of one configuration; the last part of the folder's name.
        accuracy: average accuracy at the end, None where there is none.
        forgetting: of the tasks before the last (Chaudhry et al. 2018), None where there is none.
        bits_per_character: mean over tasks at the end, None unless a text is predicted.
        mean_squared_error: mean over tasks at the end, None unless numbers are predicted.
        updated: when its state was last written, seconds since the epoch.
        message: why it failed or what is missing.
    """

    path: str
    state: str
    resumable: bool
    stream: str
    scenario: str
    strategy: str
    seed: int
    configuration: str
    accuracy: float | None
    forgetting: float | None
    bits_per_character: float | None
    mean_squared_error: float | None
    updated: float
    message: str


# Numbers of an entry, and the metrics that they are.
NUMBERS = {
    "accuracy": "average_accuracy",
    "forgetting": "forgetting",
    "bits_per_character": "bits_per_character",
    "mean_squared_error": "mean_squared_error",
}
COLUMNS = tuple(f.name for f in fields(Entry))


def runs(
    folder: Path, state: str | None = None, where: dict[str, str] | None = None, sort: str = "path"
) -> list[Entry]:
    """Return the runs at or below a folder.

    Args:
        folder: where to look.
        state: only runs in this state.
        where: only runs whose column has this value, as text.
        sort: column to sort by; ``-column`` sorts downwards.

    Raises:
        ConfigError: the folder does not exist, or there is no such column or state.
    """
    expect(folder.is_dir(), "DIR", "a folder", str(folder))
    for column in [*(where or {}), sort.lstrip("-")]:
        expect(column in COLUMNS, "column", f"in {list(COLUMNS)}", column)
    expect(state is None or state in STATES, "--state", f"in {list(STATES)}", state)
    wanted = {**(where or {}), **({"state": state} if state else {})}
    found = [e for e in refresh(folder) if all(str(getattr(e, c)) == v for c, v in wanted.items())]
    key = sort.lstrip("-")
    return sorted(found, key=lambda e: (getattr(e, key) is None, getattr(e, key)), reverse=sort.startswith("-"))


def refresh(folder: Path) -> list[Entry]:
    """Bring the index up to date with the folders and return every entry; without write permission, just read them."""
    stamps = {str(p.relative_to(folder)): _stamp(p) for p in walk(folder)}
    try:
        with _index(folder) as index:
            known = {row[0]: row for row in index.execute("select path, stamp, entry from runs")}
            changed = {path: stamp for path, stamp in stamps.items() if path not in known or known[path][1] != stamp}
            fresh = {path: read(folder, path) for path in changed}
            index.executemany(
                "insert or replace into runs values (?, ?, ?)",
                [(path, changed[path], json.dumps(asdict(entry))) for path, entry in fresh.items()],
            )
            index.executemany("delete from runs where path = ?", [(path,) for path in known if path not in stamps])
            kept = [Entry(**json.loads(row[2])) for path, row in known.items() if path in stamps and path not in fresh]
    except sqlite3.Error:  # read-only, or not a database: the folders are the truth
        return [read(folder, path) for path in stamps]
    return [*(_alive(folder, e) for e in kept), *fresh.values()]


@contextlib.contextmanager
def _index(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the index for one transaction, and close it whatever happens."""
    with contextlib.closing(sqlite3.connect(folder / INDEX, timeout=30)) as index, index:
        if index.execute("pragma user_version").fetchone()[0] != _VERSION:
            index.execute("drop table if exists runs")
            index.execute("create table runs (path text primary key, stamp text, entry text)")
            index.execute(f"pragma user_version = {_VERSION}")
        yield index


def walk(folder: Path) -> Iterator[Path]:
    """Yield the run folders at or below a folder, hidden ones left out."""
    for at, names, files in os.walk(folder):
        if "config.yaml" in files and ("status.json" in files or "results.json" in files):
            yield Path(at)
            names.clear()
        names[:] = sorted(n for n in names if not n.startswith("."))


def _stamp(path: Path) -> str:
    times = []
    for name in ("status.json", "results.json", CHECKPOINT):
        try:
            times.append(str((path / name).stat().st_mtime_ns))
        except OSError:
            times.append("-")
    return " ".join(times)


def read(folder: Path, path: str) -> Entry:
    """Read one run folder; whatever is missing or unreadable is said, not raised."""
    run = folder / path
    config, status, problems = _config(run), _json(run / "status.json"), []
    numbers: dict[str, float | None] = dict.fromkeys(NUMBERS)
    state = str(status.get("status", "incomplete"))
    if (run / "results.npz").is_file():
        try:
            numbers = _numbers(run)
        except Exception as error:  # any corruption: the other runs must still be listed
            problems.append(f"results cannot be read ({type(error).__name__})")
    if state == "complete" and numbers["accuracy"] is None:
        state = "incomplete"
        problems = problems or ["no results"]
    stream, choices = config.get("stream") or {}, config.get("choices") or {}
    entry = Entry(
        path=path,
        state=state,
        resumable=any((run / n).is_file() for n in (CHECKPOINT, CHECKPOINT_BEFORE)),
        stream=str(choices.get("stream", "")),
        scenario=str(stream.get("scenario", "")),
        strategy=str(choices.get("strategy", "")),
        seed=int(config.get("seed", -1)),
        configuration=run.name.rpartition("-")[2],
        **numbers,
        updated=float(status.get("finished") or status.get("started") or 0.0),
        message="; ".join([*([str(status["message"])] if status.get("message") else []), *problems]),
    )
    return _alive(folder, entry)


def _alive(folder: Path, entry: Entry) -> Entry:
    """Return the entry with ``running`` turned into ``cut`` if no process holds the folder, and back."""
    if entry.state not in ("running", "cut"):
        return entry
    lock = filelock.FileLock(folder / entry.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return Entry(**{**asdict(entry), "state": "running"})
    lock.release()
    return Entry(**{**asdict(entry), "state": "cut"})


def _config(run: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load((run / "config.yaml").read_text()) or {})
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _numbers(run: Path) -> dict[str, float | None]:
    from cl.metrics.base import find, per_replica
    from cl.results import Results

    results = Results.load(run)
    given = {"accuracy": results.accuracy, "bits": results.bits, "errors": results.errors}
    numbers: dict[str, float | None] = {}
    for name, metric in zip(NUMBERS, find(list(NUMBERS.values())), strict=True):
        (matrix,) = (given[field] for field in metric.inputs)
        value = float(per_replica(metric(matrix)).mean()) if matrix.size else math.nan
        numbers[name] = value if math.isfinite(value) else None
    return numbers
