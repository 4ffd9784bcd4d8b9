"""Keys of Hitori boards that no symmetry changes, in numpy: there is nothing here that a first board would have to wait
for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def renamed_keys(boards: npt.NDArray[np.int8], copies: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """One key a board, (n,), the same for its ``copies`` and however its numbers are named.

    ``boards``: (n, cells) of numbers 1 to 9; ``copies``: see ``symmetry``. A key is the smallest hash of the copies,
    numbers renamed in the order in which they first occur.
    """
    # (cells, copies * n): all copies of all boards, cell after cell.
    numbers = np.ascontiguousarray(boards.T)[copies.T].reshape(copies.shape[1], -1).astype(np.int64)
    num_copies = numbers.shape[1]
    # The name of each number in each copy, number after number; 0 before it occurs.
    names = np.zeros(10 * num_copies, dtype=np.uint64)
    num_names = np.zeros(num_copies, dtype=np.uint64)
    keys = np.full(num_copies, 0x9E3779B97F4A7C15, dtype=np.uint64)
    for places in numbers * num_copies + np.arange(num_copies):
        name = names[places]
        is_new = name == 0
        num_names += is_new
        name = np.where(is_new, num_names, name)
        names[places] = name
        keys = (keys ^ name) * np.uint64(0xFF51AFD7ED558CCD)
        keys ^= keys >> np.uint64(32)
    return keys.reshape(len(copies), -1).min(axis=0)
