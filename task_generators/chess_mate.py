"""What the two chess tasks share: white to move, one move mates (or forces mate), the answer is the board after it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, overload

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from task_generators.chess_positions import (
    LICHESS_SAMPLE_PATH,
    MatePosition,
    board_after,
    fen_from_board,
    lichess_positions,
    random_mate,
)
from task_generators.problem import Problem, Split
from task_generators.render import CHESS_COLORS, Palette, RenderStyle
from task_generators.task import Task

PIECE_NAMES = tuple(
    f"{color} {piece}"
    for color in ("white", "black")
    for piece in ("pawn", "knight", "bishop", "rook", "queen", "king")
)


class ChessMate(Task):
    """Positions with exactly one solution; see ``task_generators.chess_positions`` for what they leave out.

    The bank's positions come first, then ones from games played for the purpose. Positions of a Lichess file are drawn
    from that file alone.
    """

    palette: ClassVar[Palette] = Palette(colors=CHESS_COLORS, names=("empty", *PIECE_NAMES))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = "reflection that exchanges the a-file and the h-file (nobody may castle)"
    mate_in: ClassVar[int]

    # Positions with fewer than eight pieces are so rare in games that drawing one takes seconds.
    min_pieces: int = Field(default=2, ge=2, le=28, description="fewest pieces, kings included", examples=[14])
    max_pieces: int = Field(default=32, ge=8, le=32, description="most pieces, kings included", examples=[20])
    puzzles: str | None = Field(
        default=None,
        description="path of a Lichess puzzle file (.csv, .csv.gz, .csv.zst); null: the bank and games of our own",
        examples=[str(LICHESS_SAMPLE_PATH)],
    )

    @model_validator(mode="after")
    def _some_number_of_pieces(self) -> ChessMate:
        if self.min_pieces > self.max_pieces:
            raise ValueError(f"min_pieces = {self.min_pieces}: expected at most max_pieces = {self.max_pieces}")
        return self

    def generate(self, rng: np.random.Generator) -> Problem:
        """Play games until one passes a position with exactly one solution; or draw a puzzle of the file."""
        if self.puzzles is None:
            return _problem(random_mate(rng, self.mate_in, self.min_pieces, self.max_pieces))
        positions = _positions(self)
        return _problem(positions[rng.integers(len(positions))])

    def given_problems(self, split: Split) -> Sequence[Problem]:
        """The problems of the bank, or of the Lichess file, that lie on the split's side."""
        return _given_problems(self, split)

    def verify(self, problem: Problem) -> list[str]:
        """Proves with python-chess that there is one solution, by trying every move; compares it with the answer."""
        import chess

        from task_generators.chess_verifier import shortest_mates

        board = chess.Board(None)
        if problem.question.shape != (8, 8):
            return [f"the question has {problem.question.shape} cells, not (8, 8)"]
        for square, code in zip(chess.SQUARES_180, problem.question.ravel().tolist(), strict=True):
            if code:
                board.set_piece_at(square, chess.Piece((code - 1) % 6 + 1, code <= 6))
        if not board.is_valid():
            return [f"not a legal position: {board.status()!r}"]
        faults = []
        if not self.min_pieces <= len(board.piece_map()) <= self.max_pieces:
            faults.append(f"{len(board.piece_map())} pieces, not {self.min_pieces} to {self.max_pieces}")
        if problem.metadata["fen"] != board.fen():
            faults.append(f"the FEN is {problem.metadata['fen']}, not {board.fen()}")
        solutions = shortest_mates(board, self.mate_in)
        if [move.uci() for move in solutions] != [problem.metadata["move"]]:
            return [*faults, f"the solutions are {[move.uci() for move in solutions]}, not {problem.metadata['move']}"]
        if problem.metadata["san"] != board.san(solutions[0]):
            faults.append(f"{problem.metadata['san']} is {board.san(solutions[0])}")
        board.push(solutions[0])
        codes = [piece.piece_type + 6 * (not piece.color) if piece else 0 for piece in map(board.piece_at, range(64))]
        if np.flipud(np.reshape(codes, (8, 8))).tolist() != problem.answer.tolist():
            faults.append("the answer is not the board after the solution")
        return faults

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the boards, the same for mirror images."""
        from task_generators.copy_hash import copy_hashes
        from task_generators.symmetry import mirror_copies

        return copy_hashes(questions, mirror_copies(8, 8), len(self.palette.colors))

    def problem_space(self) -> str:
        """How many positions are at hand."""
        if self.puzzles is not None:
            return f"{len(_positions(self)):,} puzzles of the file"
        return f"{len(_positions(self)):,} positions in the bank; games give any number more"


def _problem(position: MatePosition) -> Problem:
    metadata = {"fen": fen_from_board(position.board), "move": position.move, "san": position.san}
    return Problem(position.board, board_after(position.board, position.move), metadata)


class _Problems(Sequence[Problem]):
    """Positions as problems, each built when it is looked at: a trial takes a few of many thousand."""

    def __init__(self, positions: Sequence[MatePosition]) -> None:
        self._positions = positions

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Sequence[Problem]:
        if isinstance(index, slice):
            return _Problems(self._positions[index])
        return _problem(self._positions[index])

    def __len__(self) -> int:
        return len(self._positions)


@lru_cache(maxsize=8)
def _positions(task: ChessMate) -> tuple[MatePosition, ...]:
    """All positions of the bank or the file with these knobs. ValueError when the file cannot be used."""
    from task_generators.chess_bank import bank_positions

    if task.puzzles is not None:
        return lichess_positions(task.puzzles, task.mate_in, task.min_pieces, task.max_pieces)
    positions = bank_positions(task.mate_in)
    num_pieces = np.count_nonzero([position.board for position in positions], axis=(1, 2))
    wanted = (task.min_pieces <= num_pieces) & (num_pieces <= task.max_pieces)
    return tuple(position for position, is_wanted in zip(positions, wanted.tolist(), strict=True) if is_wanted)


@lru_cache(maxsize=16)
def _given_problems(task: ChessMate, split: Split) -> Sequence[Problem]:
    from task_generators.splits import in_test_partition

    positions = _positions(task)
    if not positions:
        return ()
    is_tested = in_test_partition(task, np.stack([position.board for position in positions])).tolist()
    return _Problems([p for p, tested in zip(positions, is_tested, strict=True) if tested == (split == Split.TEST)])
