"""How fast a model samples, and what that may cost: values only, without torch. `runtime.price` acts on them.

"plain" asks the model itself. "fast" asks `model.denoiser`, whose numbers are those of the plain path up to rounding.
"fp8" also multiplies in 8 bits, and "8bit" attends in 8 bits as well: these two are approximate and have a price, which
is measured when they are switched on.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from orrery.errors import SettingsError
from orrery.tasks.checks import nearest, shown
from orrery.weights.documents import exact_fields

Name = Literal["plain", "fast", "fp8", "8bit"]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What the generation tower runs on."""

    denoiser: Literal["plain", "fast"] = "plain"
    """"plain": the model as it is. "fast": joined matrices and the fastest kernels; on a GPU compiled and recorded."""
    linears: Literal["exact", "fp8"] = "exact"
    """Arithmetic of the projections; "fp8" is e4m3 with a scale for each row."""
    attention: Literal["exact", "8bit"] = "exact"
    """Arithmetic of attention."""
    reuse: float | None = None
    """Relative change of the velocity up to which a turn is extrapolated instead of computed; None computes them all.
    See `flow.reuse`."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("denoiser", self.denoiser, ("plain", "fast")),
            ("linears", self.linears, ("exact", "fp8")),
            ("attention", self.attention, ("exact", "8bit")),
        ):
            if value not in known:
                raise SettingsError(f"{name} of a speed must be one of {', '.join(known)}, got {shown(value)}.")
        if self.reuse is not None and not 0 < self.reuse < float("inf"):
            raise SettingsError(
                f"reuse must be above 0 and finite, got {self.reuse}. Leave it out to compute every turn."
            )
        if self.denoiser == "plain" and self.approximate:
            raise SettingsError(
                f"The plain path computes exactly, got linears {self.linears!r} and attention {self.attention!r}. "
                "Set denoiser to 'fast' as well."
            )

    @property
    def approximate(self) -> bool:
        """Whether a forward pass gives other numbers than the plain one beyond rounding."""
        return (self.linears, self.attention) != ("exact", "exact")

    def to_text(self) -> str:
        """In words."""
        reuse = "" if self.reuse is None else f", reuse {self.reuse:g}"
        return f"denoiser {self.denoiser}, linears {self.linears}, attention {self.attention}{reuse}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, all of them."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Speed":
        """Inverse of `to_json`; a missing or unknown key is an error."""
        return cls(**exact_fields(cls, document, "Speed of a record"))


SPEEDS: dict[str, Speed] = {
    "plain": Speed(),
    "fast": Speed(denoiser="fast"),
    "fp8": Speed(denoiser="fast", linears="fp8"),
    "8bit": Speed(denoiser="fast", linears="fp8", attention="8bit"),
}


def speed_named(name: str) -> Speed:
    """The speed called `name`; SettingsError for one that is not known."""
    if name not in SPEEDS:
        raise SettingsError(f"There is no speed {shown(name)}. {nearest(name, SPEEDS)}")
    return SPEEDS[name]


def default_speed(device: str, dtype: str) -> Speed:
    """The plain path on a CPU; the fast one, which is exact to rounding, on a GPU in bfloat16.

    Args:
        device: type of the device, "cpu" or "cuda".
        dtype: number format of the network.
    """
    return SPEEDS["fast" if (device, dtype) == ("cuda", "bfloat16") else "plain"]
