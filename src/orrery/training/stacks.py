"""From the bank to the stacks of one step: which examples, what each is shown, the noise it gets, and the loss.

A stack holds examples of one task. Everything drawn follows from the recipe's seed and the step, given the bank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from orrery.errors import DatasetError
from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.model.vision import EdgeVision, QwenVision
from orrery.packing.pack import TextPack
from orrery.packing.segment import Kind
from orrery.packing.stack import Stack, Track, stack_tracks
from orrery.tasks.task import Task
from orrery.training.bank import Asked, Bank, Form
from orrery.training.loss import Losses
from orrery.training.pictures import sent
from orrery.training.recipe import LossWeights, ModalityNoise, Recipe, Share
from orrery.training.sight import Marks, SightHead

T = TypeVar("T")
SCENE_TOKENS, CLIP_TOKENS = (32, 64), (64, 96)
"""Lengths of captions that stills and clips are learned with; prompts are padded to multiples of 32."""


@dataclass(frozen=True, kw_only=True)
class Emphasis:
    """What training weighs and disturbs beyond the plain loss."""

    motion: float = 3.0
    """A vision token that changes as much as any counts so much more than one that stands still."""
    further_cameras: float = 0.3
    """What a vision token of a camera after the first counts beside one of the first. All that a camera on the wrist
    sees moves with it, so it would have most of the loss, and is hardest to foresee."""
    history_noise: float = 0.2
    """Given frames of forward dynamics get noise of up to this level in half of the examples, as frames that the model
    made itself have errors: so that rollouts hold together."""
    videos: float = 0.25
    """Share of the questions that are about videos."""


PLAIN = Emphasis(motion=0.0, history_noise=0.0, further_cameras=1.0)
"""Nothing beyond the plain loss, as it is measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Flowing:
    """A stack to be denoised."""

    task: str
    stack: Stack
    """With noised latents."""
    sigmas: Float[Tensor, "B S"]
    weights: tuple[Float[Tensor, "B _ _ 1"] | None, ...]
    """Of the tokens of each track; None is 1."""
    marks: Marks | None = None
    """What the first frame of the first track shows, where it is given and asked for."""
    factor: float = 1.0
    """On the loss: that of a share that takes part in every second step counts twice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asking:
    """Questions of one form, to be answered."""

    text: TextPack
    patches: Float[Tensor, "N V"]
    grids: tuple[tuple[int, int, int], ...]
    count: int
    labels: Int[Tensor, "B n"]
    """The next token where it is supervised, -100 elsewhere."""
    marks: Marks | None = None
    """What the pictures show, one after the other, where it is asked for."""


def draw_stacks(bank: Bank, recipe: Recipe, emphasis: Emphasis, step: int) -> list[Flowing | Asking]:
    """The stacks of a step, one for each share of the mixture that takes part in it.

    Raises:
        DatasetError: the bank has nothing for a share.
    """
    choice = np.random.default_rng([recipe.seed, step])
    rng = torch.Generator(bank.device).manual_seed(int(choice.integers(2**62)))
    found: list[Flowing | Asking] = []
    rare = 0
    for share, count in samples_of(recipe):
        # Numbered by themselves, so that not all of them fall into the same steps.
        turn = (step + rare) % share.every
        rare += share.every > 1
        if turn:
            continue
        if share.row().writes:
            videos = round(count * emphasis.videos)
            found += [
                draw_questions(bank, kind, n, choice, sight=recipe.loss_weights.sight > 0)
                for kind, n in (("image", count - videos), ("video", videos))
                if n
            ]
        else:
            found.append(draw_flow(bank, share, count, recipe, emphasis, choice, rng))
    return found


def samples_of(recipe: Recipe) -> list[tuple[Share, int]]:
    """How many samples each share gets in a step that it takes part in: its part of `batch`, times the steps between,
    in multiples of 8 where there are as many."""
    total = sum(share.weight for share in recipe.mixture)
    counts = [recipe.batch * share.weight * share.every / total for share in recipe.mixture]
    return [
        (share, max(1, round(count) if count < 12 else 8 * round(count / 8)))
        for share, count in zip(recipe.mixture, counts, strict=True)
    ]


def draw_flow(
    bank: Bank,
    share: Share,
    count: int,
    recipe: Recipe,
    emphasis: Emphasis,
    choice: np.random.Generator,
    rng: torch.Generator,
    *,
    level: float | None = None,
) -> Flowing:
    """Examples of one share, noised; all at one noise level where `level` is given, then as the task is asked."""
    task, config = share.row(), recipe.model
    if task.name == "text_to_image":
        ids, first = _captioned(bank.scenes, SCENE_TOKENS, count, choice, task)
    elif task.action is None:
        ids, first = _captioned(bank.clips, CLIP_TOKENS, count, choice, task)
    else:
        pool = bank.policy if task.name.startswith("policy") else bank.sounding if task.sound else bank.windows
        windows = _some(pool, count, choice, task)
        first = np.array(windows)
        ids = np.stack(_one_of_each([bank.instructions[bank.episode_of[frame]] for frame in windows], choice))
    # Measured with captions, unless the task is never asked with one.
    kept = level is not None and share.caption_dropout < 1
    dropped = choice.random(count) < (-1 if kept else share.caption_dropout)
    if len(bank.empty) == ids.shape[1]:
        ids[dropped] = bank.empty
    elif dropped.any():
        ids[dropped] = padded_empty(bank, ids.shape[1])
    device = bank.device
    length = 1 if task.frames == "one" else bank.contract.chunk + 1
    begins, token_ids = sent([first, ids], device)
    where = begins[:, None] + torch.arange(length, device=device)
    tracks = [vision_track(bank, where, camera, task, config) for camera in cameras_of(task, config)]
    if task.sound is not None:
        tracks.append(sound_track(bank, where, task))
    if task.action is not None:
        tracks.append(action_track(bank, where[:, :1], task, config))
    stack = stack_tracks(token_ids, tracks, config.clock)
    sigmas = draw_sigmas(tracks, count, recipe.noise, rng, independent=recipe.independent_noise)
    if level is not None:
        sigmas = torch.full_like(sigmas, level)
    noised = []
    for index, track in enumerate(tracks):
        noise = torch.randn(track.clean.shape, generator=rng, device=device)
        if track.kind == "vision" and task.action == "all" and level is None and emphasis.history_noise:
            disturbed = torch.rand(count, 1, generator=rng, device=device) * emphasis.history_noise
            disturbed = disturbed * (torch.rand(count, 1, generator=rng, device=device) < 0.5)
            share_of_noise = torch.where(track.given, disturbed, sigmas[:, index, None])
        else:
            share_of_noise = sigmas[:, index, None].masked_fill(track.given, 0.0)
        mixed = torch.lerp(track.clean, noise, share_of_noise[..., None, None])
        noised.append(mixed * track.valid)
    return Flowing(
        task=task.name,
        stack=stack.with_latents(noised),
        sigmas=sigmas,
        weights=tuple(token_weights(track, emphasis, differences=bank.vision.config.differences) for track in tracks),
        marks=bank.marks(where[:, 0]) if task.vision != "none" and recipe.loss_weights.sight else None,
        factor=float(share.every) if level is None else 1.0,
    )


def cameras_of(task: Task, config: MoTConfig) -> range:
    """Tasks of a robot show all cameras, the others the first."""
    return range(max(1, config.cameras)) if task.action is not None else range(1)


def vision_track(bank: Bank, where: Int[Tensor, "B T"], camera: int, task: Task, config: MoTConfig) -> Track:
    """Windows of one camera; given as the task says."""
    latents = bank.latents(where, camera)
    patch = config.vision_patch
    clean = rearrange(latents, "b c t (h p) (w q) -> b t (h w) (p q c)", p=patch, q=patch)
    count, frames, tokens, _ = clean.shape
    given = torch.zeros(count, frames, dtype=torch.bool, device=clean.device)
    if task.vision == "all":
        given[:] = True
    elif task.vision != "none":
        given[:, 0] = True
    return Track(
        kind="vision",
        clean=clean,
        given=given,
        valid=torch.ones(tokens, clean.shape[3], dtype=torch.bool, device=clean.device),
        rows=latents.shape[3] // patch,
        cols=latents.shape[4] // patch,
        fps=None if task.frames == "one" and task.action is None else float(bank.contract.control_rate_hz),
        shares_origin=camera > 0,
        camera=camera,
    )


def sound_track(bank: Bank, where: Int[Tensor, "B T"], task: Task) -> Track:
    """The sound of windows, one latent a frame."""
    clean = bank.sound[where].float()[:, :, None]
    return Track(
        kind="sound",
        clean=clean,
        given=torch.full(clean.shape[:2], task.sound == "all", device=clean.device),
        valid=torch.ones(1, clean.shape[3], dtype=torch.bool, device=clean.device),
        fps=bank.hearing.rate / bank.hearing.hop,
    )


def action_track(bank: Bank, first: Int[Tensor, "B 1"], task: Task, config: MoTConfig) -> Track:
    """The executed actions from the first frame on; for a policy behind the current state."""
    assert config.action_width is not None
    chunk = bank.contract.chunk
    rows = bank.action[first + torch.arange(chunk, device=first.device)]
    steers = task.name.startswith("policy")
    if steers:
        rows = torch.cat([bank.state[first], rows], dim=1)
    clean = F.pad(rows, (0, config.action_width - rows.shape[2]))[:, :, None]
    given = torch.full(clean.shape[:2], task.action == "all", device=clean.device)
    if steers:
        given[:, 0] = True
    return Track(
        kind="action",
        clean=clean,
        given=given,
        valid=(torch.arange(config.action_width, device=clean.device) < bank.contract.width)[None],
        fps=float(bank.contract.control_rate_hz),
        start=0 if steers else 1,
        domain=bank.contract.domain_id,
    )


def draw_sigmas(
    tracks: Sequence[Track], count: int, levels: ModalityNoise, rng: torch.Generator, *, independent: bool
) -> Float[Tensor, "B S"]:
    """Noise levels of each track; cameras share theirs, as they show one future. Else all share vision's."""
    drawn: dict[str, Tensor] = {}
    for track in tracks:
        kind = track.kind if independent else tracks[0].kind
        if kind not in drawn:
            drawn[kind] = levels.of(kind).draw(count, rng)
    return torch.stack([drawn[track.kind if independent else tracks[0].kind] for track in tracks], dim=1)


def token_weights(track: Track, emphasis: Emphasis, *, differences: bool) -> Float[Tensor, "B _ _ 1"] | None:
    """What the tokens of a track count; None where all count 1."""
    moving = motion_weights(track, emphasis.motion, differences=differences)
    if track.kind != "vision" or track.camera == 0 or emphasis.further_cameras == 1:
        return moving
    return emphasis.further_cameras * (torch.ones_like(track.clean[..., :1]) if moving is None else moving)


def motion_weights(track: Track, emphasis: float, *, differences: bool) -> Float[Tensor, "B T P 1"] | None:
    """1, and `emphasis` more where a token differs as much as the liveliest twentieth do: from the one before it, or
    from the first one where that is what latents are (`differences`)."""
    if track.kind != "vision" or not emphasis or track.clean.shape[1] == 1:
        return None
    before = 0.0 if differences else track.clean[:, :-1]
    change = (track.clean[:, 1:] - before).square().mean(dim=3, keepdim=True).sqrt()
    # Of a sample of the tokens: a quantile of all would cost more than the model.
    some = change.flatten()[:: max(1, change.numel() // 8192)]
    reference = some.kthvalue(math.ceil(0.95 * len(some))).values.clamp(min=1e-6)
    moving = (change / reference).clamp(max=1)
    return 1 + emphasis * torch.cat([torch.zeros_like(moving[:, :1]), moving], dim=1)


def flowing_loss(mot: MoT, flowing: Flowing, weights: LossWeights, head: SightHead | None = None) -> Losses:
    """As `loss.flow_loss`, for a stack: each modality's mean over its active values, with token weights.

    Args:
        head: reads the marks of a stack that has some.
    """
    config = mot.config
    made = mot.forward_stack(flowing.stack, flowing.sigmas)
    floor = config.sigma_floor if config.prediction == "data" else 0.0
    sums: dict[Kind, Tensor] = {}
    counts: dict[Kind, Tensor] = {}
    for index, (track, out) in enumerate(zip(flowing.stack.tracks, made.out, strict=True)):
        sigma = flowing.sigmas[:, index, None, None, None]
        latents, active = flowing.stack.latents[index], track.active
        if config.prediction == "data":
            error = (out - track.clean) / sigma.clamp(min=floor)
        else:
            error = out - (latents - track.clean) / sigma.clamp(min=1e-6)
        squared = torch.where(active, error.square(), 0.0)
        weight = flowing.weights[index]
        if weight is not None:
            squared = squared * weight
        sums[track.kind] = sums[track.kind] + squared.sum() if track.kind in sums else squared.sum()
        counts[track.kind] = counts[track.kind] + active.sum() if track.kind in counts else active.sum()
    parts = {kind: sums[kind] / counts[kind].clamp(min=1) for kind in sums}
    total = torch.stack([weights.of(kind) * part for kind, part in parts.items()]).sum()
    told: dict[str, Tensor] = {f"{flowing.task} {kind}": part for kind, part in parts.items()}
    if head is not None and flowing.marks is not None:
        told[f"{flowing.task} sight"] = seen = head.loss(made.halfway[:, : flowing.marks.shown.shape[1]], flowing.marks)
        total = total + weights.sight * seen
    return Losses(total=flowing.factor * total, parts=told)


def draw_questions(bank: Bank, kind: str, count: int, choice: np.random.Generator, *, sight: bool = False) -> Asking:
    """Questions about stills or videos: a family as likely as any other, then one of its questions."""
    families = [rows for rows in list(bank.questions[kind].values()) if rows]
    if not families:
        raise DatasetError(f"The data hold no questions about {kind}s. Take reason out of the mixture, or ask some.")
    drawn = _one_of_each([families[index] for index in choice.integers(len(families), size=count).tolist()], choice)
    return asking(bank, bank.forms[kind], drawn, sight=sight)


def asking(bank: Bank, form: Form, drawn: Sequence[Asked], *, sight: bool = False) -> Asking:
    """Questions of one form as a stack of text; with what their pictures show where `sight` is asked for."""
    device, count = bank.device, len(drawn)
    ids = np.stack([asked.ids for asked in drawn])
    begins, ends = np.array([(asked.answer.start, asked.answer.stop) for asked in drawn]).T[..., None]
    length = ids.shape[1]
    # Row n predicts token n + 1.
    after = np.arange(1, length + 1)
    labels = np.where((begins <= after) & (after < ends), np.roll(ids, -1, axis=1), -100)
    offsets = torch.arange(count, device=device)[:, None] * length
    token_ids, told, frames = sent([ids, labels, np.array([asked.frames for asked in drawn])], device)
    return Asking(
        text=TextPack(
            token_ids=token_ids.reshape(-1),
            positions=repeat(form.positions, "three n -> three (b n)", b=count),
            visual=(form.visual + offsets).reshape(-1),
            lengths=(length,) * count,
        ),
        patches=bank.patches(frames),
        grids=(form.grid,) * count,
        count=count,
        labels=told,
        marks=bank.marks(frames[:, :: bank.eyes.temporal_patch].reshape(-1)) if sight else None,
    )


def asking_loss(
    mot: MoT, eyes: QwenVision | EdgeVision, asking: Asking, weights: LossWeights, head: SightHead | None = None
) -> Losses:
    """Cross entropy of the answers, the mean over their tokens.

    Args:
        head: reads the marks of a stack that has some.
    """
    sights = eyes(asking.patches, list(asking.grids))
    memory = mot.read(asking.text, sights)
    # Answers stand behind the pictures; scores of the tokens before need not be worked out.
    first = int(asking.text.visual.shape[0] // asking.count)
    hidden = rearrange(memory.hidden, "(b n) d -> b n d", b=asking.count)[:, first:]
    scores = mot.logits(hidden.flatten(0, 1))
    loss = F.cross_entropy(scores, asking.labels[:, first:].flatten(), ignore_index=-100)
    kind = "still" if asking.grids[0][0] == 1 else "video"
    total, told = weights.text * loss, {f"reason {kind}": loss}
    if head is not None and asking.marks is not None:
        tokens = rearrange(sights.features, "(b n) d -> b n d", b=len(asking.marks.shown))
        told[f"sight {kind}"] = seen = head.loss(tokens, asking.marks)
        total = total + weights.sight * seen
    return Losses(total=total, parts=told)


def moved(values: Shaped[np.ndarray, "*n"], device: torch.device) -> Shaped[Tensor, "*n"]:
    """Values on the device. A GPU fetches them when it gets there; the CPU does not wait until it is done."""
    (there,) = sent([values], device)
    return there


def padded_empty(bank: Bank, length: int) -> Int[np.ndarray, " n"]:
    """The empty prompt at the length of longer ones."""
    pad = bank.text.id(bank.text.special["pad_token"])
    # It ends with the two tokens that close every prompt; pads stand before them.
    return np.concatenate([bank.empty[:-2], np.full(length - len(bank.empty), pad), bank.empty[-2:]])


def _captioned(
    pools: dict[int, list[tuple[int, Int[np.ndarray, " _"]]]],
    lengths: tuple[int, ...],
    count: int,
    choice: np.random.Generator,
    task: Task,
) -> tuple[Int[np.ndarray, "B n"], Int[np.ndarray, " B"]]:
    """Captions of one length, drawn in proportion to how many there are of each, and the frames they begin at."""
    sizes = np.array([len(pools.get(length, ())) for length in lengths])
    if not sizes.sum():
        raise DatasetError(f"The data hold no captions for task {task.name!r}. Take it out of the mixture.")
    pool = pools[lengths[int(choice.choice(len(lengths), p=sizes / sizes.sum()))]]
    drawn = [pool[index] for index in choice.integers(len(pool), size=count).tolist()]
    return np.stack([ids for _, ids in drawn]), np.array([frame for frame, _ in drawn])


def _some(pool: Sequence[int], count: int, choice: np.random.Generator, task: Task) -> list[int]:
    if not pool:
        raise DatasetError(f"The data hold no windows for task {task.name!r}. Record longer episodes of more kinds.")
    return [pool[index] for index in choice.integers(len(pool), size=count).tolist()]


def _one_of_each(pools: Sequence[Sequence[T]], choice: np.random.Generator) -> list[T]:
    indices = choice.integers([len(rows) for rows in pools]).tolist()
    return [rows[index] for rows, index in zip(pools, indices, strict=True)]
