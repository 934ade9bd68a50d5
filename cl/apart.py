"""Calling a function in a process of its own, so that its death is not the caller's."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from cl.errors import TrainingError
from cl.signals import Interrupted

T = TypeVar("T")


def useful() -> bool:
    """Return True in a worker process of a sweep on Linux; elsewhere forking gains nothing or is not safe."""
    return sys.platform == "linux" and multiprocessing.current_process().name != "MainProcess"


def apart(function: Callable[[], T]) -> T:
    """Return what `function` returns, called in a forked process; what it raises is raised here.

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
        told: tuple[T] | Exception | None = ours.recv()
    except EOFError:
        told = None
    process.join()
    if isinstance(told, Exception):
        raise told
    if told is not None:
        return told[0]
    code = process.exitcode or 0
    if code > 128:
        raise Interrupted(code - 128)
    if code >= 0:
        raise TrainingError(f"its process ended with exit code {code}")
    name = signal.Signals(-code).name
    fewer = "fewer jobs at once (hydra.launcher.n_jobs in a sweep)"
    advice = f"; if memory ran out, try {fewer} or a smaller training.batch_size"
    raise TrainingError(f"its process was killed by {name}{advice if -code == signal.SIGKILL else ''}")


def settled(function: Callable[[], T]) -> T:
    """Return what `function` returns: called apart in a worker process, where its death would end the others' work.

    Raises:
        TrainingError: see `apart`.
    """
    return apart(function) if useful() else function()


def _tell(function: Callable[[], T], pipe: Connection) -> None:
    try:
        pipe.send((function(),))
    except Interrupted as stop:
        sys.exit(128 + stop.number)
    except Exception as error:
        pipe.send(error)
