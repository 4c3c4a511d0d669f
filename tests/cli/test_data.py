"""`orrery data` from the command line: what it prints and writes, and its exit codes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from orrery.cli import main as command_line
from orrery.data.lerobot_writer import Writer


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    with Writer(root, fps=10, robot_type="b", columns={"action": ("x_m",)}, cameras={}) as writer:
        for n in range(2):
            values = np.random.default_rng(n).standard_normal((20, 1)).astype(np.float32)
            writer.add(task="go", columns={"action": values}, frames={})
    return root


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path, command: str = "check") -> int:
    monkeypatch.setattr("sys.argv", ["orrery", "data", command, *map(str, arguments)])
    try:
        command_line.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_a_clean_dataset_is_code_0(monkeypatch, capsys, recorded):
    assert call(monkeypatch, recorded) == 0
    assert capsys.readouterr().out == "2 episodes, 40 frames: 0 errors, 0 warnings, 0 notes.\n"


def test_an_error_is_code_1_and_json_names_it(monkeypatch, capsys, recorded, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(recorded, tmp_path / name)
    assert call(monkeypatch, recorded, "--json", "--against", tmp_path / "one", "--against", tmp_path / "two") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["frames"]) == (2, 40)
    assert [(f["severity"], f["check"], f["where"]) for f in found["findings"]] == [
        ("error", "leak", "episodes 0, 1")
    ] * 2


def test_a_warning_is_code_0(monkeypatch, capsys, recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "dataset")
    info = tmp_path / "dataset/meta/info.json"
    info.write_text(info.read_text().replace('"total_frames": 40', '"total_frames": 41'))
    assert call(monkeypatch, tmp_path / "dataset") == 0
    assert capsys.readouterr().out.startswith("warning: dataset: info.json says total_frames 41")


@pytest.mark.parametrize("arguments", [["nowhere"], [], ["a", "b"]])
def test_no_dataset_is_code_2(monkeypatch, capsys, arguments: list[str]):
    assert call(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err != ""


def test_data_without_a_word_lists_its_commands(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["orrery", "data", "--help"])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "check" in out
    assert "show" in out


def test_show_writes_the_page_of_an_episode(monkeypatch, capsys, recorded, tmp_path):
    page = tmp_path / "page.html"
    assert call(monkeypatch, recorded, "--episode", "1", "--out", page, command="show") == 0
    assert capsys.readouterr().out == f"Wrote {page} (0.0 MB).\n"
    assert "<h1>Episode 1 " in page.read_text()


def test_show_names_the_page_by_the_episode(monkeypatch, recorded, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, recorded, "--episode", "0", command="show") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["episode-0.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--episode", "2"], "no episode 2"), (["--episode", "-1"], "no episode -1"), ([], "--episode")],
)
def test_show_refuses_an_episode_that_is_not_there(monkeypatch, capsys, recorded, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, recorded, *arguments, command="show") == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
