"""Solvers that follow dx/dsigma = velocity from noise to data.

A sampler is a generator: it yields what it wants to know (`Query`), is sent the velocity and returns the data latents.
So the caller owns the loop, and requests with different grids and solvers can share one forward pass of the network.
Guidance (`flow.guidance`) and the network stay with the caller; grids come from `flow.schedule`.

Latents stay float32 throughout: bfloat16 loses the small last steps.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from orrery.errors import SettingsError

Latents = list[Float[Tensor, "_T _P _C"]]
"""One (T, P, C) per segment."""

# Denoised latents of one step, their log signal-to-noise level, and the sample that the step started from.
_Past = tuple[Latents, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """The velocity at `latents`, please."""

    latents: Latents
    sigma: Float[Tensor, ""]
    """Exact noise level of the latents, which the solver reckons with."""
    clock: float
    """Noise level that the network is told, in [0, 1]."""


Sampler = Generator[Query, Latents, Latents]


def solve(sampler: Sampler, velocity: Callable[[Latents, Tensor], Latents]) -> Latents:
    """Drive one sampler with a velocity of (latents, sigma ()) to its end and return the data latents."""
    query = next(sampler)
    while True:
        try:
            query = sampler.send(velocity(query.latents, query.sigma))
        except StopIteration as end:
            result: Latents = end.value
            return result


def euler(noise: Latents, sigmas: Float[Tensor, " S"]) -> Sampler:
    """First order, S - 1 queries, told the exact sigma.

    Args:
        noise: standard normal (given frames may hold their data), float32.
        sigmas: strictly falling to 0.

    Raises:
        SettingsError: `sigmas` does not fall strictly from at most 1 to 0, or the latents are below float32.

    Source: rectified flow, arXiv:2209.03003, section 2 (its time is 1 - sigma).
    """
    _check(noise, sigmas)
    return _euler(noise, sigmas)


def _euler(latents: Latents, sigmas: Tensor) -> Sampler:
    for sigma, after in pairwise(sigmas):
        v = yield from _ask(latents, sigma, sigma.item())
        latents = [x + (after - sigma) * dx for x, dx in zip(latents, v, strict=True)]
    return latents


def heun(noise: Latents, sigmas: Float[Tensor, " S"]) -> Sampler:
    """Second order, 2 S - 3 queries: each Euler step is taken again with the mean of the velocities at its two ends.

    The last step stays an Euler step, because networks are not trained at sigma 0; the order is kept.

    Args:
        noise: as for `euler`.
        sigmas: strictly falling to 0.

    Raises:
        SettingsError: as for `euler`.

    Source: arXiv:2206.00364, algorithm 1.
    """
    _check(noise, sigmas)
    return _heun(noise, sigmas)


def _heun(latents: Latents, sigmas: Tensor) -> Sampler:
    for sigma, after in pairwise(sigmas):
        v = yield from _ask(latents, sigma, sigma.item())
        ahead = [x + (after - sigma) * dx for x, dx in zip(latents, v, strict=True)]
        if after > 0:
            w = yield from _ask(ahead, after, after.item())
            ahead = [x + (after - sigma) * (a + b) / 2 for x, a, b in zip(latents, v, w, strict=True)]
        latents = ahead
    return latents


def stochastic(noise: Latents, sigmas: Float[Tensor, " S"], rng: torch.Generator) -> Sampler:
    """The few-step sampler of distilled models: jump to the data, then noise it afresh to the next level.

    S - 1 queries, told the exact sigma.
    Fresh noise also falls on frames that are given, so wrap the sampler in `held` where there are any.

    Args:
        noise: as for `euler`.
        sigmas: strictly falling to 0, as `schedule.distilled` makes them.
        rng: draws one normal per segment, in order, at each step but the last. A CPU generator draws the same whatever
            the device of the latents.

    Raises:
        SettingsError: as for `euler`.

    Source: consistency sampling, arXiv:2303.01469, algorithm 1, in the variables of rectified flow.
    """
    _check(noise, sigmas)
    return _stochastic(noise, sigmas, rng)


def _stochastic(latents: Latents, sigmas: Tensor, rng: torch.Generator) -> Sampler:
    for sigma, after in pairwise(sigmas):
        v = yield from _ask(latents, sigma, sigma.item())
        latents = _denoise(latents, v, sigma)
        if after > 0:
            latents = [
                (1 - after) * x
                + after * torch.randn(x.shape, generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
                for x in latents
            ]
    return latents


def unipc(noise: Latents, sigmas: Float[Tensor, " S"]) -> Sampler:
    """The released multistep solver: order 2, B(h) = expm1(h), data prediction, corrected at every step but the first.

    S - 1 queries. The solver reckons with the exact sigma; the network is told sigma cut (not rounded) to a thousandth,
    as in training of the released models.

    Args:
        noise: as for `euler`.
        sigmas: strictly falling from below 1 to 0; `schedule.native` is the reference grid.

    Raises:
        SettingsError: as for `euler`, or the first sigma is 1, where the log signal-to-noise level has no value.

    Source: UniPC for data prediction, arXiv:2302.04867, with order 1 at the first and at the last step.
    """
    _check(noise, sigmas)
    if sigmas[0] >= 1:
        raise SettingsError(
            f"unipc needs a first sigma below 1, got {sigmas[0].item()}. Build sigmas with schedule.grid()."
        )
    return _unipc(noise, sigmas)


def _unipc(latents: Latents, sigmas: Tensor) -> Sampler:
    log_snr = torch.log(1 - sigmas) - torch.log(sigmas)  # (S,), +inf at the end
    last = len(sigmas) - 2
    before: Latents = []  # the corrected sample that the last predictor started from
    past: list[_Past] = []  # as many as the last predictor's order, newest last
    for i in range(last):
        v = yield from _ask(latents, sigmas[i], _cut_to_thousandth(sigmas[i]))
        denoised = _denoise(latents, v, sigmas[i])
        if i > 0:
            latents = _correct(before, past, denoised, sigmas[i - 1], sigmas[i], log_snr[i - 1], log_snr[i])
        past = [*past[-1:], (denoised, log_snr[i])]
        before = latents
        latents = _predict(latents, past, sigmas[i], sigmas[i + 1], log_snr[i], log_snr[i + 1])
    # The step to sigma 0 is of order 1 and lands on the denoised latents: correcting before it would change nothing.
    v = yield from _ask(latents, sigmas[last], _cut_to_thousandth(sigmas[last]))
    return _denoise(latents, v, sigmas[last])


def _predict(
    latents: Latents, past: Sequence[_Past], sigma: Tensor, after: Tensor, now: Tensor, then: Tensor
) -> Latents:
    """From sigma to `after` by extrapolating the denoised latents through the past; now and then are log_snr."""
    h = then - now
    decay = torch.expm1(-h)
    newest, _ = past[-1]
    moved = [after / sigma * x - (1 - after) * decay * m for x, m in zip(latents, newest, strict=True)]
    if len(past) == 1:
        return moved
    older, its_log_snr = past[0]
    ratio = (its_log_snr - now) / h
    return [x - (1 - after) * decay * 0.5 * ((o - m) / ratio) for x, m, o in zip(moved, newest, older, strict=True)]


def _correct(
    before: Latents, past: Sequence[_Past], denoised: Latents, sigma: Tensor, after: Tensor, now: Tensor, then: Tensor
) -> Latents:
    """Redo the predictor's step from sigma to `after`, now that the denoised latents at its end are known."""
    h = then - now
    decay = torch.expm1(-h)
    newest, _ = past[-1]
    moved = [after / sigma * x - (1 - after) * decay * m for x, m in zip(before, newest, strict=True)]
    if len(past) == 1:
        return [x - (1 - after) * decay * 0.5 * (d - m) for x, d, m in zip(moved, denoised, newest, strict=True)]
    older, its_log_snr = past[0]
    ratio = (its_log_snr - now) / h
    phi = decay / -h - 1
    b1, b2 = phi / decay, 2 * (phi / -h - 0.5) / decay
    # Two equations, [[1, 1], [ratio, 1]] (of_older, of_end) = (b1, b2), solved by hand.
    of_older = (b1 - b2) / (1 - ratio)
    of_end = b1 - of_older
    return [
        x - (1 - after) * decay * (of_older * ((o - m) / ratio) + of_end * (d - m))
        for x, d, m, o in zip(moved, denoised, newest, older, strict=True)
    ]


def held(sampler: Sampler, data: Latents, fixed: Sequence[Bool[Tensor, "_T _P _C"]]) -> Sampler:
    """Hold some entries at their data through a whole run, exactly, whatever the sampler does with them.

    Each query shows the data there, the velocity sent back counts as zero there, and the result is the data there.
    Given frames are held at their latents, unused action channels at zero.

    Args:
        sampler: any sampler that has not started.
        data: one (T, P, C) per segment; read where fixed.
        fixed: True where an entry is held.
    """

    def pin(latents: Latents) -> Latents:
        return [torch.where(mask, known, x) for mask, known, x in zip(fixed, data, latents, strict=True)]

    query = next(sampler)
    while True:
        v = yield replace(query, latents=pin(query.latents))
        try:
            query = sampler.send([dx.masked_fill(mask, 0) for mask, dx in zip(fixed, v, strict=True)])
        except StopIteration as end:
            return pin(end.value)


def _ask(latents: Latents, sigma: Tensor, clock: float) -> Generator[Query, Latents, Latents]:
    """Yield a query and take the answer in the latents' precision, refusing shapes that would broadcast."""
    v = yield Query(latents=latents, sigma=sigma, clock=clock)
    shapes, expected = [tuple(dx.shape) for dx in v], [tuple(x.shape) for x in latents]
    if shapes != expected:
        raise ValueError(f"The velocity must have the latents' shapes {expected}, got {shapes}.")
    return [dx.to(x.dtype) for x, dx in zip(latents, v, strict=True)]


def _denoise(latents: Latents, velocity: Latents, sigma: Tensor) -> Latents:
    return [x - sigma * dx for x, dx in zip(latents, velocity, strict=True)]


def _cut_to_thousandth(sigma: Tensor) -> float:
    # From the float32 sigma that the solver holds. Where an unrounded sigma is a whole thousandth (unshifted grids),
    # released schedulers cut another rounding of it and may land one thousandth beside this.
    return int(1000 * sigma.item()) / 1000


def _check(noise: Latents, sigmas: Tensor) -> None:
    falls = len(sigmas) >= 2 and bool((sigmas.diff() < 0).all()) and bool(sigmas[-1] == 0) and bool(sigmas[0] <= 1)
    if not falls:
        raise SettingsError(
            f"sigmas must fall strictly from at most 1 to 0, got {sigmas.tolist()}. Build them with schedule.grid()."
        )
    low = [str(x.dtype) for x in (*noise, sigmas) if torch.finfo(x.dtype).bits < 32]
    if low:
        raise SettingsError(f"Samplers need float32 latents and sigmas, got {low[0]}. Cast only what the network sees.")
