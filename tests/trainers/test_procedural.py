"""The pretraining data: repeatable, and none of the tasks in it."""

from inspect import getclosurevars
from itertools import combinations, product

import numpy as np
import pytest

from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_names
from trainers.pretraining.procedural import LIBRARY, NUM_STATES, SHORT_LIBRARY, sample_batch


@pytest.mark.parametrize("rules", [LIBRARY, SHORT_LIBRARY])
def test_answers_follow_from_caption_and_question(rules):
    first = sample_batch(np.random.default_rng(3), 16, (5, 7), rules)
    again = sample_batch(np.random.default_rng(3), 16, (5, 7), rules)
    assert np.array_equal(first.questions, again.questions)
    assert np.array_equal(first.answers, again.answers)
    assert first.questions.shape == (16, 5, 7)
    other = sample_batch(np.random.default_rng(4), 16, (5, 7), rules)
    assert not np.array_equal(first.questions, other.questions)


def test_one_family_only():
    rows = sample_batch(np.random.default_rng(0), 64, (4, 6), SHORT_LIBRARY, "row")
    assert {SHORT_LIBRARY[rule].family for rule in rows.rules} == {"row"}


@pytest.mark.parametrize("family", ["count", "row", "offset"])
@pytest.mark.parametrize("rules", [LIBRARY, SHORT_LIBRARY])
def test_no_automaton_keeps_to_two_states(rules, family):
    """A table that maps two states to themselves would hold an elementary or a Life-like rule."""
    for rule in (rule for rule in rules if rule.family == family):
        table = getclosurevars(rule.draw).nonlocals["table"]
        state_axes = 1 if family == "count" else table.ndim
        for pair in combinations(range(NUM_STATES), 2):
            outputs = {
                int(value)
                for states in product(pair, repeat=state_axes)
                for value in np.ravel(table[states])  # a count rule has one more axis: the count
            }
            assert not outputs <= set(pair), f"{family} rule is closed on {pair}"


@pytest.mark.parametrize("name", task_names())
def test_no_problem_of_a_task_occurs(name):
    """Same question and same answer, whatever the names of the colours."""
    spec = TaskSpec(
        name=name, params={"height": 7, "width": 7} if name == "maze" else {"size": 4} if name == "sudoku" else {}
    )
    task = spec.build(Split.TEST)
    problems = draw_problems(spec, Split.TEST, 0, 20 if task.can_generate() else len(task.given_problems(Split.TEST)))
    shape = problems[0].question.shape
    of_task = {_renamed(problem.question, problem.answer) for problem in problems}
    batch = sample_batch(np.random.default_rng(0), 3000, (max(3, shape[0]), max(3, shape[1])))
    assert of_task.isdisjoint(_renamed(q, a) for q, a in zip(batch.questions, batch.answers, strict=True))


def _renamed(question, answer) -> bytes:
    both = np.stack([question, answer])
    _, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[inverse].astype(np.int8).tobytes()
