"""Random Hitori boards, compiled. Import this inside functions only: numba takes half a second to load.

Cells are counted row by row. ``hitori_solver`` shares nothing with this file, so that it can prove what is made here.

To compile is what a first board waits for: which cells touch and share lines are tables, and what is shaded, open or
unknown is in one array (see ``hitori_shading``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled, compiled_inside
from task_generators.hitori_shading import (
    GUESS,
    LAST_TREE,
    OFF_BOARD,
    ON_RIM,
    OPEN,
    RIM,
    UNKNOWN,
    draw_below,
    draw_shading,
    near_cells,
    shade,
)
from task_generators.split_mix import next_random

MAX_REPAIRS = 100
"""Numbers under shaded cells that are drawn anew, one at a time, before all numbers are."""
MAX_FILLINGS = 10
"""Times that all numbers are drawn for one shading before another one is."""
MAX_PLACEMENTS = 2000
"""Numbers placed before a filling starts over."""


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
    # The drawn shading, one that is tried, and those of the search, one for each guess.
    labels = np.full((num_cells + 3, num_cells + 4), UNKNOWN, dtype=np.int64)
    labels[:, num_cells + OFF_BOARD] = OPEN
    labels[:, num_cells + ON_RIM] = RIM
    _draw_boards(
        seeds,
        num_shaded,
        questions,
        answers,
        near_cells(size),
        np.empty(1, dtype=np.uint64),
        labels,
        np.empty(num_cells, dtype=np.int64),
    )


@compiled_inside
def _draw_number(numbers: int, state: npt.NDArray[np.uint64]) -> int:
    """A random one of a set of numbers (bit d: number d); 0 where there is none."""
    count = 0
    rest = numbers
    while rest:
        rest &= rest - 1
        count += 1
    if count == 0:
        return 0
    for _ in range(draw_below(count, state)):
        numbers &= numbers - 1
    number = 1
    while not numbers >> number & 1:
        number += 1
    return number


@compiled_inside
def _open_numbers(
    cell: int, near: npt.NDArray[np.int64], shaded: npt.NDArray[np.int8], numbers: npt.NDArray[np.int8]
) -> int:
    """The set of numbers (bit d: number d) in the open cells of a cell's row and column, bit 0 for none."""
    found = 0
    for place in range(8, near.shape[1]):
        other = near[cell, place]
        if not shaded[other]:
            found |= 1 << numbers[other]
    return found


@compiled_inside
def _fill(
    near: npt.NDArray[np.int64],
    shaded: npt.NDArray[np.int8],
    state: npt.NDArray[np.uint64],
    untried: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int8],
) -> bool:
    """Fill the open cells row by row with random numbers that repeat none in their row and column, going back from
    dead ends; False: gave up. Shaded cells receive 0. ``untried``: as long as ``numbers``, for work."""
    all_numbers = (1 << near.shape[1] // 2 - 2) - 2
    for cell in range(numbers.size):
        numbers[cell] = 0
    cell = 0
    step = 1
    for _ in range(MAX_PLACEMENTS):
        while cell < numbers.size and shaded[cell]:
            cell += step
        if cell == numbers.size:
            return True
        if step > 0:
            untried[cell] = all_numbers & ~_open_numbers(cell, near, shaded, numbers)
        number = _draw_number(untried[cell], state)
        untried[cell] &= ~(1 << number)
        numbers[cell] = number
        step = 1 if number else -1
        cell += step
    return False


@compiled_inside
def _repeating_cell(numbers: npt.NDArray[np.int8], near: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> int:
    """The first cell, not known to be open or shaded, that repeats another such cell, or -1."""
    for cell in range(numbers.size):
        if labels[cell] == UNKNOWN:
            for place in range(8, near.shape[1]):
                other = near[cell, place]
                if numbers[other] == numbers[cell] and labels[other] == UNKNOWN:
                    return cell
    return -1


@compiled_inside
def _other_solution(
    numbers: npt.NDArray[np.int8],
    near: npt.NDArray[np.int64],
    shaded: npt.NDArray[np.int8],
    labels: npt.NDArray[np.int64],
    pending: npt.NDArray[np.int64],
) -> int:
    """The row of ``labels`` that holds a solution other than ``shaded``; -1 where there is none.

    Depth first over cells that repeat each other, each guessed to be what it is not in ``shaded`` first. The cells left
    over repeat nothing and stay open; to shade some of them too would give a solution, but where this one is ``shaded``
    that cannot be, because no cell can be shaded beside those. ``labels`` (cells + 1, cells + 4), a row for each guess,
    and ``pending`` (cells,) are for work.
    """
    num_cells = near.shape[0]
    board = labels[0]
    for cell in range(num_cells + 1):
        board[cell] = UNKNOWN
    board[num_cells + LAST_TREE] = RIM
    depth = 0
    is_deeper = True
    while depth >= 0:
        board = labels[depth]
        if is_deeper:
            board[num_cells + GUESS] = _repeating_cell(numbers, near, board)
            if board[num_cells + GUESS] < 0:
                for cell in range(num_cells):
                    if (board[cell] >= 0) != (shaded[cell] != 0):
                        return depth
        cell = board[num_cells + GUESS]
        if cell < 0:
            depth -= 1
            is_deeper = False
            continue
        # Once the first guess is done with, the other one holds, without a guess and so on the same board.
        is_shaded = (shaded[cell] != 0) != is_deeper
        if is_deeper:
            depth += 1
            for place in range(num_cells + 1):
                labels[depth, place] = board[place]
            board = labels[depth]
        # Mark the cell, and all that follows.
        board[cell] = OPEN
        is_deeper = not is_shaded or shade(board, near, cell)
        pending[0] = cell
        num_pending = 1
        while is_deeper and num_pending:
            num_pending -= 1
            cell = pending[num_pending]
            is_open = board[cell] < 0
            for place in range(8 if is_open else 0, near.shape[1] if is_open else 4):
                other = near[cell, place]
                if not is_open and board[other] == UNKNOWN:
                    board[other] = OPEN
                elif is_open and numbers[other] == numbers[cell] and board[other] < 0:
                    if board[other] == OPEN or not shade(board, near, other):
                        is_deeper = False
                        break
                else:
                    continue
                pending[num_pending] = other
                num_pending += 1
        if not is_deeper:
            depth -= 1
    return -1


@compiled
def _draw_boards(
    seeds: npt.NDArray[np.uint64],
    num_shaded: int,
    questions: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
    near: npt.NDArray[np.int64],
    state: npt.NDArray[np.uint64],
    labels: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
) -> None:
    for board in range(seeds.size):
        state[0] = seeds[board]
        numbers = questions[board]
        shaded = answers[board]
        other = 0
        while other >= 0:
            draw_shading(num_shaded, near, state, labels[0], labels[1], order)
            for cell in range(order.size):
                shaded[cell] = labels[0, cell] >= 0
            for _ in range(MAX_FILLINGS):
                while not _fill(near, shaded, state, order, numbers):
                    pass
                num_drawn = 0
                for cell in range(order.size):
                    if shaded[cell]:
                        order[num_drawn] = cell
                        num_drawn += 1
                for repair in range(MAX_REPAIRS + 1):
                    for place in range(num_drawn):
                        cell = order[place]
                        choices = _open_numbers(cell, near, shaded, numbers)
                        # Another number than it has, where there are two.
                        if choices & (choices - 1):
                            choices &= ~(1 << numbers[cell])
                        numbers[cell] = _draw_number(choices, state)
                    if repair == MAX_REPAIRS:
                        break
                    other = _other_solution(numbers, near, shaded, labels, order)
                    if other < 0:
                        break
                    num_drawn = 0
                    for cell in range(order.size):
                        if shaded[cell] and labels[other, cell] < 0:
                            order[num_drawn] = cell
                            num_drawn += 1
                    order[0] = order[np.int64(next_random(state) % np.uint64(num_drawn))]
                    num_drawn = 1
                if other < 0:
                    break
