"""Where a learning curve probably reaches an accuracy, told from the scores there are of it and of its relatives.

A curve is the accuracy over n_train of one (backbone, task, seed, rank, recipe). Its belief is a Gaussian process on
the probit of the accuracy over log10 n_train: a rising mean, and deviations that all curves share, those of one task,
of one backbone, of backbone and task together, and the curve's own. So a score of one backbone tells something of the
others on the same task, and a score at one size of the sizes near it. A belief chooses what to measure next; it decides
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from task_generators.rng import problem_rng

Array = npt.NDArray[np.float64]

MEAN_PROBIT_AT_100 = 0.75
MEAN_SLOPE_AT_100 = 1.4
"""Probits a decade."""
MEAN_CURVATURE = -0.25
"""Probits a decade squared: curves flatten, those that are slow to reach an accuracy most of all."""
SMOOTHNESS_DECADES = 0.8
NUGGET = 0.15
"""Standard deviation of what is left beside binomial noise: another training set or initialisation."""
SMALLEST_SCORE = 0.005
"""Scores nearer to 0 or 1 than one answer in 200 say no more than this."""
NUM_SAMPLES = 512
MAX_OBSERVATIONS = 256
"""Scores that a belief is built on; the cost of one grows with their cube, to some 5 ms here."""


@dataclass(frozen=True)
class Spread:
    """Standard deviations, in probits, of one kind of deviation: the same at all sizes, and from size to size."""

    level: float
    shape: float


SHARED = Spread(0.3, 0.5)
SAME_TASK = Spread(0.6, 0.8)
SAME_BACKBONE = Spread(0.4, 0.2)
SAME_TASK_AND_BACKBONE = Spread(0.3, 0.65)
OWN = Spread(0.1, 0.25)
"""These and the numbers above are those of greatest likelihood on published learning curves of two backbones and
thirty-four tasks (arXiv 2510.24448, tables 12 to 16), rounded. ``OWN``, the part of
another seed or rank, is not in them: it is a small part of what they show of backbone and task together."""

_NORMAL = NormalDist()


class Curve(NamedTuple):
    """A curve by numbers: curves of one task share ``task``, and so on; ``group`` is its own."""

    task: int
    backbone: int
    group: int


class CurveBelief:
    """What the scores so far say of every curve. Deterministic: equal observations in equal order, equal beliefs."""

    def __init__(self, accuracy: float) -> None:
        self._threshold = _probit(accuracy)
        self._curves: list[Curve] = []
        self._log_sizes: list[float] = []
        self._residuals: list[float] = []
        self._variances: list[float] = []
        self._deviates = problem_rng("learning curves").standard_normal((NUM_SAMPLES, 1))

    def observe(self, curve: Curve, n_train: int, score: float, n_test: int) -> None:
        """A trial of ``curve`` with ``n_train`` training problems answered the share ``score`` of ``n_test`` right."""
        log_size = _log_size(n_train)
        self._curves.append(curve)
        self._log_sizes.append(log_size)
        self._residuals.append(_probit(score) - float(_mean(log_size)))
        self._variances.append(_binomial_variance(score, n_test) + NUGGET**2)

    def chances(self, curve: Curve, sizes: Sequence[int], n_test: int) -> Array:
        """Probabilities of which of ``sizes`` (ascending) is the first to score at least the accuracy: one for each,
        and a last one for none; they sum to 1."""
        log_sizes = np.array([_log_size(size) for size in sizes])
        mean, covariance = self._posterior(curve, log_sizes)
        chance_variance = _binomial_variance(_NORMAL.cdf(self._threshold), n_test) + NUGGET**2
        root = np.linalg.cholesky(covariance + chance_variance * np.eye(len(sizes)))
        reached = mean + self._normal_deviates(len(sizes)) @ root.T >= self._threshold
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(sizes))
        return np.asarray(np.bincount(first, minlength=len(sizes) + 1) / NUM_SAMPLES)

    def _posterior(self, curve: Curve, log_sizes: Array) -> tuple[Array, Array]:
        """Mean [size] and covariance [size, size] of the curve's probits, given the scores nearest to it."""
        own = np.array([curve] * len(log_sizes))
        mean, covariance = _mean(log_sizes), _covariance(own, log_sizes, own, log_sizes)
        if not self._curves:
            return mean, covariance
        curves = np.array(self._curves)
        nearest = _nearest(curve, curves)
        curves, seen = curves[nearest], np.array(self._log_sizes)[nearest]
        noise = np.diag(np.array(self._variances)[nearest])
        root = np.linalg.cholesky(_covariance(curves, seen, curves, seen) + noise)
        gain = np.linalg.solve(root, _covariance(curves, seen, own, log_sizes))
        residuals = np.linalg.solve(root, np.array(self._residuals)[nearest])
        return mean + gain.T @ residuals, covariance - gain.T @ gain

    def _normal_deviates(self, num_sizes: int) -> Array:
        """[sample, size]; the same ones every time, so that a choice does not depend on those before it."""
        if self._deviates.shape[1] < num_sizes:
            self._deviates = problem_rng("learning curves").standard_normal((NUM_SAMPLES, num_sizes))
        return self._deviates[:, :num_sizes]


def cheapest_probe(chances: Array, prices: Sequence[float]) -> int:
    """The cell to measure first, so that finding the first one that reaches the accuracy is cheapest on average.

    ``chances`` has one entry a cell and one for none; ``prices`` one a cell. A cell that reaches it rules out the
    larger ones, one that does not the smaller ones: an optimal search tree with prices (Knuth, 1971) by dynamic
    programming over intervals, O(cells^3).
    """
    num_answers = len(chances)
    cumulated = np.concatenate([[0.0], np.cumsum(chances)])
    price = np.asarray(prices, dtype=np.float64)
    expected = np.zeros((num_answers + 1, num_answers + 1))  # [a, b]: the answer is one of a .. b - 1
    first = 0
    for width in range(2, num_answers + 1):
        for a in range(num_answers + 1 - width):
            b = a + width
            of_probe = (cumulated[b] - cumulated[a]) * price[a : b - 1]
            of_probe += expected[a, a + 1 : b] + expected[a + 1 : b, b]
            first = int(of_probe.argmin())
            expected[a, b] = of_probe[first]
    return first


def _nearest(curve: Curve, curves: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of the observations that say most of ``curve``, ascending: its own, its task's, its backbone's; the
    latest of each first."""
    if len(curves) <= MAX_OBSERVATIONS:
        return np.arange(len(curves))
    same = curves == np.array(curve)
    relation = same @ np.array([2, 1, 4])
    order = np.lexsort((-np.arange(len(curves)), -relation))
    return np.sort(order[:MAX_OBSERVATIONS])


def _covariance(
    curves_a: npt.NDArray[np.int64], log_sizes_a: Array, curves_b: npt.NDArray[np.int64], log_sizes_b: Array
) -> Array:
    """Prior covariance [a, b] of the probits of two lists of cells."""
    distance = math.sqrt(3) * np.abs(log_sizes_a[:, None] - log_sizes_b[None, :]) / SMOOTHNESS_DECADES
    matern = (1 + distance) * np.exp(-distance)
    task, backbone, own = np.moveaxis(curves_a[:, None, :] == curves_b[None, :, :], 2, 0)
    relations = (
        (np.ones_like(own), SHARED),
        (task, SAME_TASK),
        (backbone, SAME_BACKBONE),
        (task & backbone, SAME_TASK_AND_BACKBONE),
        (own, OWN),
    )
    return np.asarray(sum(same * (spread.level**2 + spread.shape**2 * matern) for same, spread in relations))


def _mean(log_size: Array | float) -> Array:
    """Rising up to where the parabola turns, level from there on."""
    decades = np.minimum(np.asarray(log_size) - 2, -MEAN_SLOPE_AT_100 / (2 * MEAN_CURVATURE))
    return np.asarray(MEAN_PROBIT_AT_100 + MEAN_SLOPE_AT_100 * decades + MEAN_CURVATURE * decades**2)


def _log_size(n_train: int) -> float:
    return math.log10(max(n_train, 1))


def _probit(share: float) -> float:
    return _NORMAL.inv_cdf(min(max(share, SMALLEST_SCORE), 1 - SMALLEST_SCORE))


def _binomial_variance(share: float, n_test: int) -> float:
    """Of the probit of a share of ``n_test`` answers, to first order."""
    share = min(max(share, SMALLEST_SCORE), 1 - SMALLEST_SCORE)
    slope = _NORMAL.pdf(_NORMAL.inv_cdf(share))
    return min(share * (1 - share) / n_test / slope**2, 1.0)
