"""List the runs in a folder: state, numbers, age."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from cl import ledger
from cl.errors import expect


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser("lethe runs", description=__doc__)
    parser.add_argument("folder", nargs="?", default="runs", help="where to look (default: runs)")
    parser.add_argument("--state", help="only complete | failed | interrupted | running | cut | incomplete")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these (repeatable)")
    parser.add_argument("--sort", default="path", metavar="COLUMN", help="--sort=-COLUMN sorts downwards")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    for word in options.where:
        expect("=" in word, "--where", "COLUMN=VALUE", word)
    where = dict(word.split("=", 1) for word in options.where)
    found = ledger.runs(Path(options.folder), options.state, where, options.sort)
    if options.json:
        print(json.dumps([asdict(e) for e in found], indent=1))
    else:
        _table(found)
    return 0


def _table(found: list[ledger.Entry]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    losses = [name for name in ("bits_per_character", "mean_squared_error") if any(getattr(e, name) for e in found)]
    for column in ("run", "state", *(name.replace("_", " ") for name in losses), "accuracy", "forgetting", "age", ""):
        table.add_column(column, overflow="fold", justify="left" if column in ("run", "state", "age", "") else "right")
    for e in found:
        state = f"{e.state} (resumable)" if e.resumable and e.state != "complete" else e.state
        since = age(time.time() - e.updated)
        told = ["" if (value := getattr(e, name)) is None else f"{value:.4g}" for name in losses]
        table.add_row(e.path, state, *told, _percent(e.accuracy), _percent(e.forgetting), since, e.message)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    print(f"{len(found)} runs")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def age(seconds: float) -> str:
    """Return a time span in its largest unit.

    >>> [age(s) for s in (5, 130, 7300, 200000)]
    ['5 s', '2 min', '2 h', '2 d']
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
