"""Life-like cellular automata: compute a later generation of a two-dimensional pattern."""

from __future__ import annotations

import re
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from task_generators.problem import Grid, LazyStates, Problem, frozen_grid
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.symmetry import smallest_dihedral_copy, smallest_torus_copy
from task_generators.task import Task


class Life(Task):
    """The question is a random pattern, the answer the same pattern ``steps`` generations later."""

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS[:2], names=("dead", "alive"))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = "rotations and reflections; on a torus translations as well"

    rule: str = Field(
        default="B3/S23",
        description="neighbours (of 8) with which a cell is Born and with which it Survives, as in B3/S23",
        examples=["B2/S"],
    )
    height: int = Field(default=8, ge=3, le=60, description="rows", examples=[6])
    width: int = Field(default=8, ge=3, le=60, description="columns", examples=[6])
    density: float = Field(default=0.4, gt=0, lt=1, description="chance of each cell to start alive", examples=[0.7])
    steps: int = Field(default=1, ge=1, le=1000, description="generations from question to answer", examples=[2])
    edges: Literal["dead", "torus"] = Field(
        default="dead",
        description="dead: nothing lives beyond; torus: opposite edges meet",
        examples=["torus"],
    )

    @field_validator("rule")
    @classmethod
    def _one_spelling(cls, rule: str) -> str:
        match = re.fullmatch(r"B([0-8]*)/S([0-8]*)", rule.strip().upper())
        if match is None:
            raise ValueError("expected B, digits 0 to 8, /S, digits 0 to 8, as in B3/S23 or B2/S")
        return f"B{''.join(sorted(set(match[1])))}/S{''.join(sorted(set(match[2])))}"

    def generate(self, rng: np.random.Generator) -> Problem:
        """Draw a pattern and run the rule on it; patterns that die or stand still are kept as they come."""
        question = frozen_grid(rng.random((self.height, self.width)) < self.density)
        answer = question
        for _ in range(self.steps):
            answer = self.next_generation(answer)
        return Problem(question, answer, states=LazyStates(partial(_generations_between, self, question)))

    def next_generation(self, grid: Grid) -> Grid:
        """One step of the rule on a grid of zeros and ones, shape (height, width)."""
        padded = np.zeros((grid.shape[0] + 2, grid.shape[1] + 2), dtype=np.int8)
        padded[1:-1, 1:-1] = grid
        if self.edges == "torus":
            padded[0], padded[-1] = padded[-2], padded[1]
            padded[:, 0], padded[:, -1] = padded[:, -2], padded[:, 1]
        rows_of_three = padded[:-2] + padded[1:-1] + padded[2:]
        neighbours = rows_of_three[:, :-2] + rows_of_three[:, 1:-1] + rows_of_three[:, 2:] - grid
        return frozen_grid(self._next_state()[grid, neighbours])

    def canonical_key(self, problem: Problem) -> bytes:
        """The smallest symmetric copy of the question."""
        return (smallest_torus_copy if self.edges == "torus" else smallest_dihedral_copy)(problem.question)

    def _next_state(self) -> npt.NDArray[np.int8]:
        """Shape (2, 9): the next state of a cell, by its state and its number of living neighbours."""
        return np.array([[str(count) in part for count in range(9)] for part in self.rule.split("/")], dtype=np.int8)


def _generations_between(task: Life, question: Grid) -> tuple[Grid, ...]:
    generations = [question]
    for _ in range(task.steps - 1):
        generations.append(task.next_generation(generations[-1]))
    return tuple(generations[1:])
