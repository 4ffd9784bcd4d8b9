import hashlib
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest

from task_generators.problem import Grid, Problem, Split, frozen_grid
from task_generators.rng import problem_rng
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.sudoku import Sudoku


def draw(count: int, **knobs: object) -> list[Problem]:
    return [Sudoku(**knobs).generate(problem_rng("sudoku", index)) for index in range(count)]


def units(grid: Grid) -> Iterator[list[int]]:
    """The digits of every row, column and box."""
    side = round(len(grid) ** 0.5)
    yield from grid.tolist()
    yield from grid.T.tolist()
    for top, left in product(range(0, len(grid), side), repeat=2):
        yield grid[top : top + side, left : left + side].ravel().tolist()


def brute_force(grid: list[list[int]]) -> Iterator[list[list[int]]]:
    """All solutions, by trying every digit in the emptiest-choice cell. Shares nothing with the package's solver."""
    size = len(grid)
    side = round(size**0.5)
    best = None
    for row, column in product(range(size), repeat=2):
        if grid[row][column] == 0:
            top, left = row - row % side, column - column % side
            seen = {*grid[row], *(line[column] for line in grid)}
            seen |= {cell for line in grid[top : top + side] for cell in line[left : left + side]}
            fitting = [digit for digit in range(1, size + 1) if digit not in seen]
            if best is None or len(fitting) < len(best[2]):
                best = (row, column, fitting)
    if best is None:
        yield [list(row) for row in grid]
        return
    row, column, fitting = best
    for digit in fitting:
        grid[row][column] = digit
        yield from brute_force(grid)
    grid[row][column] = 0


@pytest.mark.parametrize(
    ("count", "knobs", "num_givens"),
    [
        (12, {}, 40),
        (8, {"difficulty": "medium"}, 32),
        (4, {"difficulty": "hard"}, 24),
        (4, {"givens": 23}, 23),
        (4, {"givens": 70}, 70),
        (150, {"size": 4}, 8),
        (50, {"size": 4, "difficulty": "hard"}, 5),
        (50, {"size": 4, "givens": 4}, 4),
    ],
)
def test_puzzles_have_the_stored_answer_as_their_only_solution(count: int, knobs: dict, num_givens: int) -> None:
    for problem in draw(count, **knobs):
        question, answer = problem.question, problem.answer
        assert (question > 0).sum() == num_givens
        assert (question[question > 0] == answer[question > 0]).all()
        assert all(sorted(unit) == list(range(1, len(answer) + 1)) for unit in units(answer))
        assert list(brute_force(question.tolist())) == [answer.tolist()]


def test_all_288_mini_grids_occur_and_none_is_rare() -> None:
    _, counts = np.unique([problem.answer.ravel() for problem in draw(5760, size=4)], axis=0, return_counts=True)
    assert len(counts) == 288
    assert counts.min() >= 3
    assert counts.max() <= 60


def test_solutions_follow_no_pattern() -> None:
    """Relabelled so that the first row is 1..9, patterns would repeat; every cell below still takes many digits."""
    answers = [problem.answer for problem in draw(150, givens=70)]
    relabelled = np.array([np.argsort(answer[0])[answer - 1] for answer in answers])
    assert (relabelled[:, 0] == np.arange(9)).all()
    assert len(np.unique(relabelled, axis=0)) == 150
    assert min(len(np.unique(relabelled[:, row, column])) for row in range(1, 9) for column in range(9)) >= 6


def random_copy(grid: Grid, rng: np.random.Generator) -> Grid:
    """A random symmetry: rename digits, permute bands and rows in bands, stacks and columns in stacks, transpose."""
    size = len(grid)
    side = round(size**0.5)
    names = np.concatenate([[0], rng.permutation(size) + 1])
    rows, columns = (
        np.concatenate([band * side + rng.permutation(side) for band in rng.permutation(side)]) for _ in range(2)
    )
    copy = names[grid][rows][:, columns]
    return frozen_grid(copy.T if rng.random() < 0.5 else copy)


@pytest.mark.parametrize("size", [4, 9])
def test_the_key_survives_every_symmetry_and_tells_puzzles_apart(size: int) -> None:
    rng = np.random.default_rng(0)
    task = Sudoku(size=size)
    problems = draw(60, size=size)
    for problem in problems:
        for _ in range(5):
            copy = Problem(random_copy(problem.question, rng), problem.answer)
            assert task.canonical_key(copy) == task.canonical_key(problem)
        turned = Problem(frozen_grid(np.rot90(problem.question)), problem.answer)
        assert task.canonical_key(turned) == task.canonical_key(problem)
    if size == 9:
        assert len({task.canonical_key(problem) for problem in problems}) == 60


def all_mini_copies(grid: Grid) -> set[bytes]:
    """Every rearrangement of a 4x4 grid, digits renamed in the order in which they first occur."""
    orders = [[2 * a + b, 2 * a + 1 - b, 2 - 2 * a + c, 3 - 2 * a - c] for a, b, c in product((0, 1), repeat=3)]
    copies = set()
    for rows, columns in product(orders, orders):
        for copy in (grid[rows][:, columns], grid[rows][:, columns].T):
            first_seen = dict.fromkeys(cell for cell in copy.ravel().tolist() if cell)
            names = {0: 0, **{digit: name for name, digit in enumerate(first_seen, start=1)}}
            copies.add(bytes(names[cell] for cell in copy.ravel().tolist()))
    return copies


def test_no_symmetric_copy_of_a_test_problem_is_trained_on() -> None:
    # Five givens: so few kinds of puzzle that chance alone would make copies.
    spec = TaskSpec.model_validate({"sudoku": {"size": 4, "difficulty": "hard"}})
    tested = [min(all_mini_copies(problem.question)) for problem in draw_problems(spec, Split.TEST, 0, 60)]
    trained = [min(all_mini_copies(problem.question)) for problem in draw_problems(spec, Split.TRAIN, 0, 120)]
    assert len(set(trained)) < 120
    assert not set(tested) & set(trained)


def test_mini_copies_are_the_whole_group() -> None:
    assert len({tuple(order) for order in permutations(range(4)) if {*order[:2]} in ({0, 1}, {2, 3})}) == 8
    problem = draw(1, size=4)[0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert min(all_mini_copies(random_copy(problem.question, rng))) == min(all_mini_copies(problem.question))


def test_published_pictures_are_304_and_144_px() -> None:
    assert Sudoku.style.size_px((9, 9)) == (304, 304)
    assert Sudoku.style.size_px((4, 4)) == (144, 144)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    digest = hashlib.sha256()
    for index in range(20):
        problem = Sudoku().generate(problem_rng("pinned", index))
        digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (Sudoku.generator_version, digest.hexdigest()[:16]) == (1, "79f7dfe461b56c27")
