"""LSTM and GRU learners against torch's layers in a bare loop; memory networks against the length and public forms."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.bench.options import Options
from cl.bench.runs import quiet
from cl.bench.table import Row, in_turns
from cl.errors import expect
from cl.learners.dnc import DNC
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU, LSTM
from cl.seeding import seeded

B, CLASSES, STEPS = 64, 10, 5
SHAPES = ((28, 28, 128), (100, 2, 64))  # T, D, H: row by row images, the adding problem
SHORT = 50
COPY, SYMBOL = 20, 8  # the copy task: patterns, bits in each; a sequence shows them, asks, and waits for the answers
SLOTS, SLOT_SIZE, HIDDEN = 128, 20, 100
# Where checkouts of public forms lie: github.com/loudinthecloud/pytorch-ntm, github.com/ixaxaar/pytorch-dnc.
CHECKOUTS = {"ntm": "PYTORCH_NTM", "dnc": "PYTORCH_DNC"}


class Bare(nn.Module):
    """A recurrent layer of torch and a head that reads its last output.

    Args:
        layer: the layer, with ``batch_first``.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.hidden_size, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        out: Tensor = self.head(self.layer(x)[0][:, -1])
        return out


def rows(options: Options) -> list[Row]:
    """Measure training steps, in turns."""
    found = []
    with quiet(options.device, options.threads), seeded(0, "bench/sequences"):
        for t, d, h in SHAPES:
            for name, ours, layer in (("lstm", LSTM, nn.LSTM), ("gru", GRU, nn.GRU)):
                pair = ours((t, d), CLASSES, hidden=h), Bare(layer(d, h, batch_first=True))
                times = in_turns([stepper(net, t, d, options) for net in pair], options.rounds)
                found.append(Row("sequences", f"{name} {h}, {t} steps", "a bare loop", times[0], times[1], 1.1))
        for name, make in (("ntm", NTM), ("dnc", DNC)):
            net = make((2 * SHORT, 8), CLASSES)
            times = in_turns([stepper(net, t, 8, options) for t in (2 * SHORT, SHORT)], options.rounds)
            found.append(Row("sequences", f"{name}, {2 * SHORT} steps", f"{SHORT} steps", times[0], times[1], 2.2))
        for name, variable in CHECKOUTS.items():
            if variable not in os.environ:
                print(f"{name} against a public form: left out (set {variable} to a checkout of pytorch-{name})")
            elif options.device.type != "cpu":
                print(f"{name} against a public form: left out (measured on the CPU alone)")
            else:
                found += public(name, Path(os.environ[variable]), options)
    return found


def public(name: str, checkout: Path, options: Options) -> list[Row]:
    """Measure training steps of the copy task against a public form, of equal sizes, for batches of 1 and 16."""
    package = imported(checkout / name, f"public_{name}")
    found, length = [], 2 * COPY + 1
    sizes = {"hidden": HIDDEN, "slots": SLOTS, "slot_size": SLOT_SIZE, "reads": 1}
    for batch in (1, 16):
        x = torch.zeros(batch, length, SYMBOL + 1)
        x[:, :COPY, :SYMBOL] = torch.randint(2, (batch, COPY, SYMBOL)).float()
        x[:, COPY, SYMBOL] = 1
        make = {"ntm": NTM, "dnc": DNC}[name]
        ours = make((length, SYMBOL + 1), SYMBOL, target="steps", outputs="steps", **sizes)
        theirs = {"ntm": TheirNTM, "dnc": TheirDNC}[name](package)
        times = in_turns([copier(net, x, options) for net in (ours, theirs)], options.rounds)
        found.append(Row("sequences", f"{name}, copy, batch {batch}", f"pytorch-{name}", times[0], times[1], 1.3))
    return found


def imported(folder: Path, name: str) -> ModuleType:
    """Import a package from its folder under another name, so that it hides no other."""
    file = folder / "__init__.py"
    expect(file.exists(), CHECKOUTS[folder.name], f"a folder with a package {folder.name}", str(folder.parent))
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class TheirNTM(nn.Module):
    """The public NTM over a whole sequence; its outputs are probabilities, and logits here.

    Args:
        package: its package.
    """

    def __init__(self, package: ModuleType) -> None:
        super().__init__()
        parts = importlib.import_module(f"{package.__name__}.aio")
        self.net = parts.EncapsulatedNTM(SYMBOL + 1, SYMBOL, HIDDEN, 1, 1, SLOTS, SLOT_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (B, T, bits)."""
        self.net.init_sequence(len(x))
        return torch.stack([self.net(now)[0] for now in x.unbind(1)], 1).logit(1e-6)


class TheirDNC(nn.Module):
    """The public DNC over a whole sequence, with one layer and one read head.

    Args:
        package: its package.
    """

    def __init__(self, package: ModuleType) -> None:
        super().__init__()
        parts = importlib.import_module(f"{package.__name__}.dnc")
        options = {"num_layers": 1, "num_hidden_layers": 1, "nr_cells": SLOTS, "cell_size": SLOT_SIZE, "read_heads": 1}
        self.net = parts.DNC(SYMBOL + 1, HIDDEN, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (B, T, bits); the public form gives (T, B, inputs)."""
        outputs: Tensor = self.net(x, (None, None, None), reset_experience=True)[0]
        return outputs.transpose(0, 1)[..., :SYMBOL]


def copier(net: nn.Module, x: Tensor, options: Options) -> Callable[[], float]:
    """Return a function that takes some optimisation steps of copying x (B, T, bits + 1), and their seconds."""
    return trainer(net, lambda: F.binary_cross_entropy_with_logits(net(x)[:, -COPY:], x[:, :COPY, :SYMBOL]), options)


def stepper(net: nn.Module, t: int, d: int, options: Options) -> Callable[[], float]:
    """Return a function that takes some optimisation steps on sequences of t steps of d numbers, and their seconds."""
    net = net.to(options.device)
    x, y = torch.rand(B, t, d, device=options.device), torch.randint(CLASSES, (B,), device=options.device)
    return trainer(net, lambda: F.cross_entropy(net(x), y), options)


def trainer(net: nn.Module, loss: Callable[[], Tensor], options: Options) -> Callable[[], float]:
    """Return a function that takes some optimisation steps of a network, and their seconds."""
    optimizer = torch.optim.Adam(net.parameters())

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return lambda: options.timed(steps)
