"""The recipes of the models that we train, as rows: `orrery train NAME`."""

from orrery.model.config import PICO
from orrery.model.vision_config import PICO_VISION
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.recipe import LossWeights, Recipe, Share
from orrery.training.world import WorldRecipe

MIXTURE = (
    Share(task="forward_dynamics", weight=144, caption_dropout=0.6),
    Share(task="forward_dynamics", weight=24, sound="none", caption_dropout=0.6),
    Share(task="inverse_dynamics", weight=56, caption_dropout=1.0),
    Share(task="policy", weight=40, caption_dropout=0.0),
    Share(task="policy_no_video", weight=288, caption_dropout=0.0),
    Share(task="text_to_image", weight=56),
    Share(task="text_to_video", weight=16),
    Share(task="text_to_video", weight=24, sound="none"),
    Share(task="image_to_video", weight=16, sound="none"),
    Share(task="reason", weight=192, caption_dropout=0.0),
)
"""Samples of a step by task. Forward dynamics mostly goes without the order, which would tell the future by itself."""

PICO_RUN = Recipe(
    model=PICO,
    mixture=MIXTURE,
    steps=1_000_000,
    batch=sum(int(share.weight) for share in MIXTURE),
    seconds=900.0,
    loss_weights=LossWeights(vision=1.0, sound=0.5, action=1.0, text=0.3),
    optimiser=OptimiserSettings(rule="muon", learning_rate=2e-3, weight_decay=0.05, betas=(0.9, 0.95)),
    schedule=LearningRate(warmup=100),
    cooldown=0.5,
    cooldown_floor=0.01,
    ema_width=None,
    precision="bfloat16",
)

RECIPES: dict[str, WorldRecipe] = {"pico": WorldRecipe(run=PICO_RUN, eyes=PICO_VISION)}
"""Name -> recipe. A variant is `dataclasses.replace` of one."""
TASKS = tuple(dict.fromkeys(share.task for share in MIXTURE))
"""What a model of these recipes may be asked."""
