"""Eyes learn where things are from what they are told, and nothing from what they are told of other pictures."""

import torch
from makers.world_run import CPU, EYES

from orrery.tokenizers.eyes import PICO_EYES
from orrery.training.codec import CodecTraining
from orrery.training.eyes import train_eyes
from orrery.training.sight import NAMES, PLACES, Marks

PX = 32
"""Side of the pictures, of 2 x 2 tokens."""


def squares(count: int, seed: int):
    """A red or a blue square in one token of a grey picture, and the marks of it."""
    rng = torch.Generator().manual_seed(seed)
    side = PX // 16
    token = torch.randint(side**2, (count,), generator=rng)
    name = torch.randint(2, (count,), generator=rng)
    pictures = torch.full((count, PX, PX, 3), 90, dtype=torch.uint8)
    shown = torch.zeros(count, side**2, len(NAMES))
    for row, (at, what) in enumerate(zip(token.tolist(), name.tolist(), strict=True)):
        top, left = at // side * 16 + 4, at % side * 16 + 4
        pictures[row, top : top + 8, left : left + 8] = torch.tensor([200, 20, 20] if what else [20, 20, 200])
        shown[row, at, what] = 1
    return pictures, Marks(shown=shown, place=torch.zeros(count, side**2, PLACES))


def learned(told_of: int) -> dict[str, float]:
    """Figures of eyes that were told of other pictures, where `told_of` is not 0."""

    def draw(step: int):
        pictures, marks = squares(16, 100 + step)
        return pictures, Marks(shown=marks.shown.roll(told_of, 0), place=marks.place.roll(told_of, 0))

    training = CodecTraining(steps=120, learning_rate=5e-3, warmup_steps=10)
    _, figures = train_eyes(EYES, PICO_EYES, draw, training, device=CPU, seed=0, held_out=squares(64, 1))
    return figures


def test_eyes_learn_what_is_where_and_only_from_the_pictures_at_hand():
    right, wrong = learned(0), learned(1)
    assert right["steps"] == 120
    assert right["precision"] > 0.95
    assert right["recall"] > 0.95
    assert wrong["recall"] < 0.3
    assert right["held_out_loss"] < wrong["held_out_loss"] / 3
