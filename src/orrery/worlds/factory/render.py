"""Pictures, depth and segmentation of a MuJoCo scene by MuJoCo's own ray caster: no OpenGL, no display, the same bytes.

One `mj_multiRay` call from the camera finds what each pixel sees, one from each light what lies in its shadow; the rest
is shading in numpy. Shading is + - * / and square roots alone, which IEEE 754 rounds the same everywhere, so a state
has one picture whatever the processor.

For a camera that is fixed to the world, what it sees of the static geoms (those that no joint moves), the light on them
and their colours are kept; per frame only rays that can meet a moving geom are cast. What was kept is compared with the
model and the data on every call, so an edit of a geom, a camera, a light or a material is never missed.

The scene decides what is drawn: geom_rgba is the colour (the colour and texture of materials is not read), geom groups
0 to 2 are visible, `geom_user` holds a pattern (see `Renderer`). What moves and how is left to the simulation.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, UInt8

from orrery.errors import SettingsError

VISIBLE_GROUPS = 3
"""Geoms in groups below this are seen; the others are for collisions only."""
PATTERN_COLUMNS = 6
"""geom_user = kind, period_m, red, green, blue, axis."""
CHECKER, STRIPES = 1, 2
NO_SHIFT: Mapping[int, tuple[float, float]] = MappingProxyType({})

_GROUPS = np.array([group < VISIBLE_GROUPS for group in range(mujoco.mjNGROUP)], dtype=np.uint8)
_PLACED = (int(mujoco.mjtLightType.mjLIGHT_SPOT), int(mujoco.mjtLightType.mjLIGHT_POINT))
_PERSPECTIVE, _FIXED = int(mujoco.mjtProjection.mjPROJ_PERSPECTIVE), int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
_FAR = 1e10
_SHADOW_GAP_M = 1e-4
"""A surface nearer than this to a lit point casts no shadow on it: it is that surface itself, up to rounding."""
_TILES_ACROSS = 16

# Colours of what lies outside the scene, seen directly and in the sheen of metal.
_HORIZON, _ZENITH = (0.80, 0.83, 0.87), (0.55, 0.64, 0.76)
_SHEEN_LOW, _SHEEN_HORIZON, _SHEEN_HIGH = 0.55, 0.18, 1.05

Vector = Float64[np.ndarray, "3"]


@dataclass(frozen=True, kw_only=True)
class View:
    """What one camera sees."""

    colour: UInt8[np.ndarray, "H W 3"]
    depth_m: Float32[np.ndarray, "H W"]
    """Along the optical axis to the middle of the pixel; infinite where nothing was hit."""
    segmentation: Int32[np.ndarray, "H W"]
    """The geom in the middle of the pixel, -1 for none."""


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
        self._static = model.body_weldid[model.geom_bodyid] == 0
        self._seen: dict[tuple[int, int, int], _Seen] = {}
        self._painted: dict[tuple[int, int, int], _Painted] = {}
        _check_geoms(model)
        _lights(model, np.zeros((model.nlight, 3)))

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
        looks = _looks(self._model, geom_rgba, pattern_shift_m)
        shot = _shot(self._model, data, camera, height * supersample, width * supersample)
        lights = _lights(self._model, data.light_xpos)
        if shot.fixed and all(light.fixed for light in lights):
            colour, depth, geom = self._render_fixed(data, shot, lights, looks)
        else:
            surface, depth = self._surface(data, shot, _rays(shot))
            lit = [self._lit(data, light, surface) for light in lights]
            colour, geom = _shade(self._model, data, surface, lights, lit, looks), surface.geom
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
        _check_geoms(self._model)
        shot = _shot(self._model, data, camera, height, width)
        if shot.fixed:
            seen = self._static_view(data, shot)
            pixels, surface, near = self._moving(data, shot, seen)
            geom, depth = seen.surface.geom.copy(), seen.depth.copy()
            geom[pixels], depth[pixels] = surface.geom, near
        else:
            surface, depth = self._surface(data, shot, _rays(shot))
            geom = surface.geom
        return geom.reshape(height, width), depth.reshape(height, width).astype(np.float32)

    def _render_fixed(
        self, data: mujoco.MjData, shot: "_Shot", lights: "list[_Light]", looks: "_Looks"
    ) -> tuple[UInt8[np.ndarray, "N 3"], Float64[np.ndarray, " N"], Int32[np.ndarray, " N"]]:
        """Colour, depth and geom of each pixel: the static geoms as kept, then moving ones and their shadows."""
        model = self._model
        seen = self._static_view(data, shot)
        painted = self._static_paint(data, shot, seen, lights, looks)
        colour, geom, depth = painted.colour.copy(), seen.surface.geom.copy(), seen.depth.copy()

        covered, surface, near = self._moving(data, shot, seen)
        if covered.size:
            geom[covered], depth[covered] = surface.geom, near
            lit = [self._lit(data, light, surface) for light in lights]
            colour[covered] = _shade(model, data, surface, lights, lit, looks)

        bounds = self._bounds(data)
        lit = list(painted.lit)
        darkened = np.zeros(geom.shape, dtype=bool)
        for index, light in enumerate(lights):
            if light.shadow:
                pixels = painted.cones[index].reached(light.place, *bounds)
                blocked = pixels[~self._unblocked(data, light, seen.surface.point[pixels], static=False)]
                lit[index] = lit[index].copy()
                lit[index][blocked] = False
                darkened[blocked] = True
        darkened[covered] = False
        again = np.flatnonzero(darkened)
        if again.size:
            colour[again] = _shade(model, data, seen.surface.take(again), lights, [each[again] for each in lit], looks)
        return colour, depth, geom

    def _static_view(self, data: mujoco.MjData, shot: "_Shot") -> "_Seen":
        """The static geoms from a fixed camera: kept, or cast anew if anything about them has changed."""
        key, state = (shot.camera, shot.height, shot.width), shot.state() + self._static_state(data)
        seen = self._seen.get(key)
        if seen is None or seen.state != state:
            rays = _rays(shot)
            surface, depth = self._surface(data, shot, rays, moving=False)
            tile = _tiles(shot.height, shot.width)
            cones = _Cones.around(rays, np.arange(len(rays)), tile)
            seen = self._seen[key] = _Seen(state=state, rays=rays, surface=surface, depth=depth, cones=cones)
        return seen

    def _static_paint(
        self, data: mujoco.MjData, shot: "_Shot", seen: "_Seen", lights: "list[_Light]", looks: "_Looks"
    ) -> "_Painted":
        """Light and colour of the static geoms with no moving ones about; only geoms that look different are redone."""
        key, state = (shot.camera, shot.height, shot.width), seen.state + _light_state(self._model, lights)
        painted = self._painted.get(key)
        if painted is None or painted.state != state:
            lit = [self._lit(data, light, seen.surface, moving=False) for light in lights]
            tile = _tiles(shot.height, shot.width)
            cones = []
            for light, bright in zip(lights, lit, strict=True):
                there = np.flatnonzero(bright)
                cones.append(_Cones.around(seen.surface.point[there] - light.place, there, tile[there]))
            colour = _shade(self._model, data, seen.surface, lights, lit, looks)
            painted = self._painted[key] = _Painted(state=state, lit=lit, cones=cones, colour=colour, looks=looks)
            return painted
        # The last entry is for pixels that see nothing, whose geom is -1.
        changed = np.append(looks.differ(painted.looks) & self._static, False)
        if changed.any():
            pixels = np.flatnonzero(changed[seen.surface.geom])
            lit = [each[pixels] for each in painted.lit]
            painted.colour[pixels] = _shade(self._model, data, seen.surface.take(pixels), lights, lit, looks)
            painted.looks = looks
        return painted

    def _moving(
        self, data: mujoco.MjData, shot: "_Shot", seen: "_Seen"
    ) -> tuple[Int[np.ndarray, " P"], "_Surface", Float64[np.ndarray, " P"]]:
        """The pixels where a moving geom is before the static ones, what is there, and its depth."""
        pixels = seen.cones.reached(shot.place, *self._bounds(data))
        surface, depth = self._surface(data, shot, seen.rays[pixels], static=False)
        nearer = np.flatnonzero(depth < seen.depth[pixels])
        return pixels[nearer], surface.take(nearer), depth[nearer]

    def _bounds(self, data: mujoco.MjData) -> tuple[Float64[np.ndarray, "M 3"], Float64[np.ndarray, " M"]]:
        """Centre and radius of a sphere around each moving, visible geom; a plane has none that is finite."""
        moving = np.flatnonzero(~self._static & (self._model.geom_group < VISIBLE_GROUPS))
        radius = self._model.geom_rbound[moving]
        return data.geom_xpos[moving], np.where(radius > 0, radius, np.inf)

    def _surface(
        self,
        data: mujoco.MjData,
        shot: "_Shot",
        rays: Float64[np.ndarray, "P 3"],
        *,
        static: bool = True,
        moving: bool = True,
    ) -> tuple["_Surface", Float64[np.ndarray, " P"]]:
        """What rays from the camera meet first, and its depth."""
        outward = np.empty(rays.size)
        geom, depth = self._cast(data, shot.place, rays, outward, static=static, moving=moving)
        normal = outward.reshape(-1, 3).T.astype(np.float32, order="C")
        point = shot.place + rays * depth[:, None]
        toward = (rays.T / -_length(rays)).astype(np.float32, order="C")
        pixel_m = (depth * shot.pixel).astype(np.float32)
        surface = _Surface(geom=geom, point=point, normal=normal, toward=toward, pixel_m=pixel_m)
        return surface, np.where(geom < 0, np.inf, depth)

    def _lit(
        self, data: mujoco.MjData, light: "_Light", surface: "_Surface", *, moving: bool = True
    ) -> Bool[np.ndarray, " P"]:
        """Where the surface faces a light and no geom stands between."""
        toward, _ = _toward(light.place, surface.point)
        lit = (_dot(toward, surface.normal) > 0) & (surface.geom >= 0)
        if light.shadow:
            facing = np.flatnonzero(lit)
            lit[facing] = self._unblocked(data, light, surface.point[facing], moving=moving)
        return lit

    def _unblocked(
        self,
        data: mujoco.MjData,
        light: "_Light",
        points: Float64[np.ndarray, "P 3"],
        *,
        static: bool = True,
        moving: bool = True,
    ) -> Bool[np.ndarray, " P"]:
        rays = points - light.place
        geom, share = self._cast(data, light.place, rays, None, static=static, moving=moving)
        free: Bool[np.ndarray, " P"] = (geom < 0) | ((1 - share) * _length(rays) < _SHADOW_GAP_M)
        return free

    def _cast(
        self,
        data: mujoco.MjData,
        place: Vector,
        rays: Float64[np.ndarray, "P 3"],
        normal: Float64[np.ndarray, "3*P"] | None,
        *,
        static: bool,
        moving: bool,
    ) -> tuple[Int32[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
        """Geom and distance, in lengths of the ray, of each first hit; -1 and -1 for none. Fills `normal`, outward."""
        model = self._model
        if not moving:
            # MuJoCo leaves out static geoms on request, moving ones only by their group.
            model = copy.copy(model)
            model.geom_group[~self._static] = mujoco.mjNGROUP - 1
        count = len(rays)
        geom, share = np.empty(count, np.int32), np.empty(count)
        flat = np.ascontiguousarray(rays).reshape(-1)
        mujoco.mj_multiRay(model, data, place, flat, _GROUPS, static, -1, geom, share, normal, count, _FAR)
        return geom, share

    def _static_state(self, data: mujoco.MjData) -> bytes:
        """Everything that decides where the static geoms are."""
        model = self._model
        where = (data.geom_xpos[self._static], data.geom_xmat[self._static], model.geom_size, model.geom_type)
        which = (model.geom_group, model.geom_dataid, model.mesh_vert, model.mesh_face, model.hfield_size)
        return b"".join(array.tobytes() for array in (*where, *which, model.hfield_data))


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
    shot = _shot(model, data, camera, height, width)
    seen = (points_m.astype(np.float64) - shot.place) @ shot.turn
    depth = -seen[:, 2]
    safe = np.where(depth > 0, depth, np.nan)
    return np.stack(
        [width / 2 + seen[:, 0] / safe / shot.pixel, height / 2 - seen[:, 1] / safe / shot.pixel, depth], axis=-1
    )


@dataclass(frozen=True, kw_only=True)
class _Shot:
    """One camera at one moment and size."""

    camera: int
    height: int
    width: int
    place: Vector
    turn: Float64[np.ndarray, "3 3"]
    """Columns are the camera's right, up and back in the world."""
    pixel: float
    """Side of a pixel at a depth of 1."""
    fixed: bool

    def state(self) -> bytes:
        return self.place.tobytes() + self.turn.tobytes() + np.float64(self.pixel).tobytes()


@dataclass(frozen=True, kw_only=True)
class _Light:
    place: Vector
    diffuse: tuple[float, float, float]
    specular: tuple[float, float, float]
    fading: tuple[float, float, float]
    """Light falls with 1 / (a + b r + c r^2)."""
    shadow: bool
    fixed: bool


@dataclass(frozen=True, kw_only=True)
class _Looks:
    """How each geom is coloured."""

    colour: Float32[np.ndarray, "G 3"]
    pattern: Float32[np.ndarray, "G 6"]
    shift_m: Float32[np.ndarray, "G 2"]

    def differ(self, other: "_Looks") -> Bool[np.ndarray, " G"]:
        differ: Bool[np.ndarray, " G"] = (
            (self.colour != other.colour).any(axis=1)
            | (self.pattern != other.pattern).any(axis=1)
            | (self.shift_m != other.shift_m).any(axis=1)
        )
        return differ


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """What P rays met; geom is -1, and point and normal mean nothing, where that is nothing."""

    geom: Int32[np.ndarray, " P"]
    point: Float64[np.ndarray, "P 3"]
    normal: Float32[np.ndarray, "3 P"]
    toward: Float32[np.ndarray, "3 P"]
    """Unit vector to the camera."""
    pixel_m: Float32[np.ndarray, " P"]
    """Side of a pixel at that depth."""

    def take(self, pixels: Int[np.ndarray, " Q"]) -> "_Surface":
        return _Surface(
            geom=self.geom[pixels],
            point=self.point[pixels],
            normal=self.normal.take(pixels, axis=1),
            toward=self.toward.take(pixels, axis=1),
            pixel_m=self.pixel_m[pixels],
        )


@dataclass(frozen=True, kw_only=True)
class _Cones:
    """Rays from one point in bundles: an axis and a half angle that hold each, to tell which can meet a sphere."""

    pixel: Int[np.ndarray, " P"]
    tile: Int[np.ndarray, " P"]
    axis: Float64[np.ndarray, "T 3"]
    half_rad: Float64[np.ndarray, " T"]

    @classmethod
    def around(
        cls, rays: Float64[np.ndarray, "P 3"], pixel: Int[np.ndarray, " P"], tile: Int[np.ndarray, " P"]
    ) -> "_Cones":
        unit = rays / np.sqrt(np.square(rays).sum(axis=1, keepdims=True))
        tiles = int(tile.max(initial=-1)) + 1
        total = np.stack([np.bincount(tile, unit[:, k], tiles) for k in range(3)], axis=-1)
        axis = total / np.maximum(np.sqrt(np.square(total).sum(axis=1, keepdims=True)), 1e-12)
        nearest = np.ones(tiles)
        np.minimum.at(nearest, tile, (unit * axis[tile]).sum(axis=1))
        return cls(pixel=pixel, tile=tile, axis=axis, half_rad=np.arccos(nearest.clip(-1, 1)))

    def reached(
        self, place: Vector, centre: Float64[np.ndarray, "M 3"], radius: Float64[np.ndarray, " M"]
    ) -> Int[np.ndarray, " Q"]:
        """Pixels, in order, whose bundle can meet one of the spheres; the others cannot."""
        way = centre - place
        away = np.sqrt(np.square(way).sum(axis=1))
        sine = radius / np.maximum(away, 1e-12)
        within = sine >= 1
        theta = np.arcsin(np.minimum(sine, 1))
        # Two cones meet where the angle between them is at most the sum; cos(sum) by the law of addition. A bundle
        # wider than a half space meets everything.
        wide = self.half_rad >= np.pi / 2
        between = self.axis @ (way / np.maximum(away, 1e-12)[:, None]).T  # (T, M)
        limit = np.outer(np.cos(self.half_rad), np.cos(theta)) - np.outer(np.sin(self.half_rad), np.sin(theta))
        # 1e-9 in the cosine is far above rounding: bundles only choose what is cast, never what is seen.
        meets = wide | ((between >= limit - 1e-9) | within).any(axis=1)
        return self.pixel[meets[self.tile]]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The static geoms in one picture, and the state of camera and scene in which that is so."""

    state: bytes
    rays: Float64[np.ndarray, "N 3"]
    surface: _Surface
    depth: Float64[np.ndarray, " N"]
    cones: _Cones


@dataclass(kw_only=True)
class _Painted:
    """Light and colour of `_Seen`, and the state of lights and materials in which that is so."""

    state: bytes
    lit: list[Bool[np.ndarray, " N"]]
    cones: list[_Cones]
    """From each light to what it lights."""
    colour: UInt8[np.ndarray, "N 3"]
    looks: _Looks


def _shade(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    surface: _Surface,
    lights: list[_Light],
    lit: list[Bool[np.ndarray, " P"]],
    looks: _Looks,
) -> UInt8[np.ndarray, "P 3"]:
    """The colour of each pixel from that pixel alone, in float32, so that any selection of pixels shades the same."""
    geom, normal, toward = surface.geom, surface.normal, surface.toward
    facing = np.maximum(_dot(normal, toward), 0)
    paint = _paint(data, surface, facing, looks)  # (3, P)
    head = model.vis.headlight
    on = 1.0 if head.active else 0.0
    ambient = [
        on * float(part) + float(model.light_ambient[model.light_active, k].sum())
        for k, part in enumerate(head.ambient)
    ]
    # From above a little brighter than from below, as in any room.
    sky = 0.85 + 0.15 * normal[2]
    light_in = np.stack([ambient[k] * sky + on * float(head.diffuse[k]) * facing for k in range(3)])

    specular, shininess, reflectance = (
        np.append(column, np.float32(0))[model.geom_matid][geom]
        for column in (model.mat_specular, model.mat_shininess, model.mat_reflectance)
    )
    glossy = np.flatnonzero(specular > 0)
    gloss = [on * float(part) for part in head.specular]
    shine = np.zeros((3, len(glossy)), np.float32)
    exponent = 2 + 62 * shininess[glossy]
    _add(shine, _lobe(2 * facing[glossy] * facing[glossy] - 1, exponent), gloss)
    for light, bright in zip(lights, lit, strict=True):
        way, distance = _toward(light.place, surface.point)
        a, b, c = light.fading
        strength = bright / (a + distance * (b + distance * c)) if (a, b, c) != (1, 0, 0) else bright
        fall = np.maximum(_dot(normal, way), 0) * strength
        _add(light_in, fall, light.diffuse)
        # r . v for r the light mirrored in the surface is 2 (n . l)(n . v) - l . v.
        cosine = 2 * _dot(normal[:, glossy], way[:, glossy]) * facing[glossy] - _dot(way[:, glossy], toward[:, glossy])
        _add(shine, _lobe(cosine, exponent) * strength[glossy], light.specular)
    out = paint * light_in
    out[:, glossy] += shine * specular[glossy]

    metal = np.flatnonzero(reflectance > 0)
    if metal.size:
        up = 2 * facing[metal] * normal[2, metal] - toward[2, metal]
        rise, fall = np.maximum(up, 0), np.maximum(-up, 0)
        sheen = _SHEEN_HORIZON + (_SHEEN_HIGH - _SHEEN_HORIZON) * rise + (_SHEEN_LOW - _SHEEN_HORIZON) * fall
        share = reflectance[metal]
        out[:, metal] = out[:, metal] * (1 - share) + (0.3 + 0.7 * paint[:, metal]) * sheen * share

    nothing = np.flatnonzero(geom < 0)
    if nothing.size:
        up = np.maximum(-toward[2, nothing], 0)
        for k in range(3):
            out[k, nothing] = _HORIZON[k] + (_ZENITH[k] - _HORIZON[k]) * up
    return np.ascontiguousarray((out.clip(0, 1) * 255 + 0.5).astype(np.uint8).T)


def _paint(
    data: mujoco.MjData, surface: _Surface, facing: Float32[np.ndarray, " P"], looks: _Looks
) -> Float32[np.ndarray, "3 P"]:
    """Colour of the surface itself: the geom's, or its pattern's."""
    geom = surface.geom
    paint = np.ascontiguousarray(looks.colour[geom].T)
    for each in np.flatnonzero(looks.pattern[:, 0]):
        here = np.flatnonzero(geom == each)
        if not here.size:
            continue
        kind, period, red, green, blue, axis = looks.pattern[each].tolist()
        axes = (0, 1) if kind == CHECKER else (int(axis),)
        # Under a slant a pixel covers more of the surface; below 0.1 it is as good as blurred out.
        blur = surface.pixel_m[here] / np.maximum(facing[here], 0.1)
        shift = (*looks.shift_m[each].tolist(), 0.0)
        apart, turn = surface.point[here] - data.geom_xpos[each], data.geom_xmat[each].reshape(3, 3)
        share = np.ones(len(here), np.float32)
        for k in axes:
            along = apart[:, 0] * turn[0, k] + apart[:, 1] * turn[1, k] + apart[:, 2] * turn[2, k]
            share *= _wave((along - shift[k]) / period, blur / period)
        for k, second in enumerate((red, green, blue)):
            first = looks.colour[each, k]
            paint[k, here] = first + (second - first) * (0.5 - 0.5 * share)
    return paint


def _wave(turns: Float64[np.ndarray, " P"], blur: Float32[np.ndarray, " P"]) -> Float32[np.ndarray, " P"]:
    """1 in the first half of each turn, -1 in the second, sloped over `blur` turns; near 0 where that is long."""
    # Turns to the nearer edge, positive in the first half: a triangle wave.
    edge = (0.25 - np.abs(turns - 0.25 - np.floor(turns + 0.25))).astype(np.float32)
    return (edge / (0.5 * blur)).clip(-1, 1)


def _lobe(cosine: Float32[np.ndarray, " P"], exponent: Float32[np.ndarray, " P"]) -> Float32[np.ndarray, " P"]:
    """About cosine ** exponent, 0 to 1, without a power. Source: Schlick 1994, A Fast Alternative to Phong's Model."""
    cosine = np.maximum(cosine, 0)
    return cosine / (exponent - exponent * cosine + cosine)


def _add(total: Float32[np.ndarray, "3 P"], amount: Float32[np.ndarray, " P"], colour: Sequence[float]) -> None:
    """total += colour x amount, in place."""
    for k, part in enumerate(colour):
        total[k] += part * amount


def _dot(a: Float32[np.ndarray, "3 P"], b: Float32[np.ndarray, "3 P"]) -> Float32[np.ndarray, " P"]:
    """In one order of additions, unlike `@` and einsum, whose last bit depends on the processor."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _length(rays: Float64[np.ndarray, "P 3"]) -> Float64[np.ndarray, " P"]:
    x, y, z = rays.T
    return np.sqrt(x * x + y * y + z * z)


def _toward(
    place: Vector, points: Float64[np.ndarray, "P 3"]
) -> tuple[Float32[np.ndarray, "3 P"], Float32[np.ndarray, " P"]]:
    """Unit vector from each point to a place, and how far that is."""
    way = (place - points).T.astype(np.float32, order="C")
    distance = np.sqrt(_dot(way, way))
    return way / np.maximum(distance, np.float32(1e-6)), distance


def _rays(shot: _Shot) -> Float64[np.ndarray, "N 3"]:
    """One ray through the middle of each pixel, row by row, of depth 1: what a cast then returns is the depth."""
    right = (np.arange(shot.width) + 0.5 - shot.width / 2) * shot.pixel
    up = (shot.height / 2 - 0.5 - np.arange(shot.height)) * shot.pixel
    rays = np.empty((shot.height, shot.width, 3))
    for k, (to_right, to_up, to_back) in enumerate(shot.turn):
        rays[..., k] = (up * to_up - to_back)[:, None] + right * to_right
    return rays.reshape(-1, 3)


def _tiles(height: int, width: int) -> Int[np.ndarray, " N"]:
    """For each pixel the number of its tile: neighbours, whose rays make narrow bundles."""
    side = max(4, -(-max(height, width) // _TILES_ACROSS))
    across = -(-width // side)
    return ((np.arange(height) // side)[:, None] * across + np.arange(width) // side).reshape(-1)


def _shot(model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int) -> _Shot:
    if height < 1 or width < 1:
        raise SettingsError(f"A picture has at least one pixel a side, got {height} x {width}.")
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
    if index < 0:
        names = [model.camera(each).name for each in range(model.ncam)]
        raise SettingsError(f"No camera {camera!r}. Known: {', '.join(names) or 'none; add one to the scene'}.")
    if model.cam_projection[index] != _PERSPECTIVE or model.cam_sensorsize[index].any():
        raise SettingsError(
            f"Camera {camera!r} is not a plain pinhole. Give it a fovy, no sensor size, no orthographic."
        )
    return _Shot(
        camera=index,
        height=height,
        width=width,
        place=data.cam_xpos[index].copy(),
        turn=data.cam_xmat[index].reshape(3, 3).copy(),
        pixel=2 * math.tan(math.radians(model.cam_fovy[index]) / 2) / height,
        fixed=_is_fixed(model, int(model.cam_mode[index]), int(model.cam_bodyid[index])),
    )


def _is_fixed(model: mujoco.MjModel, mode: int, body: int) -> bool:
    return bool(mode == _FIXED and model.body_weldid[body] == 0)


def _lights(model: mujoco.MjModel, places: Float64[np.ndarray, "S 3"]) -> list[_Light]:
    """The active lights; `places` has the position of every light."""
    lights = []
    for index in np.flatnonzero(model.light_active):
        if model.light_type[index] not in _PLACED:
            raise SettingsError(
                f"Light {model.light(index).name or int(index)!r} is directional or an image and has no place to shine "
                "from. Make it a point light, or inactive."
            )
        lights.append(
            _Light(
                place=places[index].copy(),
                diffuse=tuple(model.light_diffuse[index].tolist()),
                specular=tuple(model.light_specular[index].tolist()),
                fading=tuple(model.light_attenuation[index].tolist()),
                shadow=bool(model.light_castshadow[index]),
                fixed=_is_fixed(model, int(model.light_mode[index]), int(model.light_bodyid[index])),
            )
        )
    return lights


def _light_state(model: mujoco.MjModel, lights: list[_Light]) -> bytes:
    """Everything beside geometry and looks that decides the colour of the static geoms."""
    head = model.vis.headlight
    numbers = [number for each in lights for number in (*each.diffuse, *each.specular, *each.fading, each.shadow)]
    head_light = (head.ambient, head.diffuse, head.specular, np.array([head.active, *numbers], np.float64))
    surfaces = (model.geom_matid, model.mat_specular, model.mat_shininess, model.mat_reflectance)
    rest = (*(each.place for each in lights), model.light_ambient, model.light_active)
    return b"".join(array.tobytes() for array in (*head_light, *surfaces, *rest))


def _looks(
    model: mujoco.MjModel,
    geom_rgba: Float[np.ndarray, "G 4"] | None,
    pattern_shift_m: Mapping[int, tuple[float, float]],
) -> _Looks:
    pattern = _check_geoms(model)
    colours = model.geom_rgba if geom_rgba is None else geom_rgba
    if colours.shape != (model.ngeom, 4):
        raise SettingsError(f"geom_rgba has four values for each of {model.ngeom} geoms, got {colours.shape}.")
    shift = np.zeros((model.ngeom, 2), np.float32)
    for geom, moved in pattern_shift_m.items():
        if not 0 <= geom < model.ngeom or pattern[geom, 0] == 0:
            raise SettingsError(
                f"Geom {geom} has no pattern to shift. With one: {np.flatnonzero(pattern[:, 0]).tolist()}."
            )
        shift[geom] = moved
    return _Looks(colour=colours[:, :3].astype(np.float32), pattern=pattern, shift_m=shift)


def _check_geoms(model: mujoco.MjModel) -> Float32[np.ndarray, "G 6"]:
    """The patterns of all geoms, once they and the alphas are known to be drawable."""
    # MuJoCo's rays pass through either; that it is so may not depend on when something was last cast.
    clear = (model.geom_rgba[:, 3] == 0) | (np.append(model.mat_rgba[:, 3], 1)[model.geom_matid] == 0)
    hidden = clear & (model.geom_group < VISIBLE_GROUPS)
    if hidden.any():
        geom = int(hidden.argmax())
        raise SettingsError(
            f"Geom {_name(model, geom)} or its material has alpha 0 in the visible group {model.geom_group[geom]}. Put "
            f"what is not to be seen into group {VISIBLE_GROUPS} or above."
        )
    if model.nuser_geom < PATTERN_COLUMNS:
        return np.zeros((model.ngeom, PATTERN_COLUMNS), np.float32)
    pattern = model.geom_user[:, :PATTERN_COLUMNS].astype(np.float32)
    kind, period, axis = pattern[:, 0], pattern[:, 1], pattern[:, 5]
    known = (kind == 0) | (((kind == CHECKER) | (kind == STRIPES)) & (period > 0) & np.isin(axis, (0, 1, 2)))
    if not known.all():
        geom = int(known.argmin())
        raise SettingsError(
            f"Geom {_name(model, geom)} has the pattern {pattern[geom].tolist()} in its user data. Give kind (0 none, "
            f"{CHECKER} checker, {STRIPES} stripes), a period in metres, red, green, blue, and axis 0, 1 or 2."
        )
    return pattern


def _name(model: mujoco.MjModel, geom: int) -> str:
    return repr(model.geom(geom).name or geom)
