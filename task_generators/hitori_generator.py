"""Random Hitori boards, compiled. Import this inside functions only: numba takes half a second to load.

Cells are counted row by row. ``hitori_solver`` shares nothing with this file, so that it can prove what is made here.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from task_generators.hitori_shading import NOT_SHADED, RIM, draw_shading, shade
from task_generators.split_mix import next_random

MAX_REPAIRS = 100
"""Numbers under shaded cells that are drawn anew, one at a time, before all numbers are."""
MAX_FILLINGS = 10
"""Times that all numbers are drawn for one shading before another one is."""
MAX_PLACEMENTS = 2000
"""Numbers placed before a filling starts over."""

UNKNOWN, OPEN, SHADED = 0, 1, 2


@numba.njit(cache=True, error_model="numpy")
def draw_boards(
    seeds: npt.NDArray[np.uint64],
    size: int,
    num_shaded: int,
    questions: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
) -> None:
    """Draw one board with a single solution from each seed.

    ``questions`` and ``answers`` (n, size * size) receive the numbers 1..size, and 1 for shaded and 0 for other cells.
    The shading comes first, then numbers for the open cells, then one for each shaded cell: one of those that it would
    repeat if it were open. While there is another solution, a shaded cell that is open there gets another number.
    """
    num_cells = size * size
    state = np.empty(1, dtype=np.uint64)
    labels = np.empty(num_cells + 1, dtype=np.int8)
    tried = np.empty(num_cells + 1, dtype=np.int8)
    order = np.empty(num_cells, dtype=np.int64)
    # The search's boards, one for each guess.
    marks = np.empty((num_cells + 1, num_cells + 1), dtype=np.int8)
    trees = np.empty((num_cells + 1, num_cells + 1), dtype=np.int8)
    for board in range(len(seeds)):
        state[0] = seeds[board]
        numbers = questions[board]
        shaded = answers[board]
        num_solutions = 2
        while num_solutions > 1:
            draw_shading(size, num_shaded, state, labels, tried, order)
            for cell in range(num_cells):
                shaded[cell] = labels[cell] != NOT_SHADED
            for _ in range(MAX_FILLINGS):
                while not _fill(size, shaded, state, order, numbers):
                    pass
                for cell in range(num_cells):
                    if shaded[cell]:
                        _draw_repeated_number(cell, size, shaded, state, numbers)
                for _ in range(MAX_REPAIRS):
                    other = _other_solution(numbers, size, shaded, marks, trees, order)
                    if other < 0:
                        num_solutions = 1
                        break
                    num_open = 0
                    for cell in range(num_cells):
                        if shaded[cell] and marks[other, cell] != SHADED:
                            order[num_open] = cell
                            num_open += 1
                    chosen = order[np.int64(next_random(state) % np.uint64(num_open))]
                    _draw_repeated_number(chosen, size, shaded, state, numbers)
                if num_solutions == 1:
                    break


@numba.njit(cache=True, error_model="numpy")
def _fill(
    size: int,
    shaded: npt.NDArray[np.int8],
    state: npt.NDArray[np.uint64],
    untried: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int8],
) -> bool:
    """Fill the open cells row by row with random numbers that repeat none in their row and column, going back from
    dead ends; False: gave up. Shaded cells receive 0. ``untried``: as long as ``numbers``, for work."""
    row_missing = np.empty(9, dtype=np.int64)
    column_missing = np.empty(9, dtype=np.int64)
    for line in range(size):
        row_missing[line] = column_missing[line] = (1 << size) - 1
    for cell in range(size * size):
        numbers[cell] = 0
    cell = 0
    step = 1
    for _ in range(MAX_PLACEMENTS):
        while cell < size * size and shaded[cell]:
            cell += step
        if cell == size * size:
            return True
        row, column = cell // size, cell % size
        if numbers[cell]:
            bit = 1 << (numbers[cell] - 1)
            row_missing[row] ^= bit
            column_missing[column] ^= bit
            numbers[cell] = 0
        else:
            untried[cell] = row_missing[row] & column_missing[column]
        number = _draw_bit(untried[cell], state)
        if number == 0:
            step = -1
        else:
            bit = 1 << (number - 1)
            untried[cell] ^= bit
            row_missing[row] ^= bit
            column_missing[column] ^= bit
            numbers[cell] = number
            step = 1
        cell += step
    return False


@numba.njit(cache=True, error_model="numpy")
def _draw_repeated_number(
    cell: int,
    size: int,
    shaded: npt.NDArray[np.int8],
    state: npt.NDArray[np.uint64],
    numbers: npt.NDArray[np.int8],
) -> None:
    """Give a shaded cell a random number of those in the open cells of its row and column, other than it has
    where there are two."""
    row, column = cell // size, cell % size
    choices = 0
    for place in range(size):
        if not shaded[row * size + place]:
            choices |= 1 << (numbers[row * size + place] - 1)
        if not shaded[place * size + column]:
            choices |= 1 << (numbers[place * size + column] - 1)
    if numbers[cell] and choices & (choices - 1):
        choices &= ~(1 << (numbers[cell] - 1))
    numbers[cell] = _draw_bit(choices, state)


@numba.njit(cache=True, error_model="numpy")
def _draw_bit(bits: int, state: npt.NDArray[np.uint64]) -> int:
    """A random one of the bits that are set, counted from 1; 0 where none is."""
    count = 0
    rest = bits
    while rest:
        rest &= rest - 1
        count += 1
    if count == 0:
        return 0
    for _ in range(np.int64(next_random(state) % np.uint64(count))):
        bits &= bits - 1
    number = 1
    while not bits >> (number - 1) & 1:
        number += 1
    return number


@numba.njit(cache=True, error_model="numpy")
def _other_solution(
    numbers: npt.NDArray[np.int8],
    size: int,
    shaded: npt.NDArray[np.int8],
    marks: npt.NDArray[np.int8],
    trees: npt.NDArray[np.int8],
    pending: npt.NDArray[np.int64],
) -> int:
    """The row of ``marks`` that holds a solution other than ``shaded``; -1 where there is none.

    Depth first over cells that repeat each other, each guessed to be what it is not in ``shaded`` first. The cells left
    over repeat nothing and stay open; to shade some of them too would give a solution, but where this one is ``shaded``
    that cannot be, because no cell can be shaded beside those. ``marks`` and ``trees`` (cells + 1, cells + 1), a row
    for each guess, and ``pending`` (cells,) are for work.
    """
    num_cells = size * size
    for cell in range(num_cells):
        marks[0, cell] = UNKNOWN
        trees[0, cell] = NOT_SHADED
    trees[0, num_cells] = RIM
    guesses = np.empty(num_cells + 1, dtype=np.int64)
    depth = 0
    is_deeper = True
    while depth >= 0:
        if is_deeper:
            guesses[depth] = _repeating_cell(numbers, size, marks[depth])
            if guesses[depth] < 0:
                for cell in range(num_cells):
                    if (marks[depth, cell] == SHADED) != (shaded[cell] != 0):
                        return depth
        cell = guesses[depth]
        if cell < 0:
            depth -= 1
            is_deeper = False
            continue
        mark = OPEN if (shaded[cell] != 0) == is_deeper else SHADED
        if is_deeper:
            for place in range(num_cells):
                marks[depth + 1, place] = marks[depth, place]
                trees[depth + 1, place] = trees[depth, place]
            trees[depth + 1, num_cells] = trees[depth, num_cells]
            depth += 1
        # Once the first guess is done with, the other one holds, without a guess and so on the same board.
        if _mark(numbers, size, marks[depth], trees[depth], cell, mark, pending):
            is_deeper = True
        else:
            depth -= 1
            is_deeper = False
    return -1


@numba.njit(cache=True, error_model="numpy")
def _repeating_cell(numbers: npt.NDArray[np.int8], size: int, marks: npt.NDArray[np.int8]) -> int:
    """The first cell of unknown mark that repeats another such cell, or -1."""
    for cell in range(size * size):
        if marks[cell] == UNKNOWN:
            row, column = cell // size, cell % size
            for place in range(size):
                right, down = row * size + place, place * size + column
                if right > cell and numbers[right] == numbers[cell] and marks[right] == UNKNOWN:
                    return cell
                if down > cell and numbers[down] == numbers[cell] and marks[down] == UNKNOWN:
                    return cell
    return -1


@numba.njit(cache=True, error_model="numpy")
def _mark(
    numbers: npt.NDArray[np.int8],
    size: int,
    marks: npt.NDArray[np.int8],
    trees: npt.NDArray[np.int8],
    cell: int,
    mark: int,
    pending: npt.NDArray[np.int64],
) -> bool:
    """Mark a cell open or shaded, and all that follows; False where that breaks a rule."""
    marks[cell] = mark
    pending[0] = cell
    num_pending = 1
    while num_pending:
        num_pending -= 1
        cell = pending[num_pending]
        row, column = cell // size, cell % size
        if marks[cell] == SHADED:
            if not shade(trees, size, cell):
                return False
            for side in range(4):
                down = (side == 0) - (side == 1)
                across = (side == 2) - (side == 3)
                if 0 <= row + down < size and 0 <= column + across < size:
                    other = cell + down * size + across
                    if marks[other] == SHADED:
                        return False
                    if marks[other] == UNKNOWN:
                        marks[other] = OPEN
                        pending[num_pending] = other
                        num_pending += 1
        else:
            for place in range(2 * size):
                other = row * size + place if place < size else (place - size) * size + column
                if other != cell and numbers[other] == numbers[cell]:
                    if marks[other] == OPEN:
                        return False
                    if marks[other] == UNKNOWN:
                        marks[other] = SHADED
                        pending[num_pending] = other
                        num_pending += 1
    return True
