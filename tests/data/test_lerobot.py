import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.small_media import moving_block

from orrery.data.lerobot import Dataset, open_dataset
from orrery.data.lerobot_writer import Writer, image_stats, number_stats
from orrery.data.media import read_video
from orrery.data.write_media import write_video
from orrery.errors import DatasetError, MediaError

TOP, SIDE = "observation.images.top", "observation.images.side"
LENGTHS, TASKS = (12, 7, 9), ("push the block", "pull the block", "push the block")


def episode(number: int) -> dict:
    rng = np.random.default_rng(number)
    length = LENGTHS[number]
    return {
        "task": TASKS[number],
        "columns": {
            "observation.state": rng.standard_normal((length, 2)).astype(np.float32),
            "action": rng.standard_normal((length, 1)).astype(np.float32),
        },
        "frames": {
            TOP: moving_block(length, 48, 64, start=5 * number),
            SIDE: moving_block(length, 32, 48, start=number),
        },
    }


def new_writer(root: Path) -> Writer:
    return Writer(
        root,
        fps=10,
        robot_type="block",
        columns={"observation.state": ("x_m", "y_m"), "action": ("push_n",)},
        cameras={TOP: (48, 64), SIDE: (32, 48)},
    )


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    with new_writer(root) as writer:
        assert [writer.add(**episode(n)) for n in range(3)] == [0, 1, 2]
    return root


@pytest.fixture
def copied(recorded: Path, tmp_path: Path) -> Path:
    shutil.copytree(recorded, tmp_path / "dataset")
    return tmp_path / "dataset"


def change_info(root: Path, **changes) -> None:
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read_bit_for_bit(recorded: Path):
    dataset = open_dataset(recorded)
    assert dataset.problems == ()
    assert (len(dataset), dataset.fps, dataset.robot_type, dataset.cameras) == (3, 10, "block", (TOP, SIDE))
    for number in range(3):
        given, read = episode(number), dataset.episode(number)
        assert (read.length, read.task, read.phrasings) == (LENGTHS[number], TASKS[number], (TASKS[number],))
        for name, values in given["columns"].items():
            assert read.columns[name].dtype == np.float32
            np.testing.assert_array_equal(read.columns[name], values)
        np.testing.assert_array_equal(read.columns["index"][:, 0], np.arange(LENGTHS[number]) + sum(LENGTHS[:number]))
        for camera, pictures in given["frames"].items():
            seen = read.frames(camera)
            assert seen.shape == pictures.shape
            assert np.abs(seen.astype(int) - pictures).mean() < 2
            np.testing.assert_array_equal(read.frames(camera, 2, 5), seen[2:5])


def test_columns_can_be_chosen(recorded: Path):
    assert list(open_dataset(recorded).episode(1, columns=["action"]).columns) == ["action"]
    with pytest.raises(DatasetError, match="no column speed"):
        open_dataset(recorded).episode(1, columns=["speed"])


def test_ranges_outside_an_episode_are_refused(recorded: Path):
    read = open_dataset(recorded).episode(1)
    for start, stop in ((0, 8), (7, None), (-1, 3), (3, 3)):
        with pytest.raises(DatasetError, match="has no frames"):
            read.frames(TOP, start, stop)
    with pytest.raises(DatasetError, match="no camera 'wrist'"):
        read.frames("wrist")
    with pytest.raises(DatasetError, match="no episode 3"):
        open_dataset(recorded).episode(3)


def merged(root: Path) -> tuple[Dataset, np.ndarray]:
    """The three episodes in one data file and one video each camera, as LeRobot's own tools lay them out."""
    change_info(root, features=json.loads((root / "meta/info.json").read_text())["features"])
    data = [pq.read_table(p) for p in sorted((root / "data").rglob("*.parquet"))]
    index = pa.concat_tables(pq.read_table(p) for p in sorted((root / "meta/episodes").rglob("*.parquet"))).to_pylist()
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "meta/episodes")
    shutil.rmtree(root / "videos")
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(data), root / "data/chunk-000/file-000.parquet")
    for row, start in zip(index, np.cumsum([0, *LENGTHS[:-1]]), strict=True):
        for key in ("data", f"videos/{TOP}", f"videos/{SIDE}"):
            row[f"{key}/file_index"] = 0
        for camera in (TOP, SIDE):
            row[f"videos/{camera}/from_timestamp"] = start / 10
            row[f"videos/{camera}/to_timestamp"] = (start + row["length"]) / 10
    pq.write_table(pa.Table.from_pylist(index), root / "meta/episodes/chunk-000/file-000.parquet")
    for camera in (TOP, SIDE):
        film = np.concatenate([episode(n)["frames"][camera] for n in range(3)])
        write_video(root / "videos" / camera / "chunk-000/file-000.mp4", film, 10, keyframe_every=6)
    return open_dataset(root), read_video(root / "videos" / TOP / "chunk-000/file-000.mp4").frames


def test_episodes_that_share_files_are_told_apart(copied: Path):
    dataset, film = merged(copied)
    for number in range(3):
        start = sum(LENGTHS[:number])
        read = dataset.episode(number)
        np.testing.assert_array_equal(read.columns["action"], episode(number)["columns"]["action"])
        np.testing.assert_array_equal(read.frames(TOP), film[start : start + LENGTHS[number]])


def test_an_episode_whose_part_of_the_video_is_too_short_is_refused(copied: Path):
    merged(copied)
    path = copied / "meta/episodes/chunk-000/file-000.parquet"
    index = pq.read_table(path).to_pylist()
    index[0][f"videos/{TOP}/to_timestamp"] = 0.85
    pq.write_table(pa.Table.from_pylist(index), path)
    read = open_dataset(copied).episode(0)
    assert len(read.frames(TOP, 0, 9)) == 9
    with pytest.raises(DatasetError, match=r"ends at 0\.85"):
        read.frames(TOP)


def test_missing_videos_are_named_or_passed_over_on_request(copied: Path):
    (copied / "videos" / SIDE / "chunk-000" / "file-001.mp4").unlink()
    with pytest.raises(DatasetError, match=f"Camera {SIDE} has no video file .*file-001.*{TOP}"):
        open_dataset(copied)
    dataset = open_dataset(copied, cameras="available")
    assert any(SIDE in p and "file-001.mp4" in p for p in dataset.problems)
    assert list(dataset.episode(1).cameras) == [TOP]
    assert list(dataset.episode(2).cameras) == [TOP, SIDE]
    assert open_dataset(copied, cameras=[TOP]).problems == ()
    with pytest.raises(DatasetError, match="no camera wrist"):
        open_dataset(copied, cameras=["wrist"])
    with pytest.raises(DatasetError, match="neither"):
        open_dataset(copied, cameras="front")


@pytest.mark.parametrize("form", ["task", "__index_level_0__", "plain"])
def test_task_texts_are_found_in_all_three_forms(copied: Path, form: str):
    path = copied / "meta/tasks.parquet"
    table = pq.read_table(path)
    if form == "plain":
        table = table.replace_schema_metadata(None)
    elif form != "task":
        metadata = table.schema.metadata[b"pandas"].replace(b'["task"]', b'["__index_level_0__"]')
        table = table.rename_columns(["task_index", form]).replace_schema_metadata({b"pandas": metadata})
    pq.write_table(table, path)
    dataset = open_dataset(copied)
    assert [dataset.episode(n).task for n in range(3)] == list(TASKS)
    assert len(dataset.problems) == (form == "plain")


def test_the_index_of_tasks_is_where_pandas_looks(recorded: Path):
    pandas = json.loads(pq.read_schema(recorded / "meta/tasks.parquet").metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    assert [c["name"] for c in pandas["columns"]] == ["task_index", "task"]


def test_phrasings_and_empty_texts(copied: Path):
    tasks = pa.table({"task_index": [0, 1], "task": ["push it | move it ", " |  | "]})
    pq.write_table(tasks, copied / "meta/tasks.parquet")
    dataset = open_dataset(copied)
    assert dataset.episode(0).phrasings == ("push it", "move it")
    assert (dataset.episode(1).task, dataset.episode(1).phrasings) == ("", ())
    assert any("Task 1 is an empty text" in p for p in dataset.problems)


def test_old_placeholders_empty_shapes_and_doubles_are_read(copied: Path):
    info = json.loads((copied / "meta/info.json").read_text())
    info["features"]["action"]["shape"] = []
    change_info(
        copied,
        features=info["features"],
        data_path="data/chunk-{episode_chunk:03d}/file-{episode_file:03d}.parquet",
        splits={"train": "0:57639"},
        total_frames=1,
    )
    for path in (copied / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        at = table.column_names.index("action")
        pq.write_table(table.set_column(at, "action", table["action"].cast(pa.float64())), path)
    dataset = open_dataset(copied)
    np.testing.assert_array_equal(dataset.episode(0).columns["action"], episode(0)["columns"]["action"])
    text = " ".join(dataset.problems)
    assert all(word in text for word in ("episode_chunk", "declares no shape", "0:57639", "total_frames 1"))


def test_data_files_are_searched_for_where_the_index_does_not_name_them(copied: Path):
    for path in (copied / "meta/episodes").rglob("*.parquet"):
        row = pq.read_table(path).to_pylist()[0]
        pq.write_table(pa.Table.from_pylist([{k: v for k, v in row.items() if not k.startswith("data/")}]), path)
    dataset = open_dataset(copied)
    np.testing.assert_array_equal(dataset.episode(2).columns["action"], episode(2)["columns"]["action"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codebase_version": "v2.1"}, "layout 'v2.1'; v3.0 is read.*converter"),
        ({"codebase_version": "v4.0"}, "layout 'v4.0'; v3.0 is read"),
        ({"fps": 0}, "fps 0"),
        ({"fps": True}, "fps True"),
        ({"features": []}, "features"),
        ({"features": {"a/b": {"dtype": "float32", "shape": [1]}}}, "'a/b'"),
        ({"features": {"a": {"dtype": "complex", "shape": [1]}}}, "'a'"),
        ({"features": {"a": {"dtype": "float32", "shape": [-1]}}}, "'a'"),
        ({"data_path": "../{chunk_index}.parquet"}, "stay inside"),
        ({"data_path": "/etc/passwd"}, "stay inside"),
        ({"data_path": "data/{episode_index.__class__}"}, "stay inside"),
        ({"data_path": "data/{secret}"}, "unknown placeholder"),
        ({"video_path": None}, "no video_path"),
    ],
)
def test_an_info_file_that_means_nothing_is_refused(copied: Path, changes: dict, reason: str):
    change_info(copied, **changes)
    with pytest.raises(DatasetError, match=reason):
        open_dataset(copied)


def test_rows_that_contradict_the_index_are_refused(copied: Path):
    path = copied / "data/chunk-000/file-001.parquet"
    good = pq.read_table(path)

    def changed(name: str, values: list) -> pa.Table:
        return good.set_column(good.column_names.index(name), name, pa.array(values, good[name].type))

    for table, reason in (
        (good.slice(1), "6 rows, the index says 7"),
        (changed("frame_index", [0, 1, 2, 4, 3, 5, 6]), "frame_index"),
        (changed("timestamp", [0.0, 0.1, 0.2, 0.2, 0.4, 0.5, 0.6]), "do not rise at row 3"),
        (changed("action", [0.0, 1.0, np.nan, 0.0, 0.0, 0.0, 0.0]), "NaN or infinity at frame 2"),
        (changed("action", [0.0, 1.0, None, 0.0, 0.0, 0.0, 0.0]), "a value is missing"),
        (changed("task_index", [9] * 7), "task 9"),
        (good.drop_columns(["action"]), "action are missing"),
        (good.set_column(0, "observation.state", pa.array([[0.0]] * 7)), "declared"),
        (good.set_column(0, "observation.state", pa.array([[0.0]] * 6 + [[0.0] * 8])), "differ in how many"),
        (good.set_column(0, "observation.state", pa.array(["a"] * 7)), "stored as string"),
    ):
        pq.write_table(table, path)
        with pytest.raises(DatasetError, match=reason):
            open_dataset(copied).episode(1)
    path.write_bytes(b"PAR1 and nothing")
    with pytest.raises(DatasetError, match="damaged"):
        open_dataset(copied).episode(1)
    path.unlink()
    with pytest.raises(DatasetError, match="no data file"):
        open_dataset(copied)


def test_damaged_folders_end_in_a_dataset_error_or_a_dataset(copied: Path):
    rng = random.Random(0)
    for path in (
        copied / "meta/info.json",
        copied / "meta/tasks.parquet",
        copied / "meta/episodes/chunk-000/file-001.parquet",
    ):
        good = path.read_bytes()
        for _ in range(20):
            content = bytearray(good)
            for _ in range(rng.choice((1, 5))):
                content[rng.randrange(len(content))] = rng.choice(b'0{}[]",:-x\x00\xff') if rng.random() < 0.7 else 0
            path.write_bytes(bytes(content[: rng.randrange(len(content))] if rng.random() < 0.1 else content))
            try:
                dataset = open_dataset(copied, cameras="available")
                for number in range(len(dataset)):
                    dataset.episode(number)
            except DatasetError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        path.write_bytes(good)


def test_statistics_are_exact_over_all_episodes(recorded: Path):
    stats = json.loads((recorded / "meta/stats.json").read_text())
    state = np.concatenate([episode(n)["columns"]["observation.state"] for n in range(3)]).astype(np.float64)
    found = stats["observation.state"]
    np.testing.assert_allclose(found["mean"], state.mean(0))
    np.testing.assert_allclose(found["std"], state.std(0))
    for name, share in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(found[name], np.quantile(state, share, axis=0))
    assert found["count"] == [28]
    film = np.concatenate([episode(n)["frames"][TOP] for n in range(3)]).reshape(-1, 3) / 255
    picture = stats[TOP]
    assert np.shape(picture["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(picture["mean"]), film.mean(0))
    np.testing.assert_allclose(np.ravel(picture["std"]), film.std(0))
    np.testing.assert_allclose(np.ravel(picture["min"]), film.min(0))
    np.testing.assert_allclose(np.ravel(picture["max"]), film.max(0))
    assert picture["count"] == [28]


def test_picture_quantiles_follow_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 10_001))
    shades = np.stack([np.bincount(p, minlength=256) for p in pixels])
    found = image_stats(shades, 1)
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        exact = np.quantile(pixels, share, axis=1, method="inverted_cdf") / 255
        np.testing.assert_allclose(np.ravel(found[name]), exact)
    assert number_stats(np.ones((3, 2)))["q50"] == [1.0, 1.0]


def test_the_layout_on_disk(recorded: Path):
    files = {str(p.relative_to(recorded)) for p in recorded.rglob("*") if p.is_file()}
    assert files == {
        "README.md", "meta/info.json", "meta/stats.json", "meta/tasks.parquet",
        *(f"{folder}/chunk-000/file-00{n}.{suffix}" for n in range(3) for folder, suffix in
          (("data", "parquet"), ("meta/episodes", "parquet"), (f"videos/{TOP}", "mp4"), (f"videos/{SIDE}", "mp4"),
           ("extras/shades", "parquet"))),
    }  # fmt: skip
    data = pq.ParquetFile(recorded / "data/chunk-000/file-001.parquet")
    assert data.num_row_groups == 1
    assert data.schema_arrow.field("observation.state").type == pa.list_(pa.float32(), 2)
    assert data.schema_arrow.field("action").type == pa.float32()
    assert data.schema_arrow.field("timestamp").type == pa.float32()
    assert TOP not in data.schema_arrow.names
    index = pq.read_table(recorded / "meta/episodes/chunk-000/file-001.parquet").to_pylist()[0]
    assert (index["dataset_from_index"], index["dataset_to_index"], index["length"]) == (12, 19, 7)
    assert (index[f"videos/{TOP}/from_timestamp"], index[f"videos/{TOP}/to_timestamp"]) == (0.0, 0.7)
    assert len(index["stats/observation.state/q99"]) == 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda e: e.update(task=" | "), "empty task"),
        (lambda e: e["columns"].pop("action"), "needs observation.state, action"),
        (lambda e: e["frames"].update({TOP: e["frames"][TOP][1:]}), "same number"),
        (lambda e: e["columns"]["action"].fill(np.inf), "NaN or infinity"),
        (lambda e: e["columns"].update(action=np.zeros((12, 2), np.float32)), "1 finite values"),
        (lambda e: e["frames"].update({TOP: e["frames"][TOP][:, :32]}), "the dataset says"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, spoil, reason: str):
    given = episode(0)
    spoil(given)
    with pytest.raises(DatasetError, match=reason), new_writer(tmp_path / "new") as writer:
        writer.add(**given)
    assert not (tmp_path / "new").exists()


def test_a_dataset_that_cannot_be_is_refused(recorded: Path, tmp_path: Path):
    good = {"fps": 10, "robot_type": "b", "columns": {"action": ("x",)}, "cameras": {TOP: (48, 64)}}
    with pytest.raises(DatasetError, match="not empty"):
        Writer(recorded, **good)
    for change in ({"fps": 0}, {"columns": {"a/b": ("x",)}}, {"columns": {"action": ()}}, {"cameras": {TOP: (47, 64)}},
                   {"columns": {"timestamp": ("x",)}}):  # fmt: skip
        with pytest.raises(DatasetError):
            Writer(tmp_path / "new", **(good | change))
    with pytest.raises(DatasetError, match="no episode"), new_writer(tmp_path / "new"):
        pass


def test_a_killed_recorder_loses_the_open_episode_at_most(tmp_path: Path):
    code = """
import sys, itertools, numpy as np
from orrery.data.lerobot_writer import Writer
writer = Writer(sys.argv[1], fps=10, robot_type="b", columns={"action": ("x",)}, cameras={"top": (16, 16)})
for n in itertools.count():
    film = np.full((4, 16, 16, 3), n % 200, np.uint8)
    writer.add(task="go", columns={"action": np.full((4, 1), n, np.float32)}, frames={"top": film})
    print(n, flush=True)
"""
    rng = random.Random(0)
    for run in range(2):
        root = tmp_path / str(run)
        with subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(root)], stdout=subprocess.PIPE, text=True
        ) as recorder:
            assert recorder.stdout is not None
            lines = [recorder.stdout.readline() for _ in range(rng.randrange(1, 4))]
            time.sleep(rng.random() * 0.1)
            os.kill(recorder.pid, signal.SIGKILL)
            finished = len(lines) + len(recorder.stdout.readlines())
        dataset = open_dataset(root)
        assert finished <= len(dataset) <= finished + 1
        for number in range(len(dataset)):
            read = dataset.episode(number)
            assert (read.columns["action"] == number).all()
            assert len(read.frames("top")) == 4


def test_a_real_episode(real: Path):
    with pytest.raises(DatasetError, match=r"wrist_image_left has no video file .*exterior_image_1_left has no video"):
        open_dataset(real / "droid")
    dataset = open_dataset(real / "droid", cameras="available")
    text = "\n".join(dataset.problems)
    for words in ("wrist_image_left has no video", "exterior_image_1_left has no video", "Task 0 is an empty text",
                  "plain column", "episode_chunk", "0:57639"):  # fmt: skip
        assert words in text
    camera = "observation.image.exterior_image_2_left"
    assert (len(dataset), dataset.fps, dataset.cameras) == (1, 15, (camera,))
    read = dataset.episode(0)
    assert (read.length, read.task) == (722, "")
    assert read.columns["observation.state.cartesian_position"].shape == (722, 6)
    assert read.columns["action.joint_position"].shape == (722, 1)
    assert all(c.dtype == np.float32 for n, c in read.columns.items() if n.startswith(("observation", "action")))
    np.testing.assert_allclose(read.times_s, np.arange(722) / 15, atol=1e-6)
    path = read.cameras[camera].path
    np.testing.assert_array_equal(read.frames(camera, 40, 43), read_video(path, start=40, stop=43).frames)
    assert read.frames(camera, 721).shape == (1, 360, 640, 3)


def test_media_errors_do_not_escape(copied: Path):
    (copied / "videos" / TOP / "chunk-000" / "file-000.mp4").write_bytes(b"not a film")
    with pytest.raises(DatasetError, match=f"camera {TOP}: .*not a video") as caught:
        open_dataset(copied).episode(0).frames(TOP)
    assert not isinstance(caught.value, MediaError)
