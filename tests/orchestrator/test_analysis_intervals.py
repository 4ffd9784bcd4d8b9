import numpy as np
import pytest
import scipy.stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint

from orchestrator.analysis.bootstrap import DRAWS, percentile_interval, problem_weights
from orchestrator.analysis.intervals import (
    KINDS,
    clustered_interval,
    seeds_interval,
    variance_parts,
    wilson_bound,
    wilson_interval,
)


@pytest.fixture
def right_SN():  # noqa: N802
    """4 seeds x 60 problems that differ in difficulty, seeds that differ in skill."""
    rng = np.random.default_rng(3)
    chance = 0.6 + 0.1 * rng.standard_normal((4, 1)) + 0.25 * rng.standard_normal(60)
    return (rng.random((4, 60)) < chance).astype(float)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (100, 200), (199, 200), (200, 200)])
def test_wilson_interval_is_that_of_statsmodels(right, n):
    expected = proportion_confint(right, n, method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx(expected, abs=1e-12)


def test_wilson_bounds_grow_from_0_to_1_through_the_share():
    bounds = wilson_bound(0.9, 50, [-1e6, -1.0, 0.0, 1.0, 1e6])
    assert (np.diff(bounds) > 0).all()
    assert bounds[[0, 2, 4]] == pytest.approx([0, 0.9, 1], abs=1e-4)


def test_of_one_seed_the_interval_over_problems_is_wilsons_and_there_is_no_other(right_SN):
    one = right_SN[:1]
    assert clustered_interval(one, "problems") == pytest.approx(wilson_interval(one.mean(), 60))
    assert np.isnan(clustered_interval(one, "both")).all()
    assert np.isnan(clustered_interval(one, "seeds")).all()
    assert np.isnan(seeds_interval([0.5])).all()


def test_variance_parts_are_the_mean_squares_of_a_two_way_analysis_of_variance(right_SN):
    num_seeds, num_problems = right_SN.shape
    seed_of, problem_of = np.divmod(np.arange(right_SN.size), num_problems)
    dummies = np.column_stack([np.eye(num_seeds)[seed_of], np.eye(num_problems)[problem_of][:, 1:]])
    fit = OLS(right_SN.ravel(), dummies).fit()
    parts = variance_parts(right_SN)
    assert parts.interaction == pytest.approx(fit.mse_resid / right_SN.size * 59 / 60)
    assert parts.seeds == pytest.approx(right_SN.mean(axis=1).var(ddof=1) / num_seeds)
    assert parts.problems == pytest.approx(right_SN.mean(axis=0).var() / num_problems)
    assert parts.mean == pytest.approx(right_SN.mean())


def test_seeds_interval_is_students_t_where_scores_are_far_from_0_and_1():
    scores = np.array([0.500, 0.502, 0.497, 0.501])
    expected = scipy.stats.t.interval(0.95, 3, scores.mean(), scores.std(ddof=1) / 2)
    assert seeds_interval(scores) == pytest.approx(expected, abs=1e-5)


def test_seeds_that_differ_more_widen_what_counts_seeds(right_SN):
    apart = right_SN.copy()
    apart[0], apart[1] = 1.0, 0.0
    for kind in ("seeds", "both"):
        assert np.diff(clustered_interval(apart, kind)) > 1.5 * np.diff(clustered_interval(right_SN, kind))


def test_copies_of_a_seed_add_nothing_over_problems(right_SN):
    one = right_SN[:1]
    assert clustered_interval(np.repeat(one, 5, axis=0), "problems") == pytest.approx(
        clustered_interval(one, "problems")
    )
    assert clustered_interval(np.repeat(one, 5, axis=0), "both") == pytest.approx(
        clustered_interval(one, "problems"), abs=0.01
    )


def test_columns_with_weights_are_clusters(right_SN):
    doubled = np.repeat(right_SN, 2, axis=1)
    clusters = clustered_interval(right_SN, "both", weight_N=np.full(60, 2))
    assert clusters == pytest.approx(clustered_interval(right_SN, "both"))
    assert np.diff(clustered_interval(doubled, "both")) < np.diff(clusters)


def test_the_variance_over_weighted_clusters_is_that_of_drawing_them_anew():
    rng = np.random.default_rng(5)
    num_inputs_C, mean_C = rng.integers(1, 5, 80), rng.random(80)
    parts = variance_parts(mean_C[None], num_inputs_C)
    drawn_BC = problem_weights(80) * num_inputs_C
    drawn_B = drawn_BC @ mean_C / drawn_BC.sum(axis=1)
    assert parts.mean == pytest.approx(np.average(mean_C, weights=num_inputs_C))
    assert np.sqrt(parts.problems) == pytest.approx(drawn_B.std(), rel=0.05)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_of_all_right_or_wrong_stay_within_0_and_1_and_have_a_width(kind, value):
    low, high = clustered_interval(np.full((3, 50), value), kind)
    assert 0 <= low < high <= 1
    assert low <= value <= high
    almost = np.full((3, 50), value)
    almost[0, 0] = 1 - value
    low, high = clustered_interval(almost, kind)
    assert 0 <= low < almost.mean() < high <= 1


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"kind: 'all' is none of problems, seeds, both"):
        clustered_interval(np.ones((2, 2)), "all")


def test_problem_weights_draw_as_many_problems_as_there_are_and_give_the_standard_error():
    weights = problem_weights(40)
    assert weights.shape == (DRAWS, 40)
    assert weights.sum(axis=1) == pytest.approx(np.ones(DRAWS))
    assert np.allclose(weights * 40, np.round(weights * 40))
    right = np.arange(40) < 12
    assert (weights @ right).std() == pytest.approx(np.sqrt(0.3 * 0.7 / 40), rel=0.05)
    assert problem_weights(40) is weights
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 1


def test_percentiles_of_draws_may_be_infinite():
    draws = np.r_[np.arange(1000.0), np.full(1000, np.inf)]
    assert percentile_interval(draws) == (50.0, np.inf)
    assert percentile_interval(np.arange(2000.0)) == (50.0, 1949.0)
    assert percentile_interval(np.zeros(100), np.ones(100)) == (0.0, 1.0)
