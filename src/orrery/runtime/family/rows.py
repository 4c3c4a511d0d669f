"""The rows of the bench of a family: one pass, whole sampling, many requests at once, and the reasoner.

A row is a function of what it is measured on and of its name; `ROWS` lists them in the order of measuring.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import log10
from typing import Any

import torch
from torch import Tensor

from orrery.flow.samplers import Latents, euler, unipc
from orrery.flow.schedule import distilled, native
from orrery.model.mot import LaysOut, MoT
from orrery.model.operations import Operations, generation_matrices, of_forward, of_reading, text_matrices
from orrery.model.reader import Reader
from orrery.packing.pack import pack_samples
from orrery.packing.segment import Sample, Segment
from orrery.runtime.bench import Timing
from orrery.runtime.family.ceilings import Ceilings
from orrery.runtime.family.peers import Diffusers
from orrery.runtime.family.report import Measured, Row, Settings
from orrery.runtime.family.stopwatch import Call, Round, interleaved
from orrery.runtime.family.ways import EIGHT_BIT_ATTENTION, EIGHT_BIT_LINEARS, Writes
from orrery.runtime.family.workloads import WORKLOADS, Workload, sample_of, text_of
from orrery.runtime.generate import Job, generate, read_once
from orrery.tasks.defaults import FOUR_STEPS

SIGMA = 0.7
"""Noise level of a pass that stands for all."""
GUIDED_STEPS = 35
"""With guidance, on the native grid: what the released models take for a video."""
GUIDANCE = 6.0
LONG = ("video-480p", "video-720p")
"""Sampled whole only if asked for."""
AT_ONCE = (1, 2, 4, 8, 16, 32)
PROMPTS = (512, 4096)
WRITTEN = 64
TINIEST = 1e-30
"""Instead of the size of what is all zeros."""
OTHER_TEXT = 1_000_000
"""Added to the seed of the prompt for the negative one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stand:
    """What all rows are measured on."""

    settings: Settings
    mot: MoT
    ceilings: Ceilings
    denoisers: Mapping[str, LaysOut]
    writers: Mapping[str, Writes]
    failed: Mapping[str, str]
    """Ways that could not be built."""
    reader: Reader
    """The text tower made fast, exactly."""
    done: Mapping[str, Row] = field(default_factory=dict)
    """Rows measured so far."""

    @property
    def device(self) -> torch.device:
        """Where it all lies."""
        return self.mot.embed.weight.device

    def timed(
        self,
        ways: Mapping[str, Callable[[], Call]],
        *,
        least_repeats: int = 3,
        warm_up: int | None = None,
        before: Callable[[str, int], Any] | None = None,
    ) -> Round:
        """All ways in turn, as often as the settings say; what gives no numbers counts as failed."""
        s = self.settings
        seen = interleaved(
            ways,
            self.device,
            repeats=s.repeats,
            warm_up=s.warm_up if warm_up is None else min(warm_up, s.warm_up),
            enough_s=s.enough_s,
            least_repeats=least_repeats,
            before=before,
        )
        for name in [name for name, taken in seen.taken.items() if not _finite(taken.outcome)]:
            del seen.taken[name]
            seen.failed[name] = "what came out is not finite"
        return seen

    def sample(self, workload: Workload, seed: int = 0) -> Sample:
        """A request of that size."""
        return sample_of(
            workload,
            self.mot.config,
            self.device,
            text_tokens=self.settings.text_tokens,
            seed=self.settings.seed + seed,
        )

    def floor_of_pass(self, way: str, operations: Operations) -> float | None:
        """Seconds of one pass of the generation tower at the device's best, in the arithmetic of that way."""
        return self.ceilings.floor(
            operations,
            bytes_of(generation_matrices(self.mot), eight_bit=way in EIGHT_BIT_LINEARS),
            eight_bit=way in EIGHT_BIT_LINEARS,
            eight_bit_attention=way in EIGHT_BIT_ATTENTION,
        )

    def floor_of_reading(self, way: str, operations: Operations, passes: int = 1, scored: bool = False) -> float | None:
        """The same of so many passes of the text tower; the matrix of next-token scores is read where it is asked."""
        eight_bit = way in EIGHT_BIT_LINEARS
        held = bytes_of(text_matrices(self.mot), eight_bit=eight_bit)
        held += bytes_of([self.mot.lm_head.weight], eight_bit=False) if scored else 0
        return self.ceilings.floor(operations, passes * held, eight_bit=eight_bit)


def forward(stand: Stand, name: str) -> Row:
    """One pass over one request whose text has been read; the peer reads it again."""
    pack = pack_samples([stand.sample(WORKLOADS[name.split("/")[1]])], stand.mot.config.clock)
    return _pass(stand, Row(name=name), pack, least_repeats=3)


def packed(stand: Stand, name: str) -> Row:
    """One pass over several requests at once; the peer takes them one after the other."""
    workload, _, count = name.split("/")[1].rpartition("-x")
    samples = [stand.sample(WORKLOADS[workload], seed) for seed in range(int(count))]
    row = _pass(stand, Row(name=name), pack_samples(samples, stand.mot.config.clock), least_repeats=2)
    alone = stand.done.get(f"packed/{workload}-x1")

    def figures(way: str, found: Measured) -> dict[str, float]:
        rate = int(count) / found.seconds.median
        known = {"requests_per_s": rate}
        if alone is not None and way in alone.measured:
            known["times_the_rate_of_one_alone"] = rate * alone.measured[way].seconds.median
        return known

    return replace(
        row, measured={way: replace(found, figures=figures(way, found)) for way, found in row.measured.items()}
    )


def _pass(stand: Stand, row: Row, pack: Any, *, least_repeats: int) -> Row:
    memory = stand.mot.read(pack.text)
    sigmas = torch.full((len(pack.segments),), SIGMA, device=stand.device)

    def ready(way: LaysOut) -> Call:
        velocity = way.lay_out(pack, memory)
        return lambda _: velocity(pack.latents, sigmas)

    ways = {name: partial(ready, way) for name, way in stand.denoisers.items()}
    seen = stand.timed(ways, least_repeats=least_repeats)
    operations = of_forward(stand.mot, pack)
    floors = {way: stand.floor_of_pass(way, operations) for way in seen.taken}
    return replace(
        row,
        tokens=sum(pack.lengths),
        text_tokens=sum(pack.text.lengths),
        operations=operations,
        measured=measured(seen, operations, floors, "diffusers", difference=relative_error),
        left_out=_left_out(stand, seen, stand.denoisers),
    )


def sampling(stand: Stand, name: str) -> Row:
    """From text and noise to latents: 35 steps under guidance, two passes each, or 4 steps without.

    Every call has a new text, which ours reads once and the peer at every pass, and the same noise.
    """
    kind, _, steps = name.split("/")[1].rpartition("-")
    if kind in LONG and not stand.settings.whole:
        return _estimated(stand, name, kind, int(steps))
    workload, config = WORKLOADS[kind], stand.mot.config
    guided = int(steps) == GUIDED_STEPS
    first = stand.sample(workload)
    noise = [segment.noise(torch.Generator().manual_seed(stand.settings.seed)) for segment in first.segments]
    # They stay on the CPU: the sampler asks for their values, and a GPU would be waited for.
    sigmas = native(GUIDED_STEPS, workload.shift) if guided else distilled(FOUR_STEPS)

    def worded(seed: int) -> Sample:
        words = text_of(config, stand.settings.text_tokens, stand.device, seed=stand.settings.seed + seed)
        return replace(first, token_ids=words)

    def job(way: str, index: int) -> Job:
        # The first text is one for all, since outcomes are compared; later ones have been read by nobody.
        made = Job(
            sample=worded(index and index * len(ways) + list(ways).index(way)),
            negative=worded(OTHER_TEXT) if guided else None,
            sampler=unipc(noise, sigmas) if guided else euler(noise, sigmas),
            turns=len(sigmas) - 1,
            scales=(GUIDANCE if guided else 1.0,) * len(noise),
        )
        if way == "diffusers":
            # It reads for itself; what ours reads beside it is no part of its time.
            read_once(stand.mot, [made])
        return made

    def ready(way: LaysOut) -> Call:
        # Whoever samples fast reads fast, and exactly in any case.
        reader = None if way is stand.mot or isinstance(way, Diffusers) else stand.reader
        return lambda made: generate(stand.mot, [made], denoiser=way, reader=reader)[0]

    ways = {way: partial(ready, denoiser) for way, denoiser in stand.denoisers.items()}
    short = bool(workload.actions) or workload.frames == 1
    seen = stand.timed(ways, least_repeats=2 if short else 1, warm_up=2 if short else 1, before=job)
    pack = pack_samples([worded(0), worded(OTHER_TEXT)] if guided else [worded(0)], config.clock)
    turn, reading = of_forward(stand.mot, pack), Operations(linear=0, attention=0)
    for length in pack.text.lengths:
        reading += of_reading(stand.mot, length)
    turns = len(sigmas) - 1
    floors: dict[str, float | None] = {}
    for way in seen.taken:
        of_turn, of_text = stand.floor_of_pass(way, turn), stand.floor_of_reading("plain", reading)
        floors[way] = None if of_turn is None or of_text is None else turns * of_turn + of_text
    operations = turn * turns + reading
    found = measured(
        seen, operations, floors, "diffusers", psnr=partial(psnr_of, first.segments), figures=partial(_made, workload)
    )
    return Row(
        name=name,
        tokens=sum(segment.tokens for segment in first.segments),
        text_tokens=sum(pack.text.lengths),
        operations=operations,
        measured=found,
        left_out=_left_out(stand, seen, stand.denoisers),
    )


def _estimated(stand: Stand, name: str, kind: str, steps: int) -> Row:
    """From the row of one pass."""
    passes = 2 * steps if steps == GUIDED_STEPS else steps
    source = f"forward/{kind}"
    if source not in stand.done:
        return Row(name=name, left_out={"all": f"it is worked out from {source}: select that row too, or add --whole"})
    known = stand.done[source]

    def of_all(found: Measured) -> Measured:
        t = found.seconds
        seconds = Timing(
            first=t.first, median=passes * t.median, least=passes * t.least, most=passes * t.most, count=t.count
        )
        return replace(found, seconds=seconds, differences={}, figures=_made(WORKLOADS[kind], seconds.median))

    return replace(
        known,
        name=name,
        operations=None if known.operations is None else known.operations * passes,
        estimate=f"{passes} x {source}, without reading the text",
        measured={way: of_all(found) for way, found in known.measured.items()},
    )


def prefill(stand: Stand, name: str) -> Row:
    """Reading a prompt, up to the scores of the token after it."""
    tokens = int(name.rpartition("-")[2])
    ids = text_of(stand.mot.config, tokens, stand.device, seed=stand.settings.seed)

    def ready(way: Writes) -> Call:
        return lambda _: [way.read(ids)[1]]

    seen = stand.timed({way: partial(ready, writer) for way, writer in stand.writers.items()})
    operations = of_reading(stand.mot, tokens, scores=1)
    floors = {way: stand.floor_of_reading(way, operations, scored=True) for way in seen.taken}
    return Row(
        name=name,
        text_tokens=tokens,
        operations=operations,
        measured=measured(
            seen,
            operations,
            floors,
            "transformers",
            difference=relative_error,
            figures=lambda median: {"tokens_per_s": tokens / median},
        ),
        left_out=_left_out(stand, seen, stand.writers),
    )


def decode(stand: Stand, name: str) -> Row:
    """Writing on after a prompt that has been read, one token at a time."""
    count, prompt = int(name.rpartition("-")[2]), PROMPTS[0]
    ids = text_of(stand.mot.config, prompt, stand.device, seed=stand.settings.seed)
    words = ids.tolist()

    def ready(way: Writes) -> Call:
        state = way.read(ids)
        return lambda _: way.write(state, words, count)

    seen = stand.timed({way: partial(ready, writer) for way, writer in stand.writers.items()})
    # The first token comes from the scores that reading gave.
    operations = Operations(linear=0, attention=0)
    for written in range(count - 1):
        operations += of_reading(stand.mot, 1, prompt + written, scores=1)
    floors = {way: stand.floor_of_reading(way, operations, passes=count - 1, scored=True) for way in seen.taken}
    return Row(
        name=name,
        tokens=count,
        text_tokens=prompt,
        operations=operations,
        measured=measured(
            seen, operations, floors, "transformers", figures=lambda median: {"tokens_per_s": count / median}
        ),
        left_out=_left_out(stand, seen, stand.writers),
    )


ROWS: dict[str, Callable[[Stand, str], Row]] = {
    **{
        f"forward/{name}": forward
        for name in ("policy-17", "policy-33", "image-1024", "video-256p", "video-480p", "video-720p")
    },
    **{
        f"sampling/{name}-{steps}": sampling
        for name in ("policy-17", "policy-33", "image-1024", "video-256p", *LONG)
        for steps in (len(FOUR_STEPS), GUIDED_STEPS)
    },
    **{f"reasoner/prefill-{tokens}": prefill for tokens in PROMPTS},
    f"reasoner/decode-{WRITTEN}": decode,
    **{f"packed/{name}-x{count}": packed for name in ("policy-17", "image-256") for count in AT_ONCE},
}
"""All that can be measured."""


def measured(
    seen: Round,
    operations: Operations,
    floors: Mapping[str, float | None],
    peer: str,
    *,
    difference: Callable[[Any, Any], float] | None = None,
    psnr: Callable[[Any, Any], Mapping[str, float | None]] | None = None,
    figures: Callable[[float], Mapping[str, float]] | None = None,
) -> dict[str, Measured]:
    """What the times say.

    Args:
        floors: of each way, in seconds.
        peer: the way that the others are set against, where it was measured.
        difference, psnr: between the outcomes of two ways.
        figures: what follows from the median of a way.
    """
    found = {}
    for name, taken in seen.taken.items():
        median, floor = taken.timing.median, floors.get(name)
        others = [other for other in (peer, "exact") if other in seen.taken and name not in (other, peer)]
        outcomes = {other: seen.taken[other].outcome for other in others}
        found[name] = Measured(
            seconds=taken.timing,
            tflops=operations.total / median / 1e12,
            of_floor=None if floor is None else median / floor,
            faster=seen.taken[peer].timing.median / median if peer in seen.taken else None,
            peak_bytes=taken.peak_bytes,
            own_bytes=taken.own_bytes,
            differences={}
            if difference is None
            else {other: difference(taken.outcome, outcome) for other, outcome in outcomes.items()},
            psnr_db={}
            if psnr is None
            else {
                f"{other}, {kind}": value
                for other, outcome in outcomes.items()
                for kind, value in psnr(taken.outcome, outcome).items()
            },
            figures={} if figures is None else figures(median),
        )
    return found


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """||found - expected|| / ||expected||, the largest of any tensor."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm().clamp(min=TINIEST)) for a, b in pairs)


def psnr_of(segments: Sequence[Segment], found: Latents, expected: Latents) -> dict[str, float | None]:
    """Of the values that were made, by modality, in dB; the peak is the range of the expected ones. None: equal."""
    ratios: dict[str, float | None] = {}
    for segment, a, b in zip(segments, found, expected, strict=True):
        a, b = a[segment.active], b[segment.active]
        error, peak = float((a - b).square().mean()), float(b.max() - b.min())
        ratios[segment.kind] = 10 * log10(peak**2 / error) if error > 0 else None
    return ratios


def _finite(outcome: Sequence[Tensor | int]) -> bool:
    return all(bool(x.isfinite().all()) for x in outcome if isinstance(x, Tensor))


def bytes_of(matrices: Sequence[Tensor], *, eight_bit: bool) -> int:
    """What is read of them at least, as they are or in 8 bits."""
    return sum(matrix.numel() * (1 if eight_bit else matrix.itemsize) for matrix in matrices)


def _made(workload: Workload, median: float) -> dict[str, float]:
    """What a second of one device makes; of a policy, when the robot can move."""
    if workload.actions:
        return {"first_action_ms": 1000 * median, "actions_per_s": workload.actions / median}
    if workload.frames == 1:
        return {"images_per_s": 1 / median}
    return {"s_per_video": median, "frames_per_s": workload.frames / median}


def _left_out(stand: Stand, seen: Round, ways: Mapping[str, Any]) -> dict[str, str]:
    return {**{way: why for way, why in stand.failed.items() if way not in ways}, **seen.failed}
