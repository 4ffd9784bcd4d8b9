"""ARC-AGI-1, ARC-AGI-2, ConceptARC and your own: learn from a few demonstrations, answer the task's test inputs.

A sweep's YAML takes a pattern for ``task`` and runs a trial for every task that matches, here 10, each on all its
demonstrations and with three attempts at each test input, as ConceptARC is scored; ARC-AGI allows two::

    tasks:
      - arc: {dataset: concept_arc, task: "Count*", recipe: {attempts: 3}}
    n_train: all

A dataset of your own is one JSON file a task, in a folder or zip; every machine of a cluster must find it in the same
place. What a file holds is no part of a trial's identity: give a dataset that has changed another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from task_generators.arc_datasets import PACKAGED, SHORT_NAMES, ArcTask, is_pattern, load_arc_dataset
from task_generators.problem import Problem, Split
from task_generators.render import ARC_COLORS, ARC_NAMES, Palette, RenderStyle
from task_generators.task import Task

PICTURE_PX = 400
BORDER_PX = 2


class Arc(Task):
    """One ARC task: its demonstrations are the training set, its test inputs the test set. Nothing is generated.

    ``exact_match`` is the share of test inputs answered rightly (in any attempt), the score of ConceptARC; ``solved``
    is 1 if all of them are, the score of ARC-AGI.
    """

    palette: ClassVar[Palette] = Palette(colors=ARC_COLORS, names=ARC_NAMES)
    symmetries: ClassVar[str] = "none looked for: the dataset says which problems train and which test"

    dataset: str = Field(
        default="arc_agi_1_evaluation",
        description=f"{', '.join(PACKAGED)}, concept_arc, or the path of a folder or zip of ARC-format JSON",
        examples=["arc_agi_2_training"],
    )
    # 10 x 10 cells throughout, six demonstrations, two test inputs; also in ARC-AGI-2's training set.
    task: str = Field(
        default="f3e62deb",
        validate_default=True,
        description="name of the task, with its folder where names repeat (Count/1); in a sweep also a pattern: Count*",
        examples=["6ea4a07e", "da2b0fe3"],
    )

    @classmethod
    def expand(cls, params: dict[str, Any]) -> list[dict[str, Any]]:
        """The knobs of every task that the pattern in ``task`` matches, in the dataset's order."""
        name, pattern = (params.get(knob, cls.model_fields[knob].default) for knob in ("dataset", "task"))
        if not isinstance(name, str) or not isinstance(pattern, str) or not is_pattern(pattern):
            return [params]
        try:
            dataset = load_arc_dataset(name)
        except ValueError as error:
            raise ValueError(f"dataset = {name!r}: {error}") from None
        if dataset.full_name(pattern) is not None:
            return [params]
        names = dataset.matching(pattern)
        if not names:
            raise ValueError(f"task = {pattern!r}: {dataset.unknown(pattern)}")
        return [{**params, "task": name} for name in names]

    @field_validator("dataset")
    @classmethod
    def _one_name(cls, dataset: str) -> str:
        load_arc_dataset(dataset)
        return SHORT_NAMES.get(dataset, dataset)

    @field_validator("task", mode="before")
    @classmethod
    def _quoted(cls, task: Any) -> Any:
        if isinstance(task, int | float):
            raise ValueError("YAML reads a name of digits as a number; write it in quotes, as in task: '00576224'")
        return task

    @field_validator("task")
    @classmethod
    def _in_dataset(cls, task: str, info: ValidationInfo) -> str:
        if "dataset" not in info.data:  # what is wrong with it is said already
            return task
        dataset = load_arc_dataset(info.data["dataset"])
        name = dataset.full_name(task)
        if name is None:
            matches = dataset.matching(task) if is_pattern(task) else []
            if matches:
                raise ValueError(
                    f"a pattern that {len(matches)} tasks of {dataset.name} match; only a sweep's YAML takes patterns, "
                    f"here name one task, such as {matches[0]}"
                )
            raise ValueError(dataset.unknown(task))
        dataset.task(name)
        return name

    # The other tasks' look is one for the class; here it follows from the knobs, and only instances are asked for it.
    @property
    def style(self) -> RenderStyle:  # type: ignore[override]
        """The largest cells with which every grid of the task fits a picture of 400 x 400 px, which all pictures have.

        Smaller grids are centred on the border's colour. The outputs of test inputs count as well: one that is larger
        than every other grid (7 of the 400 tasks of ARC-AGI-1's evaluation set) could not be drawn otherwise. What
        that tells a model is no more than an upper bound of the sizes.
        """
        pitch_px = (PICTURE_PX - BORDER_PX) // self._arc_task().largest_side()
        return RenderStyle(cell_px=pitch_px - BORDER_PX, border_px=BORDER_PX, multiple_px=PICTURE_PX)

    def given_problems(self, split: Split) -> Sequence[Problem]:
        """Demonstrations to train on, test inputs with their answers to test on. Shapes differ within a split."""
        arc_task = self._arc_task()
        metadata = {"dataset": self.dataset, "task": arc_task.name}
        if arc_task.concept is not None:
            metadata["concept"] = arc_task.concept
        pairs = arc_task.demonstrations if split == Split.TRAIN else arc_task.tests
        return [Problem(question, answer, metadata) for question, answer in pairs]

    def verify(self, problem: Problem) -> list[str]:
        """Look the problem up among the pairs of the dataset's file."""
        content = load_arc_dataset(self.dataset).decoded_json(self.task)
        question, answer = problem.question.tolist(), problem.answer.tolist()
        answers = [pair["output"] for split in Split for pair in content[split.value] if pair["input"] == question]
        if not answers:
            return [f"the question is no input of the task {self.task}"]
        return [] if answer in answers else ["the answer is not the dataset's output for the question"]

    def trial_scores(self, means: Mapping[str, float]) -> dict[str, float]:
        """``solved``: a task counts only if all its test inputs are answered rightly."""
        return {"solved": float(means["exact_match"] == 1)}

    def problem_space(self) -> str:
        """The number of problems given."""
        arc_task = self._arc_task()
        return f"{len(arc_task.demonstrations)} demonstrations and {len(arc_task.tests)} test inputs, all given"

    def _arc_task(self) -> ArcTask:
        return load_arc_dataset(self.dataset).task(self.task)
