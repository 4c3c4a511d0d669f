"""Pictures of the factory cell by the ten thousand: drawings (`worlds.factory.drawing`) cast and shaded in torch.

The same formulas as `worlds.factory.rays` and `shade`, in float32 and for all pixels of many frames at once. Where each
ray is cast on its own, the bytes are those of `worlds.factory.render` but for one pixel in ten thousand, at an edge of
something. `render` itself casts bundles of rays, in which MuJoCo 3.17 leaves out slivers of some shadows; not so here.

A cast tests each pixel against each geom in that geom's own frame, scaled so that a box is the cube from -1 to 1 and a
cylinder the one inscribed in it: about 40 operations, of which nothing is kept but the nearest. `torch.compile` makes
this one pass over the pixels without intermediate results in memory; without it, they are 4 bytes x pixels x geoms.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from orrery.errors import SettingsError
from orrery.worlds.factory.drawing import Drawing
from orrery.worlds.factory.rays import SHADOW_GAP_M
from orrery.worlds.factory.shade import (
    CHECKER,
    HORIZON,
    SHEEN_HIGH,
    SHEEN_HORIZON,
    SHEEN_LOW,
    STRIPES,
    ZENITH,
)

BOXES, CYLINDERS, BODIES = 32, 12, 16
"""Scenes are padded to multiples of these, so that one shape occurs: compiling another takes a minute, during which
training crawls. Of the first 760 training records, the largest has 25, 9 and 12."""
CHUNK_PIXELS = {"cuda": 1 << 20, "cpu": 1 << 15}
"""Pixels that are drawn at once, by type of device: enough to fill a GPU, or few enough for a processor's cache."""
POSED = 1024
"""Frames whose bodies are put in place at once: some 200 small operations, which cost the processor the same for one
frame as for all."""
RECOMPILES = 64
"""Different sizes that are compiled before it is an error."""
ALIGNED = 16
"""Arrays that are sent together begin at multiples of so many bytes, which suits every kind of number."""

# What is compiled is marked no_type_check: the compiler cannot look through the checks of shapes in test runs.
Three = tuple[Tensor, ...]
"""x, y and z, or red, green and blue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """Drawings as dense tensors on one device: F frames of D drawings, G geoms of which the boxes come first."""

    drawing: Int[Tensor, " F"]
    """Which drawing a frame belongs to; frames of one drawing follow each other in the order they were asked for."""
    place_m: Float[Tensor, "F B 3"]
    """Of each body; the first is the world."""
    turn: Float[Tensor, "F B 4"]
    lamp_on: Float[Tensor, " F"]
    belt_shift_m: Float[Tensor, " F"]
    boxes: int
    body: Int[Tensor, "D G"]
    geom_place_m: Float[Tensor, "D G 3"]
    geom_turn: Float[Tensor, "D G 4"]
    half_m: Float[Tensor, "D G 3"]
    colour: Float[Tensor, "D G 3"]
    lamp_change: Float[Tensor, "D G 3"]
    """What the colour gains where the lamp is on."""
    belt: Float[Tensor, "D G"]
    """1 for the geom whose pattern moves."""
    second: Float[Tensor, "D G 3"]
    """The other colour of the pattern."""
    across: Float[Tensor, "D G 3"]
    """1 for each axis along which the pattern changes."""
    period_m: Float[Tensor, "D G"]
    material: Float[Tensor, "D G 3"]
    cameras: tuple[str, ...]
    camera_body: Int[Tensor, "D C"]
    camera_place_m: Float[Tensor, "D C 3"]
    camera_turn: Float[Tensor, "D C 4"]
    camera_tangent: Float[Tensor, "D C"]
    """Half the height of the picture at a depth of 1."""
    lights: Float[Tensor, "D S 13"]
    """Place, diffuse, specular, fading, and 1 where it casts shadows."""
    head: Float[Tensor, "D 9"]
    """Ambient, then diffuse and specular of the headlight."""

    def __len__(self) -> int:
        """Frames."""
        return len(self.drawing)


@torch.no_grad()
def draw(
    drawings: Sequence[Drawing],
    frames: Sequence[Sequence[int]],
    camera: str,
    height: int,
    width: int,
    device: str | torch.device,
    *,
    chunk: int | None = None,
    fused: bool | None = None,
) -> UInt8[Tensor, "N H W 3"]:
    """Some frames of some drawings, in order: first those of the first drawing, then those of the second.

    Args:
        frames: for each drawing, the numbers of the frames to draw; a drawing may have none.
        chunk, fused: see `draw_scenes`.

    Raises:
        SettingsError: no such frame or camera, or drawings that cannot be drawn together.
    """
    scenes = scenes_of(drawings, device, frames)
    every = torch.arange(len(scenes), device=scenes.drawing.device)
    return draw_scenes(scenes, every, camera, height, width, chunk=chunk, fused=fused)


def scenes_of(
    drawings: Sequence[Drawing], device: str | torch.device, frames: Sequence[Sequence[int]] | None = None
) -> Scenes:
    """Drawings made ready on a device, to be drawn there any number of times by `draw_scenes`.

    Args:
        frames: for each drawing, the numbers of the frames to have; all when None. The scenes' frames are counted
            through all drawings.

    Raises:
        SettingsError: no drawings, no such frame, or drawings with different cameras or numbers of lights.
    """
    if not drawings:
        raise SettingsError("Scenes are made of at least one drawing, got none.")
    if frames is None:
        frames = [range(len(each)) for each in drawings]
    if len(frames) != len(drawings):
        raise SettingsError(f"Give frames for each of {len(drawings)} drawings, got {len(frames)} lists.")
    first = drawings[0]
    for index, (each, wanted) in enumerate(zip(drawings, frames, strict=True)):
        if each.cameras != first.cameras or len(each.light_place_m) != len(first.light_place_m):
            raise SettingsError(
                f"Drawing {index} has the cameras {each.cameras} and {len(each.light_place_m)} lights, the first "
                f"{first.cameras} and {len(first.light_place_m)}. Draw them in separate calls."
            )
        if len(wanted) and not 0 <= min(wanted) <= max(wanted) < len(each):
            raise SettingsError(
                f"Drawing {index} has the frames 0 to {len(each) - 1}, asked for {min(wanted)} to {max(wanted)}."
            )
    many = len(drawings)
    boxes = _room(max(int((~each.geom_cylinder).sum()) for each in drawings), BOXES)
    geoms = boxes + _room(max(int(each.geom_cylinder.sum()) for each in drawings), CYLINDERS)
    bodies = _room(1 + max(each.place_m.shape[1] for each in drawings), BODIES)
    frame_count = sum(len(wanted) for wanted in frames)

    def empty(*shape: int, value: float = 0.0) -> np.ndarray:
        return np.full(shape, value, np.float32)

    place_m, turn = empty(frame_count, bodies, 3), empty(frame_count, bodies, 4)
    turn[..., 0] = 1
    lamp_on, belt_shift_m = empty(frame_count), empty(frame_count)
    body = np.zeros((many, geoms), np.int64)
    # Padding is grains far below the floor, which no ray meets first.
    geom_place_m, geom_turn, half_m = empty(many, geoms, 3), empty(many, geoms, 4), empty(many, geoms, 3, value=1e-6)
    geom_place_m[..., 2], geom_turn[..., 0] = -1e4, 1
    colour, lamp_change, second = empty(many, geoms, 3), empty(many, geoms, 3), empty(many, geoms, 3)
    across, period_m, belt = empty(many, geoms, 3), empty(many, geoms, value=1.0), empty(many, geoms)
    material = empty(many, geoms, 3)
    begin = 0
    for d, (each, wanted) in enumerate(zip(drawings, frames, strict=True)):
        rows, chosen = slice(begin, begin + len(wanted)), np.asarray(wanted, np.int64)
        begin += len(wanted)
        place_m[rows, 1 : 1 + each.place_m.shape[1]] = each.place_m[chosen]
        turn[rows, 1 : 1 + each.turn.shape[1]] = each.turn[chosen]
        lamp_on[rows], belt_shift_m[rows] = each.lamp_on[chosen], each.belt_shift_m[chosen]
        slot = np.where(
            each.geom_cylinder, boxes + np.cumsum(each.geom_cylinder) - 1, np.cumsum(~each.geom_cylinder) - 1
        )
        body[d, slot] = each.geom_body
        geom_place_m[d, slot], geom_turn[d, slot] = each.geom_place_m, each.geom_turn
        half_m[d, slot], colour[d, slot] = each.geom_half_m, each.geom_colour
        lamp_change[d, slot[each.lamp]] = each.lamp_colour - each.geom_colour[each.lamp]
        belt[d, slot[each.belt]] = 1
        kind, axis = each.geom_pattern[:, :1], each.geom_pattern[:, 5:]
        across[d, slot] = np.where(kind == CHECKER, (1, 1, 0), (kind == STRIPES) & (np.arange(3) == axis))
        period_m[d, slot] = np.where(kind[:, 0] == 0, 1, each.geom_pattern[:, 1])
        second[d, slot], material[d, slot] = each.geom_pattern[:, 2:5], each.geom_material

    def each_of(name: str) -> np.ndarray:
        return np.stack([getattr(each, name) for each in drawings])

    lights = [each_of(name) for name in ("light_place_m", "light_diffuse", "light_specular", "light_fading")]
    lights.append(each_of("light_shadow").astype(np.float32)[..., None])
    arrays = {
        "drawing": np.repeat(np.arange(many), [len(wanted) for wanted in frames]),
        "place_m": place_m,
        "turn": turn,
        "lamp_on": lamp_on,
        "belt_shift_m": belt_shift_m,
        "body": body,
        "geom_place_m": geom_place_m,
        "geom_turn": geom_turn,
        "half_m": half_m,
        "colour": colour,
        "lamp_change": lamp_change,
        "belt": belt,
        "second": second,
        "across": across,
        "period_m": period_m,
        "material": material,
        "camera_body": each_of("camera_body").astype(np.int64),
        "camera_place_m": each_of("camera_place_m"),
        "camera_turn": each_of("camera_turn"),
        "camera_tangent": np.tan(each_of("camera_fovy_deg").astype(np.float64) * (math.pi / 360)).astype(np.float32),
        "lights": np.concatenate(lights, axis=-1),
        "head": np.concatenate([each_of(name) for name in ("ambient", "head_diffuse", "head_specular")], axis=-1),
    }
    there = sent(list(arrays.values()), torch.device(device))
    return Scenes(boxes=boxes, cameras=first.cameras, **dict(zip(arrays, there, strict=True)))


def sent(arrays: Sequence[Shaped[np.ndarray, "..."]], device: torch.device) -> list[Shaped[Tensor, "..."]]:
    """Arrays on a device, where they go by one copy. A GPU fetches them when it gets there; nobody waits for it."""
    ends = np.cumsum([-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays]).tolist()
    begins = [0, *ends[:-1]]
    packed = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    into = packed.numpy()
    for begin, array in zip(begins, arrays, strict=True):
        into[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    there = packed.to(device, non_blocking=True)
    return [
        there[begin : begin + array.nbytes].view(torch.from_numpy(np.empty(0, array.dtype)).dtype).view(array.shape)
        for begin, array in zip(begins, arrays, strict=True)
    ]


@torch.no_grad()
def draw_scenes(
    scenes: Scenes,
    frames: Int[Tensor, " N"],
    camera: str,
    height: int,
    width: int,
    *,
    chunk: int | None = None,
    fused: bool | None = None,
) -> UInt8[Tensor, "N H W 3"]:
    """Some frames of scenes, on their device.

    Args:
        frames: their numbers, counted through all drawings of the scenes, on the scenes' device.
        chunk: frames that are drawn at once; what `CHUNK_PIXELS` has room for when None.
        fused: compile for these sizes, which takes a minute the first time; on a GPU alone when None. Every chunk then
            has the full size, the last one filled up, so draw many frames at a time.

    Raises:
        SettingsError: no such camera or size.
    """
    if camera not in scenes.cameras:
        raise SettingsError(f"No camera {camera!r}. Known: {', '.join(scenes.cameras)}.")
    if height < 1 or width < 1:
        raise SettingsError(f"A picture has at least one pixel a side, got {height} x {width}.")
    device = scenes.drawing.device
    fused = device.type == "cuda" if fused is None else fused
    if chunk is None:
        chunk = max(1, CHUNK_PIXELS.get(device.type, CHUNK_PIXELS["cpu"]) // (height * width))
    kernels = _kernels(fused)
    right = torch.arange(width, device=device) + 0.5 - width / 2
    up = height / 2 - 0.5 - torch.arange(height, device=device)
    across, along = right.repeat(height)[None], up.repeat_interleave(width)[None]
    count = len(frames)
    if fused and count % chunk:
        frames = torch.cat([frames, frames[:1].expand(-count % chunk)])
    pictures = torch.empty(len(frames), height * width, 3, dtype=torch.uint8, device=device)
    together = chunk * max(1, POSED // chunk)
    # A function is compiled anew for each size of pictures and scenes; the limit, 8, is not made for that.
    with torch._dynamo.config.patch(recompile_limit=RECOMPILES) if fused else nullcontext():
        for first in range(0, len(frames), together):
            pose = _pose(scenes, frames[first : first + together], scenes.cameras.index(camera), height)
            for begin in range(0, pose.shot.shape[1], chunk):
                pixels = _paint(kernels, pose.part(begin, begin + chunk), across, along, scenes.boxes)
                pictures[first + begin : first + begin + len(pixels)] = pixels
    return pictures[:count].view(count, height, width, 3)


def _room(count: int, step: int) -> int:
    """The next multiple, at least one."""
    return max(1, -(-count // step)) * step


@dataclass(frozen=True, kw_only=True)
class _Pose:
    """What the kernels need of n frames, columns first, so that each is read on its own."""

    geoms: Float[Tensor, "K n G"]
    """For each geom, in its own scaled frame: the camera's place (3) and turn (9), the turn into that frame (9), and
    the place of each light (3 S)."""
    looks: Float[Tensor, "29 n G"]
    """Turn (9) and place (3) in the world, half sizes (3), colour (3), second colour (3), pattern along each axis (3),
    period, shift, specular, shininess, reflectance."""
    shot: Float[Tensor, "13 n"]
    """Place and turn of the camera, and the side of a pixel at a depth of 1."""
    lights: Float[Tensor, "S 13 n"]
    head: Float[Tensor, "9 n"]

    def part(self, begin: int, end: int) -> "_Pose":
        """That of some of the frames, laid out as if there were no others."""
        return _Pose(
            geoms=self.geoms[:, begin:end].contiguous(),
            looks=self.looks[:, begin:end].contiguous(),
            shot=self.shot[:, begin:end].contiguous(),
            lights=self.lights[..., begin:end].contiguous(),
            head=self.head[:, begin:end].contiguous(),
        )


@dataclass(frozen=True, kw_only=True)
class _Kernels:
    nearest: Callable[..., tuple[Tensor, Tensor]]
    blocked: Callable[..., Tensor]
    shade: Callable[..., Tensor]


@cache
def _kernels(fused: bool) -> _Kernels:
    if not fused:
        return _Kernels(nearest=_nearest, blocked=_blocked, shade=_shade)
    # A cast may not be cut in two for its length: between the halves would be pixels x geoms numbers in memory.
    names = ("realize_opcount_threshold", "realize_reads_threshold", "realize_acc_reads_threshold")
    whole: dict[str, str | int | bool | Callable[..., Any]] = dict.fromkeys(names, 10_000)
    return _Kernels(
        nearest=torch.compile(_nearest, dynamic=False, fullgraph=True, options=whole),
        blocked=torch.compile(_blocked, dynamic=False, fullgraph=True, options=whole),
        shade=torch.compile(_shade, dynamic=False, fullgraph=True),
    )


def _pose(scenes: Scenes, frames: Int[Tensor, " n"], camera: int, height: int) -> _Pose:
    """Where everything is. Products are written out: a matrix product may be rounded to TF32."""
    d = scenes.drawing[frames]
    place_m, turn = scenes.place_m[frames], _matrix(scenes.turn[frames])
    n, g = len(frames), scenes.body.shape[1]
    body = scenes.body[d]
    body_place = place_m.gather(1, body[..., None].expand(n, g, 3))
    body_turn = turn.gather(1, body[..., None, None].expand(n, g, 3, 3))
    geom_place = body_place + _apply(body_turn, scenes.geom_place_m[d])  # (n, G, 3)
    geom_turn = _product(body_turn, _matrix(scenes.geom_turn[d]))  # (n, G, 3, 3)

    every = torch.arange(n, device=frames.device)
    holder = scenes.camera_body[d, camera]
    eye = place_m[every, holder] + _apply(turn[every, holder], scenes.camera_place_m[d, camera])  # (n, 3)
    look = _product(turn[every, holder], _matrix(scenes.camera_turn[d, camera]))  # (n, 3, 3)
    pixel = scenes.camera_tangent[d, camera] * (2 / height)

    half = scenes.half_m[d]
    into = geom_turn.transpose(-1, -2) / half[..., None]  # world to the geom's scaled frame, (n, G, 3, 3)
    lights = scenes.lights[d]  # (n, S, 13)
    begin = _apply(into, eye[:, None] - geom_place)  # (n, G, 3)
    view = _product(into, look[:, None].expand(n, g, 3, 3))
    lamps = _apply(into[:, None], lights[:, :, None, :3] - geom_place[:, None])  # (n, S, G, 3)
    geoms = torch.cat(
        [
            begin,
            view.flatten(-2),
            into.flatten(-2),
            lamps.transpose(1, 2).flatten(-2),
        ],
        dim=-1,
    )
    colour = scenes.colour[d] + scenes.lamp_on[frames][:, None, None] * scenes.lamp_change[d]
    shift = scenes.belt[d] * scenes.belt_shift_m[frames][:, None]
    looks = torch.cat(
        [
            geom_turn.flatten(-2),
            geom_place,
            half,
            colour,
            scenes.second[d],
            scenes.across[d],
            scenes.period_m[d][..., None],
            shift[..., None],
            scenes.material[d],
        ],
        dim=-1,
    )
    shot = torch.cat([eye, look.flatten(-2), pixel[:, None]], dim=-1)
    return _Pose(
        geoms=geoms.permute(2, 0, 1).contiguous(),
        looks=looks.permute(2, 0, 1).contiguous(),
        shot=shot.T.contiguous(),
        lights=lights.permute(1, 2, 0).contiguous(),
        head=scenes.head[d].T.contiguous(),
    )


def _matrix(turn: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3 3"]:
    """Rotations from quaternions (w, x, y, z)."""
    w, x, y, z = turn.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _apply(matrix: Float[Tensor, "*N 3 3"], vector: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    return (matrix * vector[..., None, :]).sum(-1)


def _product(one: Float[Tensor, "*N 3 3"], other: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 3 3"]:
    return (one[..., :, :, None] * other[..., None, :, :]).sum(-2)


def _paint(kernels: "_Kernels", pose: _Pose, across: Tensor, along: Tensor, boxes: int) -> UInt8[Tensor, "n P 3"]:
    """P pixels of n frames; `across` and `along` (1, P) are counted in pixels from the middle of the picture."""
    geoms, shot = pose.geoms, pose.shot
    depth, geom = kernels.nearest(geoms[:12], shot, across, along, boxes)
    shadows = []
    for index, light in enumerate(pose.lights):
        begin = geoms[21 + 3 * index : 24 + 3 * index]
        shadows.append(kernels.blocked(begin, geoms[12:21], light, shot, across, along, depth, geom, boxes))
    return kernels.shade(pose.looks, shot, pose.lights, pose.head, across, along, depth, geom, shadows, boxes)


@no_type_check
def _rays(shot: Tensor, across: Tensor, along: Tensor) -> tuple[Three, Three]:
    """From the camera, (n, 1) each, through each pixel, (n, P) each, of depth 1."""
    x, y = across * shot[12, :, None], along * shot[12, :, None]
    look = shot[3:12, :, None]
    ray = tuple(look[3 * k] * x + look[3 * k + 1] * y - look[3 * k + 2] for k in range(3))
    return tuple(shot[k, :, None] for k in range(3)), ray


@no_type_check
def _nearest(
    geoms: Float[Tensor, "12 n G"],
    shot: Float[Tensor, "13 n"],
    across: Float[Tensor, "1 P"],
    along: Float[Tensor, "1 P"],
    boxes: int,
) -> tuple[Float[Tensor, "n P"], Int[Tensor, "n P"]]:
    """Depth of the first hit, infinite for none, and its geom."""
    x, y = (across * shot[12, :, None])[..., None], (along * shot[12, :, None])[..., None]
    found = []
    for meet, part in ((_meet_box, geoms[:, :, None, :boxes]), (_meet_cylinder, geoms[:, :, None, boxes:])):
        way = tuple(part[3 + 3 * k] * x + part[4 + 3 * k] * y - part[5 + 3 * k] for k in range(3))  # (n, P, G)
        near, far = meet((part[0], part[1], part[2]), way)
        # From within, a ray meets the far side. NaN, for a ray in a face, compares as false: it misses.
        depth = torch.where(near > 0, near, far)
        found.append(torch.where((near <= far) & (far > 0), depth, math.inf).min(dim=-1))
    closer = found[1].values < found[0].values
    depth = torch.where(closer, found[1].values, found[0].values)
    return depth, torch.where(closer, found[1].indices + boxes, found[0].indices)


@no_type_check
def _blocked(
    begin: Float[Tensor, "3 n G"],
    into: Float[Tensor, "9 n G"],
    light: Float[Tensor, "13 n"],
    shot: Float[Tensor, "13 n"],
    across: Float[Tensor, "1 P"],
    along: Float[Tensor, "1 P"],
    depth: Float[Tensor, "n P"],
    geom: Int[Tensor, "n P"],
    boxes: int,
) -> Bool[Tensor, "n P"]:
    """Whether something is between a light and what it would light; a convex geom does not hide its own lit side."""
    eye, ray = _rays(shot, across, along)
    depth = torch.where(depth < math.inf, depth, 1)
    beam = tuple((eye[k] + depth * ray[k] - light[k, :, None])[..., None] for k in range(3))
    limit = 1 - SHADOW_GAP_M / torch.sqrt(_dot(beam, beam))
    blocked = torch.zeros_like(geom, dtype=torch.bool)
    for meet, part in ((_meet_box, slice(0, boxes)), (_meet_cylinder, slice(boxes, begin.shape[-1]))):
        start, turn = begin[:, :, None, part], into[:, :, None, part]
        way = tuple(_dot((turn[3 * k], turn[3 * k + 1], turn[3 * k + 2]), beam) for k in range(3))  # 1 at the point
        near, far = meet((start[0], start[1], start[2]), way)
        other = torch.arange(part.start, part.stop, device=geom.device) != geom[..., None]
        blocked = blocked | ((near <= far) & (near > 0) & (near < limit) & other).any(dim=-1)
    return blocked & (light[12, :, None] > 0)


@no_type_check
def _shade(
    looks: Float[Tensor, "29 n G"],
    shot: Float[Tensor, "13 n"],
    lights: Float[Tensor, "S 13 n"],
    head: Float[Tensor, "9 n"],
    across: Float[Tensor, "1 P"],
    along: Float[Tensor, "1 P"],
    depth: Float[Tensor, "n P"],
    geom: Int[Tensor, "n P"],
    shadows: Sequence[Bool[Tensor, "n P"]],
    boxes: int,
) -> UInt8[Tensor, "n P 3"]:
    """Colours, as `worlds.factory.shade` has them."""
    seen = depth < math.inf
    depth = torch.where(seen, depth, 1)

    def at(rows: Tensor) -> Three:
        """Three rows of what geoms have, for the geom in each pixel."""
        return tuple(rows[k].gather(1, geom) for k in range(3))

    eye, ray = _rays(shot, across, along)
    length = torch.sqrt(_dot(ray, ray))
    toward = tuple(-part / length for part in ray)
    point = tuple(eye[k] + depth * ray[k] for k in range(3))

    turn = tuple(at(looks[3 * k : 3 * k + 3]) for k in range(3))  # rows of the geom's rotation to the world
    middle, half = at(looks[9:12]), at(looks[12:15])
    apart = tuple(point[k] - middle[k] for k in range(3))
    local = tuple(turn[0][k] * apart[0] + turn[1][k] * apart[1] + turn[2][k] * apart[2] for k in range(3))
    own = _normal(tuple(local[k] / half[k] for k in range(3)), geom < boxes)
    normal = tuple(_dot(turn[k], own) for k in range(3))
    facing = _dot(normal, toward).clamp(min=0)

    colour, second, cross = at(looks[15:18]), at(looks[18:21]), at(looks[21:24])
    period_m, shift_m, specular = at(looks[24:27])
    shininess, reflectance = looks[27].gather(1, geom), looks[28].gather(1, geom)
    # Under a slant a pixel covers more of the surface; below 0.1 it is as good as blurred out.
    blur = depth * shot[12, :, None] / facing.clamp(min=0.1) / period_m
    share = torch.ones_like(depth)
    for k in range(3):
        along_m = local[k] - shift_m if k == 0 else local[k]
        share = share * torch.where(cross[k] > 0, _wave(along_m / period_m, blur), 1)
    paint = tuple(colour[k] + (second[k] - colour[k]) * (0.5 - 0.5 * share) for k in range(3))

    sky = 0.85 + 0.15 * normal[2]
    light_in = tuple(head[k, :, None] * sky + head[3 + k, :, None] * facing for k in range(3))
    exponent = 2 + 62 * shininess
    gloss = _lobe(2 * facing * facing - 1, exponent)
    shine = tuple(head[6 + k, :, None] * gloss for k in range(3))
    for light, shadow in zip(lights[..., None], shadows, strict=True):  # (13, n, 1)
        way = tuple(light[k] - point[k] for k in range(3))
        distance = torch.sqrt(_dot(way, way))
        way = tuple(part / distance.clamp(min=1e-6) for part in way)
        fall = _dot(normal, way)
        strength = (seen & (fall > 0) & ~shadow) / (light[9] + distance * (light[10] + distance * light[11]))
        # r . v for r the light mirrored in the surface is 2 (n . l)(n . v) - l . v.
        gloss = _lobe(2 * fall * facing - _dot(way, toward), exponent) * strength
        fall = fall.clamp(min=0) * strength
        light_in = tuple(light_in[k] + light[3 + k] * fall for k in range(3))
        shine = tuple(shine[k] + light[6 + k] * gloss for k in range(3))

    up = 2 * facing * normal[2] - toward[2]
    rise, drop = up.clamp(min=0), (-up).clamp(min=0)
    sheen = SHEEN_HORIZON + (SHEEN_HIGH - SHEEN_HORIZON) * rise + (SHEEN_LOW - SHEEN_HORIZON) * drop
    above = (-toward[2]).clamp(min=0)
    out = []
    for k in range(3):
        solid = paint[k] * light_in[k] + shine[k] * specular
        solid = solid * (1 - reflectance) + (0.3 + 0.7 * paint[k]) * sheen * reflectance
        outside = HORIZON[k] + (ZENITH[k] - HORIZON[k]) * above
        out.append((torch.where(seen, solid, outside).clamp(0, 1) * 255 + 0.5).to(torch.uint8))
    return torch.stack(out, dim=-1)


@no_type_check
def _dot(one: Three, other: Three) -> Tensor:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


@no_type_check
def _meet_box(begin: Three, way: Three) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the cube from -1 to 1; they miss it where they leave before they enter."""
    inverse = tuple(1 / part for part in way)
    to_middle = tuple(begin[k] * inverse[k] for k in range(3))
    to_side = tuple(part.abs() for part in inverse)
    near = torch.maximum(
        torch.maximum(-to_middle[0] - to_side[0], -to_middle[1] - to_side[1]), -to_middle[2] - to_side[2]
    )
    far = torch.minimum(torch.minimum(to_side[0] - to_middle[0], to_side[1] - to_middle[1]), to_side[2] - to_middle[2])
    return near, far


@no_type_check
def _meet_cylinder(begin: Three, way: Three) -> tuple[Tensor, Tensor]:
    """The same for the cylinder of radius 1 from z = -1 to 1."""
    square = way[0] * way[0] + way[1] * way[1]
    middle = -(begin[0] * way[0] + begin[1] * way[1]) / square
    # The usual b^2 - a c loses all its digits for a thin cylinder far away.
    aside = begin[0] * way[1] - begin[1] * way[0]
    root = torch.sqrt(square - aside * aside) / square  # NaN, which misses, beside the cylinder
    inverse = 1 / way[2]
    level, side = begin[2] * inverse, inverse.abs()
    return torch.maximum(middle - root, -level - side), torch.minimum(middle + root, side - level)


@no_type_check
def _normal(local: Three, box: Tensor) -> Three:
    """The outward normal, in the geom's frame, at a point of its scaled surface."""
    x, y, z = local
    ax, ay, az = x.abs(), y.abs(), z.abs()
    radius = torch.sqrt(x * x + y * y)
    on_x, on_y = (ax >= ay) & (ax >= az), (ay > ax) & (ay >= az)
    on_top = az > torch.where(box, torch.maximum(ax, ay), radius)
    zero = torch.zeros_like(x)
    return (
        torch.where(box, torch.where(on_x, x.sign(), zero), torch.where(on_top, zero, x / radius)),
        torch.where(box, torch.where(on_y, y.sign(), zero), torch.where(on_top, zero, y / radius)),
        torch.where(on_top, z.sign(), zero),
    )


@no_type_check
def _wave(turns: Tensor, blur: Tensor) -> Tensor:
    """As in `worlds.factory.shade`: 1 in the first half of each turn, -1 in the second, sloped over `blur` turns."""
    edge = 0.25 - (turns - 0.25 - torch.floor(turns + 0.25)).abs()
    return (edge / (0.5 * blur)).clamp(-1, 1)


@no_type_check
def _lobe(cosine: Tensor, exponent: Tensor) -> Tensor:
    """About cosine ** exponent, without a power. Source: Schlick 1994, A Fast Alternative to Phong's Model."""
    cosine = cosine.clamp(min=0)
    return cosine / (exponent - exponent * cosine + cosine)
