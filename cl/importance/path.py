"""How much every parameter lowered the loss along the path that training took (Zenke et al. 2017)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cl.importance.quadratic import Quadratic
from cl.parameters import PerParameter, add_product


class PathIntegral(nn.Module):
    """-sum over steps of gradient x change, one number a parameter; the sum over parameters is the fall of the loss.

    Args:
        module: the module whose parameters are followed; names in `grads` begin with `prefix`.
        prefix: what comes before a parameter's name in the gradients that a strategy sees.
    """

    def __init__(self, module: nn.Module, prefix: str = "learner.") -> None:
        super().__init__()
        self.prefix = prefix
        self.gradient = PerParameter(module)
        self.before = PerParameter(module)
        self.total = PerParameter(module)

    @torch.no_grad()
    def begin_step(
        self, module: nn.Module, grads: Mapping[str, Tensor], penalty: Quadratic | None, strength: float | Tensor
    ) -> None:
        """Note the gradients of a step and the parameters before it.

        Args:
            module: as in the constructor.
            grads: gradients of the whole loss by full name; a parameter left out is not trained.
            penalty: the strategy's own penalty, whose gradient does not count: its pull is noted in `gradient` when
                the loss is computed (`Quadratic.penalty`). None counts the whole loss.
            strength: what it was multiplied by in the loss.
        """
        for name, parameter in module.named_parameters():
            self.before[name].copy_(parameter)
            g = grads.get(self.prefix + name)
            if g is None:
                self.gradient[name].zero_()
            elif penalty is None:
                self.gradient[name].copy_(g)
            else:
                penalty.take_off(self.gradient[name], name, g, strength)

    @torch.no_grad()
    def end_step(self, module: nn.Module) -> None:
        """Add the step from `before` to the present parameters."""
        for name, parameter in module.named_parameters():
            add_product(self.total[name], self.gradient[name], self.before[name].sub_(parameter))
