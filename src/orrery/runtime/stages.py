"""Seconds of the stages of a call, for those who ask where its time goes. Nothing is timed where nobody asks."""

import time
from dataclasses import dataclass, field

import torch


@dataclass(kw_only=True)
class Stages:
    """Laps of one call of `runtime.run`: check, read inputs, encode, read text, sample, decode and guard, or answer.

    At the end of each lap the device is waited for, so that its work is counted where it was asked for; a call takes a
    little longer for it.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> its seconds, those of all requests of the call together."""
    _last: float = 0.0

    def begin(self) -> None:
        """Start the clock; what was taken before is forgotten."""
        self.seconds.clear()
        self._last = self._now()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was this stage."""
        now = self._now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
