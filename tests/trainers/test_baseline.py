from __future__ import annotations

from typing import ClassVar, get_args

import numpy as np
import pytest

from task_generators import grid_json
from task_generators.problem import Problem, Split, frozen_grid
from task_generators.render import MAZE_PALETTE, Palette, RenderStyle
from task_generators.splits import draw_problems
from task_generators.task import Task, TaskSpec, task_names
from task_generators.transition_video import Interpolation
from trainers.backbone import backbone_spec, load_backbone
from trainers.backbones import baseline
from trainers.evaluate import evaluate, summarise
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

RECIPE = TrainRecipe()


class Mosaic(Task):
    palette: ClassVar[Palette] = MAZE_PALETTE
    style: ClassVar[RenderStyle] = RenderStyle(cell_px=6, border_px=1)

    def generate(self, rng):
        raise AssertionError("the problems of these tests are written by hand")


def problem(question, answer):
    return Problem(frozen_grid(question), frozen_grid(answer), problem_id="p")


def summary(name, task, train_problems, test_problems, recipe=RECIPE):
    backbone = load_backbone(backbone_spec(f"baseline/{name}"), recipe, "cpu")
    train(backbone, backbone.encode(task, train_problems, recipe), recipe, Placement(), seed=0)
    return summarise(evaluate(backbone, task, test_problems, recipe, Placement()), task)


@pytest.mark.parametrize("name", task_names())
def test_oracle_is_right_and_copying_has_its_true_value_on_every_task(name):
    spec = TaskSpec(name=name)
    task, problems = spec.build(Split.TEST), draw_problems(spec, Split.TEST, 0, 1 if name == "arc" else 8)
    oracle = summary("oracle", task, problems[:1], problems)
    assert oracle["exact_match"] == oracle["cell_accuracy"] == oracle["parsed"] == 1
    copied = summary("copy_question", task, problems[:1], problems)
    same_shape = [p for p in problems if p.question.shape == p.answer.shape]
    assert copied["exact_match"] == np.mean([np.array_equal(p.question, p.answer) for p in problems])
    assert copied["cell_accuracy"] == pytest.approx(
        sum(np.mean(p.question == p.answer) for p in same_shape) / len(problems)
    )


@pytest.mark.parametrize("name", task_names())
def test_the_oracle_needs_not_be_told_the_size_of_its_answer(name):
    spec = TaskSpec(name=name)
    task, problems = spec.build(Split.TEST), draw_problems(spec, Split.TEST, 0, 1 if name == "arc" else 8)
    oracle = summary("oracle", task, problems[:1], problems, TrainRecipe(output_size="inferred"))
    assert oracle["exact_match"] == oracle["parsed"] == 1


@pytest.mark.parametrize("transition", get_args(Interpolation))
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((4, 2), (2, 5)), ((2, 2), (5, 5))])
def test_pictures_of_different_sizes_take_the_same_way(transition, shapes):
    rng = np.random.default_rng(0)
    problems = [problem(*(rng.integers(0, 5, shape) for shape in shapes)) for _ in range(4)]
    recipe = RECIPE.model_copy(update={"transition": transition, "cell_px": 8, "border_px": 0, "num_frames": 5})
    assert summary("oracle", Mosaic(), problems, problems, recipe)["exact_match"] == 1
    copied = summary("copy_question", Mosaic(), problems, problems, recipe)
    assert copied["parsed"] == 1
    if shapes[0] != shapes[1]:
        assert copied["exact_match"] == copied["cell_accuracy"] == 0


@pytest.mark.parametrize("stage", ["read_from_canvas", "answer_image", "problem_video"])
def test_the_oracle_fails_when_the_picture_path_breaks(monkeypatch, stage):
    broken = {
        "read_from_canvas": lambda frame, task, style, shape, recipe: frozen_grid(np.zeros(shape)),
        "answer_image": lambda video: video[0],
        "problem_video": lambda problem, draw, **_: np.stack([draw(problem.question)] * 9),
    }
    monkeypatch.setattr(baseline, stage, broken[stage])
    problems = [problem([[1, 2]], [[2, 3]])]
    assert summary("oracle", Mosaic(), problems, problems)["exact_match"] == 0


def test_the_oracle_fails_when_the_text_path_breaks(monkeypatch):
    monkeypatch.setattr(grid_json, "loads", lambda text: None)
    problems = [problem([[1, 2]], [[2, 3]])]
    assert summary("oracle", Mosaic(), problems, problems)["parsed"] == 0


def majority(train_answers, test_problem):
    backbone = load_backbone(backbone_spec("baseline/majority"), RECIPE, "cpu")
    backbone.fit([frozen_grid(grid) for grid in train_answers])
    (grid,) = backbone.answer(Mosaic(), [test_problem], RECIPE, 0)
    return grid.tolist()


def test_majority_takes_each_position_by_itself():
    unknown = problem([[0, 0, 0]], [[0, 0, 0]])
    assert majority([[[1, 2, 3]], [[1, 3, 3]], [[4, 3, 0]]], unknown) == [[1, 3, 3]]
    assert majority([[[4, 2, 3]], [[1, 3, 2]]], unknown) == [[1, 2, 2]], "a tie goes to the smallest code"


def test_majority_learns_each_shape_apart_and_falls_back_to_the_commonest_code():
    answers = [[[1, 1, 2]], [[3], [3]], [[3], [3]]]
    assert majority(answers, problem([[0], [0]], [[0], [0]])) == [[3], [3]]
    assert majority(answers, problem([[0, 0, 0]], [[0, 0, 0]])) == [[1, 1, 2]]
    assert majority(answers, problem([[0]], [[0, 0]] * 2)) == [[3, 3], [3, 3]]


def test_majority_forgets_the_examples_of_an_earlier_trial():
    backbone = load_backbone(backbone_spec("baseline/majority"), RECIPE, "cpu")
    unknown = problem([[0, 0]], [[0, 0]])
    for code in (1, 2):
        backbone.fit([frozen_grid([[code, code]])] * 3)
        assert backbone.answer(Mosaic(), [unknown], RECIPE, 0)[0].tolist() == [[code, code]]


def test_baselines_name_what_they_vary_with():
    for spec in baseline.FLAVORS:
        assert not spec.trainable
        assert spec.varies_with == ({"seed", "n_train"} if spec.name == "baseline/majority" else set())
