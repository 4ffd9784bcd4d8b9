"""Intervals of an accuracy: over test problems, over training seeds, and over both.

The three answer different questions about a mean of S seeds on N test problems. *Problems*: what would these very
models score on all problems of the task? *Seeds*: what would training with all seeds score on these very problems?
*Both*: what would training with all seeds score on all problems? One seed says nothing of other seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NORMAL_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""
NO_VARIANCE = 1e-15
"""A variance of a mean that is no more than rounding."""
KINDS = ("problems", "seeds", "both")
"""What an interval is of."""


def wilson_interval(share: npt.ArrayLike, n: npt.ArrayLike, z: npt.ArrayLike = NORMAL_95) -> tuple[Floats, Floats]:
    """Wilson's score interval (Wilson 1927) of an observed ``share`` (0 to 1) of ``n`` draws: lower, upper bounds."""
    z = np.asarray(z, dtype=float)
    return wilson_bound(share, n, -z), wilson_bound(share, n, z)


def wilson_bound(share: npt.ArrayLike, n: npt.ArrayLike, z: npt.ArrayLike) -> Floats:
    """The true share that an observed ``share`` of ``n`` draws lies ``z`` of its standard errors below (Wilson 1927).

    It grows with ``z``, is ``share`` at 0 and never leaves 0 to 1; its values at -z and z are the score interval.
    """
    share, n, z = np.asarray(share, dtype=float), np.asarray(n, dtype=float), np.asarray(z, dtype=float)
    z2_n = z**2 / n
    root = np.sqrt(np.maximum(share * (1 - share) / n + z2_n / (4 * n), 0))
    bound: Floats = np.clip((share + z2_n / 2 + z * root) / (1 + z2_n), 0, 1)
    return bound


def seeds_interval(scores_S: npt.ArrayLike, *, n_test: int | None = None) -> tuple[float, float]:
    """95 % interval, over training seeds with the test set fixed, of the mean of the seeds' scores (0 to 1).

    Student's t with S - 1 degrees of freedom on the scale of Wilson's interval, which is skewed near 0 and 1 as the
    scores are. Not the percentile bootstrap over seeds: of 3 seeds it is too narrow by sqrt(2/3) and by normal instead
    of t quantiles, and covers about 75 %; with Hesterberg's correction of both ("What Teachers Should Know About the
    Bootstrap", The American Statistician 69, 2015, section 4) it is the t interval. Seeds that score alike say
    only that they differ by less than a problem in ``n_test``: the interval then is of S x ``n_test`` (default: S)
    draws. One seed: (nan, nan).
    """
    scores = np.asarray(scores_S, dtype=float)
    if len(scores) < 2:
        return np.nan, np.nan
    variance = float(scores.var(ddof=1)) / len(scores)
    z = _t_quantile(len(scores) - 1)
    return _interval(float(scores.mean()), variance, z, len(scores) * (n_test or 1))


def clustered_interval(
    right_SN: npt.ArrayLike, kind: str = "both", *, weight_N: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """95 % interval of the mean of ``right_SN`` (seeds x test problems, 0 to 1), over what ``kind`` says.

    ``both`` takes seeds and problems as crossed random effects: the variance of the mean is that of the seeds' means
    plus that of the problems' means less that of their interaction, which both have counted (two-way clustering:
    Cameron, Gelbach and Miller 2011; the analysis of variance of Owen, "The pigeonhole bootstrap", 2007). The half
    width is the root of the sum of the squares of both parts', the seeds' with Student's t and S - 1 degrees of
    freedom (Howe 1974; Satterthwaite's degrees of freedom covered 92 % with three seeds). ``problems`` is of the given
    seeds alone: with one seed it is ``wilson_interval``. All are on the scale of Wilson's interval with the effective n
    that the variance implies, so they never leave 0 to 1 and are never of zero width.

    Columns may be clusters of problems, such as the inputs of an ARC task, with mean scores and their ``weight_N``.
    One seed cannot say what another would do: for ``seeds`` and ``both`` of a single row the result is (nan, nan).
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is none of {', '.join(KINDS)}")
    right = np.asarray(right_SN, dtype=float)
    num_seeds, num_problems = right.shape
    if num_problems == 0 or num_seeds == 0 or (num_seeds < 2 and kind != "problems"):
        return np.nan, np.nan
    if kind == "seeds":
        weight = np.full(num_problems, 1 / num_problems) if weight_N is None else np.asarray(weight_N, dtype=float)
        return seeds_interval(right @ (weight / weight.sum()), n_test=num_problems)
    parts = variance_parts(right, weight_N)
    if kind == "problems":
        return _interval(parts.mean, parts.problems, NORMAL_95, num_problems)
    t = _t_quantile(num_seeds - 1)
    half_width2 = t**2 * parts.seeds + NORMAL_95**2 * parts.problems_alone
    if half_width2 <= NO_VARIANCE:
        return _interval(parts.mean, 0.0, NORMAL_95, num_problems)
    z = np.sqrt(half_width2 / parts.total)
    return _interval(parts.mean, parts.total, float(z), num_problems)


class VarianceParts(NamedTuple):
    """The mean of a seeds x problems table and what its variance consists of (each already divided for the mean)."""

    mean: float
    problems: float
    """Variance of the mean from the spread of the problems' means: problem effect / N + interaction / (S N)."""
    seeds: float
    """From the spread of the seeds' means: seed effect / S + interaction / (S N). 0 for one seed."""
    interaction: float
    """Interaction / (S N), which both others contain. 0 for one seed."""

    @property
    def problems_alone(self) -> float:
        """What the problems add to the spread of the seeds' means, in which the interaction is; never below 0."""
        return max(self.problems - self.interaction, 0.0)

    @property
    def total(self) -> float:
        """Estimated variance of the mean over seeds and problems."""
        return self.seeds + self.problems_alone


def variance_parts(right_SN: Floats, weight_N: npt.ArrayLike | None = None) -> VarianceParts:
    """The parts of the variance of the (weighted) mean of ``right_SN``, by two-way analysis of variance."""
    num_seeds, num_problems = right_SN.shape
    weight = np.full(num_problems, 1 / num_problems) if weight_N is None else np.asarray(weight_N, dtype=float)
    weight = weight / weight.sum()
    problem_means = right_SN.mean(axis=0)
    mean = float(problem_means @ weight)
    share_N = weight * (problem_means - mean)
    problems = float(share_N @ share_N)
    if num_seeds < 2:
        return VarianceParts(mean, problems, 0.0, 0.0)
    seed_deviation_S = right_SN @ weight - mean
    seeds = float(seed_deviation_S @ seed_deviation_S) / (num_seeds * (num_seeds - 1))
    residual_SN = weight * (right_SN - problem_means)
    residual_SN -= residual_SN.mean(axis=1, keepdims=True)
    interaction = float(np.einsum("sn,sn->", residual_SN, residual_SN)) / (num_seeds * (num_seeds - 1))
    return VarianceParts(mean, problems, seeds, interaction)


def effective_n(mean: float, variance: float, if_none: float) -> float:
    """The n of which independent answers would give ``mean`` its ``variance``; ``if_none`` where there is no spread."""
    binomial = mean * (1 - mean)
    return binomial / variance if variance > NO_VARIANCE and binomial > 1e-12 else if_none


def _interval(mean: float, variance: float, z: float, n_if_none: float) -> tuple[float, float]:
    mean = min(max(mean, 0.0), 1.0)
    low, high = wilson_interval(mean, effective_n(mean, variance, n_if_none), z)
    return min(float(low), mean), max(float(high), mean)


def _t_quantile(df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))
