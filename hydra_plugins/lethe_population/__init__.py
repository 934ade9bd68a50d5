"""Hydra launcher ``hydra/launcher=population``."""
