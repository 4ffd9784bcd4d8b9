"""What scores are held against."""

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.baselines import path_scores, reference_scores, training_repeats
from orchestrator.analysis.intervals import wilson_interval


def trials_of(*rows):
    defaults = {"state": "done", "backbone": "cogvideox/tiny", "family": "video", "task": "shortest_path"}
    defaults |= {"task_params": "{}", "seed": 0, "n_train": 10, "lora_rank": 16, "recipe": "{}", "n_test": 100}
    defaults |= {"exact_match": 0.5, "repeats_training_answer": np.nan}
    named = [defaults | {"trial_id": f"t{place}"} | row for place, row in enumerate(rows)]
    return pd.DataFrame(named)


def baseline(name, **fields):
    return {"backbone": f"baseline/{name}", "family": "baseline", "n_train": 0, "lora_rank": 0} | fields


def paths(lengths_by_trial):
    """Predictions: relative length of each answer, None where it is no path."""
    return pd.DataFrame(
        [
            {"trial_id": name, "index": index, "attempt": 0, "exact_match": length == 1}
            | {"path_success": length is not None, "relative_path_length": np.nan if length is None else length}
            for name, lengths in lengths_by_trial.items()
            for index, length in enumerate(lengths)
        ]
    )


def test_references_by_task():
    trials = trials_of(
        baseline("copy_question", exact_match=0.05),
        baseline("oracle", exact_match=1.0),
        *(
            baseline("majority", seed=seed, n_train=n, exact_match=share)
            for seed, n, share in [(0, 3, 0.1), (1, 3, 0.3), (0, 30, 0.4)]
        ),
        {"roundtrip_exact_match": 0.97},
        {"roundtrip_exact_match": 0.97, "seed": 1},
        {"roundtrip_exact_match": 0.9, "backbone": "wan/tiny"},
        baseline("oracle", task="life", exact_match=0.99),
        baseline("oracle", task="maze", state="failed", exact_match=np.nan),
    )
    table = reference_scores(trials).set_index(["task", "reference", "backbone", "n_train"])
    assert table["exact_match"].to_dict() == pytest.approx(
        {
            ("shortest_path", "copy_question", "baseline/copy_question", 0): 0.05,
            ("shortest_path", "oracle", "baseline/oracle", 0): 1.0,
            ("shortest_path", "majority", "baseline/majority", 3): 0.2,
            ("shortest_path", "majority", "baseline/majority", 30): 0.4,
            ("shortest_path", "roundtrip", "cogvideox/tiny", 0): 0.97,
            ("shortest_path", "roundtrip", "wan/tiny", 0): 0.9,
            ("life", "oracle", "baseline/oracle", 0): 0.99,
        }
    )
    low, high = wilson_interval(0.2, 100)
    row = table.loc[("shortest_path", "majority", "baseline/majority", 3)]
    assert (row["low"], row["high"]) == pytest.approx((float(low), float(high)))
    assert (row["n_test"], row["seeds"]) == (100, 2)


def test_tables_without_a_ceiling_have_none():
    trials = trials_of({}, baseline("oracle", exact_match=1.0))
    assert reference_scores(trials)["reference"].tolist() == ["oracle"]
    assert reference_scores(trials.assign(roundtrip_exact_match=None))["reference"].tolist() == ["oracle"]


def test_repeats_of_training_answers():
    trials = trials_of(
        {"repeats_training_answer": 0.2},
        {"repeats_training_answer": 0.4, "seed": 1},
        {"repeats_training_answer": 0.1, "n_train": 30},
        {"n_train": 0},
        {"repeats_training_answer": 0.9, "n_train": 100, "state": "failed"},
    )
    table = training_repeats(trials).set_index("n_train")
    assert table["repeats_training_answer"].to_dict() == pytest.approx({10: 0.3, 30: 0.1})
    assert (table.loc[10, "low"], table.loc[10, "high"]) == pytest.approx(tuple(map(float, wilson_interval(0.3, 100))))
    assert table["seeds"].to_dict() == {10: 2, 30: 1}


def test_paths_of_one_seed():
    lengths = [1.0] * 30 + [1.5] * 20 + [2.0] * 10 + [None] * 40
    trials = trials_of({"path_success": 0.6, "relative_path_length": 80 / 60})
    table = path_scores(trials, paths({"t0": lengths})).set_index("metric")
    success, length = table.loc["path_success"], table.loc["relative_path_length"]
    assert (success["value"], success["n_test"], success["interval"]) == (0.6, 100, "problems")
    assert (success["low"], success["high"]) == pytest.approx(tuple(map(float, wilson_interval(0.6, 100))))
    assert (length["value"], length["n_test"]) == (pytest.approx(80 / 60), 60)
    known = np.array(lengths[:60])
    half = 2.0010 * known.std(ddof=1) / np.sqrt(60)  # Student's t with 59 degrees of freedom
    assert (length["low"], length["high"]) == pytest.approx((80 / 60 - half, 80 / 60 + half), abs=1e-4)


def test_paths_of_several_seeds_count_a_problem_once():
    lengths = [1.0] * 30 + [1.5] * 20 + [2.0] * 10 + [None] * 40
    seeds = [{"path_success": 0.6, "relative_path_length": 80 / 60, "seed": seed} for seed in range(3)]
    one = path_scores(trials_of(seeds[0]), paths({"t0": lengths})).set_index("metric")
    three = path_scores(trials_of(*seeds), paths({f"t{s}": lengths for s in range(3)})).set_index("metric")
    assert (three["seeds"] == 3).all()
    for bound in ("value", "low", "high"):
        assert three.loc["relative_path_length", bound] == pytest.approx(one.loc["relative_path_length", bound])


def test_interval_of_lengths_covers():
    rng = np.random.default_rng(0)
    rows, lengths = [], {}
    for place in range(400):
        difficulty = rng.random(60)
        for seed in range(2):
            found = rng.random(60) > 0.5 * difficulty
            drawn = 1 + 2 * difficulty * rng.random(60)
            rows.append({"path_success": found.mean(), "relative_path_length": 1.5, "seed": seed, "n_train": place + 1})
            lengths[f"t{len(rows) - 1}"] = [x if hit else None for x, hit in zip(drawn, found, strict=True)]
    table = path_scores(trials_of(*rows), paths(lengths)).query("metric == 'relative_path_length'")
    # Of answers that are paths: the mean of 1 + d with weights 1 - d / 2, d uniform on 0 to 1.
    true = 1 + (1 / 2 - 1 / 6) / (1 - 1 / 4)
    assert 0.93 <= ((table["low"] <= true) & (true <= table["high"])).mean() <= 0.97


def test_without_predictions_the_trials_tell():
    rows = [{"path_success": 0.5, "relative_path_length": length, "seed": s} for s, length in enumerate([1.2, 1.4])]
    table = path_scores(trials_of(*rows)).set_index("metric")
    assert table["value"].to_dict() == pytest.approx({"path_success": 0.5, "relative_path_length": 1.3})
    assert table["interval"].to_dict() == {"path_success": "problems", "relative_path_length": "seeds"}
    single = path_scores(trials_of(rows[0])).set_index("metric")
    assert np.isnan(single.loc["relative_path_length", "low"])


def test_other_tasks_have_no_paths():
    trials = trials_of({"path_success": 0.5, "relative_path_length": 1.5}, {"task": "life"})
    assert set(path_scores(trials)["task"]) == {"shortest_path"}
    assert path_scores(trials_of({"task": "life"})).empty


def test_nothing_finished_gives_empty_tables():
    trials = trials_of({"state": "failed", "path_success": np.nan})
    for given in (trials, trials[:0]):
        for function in (reference_scores, training_repeats, path_scores):
            table = function(given, None)
            assert table.empty
            assert {"low", "high", "seeds"} <= set(table.columns)
