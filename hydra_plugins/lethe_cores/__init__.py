"""The launcher of sweeps on the cores of one machine."""
