"""The numbers behind a paired comparison: interval, test, power. Arrays in, arrays or numbers out.

Two trials answered the same N problems. ``difference_N`` holds, problem by problem, by how much the first did better:
-1, 0 or 1 for one training seed each, multiples of 1/S where S seeds are averaged.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.intervals import NORMAL_95, wilson_interval

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PSEUDO_PROBLEMS = 0.8
"""Discordant problems added in each direction before an interval is made. Bonett and Price (2012) add one; a bit less
covers nearer to 95 % where few problems are discordant. Simulated for accuracies .01 to .99 and 50 to 200 problems: 94
to 98 % with 5 to 10 discordant problems expected (Newcombe's interval: 96 to 99 %), never less than 94 %; with fewer
than 5 up to 100 %."""
NORMAL_80 = 0.8416212335729143
"""80 % quantile of the standard normal distribution: the power that ``detectable`` asks for."""
POWER = 0.8
SIGNIFICANCE = 0.05
MOST_EXACT = 20_000
"""Largest sum of absolute differences for which the sign-flip distribution is written out; beyond it is normal."""
MOST_PROBLEMS_EXACT = 1_000
"""More problems than this, and the power comes from the normal approximation."""
BISECTIONS = 14


def paired_interval(difference_N: Floats, cluster_N: Integers | None = None) -> tuple[float, float]:
    """95 % interval, over problems, of the mean of yes-or-no differences.

    The Wald interval of paired proportions with ``PSEUDO_PROBLEMS`` discordant problems more in each direction, after
    D. G. Bonett and R. M. Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", J. Educational and Behavioral Statistics 37 (2012). Problems that share a number in ``cluster_N``
    (the inputs of one ARC task) count as one draw; so do the seeds averaged in one element.
    """
    num_problems = len(difference_N)
    if num_problems == 0:
        return np.nan, np.nan
    total = num_problems + 2 * PSEUDO_PROBLEMS
    mean = difference_N.sum() / total
    if cluster_N is None:
        squares = ((difference_N - mean) ** 2).sum()
    else:
        sums, sizes = np.bincount(cluster_N, difference_N), np.bincount(cluster_N)
        squares = ((sums - sizes * mean) ** 2).sum()
    squares += PSEUDO_PROBLEMS * ((1 - mean) ** 2 + (1 + mean) ** 2)
    half = NORMAL_95 * np.sqrt(squares) / total
    return max(mean - half, -1.0), min(mean + half, 1.0)


def mean_interval(values_N: Floats) -> tuple[float, float]:
    """95 % Student interval of the mean of any values; not-a-number with fewer than two."""
    from scipy.special import stdtrit

    num_values = len(values_N)
    if num_values < 2:
        return np.nan, np.nan
    mean = float(values_N.mean())
    half = float(stdtrit(num_values - 1, 1 - SIGNIFICANCE / 2) * values_N.std(ddof=1) / np.sqrt(num_values))
    return mean - half, mean + half


def unpaired_interval(share_a: float, share_b: float, n_a: int, n_b: int) -> tuple[float, float]:
    """95 % interval of the difference of two unpaired shares (R. G. Newcombe 1998, method 10)."""
    (low_a, low_b), (high_a, high_b) = wilson_interval([share_a, share_b], [n_a, n_b])
    difference = share_a - share_b
    below = np.hypot(share_a - low_a, high_b - share_b)
    above = np.hypot(high_a - share_a, share_b - low_b)
    return float(difference - below), float(difference + above)


def student_p_value(values_N: Floats) -> float:
    """Two-sided p-value of Student's test that the mean is 0; NaN with fewer than two values."""
    from scipy.special import stdtr

    if len(values_N) < 2:
        return np.nan
    spread = values_N.std(ddof=1) / np.sqrt(len(values_N))
    if spread == 0:
        return 1.0 if values_N.mean() == 0 else 0.0
    return float(2 * stdtr(len(values_N) - 1, -abs(values_N.mean()) / spread))


def crossed_interval(difference_SN: Floats) -> tuple[float, float, float]:
    """95 % interval of the mean difference over new problems *and* new seeds, and the p-value that goes with it.

    ``difference_SN`` (seeds, problems), at least two of each. The squares of two half-widths add up: that of the seeds'
    means, with Student's quantile, and that of the problems' means, with the normal one, less the noise of single
    answers that both hold (two-way random effects). It covers 94 to 98 % (simulated: 2 to 5 seeds), and is wide with
    two or three seeds: so little do they tell about the next one.
    """
    from scipy.special import ndtri, stdtrit

    num_seeds, num_problems = difference_SN.shape
    by_problem_N, by_seed_S = difference_SN.mean(axis=0), difference_SN.mean(axis=1)
    mean = float(difference_SN.mean())
    total = num_problems + 2 * PSEUDO_PROBLEMS
    pseudo = PSEUDO_PROBLEMS * ((1 - mean) ** 2 + (1 + mean) ** 2)
    problems = (((by_problem_N - mean) ** 2).sum() + pseudo) / total**2
    residual_SN = difference_SN - by_problem_N - by_seed_S[:, None] + mean
    noise = (residual_SN**2).sum() / ((num_seeds - 1) * (num_problems - 1)) / (num_seeds * num_problems)
    seeds = by_seed_S.var(ddof=1) / num_seeds
    # Never less than what the pseudo problems bring, lest trials that all agree have an interval of no width.
    problems = max(problems - noise, pseudo / total**2)

    def half_width(tail: float) -> float:
        return float(np.sqrt(ndtri(tail) ** 2 * problems + stdtrit(num_seeds - 1, tail) ** 2 * seeds))

    half = half_width(SIGNIFICANCE / 2)
    narrow, wide = 1e-12, 0.5  # tails whose intervals leave 0 out, and hold it
    for _ in range(50):
        tail = np.sqrt(narrow * wide) if wide / narrow > 2 else (narrow + wide) / 2
        if half_width(float(tail)) < abs(mean):
            wide = float(tail)
        else:
            narrow = float(tail)
    return max(mean - half, -1.0), min(mean + half, 1.0), min(1.0, 2 * wide)


def sign_flip_p_value(difference_C: Integers) -> float:
    """Two-sided exact p-value that differences of clusters have no preferred sign; 1 where all are 0.

    ``difference_C``: one whole number a problem (or cluster of problems), such as in how many seeds more the first was
    right. Under the hypothesis every one may as well have the other sign; the sum's distribution is written out. With
    one seed this is McNemar's exact test: a binomial test of the discordant problems.
    """
    sizes = np.bincount(np.abs(difference_C))
    sizes[:1] = 0
    return _sign_flip(tuple(int(count) for count in sizes), int(abs(difference_C.sum())))


@lru_cache(maxsize=100_000)
def _sign_flip(counts: tuple[int, ...], observed: int) -> float:
    """``counts[m]`` differences of absolute size m; P(absolute sum >= ``observed``) with random signs."""
    from scipy.special import bdtr, gammaln, ndtr

    largest = sum(size * count for size, count in enumerate(counts))
    if observed == 0:
        return 1.0
    if sum(counts) == (counts[1] if len(counts) > 1 else 0):
        return float(min(1.0, 2 * bdtr((largest - observed) // 2, largest, 0.5)))
    if largest > MOST_EXACT:
        deviation = np.sqrt(sum(size**2 * count for size, count in enumerate(counts)))
        return float(min(1.0, 2 * ndtr(-observed / deviation)))
    chance = np.ones(1)
    for size, count in enumerate(counts):
        if count:
            k = np.arange(count + 1)
            spaced = np.zeros(size * count + 1)
            spaced[::size] = np.exp(gammaln(count + 1) - gammaln(k + 1) - gammaln(count - k + 1) - count * np.log(2))
            chance = np.convolve(chance, spaced)
    # chance[j]: the positive signs carry j of `largest`, so the sum is 2 j - largest.
    return float(min(1.0, 2 * chance[: (largest - observed) // 2 + 1].sum()))


def holm_adjusted(p_values: npt.ArrayLike) -> Floats:
    """P-values adjusted for their number by S. Holm's step-down method (1979); those that are NaN count as none."""
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(given.shape, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def detectable_difference(num_problems: npt.ArrayLike, discordance: npt.ArrayLike) -> Floats:
    """Smallest true difference that McNemar's exact test (5 %, two-sided) finds in 80 % of repetitions; element-wise.

    ``discordance``: share of problems on which exactly one of the two is right; it is taken to be no smaller than the
    difference itself, since it cannot be. NaN where no difference is found that often (fewer than six problems).
    """
    n, share = np.broadcast_arrays(np.asarray(num_problems, dtype=np.int64), np.asarray(discordance, dtype=float))
    result = np.full(n.shape, np.nan)
    for size in np.unique(n):
        at = np.flatnonzero(n.ravel() == size)
        shares, places = np.unique(share.ravel()[at], return_inverse=True)
        solve = _detectable_exactly if size <= MOST_PROBLEMS_EXACT else detectable_normal
        result.ravel()[at] = solve(int(size), shares)[places]
    return result


def detectable_normal(num_problems: npt.ArrayLike, discordance: npt.ArrayLike, num_seeds: npt.ArrayLike = 1) -> Floats:
    """As ``detectable_difference`` by the normal approximation of R. J. Connor (Biometrics 43, 1987).

    With several seeds ``discordance`` is the mean square of the problems' mean differences.
    """
    n, square, seeds = (np.asarray(value, dtype=float) for value in (num_problems, discordance, num_seeds))
    a, b = NORMAL_95, NORMAL_80
    solved = (np.sqrt(n * square) * a + b * np.sqrt(np.maximum(square * (n + b**2 - a**2), 0))) / (n + b**2)
    # More differences than there are discordant problems cannot be: then all of them are discordant one way.
    return np.where(solved > seeds * square, (a + b) ** 2 / (n * seeds), solved)


def mcnemar_power(num_problems: int, discordance: npt.ArrayLike, difference: npt.ArrayLike) -> Floats:
    """Chance that McNemar's exact test (5 %, two-sided) rejects, for true shares of discordance and difference."""
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    share, delta = np.broadcast_arrays(np.asarray(discordance, dtype=float), np.asarray(difference, dtype=float))
    critical, most = _critical_values(num_problems)
    k = np.arange(num_problems + 1)
    choose = gammaln(num_problems + 1) - gammaln(k + 1) - gammaln(num_problems - k + 1)
    one_way = np.clip((1 + delta / np.maximum(share, 1e-300)) / 2, 0, 1)[..., None]
    chance = np.exp(choose + xlogy(k, share[..., None]) + xlog1py(num_problems - k, -np.minimum(share, 1.0)[..., None]))
    window = (k >= most) & (chance > 1e-9)
    k_full, critical_full = np.broadcast_to(k, window.shape)[window], np.broadcast_to(critical, window.shape)[window]
    direction = np.broadcast_to(one_way, window.shape)[window]
    rejects = np.zeros(window.shape)
    rejects[window] = bdtr(critical_full, k_full, 1 - direction) + bdtr(critical_full, k_full, direction)
    return np.asarray((chance * rejects).sum(axis=-1))


@lru_cache(maxsize=64)
def _critical_values(num_problems: int) -> tuple[Integers, int]:
    """By number of discordant problems, the largest count of the rarer kind at which the exact test rejects; and the
    fewest discordant problems with which it can."""
    from scipy.special import bdtr

    critical = np.full(num_problems + 1, -1, dtype=np.int64)
    rarer = -1
    for discordant in range(num_problems + 1):
        while 2 * (rarer + 2) <= discordant and 2 * bdtr(rarer + 1, discordant, 0.5) <= SIGNIFICANCE:
            rarer += 1
        critical[discordant] = rarer
    able = np.flatnonzero(critical >= 0)
    return critical, int(able[0]) if len(able) else num_problems + 1


def _detectable_exactly(num_problems: int, shares: Floats) -> Floats:
    """(K,) smallest differences at which ``mcnemar_power`` is 80 %, by bisection; NaN where it never is."""
    low, high = np.zeros(len(shares)), np.ones(len(shares))
    never = mcnemar_power(num_problems, np.ones(1), np.ones(1))[0] < POWER if num_problems else True
    if never:
        return np.full(len(shares), np.nan)
    guess = np.asarray(detectable_normal(num_problems, shares))
    for factor in (0.8, 1.0, 1.2, 1.5):  # a bracket of the guess spares half of the bisections
        trial = np.clip(guess * factor, 0, 1)
        enough = mcnemar_power(num_problems, np.maximum(shares, trial), trial) >= POWER
        high = np.where(enough, np.minimum(high, trial), high)
        low = np.where(enough, low, np.maximum(low, trial))
    for _ in range(BISECTIONS):
        if np.all(high - low < 1e-4):
            break
        middle = (low + high) / 2
        enough = mcnemar_power(num_problems, np.maximum(shares, middle), middle) >= POWER
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high
