"""Many replicas trained as one program."""

from cl.population.population import Population

__all__ = ["Population"]
