"""One job of several that ends badly (no memory, killed, a defect) is told by name and leaves the others alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cl import ledger
from cl.cli.main import main
from cl.results import Results
from tests.integration.test_faults import SMALL, after_row, one_line, the_run, train

HUGE = "learner.hidden=[8,100000000000000]"  # more bytes than any machine has addresses for


def test_out_of_memory_before_training_is_named(tmp_path, capsys):
    assert train(tmp_path, HUGE) == 2
    one_line(capsys, "out of memory", "try a smaller", "learner")


def test_out_of_memory_in_training_is_named_and_what_was_measured_is_kept(tmp_path, monkeypatch, capsys):
    after_row(monkeypatch, 2, lambda: torch.empty(10**15))  # the allocator's own error
    assert train(tmp_path) == 1
    one_line(capsys, "out of memory", "training.batch_size")
    assert np.isfinite(Results.load(the_run(tmp_path)).accuracy[0, :3]).all()


SUICIDAL = """
import os, signal
from strategies.naive import Naive

class Killed(Naive):
    def begin_task(self, task):
        if task.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
"""


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_jobs_without_memory_do_not_end_a_sweep(at_once, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed.py").write_text(SUICIDAL)
    words = ["hydra/launcher=cores", f"hydra.launcher.n_jobs={at_once}", "output=runs", "resume=auto"]
    hidden = "[16],[8,100000000000000],[24]"
    assert main(["train", "-m", *SMALL, *words, f"learner.hidden={hidden}"]) == 1
    one_line(capsys, "out of memory", "learner.hidden=[8,100000000000000]", "try a smaller")
    assert sorted(e.state for e in ledger.runs(Path("runs"))) == ["complete", "complete"]
    killed = "strategy._target_=killed.Killed,strategies.naive.Naive"
    assert main(["train", "-m", *SMALL, *words, killed, "seed=5,6"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all("killed by SIGKILL" in line and "n_jobs" in line for line in errors)
    states = [(e.strategy, e.state) for e in ledger.runs(Path("runs")) if e.seed > 0]
    assert sorted(states) == [("Killed", "cut")] * 2 + [("naive", "complete")] * 2


@pytest.mark.slow
def test_a_population_without_memory_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed.py").write_text(SUICIDAL)
    words = ["hydra/launcher=population", "hydra.launcher.n_jobs=2", "output=runs", "resume=auto", "seed=5,6"]
    assert main(["train", "-m", *SMALL, *words, "strategy._target_=killed.Killed,strategies.naive.Naive"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all("killed by SIGKILL" in line for line in errors)
    states = [(e.strategy, e.state) for e in ledger.runs(Path("runs"))]
    assert sorted(states) == [("Killed", "cut")] * 2 + [("naive", "complete")] * 2


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2])
def test_a_setting_without_memory_does_not_end_the_search(cores, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed.py").write_text(SUICIDAL)
    words = [*SMALL, f"output={tmp_path}", "strategy._target_=killed.Killed,strategies.naive.Naive"]
    assert main(["tune", *words, "--final", "1,2"]) == 0
    said = capsys.readouterr().out
    assert "-inf  strategy._target_=killed.Killed" in said
    assert "best accuracy on validation data: strategy._target_=strategies.naive.Naive" in said
    alone = [*SMALL, "strategy._target_=killed.Killed", "optimizer.lr=0.01,0.02"]
    assert main(["tune", *alone, "--final", "none"]) == 2
    one_line(capsys, "at least one setting that trains")


BROKEN = """
from strategies.naive import Naive

class Broken(Naive):
    def loss(self, batch):
        return {}["weight"]
"""


def test_a_defect_in_one_job_is_told_with_the_words_of_the_job_and_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text(BROKEN)
    words = ["hydra.launcher.n_jobs=1", "output=runs", "strategy._target_=broken.Broken,strategies.naive.Naive"]
    assert main(["train", "-m", *SMALL, *words]) == 1
    one_line(capsys, "strategy._target_=broken.Broken", "KeyError: 'weight'", "traceback in")
    (told,) = Path("runs").glob(".sweeps/*/job-*.txt")
    assert "broken.py" in told.read_text()
    assert sorted(e.state for e in ledger.runs(Path("runs"))) == ["complete", "failed"]
