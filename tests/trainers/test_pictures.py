import numpy as np
import pytest

from task_generators.problem import Problem, frozen_grid
from task_generators.render import render
from task_generators.task import TaskSpec
from task_generators.tasks.life import Life
from task_generators.tasks.maze import Maze
from trainers.pictures import canvas_px, draw_on_canvas, picture_style, read_from_canvas
from trainers.recipe import TrainRecipe


def blank(rows: int, columns: int) -> Problem:
    grid = frozen_grid(np.zeros((rows, columns)))
    return Problem(grid, grid)


def test_the_published_style_is_the_default() -> None:
    style = picture_style(Life(), TrainRecipe(), blank(8, 8))
    assert (style.cell_px, style.border_px, style.size_px((8, 8))) == (30, 2, (272, 272))
    assert canvas_px(blank(8, 8), style, 16) == (272, 272)


def test_the_recipe_changes_cells_and_borders() -> None:
    style = picture_style(Life(), TrainRecipe(cell_px=5, border_px=1), blank(8, 8))
    assert style.size_px((8, 6)) == (49, 37)


@pytest.mark.parametrize(("side", "cell_px"), [(13, 25), (21, 16)])
def test_mazes_of_two_sizes_have_pictures_of_one(side: int, cell_px: int) -> None:
    """As the reference draws Maze Generalization: 336 px wide, whatever the maze."""
    (problem,) = Maze(height=side, width=side).draw(1)
    recipe = TrainRecipe(picture_px=336)
    style = picture_style(Maze(), recipe, problem)
    assert style.cell_px == cell_px
    assert canvas_px(problem, style) == (336, 336)
    image = draw_on_canvas(problem.answer, Maze(), style, (336, 336))
    for output_size in ("given", "inferred"):
        read = read_from_canvas(
            image, Maze(), style, problem.answer.shape, recipe.model_copy(update={"output_size": output_size})
        )
        assert np.array_equal(read, problem.answer)


def test_only_the_given_size_uses_the_shape() -> None:
    (problem,) = Life(height=5, width=7).draw(1)
    style = picture_style(Life(), TrainRecipe(), problem)
    image = draw_on_canvas(problem.answer, Life(), style, canvas_px(problem, style, 16))
    for shape in ((5, 7), (1, 1), (99, 99)):
        read = read_from_canvas(image, Life(), style, shape, TrainRecipe(output_size="inferred"))
        assert np.array_equal(read, problem.answer)
    assert read_from_canvas(image, Life(), style, (99, 99), TrainRecipe()) is None


def test_impossible_pictures_are_errors() -> None:
    with pytest.raises(ValueError, match=r"recipe\.picture_px = 10: too small for 8 cells in a line"):
        picture_style(Life(), TrainRecipe(picture_px=10), blank(8, 8))
    with pytest.raises(ValueError, match="picture_px = 336: leave it out, or leave out cell_px = 8"):
        TrainRecipe(picture_px=336, cell_px=8)


def test_the_canvas_around_a_picture_has_the_borders_colour() -> None:
    problem = Problem(frozen_grid([[1]]), frozen_grid([[1, 0], [0, 1]]))
    task, style = TaskSpec(name="life").build(), picture_style(Life(), TrainRecipe(cell_px=4, border_px=1), problem)
    image = draw_on_canvas(problem.question, task, style, canvas_px(problem, style))
    assert image.shape == (11, 11, 3)
    assert np.array_equal(image[:6, :6], render(problem.question, task.palette, style))
    assert (image[6:] == style.border_color).all()
    assert (image[:, 6:] == style.border_color).all()
