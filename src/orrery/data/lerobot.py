"""Read recorded episodes in the LeRobot v3.0 layout: parquet tables beside videos.

Liberal where public datasets differ from the layout in form, and every such finding is listed in `Dataset.problems`;
strict where reading on would make up data. Writing is in `lerobot_writer`; windows, order and normalising are left to
the caller.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64, UInt8

from orrery.data.limits import LIMITS, Limits
from orrery.data.media import read_video_at
from orrery.errors import DatasetError, MediaError

FILES_PER_CHUNK = 1000
Cameras = Literal["all", "available"] | Sequence[str]
# Placeholder names of the layout, and of older tools for the same values.
PLACEHOLDERS = {
    "chunk_index": "chunk", "episode_chunk": "chunk", "file_index": "file", "episode_file": "file",
    "video_key": "camera",
}  # fmt: skip
NUMBERS = {"float32": np.float32, "float64": np.float64, "bool": np.bool_} | {
    f"{sign}int{bits}": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, kw_only=True)
class VideoRef:
    """Where one episode lies in a camera's video file: from `from_s` up to, without, `to_s` where stated."""

    path: Path
    from_s: float
    to_s: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One recorded attempt. Row i of every column and frame i of every camera belong to the same moment.

    `columns` maps a name to (T, d), scalars to (T, 1), features of more axes to (T, ...); floats in the declared
    precision, whole numbers and booleans in theirs, text as str. `times_s` (T,) starts near 0. `task` is the text as
    recorded, "" when it holds no words; several phrasings of one task, which datasets separate by "|", are in
    `phrasings`. A recording whose task changes on the way lists every text in `tasks`, in order of appearance.
    """

    index: int
    length: int
    fps: float
    task: str
    tasks: tuple[str, ...]
    phrasings: tuple[str, ...]
    times_s: Float64[np.ndarray, " T"]
    columns: Mapping[str, np.ndarray]
    cameras: Mapping[str, VideoRef]
    limits: Limits = LIMITS
    trusted: bool = False

    def frames(self, camera: str, start: int = 0, stop: int | None = None) -> UInt8[np.ndarray, "T H W 3"]:
        """Frames start..stop of one camera, uint8 RGB; never from a neighbouring episode in the same file.

        Raises:
            DatasetError: no such camera, a range outside the episode, or no frame at the time of a row.
        """
        stop = self.length if stop is None else stop
        if camera not in self.cameras:
            raise DatasetError(
                f"Episode {self.index} has no camera {camera!r}. It has: {', '.join(self.cameras) or 'none'}."
            )
        if not 0 <= start < stop <= self.length:
            raise DatasetError(
                f"Episode {self.index} has no frames {start} to {stop}. Give 0 <= start < stop <= {self.length}."
            )
        video = self.cameras[camera]
        times = video.from_s + self.times_s[start:stop]
        if video.to_s is not None and times[-1] >= video.to_s:
            raise DatasetError(
                f"Episode {self.index}: frame {stop - 1} of {camera} is at {times[-1]:.4f} s, but its part of "
                f"{video.path} ends at {video.to_s:.4f} s. Export the dataset again."
            )
        try:
            # A quarter of a frame: rounding of stored times is far below it, a neighbouring frame far above.
            return read_video_at(
                video.path, times.tolist(), tolerance_s=0.25 / self.fps, limits=self.limits, trusted=self.trusted
            )
        except MediaError as error:
            raise DatasetError(f"Episode {self.index}, camera {camera}: {error}") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A folder of episodes. Nothing but the index is in memory; `episode` reads one.

    `problems` says, one line each, how the folder differs from the layout or is incomplete: missing videos that were
    passed over, empty task texts, counts that disagree. Show it to the user.
    """

    root: Path
    fps: float
    robot_type: str | None
    features: Mapping[str, Mapping[str, Any]]
    cameras: tuple[str, ...]
    problems: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    tasks: Mapping[int, str]
    video_files: Mapping[tuple[int, str], VideoRef]
    data_files: Mapping[int, Path]
    limits: Limits = LIMITS
    trusted: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def episode(self, index: int, *, columns: Sequence[str] | None = None) -> Episode:
        """Read the rows of one episode; `columns` limits which features are read, all of them by default.

        Raises:
            DatasetError: no such episode or column, or its rows contradict the index: their number, order, times,
                widths; or NaN or infinity among them.
        """
        if not 0 <= index < len(self.rows):
            raise DatasetError(f"There is no episode {index} in {self.root}; it holds 0 to {len(self.rows) - 1}.")
        names = [n for n, f in self.features.items() if f["dtype"] not in ("video", "image")]
        unknown = [n for n in columns or () if n not in names]
        if unknown:
            raise DatasetError(f"{self.root} has no column {', '.join(unknown)}. It has: {', '.join(names)}.")
        names = list(columns) if columns is not None else names
        length = int(self.rows[index]["length"])
        number = int(self.rows[index]["episode_index"])
        path = self.data_files[index]
        where = f"Episode {number} in {path}"
        needed = list(dict.fromkeys([*names, "episode_index", "frame_index", "timestamp", "task_index"]))
        table = read_table(path, keep=needed, filters=[("episode_index", "=", number)])
        missing = [n for n in needed if n not in table.column_names and n != "task_index"]
        if missing:
            raise DatasetError(f"{where}: columns {', '.join(missing)} are missing. Export the dataset again.")
        if table.num_rows != length:
            raise DatasetError(f"{where} has {table.num_rows} rows, the index says {length}. It was not finished.")
        if table["frame_index"].to_pylist() != list(range(length)):
            raise DatasetError(f"{where}: frame_index does not count 0 to {length - 1}. Its rows are out of order.")
        times = column(table["timestamp"], {"dtype": "float64", "shape": [1]}, f"{where}, timestamp")[:, 0]
        if not (np.diff(times) > 0).all():
            raise DatasetError(f"{where}: timestamps do not rise at row {int(np.argmin(np.diff(times) > 0)) + 1}.")
        texts = self._texts(table, self.rows[index])
        phrasings = phrasings_of(texts[0])
        return Episode(
            index=index,
            length=length,
            fps=self.fps,
            task=texts[0].strip() if phrasings else "",
            tasks=texts,
            phrasings=phrasings,
            times_s=times,
            columns={n: column(table[n], self.features[n], f"{where}, {n}") for n in names if n in table.column_names},
            cameras={c: self.video_files[index, c] for c in self.cameras if (index, c) in self.video_files},
            limits=self.limits,
            trusted=self.trusted,
        )

    def _texts(self, table: pa.Table, row: Mapping[str, Any]) -> tuple[str, ...]:
        if "task_index" not in table.column_names:
            return tuple(row.get("tasks") or [""])
        numbers = list(dict.fromkeys(table["task_index"].to_pylist()))
        unknown = [n for n in numbers if n not in self.tasks]
        if unknown:
            raise DatasetError(
                f"Episode {row['episode_index']} names task {unknown[0]}, which tasks.parquet does not have."
            )
        return tuple(self.tasks[n] for n in numbers)


def open_dataset(
    root: str | Path, *, cameras: Cameras = "all", limits: Limits = LIMITS, trusted: bool = False
) -> Dataset:
    """Open a LeRobot v3.0 folder.

    Args:
        cameras: "all" demands every video that the folder declares; "available" goes on with those that exist and
            names the others in `problems`; a list of names demands these and leaves the rest alone.
        trusted: decode videos in this process (see `media`).

    Raises:
        DatasetError: not such a folder, another version, a damaged or self-contradicting index, or missing videos.
    """
    root = Path(root)
    problems: list[str] = []
    info = read_info(root, problems)
    features: dict[str, dict[str, Any]] = info["features"]
    rows = read_index(root, info, problems)
    tasks = read_tasks(root, problems)
    problems += [
        f"Task {number} is an empty text; its episodes have no caption."
        for number, text in tasks.items()
        if not phrasings_of(text)
    ]
    declared = tuple(n for n, f in features.items() if f["dtype"] == "video")
    pictures = [n for n, f in features.items() if f["dtype"] == "image"]
    if pictures:
        problems.append(f"Cameras {', '.join(pictures)} are stored as single pictures, which are not read.")
    if isinstance(cameras, str) and cameras not in ("all", "available"):
        raise DatasetError(
            f'cameras={cameras!r} is neither "all", "available" nor a list of names. Give [{cameras!r}].'
        )
    chosen = declared if isinstance(cameras, str) else tuple(cameras)
    unknown = [c for c in chosen if c not in declared]
    if unknown:
        raise DatasetError(f"{root} has no camera {', '.join(unknown)}. It has: {', '.join(declared) or 'none'}.")
    refs = {(i, c): video_ref(root, info, row, c) for i, row in enumerate(rows) for c in chosen}
    lost = dict.fromkeys((c, r.path.relative_to(root)) for (_, c), r in refs.items() if not r.path.is_file())
    if lost:
        named = [f"Camera {c} has no video file {p}." for c, p in lost]
        if cameras != "available":
            found = [c for c in declared if c not in {name for name, _ in lost}]
            raise DatasetError(
                f'{root}: {" ".join(named)} Complete the folder, or open it with cameras="available" to go on with: '
                f"{', '.join(found) or 'no camera'}."
            )
        problems += named
    refs = {key: ref for key, ref in refs.items() if ref.path.is_file()}
    return Dataset(
        root=root,
        fps=float(info["fps"]),
        robot_type=None if info.get("robot_type") is None else str(info["robot_type"]),
        features=features,
        cameras=tuple(c for c in chosen if any((i, c) in refs for i in range(len(rows)))),
        problems=tuple(problems),
        rows=tuple(rows),
        tasks=tasks,
        video_files=refs,
        data_files=data_files(root, info, rows),
        limits=limits,
        trusted=trusted,
    )


def numbered(number: int) -> str:
    """Where below its folder the file of an episode lies that has one to itself, without suffix."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return f"chunk-{chunk:03d}/file-{file:03d}"


def extra_path(root: str | Path, name: str, suffix: str, number: int) -> Path:
    """Where an episode's file of a kind that LeRobot does not know lies, if it has one: its sound, events, seed."""
    return Path(root) / "extras" / name / f"{numbered(number)}.{suffix}"


def phrasings_of(text: str) -> tuple[str, ...]:
    """The ways one task is put, which datasets join with "|"; none for a text without words."""
    return tuple(part.strip() for part in text.split("|") if part.strip())


def read_info(root: Path, problems: list[str]) -> dict[str, Any]:
    """meta/info.json, its version, rate, templates and features checked."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DatasetError(
            f"{root} is not a LeRobot dataset: it has no meta/info.json. Give the folder that holds meta/."
        )
    try:
        info = json.loads(path.read_bytes())
    except ValueError:
        raise DatasetError(f"{path} is not valid JSON. Export the dataset again.") from None
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DatasetError(f"{path} does not list features. Export the dataset again.")
    version = info.get("codebase_version")
    if version != "v3.0":
        step = " Convert it with LeRobot's v2.1 to v3.0 converter." if version in ("v2.0", "v2.1") else ""
        raise DatasetError(f"{root} has LeRobot layout {version!r}; v3.0 is read.{step}")
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise DatasetError(f"{path} states fps {fps!r}; it must be a number above 0 and at most 1000.")
    for name, feature in info["features"].items():
        known = isinstance(feature, dict) and feature.get("dtype") in (*NUMBERS, "string", "video", "image")
        shape = feature.get("shape") if known else None
        if (
            not isinstance(shape, list)
            or not all(type(n) is int and n > 0 for n in shape)
            or "/" in name
            or ".." in name
        ):
            raise DatasetError(
                f"{path} describes the feature {name!r} in a way that is not read: {str(feature)[:200]}."
            )
        if not feature["shape"]:
            problems.append(f"Feature {name} declares no shape; it is read with one value a frame.")
    old = sorted({n for key in ("data_path", "video_path") for n in re.findall(r"{(episode_\w+)", str(info.get(key)))})
    if old:
        problems.append(f"Path templates use the old placeholders {', '.join(old)}.")
    return info


def read_index(root: Path, info: Mapping[str, Any], problems: list[str]) -> list[dict[str, Any]]:
    """One dict an episode, in order, from every file below meta/episodes; statistics are left out."""
    files = sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
    rows = [row for file in files for row in read_table(file).to_pylist()]
    if not rows:
        raise DatasetError(f"{root} lists no episodes below meta/episodes. Was the recording finished?")
    for row in rows:
        if not isinstance(row.get("episode_index"), int) or not isinstance(row.get("length"), int) or row["length"] < 1:
            raise DatasetError(f"{root}: an episode of the index has no number or length: {str(row)[:200]}.")
    rows.sort(key=lambda r: r["episode_index"])
    numbers = [r["episode_index"] for r in rows]
    if len(set(numbers)) != len(numbers):
        raise DatasetError(f"{root}: the index lists an episode twice. Export the dataset again.")
    for key, counted in (("total_episodes", len(rows)), ("total_frames", sum(r["length"] for r in rows))):
        if info.get(key) != counted:
            problems.append(f"info.json says {key} {info.get(key)}, the index holds {counted}.")
    splits = info.get("splits")
    # Several splits share the episodes; `check` looks at those.
    if isinstance(splits, dict) and len(splits) < 2 and splits.get("train", f"0:{len(rows)}") != f"0:{len(rows)}":
        problems.append(f"info.json says split train {splits['train']!r}, the index holds episodes 0:{len(rows)}.")
    return rows


def read_tasks(root: Path, problems: list[str]) -> dict[int, str]:
    """meta/tasks.parquet: the text is the pandas index ("task" or unnamed) or, in some datasets, a plain column."""
    path = root / "meta" / "tasks.parquet"
    if not path.is_file():
        raise DatasetError(f"{root} has no meta/tasks.parquet. Export the dataset again.")
    table = read_table(path)
    names = [n for n in ("task", "__index_level_0__") if n in table.column_names]
    if not names or "task_index" not in table.column_names or not pa.types.is_integer(table["task_index"].type):
        raise DatasetError(
            f"{path} has columns {', '.join(table.column_names)}; task and a whole task_index are needed."
        )
    pandas = (table.schema.metadata or {}).get(b"pandas", b"")
    if not re.search(rb'"index_columns":\s*\["' + names[0].encode(), pandas):
        problems.append("tasks.parquet has the text in a plain column; LeRobot itself would read numbers instead.")
    texts = table[names[0]].to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise DatasetError(f"{path} has a task that is not text. Export the dataset again.")
    return dict(zip(table["task_index"].to_pylist(), texts, strict=True))


def read_table(
    path: Path, keep: Sequence[str] | None = None, filters: Sequence[tuple[str, str, int]] | None = None
) -> pa.Table:
    """Rows of a parquet file that pass `filters`: the columns of `keep` that it has, else all but its statistics."""
    try:
        names = pq.read_schema(path).names
        wanted = [n for n in names if (n in keep if keep is not None else not n.startswith("stats/"))]
        return pq.read_table(path, columns=wanted, filters=list(filters) if filters else None)
    except (pa.ArrowException, OSError):
        raise DatasetError(f"{path} is damaged and cannot be read. Copy or export it again.") from None


def place(root: Path, info: Mapping[str, Any], key: str, chunk: int, file: int, camera: str) -> Path:
    """Fill a path template of info.json. Only known placeholders count, and the result stays below `root`."""
    template = info.get(key)
    if not isinstance(template, str):
        raise DatasetError(f"{root}: info.json has no {key}. Export the dataset again.")
    values: dict[str, int | str] = {"chunk": chunk, "file": file, "camera": camera}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in PLACEHOLDERS:
            raise DatasetError(f"{root}: {key} {template!r} has an unknown placeholder {match[1]!r}.")
        value = values[PLACEHOLDERS[match[1]]]
        return value if isinstance(value, str) else format(int(value), match[2] or "")

    filled = PurePosixPath(re.sub(r"{(\w+)(?::(0\d+d))?}", fill, template))
    if filled.is_absolute() or ".." in filled.parts or set("{}") & set(str(filled)):
        raise DatasetError(f"{root}: {key} {template!r} does not stay inside the dataset.")
    return root / filled


def video_ref(root: Path, info: Mapping[str, Any], row: Mapping[str, Any], camera: str) -> VideoRef:
    """Where an episode's frames lie. Without entries in the index: the first file, from its beginning."""
    prefix = f"videos/{camera}/"
    chunk, file = row.get(f"{prefix}chunk_index") or 0, row.get(f"{prefix}file_index") or 0
    ends = row.get(f"{prefix}to_timestamp")
    if row.get(f"{prefix}from_timestamp") is None and row["episode_index"] != 0:
        raise DatasetError(
            f"{root}: the index does not say where episode {row['episode_index']} of {camera} begins in its video."
        )
    return VideoRef(
        path=place(root, info, "video_path", chunk, file, camera),
        from_s=float(row.get(f"{prefix}from_timestamp") or 0.0),
        to_s=None if ends is None else float(ends),
    )


def data_files(root: Path, info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[int, Path]:
    """The parquet file of every episode, by position in `rows`; searched for where the index does not say."""
    if all(r.get("data/file_index") is not None and r.get("data/chunk_index") is not None for r in rows):
        files = {
            i: place(root, info, "data_path", r["data/chunk_index"], r["data/file_index"], "")
            for i, r in enumerate(rows)
        }
    else:
        homes = {}
        for path in sorted((root / "data").glob("chunk-*/file-*.parquet")):
            for row in set(read_table(path, keep=["episode_index"]).column("episode_index").to_pylist()):
                homes[row] = path
        files = {i: homes.get(r["episode_index"], root / "data") for i, r in enumerate(rows)}
    for i, path in files.items():
        if not path.is_file():
            raise DatasetError(f"Episode {rows[i]['episode_index']} has no data file {path}. Complete the folder.")
    return files


def column(values: pa.ChunkedArray, feature: Mapping[str, Any], where: str) -> np.ndarray:
    """One feature of one episode as (T, d) or (T, *shape), its declared type and width held against what is stored."""
    if values.null_count:
        raise DatasetError(f"{where}: a value is missing. Export the dataset again.")
    if feature["dtype"] == "string":
        return np.array(values.to_pylist(), dtype=np.str_).reshape(len(values), 1)
    rows, array = len(values), values.combine_chunks()
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if len(pc.unique(pc.list_value_length(array))) > 1:
            raise DatasetError(f"{where}: frames differ in how many values they hold. Export the dataset again.")
        array = array.flatten()
    try:
        flat = array.to_numpy(zero_copy_only=False).astype(NUMBERS[feature["dtype"]], casting="same_kind")
    except (TypeError, ValueError):
        raise DatasetError(f"{where} is declared {feature['dtype']} and stored as {array.type}.") from None
    shape = tuple(feature["shape"]) or (1,)
    if flat.size != rows * int(np.prod(shape)):
        raise DatasetError(f"{where} is declared {list(shape)} and stores {flat.size} values in {rows} frames.")
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        bad = int(np.argmin(np.isfinite(flat.reshape(rows, -1)).all(axis=1)))
        raise DatasetError(f"{where} holds NaN or infinity at frame {bad}. Leave the column out, or mend it.")
    return flat.reshape(rows, *shape)
