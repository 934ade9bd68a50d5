"""Signals that end a run: the first one asks, the second one does not wait."""

import os
import pickle
import signal

import pytest

from cl.signals import Interrupted, listening


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once(number):
    before = signal.getsignal(number)
    with listening() as request:
        os.kill(os.getpid(), number)
        assert request.number == number
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


def test_interrupted_comes_home_from_a_worker():
    found = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert (found.number, str(found)) == (signal.SIGTERM, "ended by SIGTERM")
