"""Ending a run politely: the first signal asks, the second insists."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """The run was asked to end; its state is saved. Not an `Exception`, so that nothing swallows it on the way.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int]]:
        """Let it come home from a worker process."""
        return Interrupted, (self.number,)


class Request:
    """Whether somebody asked the run to end.

    Attributes:
        number: the signal received, or None.
        expected: how many replicas save their state before the run ends.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.expected = 1
        self._saved: set[int] = set()

    def answer(self, who: int) -> None:
        """Note that replica `who` has saved its state if a signal came; the last one raises `Interrupted`.

        A replica that comes a second time raises too: it does not wait for others that lag behind.
        """
        if self.number is None:
            return
        if who in self._saved or len(self._saved) + 1 >= self.expected:
            raise Interrupted(self.number)
        self._saved.add(who)


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Note SIGINT and SIGTERM inside the block instead of dying; the second one has its usual effect.

    Outside the main thread signals cannot be caught, and the request stays empty.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("saving the run at the next opportunity; once more ends it at once", file=sys.stderr, flush=True)

    try:
        for n in before:
            signal.signal(n, note)
        yield request
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
