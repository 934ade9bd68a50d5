"""Text corpora: where their files are, and nltk's readers over them."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cl.errors import DataError
from cl.streams.fetch import alone, checksum, fetch, open_zip
from cl.streams.sources.base import missing

SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"


def corpus_file(root: Path, name: str, download: bool) -> Path:
    """Return the archive of a corpus of nltk, ``text/NAME.zip`` or ``corpora/NAME.zip`` below the data folder.

    Args:
        root: the data folder.
        name: nltk's name of the corpus.
        download: True lets nltk fetch a missing archive (it checks it against its index).

    Raises:
        DataError: it is missing and cannot be fetched, or is damaged.
    """
    for folder in ("text", "corpora"):
        archive = root / folder / f"{name}.zip"
        if archive.exists():
            open_zip(archive).close()
            return archive
    target = root / "corpora" / f"{name}.zip"
    by_hand = f"fetch the corpus {name!r} by nltk.download({name!r}) elsewhere and put its archive at {target}"
    if not download:
        raise missing(target, f"set data.download=true, or {by_hand}")
    from nltk.downloader import Downloader

    try:
        with alone(target), _authorised(root):
            fetched = Downloader().download(name, download_dir=str(root), quiet=True, raise_on_error=True)
    except (OSError, ValueError, PermissionError) as error:
        raise DataError(f"Expected to fetch the corpus {name!r}, got {error}; {by_hand}") from error
    if not fetched or not target.exists():
        raise DataError(f"Expected to fetch the corpus {name!r}, got nothing; {by_hand}")
    return target


@contextlib.contextmanager
def _authorised(folder: Path) -> Iterator[None]:
    """Let nltk read below a folder: it refuses files outside its own search path."""
    import nltk

    nltk.data.path.append(str(folder.resolve()))
    try:
        yield
    finally:
        nltk.data.path.remove(str(folder.resolve()))


@contextlib.contextmanager
def reader(archive: Path, name: str) -> Iterator[Any]:
    """Open a corpus with the reader and encoding that nltk documents for it.

    Raises:
        DataError: the archive does not hold the corpus, or holds something else.
    """
    from nltk.corpus import reader as readers
    from nltk.data import ZipFilePathPointer

    plain = readers.PlaintextCorpusReader
    genesis = [("finnish|french|german", "latin_1"), ("swedish", "cp865"), (".*", "utf_8")]
    subjective = {"quote.tok.gt9.5000": ["subjective"], "plot.tok.gt9.5000": ["objective"]}
    sentences = readers.CategorizedSentencesCorpusReader
    open_corpus: dict[str, Callable[[Any], Any]] = {
        "genesis": lambda place: plain(place, r"(?!\.).*\.txt", encoding=genesis),
        "udhr2": lambda place: plain(place, r".*\.txt", encoding="utf8"),
        "gutenberg": lambda place: plain(place, r"(?!\.).*\.txt", encoding="latin1"),
        "product_reviews_1": lambda place: readers.ReviewsCorpusReader(place, r"(?!README).*\.txt", encoding="utf8"),
        "product_reviews_2": lambda place: readers.ReviewsCorpusReader(place, r"(?!README).*\.txt", encoding="utf8"),
        "sentence_polarity": lambda place: sentences(
            place, r"rt-polarity\.(neg|pos)", cat_pattern=r"rt-polarity\.(neg|pos)", encoding="utf-8"
        ),
        "subjectivity": lambda place: sentences(
            place, r"(quote|plot)\.tok\.gt9\.5000", cat_map=subjective, encoding="latin-1"
        ),
        "qc": lambda place: readers.StringCategoryCorpusReader(place, ["train.txt", "test.txt"], encoding="ISO-8859-2"),
    }
    with _authorised(archive.resolve().parent):
        try:
            yield open_corpus[name](ZipFilePathPointer(str(archive.resolve()), f"{name}/"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Expected the corpus {name!r} in {archive}, got {error}; fetch it again") from error


def texts(root: Path, name: str, download: bool) -> tuple[Path, Callable[[], dict[str, str]]]:
    """Return the file of a corpus of plain texts, and a function that reads it as {part: text}.

    Parts are languages (genesis, udhr2), authors (gutenberg) or speaking characters (shakespeare, most words first).
    """
    if name == "shakespeare":
        return _shakespeare(root, download)
    archive = corpus_file(root, name, download)

    def read() -> dict[str, str]:
        found: dict[str, str] = {}
        with reader(archive, name) as corpus:
            for file in corpus.fileids():
                part = file.removesuffix(".txt")
                part = part.split("-")[0] if name == "gutenberg" else part
                found[part] = found.get(part, "") + corpus.raw(file)
        return found

    return archive, read


def _shakespeare(root: Path, download: bool) -> tuple[Path, Callable[[], dict[str, str]]]:
    path = next((p for p in (root / "text/tinyshakespeare.txt", root / "tinyshakespeare.txt") if p.exists()), None)
    if path is None:
        path = root / "text" / "tinyshakespeare.txt"
        if not download:
            raise missing(path, f"set data.download=true, or fetch it from {SHAKESPEARE}")
        fetch([SHAKESPEARE], path, SHAKESPEARE_MD5)

    def read() -> dict[str, str]:
        if checksum(path) != SHAKESPEARE_MD5:
            raise DataError(f"Expected md5 {SHAKESPEARE_MD5} of {path}, got another: it is corrupt; fetch it again")
        found: dict[str, list[str]] = {}
        for speech in path.read_text(encoding="utf-8").split("\n\n"):
            speaker, _, said = speech.partition(":\n")
            found.setdefault(speaker.strip().title(), []).append(said)
        joined = {speaker: "\n".join(said) for speaker, said in found.items()}
        return dict(sorted(joined.items(), key=lambda item: -len(item[1])))

    return path, read


def tidy(text: str) -> str:
    r"""Return a text with single spaces and no empty lines.

    >>> tidy(" a  b \n\n  c")
    'a b\nc'
    """
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)
