"""Attention in 8 bits: what it rounds, that a shift of all keys costs nothing, and what it refuses."""

import pytest
import torch
from makers.samples import normal

from orrery.errors import SettingsError
from orrery.model.attention_kernels import eight_bit, emulated_eight_bit, exact, in_eight_bits

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def drawn(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    shapes = ((2, 33, 8, 64), (2, 47, 2, 64), (2, 47, 2, 64))
    return tuple(normal(*shape, seed=seed + index).to(dtype) for index, shape in enumerate(shapes))


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).square().mean().sqrt() / right.square().mean().sqrt())


def test_rounding_costs_some_hundredths_and_more_than_nothing():
    q, k, v = drawn()
    assert 0.005 < error(emulated_eight_bit(q, k, v), exact(q, k, v)) < 0.08


def test_factors_are_powers_of_two_and_nothing_overflows():
    q, k, v = drawn()
    *rounded, of_q, of_k, of_v = in_eight_bits(q * 1e4, k * 1e-4, v)
    for factor in (of_q, of_k, of_v):
        assert factor.shape == (2, 2)
        assert torch.equal(factor.log2(), factor.log2().round())
    assert all(x.float().isfinite().all() and x.float().abs().max() > 200 for x in rounded)


def test_what_all_keys_share_is_not_rounded():
    q, k, v = drawn(seed=5)
    shared = 20 * normal(1, 1, 2, 64, seed=9)
    right = exact(q, k, v)
    torch.testing.assert_close(exact(q, k + shared, v), right, atol=1e-3, rtol=1e-3)
    assert error(emulated_eight_bit(q, k + shared, v), right) < 1.2 * error(emulated_eight_bit(q, k, v), right)


def test_without_a_hopper_card_8_bits_are_refused():
    if torch.cuda.is_available():
        pytest.skip("a card is there")
    with pytest.raises(SettingsError, match="fa3-fwd; the device is cpu"):
        eight_bit(*drawn())


@pytest.mark.gpu
@GPU
def test_on_a_gpu_kernels_agree():
    q, k, v = (x.cuda() for x in drawn(dtype=torch.bfloat16))
    right = exact(*(x.float() for x in (q, k, v)))
    assert error(exact(q, k, v).float(), right) < 0.01
