"""Trials through Ray Tune on this machine: one Ray for all tests of this file."""

import os
import signal
import time
from pathlib import Path

import pytest
import ray

from orchestrator import capacity, results
from orchestrator.specs import SweepSpec, expand
from orchestrator.sweep import SweepOutcome, callbacks, cluster, searcher, signals
from orchestrator.sweep import run as run_sweep
from orchestrator.trial import run_trial

LIFE = {"life": {"height": 5, "width": 5}}
IMPOSSIBLE = {"elementary_ca": {"width": 3}}
"""Eight first rows: far fewer test problems than asked for."""


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setattr(cluster.os, "cpu_count", lambda: 2)
    patch.setenv("RAY_worker_niceness", "0")  # or workers starve where other tests keep the machine busy
    for name, value in cluster.QUIET_TUNE.items():
        patch.setenv(name, value)
    patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    patch.undo()


def run(folder, **fields):
    defaults = {"name": "test", "tasks": [LIFE], "n_train": [3, 10], "n_test": 8, "results": str(folder)}
    spec = SweepSpec.model_validate(defaults | fields)
    trials = expand(spec)
    return spec, trials, run_sweep(spec, trials, quiet=True)


def test_both_workers_take_part_and_numbers_equal_those_without_ray(tmp_path, monkeypatch):
    pids, on_result = set(), searcher.Watch.on_trial_result

    def note_pid(self, iteration, trials, trial, result, **info):
        pids.add(result["pid"])
        on_result(self, iteration, trials, trial, result, **info)

    monkeypatch.setattr(searcher.Watch, "on_trial_result", note_pid)
    _, trials, outcome = run(tmp_path, backbones=["baseline/majority", "baseline/oracle"], seeds=[0, 1, 2, 3])
    assert (outcome.done, outcome.failed, outcome.missing, outcome.exit_status) == (9, 0, 0, 0)
    assert len(pids) == 2, "short trials do not all go to the worker that starts first"
    rows = results.load_trials(tmp_path).set_index("trial_id")
    assert sorted(rows.index) == sorted(trial.trial_id for trial in trials)
    for trial in trials[::4]:
        result, predictions, _ = run_trial(trial)
        row = rows.loc[trial.trial_id]
        assert row["cell_accuracy"] == result.metrics["cell_accuracy"]
        kept = results.load_predictions(tmp_path, trial_ids=[trial.trial_id])
        assert kept["cell_accuracy"].tolist() == [prediction.scores["cell_accuracy"] for prediction in predictions]
    assert rows.loc[trials[-1].trial_id, "exact_match"] == 1.0
    assert (
        rows[["host", "started_at", "finished_at", "code_version", "torch_version", "ray_version"]].notna().all().all()
    )
    assert (rows["attempts"] == 1).all()
    assert (rows["sweep"] == "test").all()
    assert rows["peak_memory_bytes"].min() > 1e7


def test_a_failing_trial_is_a_row_and_stops_nothing(tmp_path):
    for attempt in (1, 2):
        _, trials, outcome = run(tmp_path, backbones=["baseline/oracle"], tasks=[IMPOSSIBLE, LIFE])
        assert (outcome.done, outcome.failed, outcome.exit_status) == (2 - attempt, 1, 1)
        rows = results.load_trials(tmp_path).set_index("trial_id")
        failed = rows.loc[trials[0].trial_id]
        assert (failed["state"], failed["error_kind"], failed["attempts"]) == ("failed", "bad_spec", attempt)
        assert "distinct test problems asked for" in failed["error"]
        assert failed[["exact_match", "train_s", "cell_accuracy"]].isna().all(), "null, never 0"
        assert rows.loc[trials[1].trial_id, "state"] == "done"


def test_the_trial_of_a_dead_worker_is_tried_again(tmp_path, monkeypatch):
    killed = []

    def kill_the_first(self, *arguments, **info):
        if not killed and self._dispatcher.progress.done:
            actors = ray._private.state.actors().values()  # the public list needs a dashboard
            killed.append(next(actor["Pid"] for actor in actors if actor["State"] == "ALIVE"))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(searcher.Watch, "on_step_end", kill_the_first, raising=False)
    backbones = ["baseline/majority", "baseline/oracle"]
    _, trials, outcome = run(tmp_path, backbones=backbones, n_test=100, n_train=[3, 10, 30])
    assert killed
    assert (outcome.failed, outcome.done) == (0, len(trials)), results.load_trials(tmp_path)["error"].tolist()
    rows = results.load_trials(tmp_path)
    assert set(rows["state"]) == {"done"}
    assert sorted(rows["retries"])[-1] == 1
    assert set(rows["attempts"]) == {1}, "what passes does not count"


def test_a_trial_of_two_workers_has_its_own_placement_group(tmp_path):
    placement = {"num_workers": 2, "cpus_per_worker": 1}  # all of this machine: the waiting actor must ask for nothing
    _, trials, outcome = run(tmp_path, backbones=["baseline/majority"], placement=placement)
    assert (outcome.done, outcome.failed) == (2, 0)
    rows = results.load_trials(tmp_path).set_index("trial_id")
    assert rows["num_workers"].tolist() == [2, 2]
    for trial in trials:
        alone = trial.model_copy(update={"placement": trial.placement.model_copy(update={"num_workers": 1})})
        assert alone.trial_id == trial.trial_id
        assert rows.loc[trial.trial_id, "cell_accuracy"] == run_trial(alone)[0].metrics["cell_accuracy"]
    assert len(results.load_predictions(tmp_path)) == 2 * 8


TRAINED = ("train_loss", "exact_match", "cell_accuracy", "num_trainable_params")


def test_the_same_yaml_trains_to_the_same_numbers(tmp_path):
    """Two runs of a sweep of both trained families, warm and cold workers, and one trial without Ray."""
    fields = {
        "backbones": ["cogvideox/tiny", "causal_lm/tiny"],
        "tasks": [{"elementary_ca": {"width": 8, "steps": 1}}],
        "lora_rank": [4],
        "recipe": {"max_steps": 3},
    }
    tables = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        _, trials, outcome = run(folder, **fields)
        assert (outcome.done, outcome.failed) == (4, 0)
        tables.append(results.load_trials(folder).set_index("trial_id").loc[[trial.trial_id for trial in trials]])
    for column in TRAINED:
        assert tables[0][column].tolist() == tables[1][column].tolist(), column
    assert tables[0]["train_loss"].nunique() == 4
    losses = [results.load_losses(tmp_path / name)[["trial_id", "step", "loss"]] for name in ("first", "second")]
    assert len(losses[0]) == 4 * 3
    assert losses[0].sort_values(["trial_id", "step"]).equals(losses[1].sort_values(["trial_id", "step"]))
    alone = run_trial(trials[-1])[0]
    assert alone.train_loss == tables[0].loc[trials[-1].trial_id, "train_loss"]


def test_zero_on_two_workers_trains_as_one_worker_does(tmp_path):
    fields = {"backbones": ["causal_lm/tiny"], "n_train": [6], "lora_rank": [4], "recipe": {"max_steps": 2}}
    rows = []
    for name, placement in (("one", {}), ("two", {"num_workers": 2, "zero_stage": 3})):
        _, _, outcome = run(tmp_path / name, placement=placement, **fields)
        assert (outcome.done, outcome.failed) == (1, 0)
        rows.append(results.load_trials(tmp_path / name).iloc[0])
    assert (rows[1]["num_workers"], rows[1]["zero_stage"]) == (2, 3)
    assert rows[0]["trial_id"] == rows[1]["trial_id"]
    assert rows[1]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=1e-5)
    assert len(results.load_losses(tmp_path / "two")) == 2


def test_a_trial_that_takes_too_long_ends(tmp_path):
    began = time.monotonic()
    _, _, outcome = run(
        tmp_path, backbones=["baseline/oracle"], tasks=[{"maze": {}}], n_test=4000, placement={"timeout_s": 1}
    )
    assert outcome.failed == 1
    assert results.load_trials(tmp_path)["error_kind"].tolist() == ["timeout"]
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "placement",
    [{"cpus_per_worker": 3}, {"num_workers": 3}, {"gpus_per_worker": 1}, {"num_workers": 2, "cpus_per_worker": 2}],
)
def test_what_finds_no_room_is_refused_before_anything_starts(tmp_path, placement):
    with pytest.raises(ValueError, match=r"^placement: .* do not fit on 1 node\(s\) of \(2 CPU, 0 GPU\); lower"):
        run(tmp_path, backbones=["baseline/oracle"], placement=placement)
    assert results.load_trials(tmp_path).empty


def test_a_stop_signal_is_noted_once():
    before = signal.getsignal(signal.SIGTERM)
    with signals.StopSignals() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Stopped):
            stop.check()
        assert signal.getsignal(signal.SIGTERM) == before, "a second one acts as before"
    assert SweepOutcome(1, 0, 1, 0.0, stop.received).exit_status == 143


def test_bundles_follow_the_placement():
    fields = {"name": "t", "backbones": ["baseline/oracle"], "tasks": [LIFE], "n_train": [3]}
    one, several = (
        expand(SweepSpec.model_validate(fields | {"placement": {"num_workers": n, "cpus_per_worker": 2}}))[0]
        for n in (1, 3)
    )
    assert capacity.bundles(one, 0.5) == ({"CPU": 2, "GPU": 0.5},)
    assert capacity.bundles(several, 0) == ({}, {"CPU": 2}, {"CPU": 2}, {"CPU": 2})


def test_loggers_get_a_run_of_each_trial_named_as_its_row(tmp_path):
    pytest.importorskip("tensorboardX")
    _, trials, outcome = run(tmp_path, backbones=["baseline/majority"], callbacks=["tensorboard"])
    assert outcome.done == len(trials) == 2
    rows = results.load_trials(tmp_path)
    logged = {path.parent.name for path in tmp_path.glob("tensorboard/test/*/events.out.tfevents.*")}
    assert logged == set(rows["trial_id"] + "-" + rows["run_id"])


def test_a_logger_that_is_not_installed_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^callbacks = wandb: needs the package wandb: pip install wandb$"):
        run(tmp_path, backbones=["baseline/majority"], callbacks=["wandb"])
