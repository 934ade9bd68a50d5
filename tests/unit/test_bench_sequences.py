"""The bench: memory networks against public forms (no checkout, a wrong or a right one), rounds, width, clocks."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cl.bench.options import Options
from cl.bench.runs import process
from cl.bench.sections import growth, sequences, sweep
from cl.errors import ConfigError
from cl.testing import TinyStream

OPTIONS = Options(torch.device("cpu"), 1, 1, "", full=False, clock="cpu")

FORM = """
import torch
class EncapsulatedNTM(torch.nn.Module):
    def __init__(self, inputs, outputs, hidden, layers, heads, slots, size):
        super().__init__()
        self.layer = torch.nn.Linear(inputs, outputs)
        self.told = (inputs, outputs, hidden, layers, heads, slots, size)
    def init_sequence(self, batch):
        self.batch = batch
    def forward(self, x):
        assert x.shape == (self.batch, 9)
        return self.layer(x).sigmoid(), None
"""


def test_a_folder_that_is_no_checkout_is_told_by_the_name_of_the_variable(tmp_path):
    with pytest.raises(ConfigError, match="`PYTORCH_NTM` a folder with a package ntm"):
        sequences.public("ntm", tmp_path, OPTIONS)


def test_a_public_form_is_trained_on_the_same_sequences(tmp_path, monkeypatch):
    folder = Path(tmp_path) / "ntm"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "aio.py").write_text(FORM)
    for name, size in (("COPY", 2), ("SLOTS", 6), ("SLOT_SIZE", 3), ("HIDDEN", 4)):
        monkeypatch.setattr(sequences, name, size)
    rows = sequences.public("ntm", tmp_path, OPTIONS)
    assert [row.name for row in rows] == ["ntm, copy, batch 1", "ntm, copy, batch 16"]
    assert all(row.bar == 1.3 and len(row.ratios) == 1 for row in rows)
    theirs = sequences.TheirNTM(sequences.imported(folder, "public_ntm"))
    assert theirs.net.told == (9, 8, 4, 1, 1, 6, 3)
    x = torch.rand(2, 5, 9)
    torch.testing.assert_close(theirs(x), theirs.net.layer(x), rtol=1e-4, atol=1e-5)


def test_sweeps_are_measured_once_a_round_and_by_the_wall_clock_alone(monkeypatch, capsys):
    seconds = {"basic": 6.0, "cores": 3.0, "population": 2.0}
    monkeypatch.setattr(sweep, "sweep", lambda options, launcher: seconds[launcher])
    monkeypatch.setattr(sweep, "job", lambda options, seed: 0.5)
    rows = sweep.rows(replace(OPTIONS, clock="wall", rounds=2))
    assert [row.ratios for row in rows] == [[2.0] * 2, [16 / 3] * 2, [3.0] * 2, [8.0] * 2]
    assert sweep.rows(OPTIONS) == []
    assert "left out" in capsys.readouterr().out


def test_growth_is_measured_in_every_round_and_with_the_width(monkeypatch):
    monkeypatch.setattr(growth, "mnist", lambda *_, **options: TinyStream(options["scenario"]))
    monkeypatch.setattr(growth, "FEW", 3)
    case = growth.Case(growth.OnlineEWC, 3, learner="small mlp")
    [seconds], [held] = growth.side_by_side(replace(OPTIONS, rounds=3), case)
    assert len(set(seconds)) == 3
    units = 16 * 100 + 100 + 100 * 100 + 100 + 100 * 2 + 2
    assert held == pytest.approx(2 * 4 * units / 2**20, rel=1e-3)  # importance and anchor of every weight
    monkeypatch.setattr(growth, "side_by_side", lambda options, *cases: ([[1.0] for _ in cases], [0.0 for _ in cases]))
    against = {row.against for row in growth.rows(OPTIONS)}
    assert against == {"a task of 3", "200 in memory", "400 units"}


def test_the_time_of_a_process_is_told_by_either_clock():
    command = [sys.executable, "-c", "import time; time.sleep(1)"]
    assert process(command)[0] > 1 > process(command, "cpu")[0]
