"""Random 9x9 Sudoku puzzles, compiled. Import this inside functions only: numba takes half a second to load.

Cells are counted row by row. Sets of digits are bits: bit d - 1 stands for digit d. ``sudoku_solver`` shares nothing
with this file, so that it can prove what is made here.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from task_generators.split_mix import next_random

MOST_WAYS = 40_000
"""Digits to choose from while a grid is filled, multiplied, from which on a grid is sure to be kept. 7 % of all grids
have more, and come out less often than the others; put right, 3 % of the grids drawn would be others (measured). A
larger number costs time: 15 grids are filled for one that is kept.
"""

NUM_CELLS = 81
ALL_DIGITS = 0b111111111


@numba.njit(cache=True, error_model="numpy")
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
    state = np.empty(1, dtype=np.uint64)
    order = np.empty(NUM_CELLS, dtype=np.int64)
    # Digits missing from the rows (0 to 8), columns (9 to 17) and boxes (18 to 26).
    missing = np.empty(27, dtype=np.int64)
    units = np.empty(3 * NUM_CELLS, dtype=np.int64)
    for cell in range(NUM_CELLS):
        units[3 * cell] = cell // 9
        units[3 * cell + 1] = 9 + cell % 9
        units[3 * cell + 2] = 18 + cell // 27 * 3 + cell % 9 // 3
    num_digits = np.empty(ALL_DIGITS + 1, dtype=np.int64)
    num_digits[0] = 0
    for digits in range(1, ALL_DIGITS + 1):
        num_digits[digits] = num_digits[digits >> 1] + (digits & 1)
    empty = np.empty(NUM_CELLS, dtype=np.int64)
    untried = np.empty(NUM_CELLS + 1, dtype=np.int64)
    placed = np.empty(NUM_CELLS + 1, dtype=np.int64)
    band = np.empty(27, dtype=np.int64)
    stack = np.empty(27, dtype=np.int64)
    for puzzle in range(len(seeds)):
        state[0] = seeds[puzzle]
        num_left = NUM_CELLS + 1
        while num_left > num_givens:
            while not _fill(state, units, num_digits, missing, empty, band, stack, solutions[puzzle]):
                pass
            for cell in range(NUM_CELLS):
                puzzles[puzzle, cell] = solutions[puzzle, cell]
                other = np.int64(next_random(state) % np.uint64(cell + 1))
                order[cell] = order[other]
                order[other] = cell
            num_left = _empty_cells(
                solutions[puzzle],
                puzzles[puzzle],
                order,
                num_givens,
                units,
                num_digits,
                missing,
                empty,
                untried,
                placed,
            )


@numba.njit(cache=True, error_model="numpy")
def _empty_cells(
    solution: npt.NDArray[np.int8],
    puzzle: npt.NDArray[np.int8],
    order: npt.NDArray[np.int64],
    num_givens: int,
    units: npt.NDArray[np.int64],
    num_digits: npt.NDArray[np.int64],
    missing: npt.NDArray[np.int64],
    empty: npt.NDArray[np.int64],
    untried: npt.NDArray[np.int64],
    placed: npt.NDArray[np.int64],
) -> int:
    """Empty the cells of a full grid in ``order``, where that leaves one solution; returns how many stay given."""
    for unit in range(27):
        missing[unit] = 0
    num_empty = num_kept = 0
    for cell in order:
        row, column, box = units[3 * cell], units[3 * cell + 1], units[3 * cell + 2]
        bit = 1 << (puzzle[cell] - 1)
        missing[row] ^= bit
        missing[column] ^= bit
        missing[box] ^= bit
        others = missing[row] & missing[column] & missing[box] & ~bit
        # A second solution has another digit here. Most often none fits.
        is_only = others == 0
        while not is_only and others:
            other = others & -others
            others ^= other
            missing[row] ^= other
            missing[column] ^= other
            missing[box] ^= other
            is_solvable = _can_complete(solution, units, num_digits, missing, empty, num_empty, untried, placed)
            missing[row] ^= other
            missing[column] ^= other
            missing[box] ^= other
            if is_solvable:
                break
            is_only = others == 0
        if is_only:
            puzzle[cell] = 0
            empty[num_empty] = cell
            num_empty += 1
            if NUM_CELLS - num_empty == num_givens:
                break
        else:
            num_kept += 1
            if num_kept > num_givens:
                break
            missing[row] ^= bit
            missing[column] ^= bit
            missing[box] ^= bit
    return NUM_CELLS - num_empty


@numba.njit(cache=True, error_model="numpy")
def _can_complete(
    solution: npt.NDArray[np.int8],
    units: npt.NDArray[np.int64],
    num_digits: npt.NDArray[np.int64],
    missing: npt.NDArray[np.int64],
    empty: npt.NDArray[np.int64],
    num_empty: int,
    untried: npt.NDArray[np.int64],
    placed: npt.NDArray[np.int64],
) -> bool:
    """Whether the first ``num_empty`` cells of ``empty`` (reordered here) can all be filled with ``missing`` digits.

    Depth first over the cell with the fewest fitting digits. ``missing`` comes back as it was; ``untried`` and
    ``placed`` are for work.
    """
    depth = 0
    is_deeper = True
    while depth >= 0 and depth < num_empty:
        if is_deeper:
            fewest = 10
            chosen = depth
            for place in range(depth, num_empty):
                cell = empty[place]
                fitting = missing[units[3 * cell]] & missing[units[3 * cell + 1]] & missing[units[3 * cell + 2]]
                if num_digits[fitting] < fewest:
                    fewest = num_digits[fitting]
                    chosen = place
                    untried[depth] = fitting
                    if fewest <= 1:
                        break
            empty[depth], empty[chosen] = empty[chosen], empty[depth]
            placed[depth] = 0
        # Take back the digit tried last (0 if none) and place the next one, both by flipping bits.
        cell = empty[depth]
        # The digit of the solution first: with one other cell changed, most of them stay as they are.
        bit = untried[depth] & 1 << (solution[cell] - 1)
        if bit == 0:
            bit = untried[depth] & -untried[depth]
        untried[depth] ^= bit
        change = placed[depth] ^ bit
        for unit in range(3):
            missing[units[3 * cell + unit]] ^= change
        placed[depth] = bit
        is_deeper = bit != 0
        depth += 1 if is_deeper else -1
    for place in range(depth):
        for unit in range(3):
            missing[units[3 * empty[place] + unit]] ^= placed[place]
    return depth == num_empty


@numba.njit(cache=True, error_model="numpy")
def _fill(
    state: npt.NDArray[np.uint64],
    units: npt.NDArray[np.int64],
    num_digits: npt.NDArray[np.int64],
    missing: npt.NDArray[np.int64],
    empty: npt.NDArray[np.int64],
    band: npt.NDArray[np.int64],
    stack: npt.NDArray[np.int64],
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
    num_empty = 0
    for cell in range(NUM_CELLS):
        row, column = cell // 9, cell % 9
        if row < 3:
            digit = band[cell]
        elif column < 3:
            # A band on its side, its digits renamed so that its first box is that of the band above.
            digit = stack[column * 9 + row]
            for place in range(9):
                if stack[place // 3 * 9 + place % 3] == digit:
                    digit = band[place % 3 * 9 + place // 3]
                    break
        else:
            empty[num_empty] = cell
            num_empty += 1
            continue
        solution[cell] = digit
        for kind in range(3):
            missing[units[3 * cell + kind]] ^= 1 << (digit - 1)
    num_ways = 1
    for depth in range(num_empty):
        fewest = 10
        chosen = depth
        rest = 0
        for place in range(depth, num_empty):
            cell = empty[place]
            fitting = missing[units[3 * cell]] & missing[units[3 * cell + 1]] & missing[units[3 * cell + 2]]
            if num_digits[fitting] < fewest:
                fewest = num_digits[fitting]
                chosen = place
                rest = fitting
                if fewest <= 1:
                    break
        if fewest == 0:
            return False
        cell = empty[chosen]
        empty[chosen] = empty[depth]
        num_ways *= fewest
        if fewest > 1:
            for _ in range(np.int64(next_random(state) % np.uint64(fewest))):
                rest &= rest - 1
        bit = rest & -rest
        solution[cell] = num_digits[bit - 1] + 1
        for kind in range(3):
            missing[units[3 * cell + kind]] ^= bit
    return bool(np.int64(next_random(state) % np.uint64(MOST_WAYS)) < num_ways)


@numba.njit(cache=True, error_model="numpy")
def _draw_band(state: npt.NDArray[np.uint64], band: npt.NDArray[np.int64]) -> None:
    """Draw three rows of a grid, (27,), uniformly over all that can be.

    Of the first row's box, some digits go to the second row of the box before it and to the third row of the box after
    it, the others to the third row before and the second after. Which ones is free, but for their number, which must be
    the same for all three boxes.
    """
    for place in range(9):
        other = np.int64(next_random(state) % np.uint64(place + 1))
        band[place] = band[other]
        band[other] = place + 1
    # Bit p: whether the digit at place p of the first row goes to the second row of the box before.
    before = np.int64(0)
    is_even = False
    while not is_even:
        before = np.int64(next_random(state) >> np.uint64(55))
        from_first = (before & 1) + (before >> 1 & 1) + (before >> 2 & 1)
        from_second = (before >> 3 & 1) + (before >> 4 & 1) + (before >> 5 & 1)
        from_third = (before >> 6 & 1) + (before >> 7 & 1) + (before >> 8 & 1)
        is_even = bool(from_first == from_second and from_second == from_third)
    for box in range(3):
        num_second = num_third = 0
        for place in range(6):
            source = (box + 1 + place // 3) % 3 * 3 + place % 3
            # The next box first, then the one before.
            if (before >> source & 1 == 1) == (place < 3):
                band[9 + 3 * box + num_second] = band[source]
                num_second += 1
            else:
                band[18 + 3 * box + num_third] = band[source]
                num_third += 1
        for line in range(9 + 3 * box, 27, 9):
            for place in range(3):
                other = np.int64(next_random(state) % np.uint64(place + 1))
                digit = band[line + place]
                band[line + place] = band[line + other]
                band[line + other] = digit
