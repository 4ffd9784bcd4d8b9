"""Chess positions with one way to mate: drawn from games of our own, or read from a file of Lichess puzzles.

In all of them white is to move, nobody may castle and nobody may take en passant on the first move, because a board
does not show such rights. Grids have the codes 0 empty, 1-6 white P N B R Q K, 7-12 black; row 0 is the eighth rank.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid, frozen_grid

START_FEN = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR"
PIECES = ".PNBRQKpnbrqk"
FEWEST_PIECES, MOST_PIECES = 2, 32
MAX_LICHESS_POSITIONS = 10_000
"""Usable puzzles after which a Lichess file is read no further: it is in random order, and has millions."""
LICHESS_SAMPLE_PATH = Path(__file__).parent / "data" / "lichess_sample.csv"
"""Well-known mates in the format of the Lichess file, for a try without it."""
_LICHESS_COLUMNS = ("FEN", "Moves", "Themes")
_SEARCH_LEVELS = 8


class MatePosition(NamedTuple):
    """A board, white to move, and the only move that mates, or forces mate, in the number of moves asked for."""

    board: Grid
    move: str
    """In UCI notation: ``e2e4``, ``e7e8q``."""
    san: str
    """As people write it: ``e8=Q#``."""


def board_from_fen(fen: str) -> Grid:
    """The board, shape (8, 8), of a FEN or of its first field; ValueError when it does not describe 8x8 squares."""
    rows = [re.sub(r"\d", lambda digit: "." * int(digit[0]), row) for row in fen.split(" ")[0].split("/")]
    if [len(row) for row in rows] != [8] * 8 or not set("".join(rows)) <= set(PIECES):
        raise ValueError(f"not a FEN: {fen!r}")
    return frozen_grid([[PIECES.index(char) for char in row] for row in rows])


def boards_from_fens(placements: Sequence[str]) -> npt.NDArray[np.int8]:
    """The boards, read-only (n, 8, 8), of first fields of right FENs: ``board_from_fen``, for many at once."""
    text = "".join(placements).replace("/", "")
    for digit in "12345678":
        text = text.replace(digit, "." * int(digit))
    code_of = np.zeros(128, dtype=np.int8)
    code_of[np.frombuffer(PIECES.encode(), dtype=np.uint8)] = np.arange(len(PIECES))
    boards: npt.NDArray[np.int8] = code_of[np.frombuffer(text.encode(), dtype=np.uint8)].reshape(-1, 8, 8)
    boards.setflags(write=False)
    return boards


def fen_from_board(board: Grid) -> str:
    """The FEN of a board (8, 8) with white to move and no rights to castle or to take en passant."""
    placement = "/".join("".join(PIECES[code] for code in row) for row in board.tolist())
    for length in range(8, 0, -1):
        placement = placement.replace("." * length, str(length))
    return placement + " w - - 0 1"


def board_after(board: Grid, move: str) -> Grid:
    """The board (8, 8) after a white move in UCI notation that neither castles nor takes en passant."""
    cells = board.copy()
    origin, target = _cell(move[:2]), _cell(move[2:4])
    cells[target] = PIECES.index(move[4:].upper()) if move[4:] else cells[origin]
    cells[origin] = 0
    return frozen_grid(cells)


def san_of(board: Grid, move: str) -> str:
    """A white UCI move in the notation that people read: ``Qxf7#``."""
    import chess

    return chess.Board(fen_from_board(board)).san(chess.Move.from_uci(move))


def canonical_board(board: Grid) -> bytes:
    """The same bytes for a board and its mirror image (files a to h swapped), in which the mirrored moves mate."""
    return min(board.tobytes(), board[:, ::-1].tobytes())


def mating_moves(board: Grid) -> list[str]:
    """All white moves, in UCI notation, that mate at once. ValueError: not one king each, or black is in check."""
    return _solutions(board, 1)


def key_moves_mate_in_2(board: Grid) -> list[str]:
    """All white moves that force mate with the next one; none where a mate in one exists. Errors: ``mating_moves``."""
    return _solutions(board, 2)


def _solutions(board: Grid, mate_in: int) -> list[str]:
    from task_generators import chess_moves

    stack, moves = _search_arrays(_SEARCH_LEVELS)
    if not _set_up(stack, board):
        raise ValueError(f"expected one king of each colour and black not in check: {fen_from_board(board)}")
    found = np.empty(256, dtype=np.int64)
    count = chess_moves.solutions(stack, 0, moves, mate_in, len(found), found)
    return sorted(_uci(move) for move in found[:count].tolist())


def random_mate(
    rng: np.random.Generator, mate_in: int, min_pieces: int = FEWEST_PIECES, max_pieces: int = MOST_PIECES
) -> MatePosition:
    """Play games from ``rng`` until one passes a position with exactly one mate in ``mate_in`` (1 or 2) moves.

    One position a game, chosen at random among those of ``min_pieces`` to ``max_pieces`` pieces, kings included. Half
    of those that a queen solves are thrown away, or two thirds of all mates would be hers.
    """
    from task_generators import chess_games, chess_moves

    stack, moves = _search_arrays(chess_games.MAX_PLIES + 1 + _SEARCH_LEVELS)
    played = np.empty(chess_games.MAX_PLIES, dtype=np.int64)
    found = np.empty(1, dtype=np.int64)
    state = rng.integers(0, 2**64, 1, dtype=np.uint64)
    chess_moves.set_position(stack, 0, board_from_fen(START_FEN).flatten(), 0, 15, 0)
    while True:
        num_plies = chess_games.play_game(state, stack, moves, played)
        ply = chess_games.find_mate(state, stack, moves, num_plies, mate_in, min_pieces, max_pieces, found)
        if ply < 0:
            continue
        base = ply * chess_moves.POSITION
        board = frozen_grid(stack[base : base + 120].reshape(12, 10)[2:10, 1:9])
        move = _uci(int(found[0]))
        if PIECES[board[_cell(move[:2])]] != "Q" or rng.random() < 0.5:
            return MatePosition(board, move, san_of(board, move))


@lru_cache(maxsize=8)
def lichess_positions(
    path: str, mate_in: int, min_pieces: int = FEWEST_PIECES, max_pieces: int = MOST_PIECES
) -> tuple[MatePosition, ...]:
    """Positions with exactly one mate in ``mate_in`` moves from a Lichess puzzle file, plain, .gz or .zst.

    The format is that of https://database.lichess.org/#puzzles: the FEN is the position before the opponent's move,
    which comes first in ``Moves``; ``Themes`` has mateIn1 or mateIn2. Where black is to find the mate, the board is
    turned round and the colours are exchanged. Puzzles are left out that have another solution, or none, once nobody
    may castle or take en passant, and copies of earlier ones. At most ``MAX_LICHESS_POSITIONS``, in the file's order.

    ValueError: no such file, a column is missing, a row that is not chess, no such puzzle.
    """
    if not Path(path).is_file():
        raise ValueError(f"puzzles = {path!r}: no such file")
    positions: dict[bytes, MatePosition] = {}
    for line, (fen, moves, themes) in _lichess_rows(path):
        if f"mateIn{mate_in}" not in themes.split(" "):
            continue
        try:
            board, move = _lichess_puzzle(fen, moves)
        except (ValueError, IndexError):
            raise ValueError(f"puzzles = {path!r}: line {line} is no puzzle: {fen!r}, {moves!r}") from None
        if min_pieces <= np.count_nonzero(board) <= max_pieces and _solutions(board, mate_in) == [move]:
            positions.setdefault(canonical_board(board), MatePosition(board, move, san_of(board, move)))
            if len(positions) == MAX_LICHESS_POSITIONS:
                break
    if not positions:
        raise ValueError(
            f"puzzles = {path!r}: no mateIn{mate_in} of {min_pieces} to {max_pieces} pieces with exactly one solution"
        )
    return tuple(positions.values())


def _lichess_rows(path: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line number and the three columns that matter, of each puzzle."""
    import pyarrow

    try:
        with io.TextIOWrapper(pyarrow.input_stream(path, compression="detect"), encoding="utf-8", newline="") as text:
            rows = csv.reader(text)
            header = next(rows, [])
            for column in _LICHESS_COLUMNS:
                if column not in header:
                    raise ValueError(f"puzzles = {path!r}: no column {column}; expected {', '.join(_LICHESS_COLUMNS)}")
            places = [header.index(column) for column in _LICHESS_COLUMNS]
            for row in rows:
                if row:
                    yield rows.line_num, tuple(row[place] if place < len(row) else "" for place in places)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"puzzles = {path!r}: cannot be read: {error}") from None


def _lichess_puzzle(fen: str, moves: str) -> tuple[Grid, str]:
    """Board with white to move, and the solution. ValueError or IndexError when it is not legal chess."""
    import chess

    board = chess.Board(fen)
    if not board.is_valid():
        raise ValueError
    first, second = moves.split(" ")[:2]
    board.push_uci(first)
    solution = board.parse_uci(second)
    if board.turn == chess.BLACK:
        board = board.mirror()
        origin, target = chess.square_mirror(solution.from_square), chess.square_mirror(solution.to_square)
        solution = chess.Move(origin, target, solution.promotion)
    return board_from_fen(board.board_fen()), solution.uci()


def _search_arrays(levels: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    return np.zeros(128 * levels, dtype=np.int8), np.empty(256 * levels, dtype=np.int64)


def _set_up(stack: npt.NDArray[np.int8], board: Grid) -> bool:
    """Write a board with white to move to the search's first level; False when it cannot be: kings, black in check."""
    from task_generators import chess_moves

    if (board == 6).sum() != 1 or (board == 12).sum() != 1:
        return False
    chess_moves.set_position(stack, 0, board.flatten(), 0, 0, 0)
    return not chess_moves.is_attacked(stack, 0, int(stack[chess_moves.KINGS + 1]), 0)


def _cell(square: str) -> tuple[int, int]:
    """Row and column of a square such as ``e4``."""
    return 8 - int(square[1]), "abcdefgh".index(square[0])


def _uci(move: int) -> str:
    """A move of ``chess_moves`` in UCI notation."""
    squares = (divmod(square - 21, 10) for square in (move & 127, move >> 7 & 127))
    return "".join("abcdefgh"[column] + str(8 - row) for row, column in squares) + ["", *".nbrq"][move >> 14].strip(".")
