"""Progressive neural networks: a column per task, with lateral connections from the frozen columns before it."""

from typing import ClassVar

from torch import Tensor, nn

from cl import objectives
from cl.build import Conditions
from cl.errors import ConfigError, expect
from cl.learners.base import Learner
from cl.learners.lateral import Lateral, first_layer, opened, through
from cl.learners.sequence import SequenceLearner
from cl.seeding import seeded
from cl.strategy import Network, Paper, Strategy
from cl.streams.base import StreamInfo

ADAPTERS = ("nonlinear", "linear", "none")


class Progressive(Strategy):
    """One network (column) per task; a new column reads the hidden layers of all earlier, frozen columns.

    h_i^k = f(W_i h_{i-1}^k + U_i relu(V_i [alpha_j h_{i-1}^j for j < k])), and so for the output layer. It cannot
    forget. V brings the earlier columns down to the width of one (a 1 x 1 convolution for images), so that U does not
    grow with the number of columns.

    Args:
        learner: the first column, a learner of blocks (mlp, cnn, resnet, all learners of sequences); later columns are
            made as it was. The lateral enters before normalisation and activation; blocks of several layers (residual
            blocks) and those of sequences (recurrent, attention, convolution over time) receive it at their input, of
            sequences at every step, so that U is W itself.
        info: see `Strategy`.
        adapter: ``nonlinear`` (paper, eq. 2), ``linear`` (eq. 1 with V) or ``none`` (no laterals).
        scale: upper end of the uniform draw of each alpha; the paper says "random small values".

    Differs from the paper: trained on classification, not on reinforcement learning.
    """

    paper = Paper("Progressive Neural Networks", 2016, "https://arxiv.org/abs/1606.04671")
    scenarios: ClassVar[tuple[str, ...]] = ("task",)
    needs_task_id: ClassVar[bool] = True
    protects: ClassVar[bool] = True
    only_with: ClassVar[Conditions] = {"scale": {"adapter": ("nonlinear", "linear")}}

    def __init__(self, learner: Learner, info: StreamInfo, adapter: str = "nonlinear", scale: float = 0.01) -> None:
        super().__init__(learner, info)
        expect(adapter in ADAPTERS, "strategy.adapter", f"in {list(ADAPTERS)}", adapter)
        expect(scale >= 0, "strategy.scale", ">= 0", scale)
        base = SequenceLearner if isinstance(learner, SequenceLearner) else Learner
        for method in ("activations", "run", "through"):
            if getattr(type(learner), method, None) is not getattr(base, method, None):
                raise ConfigError(
                    "Expected `learner` of plain blocks (mlp, cnn, resnet, a learner of sequences) for progressive, "
                    f"got {type(learner).__name__}"
                )
        self.adapter, self.scale = adapter, scale
        self.earlier = nn.ModuleList()
        self.laterals = nn.ModuleList()

    def grow(self, k: int) -> None:
        """Freeze what there is and add a column with its laterals."""
        if k == 0:
            return
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.earlier.append(self.learner)
        with seeded(self.info.seed, "column", k):
            self.learner = self.learner.fresh()
            layers = [*(first_layer(block) for block in self.learner.blocks[1:]), self.learner.head]
            made = [
                Lateral(layer, width, k, self.adapter, self.scale)
                for layer, width in zip(layers, self.learner.widths, strict=True)
            ]
        self.laterals.append(nn.ModuleList(made if self.adapter != "none" else []).to(self.active.device))

    def train(self, mode: bool = True) -> "Progressive":
        """Keep the frozen columns in evaluation mode (their running statistics and dropout)."""
        super().train(mode)
        self.earlier.eval()
        return self

    def column(self, k: int, x: Tensor) -> Tensor:
        """Return the logits (B, C) or (B, T, C) of column k."""
        columns = [*self.earlier, self.learner]
        below: list[list[Tensor]] = []
        for c, column in enumerate(columns[: k + 1]):
            if c < k and self.adapter == "none":
                continue
            found = self.laterals[c - 1].children() if c > 0 else ()
            laterals = [module for module in found if isinstance(module, Lateral)]
            (h, told), hidden = opened(column, x), []
            for i, block in enumerate(column.blocks):
                if i > 0 and laterals:
                    h = through(block, h, laterals[i - 1]([b[i - 1] for b in below]), laterals[i - 1].project, told)
                else:
                    h = block(h, *told)
                hidden.append(h)
            below.append(hidden)
        logits: Tensor = column.head(column.pool(h, *told))
        if laterals:
            lateral = column.pool(laterals[-1]([b[-1] for b in below[:-1]]), *told)
            logits = logits + laterals[-1].project(lateral)
        return logits

    def logits(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Return the newest column's outputs."""
        return self.column(len(self.earlier), x)

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Ask the column of the task; the newest one for a task not met yet."""
        assert task is not None
        return objectives.mask_logits(self.column(min(task, len(self.earlier)), x), self.allowed_at_test(task))

    def network(self, task: int | None) -> Network | None:
        """Return the first column, which stands alone; None for the others, which read the columns before them."""
        if task is None or min(task, len(self.earlier)) > 0:
            return None
        first = next((n for n in self.earlier if isinstance(n, Learner)), self.learner)
        return Network(first)
