"""The flow loss of each camera of each window at one noise level, on noise that depends on the window alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from orrery.evaluation.factory.ask import case_seed, forward
from orrery.evaluation.factory.figure import Suite
from orrery.evaluation.factory.scenes import CAMERAS, Window
from orrery.packing.pack import pack_samples
from orrery.packing.patches import patchify
from orrery.packing.segment import Sample, Segment
from orrery.runtime.inputs import read_inputs
from orrery.runtime.model import Model
from orrery.runtime.prepare import prepare
from orrery.tasks.defaults import resolve
from orrery.tasks.request import Request


@torch.no_grad()
def flow_losses(
    model: Model, windows: Sequence[Window], actions: Sequence[Float[np.ndarray, "16 5"]], sigma: float, suite: Suite
) -> dict[str, list[float]]:
    """Camera -> mean squared error of the velocity over the generated values of each window, in order."""
    found: dict[str, list[float]] = {camera: [] for camera in CAMERAS}
    for start in range(0, len(windows), suite.batch):
        chosen = windows[start : start + suite.batch]
        samples = [
            sample_of(model, forward(window.given, chunk, 0), window)
            for window, chunk in zip(chosen, actions[start : start + suite.batch], strict=True)
        ]
        pack = pack_samples(samples, model.mot.config.clock)
        noise = []
        for index, sample in enumerate(samples):
            rng = torch.Generator().manual_seed(case_seed(suite, 12, start + index))
            noise += [torch.randn(s.clean.shape, generator=rng).to(model.device) for s in sample.segments]
        level = torch.full((len(pack.segments),), sigma, device=model.device)
        latents = [s.pinned((1 - sigma) * s.clean + sigma * x) for s, x in zip(pack.segments, noise, strict=True)]
        velocity = model.mot(pack.with_latents(latents), level, model.mot.read(pack.text)).velocity
        config = model.mot.config
        scale = min(1.0, sigma / config.sigma_floor) if config.prediction == "data" else 1.0
        for segment, made, drawn in zip(pack.segments, velocity, noise, strict=True):
            if segment.kind == "vision":
                error = (made.float() - (drawn - segment.clean).float() * scale).square()[segment.active].mean()
                found[tuple(CAMERAS)[segment.camera]].append(error.item())
    return found


def sample_of(model: Model, request: Request, window: Window) -> Sample:
    """The request as the sampler would see it, with the true future in the place of what is to be made."""
    contract = model.contract(request.embodiment)
    settings = resolve(request, request.row, model.family, contract=contract)
    inputs = read_inputs(request, settings, None if model.sound is None else model.sound.rate)
    sample = prepare(model, request, settings, inputs, contract).job.sample
    return replace(sample, segments=tuple(with_truth(model, segment, window) for segment in sample.segments))


def with_truth(model: Model, segment: Segment, window: Window) -> Segment:
    """A vision segment whose latents are those of the whole true film; another one as it is."""
    if segment.kind != "vision":
        return segment
    assert model.vision is not None
    film = window.film[tuple(CAMERAS)[segment.camera]]
    clean = patchify(model.vision.encode(film).to(model.device), model.mot.config.vision_patch)
    return replace(segment, clean=clean.to(segment.clean.dtype))
