"""A task without rules or patterns, for tests of video backbones: whatever they draw can be any picture."""

from typing import ClassVar

import numpy as np

from task_generators.problem import Problem, frozen_grid
from task_generators.render import ARC_COLORS, ARC_NAMES, Palette, RenderStyle
from task_generators.task import Task


class Colours(Task):
    """Random colours; the answer is the next colour of every cell."""

    palette: ClassVar[Palette] = Palette(ARC_COLORS, ARC_NAMES)
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=30, border_px=2)
    height: int
    width: int

    def generate(self, rng: np.random.Generator) -> Problem:
        question = rng.integers(0, 10, (self.height, self.width))
        return Problem(frozen_grid(question), frozen_grid((question + 1) % 10))

    def problems(self, n: int) -> list[Problem]:
        drawn = self.draw(n, "colours")
        return [Problem(p.question, p.answer, problem_id=f"colours/{index}") for index, p in enumerate(drawn)]
