"""Drop cubes in MuJoCo, and write a page on which one can listen to them.

python examples/listen/listen.py --out out/listen.html
"""

import base64
import html
import io
import wave
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import mujoco
import numpy as np
import tyro

from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.contacts import ContactTracker
from orrery.worlds.factory.materials import MATERIALS
from orrery.worlds.factory.sound import (
    RATE_HZ,
    Body,
    Sounding,
    labels,
    scrape_of,
    shifted,
    strike_of,
    synthesise,
)

SIDE_M = 0.032
TIMESTEP_S = 0.0005
STEP_S = 0.05
LASTS_S = 1.2
LEFT_M, RIGHT_M = -0.2, 0.2
HEIGHTS_M = (0.02, 0.08, 0.32)
GROUNDS = {
    "bench": Body(name="bench", material="wood", mass_kg=14.8, length_m=0.88, width_m=0.6, thickness_m=0.04),
    "tray": Body(name="tray", material="sheet_steel", mass_kg=0.9, length_m=0.28, width_m=0.2, thickness_m=0.0015),
}


@dataclass(frozen=True, kw_only=True)
class Drop:
    """What one drop made: what is heard, and the numbers of its first impact."""

    history: list[Sounding]
    momentum_Ns: float  # noqa: N815 - newton seconds
    """Mass times the change of velocity, read from the simulation."""
    impulse_Ns: float  # noqa: N815
    """What the contact tracker found."""


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Write the page."""

    out: Path = Path("out/listen.html")
    """One file; works offline."""

    def __call__(self) -> None:
        rows = []
        for ground, height_m, material in product(GROUNDS, HEIGHTS_M, ("steel", "brass", "plastic")):
            left, right = (drop(material, ground, height_m, x_m) for x_m in (LEFT_M, RIGHT_M))
            history = [*left.history, *shifted(right.history, LASTS_S)]
            samples = synthesise(history, 0.0, 2 * LASTS_S)
            heard = "; ".join(f"{row.time_s:.2f} s {row.cause}" for row in labels(history)[:4])
            numbers = f"{left.momentum_Ns:.4f}", f"{left.impulse_Ns:.4f}", f"{left.impulse_Ns / left.momentum_Ns:.3f}"
            peak = f"{float(np.abs(samples).max()):.2f}"
            cells = (ground, material, f"{100 * height_m:.0f} cm", *numbers, peak)
            print(*cells, flush=True)
            text = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            rows.append(f"<tr>{text}<td>{player(samples)}</td><td>{html.escape(heard)}</td></tr>")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.out, PAGE.replace("ROWS", "\n".join(rows)).encode())
        print(f"Open {self.out}")


def drop(material: str, ground: str, height_m: float, x_m: float) -> Drop:
    """Let a cube fall, slightly tilted as parts do, and gather what can be heard of it. Bench and tray are one box."""
    half = SIDE_M / 2
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><option timestep="{TIMESTEP_S}" cone="elliptic" integrator="implicitfast" impratio="5" '
        'noslip_iterations="2"/><default><geom solref=".004 1"/></default><worldbody>'
        f'<body name="{ground}"><geom type="box" size=".44 .3 .02" pos="0 0 -.02"/></body>'
        f'<body name="cube" pos="{x_m} 0 {half + height_m}" euler="2 1 0"><freejoint/>'
        f'<geom type="box" size="{half} {half} {half}" density="{MATERIALS[material].density_kg_m3}"/></body>'
        "</worldbody></mujoco>"
    )
    mass_kg = float(model.body("cube").mass[0])
    cube = Body(name="cube", material=material, mass_kg=mass_kg, length_m=SIDE_M, width_m=SIDE_M, thickness_m=SIDE_M)
    bodies = {"cube": cube, ground: GROUNDS[ground]}
    data, tracker = mujoco.MjData(model), ContactTracker(model)
    history: list[Sounding] = []
    impacts, speeds = [], []
    for _ in range(round(LASTS_S / STEP_S)):
        for _ in range(round(STEP_S / TIMESTEP_S)):
            speeds.append(float(data.qvel[2]))
            mujoco.mj_step(model, data)
            tracker.sample(data)
        found, rubbings = tracker.collect(data)
        history += [strike_of(impact, bodies, seed=len(impacts) + i) for i, impact in enumerate(found)]
        history += [scrape_of(rubbing, bodies) for rubbing in rubbings]
        impacts += found
    step = round(impacts[0].time_s / TIMESTEP_S)
    change = max(speeds[step : step + round(0.012 / TIMESTEP_S) + 1]) - speeds[step]
    return Drop(history=history, momentum_Ns=mass_kg * change, impulse_Ns=impacts[0].impulse_Ns)


def player(samples: np.ndarray) -> str:
    """An audio element that holds its sound, 16 bits a sample, which every browser plays."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return f'<audio controls src="data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"></audio>'


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Drops</title>
<style>body{font:15px sans-serif;margin:2em;color:#222}table{border-collapse:collapse}
td,th{padding:.3em .7em;border-bottom:1px solid #ddd;text-align:left}audio{width:16em;height:2em}</style>
<h1>A cube falls</h1>
<p>A cube of 32 mm falls onto a wooden bench and onto a tray of sheet steel, first on the left and 1.2 s later on the
right. Use headphones. Impulses are of the first impact on the left, in Ns: m&nbsp;dv is mass times the change of
velocity in the simulation, the other what the contact forces gave without the weight.</p>
<table><tr><th>onto<th>cube<th>height<th>m dv<th>impulse<th>ratio<th>peak<th>listen<th>what is heard</tr>
ROWS
</table></html>
"""

if __name__ == "__main__":
    tyro.cli(Listen)()
