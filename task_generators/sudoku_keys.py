"""Keys of Sudoku puzzles that no symmetry changes, in numpy: there is nothing here that a first puzzle would have to
wait for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NUM_ROUNDS = 3


def refined_keys(puzzles: npt.NDArray[np.int8], box_side: int) -> npt.NDArray[np.uint64]:
    """One key a puzzle, (n,); ``puzzles`` (n, box_side**4) row by row with 0 = empty.

    Colour refinement (Weisfeiler and Leman 1968) of the given cells, where two of them are neighbours when they share
    a line, a box or a digit: each takes a new colour from its own and those of its neighbours, a few times over. The
    key is a hash of the colours, whatever their order. Puzzles that are no copies may share a key.
    """
    size = box_side * box_side
    puzzle, cell = puzzles.nonzero()
    row, column = np.divmod(cell, size)
    box = row // box_side * box_side + column // box_side
    digit = puzzles[puzzle, cell] - 1
    # Row, column, box and digit of each given cell, (4, givens), counted through all puzzles.
    units = 4 * size * puzzle + np.stack([row, size + column, 2 * size + box, 3 * size + digit])
    # Sums of hashes tell sets apart. Rows and columns are hashed alike, because a puzzle can be transposed.
    salts = np.repeat(np.array([1, 1, 2, 3], dtype=np.uint64), size) * np.uint64(0x9E3779B97F4A7C15)
    colors = np.ones(len(cell), dtype=np.uint64)
    for _ in range(NUM_ROUNDS):
        sums = np.zeros(len(puzzles) * 4 * size, dtype=np.uint64)
        for kind in units:
            np.add.at(sums, kind, colors)
        sums = _scrambled(sums.reshape(-1, 4 * size) + salts).ravel()
        colors = _scrambled(colors + sums[units].sum(axis=0, dtype=np.uint64))
    keys = np.full(len(puzzles), size, dtype=np.uint64)
    np.add.at(keys, puzzle, _scrambled(colors))
    return keys


def _scrambled(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of MurmurHash3."""
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return bits ^ (bits >> np.uint64(33))
