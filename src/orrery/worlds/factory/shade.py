"""The colour of what rays have met (`rays`): lights, patterns, highlights, the sheen of metal, and what lies outside.

Shading is + - * / and square roots alone, which IEEE 754 rounds the same everywhere, so a state has one picture
whatever the processor. What a scene may ask for is described at `render.Renderer`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from orrery.errors import SettingsError
from orrery.worlds.factory.rays import VISIBLE_GROUPS, Surface, Vector, is_fixed

PATTERN_COLUMNS = 6
"""geom_user = kind, period_m, red, green, blue, axis."""
CHECKER, STRIPES = 1, 2

_PLACED = (int(mujoco.mjtLightType.mjLIGHT_SPOT), int(mujoco.mjtLightType.mjLIGHT_POINT))

# Colours of what lies outside the scene, seen directly and in the sheen of metal.
HORIZON, ZENITH = (0.80, 0.83, 0.87), (0.55, 0.64, 0.76)
SHEEN_LOW, SHEEN_HORIZON, SHEEN_HIGH = 0.55, 0.18, 1.05


@dataclass(frozen=True, kw_only=True)
class Light:
    """One light that shines from a place to all sides."""

    place: Vector
    diffuse: tuple[float, float, float]
    specular: tuple[float, float, float]
    fading: tuple[float, float, float]
    """Light falls with 1 / (a + b r + c r^2)."""
    shadow: bool
    fixed: bool

    @classmethod
    def all_of(cls, model: mujoco.MjModel, places: Float64[np.ndarray, "S 3"]) -> "list[Light]":
        """The active lights; `places` has the position of every light."""
        lights = []
        for index in np.flatnonzero(model.light_active):
            if model.light_type[index] not in _PLACED:
                raise SettingsError(
                    f"Light {model.light(index).name or int(index)!r} is directional or an image and has no place to "
                    "shine from. Make it a point light, or inactive."
                )
            lights.append(
                cls(
                    place=places[index].copy(),
                    diffuse=tuple(model.light_diffuse[index].tolist()),
                    specular=tuple(model.light_specular[index].tolist()),
                    fading=tuple(model.light_attenuation[index].tolist()),
                    shadow=bool(model.light_castshadow[index]),
                    fixed=is_fixed(model, int(model.light_mode[index]), int(model.light_bodyid[index])),
                )
            )
        return lights


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How each geom is coloured."""

    colour: Float32[np.ndarray, "G 3"]
    pattern: Float32[np.ndarray, "G 6"]
    shift_m: Float32[np.ndarray, "G 2"]

    def differ(self, other: "Looks") -> Bool[np.ndarray, " G"]:
        differ: Bool[np.ndarray, " G"] = (
            (self.colour != other.colour).any(axis=1)
            | (self.pattern != other.pattern).any(axis=1)
            | (self.shift_m != other.shift_m).any(axis=1)
        )
        return differ

    @classmethod
    def of(
        cls,
        model: mujoco.MjModel,
        geom_rgba: Float[np.ndarray, "G 4"] | None,
        pattern_shift_m: Mapping[int, tuple[float, float]],
    ) -> "Looks":
        pattern = check_geoms(model)
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
        return cls(colour=colours[:, :3].astype(np.float32), pattern=pattern, shift_m=shift)


def light_state(model: mujoco.MjModel, lights: list[Light]) -> bytes:
    """Everything beside geometry and looks that decides the colour of the static geoms."""
    head = model.vis.headlight
    numbers = [number for each in lights for number in (*each.diffuse, *each.specular, *each.fading, each.shadow)]
    head_light = (head.ambient, head.diffuse, head.specular, np.array([head.active, *numbers], np.float64))
    surfaces = (model.geom_matid, model.mat_specular, model.mat_shininess, model.mat_reflectance)
    rest = (*(each.place for each in lights), model.light_ambient, model.light_active)
    return b"".join(array.tobytes() for array in (*head_light, *surfaces, *rest))


def check_geoms(model: mujoco.MjModel) -> Float32[np.ndarray, "G 6"]:
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


def faces(surface: Surface, light: Light) -> Bool[np.ndarray, " P"]:
    """Where a surface is turned to a light, whatever stands between."""
    toward, _ = _toward(light.place, surface.point)
    facing: Bool[np.ndarray, " P"] = (_dot(toward, surface.normal) > 0) & (surface.geom >= 0)
    return facing


def shade(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    surface: Surface,
    lights: list[Light],
    lit: list[Bool[np.ndarray, " P"]],
    looks: Looks,
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
        sheen = SHEEN_HORIZON + (SHEEN_HIGH - SHEEN_HORIZON) * rise + (SHEEN_LOW - SHEEN_HORIZON) * fall
        share = reflectance[metal]
        out[:, metal] = out[:, metal] * (1 - share) + (0.3 + 0.7 * paint[:, metal]) * sheen * share

    nothing = np.flatnonzero(geom < 0)
    if nothing.size:
        up = np.maximum(-toward[2, nothing], 0)
        for k in range(3):
            out[k, nothing] = HORIZON[k] + (ZENITH[k] - HORIZON[k]) * up
    return np.ascontiguousarray((out.clip(0, 1) * 255 + 0.5).astype(np.uint8).T)


def _paint(
    data: mujoco.MjData, surface: Surface, facing: Float32[np.ndarray, " P"], looks: Looks
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


def _toward(
    place: Vector, points: Float64[np.ndarray, "P 3"]
) -> tuple[Float32[np.ndarray, "3 P"], Float32[np.ndarray, " P"]]:
    """Unit vector from each point to a place, and how far that is."""
    way = (place - points).T.astype(np.float32, order="C")
    distance = np.sqrt(_dot(way, way))
    return way / np.maximum(distance, np.float32(1e-6)), distance


def _name(model: mujoco.MjModel, geom: int) -> str:
    return repr(model.geom(geom).name or geom)
