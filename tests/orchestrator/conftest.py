"""What tests of the orchestrator share: rows without a trial behind them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from orchestrator import results
from orchestrator.specs import load_sweep
from orchestrator.tables import TrialResult, TrialState, new_run_id
from task_generators.problem import Split
from task_generators.scoring import grid_scores
from task_generators.splits import draw_problems
from trainers.evaluate import Prediction
from trainers.train import LossRow

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def make_result():
    """Builds a row of ``trials``; ``minute`` is when it ended."""

    def make(trial_id, state="done", minute=0, run_id=None, **fields):
        defaults = {
            "backbone": "baseline/oracle",
            "family": "baseline",
            "task": "life",
            "task_params": "{}",
            "seed": 0,
            "n_train": 3,
            "n_test": 2,
            "lora_rank": 16,
            "recipe": "{}",
            "metrics": {"exact_match": 0.5, "cell_accuracy": 0.75} if state == "done" else {},
            "finished_at": EPOCH + timedelta(minutes=minute),
        }
        return TrialResult(
            trial_id=trial_id, run_id=run_id or new_run_id(), state=TrialState(state), **(defaults | fields)
        )

    return make


@pytest.fixture
def predictions():
    """Two predictions, the second unreadable."""
    question, answer = np.zeros((2, 3), np.int8), np.ones((2, 3), np.int8)
    return [
        Prediction(
            f"life/test/{i}",
            i,
            0,
            grid is not None,
            question,
            answer,
            grid,
            {"exact_match": i == 0, "cell_accuracy": 1.0},
        )
        for i, grid in enumerate([answer, None])
    ]


@pytest.fixture
def losses():
    return [LossRow(step, 1 / step, 1e-3, 0.5, 10.0) for step in (1, 2, 3)]


@pytest.fixture
def load(tmp_path):
    """Loads the text of a sweep's YAML, with overrides of a command line."""

    def load_text(text, overrides=()):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_sweep(path, overrides)

    return load_text


@pytest.fixture
def write_study(make_result):
    """Writes trials of a sweep with predictions on their tasks' own test problems; returns the trials.

    A problem is answered rightly by trained backbones if its index is below n_train, the oracle always; a wrong answer
    has one other cell; the problem of index 7 is unreadable in every trial but the oracle's.
    """

    def write(folder, trials, *, attempts=1, **fields):
        for number, spec in enumerate(trials):
            oracle = spec.backbone == "baseline/oracle"
            rows = []
            for index, problem in enumerate(draw_problems(spec.task, Split.TEST, 0, spec.n_test)):
                for attempt in range(attempts):
                    grid = np.array(problem.answer)
                    if not oracle and (index >= spec.n_train or attempt < attempts - 1):
                        grid[0, index % grid.shape[1]] = 1 - min(grid[0, index % grid.shape[1]], 1)
                    grid = None if index == 7 and not oracle else grid
                    scores = grid_scores(problem.answer, grid)
                    parsed = grid is not None
                    rows.append(
                        Prediction(
                            problem.problem_id, index, attempt, parsed, problem.question, problem.answer, grid, scores
                        )
                    )
            right = {row.index for row in rows if row.scores["exact_match"]}
            metrics = {
                "exact_match": len(right) / spec.n_test,
                "cell_accuracy": float(np.mean([row.scores["cell_accuracy"] for row in rows])),
            }
            values = {
                "sweep": "study",
                "backbone": spec.backbone,
                "family": spec.backbone_spec.family,
                "task": spec.task.name,
                "task_params": spec.task.params_json(),
                "seed": spec.seed,
                "n_train": spec.n_train,
                "n_test": spec.n_test,
                "lora_rank": spec.lora_rank,
                "recipe": spec.recipe_json(),
                "metrics": metrics,
                "train_s": 60.0,
                "eval_s": 5.0,
                "device": "cpu" if oracle else "NVIDIA H100",
                "num_workers": 1 if oracle else 2,
                "started_at": EPOCH,
                "versions": {"code_version": "abc123", "torch_version": "2.13.0"},
            }
            results.write(folder, make_result(spec.trial_id, minute=number + 1, **(values | fields)), rows)
        return trials

    return write
