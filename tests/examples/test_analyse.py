"""The example runs as a script on a folder with little in it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator import results
from orchestrator.tables import TrialResult, TrialState
from trainers.evaluate import Prediction

ROOT = Path(__file__).parents[2]
N_TEST = 12


def write_trial(folder, number, backbone, family, n_train, num_right):
    rng = np.random.default_rng(0)
    predictions = []
    for index in range(N_TEST):
        question = rng.integers(0, 2, (3, 4), dtype=np.int8)
        answer = 1 - question
        wrong = answer.copy()
        wrong[1, 2] = 7
        grid = answer if index < num_right else wrong if index < N_TEST - 1 else None
        scores = {"exact_match": index < num_right, "cell_accuracy": 1.0 if index < num_right else 11 / 12}
        predictions.append(Prediction(f"life/{index}", index, 0, grid is not None, question, answer, grid, scores))
    result = TrialResult(
        trial_id=f"{number:016x}",
        run_id=f"{number:016x}",
        state=TrialState.DONE,
        backbone=backbone,
        family=family,
        task="life",
        task_params="{}",
        seed=0,
        n_train=n_train,
        n_test=N_TEST,
        lora_rank=0 if family == "baseline" else 16,
        recipe="{}",
        metrics={"exact_match": num_right / N_TEST, "cell_accuracy": 0.9, "parsed": 0.9},
    )
    results.write(folder, result, predictions)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "examples/analyse.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "results"
    cells = [(n_train, right) for n_train, right in ((3, 0), (10, 5), (30, 11))]
    for place, (n_train, right) in enumerate(cells):
        write_trial(folder, place, "cogvideox/tiny", "video", n_train, right)
        write_trial(folder, 10 + place, "causal_lm/tiny", "language", n_train, right // 2)
    write_trial(folder, 20, "baseline/oracle", "baseline", 0, 12)
    return folder


def test_it_shows_curves_samples_pairs_and_wrong_cells(folder):
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "analyse.png").read_bytes().startswith(b"\x89PNG")
    assert "11 wrong answers, 0 of them of another size" in done.stdout, "the twelfth could not be read"
    assert "1 of 12 cells wrong" in done.stdout
    assert done.stdout.count("[7]") == 2
    assert "cogvideox/tiny" in done.stdout


def test_a_trial_without_wrong_answers_is_no_trouble(tmp_path):
    folder = tmp_path / "results"
    write_trial(folder, 1, "cogvideox/tiny", "video", 3, N_TEST)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "0 wrong answers" in done.stdout


def test_without_results_it_says_where_some_come_from(tmp_path):
    done = run(tmp_path)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"{tmp_path}: no results there")
    assert "Traceback" not in done.stderr
