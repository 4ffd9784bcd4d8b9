"""What people write in a sweep's YAML: numbers of its axes, and an entry of ``backbones``, ``tasks`` or ``trials``."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from orchestrator.sweep_yaml import one_line, unknown
from task_generators.task import TaskSpec, task_class, task_names
from trainers.backbone import any_repository_names, backbone_names, backbone_spec
from trainers.recipe import Placement, TrainRecipe

OVERRIDES = ("seeds", "n_train", "lora_rank", "n_test", "recipe", "placement")
"""Keys of the sweep that an entry of ``backbones`` or of ``tasks`` may have too."""
TASK_KEYS = ("test", "min_test_distance", *OVERRIDES)
"""Keys of a task's entry that are not knobs of the task."""

LARGEST_INT = 2**63 - 1
"""What an integer column holds."""
LARGEST_SET = 10_000_000
"""More problems than this fit no machine's memory."""
PositiveInt = Annotated[StrictInt, Field(gt=0, le=LARGEST_INT)]
NonNegativeInt = Annotated[StrictInt, Field(ge=0, le=LARGEST_INT)]


def _number_or_all(value: Any) -> Any:
    if value == "all":
        return value
    try:
        return _SET_SIZE.validate_python(value)
    except ValidationError as error:
        raise PydanticCustomError("n_problems", error.errors()[0]["msg"] + ", or all") from None


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """``values`` as they are. ValueError for one that is there twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{value} is there twice in {list(values)}")
    return values


_SET_SIZE: TypeAdapter[int] = TypeAdapter(Annotated[StrictInt, Field(gt=0, le=LARGEST_SET)])
NumProblems = Annotated[int | Literal["all"], PlainValidator(_number_or_all)]
"""A number of problems, or ``all`` that there are of a task whose problems are given, such as ``arc``."""
Ranks = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(distinct)]
Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(distinct)]
TrainingSets = Annotated[
    tuple[NumProblems, ...],
    BeforeValidator(lambda value: [value] if value == "all" else value),
    Field(min_length=1),
    AfterValidator(distinct),
]


def _recipe_axes(axes: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Every value as the recipe's field holds it. ValueError for a name that is no field, or a value it cannot have."""
    checked = {}
    for name, values in axes.items():
        if name not in TrainRecipe.model_fields:
            raise ValueError(unknown("recipe field", name, TrainRecipe.model_fields))
        if not values:
            raise ValueError(f"{name}: expected a list of values, got an empty one")
        try:
            checked[name] = distinct(tuple(getattr(TrainRecipe(**{name: value}), name) for value in values))
        except ValidationError as error:
            raise ValueError(one_line(error, TrainRecipe, None)) from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return checked


def _price(value: Any) -> float:
    try:
        price = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        price = math.nan
    if not 0 <= price < math.inf:
        raise PydanticCustomError("price", "expected US dollars a GPU-hour: one number, or one by accelerator type")
    return price


def _prices(value: Any) -> float | dict[str, float] | None:
    if isinstance(value, dict) and value and all(isinstance(accelerator, str) for accelerator in value):
        return {accelerator: _price(price) for accelerator, price in value.items()}
    return None if value is None else _price(value)


Prices = Annotated[float | dict[str, float] | None, PlainValidator(_prices)]
"""US dollars a GPU-hour: one number, or one for each accelerator type as Ray names them (``A100``, ``H100``)."""
Callbacks = Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], AfterValidator(distinct)]
Axes = Annotated[dict[str, tuple[Any, ...]], AfterValidator(_recipe_axes)]
"""Fields of the recipe that a sweep varies, with their values: every combination is a trial."""


class BackboneEntry(BaseModel):
    """A backbone as it is named in a sweep: ``cogvideox/tiny``, or ``{cogvideox/tiny: {recipe: {max_steps: 250}}}``.

    ``causal_lm/ORG/NAME[@REVISION]`` (and so on for the other families) names any repository of the family's kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()
    axes: Axes = {}
    """Fields of the recipe and their values, over the sweep's ``axes``; ``num_inference_steps: [1, 10, 50]``."""
    seeds: Seeds | None = None
    """This and what follows: in place of the sweep's."""
    n_train: TrainingSets | None = None
    lora_rank: Ranks | None = None
    n_test: NumProblems | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        name, overrides = _named_entry(value, "backbone")
        _known_backbone(name)
        if "name" in overrides:
            raise ValueError(unknown(f"key of {name}", "name", [key for key in cls.model_fields if key != "name"]))
        return {"name": name, **overrides}


class TaskEntry(BaseModel):
    """A task as it is named in a sweep: ``life``, or ``{elementary_ca: {rule: 110, recipe: {...}, test: {...}}}``.

    One entry may name many tasks: ``arc: {dataset: concept_arc, task: "Count*", n_train: [all]}``. What else it says
    holds for each of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()
    seeds: Seeds | None = None
    """This and what follows: in place of the sweep's and of a backbone's."""
    n_train: TrainingSets | None = None
    lora_rank: Ranks | None = None
    n_test: NumProblems | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        name, overrides = _named_entry(value, "task")
        if name not in _task_names():
            raise ValueError(unknown("task", name, _task_names()))
        cls_of_task = task_class(name)
        knobs = list(cls_of_task.model_fields)
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
        beside: dict[str, Any] = {"test": test, "min_test_distance": overrides.get("min_test_distance") or 0}
        tasks = tuple(TaskSpec(name=name, params=each, **beside) for each in cls_of_task.expand(params))
        return {"tasks": tasks, **{key: overrides[key] for key in OVERRIDES if overrides.get(key) is not None}}


class TrialEntry(BaseModel):
    """One cell that ``trials`` lists: ``{backbone: causal_lm/tiny, task: {life: {height: 6}}, seed: 1, n_train: 30}``.

    What it leaves out is as the sweep says, which must then say one value. The sweep's ``axes`` are not for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Annotated[str, AfterValidator(lambda name: _known_backbone(name))]
    task: TaskEntry
    seed: NonNegativeInt | None = None
    n_train: NumProblems | None = None
    lora_rank: PositiveInt | None = None
    n_test: NumProblems | None = None
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()

    @model_validator(mode="after")
    def _overrides_stand_beside(self) -> TrialEntry:
        for key in OVERRIDES:
            if key in self.task.model_fields_set:
                beside = "seed" if key == "seeds" else key
                raise ValueError(f"{key}: write {beside} beside task, not in it")
        return self


def _known_backbone(name: str) -> str:
    try:
        backbone_spec(name)
    except ValueError:
        raise ValueError(unknown("backbone", name, [*backbone_names(), *any_repository_names()])) from None
    return name


@cache
def _task_names() -> list[str]:
    return task_names()  # reads a folder: once, not for each of thousands of entries


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
