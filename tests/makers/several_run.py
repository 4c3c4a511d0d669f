"""Velocities of tiny models, found by one process or by several together, and by several that make a mistake."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from einops import rearrange
from makers.own_checkpoint import HEIGHT, WIDTH, tiny_model
from makers.samples import action, mixed, normal, sound, tokens, vision
from torch import Tensor

from orrery.flow.samplers import Latents, euler
from orrery.model.config import PICO, TINY, MoTConfig
from orrery.model.context_parallel import ContextParallel, Shares
from orrery.model.denoiser import Denoiser
from orrery.model.mot import LaysOut, MoT
from orrery.packing.pack import Pack, pack_samples
from orrery.packing.segment import Sample
from orrery.runtime.generate import Job, generate
from orrery.runtime.price import made_fast
from orrery.runtime.run import run
from orrery.runtime.several import several, share, spread
from orrery.runtime.speed import speed_named
from orrery.tasks.request import Request

# Head counts that four processes can share.
QWEN = replace(TINY, heads=8, kv_heads=4)
NEMOTRON = replace(
    QWEN, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
)
PICO_LIKE = replace(PICO, width=64, layers=2, heads=4, kv_heads=4, head_width=24, rope_axes=(4, 4, 4), ffn_width=96)
FAMILIES = {"qwen": QWEN, "nemotron": NEMOTRON, "pico": PICO_LIKE}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is asked, and of how many groups."""

    family: str = "qwen"
    pack: str = "ragged"
    dtype: torch.dtype = torch.float32
    branches: int = 1


def cases(processes: int) -> dict[str, Case]:
    """All that so many processes are asked, by name."""
    found = {f"{family} {pack}": Case(family=family, pack=pack) for family in FAMILIES for pack in PACKS}
    found |= {f"{family} bfloat16": Case(family=family, dtype=torch.bfloat16) for family in ("qwen", "nemotron")}
    for branches in (2, 4):
        if processes % branches == 0:
            found |= {f"qwen {pack}, {branches} groups": Case(pack=pack, branches=branches) for pack in PACKS}
            found[f"nemotron bfloat16, {branches} groups"] = Case(
                family="nemotron", dtype=torch.bfloat16, branches=branches
            )
    return found


PACKS = ("ragged", "branches", "single", "few tokens")


def samples(config: MoTConfig, pack: str) -> list[Sample]:
    """Ragged: eight shapes and one that only reads. Branches: one shape twice, texts of two lengths."""
    match pack:
        case "ragged":
            return [*mixed(config), Sample(token_ids=tokens(4, config.vocab, seed=40))]
        case "branches":
            segments = (vision(config, 3, 5, 4, given=(0,)), sound(config, 7), action(config, 8, 7))
            return [Sample(token_ids=tokens(count, config.vocab, seed=count), segments=segments) for count in (9, 5)]
        case "single":
            return [Sample(token_ids=tokens(6, config.vocab, seed=6), segments=(vision(config, 5, 6, 6),))]
    # Fewer than there are processes.
    return [Sample(token_ids=tokens(3, config.vocab, seed=3), segments=(vision(config, 1, 2, 2),))]


def random_mot(config: MoTConfig, dtype: torch.dtype) -> MoT:
    """The same weights in every process."""
    torch.manual_seed(0)
    mot = MoT(config)
    for name, parameter in mot.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    mot.to(dtype)
    mot.time_embed.float()
    return mot.eval()


def asked(case: Case) -> tuple[Pack, Tensor]:
    """A pack and its noise levels."""
    config = FAMILIES[case.family]
    pack = pack_samples(samples(config, case.pack), config.clock)
    return pack, torch.linspace(0.1, 0.9, len(pack.segments))


@torch.no_grad()
def plain(case: Case) -> Latents:
    """What the model itself says."""
    pack, sigmas = asked(case)
    return random_mot(FAMILIES[case.family], case.dtype)(pack, sigmas).velocity


@torch.no_grad()
def spread_out(case: Case) -> Latents:
    """What the processes say together, the second time they are asked."""
    pack, sigmas = asked(case)
    mot = random_mot(FAMILIES[case.family], case.dtype)
    velocity = spread(Denoiser(mot, compiled=False), branches=case.branches).lay_out(pack, mot.read(pack.text))
    velocity([normal(*x.shape, seed=1) for x in pack.latents], sigmas)
    return velocity(pack.latents, sigmas)


def sampled(branches: int | None) -> Latents:
    """Two jobs followed to their end, one of them guided and that in an interval only; None: by the model itself."""
    mot = random_mot(QWEN, torch.float32)
    positive, negative = samples(QWEN, "branches")
    other = samples(QWEN, "single")[0]
    sigmas = torch.linspace(1, 0, 5)
    jobs = [
        Job(
            sample=sample,
            negative=without,
            sampler=euler([s.noise(torch.Generator().manual_seed(3)) for s in sample.segments], sigmas),
            turns=4,
            scales=(2.0,) * len(sample.segments),
            interval=(400.0, 800.0),
        )
        for sample, without in ((positive, negative), (other, None))
    ]
    denoiser: LaysOut = mot if branches is None else spread(Denoiser(mot, compiled=False), branches=branches)
    return [x for latents in generate(mot, jobs, denoiser=denoiser) for x in latents]


def ran(branches: int | None) -> Latents:
    """What a request comes to, from the model that `orrery.load` gives; None: on the plain path."""
    model = replace(tiny_model(), mot=deepcopy(tiny_model().mot))
    if branches is not None:
        model = share(made_fast(model, speed_named("fast")), branches=branches)
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    request = Request(
        task="image_to_video", prompt="c", vision=picture, size=(HEIGHT, WIDTH), frames=9, steps=3, guidance=2.0
    )
    return [run(model, request).latents["vision"]]


@contextmanager
def text_of_other_heads() -> Iterator[None]:
    """A mistake: text is not cut by heads as latents are."""

    def some_heads(self: ContextParallel, x: Tensor) -> Tensor:
        return x.chunk(self.size, dim=1)[self.size - 1 - self.rank]

    with patch.object(ContextParallel, "some_heads", some_heads):
        yield


@contextmanager
def heads_side_by_side() -> Iterator[None]:
    """A mistake: neighbouring heads go to different processes, so that queries meet keys of other heads."""
    right = ContextParallel.tokens_for_heads

    def tokens_for_heads(self: ContextParallel, q: Tensor, k: Tensor, v: Tensor, shares: Shares) -> tuple[Tensor, ...]:
        return right(self, rearrange(q, "l (n r) e -> l (r n) e", r=self.size), k, v, shares)

    with patch.object(ContextParallel, "tokens_for_heads", tokens_for_heads):
        yield


@contextmanager
def samples_mixed_up() -> Iterator[None]:
    """A mistake: tokens stay in the order in which they arrive."""
    with patch.object(Shares, "collect", lambda self, x: x), patch.object(Shares, "deal", lambda self, x: x):
        yield


MISTAKES = {mistake.__name__: mistake for mistake in (text_of_other_heads, heads_side_by_side, samples_mixed_up)}


def main(out: Path) -> None:
    """All cases and all mistakes, in one of several processes; each writes what it found."""
    with several("cpu"):
        rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        found = {name: spread_out(case) for name, case in cases(size).items()}
        found |= {f"sampled, {branches} groups": sampled(branches) for branches in (1, 2)}
        found["ran"] = ran(2)
        for name, mistake in MISTAKES.items():
            with mistake():
                found[name] = spread_out(Case())
        torch.save(found, out / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
