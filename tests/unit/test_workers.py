"""Worker processes, and telling how far they are."""

import io
import os
import sys
import time

import pytest

from cl.workers import Workers, counting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr("cl.workers.time.monotonic", lambda: now[0])
    return now


def double(number):
    time.sleep(0.3 * (number == 0))  # the first ends last
    return 2 * number


def test_one_worker_is_a_process_of_its_own():
    with Workers(1) as pool:
        (found,) = pool.map(lambda _: os.getpid(), [0])
        assert found != os.getpid()


def test_pieces_come_back_in_their_order():
    with Workers(2) as pool:
        assert list(pool.map(double, range(6))) == [0, 2, 4, 6, 8, 10]
        with pytest.raises(ZeroDivisionError):
            list(pool.map(lambda n: 1 / n, [1, 0]))


def test_no_piece_waits_in_a_process():
    """So that an interruption ends with the pieces at work."""
    handed_out = []
    with Workers(1) as pool:
        found = pool.map(double, (handed_out.append(i) or i for i in range(6)))
        assert next(found) == 0
        assert handed_out == [0, 1]


def test_lines_say_how_many_are_done_and_the_time_left(clock, capsys):
    with counting("run", 5) as tick:
        for seconds in (10, 10.4, 10.8, 12, 12.1):  # the second and the third come right after the first
            clock[0] = 100 + seconds
            tick()
    lines = ["run 1/5, 0:00:40 left", "run 4/5, 0:00:03 left", "run 5/5, 0:00:00 left"]
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("bar", [True, False])
def test_a_terminal_has_a_bar_unless_workers_print_there(bar, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with counting("setting", 2, bar=bar) as tick:
        tick()
        tick()
    text = terminal.getvalue()
    assert ("settings" in text) is bar
    assert ("setting 2/2, 0:00:00 left" in text) is not bar
