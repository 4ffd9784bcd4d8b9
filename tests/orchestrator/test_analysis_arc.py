"""ARC and ConceptARC: the published figures come out of the same functions."""

import csv
import json
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.arc import arc_scores, concept_averages, concept_of, concept_scores, solved_overlap
from task_generators.arc_datasets import load_arc_dataset

VIDEO = {"backbone": "cogvideox/1.5-5b-i2v", "family": "video", "lora_rank": 64, "recipe": '{"attempts": 2}'}
LANGUAGE = {"backbone": "causal_lm/qwen3-8b", "family": "language", "lora_rank": 32, "recipe": '{"attempts": 2}'}


def trial(model, task, first_right, *, attempts=2, dataset="arc_agi_1_evaluation", seed=0, state="done"):
    """A row and its predictions; ``first_right``: for each input the first attempt that is right, None if none is."""
    trial_id = f"{model['backbone']} {task} {seed}"
    right = [place is not None for place in first_right]
    row = {"trial_id": trial_id, "state": state, "task": "arc", "seed": seed, "n_train": 3, "n_test": len(right)}
    row |= {"task_params": json.dumps({"dataset": dataset, "task": task}), "exact_match": np.mean(right)} | model
    if state != "done":
        return row | {"exact_match": np.nan}, []
    predictions = [
        {"trial_id": trial_id, "index": index, "attempt": attempt, "exact_match": attempt == first}
        for index, first in enumerate(first_right)
        for attempt in range(attempts)
    ]
    return row, predictions


def study_of(trials):
    rows, predictions = zip(*trials, strict=True)
    flat = [row for rows in predictions for row in rows]
    return pd.DataFrame(list(rows)), pd.DataFrame(flat, columns=["trial_id", "index", "attempt", "exact_match"])


@pytest.fixture(scope="module")
def published():
    with (resources.files("orchestrator") / "data/published_results.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def evaluation():
    """All 400 evaluation tasks: video solves 52 + 15, language 15 + 17 (figure 2); in one attempt 50 and 27."""
    dataset = load_arc_dataset("arc_agi_1_evaluation")
    trials = []
    for place, name in enumerate(dataset.names):
        num_inputs = len(dataset.task(name).tests)
        for model, solved, at_once in ((VIDEO, range(67), range(50)), (LANGUAGE, range(52, 84), range(57, 84))):
            # An unsolved task has all inputs but one right: one wrong input is enough to lose it.
            last = (0 if place in at_once else 1) if place in solved else None
            trials.append(trial(model, name, [0] * (num_inputs - 1) + [last]))
    return study_of(trials)


def test_table_1_comes_out(evaluation, published):
    table = arc_scores(*evaluation).set_index(["backbone", "attempts"])
    names = {"CogVideoX1.5-5B": VIDEO["backbone"], "Qwen3-4B-Instruct-2507": LANGUAGE["backbone"]}
    expected = [row for row in published if row["table"] == "1" and row["model"] in names]
    assert len(expected) == 4
    for row in expected:
        assert table.loc[(names[row["model"]], int(row["attempts"])), "share"] == pytest.approx(float(row["value"]))
    assert table["tasks_solved"].tolist() == [50, 67, 27, 32]
    assert (table[["num_tasks", "num_expected", "num_in_dataset"]] == 400).all(axis=None)
    assert (table["num_inputs"] == 419).all()


def test_figure_2_comes_out(evaluation, published):
    (row,) = solved_overlap(*evaluation).to_dict("records")
    expected = {entry["subset"]: int(entry["value"]) for entry in published if entry["table"] == "fig2"}
    assert expected == {"only_cogvideox": row["only_a"], "both": row["both"], "only_qwen3": row["only_b"]}
    assert row["neither"] == 400 - 84
    assert len(row["tasks_both"]) == 15
    assert set(row["tasks_only_a"]).isdisjoint(row["tasks_only_b"])
    (at_once,) = solved_overlap(*evaluation, attempts=1).to_dict("records")
    assert (at_once["only_a"], at_once["both"], at_once["only_b"]) == (50, 0, 27)


def test_a_task_counts_only_with_all_inputs_and_an_input_with_any_attempt():
    trials = [trial(VIDEO, "a", [1, 0]), trial(VIDEO, "b", [0, None]), trial(VIDEO, "c", [None])]
    one, two = arc_scores(*study_of(trials)).to_dict("records")
    assert (one["attempts"], one["tasks_solved"], one["inputs_right"]) == (1, 0, 2)
    assert (two["attempts"], two["tasks_solved"], two["inputs_right"], two["num_inputs"]) == (2, 1, 3, 5)
    assert two["inputs_share"] == pytest.approx(0.6)


def test_a_half_finished_study_says_so():
    trials = [trial(VIDEO, "a", [0]), trial(VIDEO, "b", [None])]
    trials += [trial(VIDEO, f"c{i}", [0], state=state) for i, state in enumerate(["failed", "missing"])]
    trials += [trial(LANGUAGE, "a", [0])]
    study = study_of(trials)
    table = arc_scores(*study)
    assert table[["num_tasks", "num_expected"]].drop_duplicates().to_numpy().tolist() == [[2, 4], [1, 4]]
    assert table["share"].tolist() == [0.5, 0.5, 1, 1]
    (row,) = solved_overlap(*study).to_dict("records")
    assert (row["num_tasks"], row["num_expected"], row["both"]) == (1, 4, 1)


def test_without_predictions_all_attempts_are_known():
    trials, predictions = study_of([trial(VIDEO, "a", [1, 0]), trial(VIDEO, "b", [0, None])])
    (row,) = arc_scores(trials).to_dict("records")
    (expected,) = arc_scores(trials, predictions).query("attempts == 2").to_dict("records")
    assert row == expected


def test_seeds_are_averaged():
    trials = [trial(VIDEO, "a", [0], seed=0), trial(VIDEO, "a", [None], seed=1), trial(VIDEO, "b", [0], seed=0)]
    row = arc_scores(*study_of(trials)).iloc[-1]
    assert (row["tasks_solved"], row["num_tasks"], row["seeds"]) == (1.5, 2, 1)


def test_inputs_of_one_task_are_no_independent_draws():
    rng = np.random.default_rng(0)
    right = rng.random(160) < 0.4
    trials = [trial(VIDEO, str(i), [0 if hit else None] * 3, attempts=1) for i, hit in enumerate(right)]
    row = arc_scores(*study_of(trials)).iloc[-1]
    assert (row["inputs_low"], row["inputs_high"]) == pytest.approx((row["low"], row["high"]), abs=1e-3)


def test_concept_averages_of_table_9(published):
    rows = [row for row in published if row["table"] == "9"]
    concepts = pd.DataFrame(
        {
            "backbone": [row["model"] for row in rows],
            "concept": [row["subset"] for row in rows],
            "share": [float(row["value"]) for row in rows],
        }
    )
    averages = concept_averages(concepts)
    assert (averages["concepts"] == 16).all()
    assert sorted(averages["share"].round(2)) == [0.18, 0.19, 0.19, 0.24, 0.24, 0.24, 0.33, 0.41]
    named = averages.set_index("backbone")["share"].round(2)
    assert (named["Wan2.1-14B"], named["CogVideoX1.5-5B"], named["Qwen3-4B-Instruct-2507"]) == (0.41, 0.33, 0.24)


def test_concept_scores_of_table_9(published):
    """Trials with as many inputs right as table 9 says give its shares and averages, to the digits that it prints."""
    rows = [row for row in published if row["table"] == "9"]
    trials = []
    for row in rows:
        model = {**VIDEO, "backbone": row["model"], "recipe": '{"attempts": 3}'}
        right = round(float(row["value"]) * 30)
        for number in range(10):
            hits = [2 if 3 * number + place < right else None for place in range(3)]
            trials.append(trial(model, f"{row['subset']}{number + 1}", hits, attempts=3, dataset="concept_arc"))
    table = concept_scores(*study_of(trials))
    full = table[table["attempts"] == 3].set_index(["backbone", "concept"])
    assert (table[table["attempts"] < 3]["share"] == 0).all()
    assert (full["num_inputs"] == 30).all()
    for row in rows:
        assert round(full.loc[(row["model"], row["subset"]), "share"], 2) == float(row["value"])
    averages = concept_averages(table).query("attempts == 3")
    assert sorted(averages["share"].round(2)) == [0.18, 0.19, 0.19, 0.24, 0.24, 0.24, 0.33, 0.41]
    assert ((averages["low"] < averages["share"]) & (averages["share"] < averages["high"])).all()
    narrowest = (full["high"] - full["low"]).min()
    assert (averages["high"] - averages["low"]).max() < narrowest


def test_concepts_of_names():
    assert [concept_of(name) for name in ("Count1", "TopBottom2D10", "Count/1", "corpus/Count/1")] == [
        "Count",
        "TopBottom2D",
        "Count",
        "Count",
    ]


def test_arc_agi_has_no_concepts(evaluation):
    assert concept_scores(*evaluation).empty


def test_nothing_finished_gives_empty_tables():
    trials, predictions = study_of([trial(VIDEO, "a", [0], state="failed")])
    for given in ((trials, predictions), (trials, None), (trials[:0], predictions)):
        assert arc_scores(*given).empty
        assert concept_averages(concept_scores(*given)).empty
        assert "tasks_both" in solved_overlap(*given)
