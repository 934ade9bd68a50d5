"""Watching a run: its events become its state, its drawing and its page."""

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cl import live
from cl.cli.commands import watch
from cl.errors import ConfigError, DataError
from cl.report.terminal import canvas, show
from cl.results import Results
from cl.runs import load
from tests.fake_runs import write


def events(results: Results, name: str = "split-er-seed0") -> list[dict[str, Any]]:
    """Return what the tracker would have told of a run."""
    k, steps = results.n_tasks, [0, *np.cumsum(results.task_steps).tolist()]
    clean = json.loads(json.dumps(results.curve_accuracy[0].tolist()).replace("NaN", "null"))
    told: list[dict[str, Any]] = [{"event": "start", "name": name, "tasks": k}]
    for row in range(k + 1):
        if row > 0:
            told.append({"event": "progress", "task": row - 1, "step": 50, "steps": 100, "loss": 0.5})
            for place, task, accuracy in zip(results.curve_step, results.curve_task, clean, strict=True):
                if task == row - 1:
                    told.append({"event": "curve", "step": int(place), "task": int(task), "accuracy": accuracy})
        values = {"accuracy": results.accuracy[0, row].tolist(), "loss": results.loss[0, row].tolist()}
        told.append({"event": "row", "k": row, "step": steps[row], **values})
    told.append({"event": "finish", "status": "complete"})
    return [{**event, "time": 1000.0 + i} for i, event in enumerate(told)]


def running(root: Path, part: float) -> tuple[Path, Results]:
    """Write a run folder that is at `part` of its way, and return it with the results it will have."""
    folder = write(root, "er", 0, points=4)
    whole = Results.load(folder)
    for name in ("results.npz", "results.json"):
        (folder / name).unlink()
    (folder / "status.json").write_text(json.dumps({"status": "running"}))
    told = events(whole)
    lines = [json.dumps(event) + "\n" for event in told[: int(part * len(told))]]
    (folder / "progress.jsonl").write_text("".join(lines))
    return folder, whole


def test_events_become_the_results_they_tell_of(tmp_path: Path) -> None:
    whole = Results.load(write(tmp_path, "er", 0, points=4))
    told = events(whole)
    found = live.follow([*told[:9], told[0], *told[5:]]).results(0)  # cut, and resumed from a checkpoint before the cut
    assert found is not None
    for name in ("accuracy", "loss", "curve_step", "curve_task", "curve_accuracy", "task_steps"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_what_the_loss_is_of(tmp_path: Path) -> None:
    """Told at the start, so that a report of a run that goes on has bits, or squared errors; nothing by old runs."""
    told = events(Results.load(write(tmp_path, "er", 0)))[:4]
    for kind in ("language", "regression"):
        found = live.follow([{**told[0], kind: True}, *told[1:]]).results(0)
        assert found is not None
        assert (found.bits.size > 0, found.errors.size > 0) == (kind == "language", kind == "regression")
    old = live.follow(told).results(0)
    assert old is not None
    assert old.bits.size + old.errors.size == 0


def test_state_in_the_middle() -> None:
    nothing = live.follow([])
    assert (nothing.tasks, nothing.done, nothing.results(0)) == (0, 0.0, None)
    told = [
        {"event": "start", "time": 10.0, "name": "x", "tasks": 4},
        {"event": "row", "time": 11.0, "k": 0, "step": 0, "accuracy": [0.5] * 4, "loss": [1.0] * 4},
        {"event": "row", "time": 12.0, "k": 1, "step": 10, "accuracy": [0.9, None, 0.5, 0.5], "loss": [1.0] * 4},
        {"event": "progress", "time": 13.0, "task": 1, "step": 5, "steps": 10, "loss": None},
    ]
    state = live.follow(told)
    assert state.done == pytest.approx(1.5 / 4)
    assert np.isnan(state.loss)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(show(state, 80, now=16.0))
    text = console.export_text()
    assert "task 2/4, step 5/10" in text
    assert "0:00:06 gone, about 0:00:10 left" in text  # 6 s for 3/8


def test_dots_stand_where_the_values_are() -> None:
    rising = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    rows = canvas([rising], 4, 2, (0.0, 1.0)).plain.splitlines()
    dots = [[ord(c) - 0x2800 for c in row[5:]] for row in rows]
    # 8 x 8 dots, column c has its dot in row 7 - c: 0x40 | 0x20 are the lower two of a character, 0x02 | 0x08 the upper
    assert dots == [[0, 0, 0x60, 0x0A], [0x60, 0x0A, 0, 0]]


def test_a_jump_is_one_line() -> None:
    jump = (np.array([0.0, 0.5, 0.50001, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    rows = canvas([jump], 4, 2, (0.0, 1.0)).plain.splitlines()
    filled = np.zeros((8, 8), bool)
    marks = {
        0x01: (0, 0),
        0x02: (1, 0),
        0x04: (2, 0),
        0x40: (3, 0),
        0x08: (0, 1),
        0x10: (1, 1),
        0x20: (2, 1),
        0x80: (3, 1),
    }
    for line, row in enumerate(rows):
        for place, character in enumerate(row[5:]):
            for mark, (down, right) in marks.items():
                filled[4 * line + down, 2 * place + right] = bool((ord(character) - 0x2800) & mark)
    assert filled[7, :4].all()
    assert filled[0, 4:].all()
    assert filled[:7, 4].all()
    assert filled.sum() == 4 + 3 + 7


def test_once_shows_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running(tmp_path, 0.7)
    assert watch.main([str(tmp_path), "--once"]) == 0
    assert "accuracy matrix" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "[unfinished]" in page


def test_a_running_run_has_results_for_the_report(tmp_path: Path) -> None:
    folder, whole = running(tmp_path, 0.7)
    run = load(folder)
    assert run.results is not None
    np.testing.assert_array_equal(run.results.accuracy[0, :2], whole.accuracy[0, :2])
    assert np.isnan(run.results.accuracy[0, 3]).all()


def test_watching_ends_with_the_run(tmp_path: Path) -> None:
    folder, whole = running(tmp_path, 0.5)
    told = events(whole)

    def go_on() -> None:
        with (folder / "progress.jsonl").open("a") as file:
            for event in told[int(0.5 * len(told)) :]:
                file.write(json.dumps(event) + "\n")
                file.flush()
                time.sleep(0.01)

    writer = threading.Thread(target=go_on)
    writer.start()
    assert watch.main([str(folder), "--every", "0.02", "--no-page"]) == 0
    writer.join()
    assert not (folder / "report.html").exists()


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hold a run with progress.jsonl"):
        watch.main([str(tmp_path), "--once"])
    with pytest.raises(ConfigError, match="--every"):
        watch.main([str(tmp_path), "--every", "0"])
