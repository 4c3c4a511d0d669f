"""What the codecs alone lose: pixels of both cameras, of parts and gripper apart, and sound."""

from orrery.evaluation.baselines import copy_last_frame
from orrery.evaluation.factory.dynamics import psnr_interval
from orrery.evaluation.factory.figure import Baseline, Figure, Outcome, Suite
from orrery.evaluation.factory.scenes import CAMERAS, cut, cuts, gather
from orrery.evaluation.metrics import pixel_error, pooled
from orrery.evaluation.page import Strip
from orrery.runtime.model import Model
from orrery.worlds.factory.cell import CONTROL_HZ


def codec(model: Model, suite: Suite) -> Outcome:
    """PSNR of encoded and decoded windows."""
    assert model.vision is not None
    windows = gather(cut, cuts(suite.size.windows, seed=suite.seed, offset=500_000, masks=True), suite.workers)
    figures: list[Figure] = []
    strips: list[Strip] = []
    for camera in CAMERAS:
        true = [window.film[camera] for window in windows]
        back = [model.vision.decode(model.vision.encode(clip)) for clip in true]
        still = [copy_last_frame(clip[:1], len(clip)) for clip in true]
        things = [window.masks[camera] for window in windows if window.masks is not None]
        for name, masks in (("all pixels", [None] * len(true)), ("pixels of parts and gripper", things)):
            own = [pixel_error(*row) for row in zip(back, true, masks, strict=True)]
            copied = [pixel_error(*row) for row in zip(still, true, masks, strict=True)]
            figures.append(
                Figure(
                    name=f"PSNR of {name}, {camera}",
                    value=pooled(own).psnr_db,
                    unit="dB",
                    interval=psnr_interval(own, suite.seed),
                    baselines=(Baseline(name="the first frame copied", value=pooled(copied).psnr_db),),
                    n=len(windows),
                    of="windows",
                    floor=30.0,
                    goal=38.0,
                )
            )
        clips = (("true", true[0]), ("encoded and decoded", back[0]))
        strips.append(Strip(caption=f"{camera}, {windows[0].instruction}", clips=clips, fps=CONTROL_HZ))
    return Outcome(figures=tuple(figures), strips=tuple(strips))
