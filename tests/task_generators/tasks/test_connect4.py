import hashlib
from dataclasses import replace

import numpy as np
import pytest

from task_generators.problem import Grid, Split, frozen_grid
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.connect4 import PLAYER_1, PLAYER_2, ConnectFour, is_position, winning_columns

KNOBS = [
    {},
    {"min_moves": 24},
    {"max_moves": 12, "min_moves": 7},
    {"random_move_share": 1.0},
    {"connect": 3, "min_moves": 0},
    {"connect": 5},
    {"height": 4, "width": 4},
    {"height": 7, "width": 8},
    {"height": 4, "width": 12},
    {"height": 15, "width": 4},
]


def seeds(number: int) -> np.ndarray:
    return problem_seeds(("connect4",), np.arange(number))


def position(*rows: str) -> Grid:
    """From the top; rows of empty cells above are left out."""
    cells = np.zeros((6, 7), dtype=np.int8)
    cells[6 - len(rows) :] = [[".12".index(code) for code in row] for row in rows]
    return frozen_grid(cells)


def after(question: Grid, column: int) -> list[list[int]]:
    """The position after a stone of player 1, which falls until a stone or the ground stops it."""
    cells = question.tolist()
    row = 0
    assert cells[row][column] == 0
    while row + 1 < len(cells) and cells[row + 1][column] == 0:
        row += 1
    cells[row][column] = PLAYER_1
    return cells


def is_line(grid: Grid, player: int, connect: int) -> bool:
    """Whether a player has a line, by counting stones in a row in each line of the board, its diagonals included."""
    height, width = grid.shape
    lines = [*grid, *grid.T]
    lines += [turned.diagonal(offset) for turned in (grid, grid[::-1]) for offset in range(-height, width)]
    return any(str(player) * connect in "".join(map(str, line.tolist())) for line in lines)


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_one_move_wins(knobs: dict[str, int | float]) -> None:
    task = ConnectFour(**knobs)
    batch = task.generate_many(seeds(100))
    for place in range(len(batch)):
        problem = batch.problem(place)
        question, answer, move = problem.question, problem.answer, problem.metadata["move"]
        assert is_position(question, task.connect)
        assert task.min_moves <= np.count_nonzero(question) <= (task.max_moves or question.size)
        assert winning_columns(question, connect=task.connect) == [move]
        assert answer.tolist() == after(question, move)
        assert task.verify(problem) == []
        assert is_line(answer, PLAYER_1, task.connect)
        assert not any(is_line(question, player, task.connect) for player in (PLAYER_1, PLAYER_2))


@pytest.mark.parametrize(("moves", "number"), [(2, 60), (3, 4)])
def test_one_move_forces_a_win_and_none_wins_faster(moves: int, number: int) -> None:
    task = ConnectFour(moves_to_win=moves, height=5, width=5, connect=4, min_moves=10)
    batch = task.generate_many(seeds(number))
    for place in range(number):
        problem = batch.problem(place)
        assert is_position(problem.question)
        assert winning_columns(problem.question, moves=moves - 1) == []
        assert winning_columns(problem.question, moves=moves) == [problem.metadata["move"]]
        assert problem.answer.tolist() == after(problem.question, problem.metadata["move"])
        assert task.verify(problem) == []


def test_the_verifier_sees_lines_in_all_directions() -> None:
    assert winning_columns(position("1......", "1.2....", "1.2.2..")) == [0]
    assert winning_columns(position("222.111")) == [3]
    assert winning_columns(position("222.111"), PLAYER_2) == [3]
    assert winning_columns(position(".......", "2.1.112")) == [3]
    assert winning_columns(position("..1....", ".122...", "1221...")) == []
    assert winning_columns(position("..12...", ".121...", "1222...")) == [3]
    assert winning_columns(position("21.....", "121....", "2221...")) == [0]


def test_the_verifier_looks_ahead() -> None:
    assert winning_columns(position("2..11..")) == []
    assert winning_columns(position("2..11.."), moves=2) == [2, 5]  # three in a row, open at both ends
    assert winning_columns(position("2..11.2"), moves=2) == [2]
    assert winning_columns(position("2......", "2......", "2..11.."), moves=2) == []  # player 2 wins first


def test_the_verifier_refuses_what_is_no_position() -> None:
    assert is_position(position("21..21."))
    for grid in (
        position("1......", ".2....."),  # hangs
        position("112...."),  # one stone too many
        position("222....", "1111..2"),  # a line of player 1
        position("111....", "2222.11"),  # a line of player 2
    ):
        assert not is_position(grid)


def test_each_promise_is_verified() -> None:
    fast, slow = ConnectFour(), ConnectFour(moves_to_win=2)
    (problem,), (later,) = ([task.generate_many(seeds(1)).problem(0)] for task in (fast, slow))
    stones = np.count_nonzero(problem.question)
    assert ConnectFour(min_moves=stones + 1).verify(problem) == [f"the question has {stones} stones"]
    assert "it can be won in fewer than 2 moves" in slow.verify(problem)
    assert fast.verify(later) == [f"columns [] win in 1, not {later.metadata['move']} alone"]
    other = (problem.metadata["move"] + 1) % 7
    assert "alone" in fast.verify(replace(problem, metadata={"move": other}))[0]
    assert "the answer is not" in fast.verify(replace(problem, answer=problem.question))[0]
    two_ways = replace(problem, question=position(".111...", "2211222"), metadata={"move": 0})
    assert fast.verify(two_ways)[-1] == "columns [0, 4] win in 1, not 0 alone"


def test_positions_vary() -> None:
    task = ConnectFour()
    batch = task.generate_many(seeds(6000))
    assert len(np.unique(task.canonical_keys(batch.questions))) > 5500
    columns = np.bincount([batch.metadata(place)["move"] for place in range(len(batch))], minlength=task.width)
    assert columns.min() > 0.04 * len(batch)
    stones = np.count_nonzero(batch.questions, axis=(1, 2))
    assert len(np.unique(stones)) > 12
    assert stones.std() > 4
    # Stones of player 1 next to the new one: each direction of a line occurs.
    for down, right in ((1, 0), (0, 1), (1, 1), (1, -1)):
        lines = [is_line_through_move(batch.problem(place), down, right) for place in range(500)]
        assert np.mean(lines) > 0.05


def is_line_through_move(problem, down: int, right: int) -> bool:
    ((row, column),) = np.argwhere(problem.question != problem.answer).tolist()
    length = 1
    for sign in (-1, 1):
        r, c = row + sign * down, column + sign * right
        while 0 <= r < 6 and 0 <= c < 7 and problem.answer[r, c] == PLAYER_1:
            length, r, c = length + 1, r + sign * down, c + sign * right
    return length >= 4


def test_no_mirror_image_of_a_test_problem_is_trained_on() -> None:
    # Few stones, so that chance alone would make copies.
    spec = TaskSpec.model_validate({"connect4": {"max_moves": 8, "random_move_share": 1}})
    tested, trained = (
        [problem.question for problem in draw_problems(spec, split, 0, number)]
        for split, number in ((Split.TEST, 200), (Split.TRAIN, 800))
    )
    copies = {copy.tobytes() for question in tested for copy in (question, question[:, ::-1])}
    assert copies.isdisjoint(question.tobytes() for question in trained)
    keys = ConnectFour().canonical_keys
    assert np.array_equal(keys(np.stack(trained)), keys(np.stack(trained)[:, :, ::-1]))
    assert len(np.unique(keys(np.stack(trained)))) > 400


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"height": 8, "width": 8},
            "height = 8, width = 8: expected width .* a width of at most 7 or a height of at most 7",
        ),
        ({"height": 4, "width": 4, "connect": 5}, "connect = 5: expected at most 4, the longer side"),
        ({"min_moves": 42}, "min_moves = 42: expected at most 40"),
        ({"min_moves": 10, "moves_to_win": 3, "height": 4, "width": 4, "max_moves": 8}, "min_moves = 10: .* most 8"),
        ({"min_moves": 9, "max_moves": 9}, "min_moves = 9: expected at most 8"),
        ({"min_moves": 0, "max_moves": 4}, "max_moves = 4: expected at least 6"),
    ],
)
def test_impossible_knobs_are_named(knobs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec(name="connect4", params=knobs)


def test_games_without_a_fitting_position_end_in_an_error() -> None:
    # Five stones of player 1 in a row of six: the gap could be stopped one move before, and nobody overlooks it.
    task = ConnectFour(height=4, width=6, connect=6, min_moves=10, max_moves=10, random_move_share=0)
    with pytest.raises(ValueError, match="after 10 to 10 moves in 100,000 games"):
        task.generate_many(seeds(1))


def test_the_bound_on_the_problem_space_counts_stackings() -> None:
    # 4 x 4 with two stones: 4 places for either of two stones next to each other, and a pile in either order.
    assert (
        "fewer than 20 "
        in ConnectFour(height=4, width=4, min_moves=2, max_moves=2, connect=3, moves_to_win=2).problem_space()
    )


def test_published_picture_is_240_px_wide() -> None:
    assert ConnectFour.style.size_px((6, 7)) == (208, 240)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    batch = ConnectFour().generate_many(problem_seeds(("pinned",), np.arange(20)))
    digest = hashlib.sha256(batch.questions.tobytes() + batch.answers.tobytes()).hexdigest()[:16]
    assert (ConnectFour.generator_version, digest) == (1, "cc69154418c54f29")
