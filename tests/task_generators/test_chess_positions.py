import csv
import gzip
import random
from pathlib import Path

import chess
import numpy as np
import pytest

from task_generators import chess_games, chess_moves
from task_generators.chess_bank import bank_positions
from task_generators.chess_positions import (
    LICHESS_SAMPLE_PATH,
    PIECES,
    board_after,
    board_from_fen,
    canonical_board,
    fen_from_board,
    key_moves_mate_in_2,
    lichess_positions,
    mating_moves,
    random_mate,
    san_of,
)
from task_generators.problem import Grid
from task_generators.rng import problem_rng

KIWIPETE = "r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq - 0 1"
TWO_STEPS = ("8/5N1p/6Rp/7k/5p2/7P/6P1/KB2B3", "8/5N1p/6Rp/7k/8/7P/6P1/KB2B3")


def square_of(square: int) -> int:
    """A square of ours as python-chess numbers it: a1 is 0, h8 is 63."""
    row, column = divmod(square - 21, 10)
    return 8 * (7 - row) + column


def as_move(move: int) -> chess.Move:
    return chess.Move(square_of(move & 127), square_of(move >> 7 & 127), (move >> 14) or None)


def set_up(stack: np.ndarray, board: chess.Board) -> None:
    rights = 0
    for shift, color in ((0, chess.WHITE), (2, chess.BLACK)):
        rights |= board.has_kingside_castling_rights(color) << shift
        rights |= board.has_queenside_castling_rights(color) << shift + 1
    en_passant = 0
    if board.ep_square is not None:
        en_passant = 21 + 10 * (7 - board.ep_square // 8) + board.ep_square % 8
    cells = board_from_fen(board.board_fen()).flatten()
    chess_moves.set_position(stack, 0, cells, 0 if board.turn else 1, rights, en_passant)


def arrays(levels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(128 * levels, dtype=np.int8), np.empty(256 * levels, dtype=np.int64)


def read_board(stack: np.ndarray, base: int) -> Grid:
    return stack[base : base + 120].reshape(12, 10)[2:10, 1:9]


@pytest.mark.parametrize("fen", [chess.STARTING_FEN, KIWIPETE, "8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w - - 0 1"])
def test_the_moves_of_random_games_are_those_of_python_chess(fen: str) -> None:
    rng = random.Random(fen)
    stack, moves = arrays()
    kinds_of_move = set()
    for _ in range(5):
        board = chess.Board(fen)
        while not board.is_game_over() and board.ply() < 120:
            set_up(stack, board)
            count = chess_moves.legal_moves(stack, 0, moves)
            assert {as_move(move) for move in moves[:count].tolist()} == set(board.legal_moves)
            assert count == board.legal_moves.count()
            chosen = int(moves[rng.randrange(count)])
            move = as_move(chosen)
            kinds_of_move.add(
                (board.is_castling(move), board.is_en_passant(move), move.promotion is not None, board.is_capture(move))
            )
            board.push(move)
            assert chess_moves.make(stack, 0, chosen)
            assert np.array_equal(read_board(stack, 128), board_from_fen(board.board_fen()))
            assert chess_moves.is_in_check(stack, 128) == board.is_check()
    assert len(kinds_of_move) >= 2


def perft(stack: np.ndarray, moves: np.ndarray, depth: int, base: int = 0) -> int:
    count = chess_moves.legal_moves(stack, base, moves)
    if depth == 1:
        return count
    total = 0
    for move in moves[2 * base : 2 * base + count].tolist():
        chess_moves.make(stack, base, move)
        total += perft(stack, moves, depth - 1, base + 128)
    return total


@pytest.mark.parametrize(
    ("fen", "depth", "nodes"),
    [
        (chess.STARTING_FEN, 4, 197_281),
        (KIWIPETE, 3, 97_862),
        ("8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w - - 0 1", 5, 674_624),
        ("r3k2r/Pppp1ppp/1b3nbN/nP6/BBP1P3/q4N2/Pp1P2PP/R2Q1RK1 w kq - 0 1", 4, 422_333),
        ("rnbq1k1r/pp1Pbppp/2p5/8/2B5/8/PPP1NnPP/RNBQK2R w KQ - 1 8", 3, 62_379),
    ],
)
def test_numbers_of_positions_are_the_published_ones(fen: str, depth: int, nodes: int) -> None:
    """The perft results of the Chess Programming Wiki: castling, en passant, promotions, pins and double checks."""
    stack, moves = arrays()
    set_up(stack, chess.Board(fen))
    assert perft(stack, moves, depth) == nodes


def mates_by_python_chess(board: chess.Board) -> set[str]:
    found = set()
    for move in board.legal_moves:
        board.push(move)
        if board.is_checkmate():
            found.add(move.uci())
        board.pop()
    return found


def test_games_are_legal_and_lead_to_the_positions_found_in_them() -> None:
    num_found = 0
    for index in range(12):
        state = problem_rng("game", index).integers(0, 2**64, 1, dtype=np.uint64)
        stack, moves = arrays(chess_games.MAX_PLIES + 9)
        played, found = np.empty(chess_games.MAX_PLIES, dtype=np.int64), np.empty(1, dtype=np.int64)
        set_up(stack, chess.Board())
        num_plies = chess_games.play_game(state, stack, moves, played)
        ply = chess_games.find_mate(state, stack, moves, num_plies, 1, 2, 32, found)
        board = chess.Board()
        for number, move in enumerate(played[:num_plies].tolist()):
            if number == ply:
                num_found += 1
                assert board.turn == chess.WHITE
                assert mates_by_python_chess(board.copy(stack=False)) == {as_move(int(found[0])).uci()}
                assert np.array_equal(read_board(stack, 128 * ply), board_from_fen(board.board_fen()))
            assert board.is_legal(as_move(move))
            board.push(as_move(move))
        assert num_plies == chess_games.MAX_PLIES or board.is_game_over()
    assert num_found >= 3


@pytest.mark.parametrize("mate_in", [1, 2])
def test_random_mates_depend_on_their_random_numbers_alone(mate_in: int) -> None:
    first = random_mate(problem_rng("mate", 1), mate_in)
    random_mate(problem_rng("mate", 2), mate_in)
    again, other = random_mate(problem_rng("mate", 1), mate_in), random_mate(problem_rng("mate", 3), mate_in)
    assert (first.board.tolist(), first.move, first.san) == (again.board.tolist(), again.move, again.san)
    assert first.board.tolist() != other.board.tolist()
    assert (mating_moves, key_moves_mate_in_2)[mate_in - 1](first.board) == [first.move]


def test_random_mates_have_the_wanted_number_of_pieces() -> None:
    for index in range(5):
        assert 12 <= (random_mate(problem_rng("few", index), 1, 12, 14).board > 0).sum() <= 14


def test_all_mates_are_found_whatever_the_piece() -> None:
    # Found by python-chess: castling aside, mates by every kind of piece, by discovery and by promotion.
    boards = [position.board for position in bank_positions(1)[:150]]
    boards.append(board_from_fen("7k/P5pp/8/8/8/8/8/K5R1"))  # a8=Q# and a8=R# both mate
    for board in boards:
        assert set(mating_moves(board)) == mates_by_python_chess(chess.Board(fen_from_board(board)))
    assert mating_moves(boards[-1]) == ["a7a8q", "a7a8r"]
    assert key_moves_mate_in_2(boards[-1]) == []


def test_a_two_step_that_can_be_taken_in_passing_does_not_mate() -> None:
    """Without black's pawn beside it, the same two-step mates."""
    with_pawn, without_pawn = (board_from_fen(fen) for fen in TWO_STEPS)
    assert "g2g4" not in mating_moves(with_pawn)
    assert "g2g4" in mating_moves(without_pawn)


def test_positions_that_cannot_arise_are_refused() -> None:
    for fen in ("8/8/8/8/8/8/8/K7", "kk6/8/8/8/8/8/8/K7", "k7/8/8/8/8/8/8/R6K"):
        with pytest.raises(ValueError, match="one king of each colour and black not in check"):
            mating_moves(board_from_fen(fen))


def test_boards_and_fens_are_converted_both_ways() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        board = rng.integers(0, 13, (8, 8)).astype(np.int8) * (rng.random((8, 8)) < rng.random())
        fen = fen_from_board(board)
        assert np.array_equal(board_from_fen(fen), board)
        by_square = chess.Board(fen)
        for square, code in zip(chess.SQUARES_180, board.ravel().tolist(), strict=True):
            assert str(by_square.piece_at(square) or ".") == PIECES[code]


@pytest.mark.parametrize("fen", ["", "8/8/8/8/8/8/8", "8/8/8/8/8/8/8/9", "8/8/8/8/8/8/8/7x", "8/8/8/8/8/8/8/7"])
def test_what_is_no_fen_is_refused(fen: str) -> None:
    with pytest.raises(ValueError, match="not a FEN"):
        board_from_fen(fen)


def test_mirror_images_have_one_key() -> None:
    positions = bank_positions(1)[:50]
    assert len({canonical_board(position.board) for position in positions}) == 50
    for position in positions:
        mirrored = np.ascontiguousarray(position.board[:, ::-1])
        assert canonical_board(mirrored) == canonical_board(position.board)
        assert len(mating_moves(mirrored)) == 1


def write_puzzles(path: Path, rows: list[tuple[str, str, str]]) -> str:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("PuzzleId", "FEN", "Moves", "Rating", "Themes")])
        csv.writer(file).writerows([("id", fen, moves, "1500", themes) for fen, moves, themes in rows])
    return str(path)


def sample_rows() -> list[tuple[str, str, str]]:
    with open(LICHESS_SAMPLE_PATH, newline="") as file:
        return [(row["FEN"], row["Moves"], row["Themes"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("mate_in", [1, 2])
def test_lichess_puzzles_are_read_with_white_to_solve(mate_in: int) -> None:
    positions = lichess_positions(str(LICHESS_SAMPLE_PATH), mate_in)
    rows = [row for row in sample_rows() if f"mateIn{mate_in}" in row[2]]
    assert len(positions) == len(rows) >= 5
    solvers = set()
    for position, (fen, moves, _) in zip(positions, rows, strict=True):
        board = chess.Board(fen)
        for move in moves.split():
            board.push_uci(move)
        assert board.is_checkmate()
        solvers.add(not board.turn)
        for _ in range(2 * mate_in - 1):
            board.pop()
        expected = board if board.turn else board.mirror()
        assert fen_from_board(position.board).split()[0] == expected.board_fen()
        solution = moves.split()[1]
        if not board.turn:
            solution = "".join(str(9 - int(char)) if char.isdigit() else char for char in solution)
        assert position.move == solution
        assert position.san == san_of(position.board, position.move)
    assert mate_in == 2 or solvers == {chess.WHITE, chess.BLACK}


def test_lichess_puzzles_with_several_solutions_or_by_en_passant_are_left_out(tmp_path: Path) -> None:
    two_ways = ("7k/P4ppp/8/8/8/8/8/K5R1 b - - 0 1", "f7f6 a7a8q", "mate mateIn1")
    in_passing = ("R7/6pk/5Q2/7P/8/8/8/K1B5 b - - 0 1", "g7g5 h5g6", "mateIn1")
    good = sample_rows()[0]
    other_theme = (*sample_rows()[1][:2], "mateIn12 fork")
    path = write_puzzles(tmp_path / "puzzles.csv", [two_ways, in_passing, good, good, other_theme])
    assert [position.san for position in lichess_positions(path, 1)] == ["Qxf7#"]


def test_packed_lichess_files_are_read(tmp_path: Path) -> None:
    import pyarrow

    text = LICHESS_SAMPLE_PATH.read_bytes()
    with gzip.open(tmp_path / "puzzles.csv.gz", "wb") as file:
        file.write(text)
    with pyarrow.output_stream(str(tmp_path / "puzzles.csv.zst"), compression="zstd") as stream:
        stream.write(text)
    plain = [position.san for position in lichess_positions(str(LICHESS_SAMPLE_PATH), 1)]
    for name in ("puzzles.csv.gz", "puzzles.csv.zst"):
        assert [position.san for position in lichess_positions(str(tmp_path / name), 1)] == plain


def test_lichess_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        lichess_positions(str(tmp_path / "none.csv"), 1)
    (tmp_path / "columns.csv").write_text("PuzzleId,Moves,Themes\n")
    with pytest.raises(ValueError, match="no column FEN; expected FEN, Moves, Themes"):
        lichess_positions(str(tmp_path / "columns.csv"), 1)
    (tmp_path / "noise.csv.gz").write_bytes(b"not packed")
    with pytest.raises(ValueError, match="cannot be read"):
        lichess_positions(str(tmp_path / "noise.csv.gz"), 1)
    fen, moves, themes = sample_rows()[0]
    for row in [("8/8", moves, themes), (fen, "e2e4 e7e5", themes), (fen, "", themes), (fen, moves[:4], themes)]:
        path = write_puzzles(tmp_path / f"{abs(hash(row))}.csv", [row])
        with pytest.raises(ValueError, match="line 2 is no puzzle"):
            lichess_positions(path, 1)
    path = write_puzzles(tmp_path / "other.csv", [(fen, moves, themes)])
    with pytest.raises(ValueError, match="no mateIn2"):
        lichess_positions(path, 2)
    with pytest.raises(ValueError, match="of 2 to 8 pieces"):
        lichess_positions(path, 1, 2, 8)


def test_the_board_after_a_move_is_that_of_python_chess() -> None:
    for position in bank_positions(1)[:300]:
        board = chess.Board(fen_from_board(position.board))
        board.push_uci(position.move)
        assert np.array_equal(board_after(position.board, position.move), board_from_fen(board.fen()))
