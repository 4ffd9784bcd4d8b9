import hashlib
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from task_generators.hitori_solver import solutions
from task_generators.problem import Batch, Grid, Split
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.hitori import FEWEST_AND_MOST_SHADED, Hitori


def draw(count: int, **knobs: object) -> Batch:
    return Hitori(**knobs).generate_many(problem_seeds(("hitori",), np.arange(count)))


@cache
def all_shadings(size: int) -> npt.NDArray[np.bool_]:
    """(masks, cells): all shadings whose shaded cells share no side and whose open cells hang together."""
    num_cells = size * size
    before = [{cell - size} | ({cell - 1} if cell % size else set()) for cell in range(num_cells)]
    masks = [0]
    for cell in range(num_cells):
        blocking = sum(1 << other for other in before[cell] if other >= 0)
        masks += [mask | 1 << cell for mask in masks if not mask & blocking]
    shadings = np.array([[mask >> cell & 1 for cell in range(num_cells)] for mask in masks], dtype=np.bool_)
    # All shadings are flooded at once, each from its first open cell.
    is_open = ~shadings.reshape(-1, size, size)
    reached = np.zeros_like(is_open).reshape(len(masks), -1)
    reached[np.arange(len(masks)), is_open.reshape(len(masks), -1).argmax(axis=1)] = True
    reached = reached.reshape(is_open.shape)
    for _ in range(num_cells):
        spread = reached.copy()
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread[:, :, 1:] |= reached[:, :, :-1]
        spread[:, :, :-1] |= reached[:, :, 1:]
        reached = spread & is_open
    return shadings[(reached == is_open).all(axis=(1, 2))]


def solutions_by_sieve(board: Grid) -> npt.NDArray[np.bool_]:
    """The shadings that leave no two equal numbers open in a line. Shares nothing with the package's solver."""
    size = len(board)
    shadings = all_shadings(size)
    for first, second in product(range(size * size), repeat=2):
        same_line = first // size == second // size or first % size == second % size
        if first < second and same_line and board.ravel()[first] == board.ravel()[second]:
            shadings = shadings[shadings[:, first] | shadings[:, second]]
    return shadings


@pytest.mark.parametrize(
    ("count", "knobs", "num_shaded"),
    [
        (300, {}, 6),
        (150, {"difficulty": "medium"}, 7),
        (150, {"difficulty": "hard"}, 8),
        (50, {"shaded": 5}, 5),
        (150, {"size": 4}, 4),
        (150, {"size": 4, "difficulty": "hard"}, 5),
        (150, {"size": 3}, 2),
        (150, {"size": 3, "difficulty": "hard"}, 3),
    ],
)
def test_the_stored_answer_is_the_only_solution(count: int, knobs: dict, num_shaded: int) -> None:
    batch = draw(count, **knobs)
    for question, answer in zip(batch.questions, batch.answers, strict=True):
        assert answer.sum() == num_shaded
        assert 1 <= question.min() <= question.max() <= len(question)
        assert solutions_by_sieve(question).tolist() == [answer.ravel().tolist()]


@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_large_boards_have_one_solution(size: int) -> None:
    for difficulty in ("easy", "medium", "hard"):
        batch = draw(20, size=size, difficulty=difficulty)
        for question, answer in zip(batch.questions, batch.answers, strict=True):
            assert [mask.tolist() for mask in solutions(question)] == [answer.tolist()]
        nums_shaded = {int(answer.sum()) for answer in batch.answers}
        assert nums_shaded == {Hitori(size=size, difficulty=difficulty)._num_shaded()}


def test_difficulty_is_a_share_as_far_as_boards_allow() -> None:
    shares = {
        difficulty: [Hitori(size=size, difficulty=difficulty)._num_shaded() / size**2 for size in range(3, 10)]
        for difficulty in ("easy", "medium", "hard")
    }
    assert all(0.22 <= share <= 0.26 for share in shares["easy"])
    assert all(easy <= medium < hard for easy, medium, hard in zip(*shares.values(), strict=True))


# The shadings of a board to which no cell can be added; with fewer or more shaded cells there are none, or only one.
@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_bounds_of_shaded_are_those_of_shadings_that_cannot_grow(size: int) -> None:
    shadings = all_shadings(size)
    known = {mask.tobytes() for mask in shadings}
    counts: Counter[int] = Counter()
    for mask in shadings:
        grown = np.repeat(mask[None], size * size, axis=0)
        np.fill_diagonal(grown, True)
        if not any(other.tobytes() in known for other in grown[~mask]):
            counts[int(mask.sum())] += 1
    with_a_choice = [count for count, num_shadings in counts.items() if num_shadings > 1]
    assert (min(with_a_choice), max(with_a_choice)) == FEWEST_AND_MOST_SHADED[size]
    if size == 5:
        assert counts == {5: 6, 6: 728, 7: 946, 8: 123, 9: 1}


def test_all_shadings_occur_and_none_is_rare() -> None:
    for num_shaded, num_shadings in ((5, 36), (4, 74)):
        answers = draw(50 * num_shadings, size=4, shaded=num_shaded).answers
        _, counts = np.unique(answers.reshape(len(answers), -1), axis=0, return_counts=True)
        assert len(counts) == num_shadings
        assert counts.min() >= 5
        assert counts.max() <= 400


def test_no_number_stands_out() -> None:
    batch = draw(2000)
    shares = [np.bincount(batch.questions[batch.answers == mark], minlength=6)[1:] for mark in (0, 1)]
    for counts in shares:
        assert (np.abs(counts / counts.sum() - 0.2) < 0.015).all()


def test_a_shaded_number_can_be_any_of_those_open_in_its_lines() -> None:
    """No place is preferred: a shaded cell repeats a number of its row about as often as one of its column."""
    batch = draw(1000)
    in_row, in_column = 0, 0
    for question, answer in zip(batch.questions, batch.answers, strict=True):
        for row, column in zip(*answer.nonzero(), strict=True):
            number = question[row, column]
            row_repeats = ((question[row] == number) & (answer[row] == 0)).any()
            column_repeats = ((question[:, column] == number) & (answer[:, column] == 0)).any()
            assert row_repeats or column_repeats
            in_row += row_repeats
            in_column += column_repeats
    assert abs(in_row / in_column - 1) < 0.1
    assert 0.5 < in_row / 6000 < 0.95


def random_copy(board: Grid, rng: np.random.Generator) -> Grid:
    names = np.concatenate([[0], rng.permutation(len(board)) + 1]).astype(np.int8)
    copy = np.rot90(names[board], rng.integers(4))
    return np.ascontiguousarray(copy.T if rng.random() < 0.5 else copy)


@pytest.mark.parametrize("size", [3, 5, 9])
def test_the_key_survives_every_symmetry_and_tells_boards_apart(size: int) -> None:
    rng = np.random.default_rng(0)
    task = Hitori(size=size, difficulty="medium")
    questions = draw(100, size=size, difficulty="medium").questions
    keys = task.canonical_keys(questions)
    for _ in range(8):
        copies = np.stack([random_copy(question, rng) for question in questions])
        assert np.array_equal(task.canonical_keys(copies), keys)
    if size > 3:
        assert len(set(keys.tolist())) == 100


def smallest_copy(board: Grid) -> bytes:
    copies = []
    for turns, flipped in product(range(4), (board, board.T)):
        cells = np.rot90(flipped, turns).ravel().tolist()
        names = {number: name for name, number in enumerate(dict.fromkeys(cells))}
        copies.append(bytes(names[cell] for cell in cells))
    return min(copies)


def test_no_symmetric_copy_of_a_test_problem_is_trained_on() -> None:
    # Of 3x3 boards there are so few that chance alone makes copies.
    spec = TaskSpec.model_validate({"hitori": {"size": 3, "difficulty": "hard"}})
    tested = {smallest_copy(problem.question) for problem in draw_problems(spec, Split.TEST, 0, 60)}
    trained = [smallest_copy(problem.question) for problem in draw_problems(spec, Split.TRAIN, 0, 200)]
    assert len(set(trained)) < 50
    assert not tested & set(trained)


def test_a_test_set_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"500 distinct test problems asked for, only \d+ found"):
        draw_problems(TaskSpec.model_validate({"hitori": {"size": 3}}), Split.TEST, 0, 500)


def test_the_space_of_small_boards_is_counted() -> None:
    questions = draw(15000, size=3).questions
    assert Hitori(size=3).problem_space() == "384 boards with one solution"
    assert len(np.unique(questions.reshape(len(questions), -1), axis=0)) == 384


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"shaded": 10}, "shaded = 10: expected 5 to 8 for size 5, or null"),
        ({"size": 9, "shaded": 8}, "shaded = 8: expected 21 to 26 for size 9, or null"),
        ({"shaded": 7, "difficulty": "hard"}, "shaded = 7: leave it out, or leave out difficulty = 'hard'"),
        ({"size": 10}, "size = 10"),
    ],
)
def test_knobs_that_cannot_be_are_refused_in_a_line(knobs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec(name="hitori", params=knobs)


def test_distances_compare_questions() -> None:
    task = Hitori(size=4)
    batch = task.generate_many(problem_seeds(("far",), np.arange(50)))
    changed = batch.questions[7].copy()
    changed[0] = 9
    distances = task.distances(batch, replace(batch.problem(7), question=changed))
    assert distances[7] == 4 / 16
    assert all(0.25 <= distance <= 1 for distance in distances)


def test_published_picture_is_176_px() -> None:
    assert Hitori.style.size_px((5, 5)) == (176, 176)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    batch = Hitori().generate_many(problem_seeds(("pinned",), np.arange(20)))
    digest = hashlib.sha256(batch.questions.tobytes() + batch.answers.tobytes())
    assert (Hitori.generator_version, digest.hexdigest()[:16]) == (1, "b1d5a1e2d835e246")
