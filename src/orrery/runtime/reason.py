"""Answering in words: pictures and a question become a prompt, the text tower reads it and writes on.

How tokens are chosen is `runtime.decode`'s; how pictures are cut is `tokenizers.eyes`'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from orrery.model import reader as model_reader
from orrery.model.mot import MoT, TextMemory
from orrery.model.vision import EdgeVision, QwenVision, VisionFeatures
from orrery.packing.pack import pack_text
from orrery.packing.segment import Sample
from orrery.tokenizers.eyes import IMAGE_PAD, VIDEO_PAD, Look, expand, reason_positions, visual_spans
from orrery.tokenizers.text import TextTokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A prompt ready to be read."""

    sample: Sample
    looks: tuple[Look, ...]
    next_position: int
    """Where the first written token stands, on all three axes."""


def ask(
    tokenizer: TextTokenizer, prompt: str, looks: Sequence[Look], system: str | None, device: torch.device
) -> Question:
    """Put pictures, in order, before the question in a user's turn of the checkpoint's own chat form.

    Raises:
        RequestError: the text holds placeholders of its own, or the chat form has no place for pictures.
    """
    content: list[Mapping[str, Any]] = [{"type": look.kind} for look in looks]
    turns: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": [*content, {"type": "text", "text": prompt}] if looks else prompt})
    ids = tokenizer.encode(expand(tokenizer.render(turns), looks))
    if not looks:
        return Question(sample=Sample(token_ids=torch.tensor(ids, device=device)), looks=(), next_position=len(ids))
    image_id, video_id = tokenizer.id(IMAGE_PAD), tokenizer.id(VIDEO_PAD)
    spans = visual_spans(ids, looks, image_id=image_id, video_id=video_id)
    positions, next_position = reason_positions(len(ids), spans)
    token_ids = torch.tensor(ids, device=device)
    sample = Sample(
        token_ids=token_ids,
        positions=positions.to(device),
        visual=(token_ids == image_id) | (token_ids == video_id),
    )
    return Question(sample=sample, looks=tuple(looks), next_position=next_position)


def see(eyes: QwenVision | EdgeVision, looks: Sequence[Look], device: torch.device) -> VisionFeatures:
    """Encode every picture of a prompt in one call."""
    features: VisionFeatures = eyes(
        torch.cat([look.patches for look in looks]).to(device), [look.grid for look in looks]
    )
    return features


@dataclass(kw_only=True, eq=False)
class Reader:
    """The text tower with what it has read so far: a `NextLogits` for `runtime.decode`."""

    mot: MoT
    question: Question
    sights: VisionFeatures | None
    memory: TextMemory | None = None
    """Filled by the first call, which reads the whole prompt; grows by every written token, unless a writer does."""
    fast: model_reader.Reader | None = None
    """The same text tower made fast."""
    room: int = 0
    """Tokens that may be written; only `fast` asks for it."""
    writer: model_reader.Writer | None = None
    """Of `fast`, after the first call."""

    @torch.no_grad()
    def __call__(self, token_ids: Sequence[int], /) -> Float[Tensor, " V"]:
        """Logits after the last of `token_ids`: the prompt at first, then one written token at a time."""
        if self.memory is None:
            text = pack_text([self.question.sample])
            self.memory = (self.mot if self.fast is None else self.fast).read(text, self.sights)
            if self.fast is not None:
                self.writer = self.fast.begin(self.memory, self.room)
        elif self.writer is not None:
            for token_id in token_ids:
                scores = self.writer.take_in(token_id, float(self.question.next_position + self.writer.written))
            return scores
        else:
            written = self.memory.lengths[0] - self.question.sample.token_ids.numel()
            ids = torch.tensor(list(token_ids), device=self.question.sample.token_ids.device)
            places = self.question.next_position + written + torch.arange(len(ids), dtype=torch.float32)
            more = pack_text([Sample(token_ids=ids, positions=places.expand(3, -1).to(ids.device))])
            self.memory = self.mot.read(more, past=self.memory)
        return self.mot.logits(self.memory.hidden[-1:])[0]
