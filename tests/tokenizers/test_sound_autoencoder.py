"""The sound autoencoder on a tiny random network: its transform, lengths, whitening, strict loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orrery.errors import CheckpointError, MediaError, SettingsError
from orrery.tokenizers.codecs import SoundCodec, sound_from_config
from orrery.tokenizers.sound_autoencoder import (
    AutoencoderSoundCodec,
    Mdct,
    SoundAutoencoder,
    SoundAutoencoderConfig,
    middle_and_side,
)
from orrery.weights.folder import save_folder

TINY = SoundAutoencoderConfig(
    rate=8000,
    hop=160,
    channels=6,
    lines=40,
    bands=5,
    long_lines=80,
    frame_width=16,
    width=48,
    encoder_blocks=1,
    decoder_blocks=1,
)
CPU = (torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def codec() -> AutoencoderSoundCodec:
    torch.manual_seed(0)
    network = SoundAutoencoder(TINY)
    for parameter in network.parameters():  # blocks begin as nothing, which would hide their mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    network.whiten(torch.randn(50, 6) * 2 + 1)
    return AutoencoderSoundCodec(network.eval())


def noise(samples: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, (samples, channels)).astype(np.float32)


def save(codec: AutoencoderSoundCodec, root: Path) -> Path:
    tables = {f"{codec.folder}/model.safetensors": codec.tensors()}
    save_folder(root, tensors=tables, documents={}, metadata={})
    return root / codec.folder / "model.safetensors"


@pytest.mark.parametrize(("lines", "frames"), [(40, 1), (40, 2), (100, 8), (100, 24)])
def test_the_transform_is_undone_exactly_also_at_the_ends(lines, frames):
    sound = torch.randn(3, 2, lines * frames, generator=torch.Generator().manual_seed(0))
    mdct = Mdct(lines)
    assert mdct(sound).shape == (3, 2, frames, lines)
    torch.testing.assert_close(mdct.inverse(mdct(sound)), sound, atol=2e-5, rtol=0)


def test_a_tone_is_where_its_frequency_is_and_a_click_where_its_time_is():
    mdct, t = Mdct(100), torch.arange(16_000) / 16_000
    (power,) = mdct(torch.sin(2 * torch.pi * 1320 * t)[None, None]).square().sum(dim=2)
    assert abs(int(power.argmax()) - 1320 / 80) < 1  # 80 Hz a line
    click = torch.zeros(1, 1, 1600)
    click[..., 730] = 1
    assert mdct(click).square().sum(dim=(0, 1, 3)).argmax() == 7


def test_white_noise_is_as_loud_in_lines_as_in_samples():
    sound = torch.randn(1, 2, 40_000, generator=torch.Generator().manual_seed(0))
    assert Mdct(100)(sound).std() == pytest.approx(1, abs=0.02)


def test_middle_and_side_are_their_own_inverse_and_one_side_has_no_middle_alone():
    sound = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(middle_and_side(middle_and_side(sound)), sound)
    assert middle_and_side(torch.ones(1, 2, 4))[0, 1].abs().max() == 0


@pytest.mark.parametrize(("samples", "latents"), [(1, 1), (160, 1), (161, 2), (1000, 7)])
def test_each_hop_fills_a_latent_and_the_length_comes_back(codec, samples, latents):
    assert isinstance(codec, SoundCodec)
    assert (codec.rate, codec.hop, codec.channels, codec.sound_channels) == (8000, 160, 6, 2)
    encoded = codec.encode(noise(samples))
    assert encoded.shape == (latents, 6)
    assert encoded.dtype == torch.float32
    decoded = codec.decode(encoded, samples)
    assert decoded.shape == (samples, 2)
    assert np.array_equal(decoded, codec.decode(encoded, samples))  # its noise is always the same


def test_a_length_of_another_number_of_latents_and_mono_are_refused(codec):
    with pytest.raises(MediaError, match="2 latents of 160 samples hold 161 to 320 samples, got 160"):
        codec.decode(torch.zeros(2, 6), 160)
    with pytest.raises(MediaError, match="takes 2 channels, got 1"):
        codec.encode(noise(160, 1))


def test_what_is_far_in_time_changes_no_latent(codec):
    whole, changed = noise(4800), noise(4800)
    changed[3200:] = 0
    moved = (codec.encode(whole) - codec.encode(changed)).abs().amax(dim=1)
    assert (moved[:16] < 1e-5).all()
    assert (moved[20:] > 1e-3).all()


def test_whitening_gives_mean_0_and_deviation_1_and_leaves_the_sound():
    torch.manual_seed(0)
    network = SoundAutoencoder(TINY).eval()
    sound = torch.from_numpy(noise(16_000))[None]
    with torch.no_grad():
        before = network.decode(network.encode(sound))
        for _ in range(2):  # a second time must not undo the first
            network.whiten(network.encode(sound)[0])
        (latents,) = network.encode(sound)
        torch.testing.assert_close(latents.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
        torch.testing.assert_close(latents.std(dim=0), torch.ones(6), atol=1e-3, rtol=0)
        torch.testing.assert_close(network.decode(latents[None]), before, atol=1e-4, rtol=0)


def test_autocast_around_the_codec_changes_nothing(codec):
    outside = codec.encode(noise(800))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(noise(800)), outside)


def test_a_saved_codec_comes_back_from_its_configuration(codec, tmp_path: Path):
    save(codec, tmp_path / "checkpoint")
    config = json.loads(json.dumps(codec.codec_config()))
    again = sound_from_config(config, tmp_path / "checkpoint", *CPU)
    assert again.codec_config() == codec.codec_config()
    latents = codec.encode(noise(1600))
    assert (again.encode(noise(1600)) - latents).std() / latents.std() < 0.03
    # What was read is stored as the same bytes.
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in codec.tensors().items())


@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched"])
def test_tensors_that_do_not_fit_are_refused_and_named(codec, tmp_path: Path, damage):
    path = save(codec, tmp_path / "checkpoint")
    tensors = load_file(path)
    if damage == "missing":
        del tensors["deviation"]
    elif damage == "unexpected":
        tensors["stranger"] = torch.zeros(1)
    else:
        tensors["deviation"] = torch.zeros(4)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="stranger" if damage == "unexpected" else "deviation"):
        sound_from_config(codec.codec_config(), tmp_path / "checkpoint", *CPU)


@pytest.mark.parametrize("changes", [{"lines": 99}, {"bands": 7}, {"channels": 0}, {"long_lines": 300}])
def test_sizes_that_do_not_divide_are_refused(changes):
    with pytest.raises(SettingsError, match="sound autoencoder needs"):
        SoundAutoencoderConfig(**changes)
