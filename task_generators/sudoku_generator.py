"""Random 9x9 Sudoku puzzles, compiled. Import this inside functions only: numba takes half a second to load.

Cells are counted row by row. Sets of digits are bits: bit d - 1 stands for digit d. ``sudoku_solver`` shares nothing
with this file, so that it can prove what is made here.

To compile is what a first puzzle waits for: what occurs twice is a function here, and what does not depend on the seed
a table.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled, compiled_inside
from task_generators.split_mix import next_random

MOST_WAYS = 40_000
"""Digits to choose from while a grid is filled, multiplied, from which on a grid is sure to be kept. 7 % of all grids
have more, and come out less often than the others; put right, 3 % of the grids drawn would be others (measured). A
larger number costs time: 15 grids are filled for one that is kept.
"""

NUM_CELLS = 81
ALL_DIGITS = 0b111111111

NUM_DIGITS = np.array([digits.bit_count() for digits in range(ALL_DIGITS + 1)])
UNITS = np.array(
    [(row, 9 + column, 18 + row // 3 * 3 + column // 3) for row, column in product(range(9), repeat=2)]
).ravel()
"""Row (0 to 8), column (9 to 17) and box (18 to 26) of each cell."""
INNER_CELLS = np.arange(NUM_CELLS).reshape(9, 9)[3:, 3:].ravel()
OUTER_CELLS = np.setdiff1d(np.arange(NUM_CELLS), INNER_CELLS)
"""Those in the top band or the left stack, and the others."""


def _band_sources() -> npt.NDArray[np.int8]:
    """(512, 18): which digit of a band's first row comes where in the rows below, before these are shuffled.

    Of the first row's box, some digits go to the second row of the box before it and to the third row of the box after
    it, the others to the third row before and the second after. Which ones is free, and counts the rows here (bit p:
    whether the digit at place p goes to the second row of the box before), but for their number, which must be the same
    for all three boxes; -1 where it is not.
    """
    sources = np.full((1 << 9, 18), -1, dtype=np.int8)
    for before in range(1 << 9):
        is_before = np.array([before >> place & 1 for place in range(9)], dtype=np.bool_)
        if len({*is_before.reshape(3, 3).sum(axis=1).tolist()}) > 1:
            continue
        for box in range(3):
            following = [(box + 1) % 3 * 3 + place for place in range(3)]
            preceding = [(box + 2) % 3 * 3 + place for place in range(3)]
            second = [place for place in following if is_before[place]]
            second += [place for place in preceding if not is_before[place]]
            third = [place for place in following if not is_before[place]]
            third += [place for place in preceding if is_before[place]]
            sources[before, 3 * box : 3 * box + 3] = second
            sources[before, 9 + 3 * box : 12 + 3 * box] = third
    return sources.ravel()


BAND_SOURCES = _band_sources()


def draw_puzzles(
    seeds: npt.NDArray[np.uint64],
    num_givens: int,
    puzzles: npt.NDArray[np.int8],
    solutions: npt.NDArray[np.int8],
) -> None:
    """Draw one puzzle from each seed: a full grid, emptied in random order, each cell as long as one solution is left,
    down to ``num_givens``. A grid that cannot be emptied that far is drawn anew.

    ``puzzles`` and ``solutions`` (n, 81) receive the cells, 0 = empty.
    """
    work = [np.empty(NUM_CELLS + 1, dtype=np.int64) for _ in range(8)]
    _draw_puzzles(seeds, num_givens, puzzles, solutions, np.empty(1, dtype=np.uint64), *work)


@compiled_inside
def _draw_below(count: int, state: npt.NDArray[np.uint64]) -> np.int64:
    return np.int64(next_random(state) % np.uint64(count))


@compiled_inside
def _draw_band(state: npt.NDArray[np.uint64], band: npt.NDArray[np.int64]) -> None:
    """Draw three rows of a grid, (27,), uniformly over all that can be."""
    for place in range(9):
        other = _draw_below(place + 1, state)
        band[place] = band[other]
        band[other] = place + 1
    first: int | np.int64 = 18
    while BAND_SOURCES[first] < 0:
        first = 18 * np.int64(next_random(state) >> np.uint64(55))
    for place in range(18):
        band[9 + place] = band[BAND_SOURCES[first + place]]
    # The second and third row of the first box, then of the next one.
    for turn in range(18):
        line = 9 + turn // 3 % 2 * 9 + turn // 6 * 3
        place = line + turn % 3
        other = line + _draw_below(turn % 3 + 1, state)
        digit = band[place]
        band[place] = band[other]
        band[other] = digit


@compiled_inside
def _flip(missing: npt.NDArray[np.int64], cell: int, digits: int) -> None:
    for place in range(3 * cell, 3 * cell + 3):
        missing[UNITS[place]] ^= digits


@compiled_inside
def _fitting(missing: npt.NDArray[np.int64], cell: int) -> int:
    return missing[UNITS[3 * cell]] & missing[UNITS[3 * cell + 1]] & missing[UNITS[3 * cell + 2]]


@compiled_inside
def _choose_cell(missing: npt.NDArray[np.int64], empty: npt.NDArray[np.int64], first: int, end: int) -> int:
    """Bring the first cell of those with the fewest fitting digits to place ``first`` of ``empty``; the digits."""
    fewest = 10
    fewest_digits = 0
    chosen = first
    for place in range(first, end):
        fitting = _fitting(missing, empty[place])
        if NUM_DIGITS[fitting] < fewest:
            fewest = NUM_DIGITS[fitting]
            fewest_digits = fitting
            chosen = place
            if fewest <= 1:
                break
    cell = empty[chosen]
    empty[chosen] = empty[first]
    empty[first] = cell
    return fewest_digits


@compiled_inside
def _fill(
    state: npt.NDArray[np.uint64],
    missing: npt.NDArray[np.int64],
    empty: npt.NDArray[np.int64],
    band: npt.NDArray[np.int64],
    stack: npt.NDArray[np.int64],
    names: npt.NDArray[np.int64],
    solution: npt.NDArray[np.int8],
) -> bool:
    """Fill an empty grid; False: came to a dead end, or threw the grid away.

    The top band is drawn uniformly, and so is the left stack among those that agree with it. In the rest the first cell
    of those with the fewest fitting digits takes any of these. So a grid comes out with a chance of one in the product
    of their numbers (Knuth, "Estimating the efficiency of backtrack programs", 1975), and is kept with a chance in
    proportion to the product: as long as that is below ``MOST_WAYS``, all grids are equally likely.
    """
    _draw_band(state, band)
    _draw_band(state, stack)
    for unit in range(27):
        missing[unit] = ALL_DIGITS
    for place in range(9):
        # A band on its side, its digits renamed so that its first box is that of the band above.
        names[stack[place // 3 * 9 + place % 3]] = band[place % 3 * 9 + place // 3]
    for place in range(27):
        solution[place] = band[place]
        solution[place % 9 * 9 + place // 9] = names[stack[place]]
    for place in range(OUTER_CELLS.size):
        _flip(missing, OUTER_CELLS[place], 1 << (solution[OUTER_CELLS[place]] - 1))
    for depth in range(INNER_CELLS.size):
        empty[depth] = INNER_CELLS[depth]
    num_ways = 1
    for depth in range(INNER_CELLS.size):
        rest = _choose_cell(missing, empty, depth, INNER_CELLS.size)
        if rest == 0:
            return False
        num_ways *= NUM_DIGITS[rest]
        if rest & (rest - 1):
            for _ in range(_draw_below(NUM_DIGITS[rest], state)):
                rest &= rest - 1
        bit = rest & -rest
        solution[empty[depth]] = NUM_DIGITS[bit - 1] + 1
        _flip(missing, empty[depth], bit)
    return bool(np.int64(next_random(state) % np.uint64(MOST_WAYS)) < num_ways)


@compiled_inside
def _has_solution(
    solution: npt.NDArray[np.int8],
    missing: npt.NDArray[np.int64],
    empty: npt.NDArray[np.int64],
    num_empty: int,
    untried: npt.NDArray[np.int64],
    placed: npt.NDArray[np.int64],
) -> bool:
    """Whether the first ``num_empty`` cells of ``empty`` can all be filled with ``missing`` digits, the very first with
    one of ``untried[0]``; the others are reordered here.

    Depth first over the cell with the fewest fitting digits. ``missing`` comes back as it was; ``untried`` and
    ``placed`` are for work.
    """
    depth = 0
    placed[0] = 0
    while depth >= 0 and depth < num_empty:
        # Take back the digit tried last (0 if none) and place the next one, both by flipping bits.
        cell = empty[depth]
        # The digit of the solution first: with one other cell changed, most of them stay as they are.
        bit = untried[depth] & 1 << (solution[cell] - 1)
        if bit == 0:
            bit = untried[depth] & -untried[depth]
        untried[depth] ^= bit
        _flip(missing, cell, placed[depth] ^ bit)
        placed[depth] = bit
        if bit == 0:
            depth -= 1
        else:
            depth += 1
            untried[depth] = _choose_cell(missing, empty, depth, num_empty)
            placed[depth] = 0
    for place in range(depth):
        _flip(missing, empty[place], placed[place])
    return depth > 0


@compiled
def _draw_puzzles(
    seeds: npt.NDArray[np.uint64],
    num_givens: int,
    puzzles: npt.NDArray[np.int8],
    solutions: npt.NDArray[np.int8],
    state: npt.NDArray[np.uint64],
    missing: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    empty: npt.NDArray[np.int64],
    untried: npt.NDArray[np.int64],
    placed: npt.NDArray[np.int64],
    band: npt.NDArray[np.int64],
    stack: npt.NDArray[np.int64],
    names: npt.NDArray[np.int64],
) -> None:
    """``missing`` (27 and more): the digits that each unit has not got. It and all after it, (82,), are for work."""
    for puzzle in range(seeds.size):
        state[0] = seeds[puzzle]
        cells = puzzles[puzzle]
        solution = solutions[puzzle]
        num_empty = 0
        while num_empty < NUM_CELLS - num_givens:
            while not _fill(state, missing, empty, band, stack, names, solution):
                pass
            for cell in range(NUM_CELLS):
                cells[cell] = solution[cell]
                other = _draw_below(cell + 1, state)
                order[cell] = order[other]
                order[other] = cell
            for unit in range(27):
                missing[unit] = 0
            num_empty = 0
            for place in range(NUM_CELLS):
                cell = order[place]
                bit = 1 << (solution[cell] - 1)
                _flip(missing, cell, bit)
                # A second solution has another digit here. Most often none fits.
                untried[0] = _fitting(missing, cell) ^ bit
                empty[num_empty] = empty[0]
                empty[0] = cell
                num_empty += 1
                if untried[0] and _has_solution(solution, missing, empty, num_empty, untried, placed):
                    _flip(missing, cell, bit)
                    num_empty -= 1
                    empty[0] = empty[num_empty]
                    if place - num_empty >= num_givens:
                        break
                else:
                    cells[cell] = 0
                    if num_empty == NUM_CELLS - num_givens:
                        break
