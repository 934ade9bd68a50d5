import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from cl.errors import ConfigError, DataError
from cl.streams import TaskStream
from cl.streams.cache import decoded
from cl.streams.constructions import Sequence, Split
from cl.streams.sequences.table import Csv
from cl.streams.sources import EMNIST, MNIST, AsSequence, Digits, ImageFolder, Omniglot, Several, Wrapped
from cl.streams.sources.files import ImageFiles


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LETHE_CACHE", str(folder))
    return folder


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def small_mnist(root, folder="MNIST", stem="{split}-{kind}-idx{n}-ubyte", splits=("train", "t10k"), low=0, high=10):
    rng = np.random.default_rng(0)
    arrays = {}
    for split in splits:
        arrays[split] = rng.integers(0, 256, (40, 28, 28)), rng.integers(low, high, 40)
        for kind, n, array in zip(("images", "labels"), (3, 1), arrays[split], strict=True):
            idx(root / folder / "raw" / stem.format(split=split, kind=kind, n=n), array)
    return arrays


def test_digits_are_those_of_scikit_learn():
    table = Digits(0.5).load(None, False)
    x, y = (torch.cat([getattr(s, n) for s in (table.train, table.test)]) for n in ("x", "y"))
    images, labels = load_digits(return_X_y=True)
    ours = sorted([*row, c] for row, c in zip(x.flatten(1).tolist(), y.tolist(), strict=True))
    assert ours == sorted([*map(int, row), int(c)] for row, c in zip(images, labels, strict=True))


def test_digits_are_stratified_and_fixed():
    table = Digits().load(None, False)
    assert len(table.train.y) + len(table.test.y) == 1797
    whole = torch.cat([table.train.y, table.test.y]).bincount()
    assert [round(0.25 * int(n)) for n in whole] == table.test.y.bincount().tolist()
    assert int(table.train.x.max()) == 16 == table.peak
    rows = [{tuple(x.flatten().tolist()) for x in s.x} for s in (table.train, table.test)]
    assert not rows[0] & rows[1]


def test_mnist_reads_what_torchvision_reads(data_root):
    torchvision = pytest.importorskip("torchvision")
    table = MNIST().load(data_root, False)
    for split, train in ((table.train, True), (table.test, False)):
        theirs = torchvision.datasets.MNIST(str(data_root), train=train)
        assert torch.equal(split.x[:, 0], theirs.data)
        assert torch.equal(split.y, theirs.targets)


def test_small_idx_files(tmp_path):
    arrays = small_mnist(tmp_path)
    table = MNIST().load(tmp_path, False)
    assert (table.test.x[:, 0].numpy() == arrays["t10k"][0]).all()
    assert (table.test.y.numpy() == arrays["t10k"][1]).all()


def test_emnist_letters_are_upright_and_counted_from_0(tmp_path):
    stem = "emnist-letters-{split}-{kind}-idx{n}-ubyte"
    arrays = small_mnist(tmp_path, "EMNIST", stem, ("train", "test"), 1, 27)
    table = EMNIST("letters").load(tmp_path, False)
    assert (table.train.x[3, 0].numpy() == arrays["train"][0][3].T).all()
    assert (table.train.y.numpy() == arrays["train"][1] - 1).all()
    assert len(table.class_names) == 26


def test_a_path_that_exists_from_here_is_told(tmp_path, monkeypatch):
    """`stream.source.path` is relative to `data.root`, and a file beside the user is easily meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "series.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=rf"{tmp_path}/series.csv does, and can be given so"):
        Csv("series.csv").load(tmp_path / "root", download=False)
    with pytest.raises(DataError) as error:
        Csv("other.csv").load(tmp_path / "root", download=False)
    assert "can be given so" not in str(error.value)


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*data\.download=true.*by hand"):
        MNIST().load(tmp_path, False)
    for source in (Omniglot(), ImageFolder("nowhere")):
        with pytest.raises(DataError, match=str(tmp_path)):
            source.load(tmp_path, False)


@pytest.mark.parametrize("damage", ["truncated", "magic", "empty", "labels"])
def test_damaged_files_are_named(tmp_path, damage):
    small_mnist(tmp_path)
    path = tmp_path / "MNIST/raw" / ("t10k-labels-idx1-ubyte" if damage == "labels" else "train-images-idx3-ubyte")
    content = path.read_bytes()
    broken = {"truncated": content[:-1], "magic": b"\1" + content[1:], "empty": b"", "labels": content[:-1] + b"\xff"}
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match=path.name):
        MNIST().load(tmp_path, False)


def picture(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def folder(root, split=True):
    for part, n in (("train", 3), ("test", 2)) if split else (("", 5),):
        for c, name in enumerate(("cat", "dog")):
            for i in range(n):
                picture(root / part / name / f"{i}.png", 100 * c + 10 * i + (part == "test"))
    return root


def test_image_folder_with_train_and_test(tmp_path):
    folder(tmp_path / "pets")
    table = ImageFolder("pets").load(tmp_path, False)
    assert table.class_names == ("cat", "dog")
    assert table.train.y.tolist() == [0, 1, 0, 1, 0, 1]  # classes in turn
    assert table.train.x[:, 0, 0, 0].tolist() == [0, 100, 10, 110, 20, 120]
    assert table.test.x[:, 0, 0, 0].tolist() == [1, 101, 11, 111]
    assert table.train.x.shape == (6, 3, 8, 8)


def test_zip_archive_equals_folder(tmp_path):
    folder(tmp_path / "pets")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "pets")
    a, b = (ImageFolder(p, size=6, channels=1).load(tmp_path, False) for p in ("pets", "packed.zip"))
    assert torch.equal(a.train.x, b.train.x)
    assert a.train.x.shape == (6, 1, 6, 6)


def test_images_of_sixteen_bits_a_pixel_keep_their_shades(tmp_path):
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    files = ImageFiles([tmp_path], ["deep.png"], 1, None)
    assert torch.equal(files[0], torch.arange(256, dtype=torch.uint8).view(1, 16, 16))
    colour = ImageFiles([tmp_path], ["deep.png"], 3, None)
    assert torch.equal(colour[0], files[0].expand(3, -1, -1))


def test_image_folder_holds_out_a_part(tmp_path):
    folder(tmp_path / "pets", split=False)
    table = ImageFolder("pets", test_fraction=0.4).load(tmp_path, False)
    assert table.train.y.bincount().tolist() == [3, 3]
    assert table.test.y.bincount().tolist() == [2, 2]
    values = torch.cat([table.train.x, table.test.x])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [0, 10, 20, 30, 40, 100, 110, 120, 130, 140]


def test_groups_of_folders(tmp_path):
    for g, group in enumerate(("greek", "latin")):
        for c, name in enumerate("ab"):
            for i in range(4):
                picture(tmp_path / "set" / group / name / f"{i}.png", 10 * g + c)
    s = TaskStream(ImageFolder("set", groups=True), Sequence(), "domain", root=tmp_path)
    assert s.class_names == (("greek/a", "greek/b"), ("latin/a", "latin/b"))
    assert s.info.n_classes == 2
    assert s[1].train.inputs(torch.arange(2))[:, 0, 0, 0].mul(255).round().tolist() == [10, 11]


def test_decoded_images_are_kept_and_checked(tmp_path, cache, monkeypatch):
    folder(tmp_path / "pets")
    first = ImageFolder("pets").load(tmp_path, False)
    kept = list(cache.glob("*.pt"))
    assert len(kept) == 1
    decoded_again = []
    stacked = ImageFiles.stacked

    def counted(self, rows):
        decoded_again.append(len(rows))
        return stacked(self, rows)

    monkeypatch.setattr(ImageFiles, "stacked", counted)
    assert torch.equal(ImageFolder("pets").load(tmp_path, False).train.x, first.train.x)
    assert decoded_again == []
    damaged = bytearray(kept[0].read_bytes())
    place = damaged.find(bytes([110] * 64))
    damaged[place] ^= 1
    kept[0].write_bytes(damaged)
    assert torch.equal(ImageFolder("pets").load(tmp_path, False).train.x, first.train.x)
    assert decoded_again == [6, 4]
    picture(tmp_path / "pets/train/cat/new.png", 7)
    assert len(ImageFolder("pets").load(tmp_path, False).train.y) == 7


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_file_among_the_decoded_ones_runs_nothing(tmp_path, cache):
    folder(tmp_path / "pets")
    first = ImageFolder("pets").load(tmp_path, False)
    (kept,) = cache.glob("*.pt")
    torch.save({"content": Hostile(str(tmp_path / "harmed")), "crc": 0}, kept)
    assert torch.equal(ImageFolder("pets").load(tmp_path, False).train.x, first.train.x)
    kept.write_bytes(pickle.dumps(Hostile(str(tmp_path / "harmed"))))
    assert torch.equal(ImageFolder("pets").load(tmp_path, False).train.x, first.train.x)
    assert not (tmp_path / "harmed").exists()


def test_an_image_that_unpacks_to_too_much_is_named(tmp_path, monkeypatch):
    folder(tmp_path / "pets")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)  # Pillow refuses twice as many; the pictures have 64
    with pytest.raises(DataError, match=r"cat/0\.png.*bomb"):
        ImageFolder("pets").load(tmp_path, False)


def test_images_of_different_size_need_a_size(tmp_path):
    folder(tmp_path / "pets")
    picture(tmp_path / "pets/train/cat/wide.png", 3, (20, 10))
    with pytest.raises(ConfigError, match=r"`stream\.source\.size`"):
        ImageFolder("pets").load(tmp_path, False)
    assert ImageFolder("pets", size=5).load(tmp_path, False).train.x.shape == (7, 3, 5, 5)


def test_a_corrupt_image_is_named(tmp_path):
    folder(tmp_path / "pets")
    (tmp_path / "pets/train/dog/1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"dog/1\.png"):
        ImageFolder("pets").load(tmp_path, False)


def test_a_class_without_test_images_is_an_error(tmp_path):
    folder(tmp_path / "pets")
    picture(tmp_path / "pets/train/bird/1.png", 3)
    with pytest.raises(DataError, match=r"test images of every class.*bird"):
        ImageFolder("pets").load(tmp_path, False)


def test_archives_that_climb_out_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../train/cat/1.png", b"")
    with pytest.raises(DataError, match="not safe"):
        ImageFolder("bad.zip").load(tmp_path, False)


def test_image_files_can_go_to_a_worker(tmp_path):
    folder(tmp_path / "pets")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "pets")
    files = ImageFiles([tmp_path / "packed.zip"], ["train/cat/1.png"], 3, None)
    first = files[0]
    assert torch.equal(pickle.loads(pickle.dumps(files))[0], first)


def test_omniglot_alphabets(data_root):
    table = Omniglot().load(data_root, False)
    assert len(table.groups) == len(table.group_names) == 8
    assert "Greek" in table.group_names
    for split, n in ((table.train, 15), (table.test, 5)):
        assert set(split.y.bincount().tolist()) == {n}  # 20 drawings each, none twice
    assert float(table.train.x.float().mean()) < 40  # white strokes on black


def test_several_sources_share_a_shape(tmp_path):
    small_mnist(tmp_path)
    folder(tmp_path / "pets")
    sources = [MNIST(), ImageFolder("pets"), Digits()]
    with pytest.raises(ConfigError, match=r"`stream\.source\.size` and `stream\.source\.channels`"):
        Several(sources).load(tmp_path, False)
    table = Several(sources, ["m", "p", "d"], 32, 3).load(tmp_path, False)
    assert table.train.x.shape[1:] == (3, 32, 32)
    assert [len(g) for g in table.groups] == [10, 2, 10]
    s = TaskStream(Several(sources, size=32, channels=1, fit="pad"), Sequence(), "class", root=tmp_path)
    assert s.info.n_classes == 22
    assert s.class_names[1] == ("ImageFolder: cat", "ImageFolder: dog")
    digit = s[2].train
    x = digit.inputs(torch.arange(1))[0, 0]
    plain = Digits().load(tmp_path, False).train.x[0, 0].float() / 16
    torch.testing.assert_close(x[12:20, 12:20], plain, atol=0.51 / 255, rtol=0)
    assert float(x.sum() - x[12:20, 12:20].sum()) == 0
    with pytest.raises(ConfigError, match=r"`stream\.source\.size` >= 28"):
        Several(sources, size=20, channels=1, fit="pad").load(tmp_path, False)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_as_sequences(tmp_path, channels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 6, 3) if channels == 3 else (4, 6)).astype(np.uint8)
    data = Pairs([(image, 0), (image.copy(), 1)])
    rows = AsSequence(Wrapped(data, data), "rows").load(tmp_path, False)
    pixels = AsSequence(Wrapped(data, data), "pixels").load(tmp_path, False)
    assert rows.sequence
    assert rows.train.x.shape == (2, 4, 6 * channels)
    assert pixels.train.x.shape == (2, 24, channels)
    cube = image.reshape(4, 6, -1)
    for i in range(4):
        for j in range(6):
            assert pixels.train.x[0, 6 * i + j].tolist() == cube[i, j].tolist()
            assert rows.train.x[0, i].reshape(channels, 6)[:, j].tolist() == cube[i, j].tolist()
    with pytest.raises(ConfigError, match="padding"):
        TaskStream(AsSequence(Digits()), Split(2), padding=2)


class Pairs:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize("kind", ["pil", "array", "tensor"])
def test_any_data_set(kind):
    arrays = [np.full((4, 4, 3), 10 * i, np.uint8) for i in range(6)]
    makers = {"pil": Image.fromarray, "array": np.copy, "tensor": lambda a: torch.from_numpy(a).permute(2, 0, 1)}
    make = makers[kind]
    data = Pairs([(make(a), i % 3) for i, a in enumerate(arrays)])
    s = TaskStream(Wrapped(data, data, ["x", "y", "z"]), Split(3))
    assert s.class_names == (("x",), ("y",), ("z",))
    torch.testing.assert_close(s[1].train.inputs(torch.arange(2))[:, 0, 0, 0], torch.tensor([10.0, 40.0]) / 255)
    with pytest.raises(ConfigError, match=r"stream\.source\.train"):
        Wrapped(iter([]), data)


def test_decoded_without_a_place_to_write(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path / "file" / "below"))
    assert decoded("x", [], [tmp_path / "file"], lambda: {"a": 1}) == {"a": 1}
