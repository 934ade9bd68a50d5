"""Trains a group of replicas through one task as one program."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from cl.batch import Batch
from cl.costs import StepPasses
from cl.engine import Engine
from cl.population.batches import feed, sizes
from cl.population.measure import before_learning, measure
from cl.population.optimisers import Separate, Together, alike
from cl.population.stack import Stack
from cl.returned import with_gradient
from cl.strategy import Aux, overrides


class Lanes:
    """Replicas of equal structure in the middle of a task; lane i is replica i.

    Replicas are sorted by the length of their data, so that those that have a batch of the same size are neighbours
    and a step of only some of them needs no copy.

    Args:
        engines: the replicas, all begun on the same task.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = sorted(engines, key=lambda e: -e.schedule.n)
        known = {size: passes for e in self.engines for size, passes in e.step_passes.known.items()}
        self.step_passes = StepPasses(every=False, known=known)
        self.failed: list[tuple[Engine, Exception]] = []
        first = self.engines[0]
        self.clip_norm, self.autocast, self.device = first.update.clip_norm, first.update.autocast, first.device
        self.edits, self.follows = overrides(first.strategy, "gradients"), overrides(first.strategy, "after_step")
        self.recalls, self.remembers = (overrides(first.strategy, name) for name in ("edit_moments", "remember"))
        self.watches = first.watches
        self._stack()
        steps = max(e.schedule.steps for e in self.engines)
        losses = torch.zeros(len(self.engines), steps, device=self.device)
        scores = torch.zeros(len(self.engines), steps if self.watches else 0, device=self.device)
        for i, engine in enumerate(self.engines):
            losses[i, : engine.step] = engine.losses[: engine.step]
            scores[i, : engine.step] = engine.online_scores[: engine.step]
        self._share(losses, scores)

    def _stack(self) -> None:
        self.feed = feed(self.engines)
        first = self.engines[0]
        self.stack = Stack([e.strategy for e in self.engines], first.options.compile, first.update.tell)
        leaves = {n: self.stack.tensors[n] for n in self.stack.trainable}
        self.optimisers = Together(self.engines, leaves) if alike(self.engines) else Separate(self.engines)

    def rehearse(self) -> None:
        """Take the first step on copies; raises whatever keeps these replicas from being stacked."""
        ready = self._ready()
        if ready:
            saved = {name: t.clone() for name, t in self.stack.tensors.items()}
            trial = None
            if self.recalls and isinstance(self.optimisers, Together):  # its moments are there after a step only
                trial = Together(self.engines, {name: saved[name].clone() for name in self.stack.trainable})
            try:
                self._program(ready[0], self.feed.batch(ready[0]), trial)
            finally:
                for name, t in self.stack.tensors.items():
                    t.copy_(saved[name])

    def train(self) -> None:
        """Run the steps of the task; replicas that fail are left in `failed`, the others go on."""
        started, evaluating = time.perf_counter(), sum(e.record.seconds["evaluate"] for e in self.engines)
        engines = list(self.engines)
        for engine in engines:  # not before: replicas that cannot be stacked keep counts of their own
            engine.step_passes = self.step_passes
        while ready := self._ready():
            ended: list[int] = []
            for lanes in ready:
                batch = self.feed.batch(lanes)
                if self.watches:
                    self._record(self.online_scores, lanes, self._score_before(lanes, batch))
                first = self.engines[lanes.start]
                last = first.schedule.ends_batch(first.step)
                take = partial(self._program, lanes, batch, self.optimisers, last)
                replicas, size = batch.y.shape[:2]
                losses, passes = self.step_passes.take(self.stack.module, size if last else -size, take, replicas)
                self._record(self.losses, lanes, losses)
                self.feed.taken(lanes)
                for i, engine in enumerate(self.engines[lanes], lanes.start):
                    engine.record.passes.add(passes)
                    if engine.advance(size):
                        ended.append(i)
            if ended:
                self._end_block(sorted(ended))
        if self.engines:
            self.optimisers.sync()
        spent = time.perf_counter() - started - (sum(e.record.seconds["evaluate"] for e in engines) - evaluating)
        for engine in engines:
            engine.record.seconds["train"] += spent / len(engines)

    def _ready(self) -> list[slice]:
        """Return the lanes that step now: those furthest behind, counted in epochs, with the largest batch.

        Of these, the ones at the same place on their batch (`training.updates`) as the first.
        """
        waiting = [i for i, e in enumerate(self.engines) if not e.done]
        if not waiting:
            return []
        epochs = [self.engines[i].step // self.engines[i].schedule.steps_per_epoch for i in waiting]
        chosen = [i for i, epoch in zip(waiting, epochs, strict=True) if epoch == min(epochs)]
        size = sizes(self.engines, chosen)
        largest = max(size.values())
        chosen = [i for i in chosen if size[i] == largest]
        places = {i: self._on_batch(self.engines[i]) for i in chosen}
        return list(_runs([i for i in chosen if places[i] == places[chosen[0]]]))

    @staticmethod
    def _on_batch(engine: Engine) -> tuple[bool, bool]:
        """Return whether an engine's step is the first and the last one on its batch."""
        return engine.schedule.begins_batch(engine.step), engine.schedule.ends_batch(engine.step)

    def _score_before(self, lanes: slice, batch: Batch) -> Tensor:
        """Return the accuracy of `lanes` on their batches (n, B, ...) before any step was taken on them: (n,)."""
        engines = self.engines[lanes]
        if engines[0].schedule.begins_batch(engines[0].step):
            return before_learning(self.engines, self.stack, lanes, batch)
        return torch.stack([engine.online_scores[engine.step - 1] for engine in engines])

    def _program(
        self, lanes: slice, batch: Batch, optimisers: Separate | Together | None = None, last: bool = True
    ) -> Tensor:
        """Take one step of the contract in all `lanes`, as `Updater` does in one; a rehearsal may do without optimiser.

        Lanes that step together have batches of one size in one epoch, and are all at the first or the last step on
        them, or at neither.
        """
        stack = self.stack
        tensors = stack.part(lanes, trainable=True)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            result: tuple[Tensor, Aux] = stack.call("training_loss", tensors, lanes, batch)
        losses, aux = result
        names = stack.trainable
        grads: dict[str, Tensor | None] = {}
        state = stack.part(lanes)
        if names:
            total = with_gradient(self.engines[0].strategy, losses).sum()
            found = torch.autograd.grad(total, [tensors[n] for n in names], allow_unused=True)
            grads = dict(zip(names, found, strict=True))
        with torch.no_grad():
            aux = {name: value.detach() for name, value in aux.items()}
            if self.edits and names:
                given = {n: torch.zeros_like(tensors[n]) if g is None else g for n, g in grads.items()}
                grads = dict(stack.call("gradients", state, lanes, given, batch, aux))
            if self.clip_norm is not None and names:
                grads = _clipped(grads, self.clip_norm)
            if optimisers is not None:
                if names:  # fused optimisers walk parameter and gradient in memory order
                    optimisers.step(lanes, {n: None if g is None else g.contiguous() for n, g in grads.items()})
                optimisers.schedule(lanes)
            if self.follows:
                stack.call("after_step", state, lanes, batch, aux)
            if self.remembers and last:
                stack.call("remember", state, lanes, batch, aux)
            if self.recalls and optimisers is not None:
                optimisers.edit_moments(lanes, stack)
        return losses.detach()

    def _record(self, table: Tensor, lanes: slice, values: Tensor) -> None:
        """Write a value (n,) of each lane into its present step of `table` (S, steps)."""
        steps = [e.step for e in self.engines[lanes]]
        if len(set(steps)) == 1:
            table[lanes, steps[0]] = values.to(table.dtype)
        else:
            where = torch.tensor(steps, device=self.device)
            table[lanes].scatter_(1, where[:, None], values.to(table.dtype)[:, None])

    def _end_block(self, ended: list[int]) -> None:
        """Do what every replica does at the end of a block: losses, curve, early stopping, saving."""
        rows = self.losses[ended].cpu()
        sound: list[Engine] = []
        for i, row in zip(ended, rows, strict=True):
            engine = self.engines[i]
            try:
                engine.look(row[engine.block : engine.step])
                sound.append(engine)
            except Exception as error:
                self.failed.append((engine, error))
        due = [e for e in sound if e.measure_due]
        if due:
            measure(due, self.stack if len(due) == len(self.engines) else None, point=True)
        for engine in sound:
            engine.check_stopping()
        leaving = [i for i in ended if self.engines[i] not in sound or self.engines[i].stopped]
        if leaving or any(e.pause is not None for e in sound):
            self.optimisers.sync()
        for engine in sound:
            engine.offer_pause()
        if leaving:
            self._keep([i for i in range(len(self.engines)) if i not in leaving])

    def _keep(self, lanes: list[int]) -> None:
        """Go on with some lanes only."""
        self.engines = [self.engines[i] for i in lanes]
        if self.engines:
            self._stack()
            self._share(self.losses[lanes], self.online_scores[lanes])

    def _share(self, losses: Tensor, scores: Tensor) -> None:
        """Make the losses and online scores of the engines views into one tensor (S, steps) each."""
        self.losses, self.online_scores = losses, scores
        for i, engine in enumerate(self.engines):
            engine.losses = losses[i, : engine.schedule.steps]
            engine.online_scores = scores[i, : engine.schedule.steps]


def _runs(lanes: list[int]) -> Iterator[slice]:
    """Yield runs of neighbours."""
    first = 0
    for i in range(1, len(lanes) + 1):
        if i == len(lanes) or lanes[i] != lanes[i - 1] + 1:
            yield slice(lanes[first], lanes[i - 1] + 1)
            first = i


def _clipped(grads: dict[str, Tensor | None], limit: float) -> dict[str, Tensor | None]:
    """Scale each replica's gradient to a norm of at most `limit`, as `torch.nn.utils.clip_grad_norm_` does for one."""
    present = {name: g for name, g in grads.items() if g is not None}
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in present.values()])
    scale = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp_max(1.0)
    return grads | {name: g * scale.reshape(-1, *(1 for _ in g.shape[1:])) for name, g in present.items()}
