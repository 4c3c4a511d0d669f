from dataclasses import replace

import pytest

from orrery.errors import CheckpointError
from orrery.model.config import EDGE, NANO, SUPER, TINY, MoTConfig
from orrery.model.published import config_from_published, config_to_published


@pytest.mark.parametrize("config", [EDGE, NANO, SUPER, replace(TINY, family="custom")], ids=lambda c: c.family)
def test_a_configuration_survives_both_forms(config):
    assert config_from_published(config_to_published(config)) == config
    assert MoTConfig.from_json(config.to_json()) == config


def test_absent_keys_mean_the_released_defaults():
    assert config_from_published({"action_gen": True, "action_dim": 64, "sound_gen": True, "sound_dim": 64}) == NANO


def test_a_variant_without_streams_is_still_of_its_family():
    config = config_from_published({})
    assert (config.family, config.action_width, config.sound_width) == ("nano", None, None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"patch_latent_dim": 191}, "191"),
        ({"lidar_gen": True}, "lidar_gen"),
        ({"sound_gen": True}, "sound_dim"),
        ({"_class_name": "SomethingElse"}, "SomethingElse"),
        ({"rope_axes_dim": [24, 20, 21]}, "rope_axes"),
        ({"num_key_value_heads": 5}, "5 key heads"),
    ],
)
def test_what_is_not_understood_is_named(change, named):
    with pytest.raises(CheckpointError, match=named):
        config_from_published(change)


def test_data_prediction_has_no_released_form():
    with pytest.raises(CheckpointError, match="predicts data"):
        config_to_published(replace(TINY, prediction="data"))


def test_an_own_configuration_with_an_unknown_key_is_refused():
    with pytest.raises(CheckpointError, match="depth"):
        MoTConfig.from_json({**TINY.to_json(), "depth": 3})
