"""What a task is, and how one is named: ``Task`` (knobs, generator, scorer) and ``TaskSpec`` (its name in a YAML)."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from task_generators.problem import Batch, Grid, Problem, Split, stacked
from task_generators.render import Palette, RenderStyle
from task_generators.rng import problem_seeds
from task_generators.scoring import grid_scores


class Task(BaseModel):
    """A frozen spec whose fields are the task's difficulty knobs. One subclass per file of ``task_generators/tasks``.

    A subclass sets ``palette``, ``style`` (the published look) and ``symmetries``. It makes problems in one of three
    ways: ``generate`` (one at a time; easy to write), ``generate_many`` (many at a time; fast), or ``given_problems``
    alone (a fixed collection). It checks them in ``verify`` and counts them in ``problem_space``. Each field has a
    description, and in ``examples`` other values, any of which gives other problems. It overrides ``score`` when a
    problem has several right answers, and ``canonical_keys`` when its problems have symmetries. All questions that it
    generates have one shape, and so have all answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator_version: ClassVar[int] = 1
    """Raised whenever the same key would yield another problem; part of every trial's identity."""
    palette: ClassVar[Palette]
    style: ClassVar[RenderStyle]
    symmetries: ClassVar[str] = "none"
    """In words: under which changes of the question two problems count as copies of each other."""
    test_share: ClassVar[float] = 0.25
    """Share of the problem space (by ``canonical_keys``) that only test sets are drawn from."""

    @classmethod
    def expand(cls, params: dict[str, Any]) -> list[dict[str, Any]]:
        """The knobs of every task that one entry of a sweep names: one, unless a knob may hold a pattern."""
        return [params]

    def generate(self, rng: np.random.Generator) -> Problem:
        """Draw one problem from ``rng`` and nothing else."""
        raise NotImplementedError

    def generate_many(self, seeds: npt.NDArray[np.uint64]) -> Batch:
        """Draw one problem from each seed, and from nothing else: problem i depends on ``seeds[i]`` alone."""
        return stacked([self.generate(np.random.Generator(np.random.PCG64(seed))) for seed in seeds.tolist()])

    def draw(self, n: int, *key: str | int) -> list[Problem]:
        """``n`` generated problems outside any split, for a look at them: always the same ones for the same ``key``."""
        batch = self.generate_many(problem_seeds(("draw", *key), np.arange(n)))
        return [batch.problem(place) for place in range(n)]

    def given_problems(self, split: Split) -> Sequence[Problem]:
        """Problems of a split that exist already; a split takes them before any are generated. The same ones always."""
        return ()

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there are problems beyond the given ones."""
        return cls.generate is not Task.generate or cls.generate_many is not Task.generate_many

    def distances(self, batch: Batch, other: Problem) -> npt.NDArray[np.float64]:
        """How far each problem of a batch is from another one, 0 to 1, shape (n,): the share of differing cells of the
        answers. For ``TaskSpec.min_test_distance``; a task measures otherwise where the published data do."""
        return np.not_equal(batch.answers, other.answer).mean(axis=(1, 2))

    def problem_space(self) -> str:
        """How many questions there are with these knobs, in a few words."""
        return "not counted"

    def score(self, problem: Problem, grid: Grid | None) -> dict[str, float | bool]:
        """Score a predicted grid, None for an answer that could not be read. Always holds ``exact_match``."""
        return grid_scores(problem.answer, grid)

    def verify(self, problem: Problem) -> list[str]:
        """What is wrong with a problem of this task, a few words each; nothing for a right one.

        Checks the question, the answer and, where the task promises one, that it is the only one: in plain code that
        shares nothing with the generator. ``sweep verify`` runs it over an exported table.
        """
        raise NotImplementedError

    def trial_scores(self, means: Mapping[str, float]) -> dict[str, float]:
        """Further scores of a whole trial, from the means of ``score`` over its test problems."""
        return {}

    def canonical_keys(self, questions: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
        """A key for each question of (n, rows, columns): the same for symmetric copies, which lie on one side of the
        split. Other questions may share a key by chance; that costs nothing."""
        from task_generators.copy_hash import grid_hashes

        return grid_hashes(questions, len(self.palette.colors))


def task_names() -> list[str]:
    """Public names of all tasks, sorted: the files under ``task_generators/tasks``."""
    import task_generators.tasks as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


@cache
def task_class(name: str) -> type[Task]:
    """The ``Task`` subclass defined in ``task_generators/tasks/<name>.py``; ValueError lists the names there are."""
    if name not in task_names():
        raise ValueError(f"unknown task {name!r}; valid tasks: {', '.join(task_names())}")
    module = importlib.import_module(f"task_generators.tasks.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    ]
    assert len(classes) == 1, f"{module.__name__} must define exactly one Task"
    return classes[0]


class TaskSpec(BaseModel):
    """A task as it is named in a sweep: ``life``, or ``{elementary_ca: {rule: 110, test: {width: 24}}}``.

    ``params`` and ``test`` hold the knobs that differ from the task's defaults; ``test`` is laid over ``params`` for
    the test split only (train on one size, test on another). ``min_test_distance`` keeps training problems away from
    test problems, by ``Task.distances``: parity with the published data, where it is .5 for mazes and paths, .3 for
    Sudoku, Hitori and the ant, .25 for Connect 4 and Life. Without it none is equal to a test problem, or a symmetric
    copy of one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: dict[str, Any] = {}
    test: dict[str, Any] = {}
    min_test_distance: float = Field(default=0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "name" not in value and len(value) == 1:
            name, params = next(iter(value.items()))
            if params is not None and not isinstance(params, dict):
                raise ValueError(f"task {name!r}: expected a mapping of its knobs, got {params!r}")
            params = dict(params or {})
            beside = {key: params.pop(key) for key in ("test", "min_test_distance") if key in params}
            return {"name": name, "params": params, **beside}
        return value

    @model_validator(mode="after")
    def _normalise(self) -> TaskSpec:
        task = _build(self.name, self.params, "")
        if self.min_test_distance and not task.can_generate():
            raise ValueError(f"task {self.name!r}: min_test_distance: leave it out, its problems are given")
        params = task.model_dump(exclude_defaults=True)
        tested = _build(self.name, {**self.params, **self.test}, "test.").model_dump()
        test = {knob: value for knob, value in tested.items() if value != task.model_dump()[knob]}
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "test", test)
        return self

    def build(self, split: Split = Split.TRAIN) -> Task:
        """The task with its knobs, those of ``test`` included when ``split`` is the test split."""
        return _build(self.name, {**self.params, **self.test} if split == Split.TEST else self.params, "")

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        """Problem ``index`` of a split: a pure function of the arguments and the spec. The test split ignores seed."""
        from task_generators.splits import draw_problems

        return draw_problems(self, split, seed, index + 1)[index]

    def params_json(self) -> str:
        """Canonical JSON of the knobs that differ from the defaults, ``test`` and ``min_test_distance`` included."""
        params = {**self.params, **({"test": self.test} if self.test else {})}
        params |= {"min_test_distance": self.min_test_distance} if self.min_test_distance else {}
        return json.dumps(params, sort_keys=True, separators=(",", ":"))

    def label(self) -> str:
        """A short name for people: ``elementary_ca(rule=110, width=8)``."""
        parts = [f"{knob}={value}" for knob, value in self.params.items()]
        parts += [f"test {knob}={value}" for knob, value in self.test.items()]
        parts += [f"min_test_distance={self.min_test_distance:g}"] if self.min_test_distance else []
        return f"{self.name}({', '.join(parts)})" if parts else self.name


def _build(name: str, params: dict[str, Any], where: str) -> Task:
    cls = task_class(name)
    try:
        return cls(**params)
    except ValidationError as error:
        first = error.errors()[0]
        knob = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ValueError(
                f"task {name!r}: unknown knob {where}{knob!s}; valid knobs: {', '.join(cls.model_fields)}"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        if not knob:  # what is wrong is a combination of knobs, which the message names
            raise ValueError(f"task {name!r}: {where}{message}") from None
        raise ValueError(f"task {name!r}: {where}{knob} = {first['input']!r}: {message}") from None
