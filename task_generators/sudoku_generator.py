"""Random Sudoku puzzles, compiled. Import this inside functions only: numba takes half a second to load."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from task_generators.split_mix import next_random
from task_generators.sudoku_solver import search

MAX_PLACEMENTS = 2000
"""Digits placed before a filling starts over: most need a few hundred, and a few would need millions."""


@numba.njit(cache=True)
def draw_puzzle(
    box_side: int,
    num_givens: int,
    state: npt.NDArray[np.uint64],
    solution: npt.NDArray[np.int8],
    puzzle: npt.NDArray[np.int8],
) -> None:
    """Draw a full grid and empty its cells in random order, each as long as one solution is left, to ``num_givens``.

    ``state``: see ``next_random``. ``solution`` and ``puzzle``: the cells row by row, shape (size * size,); receive the
    result. A grid that cannot be emptied that far is drawn anew.
    """
    num_cells = len(solution)
    order = np.empty(num_cells, dtype=np.int64)
    found = np.empty(2 * num_cells, dtype=np.int8)
    num_left = num_cells + 1
    while num_left > num_givens:
        while not _fill(box_side, state, solution):
            pass
        for cell in range(num_cells):
            puzzle[cell] = solution[cell]
            other = np.int64(next_random(state) % np.uint64(cell + 1))
            order[cell] = order[other]
            order[other] = cell
        num_left = num_cells
        for given in order:
            puzzle[given] = 0
            if search(puzzle, box_side, 2, found) == 1:
                num_left -= 1
                if num_left == num_givens:
                    break
            else:
                puzzle[given] = solution[given]


@numba.njit(cache=True)
def _fill(box_side: int, state: npt.NDArray[np.uint64], solution: npt.NDArray[np.int8]) -> bool:
    """Fill an empty grid cell by cell with random fitting digits, going back from dead ends; False: gave up.

    Every full grid can come out. Their chances are of one order of magnitude, but not equal.
    """
    size = box_side * box_side
    row_missing = np.empty(size, dtype=np.int64)
    column_missing = np.empty(size, dtype=np.int64)
    box_missing = np.empty(size, dtype=np.int64)
    for unit in range(size):
        row_missing[unit] = column_missing[unit] = box_missing[unit] = (1 << size) - 1
    untried = np.empty(size * size, dtype=np.int64)
    placed = np.zeros(size * size, dtype=np.int64)
    cell = 0
    is_deeper = True
    for _ in range(MAX_PLACEMENTS):
        row, column = cell // size, cell % size
        box = row // box_side * box_side + column // box_side
        row_missing[row] ^= placed[cell]
        column_missing[column] ^= placed[cell]
        box_missing[box] ^= placed[cell]
        placed[cell] = 0
        if is_deeper:
            untried[cell] = row_missing[row] & column_missing[column] & box_missing[box]
        if untried[cell] == 0:
            cell -= 1
            is_deeper = False
            continue
        count = 0
        rest = untried[cell]
        while rest:
            rest &= rest - 1
            count += 1
        rest = untried[cell]
        for _ in range(np.int64(next_random(state) % np.uint64(count))):
            rest &= rest - 1
        bit = rest & -rest
        untried[cell] ^= bit
        placed[cell] = bit
        row_missing[row] ^= bit
        column_missing[column] ^= bit
        box_missing[box] ^= bit
        digit = 0
        while bit >> digit:
            digit += 1
        solution[cell] = digit
        is_deeper = True
        cell += 1
        if cell == size * size:
            return True
    return False
