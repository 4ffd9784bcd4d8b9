"""Langton's ant (1986): compute the board that an ant leaves behind after some moves."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from task_generators.problem import Batch, Grid, LazyStates, Problem, frozen_grid
from task_generators.render import Palette, RenderStyle
from task_generators.task import Task

WHITE, BLACK, ANT = range(3)
DIRECTIONS = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}
"""Clockwise: what (rows, columns) a move in each direction adds."""


class LangtonAnt(Task):
    """The question is a random board with the ant on a white cell, the answer the board after ``steps`` moves.

    A move: on a white cell the ant turns right, on a black cell left; the cell changes its colour; the ant steps
    forward. Opposite edges meet.

    The picture shows neither where the ant looks nor the colour under it. At the start both are the same in all
    problems, so the question has one answer; a random direction would be a coin that nobody can see, and is no knob.
    After the last move they are hidden, and not asked for; ``color_under_ant`` in the metadata keeps the colour.

    Reflections are no symmetries (right turns become left turns) unless the colours are exchanged as well, which would
    put the ant on a black cell; rotations are none, because they turn the ant.
    """

    palette: ClassVar[Palette] = Palette(
        colors=((255, 255, 255), (0, 0, 0), (255, 65, 54)), names=("white", "black", "ant")
    )
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=16)
    symmetries: ClassVar[str] = "none with the start in the center; translations of the torus with a random start"

    height: int = Field(default=8, ge=3, le=255, description="rows", examples=[6])
    width: int = Field(default=8, ge=3, le=255, description="columns", examples=[6])
    steps: int = Field(default=5, ge=1, le=1000, description="moves from question to answer", examples=[2, 10])
    start: Literal["center", "random"] = Field(
        default="center",
        description="where the ant starts; center: row height // 2, column width // 2, counted from 0",
        examples=["random"],
    )
    direction: Literal["north", "east", "south", "west"] = Field(
        default="north",
        description="where the ant looks before it turns for the first time (the picture does not show it)",
        examples=["east"],
    )
    density: float = Field(
        default=0.5, gt=0, lt=1, description="chance of each cell to start black, but for the ant's", examples=[0.2]
    )

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw boards and let the ants run."""
        from task_generators.ants import draw_ant_boards

        questions = np.empty((len(seeds), self.height, self.width), dtype=np.int8)
        place = self.height // 2 * self.width + self.width // 2 if self.start == "center" else -1
        draw_ant_boards(seeds, place, self.density, ANT, questions.reshape(len(seeds), -1))
        answers, hidden = self.after(questions, self.steps)
        colors = hidden.tolist()
        return Batch(
            questions,
            answers,
            metadata=lambda index: {"color_under_ant": colors[index]},
            states=lambda index: LazyStates(partial(_boards_between, self, questions[index])),
        )

    def after(self, questions: npt.NDArray[np.int8], steps: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """The boards of questions (n, height, width) ``steps`` moves later, and the colours (n,) under the ants."""
        from task_generators.ants import run_ants

        later = np.empty((len(questions), self.height * self.width), dtype=np.int8)
        hidden = np.empty(len(questions), dtype=np.int8)
        boards = np.require(questions.reshape(later.shape), requirements=["C", "W"])
        run_ants(boards, ANT, list(DIRECTIONS).index(self.direction), steps, self.width, later, hidden)
        return later.reshape(questions.shape), hidden

    def verify(self, problem: Problem) -> list[str]:
        """Let one ant run, cell by cell."""
        ants = [tuple(cell) for cell in np.argwhere(problem.question == ANT).tolist()]
        if problem.question.shape != (self.height, self.width) or len(ants) != 1:
            return ["the question is no board of the knobs' size with one ant"]
        faults = []
        if self.start == "center" and ants[0] != (self.height // 2, self.width // 2):
            faults.append("the ant does not start in the center")
        row, column = ants[0]
        black = {(row, column) for row, column in np.argwhere(problem.question == BLACK).tolist()}
        down, right = DIRECTIONS[self.direction]
        for _ in range(self.steps):
            if (row, column) in black:
                black.remove((row, column))
                down, right = -right, down
            else:
                black.add((row, column))
                down, right = right, -down
            row, column = (row + down) % self.height, (column + right) % self.width
        expected = np.full((self.height, self.width), WHITE, dtype=np.int8)
        for cell in black:
            expected[cell] = BLACK
        if problem.metadata["color_under_ant"] != expected[row, column]:
            faults.append("color_under_ant is wrong")
        expected[row, column] = ANT
        if not np.array_equal(expected, problem.answer):
            faults.append("the answer is not the board after the ant's moves")
        return faults

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the questions up to ``symmetries``: of the boards as the ant sees them, itself at the origin."""
        cells = questions.reshape(len(questions), -1)
        if self.start == "random":
            height, width = questions.shape[1:]
            rows, columns = np.divmod((cells == ANT).argmax(axis=1), width)
            rows = (rows[:, None] + np.arange(height)) % height
            columns = (columns[:, None] + np.arange(width)) % width
            cells = np.take_along_axis(
                cells, (rows[:, :, None] * width + columns[:, None]).reshape(cells.shape), axis=1
            )
        return super().canonical_keys(cells[:, None])

    def problem_space(self) -> str:
        """The number of boards, times the number of places to start from."""
        boards = f"2^{self.height * self.width - 1} boards"
        return boards if self.start == "center" else f"{boards} x {self.height * self.width} places of the ant"


def _boards_between(task: LangtonAnt, question: Grid) -> tuple[Grid, ...]:
    return tuple(frozen_grid(task.after(question[None], moves)[0][0]) for moves in range(1, task.steps))
