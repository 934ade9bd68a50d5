"""Worker processes for pieces of work of seconds to hours, and telling how far they are."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from cl.apart import end_with_parent

SECONDS = 1.0  # between two plain lines, at least


def workers(count: int) -> Executor:
    """Return a pool of `count` > 0 processes, also where that is one, which start with the first call.

    What is called in them finds the modules that the caller finds, and should go through `cl.apart.settled`: a process
    that is killed takes the pool with it.
    """
    from joblib.externals.loky import ProcessPoolExecutor  # not `joblib.Parallel`: one worker of that is the caller

    pool: Executor = ProcessPoolExecutor(count, initializer=end_with_parent, initargs=(os.getpid(),))
    return pool


@contextmanager
def counting(what: str, total: int, bar: bool = True) -> Iterator[Callable[[], None]]:
    """Show on standard error how many of `total` pieces are done and the time left.

    Args:
        what: a piece, as in ``run 3/10``.
        total: pieces.
        bar: draw a bar where there is a terminal; else, and elsewhere, plain lines. Workers that print for themselves
            spoil a bar.

    Yields:
        what to call when a piece is done.
    """
    if bar and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn(f"{what}s"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left")
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)
        return
    from cl.trackers.console import clock

    started = time.monotonic()
    done, last = 0, -SECONDS

    def tick() -> None:
        nonlocal done, last
        done, now = done + 1, time.monotonic()
        if now - started - last >= SECONDS or done == total:
            last = now - started
            print(f"{what} {done}/{total}, {clock(last / done * (total - done))} left", file=sys.stderr, flush=True)

    yield tick
