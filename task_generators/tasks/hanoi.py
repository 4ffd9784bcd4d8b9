"""The Tower of Hanoi: play optimally towards all disks on the last peg."""

from __future__ import annotations

from collections import deque
from functools import cache, partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from task_generators.problem import Batch, Grid, LazyStates, Problem, frozen_grid
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.task import Task

NUM_PEGS = 3


class Hanoi(Task):
    """The question is a state of the game, the answer the state ``steps`` optimal moves later.

    Columns are pegs, disks lie at the bottom, and each has the code of its size: 1 the smallest. The optimal play to
    all disks on the last peg is unique with three pegs, so there is one right answer.
    """

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS, names=("empty", *(f"disk {size}" for size in range(1, 10))))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = "the first two pegs exchanged"

    disks: int = Field(default=9, ge=2, le=9, description="number of disks, which is the number of rows", examples=[7])
    steps: int | None = Field(
        default=1,
        ge=1,
        description="optimal moves from question to answer; null: until all disks are on the last peg, "
        "always the same picture",
        examples=[3],
    )
    start: Literal["random", "first_peg"] = Field(
        default="random",
        description="random: any legal state at least as many moves from the end as steps; "
        "first_peg: such states of the classic game, which begins with all disks on the first peg",
        examples=["first_peg"],
    )

    @model_validator(mode="after")
    def _reachable(self) -> Hanoi:
        longest = 2**self.disks - 1
        if self.steps is not None and self.steps > longest:
            raise ValueError(
                f"steps = {self.steps}: expected at most {longest}, the longest way with {self.disks} disks, or null"
            )
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw states, uniformly over those there are, and play."""
        from task_generators.hanoi_play import draw_states

        questions = np.zeros((len(seeds), self.disks, NUM_PEGS), dtype=np.int8)
        answers = np.zeros_like(questions)
        draw_states(seeds, self.steps or 0, self.start == "first_peg", questions, answers)
        if self.steps == 1:
            return Batch(questions, answers)
        return Batch(
            questions,
            answers,
            states=lambda place: LazyStates(partial(_states_between, questions[place], self.steps)),
        )

    def verify(self, problem: Problem) -> list[str]:
        """Search all states for the shortest way to the end."""
        if problem.question.shape != (self.disks, NUM_PEGS):
            return [f"the question has not {self.disks} rows and {NUM_PEGS} columns"]
        try:
            way = _optimal_way(_pegs(problem.question), self.steps)
        except ValueError as error:
            return [f"the question: {error}"]
        faults = []
        if self.start == "first_peg" and problem.question.tobytes() not in _classic_states(self.disks):
            faults.append("the question is no state of the classic game")
        if not way:
            faults.append("the question is the end already")
        elif not np.array_equal(_stacked(way[-1]), problem.answer):
            faults.append(f"the answer is not the state {len(way)} optimal moves later")
        return faults

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the states, the same where the first two pegs are exchanged."""
        from task_generators.copy_hash import copy_hashes

        cells = np.arange(self.disks * NUM_PEGS).reshape(self.disks, NUM_PEGS)
        copies = np.stack([cells.ravel(), cells[:, [1, 0, 2]].ravel()])
        return copy_hashes(questions, copies, len(self.palette.colors))

    def problem_space(self) -> str:
        """The number of states, exactly: 2 to the number of ones in k's binary digits lie k moves from the end."""
        least, longest = self.steps or 1, 2**self.disks - 1
        if self.start == "first_peg":
            return f"{longest - least + 1:,} states of the classic game"
        return f"{sum(2 ** moves.bit_count() for moves in range(least, longest + 1)):,} states"


def optimal_states(grid: Grid, steps: int | None = None) -> list[Grid]:
    """The ``steps`` states after ``grid`` on the shortest way to all disks on the last peg; None: all up to the end.

    Plain Python written apart from the generator: it follows what a breadth-first search from the end found; some 0.2 s
    for the first grid of 9 disks. ValueError when ``grid`` is no state of the game, when the end is closer than
    ``steps``, or when two ways are as short.
    """
    return [_stacked(pegs) for pegs in _optimal_way(_pegs(grid), steps)]


def _optimal_way(pegs: tuple[int, ...], steps: int | None) -> list[tuple[int, ...]]:
    nearer = _nearer_states(len(pegs))
    way: list[tuple[int, ...]] = []
    while nearer[pegs] and len(way) != steps:
        if len(nearer[pegs]) > 1:
            raise ValueError(f"{len(nearer[pegs])} ways to the end are as short")
        (pegs,) = nearer[pegs]
        way.append(pegs)
    if steps is not None and len(way) < steps:
        raise ValueError(f"the end is {len(way)} moves away, not {steps}")
    return way


def _states_between(question: Grid, steps: int | None) -> tuple[Grid, ...]:
    from task_generators.hanoi_play import next_move, play, stack

    pegs = np.array(_pegs(question))
    between = []
    for _ in range((steps or next_move(pegs)[2]) - 1):
        play(pegs, 1)
        grid = np.zeros_like(question)
        stack(pegs, grid)
        between.append(frozen_grid(grid))
    return tuple(between)


def _pegs(grid: Grid) -> tuple[int, ...]:
    """The peg of each disk, smallest first. ValueError when ``grid`` (disks, 3) is no state of the game."""
    places = {int(code): peg for (_, peg), code in np.ndenumerate(grid) if code}
    pegs = tuple(places.get(disk, 0) for disk in range(1, len(grid) + 1))
    if grid.shape[1] != NUM_PEGS or not np.array_equal(_stacked(pegs), grid):
        raise ValueError(
            f"expected each of {len(grid)} disks once, none on a smaller one and none in the air, on 3 pegs"
        )
    return pegs


def _stacked(pegs: tuple[int, ...]) -> Grid:
    grid = np.zeros((len(pegs), NUM_PEGS), dtype=np.int8)
    for peg in range(NUM_PEGS):
        disks = [disk for disk, place in enumerate(pegs, start=1) if place == peg]
        grid[len(pegs) - len(disks) :, peg] = disks
    return frozen_grid(grid)


def _after_one_move(pegs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All states one legal move away."""
    top = {peg: disk for disk, peg in reversed(list(enumerate(pegs)))}
    return [
        (*pegs[:disk], to, *pegs[disk + 1 :])
        for peg, disk in top.items()
        for to in range(NUM_PEGS)
        if disk < top.get(to, len(pegs))
    ]


@cache
def _classic_states(num_disks: int) -> frozenset[bytes]:
    first = _stacked((0,) * num_disks)
    return frozenset(grid.tobytes() for grid in (first, *optimal_states(first)))


@cache
def _nearer_states(num_disks: int) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """For every state, those one move away from which the end is one move closer."""
    end = (NUM_PEGS - 1,) * num_disks
    distances, queue = {end: 0}, deque([end])
    nearer: dict[tuple[int, ...], list[tuple[int, ...]]] = {end: []}
    while queue:
        pegs = queue.popleft()
        for after in _after_one_move(pegs):
            if after not in distances:
                distances[after] = distances[pegs] + 1
                nearer[after] = []
                queue.append(after)
            if distances[after] > distances[pegs]:
                nearer[after].append(pegs)
    return nearer
