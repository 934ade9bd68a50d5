"""Streams of tasks: source x construction x scenario."""

from cl.streams.stream import TaskStream

__all__ = ["TaskStream"]
