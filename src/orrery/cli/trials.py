"""`orrery trials`: how many trials tell one share of success from another. The work is in `evaluation.statistics`."""

from dataclasses import dataclass

import tyro

from orrery.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Say how many trials tell two shares of success apart, and what a number of trials can show."""

    first: tyro.conf.Positional[float]
    """A share of success, such as 0.90."""
    second: tyro.conf.Positional[float]
    """Another, such as 0.95."""
    power: float = 0.8
    """Probability that the difference is found where it is there."""
    alpha: float = 0.05
    """Probability that one is found where there is none; two-sided."""
    discordant: float | None = None
    """Share of common seeds on which only one of the arms succeeds, if it is known."""
    have: int | None = None
    """Trials of each arm that there are."""

    def __call__(self) -> None:
        from orrery.evaluation.metrics import wilson_interval
        from orrery.evaluation.statistics import (
            Sequential,
            detectable,
            discordant_range,
            exact_interval,
            paired_trials_needed,
            trials_needed,
        )

        p, q = self.first, self.second
        how = {"power": self.power, "alpha": self.alpha}
        if self.have is not None and self.have < 1:
            raise SettingsError(f"have must be 1 or more, got {self.have}.")
        low, high = min(p, q), max(p, q)
        rows = [
            ("to tell them apart, each arm needs, on seeds of its own", f"{trials_needed(p, q, **how)} trials"),
            (
                "on common seeds, if the arms succeed independently of each other",
                f"{paired_trials_needed(p, q, **how)} seeds",
            ),
            (
                "on common seeds, if one arm does all that the other does",
                f"{paired_trials_needed(p, q, discordant=discordant_range(p, q)[0], **how)} seeds",
            ),
            (
                "on common seeds, at worst: each succeeds where the other fails",
                f"{paired_trials_needed(p, q, discordant=discordant_range(p, q)[1], **how)} seeds",
            ),
        ]
        if self.discordant is not None:
            needed = paired_trials_needed(p, q, discordant=self.discordant, **how)
            rows.append((f"on common seeds, {self.discordant:g} of them discordant", f"{needed} seeds"))
        test = Sequential(p=low, q=high, alpha=self.alpha, beta=1 - self.power)
        for share in (low, high):
            rows.append(
                (
                    f"one arm, looked at after every trial, if it is at {share:g}",
                    f"{test.expected(share):.0f} on the mean",
                )
            )
        if self.have is not None:
            for share in (p, q):
                below, above = detectable(self.have, share, **how)
                found = [f"{below:.3f} or less"] if below is not None else []
                found += [f"{above:.3f} or more"] if above is not None else []
                rows.append((f"{self.have} trials of each arm tell {share:g} from", ", ".join(found) or "nothing"))
            for share in (p, q):
                right = round(share * self.have)
                wilson, exact = wilson_interval(right, self.have), exact_interval(right, self.have)
                rows.append(
                    (
                        f"{right} of {self.have} done is, at 95 %, a share of",
                        f"{wilson[0]:.3f} to {wilson[1]:.3f} (Wilson), {exact[0]:.3f} to {exact[1]:.3f} (exact)",
                    )
                )
        print(f"{p:g} against {q:g}, power {self.power:g}, two-sided alpha {self.alpha:g} (one arm: one-sided)")
        width = max(len(label) for label, _ in rows) + 2
        for label, value in rows:
            print(f"  {label:{width}}{value}")
