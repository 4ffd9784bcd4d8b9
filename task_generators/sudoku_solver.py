"""A Sudoku solver, compiled. Import this inside functions only: numba takes half a second to load.

It proves that a puzzle has exactly one solution, in another way than puzzles are made: as an exact cover, by Knuth's
Algorithm X with dancing links ("Dancing links", arXiv cs/0011047), and without a line of the generator's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.problem import Grid, frozen_grid


def solutions(puzzle: Grid, limit: int = 2) -> list[Grid]:
    """Up to ``limit`` solutions of a puzzle (size, size) with 0 = empty; two are enough to disprove uniqueness."""
    assert puzzle.shape in ((4, 4), (9, 9))
    found = np.empty((limit, *puzzle.shape), dtype=np.int8)
    # A copy, because a read-only array would be another type to numba, and be compiled for once more.
    count = _cover(puzzle.flatten(), round(len(puzzle) ** 0.5), limit, found.ravel())
    return [frozen_grid(solution) for solution in found[:count]]


@compiled
def _cover(puzzle: npt.NDArray[np.int8], box_side: int, limit: int, found: npt.NDArray[np.int8]) -> int:
    """Find up to ``limit`` solutions of the cells row by row; returns how many, and writes them to ``found``, flat.

    A choice (a digit in a cell) covers four demands: the cell is filled, and its row, its column and its box hold the
    digit. Nodes 0 to num_demands - 1 head the demands' columns, the next is the root; then four nodes a choice.
    """
    size = box_side * box_side
    num_cells = size * size
    num_demands = 4 * num_cells
    root = num_demands
    num_nodes = num_demands + 1 + 4 * num_cells * size
    up = np.empty(num_nodes, dtype=np.int32)
    down = np.empty(num_nodes, dtype=np.int32)
    demand_of = np.empty(num_nodes, dtype=np.int32)
    length = np.zeros(num_demands, dtype=np.int32)
    # Only heads are linked sideways: the four nodes of a choice lie side by side.
    left = np.empty(num_demands + 1, dtype=np.int32)
    right = np.empty(num_demands + 1, dtype=np.int32)
    for head in range(num_demands + 1):
        up[head] = down[head] = head
        left[head] = head - 1 if head else root
        right[head] = head + 1 if head < root else 0
    for cell in range(num_cells):
        row, column = cell // size, cell % size
        box = row // box_side * box_side + column // box_side
        for digit in range(size):
            # A given cell offers one choice only.
            if puzzle[cell] != 0 and puzzle[cell] != digit + 1:
                continue
            for kind in range(4):
                node = root + 1 + 4 * (cell * size + digit) + kind
                if kind == 0:
                    demand = cell
                elif kind == 1:
                    demand = num_cells + row * size + digit
                elif kind == 2:
                    demand = 2 * num_cells + column * size + digit
                else:
                    demand = 3 * num_cells + box * size + digit
                demand_of[node] = demand
                up[node], down[node] = up[demand], demand
                down[up[demand]] = node
                up[demand] = node
                length[demand] += 1

    chosen = np.empty(num_cells, dtype=np.int32)
    num_found = 0
    depth = 0
    is_deeper = True
    while depth >= 0:
        if is_deeper:
            if right[root] == root:
                for place in range(num_cells):
                    choice = (chosen[place] - root - 1) // 4
                    found[num_found * num_cells + choice // size] = choice % size + 1
                num_found += 1
                if num_found == limit:
                    break
                is_deeper = False
                depth -= 1
                continue
            demand = right[root]
            head = right[demand]
            while head != root and length[demand] > 1:
                if length[head] < length[demand]:
                    demand = head
                head = right[head]
            _remove_demand(demand, root, up, down, left, right, demand_of, length)
            node = down[demand]
        else:
            node = chosen[depth]
            first = node - (node - root - 1) % 4
            for offset in range(3, -1, -1):
                if first + offset != node:
                    _restore_demand(demand_of[first + offset], root, up, down, left, right, demand_of, length)
            demand = demand_of[node]
            node = down[node]
        if node == demand:
            _restore_demand(demand, root, up, down, left, right, demand_of, length)
            is_deeper = False
            depth -= 1
            continue
        chosen[depth] = node
        first = node - (node - root - 1) % 4
        for offset in range(4):
            if first + offset != node:
                _remove_demand(demand_of[first + offset], root, up, down, left, right, demand_of, length)
        is_deeper = True
        depth += 1
    return num_found


@compiled
def _remove_demand(
    demand: int,
    root: int,
    up: npt.NDArray[np.int32],
    down: npt.NDArray[np.int32],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    demand_of: npt.NDArray[np.int32],
    length: npt.NDArray[np.int32],
) -> None:
    """Take a demand that is met from the list, and all choices that would meet it from their other columns."""
    right[left[demand]] = right[demand]
    left[right[demand]] = left[demand]
    node = down[demand]
    while node != demand:
        first = node - (node - root - 1) % 4
        for other in range(first, first + 4):
            if other != node:
                down[up[other]] = down[other]
                up[down[other]] = up[other]
                length[demand_of[other]] -= 1
        node = down[node]


@compiled
def _restore_demand(
    demand: int,
    root: int,
    up: npt.NDArray[np.int32],
    down: npt.NDArray[np.int32],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    demand_of: npt.NDArray[np.int32],
    length: npt.NDArray[np.int32],
) -> None:
    """Undo ``_remove_demand``, step by step backwards."""
    node = up[demand]
    while node != demand:
        first = node - (node - root - 1) % 4
        for other in range(first + 3, first - 1, -1):
            if other != node:
                length[demand_of[other]] += 1
                down[up[other]] = other
                up[down[other]] = other
        node = up[node]
    left[right[demand]] = demand
    right[left[demand]] = demand
