"""Which cells of a Hitori board are shaded, compiled. Import this inside functions only: numba takes half a second to
load.

Shaded cells never share a side, and cut the others nowhere in two. The others hang together exactly when the shaded
cells, joined where they touch at a corner and to the rim where they lie on it, form no ring: so each shaded cell
carries a label of the tree it belongs to, and a cell that would join a tree to itself cannot be shaded.

A board's ``labels`` (cells + 4,) are those of its cells, row by row, then ``LAST_TREE``, ``OFF_BOARD``, ``ON_RIM`` and
``GUESS``.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled_inside
from task_generators.split_mix import next_random

RIM = 0
"""Label of the tree that holds the rim; others are counted from 1 in the order in which they began. A board has fewer
than 64 of them, so that a set of labels is 64 bits. Cells that are not shaded have labels below 0."""
UNKNOWN, OPEN = -1, -2
LAST_TREE, OFF_BOARD, ON_RIM, GUESS = 0, 1, 2, 3
"""Places behind the cells: the last label given; what lies beyond a side (open); what a cell on the rim touches;
a cell that a search guesses."""


@cache
def near_cells(size: int) -> npt.NDArray[np.int64]:
    """(cells, 8 + 2 * (size - 1)): the four cells beside each cell, the four at its corners (as places in ``labels``),
    and the others of its row and column."""
    num_cells = size * size
    near = np.full((num_cells, 8 + 2 * (size - 1)), num_cells + OFF_BOARD)
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]
    for cell in range(num_cells):
        row, column = divmod(cell, size)
        is_on_rim = False
        for place, (down, across) in enumerate(steps):
            if 0 <= row + down < size and 0 <= column + across < size:
                near[cell, place] = cell + down * size + across
            elif place >= 4 and not is_on_rim:
                # Once, because what touches a tree twice makes a ring.
                near[cell, place] = num_cells + ON_RIM
                is_on_rim = True
        near[cell, 8:] = [other for other in range(num_cells) if other != cell and other // size == row] + [
            other for other in range(num_cells) if other != cell and other % size == column
        ]
    return near


@compiled_inside
def shade(labels: npt.NDArray[np.int64], near: npt.NDArray[np.int64], cell: int) -> bool:
    """Shade a cell that is not shaded; False, and nothing changes, where that breaks a rule."""
    met = 0
    for place in range(8):
        label = labels[near[cell, place]]
        if label >= 0:
            if place < 4 or met >> label & 1:
                return False
            met |= 1 << label
    last_tree = near.shape[0]
    if met & 1 << RIM:
        labels[cell] = RIM
    else:
        labels[last_tree] += 1
        labels[cell] = labels[last_tree]
    if met > 1 << RIM:
        for other in range(last_tree):
            if labels[other] >= 0 and met >> labels[other] & 1:
                labels[other] = labels[cell]
    return True


@compiled_inside
def draw_shading(
    num_shaded: int,
    near: npt.NDArray[np.int64],
    state: npt.NDArray[np.uint64],
    labels: npt.NDArray[np.int64],
    tried: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
) -> None:
    """Shade ``num_shaded`` cells so that no other cell can be shaded as well.

    That is needed for a single solution, because a solution stays one when a cell more is shaded where the rules allow
    it. Cells are shaded in random order; then a few are freed and others shaded, again and again, keeping what comes no
    less close to the number. ``state``: see ``next_random``. ``labels`` receives the shading; ``tried``, as long, and
    ``order`` (cells,) are for work.
    """
    num_cells = near.shape[0]
    for place in range(num_cells + 1):
        labels[place] = UNKNOWN
    distance = num_cells
    while distance:
        for cell in range(num_cells):
            tried[cell] = UNKNOWN
            other = draw_below(cell + 1, state)
            order[cell] = order[other]
            order[other] = cell
        tried[num_cells + LAST_TREE] = RIM
        # First about half of the cells that are shaded so far, then whatever fits beside them.
        kept = np.int64(0)
        count = 0
        for place in range(2 * num_cells):
            if place == 0 or place == num_cells // 2:
                kept = np.int64(next_random(state))
            cell = order[place % num_cells]
            is_due = place >= num_cells
            if not is_due and labels[cell] >= 0:
                is_due = kept & 1 != 0
                kept >>= 1
            if is_due and tried[cell] < 0 and shade(tried, near, cell):
                count += 1
        if abs(count - num_shaded) <= distance:
            distance = abs(count - num_shaded)
            for cell in range(num_cells):
                labels[cell] = tried[cell]


@compiled_inside
def draw_below(end: int, state: npt.NDArray[np.uint64]) -> np.int64:
    """A random number from 0 to ``end`` - 1."""
    return np.int64(next_random(state) % np.uint64(end))
