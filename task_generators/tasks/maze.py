"""Mazes: mark the one way from start to end."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from task_generators.marked_path import (
    END,
    OPEN,
    SOLUTION,
    START,
    WALL,
    growing_path,
    neighbours,
    path_distances,
    steps_from,
)
from task_generators.problem import Batch, LazyStates, Problem
from task_generators.render import MAZE_PALETTE, Palette, RenderStyle
from task_generators.symmetry import dihedral_copies
from task_generators.task import Task


class Maze(Task):
    """A maze without loops, uniform over all spanning trees of its rooms (Wilson's algorithm).

    Rooms are the cells with odd row and column. The answer marks the cells strictly between start and end.
    """

    palette: ClassVar[Palette] = MAZE_PALETTE
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=16)
    symmetries: ClassVar[str] = "rotations and reflections, also with start and end exchanged"
    # There are only 192 mazes of 7x7 cells: half of them make a test set of usual size possible.
    test_share: ClassVar[float] = 0.5

    generator_version: ClassVar[int] = 2

    height: int = Field(default=21, ge=5, le=255, description="rows, an odd number", examples=[9])
    width: int = Field(default=21, ge=5, le=255, description="columns, an odd number", examples=[9])
    start: tuple[int, int] = Field(
        default=(1, 1), description="row and column of the start, odd numbers", examples=[(3, 1)]
    )
    end: tuple[int, int] | None = Field(
        default=None,
        description="row and column of the end, odd numbers; null: the bottom right",
        examples=[(1, 3)],
    )

    @field_validator("height", "width")
    @classmethod
    def _odd(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError(f"expected an odd number, such as {side - 1} or {side + 1}")
        return side

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, knobs: Any) -> Any:
        # The bottom right is null however it was written, so that it stays there when a test set has another size.
        if isinstance(knobs, dict) and isinstance(knobs.get("end"), list | tuple):
            sides = [knobs.get(side, cls.model_fields[side].default) for side in ("height", "width")]
            if all(isinstance(side, int) for side in sides) and list(knobs["end"]) == [side - 2 for side in sides]:
                return {**knobs, "end": None}
        return knobs

    @model_validator(mode="after")
    def _rooms(self) -> Maze:
        for knob, room in (("start", self.start), ("end", self._end())):
            for at, side in zip(room, (self.height, self.width), strict=True):
                if at % 2 == 0 or not 1 <= at <= side - 2:
                    raise ValueError(
                        f"{knob} = {list(room)}: expected an odd row from 1 to {self.height - 2} "
                        f"and an odd column from 1 to {self.width - 2}"
                    )
        if self.start == self._end():
            raise ValueError(f"start = {list(self.start)}: expected another room than the end")
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw mazes and solve them."""
        from task_generators.wilson import draw_mazes

        questions = np.zeros((len(seeds), self.height, self.width), dtype=np.int8)
        answers = np.empty_like(questions)
        start, end = (room[0] * self.width + room[1] for room in (self.start, self._end()))
        draw_mazes(seeds, self.width, start, end, *(grids.reshape(len(seeds), -1) for grids in (questions, answers)))
        return Batch(
            questions,
            answers,
            states=lambda place: LazyStates(partial(growing_path, questions[place], answers[place])),
        )

    def verify(self, problem: Problem) -> list[str]:
        """Check that the maze is a tree of all its rooms, and search it for the way."""
        question, faults = problem.question, []
        if (question[1::2, 1::2] == WALL).any() or (question[::2, ::2] != WALL).any():
            faults.append("a room is walled up, or a corner between rooms is open")
        marks = {tuple(cell): int(question[tuple(cell)]) for cell in np.argwhere(question > OPEN).tolist()}
        if marks != {self.start: START, self._end(): END}:
            faults.append("the question does not mark start and end alone, where the knobs say")
        num_rooms = (self.height // 2) * (self.width // 2)
        steps = steps_from(question, self.start)
        # Connected, and one passage fewer than rooms: a tree, in which there is but one way.
        if len(steps) != (question != WALL).sum() or len(steps) != 2 * num_rooms - 1:
            faults.append("the maze is no tree of all rooms")
        expected = question.copy()
        cell = self._end()
        while steps.get(cell, 0) > 1:
            cell = next(near for near in neighbours(cell) if steps.get(near) == steps[cell] - 1)
            expected[cell] = SOLUTION
        if not np.array_equal(expected, problem.answer):
            faults.append("the answer is not the way from start to end")
        return faults

    def distances(self, batch: Batch, other: Problem) -> npt.NDArray[np.float64]:
        """1 - Jaccard index of the marked paths."""
        return path_distances(batch.answers, other.answer)

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the questions up to ``symmetries``: start and end are told apart no more."""
        from task_generators.copy_hash import copy_hashes

        same_ends = np.where(questions == END, np.int8(START), questions)
        return copy_hashes(same_ends, dihedral_copies(self.height, self.width), len(self.palette.colors))

    def problem_space(self) -> str:
        """The number of mazes."""
        rows, columns = self.height // 2, self.width // 2
        return f"{_num_spanning_trees(rows, columns)} mazes (spanning trees of {rows} x {columns} rooms)"

    def _end(self) -> tuple[int, int]:
        return self.end or (self.height - 2, self.width - 2)


def _num_spanning_trees(rows: int, columns: int) -> str:
    """Spanning trees of a grid graph, by Kirchhoff's theorem from the eigenvalues of its Laplacian."""
    row_values, column_values = (4 * np.sin(np.pi * np.arange(side) / (2 * side)) ** 2 for side in (rows, columns))
    values = (row_values[:, None] + column_values).ravel()[1:]
    digits = np.log10(values).sum() - np.log10(rows * columns)
    return f"{round(10**digits):,}" if digits < 12 else f"about 10^{digits:.0f}"
