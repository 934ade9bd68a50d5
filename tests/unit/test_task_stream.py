import pytest
import torch
from scipy.stats import binomtest

from cl.errors import AccessError, ConfigError
from cl.seeding import step_keys, uniform
from cl.streams import TaskStream
from cl.streams.base import TrainingView
from cl.streams.changes import Permutation
from cl.streams.constructions import Permuted, Rotated, Split
from cl.streams.sources import MNIST, Digits, Samples, Source, Table
from cl.streams.transforms import Augmentation, Normalisation, Pipeline


class Made(Source):
    """Two-pixel images that say which sample they are, `n` of each class."""

    def __init__(self, classes: int = 4, n: int = 50) -> None:
        self.classes, self.n = classes, n

    def load(self, root, download):
        y = torch.arange(self.classes).repeat(self.n)
        x = torch.arange(len(y)).to(torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 2, 2)
        names = tuple("abcdefghij"[: self.classes])
        return Table(Samples(x, y), Samples(x[: 5 * self.classes], y[: 5 * self.classes]), names)


def stream(construction=None, source=None, **fields) -> TaskStream:
    return TaskStream(source or Made(), construction or Split(2), **fields)


def originals(s: TaskStream, k: int) -> torch.Tensor:
    return s.table.train.y[s[k].train.index]


@pytest.mark.parametrize("scenario", ["task", "class", "online"])
def test_split_labels_of_their_own(scenario):
    s = stream(Split(classes=[[2, 0], [3, 1]]), scenario=scenario)
    assert s.info.n_classes == 4
    assert s.info.task_classes == ((0, 1), (2, 3))
    assert not s.info.shared_labels
    assert s.class_names == (("c", "a"), ("d", "b"))
    for k, expected in enumerate(({2: 0, 0: 1}, {3: 2, 1: 3})):
        assert [expected[c] for c in originals(s, k).tolist()] == s[k].train.labels.tolist()


def test_split_labels_shared_in_domain():
    s = stream(Split(sizes=[3, 1]), scenario="domain")
    assert s.info.n_classes == 3
    assert s.info.task_classes == ((0, 1, 2), (0,))
    assert s.info.shared_labels
    assert s[0].train.labels.unique().tolist() == [0, 1, 2]
    assert s[1].train.labels.unique().tolist() == [0]


@pytest.mark.parametrize(
    ("scenario", "outputs", "shared"),
    [("task", 12, False), ("domain", 4, True), ("class", 12, False), ("online", 4, True)],
)
def test_permuted_labels(scenario, outputs, shared):
    s = stream(Permuted(3), scenario=scenario)
    assert (s.info.n_classes, s.info.shared_labels) == (outputs, shared)
    offset = 0 if shared else 8
    assert torch.equal(s[2].train.labels, s.table.train.y + offset)
    assert s.info.task_classes[2] == tuple(range(offset, offset + 4))


def test_permuted_stream_stores_no_copies():
    s = stream(Permuted(50), scenario="domain")
    assert len({s[k].train.storage.data_ptr() for k in range(50)}) == 1
    assert len({s[k].train.index.data_ptr() for k in range(50)}) == 1
    assert len({s.test(k).labels.data_ptr() for k in range(50)}) == 1


def test_inputs_are_the_stored_samples():
    s = stream()
    data = s[1].train
    x = data.inputs(torch.arange(len(data)))
    torch.testing.assert_close(x[:, 0, 0, 0], data.index.float() / 255)


def test_permutation_follows_padding_and_fills_black():
    s = stream(Permuted(2, permute_first=True), normalise={"mean": [0.5], "std": [0.25]}, padding=1)
    assert s.info.input_shape == (1, 4, 4)
    x = s[0].train.inputs(torch.tensor([0, 3]))
    change = s._pieces[0].change
    assert isinstance(change, Permutation)
    stored = torch.zeros(2, 16)
    for place in (5, 6, 9, 10):
        stored[:, place] = torch.tensor([0.0, 3.0]) / 255
    torch.testing.assert_close(x.flatten(1), ((stored - 0.5) / 0.25)[:, change.order])


@pytest.mark.parametrize("construction", [Split(2), Permuted(2), Rotated(2, interpolation="bilinear")])
@pytest.mark.parametrize("normalise", ["none", "unit", "standard", {"mean": [0.1], "std": [0.3]}])
def test_cached_inputs_are_the_same(construction, normalise):
    one, two = (stream(construction, normalise=normalise, padding=1, cache=c) for c in ("on", "off"))
    assert one.fingerprint() == two.fingerprint()
    places = torch.arange(20)
    torch.testing.assert_close(one[1].train.inputs(places), two[1].train.inputs(places), rtol=1e-5, atol=1e-5)
    assert two[1].train.storage.dtype == torch.uint8


def test_standard_means_mean_zero_variance_one(data_root):
    s = TaskStream(MNIST(), Split(5), root=data_root, normalise="standard", padding=2)
    explicit = TaskStream(MNIST(), Split(5), root=data_root, normalise={"mean": [0.1], "std": [0.2752]}, padding=2)
    x = torch.cat([t.train.inputs(torch.arange(len(t.train))).flatten() for t in s])
    assert abs(float(x.mean())) < 1e-4
    assert abs(float(x.std()) - 1) < 1e-4
    # Hsu et al. 2018 print the statistics of the padded images with four digits.
    a, b = (v.test(0).inputs(torch.arange(100)) for v in (s, explicit))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_channels_are_normalised_one_by_one():
    class Colour(Made):
        def load(self, root, download):
            table = super().load(root, download)
            x = torch.randint(0, 256, (200, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
            x[:, 1] //= 4
            return Table(Samples(x, table.train.y), Samples(x, table.train.y), table.class_names)

    s = stream(Split(1), Colour(), normalise="standard")
    x = s[0].train.inputs(torch.arange(200))
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match=r"stream\.normalise"):
        stream(Split(1), Colour(), normalise={"mean": [0.1, 0.2], "std": [1.0, 1.0]})


@pytest.mark.parametrize("size", [0.2, 20])
@pytest.mark.parametrize("construction", [Split(2), Permuted(3)])
def test_validation_is_disjoint_and_stratified(construction, size):
    s = stream(construction, validation=size, scenario="domain")
    for task in s:
        assert not set(task.train.index.tolist()) & set(task.validation.index.tolist())
        n = len(task.train) + len(task.validation)
        assert len(task.validation) == (round(0.2 * n) if size < 1 else size)
        counts = task.validation.labels.bincount()
        assert int(counts.max() - counts.min()) <= 1
    if isinstance(construction, Permuted):  # a validation sample of one task is a training sample of none
        assert torch.equal(s[0].validation.index, s[2].validation.index)
    assert not torch.equal(s[0].validation.index, s.with_seed(1)[0].validation.index)


@pytest.mark.parametrize("size", [0, 1.5, -0.1, 100, 1.0e9])
def test_impossible_validation(size):
    with pytest.raises(ConfigError, match=r"`stream\.validation` in \(0, 1\)"):
        stream(validation=size)[0]


def test_samples_per_task():
    first = stream(Permuted(2), samples_per_task=30, selection="first", scenario="domain")
    assert first[1].train.index.tolist() == list(range(30))
    drawn = stream(Permuted(2), samples_per_task=30, test_samples=7, scenario="domain")
    assert len(drawn[0].train) == 30
    assert len(drawn.test(0)) == 7
    assert not torch.equal(drawn[0].train.index, drawn[1].train.index)
    assert len(drawn[0].train.index.unique()) == 30
    held = stream(Permuted(2), samples_per_task=30, validation=0.2, scenario="domain")
    assert (len(held[1].train), len(held[1].validation)) == (24, 6)
    with pytest.raises(ConfigError, match=r"`stream\.samples_per_task` in 1 to 100"):
        stream(Split(2), samples_per_task=101)[0]


def test_label_noise_rate_and_place():
    s = stream(Split(2), Made(4, 2000), label_noise=0.3, validation=0.1)
    clean = stream(Split(2), Made(4, 2000), validation=0.1)
    changed = s[0].train.labels != clean[0].train.labels
    assert binomtest(int(changed.sum()), len(changed), 0.3).pvalue > 1e-3
    assert set(s[1].train.labels.tolist()) == {2, 3}
    assert torch.equal(s[0].validation.labels, clean[0].validation.labels)
    assert torch.equal(s.test(0).labels, clean.test(0).labels)
    wide = stream(Split(1), Made(4, 2000), label_noise=1.0)
    truth = wide.table.train.y
    assert not (wide[0].train.labels == truth).any()
    steps = (wide[0].train.labels - truth) % 4
    assert all(binomtest(int((steps == d).sum()), len(truth), 1 / 3).pvalue > 1e-3 for d in (1, 2, 3))


def test_imbalance_follows_the_formula():
    for order in ("fixed", "shuffled"):
        s = stream(Split(2), Made(4, 100), imbalance=10.0, imbalance_order=order)
        counts = torch.cat([originals(s, k) for k in range(2)]).bincount().tolist()
        expected = [round(100 * 10 ** (-r / 3)) for r in range(4)]
        assert sorted(counts, reverse=True) == expected
        if order == "fixed":
            assert counts == expected
    orders = set()
    for seed in range(10):
        s = stream(Split(2), Made(4, 100), imbalance=10.0, seed=seed)
        orders.add(tuple(torch.cat([originals(s, k) for k in range(2)]).bincount().tolist()))
    assert len(orders) > 3


@pytest.mark.parametrize(("scenario", "outputs"), [("task", 5), ("domain", 2), ("class", 5)])
def test_classes_that_no_task_names_do_not_occur(scenario, outputs):
    lists = [[8, 6], [1, 0]] if scenario == "domain" else [[8, 6, 7], [1, 0]]
    s = TaskStream(Digits(), Split(classes=lists), scenario)
    assert (s.info.n_tasks, s.info.n_classes) == (2, outputs)
    source = s.table.train.y
    for k, classes in enumerate(lists):
        assert set(source[s[k].train.index].tolist()) == set(classes)
        assert set(s[k].train.labels.tolist()) == set(s.info.task_classes[k])


def test_augmentation_draws_for_each_image_and_only_in_training():
    s = TaskStream(Digits(), Split(1), augmentation={"crop": 2, "flip": True, "brightness": 0.5, "contrast": 0.5})
    data, key = s[0].train, step_keys(0, 0, 0, 2)
    same = torch.zeros(64, dtype=torch.long)
    batch = data.batch(same, key[0])
    assert len({tuple(x.flatten().tolist()) for x in batch.x}) > 50  # one image, 64 places: nearly all differ
    assert torch.equal(batch.x, data.batch(same, key[0]).x)
    assert not torch.equal(batch.x, data.batch(same, key[1]).x)
    plain = TaskStream(Digits(), Split(1))
    for a, b in zip(s.test(0).in_order(50), plain.test(0).in_order(50), strict=True):
        assert torch.equal(a.x, b.x)
    for a, b in zip(data.in_order(500), plain[0].train.in_order(500), strict=True):
        assert torch.equal(a.x, b.x)


def test_validation_samples_are_not_augmented():
    s = TaskStream(Digits(), Split(1), augmentation={"crop": 2, "flip": True}, validation=0.2)
    plain = TaskStream(Digits(), Split(1), validation=0.2)
    places, key = torch.arange(40), step_keys(0, 0, 0, 1)[0]
    assert torch.equal(s[0].validation.batch(places, key).x, plain[0].validation.batch(places, key).x)


def test_colours_by_hand():
    """Brightness scales an image, contrast stretches it about its mean grey, saturation each pixel about its own."""
    x = torch.randint(40, 120, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    key, fill = step_keys(0, 0, 0, 1)[0], torch.zeros(())
    unit, normalise = x.float() / 255, Normalisation(torch.tensor([1 / 255]), torch.zeros(1))
    luma = (unit * torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
    centres = {"brightness": torch.zeros(()), "contrast": luma.mean((1, 2, 3), keepdim=True), "saturation": luma}
    for name, centre in centres.items():
        pipeline = Pipeline(normalise, None, fill, Augmentation(**{name: 0.4}))
        factor = 1 + 0.4 * (2 * uniform(key, (6, 1, 1, 1), f"augmentation/{name}") - 1)
        torch.testing.assert_close(pipeline(x, key), centre + factor * (unit - centre), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pipeline(x, None), unit)


def test_crop_and_flip_by_hand():
    s = TaskStream(Digits(), Split(1), augmentation={"crop": 1, "flip": True})
    stored = torch.nn.functional.pad(s.table.train.x[:1].float() / 16, [1] * 4)
    possible = set()
    for i in range(3):
        for j in range(3):
            window = stored[0, 0, i : i + 8, j : j + 8]
            possible |= {tuple(window.flatten().tolist()), tuple(window.flip(1).flatten().tolist())}
    seen = s[0].train.batch(torch.zeros(500, dtype=torch.long), step_keys(0, 0, 0, 1)[0]).x
    assert {tuple(x.flatten().tolist()) for x in seen} == possible


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"scenario": "clas"}, "`stream.scenario`"),
        ({"label_noise": 1.2}, r"`stream.label_noise` in \[0, 1\], got 1.2"),
        ({"imbalance": 0.5}, "`stream.imbalance` >= 1"),
        ({"padding": -1}, "`stream.padding` >= 0"),
        ({"normalise": "zscore"}, "`stream.normalise`"),
        ({"normalise": {"mean": [0.1]}}, "mean and std"),
        ({"normalise": {"mean": [0.1], "std": [0.0]}}, "`stream.normalise.std` > 0"),
        ({"normalise": {"mean": [float("nan")], "std": [1.0]}}, "`stream.normalise` with finite numbers"),
        ({"augmentation": {"rotate": 3}}, "`stream.augmentation`"),
        ({"augmentation": {"brightness": 2.0}}, "`stream.augmentation.brightness`"),
        ({"selection": "last"}, "`stream.selection`"),
        ({"cache": "maybe"}, "`stream.cache`"),
    ],
)
def test_impossible_values(fields, text):
    with pytest.raises(ConfigError, match=text):
        stream(**fields)


def test_tasks_by_index():
    s = stream(Split(4))
    assert s[-1].index == 3
    for k in (4, -5):
        with pytest.raises(IndexError):
            s[k]
        with pytest.raises(IndexError):
            s.test(k)


@pytest.mark.parametrize(("sees", "seen"), [("current", {1}), ("past", {0, 1}), ("all", {0, 1, 2, 3})])
def test_a_strategy_sees_the_tasks_it_declared_and_no_other(sees, seen):
    view = TrainingView(stream(Split(4)), 1, sees, "Somebody")
    for k in range(4):
        if k in seen:
            assert view[k].index == k
        else:
            with pytest.raises(AccessError, match=f"got task {k}"):
                view[k]
