"""Training of small codecs: it learns, the same for the same seed, and stops when it should."""

import math
import time

import pytest
import torch

from orrery.errors import SettingsError
from orrery.tokenizers.autoencoder import AutoencoderConfig
from orrery.training.codec import CodecTraining, picture_loss, psnr_of, train_vision_codec

TINY = AutoencoderConfig(channels=4, fine=16, coarse=32, encoder_blocks=(0, 0), decoder_blocks=(1, 0))
CPU = torch.device("cpu")


def squares(step: int, count: int = 8, size: int = 32) -> torch.Tensor:
    """Frames of a bright square on a coloured ground."""
    rng = torch.Generator().manual_seed(step)
    frames = torch.randint(0, 120, (count, 1, 1, 3), generator=rng).expand(-1, size, size, -1).clone()
    for frame in frames:
        y, x = torch.randint(0, size - 12, (2,), generator=rng).tolist()
        frame[y : y + 12, x : x + 12] = torch.randint(130, 256, (3,), generator=rng)
    return frames.to(torch.uint8)


HELD_OUT = squares(10**6)


def train(**settings):
    reports = []
    codec, figures = train_vision_codec(
        TINY,
        squares,
        CodecTraining(**settings),
        device=CPU,
        seed=0,
        held_out=[HELD_OUT],
        report=lambda step, values: reports.append(values["loss"]),
    )
    return codec, figures, reports


def test_the_loss_falls_and_frames_come_out_better_than_their_mean():
    codec, figures, reports = train(steps=200, warmup_steps=10, learning_rate=1e-2)
    assert reports[-1] < 0.7 * reports[0]
    mean = HELD_OUT.float().mean(dim=(1, 2), keepdim=True)
    trivial = 10 * math.log10(255**2 / float((HELD_OUT.float() - mean).square().mean()))
    assert figures["psnr_db"] > trivial + 4
    assert figures["psnr_32x32_db"] == figures["psnr_db"] == psnr_of(codec, [HELD_OUT])["psnr_db"]
    latents = codec.encode_frames(squares(0, 64))
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.2, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.2, rtol=0)


def test_the_same_seed_gives_the_same_weights():
    first, second = train(steps=5)[0].network.state_dict(), train(steps=5)[0].network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_stops_by_the_clock():
    begun = time.monotonic()
    _, figures, _ = train(seconds=0.5)
    assert 0.5 <= figures["seconds"] < 5
    assert time.monotonic() - begun < 10


def test_weights_draw_the_loss_to_their_pixels():
    true, weights = torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8)
    weights[:, :4] = 5
    above, below = true.clone(), true.clone()
    above[:, :, 1], below[:, :, 6] = 1, 1
    assert picture_loss(above, true, weights, 0.5) == pytest.approx(5 * float(picture_loss(below, true, weights, 0.5)))
    even = torch.full((1, 8, 8), 3.0)
    torch.testing.assert_close(picture_loss(above, true, even, 0.5), picture_loss(above, true, None, 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "seconds or steps"),
        ({"seconds": 1.0, "steps": 1}, "seconds or steps"),
        ({"steps": 0}, "more than 0"),
        ({"steps": 1, "learning_rate": -1.0}, "above 0"),
        ({"steps": 1, "latent_noise": -1.0}, "0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        CodecTraining(**settings)
