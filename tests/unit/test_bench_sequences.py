"""The bench of memory networks against public forms: no checkout, a wrong one, and one of the right shape."""

from pathlib import Path

import pytest
import torch

from cl.bench.options import Options
from cl.bench.sections import sequences
from cl.errors import ConfigError

OPTIONS = Options(torch.device("cpu"), 1, 1, "", full=False, clock="cpu")

FORM = """
import torch
class EncapsulatedNTM(torch.nn.Module):
    def __init__(self, inputs, outputs, hidden, layers, heads, slots, size):
        super().__init__()
        self.layer = torch.nn.Linear(inputs, outputs)
        self.told = (inputs, outputs, hidden, layers, heads, slots, size)
    def init_sequence(self, batch):
        self.batch = batch
    def forward(self, x):
        assert x.shape == (self.batch, 9)
        return self.layer(x).sigmoid(), None
"""


def test_a_folder_that_is_no_checkout_is_told_by_the_name_of_the_variable(tmp_path):
    with pytest.raises(ConfigError, match="`PYTORCH_NTM` a folder with a package ntm"):
        sequences.public("ntm", tmp_path, OPTIONS)


def test_a_public_form_is_trained_on_the_same_sequences(tmp_path, monkeypatch):
    folder = Path(tmp_path) / "ntm"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "aio.py").write_text(FORM)
    for name, size in (("COPY", 2), ("SLOTS", 6), ("SLOT_SIZE", 3), ("HIDDEN", 4)):
        monkeypatch.setattr(sequences, name, size)
    rows = sequences.public("ntm", tmp_path, OPTIONS)
    assert [row.name for row in rows] == ["ntm, copy, batch 1", "ntm, copy, batch 16"]
    assert all(row.bar == 1.3 and len(row.ratios) == 1 for row in rows)
    theirs = sequences.TheirNTM(sequences.imported(folder, "public_ntm"))
    assert theirs.net.told == (9, 8, 4, 1, 1, 6, 3)
    x = torch.rand(2, 5, 9)
    torch.testing.assert_close(theirs(x), theirs.net.layer(x), rtol=1e-4, atol=1e-5)
