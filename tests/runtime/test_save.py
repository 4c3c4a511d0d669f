import json
from dataclasses import replace

import pytest
import torch
from makers.own_checkpoint import tiny_model, write_own
from makers.pico_checkpoint import pictures, small_pico
from makers.released_folder import write_released

from orrery.errors import CheckpointError
from orrery.model.config import TINY
from orrery.model.vision import vision_encoder
from orrery.model.vision_config import TINY_QWEN_VISION
from orrery.runtime.load import load
from orrery.runtime.report import report
from orrery.runtime.run import run
from orrery.runtime.save import save, save_released
from orrery.tasks.request import Request
from orrery.tokenizers.autoencoder import AutoencoderCodec, AutoencoderConfig, FrameAutoencoder
from orrery.weights.eight_bit import to_eight_bit


def same(a, b) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_our_own_layout_holds_the_same_bits(tmp_path):
    write_own(tmp_path / "own")
    model, made = load(tmp_path / "own"), tiny_model()
    assert same(model.mot, made.mot)
    assert same(model.eyes, made.eyes)
    assert model.mot.config == made.mot.config
    assert model.contracts == made.contracts
    assert model.text.files == made.text.files
    assert model.origin.trained is False
    assert model.origin.weights["model.safetensors"]


def test_eight_bits_lose_half_a_step_a_row_and_the_manifest_says_how_much(tmp_path):
    folder = save(small_pico(), tmp_path / "small", trained=False, licence="Apache-2.0", storage="int8")
    model, made = load(tmp_path / "small"), small_pico()
    for read, written in ((model.mot, made.mot), (model.eyes, made.eyes)):
        steps = to_eight_bit(written.state_dict()).tensors
        for name, tensor in written.state_dict().items():
            room = steps[f"{name}.rows"][..., None] * 0.5001 if f"{name}.rows" in steps else 0
            assert ((read.state_dict()[name] - tensor).abs() <= room).all(), name
    worst = folder.metadata["rounding"]["model.safetensors"]
    assert 0 < worst["relative"] < 0.02
    assert worst["matrix"] in made.mot.state_dict()
    assert report(tmp_path / "small").facts["stored"]["values"]["int8"] > 0
    again = save(model, tmp_path / "again", trained=False, licence="Apache-2.0", storage="int8")
    assert again.metadata["rounding"]["model.safetensors"]["relative"] < 1e-6
    request = Request(task="policy_no_video", prompt="go", vision=pictures(), state=[0.0] * 5)
    near, exact = run(model, request), run(made, request)
    assert 0 < (near.latents["action"] - exact.latents["action"]).abs().max() < 0.1


@pytest.mark.parametrize("file", ["model.safetensors", "eyes.safetensors"])
def test_one_byte_of_eight_bit_weights_that_changed_is_refused(tmp_path, file):
    save(small_pico(), tmp_path / "small", trained=False, licence="Apache-2.0", storage="int8")
    data = bytearray((tmp_path / "small" / file).read_bytes())
    data[-100] ^= 1
    (tmp_path / "small" / file).write_bytes(data)
    with pytest.raises(CheckpointError, match=file):
        load(tmp_path / "small")


def test_a_trained_codec_lies_in_its_own_folder(tmp_path):
    config = AutoencoderConfig(channels=2, fine=8, coarse=16)
    torch.manual_seed(0)
    codec = AutoencoderCodec(FrameAutoencoder(config).eval(), config)
    model = replace(small_pico(), vision=codec)
    save(model, tmp_path / "small", trained=False, licence="Apache-2.0")
    read = load(tmp_path / "small")
    assert "vision_codec/model.safetensors" in read.origin.weights
    assert read.vision.codec_config() == codec.codec_config()
    assert all(torch.equal(read.vision.tensors()[name], tensor) for name, tensor in codec.tensors().items())
    assert report(tmp_path / "small").facts["parameters"]["vision_codec"] == sum(
        tensor.numel() for tensor in codec.network.state_dict().values()
    )
    again = save(read, tmp_path / "again", trained=False, licence="Apache-2.0")
    assert again.files["vision_codec/model.safetensors"].sha256 == read.origin.weights["vision_codec/model.safetensors"]
    (tmp_path / "small" / "vision_codec" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="vision_codec"):
        load(tmp_path / "small")


def test_a_codec_cannot_take_a_folder_that_is_taken(tmp_path):
    config = AutoencoderConfig(channels=2, fine=8, coarse=16)
    codec = AutoencoderCodec(FrameAutoencoder(config).eval(), config, folder="tokenizer")
    with pytest.raises(CheckpointError, match="taken"):
        save(replace(small_pico(), vision=codec), tmp_path / "small", trained=False, licence="Apache-2.0")


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_released_layout_holds_the_same_bits_and_diffusers_reads_it(tmp_path, dtype):
    from diffusers.models.transformers.transformer_cosmos3 import Cosmos3OmniTransformer

    peer = write_released(tmp_path / "released", replace(TINY, family="custom"), shard="150KB")
    peer.transformer.to(getattr(torch, dtype)).save_pretrained(
        tmp_path / "released" / "transformer", max_shard_size="150KB"
    )
    model = load(tmp_path / "released", dtype=dtype)
    save_released(model, tmp_path / "again", max_shard_bytes=150_000)
    assert same(load(tmp_path / "again", dtype=dtype).mot, model.mot)
    reread = Cosmos3OmniTransformer.from_pretrained(
        tmp_path / "again" / "transformer", torch_dtype=getattr(torch, dtype)
    )
    expected = peer.transformer.state_dict()
    assert all(
        torch.equal(tensor.to(expected[name].dtype), expected[name]) for name, tensor in reread.state_dict().items()
    )
    for name in ("vae/config.json", "scheduler/scheduler_config.json", "text_tokenizer/tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "released" / name).read_bytes()


def test_each_layout_refuses_what_it_cannot_hold(tmp_path):
    write_own(tmp_path / "own")
    own = load(tmp_path / "own")
    with pytest.raises(CheckpointError, match="orrery layout"):
        save_released(own, tmp_path / "released")
    write_released(tmp_path / "peer", TINY)
    with pytest.raises(CheckpointError, match="vision_codec"):
        save(load(tmp_path / "peer"), tmp_path / "ours", trained=False, licence="OpenMDW-1.1")
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"note\.txt"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "named"), [({"device": "tpu9"}, "tpu9"), ({"dtype": "int4"}, "int4"), ({"family": "mega"}, "mega")]
)
def test_what_cannot_be_loaded_so_is_named(tmp_path, arguments, named):
    write_own(tmp_path / "own")
    with pytest.raises(CheckpointError, match=named):
        load(tmp_path / "own", **arguments)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    write_own(tmp_path / "own")
    config = tmp_path / "own" / "config.json"
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path / "own", verify=False)


@pytest.mark.oracle
def test_a_whole_released_folder_serves_as_generator_and_as_reasoner(tmp_path):
    """transformer/, vision_encoder/ and the root index over both, read in the three ways that users read them."""
    vision = TINY_QWEN_VISION
    text = {
        "hidden_size": TINY.width,
        "num_hidden_layers": TINY.layers,
        "num_attention_heads": TINY.heads,
        "num_key_value_heads": TINY.kv_heads,
        "head_dim": TINY.head_width,
        "intermediate_size": TINY.ffn_width,
        "vocab_size": TINY.vocab,
        "rope_parameters": {"mrope_section": list(TINY.rope_axes), "rope_theta": 5e6},
    }
    eyes = {
        "hidden_size": vision.width,
        "depth": vision.depth,
        "num_heads": vision.heads,
        "intermediate_size": vision.mlp_width,
        "out_hidden_size": vision.out_width,
        "num_position_embeddings": vision.position_grid**2,
        "deepstack_visual_indexes": list(vision.taps),
    }
    write_released(tmp_path / "released", TINY)
    root = {"model_type": "cosmos3_omni", "text_config": text, "vision_config": eyes}
    (tmp_path / "released" / "config.json").write_text(json.dumps(root))
    generator = replace(load(tmp_path / "released"), eyes=vision_encoder(vision))
    save_released(generator, tmp_path / "whole", max_shard_bytes=150_000)

    whole = load(tmp_path / "whole")
    assert whole.capabilities == {"write", "see", "vision", "sound", "action"}
    assert same(whole.mot, generator.mot)
    assert same(whole.eyes, generator.eyes)
    half = load(tmp_path / "whole", parts="reasoner")
    (tmp_path / "whole" / "model_index.json").unlink()
    reasoner = load(tmp_path / "whole")
    assert reasoner.origin.layout == "reasoner"
    for model in (half, reasoner):
        assert model.capabilities == {"write", "see"}
        assert same(model.eyes, generator.eyes)
        assert not model.mot.config.generates
        expected = generator.mot.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.mot.state_dict().items())
