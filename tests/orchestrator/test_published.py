"""The published numbers by our names, and our cells beside them."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

import orchestrator
from orchestrator.analysis.arc import concept_scores
from orchestrator.analysis.intervals import wilson_interval
from orchestrator.analysis.published import (
    PUBLISHED_BACKBONES,
    compare_published,
    newcombe_interval,
    published,
    published_backbone,
    published_curve,
    published_name,
)
from orchestrator.analysis.published_table import published_tasks
from orchestrator.analysis.stated_settings import STATED_LORA_RANK, stated_recipe
from orchestrator.analysis.thresholds import samples_to_threshold
from trainers.backbone import backbone_spec
from trainers.recipe import TrainRecipe

VIDEO, LANGUAGE = "cogvideox/1.5-5b-i2v", "causal_lm/qwen3-4b-instruct-2507"
CSV = Path(orchestrator.__file__).parent / "data" / "published_results.csv"


def trial(number=0, **fields):
    """A finished trial as the paper states it, but for ``fields``; ``recipe`` are changes of the published recipe."""
    backbone = fields.get("backbone", VIDEO)
    family = {"cogvideox": "video", "ltx": "video", "wan": "video", "causal_lm": "language"}.get(backbone.split("/")[0])
    changes = fields.pop("recipe", {})
    own = TrainRecipe.model_validate({**backbone_spec(backbone).recipe, **changes})
    defaults = {
        "trial_id": f"t{number}",
        "state": "done",
        "backbone": backbone,
        "family": family,
        "task": "maze",
        "task_params": '{"min_test_distance":0.5}',
        "seed": 3407 if family == "language" else 42,
        "n_train": 100,
        "n_test": 200,
        "lora_rank": STATED_LORA_RANK.get(family, 32),
        "recipe": json.dumps(own.model_dump(mode="json", exclude_defaults=True), sort_keys=True),
        "exact_match": 0.9,
        "cell_accuracy": 0.95,
    }
    return defaults | fields


def predictions_of(trial_id, right, **columns):
    """Rows of ``right`` (attempts, problems)."""
    right = np.atleast_2d(right).astype(bool)
    attempts, problems = right.shape
    index = np.tile(np.arange(problems), attempts)
    frame = {"trial_id": trial_id, "index": index, "attempt": np.repeat(np.arange(attempts), problems)}
    return pd.DataFrame(frame | {"exact_match": right.ravel()} | columns)


def compared(*rows, predictions=None):
    return compare_published(pd.DataFrame(rows), predictions)


# --- the table


def test_every_published_row_is_there_with_its_value():
    with CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frame = published()
    assert frame["value"].tolist() == [float(row["value"]) for row in rows]
    assert frame["model"].tolist() == [row["model"] for row in rows]
    assert [str(n) if pd.notna(n) else "" for n in frame["n_train"]] == [row["n_train"] for row in rows]
    assert frame["backbone"].notna().sum() == sum(row["model"] in PUBLISHED_BACKBONES for row in rows)
    frame["value"] = 0.0
    assert published()["value"].sum() > 0, "callers get a copy"


def test_the_averages_that_the_paper_prints_follow_from_the_table():
    frame = published()
    concepts = frame[frame["table"] == "9"].groupby("model", sort=False)["value"].mean().round(2)
    assert concepts.to_dict() == {
        "CogVideoX1.5-5B": 0.33,
        "Qwen3-4B-Instruct-2507": 0.24,
        "GPT-4 [in-context]": 0.19,
        "Wan2.1-14B": 0.41,
        "LTX-13B": 0.24,
        "LTX-2B": 0.19,
        "Qwen3-8B": 0.24,
        "Llama3.1-8B": 0.18,
    }
    counts = frame[frame["table"] == "fig2"].set_index("subset")["value"]
    arc = frame[(frame["table"] == "1") & (frame["attempts"] == 2)].set_index("backbone")
    assert arc.loc[VIDEO, "value"] * arc.loc[VIDEO, "n_test"] == counts["only_cogvideox"] + counts["both"] == 67
    assert arc.loc[LANGUAGE, "value"] * arc.loc[LANGUAGE, "n_test"] == counts["only_qwen3"] + counts["both"] == 32


def test_the_samples_of_figures_7_and_9_follow_from_the_tables_but_for_three_bars():
    frame = published()
    points = frame[frame["table"].isin(["13", "16"])]
    trials = points.assign(
        trial_id=[str(place) for place in range(len(points))],
        state="done",
        task_params="{}",
        family="video",
        seed=0,
        lora_rank=64,
        recipe="{}",
        exact_match=points["value"],
        cell_accuracy=1.0,
        n_train=points["n_train"].astype("int64"),
        n_test=points["n_test"].astype("int64"),
    )
    samples = samples_to_threshold(trials, accuracy=0.9).set_index(["task", "backbone"])["first_n_train"]
    bars = frame[frame["table"].isin(["fig7", "fig9"])].set_index(["task", "backbone"])["value"]
    derived = samples.reindex(bars.index)
    differing = bars.index[(derived != bars).fillna(True)]
    assert set(differing) == {("eca_rule_108", VIDEO), ("eca_rule_250", VIDEO), ("life_seeds", LANGUAGE)}


# --- names


@pytest.mark.parametrize(
    ("task", "params", "name"),
    [
        ("elementary_ca", {}, ("eca_rule_110", "")),
        ("elementary_ca", {"rule": 90, "min_test_distance": 0.0156}, ("eca_rule_90", "")),
        ("elementary_ca", {"rule": 91}, None),
        ("elementary_ca", {"rule": 90, "width": 12}, None),
        ("elementary_ca", {"rule": 90, "steps": 1}, None),
        ("elementary_ca", {"rule": 90, "boundary": "fixed"}, None),
        ("elementary_ca", {"rule": 90, "test": {"width": 24}}, None),
        ("life", {}, ("life_conway", "")),
        ("life", {"rule": "day_and_night"}, ("life_day_and_night", "")),
        ("life", {"rule": "B36/S23"}, None),
        ("life", {"edges": "torus"}, None),
        ("life", {"density": 0.5}, None),
        ("life", {"height": 6}, None),
        ("life", {"steps": 2}, None),
        ("langton_ant", {"steps": 10}, ("langton_ant_10", "")),
        ("langton_ant", {"steps": 4}, None),
        ("langton_ant", {"steps": 10, "start": "random"}, None),
        ("sudoku", {"size": 4}, ("sudoku_mini", "")),
        ("sudoku", {"difficulty": "hard"}, None),
        ("hitori", {}, ("hitori_5x5", "")),
        ("hitori", {"size": 6}, None),
        ("maze", {"test": {"height": 21, "width": 21}, "height": 13, "width": 13}, ("maze_generalization", "")),
        ("maze", {"height": 13, "width": 13}, None),
        ("shortest_path", {"height": 15}, ("shortest_path", "")),
        ("shortest_path", {"layout": "blocks"}, None),
        ("connect4", {"moves_to_win": 2}, None),
        ("chess_mate_in_2", {}, None),
        ("transcribe", {}, ("sudoku_transcription", "")),
        ("transcribe", {"of": "maze"}, None),
        ("arc", {"task": "f3e62deb"}, ("arc_agi_1_eval", "")),
        ("arc", {"dataset": "arc_agi_2_evaluation", "task": "x"}, None),
        ("arc", {"dataset": "concept_arc", "task": "AboveBelow10"}, ("concept_arc", "AboveBelow")),
        ("arc", {"dataset": "concept_arc", "task": "Count/3"}, ("concept_arc", "Count")),
        ("arc", {"dataset": "concept_arc", "task": "Nonsense1"}, None),
        ("gone", {"knob": 1}, None),
    ],
)
def test_a_task_has_a_published_name_only_with_exactly_the_published_knobs(task, params, name):
    assert published_name(task, json.dumps(params)) == name


def test_every_published_task_but_arcs_has_its_own_setting():
    names = {published_name(spec.name, spec.params_json()) for spec in published_tasks().values()}
    assert names == {(name, "") for name in published_tasks()}
    assert set(published_tasks()) | {"arc_agi_1_eval", "concept_arc"} == set(published()["task"])


def test_stand_ins_and_twins_are_no_published_model():
    assert published_backbone(VIDEO) == VIDEO
    assert published_backbone(f"causal_lm/{backbone_spec(LANGUAGE).repo_id}") == LANGUAGE, "the same weights by address"
    for name in ("cogvideox/tiny", f"{VIDEO}-random", "baseline/oracle", "causal_lm/smollm2-135m", "gone/model"):
        assert published_backbone(name) is None


def test_a_published_curve_is_the_tables_column():
    curve = published_curve("maze", '{"min_test_distance":0.5}', VIDEO)
    rows = published()
    rows = rows[(rows["task"] == "maze") & (rows["backbone"] == VIDEO)].sort_values("n_train")
    assert curve["n_train"].tolist() == rows["n_train"].tolist() == sorted(curve["n_train"])
    assert curve["exact_match"].tolist() == rows["value"].tolist()
    ratio = published_curve("shortest_path", "{}", VIDEO, metric="relative_path_length")
    assert ratio["relative_path_length"].ge(1).all()
    assert len(ratio) == 11
    for task, params, backbone in [
        ("maze", "{}", "cogvideox/tiny"),
        ("maze", '{"height":9}', VIDEO),
        ("arc", "arc (400 variants)", VIDEO),
    ]:
        nothing = published_curve(task, params, backbone)
        assert nothing.empty
        assert list(nothing) == ["n_train", "exact_match"]


def test_the_vision_language_model_has_a_point_for_each_of_its_inputs():
    values = [
        published_curve("sudoku", "{}", "gemma3/4b-it", recipe=json.dumps(recipe))["exact_match"].tolist()
        for recipe in ({"inputs": "text"}, {"inputs": "image"}, {})
    ]
    assert values == [[0.06], [0.0], [0.06]]


# --- what is stated


def test_stated_values_are_those_of_the_protocol():
    # Every number here is copied from the paper's tables of settings, not from our recipes.
    video = stated_recipe(backbone_spec(VIDEO))
    assert (video["lora_alpha"], video["learning_rate"], video["lr_schedule"]) == (32, 1e-4, "constant")
    assert (video["batch_size"], video["gradient_clip"], video["transition"]) == (2, 1.0, "discrete")
    wan = stated_recipe(backbone_spec("wan/2.1-14b-i2v"))
    assert (wan["batch_size"], wan["gradient_clip"]) == (1, 0.05)
    assert "lora_targets" not in wan, "printed as a dash"
    for name in ("ltx/13b", "ltx/2b"):
        ltx = stated_recipe(backbone_spec(name))
        assert (ltx["lora_alpha"], ltx["learning_rate"], ltx["lr_schedule"], ltx["batch_size"]) == (
            64,
            2e-4,
            "linear",
            4,
        )
        assert len(ltx["lora_targets"]) == 6
    for name in (LANGUAGE, "causal_lm/qwen3-8b"):
        qwen = stated_recipe(backbone_spec(name))
        assert (qwen["lora_alpha"], qwen["learning_rate"], qwen["warmup_steps"], qwen["batch_size"]) == (32, 2e-4, 5, 8)
        assert (qwen["weight_decay"], qwen["max_length"], qwen["max_new_tokens"]) == (0.01, 8192, 4096)
        assert (qwen["temperature"], qwen["top_p"], qwen["top_k"]) == (0.7, 0.8, 20)
        assert len(qwen["lora_targets"]) == 7
        assert "lora_dropout" not in qwen
    llama = stated_recipe(backbone_spec("causal_lm/llama-3.1-8b-instruct"))
    assert (llama["lora_alpha"], llama["lora_dropout"], llama["max_length"]) == (64, 0.05, 4096)
    assert "lm_head" in llama["lora_targets"]
    assert stated_recipe(backbone_spec("gemma3/4b-it")) == {}
    for name in PUBLISHED_BACKBONES.values():
        assert (
            not {"max_steps", "precision", "sampler", "num_inference_steps", "prompt"}
            & stated_recipe(backbone_spec(name)).keys()
        ), "open in the paper"


@pytest.mark.parametrize("backbone", list(PUBLISHED_BACKBONES.values())[:-1])
def test_a_trial_as_stated_deviates_in_nothing(backbone):
    task = {"task": "arc", "task_params": '{"dataset":"concept_arc","task":"Count1"}', "n_test": 3}
    rows = [
        trial(number, backbone=backbone, recipe={"attempts": 3}, n_train=4, **task)
        | {"task_params": json.dumps({"dataset": "concept_arc", "task": f"Count{number}"})}
        for number in range(1, 11)
    ]
    (row,) = compared(*rows).to_dict("records")
    assert row["deviations"] == []
    assert (row["published_task"], row["subset"], row["n_test"]) == ("concept_arc", "Count", 30)
    assert {text.split(" = ")[0] for text in row["open_choices"]} >= {"max_steps", "precision"}


@pytest.mark.parametrize(
    ("backbone", "changes", "deviation"),
    [
        (VIDEO, {"lora_rank": 16}, "lora_rank 16 (stated: 64)"),
        (VIDEO, {"seed": 3}, "seed 3 (stated: 42)"),
        (VIDEO, {"n_test": 50}, "n_test 50 (stated: 200)"),
        (VIDEO, {"recipe": {"learning_rate": 2e-4}}, "learning_rate 0.0002 (stated: 0.0001)"),
        (VIDEO, {"recipe": {"lora_alpha": 64}}, "lora_alpha 64 (stated: 32)"),
        (VIDEO, {"recipe": {"lr_schedule": "linear"}}, "lr_schedule linear (stated: constant)"),
        (VIDEO, {"recipe": {"warmup_steps": 9}}, "warmup_steps 9 (stated: 0)"),
        (VIDEO, {"recipe": {"batch_size": 8}}, "batch_size 8 (stated: 2)"),
        (VIDEO, {"recipe": {"gradient_clip": 0.3}}, "gradient_clip 0.3 (stated: 1)"),
        (VIDEO, {"recipe": {"transition": "convex"}}, "transition convex (stated: discrete)"),
        (VIDEO, {"recipe": {"lora_targets": ["to_q"]}}, "lora_targets to_q (stated: to_q, to_k, to_v, to_out.0)"),
        (VIDEO, {"recipe": {"attempts": 2}}, "attempts 2 (stated: 1)"),
        (LANGUAGE, {"seed": 42}, "seed 42 (stated: 3407)"),
        (LANGUAGE, {"recipe": {"warmup_steps": 0}}, "warmup_steps 0 (stated: 5)"),
        (LANGUAGE, {"recipe": {"weight_decay": 0}}, "weight_decay 0 (stated: 0.01)"),
        (LANGUAGE, {"recipe": {"max_length": 4096}}, "max_length 4096 (stated: 8192)"),
        (LANGUAGE, {"recipe": {"temperature": 0}}, "temperature 0 (stated: 0.7)"),
        (LANGUAGE, {"recipe": {"decoding": "json"}}, "decoding json (stated: free)"),
    ],
)
def test_what_is_done_otherwise_than_stated_is_a_deviation(backbone, changes, deviation):
    (row,) = compared(trial(backbone=backbone, **changes)).to_dict("records")
    assert row["deviations"] == [deviation]
    assert not any(deviation.split()[0] == text.split(" = ")[0] for text in row["open_choices"])


@pytest.mark.parametrize(
    "recipe",
    [{"max_steps": 7}, {"precision": "fp32"}, {"sampler": "ddim"}, {"num_inference_steps": 4}, {"prompt": "x"}],
)
def test_what_the_paper_leaves_open_is_a_choice_and_no_deviation(recipe):
    (row,) = compared(trial(recipe=recipe)).to_dict("records")
    assert row["deviations"] == []
    ((name, value),) = recipe.items()
    assert f"{name} = {value}" in row["open_choices"]


def test_a_test_distance_other_than_the_authors_is_said():
    assert not any("min_test" in text for text in compared(trial())["open_choices"][0])
    (row,) = compared(trial(task_params="{}")).to_dict("records")
    assert "min_test_distance = 0 (authors' data: 0.5)" in row["open_choices"]
    assert row["deviations"] == []


# --- the comparison


def test_the_difference_has_newcombes_interval():
    for right, n, their_right, m in [(180, 200, 188, 200), (0, 50, 10, 200), (200, 200, 200, 200), (20, 64, 200, 400)]:
        row = compared(trial(exact_match=right / n, n_test=n)).iloc[0]
        expected = confint_proportions_2indep(right, n, their_right, m, method="newcomb")
        found = newcombe_interval(right / n, row["low"], row["high"], their_right / m, m)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("ours", "verdict"), [(0.94, "within"), (0.9, "within"), (0.8, "below"), (1.0, "above")])
def test_the_verdict_says_on_which_side_the_interval_of_the_difference_lies(ours, verdict):
    (row,) = compared(trial(exact_match=ours)).to_dict("records")
    assert row["published"] == 0.94
    assert row["verdict"] == verdict
    assert row["difference"] == pytest.approx(ours - 0.94)
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert (row["difference_low"] <= 0 <= row["difference_high"]) == (verdict == "within")


def test_the_same_skill_is_found_different_in_one_of_twenty_comparisons():
    rng = np.random.default_rng(5)
    outside = []
    for share in (0.1, 0.5, 0.9):
        ours, theirs = rng.binomial(200, share, (2, 2000)) / 200
        low, high = wilson_interval(ours, 200)
        intervals = [newcombe_interval(*each, 200) for each in zip(ours, low, high, theirs, strict=True)]
        outside.append(np.mean([bottom > 0 or top < 0 for bottom, top in intervals]))
    assert all(0.03 <= share <= 0.07 for share in outside), outside


def test_only_published_cells_are_compared():
    rows = [
        trial(0),
        trial(1, n_train=7),
        trial(2, state="failed", n_train=10),
        trial(3, backbone="cogvideox/tiny", lora_rank=64),
        trial(4, task_params='{"height":9}'),
        trial(5, family="baseline", backbone="baseline/oracle", n_train=0, lora_rank=0),
        trial(6, backbone=LANGUAGE, n_train=3),
    ]
    assert compared(*rows)["n_train"].tolist() == [100]


def test_ranks_and_recipes_are_compared_apart_and_seeds_together():
    answers = np.arange(200) < 150
    rows = [trial(0, seed=1), trial(1, seed=2), trial(2, lora_rank=16), trial(3, recipe={"max_steps": 9})]
    rows[0]["exact_match"], rows[1]["exact_match"] = 0.75, 0.25
    predictions = pd.concat([predictions_of("t0", answers), predictions_of("t1", ~answers)])
    frame = compared(*rows, predictions=predictions)
    assert frame["seeds"].tolist() == [2, 1, 1]
    both = frame.iloc[0]
    assert both["ours"] == pytest.approx(0.5)
    assert both["interval"] == "both"
    assert both["high"] - both["low"] > 0.5, "two seeds that disagree tell little"
    assert "seeds 1, 2 (stated: 42)" in both["deviations"]
    assert frame.iloc[1]["interval"] == "problems"


def test_the_first_attempts_count_where_the_paper_has_fewer():
    right = np.zeros((2, 200), bool)
    right[0, :100], right[1, 50:150] = True, True
    row = trial(recipe={"attempts": 2}, exact_match=0.75)
    first = compared(row, predictions=predictions_of("t0", right)).iloc[0]
    assert first["ours"] == pytest.approx(0.5)
    assert first["deviations"] == []
    either = compared(row).iloc[0]
    assert either["ours"] == pytest.approx(0.75)
    assert either["deviations"] == ["attempts 2 (stated: 1)"]


def test_arc_counts_a_task_if_all_its_inputs_are_right_and_by_attempt():
    # Tasks of 1, 2 and 2 inputs: the first right at once, the second in the second attempt, the third in part.
    inputs = [[[1], [1]], [[1, 0], [0, 1]], [[1, 0], [1, 0]]]
    rows, predictions = [], []
    for number, attempts in enumerate(inputs):
        any_right = np.any(attempts, axis=0)
        params = json.dumps({"task": f"name{number}"})
        fields = {"task": "arc", "task_params": params, "n_train": 3 + number, "n_test": len(any_right)}
        rows.append(trial(number, recipe={"attempts": 2}, exact_match=any_right.mean(), **fields))
        rows[-1]["solved"] = float(any_right.all())
        predictions.append(predictions_of(f"t{number}", attempts))
    frame = compared(*rows, predictions=pd.concat(predictions)).set_index("attempts")
    assert frame.loc[2, "ours"] == pytest.approx(2 / 3)
    assert frame.loc[1, "ours"] == pytest.approx(1 / 3)
    assert frame["published"].to_dict() == {2: 0.1675, 1: 0.125}
    assert frame.loc[1, "deviations"] == ["3 of the 400 tasks"]
    assert frame["n_train"].isna().all()
    assert (frame["metric"] == "tasks_solved").all()


def test_concept_arc_counts_inputs_of_all_tasks_of_the_concept():
    rows = []
    for number, right in enumerate([3, 0, 2]):
        params = json.dumps({"dataset": "concept_arc", "task": f"Copy{number + 1}"})
        fields = {"task": "arc", "task_params": params, "n_test": 3, "exact_match": right / 3}
        rows.append(trial(number, recipe={"attempts": 3}, **fields))
    (row,) = compared(*rows).to_dict("records")
    assert row["ours"] == pytest.approx(5 / 9)
    assert (row["metric"], row["subset"], row["n_test"]) == ("inputs_solved", "Copy", 9)
    assert row["deviations"] == ["3 of the 10 tasks"]


def test_arc_scores_are_those_of_the_tables_of_arc():
    rng = np.random.default_rng(3)
    rows, predictions = [], []
    for number in range(10):
        right = rng.random((3, 3)) < rng.random()
        params = json.dumps({"dataset": "concept_arc", "task": f"Copy{number + 1}"})
        fields = {"task": "arc", "task_params": params, "n_test": 3, "exact_match": right.any(axis=0).mean()}
        rows.append(trial(number, recipe={"attempts": 3}, **fields))
        predictions.append(predictions_of(f"t{number}", right))
    (row,) = compared(*rows).to_dict("records")
    scores = concept_scores(pd.DataFrame(rows), pd.concat(predictions)).set_index("attempts").loc[3]
    np.testing.assert_allclose(
        [row[name] for name in ("ours", "low", "high")], scores[["share", "low", "high"]].tolist()
    )


def test_path_scores_stand_beside_table_2():
    lengths = np.where(np.arange(200) < 150, np.where(np.arange(200) % 3, 1.0, 1.2), np.nan)
    row = trial(task="shortest_path", n_train=30, path_success=0.75, relative_path_length=np.nanmean(lengths))
    predictions = predictions_of("t0", np.ones(200), relative_path_length=lengths)
    frame = compared(row, predictions=predictions).set_index("metric")
    assert set(frame.index) == {"exact_match", "path_success_rate", "relative_path_length"}
    assert frame.loc["path_success_rate", "ours"] == 0.75
    length = frame.loc["relative_path_length"]
    assert length["low"] < length["ours"] < length["high"]
    known = lengths[~np.isnan(lengths)]
    expected = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
    np.testing.assert_allclose((length["low"], length["high"]), expected)
    assert length["verdict"] == "above"
    without = compared(row).set_index("metric").loc["relative_path_length"]
    assert without["verdict"] == "unknown"
    assert np.isnan(without["difference_low"])


def test_the_vision_language_cells_are_matched_by_their_inputs():
    fields = {"backbone": "gemma3/4b-it", "task": "sudoku", "task_params": "{}", "n_train": 1000}
    frame = compared(*(trial(n, recipe={"inputs": name}, **fields) for n, name in enumerate(["text", "image"])))
    values = frame[frame["metric"] == "exact_match"].set_index("inputs")["published"].to_dict()
    assert values == {"text": 0.06, "image": 0.0}
    assert all(row == [] for row in frame["deviations"]), "the paper states no setting of it"
    transcribed = trial(9, **fields | {"task": "transcribe", "n_train": 5}, recipe={"inputs": "image"})
    frame = compared(transcribed | {"repeats_training_answer": 0.99}).set_index("metric")
    assert frame.loc["verbatim_training_output_rate", ["ours", "published"]].tolist() == [0.99, 0.99]


def test_nothing_to_compare_is_an_empty_frame_with_all_columns():
    for rows in ([trial(state="missing")], [trial(backbone="cogvideox/tiny")]):
        frame = compared(*rows)
        assert frame.empty
        assert list(frame) == list(compared(trial()))
    nothing = compare_published(pd.DataFrame([trial()])[:0], predictions_of("t0", [1])[:0])
    assert nothing.empty
