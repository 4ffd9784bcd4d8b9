import numpy as np

from task_generators.problem import Grid, frozen_grid
from task_generators.sudoku_solver import solutions


def grid(text: str) -> Grid:
    size = round(len(text) ** 0.5)
    return frozen_grid(np.array([int(cell) for cell in text.replace(".", "0")]).reshape(size, size))


def test_counts_all_mini_grids() -> None:
    found = solutions(frozen_grid(np.zeros((4, 4))), limit=500)
    assert len(found) == 288
    assert len({solution.tobytes() for solution in found}) == 288
    for solution in found:
        assert all(len(set(line)) == 4 for line in (*solution.tolist(), *solution.T.tolist()))
        assert all(len(set(solution[r : r + 2, c : c + 2].ravel().tolist())) == 4 for r in (0, 2) for c in (0, 2))


def test_solves_known_puzzles() -> None:
    easy = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    answer = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    assert [solution.tolist() for solution in solutions(grid(easy))] == [grid(answer).tolist()]
    seventeen_givens = "4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......"
    assert len(solutions(grid(seventeen_givens))) == 1


def test_tells_none_one_and_several_apart() -> None:
    assert len(solutions(grid("1..............."), limit=1000)) == 72
    assert len(solutions(grid("11.............."))) == 0
    full = solutions(frozen_grid(np.zeros((4, 4))), limit=1)[0]
    assert len(solutions(full)) == 1
    # The first row needs a 4 in its last cell, which the column already has.
    assert len(solutions(grid("123............4"))) == 0


def test_stops_at_the_limit_and_leaves_the_puzzle_alone() -> None:
    empty = frozen_grid(np.zeros((9, 9)))
    assert len(solutions(empty, limit=7)) == 7
    assert (empty == 0).all()
