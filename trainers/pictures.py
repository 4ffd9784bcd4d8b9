"""How a trial's pictures look, and how its answers are read from them: what the families that see pictures share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from task_generators.parse import parse
from task_generators.problem import Grid, Problem
from task_generators.render import Image, RenderStyle, render
from task_generators.task import Task
from trainers.recipe import TrainRecipe


def picture_style(task: Task, recipe: TrainRecipe, problem: Problem) -> RenderStyle:
    """The look of a problem's question and answer: the task's published style, changed where the recipe says so.

    ValueError when ``recipe.picture_px`` leaves less than a pixel a cell.
    """
    border_px = task.style.border_px if recipe.border_px is None else recipe.border_px
    if recipe.picture_px is None:
        if recipe.cell_px is None and recipe.border_px is None:
            return task.style
        cell_px = task.style.cell_px if recipe.cell_px is None else recipe.cell_px
        return replace(task.style, cell_px=cell_px, border_px=border_px, multiple_px=1)
    most_cells = max(*problem.question.shape, *problem.answer.shape)
    cell_px = (recipe.picture_px - border_px) // most_cells - border_px
    if cell_px < 1:
        raise ValueError(f"recipe.picture_px = {recipe.picture_px}: too small for {most_cells} cells in a line")
    return replace(task.style, cell_px=cell_px, border_px=border_px, multiple_px=recipe.picture_px)


def canvas_px(problem: Problem, style: RenderStyle, multiple_px: int = 1) -> tuple[int, int]:
    """Height and width that hold question and answer, rounded up to a multiple of ``multiple_px``."""
    sizes = [style.size_px(problem.question.shape), style.size_px(problem.answer.shape)]
    height, width = (-(-max(sides) // multiple_px) * multiple_px for sides in zip(*sizes, strict=True))
    return height, width


def draw_on_canvas(grid: Grid, task: Task, style: RenderStyle, canvas: tuple[int, int]) -> Image:
    """The grid's picture in the top left corner of a canvas (height and width in px) of the border's colour."""
    picture = render(grid, task.palette, style)
    image: Image = np.empty((*canvas, 3), dtype=np.uint8)
    image[:] = style.border_color
    image[: picture.shape[0], : picture.shape[1]] = picture
    return image


def read_from_canvas(
    frame: Image, task: Task, style: RenderStyle, shape: tuple[int, ...], recipe: TrainRecipe
) -> Grid | None:
    """Read the grid that was drawn on a canvas, or None where there is none.

    ``shape`` (rows, columns) of the stored answer is used with ``recipe.output_size`` = "given" alone; "inferred"
    finds size and place in the picture.
    """
    if recipe.output_size == "inferred":
        return parse(frame, task.palette, style)
    height, width = style.size_px(shape)
    return parse(frame[:height, :width], task.palette, style, (shape[0], shape[1]))
