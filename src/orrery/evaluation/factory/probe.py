"""The frozen probes: loaded from a folder or as they are shipped, and what they say of pictures and sounds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8

from orrery.errors import CheckpointError
from orrery.training.probe import MATERIALS, PLACES, PictureProbe, SoundProbe, pair_number
from orrery.weights.folder import open_folder
from orrery.weights.hub import shipped
from orrery.weights.shard import read_tensors
from orrery.worlds.factory.parts import Part

NAME = "factory-probe"
"""Of the shipped ones."""
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Sights:
    """What the picture probe says of B pictures."""

    present: Float[np.ndarray, "B 30"]
    """Probability that each pair is there."""
    position_m: Float[np.ndarray, "B 30 3"]
    place: Int[np.ndarray, "B 30"]
    """Row of PLACES."""
    gripper_m: Float[np.ndarray, "B 3"]
    aperture: Float[np.ndarray, " B"]
    held: Float[np.ndarray, " B"]
    lamp: Float[np.ndarray, " B"]

    def part_m(self, picture: int, part: Part) -> Float[np.ndarray, "3"]:
        """Where a part is."""
        return self.position_m[picture, pair_number(part)]

    def has(self, picture: int, part: Part) -> bool:
        """Whether a part is there."""
        return bool(self.present[picture, pair_number(part)] > 0.5)

    def place_of(self, picture: int, part: Part) -> str:
        """Word of PLACES."""
        return PLACES[int(self.place[picture, pair_number(part)])]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Both probes, frozen."""

    picture: PictureProbe
    sound: SoundProbe
    note: str
    """How good they are."""

    @torch.no_grad()
    def read(self, pictures: UInt8[np.ndarray, "B 128 128 3"]) -> Sights:
        """What is in front pictures."""
        device = next(self.picture.parameters()).device
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(pictures), BATCH):
            reading = self.picture(torch.from_numpy(pictures[start : start + BATCH]).to(device))
            for name, values in (
                ("present", reading.present.sigmoid()),
                ("position_m", reading.position),
                ("place", reading.place.argmax(-1)),
                ("gripper_m", reading.gripper),
                ("aperture", reading.aperture),
                ("held", reading.held.sigmoid()),
                ("lamp", reading.lamp.sigmoid()),
            ):
                found.setdefault(name, []).append(values.cpu().numpy())
        return Sights(**{name: np.concatenate(values) for name, values in found.items()})

    @torch.no_grad()
    def materials(self, samples: Float32[np.ndarray, "B samples"]) -> list[str]:
        """What strikes in windows of `training.probe.blow_window`."""
        device = next(self.sound.parameters()).device
        return [MATERIALS[i] for i in self.sound(torch.from_numpy(samples).to(device)).argmax(-1).tolist()]


def untrained(seed: int = 0) -> Reader:
    """Probes that know nothing, for tests of what uses them."""
    torch.manual_seed(seed)
    return Reader(picture=PictureProbe().eval(), sound=SoundProbe().eval(), note="The probes are random.")


def load_probes(path: Path | None = None, device: str = "cpu") -> Reader:
    """Both probes.

    Args:
        path: their folder; that of the shipped ones when None.
        device: where they compute.

    Raises:
        CheckpointError: no such folder, or not of these probes.
    """
    path = path or shipped(NAME)
    if path is None:
        raise CheckpointError(f"No {NAME} comes with this package. Train one with benchmarks/factory_probe.py.")
    folder = open_folder(path)
    if folder.metadata.get("kind") != "factory_probe":
        raise CheckpointError(f"{path} holds {folder.metadata.get('kind')!r}, not the probes of the factory suite.")
    picture, sound = PictureProbe(), SoundProbe()
    for name, probe in (("picture", picture), ("sound", sound)):
        stored = {key: value.float() for key, value in read_tensors(folder.file(f"{name}.safetensors")).items()}
        try:
            probe.load_state_dict(stored)
        except RuntimeError as error:
            raise CheckpointError(f"{path}/{name}.safetensors does not fit the probe: {error}") from None
        probe.eval().to(device).requires_grad_(False)
    figures = folder.document("figures.json")
    told = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    note = f"Probes {folder.sha256[:12]}, on seeds of their own: {told}."
    return Reader(picture=picture, sound=sound, note=note)
