import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pytest

from task_generators.problem import Grid, Problem, Split, frozen_grid
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems
from task_generators.sudoku_solver import solutions
from task_generators.task import TaskSpec
from task_generators.tasks.sudoku import Sudoku


def draw(count: int, **knobs: object) -> list[Problem]:
    batch = Sudoku(**knobs).generate_many(problem_seeds(("sudoku",), np.arange(count)))
    return [batch.problem(place) for place in range(count)]


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


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_all_288_mini_grids_are_equally_likely(difficulty: str) -> None:
    expected = 100
    answers = [problem.answer.ravel() for problem in draw(expected * 288, size=4, difficulty=difficulty)]
    _, counts = np.unique(answers, axis=0, return_counts=True)
    assert len(counts) == 288
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 287 + 4 * (2 * 287) ** 0.5


@pytest.mark.parametrize("givens", [4, 15])
def test_all_mini_puzzles_of_a_grid_are_equally_likely(givens: int) -> None:
    """Of those puzzles that have this number of givens and, by the solver, one solution."""
    problems = draw(120_000, size=4, givens=givens)
    chosen = problems[0].answer
    choices = Counter(
        (problem.question > 0).tobytes() for problem in problems if np.array_equal(problem.answer, chosen)
    )
    cells = chosen.ravel()
    expected = set()
    for places in combinations(range(16), givens):
        given = np.isin(np.arange(16), places)
        if len(solutions(frozen_grid(np.where(given, cells, 0).reshape(4, 4)))) == 1:
            expected.add(given.tobytes())
    assert set(choices) <= expected
    mean = choices.total() / len(expected)
    chi_square = sum((choices[choice] - mean) ** 2 / mean for choice in expected)
    freedom = len(expected) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def test_mini_puzzles_are_counted() -> None:
    # 25,728 puzzles with four givens: a published count (of the minimal 4x4 puzzles, those with four).
    assert Sudoku(size=4, givens=4).problem_space().startswith("25,728 puzzles")
    assert Sudoku(size=4, givens=15).problem_space().startswith("4,608 puzzles")  # any cell of any grid


def test_many_puzzles_have_one_solution_by_the_solver() -> None:
    for size, difficulty in product((4, 9), ("easy", "medium", "hard")):
        for problem in draw(100, size=size, difficulty=difficulty):
            assert [found.tolist() for found in solutions(problem.question)] == [problem.answer.tolist()]


def test_solutions_follow_no_pattern() -> None:
    """Relabelled so that the first row is 1..9, patterns would repeat; every cell below still takes many digits."""
    answers = [problem.answer for problem in draw(150, givens=70)]
    relabelled = np.array([np.argsort(answer[0])[answer - 1] for answer in answers])
    assert (relabelled[:, 0] == np.arange(9)).all()
    assert len(np.unique(relabelled, axis=0)) == 150
    assert min(len(np.unique(relabelled[:, row, column])) for row in range(1, 9) for column in range(9)) >= 6


def test_full_grids_are_nearly_uniform() -> None:
    """In 1 band or stack of 28 all three boxes hold the same triples in their lines; a grid that is filled cell by cell
    with whatever fits has up to three times as many."""
    answers = np.stack([problem.answer for problem in draw(4000, givens=70)]).astype(np.int64)
    shares = []
    for grids in (answers, answers.transpose(0, 2, 1)):
        triples = np.sort((1 << grids).reshape(-1, 3, 3, 3, 3).sum(axis=4), axis=2)
        shares += (triples == triples[..., :1]).all(axis=(2, 3)).mean(axis=0).tolist()
    assert len(shares) == 6
    assert all(abs(share - 1 / 28) < 0.012 for share in shares)


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
    questions = np.stack([problem.question for problem in draw(100, size=size)])
    keys = task.canonical_keys(questions)
    for _ in range(5):
        copies = np.stack([random_copy(question, rng) for question in questions])
        assert np.array_equal(task.canonical_keys(copies), keys)
    assert np.array_equal(task.canonical_keys(np.rot90(questions, axes=(1, 2))), keys)
    if size == 9:
        assert len(set(keys.tolist())) == 100


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


def test_distances_compare_questions() -> None:
    task = Sudoku(size=4)
    batch = task.generate_many(problem_seeds(("far",), np.arange(50)))
    changed = batch.questions[7].copy()
    changed[0] = 9
    distances = task.distances(batch, replace(batch.problem(7), question=changed))
    assert distances[7] == 4 / 16
    assert all(0.25 <= distance <= 1 for distance in distances)


def test_published_pictures_are_304_and_144_px() -> None:
    assert Sudoku.style.size_px((9, 9)) == (304, 304)
    assert Sudoku.style.size_px((4, 4)) == (144, 144)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    batch = Sudoku().generate_many(problem_seeds(("pinned",), np.arange(20)))
    digest = hashlib.sha256(batch.questions.tobytes() + batch.answers.tobytes())
    assert (Sudoku.generator_version, digest.hexdigest()[:16]) == (2, "82cdd380e78e2ea0")
    batch = Sudoku(size=4).generate_many(problem_seeds(("pinned",), np.arange(20)))
    digest = hashlib.sha256(batch.questions.tobytes() + batch.answers.tobytes())
    assert (Sudoku.generator_version, digest.hexdigest()[:16]) == (2, "7e739ffe310da180")
