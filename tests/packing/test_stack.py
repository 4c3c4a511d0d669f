"""A stack says what the pack of its samples says."""

from dataclasses import replace

import pytest
import torch

from orrery.model.config import TINY
from orrery.model.mot import STRIDE, MoT
from orrery.packing.stack import Track, stack_tracks
from orrery.training.start import start_weights


def tracks(count: int) -> list[Track]:
    rng = torch.Generator().manual_seed(3)
    given = torch.zeros(count, 3, dtype=torch.bool)
    given[:, 0] = True
    given[1:, 1] = True
    vision = Track(
        kind="vision", clean=torch.randn(count, 3, 4, 32, generator=rng), given=given,
        valid=torch.ones(4, 32, dtype=torch.bool), rows=2, cols=2, fps=20.0,
    )  # fmt: skip
    wrist = Track(
        kind="vision", clean=torch.randn(count, 3, 1, 32, generator=rng), given=given,
        valid=torch.ones(1, 32, dtype=torch.bool), fps=20.0, shares_origin=True, camera=1,
    )  # fmt: skip
    action = Track(
        kind="action", clean=torch.randn(count, 8, 1, 16, generator=rng),
        given=torch.zeros(count, 8, dtype=torch.bool), valid=(torch.arange(16) < 5)[None], fps=20.0, start=1, domain=24,
    )  # fmt: skip
    return [vision, wrist, action]


@pytest.fixture(params=[False, True], ids=["actions", "actions and their sums"])
def mot(request) -> MoT:
    model = MoT(replace(TINY, cameras=2, action_sums=request.param))
    start_weights(model, 0)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for head in (model.vision_out.weight, model.action_out.weight, model.camera_embed):
            head.copy_(torch.randn(head.shape, generator=rng) * 0.1)
    return model


@torch.no_grad()
def test_the_model_says_of_a_stack_what_it_says_of_the_pack(mot):
    ids = torch.randint(0, 500, (3, 6), generator=torch.Generator().manual_seed(1))
    stack = stack_tracks(ids, tracks(3), mot.config.clock)
    sigmas = torch.rand(3, 3, generator=torch.Generator().manual_seed(2))
    made = mot.forward_stack(stack, sigmas).out
    velocity = mot(stack.unstack(mot.config.clock), sigmas.reshape(-1)).velocity
    for number, track in enumerate(stack.tracks):
        for sample in range(3):
            expected = velocity[3 * sample + number]
            found = torch.where(track.segment(sample).active, made[number][sample], 0.0)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_action_token_is_shown_the_way_gone_so_far():
    model = MoT(replace(TINY, action_sums=True))
    start_weights(model, 0)
    rows = torch.ones(8, 1, 16)
    shown = model._shown(tracks(1)[2].segment(0), rows)
    torch.testing.assert_close(shown[:, 0, :16], torch.ones(8, 16))
    torch.testing.assert_close(shown[:, 0, 16:], (torch.arange(1, 9) / STRIDE)[:, None].expand(8, 16))
    assert model._shown(tracks(1)[0].segment(0), rows) is rows


@torch.no_grad()
def test_cameras_are_told_apart(mot):
    ids = torch.zeros(1, 4, dtype=torch.long)
    vision = tracks(1)[0]
    same = Track(**{**vars(vision), "camera": 1})
    sigmas = torch.full((1, 1), 0.5)
    (one,), (other,) = (
        mot.forward_stack(stack_tracks(ids, [track], mot.config.clock), sigmas).out for track in (vision, same)
    )
    assert (one - other).abs().max() > 1e-4


def test_tracks_of_different_numbers_of_samples_are_refused(mot):
    with pytest.raises(ValueError, match="one number of samples"):
        stack_tracks(torch.zeros(2, 4, dtype=torch.long), tracks(3), mot.config.clock)
