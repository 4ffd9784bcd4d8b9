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
