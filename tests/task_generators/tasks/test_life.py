import hashlib

import numpy as np
import pytest

from task_generators.problem import Grid, Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.life import PATTERNS, Life

RULES = ["B3/S23", "B3/S2", "B3678/S34678", "B3/S12345", "B2/S", "B0/S8", "B/S"]


def naive_generation(grid: list[list[int]], born: str, survives: str, edges: str) -> list[list[int]]:
    """Cell by cell, counting the neighbours of each."""
    height, width = len(grid), len(grid[0])
    after = [[0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            count = 0
            for down in (-1, 0, 1):
                for across in (-1, 0, 1):
                    r, c = row + down, column + across
                    if edges == "torus":
                        r, c = r % height, c % width
                    if (down, across) != (0, 0) and 0 <= r < height and 0 <= c < width:
                        count += grid[r][c]
            after[row][column] = int(str(count) in (survives if grid[row][column] else born))
    return after


@pytest.mark.parametrize("edges", ["dead", "torus"])
@pytest.mark.parametrize("rule", RULES)
def test_answers_follow_the_rule(rule: str, edges: str) -> None:
    born, survives = (part[1:] for part in rule.split("/"))
    for index in range(10):
        task = Life(rule=rule, edges=edges, height=3 + index % 6, width=3 + index % 5, steps=1 + index % 4)
        (problem,) = task.draw(1, index)
        grids = [problem.question.tolist()]
        for _ in range(task.steps):
            grids.append(naive_generation(grids[-1], born, survives, edges))
        assert problem.answer.tolist() == grids[-1]
        assert [state.tolist() for state in problem.states] == grids[1:-1]


def test_a_glider_flies() -> None:
    glider = np.zeros((8, 8), dtype=np.int8)
    glider[[0, 1, 2, 2, 2], [1, 2, 0, 1, 2]] = 1
    torus = Life(edges="torus")
    assert np.array_equal(torus.after(glider[None], 4)[0], np.roll(glider, (1, 1), axis=(0, 1)))
    assert np.array_equal(torus.after(glider[None], 32)[0], glider)


def test_density_is_the_share_that_starts_alive() -> None:
    for density in (0.1, 0.4, 0.8):
        task = Life(density=density, height=10, width=10)
        alive = np.mean([problem.question for problem in task.draw(200)])
        assert abs(alive - density) < 0.02


@pytest.mark.parametrize("pattern", PATTERNS)
def test_classic_patterns_are_all_boards_that_hold_one(pattern: str) -> None:
    task = Life(pattern=pattern, height=9, width=8)
    drawn = {problem.question.tobytes() for problem in task.draw(8000)}
    assert f"{len(drawn)} boards" == task.problem_space()
    num_alive = sum(row.count("#") for row in PATTERNS[pattern])
    assert {sum(board) for board in drawn} == {num_alive}


@pytest.mark.parametrize(
    ("pattern", "period", "moves"), [("beacon", 2, False), ("toad", 2, False), ("glider", 4, True)]
)
def test_classic_patterns_do_what_they_are_known_for(pattern: str, period: int, moves: bool) -> None:
    task = Life(pattern=pattern, edges="torus", steps=period)
    for problem in task.draw(50):
        assert np.array_equal(problem.question, problem.answer) != moves
        assert problem.answer.sum() == problem.question.sum()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"pattern": "acorn", "width": 6}, "pattern = 'acorn': needs a height and a width of at least 7"),
        ({"pattern": "glider", "density": 0.2}, "density = 0.2: leave it out, or leave out pattern = 'glider'"),
        ({"rule": "conways"}, "as in B3/S23, or one of conway, day_and_night"),
    ],
)
def test_impossible_knobs_are_errors(knobs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec(name="life", params=knobs)


def test_rules_have_names() -> None:
    assert Life(rule="Day_and_Night").rule == "B3678/S34678"


def test_rules_have_one_spelling() -> None:
    assert Life(rule=" b32/s2332 ").rule == "B23/S23"


def copies(grid: Grid, edges: str) -> set[bytes]:
    turned = [np.rot90(flipped, turns) for turns in range(4) for flipped in (grid, grid.T)]
    shifts = [(down, across) for down in range(6) for across in range(6)] if edges == "torus" else [(0, 0)]
    return {np.roll(copy, shift, axis=(0, 1)).tobytes() for copy in turned for shift in shifts}


@pytest.mark.parametrize("edges", ["dead", "torus"])
def test_no_symmetric_copy_of_a_test_problem_is_trained_on(edges: str) -> None:
    # Few living cells, so that chance alone would make copies.
    spec = TaskSpec.model_validate({"life": {"height": 6, "width": 6, "density": 0.06, "edges": edges}})
    tested = draw_problems(spec, Split.TEST, 0, 20)
    trained = {problem.question.tobytes() for problem in draw_problems(spec, Split.TRAIN, 0, 400)}
    assert not set().union(*(copies(problem.question, edges) for problem in tested)) & trained


def test_published_picture_is_272_px() -> None:
    assert Life.style.size_px((8, 8)) == (272, 272)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    digest = hashlib.sha256()
    for problem in Life().draw(20, "pinned"):
        digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (Life.generator_version, digest.hexdigest()[:16]) == (2, "7d0d4a0f52bb54a7")
