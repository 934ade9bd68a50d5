"""Every stream of conf/stream that can be built from the files at hand, found by walking the folder."""

import functools
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cl.build import construct, locate
from cl.cli.compose import compose
from cl.errors import AccessError, DataError
from cl.seeding import step_keys
from cl.streams import TaskStream
from cl.streams.base import Stream, TrainingView
from cl.streams.data import Data

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "stream"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DECODES = {name for name in NAMES if name.endswith("_jpeg")}  # half a minute where no decoded copy is at hand


def build(name: str, root: Path, seed: int = 0, **changed: object) -> Stream:
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    config.pop("defaults", None)  # what it chooses of other groups
    if "samples" in config:  # generated: a few will do
        config |= {"samples": 300, "test_samples": 100}
    config |= changed
    return construct(config, "stream", seed=seed, root=str(root), download=False, device="cpu")


@functools.cache
def kept(name: str, root: Path) -> Stream | str:
    try:
        return build(name, root)
    except DataError as error:
        return str(error)


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.slow) if n in DECODES else n for n in NAMES])
def stream(request, data_root):
    found = kept(request.param, data_root)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def name(request, stream):
    return request.node.callspec.params["stream"]


def some(stream: Stream) -> list[int]:
    """A few tasks, the last one first."""
    return sorted({0, 1, len(stream) - 1} & set(range(len(stream))), reverse=True)


def look(data: Data, seed: int = 0) -> list[torch.Tensor]:
    """A training batch of samples spread over a split."""
    positions = torch.arange(0, len(data), max(1, len(data) // 16))
    batch = data.batch(positions, step_keys(seed, data.task, 3, 1)[0])
    return [batch.x, batch.y, batch.task]


def test_there_are_streams():
    assert {"split_digits", "split_mnist", "permuted_mnist", "rotated_mnist"} <= set(NAMES)


def test_pure_function_of_specification_and_seed(stream, name, data_root):
    again = build(name, data_root)
    assert again.fingerprint() == stream.fingerprint()
    assert again.info == stream.info
    for k in some(stream):
        torch.rand(3)  # the global generator is not in it
        for a, b in zip(look(stream[k].train), look(again[k].train), strict=True):
            assert torch.equal(a, b)


def test_random_access_in_any_order(name, stream, data_root):
    forwards, backwards = build(name, data_root), build(name, data_root)
    order = some(forwards)
    there = {k: (look(forwards[k].train), look(forwards.test(k))) for k in reversed(order)}
    back = {k: (look(backwards[k].train), look(backwards.test(k))) for k in order}
    for k in order:
        for a, b in zip([*there[k][0], *there[k][1]], [*back[k][0], *back[k][1]], strict=True):
            assert torch.equal(a, b)


def test_another_seed_of_the_same_samples(name, stream, data_root):
    if not isinstance(stream, TaskStream):
        pytest.skip("samples are made by the seed")
    before = stream.fingerprint()
    one, fresh = stream.with_seed(1), build(name, data_root, seed=1)
    assert one.fingerprint() == fresh.fingerprint()
    assert one.info == fresh.info
    assert one[0].train.storage is stream[0].train.storage
    assert stream.fingerprint() == before


def test_global_randomness_is_untouched(name, stream, data_root):
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    made = build(name, data_root)
    look(made[0].train)
    made.fingerprint()
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()


def test_info_tells_the_truth(stream):
    info = stream.info
    assert len(stream) == info.n_tasks == len(info.task_classes) == len(stream.class_names)
    for k in some(stream):
        task, test = stream[k], stream.test(k)
        assert task.index == k
        assert task.classes == info.task_classes[k]
        assert len(task.train) > 0
        assert len(test) > 0
        for data in (task.train, test):
            x, y, ids = look(data)
            assert tuple(x.shape[1:]) == info.input_shape
            assert x.dtype == (torch.int64 if info.vocabulary else torch.float32)
            assert ids.eq(k).all()
            assert torch.isfinite(x.float()).all()
            if info.vocabulary:
                assert int(x.min()) >= 0
                assert int(x.max()) < info.vocabulary
            if info.target == "class":
                assert y.shape == (len(x),)
            if info.target == "steps":
                assert y.dim() == 2
            if info.target != "real":
                assert set(data.labels.unique().tolist()) - {-100} <= set(task.classes)


def test_no_class_is_dropped(stream):
    if stream.info.target != "class":
        pytest.skip("targets are not classes")
    assert {c for classes in stream.info.task_classes for c in classes} == set(range(stream.info.n_classes))
    for k in some(stream):
        assert set(stream[k].train.labels.tolist()) == set(stream.info.task_classes[k])
        assert len(stream.class_names[k]) == len(stream.info.task_classes[k])


def test_fingerprint_changes_with_what_is_seen(stream, name, data_root):
    prints = {stream.fingerprint()}
    if "label_noise" in yaml.safe_load((FOLDER / f"{name}.yaml").read_text()):
        changed = [{"validation": 0.1}, {"test_samples": 5}]
        if stream.info.target == "class":
            changed += [{"label_noise": 0.5}]
    else:
        changed = [{"test_samples": 5}]
    prints |= {build(name, data_root, **fields).fingerprint() for fields in changed}
    assert len(prints) == 1 + len(changed)


def test_validation_is_held_out_and_seeded(stream, name, data_root):
    one = build(name, data_root, validation=0.2)
    other = build(name, data_root, seed=1, validation=0.2)
    for k in some(one):
        task = one[k]
        if len(task.train.index) < 50:
            continue
        if task.train.storage is task.validation.storage:
            assert not set(task.train.index.tolist()) & set(task.validation.index.tolist())
        assert abs(len(task.validation) / (len(task.train) + len(task.validation)) - 0.2) < 0.05
        pairs = zip(look(task.validation), look(other[k].validation), strict=True)
        assert not all(torch.equal(a, b) for a, b in pairs)
    assert one.fingerprint() != other.fingerprint()


def test_splits_hold_no_common_sample(stream):
    for k in some(stream):
        task, test = stream[k], stream.test(k)
        shared = task.train.storage.data_ptr() == test.storage.data_ptr()
        assert not shared or not set(task.train.index.tolist()) & set(test.index.tolist())


def test_evaluation_sees_every_sample_once_in_order(stream):
    test = stream.test(0)
    labels = torch.cat([batch.y for batch in test.in_order(64)])
    assert torch.equal(labels, test.labels)


def test_a_strategy_sees_no_other_task_and_no_test_data(stream):
    view = TrainingView(stream, 0, "current", "Somebody")
    assert not hasattr(view, "test")
    assert view[0].index == 0
    if len(stream) > 1:
        with pytest.raises(AccessError):
            view[1]


def nodes(config: object) -> list[dict]:
    inner = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    own = [config] if isinstance(config, dict) and "_target_" in config else []
    return own + [node for value in inner for node in nodes(value)]


@pytest.mark.parametrize("file", NAMES)
def test_yaml_lists_every_field_with_a_comment(file):
    text = (FOLDER / f"{file}.yaml").read_text()
    assert text.startswith("# ")
    for node in nodes(yaml.safe_load(text)):
        parameters = set(inspect.signature(locate(node["_target_"], "stream")).parameters)
        fields = set(node) - {"_target_", "defaults"}
        assert fields == parameters - {"seed", "root", "download", "device"}, node["_target_"]
    for line in text.splitlines()[1:]:
        field, _, value = line.strip().partition(":")
        assert "#" in line or not value.strip() or "_target_" in field, line


@pytest.mark.parametrize("name", [n for n in NAMES if "defaults:" in (FOLDER / f"{n}.yaml").read_text()])
def test_what_a_stream_chooses_of_other_groups_gives_way_to_the_command_line(name):
    config = compose([f"stream={name}"])
    assert "defaults" not in config["stream"]
    assert config["choices"]["learner"] == "gru"
    config = compose([f"stream={name}", "learner=lstm", "training.epochs=7", "optimizer.lr=0.5"])
    assert (config["choices"]["learner"], config["training"]["epochs"]) == ("lstm", 7)
    assert config["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_streams_of_sequences_bring_a_learner_that_reads_them(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    sequences = "cl.streams.sequences." in text or "AsSequence" in text
    assert sequences == ("defaults:" in text)
