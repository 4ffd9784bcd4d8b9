"""Elementary cellular automata (Wolfram 1983): given the first row, compute the next ones. Time runs down the rows."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from task_generators.problem import Grid, LazyStates, Problem, frozen_grid
from task_generators.render import Palette, RenderStyle
from task_generators.symmetry import smallest_ring_copy
from task_generators.task import Task

NOT_YET_COMPUTED, OFF, ON = 0, 1, 2


class ElementaryCellularAutomaton(Task):
    """The question holds the first row, drawn uniformly; the answer holds it and ``steps`` further rows."""

    # A colour, not a grey, for the cells to come: white seen through a dim decoder must not be taken for it.
    palette: ClassVar[Palette] = Palette(
        colors=((46, 134, 171), (255, 255, 255), (0, 0, 0)), names=("not yet computed", "off", "on")
    )
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=16)
    symmetries: ClassVar[str] = "rotations of the ring (periodic boundary) and reflection of the first row"

    rule: int = Field(default=110, ge=0, le=255, description="Wolfram's number of the rule, 0 to 255", examples=[90])
    width: int = Field(default=16, ge=3, le=255, description="cells in a row", examples=[12])
    steps: int = Field(default=7, ge=1, le=254, description="rows to compute below the first one", examples=[4])
    boundary: Literal["periodic", "fixed"] = Field(
        default="periodic",
        description="periodic: a ring; fixed: cells beyond the ends are off",
        examples=["fixed"],
    )

    def generate(self, rng: np.random.Generator) -> Problem:
        """Draw a first row and run the rule on it."""
        rows = np.empty((self.steps + 1, self.width), dtype=np.int8)
        rows[0] = rng.integers(0, 2, self.width, dtype=np.int8)
        next_cell = np.array([self.rule >> neighbourhood & 1 for neighbourhood in range(8)], dtype=np.int8)
        padded = np.zeros(self.width + 2, dtype=np.int8)
        for step in range(self.steps):
            padded[1:-1] = rows[step]
            if self.boundary == "periodic":
                padded[0], padded[-1] = padded[-2], padded[1]
            rows[step + 1] = next_cell[4 * padded[:-2] + 2 * padded[1:-1] + padded[2:]]
        answer = frozen_grid(rows + OFF)
        return Problem(_first_rows(answer, 1), answer, states=LazyStates(partial(_rows_so_far, answer)))

    def canonical_key(self, problem: Problem) -> bytes:
        """The smallest copy of the first row. Reflection counts for every rule: that can only separate more."""
        first_row: npt.NDArray[np.int8] = problem.question[0] - OFF
        if self.boundary == "periodic":
            return smallest_ring_copy(first_row)
        return min(first_row.tobytes(), first_row[::-1].tobytes())


def _first_rows(answer: Grid, num_rows: int) -> Grid:
    grid = np.full_like(answer, NOT_YET_COMPUTED)
    grid[:num_rows] = answer[:num_rows]
    return frozen_grid(grid)


def _rows_so_far(answer: Grid) -> tuple[Grid, ...]:
    return tuple(_first_rows(answer, num_rows) for num_rows in range(2, len(answer)))
