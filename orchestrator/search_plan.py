"""What ``search: optuna`` varies: its studies, the points that the tables know of them, and how many trials it may run.

Ray-free, so that a YAML is checked and a sweep planned without it. The search itself is
``orchestrator.sweep.optuna_search``.

The cells of a sweep that differ in their seed alone are one *study*. A *point* of it is a value for each field of its
space; the trials of a point are the study's cells with these values, one for each seed. Fields that mean nothing to a
backbone are no part of its space; cells of a backbone that has none of them are run as they are.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.search_entries import RANK, NumberRange, OptunaEntry, Space, holds_integers
from orchestrator.sweep_yaml import one_line, unknown
from orchestrator.trial_spec import TrialIds, TrialSpec, recipe_json, task_json
from task_generators.problem import Split
from task_generators.splits import draw_problems
from trainers.backbone import check_recipe
from trainers.recipe import IGNORED_FIELDS, TrainRecipe

if TYPE_CHECKING:
    from orchestrator.specs import SweepSpec

ROW_COLUMNS = (
    *("trial_id", "backbone", "task", "task_params", "seed", "n_train", "n_test", "lora_rank", "recipe"),
    "started_at",
)
"""Columns of ``trials`` that tell which points were tried."""
_STEP_TOLERANCE = 1e-9

Point = Mapping[str, Any]
"""A value for each field of a space."""


@dataclass(frozen=True)
class Study:
    """Cells that differ in their seed alone, and what is varied of them."""

    cells: tuple[TrialSpec, ...]
    """One for each seed."""
    space: Space
    """The fields that mean something to the backbone."""
    num_samples: int
    """How many points may be tried; no more than there are."""

    def trials(self, point: Point) -> list[TrialSpec]:
        """The trials of a point, one for each seed. ValueError when its values do not go together."""
        recipe = _recipe(self.cells[0], point)
        task, version = self._task
        ids = TrialIds(self.cells[0].backbone_spec, task, version, recipe_json(recipe))
        trials = []
        for cell in self.cells:
            fields = {name: getattr(cell, name) for name in TrialSpec.model_fields}
            trial = TrialSpec.model_construct(**fields | {"recipe": recipe, RANK: point.get(RANK, cell.lora_rank)})
            trial.__dict__["trial_id"] = ids.of(trial.seed, trial.n_train, trial.lora_rank, trial.n_test)
            trials.append(trial)
        return trials

    def point(self, lora_rank: int, recipe: TrainRecipe) -> Point | None:
        """The point that a trial of this study is of; None when it lies outside of the space, or in the trial something
        else differs as well."""
        if RANK not in self.space and lora_rank != self.cells[0].lora_rank:
            return None
        if recipe_json(_without(recipe, self.space)) != self._rest_of_recipe:
            return None
        point = {name: lora_rank if name == RANK else getattr(recipe, name) for name in self.space}
        return point if all(_contains(self.space[name], value) for name, value in point.items()) else None

    @cached_property
    def _rest_of_recipe(self) -> str:
        return recipe_json(_without(self.cells[0].recipe, self.space))

    @cached_property
    def _task(self) -> tuple[str, int]:
        task = self.cells[0].task
        return task_json(task), task.build().generator_version

    def other_points(self, known: Iterable[Point]) -> Iterator[Point]:
        """Points that are none of ``known``, spread over the space; all of them where it is finite."""
        seen = {point_key(point) for point in known}
        for point in itertools.chain(_spread(self.space, self.num_samples), _every(self.space)):
            if point_key(point) not in seen:
                seen.add(point_key(point))
                yield point


def point_key(point: Point) -> str:
    """Equal for equal points."""
    return json.dumps(dict(point), sort_keys=True)


def studies(entry: OptunaEntry, cells: Sequence[TrialSpec]) -> tuple[list[Study], list[TrialSpec]]:
    """The studies of a sweep's cells, in their order, and the cells that the space means nothing to.

    ValueError when two cells of one study and seed differ: the sweep then varies what the search varies.
    """
    groups: dict[tuple[Any, ...], dict[int, TrialSpec]] = {}
    fixed = []
    spaces: dict[str, Space] = {}
    recipes: dict[tuple[str, int], str] = {}
    tasks: dict[int, str] = {}
    for cell in cells:
        if cell.backbone not in spaces:
            spaces[cell.backbone] = _space_of(entry.space, cell)
        space = spaces[cell.backbone]
        if not space:
            fixed.append(cell)
            continue
        recipe_key = cell.backbone, id(cell.recipe)
        if recipe_key not in recipes:
            recipes[recipe_key] = recipe_json(_without(cell.recipe, space))
        if id(cell.task) not in tasks:
            tasks[id(cell.task)] = task_json(cell.task)
        rank = None if RANK in space else cell.lora_rank
        key = (cell.backbone, tasks[id(cell.task)], cell.n_train, cell.n_test, rank, recipes[recipe_key])
        by_seed = groups.setdefault(key, {})
        if cell.seed in by_seed:
            _raise_conflict(space, by_seed[cell.seed], cell)
        by_seed[cell.seed] = cell
    found = []
    for by_seed in groups.values():
        space = spaces[next(iter(by_seed.values())).backbone]
        found.append(Study(tuple(by_seed.values()), space, min(entry.num_samples, _size(space))))
    return found, fixed


def check_search(sweep: SweepSpec, cells: Sequence[TrialSpec]) -> None:
    """ValueError of one line when ``search: optuna`` cannot be: the sweep fixes or varies a field of the space, or no
    recipe can have one of its values."""
    entry = sweep.search.optuna if sweep.search else None
    if entry is None:
        return
    for name in entry.space:
        _check_not_fixed(sweep, name)
    found, _ = studies(entry, cells)
    if not found:
        raise ValueError(f"search.optuna.space: {', '.join(entry.space)} mean nothing to any backbone of the sweep")
    _check_metric(entry, found)
    checked: set[tuple[str, int]] = set()
    for study in found:
        cell = study.cells[0]
        if entry.asha is not None and (cell.placement.num_workers > 1 or cell.placement.zero_stage is not None):
            raise ValueError(f"search.optuna.asha: {cell.label()} has several workers or ZeRO; leave out one of them")
        if (cell.backbone, id(cell.recipe)) not in checked:
            checked.add((cell.backbone, id(cell.recipe)))
            for name, values in study.space.items():
                for value in (values.low, values.high) if isinstance(values, NumberRange) else values:
                    _recipe(cell, {name: _as_field(name, value)})


def _check_not_fixed(sweep: SweepSpec, name: str) -> None:
    again = "and search.optuna.space varies it; remove one of them"
    if name in sweep.recipe.model_fields_set:
        raise ValueError(f"recipe.{name}: is given here, {again}")
    if name in sweep.axes or any(name in backbone.axes for backbone in sweep.backbones):
        raise ValueError(f"axes.{name}: is given here, {again}")
    for backbone in sweep.backbones:
        if name in backbone.recipe.model_fields_set:
            raise ValueError(f"recipe.{name}: the recipe of {backbone.name} fixes it, {again}")
    for task in sweep.tasks:
        if name in task.recipe.model_fields_set:
            raise ValueError(f"recipe.{name}: a task's own recipe fixes it, {again}")
    for place, trial in enumerate(sweep.trials):
        if name in trial.recipe.model_fields_set:
            raise ValueError(f"trials[{place}].recipe.{name}: is given here, {again}")
    for place, other in enumerate(sweep.included() if sweep.include else ()):
        try:
            _check_not_fixed(other, name)
        except ValueError as error:
            raise ValueError(f"{sweep.include[place]}: {error}") from None


def _check_metric(entry: OptunaEntry, found: Sequence[Study]) -> None:
    """ValueError when a task of some study has no such score: told from one of its problems, answered rightly."""
    for cell in {study.cells[0].task.name: study.cells[0] for study in found}.values():
        task = cell.task.build(Split.TEST)
        (problem,) = draw_problems(cell.task, Split.TEST, 0, 1)
        scores = {name: float(score) for name, score in task.score(problem, problem.answer).items()}
        names = [*scores, *task.trial_scores(scores), "parsed", "repeats_training_answer"]
        if entry.metric not in names:
            raise ValueError(f"search.optuna.metric: {unknown(f'score of {cell.task.name}', entry.metric, names)}")


def num_trials(sweep: SweepSpec, cells: Sequence[TrialSpec]) -> int:
    """How many trials a sweep runs at most: of a search with ``optuna`` every sample with every seed, else its
    cells."""
    entry = sweep.search.optuna if sweep.search else None
    if entry is None:
        return len(cells)
    found, fixed = studies(entry, cells)
    return len(fixed) + sum(study.num_samples * len(study.cells) for study in found)


def planned_trials(
    sweep: SweepSpec, cells: Sequence[TrialSpec], rows: Iterable[Mapping[str, Any]] = ()
) -> list[TrialSpec]:
    """The trials that a sweep runs at most, as far as is known before it runs: its cells, but where ``optuna``
    searches the trials of the points that have ``rows``, then, standing for those that will be drawn, of points spread
    over the space."""
    entry = sweep.search.optuna if sweep.search else None
    if entry is None:
        return list(cells)
    found, planned = studies(entry, cells)
    for study, points in zip(found, tried_points(found, rows), strict=True):
        trials = [trial for point in points for trial in study.trials(point)]
        left = study.num_samples - len(points)
        for point in study.other_points(points) if left > 0 else ():
            try:
                trials += study.trials(point)
            except ValueError:  # values that do not go together are drawn, and left, too
                continue
            left -= 1
            if left <= 0:
                break
        planned += trials
    order = {backbone: place for place, backbone in enumerate(dict.fromkeys(cell.backbone for cell in cells))}
    return sorted(planned, key=lambda trial: order[trial.backbone])


def tried_points(found: Sequence[Study], rows: Iterable[Mapping[str, Any]]) -> list[list[Point]]:
    """For each study the points that have a row, those tried first before others.

    Rows of trials that would have another id now (another seed, another version of the task) do not count. Points that
    have a row for every seed all count; of the others only as many as ``num_samples`` leaves room for.

    Args:
        found: the studies.
        rows: rows of ``trials`` with ``ROW_COLUMNS``.
    """
    by_cell: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = (row["backbone"], row["task"], row["task_params"], row["n_train"], row["n_test"])
        by_cell.setdefault(key, []).append(row)
    for of_cell in by_cell.values():
        of_cell.sort(key=lambda row: (str(row["started_at"]), row["trial_id"]))
    params: dict[int, str] = {}
    tried = []
    for study in found:
        cell = study.cells[0]
        if id(cell.task) not in params:
            params[id(cell.task)] = cell.task.params_json()
        key = (cell.backbone, cell.task.name, params[id(cell.task)], cell.n_train, cell.n_test)
        tried.append(_tried_points(study, by_cell.get(key, [])))
    return tried


def _tried_points(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    points: dict[str, Point] = {}
    ids: dict[str, set[str]] = {}
    have_rows: dict[str, set[str]] = {}
    read: dict[tuple[str, int], tuple[Point, str] | None] = {}
    for row in rows:
        written = row["recipe"], int(row[RANK])
        if written not in read:
            recipe = _read_recipe(row["recipe"])
            found = None if recipe is None else study.point(written[1], recipe)
            read[written] = None if found is None else (found, point_key(found))
        known = read[written]
        if known is None:
            continue
        point, key = known
        if key not in ids:
            try:
                ids[key] = {trial.trial_id for trial in study.trials(point)}
            except ValueError:
                ids[key] = set()
        if row["trial_id"] in ids[key]:
            points.setdefault(key, point)
            have_rows.setdefault(key, set()).add(row["trial_id"])
    room = study.num_samples - sum(have_rows[key] == ids[key] for key in points)
    kept = []
    for key, point in points.items():
        is_whole = have_rows[key] == ids[key]
        if is_whole or room > 0:
            kept.append(point)
            room -= not is_whole
    return kept


def _recipe(cell: TrialSpec, point: Point) -> TrainRecipe:
    """ValueError for values that a recipe, or this backbone's, cannot have."""
    fields = cell.recipe.model_dump() | {name: value for name, value in point.items() if name != RANK}
    try:
        recipe = TrainRecipe(**fields)
    except ValidationError as error:
        raise ValueError(f"search.optuna.space: {one_line(error, TrainRecipe, fields)}") from None
    try:
        check_recipe(cell.backbone_spec, recipe)
    except ValueError as error:
        raise ValueError(f"search.optuna.space: {error}") from None
    return recipe


def _read_recipe(text: str) -> TrainRecipe | None:
    try:
        return TrainRecipe(**json.loads(text))
    except ValueError:  # a row of another version
        return None


def _without(recipe: TrainRecipe, space: Space) -> TrainRecipe:
    """The recipe with the defaults in the fields of the space."""
    defaults = {name: TrainRecipe.model_fields[name].default for name in space if name != RANK}
    return recipe.model_copy(update=defaults)


def _space_of(space: Space, cell: TrialSpec) -> Space:
    spec = cell.backbone_spec
    if not spec.trainable:
        return {}
    ignored = IGNORED_FIELDS.get(spec.family, frozenset())
    return {
        name: values
        for name, values in space.items()
        if (RANK in spec.varies_with if name == RANK else name not in ignored)
    }


def _raise_conflict(space: Space, first: TrialSpec, second: TrialSpec) -> None:
    for name in space:
        values = [trial.lora_rank if name == RANK else getattr(trial.recipe, name) for trial in (first, second)]
        if values[0] != values[1]:
            raise ValueError(
                f"{name} = {values[0]} and {values[1]} for {first.backbone} on {first.task.label()}: the sweep has "
                "several, and search.optuna.space varies it; leave one of them"
            )
    raise AssertionError("equal trials")


def last_value(values: NumberRange) -> float:
    """The largest number of a range that its ``step`` leaves."""
    if values.step is None:
        return values.high
    steps = math.floor((values.high - values.low) / values.step + _STEP_TOLERANCE)
    return values.low + steps * values.step


def _as_field(name: str, value: Any) -> Any:
    return round(value) if isinstance(value, float) and holds_integers(name) else value


def _contains(values: NumberRange | tuple[Any, ...], value: Any) -> bool:
    if not isinstance(values, NumberRange):
        return value in values
    if not isinstance(value, int | float) or not values.low <= value <= values.high:
        return False
    if values.step is None:
        return True
    steps = (value - values.low) / values.step
    return abs(steps - round(steps)) < _STEP_TOLERANCE * max(1.0, abs(steps))


def _num_values(name: str, values: NumberRange | tuple[Any, ...]) -> int | None:
    """How many values a field can have; None: no end of them."""
    if not isinstance(values, NumberRange):
        return len(values)
    step = values.step or (1.0 if holds_integers(name) else None)
    return None if step is None else 1 + math.floor((values.high - values.low) / step + _STEP_TOLERANCE)


def _size(space: Space) -> int:
    """How many points a space has, or a number above any number of samples."""
    counts = [_num_values(name, values) for name, values in space.items()]
    return 2**62 if None in counts else math.prod(count for count in counts if count is not None)


def _spread(space: Space, count: int) -> Iterator[Point]:
    """``count`` points, each field's values evenly over its range; the fields run through theirs at unlike paces."""
    for place in range(count):
        point = {}
        for index, (name, values) in enumerate(space.items()):
            share = ((place + 0.5) / count * (1 + index)) % 1.0
            point[name] = _at(name, values, share)
        yield point


def _at(name: str, values: NumberRange | tuple[Any, ...], share: float) -> Any:
    """The value of a field at a share of its range, from 0 to 1."""
    number = _num_values(name, values)
    if not isinstance(values, NumberRange):
        return values[min(len(values) - 1, int(share * len(values)))]
    if values.log:
        value = min(max(float(f"{values.low * (values.high / values.low) ** share:.4g}"), values.low), values.high)
    elif number is not None:
        value = values.low + min(number - 1, int(share * number)) * (values.step or 1.0)
    else:
        value = values.low + share * (values.high - values.low)
    return _as_field(name, value)


def _every(space: Space) -> Iterator[Point]:
    """All points of a finite space; none of another."""
    columns: list[list[Any]] = []
    for name, values in space.items():
        number = _num_values(name, values)
        if number is None:
            return
        if isinstance(values, NumberRange):
            columns.append([_as_field(name, values.low + place * (values.step or 1.0)) for place in range(number)])
        else:
            columns.append(list(values))
    for point in itertools.product(*columns):
        yield dict(zip(space, point, strict=True))
