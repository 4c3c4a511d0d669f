"""Staging, adopting and resuming. What a dataset looks like on disk and how it reads is in test_lerobot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makers.small_media import moving_block

from orrery.data import lerobot_writer
from orrery.data.lerobot import extra_path, open_dataset
from orrery.data.lerobot_writer import Layout, Writer, stage_episode
from orrery.errors import DatasetError

KILLS = 20
KILLER = Path(__file__).with_name("kill_recorder.py")
TOP, SIDE = "observation.images.top", "observation.images.side"
GIVEN = {
    "fps": 10,
    "robot_type": "block",
    "columns": {"action": ("x_m", "y_m"), "observation.state": ("x_m",)},
    "cameras": {TOP: (48, 64), SIDE: (32, 48)},
}


def episode(number: int) -> dict:
    rng = np.random.default_rng(number)
    length = 4 + number
    return {
        "task": ("push", "pull", "push", "turn")[number],
        "columns": {
            "observation.state": rng.standard_normal((length, 1)).astype(np.float32),
            "action": rng.standard_normal((length, 2)).astype(np.float32),
        },
        "frames": {TOP: moving_block(length, 48, 64, start=number), SIDE: moving_block(length, 32, 48)},
        "extras": {"sound.top.bin": lambda path: path.write_bytes(bytes([number]) * 99)},
    }


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes, added one after the other."""
    root = tmp_path_factory.mktemp("whole") / "dataset"
    with Writer(root, **GIVEN) as writer:
        assert [writer.add(**episode(n)) for n in range(4)] == [0, 1, 2, 3]
    return root


def stage(folder: Path, number: int, **changes) -> Path:
    layout = Layout(**{key: GIVEN[key] for key in ("fps", "columns", "cameras")} | changes.pop("layout", {}))
    stage_episode(folder, layout=layout, **(episode(number) | changes))
    return folder


@pytest.mark.parametrize("link", [True, False])
def test_episodes_staged_in_any_order_by_anyone_give_the_same_bytes(tmp_path, whole, monkeypatch, link: bool):
    if not link:  # as between two file systems

        def refuse(*_):
            raise OSError(lerobot_writer.errno.EXDEV, "another device")

        monkeypatch.setattr(os, "link", refuse)
    frames = {camera: (picture for picture in film) for camera, film in episode(2)["frames"].items()}
    for number in (3, 1, 2, 0):
        stage(tmp_path / f"{number}", number, **({"frames": frames} if number == 2 else {}))
    with Writer(tmp_path / "dataset", **GIVEN) as writer:
        for number in range(4):
            assert writer.adopt(tmp_path / f"{number}") == number
            assert not (tmp_path / f"{number}").exists()
    assert files(tmp_path / "dataset") == files(whole)


def test_a_staged_folder_does_not_depend_on_when_it_was_made(tmp_path):
    assert files(stage(tmp_path / "a", 1)) == files(stage(tmp_path / "b", 1))


def test_extras_lie_beside_the_data_and_read_back(whole):
    dataset = open_dataset(whole)
    assert dataset.problems == ()
    for number in range(len(dataset)):
        path = extra_path(whole, "sound.top", "bin", number)
        assert path == whole / f"extras/sound.top/chunk-000/file-00{number}.bin"
        assert path.read_bytes() == bytes([number]) * 99
    assert extra_path("d", "about", "json", 12_034) == Path("d/extras/about/chunk-012/file-034.json")


@pytest.mark.parametrize("stop", range(5))
def test_a_dataset_recorded_in_two_goes_is_the_same_bytes(tmp_path, whole, stop: int):
    first = Writer(tmp_path / "dataset", **GIVEN, resume=True)
    for number in range(stop):
        first.add(**episode(number))
    with Writer(tmp_path / "dataset", **GIVEN, resume=True) as second:
        assert len(second) == stop
        for number in range(stop, 4):
            second.add(**episode(number))
    assert files(tmp_path / "dataset") == files(whole)


def test_resuming_a_finished_dataset_changes_nothing_and_more_can_be_added(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "dataset")
    with Writer(tmp_path / "dataset", **GIVEN, resume=True):
        pass
    assert files(tmp_path / "dataset") == files(whole)
    with Writer(tmp_path / "dataset", **GIVEN, resume=True) as writer:
        assert writer.add(**episode(0)) == 4
    assert json.loads((tmp_path / "dataset/meta/stats.json").read_text())["action"]["count"] == [4 + 5 + 6 + 7 + 4]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fps": 15}, "fps 10, not 15"),
        ({"robot_type": "arm"}, "robot_type 'block', not 'arm'"),
        ({"columns": {"action": ("x_m", "y_mm"), "observation.state": ("x_m",)}}, r"action .*'y_m'.*not.*'y_mm'"),
        ({"columns": {"action": ("x_m", "y_m")}}, "observation.state"),
        ({"cameras": {TOP: (48, 64)}}, SIDE),
        ({"cameras": {TOP: (48, 64), SIDE: (32, 32)}}, rf"{SIDE} .*48.*not.*32"),
    ],
)
def test_a_dataset_of_another_layout_is_not_resumed(whole, changes: dict, reason: str):
    with pytest.raises(DatasetError, match=f"cannot be resumed; it has .*{reason}"):
        Writer(whole, **(GIVEN | changes), resume=True)


def test_what_this_recorder_did_not_leave_is_not_touched(tmp_path, whole):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"notes holds diary\.txt and no meta/info\.json"):
        Writer(tmp_path / "notes", **GIVEN, resume=True)
    for lost in ("meta/episodes/chunk-000/file-001.parquet", f"videos/{SIDE}/chunk-000/file-002.mp4",
                 "extras/shades/chunk-000/file-000.parquet", "data/chunk-000/file-003.parquet"):  # fmt: skip
        shutil.rmtree(tmp_path / "dataset", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "dataset")
        (tmp_path / "dataset" / lost).unlink()
        before = files(tmp_path / "dataset")
        with pytest.raises(DatasetError, match="cannot be resumed: "):
            Writer(tmp_path / "dataset", **GIVEN, resume=True)
        assert files(tmp_path / "dataset") == before


def test_a_staged_folder_that_does_not_fit_is_not_adopted(tmp_path):
    writer = Writer(tmp_path / "dataset", **GIVEN)
    with pytest.raises(DatasetError, match="holds no staged episode"):
        writer.adopt(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"was staged for .*12"):
        writer.adopt(stage(tmp_path / "other", 0, layout={"fps": 12}))
    assert len(writer) == 0
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frames": {TOP: moving_block(4, 48, 64), SIDE: iter(moving_block(3, 32, 48))}}, "same number of frames"),
        ({"frames": {TOP: moving_block(4, 48, 64), SIDE: iter(moving_block(4, 32, 32))}}, f"{SIDE}: .*frame 0 is"),
        ({"frames": {TOP: moving_block(4, 48, 64), SIDE: iter(())}}, f"{SIDE}: .*no frames"),
        ({"extras": {"sound": lambda path: None}}, "cannot be called 'sound'"),
        ({"extras": {"../sound.flac": lambda path: None}}, "cannot be called"),
        ({"extras": {"shades.parquet": lambda path: None}}, "cannot be called 'shades.parquet'"),
        ({"extras": {"sound.flac": lambda path: None}}, "sound.flac was not written"),
    ],
)
def test_what_cannot_be_staged_leaves_nothing(tmp_path, changes: dict, reason: str):
    with pytest.raises(DatasetError, match=reason):
        stage(tmp_path / "staged", 0, **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", [(str(KILLS), "0"), ("steps",)])
def test_a_recorder_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path, way: tuple[str, ...]):
    """For more: `python tests/data/kill_recorder.py FOLDER 100 1`."""
    done = subprocess.run([sys.executable, "-P", KILLER, tmp_path, *way], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] >= KILLS


def test_the_card_names_licence_and_origin(tmp_path):
    licence = ("OpenMDW-1.1", "https://openmdw.ai")
    columns = {"action": ("x_m",)}
    with Writer(
        tmp_path / "set", fps=10, robot_type="arm", columns=columns, cameras={}, licence=licence, note="Made up."
    ) as writer:
        writer.add(task="Go.", columns={"action": np.zeros((3, 1), np.float32)}, frames={})
    card = (tmp_path / "set" / "README.md").read_text()
    assert "license_name: openmdw-1.1\nlicense_link: https://openmdw.ai\n" in card.split("---")[1]
    assert "Made up." in card
    assert "Licence: OpenMDW-1.1, <https://openmdw.ai>." in card
