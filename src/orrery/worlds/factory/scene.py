"""From a layout and parameters to a MuJoCo model made of boxes and cylinders alone.

Names of bodies are the vocabulary of the whole world: bench, belt, rails, bin names, kit, fixture, panel,
button_start, button_stop, lamp, mast, palm, finger_left, finger_right, and part_0, part_1, ...
Geoms carry their looks for `render`: colour in rgba, a second colour and a pattern in `user`.
"""

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import mujoco

from orrery.tasks.checks import Number
from orrery.worlds.factory.layout import (
    BELT_HALF_LENGTH_M,
    BELT_HALF_WIDTH_M,
    BELT_TOP_M,
    BELT_Y_M,
    BIN_HALF_M,
    BIN_WALL_M,
    FIXTURE_HALF_M,
    FIXTURE_HEIGHT_M,
    PLUNGER_TOP_M,
    PLUNGER_TRAVEL_M,
    SHEET_M,
    SLOT_HALF_M,
    SLOT_WALL_M,
    Button,
    CellParameters,
    Layout,
    Placed,
)
from orrery.worlds.factory.materials import MATERIALS
from orrery.worlds.factory.parts import FINISHES, KINDS, PEG_HALF_M, Rgb
from orrery.worlds.factory.shade import CHECKER, STRIPES

CAMERAS = ("front", "side", "wrist")
VIEWS = {
    "front": ((0.0, -0.64, 0.62), (0.0, 0.0, 0.02), 43.0),
    "side": ((0.62, -0.40, 0.50), (0.02, 0.0, 0.02), 45.0),
}
"""Fixed cameras: where they stand, what they look at, vertical field of view in degrees."""
AXES = ("x", "y", "z", "yaw")
"""Joints of the gantry, in the order of an action."""
WORKSPACE = {"x": (-0.36, 0.36), "y": (-0.24, 0.24), "z": (0.012, 0.30), "yaw": (-3.6, 3.6)}
"""Limits of what can be commanded: metres, radians; z is the height of the fingertips' middle."""
HOME = (0.0, 0.0, 0.22, 0.0)
FINGER_STROKE_M = 0.046
"""A fully open finger is this far from the middle."""
PAD_HALF_M = (0.005, 0.012, 0.010)
GRIP_N = 25.0
DRIVE_RAD_S = 80.0
"""Natural frequency of the gantry's drives; critically damped, so a ramp is followed 2 / DRIVE_RAD_S behind."""
DRIVE_N = {"x": 60.0, "y": 60.0, "z": 45.0, "yaw": 2.5}
HARD = ".004 1"
"""solref of contacts: stiff, and never under-damped, which would create energy at these timesteps (measured)."""

LAMP_OFF: Rgb = (0.16, 0.22, 0.16)
LAMP_ON: Rgb = (0.30, 1.00, 0.36)
BUTTONS: dict[Button, Rgb] = {"start": (0.14, 0.72, 0.28), "stop": (0.84, 0.14, 0.12)}
LOOKS = {"plastic": (0.25, 0.4, 0.0), "steel": (0.7, 0.7, 0.45), "brass": (0.7, 0.7, 0.40), "matt": (0.05, 0.2, 0.0)}
"""Shading class -> specular, shininess, reflectance."""
ALWAYS_TOUCHING = (("belt", "bench"), ("belt", "rails"), ("panel", "button_start"), ("panel", "button_stop"))
"""Neighbours whose contact is neither simulated nor heard."""


def build(layout: Layout, parameters: CellParameters) -> mujoco.MjModel:
    """Compile the model of one cell. Same arguments, same model."""
    return mujoco.MjModel.from_xml_string(xml_of(layout, parameters))


def xml_of(layout: Layout, parameters: CellParameters) -> str:
    """The model as MJCF."""
    root = Element("mujoco", model="factory_cell")
    SubElement(root, "compiler", angle="radian", autolimits="true")
    SubElement(
        root,
        "option",
        timestep=_(parameters.timestep_s),
        integrator="implicitfast",
        cone="elliptic",
        impratio="5",
        noslip_iterations="2",
        gravity="0 0 -9.81",
    )
    SubElement(root, "size", nuser_geom="6")
    visual = SubElement(root, "visual")
    SubElement(
        visual, "headlight", ambient=_(*[0.34 * parameters.light] * 3), diffuse=_(*[0.22 * parameters.light] * 3)
    )
    assets = SubElement(root, "asset")
    for name, (specular, shininess, reflectance) in LOOKS.items():
        SubElement(
            assets, "material", name=name, specular=_(specular), shininess=_(shininess), reflectance=_(reflectance)
        )
    world = SubElement(root, "worldbody")
    SubElement(
        world,
        "light",
        name="lamp_above",
        pos=_(*parameters.light_m),
        dir="0.3 0.4 -1",
        diffuse=_(*[0.62 * parameters.light] * 3),
        castshadow="true",
    )
    shift = parameters.camera_shift_m
    for name, (at, to, fovy_deg) in VIEWS.items():
        _camera(
            world,
            name,
            [a + d for a, d in zip(at, shift, strict=True)],
            [a - b for a, b in zip(at, to, strict=True)],
            fovy_deg,
        )
    _surroundings(world, parameters)
    _belt(world, parameters)
    for row in layout.bins:
        _tray(world, row.name, (row.x_m, row.y_m), (BIN_HALF_M, BIN_HALF_M), BIN_WALL_M, row.rgb, parameters)
    if layout.kit is not None:
        size = (3 * SLOT_HALF_M, SLOT_HALF_M)
        tray = _tray(world, "kit", (layout.kit.x_m, layout.kit.y_m), size, SLOT_WALL_M, layout.kit.rgb, parameters)
        for x in (-SLOT_HALF_M, SLOT_HALF_M):
            half = (SHEET_M / 2, SLOT_HALF_M, SLOT_WALL_M / 2)
            _geom(tray, half, (x, 0, SLOT_WALL_M / 2), layout.kit.rgb, "sheet_steel", parameters, look="steel")
    if layout.fixture is not None:
        _fixture(world, layout, parameters)
    _panel(world, layout, parameters)
    _gantry(world, parameters)
    for index, placed in enumerate(layout.parts):
        _part(world, index, placed, parameters)
    _drives(root, parameters)
    _couple(root)
    excluded = SubElement(root, "contact")
    for one, other in ALWAYS_TOUCHING:
        SubElement(excluded, "exclude", body1=one, body2=other)
    return ElementTree.tostring(root, encoding="unicode")


def _(*numbers: Number) -> str:
    return " ".join(repr(float(number)) for number in numbers)


def _camera(parent: Element, name: str, at: Sequence[Number], back: Sequence[Number], fovy_deg: Number) -> None:
    """A camera that looks along -back, its right side level."""
    x, y, z = back
    SubElement(
        parent, "camera", name=name, pos=_(*at), xyaxes=_(-y, x, 0, -x * z, -y * z, x * x + y * y), fovy=_(fovy_deg)
    )


def _body(parent: Element, name: str, at: Sequence[Number], yaw_rad: Number = 0.0) -> Element:
    return SubElement(parent, "body", name=name, pos=_(*at), euler=_(0, 0, yaw_rad))


def _geom(
    parent: Element,
    half: Sequence[Number],
    at: Sequence[Number],
    rgb: Rgb,
    material: str,
    parameters: CellParameters,
    *,
    look: str = "matt",
    mass: Number | None = None,
    friction: float | None = None,
    pattern: Sequence[Number] = (),
    yaw_rad: Number = 0.0,
    solid: bool = True,
) -> Element:
    row = MATERIALS[material]
    grip = parameters.friction * (row.friction if friction is None else friction)
    kind = "box" if len(half) == 3 else "cylinder"
    made = SubElement(
        parent,
        "geom",
        type=kind,
        size=_(*half),
        pos=_(*at),
        euler=_(0, 0, yaw_rad),
        rgba=_(*rgb, 1),
        material=look,
        friction=_(grip, 0.005, 0.0005),
        solref=HARD,
        condim="4",
    )
    made.set("mass", _(mass)) if mass is not None else made.set("density", _(row.density_kg_m3))
    if pattern:
        made.set("user", _(*pattern))
    if not solid:
        made.set("contype", "0")
        made.set("conaffinity", "0")
    return made


def _surroundings(world: Element, parameters: CellParameters) -> None:
    palette = parameters.palette
    darker = tuple(0.82 * value for value in palette.floor)
    _geom(world, (3, 3, 0.01), (0, 0, -0.41), palette.floor, "wood", parameters, pattern=(CHECKER, 0.25, *darker, 0))
    bench = _body(world, "bench", (0, 0, 0))
    shade = tuple(0.94 * value for value in palette.bench)
    _geom(
        bench, (0.44, 0.30, 0.02), (0, 0, -0.02), palette.bench, "wood", parameters, pattern=(STRIPES, 0.11, *shade, 1)
    )


def _belt(world: Element, parameters: CellParameters) -> None:
    palette = parameters.palette
    belt = _body(world, "belt", (0, BELT_Y_M, BELT_TOP_M / 2))
    SubElement(belt, "joint", name="belt", type="slide", axis="1 0 0")
    half = (BELT_HALF_LENGTH_M, BELT_HALF_WIDTH_M, BELT_TOP_M / 2)
    pattern = (STRIPES, 0.06, *palette.belt_stripe, 0)
    _geom(belt, half, (0, 0, 0), palette.belt, "rubber", parameters, mass=2000, pattern=pattern)
    rails = _body(world, "rails", (0, BELT_Y_M, 0))
    for side in (-1, 1):
        half = (BELT_HALF_LENGTH_M, 0.004, 0.016)
        _geom(rails, half, (0, side * (BELT_HALF_WIDTH_M + 0.005), 0.016), palette.machine, "sheet_steel", parameters)


def _tray(
    world: Element,
    name: str,
    at: tuple[float, float],
    half: tuple[float, float],
    wall_m: Number,
    rgb: Rgb,
    parameters: CellParameters,
) -> Element:
    tray = _body(world, name, (*at, 0))
    inside = (0.62 * rgb[0], 0.62 * rgb[1], 0.62 * rgb[2])
    _geom(tray, (*half, SHEET_M / 2), (0, 0, SHEET_M / 2), inside, "sheet_steel", parameters, look="steel")
    for side in (-1, 1):
        _geom(tray, (SHEET_M / 2, half[1], wall_m / 2), (side * half[0], 0, wall_m / 2), rgb, "sheet_steel", parameters)
        _geom(tray, (half[0], SHEET_M / 2, wall_m / 2), (0, side * half[1], wall_m / 2), rgb, "sheet_steel", parameters)
    return tray


def _fixture(world: Element, layout: Layout, parameters: CellParameters) -> None:
    assert layout.fixture is not None
    hole = PEG_HALF_M + parameters.clearance_m
    wall, middle, height = (FIXTURE_HALF_M - hole) / 2, (FIXTURE_HALF_M + hole) / 2, FIXTURE_HEIGHT_M / 2
    body = _body(world, "fixture", (layout.fixture.x_m, layout.fixture.y_m, 0), layout.fixture.yaw_rad)
    colour = parameters.palette.fixture
    for side in (-1, 1):
        _geom(
            body, (wall, FIXTURE_HALF_M, height), (side * middle, 0, height), colour, "steel", parameters, look="steel"
        )
        _geom(body, (hole, wall, height), (0, side * middle, height), colour, "steel", parameters, look="steel")


def _panel(world: Element, layout: Layout, parameters: CellParameters) -> None:
    palette, panel = parameters.palette, layout.panel
    body = _body(world, "panel", (panel.x_m, panel.y_m, 0))
    _geom(body, (0.066, 0.030, 0.015), (0, 0, 0.015), palette.machine, "sheet_steel", parameters)
    lamp = _body(world, "lamp", (panel.x_m, panel.y_m + 0.042, 0))
    _geom(lamp, (0.006, 0.035), (0, 0, 0.035), palette.finger, "plastic", parameters)
    _geom(lamp, (0.016, 0.016), (0, 0, 0.086), LAMP_OFF, "plastic", parameters, look="plastic").set("name", "lamp")
    for name, rgb in BUTTONS.items():
        x, y = panel.button_m(name)
        button = _body(world, f"button_{name}", (x, y, PLUNGER_TOP_M - 0.011))
        # Stiff enough that a part falling on it does not start the cell: 6 N to begin, 12 N at the end.
        SubElement(
            button,
            "joint",
            name=f"button_{name}",
            type="slide",
            axis="0 0 1",
            range=_(-PLUNGER_TRAVEL_M, 0),
            stiffness="800",
            springref="0.008",
            damping="6",
            armature="0.01",
        )
        _geom(button, (0.021, 0.011), (0, 0, 0), rgb, "plastic", parameters, look="plastic", mass=0.02)


def _gantry(world: Element, parameters: CellParameters) -> None:
    palette = parameters.palette
    carriage = _body(world, "gantry_x", (0, 0, 0))
    SubElement(carriage, "joint", name="x", type="slide", axis="1 0 0")
    SubElement(carriage, "inertial", pos="0 0 0.5", mass="0.4", diaginertia="1e-3 1e-3 1e-3")
    bridge = _body(carriage, "gantry_y", (0, 0, 0))
    SubElement(bridge, "joint", name="y", type="slide", axis="0 1 0")
    SubElement(bridge, "inertial", pos="0 0 0.5", mass="0.4", diaginertia="1e-3 1e-3 1e-3")
    mast = _body(bridge, "mast", (0, 0, 0))
    mast.set("gravcomp", "1")
    SubElement(mast, "joint", name="z", type="slide", axis="0 0 1")
    _geom(mast, (0.014, 0.11), (0, 0, 0.195), palette.machine, "steel", parameters, look="steel", mass=0.6)
    palm = _body(mast, "palm", (0, 0, 0))
    palm.set("gravcomp", "1")
    SubElement(palm, "joint", name="yaw", type="hinge", axis="0 0 1", armature="0.002")
    _geom(palm, (0.060, 0.016, 0.012), (0, 0, 0.072), palette.machine, "steel", parameters, mass=0.4)
    SubElement(palm, "camera", name="wrist", pos=_(0, -0.09, 0.09), xyaxes=_(1, 0, 0, 0, 0.77, 0.63), fovy=_(70))
    for name, side in (("finger_left", -1), ("finger_right", 1)):
        finger = _body(palm, name, (side * PAD_HALF_M[0], 0, 0))
        finger.set("gravcomp", "1")
        SubElement(
            finger,
            "joint",
            name=name,
            type="slide",
            axis=_(side, 0, 0),
            range=_(0, FINGER_STROKE_M),
            armature="0.05",
            damping="2",
        )
        _geom(finger, PAD_HALF_M, (0, 0, 0), palette.finger, "rubber", parameters, mass=0.04, friction=1.4)
        _geom(finger, (0.005, 0.009, 0.026), (0, 0, 0.036), palette.finger, "steel", parameters, mass=0.04)


def _drives(root: Element, parameters: CellParameters) -> None:
    actuators = SubElement(root, "actuator")
    moved = {"x": 2.0, "y": 1.6, "z": 1.2, "yaw": 0.004}
    for axis in AXES:
        gain = moved[axis] * DRIVE_RAD_S**2 * parameters.actuator_gain
        force = DRIVE_N[axis]
        SubElement(actuators, "position", name=axis, joint=axis, kp=_(gain), dampratio="1", forcerange=_(-force, force))
    for finger in ("finger_left", "finger_right"):
        SubElement(actuators, "position", name=finger, joint=finger, kp="2500", kv="30", forcerange=_(-GRIP_N, GRIP_N))


def _couple(root: Element) -> None:
    """One drive closes both fingers, so that what they hold stays in the middle."""
    equality = SubElement(root, "equality")
    SubElement(
        equality,
        "joint",
        joint1="finger_left",
        joint2="finger_right",
        polycoef="0 1 0 0 0",
        solref=HARD,
        solimp="0.99 0.999 0.0001",
    )


def _part(world: Element, index: int, placed: Placed, parameters: CellParameters) -> None:
    part = placed.part
    material, rgb = FINISHES[part.finish]
    body = _body(world, f"part_{index}", placed.position_m, placed.yaw_rad)
    SubElement(body, "freejoint", name=f"part_{index}")
    look = material if material in LOOKS else "matt"
    for shape in KINDS[part.kind].shapes:
        half = [part.scale * value for value in shape.half_m]
        made = _geom(body, half, (0, 0, 0), rgb, material, parameters, look=look, yaw_rad=shape.yaw_rad)
        # Solid metal would be heavier than what the fingers hold safely: parts are cast hollow.
        made.set("density", _(MATERIALS[material].density_kg_m3 * 0.45 * parameters.mass))
    if part.cracked:
        top = part.half_height_m
        reach = 0.92 * min(KINDS[part.kind].shapes[0].half_m[0] * part.scale, part.radius_m)
        for yaw, length in ((0.9, reach), (-0.5, 0.7 * reach)):
            _geom(
                body,
                (length, 0.0045, 0.0012),
                (0, 0, top),
                (0.03, 0.03, 0.04),
                material,
                parameters,
                mass=1e-6,
                yaw_rad=yaw,
                solid=False,
            )
