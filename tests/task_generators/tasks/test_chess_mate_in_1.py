import hashlib
import time
from collections import Counter
from dataclasses import replace

import chess
import numpy as np
import pytest

from task_generators.chess_bank import BANK_PATH, bank_positions
from task_generators.chess_positions import LICHESS_SAMPLE_PATH, canonical_board, fen_from_board, random_mate
from task_generators.problem import Grid, Problem, Split, frozen_grid
from task_generators.rng import problem_rng
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.chess_mate_in_1 import ChessMateInOne

CODES = ".PNBRQKpnbrqk"


def spec(**knobs: object) -> TaskSpec:
    return TaskSpec(name="chess_mate_in_1", params=knobs)


def grid_of(board: chess.Board) -> list[list[int]]:
    return [[CODES.index(char) for char in row.split()] for row in str(board).splitlines()]


def board_of(grid: Grid) -> chess.Board:
    """Built square by square, white to move, without the package's own conversions."""
    board = chess.Board(None)
    for (row, column), code in np.ndenumerate(grid):
        if code:
            board.set_piece_at(chess.square(column, 7 - row), chess.Piece.from_symbol(CODES[code]))
    return board


def mating_moves(board: chess.Board) -> list[chess.Move]:
    found = []
    for move in list(board.legal_moves):
        board.push(move)
        if board.is_checkmate():
            found.append(move)
        board.pop()
    return found


def drawn(split: Split, n: int, **knobs: object) -> list[Problem]:
    return draw_problems(spec(**knobs), split, 0, n)


def test_exactly_one_move_mates_and_the_answer_is_the_board_after_it() -> None:
    for problem in drawn(Split.TRAIN, 150) + drawn(Split.TEST, 50):
        board = board_of(problem.question)
        assert board.is_valid()
        (move,) = mating_moves(board)
        assert problem.metadata["fen"] == board.fen()
        assert problem.metadata["move"] == move.uci()
        assert problem.metadata["san"] == board.san(move)
        board.push(move)
        assert problem.answer.tolist() == grid_of(board)


def test_problems_beyond_the_bank_are_made_the_same_way() -> None:
    for index in range(15):
        problem = ChessMateInOne().generate(problem_rng("beyond", index))
        board = board_of(problem.question)
        (move,) = mating_moves(board)
        board.push(move)
        assert problem.answer.tolist() == grid_of(board)
        assert problem.metadata["san"].endswith("#")


@pytest.mark.parametrize("mate_in", [1, 2])
def test_the_bank_repeats_no_position_and_is_what_its_script_draws(mate_in: int) -> None:
    import pandas as pd

    positions = bank_positions(mate_in)
    assert len({canonical_board(position.board) for position in positions}) == len(positions) >= 3000
    rows = pd.read_parquet(BANK_PATH).query("mate_in == @mate_in")
    for row in rows.iloc[:5].itertuples():
        position = random_mate(problem_rng("chess_bank", mate_in, row.draw), mate_in)
        assert fen_from_board(position.board).startswith(row.board + " ")
        assert (position.move, position.san) == (row.move, row.san)


def test_the_bank_holds_enough_for_the_largest_published_sets_and_is_small() -> None:
    given = {split: len(ChessMateInOne().given_problems(split)) for split in Split}
    assert given[Split.TRAIN] >= 5000
    assert given[Split.TEST] >= 1000
    assert BANK_PATH.stat().st_size < 1_000_000


def test_many_kinds_of_mate_in_full_and_in_empty_boards() -> None:
    positions = bank_positions(1)
    kinds = Counter(position.san[0] if position.san[0] in "KQRBNO" else "P" for position in positions)
    assert kinds["Q"] <= len(positions) / 2
    assert min(kinds[kind] for kind in "RBNP") > len(positions) / 40
    num_pieces = np.count_nonzero([position.board for position in positions], axis=(1, 2))
    assert np.quantile(num_pieces, 0.1) <= 10
    assert np.quantile(num_pieces, 0.9) >= 22


def test_a_large_split_is_drawn_in_a_moment() -> None:
    drawn(Split.TEST, 1)  # compiles
    started_s = time.process_time()
    assert len(draw_problems(spec(), Split.TRAIN, 7, 5000)) == 5000
    assert time.process_time() - started_s < 5


def test_mirror_images_lie_on_one_side() -> None:
    task = ChessMateInOne()
    questions = np.stack([problem.question for problem in drawn(Split.TRAIN, 100)])
    mirrored = np.ascontiguousarray(questions[:, :, ::-1])
    upside_down = np.ascontiguousarray(questions[:, ::-1])
    assert (task.canonical_keys(mirrored) == task.canonical_keys(questions)).all()
    assert (task.canonical_keys(upside_down) != task.canonical_keys(questions)).all()


def test_numbers_of_pieces_are_kept_to_in_the_bank_and_beyond() -> None:
    for problem in drawn(Split.TRAIN, 50, min_pieces=10, max_pieces=12):
        assert 10 <= np.count_nonzero(problem.question) <= 12
    for problem in drawn(Split.TEST, 20, max_pieces=8):
        assert np.count_nonzero(problem.question) <= 8
    beyond = ChessMateInOne(min_pieces=10, max_pieces=12).generate(problem_rng("few", 0))
    assert 10 <= np.count_nonzero(beyond.question) <= 12
    with pytest.raises(ValueError, match="min_pieces = 20: expected at most max_pieces = 12"):
        spec(min_pieces=20, max_pieces=12)


def test_puzzles_of_a_file_are_all_used_and_no_others() -> None:
    knobs = {"puzzles": str(LICHESS_SAMPLE_PATH)}
    given = {split: list(ChessMateInOne(**knobs).given_problems(split)) for split in Split}
    assert min(map(len, given.values())) >= 1
    sides = [{problem.metadata["san"] for problem in given[split]} for split in Split]
    boards = {problem.metadata["fen"] for split in Split for problem in given[split]}
    assert len(boards) == sum(map(len, given.values())) == 12
    assert "Qxf7#" in set.union(*sides)
    num_train = len(given[Split.TRAIN])
    assert {problem.metadata["fen"] for problem in drawn(Split.TRAIN, num_train + 3, **knobs)} <= boards
    with pytest.raises(ValueError, match="distinct test problems asked for"):
        drawn(Split.TEST, 13, **knobs)
    with pytest.raises(ValueError, match="'none': no such file"):
        drawn(Split.TEST, 1, puzzles="none")


def with_cell(grid: Grid, square: str, code: int) -> Grid:
    cells = grid.copy()
    cells[8 - int(square[1]), "abcdefgh".index(square[0])] = code
    return frozen_grid(cells)


def test_the_verifier_names_what_is_wrong() -> None:
    task = ChessMateInOne()
    board = chess.Board("7k/1R6/R7/8/8/8/8/K7 w - - 0 1")
    question = frozen_grid(grid_of(board))
    board.push_uci("a6a8")
    right = Problem(
        question,
        frozen_grid(grid_of(board)),
        {"fen": "7k/1R6/R7/8/8/8/8/K7 w - - 0 1", "move": "a6a8", "san": "Ra8#"},
    )
    assert task.verify(right) == []
    assert any("answer" in fault for fault in task.verify(replace(right, answer=question)))
    assert any("FEN" in fault for fault in task.verify(replace(right, metadata={**right.metadata, "fen": "x"})))
    assert any("Ra8+" in fault for fault in task.verify(replace(right, metadata={**right.metadata, "san": "Ra8+"})))
    # A second rook mates as well; one rook alone does not; no king; a black rook that comes between.
    for square, code in (("c6", 4), ("b7", 0), ("h8", 0), ("c5", 10)):
        assert task.verify(replace(right, question=with_cell(question, square, code)))
    assert ChessMateInOne(min_pieces=5).verify(right) == ["4 pieces, not 5 to 32"]


def test_published_pictures_are_272_px() -> None:
    assert ChessMateInOne.style.size_px((8, 8)) == (272, 272)


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    task = ChessMateInOne()
    digest = hashlib.sha256()
    for split in Split:
        for problem in task.given_problems(split):
            digest.update(problem.question.tobytes() + problem.metadata["move"].encode())
    for index in range(5):
        problem = task.generate(problem_rng("pinned", index))
        digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (task.generator_version, digest.hexdigest()[:16]) == (1, "a8241c8d559864fd")
