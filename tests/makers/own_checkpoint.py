"""A tiny checkpoint in our own layout: every stream, parameter-free codecs, a vision encoder, random weights."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.model.vision import vision_encoder
from orrery.model.vision_config import TINY_QWEN_VISION
from orrery.runtime.model import Model, Origin
from orrery.runtime.save import save
from orrery.tasks.contract import ActionContract, Camera
from orrery.tasks.normaliser import Normaliser
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec
from orrery.tokenizers.text import train_tokenizer

SPATIAL, HEIGHT, WIDTH, CHUNK, RATE_HZ = 8, 24, 40, 8, 10
CONTRACT = ActionContract(
    embodiment="custom",
    domain_id=31,
    action_names=("dx", "dy", "grip"),
    units=("m", "m", "1"),
    frame="base",
    mode="relative",
    gripper_index=2,
    gripper_range=(0.0, 1.0),
    gripper_open="hi",
    control_rate_hz=RATE_HZ,
    chunk=CHUNK,
    cameras=(Camera(name="front", height=HEIGHT, width=WIDTH),),
    normaliser=Normaliser(kind="minmax", lo=(-0.1, -0.2, 0.0), hi=(0.1, 0.2, 1.0)),
)


@cache
def tiny_model() -> Model:
    """The model itself; latents of 3 x 5, so that patches of odd sizes are part of every test."""
    vision = PixelPatchCodec(spatial=SPATIAL)
    sound = PatchSoundCodec(rate=8000, hop=320)
    config = replace(
        TINY,
        family="own",
        vision_channels=vision.channels,
        sound_width=sound.channels,
        sound_fps=25.0,
        vocab=300,
        prediction="data",
    )
    torch.manual_seed(0)
    mot, eyes = MoT(config), vision_encoder(TINY_QWEN_VISION)
    for module in (mot, eyes):
        for parameter in module.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.05)
    return Model(
        mot=mot.eval(),
        text=train_tokenizer(["push the red block to the left", "what is on the table?"], 300),
        vision=vision,
        sound=sound,
        eyes=eyes.eval(),
        contracts={CONTRACT.embodiment: CONTRACT},
        family="orrery",
        origin=Origin(path=Path("tiny"), layout="orrery", weights={}, trained=False, licence="OpenMDW-1.1"),
    )


def write_own(folder: Path) -> None:
    """Save it."""
    save(tiny_model(), folder, trained=False, licence="OpenMDW-1.1", notes={"made_by": "tests"})
