"""Runs of one condition together: what differs in the seed alone is one group, with a label of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl.metrics.base import measure
from cl.results import Results
from cl.runs import Run, flatten
from cl.settings import read_anyhow

Array = NDArray[np.float64]
# What may differ between two runs of one condition: the seed, and where and on what the run was made.
_PLACE = ("output", "name", "group", "tags", "resume", "tracker", "data", "checkpoint", "threads", "device")
# Strategies that serve as references, the fittest first.
REFERENCES = {"joint": ("joint", "cumulative"), "naive": ("naive",)}
PARTS = ("learner", "optimizer", "scheduler")  # told apart by their names, then by the settings of one name
ASIDE = frozenset(("seed", "replicas", "measures", "choices", *_PLACE))


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
    def choices(self) -> dict[str, Any]:
        """What was chosen in every group of the configuration, of the first run that says so."""
        return next((dict(r.config["choices"]) for r in (*self.runs, *self.others) if r.config.get("choices")), {})

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


def condition(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without the seed and without what says where and on what it ran."""
    return {key: value for key, value in read_anyhow(config).items() if key not in ASIDE}


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

    Of two complete runs of one condition and seed the one that finished last counts. Streams of one name that differ
    in a setting get that setting into their name.
    """
    by_condition: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(condition(run.config), sort_keys=True, default=str)
        by_condition.setdefault(key, []).append(run)
    made = [_group(members) for members in by_condition.values()]
    streams = _told_apart([g.stream for g in made], [dict(flatten(g.config.get("stream") or {})) for g in made])
    rest = [_settings(g) for g in made]
    labels = list(streams)
    for stream in set(streams):
        here = [i for i, name in enumerate(streams) if name == stream]
        for i, label in zip(here, _told_apart([made[i].strategy for i in here], [rest[i] for i in here]), strict=True):
            labels[i] = label
    named = [replace(g, label=label, stream=stream) for g, label, stream in zip(made, labels, streams, strict=True)]
    return sorted(named, key=lambda g: (g.stream, g.strategy, g.label))


def _group(members: list[Run]) -> Group:
    usable = [r for r in members if r.results is not None and r.status not in ("failed",)]
    complete = [r for r in usable if r.status == "complete"] or usable
    by_seed = {r.seed: r for r in sorted(complete, key=lambda r: str(r.facts.get("finished") or ""))}
    kept = tuple(by_seed[seed] for seed in sorted(by_seed))
    others = tuple(r for r in members if not any(r is k for k in kept))
    config = members[0].config
    return Group("", strategy_name(config), stream_name(config), condition(config), kept, others)


def _settings(g: Group) -> dict[str, Any]:
    """Return all settings but those of the stream; those of `PARTS` carry its name: ``learner=gru``, ``gru.hidden``."""
    settings = dict(flatten({k: v for k, v in g.config.items() if k not in ("stream", *PARTS)}))
    for part in (p for p in PARTS if p in g.config):
        node = g.config[part]
        name = str(g.choices.get(part) or target_name(node) or node)
        settings[part] = name
        if isinstance(node, Mapping):
            settings |= {f"{name}.{key}": value for key, value in flatten(node)}
    return settings


def _told_apart(names: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names, and after equal names of different things the settings in which these differ."""
    labels = []
    for name, own in zip(names, settings, strict=True):
        twins = [s for n, s in zip(names, settings, strict=True) if n == name]
        found = {k for s in twins for k in s if any(_differ(s, other, k) for other in twins)}
        keys = sorted(found, key=lambda k: (k not in PARTS, k))
        keys = [k for k in keys if k in own or not _of_part(k, twins)]
        short = [k.rsplit(".", 1)[-1] for k in keys]
        words = [s if short.count(s) == 1 and s != "_target_" else k for s, k in zip(short, keys, strict=True)]
        told = ", ".join(f"{w}={_short(own.get(k))}" for w, k in zip(words, keys, strict=True))
        labels.append(f"{name} ({told})" if told else name)
    return labels


def _of_part(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the key is a field of one of the parts that carry their name."""
    return "." in key and key.partition(".")[0] in {s.get(part) for s in settings for part in PARTS}


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    """Return True if a setting differs; a field of a part that the other does not use is no difference."""
    if key not in other and _of_part(key, [one]) and not _of_part(key, [other]):
        return False
    return bool(one.get(key) != other.get(key))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def references(g: Group, groups: Sequence[Group]) -> dict[str, Group]:
    """Return the groups that serve as ``joint`` and ``naive`` references of `g`: the same in all but the strategy.

    Where none is the same in everything else, the one that agrees in most settings counts, on the same stream.
    """
    found: dict[str, Group] = {}
    own = dict(flatten({k: v for k, v in g.config.items() if k != "strategy"}))
    for role, names in REFERENCES.items():
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
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        known = [row[name] for row in rows if name in row]
        width = max((values.shape[1:] for values in known), default=())  # some tell only the tasks of their run
        found[name] = np.concatenate([_filled(row.get(name), width) for row in rows])
    return found


def _filled(values: Array | None, width: tuple[int, ...]) -> Array:
    """Return values (S, *) or None as (S or 1, *width), NaN where there are none."""
    filled = np.full((1 if values is None else len(values), *width), np.nan)
    if values is not None:
        filled[tuple(slice(n) for n in values.shape)] = values
    return filled


def quantities(g: Group) -> dict[str, tuple[dict[str, Any], Array]]:
    """Return what the measures that need the network saw: name -> (facts, values with one row a run).

    See `cl.measures.base.Quantity` for the facts. A run that lacks a quantity, or has it in another shape than the
    first run that has it, gets NaN; what no run has seen yet is left out.
    """
    every = [(name, facts) for results in reversed(g.results()) for name, facts in results.measures.items()]
    first = {name: facts for name, facts in every if np.size(facts["values"]) > 0}
    found = {}
    for name, facts in first.items():
        nothing = np.full_like(np.asarray(facts["values"], np.float64), np.nan)
        rows = [np.asarray(r.measures.get(name, facts)["values"], np.float64) for r in g.results()]
        kept = [
            row if name in r.measures and row.shape == nothing.shape else nothing
            for row, r in zip(rows, g.results(), strict=True)
        ]
        found[name] = ({k: v for k, v in facts.items() if k != "values"}, np.stack(kept))
    return found


def final(facts: Mapping[str, Any], values: Array) -> Array:
    """Return one number a run, (S,): the mean of a quantity as it is after the last task; NaN where there is none.

    Pairs of a thing with itself (a task with the same task) do not count.
    """
    axes = list(facts["axes"])
    if values.size == 0:
        return np.full(len(values), np.nan)
    if axes and axes[0] in ("task trained", "after task"):
        values, axes = values[:, -1], axes[1:]
    if len(axes) == 2 and axes[1] == f"other {axes[0]}":
        values = np.where(np.eye(values.shape[1], dtype=bool), np.nan, values)
    flat = values.reshape(len(values), -1)
    finite = np.isfinite(flat)
    return np.asarray(np.where(finite, flat, 0).sum(1) / np.where(finite.any(1), finite.sum(1), np.nan))
