"""Watch a run while it trains: curves and accuracy matrix in the terminal, and the page on disk kept fresh.

Examples::

    lethe watch runs/split_digits
    lethe watch runs/split_digits/split_digits-class-er-seed0-1234abcd --once
"""

import argparse
import time
from pathlib import Path

from cl.errors import DataError, expect

PAGE = 10.0  # seconds between two versions of the page, at least


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser("lethe watch", description="Watch a run while it trains.")
    made.add_argument(
        "run", type=Path, help="run folder, or a folder of runs: the one that told something last is shown"
    )
    made.add_argument("--every", type=float, default=1.0, help="seconds between two looks (default: 1)")
    made.add_argument("--once", action="store_true", help="show the present state and return")
    made.add_argument("--no-page", action="store_true", help="do not write report.html")
    return made


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(argv)
    expect(options.every > 0, "--every", "> 0", options.every)
    from rich.console import Console
    from rich.live import Live as Screen

    from cl import live
    from cl.report.terminal import show

    console = Console()
    if options.once:
        console.print(show(live.read(latest(options.run)), console.width))
        _write_page(options)
        return 0
    written = 0.0
    with Screen(console=console, auto_refresh=False) as screen:
        while True:
            state = live.read(latest(options.run))
            screen.update(show(state, console.width), refresh=True)
            over = bool(state.tasks) and state.status != "running"
            if over or time.monotonic() - written > PAGE:
                _write_page(options)
                written = time.monotonic()
            if over:
                return 0
            time.sleep(options.every)


def latest(folder: Path) -> Path:
    """Return the run at or below a folder that told something last.

    Raises:
        DataError: there is no run that tells what it does.
    """
    files = [p for p in folder.rglob("progress.jsonl") if not any(part.startswith(".") for part in p.parts[1:])]
    if not files:
        raise DataError(
            f"Expected `run` to hold a run with progress.jsonl, found none in {str(folder)!r}; it is written by the "
            "tracker files (tracker=[console,files])"
        )
    return max(files, key=lambda p: p.stat().st_mtime).parent


def _write_page(options: argparse.Namespace) -> None:
    if options.no_page:
        return
    from cl.report.write import write_report

    write_report([options.run], options.run, figures=False)
