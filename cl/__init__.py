"""lethe: how a network forgets, why, and what stops it."""

__version__ = "0.1.0"
