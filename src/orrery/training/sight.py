"""What a picture shows and where, told to the model in training only: the simulator knows it, so it costs nothing.

A linear head reads from each token of a front picture which finishes and kinds of parts have their middle in it,
whether the gripper has, and where in the token. One is set on the eyes' features, which the text tower reads, and one
halfway up the generation tower, on the given frame. Neither is part of a checkpoint.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn

from orrery.errors import DatasetError
from orrery.worlds.factory.parts import FINISHES, KINDS
from orrery.worlds.factory.stream import Record

SIDE = 8
"""Tokens of a side of the front picture, for the eyes and for the generation tower alike."""
SLOTS = 8
"""Things that a picture may show: parts, and the gripper."""
NOWHERE = SIDE * SIDE
"""The token of what is out of the picture, and of slots that are not used."""
NAMES = (*FINISHES, *KINDS, "gripper")
GRIPPER = len(NAMES) - 1
PLACES = 4
"""Numbers for where in the token: right and down of the part, then of the gripper, -1 to 1 from its middle."""
RARE = -4.0
"""Where a head begins: most tokens show nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """What B pictures show: one row for each token and name, and places within tokens."""

    shown: Float[Tensor, "B tokens names"]
    """1 or 0."""
    place: Float[Tensor, "B tokens 4"]
    """Where in the token, as PLACES has it; of account where a part, or the gripper, is shown."""
    weight: Float[Tensor, ""] | float = 1.0
    """Factor on the loss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """What the frames of an episode, or of a bank, show, in few bytes."""

    token: UInt8[np.ndarray, "T slots"]
    first: UInt8[np.ndarray, "T slots"]
    """Row of NAMES: a finish, or the gripper."""
    second: UInt8[np.ndarray, "T slots"]
    """Row of NAMES: a kind, or the gripper again."""
    place: Float32[np.ndarray, "T slots 2"]


def slots_of(record: Record) -> Slots:
    """What each frame of a record shows.

    Raises:
        DatasetError: more things than SLOTS.
    """
    frames, things, _ = record.view.shape
    if things > SLOTS:
        raise DatasetError(f"A picture shows at most {SLOTS - 1} parts, got {things - 1} in record {record.index}.")
    where = np.nan_to_num(record.view, nan=-1.0) * SIDE
    cell = np.floor(where).astype(int)
    inside = ((cell >= 0) & (cell < SIDE)).all(axis=2)
    token = np.full((frames, SLOTS), NOWHERE, np.uint8)
    token[:, :things] = np.where(inside, cell[..., 1] * SIDE + cell[..., 0], NOWHERE)
    place = np.zeros((frames, SLOTS, 2), np.float32)
    place[:, :things] = np.where(inside[..., None], 2 * (where - cell) - 1, 0)
    first, second = np.zeros((2, frames, SLOTS), np.uint8)
    for slot, (finish, kind) in enumerate(record.looks):
        first[:, slot], second[:, slot] = NAMES.index(finish), NAMES.index(kind)
    first[:, things - 1] = second[:, things - 1] = GRIPPER
    return Slots(token=token, first=first, second=second, place=place)


def marks_of(
    token: Int[Tensor, "B slots"], first: Int[Tensor, "B slots"], second: Int[Tensor, "B slots"],
    place: Float[Tensor, "B slots 2"],
) -> Marks:  # fmt: skip
    """Slots of B pictures laid out by token; where two parts share a token, the place is that of one of them."""
    count, device = len(token), token.device
    shown = torch.zeros(count, (NOWHERE + 1) * len(NAMES), device=device)
    for name in (first, second):
        shown.scatter_(1, token * len(NAMES) + name, 1.0)
    where = torch.zeros(count, NOWHERE + 1, PLACES, device=device)
    for begin, wanted in ((0, first != GRIPPER), (2, first == GRIPPER)):
        slot = torch.where(wanted, token, NOWHERE)[..., None].expand(-1, -1, 2)
        where[..., begin : begin + 2].scatter_(1, slot, place)
    return Marks(shown=shown.view(count, NOWHERE + 1, len(NAMES))[:, :NOWHERE], place=where[:, :NOWHERE])


class SightHead(nn.Module):
    """Reads a picture's marks from its tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, elementwise_affine=False)
        self.out = nn.Linear(width, len(NAMES) + PLACES)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.constant_(self.out.bias[: len(NAMES)], RARE)

    def chances(self, tokens: Float[Tensor, "B tokens D"]) -> Float[Tensor, "B tokens names"]:
        """How likely each token is to show each of NAMES."""
        read: Tensor = self.out(self.norm(tokens.float())).float()
        return read[..., : len(NAMES)].sigmoid()

    def loss(self, tokens: Float[Tensor, "B tokens D"], marks: Marks) -> Float[Tensor, ""]:
        """Cross entropy in nats a token, summed over names, and a fifth of what places are off in half
        sides of a token, the mean over the four numbers of a picture."""
        read = self.out(self.norm(tokens.float())).float()
        names = (
            F.binary_cross_entropy_with_logits(read[..., : len(NAMES)], marks.shown, reduction="none").sum(-1).mean()
        )
        part = marks.shown[..., :GRIPPER].amax(-1, keepdim=True)
        gripper = marks.shown[..., GRIPPER:]
        there = torch.cat([part, part, gripper, gripper], dim=-1)
        # By the number of pictures, not of things: so that parts of a batch add up to the whole.
        away = ((read[..., len(NAMES) :] - marks.place).abs() * there).sum() / (len(tokens) * PLACES)
        return marks.weight * (names + 0.2 * away)
