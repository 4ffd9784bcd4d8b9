"""Groups of symmetric copies of a grid, as permutations of its cells, for ``Task.canonical_keys``.

A group is an int64 array (copies, cells): row g says for each cell, counted row by row, which cell of the grid lies
there in copy g. ``task_generators.copy_hash`` turns it into keys.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid


@cache
def dihedral_copies(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """The rotations and reflections that keep the shape: 8 of a square, 4 of any other rectangle."""
    cells = np.arange(rows * columns).reshape(rows, columns)
    copies = [cells, cells[::-1], cells[:, ::-1], cells[::-1, ::-1]]
    if rows == columns:
        copies += [copy.T for copy in copies]
    return np.stack([copy.ravel() for copy in copies])


@cache
def mirror_copies(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """The grid and its mirror image, left and right exchanged."""
    cells = np.arange(rows * columns).reshape(rows, columns)
    return np.stack([cells.ravel(), cells[:, ::-1].ravel()])


@cache
def ring_copies(length: int) -> npt.NDArray[np.int64]:
    """The rotations and reflections of a ring of cells."""
    cells = np.arange(length)
    rotations = (cells[:, None] + cells) % length
    return np.concatenate([rotations, rotations[:, ::-1]])


def smallest_torus_copy(grid: Grid) -> bytes:
    """Shape and cells of the smallest rotation, reflection or translation of a torus of zeros and ones."""
    height, width = grid.shape
    assert width <= 62, "a row must fit an int64"
    assert set(np.unique(grid)) <= {0, 1}, "rows are compared as binary numbers"
    turned = grid.ravel()[dihedral_copies(height, width)].reshape(-1, height, width).astype(np.int64)
    shifted_columns = (np.arange(width)[:, None] + np.arange(width)) % width
    # rows[g, y, dx]: row y of copy g, moved by dx columns, as a binary number; a smaller number, a smaller row.
    rows = turned[:, :, shifted_columns] @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
    copy, down, across = (axis.ravel() for axis in np.indices(rows.shape))
    smallest: list[int] = []
    # Row by row, only the copies that are still smallest stay: after two or three rows one is left.
    for row in range(height):
        values = rows[copy, (down + row) % height, across]
        keep = values == values.min()
        copy, down, across = copy[keep], down[keep], across[keep]
        smallest.append(int(values.min()))
    return bytes(grid.shape) + np.array(smallest, dtype=">i8").tobytes()
