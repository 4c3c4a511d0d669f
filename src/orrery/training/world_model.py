"""What is trained together, and how its blocks are compiled."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor, nn

from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.model.vision import EdgeVision, QwenVision, vision_encoder
from orrery.model.vision_config import VisionEncoderConfig
from orrery.training.loss import Losses
from orrery.training.recipe import LossWeights
from orrery.training.sight import SightHead
from orrery.training.stacks import Asking, Flowing, asking_loss, flowing_loss
from orrery.training.start import start_weights

COMPILED = ("look_at_text", "look_at_latents", "finish")
"""Methods of a block of the Mixture-of-Transformers that look at each token alone."""


class WorldModel(nn.Module):
    """What is trained together: the Mixture-of-Transformers and the eyes of its text tower."""

    def __init__(self, config: MoTConfig, eyes: VisionEncoderConfig, seed: int) -> None:
        super().__init__()
        self.mot = MoT(config)
        start_weights(self.mot, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.eyes: QwenVision | EdgeVision = vision_encoder(eyes)
        self.sight = nn.ModuleDict({"read": SightHead(eyes.out_width), "made": SightHead(config.width)})

    # Everything that training asks of the model goes through these two, so that a model in parts knows when it is used.
    def losses(self, stack: Flowing | Asking, weights: LossWeights) -> Losses:
        """What a stack costs."""
        if isinstance(stack, Flowing):
            return flowing_loss(self.mot, stack, weights, self._head("made"))
        return asking_loss(self.mot, self.eyes, stack, weights, self._head("read"))

    def _head(self, name: str) -> SightHead:
        head = self.sight[name]
        assert isinstance(head, SightHead)
        return head

    def likeliest(self, stack: Asking) -> Int[Tensor, "B n"]:
        """The token that each token is most likely followed by."""
        memory = self.mot.read(stack.text, self.eyes(stack.patches, list(stack.grids)))
        return self.mot.logits(memory.hidden).argmax(-1).reshape(stack.labels.shape)


def compile_blocks(model: WorldModel) -> None:
    """Compile what looks at each token alone, once for any number of tokens; attention calls its kernels as it is."""
    torch._dynamo.config.cache_size_limit = 64
    for block in model.mot.blocks:
        for name in COMPILED:
            setattr(block, name, torch.compile(getattr(block, name), dynamic=True))
    for block in model.eyes.blocks:
        # Once for stills and once for videos: what a block is told of its pictures is no tensor.
        block.compile(dynamic=False)


@contextmanager
def as_written(model: WorldModel) -> Iterator[None]:
    """Blocks without what `compile_blocks` did: compiling them again, without gradients, takes longer than a
    validation."""
    blocks = [
        (block, name, block.__dict__.pop(name))
        for block in model.mot.blocks
        for name in COMPILED
        if name in vars(block)
    ]
    seeing = [(block, block._compiled_call_impl) for block in model.eyes.blocks]
    for block, _ in seeing:
        block._compiled_call_impl = None
    try:
        yield
    finally:
        for block, name, compiled in blocks:
            setattr(block, name, compiled)
        for block, compiled in seeing:
            block._compiled_call_impl = compiled
