"""Compare strategies over any number of run folders: means, intervals, paired tests.

Examples::

    lethe compare runs/split_digits
    lethe compare runs/a runs/b --by strategy,learner.hidden --metric average_accuracy,forgetting
    lethe compare runs/split_digits --markdown > table.md
    lethe compare runs/split_digits --runs --csv > every_run.csv
    lethe compare runs/split_digits --costs
    lethe compare runs/split_digits --references --metric intransigence,share_of_gap_closed
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cl.errors import ConfigError
from cl.groups import Group, group
from cl.runs import find, load
from cl.statistics.intervals import METHODS

if TYPE_CHECKING:
    import pandas as pd


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser("lethe compare", description="Compare strategies over any number of run folders.")
    made.add_argument("folders", nargs="+", type=Path, metavar="SWEEP", help="run folders, or folders that hold some")
    made.add_argument("--by", metavar="KEYS", help="settings that make a row, e.g. strategy,stream or learner.hidden")
    made.add_argument("--metric", metavar="NAMES", help="metrics or cost.NAME, separated by commas, or all")
    made.add_argument("--costs", action="store_true", help="also passes, parameters, bytes, peak memory and seconds")
    made.add_argument("--references", action="store_true", help="first make the naive and joint runs that are missing")
    made.add_argument("--interval", choices=METHODS, default="t", help="kind of interval (default: t)")
    made.add_argument("--level", type=float, default=0.95, help="coverage of the interval (default: 0.95)")
    made.add_argument("--runs", action="store_true", help="one row for each run and metric instead of means")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    form.add_argument("--latex", action="store_true", help="print a LaTeX table")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return made


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_intermixed_args(argv)
    from cl import comparison

    if options.references:
        from cl.cli.references import with_references

        with_references(options.folders)
    every = group([load(folder) for folder in find(options.folders)])
    groups = [g for g in every if g.runs]
    if not groups:
        raise ConfigError("Expected `runs` with results, got only runs that failed or have not begun")
    table = comparison.tidy(groups)
    metrics = _metrics(options.metric, table, comparison.default_metrics(table))
    if not metrics:
        raise ConfigError("Expected `runs` with a metric that has a value, got only runs that ended before any had one")
    costs = [name for name in dict.fromkeys(table["metric"]) if name.startswith("cost.")] if options.costs else []
    streams = len({g.stream for g in groups})
    by = options.by.split(",") if options.by else ["stream", "label"] if streams > 1 else ["label"]
    table = _with_columns(table, comparison.columns(groups, by), by)
    if options.runs:
        shown = table[table["metric"].isin([*metrics, *costs])]
        print(_text(shown, options), end="")
        return 0
    people = not (options.csv or options.latex or options.markdown)
    asked = metrics if people else [*metrics, *(c for c in costs if c not in metrics)]
    means = comparison.summary(table, asked, options.interval, options.level, by)
    if options.csv:
        means.to_csv(sys.stdout, index=False)
    elif not people:
        print(_text(_wide(means, by, math=options.latex), options), end="")
    else:
        whole = {(g.stream, g.label) for g in groups if g.finished}  # fewer tasks are no equal of all
        finished = [pair in whole for pair in zip(table["stream"], table["label"], strict=True)]
        tests = comparison.pairs(table[finished], metrics[0], by, options.interval, options.level)
        _show(means, by, tests, metrics[0], every, options)
        if costs:
            _show_costs(comparison.summary(table, costs, by=by), by)
    return 0


def _metrics(asked: str | None, table: "pd.DataFrame", default: list[str]) -> list[str]:
    present = list(dict.fromkeys(table["metric"]))
    if asked == "all":
        return present
    return asked.split(",") if asked else default


def _with_columns(table: "pd.DataFrame", facts: dict[str, dict[str, object]], by: Sequence[str]) -> "pd.DataFrame":
    """Add the settings asked for as columns."""
    table = table.copy()
    names = table["stream"] + "|" + table["label"]
    for key in by:
        if key not in table:
            table[key] = [str(facts[name][key]) for name in names]
    return table


def _wide(means: "pd.DataFrame", by: Sequence[str], math: bool = False) -> "pd.DataFrame":
    """Return one row a value of `by` and one column a metric, cells ``mean ± half``."""
    sign = r" $\pm$ " if math else " ± "
    cells = means.copy()
    cells["cell"] = [
        _cell(m, lo, hi, sign) for m, lo, hi in zip(cells["mean"], cells["low"], cells["high"], strict=True)
    ]
    wide = cells.pivot_table(index=list(by), columns="metric", values="cell", aggfunc="first", sort=False).fillna("-")
    runs = cells.groupby(list(by), sort=False)["runs"].max()
    wide.insert(0, "runs", runs)
    made: pd.DataFrame = wide.reset_index().rename_axis(None, axis=1)
    return made


def _cell(mean: float, low: float, high: float, sign: str = " ± ") -> str:
    if mean != mean:
        return "-"
    digits = 3 if abs(mean) < 100 else 0
    return f"{mean:,.{digits}f}" + (f"{sign}{(high - low) / 2:,.{digits}f}" if low == low else "")


def _text(table: "pd.DataFrame", options: argparse.Namespace) -> str:
    """Return a table as text in the form asked for; Markdown where none was."""
    if options.csv:
        return table.to_csv(index=False)
    rows = [[_plain(v) for v in row] for row in table.itertuples(index=False)]
    heads = [str(c) for c in table.columns]
    if options.latex:
        lines = [" & ".join(_escaped(c) for c in row) + r" \\" for row in [heads, *rows]]
        body = "\n".join([lines[0], r"\midrule", *lines[1:]])
        return f"\\begin{{tabular}}{{{'l' * len(heads)}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    lines = ["| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in [heads, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]]) + "\n"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if value == value else "-"
    return str(value)


def _escaped(text: str) -> str:
    for sign in "&%#_":
        text = text.replace(sign, "\\" + sign)
    return text


def _show(
    means: "pd.DataFrame",
    by: Sequence[str],
    pairs: "pd.DataFrame",
    metric: str,
    groups: Sequence[Group],
    options: argparse.Namespace,
) -> None:
    """Print tables for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    wide = _wide(means, by)
    names = [", ".join(map(str, key)) for key in wide[list(by)].itertuples(index=False)]
    headers = [str(name).replace("_", " ") for name in wide.columns]
    cells = [[str(v) for v in wide.iloc[:, i]] for i in range(len(headers))]
    labels = len(by)
    widths = _fitted(headers, cells, labels, console.width)
    if None in widths and len(headers) - labels > len(names):  # more metrics than rows: turned, it may fit
        cells = [headers[labels:], *(list(column) for column in zip(*cells[labels:], strict=True))]
        headers, labels = ["", *names], 1
        widths = _fitted(headers, cells, labels, console.width)
    title = f"Mean ± half of the {options.level:.0%} {options.interval} interval over runs"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for i, header in enumerate(headers):
        justify: Literal["left", "right"] = "left" if i < labels else "right"
        shown.add_column(header, justify=justify, overflow="fold", width=widths[i])
    for row in zip(*cells, strict=True):
        shown.add_row(*row)
    console.print(shown)
    tested = pairs[pairs["count"] > 1]
    if len(tested):
        table = Table(
            title=f"Paired differences of {metric.replace('_', ' ')} over shared streams and seeds",
            title_justify="left",
        )
        for name in ("strategies", "n", "difference", f"{options.level:.0%} interval", "p (Holm)", "effect d"):
            table.add_column(name, justify="left" if name == "strategies" else "right")
        for p in tested.to_dict("records"):
            between = f"{p['low']:+.3f} to {p['high']:+.3f}"
            table.add_row(
                f"{p['a']} - {p['b']}",
                str(p["count"]),
                f"{p['difference']:+.3f}",
                between,
                f"{p['p_holm']:.3g}",
                f"{p['effect']:+.2f}",
            )
        console.print(table)
    left_out = sum(len(g.others) for g in groups)
    unfinished = [g.label for g in groups if g.runs and not g.finished]
    if unfinished:
        console.print(f"Unfinished, as far as they got: {', '.join(unfinished)}")
    mixed = [g.label for g in groups if len({r.environment.get("own_code") for r in g.runs} - {None}) > 1]
    if mixed:
        console.print(f"Made by different versions of your classes: {', '.join(mixed)}")
    if left_out:
        console.print(f"{left_out} run(s) left out (failed, unfinished or repeated); `lethe report` says which and why")
    without = [g.label for g in groups if not g.runs]
    if without:
        console.print(f"Without any result: {', '.join(without)}")


def _fitted(headers: Sequence[str], cells: Sequence[Sequence[str]], labels: int, width: int) -> list[int | None]:
    """Return the widths of columns, two characters apart, in which lines break between words alone.

    The first `labels` columns break nowhere. None for all where there is no room for that.

    >>> _fitted(["label", "average accuracy"], [["er", "naive"], ["0.9 ± 0.1", "0.5 ± 0.2"]], 1, 20)
    [5, 11]
    >>> _fitted(["label", "average accuracy"], [["er", "naive"], ["0.9 ± 0.1", "0.5 ± 0.2"]], 1, 10)
    [None, None]
    """
    least = [max(map(len, [*(c if i < labels else []), *headers[i].split()])) for i, c in enumerate(cells)]
    spare = width - sum(least) - 2 * len(least)
    if spare < 0:
        return [None] * len(least)
    widths: list[int | None] = []
    for header, column, needed in zip(headers, cells, least, strict=True):
        more = min(spare, max(map(len, [*column, header])) - needed)
        widths.append(needed + more)
        spare -= more
    return widths


def _show_costs(means: "pd.DataFrame", by: Sequence[str]) -> None:
    """Print one row a cost and one column a value of `by`."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="Costs of a run, mean over runs", title_justify="left")
    shown.add_column("cost")
    names = [", ".join(map(str, key)) for key in means[list(by)].itertuples(index=False)]
    columns = list(dict.fromkeys(names))
    for name in columns:
        shown.add_column(name, justify="right", overflow="fold")
    values = dict(zip(zip(means["metric"], names, strict=True), means["mean"], strict=True))
    for cost in dict.fromkeys(means["metric"]):
        found = (values.get((cost, name), float("nan")) for name in columns)
        cells = ("-" if v != v else f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in found)
        shown.add_row(cost.removeprefix("cost.").replace("_", " "), *cells)
    Console().print(shown)
