"""The video autoencoder on a tiny random network: causality, parity with diffusers called directly, strict loading."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file

from orrery.errors import CheckpointError, MediaError
from orrery.tokenizers.wan import WanCodec, channels_last, load_wan

MEAN, DEVIATION = [-0.2289, -0.0052, 0.3323, 0.1174], [0.4765, 1.0364, 0.4514, 1.1677]


def tiny(**changes) -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        **{
            "base_dim": 8,
            "z_dim": 4,
            "dim_mult": [1, 2, 2, 2],
            "num_res_blocks": 1,
            "temperal_downsample": [False, True, True],
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "scale_factor_temporal": 4,
            "latents_mean": MEAN,
            "latents_std": DEVIATION,
        }
        | changes
    ).eval()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    return tiny()


def clip(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Moving bands, so that time and place matter."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    return (127 + 120 * np.sin(0.4 * x + 0.2 * y * (c + 1) + 0.9 * t)).astype(np.uint8)


def test_shapes_and_factors_come_from_the_layers(vae):
    codec = WanCodec(vae, "vae")
    latents = codec.encode(clip(9))
    assert (codec.channels, codec.temporal, codec.spatial) == (4, 4, 16)
    assert latents.shape == (4, 3, 2, 3)
    assert latents.dtype == torch.float32
    assert codec.decode(latents).shape == (9, 32, 48, 3)


def test_a_prefix_of_frames_gives_the_prefix_of_latents(vae):
    codec, pixels = WanCodec(vae, "vae"), clip(13)
    whole = codec.encode(pixels)
    for frames in (1, 5, 9):
        torch.testing.assert_close(codec.encode(pixels[:frames]), whole[:, : 1 + frames // 4], atol=1e-5, rtol=0)
    changed = pixels.copy()
    changed[-1] = 255 - changed[-1]
    assert not torch.allclose(codec.encode(changed)[:, -1], whole[:, -1], atol=1e-3)


def test_a_prefix_of_latents_gives_the_prefix_of_frames(vae):
    codec = WanCodec(vae, "vae")
    latents = torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    short, whole = codec.decode(latents[:, :2]), codec.decode(latents)
    assert len(short) == 5
    assert np.abs(short.astype(int) - whole[:5]).max() <= 1


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoding_and_decoding_equal_diffusers_called_directly(dtype):
    """To the bit: the same network, with statistics rounded to its precision before the reciprocal is taken."""
    vae = tiny().to(dtype)
    codec, pixels = WanCodec(vae, "vae"), clip(5)
    mean = torch.tensor(MEAN, dtype=dtype).view(1, 4, 1, 1, 1)
    inverse = (1 / torch.tensor(DEVIATION, dtype=dtype)).view(1, 4, 1, 1, 1)
    with torch.no_grad():
        signed = (torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1).to(dtype)
        expected = (vae.encode(signed).latent_dist.mode() - mean) * inverse
        latents = codec.encode(pixels)
        assert torch.equal(latents, expected[0].float())
        decoded = vae.decode(latents[None].to(dtype) / inverse + mean).sample[0].float()
    expected_pixels = ((decoded + 1) * 127.5).round().permute(1, 2, 3, 0).numpy().astype(np.uint8)
    assert np.array_equal(codec.decode(latents), expected_pixels)


def test_weights_laid_out_for_a_gpu_give_the_same_up_to_rounding():
    plain, laid_out = WanCodec(tiny(), "vae"), tiny()
    channels_last(laid_out)
    strides = {module.weight.stride()[1] for module in laid_out.modules() if isinstance(module, torch.nn.Conv3d)}
    assert strides == {1}
    codec = WanCodec(laid_out, "vae")
    latents = plain.encode(clip(5))
    torch.testing.assert_close(codec.encode(clip(5)), latents, atol=1e-4, rtol=1e-4)
    assert np.abs(codec.decode(latents).astype(int) - plain.decode(latents)).max() <= 1


def test_autocast_around_the_codec_changes_nothing(vae):
    codec = WanCodec(vae, "vae")
    outside = codec.encode(clip(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(clip(1)), outside)


def test_a_saved_network_loads_to_the_same_latents(vae, tmp_path: Path):
    vae.save_pretrained(tmp_path / "vae")
    codec = load_wan(tmp_path / "vae", torch.device("cpu"), torch.float32)
    assert torch.equal(codec.encode(clip(5)), WanCodec(vae, "vae").encode(clip(5)))
    assert codec.codec_config() == {"kind": "wan", "folder": "vae"}


@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched"])
def test_tensors_that_do_not_fit_are_refused_and_named(vae, tmp_path: Path, damage):
    vae.save_pretrained(tmp_path / "vae")
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    if damage == "missing":
        del tensors["quant_conv.bias"]
    elif damage == "unexpected":
        tensors["stranger"] = torch.zeros(1)
    else:
        tensors["quant_conv.bias"] = torch.zeros(3)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="stranger" if damage == "unexpected" else r"quant_conv\.bias"):
        load_wan(tmp_path / "vae", torch.device("cpu"), torch.float32)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="AutoencoderKLWan cannot be read"):
        load_wan(tmp_path, torch.device("cpu"), torch.float32)


def test_factors_that_contradict_the_layers_are_refused(vae, tmp_path: Path):
    vae.save_pretrained(tmp_path / "vae")
    config = tmp_path / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scale_factor_spatial": 8}))
    with pytest.raises(CheckpointError, match=r"\(4, 8\) \(time, space\), but its layers give \(4, 16\)"):
        load_wan(tmp_path / "vae", torch.device("cpu"), torch.float32)


def test_statistics_for_other_channels_are_refused():
    with pytest.raises(CheckpointError, match="needs 4 latent means and deviations, got 16 and 4"):
        WanCodec(tiny(latents_mean=[0.0] * 16), "vae")


def test_clips_that_do_not_fit_are_refused(vae):
    codec = WanCodec(vae, "vae")
    with pytest.raises(MediaError, match="9 or 13"):
        codec.encode(clip(10))
    with pytest.raises(MediaError, match="width must be a multiple of 16, got 40"):
        codec.encode(clip(1, 32, 40))


def test_without_diffusers_the_extra_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=r"orrery\[cosmos\]"):
        load_wan(tmp_path, torch.device("cpu"), torch.float32)
