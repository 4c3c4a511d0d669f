"""Saved configurations give the codec back."""

import json
from pathlib import Path

import pytest
import torch

from orrery.errors import CheckpointError, SettingsError
from orrery.tokenizers.codecs import sound_from_config, vision_from_config
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec

WHERE = (Path(), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("codec", [PixelPatchCodec(spatial=8), PixelPatchCodec(spatial=2, temporal=1)])
def test_a_vision_codec_comes_back_from_its_configuration(codec):
    assert vision_from_config(json.loads(json.dumps(codec.codec_config())), *WHERE) == codec


@pytest.mark.parametrize(
    "codec", [PatchSoundCodec(rate=8000, hop=320), PatchSoundCodec(rate=1, hop=1, sound_channels=1)]
)
def test_a_sound_codec_comes_back_from_its_configuration(codec):
    assert sound_from_config(json.loads(json.dumps(codec.codec_config())), *WHERE) == codec


@pytest.mark.parametrize("make", [vision_from_config, sound_from_config])
@pytest.mark.parametrize("config", [{}, {"kind": "mp4"}, {"kind": None}])
def test_an_unknown_kind_is_refused_with_those_known(make, config):
    with pytest.raises(CheckpointError, match=r"No such codec.*Known: p"):
        make(config, *WHERE)


@pytest.mark.parametrize(
    "config", [{"kind": "pixel_patch", "spatial": 8}, {"kind": "pixel_patch", "spatial": 8, "temporal": 4, "extra": 1}]
)
def test_missing_and_unknown_keys_are_refused(config):
    with pytest.raises(CheckpointError, match=r"missing or unknown: (temporal|extra)"):
        vision_from_config(config, *WHERE)


def test_a_value_out_of_range_is_refused():
    with pytest.raises(SettingsError, match="spatial 0"):
        vision_from_config({"kind": "pixel_patch", "spatial": 0, "temporal": 4}, *WHERE)


@pytest.mark.parametrize("folder", ["../vae", "/vae", "a/b", "..", "."])
def test_a_codec_may_not_lie_outside_its_checkpoint(folder):
    with pytest.raises(CheckpointError, match="plain name inside the checkpoint"):
        vision_from_config({"kind": "wan", "folder": folder}, *WHERE)
    with pytest.raises(CheckpointError, match="plain name inside the checkpoint"):
        sound_from_config({"kind": "avae", "folder": folder}, *WHERE)
