"""Legal games of chess between weak players, compiled: where the positions with a forced mate come from.

Import this inside functions only: numba takes half a second to load.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from task_generators.chess_moves import (
    A8,
    CASTLING,
    EN_PASSANT,
    H1,
    KING_STEPS,
    KINGS,
    POSITION,
    SIDE,
    Integer,
    Moves,
    Stack,
    is_attacked,
    is_in_check,
    legal_moves,
    make,
    solutions,
)
from task_generators.compiled import compiled
from task_generators.split_mix import next_random

RandomState: TypeAlias = npt.NDArray[np.uint64]

MAX_PLIES = 200
"""Games are broken off here."""
VALUES = np.array([0, 100, 320, 330, 500, 900, 0])
"""Worth of a piece in hundredths of a pawn, by kind."""


@compiled
def _random(state: RandomState) -> Integer:
    """A random number below 2**31. Its remainder is taken where it is used: a bound that is a constant would make
    numba compile this once for each."""
    return np.int64(next_random(state) >> np.uint64(33))


@compiled
def play_game(state: RandomState, stack: Stack, moves: Moves, played: Moves) -> int:
    """Play a game; returns its number of half-moves (plies), at most ``MAX_PLIES``.

    ``stack`` begins with the initial position. On return the position before ply p lies at ``stack[p * POSITION]``, the
    move made there in ``played[p]``. Both sides look one move ahead (what is taken, what could be lost, checks), with
    noise, more of it for black, and with tastes drawn anew for each game: which kinds of piece they like to move, to
    what they promote, how much they like checks. The first moves of each game are random.
    """
    taste = np.empty(14, dtype=np.int64)
    noise = np.empty(2, dtype=np.int64)
    check_bonus = np.empty(2, dtype=np.int64)
    hunt = np.empty(2, dtype=np.int64)
    king_shyness = np.empty(2, dtype=np.int64)
    for player in range(2):
        for kind in range(7):
            taste[7 * player + kind] = _random(state) % 160 - 80
        noise[player] = 40 + _random(state) % 300 + player * (_random(state) % 900)
        check_bonus[player] = _random(state) % 150
        hunt[player] = _random(state) % 25
        king_shyness[player] = _random(state) % 200
    promotes_to: Integer = 2 + _random(state) % 4 if _random(state) % 3 == 0 else 5
    num_random_plies = 2 + _random(state) % 8
    for ply in range(MAX_PLIES):
        base = ply * POSITION
        child = base + POSITION
        side = np.int64(stack[base + SIDE])
        enemy_king = np.int64(stack[base + KINGS + 1 - side])
        count = legal_moves(stack, base, moves)
        if count == 0:
            return ply
        best = moves[2 * base + _random(state) % count]
        if ply >= num_random_plies:
            best_score = -(10**9)
            for index in range(2 * base, 2 * base + count):
                move = moves[index]
                make(stack, base, move)
                origin, target, promotion = move & 127, move >> 7 & 127, move >> 14
                kind = stack[base + origin] - 6 * side
                taken = stack[base + target]
                score = _random(state) % noise[side] + taste[7 * side + kind]
                if taken:
                    score += VALUES[taken - 6 * (1 - side)]
                if promotion:
                    score += 800 if promotion == promotes_to else 100
                elif kind == 1:
                    score += 4 * (8 - target // 10 if side == 0 else target // 10 - 3)
                elif kind == 6:
                    score += 120 if abs(target - origin) == 2 else -king_shyness[side]
                if is_attacked(stack, base, origin, 1 - side):
                    score += VALUES[kind] // 2
                if is_attacked(stack, child, target, 1 - side):
                    worth = VALUES[promotion] if promotion else VALUES[kind]
                    score -= worth // 2 if is_attacked(stack, child, target, side) else worth
                if is_in_check(stack, child):
                    score += check_bonus[side]
                if kind != 6:
                    rows = target // 10 - enemy_king // 10
                    columns = target % 10 - enemy_king % 10
                    score -= hunt[side] * max(abs(rows), abs(columns))
                if score > best_score:
                    best_score = score
                    best = move
        played[ply] = best
        make(stack, base, best)
    return MAX_PLIES


@compiled
def only_solution(stack: Stack, base: int, moves: Moves, mate_in: int) -> int:
    """The only move that forces mate in exactly ``mate_in`` moves, or 0 when there is none or more than one.

    A board does not show who may castle or take en passant: where the position has such rights, the move must be the
    only one without them as well, because that is what its picture says.
    """
    found = np.empty(2, dtype=np.int64)
    if solutions(stack, base, moves, mate_in, len(found), found) != 1:
        return 0
    move = found[0]
    castling, en_passant = stack[base + CASTLING], stack[base + EN_PASSANT]
    if castling or en_passant:
        stack[base + CASTLING] = stack[base + EN_PASSANT] = 0
        if solutions(stack, base, moves, mate_in, len(found), found) != 1 or found[0] != move:
            move = 0
        stack[base + CASTLING] = castling
        stack[base + EN_PASSANT] = en_passant
    return move


@compiled
def _is_king_hunted(stack: Stack, base: int, moves: Moves) -> bool:
    """Whether the enemy king has at most two squares to go to, and three moves or more give check.

    About 70 % of all mates in two lie where this holds, which is in 18 % of the positions of games (counted in 250).
    """
    side = np.int64(stack[base + SIDE])
    enemy_king = np.int64(stack[base + KINGS + 1 - side])
    num_flights = 0
    for index in range(8):
        square = enemy_king + KING_STEPS[index]
        piece = stack[base + square]
        is_open = piece == 0 or 1 + 6 * side <= piece <= 6 + 6 * side
        num_flights += is_open and not is_attacked(stack, base, square, side)
    if num_flights > 2:
        return False
    num_checks = 0
    for index in range(2 * base, 2 * base + legal_moves(stack, base, moves)):
        make(stack, base, moves[index])
        num_checks += is_in_check(stack, base + POSITION)
    return num_checks >= 3


@compiled
def find_mate(
    state: RandomState,
    stack: Stack,
    moves: Moves,
    num_plies: int,
    mate_in: int,
    min_pieces: int,
    max_pieces: int,
    found: Moves,
) -> int:
    """The ply of a random position of a game, white to move, that has exactly one solution; -1 when there is none.

    ``stack``: as ``play_game`` left it. Pieces include the kings. ``found[0]`` receives the solution.
    """
    num_candidates = (num_plies + 1) // 2
    order = np.empty(MAX_PLIES, dtype=np.int64)
    for index in range(num_candidates):
        order[index] = 2 * index
    # What a search writes behind a position would overwrite the later positions of the game.
    scratch = (MAX_PLIES + 1) * POSITION
    for index in range(num_candidates):
        chosen = index + _random(state) % (num_candidates - index)
        ply = order[chosen]
        order[chosen] = order[index]
        base = ply * POSITION
        num_pieces = 0
        for square in range(A8, H1 + 1):
            num_pieces += 0 < stack[base + square] < 13
        if num_pieces < min_pieces or num_pieces > max_pieces:
            continue
        for offset in range(POSITION):
            stack[scratch + offset] = stack[base + offset]
        if mate_in == 2 and _random(state) % 4 and not _is_king_hunted(stack, scratch, moves):
            continue
        found[0] = only_solution(stack, scratch, moves, mate_in)
        if found[0]:
            return ply
    return -1
