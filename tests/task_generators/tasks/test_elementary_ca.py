import hashlib

import numpy as np
import pytest

from task_generators.problem import Problem, Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.elementary_ca import ElementaryCellularAutomaton


def naive_rows(first_row: list[int], rule: int, steps: int, boundary: str) -> list[list[int]]:
    """Wolfram's numbering, cell by cell: the new cell is the rule's binary digit number 4 left + 2 self + right."""
    digits = f"{rule:08b}"[::-1]
    rows = [first_row]
    for _ in range(steps):
        row = rows[-1]
        beyond = (row[-1], row[0]) if boundary == "periodic" else (0, 0)
        padded = [beyond[0], *row, beyond[1]]
        rows.append([int(digits[4 * padded[i] + 2 * padded[i + 1] + padded[i + 2]]) for i in range(len(row))])
    return rows


@pytest.mark.parametrize("boundary", ["periodic", "fixed"])
def test_every_rule_is_computed_right(boundary: str) -> None:
    for rule in range(256):
        width, steps = 3 + rule % 17, 1 + rule % 9
        task = ElementaryCellularAutomaton(rule=rule, width=width, steps=steps, boundary=boundary)
        (problem,) = task.draw(1, rule)
        first_row = (problem.question[0] - 1).tolist()
        expected = naive_rows(first_row, rule, steps, boundary)
        assert (problem.answer - 1).tolist() == expected
        assert problem.question[0].tolist() == problem.answer[0].tolist()
        assert (problem.question[1:] == 0).all()


def test_states_fill_one_row_after_the_other() -> None:
    (problem,) = ElementaryCellularAutomaton().draw(1)
    assert len(problem.states) == 6
    for num_rows, state in enumerate(problem.states, start=2):
        assert np.array_equal(state[:num_rows], problem.answer[:num_rows])
        assert (state[num_rows:] == 0).all()


def test_first_rows_are_uniform() -> None:
    task = ElementaryCellularAutomaton(width=4, steps=1)
    codes = [int("".join(map(str, problem.question[0] - 1)), 2) for problem in task.draw(3200)]
    counts = np.bincount(codes, minlength=16)
    assert ((counts - 200) ** 2 / 200).sum() < 15 + 5 * 30**0.5


def first_rows(problems: list[Problem]) -> set[tuple[int, ...]]:
    return {tuple(problem.question[0].tolist()) for problem in problems}


@pytest.mark.parametrize("boundary", ["periodic", "fixed"])
def test_no_rotation_or_reflection_of_a_test_problem_is_trained_on(boundary: str) -> None:
    spec = TaskSpec.model_validate({"elementary_ca": {"width": 10, "steps": 4, "boundary": boundary}})
    tested = first_rows(draw_problems(spec, Split.TEST, 0, 64))
    trained = first_rows(draw_problems(spec, Split.TRAIN, 0, 500))
    assert len(trained) > 400
    shifts = range(10) if boundary == "periodic" else [0]
    copies = {row[shift:] + row[:shift] for row in tested for shift in shifts}
    copies |= {row[::-1] for row in copies}
    assert not copies & trained


def test_published_picture_is_256_by_128_px() -> None:
    task = ElementaryCellularAutomaton()
    assert task.style.size_px(task.draw(1)[0].question.shape) == (128, 256)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    digest = hashlib.sha256()
    for problem in ElementaryCellularAutomaton().draw(20, "pinned"):
        digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (ElementaryCellularAutomaton.generator_version, digest.hexdigest()[:16]) == (2, "9981fae68600d21b")
