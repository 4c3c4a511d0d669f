from dataclasses import replace

import pytest
import torch
from makers.samples import mixed, normal, tokens, vision

from orrery.model import mot as mot_module
from orrery.model.config import TINY, MoTConfig
from orrery.model.mot import MoT
from orrery.model.vision import VisionFeatures
from orrery.packing.pack import pack_samples, pack_text
from orrery.packing.segment import Sample

EDGE_LIKE = replace(
    TINY, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
)
FAMILIES = pytest.mark.parametrize("config", [TINY, EDGE_LIKE], ids=["qwen", "nemotron"])


def random_mot(config: MoTConfig) -> MoT:
    torch.manual_seed(0)
    mot = MoT(config)
    for parameter in mot.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return mot.eval()


@FAMILIES
@torch.no_grad()
def test_a_pack_answers_like_its_samples_alone(config):
    mot, samples = random_mot(config), mixed(config)
    sigmas = torch.linspace(0.1, 0.9, sum(len(sample.segments) for sample in samples))
    pack = pack_samples(samples, config.clock)
    together = mot(pack, sigmas).velocity
    for index, sample in enumerate(samples):
        alone = mot(pack_samples([sample], config.clock), sigmas[pack.of(index)]).velocity
        for a, b in zip(together[pack.of(index)], alone, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_sample_sees_another():
    mot, samples = random_mot(TINY), mixed(TINY)[1:4]
    sigmas = torch.full((4,), 0.5)
    before = mot(pack_samples(samples, TINY.clock), sigmas).velocity
    samples[1] = replace(
        samples[1],
        token_ids=samples[1].token_ids.flip(0),
        segments=(vision(TINY, 3, 4, 3, seed=99), samples[1].segments[1]),
    )
    after = mot(pack_samples(samples, TINY.clock), sigmas).velocity
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[3], after[3])
    assert not torch.equal(before[2], after[2])


@FAMILIES
@torch.no_grad()
def test_text_sees_only_what_came_before(config):
    mot = random_mot(config)
    ids = tokens(9, config.vocab, seed=1)
    hidden = mot.read(pack_text([Sample(token_ids=ids)])).hidden
    ids[5] = (ids[5] + 1) % config.vocab
    changed = mot.read(pack_text([Sample(token_ids=ids)])).hidden
    assert torch.equal(hidden[:5], changed[:5])
    assert (hidden[5:] != changed[5:]).any(dim=1).all()


@FAMILIES
@torch.no_grad()
def test_every_latent_sees_all_text_and_all_latents(config):
    mot = random_mot(config)
    sample = Sample(token_ids=tokens(4, config.vocab, seed=1), segments=(vision(config, 3, 4, 4),))
    pack = pack_samples([sample], config.clock)
    base = mot(pack, torch.tensor([0.5])).velocity[0]
    last = pack.latents[0].clone()
    last[-1, -1] += 1
    assert (mot(pack.with_latents([last]), torch.tensor([0.5])).velocity[0] != base).any(dim=-1).all()
    other = replace(sample, token_ids=sample.token_ids.roll(1))
    assert (mot(pack_samples([other], config.clock), torch.tensor([0.5])).velocity[0] != base).any(dim=-1).all()


@FAMILIES
@torch.no_grad()
def test_reading_on_is_reading_at_once(config):
    mot, ids = random_mot(config), tokens(8, config.vocab, seed=2)
    whole = mot.read(pack_text([Sample(token_ids=ids)]))
    memory = mot.read(pack_text([Sample(token_ids=ids[:4])]))
    pieces = [memory.hidden]
    for piece in (slice(4, 5), slice(5, 8)):
        positions = torch.arange(piece.start, piece.stop, dtype=torch.float32).expand(3, -1)
        memory = mot.read(pack_text([Sample(token_ids=ids[piece], positions=positions)]), past=memory)
        pieces.append(memory.hidden)
    torch.testing.assert_close(torch.cat(pieces), whole.hidden, atol=1e-5, rtol=1e-5)
    for a, b in zip(memory.layers, whole.layers, strict=True):
        torch.testing.assert_close(a.keys_for_generation, b.keys_for_generation, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_memory_can_be_picked_and_joined():
    mot, samples = random_mot(TINY), mixed(TINY)
    memory = mot.read(pack_text(samples))
    picked = memory.select([6, 2])
    alone = mot.read(pack_text([samples[6], samples[2]]))
    assert picked.lengths == alone.lengths
    torch.testing.assert_close(picked.hidden, alone.hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(picked.layers[1].values, alone.layers[1].values, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_given_frames_and_missing_values_have_no_velocity_and_no_noise_level():
    mot = random_mot(TINY)
    pack = pack_samples(mixed(TINY), TINY.clock)
    count = len(pack.segments)
    for segment, velocity in zip(pack.segments, mot(pack, torch.full((count,), 0.5)).velocity, strict=True):
        assert (velocity[~segment.active] == 0).all()
    given = Sample(
        token_ids=tokens(3, TINY.vocab, seed=0), segments=(vision(TINY, 2, 4, 4, given=(0, 1)), vision(TINY, 1, 2, 2))
    )
    pack = pack_samples([given], TINY.clock)
    a, b = (mot(pack, torch.tensor([sigma, 0.5])).velocity[1] for sigma in (0.1, 0.9))
    assert torch.equal(a, b)


@torch.no_grad()
def test_data_prediction_gives_the_velocity_towards_the_data():
    sample = Sample(token_ids=tokens(3, TINY.vocab, seed=0), segments=(vision(TINY, 2, 4, 4, given=(0,)),))
    pack = pack_samples([sample], TINY.clock)
    velocity_mot, data_mot = random_mot(TINY), random_mot(replace(TINY, prediction="data"))
    raw = velocity_mot(pack, torch.tensor([0.5])).velocity[0]
    predicted = data_mot(pack, torch.tensor([0.5]))
    torch.testing.assert_close(predicted.data[0][1], raw[1])
    torch.testing.assert_close(predicted.velocity[0][1], (pack.latents[0][1] - raw[1]) / 0.5)
    torch.testing.assert_close(predicted.data[0][0], pack.latents[0][0])
    low = data_mot(pack, torch.tensor([0.0])).velocity[0]
    assert low.isfinite().all()


@torch.no_grad()
def test_pictures_stand_in_for_their_tokens():
    mot, ids = random_mot(TINY), tokens(6, TINY.vocab, seed=3)
    visual = torch.tensor([False, True, True, False, False, False])
    features, tap = normal(2, TINY.width, seed=5), normal(2, TINY.width, seed=6)
    text = pack_text([Sample(token_ids=ids, visual=visual)])
    seen = mot.read(text, VisionFeatures(features=features, taps=())).hidden
    assert torch.equal(seen[0], mot.read(pack_text([Sample(token_ids=ids)])).hidden[0])
    tapped = mot.read(text, VisionFeatures(features=features, taps=(tap,))).hidden
    assert torch.equal(seen[0], tapped[0])
    assert (seen[1:] != tapped[1:]).any(dim=1).all()
    with pytest.raises(ValueError, match="2 tokens stand for pictures"):
        mot.read(text)


def test_a_stream_that_the_model_lacks_is_refused():
    mot = MoT(replace(TINY, sound_width=None))
    sample = mixed(TINY)[2]
    with pytest.raises(ValueError, match="no sound stream"):
        mot(pack_samples([sample], TINY.clock), torch.zeros(2))


@FAMILIES
def test_the_last_block_works_for_generated_frames_only_and_says_the_same(config, monkeypatch):
    mot, samples = random_mot(config), mixed(config)
    samples.append(Sample(token_ids=tokens(3, config.vocab, seed=0), segments=(vision(config, 2, 4, 4, given=(0, 1)),)))
    pack = pack_samples(samples, config.clock)
    sigmas = torch.linspace(0.1, 0.9, len(pack.segments))
    asked = mot_module.asked_for(pack)
    assert 0 in asked.lengths
    assert sum(asked.lengths) == len(asked.tokens) < sum(pack.lengths)

    def velocities() -> tuple[list[torch.Tensor], torch.Tensor]:
        mot.zero_grad()
        velocity = mot(pack, sigmas).velocity
        sum(x.square().sum() for x in velocity).backward()
        return velocity, mot.blocks[-1].generation.mlp.down.weight.grad

    found, slope = velocities()
    generate = mot_module.Block.generate
    monkeypatch.setattr(
        mot_module.Block, "generate", lambda *args, only=None: _some(generate(*args), only), raising=True
    )
    expected, expected_slope = velocities()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slope, expected_slope, atol=1e-4, rtol=1e-4)


def _some(x, only):
    return x if only is None else x[only.tokens]
