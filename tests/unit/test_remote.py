import numpy as np
import pytest
import torch
from PIL import Image

from cl.errors import ConfigError, DataError
from cl.seeding import step_keys
from cl.streams import TaskStream
from cl.streams.constructions import Permuted, Rotated, Split
from cl.streams.data import Data, TrainingData
from cl.streams.remote import Remote
from cl.streams.sources import ImageFolder, Wrapped
from cl.training import Schedule, TrainingOptions


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for part, n in (("train", 30), ("test", 10)):
        for c in range(4):
            (root / "set" / part / str(c)).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(root / f"set/{part}/{c}/{i}.png")
    return root


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path / "cache"))


def streams(pictures, workers, construction=None, **fields):
    construction = construction or Split(2)
    memory, disk = (ImageFolder("set", size=8, in_memory=m, workers=workers) for m in (True, False))
    return [TaskStream(source, construction, root=pictures, **fields) for source in (memory, disk)]


def epochs(data, n=2, seed=0):
    schedule = Schedule(len(data), TrainingOptions(epochs=n, batch_size=16), seed, 0)
    keys = step_keys(seed, 0, 0, schedule.steps)
    return list(data.batches(schedule.positions(0, schedule.steps, torch.device("cpu")), keys))


def assert_same(a, b):
    assert len(a) == len(b)
    for one, two in zip(a, b, strict=True):
        for x, y in zip(one, two, strict=True):
            assert (x is None and y is None) or torch.equal(x, y)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("construction", [Split(2), Rotated(2), Permuted(2)])
def test_samples_on_disk_equal_samples_in_memory(pictures, workers, construction):
    crop = {"crop": 2, "flip": True, "saturation": 0.5}
    memory, disk = streams(pictures, workers, construction, augmentation=crop, validation=0.2)
    assert isinstance(disk[1].train.storage, Remote)
    assert_same(epochs(memory[1].train), epochs(disk[1].train))
    assert_same(list(memory.test(0).in_order(7)), list(disk.test(0).in_order(7)))
    assert_same(list(memory[0].validation.in_order(5)), list(disk[0].validation.in_order(5)))
    where, key = torch.tensor([3, 1, 3]), step_keys(0, 0, 0, 1)[0]
    assert_same([memory[0].train.batch(where, key)], [disk[0].train.batch(where, key)])
    few = torch.tensor([5, 2, 9])
    assert_same(list(memory.test(1).subset(few).in_order(2)), list(disk.test(1).subset(few).in_order(2)))


def test_several_tasks_at_once(pictures):
    memory, disk = streams(pictures, 1)
    joined = [TrainingData([s[k].train for k in range(2)]) for s in (memory, disk)]
    assert len(joined[1].parts) == 1
    assert_same(*(epochs(j) for j in joined))


def test_workers_are_kept_and_readings_may_be_nested(pictures):
    _, disk = streams(pictures, 1)
    train = disk[0].train
    remote = train.storage
    alone = epochs(train)
    seen = []
    schedule = Schedule(len(train), TrainingOptions(batch_size=16), 0, 0)
    keys = step_keys(0, 0, 0, schedule.steps)
    for step, batch in enumerate(train.batches(schedule.positions(0, schedule.steps, torch.device("cpu")), keys)):
        seen.append(batch)
        if step == 1:
            assert sum(len(b.y) for b in train.in_order(32)) == len(train)  # an evaluation inside an epoch
    assert len(remote._readers) == 2
    pids = [w.pid for w in remote._readers[0].loader._iterator._workers]
    assert len(epochs(disk[1].train)) == len(alone)
    assert pids == [w.pid for w in remote._readers[0].loader._iterator._workers]
    assert len(remote._readers) == 2


def test_a_reading_that_is_left_does_not_disturb_the_next(pictures):
    memory, disk = streams(pictures, 2)
    for _ in range(3):
        schedule = Schedule(60, TrainingOptions(epochs=5, batch_size=4), 0, 0)
        keys = step_keys(0, 0, 0, schedule.steps)
        for _batch in disk[0].train.batches(schedule.positions(0, schedule.steps, torch.device("cpu")), keys):
            break
    assert_same(epochs(memory[0].train), epochs(disk[0].train))
    assert len(disk[0].train.storage._readers) <= 2


def test_global_generator_is_untouched(pictures):
    _, disk = streams(pictures, 1)
    before = torch.get_rng_state()
    epochs(disk[0].train)
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprint_names_the_files(pictures):
    _, one = streams(pictures, 0)
    _, two = streams(pictures, 2)
    assert one.fingerprint() == two.fingerprint()
    path = pictures / "set/train/0/0.png"
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\0")
        assert streams(pictures, 0)[1].fingerprint() != one.fingerprint()
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named_in_one_line(pictures, workers):
    path = pictures / "set/train/1/3.png"
    content = path.read_bytes()
    try:
        path.write_bytes(b"not an image")
        with pytest.raises(DataError, match=r"^Expected an image in .*1/3\.png") as error:
            epochs(streams(pictures, workers)[1][0].train)
        assert "\n" not in str(error.value)
    finally:
        path.write_bytes(content)


def test_impossible_combinations(pictures):
    with pytest.raises(ConfigError, match=r"`stream\.source\.size`"):
        ImageFolder("set", in_memory=False)
    with pytest.raises(ConfigError, match=r"`stream\.padding` 0"):
        streams(pictures, 0, padding=2)
    with pytest.raises(ConfigError, match=r"`stream\.source\.workers` >= 0"):
        streams(pictures, -1)


class Numbers:
    """Forty samples, four classes; counts what was read."""

    targets = torch.arange(40) % 4

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return torch.full((3,), float(i)), int(self.targets[i])


def test_any_data_set_can_stay_on_disk():
    s = TaskStream(Wrapped(Numbers(), Numbers(), in_memory=False, workers=0), Split(2), normalise="none")
    batch = next(iter(s[1].train.in_order(100)))
    assert batch.x[:, 0].tolist() == [i for i in range(40) if i % 4 in (2, 3)]
    assert batch.y.tolist() == [i % 4 for i in range(40) if i % 4 in (2, 3)]
    assert type(s[1].train) is Data


class Halved(Numbers):
    """Its labels are made of the stored ones, as by torchvision's `target_transform`."""

    def __init__(self):
        super().__init__()
        self.target_transform = lambda label: label // 2

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x, self.target_transform(y)


def test_labels_on_disk_are_transformed_as_in_memory():
    memory, disk = (Wrapped(Halved(), Halved(), in_memory=m, workers=0).load(None, False) for m in (True, False))
    assert torch.equal(memory.train.y, disk.train.y)
    assert set(memory.train.y.tolist()) == {0, 1}


def test_an_image_that_is_written_over_is_read_again(pictures):
    def first():
        return ImageFolder("set", size=8).load(pictures, False).test.x[0].float().mean()

    before = first()
    assert first() == before
    place = next((pictures / "set" / "test" / "0").glob("0.png"))
    Image.new("RGB", (8, 8), (255, 255, 255)).save(place)
    assert first() == 255 != before
