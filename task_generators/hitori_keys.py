"""Keys of Hitori boards that no symmetry changes, compiled. Import this inside functions only: numba takes half a
second to load."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(cache=True, error_model="numpy")
def renamed_keys(boards: npt.NDArray[np.int8], copies: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> None:
    """One key a board, the same for its ``copies`` and however its numbers are named.

    ``boards``: (n, cells) of numbers 1 to 9; ``copies``: see ``symmetry``; ``keys`` (n,) receives the smallest hash of
    the copies, numbers renamed in the order in which they first occur.
    """
    names = np.empty(10, dtype=np.uint64)
    for board in range(boards.shape[0]):
        for copy in range(copies.shape[0]):
            for number in range(10):
                names[number] = 0
            num_names = np.uint64(0)
            key = np.uint64(0x9E3779B97F4A7C15)
            for cell in range(copies.shape[1]):
                number = boards[board, copies[copy, cell]]
                if names[number] == 0:
                    num_names += np.uint64(1)
                    names[number] = num_names
                key = (key ^ names[number]) * np.uint64(0xFF51AFD7ED558CCD)
                key ^= key >> np.uint64(32)
            if copy == 0 or key < keys[board]:
                keys[board] = key
