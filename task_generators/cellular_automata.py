"""Cellular automata over many boards at once, compiled. Import this inside functions only: numba takes half a second to
load."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.split_mix import next_random


@compiled
def run_elementary(
    seeds: npt.NDArray[np.uint64], rule: int, is_ring: bool, off: int, on: int, rows: npt.NDArray[np.int8]
) -> None:
    """Draw a first row of each board uniformly and compute the others.

    ``rows``: (n, steps + 1, width), receives ``off`` and ``on``. ``rule``: Wolfram's number. Beyond the ends of a row
    that is no ring all cells are off.
    """
    num_boards, num_rows, width = rows.shape
    state = np.empty(1, dtype=np.uint64)
    # The row at hand with a cell more at either end; 8 bits, so that a row's work fits vector registers.
    padded = np.zeros(width + 2, dtype=np.uint8)
    for board in range(num_boards):
        state[0] = seeds[board]
        bits = np.uint64(0)
        for cell in range(width):
            if cell % 64 == 0:
                bits = next_random(state)
            padded[cell + 1] = np.uint8(bits & np.uint64(1))
            bits >>= np.uint64(1)
        for row in range(num_rows):
            for cell in range(width):
                rows[board, row, cell] = on if padded[cell + 1] else off
            if row + 1 == num_rows:
                break
            if is_ring:
                padded[0], padded[width + 1] = padded[width], padded[1]
            left = padded[0]
            for cell in range(width):
                here = padded[cell + 1]
                padded[cell + 1] = rule >> (4 * left + 2 * here + padded[cell + 2]) & 1
                left = here


@compiled
def draw_boards(seeds: npt.NDArray[np.uint64], density: float, boards: npt.NDArray[np.int8]) -> None:
    """Fill boards (n, cells) with ones at random, each cell with the chance ``density``, and zeros elsewhere."""
    state = np.empty(1, dtype=np.uint64)
    threshold = np.uint64(density * 2.0**32)
    for board in range(boards.shape[0]):
        state[0] = seeds[board]
        for cell in range(boards.shape[1]):
            # Two cells from each 64 bits: a chance is then met to one part in 2**32.
            if cell % 2 == 0:
                bits = next_random(state)
                boards[board, cell] = (bits >> np.uint64(32)) < threshold
            else:
                boards[board, cell] = (bits & np.uint64(0xFFFFFFFF)) < threshold


@compiled
def run_life(
    boards: npt.NDArray[np.int8], born: int, survives: int, steps: int, is_torus: bool, later: npt.NDArray[np.int8]
) -> None:
    """Boards ``steps`` generations later.

    ``boards`` and ``later``: (n, height, width) of zeros and ones. Bit k of ``born`` and of ``survives`` says whether a
    cell with k living neighbours is. Beyond the edges of a board that is no torus nothing lives.
    """
    num_boards, height, width = boards.shape
    side = width + 2
    # Flat, and framed by a row or column more on each side, so that the inner loop has no branch.
    now = np.zeros((height + 2) * side, dtype=np.uint8)
    columns = np.zeros((height + 2) * side, dtype=np.uint8)
    next_state = np.empty(19, dtype=np.uint8)
    for count in range(9):
        next_state[count] = born >> count & 1
        # Below, a living cell is counted among its own neighbours.
        next_state[9 + count + 1] = survives >> count & 1
    for board in range(num_boards):
        for row in range(height):
            for column in range(width):
                now[(row + 1) * side + column + 1] = boards[board, row, column]
        for _ in range(steps):
            if is_torus:
                for row in range(1, height + 1):
                    now[row * side] = now[row * side + width]
                    now[row * side + width + 1] = now[row * side + 1]
                for column in range(side):
                    now[column] = now[height * side + column]
                    now[(height + 1) * side + column] = now[side + column]
            for cell in range(side, (height + 1) * side):
                columns[cell] = now[cell - side] + now[cell] + now[cell + side]
            for row in range(1, height + 1):
                for cell in range(row * side + 1, row * side + width + 1):
                    count = columns[cell - 1] + columns[cell] + columns[cell + 1]
                    now[cell] = next_state[9 * now[cell] + count]
        for row in range(height):
            for column in range(width):
                later[board, row, column] = now[(row + 1) * side + column + 1]
