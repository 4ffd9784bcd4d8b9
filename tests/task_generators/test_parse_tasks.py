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

NUM_CENTRED_GRIDS = 60


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


@cache
def centred_pictures() -> list[tuple[Task, np.ndarray]]:
    """Answers of ARC tasks, of many shapes, in the middle of pictures of one size, with cells of 16 px and more."""
    specs = [TaskSpec(name="arc", params=params) for params in task_class("arc").expand({"task": "*"})]
    tasks = [(spec, spec.build()) for spec in specs]
    large = [(spec, task) for spec, task in tasks if task.style.cell_px >= 16]
    chosen = large[:: len(large) // NUM_CENTRED_GRIDS][:NUM_CENTRED_GRIDS]
    return [(task, draw_problems(spec, Split.TEST, 0, 1)[0].answer) for spec, task in chosen]


@pytest.mark.parametrize("damage", ["none", *DAMAGES])
def test_small_drawings_are_found_in_the_middle_of_large_pictures(damage: str) -> None:
    pairs = centred_pictures()
    assert len(pairs) == NUM_CENTRED_GRIDS
    assert len({grid.shape for _, grid in pairs}) > NUM_CENTRED_GRIDS // 2
    for task, grid in pairs:
        picture = render(grid, task.palette, task.style)
        spoiled = picture if damage == "none" else DAMAGES[damage](picture)
        assert np.array_equal(read_picture(spoiled, task.palette, task.style).grid, grid), task
