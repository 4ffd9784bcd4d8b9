"""``search: optuna``: points of a space of recipes, proposed by Ray Tune's ``OptunaSearch``, each run with all seeds.

Every study (``orchestrator.search_plan``) has a search of its own, which keeps ``concurrent`` points open. A point is
told to it once all its trials have ended: the mean of their scores, of those that have one. Tune's ``Repeater``
averages too, but knows no point that an earlier run has begun, and tells not-a-number where all repeats failed.

What is proposed depends on the sampler's seed, the study, and the points that were told and are open: so a search that
goes on from the tables proposes what it would have proposed without the interruption, as long as one trial runs at a
time; with several, what they end with and when decides as well.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.optuna import OptunaSearch

from orchestrator.pruning import VALIDATION
from orchestrator.search_entries import NumberRange, OptunaEntry, Space, holds_integers
from orchestrator.search_plan import Point, Study, last_value, point_key, studies, tried_points
from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState
from orchestrator.trial_spec import task_json
from trainers.rng import hashed_seed

MAX_REPEATED_PROPOSALS = 20
"""So many proposals of points that were tried before, one after the other, and a point is taken that was not."""
DIGITS, EXACT_DIGITS = 4, 12
"""Significant digits of the numbers that are tried; of steps of a range, of which rounding must lose none."""
RANDOM_SHARE, MOST_RANDOM = 3, 10
"""The first third of the samples, at most ten, is drawn at random: the model of the score needs some to begin with."""


class OptunaTrials:
    """The trials of all studies of a sweep; a ``TrialSource``.

    Args:
        cells: the sweep's cells, as ``expand`` gives them.
        entry: what is varied, and how often.
        rows: rows of ``trials`` with ``search_plan.ROW_COLUMNS``: their points are given out first, so that what an
            earlier run began is ended, and count towards ``num_samples``.
    """

    def __init__(self, cells: Sequence[TrialSpec], entry: OptunaEntry, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        found, self._fixed = studies(entry, cells)
        tried = tried_points(found, rows)
        self._searches = [_Search(study, entry, points) for study, points in zip(found, tried, strict=True)]
        self._num_fixed = len(self._fixed)
        self._owners: dict[str, _Search] = {}
        self._studies: dict[str, int] = {}

    def ready(self) -> list[TrialSpec]:
        """The trials of the points that are open now and were not given out."""
        trials, self._fixed = self._fixed, []
        for number, search in enumerate(self._searches):
            if search.may_propose:
                given = search.ready()
                self._studies |= dict.fromkeys((trial.trial_id for trial in given), number)
                self._owners |= dict.fromkeys((trial.trial_id for trial in given), search)
                trials = [*trials, *given]
        return trials

    def ended(self, trial: TrialSpec, state: TrialState, metrics: Mapping[str, float]) -> None:
        """One of them has its row; that of a point's last seed is told to its study."""
        search = self._owners.pop(trial.trial_id, None)
        if search is not None:
            search.ended(trial, state, metrics)

    def study_of(self, trial: TrialSpec) -> int | None:
        """The number of the study that a trial was given out for; None for a cell that nothing is varied of."""
        return self._studies.get(trial.trial_id)

    def total(self) -> int:
        """Every sample with every seed, and the cells that nothing is varied of."""
        return self._num_fixed + sum(search.total() for search in self._searches)


@dataclass
class _Open:
    """A point some of whose trials have not ended."""

    point: Point
    ticket: str | None
    """Under which the study proposed it; None: it comes from the tables, or was taken in place of a proposal."""
    waiting: set[str]
    scores: list[float] = field(default_factory=list)


class _Search:
    def __init__(self, study: Study, entry: OptunaEntry, tried: Sequence[Point]) -> None:
        self._study, self._entry, self._tried = study, entry, tried
        self._num_samples = max(study.num_samples, len(tried))
        cell = study.cells[0]
        numbers = (cell.n_train, cell.n_test, cell.lora_rank)
        key = (entry.sampler_seed, cell.backbone, task_json(cell.task), *numbers, cell.recipe_json())
        num_random = min(MOST_RANDOM, max(1, study.num_samples // RANDOM_SHARE))
        self._sampler = KeyedSampler(key, num_random)
        self._distributions = distributions(study.space)
        with _quiet_optuna():
            self._optuna = OptunaSearch(
                space=self._distributions, metric=entry.metric, mode=entry.mode, sampler=self._sampler
            )
        self._points: dict[str, Point] = {}
        self._open: dict[str, _Open] = {}
        self._by_trial: dict[str, str] = {}
        self._num_given = 0

    @property
    def may_propose(self) -> bool:
        """Whether ``ready`` may give something."""
        is_full = len(self._open) >= self._entry.concurrent
        return bool(self._tried) or not (is_full or len(self._points) >= self._num_samples)

    def ready(self) -> list[TrialSpec]:
        if self._tried:  # before anything is proposed: the study has yet to learn what became of them
            trials = [trial for point in self._tried for trial in self._give(point, None)]
            self._tried = ()
            return trials
        trials = []
        while self.may_propose:
            ticket, point = self._propose()
            trials += self._give(point, ticket)
        return trials

    def ended(self, trial: TrialSpec, state: TrialState, metrics: Mapping[str, float]) -> None:
        key = self._by_trial.pop(trial.trial_id)
        opened = self._open[key]
        opened.waiting.remove(trial.trial_id)
        score = self._score(trial, state, metrics)
        if score is not None:
            opened.scores.append(score)
        if not opened.waiting:
            self._close(key)

    def total(self) -> int:
        return self._num_given + (self._num_samples - len(self._points)) * len(self._study.cells)

    def _give(self, point: Point, ticket: str | None) -> list[TrialSpec]:
        key = point_key(point)
        self._points[key] = point
        try:
            trials = self._study.trials(point)
        except ValueError as error:  # values that a recipe cannot have together: to the study it is a failure
            warnings.warn(f"{error} (the search goes on with other points)", stacklevel=2)
            trials = []
        self._open[key] = _Open(point, ticket, {trial.trial_id for trial in trials})
        self._by_trial |= dict.fromkeys(self._open[key].waiting, key)
        self._num_given += len(trials)
        if not trials:
            self._close(key)
        return trials

    def _propose(self) -> tuple[str | None, Point]:
        """The next point and the study's ticket for it: one that was not tried."""
        for repeat in range(MAX_REPEATED_PROPOSALS):
            ticket = f"{len(self._points)}/{repeat}"
            self._sampler.place = (len(self._points), repeat)
            with _quiet_optuna():
                proposed = self._optuna.suggest(ticket)
            assert proposed is not None
            point = {name: _value(self._study.space[name], value) for name, value in proposed.items()}
            if point_key(point) not in self._points:
                return ticket, point
            self._optuna.on_trial_complete(ticket, error=True)
        return None, next(self._study.other_points(self._points.values()))

    def _score(self, trial: TrialSpec, state: TrialState, metrics: Mapping[str, float]) -> float | None:
        name = self._entry.metric
        if state == TrialState.PRUNED:
            name = VALIDATION + name
        score = metrics.get(name)
        if score is None and state != TrialState.FAILED:
            has = ", ".join(sorted(metrics))
            warnings.warn(f"search.optuna.metric = {name}: {trial.label()} has no such score, but {has}", stacklevel=2)
        return None if score is None or math.isnan(score) else float(score)

    def _close(self, key: str) -> None:
        """Tell the study what a point is worth."""
        opened = self._open.pop(key)
        mean = math.fsum(opened.scores) / len(opened.scores) if opened.scores else None
        values = {name: _category(self._study.space[name], value) for name, value in opened.point.items()}
        with _quiet_optuna():
            if opened.ticket is not None:  # it proposed numbers unrounded; a later run can only tell the point
                self._optuna.on_trial_complete(opened.ticket, error=True)
            self._optuna.add_evaluated_point(values, 0.0 if mean is None else mean, error=mean is None)


class KeyedSampler(optuna.samplers.BaseSampler):
    """Tree-structured Parzen estimators (Bergstra et al., 2011) as Optuna has them, drawn anew for each proposal from
    a generator of its own: what was drawn before, in this process or an earlier one, makes no difference.

    ``place`` names the next proposal. Points that are open count as poor ones, so that several that are proposed before
    any of them has ended differ.
    """

    def __init__(self, key: Sequence[str | int], num_random: int) -> None:
        self._key, self._num_random = tuple(key), num_random
        self.place: tuple[int, ...] = (0,)
        self._tpe = self._drawn_anew()

    def _drawn_anew(self) -> optuna.samplers.TPESampler:
        seed = hashed_seed("optuna", *self._key, *self.place) % 2**32
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._num_random, constant_liar=True)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        """As ``TPESampler``; Optuna asks this first of each proposal."""
        self._tpe = self._drawn_anew()
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """As ``TPESampler``."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """As ``TPESampler``."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """A space in Optuna's terms."""
    return {name: _distribution(name, values) for name, values in space.items()}


def _distribution(name: str, values: NumberRange | tuple[Any, ...]) -> BaseDistribution:
    if not isinstance(values, NumberRange):
        return CategoricalDistribution([_category(values, value) for value in values])
    high = last_value(values)
    if holds_integers(name):
        return IntDistribution(round(values.low), round(high), log=values.log, step=round(values.step or 1))
    return FloatDistribution(values.low, high, log=values.log, step=values.step)


def _category(values: NumberRange | tuple[Any, ...], value: Any) -> Any:
    """A value as Optuna takes it: lists, which it does not, as JSON."""
    is_plain = isinstance(values, NumberRange) or value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else json.dumps(value)


def _value(values: NumberRange | tuple[Any, ...], category: Any) -> Any:
    """What a point has of a value that Optuna proposes: numbers rounded, so that people can write them."""
    if isinstance(values, NumberRange):
        if not isinstance(category, float):
            return category
        digits = DIGITS if values.step is None else EXACT_DIGITS
        return min(max(float(f"{category:.{digits}g}"), values.low), values.high)
    return next(value for value in values if _category(values, value) == category)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Without Optuna's lines about every trial, and its word that liars are an experiment (before version 5)."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
