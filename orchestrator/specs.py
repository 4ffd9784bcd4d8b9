"""What a sweep is and what a trial is: ``SweepSpec`` (the YAML), ``TrialSpec`` (one cell of it), ``expand``.

Importing this file loads neither torch, ray nor pandas, so that a YAML is checked in milliseconds. Everything a user
can get wrong is found in ``load_sweep`` and ``expand``, before anything is spent, and is a ``ValueError`` of one line
that names the file, the place, the value and the valid choices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from orchestrator.sweep_yaml import one_line, read_yaml, set_value, unknown
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_class, task_names
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec, check_recipe
from trainers.recipe import Placement, TrainRecipe

SPEC_VERSION = 1
"""Part of every ``trial_id``. Raised when the meaning of an existing field or default changes, so that old rows no
longer count as done."""

TASK_KEYS = ("recipe", "test")
"""Keys of a task's entry that are not knobs of the task."""

LARGEST_INT = 2**63 - 1
"""What an integer column holds."""
PositiveInt = Annotated[StrictInt, Field(gt=0, le=LARGEST_INT)]
NonNegativeInt = Annotated[StrictInt, Field(ge=0, le=LARGEST_INT)]


class BackboneEntry(BaseModel):
    """A backbone as it is named in a sweep: ``cogvideox/tiny``, or ``{cogvideox/tiny: {recipe: {max_steps: 250}}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()
    lora_rank: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        name, overrides = _named_entry(value, "backbone")
        if name not in backbone_names():
            raise ValueError(unknown("backbone", name, backbone_names()))
        if "name" in overrides:
            raise ValueError(unknown(f"key of {name}", "name", [key for key in cls.model_fields if key != "name"]))
        return {"name": name, **overrides}


class TaskEntry(BaseModel):
    """A task as it is named in a sweep: ``life``, or ``{elementary_ca: {rule: 110, recipe: {...}, test: {...}}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskSpec
    recipe: TrainRecipe = TrainRecipe()

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        name, overrides = _named_entry(value, "task")
        if name not in task_names():
            raise ValueError(unknown("task", name, task_names()))
        knobs = list(task_class(name).model_fields)
        test = overrides.get("test") or {}
        if not isinstance(test, dict):
            raise ValueError(f"{name}.test: expected a mapping of knobs, got {test!r}")
        for key in overrides:
            if key not in knobs and key not in TASK_KEYS:
                raise ValueError(unknown(f"knob of {name}", key, [*knobs, *TASK_KEYS]))
        for key in test:
            if key not in knobs:
                raise ValueError(unknown(f"knob of {name} in test", key, knobs))
        params = {key: knob for key, knob in overrides.items() if key not in TASK_KEYS}
        entry = {"task": TaskSpec(name=name, params=params, test=test)}
        return entry | ({"recipe": overrides["recipe"]} if overrides.get("recipe") is not None else {})


class SweepSpec(BaseModel):
    """A sweep as people write it in YAML: the axes, and what differs from the published recipes.

    A recipe is resolved in this order, later ones winning: defaults of ``TrainRecipe``, the backbone's published
    recipe, the sweep's ``recipe``, the backbone entry's, the task entry's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    backbones: tuple[BackboneEntry, ...] = Field(min_length=1)
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    n_train: tuple[PositiveInt, ...] = Field(min_length=1)
    lora_rank: tuple[PositiveInt, ...] = Field(default=(64,), min_length=1)
    n_test: PositiveInt = 200
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()
    results: str = ""
    """Folder or URI (``s3://``, ``gs://``) of the tables; the default is ``results/<name>``."""

    @model_validator(mode="after")
    def _no_repeats(self) -> SweepSpec:
        for axis in ("seeds", "n_train", "lora_rank"):
            values = getattr(self, axis)
            if len(set(values)) < len(values):
                raise ValueError(f"{axis}: {_first_repeat(values)} is there twice in {list(values)}")
        return self

    @property
    def results_uri(self) -> str:
        """Where the tables go: a URI, or a local folder relative to the working directory."""
        return self.results or f"results/{self.name}"


class TrialSpec(BaseModel):
    """One cell of a sweep. What it says decides every number of the trial's row; ``placement`` decides none of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    task: TaskSpec
    seed: NonNegativeInt = 0
    n_train: NonNegativeInt
    lora_rank: NonNegativeInt
    n_test: PositiveInt = 200
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()

    @property
    def backbone_spec(self) -> BackboneSpec:
        """The backbone it names."""
        return backbone_spec(self.backbone)

    @cached_property
    def trial_id(self) -> str:
        """16 hex digits that name this trial in every table: equal for specs that must give equal numbers."""
        version, revision = task_class(self.task.name).generator_version, self.backbone_spec.revision
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

    An axis that a backbone does not vary with collapses to one trial with 0 there. ValueError when two cells are the
    same trial, or a combination of recipes is not valid.
    """
    trials: dict[str, TrialSpec] = {}
    for entry in sweep.backbones:
        for task_entry in sweep.tasks:
            for trial in _cells(sweep, entry, task_entry):
                if trial.trial_id in trials:
                    raise ValueError(f"the same trial is there twice: {trial.label()}; remove the repeated entry")
                trials[trial.trial_id] = trial
    return list(trials.values())


def check_test_sets(trials: Sequence[TrialSpec]) -> None:
    """Draw every test set once. ValueError when a task has fewer test problems than a trial asks for."""
    test_sets = {(_task_json(trial.task), trial.n_test): trial.task for trial in trials}
    for (_, n_test), task in test_sets.items():
        draw_problems(task, Split.TEST, 0, n_test)


def _cells(sweep: SweepSpec, entry: BackboneEntry, task_entry: TaskEntry) -> Iterator[TrialSpec]:
    spec = backbone_spec(entry.name)
    layers = (sweep.recipe, entry.recipe, task_entry.recipe)
    recipe_fields = dict(spec.recipe)
    for layer in layers:
        recipe_fields |= layer.model_dump(exclude_unset=True)
    placement_fields = sweep.placement.model_dump(exclude_unset=True) | entry.placement.model_dump(exclude_unset=True)
    recipe, placement = TrainRecipe(**recipe_fields), Placement(**placement_fields)
    check_recipe(spec, recipe)
    task = task_entry.task
    # Cells of one task share all but three numbers: what they share is checked and put into JSON once.
    version = task_class(task.name).generator_version
    shared = (entry.name, _task_json(task), version, spec.revision, _recipe_json(recipe))
    for lora_rank in (entry.lora_rank or sweep.lora_rank) if "lora_rank" in spec.varies_with else (0,):
        for n_train in sweep.n_train if "n_train" in spec.varies_with else (0,):
            for seed in sweep.seeds if "seed" in spec.varies_with else (0,):
                trial = TrialSpec.model_construct(
                    backbone=entry.name,
                    task=task,
                    seed=seed,
                    n_train=n_train,
                    lora_rank=lora_rank,
                    n_test=sweep.n_test,
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


def _named_entry(value: Any, kind: str) -> tuple[str, dict[str, Any]]:
    """The name and the overrides of an entry of ``backbones`` or ``tasks``."""
    if isinstance(value, dict) and len(value) == 1:
        name, overrides = next(iter(value.items()))
        overrides = {} if overrides is None else overrides
        if isinstance(name, str) and isinstance(overrides, dict):
            return name, overrides
    elif isinstance(value, str):
        return value, {}
    raise ValueError(f"expected a {kind}'s name, or one name with a mapping of what differs, got {value!r}")


def _first_repeat(values: Sequence[int]) -> int:
    return next(value for index, value in enumerate(values) if value in values[:index])
