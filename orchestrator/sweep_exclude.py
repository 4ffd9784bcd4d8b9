"""``exclude`` of a sweep: patterns of cells to leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.sweep_entries import NonNegativeInt, PositiveInt
from orchestrator.sweep_yaml import one_line, unknown
from orchestrator.trial_spec import TrialSpec
from task_generators.task import task_class
from trainers.backbone import BackboneSpec
from trainers.recipe import TrainRecipe

FAMILIES: tuple[str, ...] = get_args(BackboneSpec.model_fields["family"].annotation)
MAX_VALUES_NAMED = 12
"""Values that a message lists at most."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(unknown("family", name, FAMILIES))
    return name


def _lists(values: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    for name, wanted in values.items():
        if isinstance(wanted, list) and not wanted:
            raise ValueError(f"{name}: expected a value or a list of them, got an empty list")
    return {name: tuple(_as_list(wanted)) for name, wanted in values.items()}


def _recipe_values(values: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Every wanted value as the recipe's field holds it; a field that is a list itself may be written without a list
    around it."""
    checked = {}
    for name, wanted in values.items():
        if name not in TrainRecipe.model_fields:
            raise ValueError(unknown("recipe field", name, TrainRecipe.model_fields))
        try:
            checked[name] = (getattr(TrainRecipe(**{name: wanted}), name),)
        except ValidationError as error:
            if not isinstance(wanted, list) or not wanted:
                raise ValueError(one_line(error, TrainRecipe, None)) from None
            try:
                checked[name] = tuple(getattr(TrainRecipe(**{name: value}), name) for value in wanted)
            except ValidationError as inner:
                raise ValueError(one_line(inner, TrainRecipe, None)) from None
    return checked


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
Families = Annotated[
    tuple[Annotated[str, AfterValidator(_family)], ...], BeforeValidator(_as_list), Field(min_length=1)
]
Counts = Annotated[tuple[PositiveInt, ...], BeforeValidator(_as_list), Field(min_length=1)]
SeedNumbers = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_as_list), Field(min_length=1)]


class ExcludeEntry(BaseModel):
    """Cells to leave out: those that match every key of this pattern.

    Every key takes one value or a list of them. Texts may be patterns: ``cogvideox/*``. An axis that does not apply to
    a backbone (the rank of a baseline) has no value, so a pattern that names it leaves the backbone's trials alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Texts | None = Field(default=None, description="names of backbones, or patterns such as cogvideox/*")
    family: Families | None = Field(default=None, description="families of backbones")
    task: Texts | None = Field(default=None, description="names of tasks, or patterns")
    seed: SeedNumbers | None = None
    n_train: Counts | None = Field(default=None, description="training problems, as numbers")
    lora_rank: Counts | None = None
    params: Annotated[dict[str, Any], AfterValidator(_lists)] = Field(
        default={}, description="knobs of the task and their values, defaults included: {rule: [90, 110]}"
    )
    recipe: Annotated[dict[str, Any], AfterValidator(_recipe_values)] = Field(
        default={}, description="fields of the recipe and their values: {num_frames: 9}"
    )

    @model_validator(mode="before")
    @classmethod
    def _something(cls, value: Any) -> Any:
        if isinstance(value, dict) and not any(wanted is not None and wanted != {} for wanted in value.values()):
            raise ValueError(f"a pattern needs at least one key; valid: {', '.join(cls.model_fields)}")
        return value


@dataclass(frozen=True)
class _Condition:
    """One key of a pattern."""

    key: str
    wanted: tuple[Any, ...]
    value: Callable[[TrialSpec], Any]
    """None where it does not apply to the trial."""
    is_number: bool
    """It is the cell's own; everything else is shared by the trials of one backbone, task and recipe."""

    def holds(self, trial: TrialSpec) -> bool:
        """Whether the trial has one of the wanted values."""
        value = self.value(trial)
        if value is None:
            return None in self.wanted and not self.is_number
        if isinstance(value, str):
            return any(fnmatchcase(value, wanted) for wanted in self.wanted if isinstance(wanted, str))
        if isinstance(value, list) and value == list(self.wanted):  # a knob that is a list itself
            return True
        return any(value == wanted and isinstance(value, bool) == isinstance(wanted, bool) for wanted in self.wanted)


def without_excluded(trials: Sequence[TrialSpec], patterns: Sequence[ExcludeEntry]) -> list[TrialSpec]:
    """The trials that match none of the patterns. ValueError for a pattern that matches none of the trials, and when no
    trial is left."""
    if not patterns:
        return list(trials)
    all_conditions = [_conditions(pattern) for pattern in patterns]
    own_numbers = [[condition for condition in each if condition.is_number] for each in all_conditions]
    left: list[TrialSpec] = []
    matched: set[int] = set()
    group, candidates = None, list[int]()
    for trial in trials:
        if group != (trial.backbone, id(trial.task), id(trial.recipe)):  # they stand together, and share the objects
            group = (trial.backbone, id(trial.task), id(trial.recipe))
            candidates = [
                place
                for place, conditions in enumerate(all_conditions)
                if all(condition.holds(trial) for condition in conditions if not condition.is_number)
            ]
        matching = [place for place in candidates if all(condition.holds(trial) for condition in own_numbers[place])]
        matched.update(matching)
        if not matching:
            left.append(trial)
    for place, conditions in enumerate(all_conditions):
        if place not in matched:
            raise ValueError(f"exclude[{place}]{_why_nothing(conditions, trials)}")
    if not left:
        raise ValueError(f"exclude: leaves none of the {len(trials)} trials")
    return left


def _conditions(pattern: ExcludeEntry) -> list[_Condition]:
    knobs: dict[int, dict[str, Any]] = {}

    def knob(name: str, trial: TrialSpec) -> Any:
        if id(trial.task) not in knobs:
            knobs[id(trial.task)] = trial.task.build().model_dump(mode="json")
        return knobs[id(trial.task)].get(name)

    def recipe_field(name: str, trial: TrialSpec) -> Any:
        return getattr(trial.recipe, name)

    def number(name: str, trial: TrialSpec) -> Any:
        return getattr(trial, name) if name in trial.backbone_spec.varies_with else None

    conditions = [
        _Condition("backbone", pattern.backbone or (), lambda trial: trial.backbone, False),
        _Condition("family", pattern.family or (), lambda trial: trial.backbone_spec.family, False),
        _Condition("task", pattern.task or (), lambda trial: trial.task.name, False),
    ]
    for name, wanted in (("seed", pattern.seed), ("n_train", pattern.n_train), ("lora_rank", pattern.lora_rank)):
        conditions.append(_Condition(name, wanted or (), partial(number, name), True))
    for name, values in pattern.params.items():
        conditions.append(_Condition(f"params.{name}", values, partial(knob, name), False))
    for name, values in pattern.recipe.items():
        conditions.append(_Condition(f"recipe.{name}", values, partial(recipe_field, name), False))
    return [condition for condition in conditions if condition.wanted]


def _why_nothing(conditions: Sequence[_Condition], trials: Sequence[TrialSpec]) -> str:
    """Which key of a pattern no trial has, or that none has them all."""
    for condition in conditions:
        if not any(condition.holds(trial) for trial in trials):
            if condition.key.startswith("params."):
                knobs = dict.fromkeys(knob for trial in trials for knob in task_class(trial.task.name).model_fields)
                if (name := condition.key.removeprefix("params.")) not in knobs:
                    return f".params: {unknown('knob', name, knobs)}"
            values = [value for value in map(condition.value, trials) if value is not None]
            wanted = ", ".join(str(value) for value in condition.wanted)
            return f".{condition.key} = {wanted}: no trial of the sweep has that; there are {_named(values)}"
    keys = ", ".join(f"{condition.key} = {', '.join(map(str, condition.wanted))}" for condition in conditions)
    return f": no trial of the sweep matches all of {keys}; remove the pattern"


def _named(values: Iterable[Any]) -> str:
    distinct = list(dict.fromkeys(map(str, values)))
    if not distinct:
        return "none: it does not apply to them"
    more = len(distinct) - MAX_VALUES_NAMED
    return ", ".join(distinct[:MAX_VALUES_NAMED]) + (f" and {more} more" if more > 0 else "")
