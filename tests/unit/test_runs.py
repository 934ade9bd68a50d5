"""Finding run folders and putting them into groups."""

from pathlib import Path

import numpy as np
import pytest

from cl import groups as grouping
from cl import runs
from cl.errors import DataError
from cl.results import Results
from tests.fake_runs import matrix, write


def groups(root: Path) -> list[grouping.Group]:
    return grouping.group([runs.load(f) for f in runs.find([root])])


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        write(
            tmp_path / "a", "ewc", seed, fields={"strength": 100.0}, top={"output": f"elsewhere{seed}", "device": "cpu"}
        )
    write(tmp_path / "b" / "deep", "ewc", 0, fields={"strength": 1.5})
    write(tmp_path / "b", "naive", 0)
    found = groups(tmp_path)
    assert [g.label for g in found] == ["ewc (strength=1.5)", "ewc (strength=100)", "naive"]
    assert [g.seeds for g in found] == [[0], [0, 1, 2], [0]]
    assert found[1].accuracy.shape == (3, 4, 3)
    assert found[0].stream == "Split Digits, class"


def test_what_failed_enters_no_mean(tmp_path: Path) -> None:
    write(tmp_path, "ewc", 0)
    write(tmp_path, "ewc", 1, status="failed", message="loss nan")
    write(tmp_path, "ewc", 2, status="running")
    (found,) = groups(tmp_path)
    assert (found.seeds, found.finished) == ([0], True)
    assert sorted(r.status for r in found.others) == ["failed", "running"]


def test_unfinished_runs_count_where_none_is_complete(tmp_path: Path) -> None:
    write(tmp_path, "ewc", 2, status="running")
    (found,) = groups(tmp_path)
    assert (found.seeds, found.finished) == ([2], False)


def test_a_repeated_seed_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "ewc", 0, name="one")
    write(tmp_path, "ewc", 0, name="two")
    (found,) = groups(tmp_path)
    assert len(found.runs) == len(found.others) == 1


def test_corrupt_folders_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    write(tmp_path, "ewc", 0)
    broken = write(tmp_path, "naive", 0)
    (broken / "results.npz").write_bytes(b"not an archive")
    (broken / "environment.json").write_text("{")
    run = runs.load(broken)
    assert run.results is None
    assert run.status == "failed"
    assert "results cannot be read" in run.message
    assert "environment.json cannot be read" in run.message
    assert [g.label for g in groups(tmp_path) if g.runs] == ["ewc"]


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hold a run folder"):
        runs.find([tmp_path])
    with pytest.raises(DataError, match="not one"):
        runs.find([tmp_path / "missing"])


def test_runs_that_got_differently_far_have_their_values_by_task(tmp_path: Path) -> None:
    for seed, done in enumerate((3, 2)):
        folder = write(tmp_path, "ewc", seed)
        results = Results.load(folder)
        results.task_steps = np.full(done, 100)
        results.online_accuracy = np.repeat([[0.2, 0.4, 0.6]], 100, 1).astype(np.float32)[:, : done * 100]
        results.save(folder)
    (found,) = groups(tmp_path)
    values = grouping.measures(found, [found])["online_accuracy_by_task"]
    np.testing.assert_allclose(values, [[0.2, 0.4, 0.6], [0.2, 0.4, np.nan]], rtol=1e-6)


def test_references_are_found_and_matched_by_seed(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "ewc", seed, accuracy=matrix(3, 0.8, seed, noise=0))
        write(tmp_path, "naive", seed, accuracy=matrix(3, 0.2, seed, noise=0))
        if seed < 2:
            write(tmp_path, "joint", seed, accuracy=matrix(3, 1.0, seed, noise=0))
    found = {g.label: g for g in groups(tmp_path)}
    values = grouping.measures(found["ewc"], list(found.values()))
    final = {kept: 0.5 + 0.45 * np.mean([kept**2, kept, 1]) for kept in (0.2, 0.8, 1.0)}
    share = (final[0.8] - final[0.2]) / (final[1.0] - final[0.2])
    np.testing.assert_allclose(values["share_of_gap_closed"], [share, share, np.nan])
    np.testing.assert_allclose(values["accuracy_drop"], np.tile([0.45 * 0.36, 0.45 * 0.2, 0.0], (3, 1)), atol=1e-12)


def test_optimisers_are_told_apart_by_name_and_by_what_they_share(tmp_path: Path) -> None:
    """Not by every setting that one has and the other has not."""
    nodes = {
        "sgd": {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.0},
        "adam": {"_target_": "torch.optim.Adam", "_partial_": True, "betas": [0.9, 0.999]},
    }
    for name, node in nodes.items():
        for lr in (0.1, 0.01):
            top = {"optimizer": node | {"lr": lr}, "scheduler": None, "choices": {"optimizer": name}}
            write(tmp_path, "naive", 0, top=top)
    assert {g.label for g in groups(tmp_path)} == {
        f"naive (optimizer={name}, lr={lr})" for name in nodes for lr in ("0.1", "0.01")
    }


def test_schedules_are_told_apart_from_none(tmp_path: Path) -> None:
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "eta_min": 0.0}
    for node, name in ((None, "none"), (cosine, "cosine")):
        write(tmp_path, "naive", 0, top={"scheduler": node, "choices": {"scheduler": name}})
    assert {g.label for g in groups(tmp_path)} == {"naive (scheduler=none)", "naive (scheduler=cosine)"}
