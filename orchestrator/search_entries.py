"""What people write under ``search:`` in a sweep's YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.sweep_yaml import one_line, unknown
from trainers.recipe import TrainRecipe

RANK = "lora_rank"
"""The axis that a search may vary beside the fields of the recipe."""
MAX_REPEATS = 100


class ThresholdEntry(BaseModel):
    """``search: threshold``: the smallest ``n_train`` of the list that reaches an accuracy, instead of all of them.

    ``search: {threshold: {accuracy: 0.95, repeats: 4}}`` says what differs from the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of test problems solved exactly."""
    confidence: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    """How probable, by what other sizes, seeds and backbones scored, it has to be that no size reaches ``accuracy`` for
    the dearest trial of the sweep to be saved; to save cheaper ones it has to be surer. 1 measures every answer."""
    repeats: Annotated[int, Field(ge=0, le=MAX_REPEATS)] = 2
    """A size whose 95 % interval contains ``accuracy`` is run again with up to so many other seeds; their mean
    decides."""


class NumberRange(BaseModel):
    """Numbers from ``low`` to ``high``, both possible: ``{low: 1e-5, high: 1e-3, log: true}``.

    ``step`` leaves every ``step``-th number from ``low`` on; fields that hold integers get integers in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    log: bool = False
    """Drawn evenly in the logarithm."""
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> NumberRange:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g}: expected less than high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g}: expected more than 0 with log")
        if self.log and self.step is not None:
            raise ValueError(f"step = {self.step:g}: leave it out, or leave out log")
        return self


Space = dict[str, NumberRange | tuple[Any, ...]]


def _checked_space(space: Space) -> Space:
    """Every choice as the recipe's field holds it. ValueError for a name that is no field, or a value it cannot
    have."""
    if not space:
        raise ValueError("expected at least one field with its range or choices, got none")
    return {name: _checked_field(name, values) for name, values in space.items()}


def _checked_field(name: str, values: NumberRange | tuple[Any, ...]) -> NumberRange | tuple[Any, ...]:
    if name != RANK and name not in TrainRecipe.model_fields:
        raise ValueError(unknown("recipe field", name, [*TrainRecipe.model_fields, RANK]))
    if isinstance(values, NumberRange):
        for bound in (values.low, values.high):
            _checked_value(name, _as_number(name, bound))
        if values.step is not None and holds_integers(name):
            _as_number(f"{name}.step", values.step, integer=True)
        return values
    if not values:
        raise ValueError(f"{name}: expected a list of values, got an empty one")
    checked = tuple(_checked_value(name, value) for value in values)
    for index, value in enumerate(checked):
        if value in checked[:index]:
            raise ValueError(f"{name}: {value} is there twice in {list(checked)}")
    return checked


def _checked_value(name: str, value: Any) -> Any:
    if name == RANK:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} = {value}: expected an integer of at least 1")
        return value
    try:
        return getattr(TrainRecipe(**{name: value}), name)
    except ValidationError as error:
        raise ValueError(one_line(error, TrainRecipe, None)) from None


def _as_number(name: str, value: float, integer: bool | None = None) -> int | float:
    if integer is None:
        integer = holds_integers(name)
    if not integer:
        return value
    if value != int(value):
        raise ValueError(f"{name} = {value:g}: expected an integer")
    return int(value)


def holds_integers(name: str) -> bool:
    """Whether the values of a field are integers."""
    return name == RANK or TrainRecipe.model_fields[name].annotation in (int, int | None)


def _with_ranges(space: Any) -> Any:
    """Mappings as ``NumberRange``, lists as they are. ValueError for anything else."""
    if not isinstance(space, dict):
        return space
    read: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, dict):
            try:
                read[name] = NumberRange(**values)
            except ValidationError as error:
                raise ValueError(f"{name}: {one_line(error, NumberRange, None)}") from None
        elif isinstance(values, list | tuple | NumberRange):
            read[name] = values
        else:
            raise ValueError(f"{name}: expected a list of values or {{low, high}}, got {values!r}")
    return read


class AshaEntry(BaseModel):
    """Early stopping by asynchronous successive halving (Li et al., 2020): of the trials that get to a rung, the best
    ``1 / reduction_factor`` go on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    grace_period: float = Field(default=0.1, gt=0, lt=1)
    """The first rung, as a share of each trial's own ``max_steps``."""
    reduction_factor: float = Field(default=3, ge=1.5)
    """Each rung has so many times the steps of the one before."""
    n_validation: int = Field(default=32, gt=0)
    """Problems that a trial is judged by at each rung: of the training split, beyond those that it trains on."""

    def rungs(self) -> tuple[float, ...]:
        """The shares of ``max_steps`` at which trials may stop, ascending, all below 1."""
        rungs, share = [], self.grace_period
        while share < 1 - 1e-9:
            rungs.append(share)
            share *= self.reduction_factor
        return tuple(rungs)


class OptunaEntry(BaseModel):
    """``search: {optuna: {space: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}, num_samples: 40}}``.

    For each (backbone, task, n_train, and rank where the space has none) ``num_samples`` points of ``space`` are
    tried; the sweep's seeds are repeats of a point, whose value is their mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: Annotated[Space, BeforeValidator(_with_ranges), AfterValidator(_checked_space)]
    """Fields of the recipe, or ``lora_rank``: a list of choices, or a range of numbers."""
    num_samples: Annotated[int, Field(gt=0)] = 20
    metric: str = "exact_match"
    mode: Literal["max", "min"] = "max"
    sampler_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Equal seeds and equal results in equal order propose equal points."""
    concurrent: Annotated[int, Field(gt=0)] = 4
    """Points that each study has open at once: more learn less from each other."""
    asha: AshaEntry | None = None


class SearchEntry(BaseModel):
    """The ``search`` of a sweep: ``threshold``, or one of its keys with a mapping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: ThresholdEntry | None = None
    optuna: OptunaEntry | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, SearchEntry):
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict):
            raise ValueError(f"expected a kind of search, or one with a mapping of its keys, got {value!r}")
        for kind in value:
            if kind not in cls.model_fields:
                raise ValueError(unknown("kind of search", kind, cls.model_fields))
        if len(value) != 1:
            raise ValueError(f"expected one kind of search, got {', '.join(value) or 'none'}")
        return {kind: {} if keys is None else keys for kind, keys in value.items()}
