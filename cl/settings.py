"""What belongs to a run as a whole and to no group of the configuration."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from cl.build import check_type
from cl.errors import ConfigError, expect

GROUPS = ("stream", "learner", "strategy", "optimizer", "scheduler", "training", "evaluation", "measures", "tracker")
SEVERAL = ("measures", "tracker")  # groups of which a run takes a list of choices
READING = ("workers", "prefetch")  # of a source: how samples are read, which does not change them


@dataclass(frozen=True)
class CheckpointOptions:
    """When a run is saved between tasks; at the end of every task it always is.

    Attributes:
        minutes: minutes between two checkpoints, or None.
        steps: optimisation steps between two checkpoints, or None.
    """

    minutes: float | None = 5.0
    steps: int | None = None

    def __post_init__(self) -> None:
        expect(self.minutes is None or self.minutes > 0, "checkpoint.minutes", "> 0 or null", self.minutes)
        expect(self.steps is None or self.steps > 0, "checkpoint.steps", "> 0 or null", self.steps)


@dataclass(frozen=True)
class DataOptions:
    """Where data sets are.

    Attributes:
        root: folder with the data sets.
        download: True fetches what is missing.
    """

    root: str
    download: bool = True


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the fields stand, with comments, in conf/config.yaml."""

    seed: int
    replicas: int | list[int]
    device: str
    precision: Literal["fp32", "bf16"]
    threads: int | None
    deterministic: bool
    output: str
    name: str | None
    group: str | None
    tags: list[str]
    resume: Literal["never", "auto", "retry"]
    data: DataOptions
    checkpoint: CheckpointOptions

    def __post_init__(self) -> None:
        expect(self.threads is None or 0 < self.threads <= 1024, "threads", "in [1, 1024] or null", self.threads)
        count = self.replicas if isinstance(self.replicas, int) else len(set(self.replicas))
        expect(count > 0, "replicas", "> 0, or a list of seeds", self.replicas)
        if isinstance(self.replicas, list):
            expect(len(self.replicas) == count, "replicas", "a list of different seeds", self.replicas)
            expect(self.seed == 0, "seed", "0 beside a list of `replicas`, which are the seeds", self.seed)
        for field in ("name", "group"):
            value = getattr(self, field)
            plain = value is None or (value and os.sep not in value and not value.startswith("."))
            expect(bool(plain), field, "a plain folder name", value)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """Read the settings out of a resolved configuration.

        Raises:
            ConfigError: a value is of the wrong type or impossible.
        """
        values: dict[str, Any] = {}
        nested = {"data": DataOptions, "checkpoint": CheckpointOptions}
        for field in fields(cls):
            value = config[field.name]
            if field.name in nested:
                kind = nested[field.name]
                names = [inner.name for inner in fields(kind)]
                whole = isinstance(value, Mapping) and all(name in value for name in names)
                expect(whole and set(value) == set(names), field.name, f"a block with {names}", value)
                for inner in fields(kind):
                    check_type(value[inner.name], inner.type, f"{field.name}.{inner.name}")
                values[field.name] = kind(**value)
            else:
                check_type(value, field.type, field.name)
                values[field.name] = value
        return cls(**values)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the run's replicas: `seed`, `seed` + 1, ..., or the list given."""
        if isinstance(self.replicas, list):
            return list(self.replicas)
        return [self.seed + i for i in range(self.replicas)]


SETTINGS = tuple(field.name for field in fields(Settings))


def read_anyhow(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, or a part of one, without what says only how its sources read their samples."""
    nested = {k: v for k, v in config.items() if k in ("stream", "source") and isinstance(v, Mapping)}
    found = {**config, **{k: read_anyhow(v) for k, v in nested.items()}}
    if isinstance(source := found.get("source"), dict):
        found["source"] = {k: v for k, v in source.items() if k not in READING}
    return found


def recorded(folder: Path) -> dict[str, Any]:
    """Return the configuration that a run folder holds.

    Raises:
        ConfigError: there is none, or it is not whole.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"Expected `RUN` a run folder with a config.yaml, got {str(folder)!r}")
    try:
        config: dict[str, Any] = dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"Expected {file} to be a whole configuration, got {error}") from error
    lacking = [key for key in (*GROUPS, *SETTINGS, "choices") if key not in config]
    expect(not lacking, str(file), "a whole configuration", f"one without {lacking}")
    return config
