"""Plans of datasets: which episodes there are, each with its own seed. A TOML file, read strictly."""

import hashlib
import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orrery.errors import SettingsError
from orrery.tasks.checks import nearest, shown
from orrery.worlds.factory.behaviours import BRANCHES, behaviour
from orrery.worlds.factory.parts import PEG_HALF_M
from orrery.worlds.factory.scene import CAMERAS
from orrery.worlds.factory.tasks import TASKS

FORMAT, VERSION = "orrery.factory_plan", 1
SIBLINGS = tuple(kind for kind in BRANCHES if kind != "expert")


@dataclass(frozen=True, kw_only=True)
class Split:
    """One dataset of a plan.

    Episodes take seeds one after the other from `first_seed` on; `last_seed` is the last they may take.
    """

    name: str
    first_seed: int
    last_seed: int
    unseen: bool
    """Colour x kind pairs and phrasings that are held out from the others; otherwise those that are not."""
    random_look: bool
    episodes: Mapping[str, Mapping[str, int]]
    """Behaviour -> task -> how many."""
    groups: int
    """So many expert episodes of each task get siblings: the same beginning, then each of SIBLINGS."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan as read; `sha256` is that of its text."""

    name: str
    cameras: tuple[str, ...]
    height: int
    width: int
    clearances_m: tuple[float, ...]
    """Of pegs in their hole, drawn for each episode."""
    splits: tuple[Split, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """One episode. Everything in it follows from these values and the plan."""

    seed: int
    task: str
    behaviour: str
    branch: str | None = None
    """It begins in the middle of the expert's attempt of this seed and goes on like this, a word of SIBLINGS."""


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        SettingsError: not such a file, unknown or missing entries, values out of range, or splits that share seeds.
    """
    try:
        text = path.read_bytes()
        content = tomllib.loads(text.decode())
    except OSError as error:
        raise SettingsError(f"The plan {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    where = str(path)
    keys = ("format", "version", "name", "cameras", "height", "width", "clearances_m", "split")
    check_keys(content, keys, where)
    if content["format"] != FORMAT or content["version"] != VERSION:
        raise SettingsError(f"{where} is {content['format']!r} {content['version']!r}; {FORMAT!r} {VERSION} is read.")
    cameras = tuple(content["cameras"])
    unknown = [name for name in cameras if name not in CAMERAS]
    if unknown or "front" not in cameras or len(set(cameras)) != len(cameras):
        # Clips and forecasts are about what the front camera sees.
        raise SettingsError(f"{where}: cameras are front and some of {', '.join(CAMERAS)}, got {list(cameras)}.")
    for name in ("height", "width"):
        if type(content[name]) is not int or not 16 <= content[name] <= 1024 or content[name] % 2:
            raise SettingsError(f"{where}: {name} must be an even whole number from 16 to 1024, got {content[name]!r}.")
    fits = content["clearances_m"]
    if (
        not isinstance(fits, list)
        or not fits
        or not all(type(fit) is float and 0.0002 <= fit < PEG_HALF_M for fit in fits)
    ):
        raise SettingsError(f"{where}: clearances_m lists metres from 0.0002 to {PEG_HALF_M}, got {fits!r}.")
    splits = tuple(read_split(entry, f"{where}, split {index}") for index, entry in enumerate(content["split"]))
    plan = Plan(
        name=content["name"], cameras=cameras, height=content["height"], width=content["width"],
        clearances_m=tuple(content["clearances_m"]), splits=splits, sha256=hashlib.sha256(text).hexdigest(),
    )  # fmt: skip
    if not splits or len({split.name for split in splits}) != len(splits):
        raise SettingsError(f"{where}: give splits of different names.")
    ranges = sorted((split.first_seed, split.last_seed, split.name) for split in splits)
    for (_, last, one), (first, _, other) in itertools.pairwise(ranges):
        if first <= last:
            raise SettingsError(f"{where}: splits {one} and {other} share seeds from {first} on. Set them apart.")
    for split in splits:
        episodes(split)  # whether the seeds suffice
    return plan


def read_split(entry: Mapping[str, Any], where: str) -> Split:
    """One [[split]] of a plan."""
    check_keys(entry, ("name", "first_seed", "last_seed", "unseen", "random_look", "groups", "episodes"), where)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(entry["name"])):
        raise SettingsError(f"{where}: the name {entry['name']!r} becomes a folder; use letters, digits, _ and -.")
    if type(entry["first_seed"]) is not int or type(entry["last_seed"]) is not int:
        raise SettingsError(
            f"{where}: seeds are whole numbers, got {entry['first_seed']!r} and {entry['last_seed']!r}."
        )
    counted = {}
    for name, amount in entry["episodes"].items():
        row = behaviour(name)
        per_task = dict.fromkeys(TASKS, amount) if isinstance(amount, int) else dict(amount)
        for task, count in per_task.items():
            if task not in TASKS:
                raise SettingsError(f"{where}: there is no task {shown(task)}. {nearest(task, TASKS)}")
            if type(count) is not int or not 0 <= count <= 10_000_000:
                raise SettingsError(f"{where}: {name} of {task} must be a whole number from 0 on, got {count!r}.")
            if row.slip_m and count and task != "peg_insert":
                raise SettingsError(f"{where}: {name} is about pegs; {task} has none. Give {{ peg_insert = {count} }}.")
        counted[name] = per_task
    experts = counted.get("expert", {})
    most = min((experts.get(task, 0) for task in TASKS), default=0)
    if type(entry["groups"]) is not int or not 0 <= entry["groups"] <= most:
        raise SettingsError(f"{where}: groups must be 0 to {most}, the experts of each task, got {entry['groups']!r}.")
    if not 0 <= entry["first_seed"] <= entry["last_seed"]:
        raise SettingsError(
            f"{where}: seeds go from {entry['first_seed']} to {entry['last_seed']}. Give them in order."
        )
    if not all(isinstance(entry[name], bool) for name in ("unseen", "random_look")):
        raise SettingsError(f"{where}: unseen and random_look are true or false.")
    return Split(
        name=entry["name"], first_seed=entry["first_seed"], last_seed=entry["last_seed"], unseen=entry["unseen"],
        random_look=entry["random_look"], episodes=counted, groups=entry["groups"],
    )  # fmt: skip


def check_keys(content: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown, missing = sorted(set(content) - set(keys)), sorted(set(keys) - set(content))
    if unknown or missing:
        what = [f"does not know {', '.join(unknown)}"] * bool(unknown) + [f"lacks {', '.join(missing)}"] * bool(missing)
        raise SettingsError(f"{where}: the plan {' and '.join(what)}.")


def episodes(split: Split) -> list[EpisodeSpec]:
    """All episodes in order; behaviours and tasks are spread, so that a part of the list is like the whole.

    Raises:
        SettingsError: more episodes than seeds.
    """
    rows = [
        ((number + 0.5) / count, index, name, task, number)
        for index, (name, per_task) in enumerate(split.episodes.items())
        for task, count in per_task.items()
        for number in range(count)
    ]
    found: list[EpisodeSpec] = []
    for seed, (_, _, name, task, number) in enumerate(sorted(rows), split.first_seed):
        found.append(EpisodeSpec(seed=seed, task=task, behaviour=name))
        if name == "expert" and number < split.groups:
            found += [EpisodeSpec(seed=seed, task=task, behaviour=name, branch=kind) for kind in SIBLINGS]
    if split.first_seed + len(rows) - 1 > split.last_seed:
        raise SettingsError(
            f"Split {split.name} needs {len(rows)} seeds from {split.first_seed} on, but may take them only up to "
            f"{split.last_seed}."
        )
    return found
