"""Which sample comes when: orders that depend on seeds and counts alone, so a run stopped anywhere goes on exactly.

Everything is a pure function of a place, and a place is a few whole numbers that fit JSON. Nothing here is stored, and
no library's random stream is used, so an order does not change with a library's version. Loading is left to callers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orrery.errors import DatasetError, SettingsError

Part = Literal["train", "validation", "test"]
WORD = 2**64
ROUNDS = 6


def mix(value: int) -> int:
    """Scramble a 64-bit number so that each bit in moves half of the bits out.

    Source: the finaliser of SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    value = (value + 0x9E3779B97F4A7C15) % WORD
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB % WORD
    return value ^ value >> 31


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far an order has been followed: `position` samples of epoch `epoch`. JSON: {"epoch": 0, "position": 0}."""

    epoch: int = 0
    position: int = 0


@dataclass(frozen=True, kw_only=True)
class Order:
    """A shuffled order of `size` samples, another one every epoch.

    The sample at any place is computed directly, without the ones before it. Ranks and workers that take every n-th
    sample share one order: rank r of n reads positions r, r + n, ...
    """

    seed: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.seed < WORD:
            raise SettingsError(f"An order needs at least 1 sample and a seed in 0..2**64-1, got {self}.")

    def sample(self, place: Place) -> int:
        """Index in 0..size-1. Over the positions of one epoch every index occurs once.

        Raises:
            SettingsError: a place outside the order.
        """
        if place.epoch < 0 or not 0 <= place.position < self.size:
            raise SettingsError(f"{place} is not in an order of {self.size} samples. Was it saved with other data?")
        # A Feistel network permutes 0..4**half - 1; results beyond `size` are sent through again, which keeps a
        # permutation of the rest. 4**half < 4 * size, so that is rare.
        half = ((self.size - 1).bit_length() + 1) // 2
        keys = [mix(mix(mix(self.seed) + place.epoch) + r) for r in range(ROUNDS)]
        value = place.position
        while True:
            left, right = value >> half, value & (1 << half) - 1
            for key in keys:
                left, right = right, left ^ mix(key ^ right) & (1 << half) - 1
            value = left << half | right
            if value < self.size:
                return value

    def after(self, place: Place, count: int = 1) -> Place:
        """The place `count` samples on, into later epochs if need be."""
        epochs, position = divmod(place.position + count, self.size)
        return Place(epoch=place.epoch + epochs, position=position)

    def take(self, place: Place, count: int) -> tuple[list[int], Place]:
        """The next `count` indices, and the place after them."""
        return [self.sample(self.after(place, i)) for i in range(count)], self.after(place, count)

    def to_json(self, place: Place) -> dict[str, int]:
        """What to save: the place, and the order that it belongs to."""
        return {"seed": self.seed, "size": self.size, "epoch": place.epoch, "position": place.position}

    def from_json(self, saved: Mapping[str, Any]) -> Place:
        """The saved place.

        Raises:
            SettingsError: it was saved with another seed or number of samples, or is not a place.
        """
        if (saved.get("seed"), saved.get("size")) != (self.seed, self.size):
            raise SettingsError(
                f"The data order was saved with seed {saved.get('seed')} over {saved.get('size')} samples; now it is "
                f"seed {self.seed} over {self.size}. Use the same data, or start the order anew."
            )
        place = Place(epoch=count_of(saved, "epoch"), position=count_of(saved, "position"))
        self.sample(place)
        return place


def count_of(saved: Mapping[str, Any], key: str) -> int:
    value = saved.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError(f"The saved data order has {key} {value!r}; a whole number from 0 on is needed.")
    return value


def part_of(name: str, *, seed: int, validation: float, test: float) -> Part:
    """The part that a sample with this name belongs to, by hash: adding other samples never moves it.

    `validation` and `test` are the expected shares. Name a sample by what must not be split, an episode or a source
    video, so that windows of one recording never lie on both sides.

    Raises:
        SettingsError: shares below 0 or over 1 in sum.
    """
    if validation < 0 or test < 0 or not validation + test <= 1:
        raise SettingsError(f"Shares validation {validation} and test {test} must be 0 or more and at most 1 in sum.")
    digest = hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
    share = int.from_bytes(digest[:8], "big") / WORD
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"


def split_episodes(count: int, *, seed: int, validation: int, test: int) -> dict[Part, Sequence[int]]:
    """Exactly so many episodes for validation and test, chosen by seed, the rest for training; each part in order.

    Raises:
        DatasetError: not enough episodes to leave one for training.
    """
    if validation < 0 or test < 0 or validation + test >= count:
        raise DatasetError(
            f"{count} episodes cannot give {validation} for validation and {test} for test and leave one for training."
        )
    shuffled, _ = Order(seed=seed, size=count).take(Place(), count)
    return {
        "test": sorted(shuffled[:test]),
        "validation": sorted(shuffled[test : test + validation]),
        "train": sorted(shuffled[test + validation :]),
    }
