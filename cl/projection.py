"""Gradients that do not disturb the past: reference gradients, projections onto half-spaces, cones and complements."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad

from cl.batch import Batch
from cl.transform import transformed

if TYPE_CHECKING:
    from cl.strategy import Strategy

Gradients = Mapping[str, Tensor]


def reference_gradients(strategy: "Strategy", grads: Gradients, batch: Batch, valid: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the mean loss of recalled samples, for the names in `grads`.

    Running statistics of the learner are used as in training, and left as they are.

    Args:
        strategy: its `logits` and `per_sample` give the loss.
        grads: gradients by full parameter name.
        batch: B recalled samples.
        valid: (B,) bool, the samples that count; where none does the gradients are zero.
    """
    values: dict[str, Tensor] = {n: p.detach() for n, p in strategy.named_parameters() if n in grads}
    statistics = {f"learner.{n}": b.clone() for n, b in strategy.learner.named_buffers()}

    def loss(values: dict[str, Tensor], statistics: dict[str, Tensor]) -> Tensor:
        logits = functional_call(strategy, (values, statistics), ("logits", batch.x, batch.task))
        return torch.where(valid, strategy.per_sample(logits, batch), 0.0).sum() / valid.sum().clamp_min(1)

    if torch.compiler.is_compiling() or transformed():
        return {n: g.detach() for n, g in grad(loss)(values, statistics).items()}
    # Outside of a transform products may use the quicker library (`cl.products`), and autograd is called sooner.
    with torch.enable_grad():
        leaves = {n: v.requires_grad_() for n, v in values.items()}
        found = torch.autograd.grad(loss(leaves, statistics), list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(values.items(), found, strict=True)}


def flatten(grads: Gradients, names: Iterable[str]) -> Tensor:
    """Return the gradients of `names`, one after another: (P,)."""
    return torch.cat([grads[name].flatten() for name in names])


def unflatten(flat: Tensor, grads: Gradients, names: Iterable[str]) -> dict[str, Tensor]:
    """Return `grads` with those of `names` replaced by what `flatten` made of them: (P,) cut and shaped."""
    out, start = dict(grads), 0
    for name in names:
        size = grads[name].numel()
        out[name] = flat[start : start + size].reshape(grads[name].shape)
        start += size
    return out


def half_space(grads: Gradients, reference: Gradients) -> dict[str, Tensor]:
    """Return the nearest gradients whose product with `reference` is not negative (Chaudhry et al. 2019, eq. 11)."""
    dot = torch.stack([(g * reference[n]).sum() for n, g in grads.items()]).sum()
    square = torch.stack([reference[n].square().sum() for n in grads]).sum()
    conflict = dot.clamp_max(0) / square.clamp_min(1e-30)
    return {n: g - conflict * reference[n] for n, g in grads.items()}


def cone(g: Tensor, references: Tensor, margin: float = 0.0, ridge: float | None = None) -> Tensor:
    """Return g plus a combination of references, by GEM's dual (Lopez-Paz and Ranzato 2017, eq. 11): (P,).

    min_v |references^T v + g|^2 / 2 with v >= margin. With margin 0 it is the nearest vector whose products with all
    references are not negative; a margin biases it toward the past.

    Args:
        g: (P,) gradient.
        references: (K, P) gradients of the earlier tasks.
        margin: lowest weight of each reference, >= 0.
        ridge: added to the matrix of products, which keeps it positive definite; None is 1e-9 of its trace.
    """
    import quadprog

    past = references.double()
    products = (past @ past.T).cpu().numpy()
    if ridge is None:
        ridge = 1e-9 * max(float(np.trace(products)), 1e-30)
    size = len(products)
    weights = quadprog.solve_qp(
        products + ridge * np.eye(size),
        -(past @ g.double()).cpu().numpy(),
        np.eye(size),
        np.full(size, margin),
    )[0]
    return g + (torch.as_tensor(weights, device=g.device) @ past).to(g.dtype)


def complement(g: Tensor, basis: Tensor) -> Tensor:
    """Return the part of g (P,) that is orthogonal to the orthonormal (or zero) rows of `basis` (M, P)."""
    return g - (basis @ g) @ basis


def orthonormal(vectors: Tensor, basis: Tensor) -> Tensor:
    """Return rows (N, P) that extend `basis` (M, P) to span `vectors` (N, P) too; a dependent vector gives a zero row.

    Modified Gram-Schmidt with one repetition, which keeps the rows orthogonal to rounding error (Giraud et al. 2005).
    """
    rows = torch.cat([basis, torch.zeros_like(vectors)])
    for i, vector in enumerate(vectors):
        known = rows[: len(basis) + i]
        rest = complement(complement(vector, known), known)
        size = rest.norm()
        independent = size > 1e-3 * vector.norm().clamp_min(1e-30)
        rows[len(basis) + i] = torch.where(independent, rest / size.clamp_min(1e-30), 0.0)
    return rows[len(basis) :]


def leading_directions(moments: Tensor, known: Tensor, threshold: float) -> Tensor:
    """Return the projection onto `known` and the fewest further directions that hold a share of the samples' energy.

    Args:
        moments: (D, D) float64, sum of x x^T over samples x.
        known: (D, D) projection onto the directions held already.
        threshold: share of the sum of squares to hold, in [0, 1] (Saha et al. 2021, eq. 9).

    Returns:
        (D, D) projection, of the dtype of `known`.
    """
    held = known.double()
    away = torch.eye(len(held), dtype=held.dtype, device=held.device) - held
    values, vectors = torch.linalg.eigh(away @ moments @ away)
    values, vectors, total = values.flip(0).clamp_min(0), vectors.flip(1), moments.trace()
    before = (total - values.sum()).clamp_min(0) + torch.cat([values.new_zeros(1), values.cumsum(0)[:-1]])
    chosen = vectors * ((before < threshold * total) & (values > 1e-10 * total))
    joined: Tensor = held + chosen @ chosen.T
    return joined.to(known.dtype)
