"""The sound autoencoder on a tiny random network: lengths, parity with diffusers called directly, strict loading."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Cosmos3AVAEAudioTokenizer
from safetensors.torch import load_file, save_file

from orrery.errors import CheckpointError, MediaError
from orrery.tokenizers.avae import AvaeCodec, load_avae


def tiny(**changes) -> Cosmos3AVAEAudioTokenizer:
    """Hop 1920 as released, a few channels wide."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older weight_norm of torch, inside diffusers
        return Cosmos3AVAEAudioTokenizer(
            **{"vocoder_input_dim": 4, "dec_dim": 2, "enc_dim": 4, "enc_num_blocks": 1, "enc_latent_dim": 8} | changes
        ).eval()


@pytest.fixture(scope="module")
def vae() -> Cosmos3AVAEAudioTokenizer:
    return tiny()


def tone(samples: int, channels: int = 2) -> np.ndarray:
    t = np.arange(samples)[:, None] / 48000
    return (0.3 * np.sin(2 * np.pi * 440 * t * (1 + np.arange(channels)))).astype(np.float32)


@pytest.mark.parametrize(("samples", "latents"), [(1, 1), (1920, 1), (1921, 2), (5000, 3)])
def test_each_1920_samples_fill_a_latent_and_the_length_comes_back(vae, samples, latents):
    codec = AvaeCodec(vae, "sound")
    encoded = codec.encode(tone(samples))
    assert encoded.shape == (latents, codec.channels)
    assert encoded.dtype == torch.float32
    assert codec.decode(encoded, samples).shape == (samples, 2)


def test_a_length_of_another_number_of_latents_is_refused(vae):
    with pytest.raises(MediaError, match="2 latents of 1920 samples hold 1921 to 3840 samples, got 1920"):
        AvaeCodec(vae, "sound").decode(torch.zeros(2, 4), 1920)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoding_and_decoding_equal_diffusers_called_directly(dtype):
    """To the bit: the same network, its posterior mean, its own padding and volume rule."""
    vae = tiny().to(dtype)
    codec, recorded = AvaeCodec(vae, "sound"), tone(5000)
    with torch.no_grad():
        expected = vae.encode(torch.from_numpy(recorded.T.copy())[None]).latent_dist.mode()[0].T
        latents = codec.encode(recorded)
        assert torch.equal(latents, expected.float())
        decoded = vae.decode(latents.T[None].to(dtype))[0].T.float()
    assert np.array_equal(codec.decode(latents, 5000), decoded[:5000].numpy())


@pytest.mark.parametrize("normalises", [True, False])
def test_volume_is_normalised_exactly_where_the_configuration_says_so(normalises):
    codec = AvaeCodec(tiny(normalize_volume=normalises), "sound")
    assert codec.normalises_volume is normalises
    loud, quiet = codec.encode(tone(1920)), codec.encode(tone(1920) / 4)
    assert torch.allclose(loud, quiet, atol=1e-3) is normalises


def test_a_checkpoint_without_an_encoder_decodes_and_says_why_it_cannot_encode(vae, tmp_path: Path):
    vae.save_pretrained(tmp_path / "sound")
    path = tmp_path / "sound" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith("encoder.")}, path)
    codec = load_avae(tmp_path / "sound", torch.device("cpu"), torch.float32)
    latents = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(codec.decode(latents, 3000), AvaeCodec(vae, "sound").decode(latents, 3000))
    assert not codec.can_encode
    with pytest.raises(CheckpointError, match="decoder only"):
        codec.encode(tone(1920))


def test_a_saved_network_loads_to_the_same_latents(vae, tmp_path: Path):
    vae.save_pretrained(tmp_path / "sound")
    codec = load_avae(tmp_path / "sound", torch.device("cpu"), torch.float32)
    assert (codec.rate, codec.hop, codec.channels, codec.sound_channels) == (48000, 1920, 4, 2)
    assert torch.equal(codec.encode(tone(1920)), AvaeCodec(vae, "sound").encode(tone(1920)))
    assert codec.codec_config() == {"kind": "avae", "folder": "sound"}


def test_missing_decoder_tensors_are_refused_and_named(vae, tmp_path: Path):
    vae.save_pretrained(tmp_path / "sound")
    path = tmp_path / "sound" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["decoder.conv1.bias"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"missing decoder\.conv1\.bias"):
        load_avae(tmp_path / "sound", torch.device("cpu"), torch.float32)


def test_mono_sound_is_refused(vae):
    with pytest.raises(MediaError, match="takes 2 channels, got 1"):
        AvaeCodec(vae, "sound").encode(tone(1920, 1))


def test_a_hop_that_contradicts_the_strides_is_refused():
    with pytest.raises(CheckpointError, match="hop of 960, but its strides give 1920"):
        AvaeCodec(tiny(hop_size=960), "sound")


def test_without_diffusers_the_extra_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=r"orrery\[cosmos\]"):
        load_avae(tmp_path, torch.device("cpu"), torch.float32)
