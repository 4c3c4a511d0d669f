"""Rendered frames a second on one core: `.venv/bin/python benchmarks/render.py`.

A bench with 38 primitive geoms, 20 of them moving, under two lights that cast shadows, seen by a fixed camera, for
which what is static is kept, and by one on the wrist of the arm, for which nothing is. The parts are moved between
frames. Rays are the time inside MuJoCo's ray caster; the rest is shading. Each row is judged against its budget where
it has one; exits with 1 when a median is over it.
"""

import os
import statistics
import sys
import time

# Read when numpy is loaded: numbers here are for one core.
os.environ["OMP_NUM_THREADS"] = "1"

import mujoco
import numpy as np

from orrery.worlds.factory.render import Renderer

FRAMES = 40

# (what, camera, pixels a side, rays a side of a pixel, budget in milliseconds)
CASES = [
    ("fixed camera", "front", 64, 1, None),
    ("fixed camera", "front", 128, 1, 10.0),
    ("fixed camera", "front", 256, 1, None),
    ("fixed camera, 2 x 2 rays", "front", 128, 2, None),
    ("moving camera", "wrist", 64, 1, None),
    ("moving camera", "wrist", 128, 1, None),
    ("moving camera", "wrist", 256, 1, None),
]


def scene() -> str:
    """MJCF of the bench."""
    shapes = (("box", ".025 .025 .025"), ("cylinder", ".022 .03"), ("sphere", ".025"), ("capsule", ".015 .025"))
    colours = (".84 .24 .2", ".21 .62 .33", ".2 .41 .82", ".93 .73 .16")
    parts = "".join(
        f'<body name="part{k}" pos="{0.14 * (k % 6) - 0.35} {0.17 * (k // 6) - 0.22} .84"><freejoint/>'
        f'<geom type="{shapes[k % 4][0]}" size="{shapes[k % 4][1]}" rgba="{colours[k // 2 % 4]} 1" '
        f'material="{"metal" if k % 5 == 1 else "plastic"}"/></body>'
        for k in range(12)
    )
    walls = ((0.08, 0, 0.004, 0.08), (-0.08, 0, 0.004, 0.08), (0, 0.08, 0.08, 0.004), (0, -0.08, 0.08, 0.004))
    bins = "".join(
        f'<geom type="box" size="{a} {b} .04" pos="{at + x} {0.33 + y} .84" rgba=".35 .4 .45 1"/>'
        for at in (-0.45, 0.45)
        for x, y, a, b in walls
    )
    legs = "".join(
        f'<geom type="box" size=".03 .03 .38" pos="{x} {y} .38" rgba=".3 .3 .32 1"/>'
        for x in (-0.65, 0.65)
        for y in (-0.4, 0.4)
    )
    return f"""
<mujoco>
  <compiler angle="degree"/>
  <size nuser_geom="6"/>
  <visual><headlight ambient=".3 .3 .32" diffuse=".2 .2 .2" specular=".1 .1 .1"/></visual>
  <asset>
    <material name="plastic" specular=".4" shininess=".4"/>
    <material name="metal" specular=".8" shininess=".8" reflectance=".5"/>
  </asset>
  <worldbody>
    <light type="point" pos="-.8 -.9 2.4" diffuse=".55 .53 .5"/>
    <light type="point" pos="1.2 -.5 2.2" diffuse=".15 .17 .2"/>
    <geom type="plane" size="0 0 .1" rgba=".62 .63 .65 1" user="1 .5 .54 .55 .58 0"/>
    <geom type="box" size=".7 .45 .02" pos="0 0 .78" rgba=".78 .7 .58 1" user="2 .12 .74 .66 .54 1"/>
    <geom type="box" size=".6 .07 .012" pos="0 .17 .81" rgba=".2 .21 .23 1" user="2 .08 .3 .31 .33 0"/>
    <geom type="box" size=".6 .006 .02" pos="0 .085 .82" rgba=".6 .62 .65 1" material="metal"/>
    <geom type="box" size=".6 .006 .02" pos="0 .255 .82" rgba=".6 .62 .65 1" material="metal"/>
    <geom type="cylinder" size=".03 .3" pos="-.1 .4 1.1" rgba=".9 .75 .15 1" material="plastic"/>
    {legs}{bins}{parts}
    <camera name="front" pos="0 -1.35 1.75" xyaxes="1 0 0 0 .62 .78" fovy="42"/>
    <body pos=".05 .36 .8"><joint axis="0 0 1"/>
      <geom type="cylinder" size=".06 .05" pos="0 0 .05" rgba=".25 .27 .3 1" material="metal"/>
      <body pos="0 0 .1"><joint axis="1 0 0" ref="-20"/>
        <geom type="capsule" size=".04" fromto="0 0 0 0 0 .3" rgba=".93 .5 .15 1" material="plastic"/>
        <geom type="cylinder" size=".05 .055" euler="0 90 0" rgba=".25 .27 .3 1"/>
        <body pos="0 0 .3"><joint axis="1 0 0"/>
          <geom type="capsule" size=".033" fromto="0 0 0 0 -.28 .02" rgba=".93 .5 .15 1" material="plastic"/>
          <geom type="cylinder" size=".042 .045" euler="0 90 0" rgba=".25 .27 .3 1"/>
          <body pos="0 -.28 .02"><joint axis="1 0 0"/>
            <geom type="cylinder" size=".03 .05" pos="0 0 -.05" rgba=".25 .27 .3 1" material="metal"/>
            <geom type="box" size=".006 .012 .03" pos=".03 0 -.13" rgba=".8 .8 .82 1" material="metal"/>
            <geom type="box" size=".006 .012 .03" pos="-.03 0 -.13" rgba=".8 .8 .82 1" material="metal"/>
            <camera name="wrist" pos="0 -.06 -.06" euler="0 0 180" fovy="70"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


class Clock:
    """Stands in for `mujoco.mj_multiRay` and adds up the seconds spent in it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._cast = mujoco.mj_multiRay

    def __call__(self, *arguments: object) -> None:
        begin = time.perf_counter()
        self._cast(*arguments)
        self.seconds += time.perf_counter() - begin


def measure(camera: str, size: int, supersample: int, clock: Clock) -> tuple[list[float], list[float]]:
    """(milliseconds, of which in rays) of each frame after the first, which fills what is kept."""
    model = mujoco.MjModel.from_xml_string(scene())
    data = mujoco.MjData(model)
    renderer, rng = Renderer(model), np.random.default_rng(0)
    start = data.qpos.copy()
    frames, rays = [], []
    for _ in range(FRAMES + 1):
        data.qpos[:] = start + rng.uniform(-0.02, 0.02, model.nq)
        mujoco.mj_forward(model, data)
        clock.seconds, begin = 0.0, time.perf_counter()
        renderer.render(data, camera, size, size, supersample=supersample)
        frames.append(1e3 * (time.perf_counter() - begin))
        rays.append(1e3 * clock.seconds)
    return frames[1:], rays[1:]


def main() -> int:
    over = False
    mujoco.mj_multiRay = clock = Clock()
    print(f"{'':28}{'pixels':>8}{'frames/s':>10}{'median ms':>11}{'worst ms':>10}{'rays ms':>9}{'shading ms':>12}")
    for name, camera, size, supersample, budget_ms in CASES:
        frames, rays = measure(camera, size, supersample, clock)
        median, cast = statistics.median(frames), statistics.median(rays)
        late = budget_ms is not None and median > budget_ms
        over |= late
        print(
            f"{name:28}{size:>8}{1e3 / median:>10.0f}{median:>11.2f}{max(frames):>10.2f}{cast:>9.2f}"
            f"{median - cast:>12.2f}{f'  OVER {budget_ms} ms' if late else ''}"
        )
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
