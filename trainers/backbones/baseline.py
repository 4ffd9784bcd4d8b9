"""Baselines without a model: what copying scores, what guessing by position scores, and proof that a right grid is 1.0.

Their grids take the way that models' answers take: drawn, put into a transition video, read back from its last frame,
then written as JSON and read back from that. So the oracle's row shows that renderer, parser and scorer agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from task_generators import grid_json
from task_generators.problem import Grid, Problem, frozen_grid
from task_generators.task import Task
from task_generators.transition_video import answer_image, problem_video
from trainers.backbone import BackboneSpec
from trainers.pictures import canvas_px, draw_on_canvas, picture_style, read_from_canvas
from trainers.recipe import TrainRecipe

COPY_QUESTION = BackboneSpec(
    name="baseline/copy_question",
    family="baseline",
    varies_with=frozenset(),
    trainable=False,
    note="answers with the question as it stands",
)
ORACLE = BackboneSpec(
    name="baseline/oracle",
    family="baseline",
    varies_with=frozenset(),
    trainable=False,
    note="is told the answer: proves that drawing, reading and scoring agree",
)
MAJORITY = BackboneSpec(
    name="baseline/majority",
    family="baseline",
    varies_with=frozenset({"seed", "n_train"}),
    trainable=False,
    note="answers every cell with what the training answers hold there most often",
)
FLAVORS = [COPY_QUESTION, ORACLE, MAJORITY]


class Baseline:
    """One of ``FLAVORS``; see ``trainers.backbone.UntrainedBackbone`` for what each method promises."""

    def __init__(self, spec: BackboneSpec) -> None:
        self.spec = spec
        self._most_frequent: dict[tuple[int, ...], Grid] = {}
        self._most_frequent_overall: int | None = None

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Grid]:
        """The answers: all that any baseline learns from."""
        return [problem.answer for problem in problems]

    def fit(self, examples: Sequence[Grid]) -> None:
        """Count codes, by position among the answers of one shape, and over all. The smallest code wins a tie."""
        shapes = {grid.shape for grid in examples}
        self._most_frequent = {
            shape: _most_frequent(np.stack([grid for grid in examples if grid.shape == shape])) for shape in shapes
        }
        self._most_frequent_overall = None
        if examples:  # the baselines that learn nothing are given none
            every_cell = np.concatenate([grid.ravel() for grid in examples])
            self._most_frequent_overall = int(_most_frequent(every_cell[:, None, None])[0, 0])

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """The baseline's grid for each problem, as it comes out at the end of drawing, reading, writing and reading."""
        return [_through_picture_and_text(task, problem, self._grid(problem), recipe) for problem in problems]

    def _grid(self, problem: Problem) -> Grid:
        if self.spec == COPY_QUESTION:
            return problem.question
        if self.spec == ORACLE:
            return problem.answer
        assert self._most_frequent_overall is not None, "majority answers after it was fitted"
        shape = problem.answer.shape
        fallback = np.full(shape, self._most_frequent_overall)
        return self._most_frequent[shape] if shape in self._most_frequent else frozen_grid(fallback)


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> Baseline:
    """A baseline has nothing to load, and no device."""
    return Baseline(spec)


def _most_frequent(grids: np.ndarray) -> Grid:
    """Codes (n, rows, columns) -> the most frequent code at each position (rows, columns)."""
    codes = np.unique(grids)
    counts = np.stack([(grids == code).sum(axis=0) for code in codes])
    return frozen_grid(codes[counts.argmax(axis=0)])


def _through_picture_and_text(task: Task, problem: Problem, grid: Grid, recipe: TrainRecipe) -> Grid | None:
    """Draw, film, read the last frame, write as JSON, read: the same grid again, or the path loses something."""
    answered = replace(problem, answer=grid)
    style = picture_style(task, recipe, answered)
    canvas = canvas_px(answered, style)
    video = problem_video(
        answered,
        lambda drawn: draw_on_canvas(drawn, task, style, canvas),
        num_frames=recipe.num_frames,
        interpolation=recipe.transition,
    )
    read = read_from_canvas(answer_image(video), task, style, grid.shape, recipe)
    return None if read is None else grid_json.loads(grid_json.dumps(read))
