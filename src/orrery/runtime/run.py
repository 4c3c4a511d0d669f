"""Carry out requests: resolve what they leave open, read their media, sample or write, decode, and keep the record.

Everything a caller can get wrong is found before the network runs. Requests for media are sampled together in one pack;
questions are answered one after the other.
"""

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from orrery.errors import RequestError
from orrery.flow.samplers import Latents
from orrery.runtime.decode import TextSampling, stream
from orrery.runtime.generate import Report, generate
from orrery.runtime.guard import Choice, envelopes, guarded
from orrery.runtime.inputs import read_inputs, read_looks, with_actions
from orrery.runtime.model import Model
from orrery.runtime.prepare import Prepared, finish, prepare
from orrery.runtime.reason import Reader, ask, see
from orrery.runtime.result import RANDOM_WEIGHTS, SYNTHETIC, Result
from orrery.runtime.stages import Stages
from orrery.runtime.trace import mark
from orrery.tasks.contract import ActionContract
from orrery.tasks.defaults import resolve
from orrery.tasks.fit import check_against
from orrery.tasks.request import Request
from orrery.tasks.settings import Settings
from orrery.tokenizers.eyes import Look, look_at_image, look_at_video, sample_frames

PACKAGES = ("orrery", "torch", "numpy", "av", "tokenizers", "safetensors", "einops")
Show = Callable[[str], None]
NOT_EVIDENCE = "Generated media are not evidence of safety. Nothing here was checked against a real system."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """One request on its way: either a job for the sampler or a question."""

    request: Request
    settings: Settings
    contract: ActionContract | None
    hashes: Mapping[str, str]
    prepared: Prepared | None
    looks: tuple[Look, ...]


@overload
def run(
    model: Model,
    requests: Request,
    *,
    report: Report | None = None,
    on_text: Show | None = None,
    envelope: Choice = "contract",
    trace: bool = False,
    stages: Stages | None = None,
    frames: bool = True,
) -> Result: ...
@overload
def run(
    model: Model,
    requests: Sequence[Request],
    *,
    report: Report | None = None,
    on_text: Show | None = None,
    envelope: Choice = "contract",
    trace: bool = False,
    stages: Stages | None = None,
    frames: bool = True,
) -> list[Result]: ...
def run(
    model: Model,
    requests: Request | Sequence[Request],
    *,
    report: Report | None = None,
    on_text: Show | None = None,
    envelope: Choice = "contract",
    trace: bool = False,
    stages: Stages | None = None,
    frames: bool = True,
) -> Result | list[Result]:
    """Carry out one request, or several of any tasks in one pack; each comes out as it would alone.

    Args:
        requests: one, or a list; results come in the same order.
        report: told the sampling turns done and their number.
        on_text: given each piece of an answer as it is written.
        envelope: what the actions of a policy are held to; "contract": what `Envelope.of` makes of the checkpoint's
            contract, where it has one and is trained; None: nothing but being finite.
        trace: mark every stage in the manifest, for `reproduce`. It waits for the device after each sampling turn.
        stages: told the seconds of every stage. It waits for the device after each.
        frames: False leaves the pictures undecoded that are imagined beside actions, which a robot need not wait for;
            their latents are in the result, and the record says so.

    Raises:
        OrreryError: a request that cannot be carried out; then nothing was sampled.
        ContractError: also, actions of a policy that lie outside the envelope; then no result is given.
    """
    every = [requests] if isinstance(requests, Request) else list(requests)
    if not every:
        raise RequestError("There is nothing to run: the list of requests is empty. Give at least one.")
    if not frames:
        _check_actions(every)
    if stages is not None:
        stages.begin()
    plans = [_plan(model, request, stages) for request in every]
    asked = [(plan.request, plan.contract) for plan in plans]
    held_to = envelopes(model, asked, envelope)
    packed = [plan.prepared for plan in plans if plan.prepared is not None]
    kept: list[list[dict[str, Any]]] = [[_encoded(prepared)] if trace else [] for prepared in packed]

    def watch(index: int, turn: int, latents: Latents) -> None:
        kept[index].append(mark(f"sampler step {turn}" if turn else "noise", latents))

    jobs = [prepared.job for prepared in packed]
    latents: list[Latents] = []
    if jobs:
        watching = watch if trace else None
        latents = generate(model.mot, jobs, report, watching, model.denoiser, model.reader, stages)
    sampled, made = iter(latents), iter(kept)
    results = []
    for plan in plans:
        if plan.prepared is None:
            results.append(_answer(model, plan, on_text))
            marks = []
        else:
            manifest = {**_manifest(model, plan), "frames_decoded": frames}
            results.append(finish(model, plan.prepared, next(sampled), manifest, frames=frames))
            marks = next(made)
        if stages is not None:
            stages.lap("answer" if plan.prepared is None else "decode")
        if trace:
            manifest = {**results[-1].manifest, "stages": [*marks, _ended(results[-1])]}
            results[-1] = replace(results[-1], manifest=manifest)
    results = guarded(results, asked, held_to)
    if stages is not None:
        stages.lap("guard")
    return results[0] if isinstance(requests, Request) else results


def _check_actions(requests: Sequence[Request]) -> None:
    for request in requests:
        if request.row.action != "none":
            raise RequestError(
                f"Task {request.task!r} makes no actions, so without frames nothing would be left of it. "
                "Ask for frames, or for a policy."
            )


def _plan(model: Model, request: Request, stages: Stages | None) -> _Plan:
    request, hashes = with_actions(request)
    task = request.row
    contract = model.contract(request.embodiment) if task.action is not None else None
    check_against(
        request,
        task,
        capabilities=model.capabilities,
        contract=contract,
        multiple=1 if model.vision is None else model.vision.spatial,
        trained_for=model.tasks,
    )
    settings = resolve(request, task, model.family, contract=contract)
    if stages is not None:
        stages.lap("check")
    if task.writes:
        looks = _looks(model, request, settings, hashes)
        if stages is not None:
            stages.lap("read inputs")
        return _Plan(
            request=request, settings=settings, contract=None, hashes=hashes, prepared=None, looks=tuple(looks)
        )
    inputs = read_inputs(request, settings, None if model.sound is None else model.sound.rate)
    if stages is not None:
        stages.lap("read inputs")
    prepared = prepare(model, request, settings, inputs, contract)
    if stages is not None:
        stages.lap("encode")
    hashes = {**hashes, **inputs.hashes}
    return _Plan(request=request, settings=settings, contract=contract, hashes=hashes, prepared=prepared, looks=())


def _looks(model: Model, request: Request, settings: Settings, hashes: dict[str, str]) -> list[Look]:
    if request.vision is None:
        return []
    assert not isinstance(request.vision, Mapping), "questions are not asked about cameras by name"
    looks = []
    for frames, fps in read_looks(request.vision, settings.fps, hashes):
        if fps is None:
            looks.append(look_at_image(frames[0], model.sight))
        else:
            assert settings.video_fps is not None
            chosen = sample_frames(len(frames), fps, model.sight, settings.video_fps)
            looks.append(look_at_video(frames[chosen], [index / fps for index in chosen], model.sight))
    return looks


def _answer(model: Model, plan: _Plan, on_text: Show | None) -> Result:
    text, settings = model.need_text(), plan.settings
    question = ask(text, settings.prompt, plan.looks, settings.system_prompt, model.device)
    sights = None
    if plan.looks:
        assert model.eyes is not None
        sights = see(model.eyes, plan.looks, model.device)
    assert settings.max_new_tokens is not None
    assert settings.temperature is not None
    assert settings.top_p is not None
    sampling = TextSampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        repetition_penalty=settings.repetition_penalty or 1.0,
        presence_penalty=settings.presence_penalty or 0.0,
        stop=settings.stop,
    )
    pieces = stream(
        Reader(mot=model.mot, question=question, sights=sights, fast=model.reader, room=sampling.max_new_tokens),
        question.sample.token_ids.tolist(),
        text.decode,
        sampling,
        eos_ids=(text.eos_id,),
        rng=torch.Generator().manual_seed(settings.seed),
    )
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            written = end.value
            break
        if on_text is not None:
            on_text(piece)
    return Result(text=written.text, manifest={**_manifest(model, plan), "ended": written.ended})


def _encoded(prepared: Prepared) -> dict[str, Any]:
    """What the network is given."""
    sample = prepared.job.sample
    given = [segment.pinned(segment.clean) for segment in sample.segments]
    return mark("encoded inputs", [sample.token_ids, *given])


def _ended(result: Result) -> dict[str, Any]:
    """What comes out."""
    if result.text is not None:
        return mark("answer", [np.frombuffer(result.text.encode(), dtype=np.uint8)])
    made: list[npt.NDArray[Any]] = [*result.videos.values()]
    return mark("decoded", [*made, *(array for array in (result.sound, result.actions) if array is not None)])


def _view(prepared: Prepared) -> dict[str, Any]:
    """How pictures were fitted; by camera where there are several."""
    if not prepared.settings.views:
        return prepared.views[0].to_json()
    names = [name for name, _, _ in prepared.settings.views]
    return {name: view.to_json() for name, view in zip(names, prepared.views, strict=True)}


@cache
def _versions() -> dict[str, str]:
    """Looked up once: that takes as long as a tenth of a small policy's call."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def _priced(model: Model) -> str:
    assert model.price is not None
    return (
        f"Sampled at an approximate speed ({model.speed.to_text()}): on the probe, velocities were off by "
        f"{model.price.to_text()} of their size against the plain path."
    )


def _reused(model: Model, network: Mapping[str, int]) -> str:
    every = network["calls"] + network["skipped"]
    return (
        f"Of {every} calls of the network {network['skipped']} were extrapolated instead "
        f"(reuse {model.speed.reuse:g}). What that costs is not known; benchmarks/price.py measures it."
    )


def _manifest(model: Model, plan: _Plan) -> dict[str, Any]:
    """Everything needed to make the result again, and to know what it is worth."""
    origin = model.origin
    trained = {True: "trained", False: "random", None: "as released"}[origin.trained]
    network = None if plan.prepared is None else asdict(plan.prepared.job.count)
    approximate = plan.prepared is not None and model.price is not None
    warnings = [
        *plan.settings.notes,
        *origin.notes,
        *([_priced(model)] if approximate else []),
        *([] if not (network and network["skipped"]) else [_reused(model, network)]),
        NOT_EVIDENCE,
    ]
    return {
        "format": "orrery.run",
        "version": 1,
        "settings": plan.settings.to_json(),
        "seed": plan.settings.seed,
        "inputs": dict(plan.hashes),
        "view": None if plan.prepared is None else _view(plan.prepared),
        "checkpoint": {"name": origin.path.name, "layout": origin.layout, "files": dict(origin.weights)},
        "contract": None if plan.contract is None else plan.contract.to_json(),
        "weights": trained,
        "weights_trained": origin.trained,
        "licence": origin.licence,
        "device": str(model.device),
        "dtype": str(model.mot.embed.weight.dtype).removeprefix("torch."),
        "speed": model.speed.to_json(),
        "offload": model.offload,
        "network": network,
        "price": None if model.price is None else dict(model.price.errors),
        "threads": torch.get_num_threads(),
        "versions": dict(_versions()),
        "synthetic": True,
        "digital_source_type": SYNTHETIC,
        "warnings": [*([RANDOM_WEIGHTS] if origin.trained is False else []), *warnings],
    }
