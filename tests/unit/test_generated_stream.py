import pytest
import torch

from cl.cli.compose import compose
from cl.errors import ConfigError
from cl.seeding import step_keys
from cl.streams.data import TrainingData
from cl.streams.sequences import Adding, Copy, DelayedMatch, GeneratedStream, KeyValueRecall, PermutedCopy

KEYS = step_keys(0, 0, 0, 3)
SMALL = {"samples": 50, "test_samples": 20}


@pytest.mark.parametrize(("scenario", "outputs"), [("task", 27), ("domain", 9), ("class", 27), ("online", 9)])
def test_labels_of_the_scenarios(scenario, outputs):
    s = GeneratedStream([PermutedCopy(4, 1)], 3, scenario, **SMALL)
    assert s.info.n_classes == outputs
    own = set(range(18, 27)) if outputs == 27 else set(range(9))
    assert set(s[2].train.labels.unique().tolist()) <= own
    assert s.info.task_classes[2] == tuple(sorted(own))


def test_tasks_of_different_length_are_padded_and_marked():
    s = GeneratedStream([Copy(2, 3, blanks=False), Copy(3, 5, blanks=False)], **SMALL)
    assert s.info.padded
    assert s.info.input_shape == (11, 10)
    short, long = (next(iter(s[k].train.in_order(50))) for k in range(2))
    assert short.x[:, :7, -1].eq(1).all()
    assert short.x[:, 7:].eq(0).all()
    assert short.y[:, 7:].eq(-100).all()
    assert long.x[..., -1].eq(1).all()
    tokens = GeneratedStream([Copy(2, 3, encoding="tokens"), Copy(3, 5, encoding="tokens")], **SMALL)
    batch = next(iter(tokens[0].train.in_order(50)))
    assert batch.x.dtype == torch.int64
    assert batch.x[:, :7].gt(0).all()
    assert batch.x[:, 7:].eq(0).all()
    assert tokens.info.vocabulary == 11
    assert not GeneratedStream([Copy(2, 3)], **SMALL).info.padded


def test_splits_and_tasks_are_drawn_apart():
    s = GeneratedStream([PermutedCopy(6, 1)], 2, "domain", validation=20, **SMALL)
    sets = [s[0].train, s[1].train, s.test(0), s.test(1), s[0].validation]
    seen = [{tuple(x.flatten().tolist()) for x in next(iter(d.in_order(100))).x[:, :6]} for d in sets]
    for i, a in enumerate(seen):
        for b in seen[i + 1 :]:
            assert len(a & b) <= 1  # 8 ** 6 sequences: hardly two alike


def test_endless_training_never_repeats():
    s = GeneratedStream([KeyValueRecall()], endless=True, **SMALL)
    finite = GeneratedStream([KeyValueRecall()], **SMALL)
    where = torch.arange(16)
    a, b, again = (s[0].train.batch(where, KEYS[i]) for i in (0, 1, 0))
    assert not torch.equal(a.x, b.x)
    assert torch.equal(a.x, again.x)
    assert len(list(s[0].train.in_order(20))) == 3
    assert torch.equal(next(iter(s[0].train.in_order(20))).x, next(iter(finite[0].train.in_order(20))).x)
    mixed = TrainingData([s[0].train, s[0].train])
    batch = next(mixed.batches([torch.arange(40, 60)], [KEYS[0]]))
    assert batch.x.shape[0] == 20
    assert torch.equal(s.test(0).labels, finite.test(0).labels)


def test_samples_at_a_distance():
    s = GeneratedStream([KeyValueRecall((1, 5), steps=8)], 2, "task", **SMALL)
    far = s.at_distance(1, 30, 12)
    batch = next(iter(far.in_order(100)))
    assert batch.x.shape == (12, 31, 17)
    assert set(batch.y.tolist()) <= set(s.info.task_classes[1])
    near = next(iter(s.at_distance(1, 2, 12).in_order(100))).x
    assert near.shape[1] == 9
    assert torch.equal(near[:, -3, :8], near[:, -1, :8])


@pytest.mark.parametrize(
    ("problem", "distance", "steps"),
    [
        (DelayedMatch((1, 20), noise=0.0), 5, 7),
        (KeyValueRecall((1, 20), steps=4), 2, 5),
        (Adding(20), 5, 5),
        (Copy(3, 20), 2, Copy(3, 2).length),
    ],
)
def test_samples_at_a_shorter_distance_end_with_what_is_asked(problem, distance, steps):
    """Nothing tells blank steps after the end from blank steps before it, so that there must be none."""
    s = GeneratedStream([problem], **SMALL)
    assert not s.info.padded
    x, y = s.draw(s.problems[0].at(distance), 0, KEYS[0], 9)
    own, answer, _ = problem.at(distance).draw(KEYS[0], 9)
    assert own.shape[1] == steps < s.steps
    assert torch.equal(x, own)
    assert torch.equal(y, answer)
    assert next(iter(s.at_distance(0, distance, 9).in_order(9))).x.shape == own.shape


def test_samples_at_a_distance_of_padded_streams_and_of_tokens_are_padded():
    """The last two features mark the match's test and the real steps."""
    s = GeneratedStream([DelayedMatch(5), DelayedMatch(20)], **SMALL)
    x = next(iter(s.at_distance(1, 2, 9).in_order(9))).x
    assert s.info.padded
    assert x.shape[1:] == s.info.input_shape
    assert x[..., -1].sum(1).tolist() == [4] * 9


def test_small_storage():
    assert GeneratedStream([Copy(3, 4)], **SMALL)[0].train.storage.dtype == torch.int8
    assert next(iter(GeneratedStream([Copy(3, 4)], **SMALL)[0].train.in_order(5))).x.dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"problems": []}, r"stream\.problems"),
        ({"problems": [Copy(3, 4), Copy(3, 5)], "n_tasks": 3}, r"stream\.n_tasks"),
        ({"problems": [Copy(3, 4), Adding(11)]}, "equal target"),
        ({"problems": [Copy(3, 4), Copy(3, 4, symbols=5)]}, "equal features"),
        ({"problems": [Adding(11)], "scenario": "task"}, r"stream\.scenario"),
        ({"problems": [Copy(3, 4)], "samples": 0}, r"stream\.samples"),
        ({"problems": [Copy(3, 4)], "validation": 1.5}, r"stream\.validation` a whole number, or a fraction"),
        ({"problems": [Copy(3, 4)], "validation": float("inf")}, r"stream\.validation"),
    ],
)
def test_what_does_not_go_together(fields, text):
    with pytest.raises(ConfigError, match=text):
        GeneratedStream(**fields)


def test_recall_brings_what_it_needs_and_the_command_line_wins():
    config = compose(["stream=recall_distance"])
    assert config["choices"]["learner"] == "gru"
    assert "distance" in config["measures"]
    assert (config["training"]["epochs"], config["optimizer"]["lr"]) == (4, 0.003)
    words = ["learner=ntm", "measures=none", "training.epochs=1", "optimizer.lr=0.1"]
    config = compose(["stream=recall_distance", *words])
    assert config["choices"]["learner"] == "ntm"
    assert config["measures"] == {}
    assert (config["training"]["epochs"], config["optimizer"]["lr"]) == (1, 0.1)
