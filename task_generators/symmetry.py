"""Smallest symmetric copies: bytes that are the same for a grid and all its copies, for ``Task.canonical_key``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid


def dihedral_copies(grid: Grid) -> list[Grid]:
    """The rotations and reflections of a grid that keep its shape: 8 of a square, 4 of any other rectangle."""
    copies = [grid, grid[::-1], grid[:, ::-1], grid[::-1, ::-1]]
    if grid.shape[0] == grid.shape[1]:
        copies += [copy.T for copy in copies]
    return copies


def smallest_dihedral_copy(grid: Grid) -> bytes:
    """Shape and cells of the smallest of ``dihedral_copies``."""
    return bytes(grid.shape) + min(copy.tobytes() for copy in dihedral_copies(grid))


def smallest_ring_copy(cells: npt.NDArray[np.int8]) -> bytes:
    """Length and cells of the smallest rotation or reflection of a ring of zeros and ones, shape (cells,)."""
    length = len(cells)
    mask = (1 << length) - 1
    smallest = mask
    for reading in (cells, cells[::-1]):
        ring = int("".join("1" if cell else "0" for cell in reading.tolist()), 2)
        for shift in range(length):
            smallest = min(smallest, (ring << shift | ring >> (length - shift)) & mask)
    return bytes((length,)) + smallest.to_bytes(-(-length // 8), "big")


def smallest_torus_copy(grid: Grid) -> bytes:
    """Shape and cells of the smallest rotation, reflection or translation of a torus of zeros and ones."""
    height, width = grid.shape
    assert width <= 62, "a row must fit an int64"
    assert set(np.unique(grid)) <= {0, 1}, "rows are compared as binary numbers"
    copies = np.stack(dihedral_copies(grid)).astype(np.int64)
    shifted_columns = (np.arange(width)[:, None] + np.arange(width)) % width
    # rows[g, y, dx]: row y of copy g, moved by dx columns, as a binary number; a smaller number, a smaller row.
    rows = copies[:, :, shifted_columns] @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
    copy, down, across = (axis.ravel() for axis in np.indices(rows.shape))
    smallest: list[int] = []
    # Row by row, only the copies that are still smallest stay: after two or three rows one is left.
    for row in range(height):
        values = rows[copy, (down + row) % height, across]
        keep = values == values.min()
        copy, down, across = copy[keep], down[keep], across[keep]
        smallest.append(int(values.min()))
    return bytes(grid.shape) + np.array(smallest, dtype=">i8").tobytes()
