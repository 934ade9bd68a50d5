import gzip
import hashlib
import io
import os
import pickle
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cl.errors import DataError
from cl.streams.fetch import fetch, open_zip, unpack_gzip, unpack_zip_member
from cl.streams.sources import CIFAR100, EMNIST, MNIST

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; /cut stops half way, /norange ignores Range, /wrong sends other bytes, the rest is 404."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range")))
        if self.path not in ("/file", "/cut", "/norange", "/wrong"):
            self.send_error(404)
            return
        body, start = CONTENT if self.path != "/wrong" else b"x" * len(CONTENT), 0
        asked = self.headers.get("Range")
        if asked and self.path != "/norange":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body) // 2 if self.path == "/cut" else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.seen = []
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    running.address = f"http://127.0.0.1:{running.server_port}"
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_fetch_writes_the_file_and_asks_once(server, tmp_path):
    target = tmp_path / "deep" / "file"
    assert fetch([f"{server.address}/file"], target, MD5) == target
    assert target.read_bytes() == CONTENT
    fetch([f"{server.address}/file"], target, MD5)
    assert len(server.seen) == 1
    assert [p.name for p in target.parent.iterdir() if not p.name.startswith(".")] == ["file"]


def test_a_cut_download_goes_on_where_it_ended(server, tmp_path):
    target = tmp_path / "file"
    with pytest.raises(DataError, match="cut after"):
        fetch([f"{server.address}/cut"], target, MD5)
    assert not target.exists()
    assert (tmp_path / "file.part").stat().st_size == len(CONTENT) // 2
    fetch([f"{server.address}/file"], target, MD5)
    assert server.seen[-1] == ("/file", f"bytes={len(CONTENT) // 2}-")
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else")
    fetch([f"{server.address}/norange"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_whole_is_kept(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch([f"{server.address}/file"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_next_mirror_is_tried(server, tmp_path):
    fetch([f"{server.address}/nothing", f"{server.address}/wrong", f"{server.address}/file"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_removed(server, tmp_path):
    with pytest.raises(DataError, match="instead of " + MD5):
        fetch([f"{server.address}/wrong"], tmp_path / "file", MD5)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == []


def test_a_corrupt_file_is_fetched_again(server, tmp_path):
    (tmp_path / "file").write_bytes(b"half")
    fetch([f"{server.address}/file"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_without_a_network_it_says_what_to_do(server, tmp_path):
    address = server.address
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"Without a network, download it elsewhere from .*/file") as error:
        fetch([f"{address}/file"], tmp_path / "file", MD5, timeout=2)
    assert str(tmp_path / "file") in str(error.value)


def test_unpack_gzip(tmp_path):
    whole = gzip.compress(CONTENT)
    (tmp_path / "a.gz").write_bytes(whole)
    assert unpack_gzip(tmp_path / "a.gz", tmp_path / "a").read_bytes() == CONTENT
    (tmp_path / "b.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b\.gz"):
        unpack_gzip(tmp_path / "b.gz", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_paths_that_climb_out_of_an_archive_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", b"1")
        archive.writestr(name, b"2")
    with pytest.raises(DataError, match="not safe"):
        open_zip(tmp_path / "a.zip")


def test_damaged_archives_are_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"a\.zip"):
        open_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("inside", CONTENT)
    assert unpack_zip_member(tmp_path / "b.zip", "inside", tmp_path / "out").read_bytes() == CONTENT
    with pytest.raises(DataError, match="other"):
        unpack_zip_member(tmp_path / "b.zip", "other", tmp_path / "out2")
    broken = bytearray((tmp_path / "b.zip").read_bytes())
    broken[200] ^= 255
    (tmp_path / "b.zip").write_bytes(broken)
    with pytest.raises(DataError, match="inside"):
        unpack_zip_member(tmp_path / "b.zip", "inside", tmp_path / "out3")
    assert not (tmp_path / "out3").exists()


class Files(BaseHTTPRequestHandler):
    """Serves the files of `server.files` by their name."""

    def do_GET(self):
        content = self.server.files.get(self.path.rsplit("/", 1)[-1])
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path / "cache"))
    running = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    running.files = {}
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    running.address = f"http://127.0.0.1:{running.server_port}/"
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def grey(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (30, 28, 28)).astype(np.uint8), rng.integers(0, 10, 30).astype(np.uint8)


def test_mnist_is_fetched_and_read(site, monkeypatch, tmp_path):
    known = pytest.importorskip("torchvision").datasets.MNIST
    resources = []
    for split in ("train", "t10k"):
        for name, array in zip(("images-idx3", "labels-idx1"), grey(0), strict=True):
            file = f"{split}-{name}-ubyte.gz"
            site.files[file] = gzip.compress(idx(array))
            resources.append((file, hashlib.md5(site.files[file]).hexdigest()))
    monkeypatch.setattr(known, "mirrors", ["http://127.0.0.1:9/nobody/", site.address])
    monkeypatch.setattr(known, "resources", resources)
    table = MNIST().load(tmp_path, True)
    assert (table.train.x[:, 0].numpy() == grey(0)[0]).all()
    site.files.clear()  # a second time nothing is asked for
    assert len(MNIST().load(tmp_path, True).test.y) == 30


def test_emnist_is_fetched_and_read(site, monkeypatch, tmp_path):
    known = pytest.importorskip("torchvision").datasets.EMNIST
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split in ("train", "test"):
            for name, array in zip(("images-idx3", "labels-idx1"), grey(1), strict=True):
                archive.writestr(f"gzip/emnist-digits-{split}-{name}-ubyte.gz", gzip.compress(idx(array)))
    site.files["gzip.zip"] = packed.getvalue()
    monkeypatch.setattr(known, "url", site.address + "gzip.zip")
    monkeypatch.setattr(known, "md5", hashlib.md5(packed.getvalue()).hexdigest())
    table = EMNIST("digits").load(tmp_path, True)
    assert (table.train.x[:, 0].numpy() == grey(1)[0].transpose(0, 2, 1)).all()


def cifar_archive(folder, batches, meta):
    """Return (archive, [[name, md5]...]) of pickled batches as CIFAR has them."""
    packed, sums = io.BytesIO(), {}
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {**batches, **meta}.items():
            data = pickle.dumps(content)
            sums[name] = hashlib.md5(data).hexdigest()
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue(), sums


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_cifar100_is_fetched_and_read(site, monkeypatch, tmp_path):
    known = pytest.importorskip("torchvision").datasets.CIFAR100
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3072)).astype(np.uint8)
    batch = {"data": pixels, "fine_labels": [0, 1, 2, 3, 0, 1], "coarse_labels": [1, 0, 1, 0, 1, 0]}
    meta = {"fine_label_names": list("abcd"), "coarse_label_names": ["even", "odd"]}
    content, sums = cifar_archive("cifar-100-python", {"train": batch, "test": batch}, {"meta": meta})
    site.files[known.filename] = content
    monkeypatch.setattr(known, "url", site.address + known.filename)
    monkeypatch.setattr(known, "tgz_md5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(known, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(known, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(known, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]})
    with pytest.raises(DataError, match=r"cifar-100-python/train.*data\.download=true"):
        CIFAR100().load(tmp_path, False)
    table = CIFAR100().load(tmp_path, True)
    assert (table.train.x.numpy().reshape(6, 3072) == pixels).all()
    assert table.groups == ((1, 3), (0, 2))
    assert table.group_names == ("even", "odd")
    for other in (b"other", pickle.dumps(Hostile(str(tmp_path / "harmed")))):
        (tmp_path / "cifar-100-python/test").write_bytes(other)
        with pytest.raises(DataError, match=r"cifar-100-python/test"):
            CIFAR100().load(tmp_path, False)
    assert not (tmp_path / "harmed").exists()


def test_one_process_at_a_time_makes_a_file(site, tmp_path):
    site.files["file"] = CONTENT
    results = []

    def run():
        results.append(fetch([f"{site.address}file"], tmp_path / "file", MD5).read_bytes() == CONTENT)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 6


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.root"):
        fetch(["http://127.0.0.1:9/x"], tmp_path / "file" / "x", None)
