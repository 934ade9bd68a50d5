"""LSTM and GRU learners against torch's layers in a bare loop; memory networks against the length."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.bench.options import Options
from cl.bench.runs import quiet
from cl.bench.table import Row, in_turns
from cl.learners.dnc import DNC
from cl.learners.ntm import NTM
from cl.learners.recurrent import GRU, LSTM
from cl.seeding import seeded

B, CLASSES, STEPS = 64, 10, 5
SHAPES = ((28, 28, 128), (100, 2, 64))  # T, D, H: row by row images, the adding problem
SHORT = 50


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
    return found


def stepper(net: nn.Module, t: int, d: int, options: Options) -> Callable[[], float]:
    """Return a function that takes some optimisation steps on sequences of t steps of d numbers, and their seconds."""
    net = net.to(options.device)
    x, y = torch.rand(B, t, d, device=options.device), torch.randint(CLASSES, (B,), device=options.device)
    optimizer = torch.optim.Adam(net.parameters())

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return lambda: options.timed(steps)
