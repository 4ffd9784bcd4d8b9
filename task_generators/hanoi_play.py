"""Optimal play of the Tower of Hanoi, compiled. Import this inside functions only: numba takes half a second to load.

A state is the peg (0, 1, 2) of each disk, smallest disk first. From any state, one way alone is the shortest to all
disks on one given peg (Hinz, "The Tower of Hanoi", L'Enseignement Mathematique 35, 1989).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled
from task_generators.split_mix import next_random

GOAL = 2
"""The peg that all disks go to: the last one."""


@compiled
def next_move(pegs: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """The disk that the optimal play towards the goal moves next, the peg it goes to, and how many moves are left.

    ``pegs``: shape (disks,). Disk -1 where the goal is reached.
    """
    disk, to, moves_left, target = -1, GOAL, 0, GOAL
    for place in range(len(pegs) - 1, -1, -1):
        if pegs[place] != target:
            disk, to = place, target
            moves_left += 1 << place
            # Before this disk can move, all smaller ones must lie on the third peg.
            target = 3 - pegs[place] - target
    return disk, to, moves_left


@compiled
def draw_states(
    seeds: npt.NDArray[np.uint64],
    steps: int,
    is_classic: bool,
    questions: npt.NDArray[np.int8],
    answers: npt.NDArray[np.int8],
) -> None:
    """Draw a state from each seed and play ``steps`` moves, or until all disks are on the goal where ``steps`` is 0.

    Uniform over the states at least ``steps`` (and 1) moves from the goal; with ``is_classic`` over those of them that
    the play from all disks on the first peg passes through. ``questions``, ``answers``: (n, disks, 3), receive the
    disks, 1 the smallest, at the bottom of their columns; zeros on entry.
    """
    num_disks = questions.shape[1]
    least = max(steps, 1)
    pegs = np.empty(num_disks, dtype=np.int64)
    state = np.empty(1, dtype=np.uint64)
    for place in range(len(seeds)):
        state[0] = seeds[place]
        moves_left = 0
        while moves_left < least:
            # 32 bits for the at most 3**9 states: their chances differ by less than one part in 200,000.
            bits = next_random(state) >> np.uint64(32)
            for disk in range(num_disks):
                bits *= np.uint64(3)
                pegs[disk] = np.int64(bits >> np.uint64(32)) * (not is_classic)
                bits &= np.uint64(0xFFFFFFFF)
            moves_left = next_move(pegs)[2]
        if is_classic:
            num_states = np.uint64(moves_left - least + 1)
            play(pegs, np.int64(((next_random(state) >> np.uint64(32)) * num_states) >> np.uint64(32)))
        stack(pegs, questions[place])
        play(pegs, steps if steps else moves_left)
        stack(pegs, answers[place])


@compiled
def play(pegs: npt.NDArray[np.int64], moves: int | np.int64) -> None:
    """Make ``moves`` optimal moves in ``pegs``, fewer where the goal is reached before."""
    for _ in range(moves):
        disk, to, _ = next_move(pegs)
        if disk < 0:
            break
        pegs[disk] = to


@compiled
def stack(pegs: npt.NDArray[np.int64], grid: npt.NDArray[np.int8]) -> None:
    """Draw a state into ``grid`` (disks, 3), zeros on entry: the largest disk of each peg at the bottom."""
    num_disks = len(pegs)
    for peg in range(3):
        row = num_disks - 1
        for disk in range(num_disks - 1, -1, -1):
            if pegs[disk] == peg:
                grid[row, peg] = disk + 1
                row -= 1
