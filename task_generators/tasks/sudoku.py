"""Sudoku of 9x9 or 4x4 cells: fill in the digits. Every puzzle has exactly one solution."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from task_generators.problem import Batch, Problem
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.task import Task

GIVEN_SHARE = {"easy": 0.5, "medium": 0.4, "hard": 0.3}
# Below 22 givens a 9x9 puzzle takes seconds to find; below 4 no 4x4 puzzle has a single solution.
FEWEST_GIVENS = {4: 4, 9: 22}


class Sudoku(Task):
    """The question holds the given digits and 0 where a cell is empty, the answer the full grid."""

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS, names=("empty", *"123456789"))
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
    symmetries: ClassVar[str] = (
        "renaming of the digits, rotations and reflections, permutations of the bands and stacks and of the rows and "
        "columns in each"
    )

    generator_version: ClassVar[int] = 2

    size: Literal[4, 9] = Field(default=9, description="digits, and cells in a row", examples=[4])
    difficulty: Literal["easy", "medium", "hard"] = Field(
        default="easy", description="share of the cells that are given: 50, 40 or 30 %", examples=["hard"]
    )
    givens: int | None = Field(
        default=None, description="number of given cells; null: as the difficulty says", examples=[30]
    )

    @field_validator("givens")
    @classmethod
    def _possible(cls, givens: int | None, info: ValidationInfo) -> int | None:
        size = info.data.get("size", 9)
        if givens is not None and not FEWEST_GIVENS[size] <= givens < size * size:
            raise ValueError(f"expected {FEWEST_GIVENS[size]} to {size * size - 1} for size {size}, or null")
        return givens

    @model_validator(mode="after")
    def _one_measure(self) -> Sudoku:
        if self.givens is not None and self.difficulty != "easy":
            raise ValueError(f"givens = {self.givens}: leave it out, or leave out difficulty = {self.difficulty!r}")
        return self

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw full grids and choose the givens so that no other solution is left.

        4x4: all 288 grids are equally likely, and so are all choices of givens in a grid. 9x9: full grids are equally
        likely but for a few percent of them (see ``sudoku_generator.MOST_WAYS``); a cell is emptied where that leaves
        one solution, in random order, and a grid that cannot be emptied far enough is drawn anew.
        """
        questions = np.empty((len(seeds), self.size, self.size), dtype=np.int8)
        answers = np.empty_like(questions)
        cells = (questions.reshape(len(seeds), -1), answers.reshape(len(seeds), -1))
        if self.size == 4:
            from task_generators.sudoku_mini import draw_mini_puzzles

            draw_mini_puzzles(seeds, self._num_givens(), *cells)
        else:
            from task_generators.sudoku_generator import draw_puzzles

            draw_puzzles(seeds, self._num_givens(), *cells)
        return Batch(questions, answers)

    def verify(self, problem: Problem) -> list[str]:
        """Check the givens, and solve the puzzle as an exact cover."""
        from task_generators.sudoku_solver import solutions

        question, answer, faults = problem.question, problem.answer, []
        shape = (self.size, self.size)
        if question.shape != shape or not 0 <= question.min() <= question.max() <= self.size:
            return [f"the question is no {self.size} x {self.size} grid of digits from 0 to {self.size}"]
        if (question > 0).sum() != self._num_givens():
            faults.append(f"{(question > 0).sum()} cells are given, not {self._num_givens()}")
        found = solutions(question)
        if len(found) != 1:
            faults.append("the puzzle has no solution" if not found else "the puzzle has several solutions")
        elif not np.array_equal(found[0], answer):
            faults.append("the answer is not the solution")
        return faults

    def distances(self, batch: Batch, other: Problem) -> npt.NDArray[np.float64]:
        """The share of differing cells of the questions."""
        return np.not_equal(batch.questions, other.question).mean(axis=(1, 2))

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Fingerprints that no symmetry changes: a 9x9 puzzle has 3,359,232 * 9! copies, too many to compare."""
        from task_generators.sudoku_keys import refined_keys

        return refined_keys(questions.reshape(len(questions), self.size**2), round(self.size**0.5))

    def problem_space(self) -> str:
        """The number of puzzles, counted for 4x4 and bounded for 9x9."""
        if self.size == 4:
            from task_generators.sudoku_mini import num_mini_puzzles

            return f"{num_mini_puzzles(self._num_givens()):,} puzzles with one solution (288 full grids)"
        # Felgenhauer and Jarvis, "Mathematics of Sudoku I" (2006).
        num_grids = 6_670_903_752_021_072_936_960
        most = math.log10(num_grids * math.comb(81, self._num_givens()))
        return f"6.67 x 10^21 full grids; fewer than 10^{math.ceil(most)} puzzles with one solution"

    def _num_givens(self) -> int:
        return self.givens or round(GIVEN_SHARE[self.difficulty] * self.size**2)
