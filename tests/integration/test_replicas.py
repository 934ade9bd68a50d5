"""Replicas of one run, through the program: they share their samples and see what each would see alone."""

import copy

import pytest

import cl.run
from cl.cli.compose import compose
from cl.run import run_together

WORDS = ["stream=split_digits", "stream.construction.class_order=shuffled", "learner=mlp", "strategy=naive"]


@pytest.mark.parametrize("different", [False, True])
def test_replicas_share_samples_where_streams_differ_by_seed_alone(tmp_path, monkeypatch, different):
    built = []
    original = cl.run.build_stream

    def counted(*args):
        built.append(original(*args))
        return built[-1]

    monkeypatch.setattr(cl.run, "build_stream", counted)
    config = compose([*WORDS, f"output={tmp_path / 'together'}"])
    configs = [copy.deepcopy(config) | {"seed": s} for s in range(3)]
    if different:
        configs[2]["stream"]["validation"] = 0.2
    together = run_together(configs)
    assert len(built) == 1 + different
    alone = run_together([copy.deepcopy(configs[1]) | {"output": str(tmp_path / "alone")}])
    prints = [(o.path / "fingerprint.txt").read_text() for o in (*together, *alone)]
    assert prints[1] == prints[3]
    assert len(set(prints[:3])) == 3
