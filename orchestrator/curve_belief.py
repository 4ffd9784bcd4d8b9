"""Where a learning curve probably reaches an accuracy, told from the scores there are of it and of its relatives.

A curve is the accuracy over n_train of one (backbone, task, seed, rank, recipe). Its belief is a Gaussian process on
the probit of the accuracy over a power of n_train: a rising mean, and deviations that all curves share, those of one
task, of one backbone, of backbone and task together, and the curve's own. So a score of one backbone tells something of
the others on the same task, and a score at one size of the sizes near it. A belief chooses what to measure next, and
says when an answer is probable enough not to be measured.
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
SURPRISE = 0.01
"""Share of curves that do as no Gaussian process has it, such as a jump from .25 to .99 between neighbouring sizes: all
answers are then alike. A guess, one curve in a hundred, so that no chance is nearer to 1 than we know."""
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
"""These, the mean, ``FLATTENING``, ``SMOOTHNESS_DECADES`` and ``NUGGET`` are those of greatest likelihood on published
learning curves of two backbones and thirty-four tasks (arXiv 2510.24448, tables 12 to 16), rounded. ``OWN``, the part
of another seed or rank, is not in them: it is a small part of what they show of backbone and task together."""

_NORMAL = NormalDist()
_QUANTILES = [_NORMAL.inv_cdf((index + 0.5) / 8) for index in range(8)]
"""Of a score, in standard deviations, equally likely."""


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

    def outlook(self, curve: Curve, sizes: Sequence[int], n_test: int) -> Outlook:
        """What single trials of ``curve`` with ``n_test`` test problems would score at ``sizes`` (ascending)."""
        positions = np.array([_position(size) for size in sizes])
        mean, covariance = self._posterior(curve, positions)
        chance_variance = _binomial_variance(_NORMAL.cdf(self._threshold), n_test) + NUGGET**2
        covariance = covariance + chance_variance * np.eye(len(sizes))
        samples = mean + self._normal_deviates(len(sizes)) @ np.linalg.cholesky(covariance).T
        return Outlook(mean - self._threshold, covariance, samples - self._threshold)

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


class Outlook:
    """What is believed of the next scores of one curve at some sizes.

    Args:
        mean: [size], in probits above the accuracy.
        covariance: [size, size].
        samples: [sample, size], drawn from both.
    """

    def __init__(self, mean: Array, covariance: Array, samples: Array) -> None:
        self._mean = mean
        self._covariance = covariance
        self._samples = samples

    def chances(self) -> Array:
        """Probabilities of which size is the first to score at least the accuracy: one for each, and a last one for
        none; they sum to 1."""
        return _first_reached(self._samples)

    def next_probe(self, prices: Sequence[float], confidence: float = 1.0, loss: float = math.inf) -> int | None:
        """The size to measure first, so that telling the first one that reaches the accuracy is cheapest on average;
        None: measure none, for surely enough none reaches it.

        That is inferred only with at least ``confidence``, and if it is wrong, it costs ``loss``. For each size
        and each of some scores, equally likely there, what would then be believed of the sizes left says what an
        optimal search among them costs.
        """
        num_sizes, num_scores = len(self._mean), len(_QUANTILES)
        chances = np.zeros((num_sizes, num_scores, num_sizes + 1))
        for probe in range(num_sizes):
            variance = self._covariance[probe, probe]
            gain = self._covariance[probe] / variance
            for index, quantile in enumerate(_QUANTILES):
                score = self._mean[probe] + math.sqrt(variance) * quantile
                left = slice(0, probe) if score >= 0 else slice(probe + 1, num_sizes)
                samples = self._samples[:, left] + (score - self._samples[:, probe, None]) * gain[left]
                chances[probe, index, left.start : left.stop + 1] = _first_reached(samples)
        price = np.asarray(prices, dtype=np.float64)
        later = search_price(chances.reshape(-1, num_sizes + 1), price, confidence, loss)
        expected = price + later.reshape(num_sizes, num_scores).mean(axis=1)
        never = self.chances()[-1]
        if never >= confidence and math.isfinite(loss) and loss * (1 - never) <= expected.min():
            return None
        return int(expected.argmin())


def _first_reached(samples: Array) -> Array:
    """[size + 1]: how probable it is, by ``samples`` [sample, size], that each size is the first with at least 0, and
    that none has."""
    num_samples, num_sizes = samples.shape
    reached = np.concatenate([samples >= 0, np.ones((num_samples, 1), dtype=bool)], axis=1)
    shares = np.bincount(reached.argmax(axis=1), minlength=num_sizes + 1) / num_samples
    return np.asarray((1 - SURPRISE) * shares + SURPRISE / (num_sizes + 1))


def search_price(chances: Array, prices: Array, confidence: float = 1.0, loss: float = math.inf) -> Array:
    """[belief]: what it costs on average to tell the first cell that reaches the accuracy, in the best order.

    ``chances`` [belief, cell + 1] has one entry a cell and one for none; ``prices`` [cell]. A cell that reaches it
    rules out the larger ones, one that does not the smaller ones: an optimal search tree with prices (Knuth, 1971) by
    dynamic programming over intervals, O(cells^3). The search may end where "none" has ``confidence`` among the answers
    left; if it is wrong, that costs ``loss``. An answer of chance 0 is ruled out already.
    """
    num_beliefs, num_answers = chances.shape
    cumulated = np.concatenate([np.zeros((num_beliefs, 1)), np.cumsum(chances, axis=1)], axis=1)
    expected = np.zeros((num_beliefs, num_answers + 1, num_answers + 1))  # [., a, b]: the answer is one of a .. b - 1
    for width in range(2, num_answers + 1):
        for a in range(num_answers + 1 - width):
            b = a + width
            mass = cumulated[:, b] - cumulated[:, a]
            tells = (cumulated[:, a + 1 : b] > cumulated[:, a, None]) & (
                cumulated[:, a + 1 : b] < cumulated[:, b, None]
            )
            of_probe = np.where(tells, mass[:, None] * prices[a : b - 1], 0.0)
            of_probe += expected[:, a, a + 1 : b] + expected[:, a + 1 : b, b]
            cheapest = of_probe.min(axis=1)
            if math.isfinite(loss) and b == num_answers:
                never = chances[:, -1]
                risk = np.where(never >= confidence * mass, loss * (mass - never), np.inf)
                cheapest = np.minimum(cheapest, risk)
            expected[:, a, b] = cheapest
    return np.asarray(expected[:, 0, num_answers])


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
