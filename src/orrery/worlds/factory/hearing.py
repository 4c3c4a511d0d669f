"""From what a cell did to the history that `sound.synthesise` plays: what its bodies are, and what its drives do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from orrery.worlds.factory.cell import STEP_S, Cell, Report
from orrery.worlds.factory.layout import BELT_HALF_LENGTH_M, BELT_Y_M
from orrery.worlds.factory.sound import Beep, Body, Motor, Sounding, motor_after, scrape_of, strike_of

SOUND_LAG_S = 0.0125
"""Who plays along hears up to this long ago: an impact is known when its 12 ms have passed."""
OF_WHAT = {
    "bench": "wood",
    "belt": "rubber",
    "rails": "sheet_steel",
    "kit": "sheet_steel",
    "fixture": "steel",
    "panel": "sheet_steel",
    "button_start": "plastic",
    "button_stop": "plastic",
    "lamp": "plastic",
    "finger_left": "rubber",
    "finger_right": "rubber",
    "world": "wood",
    "bin_left": "sheet_steel",
    "bin_right": "sheet_steel",
    "bin_reject": "sheet_steel",
}
"""Body -> material; parts have their own, and what is left is of the gantry, which is steel."""
SHEETS_M = 0.0015
"""How thick trays and covers are to the ear: sheet metal, drawn thicker so that physics and pictures can hold it."""
MOST_KG = 5.0
"""Of what stands on the floor no more than this takes part in a blow."""
START_BEEP_HZ, STOP_BEEP_HZ, BEEP_S = 1320.0, 660.0, 0.12


@dataclass(frozen=True, kw_only=True)
class Ear:
    """Makes history from reports, one by one. Immutable: `hear` gives the next one, so that a fork forks it too."""

    bodies: dict[str, Body]
    motors: tuple[Motor, ...]
    panel_m: tuple[float, float, float]

    def hear(self, report: Report) -> tuple["Ear", list[Sounding]]:
        """The ear after one step, and what is new to be played."""
        motion = report.motion
        speeds = (*motion.gantry_m_s, motion.yaw_rad_s, motion.gripper_m_s, motion.belt_m_s)
        motors = tuple(
            motor_after(motor, motion.stop_s, speed) for motor, speed in zip(self.motors, speeds, strict=True)
        )
        new: list[Sounding] = [*motors]
        new += [strike_of(impact, self.bodies, seed=int(1e4 * impact.time_s)) for impact in report.impacts]
        new += [scrape_of(rubbing, self.bodies) for rubbing in report.rubbings]
        for event in report.events:
            if event.kind in ("lamp_on", "lamp_off"):
                pitch = START_BEEP_HZ if event.kind == "lamp_on" else STOP_BEEP_HZ
                new.append(
                    Beep(time_s=event.time_s, duration_s=BEEP_S, frequency_Hz=pitch, point_m=self.panel_m, name="lamp")
                )
        return Ear(bodies=self.bodies, motors=motors, panel_m=self.panel_m), new


def ear(cell: Cell) -> Ear:
    """What hears a cell from its present moment on."""
    panel = (cell.layout.panel.x_m, cell.layout.panel.y_m, 0.08)
    belt_end = (BELT_HALF_LENGTH_M, BELT_Y_M, 0.0)
    mounted = (
        ("drive x", "servo", (0.0, 0.3, 0.5)),
        ("drive y", "servo", (0.0, 0.0, 0.5)),
        ("drive z", "servo", (0.0, 0.0, 0.4)),
        ("drive yaw", "turn", (0.0, 0.0, 0.3)),
        ("gripper", "hiss", (0.0, 0.0, 0.2)),
        ("belt", "belt", belt_end),
    )
    now = cell.time_s
    speeds = (0.0,) * 5 + (abs(cell.memory.belt_m_s),)
    motors = tuple(
        Motor(name=name, kind=kind, start_s=now - STEP_S, stop_s=now, speed_from=speed, speed_to=speed, point_m=point)
        for (name, kind, point), speed in zip(mounted, speeds, strict=True)
    )
    return Ear(bodies=bodies(cell), motors=motors, panel_m=panel)


def history(cell: Cell, reports: Iterable[Report]) -> list[Sounding]:
    """Everything that is to be heard of reports that follow on each other.

    Args:
        cell: at the moment before the first of them.
    """
    hearing, heard = ear(cell), list[Sounding]()
    for report in reports:
        hearing, new = hearing.hear(report)
        heard += new
    return heard


def bodies(cell: Cell) -> dict[str, Body]:
    """Name -> what sounds when it is struck, for every body of the cell."""
    found = {}
    for index in range(cell.model.nbody):
        name = cell.model.body(index).name
        material = OF_WHAT.get(name, "steel")
        if name.startswith("part_"):
            material = cell.layout.parts[int(name.removeprefix("part_"))].part.material
        sides = sorted(_sides_m(cell.model, index), reverse=True)
        if material == "sheet_steel":
            sides[2] = SHEETS_M
        mass = float(np.clip(cell.model.body_mass[index], 0.01, MOST_KG))
        found[name] = Body(
            name=name, material=material, mass_kg=mass, length_m=sides[0], width_m=sides[1], thickness_m=sides[2]
        )
    return found


def _sides_m(model: mujoco.MjModel, body: int) -> Sequence[float]:
    """Sides of the largest geom of a body."""
    geoms = [i for i in range(model.ngeom) if model.geom_bodyid[i] == body]
    if not geoms:
        return (0.1, 0.1, 0.1)
    largest = max(geoms, key=lambda i: float(np.prod(_extent(model, i))))
    return [float(side) for side in _extent(model, largest)]


def _extent(model: mujoco.MjModel, geom: int) -> Sequence[float]:
    size = 2 * model.geom_size[geom]
    is_box = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX
    return (size[0], size[1], size[2]) if is_box else (size[0], size[0], size[1])
