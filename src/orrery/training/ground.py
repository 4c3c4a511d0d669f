"""What a world model stands on, made from its first episodes: tokenizer, codecs of pictures and sound, opened eyes.

Codecs are made once, saved as they will be shipped (8-bit weights), and frozen before the model is trained on them. The
eyes have had their first lesson (`training.eyes`) and are trained on with the model.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn

from orrery.errors import DatasetError
from orrery.model.config import MoTConfig
from orrery.tasks.contract import ActionContract, Camera
from orrery.tasks.embodiment import embodiment
from orrery.tokenizers.autoencoder import AutoencoderCodec
from orrery.tokenizers.codecs import sound_from_config, vision_from_config
from orrery.tokenizers.eyes import PICO_EYES
from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec
from orrery.tokenizers.text import TextTokenizer, train_tokenizer
from orrery.training.bank import FRONT, WRIST
from orrery.training.codec import CodecTraining, train_sound_codec, train_vision_codec
from orrery.training.eyes import Stills, train_eyes
from orrery.training.pictures import draw_scenes, scenes_of
from orrery.training.sight import Marks, marks_of, slots_of
from orrery.training.world import WorldRecipe
from orrery.training.world_model import WorldModel
from orrery.weights.folder import open_folder, save_folder
from orrery.weights.reader import load_into
from orrery.worlds.factory.cell import EMBODIMENT
from orrery.worlds.factory.stream import Record

PAD_TO = 32
FIGURES = "figures.json"
SECONDS_OF_SOUND = 1
EMPHASIS, AROUND_PX = 6.0, 6.0
FRAMES, FEW_FRAMES = 60_000, 64
"""Pictures of each camera that codec and eyes are trained on, on a GPU and on a CPU, where drawing them is slow."""
EYES = "eyes/model.safetensors"
SIZES = {"front": FRONT, "wrist": WRIST}
Tell = Callable[[str, int, dict[str, float]], None]


def factory_contract() -> ActionContract:
    """The contract of models of the factory cell: its gantry, seen by the cameras front and wrist."""
    cameras = (
        Camera(name="front", height=FRONT[0], width=FRONT[1]),
        Camera(name="wrist", height=WRIST[0], width=WRIST[1]),
    )
    return embodiment(EMBODIMENT).contract(cameras=cameras)


def make_ground(
    recipe: WorldRecipe, records: Sequence[Record], folder: Path, *, device: torch.device, tell: Tell
) -> None:
    """Train tokenizer, codecs and eyes, and save them to a folder that `open_ground` and `open_eyes` read.

    Args:
        records: episodes of the training split; the last twentieth is only measured.

    Raises:
        DatasetError: fewer than 4 episodes, or none with sound.
    """
    if len(records) < 4:
        raise DatasetError(f"Codecs need at least 4 episodes, got {len(records)}. Give more.")
    cut = len(records) - max(1, len(records) // 20)
    text = train_tokenizer(texts_of(records), recipe.run.model.vocab, digits=True, pad_to=PAD_TO)
    seed = recipe.run.seed
    vision, vision_figures = _vision(recipe, records[:cut], records[cut:], device, seed, tell)
    sound, sound_figures = _sound(recipe, records[:cut], records[cut:], device, seed, tell)
    looker, eyes_figures = _eyes(recipe, records[:cut], records[cut:], device, seed, tell)
    # What was not to be measured, such as the onset of a sound without one, is null.
    figures = {
        name: {key: value if np.isfinite(value) else None for key, value in found.items()}
        for name, found in (("vision", vision_figures), ("sound", sound_figures), ("eyes", eyes_figures))
    }
    save_ground(folder, text, vision, sound, looker, {**figures, "episodes": len(records), "seed": seed})


def save_ground(
    folder: Path,
    text: TextTokenizer,
    vision: AutoencoderCodec,
    sound: AutoencoderSoundCodec,
    looker: dict[str, Tensor],
    figures: dict[str, Any],
) -> None:
    """Write what a world model stands on.

    Args:
        looker: weights of the eyes and of what reads from them in training, as `looker_of` names them.
        figures: how it came out; plain values.
    """
    save_folder(
        folder,
        tensors={
            EYES: looker,
            **{f"{codec.folder}/model.safetensors": codec.tensors() for codec in (vision, sound)},
        },
        documents={
            "codecs.json": {"vision_codec": vision.codec_config(), "sound_codec": sound.codec_config()},
            FIGURES: figures,
            **{f"tokenizer/{name}": content for name, content in text.files.items()},
        },
        metadata={"kind": "tokenizer, codecs and eyes"},
    )


def looker_of(model: WorldModel) -> nn.Module:
    """The eyes of a model and what reads from them in training, as they are saved."""
    return nn.ModuleDict({"eyes": model.eyes, "head": model.sight["read"]})


def open_ground(
    folder: Path, device: torch.device
) -> tuple[TextTokenizer, AutoencoderCodec, AutoencoderSoundCodec, dict[str, Any]]:
    """The tokenizer, the codecs and their figures, as they were saved.

    Raises:
        CheckpointError: the folder is damaged or holds something else.
    """
    found = open_folder(folder)
    configs = found.document("codecs.json")
    files = {Path(name).name: found.file(name).read_bytes() for name in found.files if name.startswith("tokenizer/")}
    vision = vision_from_config(configs["vision_codec"], folder, device, torch.float32)
    sound = sound_from_config(configs["sound_codec"], folder, device, torch.float32)
    assert isinstance(vision, AutoencoderCodec)
    assert isinstance(sound, AutoencoderSoundCodec)
    return TextTokenizer.from_files(files), vision, sound, json.loads(found.file(FIGURES).read_bytes())


def open_eyes(folder: Path, model: WorldModel) -> None:
    """Give a model the eyes of a folder of `make_ground`, and what reads from them in training.

    Raises:
        CheckpointError: the folder is damaged, or its eyes have another shape.
    """
    load_into(looker_of(model), [open_folder(folder).file(EYES)], layout=None)


def texts_of(records: Sequence[Record]) -> list[str]:
    """Everything that is read and written."""
    found: list[str] = []
    for record in records:
        found += [*record.instructions, *(words for _, words in (*record.scenes, *record.clips))]
        for question in record.questions:
            found += [question.prompt, question.answer]
    return found


def check_fits(config: MoTConfig, vision: AutoencoderCodec, sound: AutoencoderSoundCodec) -> None:
    """Raise a DatasetError unless the model reads the latents of these codecs."""
    for what, wanted, got in (
        ("vision_channels", config.vision_channels, vision.channels),
        ("sound_width", config.sound_width, sound.channels),
        ("sound_fps", config.sound_fps, sound.rate / sound.hop),
    ):
        if wanted != got:
            raise DatasetError(f"The model has {what} {wanted}, the codec {got}. Change one of the two.")


def _vision(
    recipe: WorldRecipe, seen: Sequence[Record], unseen: Sequence[Record], device: torch.device, seed: int, tell: Tell
) -> tuple[AutoencoderCodec, dict[str, float]]:
    some = _some(seen, device, seed)
    front, wrist = _drawn(seen, some, device, ("front", "wrist"))
    views = torch.from_numpy(views_of(seen))[some].to(device)
    batch = 128 if device.type == "cuda" else 8
    held_out = _drawn(unseen, _evenly(unseen, batch), device, ("front", "wrist"))

    def draw(step: int) -> Tensor | tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        # In turn; pictures of the wrist have a quarter of the pixels.
        if step % 2:
            return wrist[torch.randint(len(wrist), (2 * batch,), generator=rng).to(device)]
        chosen = torch.randint(len(front), (batch,), generator=rng).to(device)
        return front[chosen], weights_of(views[chosen], *FRONT)

    return train_vision_codec(
        recipe.vision_codec,
        draw,
        CodecTraining(seconds=recipe.codec_seconds[0]),
        device=device,
        seed=seed,
        held_out=held_out,
        report=lambda step, figures: tell("vision codec", step, figures),
    )


def _some(records: Sequence[Record], device: torch.device, seed: int) -> Int[Tensor, " n"]:
    """Some of all frames, the same in every call."""
    most = FRAMES if device.type == "cuda" else FEW_FRAMES
    return torch.randperm(_frames(records), generator=torch.Generator().manual_seed(seed))[:most]


def _evenly(records: Sequence[Record], count: int) -> Int[Tensor, " n"]:
    """So many of all frames, at equal distances."""
    return torch.arange(0, _frames(records), max(1, _frames(records) // count))[:count]


def _frames(records: Sequence[Record]) -> int:
    return sum(len(record.state) for record in records)


def _drawn(
    records: Sequence[Record], which: Int[Tensor, " n"], device: torch.device, cameras: Sequence[str]
) -> list[UInt8[Tensor, "n _ _ 3"]]:
    """Pictures of some of all frames, on the device."""
    scenes = scenes_of([record.drawing for record in records], device)
    return [draw_scenes(scenes, which.to(device), camera, *SIZES[camera]) for camera in cameras]


def views_of(records: Sequence[Record]) -> Float32[np.ndarray, "N things 2"]:
    """Where things are in the front pictures of all frames, one after the other; NaN where there is none."""
    most = max(record.view.shape[1] for record in records)
    return np.concatenate(
        [np.pad(r.view, ((0, 0), (0, most - r.view.shape[1]), (0, 0)), constant_values=np.nan) for r in records]
    )


def weights_of(views: Float[Tensor, "B things 2"], height: int, width: int) -> Float[Tensor, "B h w"]:
    """What the pixels of front pictures count in the loss: 1, and around parts and the gripper up to 1 + EMPHASIS.

    They are a few dozen pixels of sixteen thousand, and all that a plan is about.
    """
    device = views.device
    down = (torch.arange(height, device=device) + 0.5)[None, None, :, None]
    right = (torch.arange(width, device=device) + 0.5)[None, None, None, :]
    # Far out of the picture is nowhere.
    across, along = (views.nan_to_num(nan=-9.0) * torch.tensor([width, height], device=device)).unbind(-1)
    away = (right - across[..., None, None]).square() + (down - along[..., None, None]).square()
    return 1 + EMPHASIS * (-away / (2 * AROUND_PX**2)).exp().amax(dim=1)


def _sound(
    recipe: WorldRecipe, seen: Sequence[Record], unseen: Sequence[Record], device: torch.device, seed: int, tell: Tell
) -> tuple[AutoencoderSoundCodec, dict[str, float]]:
    length = SECONDS_OF_SOUND * recipe.sound_codec.rate

    def pieces(records: Sequence[Record]) -> Tensor:
        found = [
            record.sound[begin : begin + length]
            for record in records
            if record.sound is not None
            for begin in range(0, len(record.sound) - length + 1, length)
        ]
        if not found:
            raise DatasetError("No episode has sound of 2 s. Record some with sound.")
        return torch.from_numpy(np.stack(found)).to(device)

    pool = pieces(seen)
    batch = 64 if device.type == "cuda" else 4

    def draw(step: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return pool[torch.randint(len(pool), (batch,), generator=rng).to(device)].float() / 32767

    return train_sound_codec(
        recipe.sound_codec,
        draw,
        # torch 2.11 cannot compile it for a GPU.
        CodecTraining(seconds=recipe.codec_seconds[1], compiled=False),
        device=device,
        seed=seed,
        held_out=[pieces(unseen)[:64].float() / 32767],
        report=lambda step, figures: tell("sound codec", step, figures),
    )


def _eyes(
    recipe: WorldRecipe, seen: Sequence[Record], unseen: Sequence[Record], device: torch.device, seed: int, tell: Tell
) -> tuple[dict[str, Tensor], dict[str, float]]:
    cuda = device.type == "cuda"
    batch = 512 if cuda else 8

    def stills(records: Sequence[Record], which: Int[Tensor, " n"]) -> Stills:
        (pictures,) = _drawn(records, which, device, ("front",))
        return pictures, _marks(records, which, device)

    pictures, marks = stills(seen, _some(seen, device, seed))

    def draw(step: int) -> Stills:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(pictures), (batch,), generator=rng).to(device)
        return pictures[chosen], Marks(shown=marks.shown[chosen], place=marks.place[chosen])

    return train_eyes(
        recipe.eyes,
        PICO_EYES,
        draw,
        CodecTraining(seconds=recipe.eyes_seconds),
        device=device,
        seed=seed,
        held_out=stills(unseen, _evenly(unseen, 1024 if cuda else 8)),
        report=lambda step, figures: tell("eyes", step, figures),
    )


def _marks(records: Sequence[Record], which: Int[Tensor, " n"], device: torch.device) -> Marks:
    """What some of all frames show."""
    slots = [slots_of(record) for record in records]
    token, first, second, place = (
        torch.from_numpy(np.concatenate([getattr(one, name) for one in slots]))[which].to(device)
        for name in ("token", "first", "second", "place")
    )
    return marks_of(token.long(), first.long(), second.long(), place)
