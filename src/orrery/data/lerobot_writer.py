"""Write recorded episodes in the LeRobot v3.0 layout, strictly. Reading is in `lerobot`.

Every episode is finished on its own: its files are written aside and renamed, and it counts once its row of the index
is in place, so a recorder that is killed loses the open episode at most. Each episode has files of its own, which the
layout allows; merging them into larger ones is left to LeRobot's tools.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, UInt8

from orrery.data.write_media import encode_video
from orrery.errors import DatasetError
from orrery.weights.atomic import replacing

FILES_PER_CHUNK = 1000
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
# LeRobot's own recorder makes every second frame a keyframe, so that any frame is reached at once.
KEYFRAME_EVERY = 2
VIDEO_QUALITY = 18


class Writer:
    """A dataset being recorded. Use it as a context manager; leaving it writes the statistics over all episodes.

    Args:
        root: a folder that does not exist yet, or is empty.
        fps: whole frames a second, of rows and videos alike.
        robot_type: what LeRobot shows as the robot's name.
        columns: name to the names of its values, units in them ("x_m"); stored as float32.
        cameras: name to (height, width), both even.

    Raises:
        DatasetError: a folder with something in it, or a name, rate or size that the layout does not allow.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fps: int,
        robot_type: str,
        columns: Mapping[str, Sequence[str]],
        cameras: Mapping[str, tuple[int, int]],
    ) -> None:
        self.root, self.fps, self.robot_type = Path(root), fps, robot_type
        self.columns = {name: tuple(values) for name, values in columns.items()}
        self.cameras = dict(cameras)
        self.tasks: dict[str, int] = {}
        self.lengths: list[int] = []
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in (*columns, *COUNTERS)}
        self._shades = {name: np.zeros((3, 256), np.int64) for name in cameras}
        if self.root.exists() and any(self.root.iterdir()):
            raise DatasetError(f"{self.root} is not empty. Record into a new folder.")
        if not 0 < fps <= 1000:
            raise DatasetError(f"A dataset cannot have {fps} frames a second. Give 1 to 1000.")
        for name in (*self.columns, *self.cameras):
            if not name or "/" in name or ".." in name or name in COUNTERS:
                raise DatasetError(f"A feature cannot be called {name!r}. Use words joined by single dots.")
        empty = [name for name, values in self.columns.items() if not values]
        odd = [
            name for name, (height, width) in self.cameras.items() if height < 2 or width < 2 or height % 2 or width % 2
        ]
        if empty or odd:
            raise DatasetError(f"{', '.join(empty + odd)}: a column needs values, a camera an even height and width.")

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
        frames: Mapping[str, UInt8[np.ndarray, "_ _ _ 3"]],
    ) -> int:
        """Write one episode of T rows and frames, number i at i/fps seconds. Returns the episode's number.

        Args:
            columns: (T, d) each, d as declared.
            frames: (T, H, W, 3) RGB each, H and W as declared.

        Raises:
            DatasetError: an empty task, missing or unknown names, lengths or sizes that differ, NaN or infinity.
        """
        length = self._check(task, columns, frames)
        number, before = len(self.lengths), sum(self.lengths)
        chunk, file = divmod(number, FILES_PER_CHUNK)
        name = f"chunk-{chunk:03d}/file-{file:03d}"
        shades = {}
        for camera, pictures in frames.items():
            encode_video(
                self.root / "videos" / camera / f"{name}.mp4", pictures, self.fps, size=self.cameras[camera],
                sound=None, metadata={}, quality=VIDEO_QUALITY, keyframe_every=KEYFRAME_EVERY,
            )  # fmt: skip
            shades[camera] = np.stack([np.bincount(pictures[..., c].reshape(-1), minlength=256) for c in range(3)])
        task_index = self.tasks.get(task, len(self.tasks))
        counts = np.arange(length, dtype=np.int64)
        rows = {
            **columns,
            "timestamp": (counts / self.fps).astype(np.float32)[:, None],
            "frame_index": counts[:, None],
            "episode_index": np.full((length, 1), number),
            "index": counts[:, None] + before,
            "task_index": np.full((length, 1), task_index),
        }
        stats = {n: number_stats(rows[n]) for n in self._rows} | {
            c: image_stats(shades[c], length) for c in self.cameras
        }
        write_table(self.root / "meta" / "tasks.parquet", task_table([*self.tasks, *({task} - self.tasks.keys())]))
        write_table(self.root / "data" / f"{name}.parquet", row_table(rows))
        index = {
            "episode_index": number, "tasks": [task], "length": length,
            "dataset_from_index": before, "dataset_to_index": before + length,
            "data/chunk_index": chunk, "data/file_index": file,
        }  # fmt: skip
        for camera in self.cameras:
            index |= {
                f"videos/{camera}/chunk_index": chunk, f"videos/{camera}/file_index": file,
                f"videos/{camera}/from_timestamp": 0.0, f"videos/{camera}/to_timestamp": length / self.fps,
            }  # fmt: skip
        index |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        index |= {f"stats/{n}/{kind}": value for n, found in stats.items() for kind, value in found.items()}
        write_table(self.root / "meta" / "episodes" / f"{name}.parquet", pa.Table.from_pylist([index]))
        self.tasks[task] = task_index
        self.lengths.append(length)
        for n in self._rows:
            self._rows[n].append(rows[n])
        for camera in self.cameras:
            self._shades[camera] += shades[camera]
        write_json(self.root / "meta" / "info.json", self._info())
        return number

    def close(self) -> None:
        """Write meta/stats.json, exact over all rows, and the dataset card.

        Raises:
            DatasetError: no episode was added.
        """
        if not self.lengths:
            raise DatasetError(f"{self.root}: no episode was recorded, so there is no dataset to finish.")
        stats = {name: number_stats(np.concatenate(parts)) for name, parts in self._rows.items()}
        stats |= {name: image_stats(shades, sum(self.lengths)) for name, shades in self._shades.items()}
        write_json(self.root / "meta" / "stats.json", stats)
        with replacing(self.root / "README.md") as aside:
            aside.write_text(
                "---\ntask_categories:\n- robotics\ntags:\n- LeRobot\nconfigs:\n- config_name: default\n"
                f"  data_files: data/*/*.parquet\n---\n\n{len(self.lengths)} episodes, {sum(self.lengths)} frames at "
                f"{self.fps} a second, robot type {self.robot_type}. LeRobot layout v3.0.\n",
                encoding="utf-8",
            )

    def _check(self, task: str, columns: Mapping[str, np.ndarray], frames: Mapping[str, np.ndarray]) -> int:
        where = f"Episode {len(self.lengths)} of {self.root}"
        if not task.strip(" |"):
            raise DatasetError(f"{where} has an empty task text. Say what the robot is to do.")
        if columns.keys() != self.columns.keys() or frames.keys() != self.cameras.keys():
            raise DatasetError(
                f"{where} has {', '.join([*columns, *frames])}; the dataset needs "
                f"{', '.join([*self.columns, *self.cameras])}."
            )
        lengths = {name: len(value) for name, value in [*columns.items(), *frames.items()]}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DatasetError(f"{where}: every column and camera needs the same number of frames, got {lengths}.")
        for name, value in columns.items():
            if value.shape[1:] != (len(self.columns[name]),) or not np.isfinite(value).all():
                raise DatasetError(
                    f"{where}: {name} has shape {value.shape} or holds NaN or infinity; it needs "
                    f"{len(self.columns[name])} finite values a frame."
                )
        for name, value in frames.items():
            if value.shape[1:3] != tuple(self.cameras[name]):
                raise DatasetError(f"{where}: {name} is {value.shape[1:3]}, the dataset says {self.cameras[name]}.")
        return lengths.popitem()[1]

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {
            name: {"dtype": "float32", "shape": [len(values)], "names": list(values)}
            for name, values in self.columns.items()
        }
        for name, (height, width) in self.cameras.items():
            features[name] = {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False, "video.fps": self.fps, "video.channels": 3, "has_audio": False,
                },
            }  # fmt: skip
        for name in COUNTERS:
            kind = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": kind, "shape": [1], "names": None}
        path = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        return {
            "codebase_version": "v3.0", "robot_type": self.robot_type, "total_episodes": len(self.lengths),
            "total_frames": sum(self.lengths), "total_tasks": len(self.tasks), "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": self.fps,
            "splits": {"train": f"0:{len(self.lengths)}"}, "data_path": f"data/{path}.parquet",
            "video_path": f"videos/{{video_key}}/{path}.mp4" if self.cameras else None, "features": features,
        }  # fmt: skip


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
