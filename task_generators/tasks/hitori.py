"""Hitori: shade cells so that no number repeats in a row or column. Every board has exactly one solution."""

from __future__ import annotations

import math
from itertools import product
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from task_generators.problem import Batch, Problem
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.symmetry import dihedral_copies
from task_generators.task import Task

SHADED_SHARE = {"easy": 0.25, "medium": 0.3, "hard": 0.4}
# With fewer cells a further one can always be shaded, so that there is no single solution (or, from 7x7 on, it is rare
# not to); more cells cannot be shaded, or in one way only (or, from 7x7 on, in few).
FEWEST_AND_MOST_SHADED = {3: (2, 3), 4: (4, 5), 5: (5, 8), 6: (8, 12), 7: (11, 16), 8: (16, 21), 9: (21, 26)}


class Hitori(Task):
    """The question holds numbers from 1 to the size, the answer 1 where a cell is shaded and 0 elsewhere.

    Among the cells that are not shaded no number is twice in a row or column, and they hang together side by side; no
    two shaded cells share a side. One answer alone keeps these rules, even if numbers that repeat nowhere are shaded.
    """

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS, names=("open", "1 or shaded", *"23456789"))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = "rotations, reflections and renaming of the numbers"
    # There are only 1,152 boards of 3x3 cells with three shaded: half of them make a test set of usual size possible.
    test_share: ClassVar[float] = 0.5

    size: int = Field(default=5, ge=3, le=9, description="numbers, and cells in a row", examples=[4, 6])
    difficulty: Literal["easy", "medium", "hard"] = Field(
        default="easy",
        description="share of the cells that are shaded: 25, 30 or 40 %, rounded down, or as near as can be",
        examples=["medium", "hard"],
    )
    shaded: int | None = Field(
        default=None, description="number of shaded cells; null: as the difficulty says", examples=[7]
    )

    @field_validator("shaded")
    @classmethod
    def _possible(cls, shaded: int | None, info: ValidationInfo) -> int | None:
        fewest, most = FEWEST_AND_MOST_SHADED[info.data.get("size", 5)]
        if shaded is not None and not fewest <= shaded <= most:
            raise ValueError(f"expected {fewest} to {most} for size {info.data.get('size', 5)}, or null")
        return shaded

    @model_validator(mode="after")
    def _one_measure(self) -> Hitori:
        if self.shaded is not None and self.difficulty != "easy":
            raise ValueError(f"shaded = {self.shaded}: leave it out, or leave out difficulty = {self.difficulty!r}")
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw a shading, and numbers for which it is the only solution."""
        from task_generators.hitori_generator import draw_boards

        questions = np.empty((len(seeds), self.size, self.size), dtype=np.int8)
        answers = np.empty_like(questions)
        cells = (questions.reshape(len(seeds), -1), answers.reshape(len(seeds), -1))
        draw_boards(seeds, self.size, self._num_shaded(), *cells)
        return Batch(questions, answers)

    def verify(self, problem: Problem) -> list[str]:
        """Check the numbers, and solve the board row by row."""
        from task_generators.hitori_solver import solutions

        question, answer, faults = problem.question, problem.answer, []
        shape = (self.size, self.size)
        if question.shape != shape or not 1 <= question.min() <= question.max() <= self.size:
            return [f"the question is no {self.size} x {self.size} grid of numbers from 1 to {self.size}"]
        if (answer == 1).sum() != self._num_shaded():
            faults.append(f"{(answer == 1).sum()} cells are shaded, not {self._num_shaded()}")
        found = solutions(question)
        if len(found) != 1:
            faults.append("the board has no solution" if not found else "the board has several solutions")
        elif not np.array_equal(found[0], answer):
            faults.append("the answer is not the solution")
        return faults

    def distances(self, batch: Batch, other: Problem) -> npt.NDArray[np.float64]:
        """The share of differing cells of the questions."""
        return np.not_equal(batch.questions, other.question).mean(axis=(1, 2))

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the questions up to ``symmetries``."""
        from task_generators.hitori_keys import renamed_keys

        return renamed_keys(questions.reshape(len(questions), self.size**2), dihedral_copies(self.size, self.size))

    def problem_space(self) -> str:
        """The number of boards, counted for 3x3 and bounded for larger ones."""
        if self.size == 3:
            from task_generators.hitori_solver import solutions

            # A number can be renamed, so that as many boards begin with each.
            boards = (np.array((1, *rest), dtype=np.int8).reshape(3, 3) for rest in product((1, 2, 3), repeat=8))
            found = (solutions(board) for board in boards)
            count = sum(3 for masks in found if len(masks) == 1 and masks[0].sum() == self._num_shaded())
            return f"{count:,} boards with one solution"
        most = math.ceil(self.size**2 * math.log10(self.size))
        return f"fewer than 10^{most} boards with one solution (a part of the {self.size}^{self.size**2} fillings)"

    def _num_shaded(self) -> int:
        fewest, most = FEWEST_AND_MOST_SHADED[self.size]
        return self.shaded or min(max(int(SHADED_SHARE[self.difficulty] * self.size**2), fewest), most)
