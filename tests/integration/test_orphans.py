"""A command that is killed leaves no process behind that goes on with its jobs."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cl.folder import read_status

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and processes are forked on Linux alone")
PATIENCE = 180  # seconds, on a machine that is busy; they are gone after one or two

POOL = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from cl.apart import settled

def job(name):
    return settled(lambda: (Path(name).touch(), time.sleep(600)))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        list(pool.map(job, sys.argv[1:]))
"""


def living(session):
    """The processes of a session that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # gone meanwhile
            continue
        if int(own) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def wait(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def start(words, folder):
    """Start a command in a session of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # What a shell starts in the background, these tests perhaps, ignores interruptions, and so would its children.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, preexec_fn=heard, **silent)


LONG = ["stream=split_digits", "training.epochs=100000", "learner.hidden=[16]"]
TELLING = """
from pathlib import Path
from strategies.naive import Naive

class Telling(Naive):
    def begin_task(self, task):
        Path("begun").touch()
"""


@pytest.mark.parametrize("command", ["search", "sweep"])
def test_an_interruption_ends_the_pieces_at_work_and_those_to_come(tmp_path, command):
    """As Ctrl-C on a terminal, which reaches every process; in the sweep one job runs at a time."""
    (tmp_path / "telling.py").write_text(TELLING)
    words = {
        "search": ["tune", "optimizer.lr=0.1,0.2,0.3,0.4,0.5", "--final", "none"],
        "sweep": ["train", "-m", "seed=0,1,2,3", "hydra.launcher.n_jobs=1"],
    }[command]
    own = ["strategy._target_=telling.Telling", "output=runs"]
    process = start([sys.executable, "-m", "cl.cli.main", *words, *LONG, *own], tmp_path)
    try:
        wait(lambda: (tmp_path / "begun").exists())
        time.sleep(1)  # in the midst of it
        os.killpg(process.pid, signal.SIGINT)
        wait(lambda: process.poll() is not None and not living(process.pid))
    finally:
        for left in living(process.pid):
            os.kill(left, signal.SIGKILL)
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("command", ["table", "sweep"])
def test_nothing_goes_on_after_its_command_is_killed(tmp_path, command, number):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    begun = tmp_path / "begun"
    words = [sys.executable, str(script), str(begun), str(tmp_path / "second")]
    if command == "sweep":
        words = [
            sys.executable,
            "-m",
            "cl.cli.main",
            "train",
            "-m",
            *LONG,
            "seed=0,1,2",
            "hydra.launcher.n_jobs=2",
            f"output={tmp_path / 'runs'}",
        ]
    process = start(words, tmp_path)
    try:
        wait(lambda: begun.exists() or len(list((tmp_path / "runs").glob("*/*/log.txt"))) == 2)
        assert len(living(process.pid)) > 2
        process.send_signal(number)
        process.wait()
        wait(lambda: not living(process.pid))
    finally:
        for left in living(process.pid):
            os.kill(left, signal.SIGKILL)
    assert not (tmp_path / "second").exists()
    ended = [read_status(path.parent)["status"] for path in (tmp_path / "runs").glob("*/*/log.txt")]
    assert ended == (["interrupted"] * 2 if command == "sweep" else [])  # saved, and no third run began
