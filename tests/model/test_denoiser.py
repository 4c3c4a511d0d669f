"""The fast path gives the numbers of the plain one: joined matrices, packs of several shapes, 8 bits within bounds."""

from dataclasses import replace

import pytest
import torch
from makers.random_mot import EDGE_LIKE, random_mot
from makers.samples import mixed, normal, on_device, tokens, vision

from orrery.model import denoiser as denoiser_module
from orrery.model.attention_kernels import exact
from orrery.model.config import PICO, TINY, MoTConfig
from orrery.model.denoiser import Denoiser
from orrery.model.matrix import eight_bits, matrix, multiply
from orrery.model.mot import MoT
from orrery.packing.pack import Pack, pack_samples
from orrery.packing.segment import Sample

PICO_LIKE = replace(PICO, width=64, layers=2, heads=4, head_width=24, rope_axes=(4, 4, 4), ffn_width=96)
FAMILIES = pytest.mark.parametrize("config", [TINY, EDGE_LIKE, PICO_LIKE], ids=["qwen", "nemotron", "pico"])
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def asked(config: MoTConfig) -> tuple[Pack, torch.Tensor]:
    """Samples of many shapes, one of which only reads, and a noise level for every segment."""
    pack = pack_samples(mixed(config), config.clock)
    return pack, torch.linspace(0.1, 0.9, len(pack.segments))


@FAMILIES
@torch.no_grad()
def test_velocities_are_those_of_the_plain_path(config):
    mot = random_mot(config)
    pack, sigmas = asked(config)
    memory = mot.read(pack.text)
    expected = mot(pack, sigmas, memory).velocity
    denoiser = Denoiser(mot, compiled=False)
    found = denoiser.lay_out(pack, memory)(pack.latents, sigmas)
    assert max(x.abs().max() for x in expected) > 0.1
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    # The model itself computes as before, from matrices that are parts of the joined ones now.
    for a, b in zip(mot(pack, sigmas, memory).velocity, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    tower = mot.blocks[0].generation
    assert tower.q.weight.untyped_storage().data_ptr() == tower.v.weight.untyped_storage().data_ptr()


@torch.no_grad()
def test_a_second_way_to_compute_holds_no_second_copy():
    mot = random_mot(TINY)
    pack, sigmas = asked(TINY)
    memory = mot.read(pack.text)
    first = Denoiser(mot, compiled=False)
    held = [parameter.data_ptr() for parameter in mot.parameters()]
    second = Denoiser(mot, compiled=False)
    assert [parameter.data_ptr() for parameter in mot.parameters()] == held
    for a, b in zip(*(way.lay_out(pack, memory)(pack.latents, sigmas) for way in (first, second)), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_samples_of_one_shape_go_through_one_call_of_attention():
    mot = random_mot(TINY)
    samples = [
        Sample(token_ids=tokens(5, TINY.vocab, seed), segments=(vision(TINY, 3, 4, 4, seed=seed),)) for seed in range(3)
    ]
    pack = pack_samples(samples, TINY.clock)
    memory, sigmas = mot.read(pack.text), torch.tensor([0.2, 0.5, 0.8])
    shapes = []

    def counting(q, k, v):
        shapes.append(tuple(q.shape))
        return exact(q, k, v)

    found = Denoiser(mot, compiled=False, kernel=counting).lay_out(pack, memory)(pack.latents, sigmas)
    assert shapes == [(3, 12, TINY.heads, TINY.head_width)] * TINY.layers
    for a, b in zip(found, mot(pack, sigmas, memory).velocity, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_many_tokens_are_worked_on_in_turns(monkeypatch):
    monkeypatch.setattr(denoiser_module, "TOKENS_AT_ONCE", 40)
    mot = random_mot(TINY)
    pack, sigmas = asked(TINY)
    memory = mot.read(pack.text)
    assert len(denoiser_module.in_turns(pack.lengths, 40)) > 2
    found = Denoiser(mot, compiled=False).lay_out(pack, memory)(pack.latents, sigmas)
    for a, b in zip(found, mot(pack, sigmas, memory).velocity, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_turns_keep_the_order_and_the_limit():
    assert denoiser_module.in_turns([5, 0, 6, 20, 1, 2], 11) == [[0, 2], [3], [4, 5]]
    assert denoiser_module.in_turns([5], 3) == [[0]]


def test_a_reasoner_is_refused():
    with pytest.raises(ValueError, match="generation tower"):
        Denoiser(MoT(replace(TINY, generates=False)))


def test_a_row_in_8_bits_is_within_a_16th_and_rows_of_zeros_stay():
    x = normal(7, 64, seed=1) * torch.logspace(-3, 3, 7)[:, None]
    x[3] = 0
    eight, scales = eight_bits(x)
    # e4m3 has three bits after the leading one, so that rounding is off by at most 1 in 16; below 2^-6 steps are even.
    step = (x.abs() / 16).clamp(min=1.01 * 2**-10 * scales)
    assert ((eight.float() * scales - x).abs() <= step).all()
    assert (eight[3].float() == 0).all()


@torch.no_grad()
def test_products_in_8_bits_are_near_and_rows_do_not_disturb_each_other():
    x, weight = normal(9, 256, seed=2), normal(32, 256, seed=3)
    exact, eight = multiply(x, matrix(weight, "exact")), multiply(x, matrix(weight, "fp8"))
    assert torch.equal(exact, torch.nn.functional.linear(x, weight))
    error = (eight - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0.005 < error < 0.05
    louder = torch.cat([x[:1] * 1000, x[1:]])
    torch.testing.assert_close(multiply(louder, matrix(weight, "fp8"))[1:], eight[1:])


def again(work, pool):
    """In the place of a CUDA graph: does the work again, into the same memory."""
    made = work()

    def replay():
        for kept, new in zip(made, work(), strict=True):
            kept.copy_(new)

    return replay, made


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
@torch.no_grad()
def test_samples_that_share_segments_keep_latents_of_their_own(device, monkeypatch):
    """Both branches of guidance are made of the same segments, under other texts."""
    if device == "cpu":
        monkeypatch.setattr(denoiser_module, "cuda_graph", again)
    mot = random_mot(TINY).to(device)
    segments = (vision(TINY, 3, 4, 4, seed=1),)
    for lengths in ((5, 5), (5, 3)):
        samples = [
            on_device(Sample(token_ids=tokens(length, TINY.vocab, length + i), segments=segments), torch.device(device))
            for i, length in enumerate(lengths)
        ]
        samples[1] = replace(samples[1], segments=samples[0].segments)
        pack = pack_samples(samples, TINY.clock)
        assert pack.latents[0] is pack.latents[1]
        memory, sigmas = mot.read(pack.text), torch.tensor([0.2, 0.8], device=device)
        velocity = Denoiser(mot, compiled=False, recorded=True).lay_out(pack, memory)
        for seed in (1, 2):
            latents = [normal(3, 4, 32, seed=seed + branch).to(device) for branch in (10, 20)]
            expected = mot(pack.with_latents(latents), sigmas, memory).velocity
            for a, b in zip(velocity(latents, sigmas), expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_layouts_of_one_shape_may_be_asked_in_turn(monkeypatch):
    monkeypatch.setattr(denoiser_module, "cuda_graph", again)
    mot, sigmas = random_mot(TINY), torch.tensor([0.4])
    denoiser = Denoiser(mot, compiled=False, recorded=True)
    packs = [
        pack_samples(
            [Sample(token_ids=tokens(5, TINY.vocab, seed), segments=(vision(TINY, 3, 4, 4, given=given, seed=seed),))],
            TINY.clock,
        )
        for seed, given in ((1, ()), (2, (0,)))
    ]
    velocities = [denoiser.lay_out(pack, mot.read(pack.text)) for pack in packs]
    for turn in (0, 1, 0):
        pack = packs[turn]
        expected = mot(pack, sigmas).velocity
        torch.testing.assert_close(velocities[turn](pack.latents, sigmas)[0], expected[0], atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@GPU
@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_compiled_and_recorded_on_a_gpu(config, dtype):
    device = torch.device("cuda")
    mot = random_mot(config).to(device)
    samples = [on_device(sample, device) for sample in mixed(config)]
    pack = pack_samples(samples, config.clock)
    sigmas = torch.linspace(0.1, 0.9, len(pack.segments), device=device)
    expected = mot(pack, sigmas).velocity
    mot.to(dtype)
    mot.time_embed.float()
    memory = mot.read(pack.text)
    denoiser = Denoiser(mot)
    for seed in (1, 2):  # the second time from the recording, with other numbers
        latents = [
            segment.pinned(normal(*x.shape, seed=seed).to(device))
            for segment, x in zip(pack.segments, pack.latents, strict=True)
        ]
        plain = mot(pack.with_latents(latents), sigmas, memory).velocity
        found = denoiser.lay_out(pack, memory)(latents, sigmas)
        for a, b, scale in zip(found, plain, expected, strict=True):
            bound = (1e-4 if dtype == torch.float32 else 0.06) * max(1.0, scale.abs().max().item())
            torch.testing.assert_close(a, b, atol=bound, rtol=0)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("linears", ["exact", "fp8"])
@torch.no_grad()
def test_samples_that_are_alike_are_compiled_for_any_number_of_them(linears):
    device = torch.device("cuda")
    config = replace(TINY, head_width=32, rope_axes=(6, 5, 5))  # products in 8 bits need multiples of 16
    mot = random_mot(config).to(device, torch.bfloat16)
    mot.time_embed.float()
    denoiser = Denoiser(mot, linears=linears)
    for count in (1, 2, 3, 8):
        samples = [
            on_device(
                Sample(token_ids=tokens(5, config.vocab, seed), segments=(vision(config, 3, 4, 4, seed=seed),)), device
            )
            for seed in range(count)
        ]
        pack = pack_samples(samples, config.clock)
        memory, sigmas = mot.read(pack.text), torch.linspace(0.1, 0.9, count, device=device)
        found = denoiser.lay_out(pack, memory)(pack.latents, sigmas)
        for a, b in zip(found, mot(pack, sigmas, memory).velocity, strict=True):
            torch.testing.assert_close(
                a, b, atol=(0.06 if linears == "exact" else 0.2) * max(1.0, b.abs().max().item()), rtol=0
            )
