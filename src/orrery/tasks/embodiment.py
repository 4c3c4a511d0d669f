"""Robots and other bodies as rows: domain, action layout, rates, prompt words and the published action statistics.

Domain ids, widths and layouts are those of the released Cosmos 3 checkpoints; statistics are the published ones,
to five significant digits. The contract inside a checkpoint goes before these rows.
"""

from dataclasses import dataclass, replace

from orrery.errors import TaskError
from orrery.tasks.checks import Number, nearest, shown
from orrery.tasks.contract import ActionContract, Camera, Frame, Mode, Rotation
from orrery.tasks.normaliser import Normaliser

UNNORMALISED = Normaliser()


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """One row. `width` None: the data decide. `action_names` empty: the layout was never published.

    `statistics` are what was published; `normalised` says whether the released base models expect actions in them.
    """

    name: str
    domain_id: int
    width: int | None = None
    widths: tuple[int, ...] = ()
    """Widths in use where there is no canonical one."""
    action_names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    viewpoint: str | None = None
    view_description: str = ""
    fps: Number | None = None
    chunk: int | None = None
    frame: Frame = "gripper"
    mode: Mode = "relative"
    rotation: Rotation = "none"
    gripper_index: int | None = None
    gripper_range: tuple[Number, Number] = (0.0, 1.0)
    statistics: Normaliser = UNNORMALISED
    normalised: bool = False
    state_names: tuple[str, ...] = ()
    """Columns of the current state; empty: those of an action row."""
    state_normaliser: Normaliser | None = None

    @property
    def normaliser(self) -> Normaliser:
        """What the released base models expect actions to have gone through."""
        return self.statistics if self.normalised else UNNORMALISED

    def contract(self, *, chunk: int | None = None, cameras: tuple[Camera, ...] = ()) -> ActionContract:
        """The contract of a released checkpoint, which does not carry one of its own.

        Raises:
            TaskError: layout, rate or chunk were never published.
        """
        length = self.chunk if chunk is None else chunk
        if not self.action_names or self.fps is None or length is None:
            raise TaskError(
                f"Embodiment {self.name!r} has no published layout, rate or chunk. "
                "Give the checkpoint a contract of its own."
            )
        return ActionContract(
            embodiment=self.name,
            domain_id=self.domain_id,
            action_names=self.action_names,
            units=self.units,
            frame=self.frame,
            mode=self.mode,
            rotation=self.rotation,
            gripper_index=self.gripper_index,
            gripper_range=None if self.gripper_index is None else self.gripper_range,
            gripper_open=None if self.gripper_index is None else "hi",
            control_rate_hz=self.fps,
            chunk=length,
            cameras=cameras,
            normaliser=self.normaliser,
            state_names=self.state_names,
            state_normaliser=self.state_normaliser,
        )


def embodiment(name: str) -> Embodiment:
    """The row called `name`; TaskError with the nearest name otherwise."""
    if name not in EMBODIMENTS:
        raise TaskError(
            f"There is no embodiment {shown(name)}. {nearest(name, EMBODIMENTS)} "
            "A new robot is a row in tasks/embodiment.py, or 'custom' with a contract in the checkpoint."
        )
    return EMBODIMENTS[name]


def _pose(prefix: str = "") -> tuple[str, ...]:
    # The six rotation numbers are the first two columns of the matrix, column by column.
    return tuple(prefix + part for part in ("x", "y", "z", "r00", "r10", "r20", "r01", "r11", "r21"))


def _points(prefix: str) -> tuple[str, ...]:
    fingers = ("thumb", "index", "middle", "ring", "little")
    return tuple(f"{prefix}{finger}_{axis}" for finger in fingers for axis in "xyz")


POSE_UNITS = ("m",) * 3 + ("1",) * 6
ARM = (*_pose(), "gripper")
ARM_UNITS = (*POSE_UNITS, "1")
TWO_ARMS = (*_pose("left_"), "left_gripper", *_pose("right_"), "right_gripper")
AGIBOT = (*_pose("head_"), *_pose("right_"), "right_gripper", *_pose("left_"), "left_gripper")
HAND = (*_pose("camera_"), *_pose("right_wrist_"), *_points("right_"), *_pose("left_wrist_"), *_points("left_"))
JOINTS = tuple(f"joint_{index}" for index in range(1, 8))

DROID_VIEW = (
    "The top row is from the wrist-mounted camera. The bottom row contains two horizontally concatenated third-person "
    "perspective views of the scene from opposite sides, with the robot visible."
)
AGIBOT_VIEW = (
    "The top row shows the head-mounted camera view looking down at the workspace. The bottom row contains two "
    "horizontally concatenated wrist-mounted camera views: the left hand camera on the left and the right hand camera "
    "on the right."
)
ROBOMIND_VIEW = (
    "The top row shows a third-person perspective looking towards the {robot}. The bottom-left view looks at the scene "
    "from the left side, and the bottom-right view looks at the scene from the right side."
)
LIBERO_VIEW = "The left half shows the third-person view; the right half shows the wrist-mounted camera."


def _quantile(lo: str, hi: str, *, clamp: bool = False) -> Normaliser:
    low, high = (tuple(float(number) for number in column.split(",")) for column in (lo, hi))
    return Normaliser(kind="quantile", lo=low, hi=high, clamp=clamp)


BRIDGE = _quantile(
    "-0.038884,-0.028667,-0.03784,0.97629,-0.1631,-0.081545,-0.16019,0.97632,-0.078872,0",
    "0.039722,0.029068,0.026702,1,0.1602,0.081655,0.16323,1,0.095189,1",
)
DROID = _quantile(
    "-0.0142,-0.013416,-0.015206,0.99846,-0.047659,-0.034774,-0.047609,0.99843,-0.035553,0",
    "0.014515,0.011517,0.01452,1,0.047596,0.03466,0.047654,1,0.038888,1",
)
FRACTAL = _quantile(
    "-0.039816,-0.04927,-0.056266,0.98367,-0.13454,-0.10705,-0.12652,0.97728,-0.091363,0",
    "0.04386,0.050352,0.072505,1,0.1274,0.10727,0.13414,1,0.17973,1",
)
ROBOMIND_FRANKA = _quantile(
    "-0.065029,-0.030683,-0.075321,0.98166,-0.13743,-0.069593,-0.14022,0.97689,-0.1404,0",
    "0.068546,0.036309,0.051772,1,0.14029,0.079942,0.13753,1,0.11365,1",
)
ROBOMIND_FRANKA_DUAL = _quantile(
    "-0.051367,-0.031964,-0.046482,0.9881,-0.053179,-0.1286,-0.075432,0.99443,-0.059973,0,"
    "-0.035108,-0.021212,-0.029788,0.98609,-0.098043,-0.11144,-0.093441,0.99149,-0.05803,0",
    "0.043729,0.021737,0.036738,1,0.075612,0.10279,0.053223,1,0.077057,1,"
    "0.047581,0.02127,0.025712,1,0.095525,0.12605,0.098778,1,0.041914,0.99544",
)
ROBOMIND_UR = _quantile(
    "-0.050087,-0.032055,-0.045222,0.98655,-0.11434,-0.074432,-0.12846,0.9823,-0.13251,0",
    "0.040385,0.036577,0.032376,1,0.12974,0.095558,0.11508,1,0.12199,1",
)
UMI = _quantile(
    "-0.035246,-0.037122,-0.035762,0.98405,-0.10871,-0.065188,-0.11091,0.98289,-0.085106,0",
    "0.038095,0.033082,0.032447,1,0.11057,0.068087,0.10897,1,0.089037,0.096749",
)
UMI_LEFT = _quantile(
    "-0.027468,-0.036971,-0.029396,0.99352,-0.076207,-0.061227,-0.074231,0.99217,-0.076929,0",
    "0.033588,0.03284,0.027391,1,0.073697,0.057541,0.075834,1,0.086257,0.085",
)
# Some head columns do not move: their range is below 1e-8 at this precision and decoding returns the constant.
AGIBOTWORLD = _quantile(
    "-0.000167,-0.007272,-0.014935,1,-0.000306,-0.000594,-0.00026,0.99923,-0.025516,"
    "-0.012912,-0.017163,-0.017614,0.99461,-0.064506,-0.053231,-0.066267,0.99438,-0.051163,0,"
    "-0.01164,-0.015508,-0.01388,0.99651,-0.050126,-0.040305,-0.04733,0.99662,-0.038303,0",
    "0.000164,0.004822,0.013706,1,0.00024,0.000703,0.000278,1,0.03009,"
    "0.013182,0.01696,0.016101,1,0.066268,0.053905,0.064357,1,0.052547,1,"
    "0.01089,0.015347,0.012968,1,0.047482,0.042217,0.050173,1,0.041428,1",
)
LIBERO = _quantile(
    "-0.72321,-0.80893,-0.9375,0.93495,-0.22343,-0.18988,-0.33474,0.93852,-0.10774,0",
    "0.9375,0.87054,0.9375,1,0.331,0.16315,0.22622,1,0.12716,1",
)
# Taken from one validation episode of a community contribution, not from the training data of the released models.
HAND_POSE = _quantile(
    "-0.026688,-0.024154,-0.013269,0.99683,-0.056513,-0.02372,-0.055905,0.99692,-0.026957,"
    "-0.048362,-0.040973,-0.040898,0.86909,-0.31602,-0.24075,-0.32718,0.87993,-0.21302,"
    "-0.080012,0.029713,0.059227,-0.038851,0.010826,0.062254,-0.007452,0.010061,0.047149,0.005736,0.006631,0.036123,"
    "0.018989,0.001386,0.033526,"
    "-0.037843,-0.037665,-0.036427,0.90169,-0.27889,-0.20003,-0.26725,0.907,-0.18705,"
    "-0.013628,0.024588,0.053585,-0.012045,0.000813,0.065182,-0.037355,-0.001436,0.052279,-0.058561,-0.004175,0.042882,"
    "-0.078014,-0.007496,0.039113",
    "0.026573,0.015575,0.015514,1,0.055889,0.023992,0.056601,1,0.027849,"
    "0.044917,0.040128,0.043628,1,0.32293,0.23881,0.3114,1,0.22269,"
    "0.016559,0.10527,0.12995,0.014097,0.089857,0.18835,0.037904,0.087388,0.19212,0.059029,0.08399,0.17789,"
    "0.074478,0.069913,0.14533,"
    "0.041177,0.0368,0.039655,1,0.27139,0.20317,0.28252,1,0.19368,"
    "0.087733,0.10751,0.12832,0.040024,0.08864,0.19187,0.008532,0.08699,0.19514,-0.005823,0.083213,0.18056,"
    "-0.019596,0.069257,0.14812",
    clamp=True,
)
# The released models take ego motion with its metres multiplied by 1.35.
AV = Normaliser(kind="scale", scale=(1.35,) * 3 + (1.0,) * 6)

ONE_ARM = Embodiment(
    name="one arm",
    domain_id=8,
    width=10,
    action_names=ARM,
    units=ARM_UNITS,
    rotation="rot6d",
    gripper_index=9,
    chunk=16,
)
DROID_ROW = replace(
    ONE_ARM,
    name="droid_lerobot",
    viewpoint="concat_view",
    view_description=DROID_VIEW,
    fps=15,
    statistics=DROID,
    normalised=True,
)
UMI_ROW = replace(
    ONE_ARM,
    name="umi",
    domain_id=6,
    units=(*POSE_UNITS, "m"),
    viewpoint="wrist_view",
    fps=10,
    gripper_range=(0.0, 0.1),
    statistics=UMI,
    normalised=True,
)
AGIBOT_ROW = Embodiment(
    name="agibotworld",
    domain_id=15,
    width=29,
    action_names=AGIBOT,
    units=(*POSE_UNITS, *ARM_UNITS, *ARM_UNITS),
    viewpoint="concat_view",
    view_description=AGIBOT_VIEW,
    fps=10,
    chunk=16,
    rotation="rot6d",
    gripper_index=18,
    statistics=AGIBOTWORLD,
    normalised=True,
)
DUAL_ARM = replace(
    ONE_ARM, name="two arms", width=20, action_names=TWO_ARMS, units=ARM_UNITS * 2, chunk=None, domain_id=16
)

EMBODIMENTS = {
    row.name: row
    for row in (
        Embodiment(name="no_action", domain_id=0),
        Embodiment(
            name="av",
            domain_id=1,
            width=9,
            action_names=_pose(),
            units=POSE_UNITS,
            viewpoint="ego_view",
            fps=10,
            chunk=60,
            frame="camera",
            rotation="rot6d",
            statistics=AV,
            normalised=True,
        ),
        Embodiment(
            name="camera_pose",
            domain_id=2,
            width=9,
            action_names=_pose(),
            units=POSE_UNITS,
            viewpoint="ego_view",
            fps=30,
            chunk=60,
            frame="camera",
            rotation="rot6d",
        ),
        Embodiment(
            name="hand_pose",
            domain_id=3,
            width=57,
            action_names=HAND,
            units=POSE_UNITS * 2 + ("m",) * 15 + POSE_UNITS + ("m",) * 15,
            viewpoint="ego_view",
            fps=15,
            chunk=16,
            frame="camera",
            rotation="rot6d",
            statistics=HAND_POSE,
            normalised=True,
        ),
        Embodiment(name="pusht", domain_id=4, width=2, viewpoint="top_down_2d_view", frame="pixels", mode="absolute"),
        # Rotation of 3, 6 or 9 numbers; recorded at 10 or 20 actions per second, so the request has to say.
        Embodiment(
            name="libero",
            domain_id=5,
            widths=(7, 10, 13),
            viewpoint="concat_view",
            view_description=LIBERO_VIEW,
            chunk=16,
            statistics=LIBERO,
        ),
        UMI_ROW,
        replace(UMI_ROW, name="umi_left", statistics=UMI_LEFT),
        replace(
            ONE_ARM,
            name="bridge_orig_lerobot",
            domain_id=7,
            viewpoint="ego_view",
            fps=5,
            statistics=BRIDGE,
            normalised=True,
        ),
        DROID_ROW,
        # Released joint policies: absolute radians, row 0 is the current state, 1 is an open gripper.
        Embodiment(
            name="droid_joints",
            domain_id=8,
            width=8,
            action_names=(*JOINTS, "gripper"),
            units=("rad",) * 7 + ("1",),
            viewpoint="concat_view",
            view_description=DROID_VIEW,
            fps=15,
            chunk=32,
            frame="joints",
            mode="absolute",
            gripper_index=7,
        ),
        replace(
            ONE_ARM,
            name="robomind-franka",
            viewpoint="concat_view",
            view_description=ROBOMIND_VIEW.format(robot="single-arm Franka robot from above"),
            fps=10,
            statistics=ROBOMIND_FRANKA,
            normalised=True,
        ),
        Embodiment(name="embodiment_b", domain_id=9, width=30),
        Embodiment(name="galbot", domain_id=9, width=30),
        replace(
            DUAL_ARM,
            name="robomind-franka-dual",
            domain_id=12,
            viewpoint="concat_view",
            view_description=ROBOMIND_VIEW.format(robot="dual-arm Franka robot from the front"),
            fps=10,
            chunk=16,
            statistics=ROBOMIND_FRANKA_DUAL,
            normalised=True,
        ),
        replace(
            ONE_ARM,
            name="robomind-ur",
            domain_id=13,
            viewpoint="third_person_view",
            fps=10,
            statistics=ROBOMIND_UR,
        ),
        AGIBOT_ROW,
        replace(AGIBOT_ROW, name="embodiment_c_gripper"),
        replace(AGIBOT_ROW, name="embodiment_c_gripper_ext"),
        replace(AGIBOT_ROW, name="agibot_gear_gripper"),
        replace(AGIBOT_ROW, name="agibot_gear_gripper_ext"),
        replace(DUAL_ARM, name="xdof_yam"),
        replace(DUAL_ARM, name="molmoact2_yam"),
        replace(DUAL_ARM, name="abc_yam"),
        Embodiment(
            name="robotwin",
            domain_id=17,
            width=14,
            action_names=tuple(f"{side}_{part}" for side in ("left", "right") for part in (*JOINTS[:6], "gripper")),
            units=(("rad",) * 6 + ("1",)) * 2,
            frame="joints",
            mode="absolute",
            gripper_index=6,
        ),
        replace(ONE_ARM, name="fractal", domain_id=20, viewpoint="ego_view", fps=3, statistics=FRACTAL),
        Embodiment(name="drawanything", domain_id=21, width=3, frame="pixels"),
        Embodiment(name="behavior1k_lerobot", domain_id=22, width=23, frame="joints"),
        replace(DUAL_ARM, name="maniparena", domain_id=23),
        # The simulated cell of worlds.factory; a domain that has no released meaning. Ranges are the limits of a step.
        Embodiment(
            name="factory_gantry",
            domain_id=24,
            width=5,
            action_names=("dx", "dy", "dz", "dyaw", "gripper"),
            units=("m", "m", "m", "rad", "1"),
            viewpoint="third_person_view",
            fps=20,
            chunk=16,
            frame="world",
            gripper_index=4,
            statistics=Normaliser(
                kind="minmax", lo=(-0.03, -0.03, -0.03, -0.15, 0.0), hi=(0.03, 0.03, 0.03, 0.15, 1.0)
            ),
            normalised=True,
            state_names=("x_m", "y_m", "z_m", "yaw_rad", "aperture"),
            # The workspace of the cell, and a gripper from closed to open.
            state_normaliser=Normaliser(
                kind="minmax", lo=(-0.36, -0.24, 0.012, -3.6, 0.0), hi=(0.36, 0.24, 0.30, 3.6, 1.0)
            ),
        ),
        # Everything about it comes from the contract inside the checkpoint; domain 31 has no released meaning.
        Embodiment(name="custom", domain_id=31),
    )
}
