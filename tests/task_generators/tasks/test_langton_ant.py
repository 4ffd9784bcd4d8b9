import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from task_generators.problem import Problem, Split, frozen_grid
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.langton_ant import LangtonAnt

WHITE, BLACK, ANT = range(3)


def naive_boards(board: list[list[int]], direction: str, steps: int) -> list[list[list[int]]]:
    """The board before and after each move, on complex numbers: turning is multiplying by i."""
    height, width = len(board), len(board[0])
    colors = {complex(x, y): board[y][x] for y in range(height) for x in range(width)}
    (ant,) = (place for place, color in colors.items() if color == ANT)
    colors[ant] = WHITE
    heading = {"north": -1j, "east": 1, "south": 1j, "west": -1}[direction]
    boards = []
    for _ in range(steps + 1):
        shown = {**colors, ant: ANT}
        boards.append([[shown[complex(x, y)] for x in range(width)] for y in range(height)])
        # Rows run downwards, so that a right turn is one by +i.
        heading *= 1j if colors[ant] == WHITE else -1j
        colors[ant] = BLACK if colors[ant] == WHITE else WHITE
        ant += heading
        ant = complex(ant.real % width, ant.imag % height)
    return boards


@pytest.mark.parametrize("direction", ["north", "east", "south", "west"])
@pytest.mark.parametrize("start", ["center", "random"])
def test_answers_and_states_follow_the_rule(start: str, direction: str) -> None:
    for index in range(60):
        height, width, steps = 3 + index % 6, 3 + index % 5, (1, 2, 3, 5, 10, 40)[index % 6]
        task = LangtonAnt(height=height, width=width, steps=steps, start=start, direction=direction)
        (problem,) = task.draw(1, index)
        boards = naive_boards(problem.question.tolist(), direction, steps)
        assert problem.answer.tolist() == boards[-1]
        assert [state.tolist() for state in problem.states] == boards[1:-1]
        assert task.verify(problem) == []


def test_the_first_moves_on_a_white_board() -> None:
    """North, right on white: to the east; and round in a square of four, then off on a black cell."""
    board = np.zeros((1, 5, 5), dtype=np.int8)
    board[0, 2, 2] = ANT
    ants = [
        np.argwhere(LangtonAnt(height=5, width=5).after(board, steps)[0][0] == ANT).tolist() for steps in range(1, 6)
    ]
    assert ants == [[[2, 3]], [[3, 3]], [[3, 2]], [[2, 2]], [[2, 1]]]


def test_the_highway() -> None:
    """On white the ant builds, after some 10,000 moves, a road that repeats itself every 104, two cells further on."""
    board = np.zeros((1, 200, 200), dtype=np.int8)
    board[0, 100, 100] = ANT
    task = LangtonAnt(height=200, width=200)
    one, two = ((task.after(board, steps)[0][0]) for steps in (10_600, 10_704))
    before, after = (np.argwhere(grid == ANT)[0] for grid in (one, two))
    assert (np.abs(after - before) == 2).all()
    assert np.sum(two == BLACK) - np.sum(one == BLACK) == 12


def test_the_question_tells_everything_that_counts() -> None:
    """The ant starts on white, looking where the knob says: equal questions have equal answers."""
    drawn = LangtonAnt(height=3, width=3, steps=10).draw(3000)
    answers: dict[bytes, set[bytes]] = {}
    for problem in drawn:
        answers.setdefault(problem.question.tobytes(), set()).add(problem.answer.tobytes())
    assert len(answers) == 2**8
    assert all(len(known) == 1 for known in answers.values())


def test_the_start_lies_where_the_knob_says() -> None:
    for problem in LangtonAnt(height=5, width=8).draw(20):
        assert np.argwhere(problem.question == ANT).tolist() == [[2, 4]]
    expected = 100
    drawn = LangtonAnt(height=3, width=5, start="random").draw(15 * expected)
    counts = Counter(tuple(np.argwhere(problem.question == ANT)[0]) for problem in drawn)
    assert len(counts) == 15
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 14 + 4 * (2 * 14) ** 0.5


def test_density_is_the_share_of_the_other_cells_that_starts_black() -> None:
    for density in (0.1, 0.5, 0.8):
        boards = np.stack([problem.question for problem in LangtonAnt(density=density).draw(500)])
        assert abs(np.sum(boards == BLACK) / (500 * 63) - density) < 0.01
        # Every cell alike, and neighbours independent of each other.
        shares = (boards == BLACK).mean(axis=0)
        shares[4, 4] = density
        assert np.abs(shares - density).max() < 0.1
        pairs = (boards[:, 0, :-1] == BLACK) & (boards[:, 0, 1:] == BLACK)
        assert abs(pairs.mean() - density**2) < 0.03


def test_the_color_under_the_ant_is_kept() -> None:
    task = LangtonAnt(height=3, width=3, steps=12)
    colors = Counter()
    for problem in task.draw(300):
        # After a further move the cell that the ant has left shows the other colour, wherever else it went.
        (at,) = np.argwhere(problem.answer == ANT).tolist()
        later = task.after(problem.question[None], 13)[0][0]
        assert later[tuple(at)] == 1 - problem.metadata["color_under_ant"]
        colors[problem.metadata["color_under_ant"]] += 1
    assert min(colors[WHITE], colors[BLACK]) > 30


def test_boards_shifted_with_their_ant_share_a_key_where_the_start_is_random() -> None:
    task = LangtonAnt(height=4, width=5, start="random")
    keys = set()
    for problem in task.draw(50):
        shifted = np.stack(
            [np.roll(problem.question, shift, axis=(0, 1)) for shift in [(i, j) for i in range(4) for j in range(5)]]
        )
        # Truly copies: their answers are shifted as well.
        answers = task.after(shifted, task.steps)[0]
        assert np.array_equal(answers[7], np.roll(problem.answer, (1, 2), axis=(0, 1)))
        (key,) = set(task.canonical_keys(shifted).tolist())
        keys.add(key)
        mirrored = problem.question[:, ::-1]
        (other,) = task.canonical_keys(mirrored[None]).tolist()
        at_origin = [np.roll(grid, -np.argwhere(grid == ANT)[0], axis=(0, 1)) for grid in (problem.question, mirrored)]
        assert (other == key) is np.array_equal(*at_origin)
    assert len(keys) == 50


def test_no_shifted_copy_of_a_test_problem_is_trained_on() -> None:
    spec = TaskSpec.model_validate({"langton_ant": {"height": 3, "width": 4, "start": "random"}})
    tested = draw_problems(spec, Split.TEST, 0, 200)
    trained = {problem.question.tobytes() for problem in draw_problems(spec, Split.TRAIN, 0, 5000)}
    assert len(trained) == 5000
    shifts = [(down, across) for down in range(3) for across in range(4)]
    assert not {np.roll(p.question, shift, axis=(0, 1)).tobytes() for p in tested for shift in shifts} & trained


@pytest.mark.parametrize("steps", [2, 3, 5, 10])
def test_the_published_horizons_have_whole_test_sets(steps: int) -> None:
    spec = TaskSpec.model_validate({"langton_ant": {"steps": steps}})
    drawn = draw_problems(spec, Split.TRAIN, 0, 5000) + draw_problems(spec, Split.TEST, 0, 200)
    assert len({problem.question.tobytes() for problem in drawn}) == 5200


def test_the_verifier_sees_each_kind_of_fault() -> None:
    task = LangtonAnt()
    (problem,) = task.draw(1)
    other = LangtonAnt(direction="south").draw(1)[0]
    assert np.array_equal(other.question, problem.question)
    assert "the answer is not the board after the ant's moves" in task.verify(replace(problem, answer=other.answer))
    metadata = {"color_under_ant": 1 - problem.metadata["color_under_ant"]}
    assert task.verify(replace(problem, metadata=metadata)) == ["color_under_ant is wrong"]
    (elsewhere,) = LangtonAnt(start="random").draw(1, "elsewhere")
    assert task.verify(elsewhere) == ["the ant does not start in the center"]
    no_ant = Problem(frozen_grid(np.zeros((8, 8))), problem.answer, problem.metadata)
    assert len(task.verify(no_ant)) == 1


def test_published_picture_is_128_px() -> None:
    assert LangtonAnt.style.size_px((8, 8)) == (128, 128)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    digest = hashlib.sha256()
    for start in ("center", "random"):
        for problem in LangtonAnt(start=start).draw(20, "pinned"):
            digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (LangtonAnt.generator_version, digest.hexdigest()[:16]) == (1, "efdcebf3e42f7c67")
