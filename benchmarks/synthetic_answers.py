"""The invented answers of ``benchmarks.synthetic_study``, which says what they are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import ndtr, ndtri

from orchestrator.analysis.published_table import published, published_name
from orchestrator.tables import GRID, PREDICTIONS
from orchestrator.trial_spec import TrialSpec
from task_generators.problem import Problem, Split
from task_generators.rng import problem_rng
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SYNTHETIC = "synthetic"
EXAMPLES_NEEDED = {
    "wan/2.1-14b-i2v": ("cogvideox/1.5-5b-i2v", 1.5),
    "cogvideox/1.5-5b-i2v-random": ("cogvideox/1.5-5b-i2v", 8.0),
    "causal_lm/qwen3-8b": ("causal_lm/qwen3-4b-instruct-2507", 0.7),
}
"""Backbone -> the published one, and how many times as many examples it needs: invented."""
DIFFICULTY_SD, TASTE_SD, SEED_SD = 0.9, 0.5, 0.12
WIDENED = math.sqrt(1 + DIFFICULTY_SD**2 + TASTE_SD**2 + SEED_SD**2)
UNREADABLE = {"video": 0.03, "language": 0.08, "vision_language": 0.08}
"""Share of the wrong answers."""
NO_ROW = 0.03
"""Share of the wrong answers of language models that lack the last row."""
PADDING = -1
"""In grids that are put into one array with larger ones."""
FITTED_POINTS = 3
"""A learning curve is fitted to so many published numbers, at least."""


def rank_factor(rank: int) -> float:
    """How many times as many examples a rank needs: as good from 32 up, as the paper says; below invented."""
    return max(1.0, 32 / max(rank, 1)) ** 0.2


@dataclass(frozen=True)
class TestSet:
    """A task's test problems as the columns that all its trials share, and as arrays where all have one shape."""

    problems: Sequence[Problem]
    problem_ids: pa.Array
    questions: pa.Array
    answers: pa.Array
    padded_questions: npt.NDArray[np.int8]
    padded_answers: npt.NDArray[np.int8]
    codes: npt.NDArray[np.int8]
    place_of_code: npt.NDArray[np.int64]
    scores: frozenset[str]
    difficulty: Floats


@cache
def test_set(task_json: str, num_problems: int) -> TestSet:
    """Drawn once a task."""
    task = TaskSpec.model_validate_json(task_json)
    problems = draw_problems(task, Split.TEST, 0, num_problems)
    question_NHW, answer_NHW = (
        _padded([getattr(problem, grid) for problem in problems]) for grid in ("question", "answer")
    )
    codes = np.unique(np.concatenate([question_NHW.ravel(), answer_NHW.ravel()]))
    codes = codes[codes != PADDING]
    place_of_code = np.zeros(256, dtype=np.int64)
    place_of_code[codes.astype(np.int64)] = np.arange(len(codes))
    built = task.build(Split.TEST)
    return TestSet(
        problems=problems,
        problem_ids=pa.array([problem.problem_id for problem in problems]),
        questions=pa.array([problem.question.tolist() for problem in problems], GRID),
        answers=pa.array([problem.answer.tolist() for problem in problems], GRID),
        padded_questions=question_NHW,
        padded_answers=answer_NHW,
        codes=codes,
        place_of_code=place_of_code,
        scores=frozenset(built.score(problems[0], problems[0].answer)) & set(PREDICTIONS.names),
        difficulty=problem_rng(SYNTHETIC, "difficulty", task_json).normal(0, DIFFICULTY_SD, num_problems),
    )


def _padded(grids: Sequence[npt.NDArray[np.int8]]) -> npt.NDArray[np.int8]:
    """(N, H, W) with ``PADDING`` where a grid is smaller than the largest."""
    height, width = (max(grid.shape[axis] for grid in grids) for axis in (0, 1))
    whole = np.full((len(grids), height, width), PADDING, dtype=np.int8)
    for target, grid in zip(whole, grids, strict=True):
        target[: grid.shape[0], : grid.shape[1]] = grid
    return whole


def arrow_grids(grids_NHW: npt.NDArray[np.int8], readable_N: Flags) -> pa.ListArray:
    """Grids with ``PADDING`` below and to the right as a column of lists; null where not readable."""
    kept_NHW = (grids_NHW != PADDING) & readable_N[:, None, None]
    widths = kept_NHW.sum(axis=2)
    rows = pa.ListArray.from_arrays(_offsets(widths[widths > 0]), pa.array(grids_NHW[kept_NHW]))
    return pa.ListArray.from_arrays(_offsets((widths > 0).sum(axis=1)), rows, mask=pa.array(~readable_N))


def _offsets(lengths: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


@cache
def learning_line(backbone: str, name: str) -> tuple[float, float]:
    """``a``, ``b`` of ``Phi(a + b log n_train)``: fitted to the published numbers, or drawn from the names."""
    rows = published()
    wanted = (rows["task"] == name) & (rows["backbone"] == backbone) & (rows["metric"] == "exact_match")
    rows = rows[wanted].drop_duplicates("n_train")
    if len(rows) < FITTED_POINTS:
        rng = problem_rng(SYNTHETIC, "line", backbone, name)
        b = float(rng.uniform(0.35, 0.8))
        return -b * math.log(rng.uniform(60, 3000)), b
    share = np.clip(rows["value"].to_numpy(float), 0.0025, 0.9975)
    weight = np.sqrt(share * (1 - share) + 0.005)
    b, a = np.polyfit(np.log(rows["n_train"].to_numpy(float)), ndtri(share), 1, w=weight)
    return float(a), float(b)


@cache
def arc_share(backbone: str, task: str, concept: str, attempts: int) -> float:
    """Published share of inputs (of ConceptARC) or tasks (of ARC-AGI-1) that are right in so many attempts."""
    rows = published()
    rows = rows[(rows["task"] == task) & (rows["subset"] == concept) & (rows["backbone"] == backbone)]
    rows = rows[rows["attempts"] == attempts]
    assert len(rows) == 1, (backbone, task, concept)
    return float(rows["value"].iloc[0])


def right_on_average(spec: TrialSpec) -> float:
    """The normal score of the share of problems that a trial gets right: ``Phi`` of it is the share."""
    name, subset = published_name(spec.task.name, spec.task.params_json()) or (spec.task.label(), "")
    if spec.task.name == "arc":
        share = arc_share(spec.backbone, name, subset, spec.recipe.attempts)
        return float(ndtri(np.clip(share, 0.01, 0.99)))
    backbone, needed = EXAMPLES_NEEDED.get(spec.backbone, (spec.backbone, 1.0))
    a, b = learning_line(backbone, name)
    return a + b * math.log(max(spec.n_train, 1) / (needed * rank_factor(spec.lora_rank)))


@cache
def survives_coding(backbone: str, task_json: str, num_problems: int) -> Flags:
    """Which answers a video backbone's encoder and decoder give back as they were, (N,)."""
    rng = problem_rng(SYNTHETIC, "coding", backbone, task_json)
    share = rng.choice([1.0, 0.995, 0.97, 0.9], p=[0.6, 0.2, 0.1, 0.1])
    return rng.random(num_problems) < share


@dataclass(frozen=True)
class Answers:
    """A trial's rows of ``predictions``: M = problems x attempts, problem after problem."""

    columns: dict[str, pa.Array]
    metrics: dict[str, float]


def answers_of(spec: TrialSpec) -> Answers:
    """Draw the answers of a trial, and score them."""
    key = spec.task.model_dump_json()
    tests = test_set(key, spec.n_test)
    rng = problem_rng(SYNTHETIC, "answers", spec.trial_id)
    family = spec.backbone_spec.family
    attempts = spec.recipe.attempts
    place_M = np.repeat(np.arange(spec.n_test), attempts)
    truth_MHW = tests.padded_answers[place_M]
    cells_MHW = truth_MHW.copy()
    readable_M = np.ones(len(place_M), dtype=bool)
    if family == "baseline":
        cells_MHW = BASELINES[spec.backbone](tests)[place_M]
    else:
        wrong_M = ~_right(spec, tests, rng)
        chance_M = rng.random(len(place_M))
        readable_M = ~(wrong_M & (chance_M < UNREADABLE[family]))
        _spoil(cells_MHW, wrong_M, tests, rng)
        if family != "video":
            lacks_row_M = wrong_M & (chance_M > 1 - NO_ROW)
            last_row_M = (truth_MHW[:, :, 0] != PADDING).sum(axis=1) - 1
            cells_MHW[lacks_row_M, last_row_M[lacks_row_M]] = PADDING
    in_truth_MHW = truth_MHW != PADDING
    same_shape_M = ((cells_MHW != PADDING) == in_truth_MHW).all(axis=(1, 2))
    right_cells_M = ((cells_MHW == truth_MHW) & in_truth_MHW).sum(axis=(1, 2))
    accuracy_M = np.where(readable_M & same_shape_M, right_cells_M / in_truth_MHW.sum(axis=(1, 2)), 0.0)
    right_M = accuracy_M == 1
    scores: dict[str, Any] = {"exact_match": right_M, "cell_accuracy": accuracy_M, "parsed": readable_M}
    metrics: dict[str, float] = {}
    if "path_success" in tests.scores:
        valid_M = right_M | (readable_M & (rng.random(len(right_M)) < 0.15 * right_M.mean()))
        path_M = valid_M | (readable_M & (rng.random(len(right_M)) < 0.5 * right_M.mean()))
        length_M = np.where(valid_M, 1.0, 1 + rng.exponential(0.15, len(right_M)))
        scores |= {"valid_solution": valid_M, "path_success": path_M}
        scores["relative_path_length"] = pa.array(length_M, mask=~path_M)
        if path_M.any():
            metrics["relative_path_length"] = float(length_M[path_M].mean())
    if spec.n_train:
        repeats_M = readable_M & ~right_M & (rng.random(len(right_M)) < 0.5 * math.exp(-spec.n_train / 20))
        scores["repeats_training_answer"] = repeats_M
    for name in ("parsed", "cell_accuracy", "repeats_training_answer"):
        if name in scores:
            metrics[name] = float(scores[name].mean())
    for name in {"exact_match", "valid_solution", "path_success"} & set(scores):
        metrics[name] = float(scores[name].reshape(-1, attempts).any(axis=1).mean())
    if spec.task.name == "arc":
        metrics["solved"] = float(metrics["exact_match"] == 1)
    if family == "video":
        metrics["roundtrip_exact_match"] = float(survives_coding(spec.backbone, key, spec.n_test).mean())
    place = pa.array(place_M)
    columns = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in scores.items()}
    columns |= {
        "problem_id": tests.problem_ids.take(place),
        "index": pa.array(place_M.astype(np.int32)),
        "attempt": pa.array(np.tile(np.arange(attempts, dtype=np.int32), spec.n_test)),
        "question": tests.questions if attempts == 1 else tests.questions.take(place),
        "answer": tests.answers if attempts == 1 else tests.answers.take(place),
        "predicted": arrow_grids(cells_MHW, readable_M),
    }
    return Answers(columns, metrics)


def _right(spec: TrialSpec, tests: TestSet, rng: np.random.Generator) -> Flags:
    """Which answers are right, (N * attempts,)."""
    key = spec.task.model_dump_json()
    taste_N = problem_rng(SYNTHETIC, "taste", key, spec.backbone).normal(0, TASTE_SD, spec.n_test)
    level = right_on_average(spec) * WIDENED + rng.normal(0, SEED_SD)
    right_N = rng.random(spec.n_test) < ndtr(level + tests.difficulty + taste_N)
    if spec.backbone_spec.family == "video":
        right_N &= survives_coding(spec.backbone, key, spec.n_test)
    attempts = spec.recipe.attempts
    first_N = np.minimum(rng.geometric(0.75, spec.n_test) - 1, attempts - 1)
    attempt = np.arange(attempts)
    again = rng.random((spec.n_test, attempts)) < 0.7
    since = (attempt == first_N[:, None]) | ((attempt > first_N[:, None]) & again)
    return (right_N[:, None] & since).ravel()


def _spoil(cells_MHW: npt.NDArray[np.int8], wrong_M: Flags, tests: TestSet, rng: np.random.Generator) -> None:
    """Put another code into at least one cell of every wrong answer."""
    of_wrong = cells_MHW[wrong_M]
    rate = rng.beta(1, 6, (len(of_wrong), 1, 1))
    draws = np.where(of_wrong == PADDING, 2.0, rng.random(of_wrong.shape, dtype=np.float32))
    changed = (draws < rate) | (draws == draws.min(axis=(1, 2), keepdims=True, initial=2.0))
    old = tests.place_of_code[of_wrong[changed]]
    of_wrong[changed] = tests.codes[(old + rng.integers(1, len(tests.codes), len(old))) % len(tests.codes)]
    cells_MHW[wrong_M] = of_wrong


def _majority(tests: TestSet) -> npt.NDArray[np.int8]:
    """What the test answers hold most often at each place: near to what a sample of training answers would say."""
    counts = np.stack([(tests.padded_answers == code).sum(axis=0) for code in tests.codes])
    return np.broadcast_to(tests.codes[counts.argmax(axis=0)], tests.padded_answers.shape)


BASELINES = {
    "baseline/copy_question": lambda tests: tests.padded_questions,
    "baseline/oracle": lambda tests: tests.padded_answers,
    "baseline/majority": _majority,
}
