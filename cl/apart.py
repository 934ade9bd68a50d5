"""Calling a function in a process of its own, so that its death is not the caller's."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeVar

from cl.errors import TrainingError
from cl.signals import Interrupted

T = TypeVar("T")


class Elsewhere(Exception):
    """Where in another process an error was raised; the cause of what is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class _Raised:
    error: Exception
    where: str


def useful() -> bool:
    """Return True in a worker process of a sweep on Linux; elsewhere forking gains nothing or is not safe."""
    return sys.platform == "linux" and multiprocessing.current_process().name != "MainProcess"


def end_with_parent(parent: int | None = None) -> None:
    """Have a worker process asked to end (SIGTERM, so that a run saves its state) when the one that started it is gone.

    Whoever kills a command kills one process; the workers it leaves would go on with all the jobs they had been given.
    Nothing happens in a process that is no worker, that watches already, or on Windows, where a parent's number stays.

    Args:
        parent: who started it; None = whose child it is now, which is another one if that process is gone already.
    """
    name = "end with parent"
    worker = multiprocessing.current_process().name != "MainProcess"
    if not worker or any(thread.name == name for thread in threading.enumerate()):
        return
    starter = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == starter:  # not `parent_process().join()`: workers of joblib do not know theirs
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name=name, daemon=True).start()


def apart(function: Callable[[], T]) -> T:
    """Return what `function` returns, called in a forked process; what it raises is raised here.

    The caller must not have computed anything itself: threads do not survive a fork.

    Raises:
        TrainingError: the process was killed, as the kernel does where memory runs out.
        Interrupted: it was asked to end and did.
    """
    end_with_parent()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_tell, args=(function, theirs, os.getpid()))
    process.start()
    theirs.close()
    try:
        told: tuple[T] | _Raised | None = ours.recv()
    except EOFError:
        told = None
    process.join()
    if isinstance(told, _Raised):
        raise told.error from Elsewhere(told.where)
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
    if useful():
        return apart(function)
    end_with_parent()
    return function()


def _tell(function: Callable[[], T], pipe: Connection, parent: int) -> None:
    end_with_parent(parent)
    try:
        pipe.send((function(),))
    except Interrupted as stop:
        sys.exit(128 + stop.number)
    except Exception as error:
        pipe.send(_Raised(_portable(error), "".join(traceback.format_exception(error))))


def _portable(error: Exception) -> Exception:
    """Return an error that another process can raise."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error's own class does on its way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
