"""The frame autoencoder on a tiny random network: causality, whitening, sizes, strict loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orrery.errors import CheckpointError, MediaError, SettingsError
from orrery.tokenizers.autoencoder import (
    AutoencoderCodec,
    AutoencoderConfig,
    FrameAutoencoder,
    stack_latents,
    unstack_latents,
)
from orrery.tokenizers.codecs import VisionCodec, vision_from_config
from orrery.weights.folder import save_folder

TINY = AutoencoderConfig(channels=3, fine=8, coarse=48, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
CPU = (torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def codec() -> AutoencoderCodec:
    torch.manual_seed(0)
    network = FrameAutoencoder(TINY)
    for parameter in network.parameters():  # blocks begin as nothing, which would hide their mistakes
        torch.nn.init.normal_(parameter, std=0.15)
    network.whiten(torch.randn(50, 3) * 2 + 1)
    return AutoencoderCodec(network.eval(), TINY)


def clip(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Moving bands, so that time and place matter."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    return (127 + 120 * np.sin(0.4 * x + 0.2 * y * (c + 1) + 0.9 * t)).astype(np.uint8)


def save(codec: AutoencoderCodec, root: Path) -> Path:
    tables = {f"{codec.folder}/model.safetensors": codec.tensors()}
    save_folder(root, tensors=tables, documents={}, metadata={})
    return root / codec.folder / "model.safetensors"


def test_it_is_a_vision_codec_of_stacked_frames(codec):
    latents = codec.encode(clip(9))
    assert isinstance(codec, VisionCodec)
    assert (codec.channels, codec.temporal, codec.spatial) == (12, 4, 8)
    assert latents.shape == (12, 3, 4, 6)
    assert latents.dtype == torch.float32
    assert codec.decode(latents).shape == (9, 32, 48, 3)


def test_a_prefix_of_frames_gives_the_prefix_of_latents(codec):
    pixels = clip(13)
    whole = codec.encode(pixels)
    for frames in (1, 5, 9):
        torch.testing.assert_close(codec.encode(pixels[:frames]), whole[:, : 1 + frames // 4], atol=1e-4, rtol=0)
    changed = pixels.copy()
    changed[-1] = 255 - changed[-1]
    moved = (codec.encode(changed) - whole).abs().amax(dim=(1, 2, 3))
    assert (moved[:9] < 1e-4).all()  # the last of the four frames of the last latent frame has the last 3 channels
    assert (moved[9:] > 1e-2).all()


def test_a_prefix_of_latents_gives_the_prefix_of_frames(codec):
    latents = torch.randn(12, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    short, whole = codec.decode(latents[:, :2]), codec.decode(latents)
    assert len(short) == 5
    assert np.abs(short.astype(int) - whole[:5]).max() <= 1


@pytest.mark.parametrize("differences", [False, True])
def test_stacking_is_undone_and_the_first_frame_is_the_mean_of_its_four(differences):
    coded = torch.randn(2, 9, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    latents = stack_latents(coded, differences=differences)
    torch.testing.assert_close(unstack_latents(latents, differences=differences), coded)
    # (frame, channel), channel fastest
    assert torch.equal(latents[:, 3:6, 1], coded[:, 2] - (coded[:, 0] if differences else 0))
    latents[:, :3, 0] += 4
    again = unstack_latents(latents, differences=differences)
    torch.testing.assert_close(again[:, 0], coded[:, 0] + 1)
    torch.testing.assert_close(again[:, 1:], coded[:, 1:] + (1 if differences else 0))


def test_what_stands_still_is_nothing_but_its_first_frame():
    still = torch.randn(1, 1, 3, 4, 6, generator=torch.Generator().manual_seed(0)).expand(-1, 9, -1, -1, -1)
    latents = stack_latents(still, differences=True)
    assert latents[:, :, 0].abs().max() > 1
    assert not latents[:, :, 1:].any()


def test_frames_are_coded_alone_and_as_in_clips(codec):
    pixels = clip(5)
    coded = codec.encode_frames(torch.from_numpy(pixels))
    assert coded.shape == (5, 3, 4, 6)
    stacked = stack_latents(coded[None], differences=codec.config.differences)
    torch.testing.assert_close(stacked[0], codec.encode(pixels), atol=1e-5, rtol=0)
    decoded = codec.decode_frames(coded).numpy().astype(int)
    assert np.abs(decoded - codec.decode(codec.encode(pixels))).max() <= 1


def test_whitening_gives_mean_0_and_deviation_1_and_leaves_the_frames():
    torch.manual_seed(0)
    network = FrameAutoencoder(TINY).eval()
    signed = torch.rand(8, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = network.decode(network.encode(signed))
        for _ in range(2):  # a second time must not undo the first
            network.whiten(network.encode(signed).permute(0, 2, 3, 1).reshape(-1, 3))
        latents = network.encode(signed)
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
        torch.testing.assert_close(network.decode(latents), before, atol=1e-4, rtol=0)


def test_autocast_around_the_codec_changes_nothing(codec):
    outside = codec.encode(clip(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(clip(1)), outside)


def test_a_saved_codec_comes_back_from_its_configuration(codec, tmp_path: Path):
    save(codec, tmp_path / "checkpoint")
    config = json.loads(json.dumps(codec.codec_config()))
    again = vision_from_config(config, tmp_path / "checkpoint", *CPU)
    assert again.codec_config() == codec.codec_config()
    latents = codec.encode(clip(5))
    relative = (again.encode(clip(5)) - latents).std() / latents.std()
    assert 0 < relative < 0.03  # 8 bits
    # What was read is stored as the same bytes.
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in codec.tensors().items())


@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched", "unscaled"])
def test_tensors_that_do_not_fit_are_refused_and_named(codec, tmp_path: Path, damage):
    path = save(codec, tmp_path / "checkpoint")
    tensors = load_file(path)
    if damage == "missing":
        del tensors["mean"]
    elif damage == "unexpected":
        tensors["stranger"] = torch.zeros(1)
    elif damage == "unscaled":
        del tensors["encoder.5.first.weight.rows"]
    else:
        tensors["mean"] = torch.zeros(4)
    save_file(tensors, path)
    named = {"unexpected": "stranger", "unscaled": r"encoder\.5\.first\.weight\.rows"}.get(damage, "mean")
    with pytest.raises(CheckpointError, match=named):
        vision_from_config(codec.codec_config(), tmp_path / "checkpoint", *CPU)


def test_clips_that_do_not_fit_are_refused(codec):
    with pytest.raises(MediaError, match="9 or 13"):
        codec.encode(clip(10))
    with pytest.raises(MediaError, match="width must be a multiple of 8, got 44"):
        codec.encode(clip(1, 32, 44))
    with pytest.raises(MediaError, match="1 or 5"):
        stack_latents(torch.zeros(1, 3, 2, 4, 4), differences=True)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(SettingsError, match="channels=0"):
        AutoencoderConfig(channels=0)
