import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SLURM = Path(__file__).with_name("slurm.sh")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A Slurm of two nodes on this host; gives the environment in which its commands work."""
    pytest.importorskip("submitit", reason="needs lethe[slurm]")
    installable = shutil.which("slurmctld", path="/usr/sbin:/usr/bin") or (shutil.which("apt-get") and os.getuid() == 0)
    if not installable:
        pytest.skip("needs slurmctld, or root and apt to install it")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run(["bash", SLURM, "up", folder], check=True)
    path = f"{folder}/bin:/usr/sbin:{os.environ['PATH']}"
    yield {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(["bash", SLURM, "down", folder], check=True)


def sweep(folder, environment, *words):
    """Start a sweep of the real command in `folder`."""
    command = [sys.executable, "-m", "cl.cli.main", "train", "-m", *words]
    with (folder / "sweep.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def wait(condition, seconds, what):
    """Wait until `condition()` is true and return its value."""
    for _ in range(int(seconds * 5)):
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds} s for {what}")
