"""Every effective setting of one run, as it goes into `run.json`, and the texts that follow from it."""

from dataclasses import dataclass, fields
from typing import Literal

from orrery.tasks.canvas import aspect_label
from orrery.tasks.checks import Number
from orrery.tasks.prompt import NegativeMetadata, action_json, action_plain, negative, plain, structured

Sampler = Literal["unipc", "euler", "stochastic"]
Schedule = Literal["native", "flow", "karras", "fixed"]
PromptFormat = Literal["plain", "json", "raw"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is really done. None: the task has no such thing.

    `size` None: the size of the observation, fitted to `tier` if there is one. `given_frames` counts the leading pixel
    frames that are shown. `guidance` has one scale for each kind that is made. `schedule` "fixed" takes `sigmas`.
    `notes` says in words what a reader of the result should know.
    """

    task: str
    family: str
    seed: int
    prompt: str
    system_prompt: str | None
    prompt_format: PromptFormat | None = None
    negative_prompt: str | None = None
    negative_metadata: NegativeMetadata | None = None
    frames: int | None = None
    latent_frames: int | None = None
    fps: Number | None = None
    size: tuple[int, int] | None = None
    tier: str | None = None
    views: tuple[tuple[str, int, int], ...] = ()
    """Name, height and width of each camera, where the model takes their pictures one by one; else empty."""
    given_frames: int | None = None
    clip_from: Literal["first", "last"] | None = None
    pins: tuple[int, ...] = ()
    sound: Literal["make", "given"] | None = None
    steps: int | None = None
    sampler: Sampler | None = None
    schedule: Schedule | None = None
    sigmas: tuple[float, ...] | None = None
    shift: float | None = None
    guidance: dict[str, float] | None = None
    guidance_interval: tuple[float, float] | None = None
    embodiment: str | None = None
    domain_id: int | None = None
    action_width: int | None = None
    chunk: int | None = None
    state: bool | None = None
    action_rows: int | None = None
    action_rows_given: int | None = None
    action_start: int | None = None
    viewpoint: str | None = None
    view_description: str = ""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    video_fps: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def guided(self) -> bool:
        """Whether any scale needs the unconditional pass."""
        return any(scale != 1 for scale in (self.guidance or {}).values())

    def to_json(self) -> dict[str, object]:
        """All settings as JSON values; nothing is left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def positive_text(settings: Settings, *, height: int, width: int) -> str:
    """The user's text as the model gets it, for a picture or padded canvas of (height, width) pixels.

    A caption that is a JSON object has its metadata set in the object, any other caption gets sentences.
    """
    if settings.prompt_format in (None, "raw"):
        return settings.prompt
    assert settings.frames is not None
    # Pictures alone have no rate; their sentences and objects do not mention it.
    fps = 1 if settings.fps is None else settings.fps
    frames, aspect = settings.frames, aspect_label(height, width)
    if settings.embodiment is not None:
        frames = frames if settings.chunk is None else settings.chunk + 1
        if settings.prompt_format == "plain":
            return action_plain(
                settings.prompt,
                viewpoint=settings.viewpoint,
                view_description=settings.view_description,
                frames=frames,
                fps=fps,
                height=height,
                width=width,
            )
        return action_json(
            settings.prompt,
            viewpoint=settings.viewpoint,
            view_description=settings.view_description,
            frames=frames,
            fps=fps,
            height=height,
            width=width,
            aspect=aspect,
        )
    as_object = structured(settings.prompt, frames=frames, fps=fps, height=height, width=width, aspect=aspect)
    if as_object is not None:
        return as_object
    return plain(settings.prompt, frames=frames, fps=fps, height=height, width=width)


def negative_text(settings: Settings, *, height: int, width: int) -> str:
    """The text of the unconditional pass."""
    assert settings.frames is not None
    return negative(
        settings.negative_prompt or "",
        settings.negative_metadata or "none",
        frames=settings.frames,
        fps=1 if settings.fps is None else settings.fps,
        height=height,
        width=width,
    )
