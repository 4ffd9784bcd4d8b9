"""Langton's ants on many boards at once, compiled. Import this inside functions only: numba takes half a second to
load."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.split_mix import next_random

NORTH, EAST, SOUTH, WEST = range(4)


@compiled
def draw_ant_boards(
    seeds: npt.NDArray[np.uint64], place: int, density: float, ant: int, boards: npt.NDArray[np.int8]
) -> None:
    """Fill boards (n, cells) with ones at random, each cell with the chance ``density``, and zeros elsewhere; one cell
    receives ``ant``: the one at ``place``, or any where that is -1, each with the same chance."""
    state = np.empty(1, dtype=np.uint64)
    threshold = np.uint64(density * 2.0**32)
    num_cells = boards.shape[1]
    for board in range(boards.shape[0]):
        state[0] = seeds[board]
        anywhere = np.int64((next_random(state) >> np.uint64(32)) * np.uint64(num_cells) >> np.uint64(32))
        bits = np.uint64(0)
        for cell in range(num_cells):
            # Two cells from each 64 bits: a chance is then met to one part in 2**32.
            bits = next_random(state) if cell % 2 == 0 else bits >> np.uint64(32)
            boards[board, cell] = (bits & np.uint64(0xFFFFFFFF)) < threshold
        boards[board, anywhere if place < 0 else place] = ant


@compiled
def run_ants(
    boards: npt.NDArray[np.int8],
    ant: int,
    heading: int,
    steps: int,
    width: int,
    later: npt.NDArray[np.int8],
    hidden: npt.NDArray[np.int8],
) -> None:
    """Boards ``steps`` moves later.

    ``boards`` and ``later``: (n, height * width) of white (0) and black (1) cells, opposite edges meet. ``ant`` marks
    the cell where the ant is, in ``boards`` a white one. On white it turns right, on black left; it changes the colour
    of the cell and moves on. ``heading``: where it looks at first, ``NORTH`` to ``WEST``. ``hidden`` (n,) receives the
    colour of the cell where the ant is later.
    """
    num_cells = boards.shape[1]
    for board in range(boards.shape[0]):
        at = 0
        for cell in range(num_cells):
            later[board, cell] = boards[board, cell]
            if boards[board, cell] == ant:
                at = cell
        later[board, at] = 0
        # Where the row of the ant begins, and its column: no division in the loop.
        column = at % width
        row_start = at - column
        direction = heading
        for _ in range(steps):
            color = later[board, row_start + column]
            later[board, row_start + column] = 1 - color
            direction = (direction + 1 + 2 * color) % 4
            if direction == NORTH:
                row_start = (row_start if row_start > 0 else num_cells) - width
            elif direction == SOUTH:
                row_start += width
                if row_start == num_cells:
                    row_start = 0
            elif direction == EAST:
                column += 1
                if column == width:
                    column = 0
            else:
                column = (column if column > 0 else width) - 1
        hidden[board] = later[board, row_start + column]
        later[board, row_start + column] = ant
