"""How pixel frames, latent frames and action rows line up. Counting only."""

from dataclasses import dataclass

from orrery.errors import RequestError

TEMPORAL = 4
"""Pixel frames that share one latent frame, after frame 0, which has its own."""


@dataclass(frozen=True, kw_only=True)
class ActionRows:
    """The action rows of one call. Row j stands at the time of pixel frame j + start, the frame that it leads into."""

    rows: int
    given: int
    start: int


def latent_frames(frames: int) -> int:
    """Latent frames of 4k+1 pixel frames: frame 0, then one for every four.

    Raises:
        RequestError: the frames are not 4k+1; they are never rounded.
    """
    if frames < 1 or frames % TEMPORAL != 1:
        raise RequestError(f"frames must be 4k+1, got {frames}. {two_nearest(frames)}")
    return 1 + (frames - 1) // TEMPORAL


def two_nearest(frames: int) -> str:
    """The sentence that names the next smaller and larger number of frames that can be made."""
    below = max(1, (frames - 1) // TEMPORAL * TEMPORAL + 1)
    return f"Give {below} or {below + TEMPORAL}."


def action_rows(chunk: int, *, state: bool, actions_given: bool) -> ActionRows:
    """Rows for `chunk` actions; with `state`, row 0 is the current state, which is always given and is not an action.

    The state shares the time of frame 0, so it moves the start from 1 to 0 and no action by a frame.
    """
    rows = chunk + int(state)
    return ActionRows(rows=rows, given=rows if actions_given else int(state), start=0 if state else 1)
