"""Paired comparisons: numbers against statsmodels, enumeration and simulation; tables against made-up studies."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from orchestrator.analysis.paired import paired_differences
from orchestrator.analysis.paired_tests import (
    crossed_interval,
    detectable_difference,
    detectable_normal,
    holm_adjusted,
    mcnemar_power,
    paired_interval,
    sign_flip_p_value,
    unpaired_interval,
)
from orchestrator.analysis.study import PREDICTION_COLUMNS
from orchestrator.tables import TRIALS


def study_of(*cells):
    """Frames from (fields, outcomes): one trial each, ``outcomes`` (n_test,) or (n_test, attempts) of its problems."""
    rows, predictions = [], []
    for place, (fields, outcomes) in enumerate(cells):
        right = np.asarray(outcomes, dtype=bool)
        right = right[:, None] if right.ndim == 1 else right
        n_test, attempts = right.shape
        row = {"trial_id": f"t{place:04d}", "state": "done", "backbone": "cogvideox/tiny", "family": "video"}
        row |= {"task": "life", "task_params": "{}", "seed": 0, "n_train": 10, "lora_rank": 16, "recipe": "{}"}
        rows.append(row | {"n_test": n_test, "exact_match": right.any(axis=1).mean()} | fields)
        index, attempt = np.divmod(np.arange(right.size), attempts)
        columns = {"trial_id": row["trial_id"], "problem_id": index.astype(str), "index": index.astype(np.int32)}
        columns |= {"attempt": attempt.astype(np.int32), "parsed": True, "exact_match": right.ravel()}
        predictions.append(pd.DataFrame(columns | {"cell_accuracy": 0.5 + right.ravel() / 2}))
    trials = pd.DataFrame(rows).reindex(columns=list(dict.fromkeys([*TRIALS.names, *(k for f, _ in cells for k in f)])))
    return trials, pd.concat(predictions, ignore_index=True).reindex(columns=list(PREDICTION_COLUMNS))


def answers(both, only_a, only_b, neither):
    a = np.r_[np.ones(both), np.ones(only_a), np.zeros(only_b), np.zeros(neither)]
    b = np.r_[np.ones(both), np.zeros(only_a), np.ones(only_b), np.zeros(neither)]
    return a, b


A = {"backbone": "cogvideox/tiny"}
B = {"backbone": "causal_lm/tiny", "family": "language"}


@pytest.mark.parametrize("counts", [(5, 1), (0, 0), (6, 0), (30, 12), (1, 1), (80, 120)])
def test_one_seed_is_mcnemar(counts):
    only_a, only_b = counts
    expected = mcnemar([[3, only_a], [only_b, 4]], exact=True).pvalue
    differences = np.r_[np.ones(only_a, int), -np.ones(only_b, int), np.zeros(7, int)]
    assert sign_flip_p_value(differences) == pytest.approx(expected)


@pytest.mark.parametrize("differences", [[1, 2, -3, 1, 2, 0], [3, 3, 3, -1], [2, 2, 2, 2, 2, 1], [1, -1]])
def test_sign_flips_are_all_enumerated(differences):
    signs = itertools.product([-1, 1], repeat=len(differences))
    sums = np.array([abs(np.dot(sign, differences)) for sign in signs])
    assert sign_flip_p_value(np.array(differences)) == pytest.approx(np.mean(sums >= abs(sum(differences))))


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(0).random(30) ** 4
    np.testing.assert_allclose(holm_adjusted(p_values), multipletests(p_values, method="holm")[1])
    with_gap = holm_adjusted([0.01, np.nan, 0.02])
    np.testing.assert_allclose(with_gap, [0.02, np.nan, 0.02])


def test_unpaired_interval_against_known_values():
    # Newcombe (1998), Statistics in Medicine 17, 873-890, table II: method 10
    np.testing.assert_allclose(unpaired_interval(56 / 70, 48 / 80, 70, 80), (0.0524, 0.3339), atol=5e-5)
    np.testing.assert_allclose(unpaired_interval(9 / 10, 3 / 10, 10, 10), (0.1705, 0.8090), atol=5e-5)


@pytest.mark.parametrize(
    ("n", "share_a", "share_b", "only_b"),
    [
        (50, 0.5, 0.5, 0.12),
        (50, 0.9, 0.6, 0.04),
        (100, 0.95, 0.9, 0.03),
        (100, 0.1, 0.05, 0.02),
        (200, 0.97, 0.95, 0.02),
        (200, 0.05, 0.03, 0.02),
        (200, 0.5, 0.5, 0.25),
    ],
)
def test_interval_over_problems_covers(n, share_a, share_b, only_b):
    rng = np.random.default_rng(1)
    only_a = share_a - share_b + only_b
    draws = rng.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=2000)
    covered = 0
    for up, down, same in draws:
        low, high = paired_interval(np.repeat([1.0, -1.0, 0.0], [up, down, same]))
        covered += low <= share_a - share_b <= high
    assert 0.93 <= covered / 2000 <= 0.975


def test_interval_counts_a_cluster_once():
    rng = np.random.default_rng(2)
    covered = {"clustered": 0, "not": 0}
    cluster_N = np.repeat(np.arange(60), 3)
    for _ in range(2000):
        differences = np.repeat(rng.choice([1.0, 0.0, -1.0], p=[0.3, 0.5, 0.2], size=60), 3)
        for name, clusters in (("clustered", cluster_N), ("not", None)):
            low, high = paired_interval(differences, clusters)
            covered[name] += low <= 0.1 <= high
    assert 0.93 <= covered["clustered"] / 2000 <= 0.97
    assert covered["not"] / 2000 < 0.85


@pytest.mark.parametrize(("num_seeds", "seed_spread"), [(2, 0.0), (3, 0.5), (5, 0.5)])
def test_interval_over_seeds_and_problems_covers(num_seeds, seed_spread):
    rng = np.random.default_rng(3)

    def shares(n):
        difficulty = rng.normal(0, 1.5, n)
        wander = rng.normal(0, seed_spread, (2, num_seeds, 1))
        return [1 / (1 + np.exp(-(mean + difficulty + w))) for mean, w in zip((0.5, -0.2), wander, strict=True)]

    difficulty, wander = rng.normal(0, 1.5, 400_000), rng.normal(0, seed_spread, 400_000)
    of_a, of_b = (np.mean(1 / (1 + np.exp(-(mean + difficulty + wander)))) for mean in (0.5, -0.2))
    covered = 0
    for _ in range(2000):
        difference = np.subtract(*((rng.random(share.shape) < share).astype(float) for share in shares(100)))
        low, high, p_value = crossed_interval(difference)
        covered += low <= of_a - of_b <= high
        assert (p_value < 0.05) == (low > 0 or high < 0)
    assert 0.93 <= covered / 2000 <= 0.98


@pytest.mark.parametrize(("n", "discordance"), [(50, 0.3), (200, 0.1), (200, 0.01)])
def test_what_is_detectable_is_detected_in_80_of_100(n, discordance):
    difference = float(detectable_difference(n, discordance))
    rng, share = np.random.default_rng(4), max(discordance, difference)
    draws = rng.multinomial(n, [(share + difference) / 2, (share - difference) / 2, 1 - share], size=4000)
    rejected = np.mean([mcnemar([[0, up], [down, 0]], exact=True).pvalue < 0.05 for up, down, _ in draws])
    assert rejected == pytest.approx(0.8, abs=0.025)
    assert mcnemar_power(n, share, difference) == pytest.approx(0.8, abs=0.01)


def test_power_of_few_and_of_many_problems():
    assert np.isnan(detectable_difference(5, 0.5))  # five problems can never give p < 0.05
    assert detectable_difference(900, 0.2) == pytest.approx(detectable_normal(900, 0.2), rel=0.03)
    assert detectable_difference(2000, 0.2) < detectable_difference(900, 0.2)


def test_a_row_says_who_was_right_where():
    a, b = answers(40, 25, 5, 30)
    (row,) = paired_differences(*study_of((A, a), (B, b))).to_dict("records")
    assert [row[name] for name in ("both", "only_a", "only_b", "neither")] == [40, 25, 5, 30]
    assert (row["backbone_a"], row["backbone_b"]) == (A["backbone"], B["backbone"])
    assert (row["score_a"], row["score_b"], row["difference"]) == pytest.approx((0.65, 0.45, 0.2))
    assert row["low"] < 0.2 < row["high"]
    assert row["p_value"] == pytest.approx(mcnemar([[40, 25], [5, 30]], exact=True).pvalue)
    assert (row["n_test"], row["seeds"], row["interval"]) == (100, 1, "problems")


def test_problems_match_by_index_whatever_the_order_of_rows():
    trials, predictions = study_of(*zip((A, B), answers(40, 25, 5, 30), strict=True))
    shuffled = predictions.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(paired_differences(trials, predictions), paired_differences(trials, shuffled))


def test_power_grows_with_the_test_set():
    studies = [study_of(*zip((A, B), answers(*counts), strict=True)) for counts in ((8, 4, 3, 5), (160, 80, 60, 100))]
    small, large = (paired_differences(*study).iloc[0] for study in studies)
    assert large["detectable"] < small["detectable"]
    assert not small["has_power"]
    assert large["has_power"]
    assert not paired_differences(*studies[1], meaningful=0.05)["has_power"].any()


def test_seeds_are_compared_seed_by_seed_and_a_problem_counts_once():
    a, b = answers(40, 25, 5, 30)
    same = study_of(*((A | {"seed": s}, a) for s in range(3)), *((B | {"seed": s}, b) for s in range(3)))
    (row,) = paired_differences(*same).to_dict("records")
    assert (row["seeds"], row["shared_seeds"], row["only_a"], row["only_b"]) == (3, 3, 75, 15)
    # Three seeds that all answer alike tell no more than one.
    assert row["p_value"] == pytest.approx(mcnemar([[40, 25], [5, 30]], exact=True).pvalue)
    assert row["sd_over_seeds"] == pytest.approx(0)
    (one,) = paired_differences(*study_of((A, a), (B, b))).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((one["low"], one["high"]))


def test_seeds_that_differ_are_paired_by_their_means():
    rng = np.random.default_rng(5)
    left, right = rng.random((2, 2, 60)) < 0.5
    cells = [(A | {"seed": 42}, left[0]), (A | {"seed": 43}, left[1]), (B | {"seed": 3407}, right[0])]
    (row,) = paired_differences(*study_of(*cells)).to_dict("records")
    assert (row["shared_seeds"], row["seeds"]) == (0, 1)
    assert row["difference"] == pytest.approx(left.mean() - right[0].mean())
    assert row["only_a"] + row["only_b"] + row["both"] + row["neither"] == 2 * 60
    assert (row["only_a"] - row["only_b"]) / 120 == pytest.approx(row["difference"])


def test_an_interval_over_seeds_too_is_wider_when_seeds_disagree():
    rng = np.random.default_rng(6)
    cells = [(A | {"seed": s}, rng.random(100) < share) for s, share in enumerate([0.9, 0.6, 0.75])]
    cells += [(B | {"seed": s}, rng.random(100) < 0.5) for s in range(3)]
    study = study_of(*cells)
    (narrow,), (wide,) = (paired_differences(*study, interval=kind).to_dict("records") for kind in ("problems", "both"))
    assert wide["interval"] == "both"
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])
    assert wide["p_value"] > narrow["p_value"]
    with pytest.raises(ValueError, match="'problems' and 'both'"):
        paired_differences(*study, interval="seeds")


def test_what_is_paired():
    a, b = answers(10, 5, 5, 10)
    cells = [(A | {"lora_rank": rank}, a) for rank in (16, 32)] + [(B | {"lora_rank": rank}, b) for rank in (32, 64)]
    cells += [(A | {"n_train": 30}, a), (B | {"n_train": 100}, b), (B | {"state": "failed", "n_train": 30}, b)]
    baseline = {"backbone": "baseline/copy_question", "family": "baseline", "n_train": 0, "lora_rank": 0}
    cells += [(baseline, b)]
    study = study_of(*cells)
    table = paired_differences(*study)
    assert table[["lora_rank_a", "lora_rank_b", "n_train"]].to_numpy().tolist() == [[32, 32, 10]]
    with_baselines = paired_differences(*study, baselines=True)
    against = with_baselines[with_baselines["family_b"] == "baseline"]
    assert sorted(against["n_train"]) == [10, 10, 10, 10, 30, 100]


def test_published_settings_that_differ_are_no_obstacle():
    a, b = answers(10, 5, 5, 10)
    of_a, of_b = A | {"lora_rank": 64, "recipe": '{"learning_rate": 0.0001}'}, B | {"lora_rank": 32}
    assert len(paired_differences(*study_of((of_a, a), (of_b, b)))) == 1


def test_many_variants_are_one_comparison_clustered_by_variant():
    rng = np.random.default_rng(7)
    cells = []
    for fields, share in ((A, 0.6), (B, 0.3)):
        for place in range(30):
            params = json.dumps({"task": f"t{place}"})
            given = {"task": "arc", "task_params": params, "n_train": 2 + place % 3}
            cells.append((fields | given, np.repeat(rng.random() < share, 2)))
    (row,) = paired_differences(*study_of(*cells)).to_dict("records")
    assert (row["n_test"], row["n_train"], row["task_label"]) == (60, 0, "arc (30 variants)")
    solved = {name: [o[0] for f, o in cells if f["backbone"] == name] for name in (A["backbone"], B["backbone"])}
    a, b = (np.array(values) for values in solved.values())
    expected = mcnemar([[0, (a & ~b).sum()], [(b & ~a).sum(), 0]], exact=True).pvalue
    assert row["p_value"] == pytest.approx(expected)


def test_other_scores_have_students_interval():
    a, b = answers(40, 25, 5, 30)
    (row,) = paired_differences(*study_of((A, a), (B, b)), score="cell_accuracy").to_dict("records")
    assert row["difference"] == pytest.approx(0.1)
    assert row["low"] < 0.1 < row["high"]
    assert pd.isna(row["only_a"])
    assert pd.isna(row["has_power"])


def test_without_predictions_means_are_compared():
    a, b = answers(40, 25, 5, 30)
    trials, predictions = study_of((A, a), (B, b))
    (row,), (paired,) = (paired_differences(trials, frame).to_dict("records") for frame in (None, predictions))
    assert row["difference"] == pytest.approx(0.2)
    assert row["high"] - row["low"] > paired["high"] - paired["low"]
    assert np.isnan(row["p_value"])


def test_nothing_finished_gives_an_empty_table():
    trials, predictions = study_of((A | {"state": "failed"}, [1, 0]))
    for given in ((trials, predictions), (trials, None), (trials[:0], predictions[:0])):
        table = paired_differences(*given)
        assert table.empty
        assert {"difference", "low", "high", "p_adjusted", "has_power"} <= set(table.columns)
