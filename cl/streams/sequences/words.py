"""Text classification, domain after domain: product reviews, sentence polarity, subjectivity, question types."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl.errors import DataError, expect
from cl.seeding import generator
from cl.streams.cache import decoded
from cl.streams.sequences.corpora import corpus_file, reader
from cl.streams.sources.base import Samples, Source, Table

CORPORA = ("product_reviews_1", "product_reviews_2", "sentence_polarity", "subjectivity", "qc")
PADDING, UNKNOWN = 0, 1
Sentence = tuple[str, str, str, str]  # domain, class, split ("" = to be drawn), text


class Sentences(Source):
    """Sentences with a class, as tokens; each domain is a group with classes of its own.

    Domains are products (product_reviews: sentences judged negative or positive, Hu and Liu 2004; a product without
    such sentences is left out), and the whole of sentence_polarity (negative, positive; Pang and Lee 2005),
    subjectivity (objective, subjective; Pang and Lee 2004) and qc (six types of question; Li and Roth 2002, with their
    test set).

    Words are split by nltk's tokeniser, in lower case. The vocabulary is the most frequent words of the training
    sentences of all domains; 0 is padding and 1 any other word.

    Args:
        corpora: of `CORPORA`, in order.
        steps: words T of a sentence that are kept.
        words: size of the vocabulary without padding and unknown.
        test_fraction: part of each class held out where no test set is given, in (0, 1); the same for every seed.
    """

    def __init__(
        self,
        corpora: Sequence[str] = ("product_reviews_1", "product_reviews_2"),
        steps: int = 40,
        words: int = 5000,
        test_fraction: float = 0.2,
    ) -> None:
        known = all(c in CORPORA for c in corpora) and 0 < len(corpora) == len(set(corpora))
        expect(known, "stream.source.corpora", f"different ones in {list(CORPORA)}", list(corpora))
        expect(steps > 0, "stream.source.steps", "> 0", steps)
        expect(words > 0, "stream.source.words", "> 0", words)
        expect(0 < test_fraction < 1, "stream.source.test_fraction", "in (0, 1)", test_fraction)
        self.corpora, self.steps, self.words, self.test_fraction = list(corpora), steps, words, test_fraction

    def load(self, root: Path, download: bool) -> Table:
        """Return the data, decoded once and cached."""
        archives = [corpus_file(root, name, download) for name in self.corpora]
        spec = (self.corpora, self.steps, self.words, self.test_fraction)
        content = decoded("sentences", spec, archives, lambda: self._decode(archives))
        train, test = (Samples(content[f"{split}_x"], content[f"{split}_y"]) for split in ("train", "test"))
        return Table(
            train,
            test,
            tuple(content["class_names"]),
            tuple(tuple(g) for g in content["groups"]),
            tuple(content["group_names"]),
            sequence=True,
            vocabulary=int(content["vocabulary"]),
            padded=True,
        )

    def _decode(self, archives: list[Path]) -> dict[str, Any]:
        found = [s for name, archive in zip(self.corpora, archives, strict=True) for s in sentences(archive, name)]
        classes = sorted({(domain, label) for domain, label, _, _ in found}, key=lambda c: (_first(found, c[0]), c[1]))
        place = {c: i for i, c in enumerate(classes)}
        y = torch.tensor([place[domain, label] for domain, label, _, _ in found])
        test = self._held_out([split for _, _, split, _ in found], y)
        tokens = tokenised([text for _, _, _, text in found])
        counts = Counter(word for own, out in zip(tokens, test.tolist(), strict=True) if not out for word in own)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[: self.words]
        number = {word: i + 2 for i, word in enumerate(ranked)}
        x = torch.full((len(found), self.steps), PADDING)
        for i, own in enumerate(tokens):
            kept = [number.get(word, UNKNOWN) for word in own[: self.steps]] or [UNKNOWN]
            x[i, : len(kept)] = torch.tensor(kept)
        domains = list(dict.fromkeys(domain for domain, _ in classes))
        return {
            "train_x": x[~test],
            "train_y": y[~test],
            "test_x": x[test],
            "test_y": y[test],
            "class_names": [f"{domain}: {label}" for domain, label in classes],
            "groups": [[i for i, c in enumerate(classes) if c[0] == domain] for domain in domains],
            "group_names": domains,
            "vocabulary": len(ranked) + 2,
        }

    def _held_out(self, given: list[str], y: Tensor) -> Tensor:
        """Return which sentences are for testing (N,): those given as such, else a part of each class."""
        test = torch.tensor([split == "test" for split in given])
        free = torch.tensor([split == "" for split in given])
        for c in range(int(y.max()) + 1):
            own = ((y == c) & free).nonzero()[:, 0]
            drawn = own[torch.randperm(len(own), generator=generator(0, "sentences test", c))]
            test[drawn[: round(self.test_fraction * len(own))]] = True
        return test


def _first(found: list[Sentence], domain: str) -> int:
    return next(i for i, s in enumerate(found) if s[0] == domain)


def tokenised(texts: Sequence[str]) -> list[list[str]]:
    """Return the words of each sentence in lower case, by nltk's word tokeniser.

    >>> tokenised(["It doesn't work, at all."])
    [['it', 'does', "n't", 'work', ',', 'at', 'all', '.']]
    """
    from nltk.tokenize import NLTKWordTokenizer

    tokeniser = NLTKWordTokenizer()
    return [tokeniser.tokenize(text.lower()) for text in texts]


def sentences(archive: Path, name: str) -> list[Sentence]:
    """Return (domain, class, split, text) of every labelled sentence of a corpus.

    Raises:
        DataError: the corpus holds none.
    """
    found: list[Sentence] = []
    with reader(archive, name) as corpus:
        if name.startswith("product_reviews"):
            for file in corpus.fileids():
                product = file.removesuffix(".txt").replace("_", " ")
                for review in corpus.reviews(file):
                    for line in review.review_lines:
                        judged = sum(int(score) if score[1:] else int(f"{score}1") for _, score in line.features)
                        if judged:
                            label = "positive" if judged > 0 else "negative"
                            found.append((product, label, "", " ".join(line.sent)))
        elif name == "qc":
            for split in ("train", "test"):
                found += [(name, kind.split(":")[0], split, text) for kind, text in corpus.tuples(f"{split}.txt")]
        else:
            for label in corpus.categories():
                full = {"neg": "negative", "pos": "positive"}.get(label, label)
                found += [(name, full, "", " ".join(words)) for words in corpus.sents(categories=label)]
    if not found:
        raise DataError(f"Expected labelled sentences of the corpus {name!r} in {archive}, got none; fetch it again")
    return found
