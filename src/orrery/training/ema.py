"""A running mean of the weights that widens with training, kept in float32.

Averaging weights of one run; what is done with the mean (saving, sampling) is the caller's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orrery.errors import CheckpointError, SettingsError

_VERSION = 1


def power_gamma(width: float) -> float:
    """The exponent gamma whose profile t^gamma has standard deviation `width`, relative to the run so far.

    Args:
        width: relative width; 0.1 averages over about the last tenth and gives 6.9372.

    Raises:
        SettingsError: `width` is not in (0, 0.28]; wider profiles have no positive exponent.

    Source: arXiv:2312.02696, section 3: the largest root of g^3 + 7 g^2 + (16 - width^-2) g + (12 - width^-2).
    """
    if not 0 < width <= 0.28:
        raise SettingsError(f"The relative width of the mean must be in (0, 0.28], got {width}. 0.1 is usual.")
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots[np.isreal(roots)].real.max())


def power_decay(update: int, gamma: float) -> float:
    """How much of the mean stays at the given update, counted from 1: (1 - 1 / update)^(gamma + 1); 0 at the first.

    Source: arXiv:2312.02696, section 3.
    """
    return float((1 - 1 / update) ** (gamma + 1))


class PowerEma:
    """The mean of some parameters, float32, on their device. Starts as a copy of them."""

    def __init__(self, named_parameters: Iterable[tuple[str, Tensor]], width: float) -> None:
        self.width = width
        self.updates = 0
        self._gamma = power_gamma(width)
        self._mean = {name: p.detach().to(torch.float32, copy=True) for name, p in named_parameters}

    @torch.no_grad()
    def update(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Take in the weights after one more training step. Needs the parameters it was made from, in any order."""
        parameters = dict(named_parameters)
        if parameters.keys() != self._mean.keys():
            odd = sorted(parameters.keys() ^ self._mean.keys())
            raise ValueError(
                f"The mean must be given the parameters it was made from; unmatched: {', '.join(odd[:5])}."
            )
        self.updates += 1
        taken = 1 - power_decay(self.updates, self._gamma)
        for name, mean in self._mean.items():
            mean.lerp_(parameters[name].detach().to(torch.float32), taken)

    def tensors(self) -> dict[str, Tensor]:
        """The mean by parameter name; the live tensors, not copies."""
        return dict(self._mean)

    def document(self) -> dict[str, Any]:
        """What else `load` needs, JSON-able."""
        return {"version": _VERSION, "width": self.width, "updates": self.updates}

    def load(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Go on from a saved mean, to the bit.

        Raises:
            CheckpointError: another version or width, or tensors that are missing, left over or of another shape.
        """
        if (document["version"], document["width"]) != (_VERSION, self.width):
            raise CheckpointError(
                f"The saved mean has version {document['version']} and width {document['width']}, expected {_VERSION}"
                f" and {self.width}. Resume with the settings of the saved run."
            )
        if odd := sorted(tensors.keys() ^ self._mean.keys()):
            raise CheckpointError(
                f"The saved mean has missing or unknown tensors: {', '.join(odd[:5])} ({len(odd)} in all)."
            )
        for name, mean in self._mean.items():
            if tensors[name].shape != mean.shape:
                raise CheckpointError(
                    f"The saved mean of {name} must have shape {tuple(mean.shape)}, got {tuple(tensors[name].shape)}."
                )
        for name, mean in self._mean.items():
            mean.copy_(tensors[name])
        self.updates = document["updates"]
