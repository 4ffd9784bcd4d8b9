"""Random 4x4 Sudoku puzzles, compiled. Import this inside functions only: numba takes half a second to load.

There are so few 4x4 grids that a table says which choices of givens leave a single solution, and every puzzle with a
number of givens can be drawn with a known chance.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.split_mix import next_random

NUM_RENAMINGS = 24


def draw_mini_puzzles(
    seeds: npt.NDArray[np.uint64],
    num_givens: int,
    puzzles: npt.NDArray[np.int8],
    solutions: npt.NDArray[np.int8],
) -> None:
    """Draw one puzzle from each seed: each of the 288 full grids with the same chance, and with a grid each choice of
    ``num_givens`` cells that leaves no other solution with the same chance.

    ``puzzles`` and ``solutions`` (n, 16) receive the cells row by row, 0 = empty.
    """
    grids, choices, first_choice = _tables(num_givens)
    _draw(seeds, grids, _renamings(), choices, first_choice, puzzles, solutions)


def num_mini_puzzles(num_givens: int) -> int:
    """How many puzzles with ``num_givens`` given cells have a single solution."""
    return NUM_RENAMINGS * len(_tables(num_givens)[1])


@cache
def _full_grids() -> npt.NDArray[np.int8]:
    """(288, 16): all full grids, those whose first row is 1 2 3 4 first."""
    rows = list(permutations((1, 2, 3, 4)))
    grids = []
    for first in rows:
        for second in rows:
            if {*first[:2]} & {*second[:2]}:
                continue
            for third in rows:
                for fourth in rows:
                    if not {*third[:2]} & {*fourth[:2]} and all(
                        len({*column}) == 4 for column in zip(first, second, third, fourth, strict=True)
                    ):
                        grids.append((*first, *second, *third, *fourth))
    return np.array(grids, dtype=np.int8)


@cache
def _renamings() -> npt.NDArray[np.int8]:
    """(24, 5): each a new name for the digits 1 to 4; 0 stays."""
    return np.array([(0, *names) for names in permutations((1, 2, 3, 4))], dtype=np.int8)


@cache
def _has_single_solution() -> npt.NDArray[np.bool_]:
    """(12, 65536): whether the cells of a choice (bit c: cell c is given) tell a grid from all 287 others.

    The grids are those that begin with 1 2 3 4; to rename digits changes nothing here. Cells in which another grid
    differs are a set of which one must be given (an unavoidable set).
    """
    grids = _full_grids()
    choices = np.arange(1 << 16, dtype=np.uint16)
    is_single = np.ones((len(grids) // NUM_RENAMINGS, 1 << 16), dtype=np.bool_)
    for grid, single in zip(grids, is_single, strict=False):
        differing = np.unique(np.packbits(grids != grid, axis=1, bitorder="little").view("<u2").astype(np.uint16))[1:]
        # A set that holds another one says nothing more.
        smallest = [cells for cells in differing if not ((differing & ~cells == 0) & (differing != cells)).any()]
        for cells in smallest:
            single &= choices & cells != 0
    return is_single


@lru_cache(maxsize=16)
def _tables(num_givens: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Full grids (12, 16) but for the names of digits; their choices of givens, one grid after the other; and where
    those of each begin, with the end, (13,)."""
    bits = np.unpackbits(np.arange(1 << 16, dtype="<u2").view(np.uint8)).reshape(-1, 16).sum(axis=1)
    is_choice = _has_single_solution() & (bits == num_givens)
    first_choice = np.concatenate([[0], np.cumsum(is_choice.sum(axis=1))]).astype(np.int64)
    return _full_grids()[: len(is_choice)].copy(), is_choice.nonzero()[1].astype(np.uint16), first_choice


@compiled
def _draw(
    seeds: npt.NDArray[np.uint64],
    grids: npt.NDArray[np.int8],
    renamings: npt.NDArray[np.int8],
    choices: npt.NDArray[np.uint16],
    first_choice: npt.NDArray[np.int64],
    puzzles: npt.NDArray[np.int8],
    solutions: npt.NDArray[np.int8],
) -> None:
    state = np.empty(1, dtype=np.uint64)
    for puzzle in range(len(seeds)):
        state[0] = seeds[puzzle]
        grid = np.int64(next_random(state) % np.uint64(len(grids)))
        renaming = np.int64(next_random(state) % np.uint64(len(renamings)))
        num_choices = first_choice[grid + 1] - first_choice[grid]
        choice = np.int64(choices[first_choice[grid] + np.int64(next_random(state) % np.uint64(num_choices))])
        for cell in range(16):
            digit = renamings[renaming, grids[grid, cell]]
            solutions[puzzle, cell] = digit
            puzzles[puzzle, cell] = digit if choice >> cell & 1 else 0
