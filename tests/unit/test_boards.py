"""TensorBoard and Trackio, read back with their own readers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cl.errors import ConfigError
from cl.metrics.base import measure, per_replica
from cl.results import Results
from cl.testing import TinyStream
from cl.testing.tiny import engine
from cl.trackers.base import RunFacts, Tracker
from cl.trackers.board import Board, series, summary
from cl.trackers.tensorboard import Tensorboard
from cl.trackers.trackio import Trackio
from strategies.naive import Naive


def run(folder: Path | None, tracker: Tracker, name: str = "tiny") -> Results:
    """Train a tiny stream, a curve point every two steps."""
    running = engine(Naive, TinyStream(), epochs=2)
    running.every = 2
    running.evaluator.fixed = running.evaluator.full
    running.trackers = [tracker]
    config = {"strategy": {"strength": 0.5}}
    tracker.start(RunFacts(name, "sweep", folder, config, running.stream.info, ("a",)))
    running.run()
    tracker.finish(running.results(), "complete")
    return running.results()


class Recorder(Board):
    def begin(self, facts):
        self.lines = []

    def write(self, step, values):
        self.lines.append((step, dict(values)))


def test_a_board_is_shown_every_number_at_its_step():
    board = Recorder()
    results = run(None, board)
    rows = [(step, v) for step, v in board.lines if "tasks_learned" in v]
    assert [step for step, _ in rows] == [0, *np.cumsum(results.task_steps)]
    for k, (_, values) in enumerate(rows):
        np.testing.assert_array_equal([values[f"accuracy/task_{j}"] for j in (1, 2, 3)], results.accuracy[0, k])
        np.testing.assert_array_equal([values[f"loss/task_{j}"] for j in (1, 2, 3)], results.loss[0, k])
        assert values.get("seen/accuracy") == (results.accuracy[0, k, :k].mean() if k else None)
        drops = {f"drop/task_{j + 1}": results.accuracy[0, j + 1, j] - results.accuracy[0, k, j] for j in range(k)}
        assert {n: v for n, v in values.items() if n.startswith("drop/")} == drops
    points = [step for step, v in board.lines if any(n.startswith("curve/") for n in v)]
    assert points == results.curve_step.tolist()
    losses = [(step, v["train/task"]) for step, v in board.lines if "train/loss" in v]
    assert losses == sorted(losses)
    assert losses[-1] == (sum(results.task_steps), 3)


def test_the_summary_has_what_was_seen_of_the_network_at_the_end():
    facts = {"axes": ["task trained", "task"], "summary": True}
    seen = {"nll": {**facts, "values": np.array([[9.0, np.nan], [1.0, 2.0]])}}
    seen |= {"confusion": {**facts, "summary": False, "values": np.ones((2, 2))}}
    found = summary(Results(np.zeros((1, 3, 2)), np.zeros((1, 3, 2)), [0], costs={"samples": 7}, measures=seen))
    assert found["measures/nll"] == 1.5  # the last row
    assert "measures/confusion" not in found
    assert found["costs/samples"] == 7


def test_steps_of_a_resumed_run_go_on():
    board = Recorder()
    board.start(RunFacts("n", "g", None, {}, TinyStream().info, step=10))
    board.progress(1, 4, 10, 0.5)
    assert board.lines == [(14, {"train/loss": 0.5, "train/task": 2})]


def test_names_of_many_tasks_sort():
    names = list(series("accuracy", np.zeros(12)))
    assert names == sorted(names)
    assert names[0] == "accuracy/task_01"


def test_tensorboard_file_holds_curves_matrix_and_measures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results = run(tmp_path, Tensorboard())
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    for j in range(3):
        points = found.Scalars(f"accuracy/task_{j + 1}")
        assert [p.step for p in points] == [0, *np.cumsum(results.task_steps)]
        np.testing.assert_allclose([p.value for p in points], results.accuracy[0, :, j], rtol=1e-6)
    for name, values in measure(results).items():
        expected = per_replica(values).mean()
        if np.isfinite(expected):
            assert found.Scalars(f"measures/{name}")[0].value == pytest.approx(expected, rel=1e-6)
    text = found.Tensors("accuracy_matrix/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.count("\n") == 13
    assert f"|3|1|{results.accuracy[0, 3, 0]:.4f}|" in text
    assert "strength: 0.5" in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_trackio_holds_two_runs_side_by_side(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="the optional extra trackio is not installed")
    from trackio import sqlite_storage

    for module in ("trackio.utils", "trackio.sqlite_storage"):
        monkeypatch.setattr(f"{module}.TRACKIO_DIR", tmp_path)
    first, second = Trackio("forgetting"), Trackio("forgetting")
    info = TinyStream().info
    first.start(RunFacts("one", "sweep", tmp_path, {"strategy": {"strength": 0.5}}, info))
    results = run(tmp_path, second, "two")
    first.row(0, 0, np.full(3, 0.25), np.ones(3))
    first.finish(Results(np.full((1, 4, 3), np.nan), np.ones((1, 4, 3)), [0]), "failed")
    storage = sqlite_storage.SQLiteStorage
    assert sorted(storage.get_runs("forgetting")) == ["one", "two"]
    logs = storage.get_logs("forgetting", "two")
    rows = [line for line in logs if "tasks_learned" in line]
    assert [line["step"] for line in rows] == [0, *np.cumsum(results.task_steps)]
    np.testing.assert_array_equal([line["accuracy/task_1"] for line in rows], results.accuracy[0, :, 0])
    assert logs[-1]["measures/forgetting"] == measure(results)["forgetting"][0]
    assert len(logs[-1]["accuracy_matrix"]["_value"]) == 12
    other = [line.get("accuracy/task_1") for line in storage.get_logs("forgetting", "one")]
    assert other[0] == 0.25
    assert storage.get_run_config("forgetting", "one")["strategy"] == {"strength": 0.5}


@pytest.mark.parametrize(("make", "extra"), [(Tensorboard, "tensorboard"), (Trackio, "trackio")])
def test_without_its_package_the_error_says_how_to_get_it(make, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"`tracker\.{extra}`.*pip install 'lethe\[{extra}\]'"):
        make()


def test_each_optional_tracker_is_short():
    import cl.trackers

    for name in ("tensorboard", "trackio"):
        assert len((Path(cl.trackers.__file__).parent / f"{name}.py").read_text().splitlines()) <= 60


def test_losses_of_outputs_that_are_masked_are_not_drawn():
    board = Recorder()
    board.lines, board._offset, board._just_learned = [], 0, np.full(2, np.nan)
    board.row(1, 10, np.array([0.9, 0.0]), np.array([0.3, 1e9]))
    [(_, values)] = board.lines
    assert values["loss/task_1"] == 0.3
    assert "loss/task_2" not in values
