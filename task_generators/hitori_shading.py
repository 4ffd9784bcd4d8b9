"""Which cells of a Hitori board are shaded, compiled. Import this inside functions only: numba takes half a second to
load.

Shaded cells never share a side, and cut the others nowhere in two. The others hang together exactly when the shaded
cells, joined where they touch at a corner and to the rim where they lie on it, form no ring: so each shaded cell
carries a label of the tree it belongs to, and a cell that would join a tree to itself cannot be shaded.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from task_generators.split_mix import next_random

NOT_SHADED = -1
RIM = 0
"""Label of the tree that holds the rim; others are counted from 1 in the order in which they began. A board has fewer
than 64 of them, so that a set of labels is 64 bits."""


@numba.njit(cache=True, error_model="numpy")
def shade(labels: npt.NDArray[np.int8], size: int, cell: int) -> bool:
    """Shade a cell that is not shaded; False, and nothing changes, where that breaks a rule.

    ``labels``: those of the size * size cells row by row, and the last one given.
    """
    row, column = cell // size, cell % size
    if (
        (row > 0 and labels[cell - size] != NOT_SHADED)
        or (row < size - 1 and labels[cell + size] != NOT_SHADED)
        or (column > 0 and labels[cell - 1] != NOT_SHADED)
        or (column < size - 1 and labels[cell + 1] != NOT_SHADED)
    ):
        return False
    is_on_rim = row == 0 or column == 0 or row == size - 1 or column == size - 1
    met = 1 << RIM if is_on_rim else 0
    num_met = 0
    for corner in range(4):
        down = (corner & 1) * 2 - 1
        across = (corner & 2) - 1
        if 0 <= row + down < size and 0 <= column + across < size:
            label = labels[cell + down * size + across]
            if label != NOT_SHADED:
                if met >> label & 1:
                    return False
                met |= 1 << label
                num_met += 1
    joined = RIM
    if not met & 1 << RIM:
        labels[size * size] += 1
        joined = labels[size * size]
    labels[cell] = joined
    if num_met:
        for other in range(size * size):
            if labels[other] != NOT_SHADED and met >> labels[other] & 1:
                labels[other] = joined
    return True


@numba.njit(cache=True, error_model="numpy")
def draw_shading(
    size: int,
    num_shaded: int,
    state: npt.NDArray[np.uint64],
    labels: npt.NDArray[np.int8],
    tried: npt.NDArray[np.int8],
    order: npt.NDArray[np.int64],
) -> None:
    """Shade ``num_shaded`` cells so that no other cell can be shaded as well.

    That is needed for a single solution, because a solution stays one when a cell more is shaded where the rules allow
    it. Cells are shaded in random order; then a few are freed and others shaded, again and again, keeping what comes no
    less close to the number. ``state``: see ``next_random``. ``labels`` (size * size + 1,) receives the shading;
    ``tried``, as long, and ``order`` (size * size,) are for work.
    """
    num_cells = size * size
    for cell in range(num_cells):
        labels[cell] = NOT_SHADED
    distance = num_cells
    while distance:
        for cell in range(num_cells):
            tried[cell] = NOT_SHADED
            other = np.int64(next_random(state) % np.uint64(cell + 1))
            order[cell] = order[other]
            order[other] = cell
        tried[num_cells] = RIM
        # First about half of the cells that are shaded so far, then whatever fits beside them.
        kept = next_random(state)
        for place in range(2 * num_cells):
            if place == num_cells // 2:
                kept = next_random(state)
            cell = order[place % num_cells]
            is_due = place >= num_cells
            if not is_due and labels[cell] != NOT_SHADED:
                is_due = kept & np.uint64(1) != 0
                kept >>= np.uint64(1)
            if is_due and tried[cell] == NOT_SHADED:
                shade(tried, size, cell)
        count = 0
        for cell in range(num_cells):
            count += tried[cell] != NOT_SHADED
        if abs(count - num_shaded) <= distance:
            distance = abs(count - num_shaded)
            for cell in range(num_cells):
                labels[cell] = tried[cell]
