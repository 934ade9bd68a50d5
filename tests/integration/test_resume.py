"""Runs of the real program that are killed, and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cl import checkpoint
from cl.errors import DataError
from cl.results import Results

REPOSITORY = Path(__file__).parents[2]
COMMON = [
    "stream=split_digits",
    "training.epochs=4",
    "training.batch_size=16",
    "learner.hidden=[32,32]",
    "threads=1",
    "checkpoint.steps=50",
]


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cl.cli.main", "train", *COMMON, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=pipe, stderr=pipe)


def finish(folder: Path, *words: str) -> str:
    process = start(folder, *words)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


def the_run(folder: Path) -> Path:
    found = [p.parent for p in folder.glob("runs/*/*/config.yaml")]
    assert len(found) == 1, found
    return found[0]


def wait_for_step(folder: Path, step: int) -> None:
    """Wait until a run has told of a total of `step` progress events."""
    for _ in range(1200):
        for path in folder.glob("runs/*/*/progress.jsonl"):
            if path.read_text().count('"progress"') >= step:
                return
        time.sleep(0.05)
    raise AssertionError("the run did not start")


@pytest.mark.parametrize("strategy", ["naive", "ewc", "er"])
@pytest.mark.parametrize("events", [3, 9])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, strategy, events):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    finish(whole, f"strategy={strategy}")
    process = start(cut, f"strategy={strategy}")
    wait_for_step(cut, events)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((the_run(cut) / "status.json").read_text())["status"] == "running"
    finish(cut, f"strategy={strategy}", "resume=auto")
    a, b = Results.load(the_run(whole)), Results.load(the_run(cut))
    np.testing.assert_array_equal(a.accuracy, b.accuracy)
    np.testing.assert_array_equal(a.train_loss, b.train_loss)
    one, two = (checkpoint.read(the_run(f) / checkpoint.NEWEST)["strategy"] for f in (whole, cut))
    assert all(one[n].equal(two[n]) for n in one)


def test_polite_end_saves_and_the_same_command_goes_on(tmp_path):
    process = start(tmp_path, "training.epochs=30")
    wait_for_step(tmp_path, 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    run = the_run(tmp_path)
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    saved = checkpoint.read(run / checkpoint.NEWEST)
    assert saved["step"] > 0 or saved["task"] > 0
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "cl.cli.main", "train", "--resume", str(run)]
    subprocess.run(command, env=environment, check=True, timeout=200, capture_output=True)
    assert json.loads((run / "status.json").read_text())["status"] == "complete"


def test_another_configuration_code_or_stream_is_refused(tmp_path):
    state = {"task": 1}
    checkpoint.save(tmp_path, state, {"configuration": "a", "code": "b", "stream": "c"})
    for name in ("configuration", "code", "stream"):
        other = {"configuration": "a", "code": "b", "stream": "c", name: "x"}
        with pytest.raises(checkpoint.CheckpointMismatch, match=f"{name} .saved .*now x"):
            checkpoint.load(tmp_path, other)
    assert checkpoint.load(tmp_path, {"configuration": "a"}) == (state, [])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "identity", "empty", "garbage"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    identity = {"configuration": "abcd"}
    checkpoint.save(tmp_path, {"task": 1}, identity)
    checkpoint.save(tmp_path, {"task": 2}, identity)
    path = tmp_path / checkpoint.NEWEST
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-10] ^= 1
    if damage == "identity":
        content[content.index(b"abcd")] ^= 1
    changed = {"identity": content, "flipped": content, "truncated": content[: len(content) // 2], "empty": b"",
               "garbage": b"\x00\xff" * 99}  # fmt: skip
    path.write_bytes(changed[damage])
    state, warnings = checkpoint.load(tmp_path, identity)
    assert state == {"task": 1}
    assert "checksum" in warnings[0]


def test_hostile_pickle_is_refused(tmp_path):
    import io
    import pickle

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harmed'}",)

    payload = io.BytesIO()
    pickle.dump(Hostile(), payload)
    header = {"format": checkpoint.FORMAT, "checksum": checkpoint._checksum({}, payload.getvalue()), "identity": {}}
    path = tmp_path / checkpoint.NEWEST
    path.write_bytes(json.dumps(header).encode() + b"\n" + payload.getvalue())
    with pytest.raises(DataError, match="plain types"):
        checkpoint.read(path)
    assert not (tmp_path / "harmed").exists()


def test_checkpoint_is_no_larger_than_its_state(tmp_path):
    import torch

    state = {"a": torch.randn(300_000), "b": torch.randn(300_000)[:10].clone()}
    path = checkpoint.save(tmp_path, state, {})
    assert path.stat().st_size < 1.1 * 4 * 300_010
