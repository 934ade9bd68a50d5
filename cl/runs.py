"""Reading run folders into memory."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cl import live
from cl.errors import DataError
from cl.ledger import walk
from cl.results import Results


@dataclass(frozen=True)
class Run:
    """One run folder in memory.

    Attributes:
        folder: where it was read from.
        config: the resolved configuration, {} if the folder lacks it.
        status: ``complete``, ``failed``, ``interrupted``, ``running`` or ``unknown``.
        message: what the status file says, e.g. why the run failed.
        damage: what of its files cannot be read, "" if all can. Results that cannot are taken from the log.
        results: what was measured, or None.
        environment: versions, device, git.
        fingerprint: of the stream, "" where it was not written.
        facts: the whole status file.
    """

    folder: Path
    config: dict[str, Any]
    status: str
    message: str = ""
    results: Results | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    damage: str = ""

    @property
    def seed(self) -> int:
        """The root seed, from the results or else the configuration (-1 if neither has it)."""
        return int(self.results.seeds[0]) if self.results is not None else int(self.config.get("seed", -1))


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders at or below `paths`, sorted, each once.

    Raises:
        DataError: a path does not exist, or there is no run folder at all.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise DataError(f"Expected `runs` to be folders, got {str(path)!r}, which is not one")
        found |= {folder.resolve() for folder in walk(path)}
    if not found:
        where = ", ".join(repr(str(p)) for p in paths)
        raise DataError(f"Expected `runs` to hold a run folder (config.yaml and status.json), found none in {where}")
    return sorted(found)


def load(folder: Path | str) -> Run:
    """Read a run folder; what is missing or cannot be read is said in `status` and `message`, not raised."""
    folder, problems = Path(folder), []

    def read(name: str) -> dict[str, Any]:
        path = folder / name
        if not path.is_file():
            return {}
        try:
            parse = yaml.safe_load if path.suffix == ".yaml" else json.loads
            return dict(parse(path.read_text(encoding="utf-8")) or {})
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            problems.append(f"{name} cannot be read: {error}")
            return {}

    facts, config, environment = read("status.json"), read("config.yaml"), read("environment.json")
    results = None
    try:
        results = Results.load(folder)
    except FileNotFoundError:
        pass
    except Exception as error:  # any corruption of the two files; the page must show the other runs
        problems.append(f"results cannot be read: {str(error).split('. ')[0]}")
    status = str(facts.get("status", "unknown"))
    if results is None and (folder / "progress.jsonl").is_file():
        results = live.read(folder).results(int(config.get("seed", -1)))
    if status == "complete" and results is None:
        problems.append("no results in a run that says it is complete")
    if problems:
        status = "failed" if results is None else status
    fingerprint = folder / "fingerprint.txt"
    return Run(
        folder=folder,
        config=config,
        status=status,
        message="; ".join([str(facts.get("message") or ""), *problems]).strip("; "),
        results=results,
        environment=environment,
        fingerprint=fingerprint.read_text().strip() if fingerprint.is_file() else "",
        facts=facts,
        damage="; ".join(problems),
    )


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings; lists count as values.

    >>> dict(flatten({"a": {"b": 1}, "c": [2]}))
    {'a.b': 1, 'c': [2]}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
