"""Accuracy on training batches before they are learned."""

import numpy as np

from cl.engine import Engine
from cl.evaluator import EvaluationOptions
from cl.strategy import Strategy
from cl.testing.tiny import TinyStream, engine


def watched(**options) -> Engine:
    made = engine(Strategy, TinyStream("class"), epochs=2)
    return Engine(
        made.strategy, made.stream, made.update.make_optimizer, made.options, EvaluationOptions(online=True), **options
    )


def test_online_accuracy_is_measured_before_the_step_and_changes_nothing():
    plain = engine(Strategy, TinyStream("class"), epochs=2)
    plain.run()
    made = watched()
    seen = []
    step = made.strategy.step

    def spy(batch, update):
        made.strategy.eval()
        seen.append(float((made.strategy.predict(batch.x).argmax(1) == batch.y).float().mean()))
        made.strategy.train()
        return step(batch, update)

    made.strategy.step = spy
    results = made.run()
    np.testing.assert_allclose(results.online_accuracy[0], seen)
    np.testing.assert_array_equal(results.accuracy, plain.results().accuracy)
    assert results.online_accuracy.shape == results.train_loss.shape


def test_online_accuracy_survives_a_resume():
    saved = []
    whole = watched(pause=lambda e: saved.append(e.state_dict()))
    expected = whole.run().online_accuracy
    for state in saved[:-1]:
        resumed = watched()
        resumed.load_state_dict(state)
        np.testing.assert_array_equal(resumed.run().online_accuracy, expected)
