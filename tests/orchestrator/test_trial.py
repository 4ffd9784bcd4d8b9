"""One trial without Ray: what it measures, what it leaves behind when it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import backbone_cache, results, trial
from orchestrator.specs import TrialSpec
from orchestrator.trial import BackboneCache, _read_spec, classify, main, run_and_record, run_trial
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.recipe import Placement
from trainers.train import NonFiniteLossError

SPEC = TrialSpec(
    backbone="baseline/majority",
    task=TaskSpec(name="life", params={"height": 5, "width": 5}),
    n_train=10,
    lora_rank=0,
    n_test=6,
)


def test_a_warm_worker_gives_the_same_numbers(monkeypatch):
    loads = []
    load = backbone_cache.load_backbone
    monkeypatch.setattr(backbone_cache, "load_backbone", lambda *arguments: loads.append(arguments) or load(*arguments))
    cache = BackboneCache()
    other = SPEC.model_copy(update={"seed": 1})
    cold = run_trial(SPEC)[0]
    warm = [run_trial(spec, backbone_cache=cache)[0] for spec in (other, SPEC, SPEC)]
    assert [result.metrics for result in warm[1:]] == [cold.metrics, cold.metrics]
    assert len(loads) == 2, "once without the cache, once with it"
    run_trial(SPEC.model_copy(update={"backbone": "baseline/oracle"}), backbone_cache=cache)
    assert len(loads) == 3


def test_what_is_measured():
    phases = []
    result, predictions, losses = run_trial(
        SPEC, progress=lambda phase, done, total: phases.append((phase, done, total))
    )
    assert len(predictions) == SPEC.n_test
    assert losses == []
    assert result.trial_id == SPEC.trial_id
    assert (result.train_steps, result.train_loss, result.zero_stage, result.device) == (0, None, None, "cpu")
    assert min(result.load_s, result.train_s, result.eval_s) >= 0
    assert result.started_at < result.finished_at
    assert result.versions["code_version"]
    assert phases[0] == ("load", 0, 1)
    assert phases[-1] == ("evaluate", 6, 6)


def test_the_share_of_answers_that_repeat_a_training_answer():
    """Majority after one example answers with that example's answer, every time; the oracle sees no example."""
    one = SPEC.model_copy(update={"n_train": 1})
    result, predictions, _ = run_trial(one)
    assert result.metrics["repeats_training_answer"] == 1.0
    assert all(prediction.scores["repeats_training_answer"] for prediction in predictions)
    oracle = run_trial(SPEC.model_copy(update={"backbone": "baseline/oracle", "n_train": 0}))[0]
    assert "repeats_training_answer" not in oracle.metrics


def test_a_task_of_given_problems_is_solved_or_not(tmp_path):
    """One right answer of two (copying) is not enough; the oracle has both."""
    pairs = [{"input": [[i, 0]], "output": [[i, 0 if i == 4 else 1]]} for i in range(2, 6)]
    (tmp_path / "Half.json").write_text(json.dumps({"train": pairs[:2], "test": pairs[2:]}))
    task = TaskSpec(name="arc", params={"dataset": str(tmp_path), "task": "Half"})
    for backbone, exact_match, solved in (("copy_question", 0.5, 0.0), ("oracle", 1.0, 1.0)):
        spec = TrialSpec(backbone=f"baseline/{backbone}", task=task, n_train=0, lora_rank=0)
        result, predictions, _ = run_trial(spec)
        assert (result.n_test, len(predictions)) == (2, 2)
        assert (result.metrics["exact_match"], result.metrics["solved"]) == (exact_match, solved)
        run_and_record(spec, str(tmp_path / "results"))
    assert sorted(results.load_trials(tmp_path / "results")["solved"]) == [0.0, 1.0]


def test_what_fails_becomes_a_row_and_is_raised_again(tmp_path, monkeypatch):
    def evaluate(*arguments, **named):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(trial, "evaluate", evaluate)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_and_record(SPEC, str(tmp_path))
    row = results.load_trials(tmp_path).iloc[0]
    assert (row["state"], row["error_kind"]) == ("failed", "out_of_memory")
    assert row["error"].startswith("Traceback")
    assert row["error"].endswith("RuntimeError: CUDA error: out of memory")
    assert row[["exact_match", "eval_s", "device"]].isna().all()
    monkeypatch.undo()
    run_and_record(SPEC, str(tmp_path))
    assert results.finished(tmp_path) == {SPEC.trial_id}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NonFiniteLossError("x"), "non_finite_loss"),
        (MemoryError(), "out_of_memory"),
        (TimeoutError(), "timeout"),
        (FileNotFoundError(), "file_system"),
        (ValueError(), "bad_spec"),
        (AssertionError(), "assertion"),
        (RuntimeError(), "error"),
    ],
)
def test_errors_are_sorted(error, kind):
    assert classify(error) == kind


def test_a_missing_gpu_and_missing_ranks_are_said():
    with pytest.raises(ValueError, match="no GPU is visible"):
        run_trial(SPEC.model_copy(update={"placement": Placement(gpus_per_worker=1)}))
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        run_trial(SPEC.model_copy(update={"placement": Placement(num_workers=2)}))


def test_the_command_runs_one_trial(tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(SPEC.model_dump_json())
    command = [sys.executable, "-m", "orchestrator.trial", str(spec), "--results", str(tmp_path / "results")]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.startswith(SPEC.trial_id)
    assert results.finished(tmp_path / "results") == {SPEC.trial_id}


def test_a_spec_says_what_differs_from_the_published_recipe(tmp_path):
    path = tmp_path / "spec.json"
    spec = {"backbone": "cogvideox/tiny", "task": "life", "n_train": 3, "lora_rank": 4, "recipe": {"max_steps": 7}}
    path.write_text(json.dumps(spec))
    recipe = _read_spec(path).recipe
    assert recipe.max_steps == 7
    assert recipe.learning_rate == backbone_spec("cogvideox/tiny").recipe["learning_rate"]
    path.write_text(_read_spec(path).model_dump_json())
    assert _read_spec(path).recipe == recipe, "a whole spec comes back as it went"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "Invalid JSON"),
        (json.dumps(json.loads(SPEC.model_dump_json()) | {"backbone": "baseline/orakel"}), "unknown backbone"),
        (json.dumps({"backbone": "baseline/oracle"}), "task: missing; keys: backbone, task"),
        (
            json.dumps({**json.loads(SPEC.model_dump_json()), "n_trian": 3}),
            "unknown key 'n_trian'; did you mean 'n_train'?",
        ),
    ],
)
def test_a_wrong_spec_is_one_line(tmp_path, capsys, content, expected):
    path = tmp_path / "spec.json"
    path.write_text(content)
    assert main([str(path)]) == 2
    errors = capsys.readouterr().err
    assert expected.lower() in errors.lower()
    assert errors.count("\n") == 1
    assert main([str(tmp_path / "absent.json")]) == 2
