"""Rules of chess and a search for forced mates, compiled. Import this inside functions only: numba is slow to load.

A position is 128 int8: 120 squares (12 rows of 10, the outer ones off the board, so that steps need no test of the
edge; row 0 of the 8x8 board is the eighth rank) with the codes of the grids (0 empty, 1-6 white P N B R Q K, 7-12
black), then side to move, castling rights, en-passant square and the squares of the two kings. Positions lie one
after the other in ``stack``: the one after a move from ``base`` is written to ``base + POSITION``. Each level has its
own 256 places in ``moves``, from ``2 * base`` on. A move is ``origin + 128 * target + 16384 * promoted kind``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled

Stack: TypeAlias = npt.NDArray[np.int8]
Moves: TypeAlias = npt.NDArray[np.int64]
Integer: TypeAlias = int | np.int64

POSITION = 128
SIDE, CASTLING, EN_PASSANT, KINGS = 120, 121, 122, 123  # KINGS + side: where the king of that side stands
OFF_BOARD = 13
# The first four are along ranks and files.
KING_STEPS = np.array([-10, -1, 1, 10, -11, -9, 9, 11])
KNIGHT_STEPS = np.array([-21, -19, -12, -8, 8, 12, 19, 21])
# LINES[90 + a - b]: 1 when squares a and b share a rank or file, 2 a diagonal, 4 when they are a knight's jump apart.
LINES = np.zeros(181, dtype=np.int64)
for _index, _step in enumerate(KING_STEPS):
    LINES[90 + _step * np.arange(1, 8)] |= 1 if _index < 4 else 2
LINES[90 + KNIGHT_STEPS] |= 4
# Of these, what a piece of each kind captures along.
REACHES = np.array([0, 2, 4, 2, 1, 3, 0])
A8, E8, H8, A1, E1, H1 = 21, 25, 28, 91, 95, 98


@compiled
def set_position(
    stack: Stack, base: int, cells: npt.NDArray[np.int8], side: int, castling: int, en_passant: int
) -> None:
    """Write a position at ``base``: ``cells`` is a grid's (64,); ``side`` 0 white, 1 black; bits K 1, Q 2, k 4, q 8."""
    for square in range(120):
        stack[base + square] = OFF_BOARD
    for cell in range(64):
        square = 21 + cell // 8 * 10 + cell % 8
        stack[base + square] = cells[cell]
        if cells[cell] == 6:
            stack[base + KINGS] = square
        elif cells[cell] == 12:
            stack[base + KINGS + 1] = square
    stack[base + SIDE] = side
    stack[base + CASTLING] = castling
    stack[base + EN_PASSANT] = en_passant


@compiled
def is_attacked(stack: Stack, base: int, square: Integer, attacker: Integer) -> bool:
    """Whether a piece of side ``attacker`` could capture on ``square``."""
    shift = 6 * attacker
    behind = base + square + (10 if attacker == 0 else -10)
    if stack[behind - 1] == shift + 1 or stack[behind + 1] == shift + 1:
        return True
    for index in range(8):
        if stack[base + square + KNIGHT_STEPS[index]] == shift + 2:
            return True
    for index in range(8):
        step = KING_STEPS[index]
        place = base + square + step
        piece = stack[place]
        if piece == shift + 6:
            return True
        while piece == 0:
            place += step
            piece = stack[place]
        if piece == shift + 5 or piece == (shift + 4 if index < 4 else shift + 3):
            return True
    return False


@compiled
def _pseudo_legal_moves(stack: Stack, base: int, moves: Moves) -> int:
    """All moves but for the rule that one's king must not be left in check; returns how many there are."""
    side = np.int64(stack[base + SIDE])
    own_first, enemy_first = 1 + 6 * side, 7 - 6 * side
    start = 2 * base
    end = start
    for origin in range(A8, H1 + 1):
        kind = stack[base + origin] - own_first + 1
        if kind < 1 or kind > 6:
            continue
        if kind == 1:
            forward = -10 if side == 0 else 10
            row = origin // 10
            first_promotion, last_promotion = (2, 5) if row == (3 if side == 0 else 8) else (0, 0)
            for step in range(forward - 1, forward + 2):
                target = origin + step
                piece = stack[base + target]
                if step == forward:
                    if piece != 0:
                        continue
                elif (piece < enemy_first or piece > enemy_first + 5) and (
                    piece != 0 or target != stack[base + EN_PASSANT]
                ):
                    continue
                for promotion in range(first_promotion, last_promotion + 1):
                    moves[end] = origin + 128 * target + 16384 * promotion
                    end += 1
            if row == (8 if side == 0 else 3) and stack[base + origin + forward] == 0:
                target = origin + 2 * forward
                if stack[base + target] == 0:
                    moves[end] = origin + 128 * target
                    end += 1
            continue
        for index in range(4 if kind == 3 else 0, 4 if kind == 4 else 8):
            step = KNIGHT_STEPS[index] if kind == 2 else KING_STEPS[index]
            target = origin + step
            piece = stack[base + target]
            while piece == 0:
                moves[end] = origin + 128 * target
                end += 1
                if kind == 2 or kind == 6:
                    break
                target += step
                piece = stack[base + target]
            if enemy_first <= piece <= enemy_first + 5:
                moves[end] = origin + 128 * target
                end += 1
    rights = (stack[base + CASTLING] >> 2 * side) & 3
    if rights:
        king = E1 if side == 0 else E8
        place = base + king
        if not is_attacked(stack, base, king, 1 - side):
            is_free = rights & 1 and stack[place + 1] == 0 and stack[place + 2] == 0
            if is_free and not is_attacked(stack, base, king + 1, 1 - side):
                moves[end] = king + 128 * (king + 2)
                end += 1
            is_free = rights & 2 and stack[place - 1] == 0 and stack[place - 2] == 0 and stack[place - 3] == 0
            if is_free and not is_attacked(stack, base, king - 1, 1 - side):
                moves[end] = king + 128 * (king - 2)
                end += 1
    return end - start


@compiled
def make(stack: Stack, base: int, move: int) -> bool:
    """Write the position after ``move`` to ``base + POSITION``; False when it leaves the mover's king in check."""
    child = base + POSITION
    for offset in range(POSITION):
        stack[child + offset] = stack[base + offset]
    origin, target, promotion = move & 127, move >> 7 & 127, move >> 14
    side = np.int64(stack[base + SIDE])
    piece = stack[base + origin]
    kind = piece - 6 * side
    stack[child + origin] = 0
    stack[child + target] = promotion + 6 * side if promotion else piece
    stack[child + EN_PASSANT] = 0
    if kind == 1:
        if target == stack[base + EN_PASSANT]:
            stack[child + target + (10 if side == 0 else -10)] = 0
        elif target - origin == 20 or origin - target == 20:
            stack[child + EN_PASSANT] = (origin + target) // 2
    elif kind == 6:
        stack[child + KINGS + side] = target
        if target - origin == 2:
            stack[child + target + 1] = 0
            stack[child + target - 1] = 4 + 6 * side
        elif origin - target == 2 and origin // 10 == target // 10:
            stack[child + target - 2] = 0
            stack[child + target + 1] = 4 + 6 * side
    rights = stack[base + CASTLING]
    if rights:
        if origin == E1:
            rights &= 12
        elif origin == E8:
            rights &= 3
        if origin == H1 or target == H1:
            rights &= 14
        if origin == A1 or target == A1:
            rights &= 13
        if origin == H8 or target == H8:
            rights &= 11
        if origin == A8 or target == A8:
            rights &= 7
        stack[child + CASTLING] = rights
    stack[child + SIDE] = 1 - side
    return not is_attacked(stack, child, np.int64(stack[child + KINGS + side]), 1 - side)


@compiled
def legal_moves(stack: Stack, base: int, moves: Moves) -> int:
    """Write all legal moves to ``moves[2 * base:]``; returns how many there are."""
    start = 2 * base
    count = _pseudo_legal_moves(stack, base, moves)
    kept = start
    for index in range(start, start + count):
        if make(stack, base, moves[index]):
            moves[kept] = moves[index]
            kept += 1
    return kept - start


@compiled
def is_in_check(stack: Stack, base: int) -> bool:
    """Whether the side to move is in check."""
    side = np.int64(stack[base + SIDE])
    return is_attacked(stack, base, np.int64(stack[base + KINGS + side]), 1 - side)


@compiled
def mating_moves(stack: Stack, base: int, moves: Moves, limit: int, found: Moves) -> int:
    """Write up to ``limit`` moves that mate at once to ``found``; returns how many."""
    start = 2 * base
    child = base + POSITION
    num_found = 0
    side = np.int64(stack[base + SIDE])
    enemy_king = np.int64(stack[base + KINGS + 1 - side])
    for index in range(start, start + _pseudo_legal_moves(stack, base, moves)):
        # Most moves cannot give check: the piece does not reach for the king, nor did it stand before one that does.
        origin, target, kind = moves[index] & 127, moves[index] >> 7 & 127, moves[index] >> 14
        if kind == 0:
            kind = stack[base + origin] - 6 * side
        if (
            not LINES[90 + target - enemy_king] & REACHES[kind]
            and not LINES[90 + origin - enemy_king] & 3
            and not (kind == 1 and target == stack[base + EN_PASSANT])
            and not (kind == 6 and abs(target - origin) == 2)
        ):
            continue
        if make(stack, base, moves[index]) and is_in_check(stack, child):
            has_reply = False
            first = 2 * child
            for reply in range(first, first + _pseudo_legal_moves(stack, child, moves)):
                if make(stack, child, moves[reply]):
                    has_reply = True
                    break
            if not has_reply:
                found[num_found] = moves[index]
                num_found += 1
                if num_found == limit:
                    break
    return num_found


@compiled
def key_moves(stack: Stack, base: int, moves: Moves, limit: int, found: Moves) -> int:
    """Write up to ``limit`` moves after which every reply allows a mate at once to ``found``; returns how many.

    A move that mates or stalemates at once is not among them.
    """
    start = 2 * base
    child = base + POSITION
    mate = np.empty(1, dtype=np.int64)
    num_found = 0
    refutation = 0  # of the move tried last: it often refutes the next one as well, so it is tried first
    for index in range(start, start + legal_moves(stack, base, moves)):
        make(stack, base, moves[index])
        first = 2 * child
        end = first + _pseudo_legal_moves(stack, child, moves)
        for reply in range(first, end):
            if moves[reply] == refutation:
                moves[reply] = moves[first]
                moves[first] = refutation
                break
        is_forced = False
        for reply in range(first, end):
            if make(stack, child, moves[reply]):
                is_forced = mating_moves(stack, child + POSITION, moves, len(mate), mate) > 0
                if not is_forced:
                    refutation = moves[reply]
                    break
        if is_forced:
            found[num_found] = moves[index]
            num_found += 1
            if num_found == limit:
                break
    return num_found


@compiled
def solutions(stack: Stack, base: int, moves: Moves, mate_in: int, limit: int, found: Moves) -> int:
    """Up to ``limit`` first moves of a shortest forced mate in exactly ``mate_in`` (1 or 2) moves; returns how many."""
    if mate_in == 1:
        return mating_moves(stack, base, moves, limit, found)
    if mating_moves(stack, base, moves, limit, found):
        return 0
    return key_moves(stack, base, moves, limit, found)
