"""What a picture of a cell is made from, without the cell: an episode as a few tens of kilobytes of numbers.

A simulator needs a processor, a ray caster is fastest elsewhere: whoever plays an episode takes its `Drawing`, whoever
needs pictures draws them from it at any size (`training.pictures`), with what `render` would have shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import mujoco
import numpy as np
from jaxtyping import Bool, Float32, Int32

from orrery.errors import SettingsError
from orrery.worlds.factory.cell import ALL, Cell, CellState
from orrery.worlds.factory.rays import VISIBLE_GROUPS
from orrery.worlds.factory.scene import LAMP_ON
from orrery.worlds.factory.shade import Light, check_geoms

_BOX, _CYLINDER = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_CYLINDER)
_FIXED = int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """T frames of one cell: B moving bodies, G visible geoms, C cameras and S lights.

    A geom or a camera belongs to a body and has its place and turn in that body's frame. Body 0 is the world; body b is
    row b - 1 of `place_m` and `turn`. Turns are quaternions (w, x, y, z).
    """

    place_m: Float32[np.ndarray, "T B 3"]
    turn: Float32[np.ndarray, "T B 4"]
    lamp_on: Bool[np.ndarray, " T"]
    belt_shift_m: Float32[np.ndarray, " T"]
    """How far the belt's pattern has moved along its x."""

    geom_body: Int32[np.ndarray, " G"]
    geom_place_m: Float32[np.ndarray, "G 3"]
    geom_turn: Float32[np.ndarray, "G 4"]
    geom_cylinder: Bool[np.ndarray, " G"]
    """A cylinder along its own z; otherwise a box."""
    geom_half_m: Float32[np.ndarray, "G 3"]
    """Half sizes; of a cylinder radius, radius and half height."""
    geom_colour: Float32[np.ndarray, "G 3"]
    geom_pattern: Float32[np.ndarray, "G 6"]
    """kind, period_m, red, green, blue, axis, as `render.Renderer` has it."""
    geom_material: Float32[np.ndarray, "G 3"]
    """Specular, shininess, reflectance."""
    lamp: int
    """The geom that has the colour `lamp_colour` where `lamp_on`."""
    lamp_colour: Float32[np.ndarray, "3"]
    belt: int
    """The geom whose pattern moves."""

    cameras: tuple[str, ...]
    camera_body: Int32[np.ndarray, " C"]
    camera_place_m: Float32[np.ndarray, "C 3"]
    camera_turn: Float32[np.ndarray, "C 4"]
    """Its x is the camera's right, y up, z back."""
    camera_fovy_deg: Float32[np.ndarray, " C"]

    light_place_m: Float32[np.ndarray, "S 3"]
    light_diffuse: Float32[np.ndarray, "S 3"]
    light_specular: Float32[np.ndarray, "S 3"]
    light_fading: Float32[np.ndarray, "S 3"]
    """Falls with 1 / (a + b r + c r^2)."""
    light_shadow: Bool[np.ndarray, " S"]
    ambient: Float32[np.ndarray, "3"]
    """Of the headlight and all lights."""
    head_diffuse: Float32[np.ndarray, "3"]
    head_specular: Float32[np.ndarray, "3"]

    def __len__(self) -> int:
        """Frames."""
        return len(self.place_m)

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as plain arrays by name, as `numpy.savez` takes them; `from_arrays` reads them back."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Drawing":
        """The inverse of `arrays`.

        Raises:
            SettingsError: arrays that are missing or of another name.
        """
        names = {field.name for field in fields(cls)}
        if odd := sorted(names ^ set(arrays)):
            raise SettingsError(f"A drawing has the arrays of Drawing.arrays(); missing or unknown: {', '.join(odd)}.")
        plain = {name: arrays[name] for name in names - {"cameras", "lamp", "belt"}}
        return cls(
            **plain,
            cameras=tuple(str(name) for name in arrays["cameras"]),
            lamp=int(arrays["lamp"]),
            belt=int(arrays["belt"]),
        )


def drawing_of(cell: Cell, states: Sequence[CellState]) -> Drawing:
    """The drawing of a cell at each of some states. `cell` is left in the last.

    Raises:
        SettingsError: no states, or a scene that is not drawn: shapes other than boxes and cylinders, cameras that
            follow something, lights that move, and what `render.Renderer` refuses.
    """
    if not states:
        raise SettingsError("A drawing has at least one frame, got no states.")
    model, data = cell.model, cell.data
    pattern = check_geoms(model)
    geoms = np.flatnonzero(model.geom_group < VISIBLE_GROUPS)
    _check(model, geoms)
    # What no joint moves is welded to the world, whatever its body is called.
    geom_moves = model.body_weldid[model.geom_bodyid[geoms]] != 0
    camera_moves = model.body_weldid[model.cam_bodyid] != 0
    bodies = np.union1d(model.geom_bodyid[geoms][geom_moves], model.cam_bodyid[camera_moves])
    number = np.zeros(model.nbody, np.int32)
    number[bodies] = 1 + np.arange(len(bodies))

    place_m = np.empty((len(states), len(bodies), 3))
    turn = np.empty((len(states), len(bodies), 4))
    xpos, xquat = data.xpos, data.xquat
    for t, state in enumerate(states):
        # Poses alone: a whole restore also solves for contacts, which takes ten times as long.
        mujoco.mj_setState(model, data, state.physics, ALL)
        mujoco.mj_kinematics(model, data)
        place_m[t], turn[t] = xpos[bodies], xquat[bodies]
    cell.restore(states[-1])

    half = model.geom_size[geoms].astype(np.float32)
    cylinder = model.geom_type[geoms] == _CYLINDER
    half[cylinder] = half[cylinder][:, (0, 0, 1)]
    lights = Light.all_of(model, data.light_xpos)
    head = model.vis.headlight
    on = 1.0 if head.active else 0.0
    material = np.stack([model.mat_specular, model.mat_shininess, model.mat_reflectance], axis=-1)
    return Drawing(
        place_m=place_m.astype(np.float32),
        turn=turn.astype(np.float32),
        lamp_on=np.array([state.memory.running for state in states]),
        belt_shift_m=np.array([state.memory.belt_travel_m for state in states], np.float32),
        geom_body=number[model.geom_bodyid[geoms]],
        geom_place_m=np.where(geom_moves[:, None], model.geom_pos[geoms], data.geom_xpos[geoms]).astype(np.float32),
        geom_turn=np.where(geom_moves[:, None], model.geom_quat[geoms], _turns(data.geom_xmat[geoms])).astype(
            np.float32
        ),
        geom_cylinder=cylinder,
        geom_half_m=half,
        geom_colour=model.geom_rgba[geoms, :3].astype(np.float32),
        geom_pattern=pattern[geoms],
        # A geom without a material has number -1, the row of zeros.
        geom_material=np.append(material, np.zeros((1, 3)), axis=0)[model.geom_matid[geoms]].astype(np.float32),
        lamp=int(np.searchsorted(geoms, model.geom("lamp").id)),
        lamp_colour=np.array(LAMP_ON, np.float32),
        belt=int(np.searchsorted(geoms, cell.belt_geom)),
        cameras=tuple(model.camera(index).name for index in range(model.ncam)),
        camera_body=number[model.cam_bodyid],
        camera_place_m=np.where(camera_moves[:, None], model.cam_pos, data.cam_xpos).astype(np.float32),
        camera_turn=np.where(camera_moves[:, None], model.cam_quat, _turns(data.cam_xmat)).astype(np.float32),
        camera_fovy_deg=model.cam_fovy.astype(np.float32),
        light_place_m=np.array([light.place for light in lights], np.float32).reshape(-1, 3),
        light_diffuse=np.array([light.diffuse for light in lights], np.float32).reshape(-1, 3),
        light_specular=np.array([light.specular for light in lights], np.float32).reshape(-1, 3),
        light_fading=np.array([light.fading for light in lights], np.float32).reshape(-1, 3),
        light_shadow=np.array([light.shadow for light in lights], bool),
        ambient=(on * np.array(head.ambient) + model.light_ambient[model.light_active != 0].sum(axis=0)).astype(
            np.float32
        ),
        head_diffuse=(on * np.array(head.diffuse)).astype(np.float32),
        head_specular=(on * np.array(head.specular)).astype(np.float32),
    )


def _check(model: mujoco.MjModel, geoms: np.ndarray) -> None:
    other = ~np.isin(model.geom_type[geoms], (_BOX, _CYLINDER))
    if other.any():
        geom = int(geoms[other.argmax()])
        raise SettingsError(
            f"Geom {model.geom(geom).name or geom!r} is neither a box nor a cylinder. Put it into group "
            f"{VISIBLE_GROUPS} or above, or draw with `render.Renderer`."
        )
    follows = (model.cam_mode != _FIXED).any() or (model.light_mode != _FIXED).any()
    if follows or (model.body_weldid[model.light_bodyid] != 0).any():
        raise SettingsError("A camera follows something, or a light moves. Fix them, or draw with `render.Renderer`.")


def _turns(matrices: np.ndarray) -> np.ndarray:
    """(N, 9) rotations as quaternions (N, 4)."""
    turns = np.empty((len(matrices), 4))
    for turn, matrix in zip(turns, matrices, strict=True):
        mujoco.mju_mat2Quat(turn, matrix)
    return turns
