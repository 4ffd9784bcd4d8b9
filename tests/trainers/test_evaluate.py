from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest
import torch

from task_generators.problem import Problem, frozen_grid
from task_generators.scoring import grid_scores
from task_generators.task import Task
from task_generators.tasks.arc import Arc
from tests.trainers.toy import ToyRegressor
from trainers.backbone import BackboneSpec
from trainers.evaluate import Prediction, evaluate, summarise
from trainers.recipe import Placement, TrainRecipe


class Echo(Task):
    """Scores like any task, and adds one score of its own."""

    def generate(self, rng):
        raise NotImplementedError

    def score(self, problem, grid):
        return {**grid_scores(problem.answer, grid), "size": float(problem.answer.size)}

    def trial_scores(self, means):
        return {"most": float(means["exact_match"] > 0.5)}


class Scripted:
    """Answers problem i at attempt a with code ``script[i][a]``, None where that is None; records its batches."""

    spec = BackboneSpec(name="toy/scripted", family="baseline", trainable=False)

    def __init__(self, script):
        self.script = script
        self.batches = []

    def answer(self, task, problems, recipe, attempt):
        self.batches.append([problem.problem_id for problem in problems])
        assert torch.is_inference_mode_enabled()
        codes = [self.script[int(problem.problem_id)][attempt] for problem in problems]
        return [None if code is None else frozen_grid(np.full((2, 2), code)) for code in codes]


PROBLEMS = [Problem(frozen_grid(np.zeros((2, 2))), frozen_grid(np.ones((2, 2))), problem_id=str(i)) for i in range(5)]
ONCE = [[1], [0], [None], [1], [1]]
TWICE = [[1, 0], [0, 1], [None, 0], [None, None], [1, 1]]


def answered(script, attempts, eval_batch_size=2):
    backbone = Scripted(script)
    recipe, placement = TrainRecipe(attempts=attempts), Placement(eval_batch_size=eval_batch_size)
    return backbone, evaluate(backbone, Echo(), PROBLEMS, recipe, placement)


def test_every_problem_and_attempt_becomes_one_prediction_in_order():
    backbone, predictions = answered(TWICE, attempts=2)
    assert [(p.index, p.attempt, p.problem_id) for p in predictions] == [
        (i, a, str(i)) for i in range(5) for a in (0, 1)
    ]
    assert [p.parsed for p in predictions] == [True, True, True, True, False, True, False, False, True, True]
    assert backbone.batches == [["0", "1"], ["2", "3"], ["4"]] * 2
    for prediction in predictions:
        assert prediction.parsed == (prediction.predicted is not None)
        assert prediction.scores == Echo().score(PROBLEMS[prediction.index], prediction.predicted)


@pytest.mark.parametrize("eval_batch_size", [1, 3, 100])
def test_batch_size_changes_nothing(eval_batch_size):
    _, expected = answered(TWICE, attempts=2)
    _, predictions = answered(TWICE, attempts=2, eval_batch_size=eval_batch_size)
    assert [p.scores for p in predictions] == [p.scores for p in expected]


class Scoring(Echo):
    """Calls ``hook`` with the problem before it scores it."""

    hook: object

    def score(self, problem, grid):
        self.hook(problem)
        return super().score(problem, grid)


class Hooked(Scripted):
    """Calls ``hook`` with the number of batches answered by then before it answers one."""

    def __init__(self, script, hook):
        super().__init__(script)
        self.hook = hook

    def answer(self, task, problems, recipe, attempt):
        self.hook(len(self.batches))
        return super().answer(task, problems, recipe, attempt)


def evaluated(backbone, task, attempts=2):
    return evaluate(backbone, task, PROBLEMS, TrainRecipe(attempts=attempts), Placement(eval_batch_size=2))


def test_a_batch_is_scored_while_the_next_one_is_answered():
    second_batch_begun, first_scored = threading.Event(), threading.Event()
    waits = []

    def answering(batch):
        if batch == 1:
            second_batch_begun.set()
            waits.append(first_scored.wait(timeout=30))

    def scoring(problem):
        if problem.problem_id == "0" and not waits:
            waits.append(second_batch_begun.wait(timeout=30))
            first_scored.set()

    evaluated(Hooked(ONCE, answering), Scoring(hook=scoring), attempts=1)
    assert waits == [True, True], "each waited for the other to be under way"


def test_slow_scoring_changes_neither_the_order_nor_the_numbers():
    scored = []

    def scoring(problem):
        scored.append(problem.problem_id)
        time.sleep(0.002)

    predictions = evaluated(Scripted(TWICE), Scoring(hook=scoring))
    assert scored == list("0123401234")
    expected = answered(TWICE, attempts=2)[1]
    assert [(p.index, p.attempt, p.parsed, p.scores) for p in predictions] == [
        (p.index, p.attempt, p.parsed, p.scores) for p in expected
    ]


@pytest.mark.parametrize("bad", "0234")
@pytest.mark.parametrize("then", [None, RuntimeError("of answering")], ids=["alone", "then answering fails"])
def test_what_scoring_raises_comes_first(bad, then):
    def scoring(problem):
        if problem.problem_id == bad:
            time.sleep(0.01)
            raise ZeroDivisionError(bad)

    def answering(batch):
        if then is not None and batch == int(bad) // 2 + 1:
            raise then

    backbone = Hooked(TWICE, answering)
    with pytest.raises(ZeroDivisionError, match=bad):
        evaluated(backbone, Scoring(hook=scoring))
    assert not any(thread.name.startswith("score answers") for thread in threading.enumerate())


def test_an_interruption_is_not_kept_waiting_by_the_scores():
    gate = threading.Event()

    def answering(batch):
        if batch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(Hooked(ONCE, answering), Scoring(hook=lambda problem: gate.wait(timeout=30)), attempts=1)
    assert not gate.is_set()
    gate.set()


def test_a_batch_that_is_halved_is_scored_once_and_in_order():
    scored, sizes = [], []

    class Little(Scripted):
        def answer(self, task, problems, recipe, attempt):
            if len(problems) > 1:
                raise MemoryError
            return super().answer(task, problems, recipe, attempt)

    task = Scoring(hook=lambda problem: scored.append(problem.problem_id))
    predictions = evaluate(
        Little(ONCE), task, PROBLEMS, TrainRecipe(), Placement(eval_batch_size=4), on_batch_size=sizes.append
    )
    assert scored == [p.problem_id for p in predictions] == list("01234")
    assert sizes == [1]


def test_one_attempt_averages_over_problems():
    assert summarise(answered(ONCE, attempts=1)[1], Echo()) == pytest.approx(
        {"exact_match": 0.6, "cell_accuracy": 0.6, "size": 4.0, "parsed": 0.8, "most": 1.0}
    )


def test_a_problem_counts_if_any_attempt_is_right():
    summary = summarise(answered(TWICE, attempts=2)[1], Echo())
    assert summary["exact_match"] == pytest.approx(3 / 5)
    assert summary["parsed"] == pytest.approx(4 / 5)
    assert summary["cell_accuracy"] == pytest.approx((0.5 + 0.5 + 0 + 0 + 1) / 5)


def test_missing_scores_are_left_out_of_the_mean():
    def prediction(index, scores):
        return Prediction(str(index), index, 0, True, PROBLEMS[0].question, PROBLEMS[0].answer, None, scores)

    summary = summarise(
        [
            prediction(0, {"exact_match": True, "relative_path_length": 1.5}),
            prediction(1, {"exact_match": False}),
            prediction(2, {"exact_match": False, "relative_path_length": math.nan}),
        ],
        Echo(),
    )
    assert summary == pytest.approx({"exact_match": 1 / 3, "relative_path_length": 1.5, "parsed": 1.0, "most": 0.0})
    assert summarise([], Echo()) == {}


def test_an_arc_task_is_solved_when_any_attempt_at_every_input_is_right():
    solved, failed = [[0, 1], [1, 0], [1, 1], [None, 1], [1, None]], TWICE
    for script, expected in ((solved, 1.0), (failed, 0.0)):
        assert summarise(answered(script, attempts=2)[1], Arc())["solved"] == expected


def test_the_module_answers_in_evaluation_mode():
    backbone = ToyRegressor()
    backbone.module.train()
    predictions = evaluate(backbone, Echo(), PROBLEMS, TrainRecipe(), Placement())
    assert not backbone.module.training
    assert not any(prediction.parsed for prediction in predictions)
