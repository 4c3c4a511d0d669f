"""Defaults of each model family for each task, and their meeting with a request.

Rows follow the presets of NVIDIA's reference framework. Edge video rows follow its model card instead (guidance 5,
shift 3, 832x480, 121 frames), which declares its grid with the weights. Nano and Super are sampled on the native grid,
as the framework does; "karras", which their stored scheduler names, can be asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from orrery.errors import RequestError, TaskError
from orrery.tasks.alignment import action_rows, latent_frames
from orrery.tasks.canvas import TIERS
from orrery.tasks.checks import Number, nearest, shown
from orrery.tasks.contract import ActionContract
from orrery.tasks.embodiment import EMBODIMENTS, Embodiment, embodiment
from orrery.tasks.prompt import NegativeMetadata
from orrery.tasks.request import Request, check_action_count, check_frames
from orrery.tasks.settings import PromptFormat, Sampler, Schedule, Settings
from orrery.tasks.task import Task
from orrery.tasks.values import Array

CLIP_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """One row: how a family does a task when the request does not say. With `sigmas`, the flow cannot be changed."""

    steps: int
    guidance: float
    shift: float | None
    frames: int | None = None
    fps: Number | None = None
    size: tuple[int, int] | None = None
    tier: str | None = None
    interval: tuple[float, float] | None = None
    sampler: Sampler = "unipc"
    schedule: Schedule = "native"
    sigmas: tuple[float, ...] | None = None
    prompt_format: PromptFormat = "plain"
    negative_metadata: NegativeMetadata = "none"
    negative_unbundled: bool = False
    """The family's own negative prompt is a long text that this package does not carry."""
    embodiment: str | None = None
    chunk: int | None = None
    state: bool | None = None
    """True: row 0 of the actions has to be the current state; False: must not; None: as the request has it."""


PICTURE = Defaults(steps=50, guidance=4.0, shift=3.0, frames=1, size=TIERS["720"]["1,1"])
# The framework appends the metadata of the prompt itself to the negative prompt of videos.
VIDEO = Defaults(
    steps=35,
    guidance=6.0,
    shift=10.0,
    frames=189,
    fps=24,
    size=TIERS["720"]["16,9"],
    negative_metadata="same",
    negative_unbundled=True,
)
ACTION = Defaults(steps=30, guidance=1.0, shift=10.0, tier="256", prompt_format="json")
# The first four of the five levels: the last step lands on 0.
FOUR_STEPS = (1.0, 0.9375, 0.8333333333333334, 0.625)
DROID_POLICY = replace(
    ACTION, steps=4, guidance=3.0, shift=5.0, fps=15, tier="480", chunk=32, embodiment="droid_joints", state=True
)
OWN = Defaults(steps=16, guidance=1.0, shift=1.0, fps=10, prompt_format="raw")
# Levels of noise fall evenly from 1: the heads predict data, which Euler's method reaches in a few steps.
PICO = Defaults(
    steps=8,
    guidance=1.0,
    shift=3.0,
    frames=17,
    fps=20,
    size=(128, 128),
    sampler="euler",
    schedule="flow",
    prompt_format="raw",
)
PICO_DYNAMICS = replace(PICO, size=None, embodiment="factory_gantry", state=False)

LONGEST_ANSWERS = {"pico": 32}
"""Tokens of an answer where a request does not say, for families that differ from the framework's 1024."""

DYNAMICS = ("forward_dynamics", "inverse_dynamics", "policy", "policy_no_video")
VIDEOS = ("text_to_video", "image_to_video", "video_to_video")


def _rows(picture: Defaults, video: Defaults, action: Defaults) -> dict[str, Defaults]:
    return {"text_to_image": picture, **dict.fromkeys(VIDEOS, video), **dict.fromkeys(DYNAMICS, action)}


FAMILIES: dict[str, dict[str, Defaults]] = {
    "edge": _rows(
        replace(PICTURE, size=TIERS["480"]["1,1"]),
        replace(VIDEO, guidance=5.0, shift=3.0, frames=121, size=TIERS["480"]["16,9"]),
        ACTION,
    ),
    "nano": _rows(PICTURE, VIDEO, ACTION),
    "super": _rows(PICTURE, VIDEO, ACTION),
    "super-text-to-image-4step": {
        "text_to_image": replace(
            PICTURE,
            steps=4,
            guidance=1.0,
            shift=None,
            size=TIERS["768"]["1,1"],
            sampler="stochastic",
            schedule="fixed",
            sigmas=FOUR_STEPS,
        )
    },
    "super-image-to-video-4step": {
        "image_to_video": replace(
            VIDEO,
            steps=4,
            guidance=1.0,
            shift=None,
            size=TIERS["480"]["16,9"],
            sampler="stochastic",
            schedule="fixed",
            sigmas=FOUR_STEPS,
        )
    },
    # Whether the Nano policy was trained on JSON or plain prompts is not settled; its training recipe says JSON.
    "policy-droid": {"policy": DROID_POLICY},
    "edge-policy-droid": {"policy": replace(DROID_POLICY, interval=(960.0, 1001.0))},
    "orrery": _rows(
        replace(OWN, frames=1, fps=None, size=TIERS["256"]["1,1"]),
        replace(OWN, frames=17, size=TIERS["256"]["16,9"]),
        replace(OWN, fps=None),
    ),
    # What follows from actions, and actions that follow from what is seen, are nearly certain: more steps add noise.
    "pico": {
        **_rows(replace(PICO, frames=1, fps=None), PICO, replace(PICO_DYNAMICS, steps=4)),
        "inverse_dynamics": replace(PICO_DYNAMICS, steps=1),
        "policy": replace(PICO_DYNAMICS, steps=4, state=True),
        "policy_no_video": replace(PICO_DYNAMICS, steps=1, state=True),
    },
}


def resolve(request: Request, task: Task, family: str, *, contract: ActionContract | None = None) -> Settings:
    """Every effective setting of a request for a checkpoint of `family`.

    Args:
        task: the row of the request, `request.row`.
        family: a key of FAMILIES; "orrery" for checkpoints trained with this package.
        contract: of the checkpoint; goes before the row of the embodiment.

    Raises:
        TaskError: no such family, or it has no defaults for the task.
        RequestError: something is still missing, or does not go together with a default.
    """
    if family not in FAMILIES:
        raise TaskError(f"There is no model family {shown(family)}. {nearest(family, FAMILIES)}")
    if task.writes:
        return _writing(request, task, family)
    if task.name not in FAMILIES[family]:
        raise TaskError(
            f"Family {family!r} has no defaults for {task.name!r}. It does {', '.join(FAMILIES[family])}; load another."
        )
    row = FAMILIES[family][task.name]
    flow = _flow(request, task, row)
    if task.action is not None:
        return _acting(request, task, family, row, flow, contract)
    frames = row.frames if request.frames is None else request.frames
    assert frames is not None
    check_frames(request, task, frames)
    return replace(
        flow,
        family=family,
        frames=frames,
        latent_frames=latent_frames(frames),
        fps=_rate(row.fps if request.fps is None else request.fps),
        size=row.size if request.size is None else request.size,
        given_frames=_given_frames(request, task, frames),
        clip_from=(request.clip_from or "first") if task.vision == "clip" else None,
    )


def _writing(request: Request, task: Task, family: str) -> Settings:
    # The framework's reasoner answers greedily with up to 1024 tokens and looks at two frames of a video each second.
    return Settings(
        task=task.name,
        family=family,
        seed=request.seed,
        prompt=request.prompt,
        system_prompt=request.system_prompt or None,
        fps=_rate(request.fps),
        max_new_tokens=request.max_new_tokens or LONGEST_ANSWERS.get(family, 1024),
        temperature=float(_or(request.temperature, 0.0)),
        top_p=float(_or(request.top_p, 1.0)),
        top_k=request.top_k,
        presence_penalty=float(_or(request.presence_penalty, 0.0)),
        repetition_penalty=float(_or(request.repetition_penalty, 1.0)),
        stop=request.stop or (),
        video_fps=float(_or(request.video_fps, 2.0)),
    )


def _flow(request: Request, task: Task, row: Defaults) -> Settings:
    """What every generating task has: texts, sampler, guidance."""
    scales = request.guidance if isinstance(request.guidance, Mapping) else {}
    all_kinds = row.guidance if request.guidance is None or isinstance(request.guidance, Mapping) else request.guidance
    made = [kind for kind in ("vision", "sound", "action") if getattr(task, kind) not in (None, "all")]
    guidance = {kind: float(scales.get(kind, all_kinds)) for kind in made}
    schedule: Schedule = request.schedule or row.schedule
    if row.sigmas is not None:
        fixed: tuple[tuple[str, object, object], ...] = (
            ("steps", request.steps, row.steps),
            ("sampler", request.sampler, row.sampler),
            ("schedule", request.schedule, None),
            ("shift", request.shift, None),
            ("guidance", None if all(scale == 1 for scale in guidance.values()) else request.guidance, 1),
        )
        for name, asked, only in fixed:
            if asked is not None and asked != only:
                raise RequestError(
                    f"{name} {shown(asked)} is not possible: this checkpoint was distilled to {row.steps} fixed steps. "
                    f"Leave {name} out, or load the base checkpoint."
                )
    elif schedule == "karras" and request.shift is not None:
        raise RequestError(f"The karras schedule has no shift, got {request.shift}. Leave it out, or use 'native'.")
    guided = any(scale != 1 for scale in guidance.values())
    notes = []
    if guided and request.negative_prompt is None and row.negative_unbundled:
        notes.append("The negative prompt released with this family is not bundled; an empty one was used.")
    if not guided and request.negative_prompt:
        notes.append("The negative prompt had no effect, because guidance is 1.")
    shift = None if schedule in ("karras", "fixed") else row.shift if request.shift is None else request.shift
    interval = row.interval if request.guidance_interval is None else request.guidance_interval
    sound: Literal["make", "given"] | None = None if task.sound is None else "given" if task.sound == "all" else "make"
    return Settings(
        task=task.name,
        family="",
        seed=request.seed,
        prompt=request.prompt,
        system_prompt=request.system_prompt or None,
        prompt_format=request.prompt_format or row.prompt_format,
        negative_prompt=request.negative_prompt or "",
        negative_metadata=row.negative_metadata,
        pins=tuple(sorted(request.pins)),
        sound=sound,
        steps=row.steps if request.steps is None else request.steps,
        sampler=request.sampler or row.sampler,
        schedule=schedule,
        sigmas=row.sigmas,
        shift=None if shift is None else float(shift),
        guidance=guidance,
        guidance_interval=None if interval is None else (float(interval[0]), float(interval[1])),
        notes=tuple(notes),
    )


def _acting(
    request: Request, task: Task, family: str, row: Defaults, flow: Settings, contract: ActionContract | None
) -> Settings:
    """Add what a task with actions has: robot, rate, chunk, alignment."""
    name = request.embodiment or (None if contract is None else contract.embodiment) or row.embodiment
    if name is None:
        raise RequestError(
            f"Task {task.name!r} needs an embodiment, and this checkpoint has no contract. Name one: "
            f"{', '.join(EMBODIMENTS)}."
        )
    # A contract may be about a robot that has no row here; then it says everything itself.
    robot = Embodiment(name=name, domain_id=0) if contract is not None and name not in EMBODIMENTS else embodiment(name)
    rows = request.action_table()
    if rows is not None:
        chunk: int | None = rows.shape[0]
    elif request.frames is not None and task.frames == "chunk":
        chunk = request.frames - 1
    elif contract is not None:
        chunk = contract.chunk
    else:
        chunk = row.chunk or robot.chunk
    rate = request.fps or (None if contract is None else contract.control_rate_hz) or row.fps or robot.fps
    width = contract.width if contract is not None else robot.width if rows is None else rows.shape[1]
    for what, value, give in (
        ("chunk length", chunk, "frames"),
        ("rate", rate, "fps"),
        ("action width", width, "an embodiment with one"),
    ):
        if value is None:
            raise RequestError(f"Embodiment {name!r} has no published {what}. Give {give}.")
    assert chunk is not None
    frames = 1 if task.frames == "one" else chunk + 1
    if task.frames == "chunk":
        check_action_count(chunk, frames)
    check_frames(request, task, frames)
    if row.state is not None and row.state != (request.state is not None):
        raise RequestError(
            f"Family {family!r} {'needs' if row.state else 'takes no'} state, got {shown(request.state)}. "
            f"{'Give the current state, ' + str(width) + ' numbers' if row.state else 'Leave it out'}."
        )
    for what, given in (("actions", None if rows is None else rows.shape[1]), ("state", _count(request.state))):
        if given is not None and given != width:
            raise RequestError(f"{what} have {given} values a row, {name!r} has {width}. Give its own layout.")
    aligned = action_rows(chunk, state=request.state is not None, actions_given=task.action == "all")
    size = row.size if request.size is None else request.size
    views = () if contract is None or not contract.views else contract.cameras
    if views:
        size = views[0].height, views[0].width
    if size is None and row.tier is None and contract is not None and len(contract.cameras) == 1:
        size = contract.cameras[0].height, contract.cameras[0].width
    return replace(
        flow,
        family=family,
        frames=frames,
        latent_frames=latent_frames(frames),
        fps=_rate(rate),
        size=size,
        tier=row.tier if size is None else None,
        views=tuple((view.name, view.height, view.width) for view in views),
        given_frames=_given_frames(request, task, frames),
        embodiment=name,
        domain_id=robot.domain_id if contract is None else contract.domain_id,
        action_width=width,
        chunk=chunk,
        state=request.state is not None,
        action_rows=aligned.rows,
        action_rows_given=aligned.given,
        action_start=aligned.start,
        viewpoint=request.viewpoint or robot.viewpoint,
        view_description=robot.view_description if request.viewpoint in (None, robot.viewpoint) else "",
    )


def _given_frames(request: Request, task: Task, frames: int) -> int:
    clip = CLIP_FRAMES if request.clip_frames is None else request.clip_frames
    counts = {"none": 0, "first": 1, "clip": clip, "all": frames}
    assert task.vision is not None
    return counts[task.vision]


def _rate(fps: Number | None) -> Number | None:
    """A whole rate as int, so that 15 and 15.0 word the same prompt: the released models were told whole numbers."""
    return int(fps) if fps is not None and fps == int(fps) else fps


def _count(state: list[Number] | Array | None) -> int | None:
    return None if state is None else len(state)


def _or(value: Number | None, default: float) -> Number:
    return default if value is None else value
