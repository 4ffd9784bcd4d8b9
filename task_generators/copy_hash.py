"""Hashes of grids that are the same for all symmetric copies, compiled. Import this inside functions only: numba takes
half a second to load.

Zobrist hashing (1970): a fixed random number for each (place, code), all those of a grid xored. The hash of a class of
copies is the smallest hash of its members.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled


def copy_hashes(grids: npt.NDArray[np.int8], copies: npt.NDArray[np.int64], num_codes: int) -> npt.NDArray[np.uint64]:
    """One hash a grid, equal for grids that are copies of each other.

    ``grids``: (n, ...) with codes in 0..num_codes - 1. ``copies``: (copies, cells), a group of permutations; row g
    says for each cell, counted row by row, which cell of the grid lies there in copy g.
    """
    cells = grids.reshape(len(grids), copies.shape[1])
    table = _table(copies.tobytes(), copies.shape[0], copies.shape[1], num_codes)
    hashes = np.empty(len(cells), dtype=np.uint64)
    # A copy where it is read-only, because that would be another type to numba, and be compiled for once more.
    _smallest_hashes(np.require(cells, requirements=["C", "W"]), table, hashes)
    return hashes


def grid_hashes(grids: npt.NDArray[np.int8], num_codes: int) -> npt.NDArray[np.uint64]:
    """One hash a grid (n, ...), equal for equal grids only (but for one chance in 2**64)."""
    return copy_hashes(grids, np.arange(math.prod(grids.shape[1:]))[None], num_codes)


@lru_cache(maxsize=32)
def _table(copies: bytes, num_copies: int, num_cells: int, num_codes: int) -> npt.NDArray[np.uint64]:
    """(cells, codes, copies): what a code in a cell adds to the hash of each copy."""
    raw = np.random.PCG64(0).random_raw(num_cells * num_codes).astype(np.uint64)
    numbers = raw.reshape(num_codes, num_cells).T
    # Where each cell lies in copy g is the inverse of which cell lies where.
    places = np.argsort(np.frombuffer(copies, dtype=np.int64).reshape(num_copies, num_cells), axis=1)
    return np.ascontiguousarray(numbers[places].transpose(1, 2, 0))


@compiled
def _smallest_hashes(
    cells: npt.NDArray[np.int8], table: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64]
) -> None:
    num_copies = table.shape[2]
    sums = np.empty(num_copies, dtype=np.uint64)
    for grid in range(cells.shape[0]):
        for copy in range(num_copies):
            sums[copy] = 0
        for cell in range(cells.shape[1]):
            code = cells[grid, cell]
            for copy in range(num_copies):
                sums[copy] ^= table[cell, code, copy]
        smallest = sums[0]
        for copy in range(1, num_copies):
            smallest = min(smallest, sums[copy])
        hashes[grid] = smallest
