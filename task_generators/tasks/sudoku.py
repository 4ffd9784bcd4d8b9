"""Sudoku of 9x9 or 4x4 cells: fill in the digits. Every puzzle has exactly one solution."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from task_generators.problem import Problem, frozen_grid
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

    def generate(self, rng: np.random.Generator) -> Problem:
        """Draw a full grid, and take digits away in random order as long as the solution stays the only one."""
        from task_generators.sudoku_generator import draw_puzzle

        num_givens = self.givens or round(GIVEN_SHARE[self.difficulty] * self.size**2)
        solution = np.empty((self.size, self.size), dtype=np.int8)
        puzzle = np.empty_like(solution)
        state = rng.integers(0, 2**64, 1, dtype=np.uint64)
        draw_puzzle(round(self.size**0.5), num_givens, state, solution.ravel(), puzzle.ravel())
        return Problem(frozen_grid(puzzle), frozen_grid(solution))

    def canonical_key(self, problem: Problem) -> bytes:
        """A fingerprint that no symmetry changes. Puzzles that are no copies may share it, which costs nothing.

        Colour refinement (Weisfeiler and Leman 1968) of the givens, where two of them are neighbours when they share
        a line, a box or a digit. There are 3,359,232 * 9! copies, too many to look for the smallest.
        """
        question = problem.question
        is_given = question > 0
        box_side = round(self.size**0.5)
        color = is_given.astype(np.uint64)
        for _ in range(3):
            by_row, by_column = color.sum(axis=1), color.sum(axis=0)
            by_box = color.reshape(box_side, box_side, box_side, box_side).sum(axis=(1, 3))
            by_digit = np.zeros(self.size + 1, dtype=np.uint64)
            np.add.at(by_digit, question, color)
            by_line = _scramble(by_row, 1)[:, None] + _scramble(by_column, 1)
            by_box = _scramble(by_box, 2).repeat(box_side, axis=0).repeat(box_side, axis=1)
            color = _scramble(color + by_line + by_box + _scramble(by_digit, 3)[question], 4) * is_given
        return bytes(question.shape) + np.sort(color[is_given]).astype("<u8").tobytes()


def _scramble(values: npt.NDArray[np.uint64], kind: int) -> npt.NDArray[np.uint64]:
    """Hash each value (finaliser of MurmurHash3), differently for each kind, so that sums of hashes tell sets apart."""
    values = (values + np.uint64(kind * 0x9E3779B97F4A7C15 % 2**64)) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
