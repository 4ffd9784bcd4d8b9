import numpy as np
import pytest

from task_generators.connect4_play import winning_moves
from task_generators.tasks.connect4 import EMPTY, PLAYER_1, PLAYER_2, landing_row, winning_columns

BOARDS = [(6, 7, 4), (4, 4, 3), (4, 5, 4), (7, 8, 4), (4, 12, 5), (15, 4, 4), (5, 6, 5)]


def random_position(rng: np.random.Generator, height: int, width: int, connect: int) -> np.ndarray:
    """A position without a line, with any number of stones."""
    grid = np.full((height, width), EMPTY, dtype=np.int8)
    for stone in range(rng.integers(height * width)):
        column, player = int(rng.integers(width)), (PLAYER_1, PLAYER_2)[stone % 2]
        row = landing_row(grid.tolist(), column)
        if row is not None and column not in winning_columns(grid, player, connect=connect):
            grid[row, column] = player
    return grid


def bits(cells: np.ndarray) -> int:
    """Cells that are true, numbered from the bottom of each column, with a bit to spare above each."""
    height = len(cells)
    return sum(1 << column * (height + 1) + height - 1 - row for row, column in np.argwhere(cells).tolist())


@pytest.mark.parametrize("moves", [1, 2])
@pytest.mark.parametrize(("height", "width", "connect"), BOARDS)
def test_bitboards_find_what_looking_along_all_lines_finds(height: int, width: int, connect: int, moves: int) -> None:
    rng = np.random.default_rng([height, width, connect, moves])
    board = np.ones((height, width), dtype=bool)
    bottom = board.copy()
    bottom[:-1] = False
    num_wins = 0
    for _ in range(30 if moves == 1 else 10):
        grid = random_position(rng, height, width, connect)
        for player, other in ((PLAYER_1, PLAYER_2), (PLAYER_2, PLAYER_1)):
            masks = [np.uint64(bits(cells)) for cells in (grid == player, grid == other, bottom, board)]
            found = int(winning_moves(*masks[:2], moves, connect, height, *masks[2:]))
            columns = [column for column in range(width) if found >> column * (height + 1) & ((1 << height) - 1)]
            at_once = winning_columns(grid, player, 1, connect)
            assert columns == (at_once or winning_columns(grid, player, moves, connect))
            num_wins += len(columns)
    assert num_wins
