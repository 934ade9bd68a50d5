"""A command that is killed leaves no process behind that goes on with its jobs."""

import os
import signal
import subprocess
import sys
import time
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
            "stream=split_digits",
            "training.epochs=100000",
            "learner.hidden=[16]",
            "seed=0,1,2",
            "hydra.launcher.n_jobs=2",
            f"output={tmp_path / 'runs'}",
        ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
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
