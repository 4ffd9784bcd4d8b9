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

MEAN_PROBIT_AT_100 = 0.9
MEAN_SLOPE_AT_100 = 1.4
"""Probits a decade."""
FLATTENING = 0.42
"""What a decade of sizes counts falls by a factor ``exp(FLATTENING)`` a decade: a power law of n_train with exponent
-0.18. Where thousands of examples are needed curves rise slowly, and sizes tell more of each other."""
SMOOTHNESS_DECADES = 1.0
NUGGET = 0.16
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


SHARED = Spread(0.15, 0.4)
SAME_TASK = Spread(0.45, 0.9)
SAME_BACKBONE = Spread(0.3, 0.2)
SAME_TASK_AND_BACKBONE = Spread(0.15, 0.7)
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
        self._positions: list[float] = []
        self._residuals: list[float] = []
        self._variances: list[float] = []
        self._deviates = problem_rng("learning curves").standard_normal((NUM_SAMPLES, 1))

    def observe(self, curve: Curve, n_train: int, score: float, n_test: int) -> None:
        """A trial of ``curve`` with ``n_train`` training problems answered the share ``score`` of ``n_test`` right."""
        position = _position(n_train)
        self._curves.append(curve)
        self._positions.append(position)
        self._residuals.append(_probit(score) - float(_mean(position)))
        self._variances.append(_binomial_variance(score, n_test) + NUGGET**2)

    def chances(self, curve: Curve, sizes: Sequence[int], n_test: int) -> Array:
        """Probabilities of which of ``sizes`` (ascending) is the first to score at least the accuracy: one for each,
        and a last one for none; they sum to 1."""
        positions = np.array([_position(size) for size in sizes])
        mean, covariance = self._posterior(curve, positions)
        chance_variance = _binomial_variance(_NORMAL.cdf(self._threshold), n_test) + NUGGET**2
        root = np.linalg.cholesky(covariance + chance_variance * np.eye(len(sizes)))
        reached = mean + self._normal_deviates(len(sizes)) @ root.T >= self._threshold
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(sizes))
        return np.asarray(np.bincount(first, minlength=len(sizes) + 1) / NUM_SAMPLES)

    def _posterior(self, curve: Curve, positions: Array) -> tuple[Array, Array]:
        """Mean [size] and covariance [size, size] of the curve's probits, given the scores nearest to it."""
        own = np.array([curve] * len(positions))
        mean, covariance = _mean(positions), _covariance(own, positions, own, positions)
        if not self._curves:
            return mean, covariance
        curves = np.array(self._curves)
        nearest = _nearest(curve, curves)
        curves, seen = curves[nearest], np.array(self._positions)[nearest]
        noise = np.diag(np.array(self._variances)[nearest])
        root = np.linalg.cholesky(_covariance(curves, seen, curves, seen) + noise)
        gain = np.linalg.solve(root, _covariance(curves, seen, own, positions))
        residuals = np.linalg.solve(root, np.array(self._residuals)[nearest])
        return mean + gain.T @ residuals, covariance - gain.T @ gain

    def _normal_deviates(self, num_sizes: int) -> Array:
        """[sample, size]; the same ones every time, so that a choice does not depend on those before it."""
        if self._deviates.shape[1] < num_sizes:
            self._deviates = problem_rng("learning curves").standard_normal((NUM_SAMPLES, num_sizes))
        return self._deviates[:, :num_sizes]


def cheapest_probe(
    chances: Array, prices: Sequence[float], confidence: float = 1.0, loss: float = math.inf
) -> int | None:
    """The cell to measure first, so that telling the first one that reaches the accuracy is cheapest on average; None:
    measure none, the likeliest answer is good enough.

    ``chances`` has one entry a cell and one for none; ``prices`` one a cell. A cell that reaches it rules out the
    larger ones, one that does not the smaller ones: an optimal search tree with prices (Knuth, 1971) by dynamic
    programming over intervals, O(cells^3). The search may end before one answer is left where an answer has
    ``confidence`` among those left; if it is wrong, that costs ``loss``.
    """
    num_answers = len(chances)
    cumulated = np.concatenate([[0.0], np.cumsum(chances)])
    price = np.asarray(prices, dtype=np.float64)
    expected = np.zeros((num_answers + 1, num_answers + 1))  # [a, b]: the answer is one of a .. b - 1
    first: int | None = None
    for width in range(2, num_answers + 1):
        for a in range(num_answers + 1 - width):
            b = a + width
            mass = cumulated[b] - cumulated[a]
            of_probe = mass * price[a : b - 1] + expected[a, a + 1 : b] + expected[a + 1 : b, b]
            first = int(of_probe.argmin())
            expected[a, b] = of_probe[first]
            likeliest = float(chances[a:b].max())
            if likeliest >= confidence * mass and loss * (mass - likeliest) < expected[a, b]:
                first, expected[a, b] = None, loss * (mass - likeliest)
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
    curves_a: npt.NDArray[np.int64], positions_a: Array, curves_b: npt.NDArray[np.int64], positions_b: Array
) -> Array:
    """Prior covariance [a, b] of the probits of two lists of cells."""
    distance = math.sqrt(3) * np.abs(positions_a[:, None] - positions_b[None, :]) / SMOOTHNESS_DECADES
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


def _mean(position: Array | float) -> Array:
    return np.asarray(MEAN_PROBIT_AT_100 + MEAN_SLOPE_AT_100 * np.asarray(position))


def _position(n_train: int) -> float:
    """Where a size lies on the axis on which curves are equally smooth everywhere: decades from 100 on, shorter and
    shorter."""
    return -math.expm1(-FLATTENING * math.log10(max(n_train, 1) / 100)) / FLATTENING


def _probit(share: float) -> float:
    return _NORMAL.inv_cdf(min(max(share, SMALLEST_SCORE), 1 - SMALLEST_SCORE))


def _binomial_variance(share: float, n_test: int) -> float:
    """Of the probit of a share of ``n_test`` answers, to first order."""
    share = min(max(share, SMALLEST_SCORE), 1 - SMALLEST_SCORE)
    slope = _NORMAL.pdf(_NORMAL.inv_cdf(share))
    return min(share * (1 - share) / n_test / slope**2, 1.0)
