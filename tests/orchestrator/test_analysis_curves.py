import json

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.baselines import reference_scores
from orchestrator.analysis.bootstrap import accuracy_draws, percentile_interval
from orchestrator.analysis.cells import curves_of
from orchestrator.analysis.curves import areas_under_curve, learning_curves
from orchestrator.analysis.findings import findings
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


def test_of_trials_that_differ_in_n_test_alone_the_largest_counts():
    """An n_test that was changed, or two folders with one cell: no mean over both, anywhere."""
    rows = [one_trial("small", n_test=10, exact_match=1.0), one_trial("large", n_test=100, exact_match=0.1)]
    for trials in (pd.DataFrame(rows), pd.DataFrame(rows[::-1])):
        curve = learning_curves(trials, right_of({"small": 10, "large": 10}, {"small": 10, "large": 100})).iloc[0]
        assert (curve["exact_match"], curve["n_test"], curve["seeds"]) == (0.1, 100, 1)
        assert (curve["low"], curve["high"]) == pytest.approx([float(end) for end in wilson_interval(0.1, 100)])
        assert areas_under_curve(trials)["area"].tolist() == [0.1]
        reference = reference_scores(trials.assign(family="baseline")).iloc[0]
        assert (reference["exact_match"], reference["n_test"]) == (0.1, 100)


def test_seeds_with_test_sets_of_two_sizes_have_a_mean_within_its_interval():
    rows = [one_trial("a", n_test=10, exact_match=1.0), one_trial("b", seed=1, n_test=100, exact_match=0.1)]
    predictions = right_of({"a": 10, "b": 10}, {"a": 10, "b": 100})
    for frame, estimate in (
        (learning_curves(pd.DataFrame(rows), predictions), "exact_match"),
        (areas_under_curve(pd.DataFrame(rows), predictions), "area"),
    ):
        row = frame.iloc[0]
        assert row[estimate] == pytest.approx(0.55)
        assert row["low"] < 0.55 < row["high"]


def test_of_many_given_tasks_the_largest_training_sets_count():
    rows = [
        one_trial(f"{size}/{task}", task="arc", task_params=json.dumps({"task": str(task)}), n_train=size, n_test=1,
                  exact_match=float(size == 3))
        for size in (3, 1) for task in range(30)
    ]  # fmt: skip
    trials = pd.DataFrame(rows)
    assert learning_curves(trials)["exact_match"].tolist() == [1.0]
    assert "solves 30 of 30 tasks" in findings(trials)[0].text
    ceilings = pd.DataFrame(
        [one_trial("x", family="video", roundtrip_exact_match=0.5),
         one_trial("y", family="video", recipe='{"cell_px":16}', roundtrip_exact_match=1.0),
         one_trial("z", family="video", recipe='{"lora_alpha":9}', roundtrip_exact_match=1.0)]
    )  # fmt: skip
    assert sorted(reference_scores(ceilings)["exact_match"]) == [0.5, 1.0], "what recipes differ in is not averaged"


def one_trial(trial_id, **fields):
    defaults = {"trial_id": trial_id, "state": "done", "backbone": "causal_lm/tiny", "family": "language"}
    defaults |= {
        "task": "life",
        "task_params": "{}",
        "seed": 0,
        "n_train": 30,
        "n_test": 100,
        "lora_rank": 4,
        "recipe": "{}",
    }
    return defaults | {"exact_match": 0.5, "cell_accuracy": 0.5} | fields


def right_of(num_right, n_test):
    """Predictions of trials that answer the first ``num_right`` problems."""
    frames = [
        pd.DataFrame({"trial_id": trial, "index": range(count), "attempt": 0})
        .assign(exact_match=lambda frame, trial=trial: frame["index"] < num_right[trial])
        for trial, count in n_test.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)
