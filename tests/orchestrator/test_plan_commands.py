"""`sweep plan` and `sweep status` as people type them, over rows that are made up."""

import json
import threading
import time
from datetime import timedelta

import pytest

from orchestrator import plan_commands, results, status_commands
from orchestrator.cli import main
from orchestrator.row_watch import RowWatch
from orchestrator.specs import expand, load_sweep

YAML = """
name: small
backbones: [causal_lm/tiny]
tasks: [{elementary_ca: {rule: 90, width: 10, steps: 3}}, {life: {height: 5, width: 5}}]
seeds: [0, 1]
n_train: [3, 10]
lora_rank: [4]
n_test: 6
recipe: {max_steps: 50}
"""


@pytest.fixture
def sweep_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(plan_commands, "_gpus_here", list)
    (tmp_path / "small.yaml").write_text(YAML)
    return "small.yaml"


@pytest.fixture
def put(sweep_yaml, make_result):
    """Writes the row of a trial: ``done`` after 20 s of training and 5 s of answering, unless told otherwise."""

    def put(trial, state="done", minute=0, train_s=20.0, **fields):
        spec = {
            "backbone": trial.backbone,
            "family": "language",
            "task": trial.task.name,
            "task_params": trial.task.params_json(),
            "recipe": trial.recipe_json(),
            **{name: getattr(trial, name) for name in ("seed", "n_train", "n_test", "lora_rank")},
        }
        times = {"train_s": train_s, "eval_s": 5.0, "load_s": 0.0, "encode_s": 0.0, "train_steps": 50}
        row = make_result(trial.trial_id, state, minute, **spec, sweep="small", num_workers=1, device="cpu")
        took = timedelta(seconds=train_s + 5)
        started_at = row.finished_at - took
        measured = times if state == "done" else {}
        values = {**row.__dict__, **measured, "started_at": started_at, **fields}
        results.write("results/small", type(row)(**values))

    return put


def trials_of(path="small.yaml", *overrides):
    return expand(load_sweep(path, overrides))


def plan_of(capsys, *arguments, status=0):
    assert main(["plan", "small.yaml", "--json", *arguments]) == status
    return json.loads(capsys.readouterr().out)


def status_of(capsys, *arguments):
    assert main(["status", "small.yaml", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_plan_before_anything_has_finished_is_called_a_guess(sweep_yaml, capsys):
    assert main(["plan", sweep_yaml]) == 0
    text = capsys.readouterr().out
    assert "a rough guess" in text
    assert "8 of 8 trials to run: sweep run small.yaml" in text
    plan = plan_of(capsys)
    assert plan["estimate"]["high_factor"] > 1 > plan["estimate"]["low_factor"]
    assert plan["estimate"]["gpu_hours"] == 0


def test_a_plan_rests_on_what_has_finished(put, capsys):
    trials = trials_of()
    for trial in trials[:2]:
        put(trial)
    plan = plan_of(capsys, "--set", "seeds=[0, 1, 2]")
    tasks = [trial.task.name for trial in trials[:2]]
    assert len(set(tasks)) == 1
    assert plan["done"] == 2
    assert plan["to_run"] == 10
    assert plan["estimate"]["trials_by_basis"] == {"task": 4, "backbone": 6}
    same_task = plan_of(capsys, "--set", "tasks=[{elementary_ca: {rule: 90, width: 10, steps: 3}}]")
    assert same_task["estimate"]["work_s"] == pytest.approx(2 * 25, rel=0.02)
    assert same_task["estimate"]["high_factor"] == 1


def test_what_failed_runs_again_where_the_reason_passes(put, capsys):
    trials = trials_of()
    put(trials[0], "failed", error_kind="node_died", error="gone")
    put(trials[1], "failed", error_kind="out_of_memory", error="too large")
    plan = plan_of(capsys)
    assert plan["failed"] == {"node_died": 1, "out_of_memory": 1}
    assert plan["to_run"] == 7
    assert main(["plan", "small.yaml"]) == 0
    text = capsys.readouterr().out
    assert "1 failed for a reason that passes and run again: node_died 1" in text
    assert "--retry-failed out_of_memory" in text


def test_stale_rows_and_the_field_that_changed(put, capsys):
    for trial in trials_of():
        put(trial)
    changed = ["--set", "recipe.learning_rate=0.5"]
    plan = plan_of(capsys, *changed)
    assert plan["to_run"] == 8
    [stale] = plan["stale"]
    assert stale["rows"] == 8
    assert stale["changes"][0].startswith("recipe.learning_rate ")
    assert stale["changes"][0].endswith("-> 0.5")
    assert main(["plan", "small.yaml", *changed]) == 0
    assert "8 rows are stale: recipe.learning_rate" in capsys.readouterr().out
    assert not plan_of(capsys)["stale"]


def test_hours_and_money_on_hardware_that_is_not_here(put, capsys):
    large = ["--set", "backbones=[cogvideox/1.5-5b-i2v]", "--set", "gpu_hour_usd=2"]
    one, eight = (plan_of(capsys, *large, "--gpus", gpus)["estimate"] for gpus in ("H100:1", "H100:8"))
    assert one["gpu_hours"] == pytest.approx(eight["gpu_hours"])
    assert eight["wall_s"] == pytest.approx(one["wall_s"] / 8, rel=0.5)
    assert one["usd"] == pytest.approx(2 * one["gpu_hours"])
    slow = plan_of(capsys, *large, "--gpus", "A100:1")["estimate"]
    assert slow["gpu_hours"] > 1.3 * one["gpu_hours"]


def test_what_does_not_fit_the_named_hardware_is_status_1(sweep_yaml, capsys):
    large = ["--set", "backbones=[cogvideox/1.5-5b-i2v]"]
    plan = plan_of(capsys, *large, "--gpus", "T4:1", status=1)
    assert "about 40 GB" in plan["faults"][0]
    ranks = [*large, "--set", "placement.num_workers=4"]
    assert "placement:" in plan_of(capsys, *ranks, "--gpus", "H100:2", status=1)["faults"][0]
    assert not plan_of(capsys, *ranks, "--gpus", "H100:2x2")["faults"]
    assert not plan_of(capsys, *ranks)["faults"], "a laptop may plan what a cluster runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "H100:8", "--gpus", "A100:1"], "--gpus: give one kind of hardware to plan for, once"),
        (["--gpus", "H100:8", "--cluster"], "--gpus: give one kind of hardware to plan for, once"),
        (["--set", "results=small.yaml/below"], "small.yaml is a file"),
        (["--gpus", "H1:8"], "unknown GPU 'H1'"),
        (["--gpus", "eight"], "expected NAME:COUNT"),
        (["--set", "tasks=[{elementary_ca: {width: 4}}]", "--set", "n_test=100"], "elementary_ca"),
    ],
)
def test_wrong_input_is_one_line(sweep_yaml, capsys, arguments, message):
    assert main(["plan", sweep_yaml, *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_cluster_is_asked_for_what_it_has(sweep_yaml, capsys, monkeypatch):
    nodes = [{"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}] * 2
    asked = []
    monkeypatch.setattr("orchestrator.machine_checks.ray_nodes", lambda address: asked.append(address) or (nodes, ""))
    large = ["--set", "backbones=[cogvideox/1.5-5b-i2v]", "--set", "seeds=[0, 1, 2, 3]"]
    assert plan_of(capsys, "--cluster", *large)["hardware"] == "the cluster auto"
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    plan_of(capsys, *large)
    assert asked == ["auto", "ray-head:6379"]
    monkeypatch.setattr("orchestrator.machine_checks.ray_nodes", lambda address: (None, "nobody is there"))
    assert main(["plan", sweep_yaml, *large]) == 2
    assert "ray-head:6379 does not answer: nobody is there" in capsys.readouterr().err


def test_a_search_runs_at_most_so_many(sweep_yaml, capsys):
    assert plan_of(capsys, "--set", "search=threshold")["upper_bound"]
    for command in ("plan", "status"):
        assert main([command, sweep_yaml, "--set", "search=threshold"]) == 0
        assert "at most 8" in capsys.readouterr().out


def test_a_search_that_draws_points_counts_them(put, capsys):
    search = ["--set", "search={optuna: {space: {learning_rate: [0.001, 0.002, 0.004]}, num_samples: 2}}"]
    assert plan_of(capsys, *search)["to_run"] == 2 * 8
    drawn = trials_of("small.yaml", "recipe.learning_rate=0.004")
    put(drawn[0])
    assert plan_of(capsys, *search)["to_run"] == 15
    assert plan_of(capsys, *search)["stale"] == []
    found = status_of(capsys, *search)
    assert (found["done"], found["to_run"]) == (1, 15)


def test_many_tasks_make_a_short_table(sweep_yaml, capsys):
    tasks = ", ".join(f"{{elementary_ca: {{rule: {rule}, width: 10, steps: 3}}}}" for rule in range(30, 60))
    assert main(["plan", sweep_yaml, "--set", f"tasks=[{tasks}]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("elementary_ca (30 variants)" in line and "120" in line for line in lines)
    assert len(lines) < 15


def test_failures_of_one_cause_are_one_line(put, capsys):
    trials = trials_of()
    for index, trial in enumerate(trials[:3]):
        put(
            trial,
            "failed",
            error_kind="error",
            error=f"Traceback\nRuntimeError: row {index} is wrong",
            attempts=index + 1,
        )
    put(trials[3], "failed", error_kind="node_died", error="the node is gone")
    found = status_of(capsys)
    assert [(cause["error_kind"], cause["count"], cause["transient"]) for cause in found["failures"]] == [
        ("error", 3, False),
        ("node_died", 1, True),
    ]
    assert found["failures"][0]["attempts"] == 3
    assert found["to_run"] == 5
    assert main(["status", "small.yaml"]) == 0
    text = capsys.readouterr().out
    assert text.count("RuntimeError") == 1
    assert "error: 3 x, such as causal_lm/tiny" in text
    assert "sweep run small.yaml --retry-failed error" in text


def test_status_holds_the_estimate_against_the_truth(put, capsys):
    trials = trials_of()
    put(trials[0], minute=1)
    put(trials[1], minute=2)
    found = status_of(capsys)
    assert found["done_took_s"] == pytest.approx(50)
    guess = found["done_estimated_s"]
    assert guess > 0
    put(trials[2], minute=3)
    later = status_of(capsys)
    assert later["done_took_s"] == pytest.approx(75)
    assert later["done_estimated_s"] == pytest.approx(1.5 * guess, rel=0.1), "still as at the start"
    assert later["left_s"] > 0


def test_trials_at_once_as_they_were(put, capsys):
    for trial in trials_of()[:4]:
        put(trial, minute=1)
    assert status_of(capsys)["trials_at_once"] == pytest.approx(4)


def test_watching_ends_when_nothing_is_left(put, capsys):
    trials = trials_of()
    for trial in trials[:-1]:
        put(trial)
    later = threading.Thread(target=lambda: (time.sleep(0.3), put(trials[-1])))
    later.start()
    assert main(["status", "small.yaml", "--watch", "0.1"]) == 0
    later.join()
    text = capsys.readouterr().out
    assert "7 of 8 trials done" in text
    assert "8 of 8 trials done, 0 failed, 0 not run yet. Tables: results/small" in text


def test_watching_ends_at_ctrl_c(sweep_yaml, monkeypatch, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(status_commands.time, "sleep", interrupt)
    assert main(["status", sweep_yaml, "--watch"]) == 130
    assert "0 of 8 trials done" in capsys.readouterr().out
    assert main(["status", sweep_yaml, "--watch", "soon"]) == 2


def test_watching_reads_only_what_is_new(put, monkeypatch):
    trials = trials_of()
    put(trials[0])
    watch = RowWatch("results/small")
    assert watch.refresh()
    assert not watch.refresh()
    asked = []
    load_trials = results.load_trials
    monkeypatch.setattr(
        results, "load_trials", lambda uri, columns, ids: asked.append(ids) or load_trials(uri, columns, ids)
    )
    put(trials[1], "failed", error_kind="error", error="no")
    assert watch.refresh()
    assert asked == [{trials[1].trial_id}]
    put(trials[1], minute=5)
    assert watch.refresh()
    assert sorted(watch.frame()["state"]) == ["done", "done"]
    results.compact("results/small")
    watch.refresh()
    assert sorted(watch.frame()["trial_id"]) == sorted(trial.trial_id for trial in trials[:2])


def test_an_empty_folder_is_a_sweep_that_has_not_begun(sweep_yaml, capsys):
    found = status_of(capsys)
    assert (found["done"], found["not_run"], found["to_run"]) == (0, 8, 8)
    assert found["failures"] == []
