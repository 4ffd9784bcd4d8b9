import hashlib
from collections import Counter, deque

import numpy as np
import pytest

from task_generators.problem import Grid, Problem, Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.maze import Maze

WALL, OPEN, END, START, SOLUTION = range(5)


def draw(count: int, **knobs: object) -> list[Problem]:
    return Maze(**knobs).draw(count)


def neighbours(grid: Grid, cell: tuple[int, int]) -> list[tuple[int, int]]:
    row, column = cell
    around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [at for at in around if 0 <= at[0] < grid.shape[0] and 0 <= at[1] < grid.shape[1] and grid[at] != WALL]


def shortest_way(grid: Grid) -> list[tuple[int, int]]:
    """Breadth-first search from start to end."""
    (start,), (end,) = (list(zip(*np.nonzero(grid == code), strict=True)) for code in (START, END))
    came_from = {start: start}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for after in neighbours(grid, cell):
            if after not in came_from:
                came_from[after] = cell
                queue.append(after)
    assert len(came_from) == (grid != WALL).sum(), "every open cell can be reached"
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


SHAPES = [
    {},
    {"height": 5, "width": 5},
    {"height": 7, "width": 13},
    {"height": 9, "width": 9, "start": (3, 5), "end": (7, 1)},
]


@pytest.mark.parametrize("knobs", SHAPES)
def test_mazes_are_spanning_trees_and_answers_their_only_path(knobs: dict) -> None:
    for problem in draw(50, **knobs):
        question, answer = problem.question, problem.answer
        height, width = question.shape
        assert (question[1::2, 1::2] != WALL).all()
        assert (question[::2, ::2] == WALL).all()
        num_rooms = (height // 2) * (width // 2)
        # Connected (checked by the search) and one passage fewer than rooms: a tree, so the way is the only one.
        assert (question != WALL).sum() == 2 * num_rooms - 1
        expected = question.copy()
        for cell in shortest_way(question)[1:-1]:
            expected[cell] = SOLUTION
        assert np.array_equal(answer, expected)


def test_start_and_end_lie_where_the_knobs_say() -> None:
    for problem in draw(5):
        assert problem.question[1, 1] == START
        assert problem.question[19, 19] == END
    for problem in draw(5, height=9, width=9, start=(3, 5), end=(7, 1)):
        assert problem.question[3, 5] == START
        assert problem.question[7, 1] == END


def test_states_grow_the_path_cell_by_cell_from_the_start() -> None:
    for problem in draw(5, height=13, width=13):
        way = shortest_way(problem.question)[1:-1]
        assert len(problem.states) == len(way) - 1
        expected = problem.question.copy()
        for cell, state in zip(way, problem.states, strict=False):
            expected[cell] = SOLUTION
            assert np.array_equal(state, expected)


@pytest.mark.parametrize(
    ("height", "width", "num_trees"),
    # Spanning trees of the 2x2, 2x3 and 3x3 grid graphs (Kirchhoff).
    [(5, 5, 4), (5, 7, 15), (7, 7, 192)],
)
def test_every_spanning_tree_is_equally_likely(height: int, width: int, num_trees: int) -> None:
    expected = 40
    counts = Counter(problem.question.tobytes() for problem in draw(expected * num_trees, height=height, width=width))
    assert len(counts) == num_trees
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = num_trees - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def copies(question: Grid) -> set[bytes]:
    """The maps of the square that keep the two corners, or exchange them and the roles of start and end."""
    exchanged = question.copy()
    exchanged[question == START], exchanged[question == END] = END, START
    turned = np.rot90(exchanged, 2)
    return {np.ascontiguousarray(copy).tobytes() for copy in (question, question.T, turned, turned.T)}


def test_no_symmetric_copy_of_a_test_problem_is_trained_on() -> None:
    spec = TaskSpec.model_validate({"maze": {"height": 7, "width": 7}})
    tested = draw_problems(spec, Split.TEST, 0, 64)
    trained = {problem.question.tobytes() for problem in draw_problems(spec, Split.TRAIN, 0, 200)}
    assert len(trained) > 60
    all_copies = set().union(*(copies(problem.question) for problem in tested))
    assert len(all_copies) > 64
    assert not all_copies & trained


def test_published_picture_is_336_px() -> None:
    assert Maze.style.size_px((21, 21)) == (336, 336)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    digest = hashlib.sha256()
    for problem in Maze().draw(20, "pinned"):
        digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (Maze.generator_version, digest.hexdigest()[:16]) == (2, "5ff9f347ca7434e7")
