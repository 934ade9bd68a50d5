import gzip
import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cl.errors import DataError
from cl.streams.fetch import fetch, open_zip, unpack_gzip, unpack_zip_member

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
    assert [p.name for p in target.parent.iterdir()] == ["file"]


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
    assert list(tmp_path.iterdir()) == []


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
