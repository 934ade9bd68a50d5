"""Recurrent cells: torch's fused kernels over a whole sequence, and the same arithmetic one step at a time.

The state of a cell is a tuple of (B, H) tensors; the first is what the layer gives out.
"""

import math
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.errors import expect
from cl.products import linear
from cl.transform import fused

State = tuple[Tensor, ...]
RECURRENT_INITS = ("default", "orthogonal", "identity", "fan_in")


def _whole_precision(x: Tensor) -> bool:
    """Return True where mixed precision is asked for on a CPU whose kernels of bfloat16 layers do not run."""
    mixed = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    onednn = torch._C._has_mkldnn  # whose layers torch takes there, without asking whether they run
    return mixed and onednn and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Cell(nn.Module):
    """One recurrent layer in one direction.

    Args:
        kernel: torch's layer, with ``batch_first``; it holds the parameters of both forms.
    """

    fused: bool = True
    states: ClassVar[int] = 1

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__()
        self.kernel = kernel
        self.size = kernel.hidden_size

    def train(self, mode: bool = True) -> "Cell":
        """Keep torch's layer in training mode, where alone cuDNN gives gradients; there is no dropout inside it."""
        super().train(mode)
        self.kernel.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, T, H) for inputs (B, T, D), from a state of zeros."""
        if self.fused and fused():
            out: Tensor
            if _whole_precision(x):
                with torch.autocast("cpu", enabled=False):
                    out = self.kernel(x.float())[0]
            else:
                out = self.kernel(x)[0]
            return out
        return torch.stack([state[0] for state in self.scan(x)], 1)

    def initial(self, x: Tensor) -> State:
        """Return the state before the first step of x (B, T, D)."""
        return tuple(x.new_zeros(x.shape[0], self.size) for _ in range(self.states))

    def scan(self, x: Tensor) -> list[State]:
        """Return the state after every step of x (B, T, D)."""
        state, found = self.initial(x), []
        for projected in self.project(x).unbind(1):
            state = self.step(projected, state)
            found.append(state)
        return found

    def project(self, x: Tensor) -> Tensor:
        """Return what the input adds to every gate: (B, T, G H) for x (B, T, D)."""
        return linear(x, *self.weights("ih"))

    def step(self, projected: Tensor, state: State) -> State:
        """Return the next state, given one step of `project` (B, G H)."""
        raise NotImplementedError

    def gates(self, projected: Tensor, state: State) -> dict[str, Tensor]:
        """Return the gates of one step, by name, each (B, H) in (0, 1); ``keep`` is the fraction of state kept."""
        return {}

    def weights(self, which: str) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the inputs (``ih``) or of the state (``hh``), gates stacked."""
        weight, bias = getattr(self.kernel, f"weight_{which}_l0"), getattr(self.kernel, f"bias_{which}_l0")
        return cast(Tensor, weight), cast(Tensor, bias)


class RNNCell(Cell):
    """h' = f(W x + U h + b) (Elman 1990).

    Args:
        inputs: D.
        size: H.
        activation: ``tanh`` or ``relu``.
        recurrent_init: ``default`` (torch's own, all within 1 / sqrt(H)), ``orthogonal`` (Saxe et al. 2014),
            ``identity``: U = 1, biases 0 and input weights of deviation 0.001, with ``relu`` the IRNN of Le, Jaitly,
            Hinton 2015, or ``fan_in``: each within 1 / sqrt(its inputs), D or H, as in linear layers.
    """

    def __init__(self, inputs: int, size: int, activation: str = "tanh", recurrent_init: str = "default") -> None:
        expect(activation in ("tanh", "relu"), "learner.activation", "in ['tanh', 'relu']", activation)
        super().__init__(nn.RNN(inputs, size, nonlinearity=activation, batch_first=True))
        self.activation = torch.tanh if activation == "tanh" else torch.relu
        initialise_recurrent(self.kernel, recurrent_init)

    def step(self, projected: Tensor, state: State) -> State:
        """Return the next state (h,)."""
        return (self.activation(projected + F.linear(state[0], *self.weights("hh"))),)


class LSTMCell(Cell):
    """Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000).

    Args:
        inputs: D.
        size: H.
        forget_bias: what the forget gate's bias starts at (Jozefowicz et al. 2015 advise 1); None is torch's own.
        timescale: longest distance T in steps for the chrono initialisation, forget bias = log U(1, T - 1) and input
            bias = -forget bias (Tallec and Ollivier 2018); None: `forget_bias`.
        peepholes: True lets the gates see the cell state (Gers and Schmidhuber 2000); runs step by step.
        recurrent_init: see `RNNCell`.
    """

    states: ClassVar[int] = 2

    def __init__(
        self,
        inputs: int,
        size: int,
        forget_bias: float | None = 1.0,
        timescale: int | None = None,
        peepholes: bool = False,
        recurrent_init: str = "default",
    ) -> None:
        super().__init__(nn.LSTM(inputs, size, batch_first=True))
        self.fused = not peepholes
        bound = 1 / math.sqrt(size)
        self.peepholes = nn.Parameter(torch.empty(3, size).uniform_(-bound, bound)) if peepholes else None
        initialise_recurrent(self.kernel, recurrent_init)
        kept = _chrono(size, timescale) if timescale is not None else forget_bias
        if kept is not None:
            with torch.no_grad():
                for name in ("bias_ih_l0", "bias_hh_l0"):  # torch adds the two
                    bias = cast(Tensor, getattr(self.kernel, name))
                    share = kept if name == "bias_ih_l0" else 0.0
                    bias[size : 2 * size] = share
                    if timescale is not None:
                        bias[:size] = -share

    def _gates(self, projected: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return input gate, forget gate, candidate and the output gate before its peephole and sigmoid."""
        h, c = state
        i, f, g, o = (projected + F.linear(h, *self.weights("hh"))).chunk(4, -1)
        if self.peepholes is not None:
            i, f = i + self.peepholes[0] * c, f + self.peepholes[1] * c
        return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), o

    def _output(self, o: Tensor, c: Tensor) -> Tensor:
        return torch.sigmoid(o if self.peepholes is None else o + self.peepholes[2] * c)

    def step(self, projected: Tensor, state: State) -> State:
        """Return the next state (h, c)."""
        i, f, g, o = self._gates(projected, state)
        c = f * state[1] + i * g
        return self._output(o, c) * torch.tanh(c), c

    def gates(self, projected: Tensor, state: State) -> dict[str, Tensor]:
        """Return the input, forget (as ``keep``) and output gates (B, H)."""
        i, f, g, o = self._gates(projected, state)
        return {"input": i, "keep": f, "output": self._output(o, f * state[1] + i * g)}


class GRUCell(Cell):
    """Gated recurrent unit (Cho et al. 2014), in torch's form: the reset gate acts after the recurrent product.

    Args:
        inputs: D.
        size: H.
        keep_bias: what the bias of the update gate (the fraction kept) starts at; None is torch's own.
        timescale: longest distance T in steps: bias = log U(1, T - 1) (Tallec and Ollivier 2018); None: `keep_bias`.
        recurrent_init: see `RNNCell`.
    """

    def __init__(
        self,
        inputs: int,
        size: int,
        keep_bias: float | None = None,
        timescale: int | None = None,
        recurrent_init: str = "default",
    ) -> None:
        super().__init__(nn.GRU(inputs, size, batch_first=True))
        initialise_recurrent(self.kernel, recurrent_init)
        kept = _chrono(size, timescale) if timescale is not None else keep_bias
        if kept is not None:
            with torch.no_grad():
                cast(Tensor, self.kernel.bias_ih_l0)[size : 2 * size] = kept
                cast(Tensor, self.kernel.bias_hh_l0)[size : 2 * size] = 0.0

    def _parts(self, projected: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return reset gate, update gate and candidate."""
        (ri, zi, ni), (rh, zh, nh) = projected.chunk(3, -1), F.linear(state[0], *self.weights("hh")).chunk(3, -1)
        r = torch.sigmoid(ri + rh)
        return r, torch.sigmoid(zi + zh), torch.tanh(ni + r * nh)

    def step(self, projected: Tensor, state: State) -> State:
        """Return the next state (h,)."""
        _, z, n = self._parts(projected, state)
        return (n + z * (state[0] - n),)

    def gates(self, projected: Tensor, state: State) -> dict[str, Tensor]:
        """Return the reset and update (as ``keep``) gates (B, H)."""
        r, z, _ = self._parts(projected, state)
        return {"reset": r, "keep": z}


def _chrono(size: int, timescale: int) -> Tensor:
    expect(timescale > 2, "learner.timescale", "> 2 (steps) or null", timescale)
    return torch.empty(size).uniform_(1, timescale - 1).log()


def initialise_recurrent(kernel: nn.RNNBase, name: str) -> None:
    """Initialise the recurrent weights in place, one square block a gate."""
    expect(name in RECURRENT_INITS, "learner.recurrent_init", f"in {list(RECURRENT_INITS)}", name)
    if name == "default":
        return
    if name == "fan_in":
        for part, inputs in (("ih", kernel.input_size), ("hh", kernel.hidden_size)):
            for kind in ("weight", "bias"):
                nn.init.uniform_(getattr(kernel, f"{kind}_{part}_l0"), -(inputs**-0.5), inputs**-0.5)
        return
    recurrent = cast(Tensor, kernel.weight_hh_l0).detach()
    for block in recurrent.chunk(recurrent.shape[0] // kernel.hidden_size):
        if name == "orthogonal":
            nn.init.orthogonal_(block)
        else:
            nn.init.eye_(block)
    if name == "identity":
        nn.init.normal_(cast(Tensor, kernel.weight_ih_l0), std=0.001)
    nn.init.zeros_(cast(Tensor, kernel.bias_ih_l0))
    nn.init.zeros_(cast(Tensor, kernel.bias_hh_l0))
