"""Character language modelling: what comes next, language after language or author after author."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl.errors import expect
from cl.streams.cache import decoded
from cl.streams.sequences.corpora import texts, tidy
from cl.streams.sources.base import Samples, Source, Table

CORPORA = ("genesis", "udhr2", "gutenberg", "shakespeare")
LEVELS = ("character", "byte")


class Characters(Source):
    """Stretches of text; at every step the next character is asked for. Each language or author is a group.

    The last part of every text is held out for testing. Results tell the loss in bits per character too.

    Args:
        corpus: ``genesis`` (8 versions of one book), ``udhr2`` (one declaration in hundreds of languages),
            ``gutenberg`` (books by author) or ``shakespeare`` (speeches by character).
        parts: which languages, authors or characters, in order; None for all whose text is long enough.
        steps: characters T of a sample.
        level: ``character`` or ``byte`` (of UTF-8).
        test_fraction: part of each text held out, in (0, 1).
    """

    def __init__(
        self,
        corpus: str = "genesis",
        parts: Sequence[str] | None = None,
        steps: int = 100,
        level: str = "character",
        test_fraction: float = 0.1,
    ) -> None:
        expect(corpus in CORPORA, "stream.source.corpus", f"in {list(CORPORA)}", corpus)
        expect(level in LEVELS, "stream.source.level", f"in {list(LEVELS)}", level)
        expect(steps > 0, "stream.source.steps", "> 0", steps)
        expect(0 < test_fraction < 1, "stream.source.test_fraction", "in (0, 1)", test_fraction)
        rule = "a list of different names, or null"
        expect(parts is None or 0 < len(parts) == len(set(parts)), "stream.source.parts", rule, parts)
        self.corpus, self.parts = corpus, None if parts is None else [str(p) for p in parts]
        self.steps, self.level, self.test_fraction = steps, level, test_fraction

    def load(self, root: Path, download: bool) -> Table:
        """Return the data, decoded once and cached."""
        path, read = texts(root, self.corpus, download)
        spec = (self.corpus, self.parts, self.steps, self.level, self.test_fraction)
        content = decoded(f"characters-{self.corpus}", spec, [path], lambda: self._decode(read()))
        train, test = (Samples(*(content[f"{split}_{f}"] for f in ("x", "y", "group"))) for split in ("train", "test"))
        names, parts = tuple(content["class_names"]), tuple(content["parts"])
        every = tuple(range(len(names)))
        return Table(
            train,
            test,
            names,
            groups=tuple(every for _ in parts),
            group_names=parts,
            target="steps",
            sequence=True,
            vocabulary=len(names) + 1,
            language=True,
        )

    def _decode(self, found: dict[str, str]) -> dict[str, Any]:
        parts = list(found) if self.parts is None else self.parts
        for part in parts:
            expect(part in found, "stream.source.parts", f"in {list(found)[:20]}", part)
        written = {part: tidy(found[part]) for part in parts}
        if self.parts is None:  # some texts of `udhr2` are a line long
            written = {part: text for part, text in written.items() if self._smaller_split(text) > self.steps}
            parts = list(written)
            expect(len(parts) > 0, "stream.source.steps", f"short enough for a text of {self.corpus}", self.steps)
        names, coded = self._coded(written)
        content: dict[str, Any] = {"class_names": names, "parts": parts}
        for split in ("train", "test"):
            xs, ys, groups = [], [], []
            for g, part in enumerate(parts):
                codes = coded[part]
                cut = int(len(codes) * (1 - self.test_fraction))
                own = codes[:cut] if split == "train" else codes[cut:]
                n = (len(own) - 1) // self.steps
                rule = f"short enough for the text of {part} ({len(own)} characters to {split})"
                expect(n > 0, "stream.source.steps", rule, self.steps)
                xs.append(own[: n * self.steps].reshape(n, self.steps) + 1)  # token 0 is padding
                ys.append(own[1 : n * self.steps + 1].reshape(n, self.steps))
                groups.append(torch.full((n,), g))
            content[f"{split}_x"], content[f"{split}_y"] = torch.cat(xs), torch.cat(ys)
            content[f"{split}_group"] = torch.cat(groups)
        return content

    def _smaller_split(self, text: str) -> int:
        """Return the symbols of a text's training or test part, whichever has fewer."""
        n = len(text.encode() if self.level == "byte" else text)
        cut = int(n * (1 - self.test_fraction))
        return min(cut, n - cut)

    def _coded(self, written: dict[str, str]) -> tuple[list[str], dict[str, Tensor]]:
        """Return the names of all symbols and each text as symbol numbers (n,)."""
        if self.level == "byte":
            coded = {part: torch.tensor(list(text.encode()), dtype=torch.long) for part, text in written.items()}
            return [f"0x{b:02x}" for b in range(256)], coded
        names = sorted({c for text in written.values() for c in text})
        number = {c: i for i, c in enumerate(names)}
        return names, {part: torch.tensor([number[c] for c in text]) for part, text in written.items()}
