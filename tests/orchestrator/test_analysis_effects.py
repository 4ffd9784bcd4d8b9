"""What rank, recipe, pretraining and seed do: effects that were put in come out."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols

from orchestrator.analysis.effects import pretraining_effects, rank_effects, recipe_effects, seed_effects
from trainers.backbone import backbone_spec


def trial(right, **fields):
    row = {"state": "done", "backbone": "cogvideox/tiny", "family": "video", "task": "life", "task_params": "{}"}
    row |= {"seed": 0, "n_train": 10, "lora_rank": 16, "recipe": "{}", "n_test": len(right)}
    return row | {"exact_match": float(np.mean(right)), "right": np.asarray(right, dtype=bool)} | fields


def study_of(trials):
    frame = pd.DataFrame(trials).assign(trial_id=[f"t{place:04d}" for place in range(len(trials))])
    lengths = [len(right) for right in frame["right"]]
    predictions = {"trial_id": np.repeat(frame["trial_id"], lengths), "attempt": 0}
    predictions |= {
        "index": np.concatenate([np.arange(n) for n in lengths]),
        "exact_match": np.concatenate(frame["right"]),
    }
    return frame.drop(columns="right"), pd.DataFrame(predictions).reset_index(drop=True)


def share_right(share, n=100):
    return np.arange(n) < share * n


def test_every_two_ranks_are_compared_the_larger_first():
    trials = [trial(share_right(share), lora_rank=rank) for rank, share in ((4, 0.3), (64, 0.6), (16, 0.5))]
    trials += [trial(share_right(0.9), lora_rank=128, n_train=30), trial(share_right(0.9), backbone="wan/tiny")]
    table = rank_effects(*study_of(trials)).set_index(["lora_rank_a", "lora_rank_b"])
    assert table["difference"].to_dict() == pytest.approx({(64, 4): 0.3, (16, 4): 0.2, (64, 16): 0.1})
    assert ((table["low"] < table["difference"]) & (table["difference"] < table["high"])).all()


def test_a_recipe_field_is_compared_with_its_default():
    recipes = ['{"max_steps": 700}', '{"max_steps": 50}', '{"learning_rate": 0.5, "max_steps": 50}', "{}"]
    trials = [trial(share_right(0.1 * (place + 1)), recipe=recipe) for place, recipe in enumerate(recipes)]
    table = recipe_effects(*study_of(trials), field="max_steps")
    assert len(table) == 3  # the other learning rate has no partner
    row = table[table["value_b"] == "50"].set_index("value_a").loc["700"]
    assert row["difference"] == pytest.approx(0.1 - 0.2)
    (row,) = recipe_effects(*study_of(trials), field="learning_rate").to_dict("records")
    assert {json.loads(row["value_a"]), json.loads(row["value_b"])} >= {0.5}


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"'steps'.*max_steps"):
        recipe_effects(*study_of([trial([1, 0])]), field="steps")


def test_a_pretrained_backbone_meets_its_own_twin_alone():
    pairs = {"cogvideox/tiny": 0.8, "cogvideox/tiny-random": 0.2, "causal_lm/tiny": 0.7, "causal_lm/tiny-random": 0.1}
    trials = [
        trial(share_right(share), backbone=name, family=backbone_spec(name).family) for name, share in pairs.items()
    ]
    table = pretraining_effects(*study_of(trials[::-1]))
    assert sorted(zip(table["backbone_a"], table["backbone_b"], strict=True)) == [
        ("causal_lm/tiny", "causal_lm/tiny-random"),
        ("cogvideox/tiny", "cogvideox/tiny-random"),
    ]
    np.testing.assert_allclose(table["difference"], 0.6)


def test_a_backbone_that_is_no_more_has_no_twin():
    trials = [trial(share_right(0.5), backbone=name) for name in ("gone/a", "gone/a-random", "cogvideox/tiny")]
    assert pretraining_effects(*study_of(trials)).empty


def test_variance_of_seeds_is_that_of_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    difficulty, spread = rng.normal(0, 1, 80), rng.normal(0, 0.8, (4, 1))
    right_SN = rng.random((4, 80)) < 1 / (1 + np.exp(-(difficulty + spread)))
    (row,) = seed_effects(*study_of([trial(right, seed=s) for s, right in enumerate(right_SN)])).to_dict("records")
    long = pd.DataFrame({"right": right_SN.ravel().astype(float)})
    long["seed"], long["problem"] = np.repeat(range(4), 80), np.tile(range(80), 4)
    table = sm.stats.anova_lm(ols("right ~ C(seed) + C(problem)", long).fit())
    mean_squares = table["sum_sq"] / table["df"]
    expected = (mean_squares["C(seed)"] - mean_squares["Residual"]) / 80
    assert row["seed_sd"] ** 2 == pytest.approx(expected)
    assert row["noise_sd"] ** 2 == pytest.approx(mean_squares["Residual"] / 80)
    assert row["p_value"] == pytest.approx(table.loc["C(seed)", "PR(>F)"])
    assert row["sd"] == pytest.approx(right_SN.mean(axis=1).std(ddof=1))
    assert row["share"] == pytest.approx(expected / row["sd"] ** 2)
    assert row["low"] < row["seed_sd"] < row["high"]


def drawn(rng, seed_sd, n_test=200):
    share = np.clip(0.5 + rng.normal(0, seed_sd), 0, 1)
    return rng.random(n_test) < share


@pytest.mark.parametrize("with_predictions", [True, False])
def test_interval_of_the_seeds_spread_covers(with_predictions):
    rng, seed_sd = np.random.default_rng(1), 0.05
    trials = [trial(drawn(rng, seed_sd), seed=s, n_train=n) for n in range(1, 601) for s in range(4)]
    study = study_of(trials)
    table = seed_effects(study[0], study[1] if with_predictions else None)
    covered = ((table["low"] <= seed_sd) & (seed_sd <= table["high"])).mean()
    assert 0.93 <= covered <= 0.97
    (pooled,) = seed_effects(study[0], study[1] if with_predictions else None, by=["backbone"]).to_dict("records")
    assert (pooled["points"], pooled["seeds"]) == (600, 4)
    assert pooled["seed_sd"] == pytest.approx(seed_sd, rel=0.05)
    assert pooled["high"] - pooled["low"] < 0.1 * seed_sd


def test_seeds_that_do_not_matter_have_little_share():
    rng = np.random.default_rng(2)
    trials = [trial(drawn(rng, 0), seed=s, n_train=n) for n in range(1, 401) for s in range(3)]
    (row,) = seed_effects(*study_of(trials), by=["backbone"]).to_dict("records")
    assert row["low"] < 0.01
    assert row["share"] < 0.1
    assert row["sd"] == pytest.approx(row["noise_sd"], rel=0.1)


def test_one_seed_says_nothing():
    (row,) = seed_effects(*study_of([trial(share_right(0.5))])).to_dict("records")
    assert row["score"] == 0.5
    assert all(np.isnan(row[name]) for name in ("sd", "noise_sd", "seed_sd", "low", "high", "share", "p_value"))


def test_grouping_by_something_else_is_an_error():
    with pytest.raises(ValueError, match=r"host.*valid are task"):
        seed_effects(*study_of([trial(share_right(0.5))]), by=["host"])


def test_nothing_finished_gives_empty_tables():
    trials, predictions = study_of([trial([1, 0], state="failed")])
    for given in ((trials, predictions), (trials, None), (trials[:0], predictions[:0])):
        tables = [rank_effects(*given), pretraining_effects(*given), seed_effects(*given)]
        tables.append(recipe_effects(*given, field="max_steps"))
        assert all(table.empty and {"low", "high"} <= set(table.columns) for table in tables)
        assert "value_a" in tables[-1]
