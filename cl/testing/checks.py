"""Checks of the Strategy contract, one function a property, found by their name."""

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl import hooks
from cl.engine import Engine
from cl.errors import ConfigError
from cl.population import Population
from cl.population.memory import grown
from cl.strategy import SCENARIOS, Strategy
from cl.testing.tiny import TinyStream, engine, state, train
from cl.unsaved import attributes, lost

Check = Callable[[type[Strategy], dict[str, Any]], None]


def check_strategy(strategy: type[Strategy], **fields: Any) -> None:
    """Hold a strategy class to the whole contract.

    Args:
        strategy: the class; it is constructed as ``strategy(learner, info, **fields)``.
        fields: arguments of its constructor, suited to a small stream.

    Raises:
        AssertionError: a property does not hold; the message names the check and says what it asks for.
    """
    for check in checks():
        try:
            check(strategy, dict(fields))
        except Exception as error:
            asks = (check.__doc__ or "").split("\n")[0]
            why = error if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{strategy.__name__}: {check.__name__}: {asks} {why}") from error


def checks() -> Iterator[Check]:
    """Yield every check of this module, in the order they are written."""
    found = [f for n, f in globals().items() if n.startswith("check_") and n != "check_strategy"]
    yield from sorted(found, key=lambda f: f.__code__.co_firstlineno)


def protected(strategy: type[Strategy]) -> tuple[str, ...]:
    """Return the scenarios in which a strategy claims to forget less than fine-tuning."""
    claimed = strategy.scenarios if strategy.protects is True else strategy.protects or ()
    return tuple(s for s in ("task", "class", "domain", "online") if s in claimed)


def _scenario(strategy: type[Strategy]) -> str:
    return next(s for s in ("task", "class", "domain", "online") if s in strategy.scenarios)


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    different = [n for n in a if not torch.equal(a[n], b[n])]
    assert not different, f"different: {different}"


def check_facts(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """The class says which scenarios it supports, which data it sees, and takes (learner, info, ...)."""
    assert strategy.__doc__, "has no docstring"
    assert set(strategy.scenarios) <= set(SCENARIOS), strategy.scenarios
    assert strategy.scenarios, "supports no scenario"
    assert strategy.sees in ("current", "past", "all"), strategy.sees
    assert set(protected(strategy)) <= set(strategy.scenarios), strategy.protects
    assert list(inspect.signature(strategy).parameters)[:2] == ["learner", "info"], "arguments must begin so"
    assert not (strategy.needs_task_id and set(strategy.scenarios) - {"task"}), "task ids exist in `task` alone"
    hooks.check_hooks(strategy)
    reason = strategy.vectorizable
    assert reason is True or (isinstance(reason, str) and reason), "vectorizable is True or a reason"
    if _overrides_any(strategy, "begin_task", "end_task", "grow", "training_data"):
        assert "online" not in strategy.scenarios, "needs boundaries, which `online` does not have"
    if strategy.step is not Strategy.step:
        assert isinstance(reason, str), "overrides step, so vectorizable must be a reason"


def _refused(strategy: type[Strategy], scenario: str, fields: dict[str, Any], word: str) -> None:
    message = ""
    try:
        engine(partial(strategy, **fields), TinyStream(scenario))
    except ConfigError as error:
        message = str(error)
    assert message, f"accepted {word} in scenario {scenario!r} with {fields}"
    assert word in message, f"the error does not name {word!r}: {message}"


def _overrides_any(strategy: type[Strategy], *methods: str) -> bool:
    return any(getattr(strategy, m) is not getattr(Strategy, m) for m in methods)


def check_unsupported_scenario(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """A scenario it does not support is refused with a clear error before any training."""
    for scenario in set(SCENARIOS) - set(strategy.scenarios):
        _refused(strategy, scenario, fields, word=scenario)


def check_impossible_numbers(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """A number that is out of range is refused with an error that names the field."""
    for name, parameter in list(inspect.signature(strategy).parameters.items())[2:]:
        value = fields.get(name, parameter.default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            wrong = type(value)(-1e9)
            _refused(strategy, _scenario(strategy), fields | {name: wrong}, word=name)


def check_same_seed(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """Two runs with one seed in one process are identical, and torch's global generator is untouched."""
    for scenario in strategy.scenarios:
        before = torch.get_rng_state()
        one = train(partial(strategy, **fields), TinyStream(scenario), epochs=2)
        assert torch.equal(before, torch.get_rng_state()), "global generator was used"
        torch.rand(3)
        two = train(partial(strategy, **fields), TinyStream(scenario), epochs=2)
        _same(state(one.strategy), state(two.strategy))
        np.testing.assert_array_equal(one.record.accuracy, two.record.accuracy)
        np.testing.assert_array_equal(one.results().train_loss, two.results().train_loss)


class _Cut(Exception):
    """Ends a run at a chosen place, as a kill would."""


def check_resume(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """Cut anywhere and resumed from a file in a fresh engine, a run ends exactly as the uninterrupted one."""
    stream = TinyStream(_scenario(strategy))
    whole = train(partial(strategy, **fields), stream, epochs=2)
    files: list[bytes] = []

    def save(running: Engine) -> None:
        file = io.BytesIO()
        torch.save(running.state_dict(), file)
        files.append(file.getvalue())

    train(partial(strategy, **fields), stream, epochs=2, pause=save)
    for saved in files:
        resumed = engine(partial(strategy, **fields), stream, epochs=2)
        resumed.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))
        at = f"resumed at task {resumed.task}, step {resumed.step}"
        resumed.run()
        try:
            _same(state(whole.strategy), state(resumed.strategy))
            np.testing.assert_array_equal(whole.record.accuracy, resumed.record.accuracy)
            np.testing.assert_array_equal(whole.results().train_loss, resumed.results().train_loss)
        except AssertionError as error:
            raise AssertionError(f"{at}: {error}") from error


def check_unsaved(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """What changes in a run is in parameters and buffers, or is set anew (`Strategy.rebuilt`)."""
    running = engine(partial(strategy, **fields), TinyStream(_scenario(strategy)), epochs=1)
    before = attributes(running.strategy)
    running.run()
    assert not lost(running.strategy, before), lost(running.strategy, before)


def check_population(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """Every replica of a population (own seed, own numbers, own length) ends as the run alone with that seed.

    In double precision, where rounding cannot hide a difference: a stacked product adds in another order, and what Adam
    makes of gradients near zero magnifies that in single precision.
    """
    with _double_precision():
        for scenario in strategy.scenarios:
            _compare_population(strategy, fields, scenario)


@contextlib.contextmanager
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _compare_population(strategy: type[Strategy], fields: dict[str, Any], scenario: str) -> None:
    def replicas() -> list[Engine]:
        streams = [TinyStream(scenario, seed, samples=40 + 5 * (seed % 2)) for seed in range(3)]
        return [
            engine(strategy, stream, epochs=3, **_varied(strategy, stream, fields, 1 - stream.info.seed / 8))
            for stream in streams
        ]

    alone, together = replicas(), Population(replicas(), always=True)
    for one in alone:
        one.run()
    results = together.run()
    slow = [n for n in together.notes if "replica by replica" in n or "different attributes" in n]
    assert strategy.vectorizable is not True or not slow, f"in {scenario}: {slow}"
    for one, other, measured in zip(alone, together.engines, results, strict=True):
        _close(state(one.strategy), state(other.strategy))
        np.testing.assert_allclose(measured.accuracy, one.results().accuracy, atol=0.051, rtol=0)
        np.testing.assert_allclose(measured.train_loss, one.results().train_loss, atol=1e-3, rtol=1e-3)


def _varied(strategy: type[Strategy], stream: TinyStream, fields: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return `fields` with those floats scaled that may be; the others (a probability of 1, ...) as they are."""
    varied = dict(fields)
    for name, value in fields.items():
        if isinstance(value, float):
            try:
                engine(strategy, stream, **varied | {name: value * factor})
            except ConfigError:
                continue
            varied[name] = value * factor
    return varied


def _close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Ask for floats within 1e-5 of a tensor's largest entry, and for integers and masks to be equal."""
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    for name, one in a.items():
        two = b[name]
        if one.is_floating_point() and one.numel():
            far = float((one - two).abs().max() / one.abs().max().clamp_min(1e-3))
            assert far < 1e-5, f"{name} differs by {far:.1e} of its largest entry"
        else:
            assert torch.equal(one, two), f"{name} differs"


def check_neutral(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """With its neutral settings it is exactly fine-tuning."""
    if strategy.neutral is None:
        return
    for scenario in strategy.scenarios:
        plain = train(Strategy, TinyStream(scenario), epochs=2)
        neutral = train(partial(strategy, **{**fields, **strategy.neutral}), TinyStream(scenario), epochs=2)
        np.testing.assert_array_equal(plain.record.accuracy, neutral.record.accuracy)
        _same(state(plain.strategy.learner), state(neutral.strategy.learner))


def check_task_ids(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """Where the task is not told at test time, the ids inside batches change nothing."""
    for scenario in set(strategy.scenarios) - {"task"}:
        told = train(partial(strategy, **fields), TinyStream(scenario), epochs=2)
        hidden = train(partial(strategy, **fields), TinyStream(scenario, hide_tasks=True), epochs=2)
        np.testing.assert_array_equal(told.record.accuracy, hidden.record.accuracy)


def check_bytes(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """The bytes it says it stores are the bytes its checkpoint holds beyond the learner, and it grows as foretold."""
    stream = TinyStream(_scenario(strategy))
    foretold = grown(engine(partial(strategy, **fields), stream, epochs=1))
    trained = train(partial(strategy, **fields), stream, epochs=1).strategy
    assert sum(t.numel() * t.element_size() for t in (*trained.parameters(), *trained.buffers())) <= foretold
    learner = {t.data_ptr() for t in trained.learner.state_dict().values() if t.numel()}
    saved = {n: t for n, t in trained.state_dict().items() if n.rpartition(".")[2] not in FACTS}
    kept = {t.data_ptr(): t.numel() * t.element_size() for t in saved.values()}
    expected = sum(size for pointer, size in kept.items() if pointer not in learner)
    assert sum(trained.stored_bytes().values()) == expected, (trained.stored_bytes(), expected)


FACTS = ("active", "tasks_seen")


def check_learns(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """It learns the task at hand: clearly better than before it (before any, if it sees all), in every scenario."""
    for scenario in strategy.scenarios:
        accuracy = train(partial(strategy, **fields), TinyStream(scenario), epochs=20).record.accuracy
        before = accuracy[0] if strategy.sees == "all" else np.diagonal(accuracy[:-1])
        gain = np.diagonal(accuracy[1:]).mean() - before.mean()
        assert gain > 0.25, f"in {scenario}: accuracy matrix {accuracy.round(2).tolist()}"


def check_protects(strategy: type[Strategy], fields: dict[str, Any]) -> None:
    """If it claims protection, it forgets less than fine-tuning, on the mean of three seeds."""
    claimed = protected(strategy)
    if not claimed:
        return
    scenario = claimed[0]
    drops = {"plain": 0.0, "own": 0.0}
    for seed in range(3):
        for name, make, options in (("plain", Strategy, {}), ("own", strategy, fields)):
            accuracy = train(make, TinyStream(scenario, seed), epochs=20, **options).record.accuracy[1:]
            drops[name] += float((np.diagonal(accuracy) - accuracy[-1])[:-1].mean()) / 3
    assert drops["own"] < drops["plain"], f"drop {drops['own']:.3f} against {drops['plain']:.3f} in {scenario}"
