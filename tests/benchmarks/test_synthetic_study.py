"""The invented study is marked as invented, and agrees with itself and with the tasks as a real one does."""

import json

import numpy as np
import pytest
from scipy.special import ndtr

from benchmarks import synthetic_study
from benchmarks.synthetic_answers import PADDING, answers_of, arrow_grids, learning_line, right_on_average
from benchmarks.synthetic_study import FIRST_SEED, write_study
from orchestrator import results
from orchestrator.analysis.published_table import published
from orchestrator.failures import ERROR_KINDS
from orchestrator.trial_spec import TrialSpec
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_class

TRIALS, PREDICTIONS = 90, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(synthetic_study, "FAILED", 0.1)
    folder = tmp_path_factory.mktemp("synthetic")
    write_study(folder, TRIALS, PREDICTIONS)
    yield folder
    monkeypatch.undo()


@pytest.fixture(scope="module")
def trials(folder):
    return results.load_trials(folder)


@pytest.fixture(scope="module")
def predictions(folder):
    return results.load_predictions(folder)


def test_every_row_says_that_it_is_invented(trials):
    for column in ("sweep", "host", "device", "code_version"):
        assert set(trials[column]) == {"synthetic"}
    assert trials["torch_version"].isna().all()


def test_it_has_the_cells_that_were_asked_for(trials):
    assert trials["trial_id"].is_unique
    generating = trials[[task_class(name).can_generate() for name in trials["task"]]]
    trained = generating[generating["family"] != "baseline"]
    assert len(trained) == TRIALS
    assert set(trained["n_test"]) == {PREDICTIONS}
    baselines = trials[trials["family"] == "baseline"]
    assert set(baselines["task"]) == set(trained["task"])
    assert (baselines.loc[baselines["backbone"] == "baseline/oracle", "exact_match"] == 1).all()


def test_more_trials_are_more_seeds_of_the_same_cells():
    few = [spec for spec in synthetic_study.study_trials(2000, PREDICTIONS) if spec.task.name == "life"]
    more = [spec for spec in synthetic_study.study_trials(8000, PREDICTIONS) if spec.task.name == "life"]
    assert {spec.trial_id for spec in few} < {spec.trial_id for spec in more}
    seeds = {spec.seed for spec in more if spec.backbone_spec.trainable}
    assert min(seeds) == FIRST_SEED
    assert len(seeds) > 1


def test_failed_trials_have_an_error_and_no_predictions(trials, predictions):
    failed = trials[trials["state"] == "failed"]
    assert 0 < len(failed) < len(trials) / 3
    assert set(failed["error_kind"]) <= set(ERROR_KINDS)
    assert failed["exact_match"].isna().all()
    assert set(predictions["trial_id"]) == set(trials["trial_id"]) - set(failed["trial_id"])


def test_scores_are_those_of_the_grids(predictions):
    for row in predictions.itertuples():
        right = row.predicted is not None and np.array_equal(row.answer, row.predicted)
        assert right == row.exact_match
        assert row.parsed == (row.predicted is not None)
        same_shape = row.parsed and row.predicted.shape == row.answer.shape
        assert row.cell_accuracy == pytest.approx(np.mean(row.answer == row.predicted) if same_shape else 0)
    assert not predictions["exact_match"].all()
    assert predictions["predicted"].isna().any()
    assert any(
        row.predicted is not None and row.predicted.shape != row.answer.shape for row in predictions.itertuples()
    )


def test_the_row_of_a_trial_is_the_mean_of_its_predictions(trials, predictions):
    any_attempt = predictions.groupby(["trial_id", "index"], as_index=False)["exact_match"].max()
    means = any_attempt.groupby("trial_id")["exact_match"].mean()
    done = trials[trials["state"] == "done"].set_index("trial_id")
    assert np.allclose(done["exact_match"], means.reindex(done.index))
    accuracy = predictions.groupby("trial_id")["cell_accuracy"].mean()
    assert np.allclose(done["cell_accuracy"], accuracy.reindex(done.index))


def test_problems_are_the_tasks_own(trials, predictions):
    row = trials[(trials["task"] != "arc") & (trials["state"] == "done")].iloc[0]
    spec = TaskSpec.model_validate({row["task"]: json.loads(row["task_params"])})
    problems = draw_problems(spec, Split.TEST, 0, PREDICTIONS)
    of_trial = predictions[predictions["trial_id"] == row["trial_id"]]
    assert list(of_trial["problem_id"]) == [problem.problem_id for problem in problems]
    for problem, question, answer in zip(problems, of_trial["question"], of_trial["answer"], strict=True):
        assert np.array_equal(problem.question, question)
        assert np.array_equal(problem.answer, answer)


def test_nothing_is_right_that_encoding_loses(trials):
    video = trials[(trials["family"] == "video") & (trials["state"] == "done")]
    assert (video["exact_match"] <= video["roundtrip_exact_match"]).all()
    assert trials.loc[trials["family"] != "video", "roundtrip_exact_match"].isna().all()


def test_curves_follow_the_published_ones():
    rows = published()
    rows = rows[(rows["task"] == "life_conway") & (rows["metric"] == "exact_match")]
    assert len(rows) > 5
    for row in rows.itertuples():
        a, b = learning_line(row.backbone, "life_conway")
        assert ndtr(a + b * np.log(row.n_train)) == pytest.approx(row.value, abs=0.2)


def test_the_average_over_problems_is_as_said():
    spec = TrialSpec(
        backbone="causal_lm/qwen3-4b-instruct-2507", task="langton_ant", n_train=100, lora_rank=32, n_test=1500
    )
    expected = ndtr(right_on_average(spec))
    assert 0.2 < expected < 0.8
    seeds = [answers_of(spec.model_copy(update={"seed": seed})).metrics["exact_match"] for seed in range(4)]
    assert np.mean(seeds) == pytest.approx(expected, abs=0.07)
    assert len(set(seeds)) > 1


def test_grids_of_several_shapes_become_a_column():
    grids = np.full((3, 2, 3), PADDING, dtype=np.int8)
    grids[0, :1, :2], grids[1], grids[2, :2, :1] = 4, 5, 6
    column = arrow_grids(grids, np.array([True, False, True]))
    assert column.to_pylist() == [[[4, 4]], None, [[6], [6]]]


def test_it_is_the_same_every_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_study, "FAILED", 0.1)
    write_study(tmp_path, TRIALS, PREDICTIONS)
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.parquet"))
    assert len(paths) >= 3
    for path in paths:
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes()
