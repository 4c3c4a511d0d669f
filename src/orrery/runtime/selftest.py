"""A numeric self-test: does this device, in this number format, compute what the CPU computes in float32?"""

import torch

from orrery.errors import CheckpointError
from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.packing.pack import pack_samples
from orrery.packing.segment import Sample, Segment

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Largest error allowed, relative to the largest value. Measured on CPU: 0 and 0.02 and 0.003."""


@torch.no_grad()
def check_numbers(device: torch.device, dtype: torch.dtype) -> float:
    """Run a tiny random model on the device and on the CPU in float32, and compare.

    Returns:
        The largest difference relative to the largest value.

    Raises:
        CheckpointError: values that are not finite or beyond the tolerance, or a number format that is not supported.
    """
    if dtype not in TOLERANCE:
        known = ", ".join(str(known).removeprefix("torch.") for known in TOLERANCE)
        raise CheckpointError(f"Number format {str(dtype).removeprefix('torch.')} is not supported. Known: {known}.")
    expected = _answer(torch.device("cpu"), torch.float32)
    try:
        found = expected if (device.type, dtype) == ("cpu", torch.float32) else _answer(device, dtype)
    except RuntimeError as error:
        raise CheckpointError(f"Device {device} cannot compute in {dtype}: {str(error).splitlines()[0]}.") from error
    scale = expected.abs().max()
    wrong = (found - expected).abs().max() / scale
    if not bool(found.isfinite().all()) or wrong > TOLERANCE[dtype]:
        raise CheckpointError(
            f"Device {device} computes wrong numbers in {dtype}: {wrong.item():.3g} of the largest value off, "
            f"{TOLERANCE[dtype]} allowed. Use another device or number format."
        )
    return float(wrong)


def _answer(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mot = MoT(TINY)
    mot = mot.to(device, dtype)
    segment = Segment(
        kind="vision",
        clean=torch.randn(3, 4, TINY.vision_width, generator=rng).to(device),
        given=torch.tensor([True, False, False], device=device),
        valid=torch.ones(4, TINY.vision_width, dtype=torch.bool, device=device),
        rows=2,
        cols=2,
        fps=24.0,
    )
    ids = torch.randint(TINY.vocab, (7,), generator=rng).to(device)
    pack = pack_samples([Sample(token_ids=ids, segments=(segment,))], TINY.clock)
    return mot(pack, torch.tensor([0.5], device=device)).velocity[0].float().cpu()
