"""Tables to numbers and pictures."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from rich.console import Console

from orchestrator import analysis, report, results
from orchestrator.analysis import learning_curves, wilson_interval, with_missing
from orchestrator.report.figure_files import save
from orchestrator.specs import SweepSpec, expand
from trainers.backbone import backbone_names, backbone_spec


def trials_of(**fields):
    defaults = {
        "name": "t",
        "backbones": ["cogvideox/tiny", "cogvideox/tiny-random", "baseline/majority", "baseline/oracle"],
        "tasks": [{"life": {"height": 6}}, "elementary_ca"],
        "seeds": [0, 1],
        "n_train": [3, 10, 100],
        "n_test": 50,
    }
    return expand(SweepSpec.model_validate(defaults | fields))


@pytest.fixture
def measured(tmp_path, make_result):
    """Trials and their rows: exact match n / 100 for seed 0, n / 200 for seed 1; one failed, one without a row."""
    trials = trials_of()
    for spec in trials[2:]:
        metrics = {"exact_match": spec.n_train / (100 * (1 + spec.seed)), "cell_accuracy": 0.5}
        results.write(tmp_path, make_result(spec.trial_id, metrics=metrics))
    results.write(tmp_path, make_result(trials[0].trial_id, "failed"))
    return trials, with_missing(results.load_trials(tmp_path), trials)


def test_wilson_interval_against_known_values():
    # Newcombe (1998), Statistics in Medicine 17, table I: method 3
    low, high = wilson_interval([81 / 263, 15 / 148, 0, 1], [263, 148, 20, 29])
    np.testing.assert_allclose(low, [0.2553, 0.0624, 0.0, 0.8830], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1605, 0.1611, 1.0], atol=5e-5)


def test_every_trial_of_the_sweep_has_a_row(measured):
    trials, frame = measured
    assert frame["trial_id"].tolist() == [trial.trial_id for trial in trials]
    assert frame["state"].tolist()[:3] == ["failed", "missing", "done"]


def test_learning_curves_are_means_over_seeds(measured):
    curves = learning_curves(measured[1]).set_index(["backbone", "task", "n_train"])
    row = curves.loc["cogvideox/tiny", "elementary_ca", 10]
    assert row["exact_match"] == pytest.approx((0.1 + 0.05) / 2)
    low, high = wilson_interval(0.075, 50)
    assert (row["low"], row["high"]) == (pytest.approx(float(low)), pytest.approx(float(high)))
    assert (row["done"], row["failed"], row["missing"]) == (2, 0, 0)
    gap = curves.loc["cogvideox/tiny", "life", 3]
    assert np.isnan(gap["exact_match"])
    assert (gap["done"], gap["failed"], gap["missing"]) == (0, 1, 1)
    assert curves.loc["baseline/oracle", "life", 0]["done"] == 1


def test_many_variants_of_a_task_are_one_curve(tmp_path, make_result):
    rules = [{"elementary_ca": {"rule": rule}} for rule in range(30)]
    arc_tasks = {"arc": {"task": "[ab]*", "n_train": ["all"]}}
    trials = trials_of(backbones=["causal_lm/tiny"], tasks=[*rules, "life", arc_tasks], seeds=[0], n_train=[3, 10])
    arc_trials = [spec for spec in trials if spec.task.name == "arc"]
    assert len(arc_trials) > 21
    right = {spec.trial_id: number % 2 for number, spec in enumerate(arc_trials)}
    for spec in trials[:-1]:
        exact_match = right.get(spec.trial_id, spec.task.params.get("rule", 0) / 29 if spec.n_train == 10 else 0)
        results.write(tmp_path, make_result(spec.trial_id, metrics={"exact_match": exact_match, "cell_accuracy": 1.0}))
    frame = with_missing(results.load_trials(tmp_path), trials)
    curves = learning_curves(frame).set_index(["task_label", "n_train"])
    rules_at_10 = curves.loc["elementary_ca (30 variants)", 10]
    assert rules_at_10["exact_match"] == pytest.approx(0.5)
    assert (rules_at_10["n_test"], rules_at_10["done"]) == (30 * 50, 30)
    assert curves.loc["life", 3]["n_test"] == 50
    pooled = curves.loc[f"arc ({len(arc_trials)} variants)", 0]
    num_inputs = {spec.trial_id: spec.n_test for spec in arc_trials[:-1]}
    expected = sum(num_inputs[trial] * right[trial] for trial in num_inputs) / sum(num_inputs.values())
    assert pooled["exact_match"] == pytest.approx(expected)
    assert (pooled["done"], pooled["missing"]) == (len(arc_trials) - 1, 1)
    assert pooled["low"] < expected < pooled["high"]
    text = printed(report.results_table(frame))
    assert f"arc ({len(arc_trials)} variants)" in text
    save(report.learning_curve_figure(frame), tmp_path, "curves")


def test_a_sweep_without_any_n_train_has_a_picture(tmp_path, make_result):
    trials = trials_of(backbones=["baseline/oracle", "baseline/copy_question"])
    for spec in trials:
        results.write(tmp_path, make_result(spec.trial_id))
    frame = with_missing(results.load_trials(tmp_path), trials)
    assert all(path.stat().st_size > 1000 for path in save(report.learning_curve_figure(frame), tmp_path, "curves"))


def test_recipes_and_ranks_are_curves_of_their_own(tmp_path, make_result):
    trials = trials_of(
        backbones=["cogvideox/tiny", {"cogvideox/tiny": {"recipe": {"max_steps": 7}}}], lora_rank=[4, 8], tasks=["life"]
    )
    for spec in trials:
        results.write(tmp_path, make_result(spec.trial_id))
    frame = with_missing(results.load_trials(tmp_path), trials)
    assert len(learning_curves(frame)) == 2 * 2 * 3
    text = printed(report.results_table(frame))
    assert "cogvideox/tiny r=4 max_steps=7" in text


def test_the_table_shows_what_is_not_there(measured):
    text = printed(report.results_table(measured[1]))
    assert "exact match on 50 test problems, mean over seeds" in text
    assert "failed" in text
    assert "0.75" in text
    rows = [line for line in text.splitlines() if "baseline/oracle" in line]
    assert len(rows) == 2


def test_the_picture_shows_curves_baselines_and_real_ticks(measured):
    figure = report.learning_curve_figure(measured[1])
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in axes] == ["life(height=6)", "elementary_ca"]
    for axis in axes:
        assert axis.get_xscale() == "log"
        assert [label.get_text() for label in axis.get_xticklabels()] == ["3", "10", "100"]
    lines = {line.get_label(): line for line in axes[1].lines}
    assert lines["cogvideox/tiny"].get_ydata().tolist() == pytest.approx([0.0225, 0.075, 0.75])
    assert lines["cogvideox/tiny"].get_color() == lines["cogvideox/tiny-random"].get_color(), "one model, one colour"
    assert same_color(lines["cogvideox/tiny-random"].get_markerfacecolor(), "white")
    assert len(set(lines["baseline/oracle"].get_ydata())) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "cogvideox/tiny",
        "cogvideox/tiny-random",
        "baseline/majority",
        "baseline/oracle",
    ]
    caption = " ".join(figure.texts[-1].get_text().split())
    assert "Mean over 2 training seeds; 50 test problems" in caption
    assert "1 failed, 1 missing of 38 trials" in caption
    assert backbone_spec("cogvideox/tiny").note.split()[0] in caption


def test_pictures_are_written_for_one_panel_and_for_many(tmp_path, measured):
    frame = measured[1]
    for count, part in ((1, frame[frame["task"] == "life"]), (2, frame)):
        paths = save(report.learning_curve_figure(part), tmp_path / str(count), "curves")
        assert [path.name for path in paths] == ["curves.png", "curves.svg", "curves.pdf"]
        assert all(path.stat().st_size > 10_000 for path in paths)


def test_a_sweep_without_a_finished_trial_has_a_picture_too(tmp_path, make_result):
    trials = trials_of(tasks=["life"])
    results.write(tmp_path, make_result(trials[0].trial_id, "failed"))
    frame = with_missing(results.load_trials(tmp_path), trials)
    assert save(report.learning_curve_figure(frame), tmp_path, "curves")[0].exists()
    assert "failed" in printed(report.results_table(frame))


def test_looks_are_fixed_and_apart():
    looks = {name: report.look(name) for name in backbone_names() if backbone_spec(name).trainable}
    assert len({(how.color, how.marker, how.hollow) for how in looks.values()}) == len(looks)
    assert report.look("gone/model").color == report.FAINT


def test_curves_of_one_backbone_that_differ_in_recipe_are_told_apart():
    recipes = ["{}", '{"num_inference_steps":1}', '{"num_inference_steps":4}']
    names = {("cogvideox/tiny", 16, recipe): recipe for recipe in recipes}
    looks = [report.look_among(key, names) for key in names]
    assert looks[0] == report.look("cogvideox/tiny")
    assert len({(how.color, how.marker) for how in looks}) == 3
    curves = pd.DataFrame(
        [["life", "{}", *key, "life", "video"] for key in names],
        columns=["task", "task_params", "backbone", "lora_rank", "recipe", "task_label", "family"],
    )
    assert sorted(report.curve_names(curves).values()) == [
        "cogvideox/tiny num_inference_steps=1",
        "cogvideox/tiny num_inference_steps=4",
        "cogvideox/tiny num_inference_steps=50",
    ]


def printed(table):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_curves_do_not_need_a_sweep(measured):
    """A plain read of a folder works in one line."""
    frame = measured[1]
    plain = frame[frame["state"] != analysis.MISSING]
    assert isinstance(learning_curves(plain), pd.DataFrame)
