"""Many runs as tidy tables (pandas): one row a run and metric, means with intervals, paired tests."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl.errors import ConfigError, nearest
from cl.groups import Group, final, measures, quantities
from cl.metrics.base import discover, per_replica
from cl.runs import flatten
from cl.statistics import paired
from cl.statistics.intervals import interval

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "learning_accuracy")
OF_TEXT = ("bits_per_character", "bits_lost", "bits_learned")  # shown in their place where a text is predicted
OF_NUMBERS = ("mean_squared_error", "error_gained", "error_learned")  # where numbers are


def tidy(groups: Sequence[Group]) -> "pd.DataFrame":
    """Return one row for each run and metric.

    Columns: label, strategy, stream, seed, metric, value, folder. A metric with one value a task enters as its mean
    over tasks, what a measure saw of the network as its mean after the last task; costs enter as ``cost.NAME``.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for g in groups:
        values = {name: per_replica(found) for name, found in measures(g, groups).items()}
        values |= {name: final(f, seen) for name, (f, seen) in quantities(g).items() if f.get("summary", True)}
        costs = sorted({name for r in g.results() for name, c in r.costs.items() if isinstance(c, int | float)})
        values |= {f"cost.{name}": g.cost(name) for name in costs}
        facts = {"label": g.label, "strategy": g.strategy, "stream": g.stream}
        for name, column in values.items():
            rows += [
                {**facts, "seed": run.seed, "metric": name, "value": float(value), "folder": str(run.folder)}
                for run, value in zip(g.runs, column, strict=True)
            ]
    made: pd.DataFrame = pd.DataFrame(
        rows, columns=["label", "strategy", "stream", "seed", "metric", "value", "folder"]
    )
    return made


def columns(groups: Sequence[Group], by: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return, for each group's label, the values of the settings `by` (``strategy``, ``stream``, or a dotted key).

    Raises:
        ConfigError: no run has that key.
    """
    known: dict[str, dict[str, object]] = {
        f"{g.stream}|{g.label}": {
            "label": g.label,
            **dict(flatten(g.config)),
            "strategy": g.strategy,
            "stream": g.stream,
        }
        for g in groups
    }
    for key in by:
        if not any(key in config for config in known.values()):
            keys = sorted({k for config in known.values() for k in config})
            raise ConfigError(f"Expected `by` in {keys}, got {key!r}{nearest(key, keys)}")
    return {name: {key: config.get(key) for key in by} for name, config in known.items()}


def summary(
    table: "pd.DataFrame",
    metrics: Sequence[str],
    method: str = "t",
    level: float = 0.95,
    by: Sequence[str] = ("label",),
) -> "pd.DataFrame":
    """Return mean, interval and number of runs for each value of `by` and metric.

    Args:
        table: from `tidy`, perhaps with further columns.
        metrics: names to keep, in this order.
        method: see `cl.statistics.intervals.interval`.
        level: coverage of the interval.
        by: columns that make a row; runs that agree in them are put together.

    Raises:
        ConfigError: a metric was not measured in any run.
    """
    import pandas as pd

    present = list(dict.fromkeys(table["metric"]))
    for name in metrics:
        if name not in present:
            close = nearest(name, present)
            raise ConfigError(f"Expected `metric` in {sorted(present)} for these runs, got {name!r}{close}")
    rows = []
    for key, part in table[table["metric"].isin(metrics)].groupby([*by, "metric"], sort=False, dropna=False):
        found = interval(part["value"].to_numpy(float), method, level)
        facts = dict(zip([*by, "metric"], key, strict=True))
        rows.append(
            facts
            | {"mean": float(found.mean), "low": float(found.low), "high": float(found.high)}
            | {"runs": int(found.count)}
        )
    made: pd.DataFrame = pd.DataFrame(rows, columns=[*by, "metric", "mean", "low", "high", "runs"])
    order = {name: i for i, name in enumerate(metrics)}
    made = made.sort_values("metric", key=lambda c: c.map(order), kind="stable").reset_index(drop=True)
    return made


def pairs(
    table: "pd.DataFrame", metric: str, by: Sequence[str] = ("label",), method: str = "t", level: float = 0.95
) -> "pd.DataFrame":
    """Return paired tests on one metric between all values of `by`, over shared (stream, seed).

    Runs that agree in `by`, stream and seed are averaged. See `cl.statistics.paired` for the columns, and
    `cl.statistics.intervals.interval` for `method` and `level`.
    """
    import pandas as pd

    collected: dict[str, dict[paired.Key, list[float]]] = {}
    for row in table[table["metric"] == metric].to_dict("records"):
        name = ", ".join(str(row[key]) for key in by if key != "stream") or str(row["label"])
        key = (str(row["stream"]), int(row["seed"]))
        collected.setdefault(name, {}).setdefault(key, []).append(float(row["value"]))
    values = {name: {key: float(np.mean(found)) for key, found in own.items()} for name, own in collected.items()}
    fields = list(paired.Pair.__dataclass_fields__)
    made: pd.DataFrame = pd.DataFrame([vars(p) for p in paired.compare(values, method, level)], columns=fields)
    return made


def default_metrics(table: "pd.DataFrame") -> list[str]:
    """Return the metrics shown when none is asked for: those with a value of `OF_TEXT`, `OF_NUMBERS`, or `DEFAULT`."""
    with_value = set(table.loc[np.isfinite(table["value"]), "metric"])
    found, of_loss = ([name for name in names if name in with_value] for names in (DEFAULT, OF_TEXT + OF_NUMBERS))
    return [*of_loss, found[0]] if of_loss else found


def direction(metric: str) -> str:
    """Return which direction of a metric is good: ``higher`` or ``lower``; costs are better when lower."""
    known = discover()
    return known[metric].better if metric in known else "lower"
