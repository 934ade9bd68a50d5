"""The parts of a run from its configuration: stream, strategy around its learner, engine."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cl.build import Config, as_hinted, call, check_fields, construct, locate, tell_unused, warn_once
from cl.engine import Engine
from cl.errors import ConfigError, expect
from cl.evaluator import EvaluationOptions
from cl.hooks import check_hooks
from cl.learners.base import stream_facts
from cl.learners.causal import looks_ahead
from cl.measures.base import Measure
from cl.own import check_constructed, check_learner, check_stream, ours
from cl.seeding import seeded
from cl.settings import Settings
from cl.strategy import Strategy
from cl.streams.base import Stream
from cl.trackers.base import Tracker
from cl.training import TrainingOptions
from cl.update import Updater

# Of torch's own optimisers and schedulers, which check few of them or name none.
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("lr", "lr_decay", "weight_decay", "eps", "eta_min"), ("a number >= 0", lambda v: 0 <= v < math.inf)
    ),
    **dict.fromkeys(("momentum", "alpha"), ("in [0, 1)", lambda v: 0 <= v < 1)),
    **dict.fromkeys(("T_max", "T_0", "T_mult", "step_size"), ("> 0", lambda v: v > 0)),
    "gamma": ("a number > 0", lambda v: 0 < v < math.inf),
}
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
    if not ours(type(stream)):
        check_stream(stream)
    return stream


def build_strategy(config: Config, stream: Stream, device: torch.device) -> Strategy:
    """Build the learner and the strategy around it, initialised by the stream's seed, on the device."""
    info = stream.info
    target = locate(config["strategy"].get("_target_"), "strategy._target_")
    if not (isinstance(target, type) and issubclass(target, Strategy)):
        raise ConfigError(f"Expected `strategy._target_` a subclass of cl.strategy.Strategy, got {target!r}")
    check_hooks(target)
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
    if not ours(type(learner)):
        check_learner(learner, info)
    if stream.language and looks_ahead(learner, info):
        raise ConfigError(
            f"Expected `learner` whose outputs depend on no later step where the next character is asked for "
            f"(learner.bidirectional=false, learner.causal=true), got {reader.__name__}, which sees the answer"
        )
    with seeded(info.seed, "strategy"):
        strategy: Strategy = construct(config["strategy"], "strategy", learner=learner, info=info)
    if not ours(type(strategy)):
        check_constructed(strategy)
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
        tell_unused(kind, config[name], name)
        options[name] = kind(**config[name])
    if options["training"].patience is not None:
        expect(stream[0].validation is not None, "stream.validation", "> 0 when training.patience is given", 0)
    optimizer = construct(config["optimizer"], "optimizer")
    scheduler = construct(config["scheduler"], "scheduler") if config["scheduler"].get("_target_") else None
    _try(config, optimizer, scheduler, strategy.active.device)
    return Engine(
        strategy,
        stream,
        optimizer,
        options["training"],
        options["evaluation"],
        make_scheduler=scheduler,
        precision=config["precision"],
        trackers=trackers,
        measures=_measures(config.get("measures", {})),
        make_updater=make_updater,
    )


def _measures(config: Config) -> list[Measure]:
    found = construct(config, "measures")
    for name, measure in found.items():
        if not isinstance(measure, Measure):
            kind = type(measure).__name__
            raise ConfigError(f"Expected `measures.{name}._target_` a subclass of cl.measures.base.Measure, got {kind}")
    return list(found.values())


def _try(config: Config, optimizer: Any, scheduler: Any, device: torch.device) -> None:
    """Build optimiser and scheduler around a parameter that is thrown away, so that what is impossible shows at once.

    Raises:
        ConfigError: a number is out of range, or one of them is of another kind.
    """
    for group in ("optimizer", "scheduler"):
        if str(config[group].get("_target_")).startswith("torch.optim."):
            for field, value in config[group].items():
                rule, holds = RANGES.get(field, ("", None))
                if holds is not None and not isinstance(value, list):  # Adafactor's `eps` are two
                    number = isinstance(value, int | float)
                    expect(number and holds(value), f"{group}.{field}", rule, value)
    given = config["optimizer"]
    if given.get("dampening") and given.get("momentum") == 0:
        warn_once("optimizer.dampening has no effect with optimizer.momentum=0: it needs > 0")
    trial = call(optimizer, "optimizer", params=[torch.nn.Parameter(torch.zeros(1, device=device))])
    if not isinstance(trial, torch.optim.Optimizer):
        found = type(trial).__name__
        raise ConfigError(f"Expected `optimizer._target_` a subclass of torch.optim.Optimizer, got {found}")
    if scheduler is not None:
        schedule = call(scheduler, "scheduler", optimizer=trial)
        if not callable(getattr(schedule, "step", None)):
            found = type(schedule).__name__
            raise ConfigError(f"Expected `scheduler._target_` a scheduler of torch.optim.lr_scheduler, got {found}")
