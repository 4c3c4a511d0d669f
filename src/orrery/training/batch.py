"""From recorded windows to packed batches: which task each shows, what is given, and the noise it gets.

Media and tokenizers are the caller's business: a window arrives with its latents, its normalised actions and its token
ids. Everything drawn here follows from the recipe's seed and the step.
"""

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from orrery.data.order import Order, Place
from orrery.errors import DatasetError
from orrery.flow.samplers import Latents
from orrery.model.config import MoTConfig
from orrery.packing.pack import Pack, pack_samples
from orrery.packing.patches import grid_of, patchify, valid_values
from orrery.packing.segment import Sample, Segment
from orrery.tasks.task import Given, Task
from orrery.training.noise import Purpose, draw_noise, generator, noised
from orrery.training.recipe import Recipe, Share


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """One recorded stretch, encoded; a task uses what it needs of it."""

    prompt: Int[Tensor, " n"]
    """Tokens of the whole prompt, in the form that the model will be asked in."""
    empty_prompt: Int[Tensor, " m"]
    """The same with an empty caption; stands in where the caption is dropped."""
    answer: Int[Tensor, " a"] | None = None
    """What `reason` is to write, with the token that ends a turn."""
    vision: Float[Tensor, "C T H W"] | None = None
    """Latents as the codec gives them."""
    vision_fps: float | None = None
    """Pixel frames per second."""
    sound: Float[Tensor, "Ts Cs"] | None = None
    sound_fps: float | None = None
    """Latents per second."""
    actions: Float[Tensor, "Ta A"] | None = None
    """Normalised. The first row that is not observed leads into pixel frame 1."""
    action_fps: float | None = None
    """Rows per second."""
    observed_rows: int = 0
    """Leading action rows that are always given: past actions, and the current state."""
    domain: int = 0
    """Row of the action projections; see `tasks.embodiment`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One sample to learn from: clean data in all its segments."""

    sample: Sample
    supervised: Bool[Tensor, " n"]
    """Text tokens that the model is to write, each from the tokens before it."""

    def __post_init__(self) -> None:
        if self.supervised.shape != self.sample.token_ids.shape or self.supervised[:1].any():
            raise ValueError("`supervised` must mark tokens of the sample, and not the first: nothing comes before it.")


@runtime_checkable
class Source(Protocol):
    """Recorded windows, by number."""

    def __len__(self) -> int:
        """How many windows there are; each is seen once an epoch."""

    def window(self, index: int, task: Task, rng: torch.Generator) -> Window:
        """The window for one task: prompts differ in form, and a source of several kinds picks one that fits.

        Must follow from the arguments alone; `rng` is for augmentation.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One step's samples, packed and noised."""

    pack: Pack
    """S segments; `pack.latents` are noised."""
    noise: Latents
    sigmas: Float[Tensor, " S"]
    before_labels: Int[Tensor, " M"]
    """Where in the packed text the tokens before the supervised ones stand."""
    labels: Int[Tensor, " M"]
    """The supervised tokens."""


def draw_batch(source: Source, recipe: Recipe, step: int, device: torch.device) -> Batch:
    """The batch of a step, counted from 0; the same whenever it is asked for.

    Raises:
        DatasetError: the source is empty, or a window lacks what its task needs.
    """
    rows = range(step * recipe.batch, (step + 1) * recipe.batch)
    order = order_of(source, recipe)
    indices, _ = order.take(place_of(order, recipe, step), recipe.batch)
    examples = []
    noises = []
    for row, index in zip(rows, indices, strict=True):
        share, drop_caption = draw_task(recipe.mixture, generator(recipe.seed, Purpose.TASK, row))
        task = share.row()
        window = source.window(index, task, generator(recipe.seed, Purpose.DATA, row))
        example = make_example(window, task, recipe.model, drop_caption=drop_caption, clip_latents=recipe.clip_latents)
        rng = generator(recipe.seed, Purpose.NOISE, row)
        examples.append(example)
        noises.append(draw_noise(example.sample.segments, recipe.noise, rng, independent=recipe.independent_noise))
    return pack_batch(
        examples,
        [noise for drawn in noises for noise in drawn.values],
        torch.cat([drawn.sigmas for drawn in noises]),
        recipe.model,
        device,
    )


def order_of(source: Source, recipe: Recipe) -> Order:
    """The order in which a run shows the windows of a source.

    Raises:
        DatasetError: there are none.
    """
    if len(source) < 1:
        raise DatasetError("The source holds no windows. Shorten them, or record longer episodes.")
    return Order(seed=recipe.seed, size=len(source))


def place_of(order: Order, recipe: Recipe, step: int) -> Place:
    """Where in the order a step begins."""
    return order.after(Place(), step * recipe.batch)


def draw_task(mixture: tuple[Share, ...], rng: torch.Generator) -> tuple[Share, bool]:
    """A task in proportion to its weight, and whether its caption is dropped."""
    where, drop = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
    ends = list(accumulate(share.weight for share in mixture))
    chosen = next(share for share, end in zip(mixture, ends, strict=True) if where * ends[-1] < end)
    return chosen, drop < chosen.caption_dropout


def make_example(window: Window, task: Task, config: MoTConfig, *, drop_caption: bool, clip_latents: int) -> Example:
    """Show a window as a task does: what is given stays clean, the rest is to be made.

    Args:
        window: clean data.
        task: says which modalities take part and which frames are given; "one" frame keeps the first latent frame.
        config: widths and patch of the model.
        drop_caption: use the prompt without a caption; a task that writes keeps its question.
        clip_latents: latent frames that a "clip" shows.

    Raises:
        DatasetError: the window lacks a modality of the task, or its shapes do not fit the model or the task.
    """
    if task.writes:
        # What is read is text; pictures would come through a vision encoder, not as latents.
        if window.answer is None:
            raise DatasetError(f"The window has no answer, which task {task.name!r} learns to write. Give one.")
        token_ids = torch.cat([window.prompt, window.answer])
        written = torch.arange(token_ids.numel()) >= window.prompt.numel()
        return Example(sample=Sample(token_ids=token_ids), supervised=written)
    segments = []
    if task.vision is not None:
        segments.append(_vision(window, task, task.vision, config, clip_latents))
    if task.sound is not None:
        segments.append(_sound(window, task, task.sound, config))
    if task.action is not None:
        segments.append(_action(window, task, task.action, config))
    prompt = window.empty_prompt if drop_caption else window.prompt
    sample = Sample(token_ids=prompt, segments=tuple(segments))
    return Example(sample=sample, supervised=torch.zeros_like(prompt, dtype=torch.bool))


def pack_batch(
    examples: list[Example], noise: Latents, sigmas: Float[Tensor, " S"], config: MoTConfig, device: torch.device
) -> Batch:
    """Lay examples end to end and put noise on what they are to make.

    Args:
        examples: with S segments in all, on the CPU.
        noise: one (T, P, C) a segment, on the CPU.
        sigmas: noise level of each segment.
        config: its clock places the segments in time.
        device: where the batch is to be.
    """
    samples = [_to(example.sample, device) for example in examples]
    values, levels = [drawn.to(device) for drawn in noise], sigmas.to(device)
    pack = pack_samples(samples, config.clock)
    latents = [noised(*triple) for triple in zip(pack.segments, levels, values, strict=True)]
    labelled = torch.cat([example.supervised for example in examples]).nonzero().squeeze(1).to(device)
    return Batch(
        pack=pack.with_latents(latents),
        noise=values,
        sigmas=levels,
        before_labels=labelled - 1,
        labels=pack.text.token_ids[labelled],
    )


def _vision(window: Window, task: Task, given: Given, config: MoTConfig, clip_latents: int) -> Segment:
    latent = _present(window.vision, "vision", task)
    if latent.shape[0] != config.vision_channels:
        raise _misfit("Vision latents", "channels", config.vision_channels, latent.shape[0])
    if task.frames == "one":
        latent = latent[:, :1]
    channels, frames, height, width = latent.shape
    if given == "clip" and clip_latents >= frames:
        raise DatasetError(
            f"A clip of {clip_latents} latent frames leaves nothing to make of {frames}. Take longer windows."
        )
    rows, cols = grid_of(height, width, config.vision_patch)
    return Segment(
        kind="vision",
        clean=patchify(latent, config.vision_patch),
        given=given_frames(given, frames, clip_latents),
        valid=valid_values(channels, height, width, config.vision_patch),
        rows=rows,
        cols=cols,
        fps=window.vision_fps,
    )


def _sound(window: Window, task: Task, given: Given, config: MoTConfig) -> Segment:
    latent = _present(window.sound, "sound", task)
    if latent.shape[1] != config.sound_width:
        raise _misfit("Sound latents", "values", config.sound_width, latent.shape[1])
    return Segment(
        kind="sound",
        clean=latent[:, None],
        given=given_frames(given, latent.shape[0], 1),
        valid=torch.ones(1, latent.shape[1], dtype=torch.bool),
        fps=window.sound_fps,
    )


def _action(window: Window, task: Task, given: Given, config: MoTConfig) -> Segment:
    actions = _present(window.actions, "actions", task)
    rows, columns = actions.shape
    width = 0 if config.action_width is None else config.action_width
    if columns > width:
        raise _misfit("Actions", "columns at most", width, columns)
    if rows <= window.observed_rows:
        raise DatasetError(f"All {rows} action rows are observed ones, so there is none to act with. Take more rows.")
    return Segment(
        kind="action",
        clean=torch.nn.functional.pad(actions, (0, width - columns))[:, None],
        given=given_frames(given, rows, 1) | (torch.arange(rows) < window.observed_rows),
        valid=(torch.arange(width) < columns)[None],
        fps=window.action_fps,
        start=1 - window.observed_rows,
        domain=window.domain,
    )


def given_frames(given: Given, frames: int, clip: int) -> Bool[Tensor, "{frames}"]:
    """Which frames are observed: none, the first, the first `clip`, or all."""
    count = {"none": 0, "first": 1, "clip": clip, "all": frames}[given]
    return torch.arange(frames) < count


def _present(data: Tensor | None, kind: str, task: Task) -> Tensor:
    if data is None:
        raise DatasetError(
            f"The window has no {kind}, which task {task.name!r} needs. Take the task out of the mixture."
        )
    return data


def _misfit(what: str, unit: str, expected: object, found: int) -> DatasetError:
    return DatasetError(f"{what} must have {expected} {unit}, as the model has, got {found}. Change one of the two.")


def _to(sample: Sample, device: torch.device) -> Sample:
    segments = tuple(
        replace(s, clean=s.clean.to(device), given=s.given.to(device), valid=s.valid.to(device))
        for s in sample.segments
    )
    return replace(sample, token_ids=sample.token_ids.to(device), segments=segments)
