"""A sweep as populations leaves what the sweep of single runs leaves."""

import json
from pathlib import Path

import numpy as np

from cl.cli.main import main
from cl.results import Results
from hydra_plugins.lethe_population.launcher import PopulationLauncher, carry_out, groups, split

WORDS = ["stream=split_digits", "stream.samples_per_task=60", "stream.test_samples=20", "learner.hidden=[8]"]
VARIED = ["strategy=ewc,naive", "optimizer.lr=0.001,0.01,-1.0", "seed=0,1", "tracker=files", "threads=1"]


def sweep(folder: Path, launcher: str) -> tuple[dict[str, Results], list[tuple[str, str]]]:
    code = main(["train", "-m", f"hydra/launcher={launcher}", f"output={folder}", *WORDS, *VARIED])
    assert code == 1  # the learning rate of -1 is refused
    results = {p.parent.name: Results.load(p.parent) for p in folder.glob("split_digits/*/results.npz")}
    lines = [json.loads(line) for line in next(folder.glob(".sweeps/*/jobs.jsonl")).read_text().splitlines()]
    return results, [(Path(line["path"]).name.partition(" output")[0], line["status"]) for line in lines]


def test_run_folders_and_outcomes_are_those_of_single_runs(tmp_path):
    alone, alone_jobs = sweep(tmp_path / "alone", "basic")
    together, together_jobs = sweep(tmp_path / "together", "population")
    assert alone.keys() == together.keys()
    assert len(alone) == 8
    assert [status for _, status in together_jobs] == [status for _, status in alone_jobs]
    assert {status for _, status in together_jobs} == {"complete", "refused"}
    for name, one in alone.items():
        np.testing.assert_allclose(together[name].accuracy, one.accuracy, atol=0.051)
        np.testing.assert_allclose(together[name].train_loss, one.train_loss, rtol=1e-3, atol=1e-4)
        files = {p.name for p in (tmp_path / "alone" / "split_digits" / name).iterdir()}
        assert {p.name for p in (tmp_path / "together" / "split_digits" / name).iterdir()} == files


def test_jobs_that_differ_in_seeds_and_numbers_form_a_group():
    def config(seed=0, strength=1.0, size=100, lr=0.1, stream="digits"):
        strategy = {"_target_": "a", "strength": strength, "size": size}
        return {"seed": seed, "strategy": strategy, "optimizer": {"lr": lr, "betas": [lr, 0.9]}, "stream": stream}

    jobs = [config(), config(seed=1), config(strength=2.0), config(lr=0.2), config(size=200), config(stream="mnist")]
    assert groups(dict(enumerate(jobs))) == [[0, 1, 2, 3], [4], [5]]


def test_groups_are_cut_to_fill_the_processes():
    assert split([[0, 1, 2, 3, 4]], 2) == [[0, 2, 4], [1, 3]]
    assert split([[0, 1], [2]], 2) == [[0, 1], [2]]
    assert split([[0]], 4) == [[0]]


def test_groups_take_the_gpus_in_turn(monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    assert [type(e) for e in carry_out([{"stream": "none"}], gpu=1)] != []
    assert chosen == [1]
    assert [PopulationLauncher()._processes(gpus) for gpus in (0, 1, 4)] == [1, 1, 4]
    assert PopulationLauncher(n_jobs=2)._processes(4) == 2
