"""Trials that go wrong inside of ``sweep run``'s own workers: killed, hanging, out of memory, diverging."""

import os
import signal
import time
from pathlib import Path

import pytest
import ray

from orchestrator import results
from orchestrator.specs import SweepSpec, expand
from orchestrator.sweep import cluster, searcher
from orchestrator.sweep import run as run_sweep
from orchestrator.trial import run_trial

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).parent / "faults"
OUT_OF_MEMORY_ABOVE_ONE, HANGS, OUT_OF_MEMORY = 0.25, 0.5, 0.75
"""Weight decays that ``faults/sitecustomize.py`` knows."""
PLACEMENTS = [{"num_workers": 1}, {"num_workers": 2, "zero_stage": 3}]
IDS = ["one worker", "two ranks"]
LIMIT_S = 12
"""Of the trial that hangs alone: on a busy machine another one may take longer."""


@pytest.fixture(scope="module", autouse=True)
def faulty_ray():
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setattr(cluster.os, "cpu_count", lambda: 2)
    for name, value in cluster.QUIET_TUNE.items():
        patch.setenv(name, value)
    patch.setenv("PYTHONPATH", f"{FAULTS}{os.pathsep}{ROOT}")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    patch.undo()


def run(folder, task_recipes, placement, first_placement=None, **recipe):
    """A sweep of the tiny language model, one trial a task recipe, in that order and one after the other.

    ``first_placement`` is laid over the first trial's.
    """
    tasks = [{"elementary_ca": {"width": 8, "steps": 1, "recipe": task_recipe}} for task_recipe in task_recipes]
    recipe = {"max_steps": 2, "max_new_tokens": 24, "batch_size": 4, "learning_rate": 1e-4, **recipe}
    spec = SweepSpec.model_validate(
        {
            "name": "test",
            "backbones": ["causal_lm/tiny"],
            "tasks": tasks,
            "n_train": [6],
            "lora_rank": [2],
            "n_test": 2,
            "recipe": recipe,
            "placement": placement,
            "results": str(folder),
        }
    )
    trials, done = expand(spec), results.finished(folder)
    trials[0] = trials[0].model_copy(update={"placement": trials[0].placement.model_copy(update=first_placement or {})})
    outcome = run_sweep(spec, [trial for trial in trials if trial.trial_id not in done], workers=1, quiet=True)
    table = results.load_trials(folder).set_index("trial_id")
    return trials, outcome, [table.loc[trial.trial_id] for trial in trials]


def without_ray(trial):
    alone = trial.placement.model_copy(
        update={"num_workers": 1, "zero_stage": None, "checkpoint_every_s": None, "timeout_s": None}
    )
    return run_trial(trial.model_copy(update={"placement": alone}))


@pytest.mark.parametrize("placement", PLACEMENTS, ids=IDS)
def test_a_killed_trial_goes_on_from_its_checkpoint(tmp_path, monkeypatch, placement):
    placement = {**placement, "checkpoint_every_s": 1e-3}
    killed = []

    def kill_a_worker(self, *arguments, **info):
        manifests = list(tmp_path.glob("checkpoints/*/current.json"))
        if manifests and not killed:
            on_ranks = placement["num_workers"] > 1
            actors = ray._private.state.actors().values()  # the public list needs a dashboard
            alive = [actor for actor in actors if actor["State"] == "ALIVE"]
            killed.extend(a["Pid"] for a in alive if ("RankActor" in a["ActorClassName"]) == on_ranks)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(searcher.Watch, "on_step_begin", kill_a_worker)
    steps = 60
    (trial,), outcome, (row,) = run(tmp_path, [{}], placement, max_steps=steps)
    assert killed
    assert (outcome.done, row["state"], row["attempts"], row["retries"]) == (1, "done", 1, 1)
    assert 1 <= row["resumed_from_step"] < steps
    expected, expected_predictions, expected_losses = without_ray(trial)
    losses = results.load_losses(tmp_path).sort_values("step")["loss"].tolist()
    if placement["num_workers"] == 1:
        assert losses == [loss.loss for loss in expected_losses], "bitwise"
        assert row["train_loss"] == expected.train_loss
        predicted = results.load_predictions(tmp_path).sort_values("index")["cell_accuracy"].tolist()
        assert predicted == [prediction.scores["cell_accuracy"] for prediction in expected_predictions]
    else:
        assert losses == pytest.approx([loss.loss for loss in expected_losses], rel=1e-3)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_out_of_memory_on_one_rank_halves_the_micro_batch_of_all(tmp_path):
    trials, outcome, rows = run(tmp_path, [{"weight_decay": OUT_OF_MEMORY_ABOVE_ONE}, {}], PLACEMENTS[1])
    assert (outcome.done, outcome.failed) == (2, 0)
    assert [row["micro_batch_size"] for row in rows] == [1, 2], "the next trial starts at its own size"
    assert [row["attempts"] for row in rows] == [1, 1]
    for trial, row in zip(trials, rows, strict=True):
        assert row["train_loss"] == pytest.approx(without_ray(trial)[0].train_loss, rel=1e-4)


def test_what_fails_is_a_row_and_the_worker_goes_on(tmp_path):
    faults = [{"weight_decay": OUT_OF_MEMORY_ABOVE_ONE}, {"weight_decay": OUT_OF_MEMORY}, {"learning_rate": 1e30}, {}]
    _, outcome, rows = run(tmp_path, faults, PLACEMENTS[0], max_steps=5)
    assert (outcome.done, outcome.failed) == (2, 2)
    assert [row["state"] for row in rows] == ["done", "failed", "failed", "done"]
    assert [row["error_kind"] for row in rows[1:3]] == ["out_of_memory", "non_finite_loss"]
    assert [row["micro_batch_size"] for row in (rows[0], rows[3])] == [1, 4]
    for row in rows[1:3]:
        assert row[["train_loss", "exact_match", "train_steps", "micro_batch_size"]].isna().all()


@pytest.mark.parametrize("placement", PLACEMENTS, ids=IDS)
def test_native_code_that_hangs_is_ended_and_the_next_trial_runs(tmp_path, placement):
    began = time.monotonic()
    _, outcome, rows = run(tmp_path, [{"weight_decay": HANGS}, {}], placement, {"timeout_s": LIMIT_S})
    assert time.monotonic() - began > LIMIT_S
    assert (outcome.done, outcome.failed) == (1, 1)
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert rows[0]["error_kind"] == "timeout"
    assert f"placement.timeout_s = {LIMIT_S} s" in rows[0]["error"]
