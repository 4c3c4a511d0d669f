"""What rays meet in a MuJoCo scene, by MuJoCo's own ray caster: from a camera, or from a light to what it may shine on.

Bundles of rays (`Cones`) tell which rays can meet a moving geom, so that only those have to be cast anew. What is kept
from one frame to the next is decided in `render`, colours in `shade`.
"""

import copy
import math
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32

from orrery.errors import SettingsError

VISIBLE_GROUPS = 3
"""Geoms in groups below this are seen; the others are for collisions only."""

_GROUPS = np.array([group < VISIBLE_GROUPS for group in range(mujoco.mjNGROUP)], dtype=np.uint8)
_PERSPECTIVE, _FIXED = int(mujoco.mjtProjection.mjPROJ_PERSPECTIVE), int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
_FAR = 1e10
SHADOW_GAP_M = 1e-4
"""A surface nearer than this to a lit point casts no shadow on it: it is that surface itself, up to rounding."""
_TILES_ACROSS = 16

Vector = Float64[np.ndarray, "3"]


@dataclass(frozen=True, kw_only=True)
class Shot:
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

    @classmethod
    def of(cls, model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int) -> "Shot":
        """The camera as it stands in `data`.

        Raises:
            SettingsError: no such camera or size, or not a plain pinhole.
        """
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
        return cls(
            camera=index,
            height=height,
            width=width,
            place=data.cam_xpos[index].copy(),
            turn=data.cam_xmat[index].reshape(3, 3).copy(),
            pixel=2 * math.tan(math.radians(model.cam_fovy[index]) / 2) / height,
            fixed=is_fixed(model, int(model.cam_mode[index]), int(model.cam_bodyid[index])),
        )

    def state(self) -> bytes:
        return self.place.tobytes() + self.turn.tobytes() + np.float64(self.pixel).tobytes()

    def rays(self) -> Float64[np.ndarray, "N 3"]:
        """One ray through the middle of each pixel, row by row, of depth 1: what a cast then returns is the depth."""
        right = (np.arange(self.width) + 0.5 - self.width / 2) * self.pixel
        up = (self.height / 2 - 0.5 - np.arange(self.height)) * self.pixel
        rays = np.empty((self.height, self.width, 3))
        for k, (to_right, to_up, to_back) in enumerate(self.turn):
            rays[..., k] = (up * to_up - to_back)[:, None] + right * to_right
        return rays.reshape(-1, 3)

    def tiles(self) -> Int[np.ndarray, " N"]:
        """For each pixel the number of its tile: neighbours, whose rays make narrow bundles."""
        side = max(4, -(-max(self.height, self.width) // _TILES_ACROSS))
        across = -(-self.width // side)
        return ((np.arange(self.height) // side)[:, None] * across + np.arange(self.width) // side).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What P rays met; geom is -1, and point and normal mean nothing, where that is nothing."""

    geom: Int32[np.ndarray, " P"]
    point: Float64[np.ndarray, "P 3"]
    normal: Float32[np.ndarray, "3 P"]
    toward: Float32[np.ndarray, "3 P"]
    """Unit vector to the camera."""
    pixel_m: Float32[np.ndarray, " P"]
    """Side of a pixel at that depth."""

    def take(self, pixels: Int[np.ndarray, " Q"]) -> "Surface":
        return Surface(
            geom=self.geom[pixels],
            point=self.point[pixels],
            normal=self.normal.take(pixels, axis=1),
            toward=self.toward.take(pixels, axis=1),
            pixel_m=self.pixel_m[pixels],
        )


@dataclass(frozen=True, kw_only=True)
class Cones:
    """Rays from one point in bundles: an axis and a half angle that hold each, to tell which can meet a sphere."""

    pixel: Int[np.ndarray, " P"]
    tile: Int[np.ndarray, " P"]
    axis: Float64[np.ndarray, "T 3"]
    half_rad: Float64[np.ndarray, " T"]

    @classmethod
    def around(
        cls, rays: Float64[np.ndarray, "P 3"], pixel: Int[np.ndarray, " P"], tile: Int[np.ndarray, " P"]
    ) -> "Cones":
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


class Caster:
    """Casts rays in one model at static geoms (those that no joint moves), at moving ones, or at both."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self.static: Bool[np.ndarray, " G"] = model.body_weldid[model.geom_bodyid] == 0

    def surface(
        self,
        data: mujoco.MjData,
        shot: Shot,
        rays: Float64[np.ndarray, "P 3"],
        *,
        static: bool = True,
        moving: bool = True,
    ) -> tuple[Surface, Float64[np.ndarray, " P"]]:
        """What rays from the camera meet first, and its depth."""
        outward = np.empty(rays.size)
        geom, depth = self._cast(data, shot.place, rays, outward, static=static, moving=moving)
        surface = Surface(
            geom=geom,
            point=shot.place + rays * depth[:, None],
            normal=outward.reshape(-1, 3).T.astype(np.float32, order="C"),
            toward=(rays.T / -_length(rays)).astype(np.float32, order="C"),
            pixel_m=(depth * shot.pixel).astype(np.float32),
        )
        return surface, np.where(geom < 0, np.inf, depth)

    def unblocked(
        self,
        data: mujoco.MjData,
        place: Vector,
        points: Float64[np.ndarray, "P 3"],
        *,
        static: bool = True,
        moving: bool = True,
    ) -> Bool[np.ndarray, " P"]:
        """Whether nothing stands between a place and each point."""
        rays = points - place
        geom, share = self._cast(data, place, rays, None, static=static, moving=moving)
        free: Bool[np.ndarray, " P"] = (geom < 0) | ((1 - share) * _length(rays) < SHADOW_GAP_M)
        return free

    def bounds(self, data: mujoco.MjData) -> tuple[Float64[np.ndarray, "M 3"], Float64[np.ndarray, " M"]]:
        """Centre and radius of a sphere around each moving, visible geom; a plane has none that is finite."""
        moving = np.flatnonzero(~self.static & (self._model.geom_group < VISIBLE_GROUPS))
        radius = self._model.geom_rbound[moving]
        return data.geom_xpos[moving], np.where(radius > 0, radius, np.inf)

    def static_state(self, data: mujoco.MjData) -> bytes:
        """Everything that decides where the static geoms are."""
        model = self._model
        where = (data.geom_xpos[self.static], data.geom_xmat[self.static], model.geom_size, model.geom_type)
        which = (model.geom_group, model.geom_dataid, model.mesh_vert, model.mesh_face, model.hfield_size)
        return b"".join(array.tobytes() for array in (*where, *which, model.hfield_data))

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
            model.geom_group[~self.static] = mujoco.mjNGROUP - 1
        count = len(rays)
        geom, share = np.empty(count, np.int32), np.empty(count)
        flat = np.ascontiguousarray(rays).reshape(-1)
        mujoco.mj_multiRay(model, data, place, flat, _GROUPS, static, -1, geom, share, normal, count, _FAR)
        return geom, share


def is_fixed(model: mujoco.MjModel, mode: int, body: int) -> bool:
    """Whether a camera or light of that mode on that body stays where it is."""
    return bool(mode == _FIXED and model.body_weldid[body] == 0)


def _length(rays: Float64[np.ndarray, "P 3"]) -> Float64[np.ndarray, " P"]:
    x, y, z = rays.T
    return np.sqrt(x * x + y * y + z * z)
