"""Every task's pictures are read back, whatever happened to them."""

from functools import cache

import numpy as np
import pytest

from task_generators.parse import read_picture
from task_generators.problem import Split
from task_generators.render import render
from task_generators.splits import draw_problems
from task_generators.task import Task, TaskSpec, task_class, task_names
from tests.task_generators.picture_damage import DAMAGES

NUM_GRIDS = 12


@cache
def pictures(name: str) -> list[tuple[Task, np.ndarray]]:
    """Tasks with question and answer grids of theirs: of several tasks, where each has but a few."""
    specs = [TaskSpec(name=name)]
    if not task_class(name).can_generate():
        every = task_class(name).expand({"task": "*"})
        specs = [TaskSpec(name=name, params=params) for params in every[:: len(every) // (NUM_GRIDS // 2)]]
    n = NUM_GRIDS // 2 if len(specs) == 1 else 1
    problems = [(spec.build(), problem) for spec in specs for problem in draw_problems(spec, Split.TEST, 0, n)]
    return [(task, grid) for task, problem in problems for grid in (problem.question, problem.answer)]


@pytest.mark.parametrize("damage", ["none", *DAMAGES])
@pytest.mark.parametrize("name", task_names())
@pytest.mark.parametrize("told", [True, False], ids=["given", "inferred"])
def test_every_task_is_read_through_every_damage(name: str, damage: str, told: bool) -> None:
    for task, grid in pictures(name):
        picture = render(grid, task.palette, task.style)
        spoiled = picture if damage == "none" else DAMAGES[damage](picture)
        reading = read_picture(spoiled, task.palette, task.style, grid.shape if told else None)
        assert np.array_equal(reading.grid, grid)
        assert reading.confidence.shape == grid.shape
        assert ((reading.confidence >= 0) & (reading.confidence <= 1)).all()
