import json
import multiprocessing
import time

import numpy as np
import pytest
import yaml

from cl import ledger
from cl.cli.commands.runs import main
from cl.errors import ConfigError
from cl.folder import RunFolder
from cl.results import Results

MATRIX = np.array([[[0.5, 0.5], [0.9, 0.5], [0.6, 0.8]]])  # average (.6 + .8) / 2, forgetting .9 - .6


def make(folder, name="s-naive-seed0-aaaaaaaa", status="complete", results=True, seed=0):
    run = folder / "group" / name
    run.mkdir(parents=True)
    config = {"seed": seed, "stream": {"scenario": "class"}, "choices": {"stream": "s", "strategy": "naive"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    if results:
        Results(accuracy=MATRIX, loss=MATRIX, seeds=[seed]).save(run)
    (run / "status.json").write_text(json.dumps({"status": status, "message": "", "started": time.time()}))
    return run


def test_numbers_and_names(tmp_path):
    make(tmp_path)
    (entry,) = ledger.runs(tmp_path)
    assert (entry.state, entry.stream, entry.scenario, entry.strategy) == ("complete", "s", "class", "naive")
    assert entry.accuracy == pytest.approx(0.7)
    assert entry.forgetting == pytest.approx(0.3)
    assert entry.configuration == "aaaaaaaa"


@pytest.mark.parametrize(("flag", "column", "unit"), [
    ("language", "bits_per_character", np.log(2)),
    ("regression", "mean_squared_error", 1.0),
])  # fmt: skip
def test_losses_that_say_more_than_an_accuracy(tmp_path, capsys, flag, column, unit):
    run = make(tmp_path)
    Results(accuracy=MATRIX, loss=MATRIX * 3, seeds=[0], **{flag: True}).save(run)
    (entry,) = ledger.runs(tmp_path)
    assert getattr(entry, column) == pytest.approx(2.1 / unit)
    others = {"bits_per_character", "mean_squared_error"} - {column}
    assert [getattr(entry, name) for name in others] == [None]
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert column.replace("_", " ") in shown
    assert f"{2.1 / unit:.4g}" in shown
    assert not any(name.replace("_", " ") in shown for name in others)


def test_filter_and_sort(tmp_path):
    for seed in range(3):
        make(tmp_path, f"s-naive-seed{seed}-a", seed=seed, status="failed" if seed == 1 else "complete")
    assert [e.seed for e in ledger.runs(tmp_path, sort="-seed")] == [2, 1, 0]
    assert [e.seed for e in ledger.runs(tmp_path, state="failed")] == [1]
    assert [e.seed for e in ledger.runs(tmp_path, where={"seed": "2"})] == [2]
    with pytest.raises(ConfigError, match="colour"):
        ledger.runs(tmp_path, sort="colour")
    with pytest.raises(ConfigError, match="`--state` in"):
        ledger.runs(tmp_path, state="complet")


def test_index_follows_the_folders_and_can_be_rebuilt(tmp_path):
    run = make(tmp_path)
    before = ledger.runs(tmp_path)
    (run / "status.json").write_text(json.dumps({"status": "failed", "message": "why", "finished": 1.0}))
    assert [(e.state, e.message) for e in ledger.runs(tmp_path)] == [("failed", "why")]
    (tmp_path / ledger.INDEX).unlink()
    assert [(e.state, e.message) for e in ledger.runs(tmp_path)] == [("failed", "why")]
    (tmp_path / ledger.INDEX).write_bytes(b"no database" * 100)
    assert len(ledger.runs(tmp_path)) == len(before) == 1
    (run / "config.yaml").unlink()
    assert ledger.runs(tmp_path) == []


def test_states_of_unfinished_runs(tmp_path):
    held = make(tmp_path, "held", status="running", results=False)
    make(tmp_path, "cut", status="running", results=False)
    make(tmp_path, "empty", status="complete", results=False)
    broken = make(tmp_path, "broken")
    (broken / "results.npz").write_bytes(b"no archive")
    folder = RunFolder(held)
    try:
        states = {e.path.split("/")[1]: e.state for e in ledger.runs(tmp_path)}
        again = {e.path.split("/")[1]: e.state for e in ledger.runs(tmp_path)}
    finally:
        folder.close()
    assert states == again == {"held": "running", "cut": "cut", "empty": "incomplete", "broken": "incomplete"}
    assert ledger.runs(tmp_path, where={"path": "group/held"})[0].state == "cut"


def _read(folder):
    return len(ledger.runs(folder))


def test_several_processes_at_once(tmp_path):
    for seed in range(8):
        make(tmp_path, f"s-naive-seed{seed}-a", seed=seed)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_read, [tmp_path] * 6) == [8] * 6


def test_folder_has_one_writer(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.status("running")
    with pytest.raises(ConfigError, match="in progress"):
        RunFolder(tmp_path / "run")
    first.close()
    RunFolder(tmp_path / "run").close()
