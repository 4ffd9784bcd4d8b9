"""A Hitori solver, compiled. Import this inside functions only: numba takes half a second to load.

It proves that a board has exactly one solution, in another way than boards are made: row by row, over all shadings of
a row, and without a line of the generator's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.problem import Grid, frozen_grid


def solutions(board: Grid, limit: int = 2) -> list[Grid]:
    """Up to ``limit`` solutions of a board (size, size) of numbers 1..size, as masks with 1 = shaded.

    All that keep the three rules count, also those that shade a number that repeats nowhere: no number twice among the
    open cells of a row or column, no two shaded cells side by side, the open cells in one piece.
    """
    size = len(board)
    assert board.shape == (size, size)
    found = np.empty((limit, size, size), dtype=np.int8)
    # A copy, because a read-only array would be another type to numba, and be compiled for once more.
    count = _shade_rows(board.flatten(), size, limit, found.ravel())
    return [frozen_grid(mask) for mask in found[:count]]


@compiled
def _shade_rows(board: npt.NDArray[np.int8], size: int, limit: int, found: npt.NDArray[np.int8]) -> int:
    """Find up to ``limit`` solutions; returns how many, and writes them to ``found``, flat.

    Rows are sets of columns as bits. Row after row takes each set that could be its shaded cells, as long as the
    columns have no number twice and no open cell is walled in.
    """
    all_columns = (1 << size) - 1
    # The shadings of each row that hold no neighbours and leave no number twice.
    num_choices = np.zeros(size, dtype=np.int64)
    choices = np.empty((size, 1 << size), dtype=np.int64)
    for row in range(size):
        for shaded in range(1 << size):
            if shaded & shaded << 1:
                continue
            seen = 0
            is_fit = True
            for column in range(size):
                if not shaded >> column & 1:
                    bit = 1 << board[row * size + column]
                    is_fit = is_fit and not seen & bit
                    seen |= bit
            if is_fit:
                choices[row, num_choices[row]] = shaded
                num_choices[row] += 1
    # Numbers in the open cells of each column, above each row.
    seen_above = np.zeros((size + 1, size), dtype=np.int64)
    next_choice = np.zeros(size + 1, dtype=np.int64)
    shaded_rows = np.zeros(size + 1, dtype=np.int64)
    num_found = 0
    row = 0
    while row >= 0:
        if row == size:
            for cell in range(size * size):
                found[num_found * size * size + cell] = shaded_rows[cell // size] >> (cell % size) & 1
            num_found += 1
            if num_found == limit:
                break
            row -= 1
            continue
        if next_choice[row] == num_choices[row]:
            row -= 1
            continue
        shaded = choices[row, next_choice[row]]
        next_choice[row] += 1
        if row > 0 and shaded & shaded_rows[row - 1]:
            continue
        is_fit = True
        for column in range(size):
            seen_above[row + 1, column] = seen_above[row, column]
            if not shaded >> column & 1:
                bit = 1 << board[row * size + column]
                is_fit = is_fit and not seen_above[row, column] & bit
                seen_above[row + 1, column] |= bit
        if not is_fit:
            continue
        shaded_rows[row] = shaded
        if _hangs_together(shaded_rows, row + 1, size, all_columns):
            row += 1
            next_choice[row] = 0
    return num_found


@compiled
def _hangs_together(shaded_rows: npt.NDArray[np.int64], num_rows: int, size: int, all_columns: int) -> bool:
    """Whether all open cells of the first rows can be walked to, where the rows below are open throughout."""
    reached = np.zeros(10, dtype=np.int64)
    last = min(num_rows, size - 1)
    # From the open row below, or from any open cell of the last row.
    start = all_columns if num_rows < size else all_columns & ~shaded_rows[last]
    reached[last] = start & -start
    is_growing = True
    while is_growing:
        is_growing = False
        for row in range(last, -1, -1):
            open_cells = all_columns if row == num_rows else all_columns & ~shaded_rows[row]
            spread = reached[row] | reached[row] << 1 | reached[row] >> 1
            if row > 0:
                spread |= reached[row - 1]
            if row < last:
                spread |= reached[row + 1]
            spread &= open_cells
            if spread != reached[row]:
                reached[row] = spread
                is_growing = True
    num_unreached = 0
    for row in range(num_rows):
        num_unreached += reached[row] != all_columns & ~shaded_rows[row]
    return num_unreached == 0
