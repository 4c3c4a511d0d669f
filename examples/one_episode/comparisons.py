"""The four comparisons: what the loaded checkpoint does through `orrery.run`, next to predictions that know nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from episode import CHUNK, Recording
from learner import SHIFT

import orrery
from orrery.evaluation.baselines import copy_last_frame, derangement, mean_action, mean_future
from orrery.evaluation.metrics import (
    MOVING_THRESHOLD,
    PixelError,
    bootstrap_interval,
    mean_absolute_error,
    moving_pixels,
    pixel_error,
    pooled,
    r_squared,
)
from orrery.evaluation.page import Measure, Section, Strip
from orrery.runtime.model import Model
from orrery.tasks.task import task_named
from orrery.training.batch import make_example, pack_batch
from orrery.training.loop import batch_losses
from orrery.training.recipe import LossWeights

STEPS = 4
LOSS_LEVELS = (1.0, 0.9, 0.7)
"""Noise levels at which the losses with true and with shuffled actions are compared, on the same noise."""
JUDGED, JUDGED_HELD_OUT = 12, 6
"""Windows of each group, evenly spread."""
SHOWN = 2
"""Windows of each group whose videos are on the page."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Windows that are judged together."""

    name: str
    starts: tuple[int, ...]


def groups_of(recording: Recording) -> tuple[Group, ...]:
    """Windows that were trained on, and windows that were not."""

    def spread(starts: range, count: int) -> tuple[int, ...]:
        return tuple(sorted({starts[round(i)] for i in np.linspace(0, len(starts) - 1, count)}))

    return (
        Group(name="trained on", starts=spread(recording.training_starts, JUDGED)),
        Group(name="held out", starts=spread(recording.held_out_starts, JUDGED_HELD_OUT)),
    )


def ask(model: Model, recording: Recording, task: str, start: int, seed: int, **given: Any) -> orrery.Request:
    """One request about the window at `start`."""
    clip = recording.clip(start)
    return orrery.Request(
        task=task,
        prompt=recording.prompt,
        vision=clip if task == "inverse_dynamics" else clip[0],
        # What is taken for granted about the actions; the checkpoint carries its own contract and would refuse another.
        contract=recording.contract.to_json(),
        steps=STEPS,
        sampler="euler",
        schedule="flow",
        shift=SHIFT,
        seed=seed,
        **given,
    )


def forward_dynamics(model: Model, recording: Recording, seed: int, command: str) -> Section:
    """Video from the first frame and the actions: against standing still, against other actions."""
    typical = mean_future(np.stack([recording.clip(start) for start in recording.training_starts[:: CHUNK // 2]]))
    measures: list[Measure] = []
    strips: list[Strip] = []
    for group in groups_of(recording):
        other = [group.starts[i] for i in derangement(len(group.starts), seed)]
        clips = [recording.clip(start) for start in group.starts]
        made = videos(model, recording, group.starts, group.starts, seed)
        swapped = videos(model, recording, group.starts, other, seed)
        still = [copy_last_frame(clip[:1], len(clip)) for clip in clips]
        masks = [moving_pixels(clip) for clip in clips]

        def errors(
            predicted: Sequence[np.ndarray], clips: list[np.ndarray] = clips, masks: list[np.ndarray] = masks
        ) -> list[PixelError]:
            return [pixel_error(*triple) for triple in zip(predicted, clips, masks, strict=True)]

        name = f"PSNR of moving pixels, true actions ({group.name})"
        for baseline_name, baseline in (
            ("copy of the last given frame", errors(still)),
            ("mean future of the training windows", errors([typical] * len(clips))),
            ("the same model with the actions of another window", errors(swapped)),
        ):
            measures.append(psnr_measure(name, errors(made), baseline_name, baseline, seed))
        true = flow_losses(model, recording, group.starts, group.starts, seed)
        shuffled = flow_losses(model, recording, group.starts, other, seed)
        # Window by window on the same noise, so that the interval is of the difference that actions make.
        ratios = [b / a for a, b in zip(true, shuffled, strict=True)]
        measures.append(
            Measure(
                name=f"Video loss with the actions of another window, over that with the true ones ({group.name})",
                value=float(np.mean(ratios)),
                unit="",
                baseline_name="a model that ignores its actions",
                baseline=1.0,
                better="higher",
                interval=bootstrap_interval(ratios, lambda drawn: float(np.mean(drawn)), seed=seed),
                note=f"Loss {np.mean(true):.4f} with the true, {np.mean(shuffled):.4f} with the others, same noise.",
            )
        )
        for i in shown_of(len(clips)):
            strips.append(
                Strip(
                    caption=f"Frames {group.starts[i]} to {group.starts[i] + CHUNK}, {group.name}.",
                    clips=(
                        ("recorded", clips[i]),
                        ("true actions", made[i]),
                        ("actions of another window", swapped[i]),
                        ("last frame copied", still[i]),
                    ),
                    fps=recording.fps,
                )
            )
    return Section(
        title="Forward dynamics: what will the camera see?",
        text=f"Given one frame and {CHUNK} actions, the model makes the {CHUNK} frames that follow. Moving pixels "
        f"are those whose recorded colour differs from the first frame by more than {MOVING_THRESHOLD} of 255. A model "
        "that listens to its actions is better with the true ones than with those of another window.",
        measures=tuple(measures),
        strips=tuple(strips),
        command=command,
    )


def inverse_dynamics(model: Model, recording: Recording, seed: int, command: str) -> Section:
    """Actions from video, against the mean action."""
    measures: list[Measure] = []
    for group in groups_of(recording):
        requests = [ask(model, recording, "inverse_dynamics", start, seed + i) for i, start in enumerate(group.starts)]
        found = [result.actions for result in orrery.run(model, requests)]
        measures += action_measures(recording, group, found, seed)
    return Section(
        title="Inverse dynamics: which actions did this?",
        text=f"Given all {CHUNK + 1} frames, the model says which actions led from each to the next.",
        measures=tuple(measures),
        command=command,
    )


def policy(model: Model, recording: Recording, seed: int, command: str) -> Section:
    """Actions and the future they lead to, from one frame and the prompt."""
    measures: list[Measure] = []
    strips: list[Strip] = []
    for group in groups_of(recording):
        requests = [ask(model, recording, "policy", start, seed + i) for i, start in enumerate(group.starts)]
        results = orrery.run(model, requests, envelope=None)  # measured, not executed
        measures += action_measures(recording, group, [result.actions for result in results], seed)
        clips = [recording.clip(start) for start in group.starts]
        still = [copy_last_frame(clip[:1], len(clip)) for clip in clips]
        masks = [moving_pixels(clip) for clip in clips]
        imagined = [pixel_error(r.video, clip, mask) for r, clip, mask in zip(results, clips, masks, strict=True)]
        copied = [pixel_error(*triple) for triple in zip(still, clips, masks, strict=True)]
        name = f"PSNR of moving pixels, imagined future ({group.name})"
        measures.append(psnr_measure(name, imagined, "copy of the last given frame", copied, seed))
        for i in shown_of(len(clips)):
            strips.append(
                Strip(
                    caption=f"Frames {group.starts[i]} to {group.starts[i] + CHUNK}, {group.name}.",
                    clips=(("recorded", clips[i]), ("imagined", results[i].video), ("last frame copied", still[i])),
                    fps=recording.fps,
                )
            )
    return Section(
        title="Policy: what to do next?",
        text="Given one frame and the prompt, the model makes actions and the video they would lead to. It is compared "
        "with what was done in the recording, which is one of several things that could have been done.",
        measures=tuple(measures),
        strips=tuple(strips),
        command=command,
    )


def reconstruction(model: Model, recording: Recording, seed: int, command: str) -> Section:
    """What the codec alone loses."""
    assert model.vision is not None
    measures: list[Measure] = []
    for group in groups_of(recording):
        clips = [recording.clip(start) for start in group.starts]
        back = [pixel_error(model.vision.decode(model.vision.encode(clip)), clip) for clip in clips]
        still = [pixel_error(copy_last_frame(clip[:1], len(clip)), clip) for clip in clips]
        name = f"PSNR of all pixels, encoded and decoded ({group.name})"
        measures.append(psnr_measure(name, back, "copy of the last given frame", still, seed))
    return Section(
        title="Reconstruction: what does the codec lose?",
        text="This model sees and makes pixels in patches, without an autoencoder. Encoding and decoding therefore "
        "lose nothing; a learned codec would.",
        measures=tuple(measures),
        command=command,
    )


def videos(
    model: Model, recording: Recording, starts: Sequence[int], acted: Sequence[int], seed: int
) -> list[np.ndarray]:
    """Forward dynamics from the first frames of `starts` under the actions of the windows `acted`, in one pack."""
    requests = [
        ask(model, recording, "forward_dynamics", start, seed + i, actions=recording.chunk(chosen))
        for i, (start, chosen) in enumerate(zip(starts, acted, strict=True))
    ]
    return [result.video for result in orrery.run(model, requests)]


@torch.no_grad()
def flow_losses(
    model: Model, recording: Recording, starts: Sequence[int], acted: Sequence[int], seed: int
) -> list[float]:
    """Training loss of the video in forward dynamics, of each window; noise depends on its place in the list alone."""
    task, losses = task_named("forward_dynamics"), []
    rng = torch.Generator().manual_seed(seed)
    windows = recording.windows(len(recording.frames), model.vision, model.need_text())
    for start, chosen in zip(starts, acted, strict=True):
        own, other = (windows.window(place, task, rng) for place in (start, chosen))
        window = replace(own, actions=other.actions)
        example = make_example(window, task, model.mot.config, drop_caption=False, clip_latents=1)
        levels = []
        for level in LOSS_LEVELS:
            segments = example.sample.segments
            noise = [torch.randn(segment.clean.shape, generator=rng) for segment in segments]
            sigmas = torch.full((len(segments),), level)
            batch = pack_batch([example], noise, sigmas, model.mot.config, torch.device("cpu"))
            levels.append(batch_losses(model.mot, batch, LossWeights()).parts["vision"].item())
        losses.append(float(np.mean(levels)))
    return losses


def psnr_measure(
    name: str, errors: list[PixelError], baseline_name: str, baseline: list[PixelError], seed: int
) -> Measure:
    """Pooled over windows; the interval resamples windows."""
    value = pooled(errors).psnr_db
    interval = None
    if value is not None and np.isfinite(value):
        kept = [error for error in errors if error.values]
        interval = bootstrap_interval(kept, lambda drawn: pooled(drawn).psnr_db or 0.0, seed=seed)
    return Measure(
        name=name,
        value=value,
        unit="dB",
        baseline_name=baseline_name,
        baseline=pooled(baseline).psnr_db,
        better="higher",
        interval=interval,
    )


def action_measures(recording: Recording, group: Group, found: Sequence[np.ndarray], seed: int) -> list[Measure]:
    """Mean absolute error over all columns as the model sees them, and of each column in its own unit."""
    contract = recording.contract
    training = recording.actions[: recording.cut - 1]
    true = [recording.chunk(start) for start in group.starts]
    guess = mean_action(training).astype(np.float32)[None]

    def normalised(predicted: np.ndarray, chunk: np.ndarray) -> float:
        return float(np.abs(contract.encode(predicted) - contract.encode(chunk)).mean())

    pairs = list(zip(found, true, strict=True))
    own = [normalised(predicted, chunk) for predicted, chunk in pairs]
    measures = [
        Measure(
            name=f"Mean absolute action error, all columns normalised ({group.name})",
            value=float(np.mean(own)),
            unit="",
            baseline_name="mean action of the training part",
            baseline=float(np.mean([normalised(np.repeat(guess, len(chunk), axis=0), chunk) for chunk in true])),
            better="lower",
            interval=bootstrap_interval(own, lambda drawn: float(np.mean(drawn)), seed=seed),
        )
    ]
    predicted, chunks = np.concatenate(found), np.concatenate(true)
    errors = mean_absolute_error(predicted, chunks)
    baselines = mean_absolute_error(np.repeat(guess, len(chunks), axis=0), chunks)
    for column, score in enumerate(r_squared(predicted, chunks)):
        measures.append(
            Measure(
                name=f"{contract.action_names[column]} ({group.name})",
                value=float(errors[column]),
                unit="" if contract.units[column] == "1" else contract.units[column],
                baseline_name="mean action of the training part",
                baseline=float(baselines[column]),
                better="lower",
                note="never changes here" if score is None else f"R² {score:.2f}",
            )
        )
    return measures


def shown_of(count: int) -> list[int]:
    """Places of the windows to show."""
    return sorted({round(i) for i in np.linspace(0, count - 1, SHOWN + 2)[1:-1]})
