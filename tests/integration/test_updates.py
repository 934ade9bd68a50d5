"""Several steps on every batch (`training.updates`): what a step sees, what memories take in, resume, populations."""

import numpy as np
import pytest
import torch

from cl.engine import Engine
from cl.errors import ConfigError
from cl.evaluator import EvaluationOptions
from cl.learners.mlp import MLP
from cl.population import Population
from cl.seeding import seeded
from cl.streams.sequences import Adding, GeneratedStream
from cl.testing import TinyStream
from cl.testing.tiny import state
from cl.training import TrainingOptions
from strategies.agem import AGEM
from strategies.der import DER
from strategies.er import ER
from strategies.gss import GSS
from strategies.hat import HAT
from strategies.lamaml import LaMAML
from strategies.mer import MER
from strategies.naive import Naive

MEMORIES = [ER, DER, AGEM, GSS, MER, LaMAML]


def made(kind=ER, seed=0, stream=None, updates=3, every=None, pause=None, **training) -> Engine:
    stream = stream or TinyStream("class", seed, samples=40 + 5 * (seed % 2))
    with seeded(seed, "learner"):
        learner = MLP(stream.info.input_shape, stream.info.n_classes, hidden=(16,))
    with seeded(seed, "strategy"):
        strategy = kind(learner, stream.info)
    options = TrainingOptions(**{"epochs": 2, "batch_size": 16, "updates": updates} | training)
    evaluation = EvaluationOptions(every=every, online=True)
    return Engine(strategy, stream, lambda p: torch.optim.SGD(p, lr=0.05), options, evaluation, pause=pause)


def seen(engine):
    """The batches that the steps of the first task saw, and whether each was the last on its batch."""
    batches, step = [], engine.strategy.step

    def spy(batch, update):
        batches.append((batch, update.last))
        return step(batch, update)

    engine.strategy.step = spy
    engine.run()
    return batches


def test_every_batch_is_seen_by_as_many_steps_with_keys_of_their_own():
    batches, once = seen(made(Naive)), [b for b, _ in seen(made(Naive, updates=1))]
    assert len(batches) == 3 * len(once)
    for i, (batch, last) in enumerate(batches):
        assert batch.x.equal(once[i // 3].x)
        assert batch.y.equal(once[i // 3].y)
        assert last == (i % 3 == 2)
    first_task = [int(b.key) for b, _ in batches[: len(batches) // 3]]
    assert len(set(first_task)) == len(first_task)


def test_it_is_gradient_descent_on_the_same_batch():
    """Against a loop in plain torch over the batches that a run with one update sees."""
    engine = made(Naive, stream=TinyStream("domain", tasks=1))
    with seeded(0, "learner"):
        net = MLP((1, 4, 4), engine.stream.info.n_classes, hidden=(16,))
    for batch, _ in seen(made(Naive, stream=TinyStream("domain", tasks=1), updates=1)):
        for _ in range(3):
            net.zero_grad()
            torch.nn.functional.cross_entropy(net(batch.x), batch.y).backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.05 * p.grad
    engine.run()
    for name, p in net.named_parameters():
        torch.testing.assert_close(engine.strategy.learner.get_parameter(name), p)


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_memory_takes_every_sample_in_once(kind):
    engine = made(kind, epochs=1, stream=TinyStream("class", tasks=2, samples=40))
    taken = []
    write = engine.strategy.memory.write

    def spy(slots, keep, values):
        taken.extend(values["x"].flatten(1).tolist())
        write(slots, keep, values)

    engine.strategy.memory.write = spy
    engine.run()
    assert len(taken) == len({tuple(x) for x in taken}) == 160


def test_hat_anneals_over_the_batches_of_an_epoch():
    """Equation 3, s = 1 / s_max + (s_max - 1 / s_max) (b - 1) / (B - 1), whatever the steps on a batch."""
    engine = made(HAT, stream=TinyStream("task", tasks=1))  # 2 epochs of 5 batches, 3 steps on each
    slopes, edit = [], engine.strategy.gradients

    def spy(grads, batch, aux):
        slopes.append(float(aux["s"]))
        return edit(grads, batch, aux)

    engine.strategy.gradients = spy
    engine.run()
    expected = np.tile(np.repeat(1 / 400 + (400 - 1 / 400) * np.arange(5) / 4, 3), 2)
    np.testing.assert_allclose(slopes, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [ER, GSS, MER])
def test_a_run_cut_between_two_steps_on_a_batch_goes_on(kind):
    saved = []
    whole = made(kind, every=1, pause=lambda e: saved.append(e.state_dict()))
    expected = whole.run()
    middle = [s for s in saved if s["step"] % 3 != 0]
    assert len(middle) > 10
    for cut in middle[:: len(middle) // 6]:
        resumed = made(kind, every=1)
        resumed.load_state_dict(cut)
        found = resumed.run()
        np.testing.assert_array_equal(found.train_loss, expected.train_loss)
        np.testing.assert_array_equal(found.online_accuracy, expected.online_accuracy)
        assert found.costs["passes_forward"] == expected.costs["passes_forward"]
        assert all(t.equal(state(whole.strategy)[n]) for n, t in state(resumed.strategy).items())


@pytest.mark.parametrize("kind", [ER, DER, GSS])
def test_a_population_is_the_runs_alone(kind):
    population = Population([made(kind, seed) for seed in range(3)], always=True)
    together = population.run()
    assert not population.notes
    for seed, (replica, results) in enumerate(zip(population.engines, together, strict=True)):
        one = made(kind, seed)
        alone = one.run()
        np.testing.assert_allclose(results.train_loss, alone.train_loss, atol=1e-4)
        np.testing.assert_allclose(results.online_accuracy, alone.online_accuracy, atol=1e-6)
        assert results.costs["passes_forward"] == alone.costs["passes_forward"]
        for name, t in state(one.strategy).items():
            torch.testing.assert_close(state(replica.strategy)[name], t, rtol=1e-4, atol=1e-5)


def test_replicas_at_different_steps_on_their_batches_do_not_step_together():
    """With 3 steps a task and 2 on each batch, streams of one and of two batches are apart after the first."""

    def engines():
        streams = [TinyStream("class", seed=s, samples=n) for s, n in enumerate([5, 13, 5, 13])]
        return [made(ER, s, stream, updates=2, epochs=None, steps=3) for s, stream in enumerate(streams)]

    alone = engines()
    for engine in alone:
        engine.run()
    population = Population(engines(), always=True)
    population.run()
    for one, replica in zip(alone, population.engines, strict=True):
        for name, t in state(one.strategy).items():
            torch.testing.assert_close(state(replica.strategy)[name], t, rtol=1e-4, atol=1e-5)


def test_online_accuracy_is_that_before_the_first_step_on_a_batch():
    scores = made(Naive).run().online_accuracy[0].reshape(-1, 3)
    assert (scores == scores[:, :1]).all()
    assert len(set(scores[:, 0])) > 2


def test_an_endless_stream_draws_a_batch_for_all_its_steps():
    stream = GeneratedStream([Adding(11)], samples=32, test_samples=8, endless=True)
    batches = [b for b, _ in seen(made(Naive, stream=stream, epochs=1))]
    assert batches[0].x.equal(batches[2].x)
    assert not batches[2].x.equal(batches[3].x)


def test_steps_that_are_no_multiple_end_with_a_whole_memory():
    engine = made(ER, epochs=None, steps=7, stream=TinyStream("class", tasks=1, samples=40))
    lasts = [last for _, last in seen(engine)]
    assert lasts == [False, False, True, False, False, True, True]
    assert int(engine.strategy.memory.filled.sum()) == 48  # three batches of 16


def test_updates_are_checked():
    with pytest.raises(ConfigError, match=r"training\.updates"):
        TrainingOptions(updates=0)
