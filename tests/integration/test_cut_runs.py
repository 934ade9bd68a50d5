"""Runs that end early: everything that reads run folders shows what there is, and no traceback."""

import json
import signal
import warnings
from pathlib import Path

import pytest

from cl.cli.commands import compare
from cl.cli.compose import compose
from cl.engine import Engine
from cl.errors import ConfigError
from cl.report.write import write_report
from cl.results import Results
from cl.run import run
from cl.runs import find
from cl.signals import Interrupted

SEQUENCES = [
    "stream=recall_distance",
    "stream.samples=16",
    "stream.test_samples=8",
    "measures.distance.samples=8",
    "measures.distance.probes=2",
    "measures.distance.distances=[1,5]",
    "measures.distance.states=true",
]
ALL = ["stream=split_digits", "learner.hidden=[8]", "measures=full", "measures.savings.steps=2"]
FEW = ["training.epochs=null", "training.steps=2", "training.batch_size=8", "threads=1"]


def cut(monkeypatch: pytest.MonkeyPatch, root: Path, words: list[str], tasks: int, rows: int) -> Path:
    """Make a run that ends in the middle of a task, after `tasks` whole ones and `rows` rows of the matrix."""

    def stop(engine: Engine) -> None:
        if engine.task == tasks and (engine.begun or rows == 0):
            raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "offer_pause", stop)
        if rows == 0:
            patched.setattr(Engine, "evaluate_row", lambda self, row: stop(self))
        with pytest.raises(Interrupted):
            run(compose([*words, *FEW, f"output={root}"]))
    (folder,) = find([root])
    assert json.loads((folder / "status.json").read_text())["status"] == "interrupted"
    return folder


@pytest.mark.parametrize("words", [SEQUENCES, ALL], ids=["distance", "full"])
@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_a_cut_run_is_reported_and_compared(tmp_path, monkeypatch, capsys, words, tasks):
    folder = cut(monkeypatch, tmp_path / "runs", words, tasks, tasks + 1)
    measured = Results.load(folder).measures
    if tasks:
        assert len(measured["nll"]["values"]) == tasks
    if tasks == 1:  # beside one that is complete
        run(compose([*words, *FEW, "strategy=l2", f"output={tmp_path / 'runs'}"]))
        folder = tmp_path / "runs"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a mean over nothing is a figure of nothing
        page = write_report([folder], tmp_path / "report")
    text = page.read_text()
    assert "[unfinished]" in text
    assert ("recall_by_distance" in text) == (words is SEQUENCES and tasks > 0)
    if tasks == 0:
        with pytest.raises(ConfigError, match="Expected `runs` with a metric that has a value"):
            compare.main([str(folder)])
        return
    assert compare.main([str(folder)]) == 0
    assert "Unfinished" in capsys.readouterr().out


def test_a_run_cut_before_anything_was_measured_is_told_in_a_line(tmp_path, monkeypatch):
    folder = cut(monkeypatch, tmp_path / "runs", ALL, 0, 0)
    with pytest.raises(ConfigError, match="Expected `runs` with a metric that has a value"):
        compare.main([str(folder)])
