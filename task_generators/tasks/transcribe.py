"""Write down the grid you see: the question of another task is question and answer at once.

Tells what a model can read from what it can solve (arXiv 2510.24448, table 11, transcribes Sudoku)::

    tasks:
      - transcribe                                              # 9x9 Sudoku, as published
      - transcribe: {of: maze, params: {height: 9, width: 9}}
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, field_validator, model_validator

from task_generators.problem import Batch, Problem, Split
from task_generators.render import Palette, RenderStyle
from task_generators.task import Task, TaskSpec, task_class, task_names

OWN_NAME = "transcribe"


class Transcribe(Task):
    """Question and answer are the question of another task. It has that task's look, symmetries and cut into splits,
    so no grid that is tested here, nor a symmetric copy, is trained on here or there."""

    of: str = Field(
        default="sudoku",
        description="the task whose questions are transcribed; one that generates them",
        examples=["life"],
    )
    params: dict[str, Any] = Field(
        default={}, description="that task's knobs, where they differ from its defaults", examples=[{"size": 4}]
    )

    @field_validator("of")
    @classmethod
    def _generates(cls, of: str) -> str:
        if of == OWN_NAME or of not in task_names() or not task_class(of).can_generate():
            others = [name for name in task_names() if name != OWN_NAME and task_class(name).can_generate()]
            raise ValueError(f"expected another task that generates its problems: {', '.join(others)}")
        return of

    @model_validator(mode="after")
    def _normalise(self) -> Transcribe:
        """Leave out knobs at that task's defaults, so that one task has one name."""
        try:
            spec = TaskSpec(name=self.of, params=self.params)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        object.__setattr__(self, "params", spec.params)
        return self

    @cached_property
    def task(self) -> Task:
        """The task whose questions are transcribed."""
        return TaskSpec(name=self.of, params=self.params).build()

    # Other tasks have these on the class; here they follow from the knobs, and only instances are asked for them.
    @property
    def palette(self) -> Palette:  # type: ignore[override]
        """The other task's colours."""
        return self.task.palette

    @property
    def style(self) -> RenderStyle:  # type: ignore[override]
        """The other task's look."""
        return self.task.style

    @property
    def symmetries(self) -> str:  # type: ignore[override]
        """The other task's: a test grid has no symmetric copy among the training grids."""
        return self.task.symmetries

    @property
    def test_share(self) -> float:  # type: ignore[override]
        """The other task's: both cut their questions in the same place."""
        return self.task.test_share

    @property
    def generator_version(self) -> int:  # type: ignore[override]
        """The other task's: its questions are all that there is to generate."""
        return self.task.generator_version

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """The questions that the other task draws from these seeds."""
        questions = self.task.generate_many(seeds).questions
        return Batch(questions, questions)

    def given_problems(self, split: Split) -> Sequence[Problem]:
        """The questions of the other task's given problems, on the sides where it keeps them."""
        return [Problem(problem.question, problem.question) for problem in self.task.given_problems(split)]

    def verify(self, problem: Problem) -> list[str]:
        """Compare question and answer; that the question is one of the other task's, only its own verifier can tell."""
        question, answer = problem.question.tolist(), problem.answer.tolist()
        return [] if question == answer else ["the answer is not the question"]

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """The other task's."""
        return self.task.canonical_keys(questions)

    def problem_space(self) -> str:
        """The other task's."""
        return f"the questions of {self.of}: {self.task.problem_space()}"
