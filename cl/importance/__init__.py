"""Importance of parameters: estimates of it, and penalties that use it."""

from cl.importance.estimators import FISHERS, NORMS, fisher, output_sensitivity
from cl.importance.path import PathIntegral
from cl.importance.quadratic import Quadratic

__all__ = ["FISHERS", "NORMS", "PathIntegral", "Quadratic", "fisher", "output_sensitivity"]
