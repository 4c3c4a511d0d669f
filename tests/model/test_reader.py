"""Reading and writing on the fast path give the numbers of the plain one, whatever the sizes of the caches."""

import pytest
import torch
from makers.random_mot import EDGE_LIKE, random_mot
from makers.samples import mixed, normal, tokens

from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.model.reader import LEAST_ROOM, Reader
from orrery.model.vision import VisionFeatures
from orrery.packing.pack import pack_text
from orrery.packing.segment import Sample

FAMILIES = pytest.mark.parametrize("config", [TINY, EDGE_LIKE], ids=["qwen", "nemotron"])
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@FAMILIES
@torch.no_grad()
def test_what_is_read_is_what_the_plain_path_reads(config):
    mot, text = random_mot(config), pack_text(mixed(config))
    expected, found = mot.read(text), Reader(mot, compiled=False).read(text)
    assert found.lengths == expected.lengths
    torch.testing.assert_close(found.hidden, expected.hidden, atol=1e-5, rtol=1e-4)
    for a, b in zip(found.layers, expected.layers, strict=True):
        for name in ("keys", "keys_for_generation", "values"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pictures_in_a_prompt_are_read_as_the_plain_path_does():
    mot = random_mot(TINY)
    visual = torch.arange(9) % 3 == 1
    text = pack_text([Sample(token_ids=tokens(9, TINY.vocab, 1), visual=visual)])
    sights = VisionFeatures(features=normal(3, TINY.width, seed=2), taps=(normal(3, TINY.width, seed=3),))
    expected, found = mot.read(text, sights), Reader(mot, compiled=False).read(text, sights)
    torch.testing.assert_close(found.hidden, expected.hidden, atol=1e-5, rtol=1e-4)


def plain_logits(mot: MoT, ids: torch.Tensor) -> torch.Tensor:
    return mot.logits(mot.read(pack_text([Sample(token_ids=ids)])).hidden[-1:])[0]


@FAMILIES
@torch.no_grad()
def test_writing_on_gives_the_logits_of_reading_all_at_once(config):
    mot, ids = random_mot(config), tokens(14, config.vocab, seed=3)
    reader = Reader(mot, compiled=False)
    for read in (9, 4):  # the second takes the cache of the first, where more was written
        writer = reader.begin(reader.read(pack_text([Sample(token_ids=ids[:read])])), room=14 - read)
        for place in range(read, 14):
            found = writer.take_in(int(ids[place]), float(place))
            torch.testing.assert_close(found, plain_logits(mot, ids[: place + 1]), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="room for 14 tokens"):
        writer.take_in(0, 14.0)


@torch.no_grad()
def test_a_longer_text_gets_a_larger_cache():
    mot = random_mot(TINY)
    reader = Reader(mot, compiled=False)
    ids = tokens(LEAST_ROOM + 5, TINY.vocab, seed=4)
    writer = reader.begin(reader.read(pack_text([Sample(token_ids=ids[:-1])])), room=1)
    found = writer.take_in(int(ids[-1]), float(len(ids) - 1))
    torch.testing.assert_close(found, plain_logits(mot, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@GPU
@FAMILIES
@torch.no_grad()
def test_compiled_and_recorded_on_a_gpu(config):
    mot, ids = random_mot(config).cuda(), tokens(14, config.vocab, seed=3).cuda()
    reader = Reader(mot)
    for read in (9, 4):
        writer = reader.begin(reader.read(pack_text([Sample(token_ids=ids[:read])])), room=14 - read)
        for place in range(read, 14):
            found = writer.take_in(int(ids[place]), float(place))
            torch.testing.assert_close(found, plain_logits(mot, ids[: place + 1]), atol=1e-3, rtol=1e-3)
