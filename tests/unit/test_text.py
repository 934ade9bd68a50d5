import io
import zipfile
from pathlib import Path

import pytest
import torch

from cl.errors import ConfigError, DataError
from cl.streams import TaskStream
from cl.streams.constructions import Sequence
from cl.streams.sequences import Characters, Csv, Sentences
from cl.streams.sequences.corpora import corpus_file, texts, tidy


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path / "cache"))


def pack(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.fixture
def languages(tmp_path):
    one, two = "abcab " * 40, "xyé\n" * 30
    pack(tmp_path / "text/udhr2.zip", {"udhr2/one.txt": one.encode(), "udhr2/two.txt": two.encode()})
    return tmp_path, {"one": tidy(one), "two": tidy(two)}


def test_characters_by_hand(languages):
    root, written = languages
    table = Characters("udhr2", ["two", "one"], steps=10, test_fraction=0.25).load(root, False)
    assert table.class_names == tuple(sorted(set("abcxyé \n")))
    assert table.vocabulary == 9
    assert table.group_names == ("two", "one")
    for g, part in enumerate(("two", "one")):
        text = written[part]
        cut = int(len(text) * 0.75)
        for split, own in ((table.train, text[:cut]), (table.test, text[cut:])):
            rows = split.group == g
            x, y = split.x[rows], split.y[rows]
            assert len(x) == (len(own) - 1) // 10
            for i in range(len(x)):
                assert "".join(table.class_names[t - 1] for t in x[i].tolist()) == own[10 * i : 10 * i + 10]
                assert "".join(table.class_names[t] for t in y[i].tolist()) == own[10 * i + 1 : 10 * i + 11]


def test_bytes(languages):
    root, written = languages
    table = Characters("udhr2", ["two"], steps=5, level="byte").load(root, False)
    assert table.vocabulary == 257
    assert bytes((table.train.x[0] - 1).tolist()) == written["two"].encode()[:5]


def test_language_after_language(languages):
    root, _ = languages
    for scenario, outputs in (("domain", 8), ("task", 16), ("class", 16), ("online", 8)):
        s = TaskStream(Characters("udhr2", steps=10), Sequence(), scenario, root=root, normalise="none")
        assert s.language
        assert s.with_seed(1).language
        assert s.info.n_classes == outputs
        assert s.info.target == "steps"
        assert s.info.input_shape == (10,)
        batch = next(iter(s[1].train.in_order(4)))
        assert batch.x.dtype == torch.int64
        offset = 0 if outputs == 8 else 8
        assert torch.equal(batch.x[:, 1:] - 1, batch.y[:, :-1] - offset)  # the answer is the next input


def test_all_texts_are_those_that_are_long_enough(tmp_path):
    texts = {"long.txt": b"abcdefghij" * 4, "short.txt": b"z" * 15, "wide.txt": "é".encode() * 15}
    pack(tmp_path / "text/udhr2.zip", {f"udhr2/{name}": text for name, text in texts.items()})
    assert Characters("udhr2", steps=4, test_fraction=0.25).load(tmp_path, False).group_names == ("long",)
    read = Characters("udhr2", steps=4, level="byte", test_fraction=0.25)
    assert read.load(tmp_path, False).group_names == ("long", "wide")  # two bytes a letter
    with pytest.raises(ConfigError, match=r"`stream\.source\.steps` short enough for a text of udhr2"):
        Characters("udhr2", steps=400).load(tmp_path, False)


def test_characters_of_genesis_are_those_of_the_files(data_root):
    path, read = texts(data_root, "genesis", False)
    found = read()
    assert len(found) == 8
    with zipfile.ZipFile(path) as archive:
        for part, encoding in (("german", "latin-1"), ("english-web", "utf-8"), ("swedish", "cp865")):
            raw = io.TextIOWrapper(archive.open(f"genesis/{part}.txt"), encoding).read()
            assert tidy(found[part]) == tidy(raw)


def test_shakespeare_by_speaker(data_root):
    _, read = texts(data_root, "shakespeare", False)
    found = read()
    sizes = [len(text) for text in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert next(iter(found)) == "Gloucester"
    assert "O Romeo, Romeo! wherefore art thou Romeo?" in found["Juliet"]


def test_a_corrupt_shakespeare_is_refused(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text/tinyshakespeare.txt").write_text("Somebody:\nElse.")
    with pytest.raises(DataError, match=r"tinyshakespeare\.txt"):
        texts(tmp_path, "shakespeare", False)[1]()


def test_missing_corpora_say_what_to_do(tmp_path, monkeypatch):
    from nltk.downloader import Downloader

    with pytest.raises(DataError, match=r"data\.download=true.*nltk\.download\('genesis'\)"):
        Characters().load(tmp_path, False)
    with pytest.raises(DataError, match=r"tinyshakespeare\.txt.*data\.download=true"):
        Characters("shakespeare").load(tmp_path, False)

    def fails(self, *args, **kwargs):
        raise ValueError("no network")

    monkeypatch.setattr(Downloader, "download", fails)
    with pytest.raises(DataError, match=r"no network.*put its archive at"):
        corpus_file(tmp_path, "genesis", True)

    def works(self, name, download_dir, **kwargs):
        pack(Path(download_dir) / "corpora" / f"{name}.zip", {f"{name}/a.txt": b"some text"})
        return True

    monkeypatch.setattr(Downloader, "download", works)
    assert corpus_file(tmp_path, "udhr2", True) == tmp_path / "corpora/udhr2.zip"
    assert texts(tmp_path, "udhr2", False)[1]() == {"a": "some text"}


def test_nltk_searches_where_it_did_before(languages):
    import nltk

    before = list(nltk.data.path)
    Characters("udhr2", steps=5).load(languages[0], False)
    assert nltk.data.path == before


@pytest.mark.parametrize("damage", ["cut", "climbs"])
def test_damaged_corpora_are_named(tmp_path, damage):
    path = tmp_path / "text/udhr2.zip"
    pack(path, {"../out.txt" if damage == "climbs" else "udhr2/a.txt": b"text"})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"udhr2\.zip"):
        Characters("udhr2").load(tmp_path, False)


QC = {
    "qc/train.txt": b"NUM:dist How far is it ?\nHUM:desc Who was it ?\nNUM:date When was far ?\nHUM:ind Who is far ?\n",
    "qc/test.txt": b"HUM:ind Who ran ?\nNUM:dist How far did he go ?\n",
}


def test_questions_keep_their_own_test_set(tmp_path):
    pack(tmp_path / "text/qc.zip", QC)
    table = Sentences(["qc"], steps=6, words=4).load(tmp_path, False)
    assert table.class_names == ("qc: HUM", "qc: NUM")
    assert table.train.y.tolist() == [1, 0, 1, 0]
    assert table.test.y.tolist() == [0, 1]
    # Of the training words ?(4), far(3), and is, it, was, who twice each, four are kept: ties in order of letters.
    number = {"?": 2, "far": 3, "is": 4, "it": 5}
    words = ["how", "far", "is", "it", "?"]
    assert table.train.x[0].tolist() == [number.get(w, 1) for w in words] + [0]
    assert table.test.x[0].tolist() == [1, 1, 2, 0, 0, 0]
    assert table.vocabulary == 6
    assert table.padded


REVIEW = b"""[t] one
zoom[+2]##good zoom here
size[-1], weight[+3]##heavy but fine
button[-2]##a bad button
##nothing is said
look[-1]##not so nice
"""


def test_products_are_domains(tmp_path):
    files = {f"product_reviews_1/{name}.txt": REVIEW * 3 for name in ("A_cam", "B_phone")}
    pack(tmp_path / "text/product_reviews_1.zip", {**files, "product_reviews_1/C_none.txt": b"[t] x\n##nothing\n"})
    s = TaskStream(Sentences(["product_reviews_1"], steps=5), Sequence(), "domain", root=tmp_path, normalise="none")
    assert s.class_names == tuple((f"{p}: negative", f"{p}: positive") for p in ("A cam", "B phone"))
    assert s.info.n_classes == 2
    for k in range(2):
        labels = torch.cat([s[k].train.labels, s.test(k).labels])
        assert labels.bincount().tolist() == [6, 6]


def test_real_sentences(data_root):
    table = Sentences(["qc"]).load(data_root, False)
    assert (len(table.train.y), len(table.test.y)) == (5452, 500)
    assert table.n_classes == 6
    assert int(table.train.x.max()) < table.vocabulary


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Characters("bible"), r"stream\.source\.corpus"),
        (lambda: Characters(steps=0), r"stream\.source\.steps"),
        (lambda: Characters(level="word"), r"stream\.source\.level"),
        (lambda: Sentences([]), r"stream\.source\.corpora"),
        (lambda: Sentences(words=0), r"stream\.source\.words"),
        (lambda: Csv("x", steps=0), r"stream\.source\.steps"),
        (lambda: Csv("x", columns=["a", "a"]), r"stream\.source\.columns"),
        (lambda: Csv("x", separator="::"), r"stream\.source\.separator"),
        (lambda: Csv("x", decimal=";"), r"stream\.source\.decimal"),
        (lambda: Csv("x", decimal=","), r"stream\.source\.decimal"),
        (lambda: Characters(parts=[]), r"stream\.source\.parts"),
        (lambda: Characters(parts=["german", "german"]), r"stream\.source\.parts` a list of different names"),
        (lambda: Sentences(["qc", "qc"]), r"stream\.source\.corpora` different ones"),
        (lambda: Sequence(groups=[]), r"stream\.construction\.groups"),
    ],
)
def test_impossible_sources(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_unknown_part_and_long_steps(languages):
    root, _ = languages
    with pytest.raises(ConfigError, match=r"stream\.source\.parts"):
        Characters("udhr2", ["three"]).load(root, False)
    with pytest.raises(ConfigError, match=r"stream\.source\.steps"):
        Characters("udhr2", steps=5000).load(root, False)


def test_corpora_behind_a_link_are_read(languages):
    root, written = languages
    (root / "linked" / "text").mkdir(parents=True)
    (root / "linked/text/udhr2.zip").symlink_to(root / "text/udhr2.zip")
    _, read = texts(root / "linked", "udhr2", False)
    assert {part: tidy(text) for part, text in read().items()} == written
