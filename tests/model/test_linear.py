from unittest.mock import patch

import pytest
import torch

from orrery.model import linear
from orrery.model.linear import Linear, prefers_onednn

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch brings no oneDNN",
)


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(0, 96), (1, 96), (41, 96), (2, 7, 96)])
@torch.no_grad()
def test_the_other_library_gives_the_same_numbers_up_to_rounding(shape, bias):
    torch.manual_seed(0)
    ours, x = Linear(96, 40, bias=bias), torch.randn(shape)
    with patch.object(linear, "prefers_onednn", lambda: True):
        found = ours(x)
    exact = torch.nn.functional.linear(x.double(), ours.weight.double(), ours.bias.double() if bias else None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


@needs_onednn
@pytest.mark.parametrize("how", ["gradients", "autocast", "bfloat16", "meta"])
def test_all_else_is_left_to_torch(how):
    torch.manual_seed(0)
    ours, x = Linear(96, 40), torch.randn(5, 96)
    plain = torch.nn.Linear(96, 40)
    plain.load_state_dict(ours.state_dict())
    if how in ("bfloat16", "meta"):
        ours, plain, x = (y.to(torch.bfloat16) if how == "bfloat16" else y.to("meta") for y in (ours, plain, x))
    with (
        patch.object(linear, "prefers_onednn", lambda: True),
        torch.set_grad_enabled(how == "gradients"),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"),
    ):
        found, expected = ours(x), plain(x)
    assert found.dtype == expected.dtype
    assert found.requires_grad == (how == "gradients")
    assert found.is_meta or torch.equal(found, expected)


@needs_onednn
def test_the_maker_of_the_processor_decides(tmp_path):
    for maker, preferred in (("AuthenticAMD", True), ("GenuineIntel", False)):
        (tmp_path / maker).write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
        assert prefers_onednn(tmp_path / maker) == preferred
    assert not prefers_onednn(tmp_path / "missing")
