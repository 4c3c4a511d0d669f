"""A bar is shown to someone who waits at a terminal, and to nobody else."""

import io
import sys

import pytest

from orrery.cli import progress as module
from orrery.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, patience_s: float) -> str:
    monkeypatch.setattr(module, "PATIENCE_S", patience_s)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress("Weighing") as tell:
        for done in range(1, 4):
            tell(done, 3)
    return stream.getvalue()


def test_on_a_terminal_a_long_wait_shows_a_bar(monkeypatch):
    assert "Weighing" in shown(monkeypatch, Terminal(), 0.0)


def test_what_is_done_within_two_seconds_shows_nothing(monkeypatch):
    assert module.PATIENCE_S == 2.0
    assert shown(monkeypatch, Terminal(), 60.0) == ""


def test_a_pipe_sees_nothing(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), 0.0) == ""


def test_a_bar_is_taken_away_when_the_work_fails(monkeypatch):
    def fail() -> None:
        with progress("Weighing") as tell:
            tell(1, 2)
            raise ZeroDivisionError

    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ZeroDivisionError):
        fail()
    assert sys.stderr.getvalue().endswith("\x1b[2K")
