"""Sampling: follow the velocity from noise to data, for many jobs in one packed forward pass.

Each job keeps its own solver, grid and guidance; at every turn the jobs that still run are packed together. The text of
all of them is read once, before the first step. Requests, codecs and files are elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from orrery.flow.guidance import combine, guided
from orrery.flow.reuse import Reuse
from orrery.flow.samplers import Latents, Query, Sampler, held
from orrery.model.mot import LaysOut, MoT, TextMemory, Velocity
from orrery.model.reader import Reader
from orrery.packing.pack import Pack, pack_samples, pack_text
from orrery.packing.segment import Sample
from orrery.runtime.stages import Stages

Report = Callable[[int, int], None]
"""Told after every turn how many are done, and how many there are."""
Watch = Callable[[int, int, Latents], None]
"""Told the number of a job, the turn (0 before the first) and the latents that it has reached."""


@dataclass(kw_only=True)
class Count:
    """What a job has cost so far."""

    calls: int = 0
    """Velocities that the network computed: two a turn where guidance acts."""
    skipped: int = 0
    """Velocities that it would have computed, had they not been extrapolated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One sample on its way from noise to data."""

    sample: Sample
    negative: Sample | None
    """The same segments under the negative prompt; None where guidance never acts."""
    sampler: Sampler
    """Not yet started, holding the noise."""
    turns: int
    """How many velocities the sampler asks for."""
    scales: tuple[float, ...]
    """Guidance, one for each segment; 1 is none."""
    interval: tuple[float, float] | None = None
    """Guidance acts inside it only, on the scale 0 to 1000."""
    reuse: Reuse | None = None
    """Not yet started; None computes every turn."""
    count: Count = field(default_factory=Count)

    def guided_at(self, clock: float) -> bool:
        """Whether the negative prompt is needed at this level."""
        return self.negative is not None and guided(self.scales, clock, self.interval)


Branch = tuple[int, bool]
"""A job, and whether it is under its negative prompt."""


@torch.no_grad()
def generate(
    mot: MoT,
    jobs: Sequence[Job],
    report: Report | None = None,
    watch: Watch | None = None,
    denoiser: LaysOut | None = None,
    reader: Reader | None = None,
    stages: Stages | None = None,
) -> list[Latents]:
    """Run all jobs to their end, packed; frames that are given come back unchanged.

    Args:
        denoiser: the same model made fast (`model.denoiser`, over several GPUs `runtime.several`); None asks the model
            itself.
        reader: the same model's text tower made fast; None asks the model itself.
        stages: told the seconds of reading the text and of sampling.

    Returns:
        The data latents of each job, one (T, P, C) for each segment.
    """
    memories = read_once(mot, jobs, reader)
    if stages is not None:
        stages.lap("read text")
    samplers = [
        held(job.sampler, [s.pinned(s.clean) for s in job.sample.segments], [~s.active for s in job.sample.segments])
        for job in jobs
    ]
    queries: dict[int, Query] = {index: next(sampler) for index, sampler in enumerate(samplers)}
    finished: dict[int, Latents] = {}
    velocities_of: dict[tuple[Branch, ...], Velocity] = {}
    turn, turns = 0, max(job.turns for job in jobs)
    if watch is not None:
        for index, query in queries.items():
            watch(index, 0, query.latents)
    while queries:
        known = _extrapolated(jobs, queries, turn)
        branches = [(i, negative) for i in queries if i not in known for negative in (False, True)]
        branches = [(i, negative) for i, negative in branches if not negative or jobs[i].guided_at(queries[i].clock)]
        key = tuple(branches)
        if key and key not in velocities_of:
            # Only the latest: jobs end, and guidance switches on and off, a few times in a run.
            pack, memory = _lay_out(mot, jobs, key, memories)
            velocities_of = {key: (mot if denoiser is None else denoiser).lay_out(pack, memory)}
        velocities = _velocities(velocities_of[key], key, queries) if key else {}
        for index in list(queries):
            velocity = known[index] if index in known else _computed(jobs[index], queries[index], velocities, index)
            try:
                queries[index] = samplers[index].send(velocity)
            except StopIteration as end:
                finished[index] = end.value
                del queries[index]
            if watch is not None:
                watch(index, turn + 1, finished[index] if index in finished else queries[index].latents)
        turn += 1
        if report is not None:
            report(turn, turns)
    if stages is not None:
        stages.lap("sample")
    return [finished[index] for index in range(len(jobs))]


def read_once(mot: MoT, jobs: Sequence[Job], reader: Reader | None = None) -> dict[tuple[int, ...], TextMemory]:
    """Run the text tower over every distinct text, all in one pass; not again for the texts of the call before, for a
    robot is given the same order at every call.

    Returns:
        The memory of each text, by its token ids.
    """
    texts: dict[tuple[int, ...], Sample] = {}
    for job in jobs:
        for sample in (job.sample, job.negative):
            if sample is not None:
                texts.setdefault(_key(sample), sample)
    # All that the bits depend on: texts that are read together are not read as each alone would be, to the last bit.
    asked = (tuple(texts), _weights_now(mot), torch.get_num_threads(), reader is None)
    known = _LAST_READ.get(mot)
    if known is not None and known[0] == asked:
        return known[1]
    memory = (mot if reader is None else reader).read(pack_text(list(texts.values())))
    found = {key: memory.select([index]) for index, key in enumerate(texts)}
    _LAST_READ[mot] = (asked, found)
    return found


def _weights_now(mot: MoT) -> object:
    """Equal to what it was as long as nobody moved or changed a weight."""
    parameters = list(mot.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        return object()  # changes of those are not counted
    return [(parameter.data_ptr(), parameter._version) for parameter in parameters]


_LAST_READ: WeakKeyDictionary[MoT, tuple[tuple[object, ...], dict[tuple[int, ...], TextMemory]]] = WeakKeyDictionary()
"""What each model was asked to read last, under which circumstances, and what it read."""


def _key(sample: Sample) -> tuple[int, ...]:
    return tuple(sample.token_ids.tolist())


def _lay_out(
    mot: MoT, jobs: Sequence[Job], branches: Sequence[Branch], memories: dict[tuple[int, ...], TextMemory]
) -> tuple[Pack, TextMemory]:
    samples = [jobs[i].negative if negative else jobs[i].sample for i, negative in branches]
    chosen = [sample for sample in samples if sample is not None]
    return pack_samples(chosen, mot.config.clock), TextMemory.join([memories[_key(sample)] for sample in chosen])


def _extrapolated(jobs: Sequence[Job], queries: dict[int, Query], turn: int) -> dict[int, Latents]:
    """The velocities of those jobs that do without the network at this turn."""
    found: dict[int, Latents] = {}
    for index, query in queries.items():
        job = jobs[index]
        if job.reuse is None:
            continue
        guided_now = job.guided_at(query.clock)
        guess = job.reuse.guess(turn, float(query.sigma), under=guided_now)
        if guess is not None:
            found[index] = guess
            job.count.skipped += 1 + guided_now
    return found


def _computed(job: Job, query: Query, velocities: dict[Branch, Latents], index: int) -> Latents:
    """What the network says for a job, under guidance where it acts."""
    velocity, guided_now = velocities[index, False], (index, True) in velocities
    if guided_now:
        velocity = combine(velocity, velocities[index, True], job.scales)
    job.count.calls += 1 + guided_now
    if job.reuse is not None:
        job.reuse.learn(float(query.sigma), velocity, under=guided_now)
    return velocity


def _velocities(velocity: Velocity, branches: Sequence[Branch], queries: dict[int, Query]) -> dict[Branch, Latents]:
    """One forward pass over every branch that is asked about."""
    asked = [queries[index] for index, _ in branches]
    latents = [x for query in asked for x in query.latents]
    # Filled on the device: a copy from the CPU would wait for all that the device has still to do.
    levels: list[Tensor] = [latents[0].new_full((len(query.latents),), query.clock) for query in asked]
    found = iter(velocity(latents, torch.cat(levels)))
    return {branch: [next(found) for _ in query.latents] for branch, query in zip(branches, asked, strict=True)}
