"""A random checkpoint of Pico's form: two cameras, a state of its own, 8-frame eyes and padded prompts.

`small_pico` is for tests: 64 wide, two layers, pictures of 32 and 16 pixels, codecs without parameters. `full_pico` has
the sizes of the real one, for measurements of time and memory.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from orrery.model.config import PICO, MoTConfig
from orrery.model.mot import MoT
from orrery.model.vision import vision_encoder
from orrery.model.vision_config import PICO_VISION, VisionEncoderConfig
from orrery.runtime.model import Model, Origin
from orrery.runtime.save import save
from orrery.tasks.contract import Camera
from orrery.tasks.embodiment import embodiment
from orrery.tokenizers.autoencoder import AutoencoderCodec, AutoencoderConfig, FrameAutoencoder
from orrery.tokenizers.codecs import SoundCodec, VisionCodec
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec
from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec, SoundAutoencoder, SoundAutoencoderConfig
from orrery.tokenizers.text import train_tokenizer
from orrery.training.start import start_weights

FRONT, WRIST = 32, 16
"""Sides of the small model's pictures."""
TEXTS = [
    "put the red cube into the tray at (312, 405)",
    "what is the gripper holding at 3.5 seconds? a steel ring",
    "two grey parts lie on the belt; the lamp is on.",
]
SMALL = replace(
    PICO, width=64, layers=2, heads=4, kv_heads=2, head_width=24, ffn_width=96, rope_axes=(4, 4, 4), vocab=320
)
SMALL_VISION = replace(
    PICO_VISION, width=24, depth=2, heads=2, mlp_width=40, out_width=64, merged_width=96, position_grid=4
)


@cache
def small_pico() -> Model:
    """Two cameras of 32 x 32 and 16 x 16 pixels; sound of 8000 samples a second."""
    return random_pico(
        SMALL,
        SMALL_VISION,
        vision=PixelPatchCodec(spatial=2),
        sound=PatchSoundCodec(rate=8000, hop=400),
        cameras=(Camera(name="front", height=FRONT, width=FRONT), Camera(name="wrist", height=WRIST, width=WRIST)),
    )


@cache
def full_pico() -> Model:
    """The sizes of the real one; its codecs are random, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = AutoencoderCodec(FrameAutoencoder(AutoencoderConfig()).eval(), AutoencoderConfig())
        sound = AutoencoderSoundCodec(SoundAutoencoder(SoundAutoencoderConfig()).eval())
    return random_pico(
        PICO,
        PICO_VISION,
        vision=vision,
        sound=sound,
        cameras=(Camera(name="front", height=128, width=128), Camera(name="wrist", height=64, width=64)),
    )


def random_pico(
    config: MoTConfig,
    eyes: VisionEncoderConfig,
    *,
    vision: VisionCodec,
    sound: SoundCodec,
    cameras: tuple[Camera, ...],
    seed: int = 0,
) -> Model:
    """Random weights that tell all inputs apart: the heads and the embeddings of cameras are not zero."""
    config = replace(config, vision_channels=vision.channels, sound_width=sound.channels)
    mot = MoT(config)
    start_weights(mot, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, parameter in mot.named_parameters():
            if name.split(".")[0].endswith(("_out", "_head", "_embed")) and not name.startswith("time_embed"):
                torch.nn.init.normal_(parameter, std=0.05)
        sees = vision_encoder(eyes)
    contract = embodiment("factory_gantry").contract(cameras=cameras)
    return Model(
        mot=mot.eval(),
        text=train_tokenizer(TEXTS, config.vocab, digits=True, pad_to=32),
        vision=vision,
        sound=sound,
        eyes=sees.eval(),
        contracts={contract.embodiment: contract},
        family="pico",
        origin=Origin(path=Path("random-pico"), layout="orrery", weights={}, trained=False, licence="Apache-2.0"),
    )


def write_pico(folder: Path, *, full: bool = False) -> None:
    """Save one of the two; the full one in 8 bits, as it is shipped."""
    model, storage = (full_pico(), "int8") if full else (small_pico(), "float")
    save(model, folder, trained=False, licence="Apache-2.0", notes={"made_by": "tests"}, storage=storage)


def pictures(
    frames: int | None = None, *, seed: int = 0, front: int = FRONT, wrist: int = WRIST
) -> dict[str, np.ndarray]:
    """Random pictures of both cameras, (H, W, 3), or clips (frames, H, W, 3)."""
    rng = np.random.default_rng(seed)
    lead = () if frames is None else (frames,)
    return {
        name: rng.integers(0, 256, (*lead, side, side, 3), dtype=np.uint8)
        for name, side in (("front", front), ("wrist", wrist))
    }
