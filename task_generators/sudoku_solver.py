"""A Sudoku solver, compiled. Import this inside functions only: numba takes half a second to load.

It knows nothing of how puzzles are made, so that it can prove that a puzzle has exactly one solution.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid, frozen_grid


@numba.njit(cache=True)
def search(puzzle: npt.NDArray[np.int8], box_side: int, limit: int, found: npt.NDArray[np.int8]) -> int:
    """Find up to ``limit`` solutions of a puzzle, 0 = empty; returns how many there are.

    ``puzzle``: the cells row by row, shape (size * size,); ``found``: (limit * size * size,), receives the solutions.
    Depth-first over the empty cell with the fewest candidates, which are kept as bit sets (bit d - 1 for digit d) of
    the digits missing from each row, column and box. Flat arrays and plain loops, because they compile in a fraction
    of the time of array expressions.
    """
    size = box_side * box_side
    num_cells = size * size
    row_missing = np.empty(size, dtype=np.int64)
    column_missing = np.empty(size, dtype=np.int64)
    box_missing = np.empty(size, dtype=np.int64)
    for unit in range(size):
        row_missing[unit] = column_missing[unit] = box_missing[unit] = (1 << size) - 1
    row_of = np.empty(num_cells, dtype=np.int64)
    column_of = np.empty(num_cells, dtype=np.int64)
    box_of = np.empty(num_cells, dtype=np.int64)
    # Cells to fill in the order in which the search fills them; those from ``depth`` on are still empty.
    order = np.empty(num_cells, dtype=np.int64)
    num_empty = 0
    for cell in range(num_cells):
        row, column = cell // size, cell % size
        box = row // box_side * box_side + column // box_side
        row_of[cell], column_of[cell], box_of[cell] = row, column, box
        if puzzle[cell] == 0:
            order[num_empty] = cell
            num_empty += 1
            continue
        bit = 1 << (puzzle[cell] - 1)
        if not row_missing[row] & column_missing[column] & box_missing[box] & bit:
            return 0
        row_missing[row] ^= bit
        column_missing[column] ^= bit
        box_missing[box] ^= bit

    untried = np.empty(num_cells + 1, dtype=np.int64)
    placed = np.empty(num_cells + 1, dtype=np.int64)
    num_found = 0
    depth = 0
    is_deeper = True
    while depth >= 0:
        if is_deeper and depth == num_empty:
            base = num_found * num_cells
            for cell in range(num_cells):
                found[base + cell] = puzzle[cell]
            for place in range(num_empty):
                digit = 0
                while placed[place] >> digit:
                    digit += 1
                found[base + order[place]] = digit
            num_found += 1
            if num_found == limit:
                break
            depth -= 1
            is_deeper = False
            continue
        if is_deeper:
            fewest = size + 1
            chosen = depth
            for place in range(depth, num_empty):
                cell = order[place]
                candidates = row_missing[row_of[cell]] & column_missing[column_of[cell]] & box_missing[box_of[cell]]
                count = 0
                rest = candidates
                while rest:
                    rest &= rest - 1
                    count += 1
                if count < fewest:
                    fewest = count
                    chosen = place
                    untried[depth] = candidates
                    if count <= 1:
                        break
            order[depth], order[chosen] = order[chosen], order[depth]
            placed[depth] = 0
        # Take back the digit tried last (0 if none) and place the next one, both by flipping bits.
        cell = order[depth]
        bit = untried[depth] & -untried[depth]
        untried[depth] ^= bit
        change = placed[depth] ^ bit
        row_missing[row_of[cell]] ^= change
        column_missing[column_of[cell]] ^= change
        box_missing[box_of[cell]] ^= change
        placed[depth] = bit
        is_deeper = bit != 0
        depth += 1 if is_deeper else -1
    return num_found


def solutions(puzzle: Grid, limit: int = 2) -> list[Grid]:
    """Up to ``limit`` solutions of a puzzle (size, size) with 0 = empty; two are enough to disprove uniqueness."""
    found = np.empty((limit, *puzzle.shape), dtype=np.int8)
    # A copy, because a read-only array would be another type to numba, and be compiled for once more.
    count = search(puzzle.flatten(), round(len(puzzle) ** 0.5), limit, found.ravel())
    return [frozen_grid(solution) for solution in found[:count]]
