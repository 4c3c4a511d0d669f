"""Write recorded episodes in the LeRobot v3.0 layout, strictly. Reading is in `lerobot`.

An episode is first staged: everything that takes time is written into a folder of its own, by any process, in any
order. One `Writer` then adopts staged episodes in order: their files get their numbered places, and an episode counts
once its row of the index is there. A recorder that is killed loses what was not yet staged; another one goes on from
there, and the finished dataset is the same bytes. Each episode has files of its own, which the layout allows; merging
them into larger ones is left to LeRobot's tools. Files that LeRobot does not know lie below `extras`, which it ignores.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, UInt8

from orrery.data.lerobot import FILES_PER_CHUNK, column, extra_path, numbered, read_info, read_table
from orrery.data.write_media import encode_video
from orrery.errors import DatasetError, MediaError
from orrery.weights.atomic import new_folder, replacing, sync

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
# LeRobot's own recorder makes every second frame a keyframe, so that any frame is reached at once.
KEYFRAME_EVERY = 2
VIDEO_QUALITY = 18
STAGED_VERSION = 1
SHADES = "shades"
"""The extra that holds how often each shade occurs, for exact statistics over all episodes."""
# What a file system answers that cannot give one file two names.
CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

WriteExtra = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What all episodes of a dataset have in common.

    Args:
        fps: whole frames a second, of rows and videos alike.
        columns: name to the names of its values, units in them ("x_m"); stored as float32.
        cameras: name to (height, width), both even.

    Raises:
        DatasetError: a name, rate or size that LeRobot does not allow.
    """

    fps: int
    columns: Mapping[str, Sequence[str]]
    cameras: Mapping[str, tuple[int, int]]

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise DatasetError(f"A dataset cannot have {self.fps} frames a second. Give 1 to 1000.")
        for name in (*self.columns, *self.cameras):
            if not name or "/" in name or ".." in name or name in COUNTERS:
                raise DatasetError(f"A feature cannot be called {name!r}. Use words joined by single dots.")
        empty = [name for name, values in self.columns.items() if not values]
        odd = [
            name for name, (height, width) in self.cameras.items() if height < 2 or width < 2 or height % 2 or width % 2
        ]
        if empty or odd:
            raise DatasetError(f"{', '.join(empty + odd)}: a column needs values, a camera an even height and width.")

    def to_json(self) -> dict[str, Any]:
        columns = {name: list(values) for name, values in self.columns.items()}
        return {
            "fps": self.fps,
            "columns": columns,
            "cameras": {name: list(size) for name, size in self.cameras.items()},
        }


def stage_episode(
    folder: str | os.PathLike[str],
    *,
    layout: Layout,
    task: str,
    columns: Mapping[str, Float32[np.ndarray, "_ _"]],
    frames: Mapping[str, Iterable[UInt8[np.ndarray, "_ _ 3"]]],
    extras: Mapping[str, WriteExtra] | None = None,
) -> None:
    """Write all that takes time of one episode of T rows and frames, number i at i/fps seconds.

    The folder appears whole or not at all and says by itself what it holds; nothing in it depends on which number the
    episode will get. Any process may do this; `Writer.adopt` takes it over.

    Args:
        folder: replaced if it exists; on the file system of the dataset its files need not be copied later.
        columns: (T, d) each, d as declared.
        frames: T pictures (H, W, 3) RGB each, H and W as declared: an array, or an iterable that makes them as needed.
        extras: "name.suffix" to a function that writes the file at the path it is given; see `extra_path`.

    Raises:
        DatasetError: an empty task, missing or unknown names, lengths or sizes that differ, NaN or infinity.
    """
    folder, extras = Path(folder), extras or {}
    check_episode(folder, layout, task, columns, frames, extras)
    lengths = {name: len(value) for name, value in columns.items()}
    shades = {camera: np.zeros((3, 256), np.int64) for camera in layout.cameras}
    with new_folder(folder) as aside:
        for camera, pictures in frames.items():
            try:
                lengths[camera] = encode_video(
                    aside / "videos" / f"{camera}.mp4", counting(pictures, shades[camera]), layout.fps,
                    size=layout.cameras[camera], sound=None, metadata={}, quality=VIDEO_QUALITY,
                    keyframe_every=KEYFRAME_EVERY,
                )  # fmt: skip
            except MediaError as error:
                raise DatasetError(f"{folder}, {camera}: {error}") from None
        length = check_lengths(folder, lengths)
        for name, write in extras.items():
            (aside / "extras").mkdir(exist_ok=True)
            write(aside / "extras" / name)
            if not (aside / "extras" / name).is_file():
                raise DatasetError(f"{folder}: the extra {name} was not written by the function given for it.")
            sync(aside / "extras" / name)
        counts = np.arange(length, dtype=np.int64)
        rows = {
            **{name: columns[name] for name in layout.columns},
            "timestamp": (counts / layout.fps).astype(np.float32)[:, None],
            "frame_index": counts[:, None],
        }
        write_table(aside / "rows.parquet", row_table(rows))
        if layout.cameras:
            write_table(aside / "shades.parquet", row_table({c: s.reshape(-1, 1) for c, s in shades.items()}))
        staged = {
            "version": STAGED_VERSION, "layout": layout.to_json(), "task": task, "length": length,
            "extras": sorted(extras), "stats": {name: number_stats(values) for name, values in rows.items()},
        }  # fmt: skip
        write_json(aside / "episode.json", staged)


def staged_episode(folder: Path) -> dict[str, Any]:
    """What a staged folder says of itself.

    Raises:
        DatasetError: it is not whole, or of another version.
    """
    try:
        staged: dict[str, Any] = json.loads((folder / "episode.json").read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{folder} holds no staged episode. Stage it again.") from None
    if staged["version"] != STAGED_VERSION:
        raise DatasetError(f"{folder} was staged by another version of this program. Stage it again.")
    return staged


class Writer:
    """A dataset being recorded. Use it as a context manager; leaving it writes the statistics over all episodes.

    `len()` says how many episodes count. One process at a time writes to a dataset; staging is for any number.

    Args:
        root: a folder that does not exist yet, or is empty.
        robot_type: what LeRobot shows as the robot's name.
        fps, columns, cameras: as in `Layout`.
        resume: go on with what an earlier writer left in `root`, if anything: every episode that counts stays, what
            was half adopted is removed. Staged folders are the caller's: those of episodes below `len()` are done.
        licence: SPDX identifier and link, for the dataset card.
        note: what the card says besides.

    Raises:
        DatasetError: a folder with something in it; a name, rate or size that the layout does not allow; or, on
            resuming, a folder that differs in these or was not written by this class.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fps: int,
        robot_type: str,
        columns: Mapping[str, Sequence[str]],
        cameras: Mapping[str, tuple[int, int]],
        resume: bool = False,
        licence: tuple[str, str] | None = None,
        note: str = "",
    ) -> None:
        self.root, self.robot_type, self.licence, self.note = Path(root), robot_type, licence, note
        self.layout = Layout(fps=fps, columns=dict(columns), cameras=dict(cameras))
        self.tasks: dict[str, int] = {}
        self.lengths: list[int] = []
        self.total = 0
        if resume:
            self._resume()
        elif self.root.exists() and any(self.root.iterdir()):
            raise DatasetError(f"{self.root} is not empty. Record into a new folder, or resume what is in it.")

    def __len__(self) -> int:
        return len(self.lengths)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def add(
        self,
        *,
        task: str,
        columns: Mapping[str, Float32[np.ndarray, "_ _"]],
        frames: Mapping[str, Iterable[UInt8[np.ndarray, "_ _ 3"]]],
        extras: Mapping[str, WriteExtra] | None = None,
    ) -> int:
        """Stage and adopt one episode; arguments and errors as in `stage_episode`. Returns the episode's number."""
        staged = self.root / f".episode-{len(self):06d}"
        stage_episode(staged, layout=self.layout, task=task, columns=columns, frames=frames, extras=extras)
        return self.adopt(staged)

    def adopt(self, folder: str | os.PathLike[str]) -> int:
        """Make a staged episode the next one of this dataset and remove its folder. Returns the episode's number.

        Killed on the way, the staged folder is still whole, or the episode already counts.

        Raises:
            DatasetError: no whole staged episode, or one with other columns, cameras or rate.
        """
        folder = Path(folder)
        staged = staged_episode(folder)
        if staged["layout"] != self.layout.to_json():
            raise DatasetError(f"{folder} was staged for {staged['layout']}, {self.root} has {self.layout.to_json()}.")
        number, length, task = len(self), int(staged["length"]), str(staged["task"])
        if not (self.root / "meta" / "info.json").exists():
            write_json(self.root / "meta" / "info.json", self._info())  # marks the folder as one to go on with
        for camera in self.layout.cameras:
            put(folder / "videos" / f"{camera}.mp4", self.root / "videos" / camera / f"{numbered(number)}.mp4")
        for extra in staged["extras"]:
            name, _, suffix = extra.rpartition(".")
            put(folder / "extras" / extra, extra_path(self.root, name, suffix, number))
        if self.layout.cameras:
            put(folder / "shades.parquet", extra_path(self.root, SHADES, "parquet", number))
        if task not in self.tasks:
            write_table(self.root / "meta" / "tasks.parquet", task_table([*self.tasks, task]))
        rows = {
            "episode_index": np.full((length, 1), number),
            "index": np.arange(self.total, self.total + length, dtype=np.int64)[:, None],
            "task_index": np.full((length, 1), self.tasks.get(task, len(self.tasks))),
        }
        table = read_table(folder / "rows.parquet")
        for name, values in rows.items():
            table = table.append_column(name, pa.array(values[:, 0]))
        write_table(self.root / "data" / f"{numbered(number)}.parquet", table)
        stats = {**staged["stats"], **{name: number_stats(values) for name, values in rows.items()}}
        stats |= {camera: image_stats(found, length) for camera, found in self._shades(number).items()}
        index = pa.Table.from_pylist([self._row(number, task, length, stats)])
        write_table(self.root / "meta" / "episodes" / f"{numbered(number)}.parquet", index)
        self._count(task, length)
        write_json(self.root / "meta" / "info.json", self._info())
        (folder / "episode.json").unlink()  # first, so that what a kill leaves is not taken for an episode
        shutil.rmtree(folder)
        return number

    def close(self) -> None:
        """Write meta/stats.json, exact over all rows, and the dataset card.

        Raises:
            DatasetError: no episode was added.
        """
        if not self.lengths:
            raise DatasetError(f"{self.root}: no episode was recorded, so there is no dataset to finish.")
        features = self._info()["features"]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in (*self.layout.columns, *COUNTERS)}
        shades = {camera: np.zeros((3, 256), np.int64) for camera in self.layout.cameras}
        for number in range(len(self)):
            path = self.root / "data" / f"{numbered(number)}.parquet"
            table = read_table(path)
            for name, values in parts.items():
                values.append(column(table[name], features[name], f"{path}, {name}"))
            for camera, found in self._shades(number).items():
                shades[camera] += found
        stats = {name: number_stats(np.concatenate(values)) for name, values in parts.items()}
        stats |= {camera: image_stats(found, self.total) for camera, found in shades.items()}
        write_json(self.root / "meta" / "stats.json", stats)
        with replacing(self.root / "README.md") as aside:
            aside.write_text(self._card(), encoding="utf-8")

    def _card(self) -> str:
        licence = terms = ""
        if self.licence is not None:
            name, link = self.licence
            licence = f"license: other\nlicense_name: {name.lower()}\nlicense_link: {link}\n"
            terms = f"\nLicence: {name}, <{link}>.\n"
        note = f"\n{self.note}\n" if self.note else ""
        return (
            f"---\n{licence}task_categories:\n- robotics\ntags:\n- LeRobot\nconfigs:\n- config_name: default\n"
            f"  data_files: data/*/*.parquet\n---\n\n{len(self)} episodes, {self.total} frames at "
            f"{self.layout.fps} a second, robot type {self.robot_type}. LeRobot layout v3.0.\n{note}{terms}"
        )

    def _count(self, task: str, length: int) -> None:
        self.tasks.setdefault(task, len(self.tasks))
        self.lengths.append(length)
        self.total += length

    def _shades(self, number: int) -> dict[str, np.ndarray]:
        """How often each shade occurs in an episode, (3, 256) a camera."""
        if not self.layout.cameras:
            return {}
        table = read_table(extra_path(self.root, SHADES, "parquet", number))
        return {camera: table[camera].to_numpy().reshape(3, 256) for camera in self.layout.cameras}

    def _resume(self) -> None:
        """Count the finished episodes of `root` and remove what is left of unfinished ones."""
        if (self.root / "meta" / "info.json").is_file():
            self._compare(read_info(self.root, []))
            for path in sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
                self._recount(path)
        elif visible := [path for path in self.root.rglob("[!.]*") if path.is_file() and is_visible(path, self.root)]:
            raise DatasetError(
                f"{self.root} holds {visible[0].relative_to(self.root)} and no meta/info.json to go on with. "
                "Record into a new folder."
            )
        for path in list(leftovers(self.root, len(self))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.lengths:
            write_table(self.root / "meta" / "tasks.parquet", task_table(list(self.tasks)))
            write_json(self.root / "meta" / "info.json", self._info())

    def _compare(self, found: Mapping[str, Any]) -> None:
        mine = self._info()
        differ = [f"{k} {found.get(k)!r}, not {mine[k]!r}" for k in ("fps", "robot_type") if found.get(k) != mine[k]]
        for name in {**found["features"], **mine["features"]}:
            theirs, ours = (
                {k: info["features"].get(name, {}).get(k) for k in ("dtype", "shape", "names")}
                for info in (found, mine)
            )
            if theirs != ours:
                differ.append(f"{name} {list(theirs.values())}, not {list(ours.values())}")
        if differ:
            raise DatasetError(f"{self.root} cannot be resumed; it has {'; '.join(differ)}. Record into a new folder.")

    def _recount(self, path: Path) -> None:
        """Count the next episode from its row of the index."""
        number = len(self)
        files = [self.root / "data" / f"{numbered(number)}.parquet"]
        files += [self.root / "videos" / camera / f"{numbered(number)}.mp4" for camera in self.layout.cameras]
        files += [extra_path(self.root, SHADES, "parquet", number)] if self.layout.cameras else []
        lost = [file for file in files if not file.is_file()]
        rows = read_table(path, keep=("episode_index", "length", "tasks", "dataset_from_index")).to_pylist()
        whole = path == self.root / "meta" / "episodes" / f"{numbered(number)}.parquet" and len(rows) == 1
        whole = whole and {"episode_index": number, "dataset_from_index": self.total}.items() <= rows[0].items()
        if lost or not whole:
            reason = (
                f"episode {number} has no {lost[0]}" if lost else f"{path} is not the index of episode {number} alone"
            )
            raise DatasetError(f"{self.root} cannot be resumed: {reason}. Only what this recorder left can.")
        self._count(rows[0]["tasks"][0], rows[0]["length"])

    def _row(self, number: int, task: str, length: int, stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The episode's row of the index."""
        chunk, file = divmod(number, FILES_PER_CHUNK)
        row: dict[str, Any] = {
            "episode_index": number, "tasks": [task], "length": length,
            "dataset_from_index": self.total, "dataset_to_index": self.total + length,
            "data/chunk_index": chunk, "data/file_index": file,
        }  # fmt: skip
        for camera in self.layout.cameras:
            row |= {
                f"videos/{camera}/chunk_index": chunk, f"videos/{camera}/file_index": file,
                f"videos/{camera}/from_timestamp": 0.0, f"videos/{camera}/to_timestamp": length / self.layout.fps,
            }  # fmt: skip
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        row |= {f"stats/{n}/{kind}": value for n, found in stats.items() for kind, value in found.items()}
        return row

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {
            name: {"dtype": "float32", "shape": [len(values)], "names": list(values)}
            for name, values in self.layout.columns.items()
        }
        for name, (height, width) in self.layout.cameras.items():
            features[name] = {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False, "video.fps": self.layout.fps, "video.channels": 3, "has_audio": False,
                },
            }  # fmt: skip
        for name in COUNTERS:
            kind = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": kind, "shape": [1], "names": None}
        path = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        return {
            "codebase_version": "v3.0", "robot_type": self.robot_type, "total_episodes": len(self.lengths),
            "total_frames": self.total, "total_tasks": len(self.tasks), "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": self.layout.fps,
            "splits": {"train": f"0:{len(self.lengths)}"}, "data_path": f"data/{path}.parquet",
            "video_path": f"videos/{{video_key}}/{path}.mp4" if self.layout.cameras else None, "features": features,
        }  # fmt: skip


def check_episode(
    folder: Path,
    layout: Layout,
    task: str,
    columns: Mapping[str, np.ndarray],
    frames: Mapping[str, Iterable[np.ndarray]],
    extras: Mapping[str, WriteExtra],
) -> None:
    """Hold an episode against its layout as far as this can be done before its frames are made."""
    if not task.strip(" |"):
        raise DatasetError(f"{folder}: the episode has an empty task text. Say what the robot is to do.")
    if columns.keys() != layout.columns.keys() or frames.keys() != layout.cameras.keys():
        raise DatasetError(
            f"{folder}: the episode has {', '.join([*columns, *frames])}; the dataset needs "
            f"{', '.join([*layout.columns, *layout.cameras])}."
        )
    arrays = {name: value for name, value in frames.items() if isinstance(value, np.ndarray)}
    check_lengths(folder, {name: len(value) for name, value in [*columns.items(), *arrays.items()]})
    for name, value in columns.items():
        width = len(layout.columns[name])
        if value.shape[1:] != (width,) or value.dtype != np.float32 or not np.isfinite(value).all():
            raise DatasetError(
                f"{folder}: {name} is {value.dtype} of shape {value.shape}, or holds NaN or infinity; it needs "
                f"{width} finite values a frame, as float32."
            )
    for name, value in arrays.items():
        if value.shape[1:3] != tuple(layout.cameras[name]):
            raise DatasetError(f"{folder}: {name} is {value.shape[1:3]}, the dataset says {layout.cameras[name]}.")
    for name in extras:
        if not re.fullmatch(r"\w[\w-]*(\.[\w-]+)+", name) or name.startswith(f"{SHADES}."):
            raise DatasetError(f"{folder}: an extra cannot be called {name!r}. Give a name and a suffix: sound.flac.")


def check_lengths(folder: Path, lengths: Mapping[str, int]) -> int:
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise DatasetError(f"{folder}: every column and camera needs the same number of frames, got {dict(lengths)}.")
    return next(iter(lengths.values()), 0)


def counting(pictures: Iterable[np.ndarray], shades: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures as they come, each one's shades added to `shades` (3, 256)."""
    for picture in pictures:
        if picture.dtype == np.uint8 and picture.ndim == 3:  # anything else is for the encoder to refuse
            for channel in range(min(3, picture.shape[2])):
                shades[channel] += np.bincount(picture[..., channel].reshape(-1), minlength=256)
        yield picture


def put(source: Path, final: Path) -> None:
    """Give a staged file its place as well; it stays where it was, so that a killed adoption can begin again."""
    with replacing(final) as aside:
        try:
            os.link(source, aside)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            shutil.copyfile(source, aside)


def is_visible(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def leftovers(root: Path, count: int) -> Iterator[Path]:
    """What a killed writer of `root` may have left besides its first `count` episodes."""
    for pattern in (".episode-*", "..episode-*", ".README.md.saving-*", "meta/**/.*.saving-*"):
        yield from root.glob(pattern)
    for folder in ("data", "videos", "extras"):
        for path in (root / folder).glob("**/chunk-*/*"):
            place = re.fullmatch(r"file-(\d+)\..+", path.name)
            later = place and int(path.parent.name[6:]) * FILES_PER_CHUNK + int(place[1]) >= count
            if later or ".saving-" in path.name:
                yield path


def number_stats(values: np.ndarray) -> dict[str, Any]:
    """Statistics of (N, d) values, one list of d numbers each; quantiles interpolate linearly."""
    exact = values.astype(np.float64)
    found = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    found |= {name: np.quantile(exact, share, axis=0) for name, share in QUANTILES.items()}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(values)]}


def image_stats(shades: np.ndarray, frames: int) -> dict[str, Any]:
    """Statistics of pictures in 0..1, shaped (3, 1, 1), from how often each of 256 shades occurs a channel (3, 256)."""
    levels, total = np.arange(256) / 255, shades.sum(1)
    mean = shades @ levels / total
    deviation = np.sqrt(np.maximum(shades @ levels**2 / total - mean**2, 0))
    reached = shades.cumsum(1)
    lowest, highest = (shades > 0).argmax(1), 255 - (shades[:, ::-1] > 0).argmax(1)
    found = {"min": lowest / 255, "max": highest / 255, "mean": mean, "std": deviation}
    found |= {n: (reached >= share * total[:, None]).argmax(1) / 255 for n, share in QUANTILES.items()}
    return {**{name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}, "count": [frames]}


def row_table(rows: Mapping[str, np.ndarray]) -> pa.Table:
    """One row a frame; a single value is a plain column, several are a list of fixed size."""
    made = {}
    for name, values in rows.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        made[name] = flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(made)


def task_table(tasks: Sequence[str]) -> pa.Table:
    """Task texts as the index of a pandas frame, which is where LeRobot looks; pandas itself is not needed."""
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
             "metadata": None},
            {"name": "task", "field_name": "task", **text},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }  # fmt: skip
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def write_table(path: Path, table: pa.Table) -> None:
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="snappy", use_dictionary=True, row_group_size=table.num_rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
