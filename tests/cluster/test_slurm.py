"""Sweeps on a real Slurm of two nodes: done, preempted, and with a node lost."""

import json
import subprocess

import numpy as np
import pytest

from cl.results import Results
from tests.cluster.conftest import sweep, wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]
LONG = [
    "hydra/launcher=slurm",
    "hydra.launcher.mem_gb=1",
    "stream=split_digits",
    "training.epochs=100",
    "training.batch_size=16",
    "learner.hidden=[64,64]",
    "checkpoint.steps=100",
    "strategy=ewc",
]


def steps(folder, seed):
    """Steps told of by the run of a seed so far, over all its starts."""
    paths = list(folder.glob(f"runs/*/*-seed{seed}-*/progress.jsonl"))
    return paths[0].read_text().count('"progress"') if paths else 0


def states(folder):
    return sorted(json.loads(p.read_text())["status"] for p in folder.glob("runs/*/*/status.json"))


def jobs(environment, fmt="%A %i %T %N"):
    out = subprocess.run(["squeue", "-h", "-r", "-o", fmt], env=environment, capture_output=True, text=True, check=True)
    return [line.split() for line in out.stdout.splitlines()]


def starts(folder, seed):
    (path,) = folder.glob(f"runs/*/*-seed{seed}-*/progress.jsonl")
    return path.read_text().count('"start"')


def same_as_alone(folder, tmp_path, environment, seed):
    """Run a seed again without a cluster and compare."""
    alone = tmp_path / "alone"
    alone.mkdir()
    words = [w for w in LONG if not w.startswith("hydra")]
    process = sweep(alone, environment, "hydra/launcher=basic", *words, f"seed={seed}")
    assert process.wait(timeout=600) == 0
    one, two = (Results.load(next(f.glob(f"runs/*/*-seed{seed}-*"))) for f in (folder, alone))
    np.testing.assert_array_equal(one.accuracy, two.accuracy)
    np.testing.assert_array_equal(one.train_loss, two.train_loss)


def test_preempted_job_is_requeued_and_ends_as_if_undisturbed(slurm, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    process = sweep(folder, slurm, *LONG, "seed=0,1")
    wait(lambda: steps(folder, 0) > 10, 240, "the first job to train")
    victim = next(job for job in jobs(slurm) if job[1].endswith("_0"))
    subprocess.run(["scancel", "--signal=USR2", victim[1]], env=slurm, check=True)
    assert process.wait(timeout=600) == 0, (folder / "sweep.log").read_text()
    assert states(folder) == ["complete", "complete"]
    assert starts(folder, 0) == 2
    same_as_alone(folder, tmp_path, slurm, 0)


def test_job_of_a_lost_node_goes_on_at_the_other(slurm, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    process = sweep(folder, slurm, *LONG, "seed=2,3")
    wait(lambda: steps(folder, 2) > 10 and steps(folder, 3) > 10, 240, "both jobs to train")
    job = next(job for job in jobs(slurm) if job[3] == "n2")
    subprocess.run(["scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test"], env=slurm, check=True)
    wait(lambda: ["n2"] not in jobs(slurm, "%N"), 60, "the node to be left")
    assert process.wait(timeout=800) == 0, (folder / "sweep.log").read_text()
    assert states(folder) == ["complete", "complete"]
    seed = 2 + int(job[1].rpartition("_")[2])
    assert starts(folder, seed) >= 2
    same_as_alone(folder, tmp_path, slurm, seed)
