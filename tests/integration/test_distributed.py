"""One run over two processes equals the run of one, up to the order of sums."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cl import checkpoint
from cl.distributed import World, check
from cl.errors import ConfigError
from cl.learners.mlp import MLP
from cl.results import Results
from cl.strategy import Strategy
from cl.testing.tiny import TinyStream
from strategies.er import ER

REPOSITORY = Path(__file__).parents[2]
WORDS = [
    "train",
    "stream=split_digits",
    "stream.scenario=class",
    "training.batch_size=31",
    "learner.hidden=[32]",
    "training.drop_last=true",
    "threads=1",
    "tracker=files",
    "measures=none",
    "device=cpu",
]


def spread(folder, processes, *words):
    """Carry out a run with some processes, as torchrun starts them; returns (exit codes, errors, run folder)."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder.mkdir(exist_ok=True)
    started = []
    for rank in range(processes):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        if processes > 1:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        command = [sys.executable, "-m", "cl.cli.main", *WORDS, *words]
        started.append(
            subprocess.Popen(
                command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL
            )
        )
    errors = [p.communicate(timeout=300)[1] for p in started]
    runs = [p.parent for p in folder.glob("runs/*/*/config.yaml")]
    return [p.returncode for p in started], errors, runs


ER_WORDS = ("strategy=er", "strategy.weighting=sum", "strategy.replay_batch=20")


@pytest.mark.parametrize("words", [("strategy=naive",), ER_WORDS, ("strategy=si",)])
def test_two_processes_equal_one(tmp_path, words):
    codes, errors, (one,) = spread(tmp_path / "one", 1, *words)
    assert codes == [0], errors
    codes, errors, (two,) = spread(tmp_path / "two", 2, *words)
    assert codes == [0, 0], errors
    a, b = Results.load(one), Results.load(two)
    np.testing.assert_allclose(a.train_loss, b.train_loss, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(a.accuracy, b.accuracy, atol=0.03)
    saved = [checkpoint.read(f / checkpoint.NEWEST)["strategy"] for f in (one, two)]
    for name, value in saved[0].items():
        if value.dtype.is_floating_point:
            np.testing.assert_allclose(value, saved[1][name], rtol=1e-3, atol=1e-4)
        else:
            assert value.equal(saved[1][name]), name


def test_what_cannot_be_shared_is_refused(tmp_path):
    codes, errors, runs = spread(tmp_path / "er", 2, "strategy=er")
    assert codes == [2, 2]
    assert all("shards" in e and "Traceback" not in e for e in errors)
    assert runs == []


def test_parts_cover_the_batch_once():
    import torch

    from cl.batch import Batch

    batch = Batch(torch.arange(7.0)[:, None], torch.arange(7), torch.zeros(7, dtype=torch.long), torch.zeros(()))
    parts = [World(r, 3).part(batch) for r in range(3)]
    assert torch.cat([p.y for p, _ in parts]).tolist() == list(range(7))
    assert sum(share for _, share in parts) == pytest.approx(1)


def test_learners_that_look_across_the_batch_are_refused():
    info = TinyStream("class").info
    for name, options in (("batch", {"norm": "batch"}), ("dropout", {"dropout": 0.5})):
        with pytest.raises(ConfigError, match=name):
            check(Strategy(MLP(info.input_shape, info.n_classes, hidden=(8,), **options), info))
    check(ER(MLP(info.input_shape, info.n_classes, hidden=(8,)), info, 60, weighting="sum", replay_batch=9))
