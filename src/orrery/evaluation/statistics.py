"""Statistics of trials that succeed or fail: intervals, comparisons, how many trials are needed, and when to stop.

Everything is about shares of success in independent trials; `metrics.wilson_interval` is the usual interval of one.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from orrery.errors import SettingsError
from orrery.evaluation.metrics import wilson_interval

Verdict = Literal["pass", "fail", "undecided"]


def verdict(interval: tuple[float, float] | None, threshold: float, better: Literal["higher", "lower"]) -> Verdict:
    """Pass when the whole interval is at the threshold or beyond, fail when all is short of it; else undecided."""
    if interval is None:
        return "undecided"
    low, high = interval if better == "higher" else (-interval[1], -interval[0])
    wanted = threshold if better == "higher" else -threshold
    return "pass" if low >= wanted else "fail" if high < wanted else "undecided"


def exact_interval(right: int, of: int, *, level: float = 0.95) -> tuple[float, float]:
    """Of a share; holds at least `level` of the time for every true share, so it is wide.

    Raises:
        SettingsError: no trials, more successes than trials, or a level outside (0, 1).

    Source: Clopper and Pearson 1934, Biometrika 26.
    """
    from scipy.stats import beta

    _counted(right, of)
    if not 0 < level < 1:
        raise SettingsError(f"level must lie between 0 and 1, got {level}. Give 0.95 for 95 %.")
    tail = (1 - level) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, of - right + 1))
    high = 1.0 if right == of else float(beta.ppf(1 - tail, right + 1, of - right))
    return low, high


def newcombe_interval(right_1: int, of_1: int, right_2: int, of_2: int) -> tuple[float, float]:
    """95 % interval of the first share less the second, of independent trials.

    Source: Newcombe 1998, Statistics in Medicine 17, 873-890, method 10.
    """
    _counted(right_1, of_1)
    _counted(right_2, of_2)
    p, q = right_1 / of_1, right_2 / of_2
    (low_1, high_1), (low_2, high_2) = wilson_interval(right_1, of_1), wilson_interval(right_2, of_2)
    return (
        p - q - math.hypot(p - low_1, high_2 - q),
        p - q + math.hypot(high_1 - p, q - low_2),
    )


def unpaired_p(right_1: int, of_1: int, right_2: int, of_2: int) -> float:
    """Two-sided p-value of equal shares of independent trials. Source: Fisher's exact test."""
    from scipy.stats import fisher_exact

    _counted(right_1, of_1)
    _counted(right_2, of_2)
    return float(fisher_exact([[right_1, of_1 - right_1], [right_2, of_2 - right_2]]).pvalue)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two arms tried on common seeds."""

    trials: int
    first_only: int
    """Seeds on which the first arm alone succeeded."""
    second_only: int
    difference: float
    interval: tuple[float, float]
    """Of the difference of the shares, at 95 %."""
    p: float
    """Two-sided, of equal shares."""


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two arms seed by seed: what both do alike says nothing about which is better.

    Raises:
        SettingsError: other lengths, or none.

    Source: exact McNemar test; Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10.
    """
    from scipy.stats import binomtest

    if len(first) != len(second) or not first:
        raise SettingsError(f"A pair needs both arms on each seed, got {len(first)} and {len(second)} trials.")
    n = len(first)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    one, two = sum(first) - both, sum(second) - both
    neither = n - both - one - two
    p, q = sum(first) / n, sum(second) / n
    (low_1, high_1), (low_2, high_2) = wilson_interval(sum(first), n), wilson_interval(sum(second), n)
    scale = math.sqrt((both + one) * (two + neither) * (both + two) * (one + neither))
    product = float(both * neither - one * two)
    if product > n / 2:
        product = max(product - n / 2, 0.0)
    elif product >= 0:
        product = 0.0
    phi = product / scale if scale else 0.0

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    low, high = p - q - half(p - low_1, high_2 - q), p - q + half(high_1 - p, q - low_2)
    p_value = 1.0 if one + two == 0 else float(binomtest(one, one + two).pvalue)
    return Paired(trials=n, first_only=one, second_only=two, difference=p - q, interval=(low, high), p=p_value)


def trials_needed(p: float, q: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Trials of each of two independent arms that tell a share of success p from q, two-sided.

    Source: Fleiss, Statistical Methods for Rates and Proportions: normal approximation, the variance under equal shares
    from their mean, without continuity correction. Never fewer than let Fisher's exact test reach alpha at all: the
    approximation does not know that least number.
    """
    _shares(p, q, power, alpha)
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    equal, apart = (p + q) * (1 - (p + q) / 2), p * (1 - p) + q * (1 - q)
    least = next(n for n in itertools.count(1) if 2 / math.comb(2 * n, n) <= alpha)
    return max(least, math.ceil((z_alpha * math.sqrt(equal) + z_power * math.sqrt(apart)) ** 2 / (p - q) ** 2))


def discordant_range(p: float, q: float) -> tuple[float, float]:
    """Least and largest share of common seeds on which only one of two arms succeeds, given their shares of success."""
    return abs(p - q), min(p + q, 2 - p - q)


def paired_trials_needed(
    p: float, q: float, *, discordant: float | None = None, power: float = 0.8, alpha: float = 0.05
) -> int:
    """The same for two arms on common seeds.

    Args:
        discordant: share of the seeds on which only one of them succeeds, at least |p - q|; as for independent arms
            when None.

    Raises:
        SettingsError: a discordant share that p and q do not allow.

    Source: Connor 1987, Biometrics 43 (McNemar's test, two-sided); never fewer than let the exact test reach alpha.
    """
    _shares(p, q, power, alpha)
    gap, most = discordant_range(p, q)
    apart = p * (1 - q) + q * (1 - p) if discordant is None else discordant
    # 0.8 - 0.7 is a little more than 0.1 in binary.
    if not gap - 1e-9 <= apart <= most + 1e-9:
        raise SettingsError(f"The discordant share must be from {gap:.3g} to {most:.3g} for {p} and {q}, got {apart}.")
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    seeds = (z_alpha * math.sqrt(apart) + z_power * math.sqrt(max(0.0, apart - gap**2))) ** 2 / gap**2
    return max(math.ceil(math.log2(2 / alpha)), math.ceil(seeds))


def detectable(trials: int, p: float, *, power: float = 0.8, alpha: float = 0.05) -> tuple[float | None, float | None]:
    """The nearest shares below and above p that so many trials of each arm tell from p; None where no share does."""
    if trials < 1:
        raise SettingsError(f"trials must be 1 or more, got {trials}. Give the trials of one arm.")
    _shares(p, (p + 1) / 2, power, alpha)

    def nearest(far: float) -> float | None:
        near = p
        if trials_needed(p, far, power=power, alpha=alpha) > trials:
            return None
        for _ in range(60):
            middle = (near + far) / 2
            if middle != p and trials_needed(p, middle, power=power, alpha=alpha) <= trials:
                far = middle
            else:
                near = middle
        return far

    return nearest(1e-9), nearest(1 - 1e-9)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: what is below alpha after it holds for all of them together.

    Raises:
        SettingsError: one that is no number from 0 to 1.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise SettingsError(f"A p-value lies from 0 to 1, got {p}. Leave out comparisons without one.")
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for place, index in enumerate(ranked):
        so_far = max(so_far, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = so_far
    return adjusted


def comparisons_warning(count: int, *, alpha: float = 0.05) -> str:
    """What it means to have compared so often."""
    if count < 2:
        return ""
    return (
        f"{count} comparisons were made. If nothing differed at all, at least one would still come out at {alpha:g} "
        f"with a probability of {1 - (1 - alpha) ** count:.0%} (if they are independent): use p-values adjusted by "
        "Holm's method."
    )


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """A test that may be looked at after every trial: is the share of success p or less, or q or more?

    Source: Wald 1945, Annals of Mathematical Statistics 16 (sequential probability ratio test).
    """

    p: float
    q: float
    alpha: float = 0.05
    """Chance to call it q or more where it is p."""
    beta: float = 0.2
    """Chance to call it p or less where it is q."""

    def __post_init__(self) -> None:
        _shares(self.p, self.q, 1 - self.beta, self.alpha)
        if self.p > self.q:
            raise SettingsError(f"p must be below q, got {self.p} and {self.q}. Swap them.")
        if self.alpha + self.beta >= 1:
            raise SettingsError(
                f"alpha and beta must add up to less than 1, got {self.alpha:g} and {self.beta:g}: a coin does as "
                "well. Lower one; beta is 1 - power."
            )

    def decide(self, outcomes: Sequence[bool]) -> tuple[Verdict, int]:
        """Whether it is q or more ("pass") or p or less ("fail"), and after how many trials."""
        upper, lower = math.log((1 - self.beta) / self.alpha), math.log(self.beta / (1 - self.alpha))
        total = 0.0
        for number, right in enumerate(outcomes, 1):
            total += math.log(self.q / self.p) if right else math.log((1 - self.q) / (1 - self.p))
            if total >= upper:
                return "pass", number
            if total <= lower:
                return "fail", number
        return "undecided", len(outcomes)

    def expected(self, share: float) -> float:
        """Trials that it takes on the mean where the share is p or q (Wald's approximation).

        Raises:
            SettingsError: another share.
        """
        if share not in (self.p, self.q):
            raise SettingsError(f"share must be {self.p} or {self.q}, got {share}. Make a test for that share.")
        upper, lower = math.log((1 - self.beta) / self.alpha), math.log(self.beta / (1 - self.alpha))
        step = share * math.log(self.q / self.p) + (1 - share) * math.log((1 - self.q) / (1 - self.p))
        reached = self.alpha if share == self.p else 1 - self.beta
        return (reached * upper + (1 - reached) * lower) / step


def _counted(right: int, of: int) -> None:
    if not 0 <= right <= of or of < 1:
        raise SettingsError(f"There is no share of {right} successes in {of} trials.")


def _shares(p: float, q: float, power: float, alpha: float) -> None:
    for name, value in (("p", p), ("q", q), ("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise SettingsError(f"{name} must lie between 0 and 1, got {value}.")
    if p == q:
        raise SettingsError(f"Two shares of {p} cannot be told apart. Give different ones.")
