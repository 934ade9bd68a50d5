"""Forgetting over distance: how long a network that reads a sequence keeps what it read."""
