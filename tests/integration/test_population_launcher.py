"""A sweep as populations leaves what the sweep of single runs leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cl.cli.compose import compose
from cl.cli.main import main
from cl.cli.sweep import on_gpu
from cl.folder import config_hash
from cl.replica import Outcome
from cl.results import Results
from cl.run import average
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
    def config(seed=0, strength=1.0, size=100, lr=0.1, stream="digits", betas=(0.9, 0.99), **own):
        strategy = {"_target_": "a", "strength": strength, "size": size}
        optimizer = {"lr": lr, "betas": list(betas)}
        return {"seed": seed, "strategy": strategy, "optimizer": optimizer, "stream": stream, **own}

    jobs = [config(), config(seed=1), config(strength=2.0), config(lr=0.2), config(size=200), config(stream="mnist")]
    assert groups(dict(enumerate(jobs))) == [[0, 1, 2, 3], [4], [5]]
    # In lists a population varies nothing; no number at all is another program.
    assert groups({0: config(), 1: config(betas=(0.8, 0.99)), 2: config(strength=None)}) == [[0], [1], [2]]
    own = [config(name="a", tags=["b"], tracker={"files": {}}, output="c"), config(name="d", tracker={}, group="e")]
    assert groups(dict(enumerate(own))) == [[0, 1]]


def test_whole_numbers_are_numbers_too():
    strengths = ["strategy.strength=1", "strategy.strength=10", "strategy.strength=1.0", "strategy.samples=10"]
    configs = {i: compose(["strategy=ewc", "name=r${seed}", f"seed={i}", word]) for i, word in enumerate(strengths)}
    assert groups(configs) == [[0, 1, 2], [3]]
    assert config_hash({**configs[0], "name": None}) == config_hash({**configs[2], "name": None})


def small(folder: Path, *words: str) -> dict:
    return compose([*WORDS, "strategy=ewc", "threads=1", "tracker=files", f"output={folder}", *words])


def test_an_impossible_job_leaves_the_others_together(tmp_path):
    strengths = ["strategy.strength=1", "strategy.strength=-1", "strategy.strength=3", "name=a/b"]
    first, negative, third, named = carry_out([small(tmp_path, word) for word in strengths])
    assert "strategy.strength" in str(negative)
    assert "`name`" in str(named)
    assert [ended[0].status for ended in (first, third)] == ["complete"] * 2
    assert [ended[0].results.costs["replicas_together"] for ended in (first, third)] == [2, 2]
    states = [json.loads(f.read_text())["status"] for f in tmp_path.glob("split_digits/*/status.json")]
    assert states == ["complete"] * 2


def test_replicas_that_cannot_be_stacked_count_their_own_passes(tmp_path):
    """DER without its term takes no samples from memory: half the passes."""
    words = [("strategy=der", "strategy.memory_size=40", f"strategy.alpha={alpha}") for alpha in (0.3, 0.0)]
    together = carry_out([small(tmp_path / "together", *own) for own in words])
    alone = [carry_out([small(tmp_path / "alone", *own)])[0] for own in words]
    for name in ("passes_forward", "passes_backward"):
        counted = [ended[0].results.costs[name] for ended in together]
        assert counted == [ended[0].results.costs[name] for ended in alone]
        assert counted[0] > counted[1]


def test_replicas_with_trackers_of_their_own_speak_for_themselves(tmp_path, capsys):
    trackers = ["tracker=files", "tracker=console", "tracker=[files,console]"]
    configs = [small(tmp_path, word, f"name=r{i}") for i, word in enumerate(trackers)]
    assert groups(dict(enumerate(configs))) == [[0, 1, 2]]
    ended = carry_out(configs)
    said = capsys.readouterr().err
    assert [f"r{i}-seed0" in said for i in range(3)] == [False, True, False]
    assert [(e[0].path / "progress.jsonl").is_file() for e in ended] == [True, False, True]


@pytest.mark.parametrize("launcher", ["basic", "population"])
def test_jobs_with_the_same_run_folder_run_once(tmp_path, capsys, launcher):
    words = [*WORDS, "strategy=ewc", "strategy.strength=1,1.0,2", "tracker=files", f"output={tmp_path}"]
    assert main(["train", "-m", f"hydra/launcher={launcher}", *words]) == 0
    said = capsys.readouterr().out
    assert said.count("complete before, not run again") == 1
    assert not (tmp_path / "split_digits" / ".replaced").exists()
    assert len(list(tmp_path.glob("split_digits/*/results.npz"))) == 2


def test_a_failed_trial_does_not_end_a_search(tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = [*WORDS, "tracker=files", f"output={tmp_path}", "optimizer.lr=interval(-0.1,0.1)", "hydra/launcher=basic"]
    search = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1"]
    search += ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.sweeper.direction=maximize"]
    assert main(["train", "-m", *search, *words]) == 1
    said = capsys.readouterr().err
    lines = [json.loads(line) for line in next(tmp_path.glob(".sweeps/*/jobs.jsonl")).read_text().splitlines()]
    assert len(lines) == 4
    assert {line["status"] for line in lines} == {"complete", "refused"}
    assert said.count("warning: ") == 1
    assert "evaluation.split=validation" in said
    best = (next(tmp_path.glob(".sweeps/*")) / "optimization_results.yaml").read_text()
    assert "best_value: 0." in best


def test_the_value_of_a_failed_job_is_none():
    accuracy = np.full((2, 3, 2), 0.5)
    sound = [Outcome(Path(), "complete", "", Results(a[None], a[None], [0])) for a in accuracy]
    assert average(sound) == 0.5
    assert average([sound[0], Outcome(Path(), "failed", "", Results(accuracy, accuracy, [0, 1]))]) is None
    unknown = Results(accuracy * np.nan, accuracy, [0, 1])
    assert average([Outcome(Path(), "complete", "", unknown)]) is None


def test_sweeps_on_a_gpu_are_populations(monkeypatch):
    assert on_gpu("cuda:1", [])
    assert not on_gpu("cpu", [])
    assert on_gpu("auto", ["device=cuda:0,cuda:1"])
    monkeypatch.setattr("cl.device.find", lambda name: torch.device("cuda"))
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    assert on_gpu("auto", [])
    monkeypatch.setattr("cl.device.find", lambda name: torch.device("cpu"))  # a driver, but no device for us
    assert not on_gpu("auto", [])


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
