"""Does a surrogate rank policies as the truth does? Correlations, rank violations and false successes, with intervals.

What does not exist, as a correlation with something constant, is None with a reason, never a number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from orrery.errors import SettingsError
from orrery.evaluation.metrics import wilson_interval
from orrery.evaluation.statistics import Verdict, holm, paired

RESAMPLES = 1000
POLICIES_AT_LEAST = 4
"""A correlation over fewer has no interval worth the name."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number with its 95 % interval, or why there is none."""

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well one score of policies follows another."""

    pearson: Score
    spearman: Score
    kendall: Score
    """Tau-b, which allows for ties."""
    mmrv: Score
    """Mean maximum rank violation: 0 is best, in the unit of the true score."""


Scores = Sequence[float] | np.ndarray


def agreement(surrogate: Scores, true: Scores, *, seed: int = 0) -> Agreement:
    """Agreement of two scores over the same policies; intervals are bootstraps that resample policies.

    Raises:
        SettingsError: other lengths, or fewer than POLICIES_AT_LEAST policies.
    """
    if len(surrogate) != len(true) or len(true) < POLICIES_AT_LEAST:
        raise SettingsError(
            f"Agreement needs {POLICIES_AT_LEAST} policies or more, got scores of {len(surrogate)} and {len(true)}. "
            "Score more policies."
        )
    from scipy import stats

    pairs = np.column_stack([np.asarray(surrogate, dtype=np.float64), np.asarray(true, dtype=np.float64)])
    if not np.isfinite(pairs).all():
        raise SettingsError("Scores must be finite numbers. Leave out policies without a score.")
    rng = np.random.default_rng(seed)
    drawn = pairs[rng.integers(len(pairs), size=(RESAMPLES, len(pairs)))]

    def score(statistic: Callable[[np.ndarray], float]) -> Score:
        if not _varies(pairs):
            constant = "true" if _varies(pairs[:, :1]) else "surrogate"
            return Score(
                value=None, reason=f"the {constant} score is the same for all policies, so there is no ranking"
            )
        # Draws of one policy over and over have no correlation.
        values = [statistic(rows) for rows in drawn if _varies(rows)]
        low, high = np.quantile(values, [0.025, 0.975])
        return Score(value=statistic(pairs), interval=(float(low), float(high)))

    return Agreement(
        pearson=score(lambda rows: float(stats.pearsonr(rows[:, 0], rows[:, 1]).statistic)),
        spearman=score(lambda rows: float(stats.spearmanr(rows[:, 0], rows[:, 1]).statistic)),
        kendall=score(lambda rows: float(stats.kendalltau(rows[:, 0], rows[:, 1]).statistic)),
        mmrv=score(lambda rows: rank_violation(rows[:, 0], rows[:, 1])),
    )


def rank_violation(surrogate: Scores, true: Scores) -> float:
    """Mean over policies of the largest true difference to another policy that the surrogate orders the other way.

    Source: SIMPLER, arXiv:2405.05941, section 4.
    """
    s, t = np.asarray(surrogate, dtype=np.float64), np.asarray(true, dtype=np.float64)
    gap = t[:, None] - t[None]
    swapped = (s[:, None] < s[None]) != (t[:, None] < t[None])
    return float(np.where(swapped, np.abs(gap), 0.0).max(axis=1).mean())


def _varies(columns: np.ndarray) -> bool:
    # 3 * 0.1 and 0.3 are one score, and their order is of rounding alone.
    floor = 1e-12 * np.maximum(np.abs(columns).max(axis=0), 1.0)
    return bool((np.ptp(columns, axis=0) > floor).all())


def false_success_rate(predicted: Sequence[bool], true: Sequence[bool]) -> Score:
    """Share of the trials that truly failed which are called a success, with Wilson's interval.

    Raises:
        SettingsError: other lengths.
    """
    if len(predicted) != len(true):
        raise SettingsError(f"There are {len(predicted)} verdicts on {len(true)} trials. Give one for each.")
    failed = [said for said, did in zip(predicted, true, strict=True) if not did]
    if not failed:
        return Score(value=None, reason="no trial failed")
    return Score(value=sum(failed) / len(failed), interval=wilson_interval(sum(failed), len(failed)))


def success_found(predicted: Sequence[bool], true: Sequence[bool]) -> Score:
    """Share of the trials that truly succeeded which are called a success, with Wilson's interval.

    Raises:
        SettingsError: other lengths.
    """
    missed = false_success_rate([not said for said in predicted], [not did for did in true])
    if missed.value is None or missed.interval is None:
        return Score(value=None, reason="no trial succeeded")
    return Score(value=1 - missed.value, interval=(1 - missed.interval[1], 1 - missed.interval[0]))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two policies compared."""

    first: str
    second: str
    difference: tuple[float, float]
    """Interval of the first's share of success less the second's, at 95 % for this pair alone."""
    p: float
    """Adjusted for all pairs by Holm's method."""
    verdict: Verdict
    """"pass": the first is better; "fail": the second is; else undecided."""


def compare_policies(outcomes: Mapping[str, Sequence[bool]], *, alpha: float = 0.05) -> list[Pair]:
    """Every pair of policies by their trials on common seeds, decided only where it holds after correction for all
    comparisons.

    Args:
        outcomes: of each policy, the same seeds in the same order.

    Raises:
        SettingsError: a policy without trials, or with more or fewer than another.
    """
    for name, trials in outcomes.items():
        if not trials:
            raise SettingsError(f"{name} has no trials. Run some, or leave it out.")
    names = list(combinations(outcomes, 2))
    rows = [paired(outcomes[a], outcomes[b]) for a, b in names]
    adjusted = holm([row.p for row in rows])
    found = []
    for (first, second), row, p in zip(names, rows, adjusted, strict=True):
        low, high = row.interval
        decided = p < alpha and not low <= 0 <= high
        found.append(
            Pair(
                first=first, second=second, difference=row.interval, p=p,
                verdict="undecided" if not decided else "pass" if low > 0 else "fail",
            )
        )  # fmt: skip
    return found
