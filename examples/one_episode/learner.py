"""The small model, and how it is trained in minutes on two CPU cores."""

import time
from pathlib import Path

from episode import Recording

from orrery.flow.noise_levels import NoiseLevels
from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.runtime.model import Model, Origin
from orrery.runtime.save import save
from orrery.tokenizers.pixel_patch import PixelPatchCodec
from orrery.tokenizers.text import TextTokenizer, train_tokenizer
from orrery.training.loop import StepReport, train
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.recipe import LossWeights, ModalityNoise, Recipe, Share
from orrery.training.start import start_weights

# Few minutes go furthest where a rollout begins: almost all training is at noise levels near 1, where the model must
# say what follows from the first frame and the actions, and none is spent on removing the last traces of noise.
SHIFT = 30.0
NOISE = NoiseLevels(kind="logitnormal", shift=SHIFT)
REPORT_EVERY_S = 15.0


def model_config(recording: Recording, codec: PixelPatchCodec, text: TextTokenizer) -> MoTConfig:
    """1.7 M parameters or so; most are between pixels and the model's width."""
    return MoTConfig(
        family="one_episode",
        width=128,
        layers=4,
        heads=4,
        kv_heads=4,
        head_width=48,
        ffn_width=384,
        vocab=text.size,
        # Few rows, columns and frames: slow rotary frequencies would never turn.
        rope_theta=100.0,
        rope_axes=(8, 8, 8),
        vision_channels=codec.channels,
        action_width=recording.contract.width,
        sound_width=None,
        prediction="data",
        sigma_floor=0.5,
    )


def training_recipe(config: MoTConfig, seconds: float, seed: int) -> Recipe:
    """Forward dynamics most of all: it is the task that has to listen to actions."""
    return Recipe(
        model=config,
        mixture=(
            Share(task="forward_dynamics", weight=0.55),
            Share(task="inverse_dynamics", weight=0.2),
            Share(task="policy", weight=0.25),
        ),
        # The clock ends the run.
        steps=1_000_000,
        seconds=seconds,
        batch=4,
        seed=seed,
        loss_weights=LossWeights(action=0.5),
        noise=ModalityNoise(vision=NOISE, action=NOISE),
        optimiser=OptimiserSettings(rule="muon", learning_rate=4e-3, weight_decay=0.0, betas=(0.9, 0.95)),
        schedule=LearningRate(warmup=20),
        ema_width=None,
    )


def freeze_reader(mot: MoT) -> None:
    """Leave the text tower as it starts: one episode has one prompt, so there is nothing in it to tell apart."""
    reader = [mot.embed, mot.lm_head, mot.text_norm, *(block.text for block in mot.blocks)]
    for module in reader:
        module.requires_grad_(False)


def learn(recording: Recording, out: Path, *, seconds: float, seed: int) -> dict[str, str]:
    """Train on one episode and save the checkpoint in `out`/checkpoint.

    Returns:
        Facts about the training, for the page.
    """
    codec = PixelPatchCodec(spatial=8)
    text = train_tokenizer([recording.prompt], vocab_size=300)
    config = model_config(recording, codec, text)
    mot = MoT(config)
    start_weights(mot, seed)
    freeze_reader(mot)
    source = recording.windows(recording.cut, codec, text)
    said = 0.0

    def report(done: StepReport) -> None:
        nonlocal said
        if done.seconds - said > REPORT_EVERY_S or done.progress == 1:
            said = done.seconds
            print(f"  {done.seconds:5.0f} s  step {done.step + 1:5d}  loss {done.loss:.3f}", flush=True)

    recipe = training_recipe(config, seconds, seed)
    began = time.monotonic()
    state = train(mot, source, recipe, out=out / "training", report=report)
    trained = Model(
        mot=mot.eval(),
        text=text,
        vision=codec,
        sound=None,
        eyes=None,
        contracts={recording.contract.embodiment: recording.contract},
        family="orrery",
        origin=Origin(path=out / "checkpoint", layout="orrery", weights={}, trained=True),
        tasks=tuple(share.task for share in recipe.mixture),
    )
    parameters = sum(parameter.numel() for parameter in mot.parameters())
    facts = {
        "Training": f"{state.step} steps of {recipe.batch} windows in {time.monotonic() - began:.0f} s",
        "Model": f"{parameters / 1e6:.2f} million parameters, {config.layers} layers, width {config.width}",
        "Data": f"{len(source)} overlapping windows of {len(recording.clip(0))} frames, all of one episode",
    }
    save(trained, out / "checkpoint", trained=True, licence="LicenseRef-as-the-episode", notes=facts)
    return facts
