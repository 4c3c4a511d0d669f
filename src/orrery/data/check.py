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
from jaxtyping import Float

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
UNIT_GAP = 8.0
"""Scales of episodes in one unit lie closer together than this; the smallest factor is three times that."""
JUMP_SIGMAS, JUMP_SHARE = 20.0, 0.5
MAX_SPILL = 14
"""The longest vector looked for down the rows of a column; two arms of seven joints."""
LEAST_CORRELATION, LEAST_SIGMAS, CLEAR_LEAD = 0.6, 5.0, 0.05
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

    @property
    def steps(self) -> int:
        return int(self.profile.argmax()) - len(self.profile) // 2

    def at(self, steps: int) -> float:
        return float(self.profile[steps + len(self.profile) // 2]) if abs(steps) <= len(self.profile) // 2 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """What checks across episodes need of one. Values are keyed by "column value"."""

    number: int
    split: str
    low: Mapping[str, float]
    high: Mapping[str, float]
    level: Mapping[str, float]
    """The size that 95 of 100 values stay below."""
    polarity: Mapping[tuple[str, str], float]
    """Correlation of a gripper's command with the aperture soon after."""
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
            findings += [*check_jumps(episode.index, values), *check_spilled(episode.index, values)]
            summaries.append(summarise(dataset, episode, splits[index], hashes))
        tell(index + 1, total)
    for across in (check_units, check_polarity, check_constants, check_lags, check_duplicates, check_splits):
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


def check_jumps(number: int, values: Mapping[str, Float[np.ndarray, " T"]]) -> Iterator[Finding]:
    """Single steps far outside the usual ones, in values that move most of the time (switches jump by nature)."""
    for name, value in values.items():
        sizes = np.abs(np.diff(value))
        if len(sizes) < 10 or np.mean(sizes > 0) < 0.5:
            continue
        sigma, extent = 1.4826 * float(np.median(sizes)), float(np.ptp(value))
        jumps = np.flatnonzero((sizes > JUMP_SIGMAS * sigma) & (sizes > JUMP_SHARE * extent))
        if len(jumps):
            size = float(sizes[jumps[0]])
            turn = next((f" That is a whole turn of {t}." for t, v in (("2 pi", 2 * np.pi), ("360 degrees", 360.0))
                         if abs(size / v - 1) < 0.05), "")  # fmt: skip
            what = (
                f"it jumps by {size:.4g} from frame {jumps[0]} to {jumps[0] + 1}, {size / max(sigma, 1e-300):.0f} "
                f"times a usual step, {len(jumps)} such in all.{turn}"
            )
            step = "Unwrap the angle." if turn else "Look at the recording there: a lost sample, a reset, another unit?"
            yield Finding(severity="warning", check="jumps", where=f"episode {number}, {name}", what=what, step=step)


def check_spilled(number: int, values: Mapping[str, Float[np.ndarray, " T"]]) -> Iterator[Finding]:
    """A vector written down the rows instead of along one: a few different values, then the last one for ever."""
    for name, value in values.items():
        changes = np.flatnonzero(np.diff(value))
        width = len(changes) + 1
        if 2 < width <= MAX_SPILL and changes[-1] == width - 2 and len(value) >= 4 * MAX_SPILL:
            what = (
                f"the first {width - 1} rows differ and the other {len(value) - width + 1} are all {value[-1]:.6g}. It "
                f"looks like one vector of {width}, written down the rows."
            )
            step = "Export the column again with its full width."
            yield Finding(severity="warning", check="spilled", where=f"episode {number}, {name}", what=what, step=step)


def summarise(dataset: Dataset, episode: Episode, split: str, hashes: "FileHashes") -> Summary:
    values = series(dataset, episode)
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
    """Two groups of episodes whose values differ in size by a factor between common units."""
    groups: dict[tuple[str, float, tuple[int, ...]], list[tuple[str, float]]] = defaultdict(list)
    for name in names_of(summaries):
        found = sorted((s.level[name], s.number) for s in summaries if s.level.get(name, 0) > 0)
        gaps = [high[0] / low[0] for low, high in pairwise(found)]
        if not gaps or max(gaps) < UNIT_GAP:
            continue
        cut = int(np.argmax(gaps)) + 1
        small, large = found[:cut], found[cut:]
        ratio = float(np.median([s for s, _ in large]) / np.median([s for s, _ in small]))
        factor = min(UNIT_FACTORS, key=lambda f: abs(np.log(ratio / f)))
        widest = max(part[-1][0] / part[0][0] for part in (small, large))
        if max(ratio / factor, factor / ratio) <= UNIT_SLACK and widest < max(gaps):
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


def polarities(values: Mapping[str, Float[np.ndarray, " T"]], fps: float) -> dict[tuple[str, str], float]:
    """The strongest correlation of each gripper command with its aperture up to a second later, where both move."""
    found = {}
    apertures = [name for name in values if is_state(name) and APERTURE.search(name)]
    for command in (name for name in values if is_action(name) and "gripper" in name.lower()):
        words = set(re.split(r"[^a-z0-9]+", command.lower()))
        # Two hands: the aperture that shares the most words with the command.
        mine = max(apertures, key=lambda name: len(words & set(re.split(r"[^a-z0-9]+", name.lower()))), default=None)
        if mine is None:
            continue
        later = [correlation(values[command], values[mine], k) for k in range(max(1, round(fps)) + 1)]
        found[command, mine] = max(later, key=abs)
    return found


def check_polarity(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """Whether a larger command opens the gripper wider: in all episodes, in none, or in some."""
    for command, aperture in dict.fromkeys(pair for s in summaries for pair in s.polarity):
        signs = {s.number: s.polarity.get((command, aperture), 0.0) for s in summaries}
        up, down = [n for n, r in signs.items() if r > 0.3], [n for n, r in signs.items() if r < -0.3]
        if up and down:
            fewer, other = (down, "against") if len(down) <= len(up) else (up, "with")
            what = f"the command runs {other} {aperture}, elsewhere the other way."
            where, step = f"{listed(fewer)}, {command}", "Turn the command's sign there, so that it means one thing."
            yield Finding(severity="warning", check="polarity", where=where, what=what, step=step)
        elif down:
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
    x, y = x[max(0, -later) : len(x) - max(0, later)], y[max(0, later) : len(y) + min(0, later)]
    if len(x) < 3:
        return np.zeros(y.shape[1])
    x, y = x - x.mean(), y - y.mean(0)
    size = np.sqrt((x @ x) * (y * y).sum(0))
    return np.divide(x @ y, size, out=np.zeros(y.shape[1]), where=size > 1e-12).clip(-1, 1)


def correlation(x: Float[np.ndarray, " T"], y: Float[np.ndarray, " T"], later: int) -> float:
    return float(correlations(x, y[:, None], later)[0])


def sigmas(r: float, x: Float[np.ndarray, " T"], y: Float[np.ndarray, " T"]) -> float:
    """How far a correlation is from chance, by Fisher's z.

    Values of a slow signal resemble their neighbours and so count for less: Bartlett's effective number of samples.
    """
    alike = sum(correlation(x, x, k) * correlation(y, y, k) for k in range(1, len(x) // 4))
    independent = len(x) / max(1.0, 1 + 2 * alike)
    return float(np.arctanh(min(r, 1 - 1e-9)) * np.sqrt(max(independent - 3, 0.0)))


def lags(values: Mapping[str, Float[np.ndarray, " T"]], fps: float) -> Iterator[Lag]:
    """For every value of the actions the value of the state it goes with best, if chance cannot explain it.

    Targets are compared by their changes, since slow positions resemble themselves at any lag; displacements as they
    are. Either way a lag of 1 is an action whose effect the next row shows.
    """
    states = [name for name, value in values.items() if is_state(name) and np.ptp(value) > 0]
    length = len(next(iter(values.values()), ()))
    most = min(max(3, round(MAX_LAG_S * fps)), (length - 1) // 4)
    if not states or most < 1:
        return
    changes = np.stack([np.diff(values[name]) for name in states], axis=1)
    for action in filter(is_action, values):
        best: Lag | None = None
        kinds: tuple[tuple[Kind, np.ndarray, int], ...] = (
            ("absolute", np.diff(values[action]), 0), ("delta", values[action][:-1], 1)
        )  # fmt: skip
        for kind, x, shift in kinds:
            profiles = np.abs([correlations(x, changes, k - shift) for k in range(-most, most + 1)])
            top = profiles.max(0)
            for at in np.flatnonzero(top >= max(LEAST_CORRELATION, 0.0 if best is None else best.profile.max() + 1e-9)):
                if sigmas(float(top[at]), x, changes[:, at]) >= LEAST_SIGMAS and (
                    best is None or top[at] > best.profile.max()
                ):
                    best = Lag(action=action, state=states[at], kind=kind, profile=profiles[:, at])
        if best is not None:
            yield best


def check_lags(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """How many steps after an action its effect shows: the same everywhere, and not before the action."""
    pairs: dict[str, list[tuple[int, Lag]]] = defaultdict(list)
    for action in dict.fromkeys(lag.action for s in summaries for lag in s.lags):
        of = [(s.number, lag) for s in summaries for lag in s.lags if lag.action == action]
        (state, kind), _ = Counter((lag.state, lag.kind) for _, lag in of).most_common(1)[0]
        pairs[action] = [(n, lag) for n, lag in of if (lag.state, lag.kind) == (state, kind)]
    usual = {action: Counter(lag.steps for _, lag in of).most_common(1)[0][0] for action, of in pairs.items()}
    if not usual:
        return
    common = Counter(usual.values()).most_common(1)[0][0]
    follow: dict[int, list[str]] = defaultdict(list)
    differ: dict[tuple[int, int], list[str]] = defaultdict(list)
    for action, of in pairs.items():
        steps, lag = usual[action], of[0][1]
        first = 1 if lag.kind == "delta" else 0
        ahead = max(lag.at(k) for k in range(first, len(lag.profile) // 2 + 1))
        if steps < first and float(lag.profile.max()) - ahead > CLEAR_LEAD:
            follow[steps].append(f"{action} (with {lag.state})")
        elif steps != common and float(np.mean([x.at(steps) - x.at(common) for _, x in of])) > CLEAR_LEAD:
            yield lag_finding("note", action, steps, f"the other actions have {common}")
        for number, found in of:
            if found.steps != steps and found.at(found.steps) - found.at(steps) > CLEAR_LEAD:
                differ[number, found.steps].append(action)
    for steps, names in follow.items():
        what = f"actions follow the state: they go best with what it did {1 - steps} steps before its next change."
        step = "Shift the actions, so that row t holds the command that is given at t."
        yield Finding(severity="warning", check="lag", where=", ".join(names), what=what, step=step)
    if common > 1 and not follow:
        yield lag_finding("note", "actions", common, "1 is usual")
    for (number, steps), names in differ.items():
        where = f"episode {number}, {', '.join(names)}"
        yield lag_finding("warning", where, steps, f"the dataset has {usual[names[0]]}")


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
