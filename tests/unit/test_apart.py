"""What happens in a process of its own comes home: values, errors and where they were raised."""

import multiprocessing
import os
import signal
import sys
import time
import traceback

import pytest

from cl.apart import apart, end_with_parent
from cl.errors import ConfigError, TrainingError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


class Stubborn(Exception):
    """Cannot be made again from what it holds."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raising(error):
    def a_function_of_the_user():
        raise error

    return a_function_of_the_user


def end_with_process_1():
    end_with_parent(1)
    time.sleep(60)


def test_a_worker_whose_starter_was_gone_before_it_began_ends():
    """It is the child of another process then, and would watch that one."""
    worker = multiprocessing.get_context("fork").Process(target=end_with_process_1)
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGTERM


def test_values_come_home():
    assert apart(lambda: {"accuracy": 0.5}) == {"accuracy": 0.5}
    assert apart(lambda: None) is None
    assert apart(os.getpid) != os.getpid()


@pytest.mark.parametrize("error", [ConfigError("Expected `lr` > 0, got -1"), KeyError("weight")])
def test_errors_come_home_with_the_place_where_they_were_raised(error):
    with pytest.raises(type(error)) as caught:
        apart(raising(error))
    assert str(caught.value) == str(error)
    assert "in a_function_of_the_user" in "".join(traceback.format_exception(caught.value))


def test_an_error_that_cannot_travel_is_told():
    with pytest.raises(RuntimeError, match="Stubborn: one and two") as caught:
        apart(raising(Stubborn("one", "two")))
    assert "in a_function_of_the_user" in "".join(traceback.format_exception(caught.value))


def test_a_killed_process_is_an_error_of_its_job():
    with pytest.raises(TrainingError, match="killed by SIGKILL; if memory ran out"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match="exit code 3"):
        apart(lambda: sys.exit(3))
