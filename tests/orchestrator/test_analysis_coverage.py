"""Simulated sweeps of which the truth is known: 95 % intervals hold it in 93 % to 97 % of 2,000."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit

from orchestrator.analysis.bootstrap import accuracy_draws, percentile_interval
from orchestrator.analysis.cells import Cell, Curve
from orchestrator.analysis.curves import trapezoid_weights
from orchestrator.analysis.intervals import clustered_interval, seeds_interval, wilson_interval
from orchestrator.analysis.thresholds import Crossing, crossings, ratio_interval

SIMULATIONS = 2000
SIZES_K = np.array([10, 30, 100, 300, 1000], dtype=float)
NODES, MASS = np.polynomial.hermite_e.hermegauss(60)


def mean_share(logit, sd):
    """Mean of the logistic function of normal numbers, by Gauss-Hermite quadrature."""
    return (expit(np.asarray(logit)[..., None] + sd * NODES) * MASS).sum(axis=-1) / MASS.sum()


def share(hits):
    return sum(hits) / len(hits)


def test_wilson_intervals_cover():
    n = 200
    right = np.arange(n + 1)
    low, high = wilson_interval(right / n, n)
    true_P = np.linspace(0.02, 0.98, 193)[:, None]
    coverage_P = np.where((low <= true_P) & (true_P <= high), scipy.stats.binom.pmf(right, n, true_P), 0).sum(axis=1)
    assert 0.945 <= coverage_P.mean() <= 0.955, "exactly, on average: at a single share it goes up and down with n"
    assert coverage_P.min() > 0.91
    rng = np.random.default_rng(1)
    for true in (0.1, 0.5, 0.9, 0.95):
        low, high = wilson_interval(rng.binomial(n, true, SIMULATIONS) / n, n)
        assert 0.93 <= ((low <= true) & (true <= high)).mean() <= 0.97


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_intervals_over_seeds_cover(num_seeds):
    """The problems are fixed; the seeds differ in skill, and in luck at every problem."""
    rng = np.random.default_rng([2, num_seeds])
    hits = []
    for _ in range(SIMULATIONS):
        difficulty_N = rng.normal(1.5, 1.5, 100)
        skill_S = rng.normal(0, 0.4, (num_seeds, 1))
        scores_S = (rng.random((num_seeds, 100)) < expit(difficulty_N + skill_S)).mean(axis=1)
        low, high = seeds_interval(scores_S, n_test=100)
        hits.append(low <= mean_share(difficulty_N, 0.4).mean() <= high)
    assert 0.93 <= share(hits) <= 0.97


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_intervals_over_seeds_and_problems_cover(num_seeds):
    rng = np.random.default_rng([3, num_seeds])
    for logit in (0.0, 2.5):
        true = mean_share(logit, np.hypot(0.4, 1.5))
        hits = []
        for _ in range(SIMULATIONS):
            chance_SN = expit(logit + rng.normal(0, 0.4, (num_seeds, 1)) + rng.normal(0, 1.5, 200))
            low, high = clustered_interval(rng.random((num_seeds, 200)) < chance_SN, "both")
            hits.append(low <= true <= high)
        assert 0.93 <= share(hits) <= 0.97


@pytest.mark.parametrize("num_seeds", [1, 5])
def test_intervals_of_whole_curves_cover(num_seeds):
    """Two backbones on the same problems, of which the second needs three times the training problems. Problems differ
    in difficulty, for both alike in part; seeds in skill, and anew at every size."""
    rng = np.random.default_rng([4, num_seeds])
    skill_sd, size_sd, problem_sd = (0.0, 0.0, 1.0) if num_seeds == 1 else (0.3, 0.3, 1.0)
    logit_K = [1.5 * np.log(SIZES_K / needed) for needed in (30, 90)]
    true_K = [mean_share(logit, np.sqrt(skill_sd**2 + size_sd**2 + problem_sd**2)) for logit in logit_K]
    weight_K = trapezoid_weights(SIZES_K)
    area = true_K[0] @ weight_K
    samples = [crossings(mean[None], SIZES_K, 0.9)[0][0] for mean in true_K]
    hits: dict[str, list[bool]] = {"area": [], "samples": [], "ratio": []}
    for _ in range(SIMULATIONS):
        shared_N = rng.normal(0, problem_sd, 150)
        curves = []
        for backbone, logit in enumerate(logit_K):
            skill_KS = rng.normal(0, skill_sd, num_seeds) + rng.normal(0, size_sd, (len(SIZES_K), num_seeds))
            difficulty_N = 0.8 * shared_N + 0.6 * rng.normal(0, problem_sd, 150)
            chance_KSN = expit(logit[:, None, None] + skill_KS[:, :, None] + difficulty_N)
            curves.append(curve_of((rng.random(chance_KSN.shape) < chance_KSN).astype(float), str(backbone)))
        low, high = percentile_interval(accuracy_draws(curves[0]) @ weight_K)
        hits["area"].append(low <= area <= high)
        first, second = (Crossing.of(curve, 0.9) for curve in curves)
        low, high = percentile_interval(first.lower_B, first.upper_B)
        hits["samples"].append(low <= samples[0] <= high)
        low, high = ratio_interval(first, second)
        hits["ratio"].append(low <= samples[1] / samples[0] <= high)
    covered = {name: share(of_name) for name, of_name in hits.items()}
    assert all(0.93 <= value <= 0.97 for value in covered.values()), covered


def curve_of(right_KSN, backbone):
    num_seeds, num_problems = right_KSN.shape[1:]
    cells = [
        Cell(int(size), float(right_SN.mean()), num_problems, tuple(range(num_seeds)), right_SN,
             np.full(num_problems, 1 / num_problems), right_SN.mean(axis=1))
        for size, right_SN in zip(SIZES_K, right_KSN, strict=True)
    ]  # fmt: skip
    return Curve(("life", "{}", backbone, 16, "{}"), "life", "video", tuple(cells))
