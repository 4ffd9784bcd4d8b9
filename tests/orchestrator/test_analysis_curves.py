import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.bootstrap import accuracy_draws, percentile_interval
from orchestrator.analysis.cells import curves_of
from orchestrator.analysis.curves import areas_under_curve, learning_curves
from orchestrator.analysis.intervals import clustered_interval, seeds_interval, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.thresholds import efficiency_ratios, samples_to_threshold

N_TEST = 80
FUNCTIONS = [learning_curves, areas_under_curve, samples_to_threshold, efficiency_ratios]


def study(chances, *, seeds=(0, 1, 2), n_test=N_TEST, task="life", task_params="{}", family="video", lora_rank=16):
    """Trials and predictions of a task; ``chances``: {backbone: {n_train: chance of a right answer}}."""
    rng = np.random.default_rng(11)
    difficulty_N = rng.random(n_test)
    trials, predictions = [], []
    for backbone, by_size in chances.items():
        for n_train, chance in by_size.items():
            for seed in seeds:
                trial_id = f"{backbone} {task_params} {n_train} {seed} {lora_rank}"
                right_N = 0.7 * difficulty_N + 0.3 * rng.random(n_test) < chance
                trials.append([trial_id, "done", backbone, family, task, task_params, seed, n_train, n_test, lora_rank,
                               "{}", right_N.mean(), 0.5])  # fmt: skip
                predictions.append(pd.DataFrame({"trial_id": trial_id, "index": range(n_test), "exact_match": right_N}))
    columns = ["trial_id", "state", "backbone", "family", "task", "task_params", "seed", "n_train", "n_test",
               "lora_rank", "recipe", "exact_match", "cell_accuracy"]  # fmt: skip
    return pd.DataFrame(trials, columns=columns), pd.concat(predictions, ignore_index=True)


RISING = {10: 0.1, 30: 0.4, 100: 0.8, 300: 0.98}


def test_the_interval_is_over_both_with_several_seeds_and_over_problems_with_one():
    trials, predictions = study({"a": RISING})
    curves = learning_curves(trials, predictions)
    outcomes = Outcomes.of(predictions)
    assert set(curves["interval"]) == {"both"}
    assert set(curves["seeds"]) == {3}
    for _, row in curves.iterrows():
        right_SN = outcomes.stacked(trials.loc[trials["n_train"] == row["n_train"], "trial_id"])
        assert (row["low"], row["high"]) == pytest.approx(clustered_interval(right_SN, "both"))
        assert row["low"] <= row["exact_match"] <= row["high"]
        assert row["low"] < row["high"]
    one = learning_curves(trials[trials["seed"] == 0], predictions)
    assert set(one["interval"]) == {"problems"}
    low, high = wilson_interval(one["exact_match"], N_TEST)
    np.testing.assert_allclose(one[["low", "high"]].T, [low, high])


def test_an_interval_can_be_asked_for_and_says_what_it_is():
    trials, predictions = study({"a": RISING})
    asked = {kind: learning_curves(trials, predictions, interval=kind) for kind in ("problems", "seeds", "both")}
    for kind, curves in asked.items():
        assert set(curves["interval"]) == {kind}
    scores = trials.loc[trials["n_train"] == 30, "exact_match"]
    at_30 = asked["seeds"].set_index("n_train").loc[30]
    assert (at_30["low"], at_30["high"]) == pytest.approx(seeds_interval(scores, n_test=N_TEST))
    assert set(learning_curves(trials, interval="seeds")["interval"]) == {"seeds"}, "needs no predictions"
    assert set(learning_curves(trials[trials["seed"] == 1], predictions, interval="both")["interval"]) == {"problems"}
    with pytest.raises(ValueError, match="interval: 'all' is none of problems, seeds, both"):
        learning_curves(trials, interval="all")


def test_without_predictions_all_seeds_count_as_one():
    trials, _ = study({"a": RISING})
    curves = learning_curves(trials)
    low, high = wilson_interval(curves["exact_match"], N_TEST)
    np.testing.assert_allclose(curves[["low", "high"]].T, [low, high])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_finished_gives_a_frame_with_all_columns(function):
    trials, predictions = study({"a": RISING, "b": RISING})
    whole = function(trials, predictions)
    assert len(whole) > 0
    empty = function(trials.iloc[:0], predictions.iloc[:0])
    assert list(empty.columns) == list(whole.columns)
    assert empty.empty
    failed = function(trials.assign(state="failed", exact_match=np.nan), predictions.iloc[:0])
    assert list(failed.columns) == list(whole.columns)
    assert len(failed) == (8 if function is learning_curves else 0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_do_not_depend_on_the_order_of_predictions_or_seeds(function):
    trials, predictions = study({"a": RISING, "b": {10: 0.05, 30: 0.3, 100: 0.6, 300: 0.95}})
    whole = function(trials, predictions)
    shuffled = function(trials, predictions.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(whole, shuffled)
    pd.testing.assert_frame_equal(whole, function(trials, Outcomes.of(predictions)))
    mirrored = trials.sort_values("seed", ascending=False).sort_values(["backbone", "n_train"], kind="stable")
    pd.testing.assert_frame_equal(whole, function(mirrored, predictions))


def test_the_same_seed_with_more_test_problems_counts_once():
    trials, predictions = study({"a": RISING}, seeds=(0,))
    fewer = trials.assign(trial_id=trials["trial_id"] + " fewer", n_test=5, exact_match=0.0)
    areas = areas_under_curve(pd.concat([fewer, trials]), predictions)
    assert areas["area"].item() == pytest.approx(areas_under_curve(trials, predictions)["area"].item())
    assert areas["n_test"].item() == N_TEST


def test_variants_of_a_pooled_task_are_clusters():
    rng = np.random.default_rng(2)
    parts = []
    for rule in range(40):
        chance = float(rng.random() < 0.5)  # every rule is known or not, all of its problems alike
        parts.append(study({"a": {10: chance, 30: chance}}, task="elementary_ca", task_params=f'{{"rule":{rule}}}',
                           n_test=10, seeds=(0,))[0])  # fmt: skip
    trials = pd.concat(parts, ignore_index=True)
    curves = learning_curves(trials)
    assert curves["task_label"].tolist() == ["elementary_ca (40 variants)"] * 2
    assert curves["n_test"].tolist() == [400, 400]
    low, high = wilson_interval(curves["exact_match"], 40)
    np.testing.assert_allclose(curves[["low", "high"]].T, [low, high])
    (curve,) = curves_of(trials, None)
    assert curve.interval == "problems"
    gone = trials[trials["task_params"] != '{"rule":3}']
    both = pd.concat([trials, gone.assign(seed=1, trial_id=gone["trial_id"] + " 1")])
    assert learning_curves(both)["interval"].tolist() == ["problems"] * 2, "the seeds did not answer the same"
    again = pd.concat([trials, trials.assign(seed=1, trial_id=trials["trial_id"] + " 1")])
    assert learning_curves(again)["interval"].tolist() == ["both"] * 2


def test_an_area_is_the_mean_over_log_n_train():
    trials, predictions = study({"a": RISING})
    row = areas_under_curve(trials, predictions).iloc[0]
    means = trials.groupby("n_train")["exact_match"].mean()
    assert row["area"] == pytest.approx(np.trapezoid(means, np.log(means.index)) / np.log(30))
    assert row["low"] < row["area"] < row["high"]
    assert (row["smallest"], row["largest"], row["seeds"], row["n_test"]) == (10, 300, 3, N_TEST)
    single = areas_under_curve(trials[trials["n_train"] == 30], predictions).iloc[0]
    assert single["area"] == pytest.approx(means[30])


def test_only_what_is_trained_has_an_area():
    trials, predictions = study({"a": {0: 0.3}})
    baseline, _ = study({"baseline/oracle": {0: 1.0, 10: 1.0}}, family="baseline")
    assert areas_under_curve(pd.concat([trials, baseline]), predictions).empty
    shot, _ = study({"a": {0: 0.9, **RISING}})
    assert areas_under_curve(shot)["smallest"].item() == 10


def test_draws_of_one_size_have_the_percentiles_of_its_interval():
    trials, predictions = study({"a": {10: 0.5, 30: 1.1, 100: 0.0}}, seeds=(0,))
    (curve,) = curves_of(trials, predictions)
    draws_BK = accuracy_draws(curve)
    for cell, draws_B in zip(curve.sizes, draws_BK.T, strict=True):
        expected = wilson_interval(cell.mean, N_TEST)
        assert percentile_interval(draws_B) == pytest.approx(expected, abs=0.015)
    assert draws_BK.min() >= 0
    assert draws_BK.max() <= 1
    seeds, predictions = study({"a": {10: 0.5}})
    (curve,) = curves_of(seeds, predictions)
    right_SN = Outcomes.of(predictions).stacked(seeds["trial_id"])
    drawn, expected = percentile_interval(accuracy_draws(curve)[:, 0]), clustered_interval(right_SN, "both")
    assert np.diff(drawn) == pytest.approx(np.diff(expected), rel=0.2)
