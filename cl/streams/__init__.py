"""Streams of tasks: source x construction x scenario."""
