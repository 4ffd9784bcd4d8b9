"""Mazes: mark the one way from start to end."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from task_generators.problem import Grid, LazyStates, Problem, frozen_grid
from task_generators.render import MAZE_PALETTE, Palette, RenderStyle
from task_generators.symmetry import smallest_dihedral_copy
from task_generators.task import Task

END, START, SOLUTION = 2, 3, 4


class Maze(Task):
    """A maze without loops, uniform over all spanning trees of its rooms (Wilson's algorithm).

    Rooms are the cells with odd row and column. The answer marks the cells strictly between start and end.
    """

    palette: ClassVar[Palette] = MAZE_PALETTE
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=16)
    symmetries: ClassVar[str] = "rotations and reflections, also with start and end exchanged"
    # There are only 192 mazes of 7x7 cells: half of them make a test set of usual size possible.
    test_share: ClassVar[float] = 0.5

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

    def generate(self, rng: np.random.Generator) -> Problem:
        """Draw a maze and solve it."""
        from task_generators.wilson import draw_maze

        maze = np.zeros((self.height, self.width), dtype=np.int8)
        path = np.empty(maze.size, dtype=np.int32)
        start, end = (room[0] * self.width + room[1] for room in (self.start, self._end()))
        state = rng.integers(0, 2**64, 1, dtype=np.uint64)
        length = draw_maze(maze.ravel(), self.width, start, end, state, path)
        question, between = frozen_grid(maze), path[:length].copy()
        return Problem(
            question,
            _with_path(question, between),
            states=LazyStates(partial(_growing_path, question, between)),
        )

    def canonical_key(self, problem: Problem) -> bytes:
        """The smallest symmetric copy of the question, start and end told apart no more."""
        question = problem.question.copy()
        question[question == END] = START
        return smallest_dihedral_copy(question)

    def _end(self) -> tuple[int, int]:
        return self.end or (self.height - 2, self.width - 2)


def _with_path(question: Grid, cells: npt.NDArray[np.int32]) -> Grid:
    marked = question.copy()
    marked.ravel()[cells] = SOLUTION
    return frozen_grid(marked)


def _growing_path(question: Grid, between: npt.NDArray[np.int32]) -> tuple[Grid, ...]:
    """The path from the start onwards, one cell longer each time."""
    return tuple(_with_path(question, between[:length]) for length in range(1, len(between)))
