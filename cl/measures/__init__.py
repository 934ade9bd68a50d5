"""Measures that need the network: taken between tasks, never inside the training loop.

The numbers go into `Results.measures`, each with what its axes mean, so that a run folder explains itself.
"""
