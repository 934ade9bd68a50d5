"""Replicas of one run, through the program: they share their samples and see what each would see alone."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cl.replica
import cl.run
from cl import checkpoint
from cl.cli.compose import compose
from cl.cli.main import main
from cl.folder import read_status
from cl.run import run, run_together

WORDS = ["stream=split_digits", "stream.construction.class_order=shuffled", "learner=mlp", "strategy=naive"]


@pytest.mark.parametrize("different", [False, True])
def test_replicas_share_samples_where_streams_differ_by_seed_alone(tmp_path, monkeypatch, different):
    built = []
    original = cl.replica.build_stream

    def counted(*args):
        built.append(original(*args))
        return built[-1]

    monkeypatch.setattr(cl.replica, "build_stream", counted)
    config = compose([*WORDS, f"output={tmp_path / 'together'}"])
    configs = [copy.deepcopy(config) | {"seed": s} for s in range(3)]
    if different:
        configs[2]["stream"]["validation"] = 0.2
    together = [outcome for (outcome,) in run_together(configs)]
    assert len(built) == 1 + different
    alone = run(copy.deepcopy(configs[1]) | {"output": str(tmp_path / "alone")})
    prints = [(o.path / "fingerprint.txt").read_text() for o in (*together, *alone)]
    assert prints[1] == prints[3]
    assert len(set(prints[:3])) == 3


@contextlib.contextmanager
def cut_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End whatever runs inside the block, as if killed, when it has saved so often and is about to do it again."""
    done, save = [], checkpoint.save

    def cut(*args):
        if len(done) == saves:
            raise SystemExit("cut")
        done.append(save(*args))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", cut)
        patched.setattr(cl.run, "_finish", lambda *told: None)
        with pytest.raises(SystemExit):
            yield


@pytest.mark.parametrize(
    ("strategy", "saves"), [*(("naive", n) for n in (1, 2, 4, 5, 8)), *(("slda", n) for n in (8, 11, 14, 16))]
)
def test_a_population_cut_between_its_saves_goes_on_level(tmp_path, monkeypatch, strategy, saves):
    """Some replicas have a newer checkpoint than others; trained apart they would differ in the last bit.

    Most tasks of streaming LDA have no step.
    """
    monkeypatch.setattr("cl.population.population.FEW", 2)  # stack three
    words = [
        "stream=split_digits",
        "learner=mlp",
        f"strategy={strategy}",
        "learner.hidden=[32,32]",
        "training.epochs=3",
        "training.batch_size=16",
        "checkpoint.steps=20",
    ]
    config = compose([*words, "resume=auto", "threads=1"])

    def carry_out(folder: Path) -> list[Path]:
        configs = [copy.deepcopy(config) | {"seed": s, "output": str(folder)} for s in range(3)]
        outcomes = [outcome for (outcome,) in run_together(configs)]
        assert [o.status for o in outcomes] == ["complete"] * 3
        return [o.path for o in outcomes]

    whole = carry_out(tmp_path / "whole")
    with cut_after(saves, monkeypatch):
        carry_out(tmp_path / "cut")
    for one, two in zip(whole, carry_out(tmp_path / "cut"), strict=True):
        a, b = (checkpoint.read(path / checkpoint.NEWEST) for path in (one, two))
        assert all(a["strategy"][n].equal(b["strategy"][n]) for n in a["strategy"])
        np.testing.assert_array_equal(a["loss"], b["loss"])
        assert all(x.equal(y) for x, y in zip(a["train_losses"], b["train_losses"], strict=True))


def test_replicas_that_are_far_apart_each_go_on_where_they_were(tmp_path, monkeypatch):
    """As when seeds are added to a run that was cut: what the old ones have learned is not thrown away."""
    config = compose([*WORDS, "training.epochs=2", "training.batch_size=16", "checkpoint.steps=10", "resume=auto"])
    configs = [copy.deepcopy(config) | {"seed": s, "output": str(tmp_path)} for s in range(2)]
    with cut_after(4, monkeypatch):
        run_together(configs[:1])
    began = []
    monkeypatch.setattr(cl.run, "_train", lambda replicas, of: began.extend(r.engine.total_steps for r in replicas))
    run_together(configs)
    assert began[0] > 20
    assert began[1] == 0


BROKEN = """
from strategies.naive import Naive

class Broken(Naive):
    def end_task(self, task):
        if self.info.seed in {seeds}:
            raise ValueError("no end")
"""


def test_a_defect_of_one_seed_fails_its_run_alone(tmp_path, monkeypatch, capsys):
    """Alone it would end the command with its traceback; so it does where every seed has it."""
    monkeypatch.chdir(tmp_path)
    for name, seeds in (("one_broken", {1}), ("all_broken", {0, 1})):
        Path(f"{name}.py").write_text(BROKEN.format(seeds=seeds))
    words = ["train", "stream=split_digits", "replicas=2", "output=runs", "strategy._target_=one_broken.Broken"]
    assert main(words) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    [place] = Path("runs").rglob("traceback.txt")
    assert "seed1" in place.parent.name
    assert "one_broken.py" in place.read_text()
    assert f"{place.parent.name} failed: ValueError: no end (traceback in {place})" in line
    folders = [path.parent for path in Path("runs").rglob("status.json")]
    states = {folder.name.split("-")[-2]: read_status(folder)["status"] for folder in folders}
    assert states == {"seed0": "complete", "seed1": "failed"}
    with pytest.raises(ValueError, match="no end"):
        main([*words[:-1], "strategy._target_=all_broken.Broken"])
