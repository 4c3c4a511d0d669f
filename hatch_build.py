"""What goes into a wheel beside the source: the checkpoints that `orrery.load` finds by name.

An editable install reads them where they lie; copying 50 MB for it would leave two that may differ.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Checkpoints(BuildHookInterface):
    """Put checkpoints/ into the package of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["checkpoints"] = "orrery/checkpoints"
