"""Paths marked on a grid of walls, as ``maze`` and ``shortest_path`` draw them: codes, and how they grow."""

from __future__ import annotations

import numpy as np

from task_generators.problem import Grid, frozen_grid

WALL, OPEN, END, START, SOLUTION = range(5)


def growing_path(question: Grid, answer: Grid) -> tuple[Grid, ...]:
    """The marked path from the start onwards, one cell longer each time; the last cell is left to the answer.

    ``answer`` is ``question`` with a path of ``SOLUTION`` cells from ``START`` to ``END``, in which no two cells touch
    but those that follow each other.
    """
    left = answer == SOLUTION
    ((row, column),) = np.argwhere(answer == START).tolist()
    grid = question.copy()
    states = []
    for _ in range(int(left.sum()) - 1):
        row, column = next(
            (row + down, column + right)
            for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1))
            if 0 <= row + down < len(left) and 0 <= column + right < left.shape[1] and left[row + down, column + right]
        )
        left[row, column] = False
        grid[row, column] = SOLUTION
        states.append(frozen_grid(grid))
    return tuple(states)


def neighbours(cell: tuple[int, int]) -> list[tuple[int, int]]:
    """The cells above, to the right, below and to the left, whether they exist or not."""
    row, column = cell
    return [(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)]


def steps_from(grid: Grid, start: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Fewest steps from ``start`` to every cell that is no wall and can be reached: breadth-first, in plain Python, for
    verifiers."""
    is_open = set(map(tuple, np.argwhere(grid != WALL).tolist()))
    steps = {start: 0}
    reached = [start]
    for cell in reached:  # grows as it is walked
        for near in neighbours(cell):
            if near in is_open and near not in steps:
                steps[near] = steps[cell] + 1
                reached.append(near)
    return steps
