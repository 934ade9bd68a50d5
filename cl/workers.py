"""Worker processes for pieces of work of seconds to hours, and telling how far they are."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from cl.apart import end_with_parent

S = TypeVar("S")
T = TypeVar("T")
SECONDS = 1.0  # between two plain lines, at least


class Workers:
    """Processes for pieces of work, also where that is one process; they start with the first piece.

    What is called in them finds the modules that the caller finds, and should go through `cl.apart.settled`: a process
    that is killed takes the others with it. Used as a context, it waits for the pieces at work when it is left. No
    piece waits in a process for another, so that an interruption (Ctrl-C, which reaches all of them) ends with those.

    Args:
        count: how many, > 0.
    """

    def __init__(self, count: int) -> None:
        from joblib.externals.loky import ProcessPoolExecutor  # not `joblib.Parallel`: one worker of that is the caller

        self.count = count
        self._pool: Executor = ProcessPoolExecutor(count, initializer=end_with_parent, initargs=(os.getpid(),))

    def __enter__(self) -> "Workers":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the pieces at work, and end the processes."""
        self._pool.shutdown()

    def map(self, function: Callable[[S], T], pieces: Iterable[S]) -> Iterator[T]:
        """Yield what `function` returns of each piece, in their order; what it raises is raised here."""
        left = enumerate(pieces)
        running = {self._pool.submit(function, piece): i for i, piece in islice(left, self.count)}
        found: dict[int, T] = {}
        due = 0
        while running:
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                found[running.pop(ended)] = ended.result()
                running |= {self._pool.submit(function, piece): i for i, piece in islice(left, 1)}
            while due in found:
                yield found.pop(due)
                due += 1


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
