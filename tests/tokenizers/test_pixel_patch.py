"""Codecs without parameters: exact round trips, causality, the agreed order, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.errors import MediaError, SettingsError
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec
from orrery.tokenizers.samples import latent_count, samples_of_clip


def clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def sound(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (samples, channels)).astype(np.float32)


@given(groups=st.integers(0, 3), rows=st.integers(1, 3), cols=st.integers(1, 3), spatial=st.sampled_from([1, 4, 8]))
@settings(max_examples=20, deadline=None)
def test_every_byte_comes_back(groups, rows, cols, spatial):
    codec = PixelPatchCodec(spatial=spatial)
    pixels = clip(1 + 4 * groups, rows * spatial, cols * spatial)
    latents = codec.encode(pixels)
    assert latents.shape == (codec.channels, 1 + groups, rows, cols)
    assert latents.dtype == torch.float32
    assert np.array_equal(codec.decode(latents), pixels)


def test_all_256_levels_come_back_and_span_minus_one_to_one():
    codec = PixelPatchCodec(spatial=16)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    latents = codec.encode(pixels)
    assert (latents.min(), latents.max()) == (-1, 1)
    assert np.array_equal(codec.decode(latents), pixels)


def test_a_prefix_of_frames_gives_the_prefix_of_latents():
    codec = PixelPatchCodec(spatial=4)
    pixels = clip(13, 8, 8)
    whole = codec.encode(pixels)
    for frames in (1, 5, 9):
        assert torch.equal(codec.encode(pixels[:frames]), whole[:, : 1 + frames // 4])


def test_channels_run_over_frame_row_column_and_colour():
    codec = PixelPatchCodec(spatial=4)
    pixels = clip(9, 8, 12)
    latents = codec.encode(pixels)
    frame, row, column, colour = 2, 3, 1, 2
    channel = ((frame * 4 + row) * 4 + column) * 3 + colour
    expected = pixels[1 + 4 + frame, 1 * 4 + row, 2 * 4 + column, colour] / 127.5 - 1
    assert latents[channel, 2, 1, 2].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(latents[:48, 0], latents[48:96, 0])


def test_the_first_frame_is_the_mean_of_its_copies_and_overshoot_is_cut():
    codec = PixelPatchCodec(spatial=1)
    latents = torch.zeros(12, 1, 1, 1)
    latents[0::3] = torch.tensor([0.0, 0.4, 0.0, 0.4]).reshape(4, 1, 1, 1)
    latents[1::3], latents[2::3] = 3.0, -3.0
    assert codec.decode(latents).flatten().tolist() == [153, 255, 0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10, 8, 8), r"1 \+ 4 k frames, got 10\. The nearest such count is 9 or 13"),
        ((4, 8, 8), r"got 4\. The nearest such count is 1 or 5"),
        ((0, 8, 8), r"got 0\. The nearest such count is 1\."),
        ((5, 30, 8), r"height must be a multiple of 8, got 30\. The nearest are 24 or 32"),
        ((5, 8, 7), r"width must be a multiple of 8, got 7\. The nearest are 8\."),
    ],
)
def test_clips_that_do_not_fit_are_refused_with_the_nearest_that_do(shape, message):
    with pytest.raises(MediaError, match=message):
        PixelPatchCodec(spatial=8).encode(np.zeros((*shape, 3), dtype=np.uint8))


@given(samples=st.integers(1, 50), hop=st.integers(1, 12), channels=st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_every_sample_comes_back(samples, hop, channels):
    codec = PatchSoundCodec(rate=8000, hop=hop, sound_channels=channels)
    recorded = sound(samples, channels)
    latents = codec.encode(recorded)
    assert latents.shape == (latent_count(samples, hop), hop * channels)
    assert np.array_equal(codec.decode(latents, samples), recorded)


def test_the_last_latent_ends_in_silence():
    latents = PatchSoundCodec(rate=8000, hop=4).encode(sound(6))
    assert latents[1, 4:].eq(0).all()
    assert latents[1, :4].ne(0).all()


@pytest.mark.parametrize("samples", [4, 9, 0])
def test_a_sample_count_of_another_number_of_latents_is_refused(samples):
    codec = PatchSoundCodec(rate=8000, hop=4)
    with pytest.raises(MediaError, match=f"2 latents of 4 samples hold 5 to 8 samples, got {samples}"):
        codec.decode(torch.zeros(2, 8), samples)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (sound(8, 1), "takes 2 channels, got 1"),
        (sound(0, 2), "0 samples"),
        (np.full((3, 2), np.nan, dtype=np.float32), "6 values that are not finite"),
    ],
)
def test_sound_that_does_not_fit_is_refused(recorded, message):
    with pytest.raises(MediaError, match=message):
        PatchSoundCodec(rate=8000, hop=4).encode(recorded)


def test_a_clip_of_189_frames_at_24_fps_has_197_sound_latents():
    assert samples_of_clip(189, 24.0, 48000) == 378000
    assert latent_count(378000, 1920) == 197


def test_patches_without_extent_are_refused():
    with pytest.raises(SettingsError, match="spatial 0"):
        PixelPatchCodec(spatial=0)
    with pytest.raises(SettingsError, match="8000, 0, 2"):
        PatchSoundCodec(rate=8000, hop=0)
