"""The examples that are forgotten: their order, their csv, their pictures, their histogram."""

import csv
from pathlib import Path

import numpy as np
import torch

from cl.cli.commands import report
from cl.report import forgotten
from cl.report.samples import read_samples
from cl.results import Results
from cl.testing import TinyStream
from tests.fake_runs import write

AXES = ["task", "example"]
NAN = np.nan
TABLES = {  # three tasks of four examples
    "forgetting_events": [[0, 2, 1, NAN], [1, 0, 1, 0], [0, 0, 0, NAN]],
    "first_forgotten": [[NAN, 2, 3, NAN], [3, NAN, 3, NAN], [NAN] * 4],
    "example_index": [[0, 1, 60, 61], [120, 121, 180, 181], [240, 241, 300, 301]],
    "example_label": [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]],
}


def measured() -> dict[str, dict[str, object]]:
    facts = {"axes": AXES, "meaning": "", "better": "", "source": "", "unit": "", "names": {}, "summary": False}
    return {name: {**facts, "values": np.array(rows, float)} for name, rows in TABLES.items()}


def results() -> Results:
    return Results(np.zeros((1, 4, 3)), np.zeros((1, 4, 3)), [0], measures=measured())


def test_most_events_first_then_the_first_to_go() -> None:
    found = [(e.task, e.row, e.label, e.events, e.first) for e in forgotten.examples(results())]
    assert found == [(0, 1, 0, 2, 2), (0, 60, 1, 1, 3), (1, 120, 2, 1, 3), (1, 180, 3, 1, 3)]
    assert forgotten.examples(Results(np.zeros((1, 4, 3)), np.zeros((1, 4, 3)), [0])) == []


def test_pictures_are_those_examples(tmp_path: Path) -> None:
    stream = TinyStream("class", samples=40)
    forgotten.write_forgotten(stream, results(), tmp_path)
    found = read_samples(tmp_path / forgotten.NAME)
    assert found is not None
    assert found.task.tolist() == [0, 0, 1, 1]
    assert found.label.tolist()[0] == "0: 2 times, first by task 2"
    assert found.label.tolist()[3] == "3: once, first by task 3"
    data = stream[1].train
    x = data.inputs((data.index == 180).nonzero()[:, 0])[0, 0]
    expected = ((x - x.min()) / (x.max() - x.min()) * 255).round().to(torch.uint8)
    np.testing.assert_array_equal(found.pixels[3, ..., 0], expected)


def test_report_shows_and_exports_them(tmp_path: Path) -> None:
    for strategy in ("naive", "ewc"):
        folder = write(tmp_path, strategy, 0, measures=measured())
        forgotten.write_forgotten(TinyStream("class"), results(), folder)
    report.main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert page.count('alt="sample of') == 2 * 4
    with (tmp_path / "figures" / "forgotten_examples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4
    assert rows[0] == {
        "stream": "Split Digits, class",
        "strategy": "ewc",
        "seed": "0",
        "task": "1",
        "row": "1",
        "class": "0",
        "events": "2",
        "first_forgotten_after_task": "2",
    }
    with (tmp_path / "figures" / "forgetting_events.csv").open() as file:
        shares = [float(r["share of examples"]) for r in csv.DictReader(file) if r["strategy"] == "naive"]
    assert shares == [1 / 8, 3 / 8, 3 / 8, 1 / 8]  # never right, 0, 1, 2 events; of tasks 1 and 2


def test_nothing_without_the_measure(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0)
    report.main([str(tmp_path)])
    assert not (tmp_path / "figures" / "forgotten_examples.csv").exists()
