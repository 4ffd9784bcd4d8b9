"""Proof by python-chess that a position has exactly one mate in one or in two. Shares nothing with the generator.

Exhaustive: every move for white is tried, until a reply refutes it. Only moves that can give check are looked at as
mates, and the reply that refuted the last move is tried first; both change the time, never the finding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import chess


def shortest_mates(board: chess.Board, mate_in: int) -> list[chess.Move]:
    """All first moves of a forced mate in exactly ``mate_in`` (1 or 2) moves; none where there is a shorter one."""
    if mate_in == 1:
        return list(_mates(board))
    if next(_mates(board), None) is not None:
        return []
    keys = []
    refutations: list[chess.Move] = []
    for move in list(board.legal_moves):
        board.push(move)
        refutation = _refutation(board, refutations[::-1])
        if refutation is not None and refutation not in refutations[-2:]:
            refutations.append(refutation)
        if refutation is None and any(board.generate_legal_moves()):
            keys.append(move)
        board.pop()
    return keys


def _refutation(board: chess.Board, tried_first: list[chess.Move]) -> chess.Move | None:
    """A reply after which there is no mate at once; None when each reply allows one, or there is no reply."""
    for reply in itertools.chain(filter(board.is_legal, tried_first[:3]), board.generate_legal_moves()):
        board.push(reply)
        is_refuted = next(_mates(board), None) is None
        board.pop()
        if is_refuted:
            return reply
    return None


def _mates(board: chess.Board) -> Iterator[chess.Move]:
    """The moves that mate at once. Between any two of them the board is as it was."""
    for move in _possible_checks(board):
        board.push(move)
        is_mate = board.is_checkmate()
        board.pop()
        if is_mate:
            yield move


def _possible_checks(board: chess.Board) -> Iterator[chess.Move]:
    """All legal moves that give check, and some others."""
    king = board.king(not board.turn)
    assert king is not None
    lines = chess.BB_RANK_ATTACKS[king][chess.BB_RANK_MASKS[king] & board.occupied]
    lines |= chess.BB_FILE_ATTACKS[king][chess.BB_FILE_MASKS[king] & board.occupied]
    diagonals = chess.BB_DIAG_ATTACKS[king][chess.BB_DIAG_MASKS[king] & board.occupied]
    # A piece on a line to the king may uncover another behind it, a king may castle, a pawn promote or take in passing.
    free = lines | diagonals | board.kings | (board.pawns & (chess.BB_RANK_7 | chess.BB_RANK_2))
    if board.ep_square is not None:
        free |= board.pawns
    yield from board.generate_legal_moves(free)
    own = board.occupied_co[board.turn] & ~free
    yield from board.generate_legal_moves(own & board.queens, lines | diagonals)
    yield from board.generate_legal_moves(own & board.rooks, lines)
    yield from board.generate_legal_moves(own & board.bishops, diagonals)
    yield from board.generate_legal_moves(own & board.knights, chess.BB_KNIGHT_ATTACKS[king])
    yield from board.generate_legal_moves(own & board.pawns, chess.BB_PAWN_ATTACKS[not board.turn][king])
