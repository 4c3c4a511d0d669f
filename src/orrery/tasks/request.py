"""One request document for every task: its fields, its strict JSON form, and all that can be refused from it alone.

No file is opened here but the request itself. What needs a checkpoint is decided in `orrery.tasks.fit`, what needs the
pictures is decided where they are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, no_type_check

import numpy as np

from orrery.errors import RequestError
from orrery.tasks.alignment import two_nearest
from orrery.tasks.checks import Number, choice, file_path, nearest, number, read_json, shown, text, whole
from orrery.tasks.contract import CONTRACT_KEYS
from orrery.tasks.embodiment import EMBODIMENTS, embodiment
from orrery.tasks.prompt import VIEWPOINTS
from orrery.tasks.task import TASKS, Task, task_named, with_sound
from orrery.tasks.values import Array, pair, picture, samples, size, table

Picture = str | Path | Array

MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_FRAMES = 300
MAX_STEPS = 200
MAX_PICTURES = 8

FLOW_FIELDS = frozenset({"negative_prompt", "prompt_format", "frames", "size", "steps", "sampler", "schedule", "shift"})
GUIDANCE_FIELDS = frozenset({"guidance", "guidance_interval"})
WRITING_FIELDS = frozenset({"max_new_tokens", "temperature", "top_p", "top_k", "stop", "video_fps"})
PENALTY_FIELDS = frozenset({"presence_penalty", "repetition_penalty"})


# Wrong types are answered by its own checks; a run-time type checker in front of them would hide their errors.
@no_type_check
@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What is asked for. None means: the default of the task for the checkpoint (`orrery.tasks.defaults`).

    Construction checks everything that needs neither media nor model and raises RequestError or TaskError.
    """

    task: str
    prompt: str = ""
    negative_prompt: str | None = None
    system_prompt: str | None = None
    """An empty string means no system prompt."""
    prompt_format: Literal["plain", "json", "raw"] | None = None
    """"plain" adds metadata sentences, "json" makes the action object, "raw" takes the prompt as it is."""
    vision: Picture | list[Picture] | Mapping[str, Picture] | None = None
    """Path of a picture or video, or uint8 RGB (H, W, 3) or (T, H, W, 3). Only "reason" takes a list. Tasks with
    actions take one for each camera, by name, where the checkpoint sees through several."""
    pins: Mapping[int, Picture] = field(default_factory=dict)
    """Pixel frame index, 0 or a multiple of 4, to what is held there. Index 4k holds frames 4k-3..4k, which share one
    latent frame: give four frames (4, H, W, 3), or one picture that is shown in all four."""
    clip_frames: int | None = None
    """video_to_video: how many frames of the source are given, 4k+1."""
    clip_from: Literal["first", "last"] | None = None
    sound: str | Path | Array | None = None
    """"make", or the path of a sound that is given, or float samples (N, channels) in [-1, 1]."""
    sound_rate: int | None = None
    """Samples per second of `sound` when it is an array."""
    actions: str | Path | list[list[Number]] | Array | None = None
    """(T, A) in raw robot units, row j leads into frame j + 1."""
    state: list[Number] | Array | None = None
    """(A,) current state in the same layout as an action row, for checkpoints that take it as row 0."""
    embodiment: str | None = None
    contract: Mapping[str, object] | None = None
    """What the caller takes for granted about actions and cameras; compared with the checkpoint's contract."""
    viewpoint: str | None = None
    frames: int | None = None
    """Pixel frames of the result with frame 0, 4k+1."""
    fps: Number | None = None
    """Frames per second; for "reason", of frames given as an array."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels."""
    steps: int | None = None
    guidance: Number | Mapping[str, Number] | None = None
    """One scale for all, or one for each of "vision", "sound", "action"."""
    guidance_interval: tuple[Number, Number] | None = None
    """Guidance acts only where low < 1000 sigma < high."""
    shift: Number | None = None
    sampler: Literal["unipc", "euler", "stochastic"] | None = None
    schedule: Literal["native", "flow", "karras"] | None = None
    seed: int = 0
    max_new_tokens: int | None = None
    temperature: Number | None = None
    """0 takes the likeliest token."""
    top_p: Number | None = None
    top_k: int | None = None
    presence_penalty: Number | None = None
    repetition_penalty: Number | None = None
    stop: tuple[str, ...] | None = None
    video_fps: Number | None = None
    """Frames per second at which "reason" looks at a video."""

    def __post_init__(self) -> None:
        self.validate()

    @classmethod
    def from_json(cls, source: object, base: Path | None = None) -> "Request":
        """Read a request document strictly.

        Args:
            source: path of a JSON file, or the object already parsed.
            base: folder that relative paths start from; the folder of the file when None, or the working folder.

        Raises:
            RequestError: anything wrong with the document, on one line.
        """
        if isinstance(source, str | Path):
            path = file_path("request", source)
            base = path.parent if base is None else base
            source = read_json(path, max_bytes=MAX_DOCUMENT_BYTES)
        if not isinstance(source, Mapping):
            raise RequestError(f"A request must be a JSON object, got {shown(source)}. Write {{'task': ..., ...}}.")
        known = [item.name for item in fields(cls)]
        for key in source:
            if not isinstance(key, str) or key not in known:
                hint = nearest(key, known) if isinstance(key, str) else "Keys are strings."
                raise RequestError(f"A request has no key {shown(key)}. {hint}")
        if "task" not in source:
            raise RequestError(f"A request needs a task, got only {shown(sorted(source))}. Known: {', '.join(TASKS)}.")
        values = {key: value for key, value in source.items() if value is not None}
        folder = Path() if base is None else base
        for key in ("size", "guidance_interval", "stop"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        for key in ("vision", "actions"):
            if isinstance(values.get(key), str):
                values[key] = folder / file_path(key, values[key])
        if isinstance(values.get("vision"), Mapping):
            values["vision"] = {
                name: _picture_from_json(f"vision[{name!r}]", item, folder) for name, item in values["vision"].items()
            }
        if isinstance(values.get("vision"), list):
            values["vision"] = [
                _picture_from_json(f"vision[{i}]", item, folder) for i, item in enumerate(values["vision"])
            ]
        if isinstance(values.get("sound"), str) and values["sound"] != "make":
            values["sound"] = folder / file_path("sound", values["sound"])
        if isinstance(values.get("pins"), Mapping):
            values["pins"] = _pins_from_json(values["pins"], folder)
        return cls(**values)

    def to_json(self) -> dict[str, object]:
        """The document that `from_json` reads back to the same request; fields left at their default are omitted.

        Raises:
            RequestError: pictures or sounds were given as arrays, which a document cannot hold.
        """
        document: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or (item.name == "pins" and not value) or (item.name == "seed" and value == 0):
                continue
            document[item.name] = _to_json(item.name, value)
        return document

    @property
    def row(self) -> Task:
        """The row of the task, with sound as this request has it."""
        task = task_named(self.task)
        if self.sound is None:
            return task
        return with_sound(task, "none" if isinstance(self.sound, str) and self.sound == "make" else "all")

    def action_table(self) -> Array | None:
        """Actions as float32 (T, A); None where there are none, or where they still are a file."""
        if self.actions is None or isinstance(self.actions, str | Path):
            return None
        return table("actions", self.actions)

    def validate(self) -> None:
        """Refuse what can be refused without media or a model.

        Raises:
            RequestError, TaskError: what is wrong, the value received and the next step, on one line.
        """
        text("task", self.task, max_characters=80)
        task = self.row
        self._check_fields_apply(task)
        self._check_text(task)
        self._check_numbers(task)
        self._check_vision(task)
        self._check_sound()
        self._check_actions(task)
        if self.frames is not None:
            check_frames(self, task, self.frames)

    def _check_fields_apply(self, task: Task) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and not (item.name == "pins" and not value) and not takes(task, item.name):
                fitting = [row.name for row in TASKS.values() if takes(row, item.name)]
                raise RequestError(
                    f"Task {task.name!r} takes no {item.name}, got {shown(value)}. "
                    f"Leave it out, or use {' or '.join(fitting)}."
                )
        needed = [
            ("vision", task.vision in ("first", "clip") or (task.vision == "all" and not task.writes)),
            ("actions", task.action == "all"),
        ]
        for name, needs in needed:
            if needs and getattr(self, name) is None:
                raise RequestError(f"Task {task.name!r} needs {name}, got none. Give {name} as a path or an array.")

    def _check_text(self, task: Task) -> None:
        for name in ("prompt", "negative_prompt", "system_prompt"):
            if getattr(self, name) is not None:
                text(name, getattr(self, name))
        if self.embodiment is not None:
            choice("embodiment", self.embodiment, EMBODIMENTS)
        if self.viewpoint is not None:
            choice("viewpoint", self.viewpoint, VIEWPOINTS)
        choices: dict[str, tuple[str, ...]] = {
            "prompt_format": ("plain", "json", "raw"),
            "clip_from": ("first", "last"),
            "sampler": ("unipc", "euler", "stochastic"),
            "schedule": ("native", "flow", "karras"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) is not None:
                choice(name, getattr(self, name), allowed)
        if self.stop is not None:
            if not isinstance(self.stop, tuple) or len(self.stop) > 16:
                raise RequestError(f"stop must be at most 16 strings, got {shown(self.stop)}. Give a list of strings.")
            for index, word in enumerate(self.stop):
                if not text(f"stop[{index}]", word, max_characters=256):
                    raise RequestError(f"stop[{index}] is empty, got ''. Give the text to stop at.")
        wordless = not self.prompt.strip() and self.prompt_format != "raw"
        if wordless and self.vision is None:
            raise RequestError(
                f"Task {task.name!r} needs a prompt, got {shown(self.prompt)}. Say what to make"
                f"{' or ask a question' if task.writes else ', or set prompt_format to raw'}."
            )

    def _check_numbers(self, task: Task) -> None:
        whole("seed", self.seed, 0, 2**63 - 1)
        for name, least, most in (
            ("frames", 1, MAX_FRAMES),
            ("steps", 1, MAX_STEPS),
            ("max_new_tokens", 1, 32_768),
            ("top_k", 1, 1_000_000),
        ):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), least, most)
        for name, low, high, above in (
            ("fps", 0, 240, True),
            ("shift", 0, 100, True),
            ("temperature", 0, 10, False),
            ("top_p", 0, 1, True),
            ("presence_penalty", -2, 2, False),
            ("repetition_penalty", 0, 10, True),
            ("video_fps", 0, 60, True),
        ):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), low, high, above=above)
        if isinstance(self.guidance, Mapping):
            made = [kind for kind in ("vision", "sound", "action") if getattr(task, kind) not in (None, "all")]
            for kind, scale in self.guidance.items():
                choice("guidance", kind, made)
                number(f"guidance[{kind}]", scale, 0, 20)
        elif self.guidance is not None:
            number("guidance", self.guidance, 0, 20)
        if self.guidance_interval is not None:
            low_t, high_t = pair("guidance_interval", self.guidance_interval, "low, high")
            number("guidance_interval low", low_t, 0, 1001)
            number("guidance_interval high", high_t, 0, 1001)
            if low_t >= high_t:
                raise RequestError(
                    f"guidance_interval is empty, got {shown(self.guidance_interval)}. Give low < high on 0..1000."
                )
        if self.size is not None:
            size("size", self.size)

    def _check_vision(self, task: Task) -> None:
        looks = self.vision if isinstance(self.vision, list) else [self.vision]
        if task.writes and self.fps is not None and not any(_is_clip(item) for item in looks):
            raise RequestError(
                f"fps says how fast frames given as an array follow each other, got {shown(self.fps)} without any. "
                "Leave fps out: a video file has its own."
            )
        if isinstance(self.vision, list):
            if not task.writes:
                raise RequestError(f"vision must be one picture or video, got a list of {len(self.vision)}. Give one.")
            if not 1 <= len(self.vision) <= MAX_PICTURES:
                raise RequestError(f"vision has {len(self.vision)} items. Give from 1 to {MAX_PICTURES}.")
            for index, item in enumerate(self.vision):
                picture(f"vision[{index}]", item)
        elif isinstance(self.vision, Mapping):
            if task.action is None:
                raise RequestError(
                    f"Task {task.name!r} shows one camera, vision has {shown(list(self.vision))}. Give one picture."
                )
            if not 1 <= len(self.vision) <= MAX_PICTURES:
                raise RequestError(f"vision has {len(self.vision)} cameras. Give from 1 to {MAX_PICTURES}.")
            for name, item in self.vision.items():
                text("name of a camera", name, max_characters=80)
                picture(f"vision[{name!r}]", item)
            if self.pins:
                raise RequestError(f"pins do not say which camera they show, got {shown(list(self.pins))}. Leave pins.")
        elif self.vision is not None:
            picture("vision", self.vision)
        if self.clip_frames is not None:
            whole("clip_frames", self.clip_frames, 1, MAX_FRAMES)
            if self.clip_frames % 4 != 1:
                raise RequestError(f"clip_frames must be 4k+1, got {self.clip_frames}. {two_nearest(self.clip_frames)}")
        if not isinstance(self.pins, Mapping):
            raise RequestError(f"pins must map frame indices to pictures, got {shown(self.pins)}. Give {{0: path}}.")
        for index, held in self.pins.items():
            whole("pin index", index, 0, MAX_FRAMES - 1)
            if index % 4:
                group = index // 4 * 4 + 4
                raise RequestError(
                    f"pin {index} lies inside one latent frame, frames {group - 3} to {group}, held as a whole. "
                    f"Use {group}."
                )
            picture(f"pins[{index}]", held)
            count = held.shape[0] if isinstance(held, np.ndarray) and held.ndim == 4 else 1
            if count != 1 and (index == 0 or count != 4):
                raise RequestError(
                    f"pins[{index}] has {count} frames. Give one picture{' or four frames' if index else ''}."
                )

    def _check_sound(self) -> None:
        if isinstance(self.sound, np.ndarray):
            samples("sound", self.sound)
            whole("sound_rate", self.sound_rate, 1000, 192_000)
            return
        if self.sound is not None:
            if not isinstance(self.sound, str | Path):
                raise RequestError(f"sound must be 'make' or a sound file, got {shown(self.sound)}. Give one of them.")
            file_path("sound", self.sound)
        if self.sound_rate is not None:
            raise RequestError(
                f"sound_rate goes with samples given as an array, got {shown(self.sound_rate)}. Leave it out."
            )

    def _check_actions(self, task: Task) -> None:
        if isinstance(self.actions, str | Path):
            file_path("actions", self.actions)
        rows = self.action_table()
        state = None if self.state is None else table("state", [self.state])
        if self.contract is not None:
            if not isinstance(self.contract, Mapping):
                raise RequestError(f"contract must be an object, got {shown(self.contract)}. Give names and values.")
            for key in self.contract:
                choice("contract key", key, CONTRACT_KEYS)
        robot = None if self.embodiment is None else embodiment(self.embodiment)
        for name, values in (("actions", rows), ("state", state)):
            widths = () if robot is None else robot.widths or ((robot.width,) if robot.width else ())
            if values is not None and widths and values.shape[1] not in widths:
                raise RequestError(
                    f"{name} have {values.shape[1]} values a row, {self.embodiment!r} has "
                    f"{' or '.join(map(str, widths))}. Give its own layout."
                )
        if rows is not None:
            if state is not None and state.shape[1] != rows.shape[1]:
                raise RequestError(
                    f"state has {state.shape[1]} values and actions have {rows.shape[1]}. Give both in one layout."
                )
            check_action_count(rows.shape[0], rows.shape[0] + 1 if self.frames is None else self.frames)


def check_frames(request: Request, task: Task, frames: int) -> None:
    """Refuse a number of pixel frames that cannot be made exactly, alone or with the pins and clip of the request."""
    whole("frames", frames, 1, MAX_FRAMES)
    if frames % 4 != 1:
        raise RequestError(f"frames must be 4k+1, got {frames}. {two_nearest(frames)}")
    if task.frames == "one" and frames != 1:
        raise RequestError(f"Task {task.name!r} has one frame, got frames {frames}. Leave frames out.")
    if task.frames == "chunk" and frames == 1:
        raise RequestError(f"Task {task.name!r} needs a frame after every action, got frames 1. Give at least 5.")
    clip = 0
    if task.vision == "clip":
        clip = 5 if request.clip_frames is None else request.clip_frames
        if clip >= frames:
            raise RequestError(f"clip_frames {clip} leaves nothing to make of {frames} frames. Give more frames.")
    if task.vision == "first":
        clip = 1
    for index in request.pins:
        if index < clip:
            raise RequestError(f"pin {index} is already given by vision (frames 0 to {clip - 1}). Leave the pin out.")
        if index >= frames:
            raise RequestError(f"pin {index} lies outside the {frames} frames. Give a pin below {frames}.")


def check_action_count(actions: int, frames: int) -> None:
    """Refuse actions that do not fill the frames: there is exactly one for each frame after the first."""
    if actions != frames - 1:
        raise RequestError(
            f"{frames} frames need {frames - 1} actions, got {actions}. Give {frames - 1}; none is repeated or cut."
        )
    if actions % 4:
        raise RequestError(
            f"The number of actions must be a multiple of 4, got {actions}. Give {actions - actions % 4} "
            f"or {actions - actions % 4 + 4} rows."
        )


def takes(task: Task, name: str) -> bool:
    """Whether a request of this task may carry the field `name`."""
    if name == "pins":
        return not task.writes and task.vision != "all" and task.frames != "one"
    if name == "fps":
        return not (task.frames == "one" and task.action is None)
    if name == "actions":
        return task.action == "all"
    if name == "vision":
        return task.vision != "none"
    if name in ("clip_frames", "clip_from"):
        return task.vision == "clip"
    if name in ("embodiment", "contract", "state", "viewpoint"):
        return task.action is not None
    if name in FLOW_FIELDS | GUIDANCE_FIELDS:
        return not task.writes
    return task.writes or name not in WRITING_FIELDS | PENALTY_FIELDS


def _is_clip(item: object) -> bool:
    return isinstance(item, np.ndarray) and item.ndim == 4 and len(item) > 1


def _picture_from_json(name: str, value: object, folder: Path) -> Path:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be the path of a picture or video, got {shown(value)}. Give a string.")
    return folder / file_path(name, value)


def _pins_from_json(pins: Mapping[object, object], folder: Path) -> dict[int, Path]:
    read: dict[int, Path] = {}
    for key, value in pins.items():
        if not isinstance(key, str) or not key.isdecimal() or not key.isascii() or str(int(key[:9])) != key:
            raise RequestError(f"pins has the key {shown(key)}. Give a frame index such as '0' or '16'.")
        read[int(key)] = _picture_from_json(f"pins[{key}]", value, folder)
    return read


def _to_json(name: str, value: object) -> object:
    """`value` as JSON has it; RequestError for arrays of pictures or samples."""
    if isinstance(value, np.ndarray):
        if name in ("actions", "state"):
            return value.tolist()
        raise RequestError(f"{name} is an array of shape {value.shape}. Save it to a file and give the path.")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_to_json(name, item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _to_json(name, item) for key, item in value.items()}
    return value
