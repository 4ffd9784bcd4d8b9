"""The points of learning curves with what their intervals are made from: scores by training seed and test problem.

Shapes: S seeds, C clusters of test problems (a problem each; of a pooled task a variant each, such as one ARC task with
its inputs). The clusters of one task are the same for all of its curves, so that curves can be compared on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.intervals import Floats, VarianceParts, variance_parts
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.tables import TrialState, task_label
from task_generators.task import task_class, task_names

CURVE = ["task", "task_params", "backbone", "lora_rank", "recipe"]
"""Columns that name one learning curve."""
MAX_VARIANTS = 20
"""A task with more variants than this (400 of ``arc``) counts as one, where each would take a line or a panel."""
BASELINE = "baseline"
"""The family of what is not trained."""


@dataclass(frozen=True)
class Cell:
    """One point of a learning curve: the finished trials of one n_train."""

    n_train: int
    mean: float
    """Exact match, 0 to 1, over seeds."""
    n_test: int
    seeds: tuple[int, ...]
    right_SC: Floats | None  # noqa: N815
    """Scores by seed and cluster; None where no predictions tell them, only the means. A single row for several seeds
    where these did not answer the same clusters (a sweep in progress)."""
    weight_C: Floats | None  # noqa: N815
    """Each cluster's share of the test problems; adds to 1."""
    scores_S: Floats  # noqa: N815
    """Exact match by seed; the pooled variants that all seeds have."""

    @property
    def knows_problems(self) -> bool:
        """Whether the answers are known problem by problem."""
        return self.right_SC is not None

    @property
    def knows_seeds(self) -> bool:
        """Whether several seeds can be told apart."""
        return len(self.scores_S) > 1 and (self.right_SC is None or len(self.right_SC) > 1)

    @cached_property
    def parts(self) -> VarianceParts:
        """What the variance of ``mean`` consists of. From means alone all problems count as answered alike by all
        seeds, which is the most that they can add."""
        if self.right_SC is not None:
            return variance_parts(self.right_SC, self.weight_C)
        num_seeds = len(self.scores_S)
        seeds = float(self.scores_S.var(ddof=1)) / num_seeds if num_seeds > 1 else 0.0
        return VarianceParts(self.mean, self.mean * (1 - self.mean) / max(self.n_test, 1), seeds, 0.0)


@dataclass(frozen=True)
class Curve:
    """One learning curve: finished points by n_train, of one (task, task_params, backbone, lora_rank, recipe)."""

    key: tuple[object, ...]
    """Values of ``CURVE``; ``task_params`` of a pooled task is its label."""
    task_label: str
    family: str
    cells: tuple[Cell, ...]

    @property
    def sizes(self) -> tuple[Cell, ...]:
        """The points with training problems."""
        return tuple(cell for cell in self.cells if cell.n_train > 0)

    @property
    def zero_shot(self) -> Cell | None:
        """The point without training problems, if it was measured."""
        return next((cell for cell in self.cells if cell.n_train == 0), None)

    @property
    def interval(self) -> str:
        """What an interval of the curve as a whole can be of: ``problems`` with one seed at some size, else ``both``;
        ``binomial`` where only the means are known at some size."""
        if not all(cell.knows_problems for cell in self.sizes):
            return "binomial"
        return "both" if all(cell.knows_seeds for cell in self.sizes) else "problems"

    def columns(self) -> dict[str, object]:
        """The identifying columns of a row for this curve."""
        return dict(zip(CURVE, self.key, strict=True)) | {"task_label": self.task_label, "family": self.family}

    def counts(self) -> dict[str, int]:
        """``smallest`` and ``largest`` n_train, fewest ``seeds`` and ``n_test`` of a point."""
        return {
            "smallest": self.sizes[0].n_train,
            "largest": self.sizes[-1].n_train,
            "seeds": min(len(cell.seeds) for cell in self.sizes),
            "n_test": min(cell.n_test for cell in self.sizes),
        }


IDENTITY_COLUMNS = [*CURVE, "task_label", "family"]
"""The columns with which a frame of one row a curve starts."""


def variants_label(task: str, num_variants: int) -> str:
    """The name of many variants of one task as a whole: ``arc (400 variants)``."""
    return f"{task} ({num_variants} variants)"


def pooled_variants(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials`` with the columns ``task_label`` and ``variant``: of a task with more than ``MAX_VARIANTS`` variants
    ``task_params`` and ``task_label`` name them as a whole and ``variant`` holds what ``task_params`` was, else "".

    Training sets that come with the variants, such as ARC's, differ in size, and go to ``n_train`` 0.
    """
    variants = trials[["task", "task_params"]].drop_duplicates()
    counts = variants["task"].value_counts()
    labels = {
        (task, params): variants_label(task, counts[task]) if counts[task] > MAX_VARIANTS else task_label(task, params)
        for task, params in variants.itertuples(index=False)
    }
    many = trials["task"].map(counts).gt(MAX_VARIANTS).to_numpy(bool)
    pairs = zip(trials["task"], trials["task_params"], strict=True)
    pooled = trials.assign(task_label=[labels[pair] for pair in pairs], variant=trials["task_params"].where(many, ""))
    pooled["task_params"] = pooled["task_params"].mask(many, pooled["task_label"])
    names = counts.index[counts > MAX_VARIANTS]
    given = [name for name in names if name in task_names() and not task_class(name).can_generate()]
    pooled["n_train"] = pooled["n_train"].mask(pooled["task"].isin(given), 0)
    return pooled


def outcomes_of(predictions: pd.DataFrame | Outcomes | None) -> Outcomes:
    """Who got which problem right; what was made into ``Outcomes`` already stays so, None is nobody."""
    if predictions is None:
        return Outcomes({})
    return predictions if isinstance(predictions, Outcomes) else Outcomes.of(predictions)


def counting(trials: pd.DataFrame, *, given_at_largest: bool = False) -> pd.DataFrame:
    """``trials`` without finished ones that another one stands for, so that no cell counts twice.

    Of trials that differ in ``n_test`` alone (an ``n_test`` that was changed, several folders) the one with most test
    problems counts. Of a task that brings its training sets (ARC) and is pooled by ``pooled_variants``, or with
    ``given_at_largest`` of every such task, those with the most training problems count.
    """
    if not trials.index.is_unique:
        trials = trials.reset_index(drop=True)
    done = (trials["state"] == TrialState.DONE).to_numpy()
    finished = trials[done]
    if finished.empty:
        return trials
    cell = [*CURVE, "n_train", "seed"]
    stands = finished.sort_values("n_test", kind="stable").drop_duplicates(cell, keep="last")
    names = [name for name in stands["task"].unique() if name in task_names() and not task_class(name).can_generate()]
    if names:
        variants = trials.groupby("task")["task_params"].nunique()
        names = [name for name in names if given_at_largest or variants[name] > MAX_VARIANTS]
        largest = stands.groupby(CURVE, sort=False)["n_train"].transform("max")
        stands = stands[~stands["task"].isin(names) | (stands["n_train"] == largest)]
    return trials[~done | trials.index.isin(stands.index)]


def curves_of(trials: pd.DataFrame, predictions: pd.DataFrame | Outcomes | None) -> list[Curve]:
    """The curves of finished trials, in the order in which they first appear.

    Of trials that differ in ``n_test`` alone one counts, see ``counting``.
    """
    outcomes = outcomes_of(predictions)
    trials = counting(trials)
    done = (trials["state"] == TrialState.DONE) & trials["exact_match"].notna()
    if not done.any():
        return []
    rows = pooled_variants(trials)[done]
    rows = rows.assign(order=rows.groupby(CURVE, sort=False).ngroup())
    rows = rows.sort_values(["order", "n_train", "seed", "variant"], kind="stable")
    keys = list(zip(*(rows[name].tolist() for name in [*CURVE, "task_label", "family"]), strict=True))
    columns = _Columns(
        rows["trial_id"].to_numpy(object),
        rows["n_train"].to_numpy(np.int64),
        rows["seed"].to_numpy(np.int64),
        rows["variant"].to_numpy(object),
        rows["n_test"].to_numpy(np.int64),
        rows["exact_match"].to_numpy(np.float64),
    )
    curves = []
    for start, end in _runs(rows["order"].to_numpy(), 0, len(rows)):
        cells = tuple(_cell(columns.of(*run), outcomes) for run in _runs(columns.n_train, start, end))
        *key, label, family = keys[start]
        curves.append(Curve(tuple(key), label, family, cells))
    return curves


def learning(curves: Sequence[Curve]) -> list[Curve]:
    """Those that are trained with at least one n_train: neither baselines nor models as they are."""
    return [curve for curve in curves if curve.family != BASELINE and curve.sizes]


class _Columns(NamedTuple):
    """Finished trials, one a place."""

    trial_id: npt.NDArray[np.object_]
    n_train: npt.NDArray[np.int64]
    seed: npt.NDArray[np.int64]
    variant: npt.NDArray[np.object_]
    n_test: npt.NDArray[np.int64]
    exact_match: Floats

    def of(self, start: int, end: int) -> _Columns:
        run = slice(start, end)
        ids, sizes, seeds, variants, n_tests, scores = self
        return _Columns(ids[run], sizes[run], seeds[run], variants[run], n_tests[run], scores[run])


def _runs(values: npt.NDArray[np.int64], start: int, end: int) -> list[tuple[int, int]]:
    """Start and end of each stretch of equal ``values`` from ``start`` to ``end``."""
    changes = np.flatnonzero(values[start + 1 : end] != values[start : end - 1]) + start + 1
    return list(pairwise([start, *changes.tolist(), end]))


def _cell(trials: _Columns, outcomes: Outcomes) -> Cell:
    if trials.variant[0] != "":
        return _pooled_cell(trials)
    n_train, n_test, scores = int(trials.n_train[0]), int(trials.n_test.min()), trials.exact_match
    stacked = outcomes.stacked(trials.trial_id)
    # Seeds with test sets of several sizes have means over other problems than those they have in common.
    whole = len(stacked) == len(scores) and stacked.shape[1] > 0 and trials.n_test.min() == trials.n_test.max()
    right_SC = stacked if whole else None
    weight_C = None if right_SC is None else np.full(right_SC.shape[1], 1 / right_SC.shape[1])
    return Cell(n_train, float(scores.mean()), n_test, tuple(trials.seed.tolist()), right_SC, weight_C, scores)


def _pooled_cell(trials: _Columns) -> Cell:
    variants, variant_of = np.unique(trials.variant, return_inverse=True)
    seeds, seed_of = np.unique(trials.seed, return_inverse=True)
    score_SC = np.full((len(seeds), len(variants)), np.nan)
    score_SC[seed_of, variant_of] = trials.exact_match
    num_inputs_C = np.full(len(variants), np.iinfo(np.int64).max)
    np.minimum.at(num_inputs_C, variant_of, trials.n_test)
    if np.isnan(score_SC).any():
        score_SC = np.nanmean(score_SC, axis=0, keepdims=True)
    weight_C = num_inputs_C / num_inputs_C.sum()
    scores_S = score_SC @ weight_C
    n_train, n_test = int(trials.n_train[0]), int(num_inputs_C.sum())
    return Cell(n_train, float(scores_S.mean()), n_test, tuple(seeds.tolist()), score_SC, weight_C, scores_S)
