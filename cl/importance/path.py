"""How much every parameter lowered the loss along the path that training took (Zenke et al. 2017)."""

from collections.abc import Mapping

from torch import Tensor, nn

from cl.parameters import PerParameter


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

    def begin_step(self, module: nn.Module, grads: Mapping[str, Tensor], without: Mapping[str, Tensor]) -> None:
        """Note the gradients of a step and the parameters before it.

        Args:
            module: as in the constructor.
            grads: gradients of the whole loss by full name; a parameter left out is not trained.
            without: gradients, by the module's names, of the terms that do not count (the strategy's own penalty); 0
                for names left out.
        """
        for name, parameter in module.named_parameters():
            self.before[name].copy_(parameter)
            g = grads.get(self.prefix + name)
            if g is not None:
                self.gradient[name].copy_(g)
                if name in without:
                    self.gradient[name].sub_(without[name])

    def end_step(self, module: nn.Module) -> None:
        """Add the step from `before` to the present parameters."""
        for name, parameter in module.named_parameters():
            self.total[name].addcmul_(self.gradient[name], self.before[name] - parameter)
