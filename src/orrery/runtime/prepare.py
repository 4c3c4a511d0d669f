"""From a request to a job for the sampler, and from the sampler's latents back to media.

This is where pixels, samples and robot units become segments of latents: what the task shows is encoded and marked as
given, the rest is noise.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orrery.data.limits import LIMITS
from orrery.errors import MediaError, RequestError, SettingsError
from orrery.flow.reuse import Reuse
from orrery.flow.samplers import Latents, Sampler, euler, stochastic, unipc
from orrery.flow.schedule import distilled, grid
from orrery.packing.patches import grid_of, patchify, unpatchify, valid_values
from orrery.packing.segment import Sample, Segment
from orrery.runtime.generate import Job
from orrery.runtime.inputs import Inputs, View, fit
from orrery.runtime.model import Model
from orrery.runtime.result import Result
from orrery.tasks.contract import ActionContract
from orrery.tasks.embodiment import embodiment
from orrery.tasks.normaliser import Normaliser
from orrery.tasks.request import Request
from orrery.tasks.settings import Settings, negative_text, positive_text
from orrery.tokenizers.samples import latent_count, samples_of_clip


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A job with what is needed to turn its latents into media."""

    job: Job
    settings: Settings
    views: tuple[View, ...]
    """One for each camera, in their order."""
    latent_sizes: tuple[tuple[int, int], ...]
    """Height and width of the vision latents of each."""
    sound_samples: int | None
    normaliser: Normaliser


def prepare(
    model: Model,
    request: Request,
    settings: Settings,
    inputs: Inputs,
    contract: ActionContract | None,
    noise: Latents | None = None,
) -> Prepared:
    """Encode what is given and set up the sampler.

    Args:
        settings: from `tasks.defaults.resolve`.
        inputs: media of the request, already read.
        noise: start of the vision, sound and action segments instead of what the seed draws.

    Raises:
        RequestError: media that do not fit the settings; nothing is cut, padded or repeated to make them fit.
    """
    assert model.vision is not None
    views = fit(inputs, settings, multiple=model.vision.spatial)
    latent_sizes = tuple(view.latent_size(model.vision.spatial) for view in views)
    segments = [_vision_segment(model, settings, inputs, views, camera) for camera in range(len(views))]
    sound_samples = None
    if settings.sound is not None:
        segment, sound_samples = _sound_segment(model, settings, inputs)
        segments.append(segment)
    normaliser = Normaliser()
    if settings.embodiment is not None:
        robot = contract if contract is not None else embodiment(settings.embodiment)
        normaliser = robot.normaliser
        segments.append(_action_segment(model, request, settings, normaliser, robot.state_normaliser or normaliser))
    if all(bool(segment.given.all()) for segment in segments):
        raise RequestError(
            f"Nothing is left to make: task {settings.task!r} of frames {settings.frames} is given all of them. "
            "Give more frames, or fewer pins."
        )
    segments = [_to_device(segment, model.device) for segment in segments]
    rng = torch.Generator().manual_seed(settings.seed)
    drawn = [segment.noise(rng) for segment in segments]
    if noise is not None:
        drawn = [segment.pinned(x.to(model.device)) for segment, x in zip(segments, noise, strict=True)]
    sampler, turns = _sampler(settings, drawn, rng)
    text = model.need_text()

    def sample(words: str) -> Sample:
        ids = torch.tensor(text.prompt_ids(words, settings.system_prompt), device=model.device)
        return Sample(token_ids=ids, segments=tuple(segments))

    scales = settings.guidance or {}
    job = Job(
        sample=sample(positive_text(settings, height=views[0].height, width=views[0].width)),
        negative=sample(negative_text(settings, height=views[0].height, width=views[0].width))
        if settings.guided
        else None,
        sampler=sampler,
        turns=turns,
        scales=tuple(scales.get(segment.kind, 1.0) for segment in segments),
        interval=settings.guidance_interval,
        reuse=_reuse(model, settings, turns),
    )
    return Prepared(
        job=job,
        settings=settings,
        views=views,
        latent_sizes=latent_sizes,
        sound_samples=sound_samples,
        normaliser=normaliser,
    )


def finish(
    model: Model, prepared: Prepared, latents: Latents, manifest: dict[str, Any], *, frames: bool = True
) -> Result:
    """Decode what the sampler made. A task without imagined future gives no video, only what it was asked for.

    Args:
        frames: False leaves pictures as latents.
    """
    assert model.vision is not None
    settings, segments = prepared.settings, prepared.job.sample.segments
    cameras = _camera_names(model, settings)
    kept: dict[str, Tensor] = {}
    videos: dict[str, npt.NDArray[np.uint8]] = {}
    for camera, (name, size) in enumerate(zip(cameras, prepared.latent_sizes, strict=True)):
        tokens = latents[camera].float()
        seen = kept["vision" if camera == 0 else f"vision-{name}"] = unpatchify(
            tokens, *size, model.mot.config.vision_patch
        )
        if frames and not segments[camera].given.all():
            videos[name] = model.vision.decode(seen)
    found = {segment.kind: x.float() for segment, x in zip(segments, latents, strict=True)}
    sound = actions = None
    if prepared.sound_samples is not None:
        assert model.sound is not None
        kept["sound"] = found["sound"][:, 0]
        sound = model.sound.decode(kept["sound"], prepared.sound_samples)
    if "action" in found:
        assert settings.action_width is not None
        kept["action"] = found["action"][:, 0, : settings.action_width]
        rows = kept["action"].cpu().numpy()[int(settings.state or False) :]
        actions = None if segments[-1].given.all() else prepared.normaliser.decode(rows)
    return Result(
        videos=videos,
        fps=None if settings.fps is None else float(settings.fps),
        sound=sound,
        sound_rate=model.sound.rate if sound is not None and model.sound is not None else None,
        actions=actions,
        latents={kind: x.cpu() for kind, x in kept.items()},
        manifest=manifest,
    )


def _camera_names(model: Model, settings: Settings) -> tuple[str, ...]:
    """What the videos of a result are called: the cameras of the contract, or "vision" where none is named."""
    if settings.views:
        return tuple(name for name, _, _ in settings.views)
    first = {contract.cameras[0].name for contract in model.contracts.values() if contract.cameras}
    return (first.pop() if len(first) == 1 else "vision",)


def _vision_segment(model: Model, settings: Settings, inputs: Inputs, views: tuple[View, ...], camera: int) -> Segment:
    """What the task shows of one camera as clean latent frames, zeros elsewhere."""
    codec, patch, view = model.vision, model.mot.config.vision_patch, views[camera]
    assert codec is not None
    assert settings.latent_frames is not None
    height, width = view.latent_size(codec.spatial)
    clean = torch.zeros(codec.channels, settings.latent_frames, height, width)
    given = torch.zeros(settings.latent_frames, dtype=torch.bool)
    if inputs.frames:
        # The codec is causal in time: the first frames encoded alone are the first latents of the whole.
        latents = codec.encode(view.apply(inputs.frames[camera]))[:, :, :height, :width]
        clean[:, : latents.shape[1]] = latents
        given[: latents.shape[1]] = True
    for index, frames in inputs.pins.items():
        # Latent frame k > 0 holds four frames; they are encoded behind a copy of the first, which is then left out.
        moment = frames if index == 0 else np.concatenate([frames[:1], frames])
        latents = codec.encode(view.apply(moment))[:, -1, :height, :width]
        clean[:, index // codec.temporal] = latents
        given[index // codec.temporal] = True
    rows, cols = grid_of(height, width, patch)
    return Segment(
        kind="vision",
        clean=patchify(clean, patch),
        given=given,
        valid=valid_values(codec.channels, height, width, patch),
        rows=rows,
        cols=cols,
        fps=None if settings.fps is None else float(settings.fps),
        shares_origin=camera > 0,
        camera=camera,
    )


def _sound_segment(model: Model, settings: Settings, inputs: Inputs) -> tuple[Segment, int]:
    codec, config = model.sound, model.mot.config
    assert codec is not None
    assert config.sound_width is not None
    assert settings.frames is not None
    assert settings.fps is not None
    seconds = settings.frames / float(settings.fps)
    if seconds > LIMITS.sound_s:
        raise RequestError(
            f"{settings.frames} frames at {settings.fps} fps need {seconds:g} s of sound, and at most "
            f"{LIMITS.sound_s:g} are made. Raise fps, or leave sound out."
        )
    samples = samples_of_clip(settings.frames, float(settings.fps), codec.rate)
    count = latent_count(samples, codec.hop)
    clean = torch.zeros(count, config.sound_width)
    if inputs.sound is not None:
        if latent_count(len(inputs.sound), codec.hop) != count:
            raise RequestError(
                f"{settings.frames} frames at {settings.fps} fps last {samples} samples of {codec.rate} Hz, "
                f"{inputs.sound_name} has {len(inputs.sound)}. Cut or extend the sound."
            )
        try:
            clean = codec.encode(inputs.sound)
        except MediaError as error:
            raise MediaError(f"{inputs.sound_name}: {error}") from None
    segment = Segment(
        kind="sound",
        clean=clean[:, None],
        given=torch.full((count,), inputs.sound is not None),
        valid=torch.ones(1, config.sound_width, dtype=torch.bool),
        fps=config.sound_fps,
    )
    return segment, samples


def _action_segment(
    model: Model, request: Request, settings: Settings, normaliser: Normaliser, of_state: Normaliser
) -> Segment:
    """Actions in the model's units, a row of the current state before them where there is one."""
    full, width = model.mot.config.action_width, settings.action_width
    assert full is not None
    assert width is not None
    assert settings.action_rows is not None
    assert settings.action_rows_given is not None
    assert settings.action_start is not None
    assert settings.domain_id is not None
    if width > full:
        raise RequestError(f"Actions of {width} columns do not fit this checkpoint, which takes {full}. Load another.")
    if settings.domain_id >= model.mot.config.action_domains:
        raise RequestError(
            f"Domain {settings.domain_id} of {settings.embodiment!r} is beyond the {model.mot.config.action_domains} "
            "domains of this checkpoint. Load another."
        )
    table = request.action_table()
    known = [] if request.state is None else [of_state.encode(np.asarray([request.state], dtype=np.float32))]
    known += [] if table is None else [normaliser.encode(table)]
    clean = torch.zeros(settings.action_rows, full)
    if known:
        rows = torch.from_numpy(np.concatenate(known))
        clean[: len(rows), :width] = rows
    return Segment(
        kind="action",
        clean=clean[:, None],
        given=torch.arange(settings.action_rows) < settings.action_rows_given,
        valid=(torch.arange(full) < width)[None],
        fps=None if settings.fps is None else float(settings.fps),
        start=settings.action_start,
        domain=settings.domain_id,
    )


def _sampler(settings: Settings, noise: Latents, rng: torch.Generator) -> tuple[Sampler, int]:
    assert settings.steps is not None
    if settings.schedule == "fixed":
        assert settings.sigmas is not None
        sigmas = distilled(settings.sigmas)
    else:
        assert settings.schedule is not None
        sigmas = grid(settings.schedule, settings.steps, settings.shift)
    # They stay on the CPU: samplers ask for their values, and a GPU would be waited for at every turn.
    turns = len(sigmas) - 1
    match settings.sampler:
        case "euler":
            return euler(noise, sigmas), turns
        case "stochastic":
            return stochastic(noise, sigmas, rng), turns
        case _:
            return unipc(noise, sigmas), turns


def _reuse(model: Model, settings: Settings, turns: int) -> Reuse | None:
    if model.speed.reuse is None:
        return None
    if settings.sampler == "stochastic":
        raise SettingsError(
            "The sampler 'stochastic' draws new noise at every step, so that no velocity follows from those before; "
            f"got reuse {model.speed.reuse}. Leave reuse out, or take the sampler euler or unipc."
        )
    return Reuse(threshold=model.speed.reuse, turns=turns)


def _to_device(segment: Segment, device: torch.device) -> Segment:
    return replace(
        segment,
        clean=segment.clean.to(device),
        given=segment.given.to(device),
        valid=segment.valid.to(device),
    )
