"""`orrery gate` from the command line to the files and the exit code."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from makers.gate_case import Case, clean_case

from orrery.cli import main as command_line
from orrery.evaluation.gate.ledger import Package

PACKAGES = (Package(name="orrery", version="0.1.0", licence="Apache-2.0"),)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setattr("orrery.evaluation.gate.evidence.installed_packages", lambda: PACKAGES)
    (tmp_path / "case").mkdir()
    return clean_case(tmp_path / "case", datetime.now(UTC))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit code of `orrery gate`."""
    monkeypatch.setattr("sys.argv", ["orrery", "gate", *map(str, arguments)])
    try:
        command_line.main()
    except SystemExit as left:
        return left.code
    return 0


def decide(monkeypatch: pytest.MonkeyPatch, case: Case, out: Path) -> int:
    key = case.folder.parent / "key.pem"
    if not key.exists():
        assert call(monkeypatch, "--new-key", key) == 0
    return call(monkeypatch, case.write(), "--out", out, "--key", key)


def test_a_clean_case_is_allowed_and_holds_for_the_public_key_until_a_byte_is_changed(
    case, monkeypatch, capsys, tmp_path
):
    assert decide(monkeypatch, case, tmp_path / "out") == 0
    assert "Decision: allow.\n" in capsys.readouterr().out
    verify = ("--verify", tmp_path / "out", "--public-key", tmp_path / "key.pub")
    assert call(monkeypatch, *verify) == 0
    said = capsys.readouterr().out
    assert "Signature: valid" in said
    assert "Decision: allow, expires" in said
    path = tmp_path / "out" / "decision.json"
    path.write_bytes(path.read_bytes().replace(b'"allow"', b'"alloW"'))
    assert call(monkeypatch, *verify) == 1
    assert "NOT valid" in capsys.readouterr().out


def test_a_refusal_prints_all_reasons_is_written_and_is_code_1(case, monkeypatch, capsys, tmp_path):
    case.bench["peak_memory_bytes"] = 2**40
    case.report["controls"] = []
    assert decide(monkeypatch, case, tmp_path / "out") == 1
    out, err = capsys.readouterr()
    reasons = json.loads((tmp_path / "out" / "decision.json").read_text())["reasons"]
    assert len(reasons) == 2
    assert all(f"- {reason}\n" in out for reason in reasons)
    assert err == ""
    assert call(monkeypatch, "--verify", tmp_path / "out", "--public-key", tmp_path / "key.pub") == 1
    assert "Signature: valid" in capsys.readouterr().out


def test_an_expired_decision_is_said_to_be_expired(case, monkeypatch, capsys, tmp_path):
    case.swap("policy", "decision_days = 30", "decision_days = 1e-9")
    assert decide(monkeypatch, case, tmp_path / "out") == 0
    assert call(monkeypatch, "--verify", tmp_path / "out", "--public-key", tmp_path / "key.pub") == 1
    out = capsys.readouterr().out
    assert "Signature: valid" in out
    assert "The decision expired at" in out


def test_reviews_hold_what_is_known_and_mark_what_is_not(case, monkeypatch, tmp_path):
    assert decide(monkeypatch, case, tmp_path / "out") == 0
    texts = {path.name: path.read_text() for path in (tmp_path / "out" / "review").iterdir()}
    assert set(texts) == {"licence.md", "security.md", "data_governance.md", "cost.md"}
    assert all("[to be filled in by " in text for text in texts.values())
    assert "| episodes | dataset | MIT | recorded by the test | keep the notice | A. Tester |" in texts["licence.md"]
    assert case.report["checkpoint"]["files"]["model.safetensors"] in texts["security.md"]
    assert "| episodes | MIT | recorded by the test | 1 | [to be filled in" in texts["data_governance.md"]
    assert "| machines needed | 1 |" in texts["cost.md"]  # 9000 calls an hour of 0.08 s: 720 s of 3600
    assert "| share of their time in calls | 20.0 % |" in texts["cost.md"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "got nothing"),
        (("GATE.toml",), "got policy"),
        (("GATE.toml", "--out", "o", "--key", "k", "--verify", "d"), "got key, out, policy, verify"),
        (("--verify", "d"), "got verify"),
        (("none.toml", "--out", "o", "--key", "k"), "none.toml cannot be read"),
        (("--verify", "none", "--public-key", "none.pub"), "none.pub cannot be read"),
    ],
)
def test_a_callers_mistake_is_one_line_and_code_2(monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_no_decision_is_overwritten(case, monkeypatch, capsys, tmp_path):
    assert decide(monkeypatch, case, tmp_path / "out") == 0
    before = (tmp_path / "out" / "decision.json").read_bytes()
    assert decide(monkeypatch, case, tmp_path / "out") == 2
    assert "no decision is overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / "decision.json").read_bytes() == before
