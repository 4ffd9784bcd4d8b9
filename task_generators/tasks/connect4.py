"""Connect 4: find the one move that wins."""

from __future__ import annotations

from itertools import pairwise
from math import comb
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from task_generators.problem import Batch, Grid, Problem
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.symmetry import mirror_copies
from task_generators.task import Task

EMPTY, PLAYER_1, PLAYER_2 = 0, 1, 2


class ConnectFour(Task):
    """Player 1 is to move, and exactly one move wins in ``moves_to_win``; the answer is the position after it.

    Positions come from games between two players who see one move ahead: they take a win, else stop one, else move at
    random. Player 1 began, so both have as many stones. Row 0 is the top. ``metadata["move"]`` is the column.
    With ``moves_to_win`` above 1 nothing wins faster, and every other move allows player 2 to hold out longer.
    """

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS[:3], names=("empty", "player 1", "player 2"))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = "left and right exchanged"

    height: int = Field(default=6, ge=4, le=15, description="rows; width * (height + 1) is at most 64", examples=[7])
    width: int = Field(default=7, ge=4, le=12, description="columns; width * (height + 1) is at most 64", examples=[9])
    connect: int = Field(default=4, ge=3, le=6, description="stones in a line that win", examples=[5])
    moves_to_win: int = Field(
        default=1, ge=1, le=3, description="own moves that the win takes, the one asked for included", examples=[2]
    )
    min_moves: int = Field(default=8, ge=0, description="fewest moves played before, by both together", examples=[24])
    max_moves: int | None = Field(
        default=None, ge=0, description="most moves played before, by both together; null: any number", examples=[10]
    )
    random_move_share: float = Field(
        default=0.03, ge=0, le=1, description="share of moves that overlook wins and losses", examples=[0.5]
    )

    @model_validator(mode="after")
    def _possible(self) -> ConnectFour:
        if self.width * (self.height + 1) > 64:
            raise ValueError(
                f"height = {self.height}, width = {self.width}: expected width * (height + 1) of at most 64, "
                f"so a width of at most {64 // (self.height + 1)} or a height of at most {64 // self.width - 1}"
            )
        if self.connect > max(self.height, self.width):
            raise ValueError(
                f"connect = {self.connect}: expected at most {max(self.height, self.width)}, the longer side"
            )
        most = self._most_moves()
        if self.min_moves > most:
            raise ValueError(f"min_moves = {self.min_moves}: expected at most {most}, so that player 1 can still win")
        least = max(self.min_moves + self.min_moves % 2, 2 * (self.connect - self.moves_to_win))
        if self.max_moves is not None and self.max_moves < least:
            raise ValueError(
                f"max_moves = {self.max_moves}: expected at least {least}: an even number of moves, "
                f"not below min_moves, in which player 1 puts all but {self.moves_to_win} of a line of {self.connect}"
            )
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Play games up to fitting positions. ValueError when 100,000 games in a row have none."""
        from task_generators.connect4_play import MAX_GAMES, draw_positions

        questions = np.empty((len(seeds), self.height, self.width), dtype=np.int8)
        answers = np.empty_like(questions)
        columns = np.empty(len(seeds), dtype=np.int8)
        if not draw_positions(
            seeds,
            self.connect,
            self.moves_to_win,
            self.min_moves,
            self._most_moves(),
            self.random_move_share,
            questions,
            answers,
            columns,
        ):
            raise ValueError(
                f"connect4: no position with one move that wins in {self.moves_to_win} after {self.min_moves} to "
                f"{self._most_moves()} moves in {MAX_GAMES:,} games; widen min_moves to max_moves or change the board"
            )
        return Batch(questions, answers, metadata=lambda place: {"move": int(columns[place])})

    def verify(self, problem: Problem) -> list[str]:
        """Check the position, try all moves to find what wins, and make the move."""
        question, move = problem.question, problem.metadata.get("move")
        if question.shape != (self.height, self.width) or not is_position(question, self.connect):
            return ["the question is no position with as many stones of both players and no line"]
        faults = []
        if not self.min_moves <= np.count_nonzero(question) <= self._most_moves():
            faults.append(f"the question has {np.count_nonzero(question)} stones")
        if self.moves_to_win > 1 and winning_columns(question, moves=self.moves_to_win - 1, connect=self.connect):
            faults.append(f"it can be won in fewer than {self.moves_to_win} moves")
        columns = winning_columns(question, moves=self.moves_to_win, connect=self.connect)
        if columns != [move]:
            return [*faults, f"columns {columns} win in {self.moves_to_win}, not {move} alone"]
        expected = question.tolist()
        row = landing_row(expected, columns[0])
        assert row is not None
        expected[row][columns[0]] = PLAYER_1
        if problem.answer.tolist() != expected:
            faults.append(f"the answer is not the position after a stone in column {move}")
        return faults

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the positions, the same for mirror images."""
        from task_generators.copy_hash import copy_hashes

        return copy_hashes(questions, mirror_copies(self.height, self.width), len(self.palette.colors))

    def problem_space(self) -> str:
        """A bound: the ways to stack as many stones of both players, won or not, reachable or not."""
        number = _num_stackings(self.height, self.width, self.min_moves, self._most_moves())
        digits = f"{number:,}" if number < 10**9 else f"{number:.1e}"
        return f"fewer than {digits} positions (all stackings of as many stones of both players)"

    def _most_moves(self) -> int:
        """The largest even number of moves after which player 1 can still win in ``moves_to_win``."""
        most = self.height * self.width - (2 * self.moves_to_win - 1)
        if self.max_moves is not None:
            most = min(most, self.max_moves)
        return most - most % 2


def is_position(grid: Grid, connect: int = 4) -> bool:
    """Whether stones lie on stones, both players have as many, and neither has a line of ``connect``.

    Plain Python, written apart from the generator.
    """
    cells = grid.tolist()
    stones = [code for row in cells for code in row]
    return (
        set(stones) <= {EMPTY, PLAYER_1, PLAYER_2}
        and stones.count(PLAYER_1) == stones.count(PLAYER_2)
        and not any(
            upper != EMPTY and lower == EMPTY for column in grid.T.tolist() for upper, lower in pairwise(column)
        )
        and not any(
            code != EMPTY and _is_in_line(cells, row, column, connect) for (row, column), code in np.ndenumerate(grid)
        )
    )


def winning_columns(grid: Grid, player: int = PLAYER_1, moves: int = 1, connect: int = 4) -> list[int]:
    """Columns, from left to right, where a stone of ``player`` forces a win in at most ``moves`` own moves.

    Neither player has a line yet. Plain Python, written apart from the generator: it tries all moves and all replies.
    """
    return [column for column in range(grid.shape[1]) if _wins(grid.tolist(), column, player, moves, connect)]


def landing_row(cells: list[list[int]], column: int) -> int | None:
    """The row, from the top, where a stone in ``column`` comes to lie; None where the column is full."""
    return max((row for row, line in enumerate(cells) if line[column] == EMPTY), default=None)


def _wins(cells: list[list[int]], column: int, player: int, moves: int, connect: int) -> bool:
    row = landing_row(cells, column)
    if row is None:
        return False
    cells[row][column] = player
    is_won = _is_in_line(cells, row, column, connect) or (moves > 1 and _is_lost(cells, player, moves - 1, connect))
    cells[row][column] = EMPTY
    return is_won


def _is_lost(cells: list[list[int]], winner: int, moves: int, connect: int) -> bool:
    """Whether all replies to ``winner`` let it win in at most ``moves`` more moves; no reply at all is a draw."""
    loser = PLAYER_1 + PLAYER_2 - winner
    columns = [column for column in range(len(cells[0])) if landing_row(cells, column) is not None]
    if not columns or any(_wins(cells, column, loser, 1, connect) for column in columns):
        return False
    for reply in columns:
        row = landing_row(cells, reply)
        assert row is not None
        cells[row][reply] = loser
        is_answered = any(_wins(cells, column, winner, moves, connect) for column in columns)
        cells[row][reply] = EMPTY
        if not is_answered:
            return False
    return True


def _is_in_line(cells: list[list[int]], row: int, column: int, connect: int) -> bool:
    """Whether the stone there has at least ``connect`` of its player in a row, in any direction."""
    player = cells[row][column]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        length = 1
        for sign in (-1, 1):
            r, c = row + sign * down, column + sign * right
            while 0 <= r < len(cells) and 0 <= c < len(cells[0]) and cells[r][c] == player:
                length, r, c = length + 1, r + sign * down, c + sign * right
        if length >= connect:
            return True
    return False


def _num_stackings(height: int, width: int, min_moves: int, max_moves: int) -> int:
    """Ways to fill columns from below with as many stones of either player, between two numbers of stones in all."""
    counts = {(0, 0): 1}
    for _ in range(width):
        longer: dict[tuple[int, int], int] = {}
        for (first, second), number in counts.items():
            for stones in range(height + 1):
                for own in range(stones + 1):
                    key = (first + own, second + stones - own)
                    longer[key] = longer.get(key, 0) + number * comb(stones, own)
        counts = longer
    return sum(
        number
        for (first, second), number in counts.items()
        if first == second and min_moves <= first + second <= max_moves
    )
