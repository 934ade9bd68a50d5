"""Meta-experience replay: replay in an order and with Reptile updates that align gradients across samples."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.batch import Batch
from cl.errors import expect
from cl.learners.base import Learner
from cl.memory import Reservoir, augmented, kept_inputs, sample_fields, slots
from cl.memory.base import Fields
from cl.seeding import derive, integers
from cl.strategy import Paper, Strategy
from cl.streams.base import StreamInfo
from cl.update import Updater

PLACES = ("first", "last", "random")


class MER(Strategy):
    """For every sample: `batches` sequences of SGD steps on single samples, each followed by a Reptile update.

    A sequence holds the present sample and `batch_size` - 1 samples of a reservoir. Within a sequence
    theta <- theta_0 + beta (theta_k - theta_0), and after all of them theta <- theta_0 + gamma (theta - theta_0)
    (paper, algorithm 1). The single steps are taken by the run's optimiser (SGD in the paper).

    Args:
        learner: see `Strategy`.
        info: see `Strategy`.
        memory_size: slots of the reservoir; 5120 in the paper on MNIST (200 and 500 studied).
        per: what `memory_size` is counted for, see `ER`.
        batches: s, sequences for each sample; 10 in the authors' runs on MNIST rotations, which with their k makes 1000
            optimisation steps a sample; the default is 10 steps.
        batch_size: k, samples of a sequence, the present one among them; 101 there (their replay_batch_size is k - 1).
        beta: Reptile rate within a sequence, in (0, 1]; .03 there.
        gamma: Reptile rate across sequences, in (0, 1]; 1 there.
        group: samples taken together in place of a single one; 1 in the paper, more is faster and less exact.
        place: where in a sequence the present sample stands: ``first`` (the authors' code of algorithm 1), ``last``
            (as in their algorithm 6) or ``random`` (as in their algorithm 7).

    Differs from the paper: a batch of the run is taken sample by sample (the paper's batch size is 1); a sequence draws
    distinct samples from memory, the authors' code draws with replacement.
    """

    paper = Paper(
        "Learning to learn without forgetting by maximizing transfer and minimizing interference",
        2019,
        "https://arxiv.org/abs/1810.11910",
    )
    protects: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"memory_size": 60, "batches": 1, "batch_size": 2, "beta": 0.5, "group": 16}
    vectorizable: ClassVar[bool | str] = "each sample takes its own sequence of optimisation steps"

    def __init__(
        self,
        learner: Learner,
        info: StreamInfo,
        memory_size: int = 5120,
        per: str = "all",
        batches: int = 1,
        batch_size: int = 10,
        beta: float = 0.03,
        gamma: float = 1.0,
        group: int = 1,
        place: str = "first",
    ) -> None:
        super().__init__(learner, info)
        expect(batches > 0, "strategy.batches", "> 0", batches)
        expect(batch_size > 0, "strategy.batch_size", "> 0", batch_size)
        expect(0 < beta <= 1, "strategy.beta", "in (0, 1]", beta)
        expect(0 < gamma <= 1, "strategy.gamma", "in (0, 1]", gamma)
        expect(group > 0, "strategy.group", "> 0", group)
        self.batches, self.batch_size, self.beta, self.gamma = batches, batch_size, beta, gamma
        expect(place in PLACES, "strategy.place", f"in {list(PLACES)}", place)
        self.group, self.place = group, place
        self.memory = Reservoir(slots(info, memory_size, per), sample_fields(info))

    def step(self, batch: Batch, update: Updater) -> Tensor:
        """Learn from the samples of a batch one by one; return the mean loss ()."""
        losses, kept = [], kept_inputs(self.info, batch)
        for n in range(0, len(batch.y), self.group):
            key = batch.key + derive(0, "mer", n)
            present = part({"x": batch.x, "y": batch.y, "task": batch.task}, n, self.group)
            losses.append(self.learn(present, key, update))
            if update.last:
                self.memory.add(present | part({"x": kept}, n, self.group), key)
        return torch.stack(losses).mean()

    def learn(self, present: Fields, key: Tensor, update: Updater) -> Tensor:
        """Take all sequences of one sample (fields (group, ...)); return its mean loss ()."""
        across = self.weights()
        losses = []
        for i in range(self.batches):
            within = self.weights()
            recalled: Fields = {}
            valid = 0
            if self.batch_size > 1:
                recalled, known = self.memory.sample((self.batch_size - 1) * self.group, key, purpose=f"replay/{i}")
                recalled = part(recalled, 0, int(known.sum()))  # samples that are stored come first
                recalled = augmented(self.info, recalled, key, f"replay/{i}")
                valid = len(recalled["y"])
            sequence = [part(recalled, j, self.group) for j in range(0, valid, self.group)]
            place = self.position(len(sequence), key, i)
            sequence.insert(place, present)
            for j, fields in enumerate(sequence):
                loss = self.single(fields, key + derive(0, "single", i, j), update)
                if j == place:
                    losses.append(loss.detach())
                update.minimise(loss)
            self.towards(within, self.beta)
        self.towards(across, self.gamma)
        return torch.stack(losses).mean()

    def position(self, others: int, key: Tensor, i: int) -> int:
        """Return how many of the `others` of sequence i come before the present sample."""
        if self.place == "random":
            return int(integers(key, (), others + 1, f"place/{i}"))
        return 0 if self.place == "first" else others

    def single(self, fields: Fields, key: Tensor, update: Updater) -> Tensor:
        """Return the loss () of one sample."""
        loss, _ = update.training_loss(self, Batch(fields["x"], fields["y"], fields["task"], key))
        return loss

    def weights(self) -> list[Tensor]:
        """Return a copy of the learner's weights."""
        return [p.detach().clone() for p in self.learner.parameters()]

    @torch.no_grad()
    def towards(self, start: list[Tensor], rate: float) -> None:
        """Go only the share `rate` of the way from `start` to the present weights."""
        for p, before in zip(self.learner.parameters(), start, strict=True):
            p.copy_(torch.lerp(before, p, rate))


def part(fields: Fields, first: int, count: int) -> Fields:
    """Return `count` samples of fields (n, ...) from the `first` on."""
    return {name: value[first : first + count] for name, value in fields.items()}
