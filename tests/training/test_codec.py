"""Training of small codecs: it learns, the same for the same seed, and stops when it should."""

import math
import time

import pytest
import torch

from orrery.errors import SettingsError
from orrery.tokenizers.autoencoder import AutoencoderConfig
from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec, SoundAutoencoder, SoundAutoencoderConfig
from orrery.training.codec import (
    CodecTraining,
    _ConvolutionMuon,
    picture_loss,
    psnr_of,
    sound_figures,
    spectral_loss,
    train_sound_codec,
    train_vision_codec,
)
from orrery.training.muon import orthogonalised

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


TINY_SOUND = SoundAutoencoderConfig(channels=16, frame_width=32, width=64, encoder_blocks=0, decoder_blocks=1)


def blows(step: int, count: int = 4, hops: int = 4) -> torch.Tensor:
    """Sounds that ring from some moment on, somewhere between left and right, above faint noise."""
    rng = torch.Generator().manual_seed(step)
    t = torch.arange(hops * 800) / 16_000
    sounds = 0.002 * torch.randn(count, len(t), 2, generator=rng)
    for sound in sounds:
        begin, pitch, place = torch.rand(3, generator=rng).tolist()
        since = t - 0.03 - 0.12 * begin
        ring = 0.5 * torch.sin(2 * torch.pi * (800 + 1200 * pitch) * since) * torch.exp(-since / 0.03) * (since > 0)
        sound += ring[:, None] * torch.tensor([1 - place / 2, 0.5 + place / 2])
    return sounds


def test_sound_comes_out_nearer_than_silence_and_blows_when_they_were():
    settings = CodecTraining(steps=120, warmup_steps=10, learning_rate=5e-3)
    losses: list[float] = []
    codec, figures = train_sound_codec(
        TINY_SOUND,
        blows,
        settings,
        device=CPU,
        seed=0,
        held_out=[blows(10**6, 8)],
        report=lambda step, values: losses.append(values["loss"]),
    )
    assert figures["loss"] < 0.97 * losses[0]  # most of it is chance: two noises are never the same
    assert figures["log_spectrum_db"] < 0.65 * figures["silence_db"]
    assert figures["onset_ms"] < 16  # by chance it would be 25; 12 or so, with the number of threads
    latents = codec.encode_sounds(blows(0, 32))
    torch.testing.assert_close(latents.mean(dim=(0, 1)), torch.zeros(16), atol=0.3, rtol=0)


def test_the_same_seed_gives_the_same_sound_codec():
    def weights():
        settings = CodecTraining(steps=2)
        return train_sound_codec(TINY_SOUND, blows, settings, device=CPU, seed=0)[0].network.state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_kernels_are_updated_as_matrices_whatever_their_layout(layout):
    convolution = torch.nn.Conv2d(6, 5, 3, bias=False).to(memory_format=layout)
    before, gradient = convolution.weight.detach().clone(), torch.randn(5, 6, 3, 3)
    convolution.weight.grad = gradient.clone()
    optimiser = _ConvolutionMuon(list(convolution.parameters()))
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    # The first step of momentum is along the gradient.
    change = orthogonalised(gradient.reshape(1, 5, 54)).reshape(5, 6, 3, 3)
    expected = before - 0.1 * 0.2 * 54**0.5 * change
    torch.testing.assert_close(convolution.weight.detach(), expected, atol=1e-3, rtol=0)


def test_the_spectral_loss_is_0_for_the_same_and_hears_levels_and_sides():
    sound = blows(0)
    assert spectral_loss(sound, sound) == 0
    assert spectral_loss(2 * sound, sound) > spectral_loss(1.1 * sound, sound) > 0.01
    assert spectral_loss(sound.flip(2), sound) > 0.01


def test_a_codec_that_moves_blows_is_told_by_how_much():
    class Late(AutoencoderSoundCodec):
        def decode_sounds(self, latents):
            return blows(0).roll(320, dims=1)

    figures = sound_figures(Late(SoundAutoencoder(TINY_SOUND)), [blows(0)])
    assert figures["onset_ms"] == pytest.approx(20, abs=1)


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
