import hashlib
import random

import chess
import numpy as np
import pytest

from task_generators.chess_positions import board_from_fen, key_moves_mate_in_2, mating_moves
from task_generators.problem import Problem, Split
from task_generators.rng import problem_rng
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.chess_mate_in_2 import ChessMateInTwo


def drawn(split: Split, n: int) -> list[Problem]:
    return draw_problems(TaskSpec(name="chess_mate_in_2"), split, 0, n)


def can_mate(board: chess.Board, mate_in: int) -> bool:
    """Whether the side to move forces mate in at most ``mate_in`` moves, by plain exhaustive search."""
    return any(forces(board, move, mate_in) for move in list(board.legal_moves))


def forces(board: chess.Board, move: chess.Move, mate_in: int) -> bool:
    board.push(move)
    try:
        if board.is_checkmate():
            return True
        replies = list(board.legal_moves)
        return mate_in > 1 and bool(replies) and all(mates_after(board, reply, mate_in - 1) for reply in replies)
    finally:
        board.pop()


def mates_after(board: chess.Board, reply: chess.Move, mate_in: int) -> bool:
    board.push(reply)
    mates = can_mate(board, mate_in)
    board.pop()
    return mates


def proves(problem: Problem) -> None:
    board = chess.Board(problem.metadata["fen"])
    assert not can_mate(board, 1)
    assert [move.uci() for move in board.legal_moves if forces(board, move, 2)] == [problem.metadata["move"]]
    assert np.array_equal(board_from_fen(board.fen()), problem.question)
    assert problem.metadata["san"] == board.san(board.parse_uci(problem.metadata["move"]))
    board.push_uci(problem.metadata["move"])
    assert np.array_equal(board_from_fen(board.fen()), problem.answer)


def test_exactly_one_move_forces_mate_in_two() -> None:
    for problem in drawn(Split.TRAIN, 3) + drawn(Split.TEST, 2):
        proves(problem)


def test_problems_beyond_the_bank_are_made_the_same_way() -> None:
    for index in range(3):
        proves(ChessMateInTwo().generate(problem_rng("beyond", index)))


def test_the_bank_holds_enough_for_the_published_sizes() -> None:
    assert len(ChessMateInTwo().given_problems(Split.TRAIN)) >= 1000
    assert len(ChessMateInTwo().given_problems(Split.TEST)) >= 200


def test_quiet_keys_occur_beside_checks() -> None:
    is_check = [problem.metadata["san"].endswith("+") for problem in drawn(Split.TRAIN, 1000)]
    assert 1 - np.mean(is_check) > 0.02
    assert np.mean(is_check) > 0.3


@pytest.mark.parametrize(
    ("fen", "keys"),
    [
        # Morphy's opera game, and the smothered mate; then a mate in one, a stalemating move and a bare king.
        ("4kb1r/p2n1ppp/4q3/4p1B1/4P3/1Q6/PPP2PPP/2KR4", ["b3b8"]),
        ("5r1k/6pp/7N/8/2Q5/8/8/6K1", ["c4g8"]),
        ("7k/1R6/R7/8/8/8/8/K7", []),
        ("7k/8/5K2/8/8/8/8/8", []),
    ],
)
def test_known_mates_in_two(fen: str, keys: list[str]) -> None:
    assert key_moves_mate_in_2(board_from_fen(fen)) == keys


def test_keys_are_those_of_plain_search_on_positions_with_none_one_and_many() -> None:
    rng = random.Random(0)
    numbers = set()
    for pieces in ["KkQ", "KkR", "KkRR", "KkP", "KkRp"] * 8:
        board = chess.Board(None)
        # The black king in a corner, so that many of the positions are near a mate.
        squares = rng.sample([square for square in chess.SQUARES if square != chess.A8], len(pieces))
        for piece, square in zip(pieces, squares, strict=True):
            board.set_piece_at(chess.A8 if piece == "k" else square, chess.Piece.from_symbol(piece))
        if board.is_valid():
            keys = key_moves_mate_in_2(board_from_fen(board.fen()))
            assert bool(mating_moves(board_from_fen(board.fen()))) == can_mate(board, 1)
            if not can_mate(board, 1):
                assert keys == sorted(move.uci() for move in list(board.legal_moves) if forces(board, move, 2))
            numbers.add(min(2, len(keys)))
    assert numbers == {0, 1, 2}


def test_the_verifier_needs_the_only_key() -> None:
    task, problem = ChessMateInTwo(), drawn(Split.TRAIN, 1)[0]
    assert task.verify(problem) == []
    for move in chess.Board(problem.metadata["fen"]).legal_moves:
        if move.uci() != problem.metadata["move"]:
            other = Problem(problem.question, problem.answer, {**problem.metadata, "move": move.uci()})
            assert task.verify(other)
            break
    assert task.verify(Problem(problem.answer, problem.answer, problem.metadata))


def test_problems_stay_what_they_are() -> None:
    """Finished trials name these problems: when they change, ``generator_version`` rises, and this digest with it."""
    task = ChessMateInTwo()
    digest = hashlib.sha256()
    for split in Split:
        for problem in task.given_problems(split):
            digest.update(problem.question.tobytes() + problem.metadata["move"].encode())
    for index in range(5):
        problem = task.generate(problem_rng("pinned", index))
        digest.update(problem.question.tobytes() + problem.answer.tobytes())
    assert (task.generator_version, digest.hexdigest()[:16]) == (1, "41dc732be145130d")
