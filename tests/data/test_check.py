"""Every check sees the one fault that is planted for it, and a clean dataset has none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.small_media import moving_block

from orrery.data.check import Finding, Report, check_dataset, correlations
from orrery.data.lerobot_writer import Writer, write_json
from orrery.data.write_media import write_video
from orrery.errors import DatasetError

FPS, ROWS, CAMERA = 10, 80, "observation.images.top"
STATE = ("x_m", "y_m", "angle_rad", "aperture")
ACTION = ("dx_m", "dy_m", "dangle_rad", "gripper")
Rows = dict[str, np.ndarray]


def rows(number: int) -> Rows:
    """A hand that does as it is told: row t + 1 shows what the action of row t did."""
    rng, turn = np.random.default_rng(number), np.arange(ROWS)[:, None] / (3 + np.arange(4)) + number
    action, state = rng.normal(0.02 * np.sin(turn), 0.01), np.zeros((ROWS, 4))
    action[:, 3] = (np.arange(ROWS) // 13 + number) % 2
    state[0] = rng.uniform(0.2, 0.4, 4)
    for t in range(ROWS - 1):
        action[t, :3] += 0.1 * (0.3 - state[t, :3])  # it stays near the middle
        state[t + 1, :3] = state[t, :3] + action[t, :3]
        state[t + 1, 3] = state[t, 3] + np.clip(action[t, 3] - state[t, 3], -0.3, 0.3)
    return {"observation.state": state.astype(np.float32), "action": action.astype(np.float32)}


def record(
    root: Path, change: Callable[[int, Rows], object] = lambda number, rows: None, *, first: int = 0, seeds: bool = True
) -> Path:
    """Four episodes numbered from `first` on, each changed as told before it is written."""
    columns, cameras = {"observation.state": STATE, "action": ACTION}, {CAMERA: (16, 16)}
    with Writer(root, fps=FPS, robot_type="hand", columns=columns, cameras=cameras) as writer:
        for number in range(4):
            values = rows(first + number)
            change(number, values)
            about = {"seed": first + number} if seeds else {}
            writer.add(
                task="move about",
                columns=values,
                frames={CAMERA: moving_block(ROWS, 16, 16, start=first + number)},
                extras={"about.json": lambda path, about=about: write_json(path, about)},
            )
    return root


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clean") / "dataset")


@pytest.fixture
def copied(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "dataset")
    return tmp_path / "dataset"


def only(root: Path, check: str, *, against: tuple[Path, ...] = ()) -> Finding:
    report = check_dataset(root, against=against)
    (finding,) = report.findings
    assert finding.check == check, report.to_text()
    assert "\n" not in finding.to_text()
    return finding


def edit_rows(root: Path, number: int, **changes: Callable[[np.ndarray], object]) -> None:
    """Rewrite columns of one stored episode."""
    path = root / f"data/chunk-000/file-00{number}.parquet"
    table = pq.read_table(path)
    for name, change in changes.items():
        at = table.column_names.index(name)
        values = np.array(table[name].to_pylist())
        change(values)
        table = table.set_column(at, name, pa.array(values.tolist(), table[name].type))
    pq.write_table(table, path)


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def set_item(at, value) -> Callable[[np.ndarray], object]:
    return lambda array: array.__setitem__(at, value)


def test_a_clean_dataset_has_no_findings(clean):
    done = []
    report = check_dataset(clean, tell=lambda k, n: done.append((k, n)))
    assert report.findings == (), report.to_text()
    assert (report.episodes, report.frames, done[-1]) == (4, 4 * ROWS, (4, 4))
    assert report.to_text() == "4 episodes, 320 frames: 0 errors, 0 warnings, 0 notes."


def test_timestamps_that_do_not_rise(copied):
    edit_rows(copied, 2, timestamp=set_item(9, 0.8))
    finding = only(copied, "rows")
    assert finding.severity == "error"
    assert finding.where == "episode 2"
    assert "do not rise at row 9" in finding.what


def test_timestamps_that_drift(copied):
    edit_rows(copied, 1, timestamp=lambda times: times.__imul__(1.011))
    finding = only(copied, "timestamps")
    assert finding.where == "episode 1"
    assert re.search(r"from frame 23 on, 57 of 80 .* by 0\.0869 s", finding.what)


@pytest.mark.parametrize(
    ("frames", "fps", "severity", "words"),
    [
        (ROWS - 3, FPS, "error", "holds 77 frames for 80 rows"),
        (ROWS + 2, FPS, "warning", "holds 82 frames, 2 more"),
        (ROWS, 12, "error", "runs at 12 frames a second, the dataset at 10"),
    ],
)
def test_a_video_that_does_not_match_the_rows(copied, frames: int, fps: int, severity: str, words: str):
    write_video(copied / f"videos/{CAMERA}/chunk-000/file-003.mp4", moving_block(frames, 16, 16), fps)
    finding = only(copied, "video")
    assert (finding.severity, finding.where) == (severity, f"episode 3, {CAMERA}")
    assert words in finding.what


def test_a_video_that_is_none_and_one_that_is_missing(copied):
    (copied / f"videos/{CAMERA}/chunk-000/file-003.mp4").write_bytes(b"not a film")
    assert "not a video" in only(copied, "video").what
    (copied / f"videos/{CAMERA}/chunk-000/file-003.mp4").unlink()
    assert "has no video file" in only(copied, "layout").what


def test_a_frame_that_lies_elsewhere_than_the_index_says(copied):
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    row = pq.read_table(path).to_pylist()[0] | {f"videos/{CAMERA}/from_timestamp": 0.35}
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert "frame 0 of" in only(copied, "video").what or "no frame within" in only(copied, "video").what


def test_nan_is_found_in_one_column_and_the_others_are_still_checked(copied):
    edit_rows(copied, 0, action=set_item((5, 1), np.nan))
    finding = only(copied, "values")
    assert (finding.severity, finding.where) == ("error", "episode 0, action")
    assert "NaN or infinity at frame 5" in finding.what


@pytest.mark.parametrize("factor", [1000.0, 180 / np.pi, 100.0, 25.4, 1 / 1000])
def test_another_unit_in_some_episodes(tmp_path, factor: float):
    def scale(number: int, values: Rows) -> None:
        if number in (1, 3):
            values["observation.state"][:, 2] *= factor
            values["action"][:, 2] *= factor

    finding = only(record(tmp_path / "d", scale), "units")
    assert "observation.state angle_rad, action dangle_rad" in finding.where
    assert f"near the {max(factor, 1 / factor):.4g} between" in finding.what


def test_one_value_far_off(tmp_path):
    def spike(number: int, values: Rows) -> None:
        if number == 2:
            values["observation.state"][40, 1] += 30

    finding = only(record(tmp_path / "d", spike), "jumps")
    assert finding.where == "episode 2, observation.state y_m"
    assert "from frame 39 to 40" in finding.what
    assert "2 such in all" in finding.what


def test_an_angle_that_wraps(tmp_path):
    def wrap(number: int, values: Rows) -> None:
        if number == 0:
            slow = np.linspace(3.0, 3.3, ROWS) + 0.001 * np.random.default_rng(0).standard_normal(ROWS)
            values["observation.state"][:, 2] = (slow + np.pi) % (2 * np.pi) - np.pi

    finding = next(f for f in check_dataset(record(tmp_path / "d", wrap)).findings if f.check == "jumps")
    assert "whole turn of 2 pi" in finding.what
    assert finding.step == "Unwrap the angle."


def test_a_vector_written_down_the_rows_of_a_column_of_single_values(tmp_path):
    values = np.full((ROWS, 1), 0.3, np.float32)
    values[:7, 0] = (0.1, -0.4, 0.4, 0.2, 0.1, 0.2, 0.3)
    for columns in ({"joints": ("q",)}, {"joints": ("q", "r")}):
        root, width = tmp_path / str(len(columns["joints"])), len(columns["joints"])
        with Writer(root, fps=10, robot_type="arm", columns=columns, cameras={}) as writer:
            writer.add(task="Go.", columns={"joints": np.repeat(values, width, axis=1)}, frames={})
        found = [finding for finding in check_dataset(root).findings if finding.check == "spilled"]
        # A column of several values has its width already: there it is something that came to rest.
        assert len(found) == (width == 1)
        assert all("the first 6 rows differ" in finding.what and "vector of 7" in finding.what for finding in found)


def test_a_gripper_command_of_the_other_sign_in_one_episode(tmp_path):
    def turn(number: int, values: Rows) -> None:
        if number == 2:
            values["action"][:, 3] = 1 - values["action"][:, 3]

    finding = only(record(tmp_path / "d", turn), "polarity")
    assert finding.where == "episode 2, action gripper"
    assert "against observation.state aperture" in finding.what


def test_a_gripper_command_of_the_other_sign_everywhere(tmp_path):
    def turn(_: int, values: Rows) -> None:
        values["action"][:, 3] = 1 - values["action"][:, 3]

    finding = only(record(tmp_path / "d", turn), "polarity")
    assert (finding.severity, finding.where) == ("warning", "action gripper")
    assert "a larger command makes observation.state aperture smaller" in finding.what


def test_an_aperture_that_never_moves_is_constant_and_has_no_polarity(tmp_path):
    def still(_: int, values: Rows) -> None:
        values["observation.state"][:, 3] = 0.5

    first, second = check_dataset(record(tmp_path / "d", still)).findings
    assert (first.check, first.severity) == ("polarity", "warning")
    assert (second.check, second.severity, second.where) == ("constant", "note", "observation.state aperture")
    assert "it is 0.5 throughout" in second.what


def test_a_value_that_is_constant_in_every_episode_but_not_over_all_is_none(tmp_path):
    def still(number: int, values: Rows) -> None:
        values["observation.state"][:, 2] = number + 1

    assert check_dataset(record(tmp_path / "d", still)).findings == ()


def shift(values: Rows, steps: int) -> None:
    """Move the actions back in time: row t then holds what was commanded at t - steps."""
    values["action"][:] = np.roll(values["action"], steps, axis=0)


def test_one_episode_whose_actions_come_early(tmp_path):
    finding = only(record(tmp_path / "d", lambda number, values: shift(values, -3) if number == 1 else None), "lag")
    assert (finding.severity, finding.where[:9]) == ("warning", "episode 1")
    assert "4 steps later; the dataset has 1" in finding.what


def test_all_actions_that_come_early(tmp_path):
    finding = only(record(tmp_path / "d", lambda _, values: shift(values, -2)), "lag")
    assert (finding.severity, finding.where) == ("note", "actions")
    assert "3 steps later; 1 is usual" in finding.what


def test_actions_that_follow_the_state(tmp_path):
    finding = only(record(tmp_path / "d", lambda _, values: shift(values, 2)), "lag")
    assert finding.severity == "warning"
    assert "actions follow the state" in finding.what
    assert "action dx_m (with observation.state x_m)" in finding.where


def test_targets_are_followed_too(tmp_path):
    """Absolute actions: each row holds where the hand is to be at the next one, or where it was before."""

    def target(values: Rows, later: int) -> None:
        values["action"][:, :3] = values["observation.state"][np.clip(np.arange(ROWS) + later, 0, ROWS - 1), :3]

    assert check_dataset(record(tmp_path / "next", lambda _, values: target(values, 1))).findings == ()
    finding = only(record(tmp_path / "before", lambda _, values: target(values, -2)), "lag")
    assert "actions follow the state" in finding.what


def test_a_slow_action_that_resembles_a_state_by_chance_has_no_lag(tmp_path):
    """Two slow waves go well together at some lag; what they count for is less than their number of rows."""

    def waves(number: int, values: Rows) -> None:
        values["action"][:, :3] = np.sin(np.arange(ROWS)[:, None] / 9 + number * np.arange(1, 4)) / 100
        values["observation.state"][:, :3] = np.sin(np.arange(ROWS)[:, None] / 11 + number) / 3

    assert check_dataset(record(tmp_path / "d", waves)).findings == ()


def scripted(number: int) -> Rows:
    """A hand of 20 Hz that moves to waypoints at full speed and closes or opens there; it seldom turns.

    The action depends on the state, and holds its limit or 0 for long. Episode 2 is noisy, 3 has 20 rows, 4 is cut
    short like a sibling, and in 5 the hand only closes.
    """
    rng, length = np.random.default_rng(number), {3: 20, 4: 32, 5: 32}.get(number, 150)
    noise, top = 0.2 * (number == 2), np.array([0.03, 0.03, 0.03, 0.15])
    state, action, goal, wait = np.zeros((length, 5)), np.zeros((length, 5)), np.full(4, 0.3), 1
    hand, gripper = np.array([*rng.uniform(0.2, 0.5, 3), 0.0, 1.0]), 1.0
    for t in range(length):
        state[t] = hand
        if number != 5 and wait == 0 and (abs(goal - hand[:4]) < 1e-3 + 2 * noise * top).all():
            wait, gripper = 6, 1.0 - gripper
        elif wait > 0 and (wait := wait - 1) == 0:
            goal = np.array([*rng.uniform(0.2, 0.5, 3), rng.choice([goal[3], 0.6])])
        move = np.clip(goal - hand[:4], -top, top) if wait == 0 and number != 5 else np.zeros(4)
        action[t] = [*move + noise * rng.standard_normal(4) * top, 0.0 if number == 5 else gripper]
        hand[:4] += 0.7 * action[t, :4] + 1e-7 * rng.standard_normal(4)
        hand[4] += np.clip(max(action[t, 4], 0.55) - hand[4], -0.25, 0.25)  # it holds a thing of that width
    return {"observation.state": state.astype(np.float32), "action": action.astype(np.float32),
            "expert.action": np.roll(action, 7, axis=0).astype(np.float32)}  # fmt: skip


def record_scripted(root: Path, change: Callable[[int, Rows], object] = lambda number, rows: None) -> Path:
    motion = ("dx_m", "dy_m", "dz_m", "dyaw_rad", "gripper")
    columns = {
        "observation.state": ("x_m", "y_m", "z_m", "yaw_rad", "aperture"),
        "action": motion,
        "expert.action": motion,
    }
    with Writer(root, fps=20, robot_type="hand", columns=columns, cameras={}) as writer:
        for number in range(12):
            values = scripted(number)
            change(number, values)
            writer.add(task="move things", columns=values, frames={})
    return root


def test_a_scripted_controller_at_its_limits_is_clean(tmp_path):
    report = check_dataset(record_scripted(tmp_path / "d"))
    assert report.count("error") == report.count("warning") == 0, report.to_text()


def test_faults_in_what_a_scripted_controller_did_are_still_found(tmp_path):
    """The checks that keep quiet above are not asleep."""

    def plant(number: int, values: Rows) -> None:
        if number == 7:
            shift(values, -8)
        if number == 8:
            values["observation.state"][60, 0] += 1
        if number == 9:
            values["action"][:, 4] = 1 - values["action"][:, 4]

    text = check_dataset(record_scripted(tmp_path / "d", plant)).to_text()
    assert re.search(r"warning: episode 7, .*action dx_m.*: the state shows an action 9 steps later", text), text
    assert "warning: episode 8, observation.state x_m: it jumps by 0.979" in text
    assert "warning: episode 9, action gripper: the command runs against observation.state aperture" in text
    assert text.count("warning: ") == 3, text


def test_a_force_that_jumps_in_most_episodes_is_noted_once(tmp_path):
    def push(number: int, values: Rows) -> None:
        values["observation.state"][:, 1] = 0.01 * np.random.default_rng(number).standard_normal(ROWS)
        values["observation.state"][20 + number : 50 + number, 1] += 20

    finding = only(record(tmp_path / "d", push), "jumps")
    assert (finding.severity, finding.where) == ("note", "episodes 0, 1, 2, 3, observation.state y_m")


def test_an_episode_that_keeps_still_has_no_other_unit(tmp_path):
    def still(number: int, values: Rows) -> None:
        if number == 1:
            values["observation.state"][:, 2] = 0.3 / 57 + 1e-6 * np.random.default_rng(0).standard_normal(ROWS)

    assert check_dataset(record(tmp_path / "d", still)).findings == ()


def test_what_comes_to_rest_is_no_vector_down_the_rows(tmp_path):
    def stop(number: int, values: Rows) -> None:
        if number == 1:
            values["observation.state"][:, 2] = 0.3 - 0.02 * np.clip(6 - np.arange(ROWS), 0, None)
            values["action"][:, 2] = np.append([0.02, -0.01, 0.01, 0.03], np.zeros(ROWS - 4))

    assert check_dataset(record(tmp_path / "d", stop)).findings == ()


def test_findings_of_one_kind_are_cut_short_in_text_only():
    findings = [Finding(severity="note", check="constant", where=str(n), what="w.", step="") for n in range(23)]
    report = Report(dataset="d", episodes=1, frames=1, findings=tuple(findings))
    assert report.to_text().splitlines()[-3:] == [
        "note: 19: w.",
        "note: 3 more of constant; JSON has them all.",
        "1 episodes, 1 frames: 0 errors, 0 warnings, 23 notes.",
    ]
    assert len(report.to_json()["findings"]) == 23


def test_empty_task_texts(copied):
    table = pq.read_table(copied / "meta/tasks.parquet")
    pq.write_table(table.set_column(1, "task", pa.array([" "])), copied / "meta/tasks.parquet")
    finding = only(copied, "layout")
    assert finding.severity == "warning"
    assert "Task 0 is an empty text" in finding.what


def same_as_the_first(number: int, values: Rows) -> None:
    if number == 3:
        values.update(rows(0))


def test_episodes_with_the_same_columns(tmp_path):
    finding = only(record(tmp_path / "d", same_as_the_first), "duplicates")
    assert (finding.severity, finding.where) == ("warning", "episodes 0, 3")
    assert "the columns of these episodes is the same" in finding.what


def test_episodes_with_the_same_film(copied):
    folder = copied / f"videos/{CAMERA}/chunk-000"
    shutil.copy(folder / "file-001.mp4", folder / "file-002.mp4")
    finding = only(copied, "duplicates")
    assert finding.where == "episodes 1, 2"
    assert CAMERA in finding.what


def test_splits_that_share_contents(tmp_path):
    root = record(tmp_path / "d", same_as_the_first)
    edit_info(root, splits={"train": "0:2", "test": "2:4"})
    finding = only(root, "leak")
    assert (finding.severity, finding.where) == ("error", "episode 0")
    assert "actions and states of episode 3 in split test" in finding.what


def test_splits_that_share_seeds(copied):
    edit_info(copied, splits={"train": "0:2", "test": "2:4"})
    assert check_dataset(copied).findings == ()
    write_json(copied / "extras/about/chunk-000/file-003.json", {"seed": 1})
    finding = only(copied, "leak")
    assert finding.where == "episode 1"
    assert "the seed of episode 3 in split test" in finding.what


def test_splits_that_overlap_or_leave_the_dataset(copied):
    for splits in ({"train": "0:3", "test": "2:4"}, {"train": "0:2", "test": "2:9"}, {"train": "0:2", "test": "rest"}):
        edit_info(copied, splits=splits)
        assert "split test" in only(copied, "layout").what


def test_another_dataset_that_shares_seeds_or_contents(tmp_path, clean):
    other = record(tmp_path / "other", first=10)
    assert check_dataset(clean, against=(other,)).findings == ()
    finding = only(clean, "leak", against=(other, record(tmp_path / "overlap", first=2, seeds=False)))
    assert (finding.severity, finding.where) == ("error", "episodes 2, 3")
    assert f"actions and states of episodes 0, 1 in {tmp_path / 'overlap'}" in finding.what
    write_json(other / "extras/about/chunk-000/file-002.json", {"seed": 3})
    assert "the seed of episode 2" in only(clean, "leak", against=(other,)).what


def test_contents_are_compared_after_rounding(tmp_path, clean):
    def blur(_: int, values: Rows) -> None:
        values["action"] += np.float32(1e-9)

    finding = only(clean, "leak", against=(record(tmp_path / "blurred", blur, seeds=False),))
    assert "episodes 0, 1, 2, 3" in finding.what


def test_what_is_no_dataset_is_the_callers_mistake(tmp_path, clean):
    with pytest.raises(DatasetError, match="not a LeRobot dataset"):
        check_dataset(tmp_path)
    with pytest.raises(DatasetError, match="not a LeRobot dataset"):
        check_dataset(clean, against=(tmp_path,))
    with pytest.raises(DatasetError, match="against itself"):
        check_dataset(clean, against=(clean,))


def test_a_real_episode(real: Path):
    found = check_dataset(real / "droid").findings
    text = "\n".join(finding.to_text() for finding in found)
    for words in (
        "error: dataset: Camera observation.image.wrist_image_left has no video file",
        "plain column",
        "0:57639",
        "cartesian_position 3: it jumps by 6.272 from frame 40 to 41",
        "observation.state.joint_positions: the first 6 rows differ and the other 716 are all",
        "action.joint_position: the first 6 rows differ and the other 716 are all",
        "action.gripper_position: the command changes, observation.state.gripper_position never does",
        "note: observation.state.gripper_position: it is 0 throughout",
    ):
        assert words in text
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=("error", "warning", "note").index)


def test_an_episode_shorter_than_the_lags_that_are_tried_is_read_like_any_other():
    rising = np.arange(6.0)
    assert correlations(rising, rising[:, None], 2) == pytest.approx([1.0])
    assert correlations(rising, rising[:, None], 20).tolist() == [0.0]
    assert correlations(rising, rising[:, None], -20).tolist() == [0.0]
