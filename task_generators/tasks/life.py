"""Life-like cellular automata: compute a later generation of a two-dimensional pattern."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from task_generators.problem import Batch, Grid, LazyStates, frozen_grid
from task_generators.render import ARC_COLORS, Palette, RenderStyle
from task_generators.symmetry import dihedral_copies, smallest_torus_copy
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

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw patterns and run the rule on them; patterns that die or stand still are kept as they come."""
        from task_generators.cellular_automata import draw_boards

        questions = np.empty((len(seeds), self.height, self.width), dtype=np.int8)
        draw_boards(seeds, self.density, questions.reshape(len(seeds), -1))
        answers = self.after(questions, self.steps)
        if self.steps == 1:
            return Batch(questions, answers)
        return Batch(
            questions, answers, states=lambda place: LazyStates(partial(_generations_between, self, questions[place]))
        )

    def after(self, boards: npt.NDArray[np.int8], steps: int) -> npt.NDArray[np.int8]:
        """Boards (n, height, width) of zeros and ones, ``steps`` generations later."""
        from task_generators.cellular_automata import run_life

        born, survives = (sum(1 << int(count) for count in part[1:]) for part in self.rule.split("/"))
        later = np.empty_like(boards)
        run_life(np.require(boards, requirements=["C", "W"]), born, survives, steps, self.edges == "torus", later)
        return later

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """Keys of the questions up to ``symmetries``."""
        if self.edges == "torus":
            copies = [smallest_torus_copy(question) for question in questions]
            digests = [hashlib.blake2b(copy, digest_size=8).digest() for copy in copies]
            return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
        from task_generators.copy_hash import copy_hashes

        return copy_hashes(questions, dihedral_copies(self.height, self.width), len(self.palette.colors))

    def problem_space(self) -> str:
        """The number of patterns."""
        return f"2^{self.height * self.width} patterns"


def _generations_between(task: Life, question: Grid) -> tuple[Grid, ...]:
    generations = question[None]
    between = []
    for _ in range(task.steps - 1):
        generations = task.after(generations, 1)
        between.append(frozen_grid(generations[0]))
    return tuple(between)
