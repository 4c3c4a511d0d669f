"""Pictures, depth and segmentation of a MuJoCo scene by MuJoCo's own ray caster: no OpenGL, no display, the same bytes.

One `mj_multiRay` call from the camera finds what each pixel sees, one from each light what lies in its shadow (`rays`);
the rest is shading in numpy (`shade`).

For a camera that is fixed to the world, what it sees of the static geoms (those that no joint moves), the light on them
and their colours are kept; per frame only rays that can meet a moving geom are cast. What was kept is compared with the
model and the data on every call, so an edit of a geom, a camera, a light or a material is never missed.

The scene decides what is drawn: geom_rgba is the colour (the colour and texture of materials is not read), geom groups
0 to 2 are visible, `geom_user` holds a pattern (see `Renderer`). What moves and how is left to the simulation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, UInt8

from orrery.errors import SettingsError
from orrery.worlds.factory.rays import Caster, Cones, Shot, Surface
from orrery.worlds.factory.shade import Light, Looks, check_geoms, faces, light_state, shade

NO_SHIFT: Mapping[int, tuple[float, float]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class View:
    """What one camera sees."""

    colour: UInt8[np.ndarray, "H W 3"]
    depth_m: Float32[np.ndarray, "H W"]
    """Along the optical axis to the middle of the pixel; infinite where nothing was hit."""
    segmentation: Int32[np.ndarray, "H W"]
    """The geom in the middle of the pixel, -1 for none."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The static geoms in one picture, and the state of camera and scene in which that is so."""

    state: bytes
    rays: Float64[np.ndarray, "N 3"]
    surface: Surface
    depth: Float64[np.ndarray, " N"]
    cones: Cones


@dataclass(kw_only=True)
class _Painted:
    """Light and colour of `_Seen`, and the state of lights and materials in which that is so."""

    state: bytes
    lit: list[Bool[np.ndarray, " N"]]
    cones: list[Cones]
    """From each light to what it lights."""
    colour: UInt8[np.ndarray, "N 3"]
    looks: Looks


class Renderer:
    """Renders one model; keep it for as long as the model, since what is static is cast only once per camera and size.

    Before each call the caller has run `mj_forward`, or `mj_kinematics` and `mj_camlight`: no pose is computed here.

    Light is the model's headlight (ambient, and diffuse from the camera without shadow) and every active light of type
    point or spot, either shining to all sides with hard shadows. A geom with a material has its highlights (specular,
    shininess), and with `reflectance` above 0 the sheen of metal. Alpha is not blended: what is visible is opaque.

    Patterns are `geom_user` = [kind, period_m, red, green, blue, axis] where the model has nuser_geom of 6 or more, in
    the geom's own coordinates; (red, green, blue) in 0 to 1 takes turns with the geom's colour, both once per period.
    Kind 0 is no pattern, 1 a checker in x and y, 2 stripes that follow each other along `axis` (0 x, 1 y, 2 z).

    Raises:
        SettingsError: here or in a later call, the scene asks for what is not drawn: a transparent geom in a visible
            group, an unknown pattern, an active light without a place, or a camera that is not a plain pinhole.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._caster = Caster(model)
        self._seen: dict[tuple[int, int, int], _Seen] = {}
        self._painted: dict[tuple[int, int, int], _Painted] = {}
        check_geoms(model)
        Light.all_of(model, np.zeros((model.nlight, 3)))

    def render(
        self,
        data: mujoco.MjData,
        camera: str,
        height: int,
        width: int,
        *,
        geom_rgba: Float[np.ndarray, "G 4"] | None = None,
        pattern_shift_m: Mapping[int, tuple[float, float]] = NO_SHIFT,
        supersample: int = 1,
    ) -> View:
        """One shaded frame.

        Args:
            geom_rgba: colours in 0 to 1 that replace the model's; alpha is not read.
            pattern_shift_m: by geom id, how far its pattern has moved along the geom's own x and y.
            supersample: 2 smooths edges with 2 x 2 rays for each pixel's colour, at about four times the cost. Depth
                and segmentation are always those of the middle of the pixel.

        Raises:
            SettingsError: no such camera, size, geom or pattern; see also the class.
        """
        if supersample not in (1, 2):
            raise SettingsError(f"supersample is 1 or 2 rays a side, got {supersample}.")
        looks = Looks.of(self._model, geom_rgba, pattern_shift_m)
        shot = Shot.of(self._model, data, camera, height * supersample, width * supersample)
        lights = Light.all_of(self._model, data.light_xpos)
        if shot.fixed and all(light.fixed for light in lights):
            colour, depth, geom = self._render_fixed(data, shot, lights, looks)
        else:
            surface, depth = self._caster.surface(data, shot, shot.rays())
            colour, geom = self._shade(data, surface, lights, looks), surface.geom
        if supersample == 2:
            four = colour.reshape(height, 2, width, 2, 3).astype(np.uint16)
            colour = ((four[:, 0, :, 0] + four[:, 0, :, 1] + four[:, 1, :, 0] + four[:, 1, :, 1] + 2) // 4).astype(
                np.uint8
            )
            segmentation, depth_m = self.segment(data, camera, height, width)
        else:
            segmentation, depth_m = geom.reshape(height, width), depth.reshape(height, width).astype(np.float32)
        return View(colour=colour.reshape(height, width, 3), depth_m=depth_m, segmentation=segmentation)

    def segment(
        self, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> tuple[Int32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
        """Segmentation and depth of `render`, without the work of colours."""
        check_geoms(self._model)
        shot = Shot.of(self._model, data, camera, height, width)
        if shot.fixed:
            seen = self._static_view(data, shot)
            pixels, surface, near = self._moving(data, shot, seen)
            geom, depth = seen.surface.geom.copy(), seen.depth.copy()
            geom[pixels], depth[pixels] = surface.geom, near
        else:
            surface, depth = self._caster.surface(data, shot, shot.rays())
            geom = surface.geom
        return geom.reshape(height, width), depth.reshape(height, width).astype(np.float32)

    def _render_fixed(
        self, data: mujoco.MjData, shot: Shot, lights: list[Light], looks: Looks
    ) -> tuple[UInt8[np.ndarray, "N 3"], Float64[np.ndarray, " N"], Int32[np.ndarray, " N"]]:
        """Colour, depth and geom of each pixel: the static geoms as kept, then moving ones and their shadows."""
        seen = self._static_view(data, shot)
        painted = self._static_paint(data, shot, seen, lights, looks)
        colour, geom, depth = painted.colour.copy(), seen.surface.geom.copy(), seen.depth.copy()

        covered, surface, near = self._moving(data, shot, seen)
        if covered.size:
            geom[covered], depth[covered] = surface.geom, near
            colour[covered] = self._shade(data, surface, lights, looks)

        bounds = self._caster.bounds(data)
        lit = list(painted.lit)
        darkened = np.zeros(geom.shape, dtype=bool)
        for index, light in enumerate(lights):
            if light.shadow:
                pixels = painted.cones[index].reached(light.place, *bounds)
                free = self._caster.unblocked(data, light.place, seen.surface.point[pixels], static=False)
                blocked = pixels[~free]
                lit[index] = lit[index].copy()
                lit[index][blocked] = False
                darkened[blocked] = True
        darkened[covered] = False
        again = np.flatnonzero(darkened)
        if again.size:
            colour[again] = self._shade_again(data, seen.surface, again, lights, lit, looks)
        return colour, depth, geom

    def _static_view(self, data: mujoco.MjData, shot: Shot) -> _Seen:
        """The static geoms from a fixed camera: kept, or cast anew if anything about them has changed."""
        key, state = (shot.camera, shot.height, shot.width), shot.state() + self._caster.static_state(data)
        seen = self._seen.get(key)
        if seen is None or seen.state != state:
            rays = shot.rays()
            surface, depth = self._caster.surface(data, shot, rays, moving=False)
            cones = Cones.around(rays, np.arange(len(rays)), shot.tiles())
            seen = self._seen[key] = _Seen(state=state, rays=rays, surface=surface, depth=depth, cones=cones)
        return seen

    def _static_paint(
        self, data: mujoco.MjData, shot: Shot, seen: _Seen, lights: list[Light], looks: Looks
    ) -> _Painted:
        """Light and colour of the static geoms with no moving ones about; only geoms that look different are redone."""
        key, state = (shot.camera, shot.height, shot.width), seen.state + light_state(self._model, lights)
        painted = self._painted.get(key)
        if painted is None or painted.state != state:
            lit = [self._lit(data, light, seen.surface, moving=False) for light in lights]
            tile = shot.tiles()
            cones = []
            for light, bright in zip(lights, lit, strict=True):
                there = np.flatnonzero(bright)
                cones.append(Cones.around(seen.surface.point[there] - light.place, there, tile[there]))
            colour = shade(self._model, data, seen.surface, lights, lit, looks)
            painted = self._painted[key] = _Painted(state=state, lit=lit, cones=cones, colour=colour, looks=looks)
            return painted
        # The last entry is for pixels that see nothing, whose geom is -1.
        changed = np.append(looks.differ(painted.looks) & self._caster.static, False)
        if changed.any():
            pixels = np.flatnonzero(changed[seen.surface.geom])
            painted.colour[pixels] = self._shade_again(data, seen.surface, pixels, lights, painted.lit, looks)
            painted.looks = looks
        return painted

    def _moving(
        self, data: mujoco.MjData, shot: Shot, seen: _Seen
    ) -> tuple[Int[np.ndarray, " P"], Surface, Float64[np.ndarray, " P"]]:
        """The pixels where a moving geom is before the static ones, what is there, and its depth."""
        pixels = seen.cones.reached(shot.place, *self._caster.bounds(data))
        surface, depth = self._caster.surface(data, shot, seen.rays[pixels], static=False)
        nearer = np.flatnonzero(depth < seen.depth[pixels])
        return pixels[nearer], surface.take(nearer), depth[nearer]

    def _lit(
        self, data: mujoco.MjData, light: Light, surface: Surface, *, moving: bool = True
    ) -> Bool[np.ndarray, " P"]:
        """Where the surface faces a light and no geom stands between."""
        lit = faces(surface, light)
        if light.shadow:
            facing = np.flatnonzero(lit)
            lit[facing] = self._caster.unblocked(data, light.place, surface.point[facing], moving=moving)
        return lit

    def _shade(
        self, data: mujoco.MjData, surface: Surface, lights: list[Light], looks: Looks
    ) -> UInt8[np.ndarray, "P 3"]:
        return shade(self._model, data, surface, lights, [self._lit(data, light, surface) for light in lights], looks)

    def _shade_again(
        self,
        data: mujoco.MjData,
        surface: Surface,
        pixels: Int[np.ndarray, " Q"],
        lights: list[Light],
        lit: list[Bool[np.ndarray, " P"]],
        looks: Looks,
    ) -> UInt8[np.ndarray, "Q 3"]:
        """Some pixels of a surface, where it is known which light reaches them."""
        return shade(self._model, data, surface.take(pixels), lights, [each[pixels] for each in lit], looks)


def project(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: str,
    points_m: Float[np.ndarray, "N 3"],
    height: int,
    width: int,
) -> Float64[np.ndarray, "N 3"]:
    """Where points of the world are in the picture: (u, v, depth_m) each.

    u counts pixels to the right and v down; the middle of the first pixel is (0.5, 0.5). Points outside the picture
    have u, v beyond it, and points behind the camera a depth_m of 0 or less, where u, v are NaN.

    Raises:
        SettingsError: no such camera, or not a plain pinhole.
    """
    shot = Shot.of(model, data, camera, height, width)
    seen = (points_m.astype(np.float64) - shot.place) @ shot.turn
    depth = -seen[:, 2]
    safe = np.where(depth > 0, depth, np.nan)
    return np.stack(
        [width / 2 + seen[:, 0] / safe / shot.pixel, height / 2 - seen[:, 1] / safe / shot.pixel, depth], axis=-1
    )
