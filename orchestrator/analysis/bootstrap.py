"""Draws of what curves could have been with other test problems and training seeds: intervals of what is made of them.

Shapes: B draws, N test problems or C clusters of them, S seeds, K sizes of training set. Draws come from fixed seeds,
and everything that answers the same problems is drawn with the same weights: what is compared stays paired.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.cells import Cell, Curve
from orchestrator.analysis.intervals import NO_VARIANCE, Floats, effective_n, wilson_bound

DRAWS = 2000
"""Draws of a bootstrap: the share of all possible draws within the 95 % limits then has a standard error of 0.5 %."""
_PROBLEMS, _SEEDS, _SEED_SPREAD, _BINOMIAL, _WEIGHTS = range(5)


@lru_cache(maxsize=16)
def problem_weights(n: int, draws: int = DRAWS) -> Floats:
    """(B, N): how often each of ``n`` test problems is drawn, as a share of n (Efron's bootstrap, 1979); rows add to 1.

    ``problem_weights(n) @ right_N`` are the draws of a mean. The same for every call; not writeable.
    """
    rng = np.random.default_rng([_WEIGHTS, n])
    weights: Floats = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    weights.flags.writeable = False
    return weights


def percentile_interval(
    lower_B: npt.ArrayLike, upper_B: npt.ArrayLike | None = None, level: float = 0.95
) -> tuple[float, float]:
    """The middle ``level`` of draws, infinite ones included; of draws known to lie between ``lower_B`` and ``upper_B``
    the least lower and the greatest upper limit that leave out (1 - level) / 2 on each side."""
    lower = np.asarray(lower_B, dtype=float)
    upper = lower if upper_B is None else np.asarray(upper_B, dtype=float)
    skipped = int(len(lower) * (1 - level) / 2)
    low = np.partition(lower, skipped)[skipped]
    high = np.partition(upper, len(upper) - 1 - skipped)[len(upper) - 1 - skipped]
    return float(low), float(high)


def accuracy_draws(curve: Curve, stream: int = 0) -> Floats:
    """(B, K): accuracies that the curve's sizes (``curve.sizes``) could have in truth, given what was measured.

    A multiplier bootstrap over test problems (each problem's deviation from the mean times a standard normal number,
    the same for all sizes, seeds and curves) plus, with several seeds, one over seeds with S - 1 degrees of freedom
    (also divided by the root of a chi-square draw): the parts of ``clustered_interval``. The sums, in standard errors,
    are put on the scale of Wilson's interval, so that draws stay within 0 to 1 and those of a single size have the
    percentiles of its interval over the same.

    Sizes without predictions are drawn from a binomial of their own: ``stream`` tells curves apart then.
    """
    return np.stack([_cell_draws(cell, [stream, place]) for place, cell in enumerate(curve.sizes)], axis=1)


def cell_draws(cell: Cell, stream: int = 0) -> Floats:
    """(B,): the same for one point, such as the one without training problems."""
    return _cell_draws(cell, [stream])


def _cell_draws(cell: Cell, stream: list[int]) -> Floats:
    parts, is_known = cell.parts, cell.right_SC is not None
    if cell.right_SC is not None and cell.weight_C is not None:
        num_clusters = len(cell.weight_C)
        share_C = cell.weight_C * (cell.right_SC.mean(axis=0) - parts.mean)
        alone = parts.problems_alone / parts.problems if parts.problems > NO_VARIANCE else 1.0
        deviation_B = _normal(num_clusters) @ (share_C * np.sqrt(alone))
    else:
        num_clusters = cell.n_test
        deviation_B = _binomial_normal(tuple(stream)) * np.sqrt(parts.problems)
    if cell.knows_seeds and parts.seeds > 0:
        deviation_B = deviation_B + _seed_deviations(cell)
    if parts.total > NO_VARIANCE:
        z_B = deviation_B / np.sqrt(parts.total)
    else:  # all right or all wrong: what moves such a mean is in no problem's deviation, but in all problems
        z_B = _normal_mean(num_clusters) if is_known else _binomial_normal(tuple(stream))
    return wilson_bound(cell.mean, effective_n(cell.mean, parts.total, num_clusters), z_B)


def _seed_deviations(cell: Cell) -> Floats:
    num_seeds = len(cell.scores_S)
    deviation_S = (cell.scores_S - cell.scores_S.mean()) / np.sqrt(num_seeds * (num_seeds - 1))
    # A seed names the same training problems for every backbone and, as they nest, for every size: one number a seed.
    multipliers_BS = np.stack([_seed_normal(seed) for seed in cell.seeds], axis=1)
    drawn: Floats = (multipliers_BS @ deviation_S) / np.sqrt(_chi_square(num_seeds - 1) / (num_seeds - 1))
    return drawn


@lru_cache(maxsize=32)
def _normal(n: int) -> Floats:
    """(B, n) standard normal numbers; the second half of the draws mirrors the first, so that their mean is 0."""
    half = np.random.default_rng(_PROBLEMS).standard_normal((n, DRAWS // 2)).T
    return np.concatenate([half, -half])


@lru_cache(maxsize=32)
def _normal_mean(n: int) -> Floats:
    """(B,) the means of ``_normal(n)`` in their standard errors."""
    mean: Floats = _normal(n).sum(axis=1) / np.sqrt(n)
    return mean


@lru_cache(maxsize=4096)
def _seed_normal(seed: int) -> Floats:
    half = np.random.default_rng([_SEEDS, seed % 2**63]).standard_normal(DRAWS // 2)
    return np.concatenate([half, -half])


@lru_cache(maxsize=64)
def _chi_square(df: int) -> Floats:
    half = np.random.default_rng([_SEED_SPREAD, df]).chisquare(df, DRAWS // 2)
    return np.concatenate([half, half])


def _binomial_normal(stream: tuple[int, ...]) -> Floats:
    half = np.random.default_rng([_BINOMIAL, *stream]).standard_normal(DRAWS // 2)
    return np.concatenate([half, -half])
