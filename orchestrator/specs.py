"""What a sweep is and what a trial is: ``SweepSpec`` (the YAML), ``TrialSpec`` (one cell of it), ``expand``.

Importing this file loads neither torch, ray nor pandas, so that a YAML is checked in milliseconds. Everything a user
can get wrong is found in ``load_sweep`` and ``expand``, before anything is spent, and is a ``ValueError`` of one line
that names the file, the place, the value and the valid choices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from orchestrator.sweep_entries import (
    Axes,
    BackboneEntry,
    NonNegativeInt,
    NumProblems,
    PositiveInt,
    Ranks,
    Seeds,
    TaskEntry,
    TrainingSets,
)
from orchestrator.sweep_yaml import one_line, read_yaml, set_value
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_class
from trainers.backbone import BackboneSpec, backbone_spec, check_recipe
from trainers.recipe import IGNORED_FIELDS, Placement, TrainRecipe

SPEC_VERSION = 1
"""Part of every ``trial_id``. Raised when the meaning of an existing field or default changes, so that old rows no
longer count as done."""

TRAINING_PROBLEMS_CHECKED = 3


class SweepSpec(BaseModel):
    """A sweep as people write it in YAML: the axes, and what differs from the published recipes.

    A recipe is resolved in this order, later ones winning: defaults of ``TrainRecipe``, the backbone's published
    recipe, the sweep's ``recipe``, the backbone entry's, the task entry's.

    Some tasks have no generator but a fixed set of problems each (``arc``). They are always tested on their whole test
    set, whatever ``n_test`` says, and ``n_train`` may be ``all``. A sweep that has both kinds of task gives the one or
    the other an ``n_train`` of its own::

        tasks: [life, {arc: {task: "*", n_train: [all]}}]
        n_train: [3, 10, 30]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    backbones: tuple[BackboneEntry, ...] = Field(min_length=1)
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    seeds: Seeds = (0,)
    n_train: TrainingSets
    lora_rank: Ranks = (64,)
    n_test: NumProblems = 200
    recipe: TrainRecipe = TrainRecipe()
    axes: Axes = {}
    """Fields of the recipe and their values: every trained backbone runs with every combination of those that mean
    something to it and that its own recipe does not fix. A backbone may have axes of its own."""
    placement: Placement = Placement()
    results: str = ""
    """Folder or URI (``s3://``, ``gs://``) of the tables; the default is ``results/<name>``."""

    @property
    def results_uri(self) -> str:
        """Where the tables go: a URI, or a local folder relative to the working directory."""
        return self.results or f"results/{self.name}"


class TrialSpec(BaseModel):
    """One cell of a sweep. What it says decides every number of the trial's row; ``placement`` decides none of them.

    A task that generates nothing is tested on its whole test set: ``n_test`` becomes the number of its problems.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    task: TaskSpec
    seed: NonNegativeInt = 0
    n_train: NonNegativeInt
    lora_rank: NonNegativeInt
    n_test: PositiveInt = 200
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()

    @model_validator(mode="after")
    def _whole_test_set(self) -> TrialSpec:
        given = _num_given(self.task, Split.TEST)
        if given is not None:
            object.__setattr__(self, "n_test", given)
        return self

    @property
    def backbone_spec(self) -> BackboneSpec:
        """The backbone it names."""
        return backbone_spec(self.backbone)

    @cached_property
    def trial_id(self) -> str:
        """16 hex digits that name this trial in every table: equal for specs that must give equal numbers."""
        version, revision = self.task.build().generator_version, self.backbone_spec.revision
        return _trial_id(self.backbone, _task_json(self.task), version, revision, self.recipe_json(), self)

    def recipe_json(self) -> str:
        """Canonical JSON of the recipe's fields that differ from the defaults."""
        return _recipe_json(self.recipe)

    def label(self) -> str:
        """A short name for people: ``cogvideox/tiny life n=30 r=16 seed=0``, without axes that do not apply."""
        axes = [f"n={self.n_train}"] if self.n_train else []
        axes += [f"r={self.lora_rank}"] if self.lora_rank else []
        return " ".join([self.backbone, self.task.label(), *axes, f"seed={self.seed}"])


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read and check a sweep's YAML. ``overrides`` are ``recipe.learning_rate=2e-4`` from a command line.

    ValueError of one line, which begins with the file's name, for everything a user can get wrong.
    """
    try:
        content = read_yaml(Path(path))
        for override in overrides:
            set_value(content, override)
        sweep = SweepSpec.model_validate(content)
        expand(sweep)
    except ValidationError as error:
        raise ValueError(f"{path}: {one_line(error, SweepSpec, content)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sweep


def expand(sweep: SweepSpec) -> list[TrialSpec]:
    """Every trial of a sweep, backbone by backbone so that a worker keeps its weights; always in the same order.

    An axis that a backbone does not vary with collapses to one trial with 0 there, and numbers of training problems
    that come to the same (``[3, all]`` where there are three) to one trial. ValueError when two cells are the same
    trial, a combination of recipes is not valid, or a task has fewer problems than are asked for.
    """
    planned = [(entry, [_planned(task, entry, sweep) for task in entry.tasks]) for entry in sweep.tasks]
    trials: dict[str, TrialSpec] = {}
    for entry in sweep.backbones:
        for task_entry, tasks in planned:
            for trial in _cells(sweep, entry, task_entry.recipe, tasks):
                if trial.trial_id in trials:
                    raise ValueError(f"the same trial is there twice: {trial.label()}; remove the repeated entry")
                trials[trial.trial_id] = trial
    return list(trials.values())


def check_problems(trials: Sequence[TrialSpec]) -> None:
    """Draw every test set once, and the first training problems of every task. ValueError when a task has fewer test
    problems than a trial asks for, or no training problems."""
    test_sets = {
        (_task_json(trial.task), trial.n_test): trial.task
        for trial in trials
        if task_class(trial.task.name).can_generate()  # else n_test is the number of those that there are
    }
    for (_, n_test), task in test_sets.items():
        draw_problems(task, Split.TEST, 0, n_test)
    training_sets: dict[str, TrialSpec] = {}
    for trial in trials:
        training_sets.setdefault(_task_json(trial.task), trial)
    for trial in training_sets.values():
        draw_problems(trial.task, Split.TRAIN, trial.seed, min(trial.n_train, TRAINING_PROBLEMS_CHECKED))


@dataclass(frozen=True)
class _PlannedTask:
    """What all cells of one task share, worked out once."""

    spec: TaskSpec
    json: str
    n_train: tuple[int | Literal["all"], ...]
    num_given: int | None
    """Training problems there are; None where as many as are asked for are generated."""
    n_test: int

    def sizes(self) -> list[int]:
        """The training sets asked for, as numbers."""
        return list(dict.fromkeys(self._size(size) for size in self.n_train))

    def _size(self, size: int | Literal["all"]) -> int:
        if size != "all":
            if self.num_given is None or size <= self.num_given:
                return size
            raise ValueError(
                f"n_train = {size}: {self.spec.label()} has {self.num_given} training problems; lower it or use all; "
                f"a task may have an n_train of its own: {self.spec.name}: {{..., n_train: [all]}}"
            )
        if self.num_given is None:
            raise ValueError(
                f"n_train = all: {self.spec.label()} generates as many problems as are asked for; give numbers; "
                f"a task may have an n_train of its own: {self.spec.name}: {{..., n_train: [3, 10]}}"
            )
        return self.num_given


def _planned(task: TaskSpec, entry: TaskEntry, sweep: SweepSpec) -> _PlannedTask:
    n_test = _num_given(task, Split.TEST) or sweep.n_test
    if n_test == "all":
        raise ValueError(
            f"n_test = all: {task.label()} generates as many problems as are asked for; give a number (tasks that "
            "generate none are always tested on all of theirs)"
        )
    return _PlannedTask(task, _task_json(task), entry.n_train or sweep.n_train, _num_given(task, Split.TRAIN), n_test)


def _num_given(task: TaskSpec, split: Split) -> int | None:
    """How many problems a split has; None where as many as are asked for are generated."""
    if task_class(task.name).can_generate():
        return None
    return len(task.build(split).given_problems(split))


def _cells(
    sweep: SweepSpec, entry: BackboneEntry, task_recipe: TrainRecipe, tasks: Sequence[_PlannedTask]
) -> Iterator[TrialSpec]:
    """The trials of one backbone on the tasks of one entry."""
    spec = backbone_spec(entry.name)
    recipe_fields = dict(spec.recipe)
    for layer in (sweep.recipe, entry.recipe, task_recipe):
        recipe_fields |= layer.model_dump(exclude_unset=True)
    placement_fields = sweep.placement.model_dump(exclude_unset=True) | entry.placement.model_dump(exclude_unset=True)
    axes = _axes(sweep, entry, spec)
    for name in axes:
        if name in task_recipe.model_fields_set:
            raise ValueError(f"axes.{name}: a task's own recipe fixes {name}; remove one of them")
    placement = Placement(**placement_fields)
    for values in product(*axes.values()):
        recipe = TrainRecipe(**recipe_fields | dict(zip(axes, values, strict=True)))
        check_recipe(spec, recipe)
        yield from _cells_of_recipe(sweep, entry, spec, recipe, placement, tasks)


def _axes(sweep: SweepSpec, entry: BackboneEntry, spec: BackboneSpec) -> dict[str, tuple[Any, ...]]:
    """The recipe fields that vary for a backbone: its own axes, and the sweep's but for those that its own recipe fixes
    or that mean nothing to it."""
    ignored = IGNORED_FIELDS.get(spec.family, frozenset())
    for name in entry.axes:
        if name in entry.recipe.model_fields_set:
            raise ValueError(f"axes.{name}: the recipe of {entry.name} fixes {name}; remove one of them")
        if name in ignored or not spec.trainable:
            raise ValueError(f"axes.{name}: means nothing to {entry.name}; remove it")
    fixed = entry.recipe.model_fields_set | ignored
    return {name: values for name, values in sweep.axes.items() if spec.trainable and name not in fixed} | entry.axes


def _cells_of_recipe(
    sweep: SweepSpec,
    entry: BackboneEntry,
    spec: BackboneSpec,
    recipe: TrainRecipe,
    placement: Placement,
    tasks: Sequence[_PlannedTask],
) -> Iterator[TrialSpec]:
    recipe_json = _recipe_json(recipe)
    for task in tasks:
        # Cells of one task share all but three numbers: what they share is checked and put into JSON once.
        version = task.spec.build().generator_version
        shared = (entry.name, task.json, version, spec.revision, recipe_json)
        for lora_rank in (entry.lora_rank or sweep.lora_rank) if "lora_rank" in spec.varies_with else (0,):
            for n_train in task.sizes() if "n_train" in spec.varies_with else (0,):
                for seed in sweep.seeds if "seed" in spec.varies_with else (0,):
                    trial = TrialSpec.model_construct(
                        backbone=entry.name,
                        task=task.spec,
                        seed=seed,
                        n_train=n_train,
                        lora_rank=lora_rank,
                        n_test=task.n_test,
                        recipe=recipe,
                        placement=placement,
                    )
                    trial.__dict__["trial_id"] = _trial_id(*shared, trial)
                    yield trial


def _trial_id(
    backbone: str, task_json: str, generator_version: int, revision: str | None, recipe_json: str, axes: TrialSpec
) -> str:
    fields = TrialSpec.model_fields
    numbers = {name: getattr(axes, name) for name in ("seed", "n_train", "lora_rank", "n_test")}
    identity: dict[str, Any] = {
        "spec_version": SPEC_VERSION,
        "generator_version": generator_version,
        "backbone": backbone,
        "task": task_json,
        "recipe": recipe_json,
        **{name: value for name, value in numbers.items() if value != fields[name].default},
    }
    if revision is not None:
        identity["revision"] = revision
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8, person=b"trial").hexdigest()


def _task_json(task: TaskSpec) -> str:
    return json.dumps({"name": task.name, "params": json.loads(task.params_json())}, sort_keys=True)


def _recipe_json(recipe: TrainRecipe) -> str:
    return json.dumps(recipe.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
