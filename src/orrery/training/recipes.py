"""The recipes of the models that we train, as rows: `orrery train NAME`."""

from dataclasses import replace

from orrery.flow.noise_levels import NoiseLevels
from orrery.model.config import PICO
from orrery.model.vision_config import PICO_VISION
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.recipe import LossWeights, ModalityNoise, Recipe, Share
from orrery.training.world import WorldRecipe

MIXTURE = (
    Share(task="forward_dynamics", weight=176.0, caption_dropout=0.6),
    Share(task="forward_dynamics", weight=32.0, every=4, sound="none", caption_dropout=0.6),
    Share(task="inverse_dynamics", weight=72.0, caption_dropout=1.0),
    Share(task="policy", weight=24.0, every=4, caption_dropout=0.0),
    Share(task="policy_no_video", weight=320.0, caption_dropout=0.0),
    Share(task="text_to_image", weight=48.0, every=4),
    Share(task="text_to_video", weight=16.0, every=4),
    Share(task="text_to_video", weight=24.0, every=4, sound="none"),
    Share(task="image_to_video", weight=16.0, every=4, sound="none"),
    Share(task="reason", weight=128.0, caption_dropout=0.0),
)
"""Samples of a step by task. Forward dynamics mostly goes without the order, which would tell the future by itself."""

SHIFT_5 = NoiseLevels(kind="logitnormal", shift=5.0)

PICO_RUN = Recipe(
    model=PICO,
    mixture=MIXTURE,
    steps=1_000_000,
    batch=sum(int(share.weight) for share in MIXTURE),
    seconds=860.0,
    # Errors of actions are some tenth of those of pictures, of which there are more stacks.
    loss_weights=LossWeights(vision=1.0, sound=0.5, action=5.0, text=0.5, sight=0.2),
    noise=ModalityNoise(vision=SHIFT_5, sound=SHIFT_5, action=SHIFT_5),
    optimiser=OptimiserSettings(
        rule="muon",
        learning_rate=4e-3,
        weight_decay=0.05,
        betas=(0.9, 0.95),
        # What AdamW updates of the eyes and at the edges of the towers.
        multipliers=(("merger", 0.4), ("eyes.patch", 0.4), ("time_embed", 0.4), ("vision_", 0.5)),
    ),
    schedule=LearningRate(warmup=100),
    cooldown=0.7,
    cooldown_floor=0.01,
    ema_width=None,
    precision="bfloat16",
)

POLICY_RUN = replace(
    PICO_RUN, mixture=tuple(share for share in MIXTURE if share.task == "policy_no_video"), batch=320, seconds=300.0
)
"""What the policy of PICO_RUN is compared with: one that has learned nothing else."""

RECIPES: dict[str, WorldRecipe] = {
    "pico": WorldRecipe(run=PICO_RUN, eyes=PICO_VISION),
    # On from a checkpoint, which has seen the first episodes already.
    "pico_further": WorldRecipe(run=replace(PICO_RUN, seconds=750.0, seed=1), eyes=PICO_VISION, first=120_000),
    "pico_policy": WorldRecipe(run=POLICY_RUN, eyes=PICO_VISION),
}
"""Name -> recipe. A variant is `dataclasses.replace` of one."""
