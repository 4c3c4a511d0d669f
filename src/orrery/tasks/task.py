"""The tasks as rows of data: what is shown to the model and what it makes. Nothing here knows media or weights."""

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from orrery.errors import TaskError

Given = Literal["none", "first", "clip", "all"]
"""Which latent frames of a modality the model is shown; the others are made."""

Frames = Literal["one", "free", "chunk"]
"""How many pixel frames: one picture, as many as the request says, or one more than the actions of a chunk."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is observed and what is made. A modality left None is absent.

    `text="first"` means that the prompt is shown and the model writes on. `vision="clip"` shows the first
    `Request.clip_frames` pixel frames; "first" shows frame 0.
    """

    name: str
    text: Given = "all"
    vision: Given | None = None
    sound: Given | None = None
    action: Given | None = None
    frames: Frames = "free"

    @property
    def writes(self) -> bool:
        """True when the answer is text."""
        return self.text == "first"


TASKS = {
    task.name: task
    for task in (
        Task(name="reason", text="first", vision="all"),
        Task(name="text_to_image", vision="none", frames="one"),
        Task(name="text_to_video", vision="none"),
        Task(name="image_to_video", vision="first"),
        Task(name="video_to_video", vision="clip"),
        Task(name="forward_dynamics", vision="first", action="all", frames="chunk"),
        Task(name="inverse_dynamics", vision="all", action="none", frames="chunk"),
        Task(name="policy", vision="first", action="none", frames="chunk"),
        Task(name="policy_no_video", vision="first", action="none", frames="one"),
    )
}


def task_named(name: str) -> Task:
    """The row called `name`; TaskError with the nearest name otherwise."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(TASKS)}."
        raise TaskError(f"There is no task {name[:80]!r}. {hint}")
    return TASKS[name]


def with_sound(task: Task, given: Literal["none", "all"]) -> Task:
    """The same task with sound made ("none" of it is given) or with sound given ("all").

    Raises:
        TaskError: the task has no moving picture that sound could go with.
    """
    if task.writes or task.frames == "one":
        fitting = [name for name, row in TASKS.items() if not row.writes and row.frames != "one"]
        raise TaskError(f"Task {task.name!r} cannot carry sound. Tasks that can: {', '.join(fitting)}.")
    return replace(task, sound=given)
