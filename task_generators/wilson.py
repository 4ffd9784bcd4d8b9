"""Wilson's algorithm, compiled. Import this inside functions only: numba takes half a second to load.

David B. Wilson, "Generating random spanning trees more quickly than the cover time", STOC 1996.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.marked_path import END, OPEN, SOLUTION, START
from task_generators.split_mix import next_random


@compiled
def draw_mazes(
    seeds: npt.NDArray[np.uint64],
    width: int,
    start: int,
    end: int,
    questions: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
) -> None:
    """Draw and solve one maze from each seed; ``questions`` and ``answers`` (n, height * width), walls on entry.

    ``start`` and ``end``: as in ``draw_maze``. Answers also mark the cells strictly between them.
    """
    state = np.empty(1, dtype=np.uint64)
    path = np.empty(questions.shape[1], dtype=np.int32)
    exit_direction = np.empty(questions.shape[1], dtype=np.int64)
    for maze in range(len(seeds)):
        state[0] = seeds[maze]
        length = draw_maze(questions[maze], width, start, end, state, exit_direction, path)
        for cell in range(questions.shape[1]):
            answers[maze, cell] = questions[maze, cell]
        for place in range(length):
            answers[maze, path[place]] = SOLUTION


@compiled
def draw_maze(
    cells: npt.NDArray[np.int8],
    width: int,
    start: int,
    end: int,
    state: npt.NDArray[np.uint64],
    exit_direction: npt.NDArray[np.int64],
    path: npt.NDArray[np.int32],
) -> int:
    """Carve a uniformly random spanning tree of the rooms, and find the way from start to end.

    ``cells``: the maze row by row, shape (height * width,), odd sides, all walls on entry. Rooms are the cells with odd
    row and column; ``start`` and ``end`` are the indices of two of them. ``state``: see ``next_random``.
    ``exit_direction``: as long as ``cells``, for work. ``path``, as long as ``cells``, receives the indices of the
    cells strictly between start and end, whose number is returned.
    """
    height = len(cells) // width
    # The tree grows from the end, so that following the exits leads from any room to the end.
    cells[end] = OPEN
    bits = np.uint64(0)
    num_bits = 0
    for first_row in range(1, height, 2):
        for first_column in range(1, width, 2):
            # Walk at random until the tree is met. Each room remembers only how it was last left, which erases the
            # loops of the walk.
            row, column = first_row, first_column
            while cells[row * width + column] != OPEN:
                if num_bits == 0:
                    bits = next_random(state)
                    num_bits = 64
                direction = np.int64(bits & np.uint64(3))
                bits >>= np.uint64(2)
                num_bits -= 2
                next_row = row + (direction == 2) * 2 - (direction == 0) * 2
                next_column = column + (direction == 1) * 2 - (direction == 3) * 2
                if 0 < next_row < height and 0 < next_column < width:
                    exit_direction[row * width + column] = direction
                    row, column = next_row, next_column
            room = first_row * width + first_column
            while cells[room] != OPEN:
                cells[room] = OPEN
                step = _step(exit_direction[room], width)
                cells[room + step] = OPEN
                room += 2 * step
    length = 0
    room = start
    while room != end:
        step = _step(exit_direction[room], width)
        path[length] = room + step
        path[length + 1] = room + 2 * step
        length += 2
        room += 2 * step
    cells[start] = START
    cells[end] = END
    return length - 1


@compiled
def _step(direction: int, width: int) -> int:
    """How far the neighbouring cell up, right, down or left (0 to 3) is in the row-by-row order."""
    if direction == 0:
        return -width
    if direction == 1:
        return 1
    if direction == 2:
        return width
    return -1
