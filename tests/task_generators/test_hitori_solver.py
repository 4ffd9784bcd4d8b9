from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from task_generators.hitori_solver import solutions
from task_generators.problem import Grid, frozen_grid


def is_solution(board: list[list[int]], mask: list[list[int]]) -> bool:
    size = len(board)
    cells = set(product(range(size), repeat=2))
    unshaded = {(row, column) for row, column in cells if not mask[row][column]}
    if any(not mask[r][c] and not mask[s][c] and board[r][c] == board[s][c] for r, c in cells for s in range(r)):
        return False
    if any(not mask[r][c] and not mask[r][d] and board[r][c] == board[r][d] for r, c in cells for d in range(c)):
        return False
    beside = {cell: {(cell[0] + 1, cell[1]), (cell[0], cell[1] + 1)} & cells for cell in cells}
    if any(cell not in unshaded and other not in unshaded for cell in cells for other in beside[cell]):
        return False
    reached: set[tuple[int, int]] = set()
    growing = {min(unshaded)}
    while growing:
        reached |= growing
        growing = {
            other
            for row, column in growing
            for other in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        }
        growing = (growing & unshaded) - reached
    return reached == unshaded


def all_masks(size: int) -> Iterator[list[list[int]]]:
    for cells in product((0, 1), repeat=size * size):
        if not any(cells[at] and cells[at + size] for at in range(size * (size - 1))):
            mask = [list(cells[row * size : row * size + size]) for row in range(size)]
            if not any(row[at] and row[at + 1] for row in mask for at in range(size - 1)):
                yield mask


@pytest.mark.parametrize(("size", "count"), [(3, 150), (4, 12)])
def test_finds_exactly_the_masks_that_keep_the_rules(size: int, count: int) -> None:
    rng = np.random.default_rng(0)
    masks = list(all_masks(size))
    nums_found = set()
    for _ in range(count):
        board = frozen_grid(rng.integers(1, size + 3, (size, size)))
        found = sorted(mask.tolist() for mask in solutions(board, limit=1000))
        assert found == sorted(mask for mask in masks if is_solution(board.tolist(), mask))
        nums_found.add(len(found))
    assert min(nums_found) == 0
    assert max(nums_found) > 1


def cyclic(size: int) -> Grid:
    return frozen_grid(np.add.outer(np.arange(size), np.arange(size)) % size + 1)


# Masks of 3x3, 4x4 and 5x5 cells whose shaded cells do not touch and cut nothing off, found by enumeration.
@pytest.mark.parametrize(("size", "num_masks"), [(3, 39), (4, 562), (5, 20297)])
def test_every_shading_solves_a_board_without_repeats(size: int, num_masks: int) -> None:
    assert len(solutions(cyclic(size), limit=30000)) == num_masks


def test_solves_a_known_board() -> None:
    # The example of Wikipedia's article "Hitori".
    board = """48163257
               36721654
               23482861
               41657735
               72318512
               35673184
               64235478
               87142356"""
    answer = """10100010
                00000100
                10010000
                00100101
                01010000
                10001001
                01000000
                00001010"""
    rows, expected = ([[int(cell) for cell in row] for row in text.split()] for text in (board, answer))
    assert [mask.tolist() for mask in solutions(frozen_grid(rows))] == [expected]


def test_tells_none_from_several_and_stops_at_the_limit() -> None:
    assert solutions(frozen_grid(np.ones((3, 3)))) == []
    assert len(solutions(cyclic(6))) == 2
    assert len(solutions(cyclic(9), limit=7)) == 7


def test_leaves_the_board_alone() -> None:
    board = cyclic(5)
    solutions(board)
    assert np.array_equal(board, cyclic(5))
