"""Paths marked on a grid of walls, as ``maze`` and ``shortest_path`` draw them: codes, and how they grow."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid, frozen_grid

WALL, OPEN, END, START, SOLUTION = range(5)

Cell: TypeAlias = tuple[int, int]
"""Row and column."""


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


def marked_path_length(question: Grid, grid: Grid) -> int | None:
    """Moves along the path that ``grid`` marks on ``question``; None where it marks no path.

    The ``SOLUTION`` cells of ``grid`` must have been ``OPEN``, all its other cells be those of the question, and the
    marked cells can be walked one after the other, each once, from ``START`` to ``END``. The walk may touch itself. An
    area so wide that ``_can_be_walked`` finds no walk in time is no path either.
    """
    if grid.shape != question.shape:
        return None
    marked = grid == SOLUTION
    if not np.array_equal(np.where(marked, OPEN, grid), question):
        return None
    cells = {(row, column) for row, column in np.argwhere(marked).tolist()}
    start, end = ((row, column) for code in (START, END) for row, column in np.argwhere(question == code).tolist())
    around = {cell: [near for near in neighbours(cell) if near in cells or near == end] for cell in (*cells, start)}
    return len(cells) + 1 if _can_be_walked(around, start, end) else None


def _can_be_walked(around: dict[Cell, list[Cell]], start: Cell, end: Cell) -> bool:
    """Whether a walk from start to end meets every cell of ``around`` once; ``around``: where each may be left to.

    A search with backtracking that takes the cell with the fewest ways on first, and gives up in time: a path is found
    at once, even where it runs along itself, and an area is not worth the search.
    """
    if any(len(nexts) < (1 if cell == start or start in neighbours(cell) else 2) for cell, nexts in around.items()):
        return False
    # As on a chessboard, each move changes the colour of the cell.
    num_moves = len(around)
    num_as_start = sum((row + column - sum(start)) % 2 == 0 for row, column in (*around, end))
    if num_as_start != num_moves // 2 + 1 or (sum(end) - sum(start) - num_moves) % 2:
        return False
    walk: list[Cell] = []
    seen: set[Cell] = set()
    to_try = [[start]]
    for _ in range(1000 + 10 * num_moves):
        while not to_try[-1]:
            to_try.pop()
            if not walk:
                return False
            seen.remove(walk.pop())
        cell = to_try[-1].pop()
        if cell == end:
            if len(seen) == num_moves:
                return True
            continue
        walk.append(cell)
        seen.add(cell)
        nexts = [near for near in around[cell] if near not in seen]
        to_try.append(sorted(nexts, key=lambda near: -sum(far not in seen for far in around.get(near, ()))))
    return False


def path_distances(answers: npt.NDArray[np.int8], other: Grid) -> npt.NDArray[np.float64]:
    """1 - Jaccard index of the ``SOLUTION`` cells of each of ``answers`` (n, rows, columns) and of ``other``, (n,).

    1 where the grids differ in shape: a maze of another size shares no path.
    """
    if answers.shape[1:] != other.shape:
        return np.ones(len(answers))
    paths, path = answers == SOLUTION, other == SOLUTION
    shared, either = (paths & path).sum(axis=(1, 2)), (paths | path).sum(axis=(1, 2))
    return 1 - shared / np.maximum(either, 1)
