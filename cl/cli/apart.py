"""Calling a function in a process of its own, so that its death is not the caller's."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from cl.errors import TrainingError
from cl.signals import Interrupted


def useful() -> bool:
    """Return True in a worker process of a sweep on Linux; elsewhere forking gains nothing or is not safe."""
    return sys.platform == "linux" and multiprocessing.current_process().name != "MainProcess"


def apart(function: Callable[[], float]) -> float:
    """Return what `function` returns, called in a forked process.

    The caller must not have computed anything itself: threads do not survive a fork.

    Raises:
        TrainingError: the process was killed, as the kernel does where memory runs out.
        Interrupted: it was asked to end and did.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_tell, args=(function, theirs))
    process.start()
    theirs.close()
    try:
        value: float = ours.recv()
    except EOFError:
        value = float("nan")
    process.join()
    code = process.exitcode or 0
    if code > 128:
        raise Interrupted(code - 128)
    if code < 0:
        name = signal.Signals(-code).name
        advice = "; if memory ran out, try fewer jobs at once (hydra.launcher.n_jobs) or a smaller training.batch_size"
        raise TrainingError(f"its process was killed by {name}{advice if -code == signal.SIGKILL else ''}")
    if code > 0:
        raise TrainingError(f"its process ended with exit code {code}")
    return value


def _tell(function: Callable[[], float], pipe: Connection) -> None:
    try:
        pipe.send(function())
    except Interrupted as stop:
        sys.exit(128 + stop.number)
