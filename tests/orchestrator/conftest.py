"""What tests of the orchestrator share: rows without a trial behind them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from orchestrator.specs import load_sweep
from orchestrator.tables import TrialResult, TrialState, new_run_id
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
