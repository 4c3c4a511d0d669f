"""Look for faults in a recorded dataset that no reader would notice: units, signs, lags, leaks, missing frames.

Every check is a function that returns findings. Those of one episode see it whole; those across episodes see a
`Summary` of each, so that thousands of episodes are read one at a time. Errors are facts; what is inferred from the
values (units, signs, lags) is a warning at most. How files are read is in `lerobot`.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from orrery.data.lerobot import Dataset, Episode, extra_path, open_dataset, read_info
from orrery.data.lerobot_writer import COUNTERS
from orrery.data.media import probe_video
from orrery.errors import DatasetError, MediaError

Severity = Literal["error", "warning", "note"]
Kind = Literal["absolute", "delta"]

PROBLEMS: tuple[tuple[str, Severity, str], ...] = (
    ("has no video file", "error", "Complete the folder, or take the camera out of info.json."),
    ("plain column", "error", "Write tasks.parquet again with the text as its pandas index."),
    ("is an empty text", "warning", "Write what the robot does into meta/tasks.parquet."),
    ("info.json says", "warning", "Correct meta/info.json."),
    ("declares no shape", "note", "Write its shape into meta/info.json, [1] for one value."),
    ("old placeholders", "note", "Use chunk_index and file_index in meta/info.json."),
    ("single pictures", "note", "Convert them to videos if they are to be used."),
)
"""How bad is what `open_dataset` reports, by a part of its text, and what to do."""
UNIT_FACTORS = {25.4: "inches and mm", 180 / np.pi: "degrees and radians", 100.0: "cm and m", 1000.0: "mm and m"}
UNIT_SLACK = 2.0
"""How far the ratio of two groups of episodes may be from a factor: motions differ, so their ratio is never exact."""
UNIT_GAP, UNIT_LEAD = 8.0, 3.0
"""Scales of episodes in one unit lie closer together than this; the smallest factor is three times that. The gap is
also so many times the spread on either side of it, or one quiet episode would look like another unit."""
JUMP_STEPS, JUMP_SHARE, JUMP_EPISODES = 30.0, 1 / 3, 1 / 4
"""A jump is so many usual steps and such a share of the range; what does so in more episodes does so by nature."""
STILL, LEAST_RANGE, LEAST_STEPS = 1e-4, 1e-3, 10
"""Steps below this share of the range are noise at rest, and so is a whole range below 1 mm or 1 mrad; fewer steps than
the last have no usual size."""
MAX_SPILL = 14
"""The longest vector looked for down the rows of a column; two arms of seven joints."""
LEAST_CORRELATION, LEAST_SIGMAS, CLEAR_LEAD = 0.6, 5.0, 0.1
PAIR_SHARE = 1 / 4
"""Of the episodes that say anything about lags, the least share in which an action goes with the same value."""
LEAST_MOVING = 40
"""Rows in which a command and the state both move, for an episode to say anything about lags."""
QUIET = 0.5
"""An action that moves less than this share of what is usual for it says nothing about the lag of its episode."""
ODD_LEAD, ODD_SIGMAS = 0.2, 4.0
"""By how much of r squared, and how far from chance, an episode's own lag must lead the dataset's.

Either alone is not enough: where r is near 1 a servo's smear is significant but small; in a controller that holds its
command for long, any two neighbouring lags go nearly equally well, and few independent samples tell them apart.
"""
POLARITY_S, POLARITY_SHARE, CLEAR_SIGN = (0.3, 1.0), 0.1, 0.6
"""How long a command is waited for, least and most; the share of its range an aperture answers with; how much of that
goes one way."""
MAX_LAG_S = 0.7
DECIMALS = 4
"""Values are rounded to these before contents are compared, as a conversion between float formats may have done."""
SHOWN = 20
"""Findings of one kind that the text lists."""
APERTURE = re.compile("gripper|aperture|width|finger", re.I)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault: how bad, which check found it, where, what is wrong and what to do about it."""

    severity: Severity
    check: str
    where: str
    what: str
    step: str

    def to_text(self) -> str:
        return f"{self.severity}: {self.where}: {' '.join(self.what.split())} {self.step}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was looked at and what was found, worst first."""

    dataset: str
    episodes: int
    frames: int
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        lines: list[str] = []
        for (severity, check), count in Counter((f.severity, f.check) for f in self.findings).items():
            alike = [f.to_text() for f in self.findings if (f.severity, f.check) == (severity, check)]
            lines += alike[:SHOWN] + [f"{severity}: {count - SHOWN} more of {check}; JSON has them all."] * (
                count > SHOWN
            )
        counts = [f"{(n := self.count(s))} {s}{'s' * (n != 1)}" for s in ("error", "warning", "note")]
        total = f"{self.episodes} episodes, {self.frames} frames: {', '.join(counts)}."
        return "\n".join([*lines, total])


@dataclass(frozen=True, kw_only=True, eq=False)
class Lag:
    """How one value of an action relates to a value of the state.

    `profile` holds the size of their correlation at -most..most steps from the action to the state that shows it.
    """

    action: str
    state: str
    kind: Kind
    profile: Float[np.ndarray, " lags"]
    samples: float
    """Independent ones, see `independent`."""
    size: float
    """Root mean square of what was compared of the action."""

    def at(self, steps: int) -> float:
        """NaN where this lag was not tried."""
        return float(self.profile[steps + len(self.profile) // 2]) if abs(steps) <= len(self.profile) // 2 else np.nan


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an aperture did after the changes of a command: how much in all, and how much of it the command's way."""

    changes: int
    moved: float
    along: float

    @property
    def sign(self) -> float:
        """1: it opens when the command rises; -1: it closes."""
        return self.along / self.moved if self.moved else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """What checks across episodes need of one. Values are keyed by "column value"."""

    number: int
    split: str
    low: Mapping[str, float]
    high: Mapping[str, float]
    level: Mapping[str, float]
    """The size that 95 of 100 values stay below."""
    step: Mapping[str, float]
    """See `usual_step`."""
    leaps: Mapping[str, Float[np.ndarray, "jumps 2"]]
    """What may be jumps, if the dataset's range and usual step agree: the frame before each, and its size."""
    polarity: Mapping[tuple[str, str], "Answers"]
    """How an aperture answers the changes of a gripper's command."""
    lags: tuple[Lag, ...]
    columns_hash: str
    content_hash: str
    video_hashes: Mapping[str, str]
    seed: int | None


def check_dataset(
    root: str | Path, *, against: Sequence[str | Path] = (), tell: Callable[[int, int], None] = lambda done, total: None
) -> Report:
    """Run every check on a LeRobot v3.0 folder.

    Args:
        against: other datasets, which must share no episode with this one: train against test.
        tell: called with how many episodes are done, and of how many.

    Raises:
        DatasetError: one of the folders is no such dataset.
    """
    root = Path(root)
    dataset = open_dataset(root, cameras="available")
    others = [open_dataset(other, cameras="available") for other in against]
    if any(other.root.resolve() == root.resolve() for other in others):
        raise DatasetError(f"{root} was to be checked against itself. Give another dataset.")
    findings = [problem_finding(problem) for problem in dataset.problems]
    splits = read_splits(dataset, findings)
    total, hashes = len(dataset) + sum(map(len, others)), FileHashes()
    summaries: list[Summary] = []
    broken = check_video_files(dataset, findings)
    for index in range(len(dataset)):
        episode = read_episode(dataset, index, findings)
        if episode is not None:
            # A frame is looked for at its row's time, so wrong times are said once, not for each camera again.
            findings += check_times(episode) or check_ends(episode, broken)
            values = series(dataset, episode)
            findings += check_spilled(episode.index, {name: values[name] for name in single(dataset, episode)})
            summaries.append(summarise(dataset, episode, values, splits[index], hashes))
        tell(index + 1, total)
    for across in (
        check_jumps,
        check_units,
        check_polarity,
        check_constants,
        check_lags,
        check_duplicates,
        check_splits,
    ):
        findings += across(summaries)
    done = len(dataset)
    for other in others:
        theirs = []
        for index in range(len(other)):
            episode = read_episode(other, index, [])
            theirs += [] if episode is None else [fingerprint(other, episode)]
            tell(done := done + 1, total)
        mine = [(s.number, s.seed, s.content_hash) for s in summaries]
        findings += check_leak(mine, theirs, str(other.root))
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    frames = sum(int(row["length"]) for row in dataset.rows)
    return Report(dataset=str(root), episodes=len(dataset), frames=frames, findings=tuple(findings))


def problem_finding(problem: str) -> Finding:
    for words, severity, step in PROBLEMS:
        if words in problem:
            return Finding(severity=severity, check="layout", where="dataset", what=problem, step=step)
    return Finding(severity="warning", check="layout", where="dataset", what=problem, step="Export the dataset again.")


def read_splits(dataset: Dataset, findings: list[Finding]) -> list[str]:
    """The split of every episode by position; "" for all where there is only one, or one that is not understood."""
    names = [""] * len(dataset)
    splits = read_info(dataset.root, []).get("splits")
    if not isinstance(splits, dict) or len(splits) < 2:
        return names
    for name, span in splits.items():
        match = re.fullmatch(r"(\d+):(\d+)", str(span))
        inside = match and int(match[1]) <= int(match[2]) <= len(dataset)
        if not match or not inside or any(names[int(match[1]) : int(match[2])]):
            what = f"split {name} is {span!r}, which is no range of its own within episodes 0:{len(dataset)}."
            findings.append(
                Finding(severity="warning", check="layout", where="info.json", what=what, step="Correct the splits.")
            )
            continue
        names[int(match[1]) : int(match[2])] = [name] * (int(match[2]) - int(match[1]))
    return names


def read_episode(dataset: Dataset, index: int, findings: list[Finding]) -> Episode | None:
    """The episode with the columns that can be read; what the reader refuses becomes a finding."""
    where = f"episode {index}"
    try:
        return dataset.episode(index)
    except DatasetError:
        pass  # said below, column by column
    try:
        dataset.episode(index, columns=[])
    except DatasetError as error:
        step = "The episode was not checked further."
        findings.append(Finding(severity="error", check="rows", where=where, what=str(error), step=step))
        return None
    readable = []
    for name in (n for n, f in dataset.features.items() if f["dtype"] not in ("video", "image")):
        try:
            dataset.episode(index, columns=[name])
            readable.append(name)
        except DatasetError as error:
            step = "The column was not checked further."
            findings.append(
                Finding(severity="error", check="values", where=f"{where}, {name}", what=str(error), step=step)
            )
    return dataset.episode(index, columns=readable)


def check_times(episode: Episode) -> list[Finding]:
    """Timestamps against frame number and rate; that they rise is held by the reader."""
    off = np.abs(episode.times_s - np.arange(episode.length) / episode.fps)
    late = np.flatnonzero(off > 0.25 / episode.fps)
    if not len(late):
        return []
    what = (
        f"from frame {late[0]} on, {len(late)} of {episode.length} timestamps are more than a quarter of a frame from "
        f"frame_index / fps, by {off.max():.4f} s at most."
    )
    step = "Correct fps in info.json, or write timestamp = frame_index / fps."
    return [Finding(severity="error", check="timestamps", where=f"episode {episode.index}", what=what, step=step)]


def check_video_files(dataset: Dataset, findings: list[Finding]) -> set[Path]:
    """Every video file's stated frames and rate against rows and rate. Returns the files with an error."""
    rows: dict[Path, int] = defaultdict(int)
    homes: dict[Path, tuple[list[int], str]] = {}
    for (index, camera), ref in dataset.video_files.items():
        rows[ref.path] += int(dataset.rows[index]["length"])
        homes.setdefault(ref.path, ([], camera))[0].append(index)
    broken = set()
    for path, (episodes, camera) in homes.items():
        where, name = f"{listed(episodes)}, {camera}", path.relative_to(dataset.root)
        severity: Severity = "error"
        try:
            facts = probe_video(path, limits=dataset.limits, trusted=dataset.trusted)
        except MediaError as error:
            what = str(error)
        else:
            if abs(float(facts.fps) - dataset.fps) > 0.01 * dataset.fps:
                what = f"{name} runs at {float(facts.fps):g} frames a second, the dataset at {dataset.fps:g}."
            elif facts.frames is not None and facts.frames < rows[path]:
                what = f"{name} holds {facts.frames} frames for {rows[path]} rows."
            elif facts.frames is not None and facts.frames > rows[path]:
                what = f"{name} holds {facts.frames} frames, {facts.frames - rows[path]} more than there are rows."
                severity = "warning"
            else:
                continue
        step = "Encode the video again from the recording, one frame a row."
        findings.append(Finding(severity=severity, check="video", where=where, what=what, step=step))
        broken |= {path} if severity == "error" else set()
    return broken


def check_ends(episode: Episode, broken: set[Path]) -> list[Finding]:
    """That the first and the last row have their frame, in every video that is not `broken` already."""
    findings = []
    for camera, ref in episode.cameras.items():
        try:
            for frame in () if ref.path in broken else sorted({0, episode.length - 1}):
                episode.frames(camera, frame, frame + 1)
        except DatasetError as error:
            where, step = f"episode {episode.index}, {camera}", "Encode the video again, frame i at i / fps."
            findings.append(Finding(severity="error", check="video", where=where, what=str(error), step=step))
    return findings


def series(dataset: Dataset, episode: Episode) -> dict[str, Float[np.ndarray, " T"]]:
    """Every number of an episode over time, by "column value"; counters and texts are left out."""
    found: dict[str, Float[np.ndarray, " T"]] = {}
    for name, values in episode.columns.items():
        if name in COUNTERS or values.dtype.kind not in "fiub":
            continue
        flat = values.reshape(len(values), -1).astype(np.float64)
        found |= {f"{name} {label}".strip(): flat[:, i] for i, label in enumerate(labels(dataset, name, flat.shape[1]))}
    return found


def labels(dataset: Dataset, name: str, width: int) -> list[str]:
    """The names of a column's values, numbers where it has none; "" for a single value without a name."""
    names: Any = dataset.features[name].get("names")
    while isinstance(names, dict) and len(names) == 1:  # {"motors": [...]}, as older tools write
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == width and all(isinstance(n, str) for n in names):
        return names
    return [""] if width == 1 else [str(i) for i in range(width)]


def single(dataset: Dataset, episode: Episode) -> list[str]:
    """Those of `series` whose column has one value a row."""
    columns = {name: values for name, values in episode.columns.items() if name not in COUNTERS}
    names = [n for n, values in columns.items() if values.size == len(values) and values.dtype.kind in "fiub"]
    return [f"{name} {labels(dataset, name, 1)[0]}".strip() for name in names]


def usual_step(value: Float[np.ndarray, " T"]) -> float:
    """The median change from row to row, of those that are more than noise at rest; 0 if they are too few to say."""
    sizes = np.abs(np.diff(value))
    moving = sizes[sizes > STILL * np.ptp(value)]
    return float(np.median(moving)) if len(moving) >= LEAST_STEPS else 0.0


def leaps(value: Float[np.ndarray, " T"]) -> Float[np.ndarray, "jumps 2"]:
    sizes = np.abs(np.diff(value))
    at = np.flatnonzero(sizes > JUMP_SHARE * np.ptp(value))
    return np.stack([at.astype(np.float64), sizes[at]], axis=1)


def check_jumps(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """Single steps far outside the usual ones, in what is measured: commands may change from row to row, and so may
    a gripper. Range and usual step are the dataset's, since an episode may have little of either."""
    for name in (n for n in names_of(summaries) if is_state(n) and not APERTURE.search(n)):
        of = [s for s in summaries if name in s.low]
        extent = max(s.high[name] for s in of) - min(s.low[name] for s in of)
        steps = [s.step[name] for s in of if s.step[name] > STILL * extent]
        if extent < LEAST_RANGE or not steps:
            continue
        usual = float(np.median(steps))
        least = max(JUMP_STEPS * usual, JUMP_SHARE * extent)
        large = {s.number: s.leaps[name][s.leaps[name][:, 1] > least] for s in of if name in s.leaps}
        found = {number: jumps for number, jumps in large.items() if len(jumps)}
        turns = {number: whole_turn(float(jumps[0, 1])) for number, jumps in found.items()}
        natural = [number for number in found if not turns[number]]
        if len(natural) > max(1, JUMP_EPISODES * len(of)):
            size = float(found[natural[0]][0, 1])
            what = f"it jumps by {size:.4g} or so, {size / usual:.0f} usual steps."
            where, step = f"{listed(natural)}, {name}", "A force or a contact may; a position may not."
            yield Finding(severity="note", check="jumps", where=where, what=what, step=step)
            found = {number: jumps for number, jumps in found.items() if turns[number]}
        for number, jumps in found.items():
            at, size = int(jumps[0, 0]), float(jumps[0, 1])
            turn = f" That is a whole turn of {turns[number]}." if turns[number] else ""
            what = (
                f"it jumps by {size:.4g} from frame {at} to {at + 1}, {size / usual:.0f} times a usual step, "
                f"{len(jumps)} such in all.{turn}"
            )
            step = "Unwrap the angle." if turn else "Look at the recording there: a lost sample, a reset, another unit?"
            yield Finding(severity="warning", check="jumps", where=f"episode {number}, {name}", what=what, step=step)


def whole_turn(size: float) -> str:
    turns = (("2 pi", 2 * np.pi), ("360 degrees", 360.0))
    return next((text for text, turn in turns if abs(size / turn - 1) < 0.05), "")


def check_spilled(number: int, values: Mapping[str, Float[np.ndarray, " T"]]) -> Iterator[Finding]:
    """A vector written down the rows of a column of single values: a few different ones, then the last one for ever."""
    for name, value in values.items():
        width = spilled(value)
        if width and not APERTURE.search(name):  # an aperture is one value; jaws that meet a thing shake and stand
            what = (
                f"the first {width - 1} rows differ and the other {len(value) - width + 1} are all {value[-1]:.6g}. It "
                f"looks like one vector of {width}, written down the rows."
            )
            step = "Export the column again with its full width."
            yield Finding(severity="warning", check="spilled", where=f"episode {number}, {name}", what=what, step=step)


def spilled(value: Float[np.ndarray, " T"]) -> int:
    """How long the vector is that was written down the rows, or 0.

    What comes to rest looks like it, but it goes on one way as it does, or, if it is a command, to 0.
    """
    changes = np.flatnonzero(np.diff(value))
    width = len(changes) + 1
    if not 3 < width <= MAX_SPILL or changes[-1] != width - 2 or len(value) < 4 * MAX_SPILL or value[-1] == 0:
        return 0
    turns = np.count_nonzero(np.diff(np.sign(np.diff(value[:width]))))
    return width if turns >= 2 else 0


def summarise(
    dataset: Dataset, episode: Episode, values: Mapping[str, Float[np.ndarray, " T"]], split: str, hashes: "FileHashes"
) -> Summary:
    number, seed, content = fingerprint(dataset, episode)
    digest = hashlib.sha256()
    for name in sorted(n for n in episode.columns if n not in COUNTERS):
        array = episode.columns[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return Summary(
        number=number,
        split=split,
        low={name: float(value.min()) for name, value in values.items()},
        high={name: float(value.max()) for name, value in values.items()},
        level={name: float(np.quantile(np.abs(value), 0.95)) for name, value in values.items()},
        step={name: usual_step(value) for name, value in values.items()},
        leaps={name: leaps(value) for name, value in values.items() if is_state(name) and not spilled(value)},
        polarity=polarities(values, episode.fps),
        lags=tuple(lags(values, episode.fps)),
        columns_hash=digest.hexdigest(),
        content_hash=content,
        video_hashes={c: f"{hashes.of(ref.path)} {ref.from_s:.4f}" for c, ref in episode.cameras.items()},
        seed=seed,
    )


def fingerprint(dataset: Dataset, episode: Episode) -> tuple[int, int | None, str]:
    """Number, seed where extras/about states one, and a hash of the rounded actions and states."""
    about = extra_path(dataset.root, "about", "json", int(dataset.rows[episode.index]["episode_index"]))
    seed = None
    if about.is_file():
        try:
            stated = json.loads(about.read_bytes())
        except ValueError:
            raise DatasetError(f"{about} is not valid JSON. Record the episode again, or remove the file.") from None
        found = stated.get("seed") if isinstance(stated, dict) else None
        seed = found if type(found) is int else None
    digest = hashlib.sha256()
    for name in sorted(n for n in episode.columns if is_action(n) or is_state(n)):
        array = episode.columns[name]
        if array.dtype.kind in "fiub":
            digest.update(name.encode() + (np.round(array.astype(np.float64), DECIMALS) + 0.0).tobytes())
    return episode.index, seed, digest.hexdigest()


class FileHashes:
    """Hashes of whole files; episodes that share one follow each other, so each is read once."""

    def __init__(self) -> None:
        self.last: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        if path not in self.last:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            self.last = {p: h for p, h in self.last.items() if p.parent.parent != path.parent.parent} | {path: found}
        return self.last[path]


def is_action(name: str) -> bool:
    return re.match(r"actions?\b", name) is not None


def is_state(name: str) -> bool:
    return re.match(r"(observation|state)\b", name) is not None


def check_units(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """Two groups of episodes whose values differ in size by a factor between common units, and whose steps do so too:
    an episode that keeps still, or stays at another place, has smaller values but not steps smaller alike."""
    groups: dict[tuple[str, float, tuple[int, ...]], list[tuple[str, float]]] = defaultdict(list)
    for name in names_of(summaries):
        found = sorted((s.level[name], s.number) for s in summaries if s.level.get(name, 0) > 0 and s.step[name] > 0)
        gaps = [high[0] / low[0] for low, high in pairwise(found)]
        if not gaps or max(gaps) < UNIT_GAP:
            continue
        cut = int(np.argmax(gaps)) + 1
        small, large = found[:cut], found[cut:]
        ratio = float(np.median([s for s, _ in large]) / np.median([s for s, _ in small]))
        factor = min(UNIT_FACTORS, key=lambda f: abs(np.log(ratio / f)))
        widest = max(part[-1][0] / part[0][0] for part in (small, large))
        steps = {s.number: s.step[name] for s in summaries if name in s.step}
        moved = float(np.median([steps[n] for _, n in large]) / np.median([steps[n] for _, n in small]))
        if (
            max(x / factor for x in (ratio, moved)) > UNIT_SLACK
            or min(x / factor for x in (ratio, moved)) < 1 / UNIT_SLACK
        ):
            continue
        if UNIT_LEAD * widest < max(gaps):
            fewer, word = (small, "smaller") if len(small) < len(large) else (large, "larger")
            groups[word, factor, tuple(sorted(n for _, n in fewer))].append((name, ratio))
    for (word, factor, episodes), of in groups.items():
        ratio = float(np.median([r for _, r in of]))
        what = (
            f"values are {ratio:.3g} times {word} than in the other episodes, near the {factor:.4g} between "
            f"{UNIT_FACTORS[factor]}."
        )
        where, step = f"{listed(episodes)}, {', '.join(name for name, _ in of)}", "Convert them to one unit."
        yield Finding(severity="warning", check="units", where=where, what=what, step=step)


def polarities(values: Mapping[str, Float[np.ndarray, " T"]], fps: float) -> dict[tuple[str, str], Answers]:
    """What each gripper's aperture does once its command has changed from low to high or back, up to the next change.

    Levels are not compared: a command that follows what the aperture did goes with it the wrong way round as well.
    """
    found = {}
    apertures = [name for name in values if is_state(name) and APERTURE.search(name)]
    for command in (name for name in values if is_action(name) and "gripper" in name.lower()):
        words = set(re.split(r"[^a-z0-9]+", command.lower()))
        # Two hands: the aperture that shares the most words with the command.
        mine = max(apertures, key=lambda name: len(words & set(re.split(r"[^a-z0-9]+", name.lower()))), default=None)
        if mine is None:
            continue
        ordered, value = values[command], values[mine]
        high = ordered > (ordered.min() + ordered.max()) / 2
        least, most = (max(1, round(s * fps)) for s in POLARITY_S)
        changes = [*np.flatnonzero(high[1:] != high[:-1]) + 1, len(value) - 1]
        moves = [
            (1 if high[at] else -1) * float(value[min(after, at + most)] - value[at])
            for at, after in pairwise(changes) if after - at >= least
        ]  # fmt: skip
        found[command, mine] = Answers(changes=len(moves), moved=sum(map(abs, moves), 0.0), along=sum(moves, 0.0))
    return found


def check_polarity(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """Whether a larger command opens the gripper wider: in all episodes, in none, or in some."""
    for command, aperture in dict.fromkeys(pair for s in summaries for pair in s.polarity):
        of = [s for s in summaries if (command, aperture) in s.polarity]
        least = POLARITY_SHARE * (max(s.high[aperture] for s in of) - min(s.low[aperture] for s in of))
        told = {s.number: a for s in of if (a := s.polarity[command, aperture]).moved > least * a.changes}
        signs = {number: a.sign for number, a in told.items() if a.changes >= 2}
        up, down = [n for n, r in signs.items() if r > CLEAR_SIGN], [n for n, r in signs.items() if r < -CLEAR_SIGN]
        moved, along = sum(a.moved for a in told.values()), sum(a.along for a in told.values())
        if up and down:
            fewer, other = (down, "against") if len(down) <= len(up) else (up, "with")
            what = f"the command runs {other} {aperture}, elsewhere the other way."
            where, step = f"{listed(fewer)}, {command}", "Turn the command's sign there, so that it means one thing."
            yield Finding(severity="warning", check="polarity", where=where, what=what, step=step)
        elif sum(a.changes for a in told.values()) >= 2 and along < -CLEAR_SIGN * moved:
            what = f"a larger command makes {aperture} smaller."
            step = "State it in the action contract (gripper_open), or turn the sign."
            yield Finding(severity="warning", check="polarity", where=command, what=what, step=step)
        elif constant(summaries, aperture) and not constant(summaries, command):
            what = f"the command changes, {aperture} never does."
            step = "Record the gripper's state, or leave the column out."
            yield Finding(severity="warning", check="polarity", where=command, what=what, step=step)


def check_constants(summaries: Sequence[Summary]) -> Iterator[Finding]:
    for name in names_of(summaries):
        if constant(summaries, name):
            low = next(s.low[name] for s in summaries if name in s.low)
            what, step = f"it is {low:g} throughout the dataset.", "Leave it out of what is normalised and learned."
            yield Finding(severity="note", check="constant", where=name, what=what, step=step)


def constant(summaries: Sequence[Summary], name: str) -> bool:
    return len({v for s in summaries if name in s.low for v in (s.low[name], s.high[name])}) == 1


def correlations(x: Float[np.ndarray, " T"], y: Float[np.ndarray, "T S"], later: int) -> Float[np.ndarray, " S"]:
    """Pearson's r of x[t] with each of y[t + later]; 0 where one of them does not move."""
    if len(x) - abs(later) < 3:
        return np.zeros(y.shape[1])
    x, y = x[max(0, -later) : len(x) - max(0, later)], y[max(0, later) : len(y) + min(0, later)]
    x, y = x - x.mean(), y - y.mean(0)
    size = np.sqrt((x @ x) * (y * y).sum(0))
    return np.divide(x @ y, size, out=np.zeros(y.shape[1]), where=size > 1e-12).clip(-1, 1)


def correlation(x: Float[np.ndarray, " T"], y: Float[np.ndarray, " T"], later: int) -> float:
    return float(correlations(x, y[:, None], later)[0])


def independent(x: Float[np.ndarray, " T"], y: Float[np.ndarray, " T"]) -> float:
    """Bartlett's effective number of samples: values of a slow signal resemble their neighbours and count for less."""
    alike = sum(correlation(x, x, k) * correlation(y, y, k) for k in range(1, len(x) // 4))
    return len(x) / max(1.0, 1 + 2 * alike)


def sigmas(r: float, samples: float) -> float:
    """How far a correlation is from chance, by Fisher's z."""
    return float(np.arctanh(min(r, 1 - 1e-9)) * np.sqrt(max(samples - 3, 0.0)))


def lags(values: Mapping[str, Float[np.ndarray, " T"]], fps: float) -> Iterator[Lag]:
    """For every value of the actions the value of the state it goes with best, if chance cannot explain it.

    Targets are compared by their changes, since slow positions resemble themselves at any lag; displacements as they
    are. Either way a lag of 1 is an action whose effect the next row shows.
    """
    states = [name for name, value in values.items() if is_state(name) and np.ptp(value) > 0]
    length = len(next(iter(values.values()), ()))
    most = min(max(3, round(MAX_LAG_S * fps)), (length - 1) // 4)
    if not states or length <= LEAST_MOVING:
        return
    changes = np.stack([np.diff(values[name]) for name in states], axis=1)
    for action in filter(is_action, values):
        best: Lag | None = None
        kinds: tuple[tuple[Kind, np.ndarray, int], ...] = (
            ("absolute", np.diff(values[action]), 0), ("delta", values[action][:-1], 1)
        )  # fmt: skip
        for kind, x, shift in kinds:
            if moving(x).sum() < LEAST_MOVING:
                continue
            profiles = np.abs([correlations(x, changes, k - shift) for k in range(-most, most + 1)])
            top = profiles.max(0)
            for at in np.flatnonzero(top >= LEAST_CORRELATION):
                if best is not None and top[at] <= best.profile.max() + 1e-9:
                    continue
                later = int(profiles[:, at].argmax()) - most - shift
                both = np.roll(moving(x), later) & moving(changes[:, at])
                samples = independent(x, changes[:, at])
                if both.sum() >= LEAST_MOVING and sigmas(float(top[at]), samples) >= LEAST_SIGMAS:
                    size = float(np.sqrt(np.mean(x * x)))
                    best = Lag(action=action, state=states[at], kind=kind, profile=profiles[:, at], samples=samples,
                               size=size)  # fmt: skip
        if best is not None:
            yield best


def moving(x: Float[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """The rows in which a change or a displacement is more than noise at rest."""
    return np.abs(x) > 1e-3 * np.abs(x).max(initial=0.0)


def check_lags(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """How many steps after an action its effect shows: the same everywhere, and not before the action."""
    pairs: dict[str, dict[int, Lag]] = {}
    for action in dict.fromkeys(lag.action for s in summaries for lag in s.lags):
        of = [(s.number, lag) for s in summaries for lag in s.lags if lag.action == action]
        (state, kind), times = Counter((lag.state, lag.kind) for _, lag in of).most_common(1)[0]
        if times < PAIR_SHARE * sum(bool(s.lags) for s in summaries):
            continue  # among many episodes one or two go with something by chance
        alike = {n: lag for n, lag in of if (lag.state, lag.kind) == (state, kind)}
        # Where little is commanded, a target holds mostly the noise of the state that it was made from.
        least = QUIET * float(np.median([lag.size for lag in alike.values()]))
        pairs[action] = {n: lag for n, lag in alike.items() if lag.size > least}
    pooled = {action: pooled_lags(list(of.values())) for action, of in pairs.items()}
    usual = {action: max(scores, key=lambda k: scores[k]) for action, scores in pooled.items()}
    if not usual:
        return
    common = Counter(usual.values()).most_common(1)[0][0]
    follow: dict[int, list[str]] = defaultdict(list)
    for action, scores in pooled.items():
        steps, lag = usual[action], next(iter(pairs[action].values()))
        first = 1 if lag.kind == "delta" else 0
        if steps < first and scores[steps] - max(r for k, r in scores.items() if k >= first) > CLEAR_LEAD:
            follow[steps].append(f"{action} (with {lag.state})")
        elif steps != common and scores[steps] - scores.get(common, 0.0) > CLEAR_LEAD:
            yield lag_finding("note", action, steps, f"the other actions have {common}")
    for steps, names in follow.items():
        what = f"actions follow the state: they go best with what it did {1 - steps} steps before its next change."
        step = "Shift the actions, so that row t holds the command that is given at t."
        yield Finding(severity="warning", check="lag", where=", ".join(names), what=what, step=step)
    if common > 1 and not follow:
        yield lag_finding("note", "actions", common, "1 is usual")
    for number in sorted({n for of in pairs.values() for n in of}):
        mine = {action: of[number] for action, of in pairs.items() if number in of}
        off = odd_by(mine, usual)
        for steps in sorted({usual[action] for action in mine} if off else ()):
            where = f"episode {number}, {', '.join(action for action in mine if usual[action] == steps)}"
            yield lag_finding("warning", where, steps + off, f"the dataset has {steps}")


def pooled_lags(of: Sequence[Lag]) -> dict[int, float]:
    """The mean r squared at every lag, over the episodes in which it was tried."""
    most = max(len(lag.profile) for lag in of) // 2
    return {k: float(np.nanmean([lag.at(k) ** 2 for lag in of])) for k in range(-most, most + 1)}


def odd_by(mine: Mapping[str, Lag], usual: Mapping[str, int]) -> int:
    """By how many steps all actions of an episode are paired otherwise than in the dataset; 0 without clear evidence.

    A recorder shifts a whole row, so the actions are judged together. Fisher's z of the two correlations are taken as
    independent: in truth they go together, which makes their difference surer than what is asked here.
    """
    most = min(len(lag.profile) for lag in mine.values()) // 2
    best, lead = 0, ODD_LEAD
    for off in range(-2 * most, 2 * most + 1):
        r, z = [], []
        for action, lag in mine.items():
            here, there = lag.at(usual[action] + off), lag.at(usual[action])
            r.append(here**2 - there**2)
            z.append((sigmas(here, lag.samples) - sigmas(there, lag.samples)) / np.sqrt(2))
        if np.mean(r) > lead and sum(z) / np.sqrt(len(z)) > ODD_SIGMAS:  # NaN, a lag not tried, is in neither
            best, lead = off, float(np.mean(r))
    return best


def lag_finding(severity: Severity, where: str, steps: int, otherwise: str) -> Finding:
    what = f"the state shows an action {steps} steps later; {otherwise}."
    return Finding(severity=severity, check="lag", where=where, what=what, step="Check how the recorder pairs them.")


def check_duplicates(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """Episodes of one split with the same columns or the same film."""
    said: set[tuple[int, ...]] = set()
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for s in summaries:
        groups[s.split, "columns", s.columns_hash].append(s.number)
    for s in summaries:
        for camera, found in s.video_hashes.items():
            groups[s.split, f"video of {camera}", found].append(s.number)
    for (_, what, _), numbers in groups.items():
        if len(numbers) > 1 and tuple(numbers) not in said:
            said.add(tuple(numbers))
            where, text = listed(numbers), f"the {what} of these episodes is the same, bit for bit."
            step = "Keep one of them."
            yield Finding(severity="warning", check="duplicates", where=where, what=text, step=step)


def check_splits(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """What two splits of this dataset share."""
    splits = list(dict.fromkeys(s.split for s in summaries if s.split))
    prints = {name: [(s.number, s.seed, s.content_hash) for s in summaries if s.split == name] for name in splits}
    for i, name in enumerate(splits):
        for other in splits[i + 1 :]:
            yield from check_leak(prints[name], prints[other], f"split {other}")


def check_leak(
    mine: Sequence[tuple[int, int | None, str]], theirs: Sequence[tuple[int, int | None, str]], other: str
) -> Iterator[Finding]:
    """Seeds and contents that occur on both sides."""
    for what, at in (("seed", 1), ("actions and states", 2)):
        known = {p[at]: p[0] for p in theirs if p[at] is not None}
        shared = [(p[0], known[p[at]]) for p in mine if p[at] in known]
        if shared:
            numbers, others = listed([n for n, _ in shared]), listed([n for _, n in shared])
            text = f"the {what} of {others} in {other} also occurs here, so one cannot test the other."
            step = "Take these episodes out of one of them."
            yield Finding(severity="error", check="leak", where=numbers, what=text, step=step)


def names_of(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(name for s in summaries for name in s.level))


def listed(numbers: Sequence[int]) -> str:
    """ "episode 3", "episodes 1, 2", or the first few and how many more."""
    shown = ", ".join(map(str, numbers[:6])) + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")
    return f"episode{'s' * (len(numbers) > 1)} {shown}"
