"""Reading run folders: find them, load them, and put runs that differ in the seed alone into one group."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cl.errors import DataError
from cl.ledger import walk
from cl.metrics.base import measure
from cl.results import Results

Array = NDArray[np.float64]
# What may differ between two runs of one condition: the seed, and where and on what the run was made.
_PLACE = ("output", "name", "group", "tags", "resume", "tracker", "data", "checkpoint", "threads", "device")
ASIDE = frozenset(("seed", "replicas", "measures", "choices", *_PLACE))


@dataclass(frozen=True)
class Run:
    """One run folder in memory.

    Attributes:
        folder: where it was read from.
        config: the resolved configuration, {} if the folder lacks it.
        status: ``complete``, ``failed``, ``interrupted``, ``running`` or ``unknown``.
        message: what the status file says, e.g. why the run failed.
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

    @property
    def seed(self) -> int:
        """The root seed, from the results or else the configuration (-1 if neither has it)."""
        return int(self.results.seeds[0]) if self.results is not None else int(self.config.get("seed", -1))


@dataclass(frozen=True)
class Group:
    """Runs of one condition, one a seed.

    Attributes:
        label: short and different for every group of a comparison, e.g. ``ewc (strength=100)``.
        strategy: name of the strategy.
        stream: name of the stream and scenario.
        config: the configuration without seed and place.
        runs: complete runs in the order of seeds; unfinished ones where no run is complete.
        others: runs that are left out of every mean (failed, interrupted, repeated).
    """

    label: str
    strategy: str
    stream: str
    config: dict[str, Any]
    runs: tuple[Run, ...]
    others: tuple[Run, ...]

    @property
    def finished(self) -> bool:
        """True if the runs are complete."""
        return all(run.status == "complete" for run in self.runs)

    @property
    def seeds(self) -> list[int]:
        """The seeds of `runs`."""
        return [run.seed for run in self.runs]

    def results(self) -> list[Results]:
        """The results of `runs`."""
        return [run.results for run in self.runs if run.results is not None]

    @cached_property
    def accuracy(self) -> Array:
        """Accuracy matrices of all runs: (S, K+1, K)."""
        return np.concatenate([r.accuracy for r in self.results()])

    def cost(self, name: str) -> Array:
        """A cost of every run: (S,), NaN where it was not recorded."""
        return np.array([float(r.costs.get(name, np.nan)) for r in self.results()])


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


def load(folder: Path) -> Run:
    """Read a run folder; what is missing or cannot be read is said in `status` and `message`, not raised."""
    problems: list[str] = []

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


def condition(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without the seed and without what says where and on what it ran."""
    return {key: value for key, value in config.items() if key not in ASIDE}


def target_name(node: object) -> str:
    """Return a short name of a node with a ``_target_``: its file for our strategies, else its class.

    >>> target_name({"_target_": "strategies.ewc.EWC"}), target_name({"_target_": "my_lab.Mine"})
    ('ewc', 'Mine')
    """
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    parts = target.split(".")
    return parts[1] if parts[0] == "strategies" and len(parts) > 2 else parts[-1]


def strategy_name(config: Mapping[str, Any]) -> str:
    """Return the name of the strategy of a run: the one chosen on the command line, else that of its class."""
    chosen = config.get("choices") or {}
    return str(chosen.get("strategy") or target_name(config.get("strategy")) or "strategy")


def stream_name(config: Mapping[str, Any]) -> str:
    """Return the name of the stream and scenario of a run, e.g. ``split_mnist, class``."""
    node = config.get("stream")
    if not isinstance(node, Mapping):
        return "stream"
    names = [target_name(node.get(part)) for part in ("construction", "source")]
    words = str((config.get("choices") or {}).get("stream") or " ".join(n for n in names if n) or target_name(node))
    return ", ".join(w for w in (words, str(node.get("scenario", ""))) if w) or "stream"


def group(runs: Sequence[Run]) -> list[Group]:
    """Put runs of one condition together; order: stream, then strategy, then label.

    Of two complete runs of one condition and seed the one that finished last counts.
    """
    by_condition: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(condition(run.config), sort_keys=True, default=str)
        by_condition.setdefault(key, []).append(run)
    made = [_group(members) for members in by_condition.values()]
    labels = _labels(made)
    named = [
        Group(label, g.strategy, g.stream, g.config, g.runs, g.others) for g, label in zip(made, labels, strict=True)
    ]
    return sorted(named, key=lambda g: (g.stream, g.strategy, g.label))


def _group(members: list[Run]) -> Group:
    usable = [r for r in members if r.results is not None and r.status not in ("failed",)]
    complete = [r for r in usable if r.status == "complete"] or usable
    by_seed = {r.seed: r for r in sorted(complete, key=lambda r: str(r.facts.get("finished") or ""))}
    kept = tuple(by_seed[seed] for seed in sorted(by_seed))
    others = tuple(r for r in members if not any(r is k for k in kept))
    config = members[0].config
    return Group("", strategy_name(config), stream_name(config), condition(config), kept, others)


def _labels(groups: Sequence[Group]) -> list[str]:
    """Return a label for each group: the strategy, and the settings in which groups of that strategy differ."""
    labels = []
    flat = [dict(flatten({k: v for k, v in g.config.items() if k != "stream"})) for g in groups]
    for g, own in zip(groups, flat, strict=True):
        twins = [
            f
            for o, f in zip(groups, flat, strict=True)
            if o.strategy == g.strategy and o.config.get("stream") == g.config.get("stream")
        ]
        keys = sorted({k for f in twins for k in f if any(f.get(k) != other.get(k) for other in twins)})
        short = [k.rsplit(".", 1)[-1] for k in keys]
        names = [s if short.count(s) == 1 and s != "_target_" else k for s, k in zip(short, keys, strict=True)]
        told = ", ".join(f"{n}={_short(own.get(k))}" for n, k in zip(names, keys, strict=True))
        labels.append(f"{g.strategy} ({told})" if told else g.strategy)
    return labels


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def references(g: Group, groups: Sequence[Group]) -> dict[str, Group]:
    """Return the groups that serve as ``joint`` and ``naive`` references of `g`: the same in all but the strategy.

    Where none is the same in everything else, the one that agrees in most settings counts, on the same stream.
    """
    found: dict[str, Group] = {}
    own = dict(flatten({k: v for k, v in g.config.items() if k != "strategy"}))
    for role, names in (("joint", ("joint", "cumulative")), ("naive", ("naive",))):
        best = -1
        for other in groups:
            if other.strategy in names and other.runs and other.config.get("stream") == g.config.get("stream"):
                theirs = dict(flatten({k: v for k, v in other.config.items() if k != "strategy"}))
                agree = 2 * sum(own.get(k) == v for k, v in theirs.items()) + (other.strategy == names[0])
                if agree > best:
                    best, found[role] = agree, other
    return found


def measures(g: Group, groups: Sequence[Group]) -> dict[str, Array]:
    """Compute every metric of every run of a group.

    Args:
        g: the group.
        groups: all groups of the comparison, where references are looked for by seed.

    Returns:
        name -> (S,) or (S, K), rows in the order of `g.seeds`; NaN where a reference run of that seed is missing.
    """
    refs = references(g, groups)
    rows: list[dict[str, Array]] = []
    for run in g.runs:
        if run.results is None:
            continue
        given = {
            role: other.accuracy[[other.seeds.index(run.seed)]]
            for role, other in refs.items()
            if run.seed in other.seeds
        }
        given = {role: matrix for role, matrix in given.items() if matrix.shape == run.results.accuracy.shape}
        rows.append(measure(run.results, given))
    names = {name: values.shape[1:] for row in rows for name, values in row.items()}
    return {
        name: np.concatenate([row.get(name, np.full((1, *shape), np.nan)) for row in rows])
        for name, shape in names.items()
    }
