"""Importing this makes the environments known to Gymnasium: `gymnasium.make("orrery/PegInsert-v0")`.

Without the import, `gymnasium.make("orrery.worlds.envs:orrery/PegInsert-v0")` does it; Gymnasium 1.x no longer looks
for entry points by itself, earlier versions find `register` through the one of this package.
"""

import gymnasium

IDS = {
    "BeltPick": "belt_pick",
    "BeltSort": "belt_sort",
    "KitFill": "kit_fill",
    "PegInsert": "peg_insert",
    "Stack": "stack",
    "InspectReject": "inspect_reject",
    "PressStart": "press_start",
}
"""Name in the id -> row of `factory.tasks.TASKS`, whose module needs mujoco and is loaded when an env is made."""


def register() -> None:
    """Register what is not yet registered."""
    for name, task in IDS.items():
        if f"orrery/{name}-v0" not in gymnasium.registry:
            gymnasium.register(
                id=f"orrery/{name}-v0", entry_point="orrery.worlds.factory.env:FactoryEnv", kwargs={"task": task}
            )


register()
