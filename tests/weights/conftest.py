"""A module with the parameter names of both block families, small enough to save hundreds of times."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

WIDTH, QUERY, KEY, HEAD, FFN, WORDS = 8, 8, 4, 2, 12, 10
PATCH, SOUND, ACTION, DOMAINS = 16, 6, 5, 3


def _tower(*, gate: bool, qk_norm: bool) -> nn.Module:
    mlp = {"up": nn.Linear(WIDTH, FFN, bias=False), "down": nn.Linear(FFN, WIDTH, bias=False)}
    if gate:
        mlp["gate"] = nn.Linear(WIDTH, FFN, bias=False)
    tower: dict[str, nn.Module] = {
        "attention_norm": nn.RMSNorm(WIDTH),
        "q": nn.Linear(WIDTH, QUERY, bias=False),
        "k": nn.Linear(WIDTH, KEY, bias=False),
        "v": nn.Linear(WIDTH, KEY, bias=False),
        "out": nn.Linear(QUERY, WIDTH, bias=False),
        "mlp_norm": nn.RMSNorm(WIDTH),
        "mlp": nn.ModuleDict(mlp),
    }
    if qk_norm:
        tower |= {"q_norm": nn.RMSNorm(HEAD), "k_norm": nn.RMSNorm(HEAD)}
    return nn.ModuleDict(tower)


class Domains(nn.Module):
    """One linear map per robot domain."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(DOMAINS, width_in, width_out))
        self.bias = nn.Parameter(torch.empty(DOMAINS, width_out))


class Small(nn.Module):
    """Two blocks, all heads, in our names."""

    def __init__(self, *, edge: bool = False, generation: bool = True, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)
        self.text_norm = nn.RMSNorm(WIDTH)
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            block: dict[str, nn.Module] = {"text": _tower(gate=not edge, qk_norm=not edge)}
            if generation:
                block["generation"] = _tower(gate=not edge, qk_norm=True)
                if edge:
                    block["text_key_norm"] = nn.RMSNorm(HEAD)
            self.blocks.append(nn.ModuleDict(block))
        if not generation:
            return
        self.generation_norm = nn.RMSNorm(WIDTH)
        self.time_embed = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.vision_in, self.vision_out = nn.Linear(PATCH, WIDTH), nn.Linear(WIDTH, PATCH)
        self.sound_in, self.sound_out = nn.Linear(SOUND, WIDTH), nn.Linear(WIDTH, SOUND)
        self.action_in, self.action_out = Domains(ACTION, WIDTH), Domains(WIDTH, ACTION)
        self.sound_embed = nn.Parameter(torch.empty(WIDTH))
        self.action_embed = nn.Parameter(torch.empty(WIDTH))


@pytest.fixture
def make_small() -> Callable[..., Small]:
    """Build a `Small` filled with numbers from a seed."""

    def make(*, seed: int = 0, edge: bool = False, generation: bool = True, blocks: int = 2) -> Small:
        module = Small(edge=edge, generation=generation, blocks=blocks)
        rng = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=rng)
        return module

    return make


@pytest.fixture
def make_empty() -> Callable[..., Small]:
    """Build a `Small` on the meta device."""

    def make(*, edge: bool = False, generation: bool = True, blocks: int = 2) -> Small:
        with torch.device("meta"):
            return Small(edge=edge, generation=generation, blocks=blocks)

    return make
