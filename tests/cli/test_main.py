"""The command line's manners: exit codes, and one line on stderr for a caller's mistake."""

import importlib.metadata
from dataclasses import dataclass

import pytest

from orrery.cli import main as command_line
from orrery.errors import RequestError


def run_with(monkeypatch, raised: BaseException | None, arguments: list[str]) -> None:
    """Call `main` with a subcommand "fail" that raises `raised`."""

    @dataclass(frozen=True)
    class Fail:
        """Fail as told."""

        def __call__(self) -> None:
            if raised is not None:
                raise raised

    monkeypatch.setitem(command_line.COMMANDS, "fail", Fail)
    monkeypatch.setattr("sys.argv", ["orrery", *arguments])
    command_line.main()


def test_a_callers_mistake_is_one_line_on_stderr_and_code_2(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        run_with(monkeypatch, RequestError("No file\n  x.png.\nGive another."), ["fail"])
    out, err = capsys.readouterr()
    assert (left.value.code, out, err) == (2, "", "orrery: No file x.png. Give another.\n")


def test_an_interrupt_is_code_130_without_a_traceback(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        run_with(monkeypatch, KeyboardInterrupt(), ["fail"])
    assert (left.value.code, capsys.readouterr().err) == (130, "")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, ZeroDivisionError(), ["fail"])


def test_success_returns(monkeypatch):
    assert run_with(monkeypatch, None, ["fail"]) is None


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["run"], ["run", "r.json", "--model", "m"], ["inspect", "a", "b"]]
)
def test_a_command_line_that_does_not_fit_is_code_2(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as left:
        run_with(monkeypatch, None, arguments)
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert out == ""
    assert err != ""


def test_help_lists_every_command_and_version_prints_the_version(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        run_with(monkeypatch, None, ["--help"])
    assert left.value.code == 0
    assert set(command_line.COMMANDS) <= set(capsys.readouterr().out.split())
    run_with(monkeypatch, None, ["--version"])
    assert capsys.readouterr().out == f"orrery {importlib.metadata.version('orrery')}\n"
