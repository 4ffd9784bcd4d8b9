"""Connect 4 on bitboards, compiled: wins, forced wins and self-play. Import this inside functions only: numba takes
half a second to load.

A player's stones are the bits of one uint64. Each column has ``height + 1`` bits, lowest cell first; the highest bit of
a column stays empty, so that no line runs from one column's top into the next (John Tromp's Fhourstones layout).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.split_mix import next_random
from task_generators.tasks.connect4 import PLAYER_1, PLAYER_2

MAX_GAMES = 100_000
"""Games played for one problem before the knobs count as impossible: about a second."""


@compiled
def wins_at_once(own: np.uint64, playable: np.uint64, connect: int, height: int) -> np.uint64:
    """The cells of ``playable`` where one more stone makes a line of ``connect``."""
    cells = np.uint64(0)
    for direction in range(4):
        step = 1 if direction == 0 else height + direction - 1  # up, down to the right, right, up to the right
        for gap in range(connect):
            line = ~np.uint64(0)
            for place in range(connect):
                offset = (place - gap) * step
                if abs(offset) > 63:
                    line = np.uint64(0)
                elif offset > 0:
                    line &= own >> np.uint64(offset)
                elif offset < 0:
                    line &= own << np.uint64(-offset)
            cells |= line
    return cells & playable


@compiled
def winning_moves(
    own: np.uint64, other: np.uint64, moves: int, connect: int, height: int, bottom: np.uint64, board: np.uint64
) -> np.uint64:
    """Cells of all moves with which the player of ``own``, who is to move, forces a win in at most ``moves`` own moves;
    of those that win at once alone, where there are any.

    ``bottom`` and ``board``: the lowest cell of each column, and all cells. Neither player has a line yet.
    """
    one = np.uint64(1)
    playable = ((own | other) + bottom) & board
    found = wins_at_once(own, playable, connect, height)
    if moves == 1 or found:
        return found
    left = playable
    threats = wins_at_once(other, playable, connect, height)
    if threats:  # whatever does not stop the only threat loses at once
        left = left & threats if threats & (threats - one) == 0 else np.uint64(0)
    while left:
        move = left & (~left + one)
        left ^= move
        moved = own | move
        replies = ((moved | other) + bottom) & board
        if replies == 0 or wins_at_once(other, replies, connect, height):
            continue
        threats = wins_at_once(moved, replies, connect, height)
        if threats:  # two cannot both be stopped
            replies = threats if threats & (threats - one) == 0 else np.uint64(0)
        is_won = True
        while replies and is_won:
            reply = replies & (~replies + one)
            replies ^= reply
            is_won = winning_moves(moved, other | reply, moves - 1, connect, height, bottom, board) != 0
        if is_won:
            found |= move
    return found


@compiled
def draw_positions(
    seeds: npt.NDArray[np.uint64],
    connect: int,
    moves_to_win: int,
    min_moves: int,
    max_moves: int,
    random_move_share: float,
    questions: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
    columns: npt.NDArray[np.int8],
) -> bool:
    """Play games from each seed up to a position in which player 1, to move, wins in ``moves_to_win`` by one move only.

    Both players take a win where there is one, else stop a win of the other, else move at random; with the chance
    ``random_move_share`` they move at random anyway. Player 1 begins. A game gives its first fitting position after
    ``min_moves`` to ``max_moves`` moves. ``questions``, ``answers``: (n, height, width), receive the position before
    and after the move; ``columns``: (n,), its column. False: one seed saw ``MAX_GAMES`` games without a fitting
    position.
    """
    height, width = questions.shape[1:]
    one = np.uint64(1)
    bottom = np.uint64(0)
    for column in range(width):
        bottom |= one << np.uint64(column * (height + 1))
    board = bottom * np.uint64((1 << height) - 1)
    threshold = np.uint64(random_move_share * 2.0**32)
    state = np.empty(1, dtype=np.uint64)
    for place in range(len(seeds)):
        state[0] = seeds[place]
        own, other, num_moves, num_games = np.uint64(0), np.uint64(0), 0, 1
        move = np.uint64(0)
        while True:
            playable = ((own | other) + bottom) & board
            wins = wins_at_once(own, playable, connect, height)
            if num_moves % 2 == 0 and min_moves <= num_moves <= max_moves:
                move, moves = wins, 1
                while move == 0 and moves < moves_to_win:
                    moves += 1
                    move = winning_moves(own, other, moves, connect, height, bottom, board)
                if moves == moves_to_win and move and move & (move - one) == 0:
                    break
            bits = next_random(state)
            choices = playable
            if bits >> np.uint64(32) >= threshold:
                choices = wins
                if choices == 0:
                    choices = wins_at_once(other, playable, connect, height)
                if choices == 0:
                    choices = playable
            number = np.uint64(0)
            left = choices
            while left:
                left &= left - one
                number += one
            for _ in range(((bits & np.uint64(0xFFFFFFFF)) * number) >> np.uint64(32)):
                choices &= choices - one
            move = choices & (~choices + one)
            num_moves += 1
            if move & wins or num_moves == height * width or num_moves > max_moves:
                if num_games == MAX_GAMES:
                    return False
                own, other, num_moves, num_games = np.uint64(0), np.uint64(0), 0, num_games + 1
            else:
                own, other = other, own | move
        for column in range(width):
            for row in range(height):
                cell = one << np.uint64(column * (height + 1) + height - 1 - row)
                code = np.int8(0)
                if own & cell:
                    code = np.int8(PLAYER_1)
                elif other & cell:
                    code = np.int8(PLAYER_2)
                questions[place, row, column] = code
                if move == cell:
                    columns[place] = column
                    code = np.int8(PLAYER_1)
                answers[place, row, column] = code
    return True
