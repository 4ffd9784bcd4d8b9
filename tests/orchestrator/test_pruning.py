"""Rungs: what a trial says there, that it makes no difference to it, and that the worst are pruned, through Ray too."""

import threading

import pytest
import ray

from orchestrator import results
from orchestrator.pruning import (
    PrunedError,
    RungReport,
    Rungs,
    SteppedRun,
    rung_steps,
    validation_problems,
)
from orchestrator.search_entries import AshaEntry
from orchestrator.specs import SweepSpec, TrialSpec, expand
from orchestrator.sweep import cluster, searcher
from orchestrator.sweep import run as run_sweep
from orchestrator.sweep.asha import StudyAsha
from orchestrator.tables import TrialState
from orchestrator.trial import record_pruned, run_and_record, run_trial
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from trainers.recipe import TrainRecipe

CA = {"elementary_ca": {"width": 8, "steps": 1}}
ENTRY = AshaEntry(grace_period=0.25, reduction_factor=2, n_validation=6)


def trial_of(backbone="causal_lm/tiny", **recipe):
    recipe = {"max_steps": 4, "learning_rate": 3e-3, "max_new_tokens": 40, "lora_dropout": 0.1} | recipe
    return TrialSpec(
        backbone=backbone,
        task=TaskSpec(name="elementary_ca", params={"width": 8, "steps": 1}),
        n_train=5,
        lora_rank=4,
        n_test=6,
        recipe=TrainRecipe(**recipe),
    )


def test_rungs_are_shares_of_each_trials_own_steps():
    assert rung_steps(ENTRY, 400) == {100: 0.25, 200: 0.5}
    assert rung_steps(ENTRY, 5) == {2: 0.25, 3: 0.5}
    assert rung_steps(ENTRY, 1) == {}
    assert rung_steps(AshaEntry(grace_period=0.1, reduction_factor=3), 1000) == pytest.approx(
        {100: 0.1, 300: 0.3, 900: 0.9}
    )
    assert list(rung_steps(AshaEntry(grace_period=0.1, reduction_factor=2), 2)) == [1]


@pytest.mark.parametrize("n_train", [0, 5, 40])
def test_validation_problems_are_neither_trained_nor_tested_on(n_train):
    task = TaskSpec(name="elementary_ca", params={"width": 6})
    spec = trial_of().model_copy(update={"task": task, "n_train": n_train})
    for seed in (0, 1):
        training = draw_problems(task, Split.TRAIN, seed, n_train)
        found = validation_problems(spec, 12, training, draw_problems)
        questions = {problem.question.tobytes() for problem in found}
        test = draw_problems(task, Split.TEST, 0, 5)
        assert 0 < len(found) <= 12
        assert not questions & {problem.question.tobytes() for problem in [*training, *test]}
        again = validation_problems(spec, 12, training, draw_problems)
        assert [problem.problem_id for problem in again] == [problem.problem_id for problem in found]
        assert len(questions) == len(found)


def test_a_trial_on_all_problems_there_are_cannot_be_judged():
    task = TaskSpec(name="arc", params={"task": "009d5c81"})
    num = len(task.build().given_problems(Split.TRAIN))
    training = draw_problems(task, Split.TRAIN, 0, num)
    spec = trial_of().model_copy(update={"task": task})
    with pytest.raises(ValueError, match="none is left to judge it by; lower n_train"):
        validation_problems(spec, 4, training, draw_problems)
    few = draw_problems(task, Split.TRAIN, 0, num - 2)
    assert len(validation_problems(spec, 4, few, draw_problems)) == 2


@pytest.mark.parametrize("backbone", ["causal_lm/tiny", "cogvideox/tiny"])
def test_rungs_change_no_number_of_a_trial_that_goes_on(backbone):
    recipe = {"lora_dropout": 0.1} if backbone == "causal_lm/tiny" else {"num_inference_steps": 2, "lora_dropout": 0.0}
    spec = trial_of(backbone, **recipe)
    reports = []
    plain, plain_predictions, plain_losses = run_trial(spec)
    judged, predictions, losses = run_trial(spec, rungs=Rungs(ENTRY, reports.append))
    assert [report.share for report in reports] == [0.25, 0.5]
    assert judged.metrics == plain.metrics
    assert judged.state == TrialState.DONE
    for mine, other in zip(predictions, plain_predictions, strict=True):
        assert mine.scores == other.scores
        assert (mine.predicted is None) == (other.predicted is None)
        assert mine.predicted is None or (mine.predicted == other.predicted).all()
    numbers = [[(row.step, row.loss, row.grad_norm) for row in rows] for rows in (losses, plain_losses)]
    assert numbers[0] == numbers[1], "to the last bit"
    last = reports[-1].result
    assert (last.state, last.train_steps, last.trial_id) == (TrialState.PRUNED, 2, spec.trial_id)
    assert [(row.step, row.loss) for row in reports[-1].losses] == [(row.step, row.loss) for row in plain_losses[:2]]
    assert 0 <= last.metrics["validation_exact_match"] <= 1
    assert not [name for name in last.metrics if not name.startswith("validation_")], "nothing of the test set"
    assert last.num_trainable_params == plain.num_trainable_params


def test_a_pruned_trial_leaves_its_row_and_a_backbone_as_it_was(tmp_path):
    from orchestrator.trial import BackboneCache

    cache, spec = BackboneCache(), trial_of()
    fresh = run_trial(spec)[0].metrics
    kept = []

    def stop_at_the_second(report: RungReport):
        kept.append(report)
        if len(kept) == 2:
            raise PrunedError

    with pytest.raises(PrunedError):
        run_and_record(spec, str(tmp_path), backbone_cache=cache, rungs=Rungs(ENTRY, stop_at_the_second))
    assert results.trial_states(tmp_path) == {}, "whoever prunes writes the row"
    record_pruned(str(tmp_path), kept[-1])
    assert results.trial_states(tmp_path)[spec.trial_id].state == TrialState.PRUNED
    (row,) = results.load_trials(tmp_path).to_dict("records")
    assert row["train_steps"] == 2
    assert row["validation_exact_match"] == kept[-1].result.metrics["validation_exact_match"]
    assert row["exact_match"] is None or row["exact_match"] != row["exact_match"]
    assert results.load_losses(tmp_path)["step"].tolist() == [1, 2]
    assert run_trial(spec, backbone_cache=cache)[0].metrics == fresh
    cache.check_unchanged()


def report_of(share):
    return RungReport(share, None, ())


def test_work_in_steps_waits_at_each_report_and_goes_on_when_told():
    done, run = [], SteppedRun()

    def work(report):
        for share in (0.25, 0.5):
            report(report_of(share))
            done.append((share, threading.current_thread() is threading.main_thread()))
        return "all"

    for _ in range(2):
        done.clear()
        assert run.start(work).share == 0.25
        assert (done, run.is_running) == ([], True)
        assert run.go_on().share == 0.5
        assert done == [(0.25, False)]
        assert run.go_on() == "all"
        assert not run.is_running


def test_pruned_work_clears_up_before_the_next_begins():
    cleared, run = [], SteppedRun()

    def work(report):
        try:
            report(report_of(0.5))
        finally:
            cleared.append(True)

    run.start(work)
    run.prune()
    assert (cleared, run.is_running) == ([True], False)
    run.prune()
    assert run.start(lambda report: 7) == 7


def test_errors_of_work_in_steps_are_raised_where_it_is_asked():
    run = SteppedRun()

    def work(report):
        report(report_of(0.5))
        raise ValueError("after the rung")

    with pytest.raises(ZeroDivisionError):
        run.start(lambda report: 1 / 0)
    run.start(work)
    with pytest.raises(ValueError, match="after the rung"):
        run.go_on()
    assert not run.is_running


class TuneTrial:
    def __init__(self, name, study):
        self.trial_id = name
        assignment = type("A", (), {"spec": study})
        self.config = {"work": type("W", (), {"chunk": type("C", (), {"assignments": (assignment,)})})}


def at_rung(share, score):
    return {"rung": 1, "share": share, "metrics/validation_exact_match": score}


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_worst_of_a_study_stop_whatever_other_studies_score(mode):
    asha = StudyAsha(ENTRY, "exact_match", mode, lambda spec: spec)
    sign = 1 if mode == "max" else -1
    for study, offset in ((0, 0.0), (1, 10.0), (None, -10.0)):
        trials = [TuneTrial(f"{study}/{i}", study) for i in range(6)]
        verdicts = []
        for trial, score in zip(trials, (0.5, 0.6, 0.7, 0.2, 0.8, 0.1), strict=True):
            asha.on_trial_add(None, trial)
            verdicts.append(asha.on_trial_result(None, trial, at_rung(0.25, sign * (offset + score))))
        expected = ["CONTINUE"] * 3 + ["STOP", "CONTINUE", "STOP"]
        assert verdicts == (expected if study is not None else ["CONTINUE"] * 6)
        assert asha.on_trial_result(None, trials[4], at_rung(0.5, sign * -99)) == "CONTINUE", "the first at its rung"
        assert asha.on_trial_result(None, trials[0], {"state": "done", "metrics/exact_match": 0.0}) == "CONTINUE"
        for trial in trials:
            asha.on_trial_complete(None, trial, {})


def test_a_search_with_asha_prunes_and_resumes_without_running_anything_twice(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster.os, "cpu_count", lambda: 2)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for name, value in cluster.QUIET_TUNE.items():
        monkeypatch.setenv(name, value)
    asha = {"grace_period": 0.25, "reduction_factor": 2, "n_validation": 4}
    sweep = SweepSpec.model_validate(
        {
            "name": "pruned",
            "backbones": ["causal_lm/tiny", "baseline/majority"],
            "tasks": [CA],
            "n_train": [3],
            "n_test": 4,
            "lora_rank": [4],
            "recipe": {"max_steps": 4, "max_new_tokens": 40},
            "results": str(tmp_path),
            "search": {
                "optuna": {
                    "space": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}},
                    "num_samples": 8,
                    "metric": "cell_accuracy",
                    "asha": asha,
                }
            },
        }
    )
    pids, on_result = {}, searcher.Watch.on_trial_result

    def note_pid(self, iteration, trials, trial, result, **info):
        pids.setdefault(result["pid"], []).append(result["state"])
        on_result(self, iteration, trials, trial, result, **info)

    monkeypatch.setattr(searcher.Watch, "on_trial_result", note_pid)
    # What is scored is not the models' to say here: every other trial that is judged is worse than all before.
    told = StudyAsha.on_trial_result
    judged = []

    def in_turn(self, controller, trial, result):
        if "rung" in result and result["share"] == 0.25:
            judged.append(trial.trial_id)
            worst = len(judged) % 2 == 0
            result = result | {"metrics/validation_cell_accuracy": -len(judged) if worst else 1.0}
        return told(self, controller, trial, result)

    monkeypatch.setattr(StudyAsha, "on_trial_result", in_turn)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        outcome = run_sweep(sweep, expand(sweep), quiet=True, workers=2)
        assert (outcome.failed, outcome.missing, outcome.exit_status) == (0, 0, 0)
        assert outcome.done == 9
        rows = results.load_trials(tmp_path)
        by_state = rows["state"].value_counts().to_dict()
        assert by_state["pruned"] == 4
        assert by_state["done"] == 5
        pruned = rows[rows["state"] == "pruned"]
        assert set(pruned["train_steps"]) == {1}
        assert pruned["validation_cell_accuracy"].notna().all()
        assert pruned["exact_match"].isna().all()
        assert len(pids) <= 3, "a pruned trial's worker goes on"
        again = run_sweep(sweep, expand(sweep), quiet=True)
        assert (again.done, again.failed, again.missing) == (0, 0, 0)
    finally:
        ray.shutdown()
