"""The cells of a sweep: ``expand`` makes the trials of a ``SweepSpec``.

100,000 cells are a few seconds: what the cells of one backbone, task or recipe share is checked and put into JSON once,
and the trials share those objects.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.sweep_entries import BackboneEntry, TaskEntry, TrialEntry
from orchestrator.sweep_exclude import without_excluded
from orchestrator.trial_spec import TrialIds, TrialSpec, num_given, recipe_json, task_json
from task_generators.problem import Split
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec, check_recipe
from trainers.recipe import IGNORED_FIELDS, Placement, TrainRecipe

if TYPE_CHECKING:
    from orchestrator.specs import SweepSpec

_expanded: dict[int, list[TrialSpec]] = {}
"""By ``id`` of the sweep, as long as it lives. Not kept in the sweep itself, whose copies and pickles would take along
what is no longer true of them, and 100,000 trials."""


def expand(sweep: SweepSpec) -> list[TrialSpec]:
    """Every trial of a sweep, backbone by backbone so that a worker keeps its weights; always in the same order.

    The trials of included sweeps come first; one that is there several times counts once. Then the product, then
    ``trials``; then what ``exclude`` matches is left out. An axis that a backbone does not vary with collapses to one
    trial with 0 there, and numbers of training problems that come to the same (``[3, all]`` where there are three) to
    one trial. ValueError when two of the sweep's own cells are the same trial, a combination of recipes is not valid, a
    task has fewer problems than are asked for, or a pattern of ``exclude`` matches nothing.
    """
    key = id(sweep)
    if key not in _expanded:
        _expanded[key] = _trials(sweep)
        weakref.finalize(sweep, _expanded.pop, key, None).atexit = False
    return list(_expanded[key])


def _trials(sweep: SweepSpec) -> list[TrialSpec]:
    own: dict[str, TrialSpec] = {}
    for trial in _own_cells(sweep):
        if trial.trial_id in own:
            raise ValueError(f"the same trial is there twice: {trial.label()}; remove the repeated entry")
        own[trial.trial_id] = trial
    joined: dict[str, TrialSpec] = {}
    for included in sweep.included():
        for trial in expand(included):
            joined.setdefault(trial.trial_id, trial)
    for trial_id, trial in own.items():
        joined.setdefault(trial_id, trial)
    trials = without_excluded(list(joined.values()), sweep.exclude)
    checked: set[tuple[str, int]] = set()
    for trial in trials:
        if (trial.backbone, id(trial.recipe)) not in checked:
            checked.add((trial.backbone, id(trial.recipe)))
            check_recipe(trial.backbone_spec, trial.recipe)
    order = {backbone: place for place, backbone in enumerate(dict.fromkeys(trial.backbone for trial in trials))}
    return sorted(trials, key=lambda trial: order[trial.backbone])


def _own_cells(sweep: SweepSpec) -> Iterator[TrialSpec]:
    tasks = _TaskFacts()
    planned = [(entry, [tasks.of(task) for task in entry.tasks]) for entry in sweep.tasks]
    for backbone in sweep.backbones:
        recipes: dict[str, list[_Recipe]] = {}
        for task_entry, facts in planned:
            key = recipe_json(task_entry.recipe) if task_entry.recipe.model_fields_set else ""
            key += ",".join(sorted(task_entry.recipe.model_fields_set))  # a default that is written counts as well
            if key not in recipes:
                axes = _axes(sweep, backbone)
                recipes[key] = list(_recipes(sweep.recipe, backbone, task_entry.recipe, axes))
            yield from _cells(sweep, backbone, task_entry, facts, recipes[key])
    listed: dict[str, list[_Recipe]] = {}
    for place, entry in enumerate(sweep.trials):
        backbone = _alone(sweep, entry, place)
        key = entry.backbone
        if entry.recipe.model_fields_set:
            key += json.dumps(entry.recipe.model_dump(mode="json", exclude_unset=True), sort_keys=True)
        if key not in listed:
            listed[key] = list(_recipes(sweep.recipe, backbone, TrainRecipe(), {}))
        yield from _cells(sweep, backbone, entry.task, [tasks.of(task) for task in entry.task.tasks], listed[key])


def _alone(sweep: SweepSpec, entry: TrialEntry, place: int) -> BackboneEntry:
    """A listed trial as a backbone with one value on each axis."""
    varies_with = backbone_spec(entry.backbone).varies_with

    def one(key: str, axis: Literal["seed", "n_train", "lora_rank"], values: Sequence[Any] | None) -> tuple[Any, ...]:
        own = getattr(entry, axis)
        if own is not None:
            return (own,)
        if axis in varies_with and len(values or ()) != 1:
            several = f"the sweep has several {key}: {list(values)}" if values else f"the sweep has no {key}"
            raise ValueError(f"trials[{place}].{axis}: missing, and {several}; give it one")
        return tuple(values or (0,))

    return BackboneEntry.model_construct(
        name=entry.backbone,
        recipe=entry.recipe,
        placement=entry.placement,
        axes={},
        seeds=one("seeds", "seed", sweep.seeds),
        n_train=one("n_train", "n_train", sweep.n_train),
        lora_rank=one("lora_rank", "lora_rank", sweep.lora_rank),
        n_test=entry.n_test,
    )


@dataclass(frozen=True)
class _Task:
    """What all cells of one task share."""

    spec: TaskSpec
    json: str
    generator_version: int
    num_train_given: int | None
    """Training problems there are; None where as many as are asked for are generated."""
    num_test_given: int | None

    def sizes(self, asked: Sequence[int | Literal["all"]]) -> list[int]:
        """The training sets asked for, as numbers."""
        return list(dict.fromkeys(self._size(size) for size in asked))

    def _size(self, size: int | Literal["all"]) -> int:
        if size != "all":
            if self.num_train_given is None or size <= self.num_train_given:
                return size
            raise ValueError(
                f"n_train = {size}: {self.spec.label()} has {self.num_train_given} training problems; lower it or use "
                f"all; a task may have an n_train of its own: {self.spec.name}: {{..., n_train: [all]}}"
            )
        if self.num_train_given is None:
            raise ValueError(
                f"n_train = all: {self.spec.label()} generates as many problems as are asked for; give numbers; "
                f"a task may have an n_train of its own: {self.spec.name}: {{..., n_train: [3, 10]}}"
            )
        return self.num_train_given

    def n_test(self, asked: int | Literal["all"]) -> int:
        """The size of the test set, as a number."""
        if self.num_test_given is not None:
            return self.num_test_given
        if asked == "all":
            raise ValueError(
                f"n_test = all: {self.spec.label()} generates as many problems as are asked for; give a number (tasks "
                "that generate none are always tested on all of theirs)"
            )
        return asked


class _TaskFacts:
    """Works out what the cells of a task share, once for equal tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def of(self, task: TaskSpec) -> _Task:
        key = task_json(task)
        if key not in self._tasks:
            given = [num_given(task, split) for split in (Split.TRAIN, Split.TEST)]
            self._tasks[key] = _Task(task, key, task.build().generator_version, *given)
        return self._tasks[key]


@dataclass(frozen=True)
class _Recipe:
    spec: TrainRecipe
    json: str


def _recipes(
    sweep_recipe: TrainRecipe, backbone: BackboneEntry, task_recipe: TrainRecipe, axes: dict[str, tuple[Any, ...]]
) -> Iterator[_Recipe]:
    """The recipes of one backbone on the tasks of one entry, one for each combination of the axes' values."""
    for name in axes:
        if name in task_recipe.model_fields_set:
            raise ValueError(f"axes.{name}: a task's own recipe fixes {name}; remove one of them")
    fields = dict(backbone_spec(backbone.name).recipe)
    for layer in (sweep_recipe, backbone.recipe, task_recipe):
        fields |= layer.model_dump(exclude_unset=True)
    for values in product(*axes.values()):
        recipe = TrainRecipe(**fields | dict(zip(axes, values, strict=True)))
        yield _Recipe(recipe, recipe_json(recipe))


def _axes(sweep: SweepSpec, entry: BackboneEntry) -> dict[str, tuple[Any, ...]]:
    """The recipe fields that vary for a backbone: its own axes, and the sweep's but for those that its own recipe fixes
    or that mean nothing to it."""
    spec = backbone_spec(entry.name)
    ignored = IGNORED_FIELDS.get(spec.family, frozenset())
    for name in entry.axes:
        if name in entry.recipe.model_fields_set:
            raise ValueError(f"axes.{name}: the recipe of {entry.name} fixes {name}; remove one of them")
        if name in ignored or not spec.trainable:
            raise ValueError(f"axes.{name}: means nothing to {entry.name}; remove it")
    fixed = entry.recipe.model_fields_set | ignored
    return {name: values for name, values in sweep.axes.items() if spec.trainable and name not in fixed} | entry.axes


def _cells(
    sweep: SweepSpec,
    backbone: BackboneEntry,
    task_entry: TaskEntry,
    tasks: Sequence[_Task],
    recipes: Sequence[_Recipe],
) -> Iterator[TrialSpec]:
    """The trials of one backbone on the tasks of one entry; the task's keys win over the backbone's, those over the
    sweep's."""
    spec = backbone_spec(backbone.name)
    layers = (task_entry, backbone, sweep)

    def said(key: str) -> Any:
        return next((value for value in (getattr(layer, key) for layer in layers) if value is not None), None)

    placement = _placement(sweep, backbone, task_entry)
    seeds = said("seeds") if "seed" in spec.varies_with else (0,)
    ranks = said("lora_rank") if "lora_rank" in spec.varies_with else (0,)
    n_train = said("n_train") if "n_train" in spec.varies_with else None
    if n_train is None and "n_train" in spec.varies_with:
        raise ValueError(f"n_train: missing; keys: {', '.join(type(sweep).model_fields)}")
    numbers = [((0,) if n_train is None else task.sizes(n_train), task.n_test(said("n_test"))) for task in tasks]
    for recipe in recipes:
        for task, (sizes, n_test) in zip(tasks, numbers, strict=True):
            ids = TrialIds(spec, task.json, task.generator_version, recipe.json)
            for lora_rank, size, seed in product(ranks, sizes, seeds):
                trial = TrialSpec.model_construct(
                    backbone=backbone.name,
                    task=task.spec,
                    seed=seed,
                    n_train=size,
                    lora_rank=lora_rank,
                    n_test=n_test,
                    recipe=recipe.spec,
                    placement=placement,
                )
                trial.__dict__["trial_id"] = ids.of(seed, size, lora_rank, n_test)
                yield trial


def _placement(sweep: SweepSpec, backbone: BackboneEntry, task: TaskEntry) -> Placement:
    own = [layer.placement for layer in (backbone, task) if layer.placement.model_fields_set]
    if not own:
        return sweep.placement
    fields = sweep.placement.model_dump(exclude_unset=True)
    for placement in own:
        fields |= placement.model_dump(exclude_unset=True)
    return Placement(**fields)
