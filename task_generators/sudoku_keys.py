"""Keys of Sudoku puzzles that no symmetry changes, compiled. Import this inside functions only: numba takes half a
second to load."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

NUM_ROUNDS = 3


@numba.njit(cache=True, error_model="numpy")
def refined_keys(puzzles: npt.NDArray[np.int8], box_side: int, keys: npt.NDArray[np.uint64]) -> None:
    """One key a puzzle; ``puzzles`` (n, box_side**4) row by row with 0 = empty, ``keys`` (n,) receives them.

    Colour refinement (Weisfeiler and Leman 1968) of the given cells, where two of them are neighbours when they share
    a line, a box or a digit: each takes a new colour from its own and those of its neighbours, a few times over. The
    key is a hash of the colours, whatever their order. Puzzles that are no copies may share a key.
    """
    size = box_side * box_side
    num_cells = size * size
    # Sums of the colours in each row, column and box and of each digit.
    sums = np.empty(4 * size, dtype=np.uint64)
    color = np.empty(num_cells, dtype=np.uint64)
    units = np.empty(4 * num_cells, dtype=np.int64)
    for cell in range(num_cells):
        row, column = cell // size, cell % size
        units[4 * cell] = row
        units[4 * cell + 1] = size + column
        units[4 * cell + 2] = 2 * size + row // box_side * box_side + column // box_side
    for puzzle in range(puzzles.shape[0]):
        for cell in range(num_cells):
            color[cell] = 1
            units[4 * cell + 3] = 3 * size + puzzles[puzzle, cell] - 1
        for _ in range(NUM_ROUNDS):
            for unit in range(4 * size):
                sums[unit] = 0
            for cell in range(num_cells):
                if puzzles[puzzle, cell]:
                    for kind in range(4):
                        sums[units[4 * cell + kind]] += color[cell]
            # Sums of hashes tell sets apart. Rows and columns are hashed alike, because a puzzle can be transposed.
            for unit in range(4 * size):
                kind = max(unit // size, 1)
                sums[unit] = _scrambled(sums[unit] + np.uint64(kind) * np.uint64(0x9E3779B97F4A7C15))
            for cell in range(num_cells):
                if puzzles[puzzle, cell]:
                    total = color[cell]
                    for kind in range(4):
                        total += sums[units[4 * cell + kind]]
                    color[cell] = _scrambled(total)
        key = np.uint64(size)
        for cell in range(num_cells):
            if puzzles[puzzle, cell]:
                key += _scrambled(color[cell])
        keys[puzzle] = key


@numba.njit(cache=True, error_model="numpy")
def _scrambled(bits: np.uint64) -> np.uint64:
    """The finaliser of MurmurHash3."""
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return bits ^ (bits >> np.uint64(33))
