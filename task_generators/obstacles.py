"""Obstacle courses, drawn and solved, compiled. Import this inside functions only: numba takes half a second to
load."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.marked_path import END, OPEN, SOLUTION, START, WALL
from task_generators.split_mix import next_random

MAX_COURSES = 2000
"""Courses drawn for one problem before its knobs count as impossible."""
MAX_PAIRS = 1000
"""Pairs of cells drawn on one course before it counts as too crowded for a start and an end."""
MAX_COUNTED_PATHS = 10**15
"""Where the count of optimal paths stops: a whole number that a double still holds exactly."""


class Courses(NamedTuple):
    """Solved courses: questions and answers (n, height, width), and of each course (n,) the moves of a shortest path
    from start to end and the number of such paths, at most ``MAX_COUNTED_PATHS``."""

    questions: npt.NDArray[np.int8]
    answers: npt.NDArray[np.int8]
    optimal_lengths: npt.NDArray[np.int64]
    num_optimal_paths: npt.NDArray[np.int64]


def draw_courses(
    seeds: npt.NDArray[np.uint64],
    height: int,
    width: int,
    obstacle_density: float,
    num_barriers: int,
    barrier_holes: tuple[int, int],
    num_blocks: tuple[int, int],
    block_sides: tuple[int, int],
    corner_to_corner: bool,
    min_distance: int,
) -> Courses | None:
    """Draw a course from each seed, with a start and an end that are connected, and mark a shortest path.

    Pairs hold the least and the greatest number: of holes in a barrier, of blocks, and of cells along a block's side,
    each drawn uniformly between them, both included. Start and end are the first and the last inner cell, or a pair
    drawn uniformly from the pairs of open cells that are ``min_distance`` or more rows and columns apart. A course on
    which no way leads from one to the other is drawn anew. None: some seed found none in ``MAX_COURSES``.
    """
    num_cells = height * width
    questions = np.empty((len(seeds), num_cells), dtype=np.int8)
    courses = Courses(
        questions.reshape(-1, height, width),
        np.empty((len(seeds), height, width), dtype=np.int8),
        np.empty(len(seeds), dtype=np.int64),
        np.empty(len(seeds), dtype=np.int64),
    )
    is_complete = _draw_courses(
        np.require(seeds, requirements=["C", "W"]),
        width,
        obstacle_density,
        num_barriers,
        np.array([*barrier_holes, *num_blocks, *block_sides], dtype=np.int64),
        corner_to_corner,
        min_distance,
        questions,
        courses.answers.reshape(-1, num_cells),
        courses.optimal_lengths,
        courses.num_optimal_paths,
        np.empty(num_cells, dtype=np.int64),
        np.empty(num_cells, dtype=np.int64),
        np.empty(num_cells, dtype=np.int64),
        np.empty(1, dtype=np.uint64),
    )
    return courses if is_complete else None


@compiled
def _draw_courses(
    seeds: npt.NDArray[np.uint64],
    width: int,
    obstacle_density: float,
    num_barriers: int,
    limits: npt.NDArray[np.int64],
    corner_to_corner: bool,
    min_distance: int,
    questions: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
    optimal_lengths: npt.NDArray[np.int64],
    num_optimal_paths: npt.NDArray[np.int64],
    distance: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    queue: npt.NDArray[np.int64],
    state: npt.NDArray[np.uint64],
) -> bool:
    """See ``draw_courses``; ``limits`` holds its three pairs, the last four arrays are for work. False: not all."""
    num_cells = questions.shape[1]
    for course in range(len(seeds)):
        state[0] = seeds[course]
        cells = questions[course]
        start, end = width + 1, num_cells - width - 2
        num_drawn = 0
        while True:
            if num_drawn == MAX_COURSES:
                return False
            num_drawn += 1
            _draw_obstacles(cells, width, obstacle_density, num_barriers, limits, state)
            if corner_to_corner:
                cells[start], cells[end] = OPEN, OPEN
            else:
                start, end = _draw_ends(cells, width, min_distance, state, queue)
            if _search(cells, width, end, start, distance, count, queue):
                break
        for cell in range(num_cells):
            answers[course, cell] = cells[cell]
        cells[start] = answers[course, start] = START
        cells[end] = answers[course, end] = END
        cell = start
        while distance[cell] > 1:
            nearer = distance[cell] - 1
            if distance[cell - width] == nearer:
                cell -= width
            elif distance[cell + 1] == nearer:
                cell += 1
            elif distance[cell + width] == nearer:
                cell += width
            else:
                cell -= 1
            answers[course, cell] = SOLUTION
        optimal_lengths[course] = distance[start]
        num_optimal_paths[course] = count[start]
    return True


@compiled
def _below(limit: int, state: npt.NDArray[np.uint64]) -> np.int64:
    """A random whole number from 0 to limit - 1 (limit < 2**32; uniform to one part in 2**32 / limit)."""
    return np.int64((next_random(state) >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32))


@compiled
def _draw_obstacles(
    cells: npt.NDArray[np.int8],
    width: int,
    obstacle_density: float,
    num_barriers: int,
    limits: npt.NDArray[np.int64],
    state: npt.NDArray[np.uint64],
) -> None:
    """Fill ``cells`` (height * width,) with walls: a border, single ones, barriers and blocks, one upon the other."""
    inner_rows, inner_columns = len(cells) // width - 2, width - 2
    threshold = np.uint64(obstacle_density * 2.0**32)
    for cell in range(width):
        cells[cell] = cells[len(cells) - 1 - cell] = WALL
    for row in range(1, inner_rows + 1):
        bits = np.uint64(0)
        for column in range(width):
            # Two cells from each 64 bits: a chance is then met to one part in 2**32.
            bits = next_random(state) if column % 2 == 0 else bits >> np.uint64(32)
            cells[row * width + column] = OPEN if bits & np.uint64(0xFFFFFFFF) >= threshold else WALL
        cells[row * width] = cells[row * width + width - 1] = WALL
    for _ in range(num_barriers):
        if next_random(state) >> np.uint64(63):
            place, step, left = width * (1 + _below(inner_rows, state)) + 1, 1, inner_columns
        else:
            place, step, left = width + 1 + _below(inner_columns, state), width, inner_rows
        holes = limits[0] + _below(limits[1] - limits[0] + 1, state)
        # Selection sampling: each choice of `holes` cells of the line is equally likely. A hole may lie on a wall that
        # was there before, and does not open it.
        while left > 0:
            if _below(left, state) < holes:
                holes -= 1
            else:
                cells[place] = WALL
            place += step
            left -= 1
    for _ in range(limits[2] + _below(limits[3] - limits[2] + 1, state)):
        side = limits[4] + _below(limits[5] - limits[4] + 1, state)
        corner = (1 + _below(inner_rows - side + 1, state)) * width + 1 + _below(inner_columns - side + 1, state)
        for row in range(side):
            for cell in range(corner + row * width, corner + row * width + side):
                cells[cell] = WALL


@compiled
def _draw_ends(
    cells: npt.NDArray[np.int8],
    width: int,
    min_distance: int,
    state: npt.NDArray[np.uint64],
    open_cells: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Two open cells at least ``min_distance`` apart; where none were found, two corners, which are walls."""
    num_open = 0
    for cell in range(len(cells)):
        open_cells[num_open] = cell
        num_open += cells[cell] == OPEN
    for _ in range(MAX_PAIRS if num_open else 0):
        start, end = open_cells[_below(num_open, state)], open_cells[_below(num_open, state)]
        if abs(start // width - end // width) + abs(start % width - end % width) >= min_distance:
            return start, end
    return 0, 0


@compiled
def _search(
    cells: npt.NDArray[np.int8],
    width: int,
    source: int,
    target: int,
    distance: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    queue: npt.NDArray[np.int64],
) -> bool:
    """Breadth-first search over the cells that are no walls, from ``source`` until ``target`` is met; False: it is not.

    ``distance``, ``count``, ``queue``: as long as ``cells``. ``distance`` receives the moves from the source, -1 where
    the search has not been, and ``count`` the number of shortest paths. The border must be walls.
    """
    for cell in range(len(cells)):
        distance[cell] = -1
    distance[source] = 0
    count[source] = 1
    queue[0] = source
    num_seen, place = 1, 0
    while place < num_seen:
        cell = queue[place]
        if cell == target:
            return cells[cell] != WALL
        place += 1
        further = distance[cell] + 1
        for direction in range(4):
            step = width if direction < 2 else 1
            after = cell + step if direction % 2 == 0 else cell - step
            if cells[after] != WALL:
                if distance[after] == -1:
                    distance[after] = further
                    count[after] = 0
                    queue[num_seen] = after
                    num_seen += 1
                if distance[after] == further:
                    count[after] += count[cell]
                    if count[after] > MAX_COUNTED_PATHS:
                        count[after] = MAX_COUNTED_PATHS
    return False
