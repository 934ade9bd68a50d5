"""Console, files and the guard around any tracker."""

import itertools
import json
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cl.errors import ConfigError
from cl.results import Results
from cl.testing import TinyStream, train
from cl.testing.tiny import TinySequences, engine
from cl.trackers.base import RunFacts, Tracker
from cl.trackers.console import Console, clock
from cl.trackers.files import Files, read_events
from cl.trackers.guard import Guarded
from strategies.naive import Naive


def facts(folder=None, tasks=3) -> RunFacts:
    return RunFacts("tiny-naive-seed0", "tiny", folder, {"seed": 0}, TinyStream(tasks=tasks).info)


def results() -> Results:
    return Results(np.full((1, 4, 3), 0.5), np.ones((1, 4, 3)), [0], task_steps=np.array([4, 4, 4]))


def tell(tracker: Tracker, folder=None) -> None:
    """A run of three tasks of four steps, a curve point in the middle of each."""
    tracker.start(facts(folder))
    tracker.row(0, 0, np.full(3, 0.5), np.ones(3))
    for k in range(3):
        tracker.progress(k, 2, 4, 0.25)
        tracker.curve(4 * k + 2, k, np.array([0.75, *[np.nan] * 2]))
        tracker.progress(k, 4, 4, 0.125)
        tracker.row(k + 1, 4 * k + 4, np.array([0.9, 0.8, 0.7]), np.ones(3))
    tracker.finish(results(), "complete")


def test_plain_lines_at_most_one_a_task_when_they_are_rare(capsys):
    tell(Console(every=1e9))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.removeprefix("tiny-naive-seed0: ") for line in lines[:-1]] == [
        "3 tasks, scenario task",
        "task 1/3 done: accuracy 0.900, mean 0.900",
        "task 2/3 done: accuracy 0.900 0.800, mean 0.850",
        "task 3/3 done: accuracy 0.900 0.800 0.700, mean 0.800",
    ]
    assert lines[-1].startswith("tiny-naive-seed0: complete after 0:00:")
    assert lines[-1].endswith(", mean accuracy 0.500")


def test_a_worker_of_a_sweep_prints_one_line_for_a_short_run(capsys, monkeypatch):
    monkeypatch.setattr("multiprocessing.current_process", lambda: SimpleNamespace(name="LokyProcess-1"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tell(Console(every=1e9))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tiny-naive-seed0: complete after")
    tell(Console(every=0))
    assert len(capsys.readouterr().err.splitlines()) == 10


def test_plain_lines_say_where_the_run_is(capsys):
    tell(Console(every=0))
    lines = [line for line in capsys.readouterr().err.splitlines() if " step " in line]
    assert len(lines) == 6
    assert "task 2/3 step 2/4 loss 0.2500, 0:00:0" in lines[2]
    assert lines[2].endswith(" left")


def test_time_left_counts_from_where_a_resumed_run_began(capsys, monkeypatch):
    now = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr("cl.trackers.console.time.monotonic", lambda: next(now))
    tracker = Console(every=0)
    tracker.start(facts())
    tracker.progress(1, 2, 4, 0.5)  # half a task in 10 s, one and a half to go
    tracker.progress(1, 4, 4, 0.5)  # one task in 30 s, one to go
    lines = capsys.readouterr().err.splitlines()[1:]
    assert [line.split(", ")[1] for line in lines] == ["0:00:30 left", "0:00:30 left"]


def test_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    tell(Console())
    text = capsys.readouterr().err
    assert "━" in text
    assert "task 3/3 done: accuracy 0.900 0.800 0.700, mean 0.800" in text


def test_of_replicas_trained_together_one_speaks(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tracker = Console(every=0)
    monkeypatch.setattr(tracker, "start", lambda f, start=tracker.start: start(replace(f, leads=False)))
    tell(tracker)
    assert capsys.readouterr().err == ""


def test_console_refuses_a_negative_interval():
    with pytest.raises(ConfigError, match=r"tracker\.console\.every"):
        Console(every=-1)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (86400, "24:00:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_files_hold_every_event(tmp_path):
    tell(Files(), tmp_path)
    events = read_events(tmp_path)
    assert [e["event"] for e in events] == ["start", "row", *["progress", "curve", "progress", "row"] * 3, "finish"]
    assert all(a["time"] <= b["time"] for a, b in itertools.pairwise(events))
    assert (events[0]["language"], events[0]["regression"]) == (False, False)
    progress, curve = ({k: v for k, v in e.items() if k != "time"} for e in events[2:4])
    assert progress == {"event": "progress", "task": 0, "step": 2, "steps": 4, "loss": 0.25}
    assert curve == {"event": "curve", "step": 2, "task": 0, "accuracy": [0.75, None, None]}
    log = (tmp_path / "log.txt").read_text()
    assert "after task 3/3, step 12: accuracy 0.9000 0.8000 0.7000" in log
    assert "complete after 12 steps" in log


def test_events_can_be_read_while_the_run_goes(tmp_path):
    tracker = Files()
    tracker.start(facts(tmp_path))
    tracker.row(0, 0, np.full(3, 0.5), np.ones(3))
    assert [e["event"] for e in read_events(tmp_path)] == ["start", "row"]
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"event": "ro')  # the writer is in the middle of a line
    assert len(read_events(tmp_path)) == 2
    tracker.finish(results(), "interrupted")


def test_a_resumed_run_appends(tmp_path):
    tell(Files(), tmp_path)
    tell(Files(), tmp_path)
    assert [e["event"] for e in read_events(tmp_path)].count("start") == 2


def test_files_of_a_run_without_a_folder_do_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tell(Files())
    assert list(tmp_path.iterdir()) == []


def test_json_is_strict(tmp_path):
    tell(Files(), tmp_path)
    for line in (tmp_path / "progress.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not json"))


class Breaks(Tracker):
    def __init__(self):
        self.calls = 0

    def progress(self, task, step, steps, loss):
        self.calls += 1
        raise OSError("no space\nleft")


class Leaves(Tracker):
    def progress(self, task, step, steps, loss):
        raise SystemExit(3)


class Vandal(Tracker):
    def row(self, k, step, accuracy, loss):
        accuracy[:] = loss[:] = -1

    curve = None


def test_a_failing_tracker_is_dropped_with_one_warning():
    inner = Breaks()
    tracker = Guarded(inner)
    tracker.start(facts())
    with pytest.warns(UserWarning, match="tracker Breaks stopped, the run goes on: OSError: no space left"):
        tracker.progress(0, 1, 2, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.progress(0, 2, 2, 0.5)
        tracker.finish(results(), "complete")
    assert inner.calls == 1


def test_a_tracker_cannot_end_the_process():
    tracker = Guarded(Leaves())
    tracker.start(facts())
    with pytest.warns(UserWarning, match="tracker Leaves stopped, the run goes on: SystemExit: 3"):
        tracker.progress(0, 1, 2, 0.5)


def test_no_tracker_changes_a_run(tmp_path):
    """With every tracker, and with one that scribbles over what it is shown, the numbers are those without any."""
    plain = train(Naive, TinyStream(), epochs=2)
    watched = engine(Naive, TinyStream(), epochs=2)
    watched.trackers = [Guarded(t) for t in (Console(every=1e9), Files(), Breaks(), Vandal())]
    for tracker in watched.trackers:
        tracker.start(facts(tmp_path))
    with pytest.warns(UserWarning, match="Breaks"):
        watched.run()
    np.testing.assert_array_equal(plain.record.accuracy, watched.record.accuracy)
    np.testing.assert_array_equal(plain.results().train_loss, watched.results().train_loss)
    rows = [e for e in read_events(tmp_path) if e["event"] == "row"]
    np.testing.assert_array_equal([r["accuracy"] for r in rows], plain.record.accuracy)


@pytest.mark.parametrize(
    ("rows", "said"), [(1, "no task learned"), (2, "mean accuracy 0.900 on 1 of 3 tasks"), (4, "mean accuracy 0.500")]
)
def test_the_last_line_is_of_the_tasks_that_were_learned(rows, said, capsys):
    found = results()
    accuracy = np.full_like(found.accuracy, np.nan)
    accuracy[:, :rows] = 0.5
    accuracy[:, 1:rows, 0] = 0.9 if rows == 2 else 0.5
    tracker = Console(every=1e9)
    tracker.start(facts())
    tracker.finish(replace(found, accuracy=accuracy), "interrupted")
    assert capsys.readouterr().err.splitlines()[-1].endswith(f", {said}")


def test_predicted_numbers_are_told_in_squared_errors(capsys):
    made = facts()
    tracker = Console(every=0)
    tracker.start(replace(made, info=TinySequences("real", "domain", tasks=3).info))
    tracker.row(2, 8, np.zeros(3), np.array([0.5, 0.25, 1.0]))
    tracker.finish(replace(results(), loss=np.full((1, 4, 3), 0.125)), "complete")
    row, last = capsys.readouterr().err.splitlines()[1:]
    assert row.endswith("task 2/3 done: squared error 0.500 0.250, mean 0.375")
    assert last.endswith(", mean squared error 0.125")
