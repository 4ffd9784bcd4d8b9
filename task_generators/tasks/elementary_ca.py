"""Elementary cellular automata (Wolfram 1983): given the first row, compute the next ones. Time runs down the rows."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from task_generators.problem import Batch, Grid, LazyStates, Problem, frozen_grid
from task_generators.render import Palette, RenderStyle
from task_generators.symmetry import mirror_copies, ring_copies
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

    generator_version: ClassVar[int] = 2

    rule: int = Field(default=110, ge=0, le=255, description="Wolfram's number of the rule, 0 to 255", examples=[90])
    width: int = Field(default=16, ge=3, le=255, description="cells in a row", examples=[12])
    steps: int = Field(default=7, ge=1, le=254, description="rows to compute below the first one", examples=[4])
    boundary: Literal["periodic", "fixed"] = Field(
        default="periodic",
        description="periodic: a ring; fixed: cells beyond the ends are off",
        examples=["fixed"],
    )

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw first rows and run the rule on them."""
        from task_generators.cellular_automata import run_elementary

        answers = np.empty((len(seeds), self.steps + 1, self.width), dtype=np.int8)
        run_elementary(seeds, self.rule, self.boundary == "periodic", OFF, ON, answers)
        questions = np.full_like(answers, NOT_YET_COMPUTED)
        questions[:, 0] = answers[:, 0]
        return Batch(questions, answers, states=lambda place: LazyStates(partial(_rows_so_far, answers[place])))

    def verify(self, problem: Problem) -> list[str]:
        """Compute every row again, cell by cell."""
        first, *later = (problem.answer - OFF).tolist()
        empty_rows = [[NOT_YET_COMPUTED] * self.width] * self.steps
        is_first_row = problem.question.tolist() == [problem.answer[0].tolist(), *empty_rows]
        faults = [] if is_first_row else ["the question is not the answer's first row"]
        for number, row in enumerate(later, start=1):
            beyond = (first[-1], first[0]) if self.boundary == "periodic" else (0, 0)
            padded = [beyond[0], *first, beyond[1]]
            # Wolfram's numbering: the new cell is the rule's binary digit number 4 left + 2 self + right.
            first = [
                self.rule // 2 ** (4 * left + 2 * here + right) % 2
                for left, here, right in zip(padded, padded[1:], padded[2:], strict=False)
            ]
            if row != first:
                return [*faults, f"row {number} does not follow from the one above"]
        return faults

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the first rows. Reflection counts for every rule: that can only separate more."""
        from task_generators.copy_hash import copy_hashes

        copies = ring_copies(self.width) if self.boundary == "periodic" else mirror_copies(1, self.width)
        return copy_hashes(questions[:, 0], copies, len(self.palette.colors))

    def problem_space(self) -> str:
        """The number of first rows."""
        return f"2^{self.width} = {2**self.width:,} first rows" if self.width <= 64 else f"2^{self.width} first rows"


def _first_rows(answer: Grid, num_rows: int) -> Grid:
    grid = np.full_like(answer, NOT_YET_COMPUTED)
    grid[:num_rows] = answer[:num_rows]
    return frozen_grid(grid)


def _rows_so_far(answer: Grid) -> tuple[Grid, ...]:
    return tuple(_first_rows(answer, num_rows) for num_rows in range(2, len(answer)))
