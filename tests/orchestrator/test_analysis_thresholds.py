import importlib.resources
import json

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.thresholds import crossings, efficiency_ratios, samples_to_threshold

SIZES = [3, 10, 30, 100, 300, 1000]


def study(chances, *, seeds=(0,), n_test=100, backbone_noise=0.0, **columns):
    """Trials and predictions; ``chances``: {backbone: {n_train: share of the problems, from the easiest, answered}}."""
    rng = np.random.default_rng(4)
    easiness_N = (np.arange(n_test) + 0.5) / n_test
    trials, predictions = [], []
    for backbone, by_size in chances.items():
        for n_train, chance in by_size.items():
            for seed in seeds:
                right_N = easiness_N + backbone_noise * rng.standard_normal(n_test) < chance
                row = {"trial_id": f"{backbone} {n_train} {seed} {columns}", "state": "done", "backbone": backbone}
                row |= {"family": "video", "task": "life", "task_params": "{}", "seed": seed, "n_train": n_train}
                row |= {"n_test": n_test, "lora_rank": 16, "recipe": "{}", "exact_match": right_N.mean()}
                trials.append(row | {"cell_accuracy": 0.5} | columns)
                answers = {"trial_id": row["trial_id"], "index": range(n_test), "exact_match": right_N}
                predictions.append(pd.DataFrame(answers))
    return pd.DataFrame(trials), pd.concat(predictions, ignore_index=True)


def test_the_crossing_is_interpolated_on_log_n_train():
    trials, predictions = study({"a": {10: 0.2, 100: 0.8, 1000: 1.0}})
    row = samples_to_threshold(trials, predictions, accuracy=0.5).iloc[0]
    assert row["samples"] == pytest.approx(10**1.5)
    assert row["low"] < row["samples"] < row["high"]
    assert (row["censored"], row["first_n_train"], row["smallest"], row["largest"]) == ("", 100, 10, 1000)
    assert samples_to_threshold(trials, predictions, accuracy=0.8)["samples"].item() == pytest.approx(100)
    with pytest.raises(ValueError, match=r"accuracy: 90 is not above 0 and at most 1"):
        samples_to_threshold(trials, accuracy=90)


def test_never_reached_is_censored_on_the_right_and_open_above():
    trials, predictions = study({"a": {10: 0.1, 100: 0.2}})
    row = samples_to_threshold(trials, predictions).iloc[0]
    assert np.isnan(row["samples"])
    assert pd.isna(row["first_n_train"])
    assert (row["censored"], row["low"], row["high"]) == ("right", 100, np.inf)


def test_reached_at_once_is_censored_on_the_left_and_open_below():
    trials, predictions = study({"a": {10: 0.99, 100: 1.0}})
    row = samples_to_threshold(trials, predictions).iloc[0]
    assert (row["samples"], row["censored"], row["low"], row["high"]) == (10, "left", 0, 10)
    assert row["first_n_train"] == 10


def test_near_the_limits_the_interval_is_open_where_the_estimate_is_not():
    trials, predictions = study({"a": {10: 0.3, 100: 0.92}, "b": {10: 0.88, 100: 1.0}})
    a, b = (row for _, row in samples_to_threshold(trials, predictions).iterrows())
    assert (a["censored"], a["high"]) == ("", np.inf)
    assert a["low"] < a["samples"] < 100
    assert (b["censored"], b["low"]) == ("", 0)


def test_without_training_problems_is_a_point_of_its_own():
    trials, predictions = study({"a": {0: 0.95, 10: 0.97, 100: 1.0}, "b": {0: 0.2, 10: 0.3, 100: 1.0}})
    solved, learnt = (row for _, row in samples_to_threshold(trials, predictions).iterrows())
    assert (solved["samples"], solved["censored"], solved["first_n_train"], solved["smallest"]) == (0, "left", 0, 10)
    assert 10 < learnt["samples"] < 100
    assert samples_to_threshold(trials[trials["n_train"] == 0], predictions).empty


def test_the_first_crossing_counts():
    lower, upper = crossings(np.array([[0.2, 0.8, 0.1, 0.9]]), np.array([1.0, 10, 100, 1000]), 0.5)
    assert lower[0] == upper[0] == pytest.approx(10**0.5)


def test_a_mean_of_seeds_that_is_the_accuracy_but_for_rounding_reaches_it():
    lower, _ = crossings(np.array([[0.1, 0.9 - 1e-15]]), np.array([10.0, 100]), 0.9)
    assert lower[0] == pytest.approx(100)


def test_more_test_problems_narrow_the_interval():
    def width(n_test):
        row = samples_to_threshold(*study({"a": {10: 0.2, 100: 0.8, 1000: 1.0}}, n_test=n_test), accuracy=0.5).iloc[0]
        return np.log(row["high"] / row["low"])

    assert width(400) == pytest.approx(width(100) / 2, rel=0.15)


def test_seeds_that_differ_widen_the_interval_and_predictions_tell_what_it_is():
    chances = {"a": {10: 0.1, 100: 0.8, 1000: 1.0}}
    trials, predictions = study(chances, seeds=(0, 1, 2))
    alike = samples_to_threshold(trials, predictions, accuracy=0.5).iloc[0]
    lucky = {"a": {10: 0.15, 100: 0.9, 1000: 1.0}}
    apart = [study(chances, seeds=(0, 2)), study(lucky, seeds=(1,), task_params="{ }")]
    trials, predictions = (pd.concat(frames) for frames in zip(*apart, strict=True))
    unlike = samples_to_threshold(trials.assign(task_params="{}"), predictions, accuracy=0.5).iloc[0]
    assert alike["interval"] == unlike["interval"] == "both"
    assert unlike["high"] / unlike["low"] > 1.5 * alike["high"] / alike["low"]
    assert samples_to_threshold(trials, accuracy=0.5)["interval"].unique().tolist() == ["binomial"]
    one = samples_to_threshold(trials[trials["seed"] == 0], predictions, accuracy=0.5).iloc[0]
    assert (one["interval"], one["seeds"]) == ("problems", 1)


def test_the_ratio_is_paired_over_the_same_problems():
    chances = {"a": {10: 0.3, 100: 0.9}, "b": {30: 0.3, 300: 0.9}}
    trials, predictions = study(chances)
    row = efficiency_ratios(trials, predictions, accuracy=0.5).iloc[0]
    assert (row["backbone_a"], row["backbone_b"], row["censored"]) == ("a", "b", "")
    assert row["ratio"] == pytest.approx(3)
    assert row["ratio"] == pytest.approx(row["samples_b"] / row["samples_a"])
    assert (row["low"], row["high"]) == pytest.approx((3, 3)), "both are right on the very same problems"
    unpaired = efficiency_ratios(trials, accuracy=0.5).iloc[0]
    assert unpaired["interval"] == "binomial"
    assert unpaired["low"] < 2.6 < 3.4 < unpaired["high"]
    apart = efficiency_ratios(*study(chances, backbone_noise=0.3), accuracy=0.5).iloc[0]
    assert 1 < apart["low"] < apart["ratio"] < apart["high"] < 9


def test_a_censored_side_bounds_the_ratio():
    never, slow, at_once = {10: 0.1, 100: 0.2}, {10: 0.3, 100: 0.99}, {10: 0.99, 100: 1.0}
    trials, predictions = study({"slow": slow, "never": never, "at_once": at_once, "never2": never})
    ratios = efficiency_ratios(trials, predictions).set_index(["backbone_a", "backbone_b"])
    samples = ratios.loc[("slow", "never"), "samples_a"]
    assert ratios.loc[("slow", "never"), "censored"] == "at least"
    assert ratios.loc[("slow", "never"), "ratio"] == pytest.approx(100 / samples)
    assert ratios.loc[("slow", "never"), "high"] == np.inf
    assert ratios.loc[("slow", "at_once"), "censored"] == "at most"
    assert ratios.loc[("slow", "at_once"), "ratio"] == pytest.approx(10 / samples)
    assert ratios.loc[("slow", "at_once"), "low"] == 0
    assert ratios.loc[("never", "at_once"), "censored"] == "at most"
    assert ratios.loc[("never", "never2"), "censored"] == "unknown"
    assert np.isnan(ratios.loc[("never", "never2"), "ratio"])


def test_a_reference_is_what_the_others_are_compared_to():
    trials, predictions = study({name: {10: 0.2, 100: 0.95} for name in "abc"})
    pairs = [tuple(pair) for pair in efficiency_ratios(trials)[["backbone_a", "backbone_b"]].to_numpy()]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    to_b = efficiency_ratios(trials, predictions, reference="b")
    assert to_b["backbone_a"].tolist() == ["a", "c"]
    assert set(to_b["backbone_b"]) == {"b"}
    with pytest.raises(ValueError, match="reference: 'd' has no learning curve; there are a, b, c"):
        efficiency_ratios(trials, reference="d")


def test_curves_pair_up_by_rank_and_recipe_where_both_have_it():
    curve = {10: 0.2, 100: 0.95}
    parts = [study({"a": curve, "b": curve}, lora_rank=8), study({"a": curve}, lora_rank=64)]
    parts.append(study({"c": curve}, lora_rank=32, recipe='{"x":1}'))
    trials = pd.concat([part for part, _ in parts])
    pairs = efficiency_ratios(trials)[["backbone_a", "lora_rank_a", "backbone_b", "lora_rank_b"]]
    expected = [("a", 8, "b", 8), ("a", 8, "c", 32), ("a", 64, "c", 32), ("b", 8, "c", 32)]
    assert sorted(map(tuple, pairs.to_numpy())) == expected


@pytest.fixture(scope="module")
def published():
    """Tables 13 and 16 as trials, and figures 7 and 9."""
    with importlib.resources.files("orchestrator.data").joinpath("published_results.csv").open() as file:
        rows = pd.read_csv(file, dtype={"table": str})
    cells = rows[rows["table"].isin(["13", "16"])].reset_index(drop=True)
    trials = pd.DataFrame(
        {
            "trial_id": [f"published {place}" for place in cells.index],
            "state": "done",
            "backbone": cells["model"],
            "family": cells["family"],
            "task": "published",
            "task_params": [json.dumps({"name": name}) for name in cells["task"]],
            "seed": 0,
            "n_train": cells["n_train"].astype(int),
            "n_test": 200,
            "lora_rank": 1,
            "recipe": "{}",
            "exact_match": cells["value"],
            "cell_accuracy": np.nan,
        }
    )
    return trials, rows[rows["metric"] == "samples_to_0.9"]


def test_figures_7_and_9_come_out_of_tables_13_and_16_but_for_the_three_bars_that_differ(published):
    trials, bars = published
    ours = {}
    for name, of_task in trials.groupby("task_params"):  # each alone: more than MAX_VARIANTS together are pooled
        for _, row in samples_to_threshold(of_task).iterrows():
            ours[json.loads(name)["name"], row["backbone"]] = row["first_n_train"]
    assert len(ours) == len(bars) == 42
    differ = {
        (bar["task"], bar["family"]): (int(bar["value"]), None if pd.isna(found) else int(found))
        for _, bar in bars.iterrows()
        if (found := ours[bar["task"], bar["model"]]) is pd.NA or found != bar["value"]
    }
    assert differ == {
        ("eca_rule_108", "vdm"): (100, None),
        ("eca_rule_250", "vdm"): (100, 50),
        ("life_seeds", "llm"): (100, 300),
    }


def test_published_means_alone_have_intervals(published):
    trials, _ = published
    life = trials[trials["task_params"].str.contains("day_and_night")]
    found = samples_to_threshold(life).set_index("backbone")
    assert set(found["interval"]) == {"binomial"}
    assert (found["low"] < found["samples"]).all()
    ratio = efficiency_ratios(life, reference="Qwen3-4B-Instruct-2507").iloc[0]
    assert ratio["backbone_a"] == "CogVideoX1.5-5B"
    assert 1 < ratio["low"] < ratio["ratio"] < ratio["high"]
