"""Probes: small networks that read the state of the factory cell from a picture, and a material from a blow.

They judge what a model imagines, so they learn from the simulator alone, with seeds of their own, and are then frozen.
Where pictures come from is the caller's: a function of the step. `evaluation.factory.probe` loads and applies them.
"""

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn

from orrery.errors import SettingsError, TaskError
from orrery.weights.folder import Folder, save_folder
from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import STEP_S, Cell, CellState
from orrery.worlds.factory.drawing import Drawing, drawing_of
from orrery.worlds.factory.hearing import history
from orrery.worlds.factory.parts import FINISHES, KINDS, Part
from orrery.worlds.factory.pcm import PCM_HZ, pcm
from orrery.worlds.factory.questions.edits import LOUD, loudness
from orrery.worlds.factory.questions.sights import place, support
from orrery.worlds.factory.render import Renderer, project
from orrery.worlds.factory.rollout import Attempt, film, roll
from orrery.worlds.factory.scene import VIEWS
from orrery.worlds.factory.scene_words import in_hole
from orrery.worlds.factory.sound import Sounding, Strike
from orrery.worlds.factory.tasks import TASKS, draw_job

SIDE = 128
"""Height and width of the front picture."""
GRID = SIDE // 2
PAIRS = tuple((finish, kind) for finish in FINISHES for kind in KINDS)
PLACES = (
    "bench", "belt", "bin_left", "bin_right", "bin_reject", "kit_0", "kit_1", "kit_2", "fixture", "part", "held",
)  # fmt: skip
"""What a part lies on, or is in. None of them: not clear, and not asked."""
MATERIALS = ("plastic", "steel", "brass", "none")
FIRST_SEED, FIRST_VALIDATION_SEED = 40_000_000, 41_000_000
"""Of the probes' own episodes."""
BEHAVIOURS_SEEN = ("expert", "noise_0.5", "noise_1", "play", "goals", "wrong_part")
RANDOM_LOOK = 0.3
"""Share of episodes that look otherwise than the evaluation: what is imagined from text may look like either."""
WIDTHS = (24, 48, 80, 120)
BEFORE_S, AFTER_S = 0.016, 0.144
"""How much of a sound before and after a blow is listened to."""
WINDOW = round((BEFORE_S + AFTER_S) * PCM_HZ)
FFT, HOP, BANDS = 512, 128, 48

Targets = dict[str, Tensor]
In = TypeVar("In")
Out = TypeVar("Out")
DrawBatch = Callable[[int], tuple[UInt8[Tensor, "B 128 128 3"], Targets]]
"""Pictures and what is true of them, for a step; on the device."""


# Pictures: what is true.


def pair_number(part: Part) -> int:
    """Where a part's looks stand in PAIRS."""
    return PAIRS.index((part.finish, part.kind))


def targets_of(cell: Cell, states: Sequence[CellState]) -> dict[str, np.ndarray]:
    """What is true at each of some states, one row a state.

    Returns:
        "present" (T, 30): 1, 0, or -1 where a part exists but its middle is out of the picture; "place" (T, 30): row
        of PLACES, -1 where not clear or not one part; "position" (T, 30, 3) metres and "unique" (T, 30): whether it is
        that of exactly one part; "heat" (T, 31, 2): pixels right and down of the one part, then of the gripper, 0 to
        1; "gripper" (T, 5): metres, aperture, held; "lamp" (T,).
    """
    count = len(states)
    numbers = [pair_number(placed.part) for placed in cell.layout.parts]
    found: dict[str, np.ndarray] = {
        "present": np.zeros((count, len(PAIRS)), np.float32),
        "place": np.full((count, len(PAIRS)), -1, np.int64),
        "position": np.zeros((count, len(PAIRS), 3), np.float32),
        "unique": np.zeros((count, len(PAIRS)), np.float32),
        "heat": np.zeros((count, len(PAIRS) + 1, 2), np.float32),
        "gripper": np.zeros((count, 5), np.float32),
        "lamp": np.zeros(count, np.float32),
    }
    for t, state in enumerate(states):
        cell.restore(state)
        places_m = np.array([*(cell.part_m(i) for i in range(len(numbers))), cell.gripper_m])
        view = project(cell.model, cell.data, "front", places_m, 1, 1)
        inside = ((view[:, :2] > 0.01) & (view[:, :2] < 0.99)).all(axis=1) & (places_m[:, 2] > -0.05)
        for index, number in enumerate(numbers):
            found["present"][t, number] = 1 if inside[index] or found["present"][t, number] == 1 else -1
            if numbers.count(number) == 1 and inside[index]:
                found["unique"][t, number] = 1
                found["position"][t, number] = places_m[index]
                found["heat"][t, number] = view[index, :2]
                found["place"][t, number] = place_number(cell, index)
        found["heat"][t, -1] = np.clip(view[-1, :2], 0, 1)
        found["gripper"][t] = (*cell.gripper_m, cell.aperture, cell.memory.held is not None)
        found["lamp"][t] = cell.memory.running
    return found


def place_number(cell: Cell, index: int) -> int:
    """Row of PLACES for a part; -1 where that is not clear."""
    if cell.memory.held == index:
        return PLACES.index("held")
    inside, under = place(cell, index), support(cell, index)
    if inside:
        return PLACES.index(inside)
    if in_hole(cell, index):
        return PLACES.index("fixture")
    return PLACES.index(under) if under in ("bench", "belt", "part") else -1


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeEpisode:
    """One episode to learn from."""

    drawing: Drawing
    targets: dict[str, np.ndarray]
    pictures: UInt8[np.ndarray, "T 128 128 3"] | None
    """Where they were rendered here instead of being drawn on a device."""


def probe_episode(job: tuple[int, bool]) -> ProbeEpisode:
    """An episode of a seed, rendered here or not; every third moment of it."""
    seed, rendered = job
    cell, attempt = _played(seed)
    states = [moment.state for moment in attempt.moments][::3]
    targets = targets_of(cell, states)
    pictures = None
    if rendered:
        pictures = np.stack(list(film(cell, states, "front", SIDE, SIDE, Renderer(cell.model))))
    return ProbeEpisode(drawing=drawing_of(cell, states), targets=targets, pictures=pictures)


def probe_episodes(count: int, *, first_seed: int, workers: int, rendered: bool = False) -> list[ProbeEpisode]:
    """Episodes of seeds that follow each other, by so many processes."""
    jobs = [(first_seed + index, rendered) for index in range(count)]
    return _spread(probe_episode, jobs, workers)


def frames_from(
    episodes: Sequence[ProbeEpisode], batch: int, device: torch.device, seed: int, *, in_turn: bool = False
) -> DrawBatch:
    """Batches of any frames of episodes, drawn on the device or as they were rendered; `in_turn` instead of at random.

    Raises:
        SettingsError: no episodes.
    """
    if not episodes:
        raise SettingsError("A probe learns from episodes, got none.")
    names = episodes[0].targets.keys()
    targets = {
        name: torch.from_numpy(np.concatenate([one.targets[name] for one in episodes])).to(device) for name in names
    }
    total = len(targets["lamp"])
    pictures = [one.pictures for one in episodes if one.pictures is not None]
    held = torch.from_numpy(np.concatenate(pictures)) if len(pictures) == len(episodes) else None
    from orrery.training.pictures import draw_scenes, scenes_of

    scenes = None if held is not None else scenes_of([one.drawing for one in episodes], device)

    def draw(step: int) -> tuple[Tensor, Targets]:
        if in_turn:
            chosen = torch.arange(step * batch, (step + 1) * batch) % total
        else:
            chosen = torch.randint(total, (batch,), generator=torch.Generator().manual_seed(seed + step))
        if scenes is None:
            assert held is not None
            seen = held[chosen].to(device)
        else:
            seen = draw_scenes(scenes, chosen.to(device), "front", SIDE, SIDE)
        return seen, {name: values[chosen.to(device)] for name, values in targets.items()}

    return draw


# Pictures: the network.


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What the picture probe puts out; logits where a yes or no, or a place, is told."""

    heat: Float[Tensor, "B 31 64 64"]
    """Log weights of where each pair, and then the gripper, is."""
    present: Float[Tensor, "B 30"]
    position: Float[Tensor, "B 30 3"]
    place: Float[Tensor, "B 30 places"]
    gripper: Float[Tensor, "B 3"]
    aperture: Float[Tensor, " B"]
    held: Float[Tensor, " B"]
    lamp: Float[Tensor, " B"]


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.one = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm_one = nn.GroupNorm(8, outputs)
        self.two = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm_two = nn.GroupNorm(8, outputs)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        y = F.silu(self.norm_one(self.one(x)))
        return F.silu(self.shortcut(x) + self.norm_two(self.two(y)))


class PictureProbe(nn.Module):
    """Reads a front picture. Fully convolutional: where each thing is, is a softmax over a grid of half the side.

    Coordinates, place and the rest are maps too, and are read where the thing is. A coordinate map starts from where
    the ray of each pixel meets a plane just above the bench, so that only the difference is learned.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.stem = nn.Conv2d(12, a, 3, padding=1)
        self.down = nn.ModuleList([_Block(a, a), _Block(a, b), _Block(b, c), _Block(c, d)])
        self.across = nn.ModuleList([nn.Conv2d(c, c, 1), nn.Conv2d(b, b, 1), nn.Conv2d(a, b, 1)])
        self.narrow = nn.ModuleList([nn.Conv2d(d, c, 1), nn.Conv2d(c, b, 1), nn.Conv2d(b, b, 1)])
        self.up = nn.ModuleList([_Block(c, c), _Block(b, b), _Block(b, b)])
        self.heat = nn.Conv2d(b, len(PAIRS) + 2, 1)
        self.maps = nn.Conv2d(b, 3 + len(PLACES) + 3 + 3, 1)
        self.scale = nn.Parameter(torch.tensor([1.0, -4.0]))
        self.register_buffer("bench_m", torch.from_numpy(bench_m()), persistent=False)

    def forward(self, pictures: UInt8[Tensor, "B 128 128 3"] | Float[Tensor, "B 128 128 3"]) -> Reading:
        x = pictures.float() / 127.5 - 1
        x = self.stem(rearrange(x, "b (h i) (w j) c -> b (c i j) h w", i=2, j=2))
        kept = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.avg_pool2d(x, 2))
            kept.append(x)
        for block, narrow, across, skip in zip(self.up, self.narrow, self.across, kept[-2::-1], strict=True):
            raised = F.interpolate(narrow(x), size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(raised + across(skip))
        heat, maps = self.heat(x).float(), self.maps(x).float()
        weights = rearrange(rearrange(heat, "b k h w -> b k (h w)").softmax(-1), "b k (h w) -> b k h w", h=GRID)
        parts, gripper, lamp = weights[:, : len(PAIRS)], weights[:, len(PAIRS)], weights[:, -1]
        total = rearrange(heat[:, : len(PAIRS)], "b k h w -> b k (h w)").logsumexp(-1) - math.log(GRID * GRID)
        names = (3, len(PLACES), 3, 1, 1, 1)
        at_m, places, hand_m, aperture, held, lit = maps.split(names, dim=1)
        return Reading(
            heat=heat[:, : len(PAIRS) + 1],
            present=self.scale[0] * total + self.scale[1],
            position=einsum(parts, self.bench_m + 0.1 * at_m, "b k h w, b c h w -> b k c"),
            place=einsum(parts, places, "b k h w, b c h w -> b k c"),
            gripper=einsum(gripper, self.bench_m + 0.1 * hand_m, "b h w, b c h w -> b c"),
            aperture=einsum(gripper, aperture, "b h w, b c h w -> b"),
            held=einsum(gripper, held, "b h w, b c h w -> b"),
            lamp=einsum(lamp, lit, "b h w, b c h w -> b"),
        )


def bench_m(height_m: float = 0.03) -> Float32[np.ndarray, "1 3 64 64"]:
    """Where the ray through the middle of each cell of the grid meets a plane; the front camera in its own place."""
    at, to, fovy_deg = (np.array(value) for value in VIEWS["front"])
    back = (at - to) / np.linalg.norm(at - to)
    right = np.array([1.0, 0.0, 0.0])
    up = np.cross(back, right)
    steps = ((np.arange(GRID) + 0.5) / GRID - 0.5) * 2 * np.tan(np.radians(float(fovy_deg)) / 2)
    rays = steps[None, :, None] * right - steps[:, None, None] * up - back  # (H, W, 3)
    found = at + rays * ((height_m - at[2]) / rays[..., 2])[..., None]
    return rearrange(found, "h w c -> 1 c h w").astype(np.float32)


def reading_loss(reading: Reading, targets: Targets) -> dict[str, Tensor]:
    """The parts of the loss; each is about 1 or less where nothing is learned yet, save the heat."""
    known = (targets["present"] >= 0).float()
    wanted = targets["present"].clamp(min=0)
    present = F.binary_cross_entropy_with_logits(reading.present, wanted, reduction="none")
    unique = targets["unique"]
    each = F.smooth_l1_loss(10 * reading.position, 10 * targets["position"], reduction="none", beta=0.05).sum(-1)
    hand = F.smooth_l1_loss(10 * reading.gripper, 10 * targets["gripper"][:, :3], reduction="none", beta=0.05).sum(-1)
    clear = targets["place"] >= 0
    place = reading.place[clear]
    everywhere = torch.cat([unique, torch.ones_like(unique[:, :1])], dim=1)
    return {
        "present": 2 * (present * known).sum() / known.sum().clamp(min=1),
        "position": (each * unique).sum() / unique.sum().clamp(min=1),
        "place": 0.2 * F.cross_entropy(place, targets["place"][clear]) if len(place) else place.sum(),
        "heat": 0.3 * (_heat_loss(reading.heat, targets["heat"]) * everywhere).sum() / everywhere.sum(),
        "gripper": hand.mean(),
        "aperture": F.smooth_l1_loss(reading.aperture, targets["gripper"][:, 3], beta=0.05),
        "held": 0.2 * F.binary_cross_entropy_with_logits(reading.held, targets["gripper"][:, 4]),
        "lamp": 0.2 * F.binary_cross_entropy_with_logits(reading.lamp, targets["lamp"]),
    }


def _heat_loss(heat: Float[Tensor, "B K 64 64"], where: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """Cross entropy of the softmax over the grid against a small bell around the true place."""
    cells = (torch.arange(GRID, device=heat.device) + 0.5) / GRID
    wide = 1.5 / GRID
    across = torch.exp(-0.5 * ((cells - where[..., :1]) / wide) ** 2)
    down = torch.exp(-0.5 * ((cells - where[..., 1:]) / wide) ** 2)
    across, down = (x / x.sum(-1, keepdim=True).clamp(min=1e-9) for x in (across, down))
    logs = rearrange(rearrange(heat, "b k h w -> b k (h w)").log_softmax(-1), "b k (h w) -> b k h w", h=GRID)
    return -einsum(logs, down, across, "b k h w, b k h, b k w -> b k")


def roughened(pictures: UInt8[Tensor, "B h w 3"], rng: torch.Generator) -> Float[Tensor, "B h w 3"]:
    """Pictures as a model might imagine them: blurred, noisy and of another brightness, each to a degree of its own."""
    x = rearrange(pictures.float(), "b h w c -> b c h w")

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(x), 1, 1, 1, generator=rng, device=rng.device).to(x.device)
        return low + (high - low) * drawn

    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blur = (uniform(-1, 1)).clamp(min=0)
    x = (1 - blur) * x + blur * soft
    noise = torch.randn(x.shape, generator=rng, device=rng.device).to(x.device)
    x = x * uniform(0.95, 1.05) + uniform(-5, 5) + uniform(-6, 8).clamp(min=0) * noise
    return rearrange(x.clamp(0, 255), "b c h w -> b h w c")


def train_picture_probe(
    draw_batch: DrawBatch,
    seconds: float,
    device: torch.device,
    seed: int,
    *,
    validation: Sequence[tuple[Tensor, Targets]] = (),
    start: PictureProbe | None = None,
    learning_rate: float = 2e-3,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[PictureProbe, dict[str, float]]:
    """Train by the clock: warm up, then down to nothing by a cosine.

    Args:
        draw_batch: training batches.
        start: one to go on with, which is changed; a new one when None.
        validation: batches of other seeds, for the figures.

    Returns:
        The probe, and `picture_figures` of it on the validation batches, with the steps that were made.
    """
    torch.manual_seed(seed)
    probe = (start or PictureProbe()).requires_grad_().to(device)
    probe.train()
    optimiser = torch.optim.AdamW(probe.parameters(), lr=learning_rate, weight_decay=0.02)
    rng = torch.Generator(device).manual_seed(seed)
    began, step = time.monotonic(), 0
    while (done := (time.monotonic() - began) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * done))
        pictures, targets = draw_batch(step)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            reading = probe(roughened(pictures, rng))
        parts = reading_loss(reading, targets)
        loss = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimiser.step()
        if step % 200 == 0:
            tell(f"step {step}: " + ", ".join(f"{name} {part.item():.3f}" for name, part in parts.items()))
        step += 1
    probe.eval()
    return probe, {"steps": float(step), **picture_figures(probe, validation)}


@torch.no_grad()
def picture_figures(probe: PictureProbe, batches: Sequence[tuple[Tensor, Targets]]) -> dict[str, float]:
    """Mean errors in millimetres and shares of right answers; empty without batches."""
    sums: dict[str, list[Tensor]] = {}

    def add(name: str, values: Tensor) -> None:
        sums.setdefault(name, []).append(values.float().flatten())

    for pictures, targets in batches:
        reading = probe(pictures)
        unique = targets["unique"] > 0
        away = 1000 * (reading.position - targets["position"]).norm(dim=-1)
        add("part_mm", away[unique])
        add("gripper_mm", 1000 * (reading.gripper - targets["gripper"][:, :3]).norm(dim=-1))
        add("aperture", (reading.aperture - targets["gripper"][:, 3]).abs())
        known = targets["present"] >= 0
        right = (reading.present > 0) == (targets["present"] > 0)
        add("present", right[known & (targets["present"] > 0)])
        add("absent", right[known & (targets["present"] == 0)])
        clear = targets["place"] >= 0
        add("place", reading.place.argmax(-1)[clear] == targets["place"][clear])
        add("held", (reading.held > 0) == (targets["gripper"][:, 4] > 0))
        add("lamp", (reading.lamp > 0) == (targets["lamp"] > 0))
    found = {name: torch.cat(values) for name, values in sums.items()}
    figures = {name: values.mean().item() for name, values in found.items() if values.numel()}
    for name in ("part_mm", "gripper_mm"):
        if name in found and found[name].numel():
            figures[f"{name}_median"] = found[name].median().item()
            figures[f"{name}_95"] = found[name].quantile(0.95).item() if found[name].numel() < 1 << 24 else math.nan
    return figures


# Sounds.


@dataclass(frozen=True, kw_only=True, eq=False)
class Blows:
    """Windows around blows, and of nothing, with what strikes there."""

    samples: Float32[np.ndarray, "N samples"]
    """Mono, WINDOW samples at PCM_HZ, the blow BEFORE_S after the first."""
    material: Int[np.ndarray, " N"]
    """Row of MATERIALS."""


def audible(heard: Sequence[Sounding], start_s: float, stop_s: float) -> list[Strike]:
    """Blows within a span that stand out of everything else, by time."""
    return [
        entry
        for index, entry in enumerate(heard)
        if isinstance(entry, Strike)
        and start_s <= entry.time_s < stop_s
        and entry.impulse_Ns > 1e-3
        and loudness(heard, index, entry) > LOUD
    ]


def struck_part(strike: Strike) -> str | None:
    """The material of the one part that strikes or is struck; None where none or two are in it."""
    found = [body.material for body in strike.bodies if body.name.startswith("part_")]
    return found[0] if len(found) == 1 and found[0] in MATERIALS else None


def blows_of(seed: int) -> Blows:
    """All clear blows of one episode, and as many moments without any."""
    cell, attempt = _played(seed)
    cell.restore(attempt.moments[0].state)
    heard = history(cell, attempt.reports)
    stop_s = len(attempt.moments) * STEP_S
    sound = pcm(heard, 0.0, stop_s).astype(np.float32).mean(axis=1) / 32767
    strikes = audible(heard, 0.05, stop_s - AFTER_S - 0.01)
    times = np.array([strike.time_s for strike in strikes])
    cut: list[np.ndarray] = []
    labels: list[int] = []
    for strike in strikes:
        others = np.abs(times - strike.time_s)
        material = struck_part(strike)
        if material is None or (others[others > 0] < 0.05).any():
            continue
        cut.append(blow_window(sound, strike.time_s))
        labels.append(MATERIALS.index(material))
    rng = np.random.default_rng([seed, 9])
    for at_s in rng.uniform(0.05, stop_s - AFTER_S - 0.01, 1 + len(cut) // 2):
        if not len(times) or np.abs(times - at_s).min() > AFTER_S:
            cut.append(blow_window(sound, float(at_s)))
            labels.append(MATERIALS.index("none"))
    return Blows(
        samples=np.stack(cut) if cut else np.zeros((0, WINDOW), np.float32), material=np.array(labels, np.int64)
    )


def blow_window(sound: Float32[np.ndarray, " N"], at_s: float) -> Float32[np.ndarray, " samples"]:
    """What is heard around a time, silence beyond the ends."""
    start = round((at_s - BEFORE_S) * PCM_HZ)
    padded = np.pad(sound, (WINDOW, WINDOW))
    return padded[start + WINDOW : start + 2 * WINDOW].astype(np.float32)


def blows(count: int, *, first_seed: int, workers: int) -> Blows:
    """Of so many episodes."""
    found = _spread(blows_of, [first_seed + index for index in range(count)], workers)
    return Blows(
        samples=np.concatenate([one.samples for one in found]), material=np.concatenate([one.material for one in found])
    )


class SoundProbe(nn.Module):
    """Which material strikes, from the log spectrogram of a window."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(BANDS, 64, 5, padding=2), nn.ReLU(), nn.Conv1d(64, 64, 3, padding=1, stride=2), nn.ReLU()
        )
        steps = (1 + (WINDOW - FFT) // HOP + 1) // 2
        self.head = nn.Sequential(nn.Linear(64 * steps, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, len(MATERIALS)))
        self.register_buffer("bands", torch.from_numpy(band_weights()), persistent=False)

    def forward(self, samples: Float[Tensor, "B samples"]) -> Float[Tensor, "B materials"]:
        frames = samples.unfold(-1, FFT, HOP) * torch.hann_window(FFT, device=samples.device)
        power = torch.fft.rfft(frames).abs().square()
        logs = torch.log(einsum(power, self.bands, "b t f, f k -> b k t") + 1e-6)
        scores: Tensor = self.head(rearrange(self.body((logs + 4) / 4), "b c t -> b (c t)"))
        return scores


def band_weights() -> Float32[np.ndarray, "257 48"]:
    """Triangles that are even on the mel scale from 100 Hz to 7600 Hz."""

    edges = 700 * (10 ** (np.linspace(_mel(100.0), _mel(7600.0), BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, PCM_HZ / 2, FFT // 2 + 1)[:, None]
    # At least as wide as a bin, so that no band is empty.
    width = np.maximum(np.diff(edges), PCM_HZ / FFT)
    rising, falling = (bins - edges[1:-1]) / width[:-1] + 1, 1 - (bins - edges[1:-1]) / width[1:]
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def train_sound_probe(
    training: Blows, validation: Blows, seconds: float, device: torch.device, seed: int
) -> tuple[SoundProbe, dict[str, float]]:
    """Train by the clock on blows shifted in time, scaled and with noise; figures are of the validation blows."""
    torch.manual_seed(seed)
    probe = SoundProbe().to(device)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.05)
    samples, labels = (torch.from_numpy(x).to(device) for x in (training.samples, training.material))
    counts = torch.bincount(labels, minlength=len(MATERIALS)).clamp(min=1)
    weights = (len(labels) / len(MATERIALS) / counts).float()
    rng = torch.Generator().manual_seed(seed)
    began = time.monotonic()
    while (done := (time.monotonic() - began) / seconds) < 1:
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - done)
        chosen = torch.randint(len(labels), (128,), generator=rng).to(device)
        shift = int(torch.randint(-160, 161, (1,), generator=rng))
        heard = torch.roll(samples[chosen], shift, dims=-1)
        heard = heard * (0.5 + torch.rand(128, 1, generator=rng).to(device))
        heard = heard + 0.003 * torch.rand(128, 1, generator=rng).to(device) * torch.randn(
            heard.shape, generator=rng
        ).to(device)
        loss = F.cross_entropy(probe(heard), labels[chosen], weight=weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    probe.eval()
    return probe, sound_figures(probe, validation)


@torch.no_grad()
def sound_figures(probe: SoundProbe, validation: Blows) -> dict[str, float]:
    """The share of right materials, over all and for each."""
    if not len(validation.material):
        return {}
    device = next(probe.parameters()).device
    right = probe(torch.from_numpy(validation.samples).to(device)).argmax(-1).cpu().numpy() == validation.material
    found = {name: right[validation.material == index] for index, name in enumerate(MATERIALS)}
    each = {f"material_{name}": float(values.mean()) for name, values in found.items() if len(values)}
    return {"blows": float(len(right)), "material": float(right.mean()), **each}


# Both.


def save_probes(path: Path, picture: PictureProbe, sound: SoundProbe, figures: dict[str, float]) -> Folder:
    """Write both into one checkpoint folder, float16."""
    tensors = {
        f"{name}.safetensors": {key: value.detach().cpu().half() for key, value in probe.state_dict().items()}
        for name, probe in (("picture", picture), ("sound", sound))
    }
    return save_folder(
        path,
        tensors=tensors,
        documents={"figures.json": figures},
        metadata={"kind": "factory_probe", "licence": "OpenMDW-1.1"},
    )


def _played(seed: int) -> tuple[Cell, Attempt]:
    rng = np.random.default_rng([seed, 0])
    while True:
        task = tuple(TASKS)[int(rng.integers(len(TASKS)))]
        behaviour = BEHAVIOURS[BEHAVIOURS_SEEN[int(rng.integers(len(BEHAVIOURS_SEEN)))]]
        try:
            job = draw_job(task, rng, pairs="all", random_look=bool(rng.random() < RANDOM_LOOK))
            cell = Cell(job.layout, job.parameters)
            break
        except TaskError:
            # One in some thousands has a part in a rail, or no room on the bench; another one, then.
            continue
    return cell, roll(cell, job, policy(behaviour, job, np.random.default_rng([seed, 1])))


def _spread(function: Callable[[In], Out], jobs: Sequence[In], workers: int) -> list[Out]:
    if workers <= 1:
        return [function(job) for job in jobs]
    # Not fork: threads of torch may be running.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, jobs, chunksize=4))
