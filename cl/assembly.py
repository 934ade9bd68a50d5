"""The parts of a run from its configuration: stream, strategy around its learner, engine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cl.build import Config, as_hinted, call, check_fields, construct, locate
from cl.engine import Engine
from cl.errors import ConfigError, expect
from cl.evaluator import EvaluationOptions
from cl.learners.base import stream_facts
from cl.learners.causal import looks_ahead
from cl.seeding import seeded
from cl.settings import Settings
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.trackers.base import Tracker
from cl.training import TrainingOptions
from cl.update import Updater

OPTIONS = {"training": TrainingOptions, "evaluation": EvaluationOptions}  # groups without `_target_`


def settled(config: Config) -> Config:
    """Return a configuration in which equal settings are equal values; see `cl.build.as_hinted`."""
    return {group: as_hinted(part, OPTIONS.get(group)) for group, part in config.items()}


def build_stream(config: Config, settings: Settings, device: torch.device) -> Stream:
    """Build the stream of a configuration."""
    root = str(Path(settings.data.root).expanduser())
    stream = construct(
        config["stream"], "stream", seed=settings.seed, root=root, download=settings.data.download, device=device
    )
    if not isinstance(stream, Stream):
        found = type(stream).__name__
        raise ConfigError(f"Expected `stream._target_` a subclass of cl.streams.base.Stream, got {found}")
    return stream


def build_strategy(config: Config, stream: Stream, device: torch.device) -> Strategy:
    """Build the learner and the strategy around it, initialised by the stream's seed, on the device."""
    info = stream.info
    target = locate(config["strategy"].get("_target_"), "strategy._target_")
    if not (isinstance(target, type) and issubclass(target, Strategy)):
        raise ConfigError(f"Expected `strategy._target_` a subclass of cl.strategy.Strategy, got {target!r}")
    reader = locate(config["learner"].get("_target_"), "learner._target_")
    facts = stream_facts(reader, info)
    for fact, here, what in (
        ("codes", info.codes is not None, "the stream answers in bits"),
        ("target", info.target == "steps", "every step has a label"),
        ("vocabulary", info.vocabulary > 0, "inputs are tokens"),
    ):
        if here and fact not in facts:
            raise ConfigError(
                f"Expected `learner` of sequences (its constructor takes `{fact}`) where {what}, got {reader.__name__}"
            )
    with seeded(info.seed, "learner"):
        learner = construct(config["learner"], "learner", **facts)
    if stream.language and looks_ahead(learner, info):
        raise ConfigError(
            f"Expected `learner` whose outputs depend on no later step where the next character is asked for "
            f"(learner.bidirectional=false, learner.causal=true), got {reader.__name__}, which sees the answer"
        )
    with seeded(info.seed, "strategy"):
        strategy: Strategy = construct(config["strategy"], "strategy", learner=learner, info=info)
    return strategy.to(device)


def build_engine(
    config: Config,
    stream: Stream,
    strategy: Strategy,
    trackers: Sequence[Tracker] = (),
    make_updater: Callable[..., Updater] = Updater,
) -> Engine:
    """Build the engine of a configuration around a strategy and its stream."""
    options: dict[str, Any] = {}
    for name, kind in OPTIONS.items():
        check_fields(kind, config[name], name)
        options[name] = kind(**config[name])
    if options["training"].patience is not None:
        expect(stream[0].validation is not None, "stream.validation", "> 0 when training.patience is given", 0)
    optimizer = construct(config["optimizer"], "optimizer")
    scheduler = construct(config["scheduler"], "scheduler") if config["scheduler"].get("_target_") else None
    # One trial on a parameter that is thrown away: an impossible number is found before any training.
    trial = call(optimizer, "optimizer", params=[torch.nn.Parameter(torch.zeros(1, device=strategy.active.device))])
    if scheduler is not None:
        call(scheduler, "scheduler", optimizer=trial)
    return Engine(
        strategy,
        stream,
        optimizer,
        options["training"],
        options["evaluation"],
        make_scheduler=scheduler,
        precision=config["precision"],
        trackers=trackers,
        measures=list(construct(config.get("measures", {}), "measures").values()),
        make_updater=make_updater,
    )
