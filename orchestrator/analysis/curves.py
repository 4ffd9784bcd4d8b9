"""Learning curves: one row a (curve, n_train), with an interval and what is not there; and the area under each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from orchestrator.analysis.bootstrap import accuracy_draws, percentile_interval
from orchestrator.analysis.cells import (
    CURVE,
    IDENTITY_COLUMNS,
    MAX_VARIANTS,
    Cell,
    counting,
    curves_of,
    learning,
    pooled_variants,
    variants_label,
)
from orchestrator.analysis.intervals import KINDS, Floats, clustered_interval, seeds_interval, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.tables import TrialState

if TYPE_CHECKING:
    from orchestrator.specs import TrialSpec

__all__ = [
    "CURVE",
    "MAX_VARIANTS",
    "MISSING",
    "areas_under_curve",
    "learning_curves",
    "variants_label",
    "with_missing",
]

MISSING = "missing"
"""State of a trial of a sweep that has no row yet."""
_COUNTS = ["n_test", "done", "failed", "missing"]


def with_missing(trials: pd.DataFrame, specs: Sequence[TrialSpec]) -> pd.DataFrame:
    """The rows of the trials ``specs``, in their order; a trial without a row gets one with the state ``missing``."""
    wanted = pd.DataFrame(
        {
            "trial_id": [spec.trial_id for spec in specs],
            "backbone": [spec.backbone for spec in specs],
            "family": [spec.backbone_spec.family for spec in specs],
            "task": [spec.task.name for spec in specs],
            "task_params": [spec.task.params_json() for spec in specs],
            "seed": [spec.seed for spec in specs],
            "n_train": [spec.n_train for spec in specs],
            "n_test": [spec.n_test for spec in specs],
            "lora_rank": [spec.lora_rank for spec in specs],
            "recipe": [spec.recipe_json() for spec in specs],
        }
    )
    measured = trials.drop(columns=[name for name in wanted if name != "trial_id"])
    rows = wanted.merge(measured, on="trial_id", how="left", validate="one_to_one")
    rows["state"] = rows["state"].fillna(MISSING)
    return rows


def learning_curves(
    trials: pd.DataFrame, predictions: pd.DataFrame | Outcomes | None = None, *, interval: str | None = None
) -> pd.DataFrame:
    """One row a (curve, n_train): means over seeds of finished trials, with an interval and what is not there.

    Columns: those of ``CURVE``, ``task_label``, ``family``, ``n_train``, ``exact_match``, ``cell_accuracy`` (means over
    seeds, null where nothing finished), ``low`` and ``high`` (95 % interval of ``exact_match``), ``interval`` (what it
    is over), ``seeds`` (finished ones), ``n_test``, and the number of trials by state: ``done``, ``failed``,
    ``missing``. Rows keep the order in which curves first appear in ``trials``. A task with more than ``MAX_VARIANTS``
    variants has one curve for all of them, and its variants count as clusters of test problems.

    ``interval`` asks for one over ``problems``, ``seeds`` or ``both`` (see ``clustered_interval``); None is both where
    several seeds and their ``predictions`` are there. Where what is asked for cannot be had it is over the problems,
    and the column says so: of one seed it tells nothing of what another would do, and from ``trials`` alone all
    seeds count as one (Wilson's interval on ``n_test``), because they answer the same problems.

    Raises:
        ValueError: ``interval`` is none of those.
    """
    if interval is not None and interval not in KINDS:
        raise ValueError(f"interval: {interval!r} is none of {', '.join(KINDS)}")
    curves = _means(trials)
    cells = {
        (*curve.key, cell.n_train): _interval(cell, interval)
        for curve in curves_of(trials, predictions)
        for cell in curve.cells
    }
    nothing = (np.nan, np.nan, None, 0)
    keys = zip(*(curves[name] for name in [*CURVE, "n_train"]), strict=True)
    estimates = pd.DataFrame(
        [cells.get(key, nothing) for key in keys], columns=["low", "high", "interval", "seeds"], index=curves.index
    )
    counts = curves[_COUNTS]
    return pd.concat([curves.drop(columns=_COUNTS), estimates, counts], axis=1)


def areas_under_curve(trials: pd.DataFrame, predictions: pd.DataFrame | Outcomes | None = None) -> pd.DataFrame:
    """One row a curve of a trained backbone: the mean of its exact match over log n_train.

    Columns: those of ``CURVE``, ``task_label``, ``family``, ``area`` (trapezoids between the finished sizes over their
    range, 0 to 1; of a single size its exact match), ``low`` and ``high`` (95 %, by ``accuracy_draws``), ``interval``
    (``problems``, ``both``, or ``binomial`` without predictions), ``smallest`` and ``largest`` n_train (areas compare
    where these agree), ``seeds`` and ``n_test`` (fewest of any size).
    """
    rows = []
    for place, curve in enumerate(learning(curves_of(trials, predictions))):
        weight_K = trapezoid_weights(np.array([cell.n_train for cell in curve.sizes], dtype=float))
        low, high = percentile_interval(accuracy_draws(curve, place) @ weight_K)
        area = float(np.array([cell.mean for cell in curve.sizes]) @ weight_K)
        estimates = {"area": area, "low": low, "high": high, "interval": curve.interval}
        rows.append(curve.columns() | estimates | curve.counts())
    columns = ["area", "low", "high", "interval", "smallest", "largest", "seeds", "n_test"]
    return pd.DataFrame(rows, columns=[*IDENTITY_COLUMNS, *columns])


def trapezoid_weights(sizes_K: Floats) -> Floats:
    """(K,): weights of which the sum of values is their mean over log n_train; they add to 1."""
    if len(sizes_K) == 1:
        return np.ones(1)
    gaps = np.diff(np.log(sizes_K))
    weights: Floats = (np.r_[gaps, 0] + np.r_[0, gaps]) / (2 * gaps.sum())
    return weights


def _interval(cell: Cell, wanted: str | None) -> tuple[float, float, str, int]:
    """Low, high, what the interval is over, and the number of seeds."""
    num_seeds = len(cell.seeds)
    if cell.knows_seeds and (wanted == "seeds"):
        n_test = cell.n_test if cell.right_SC is None else cell.right_SC.shape[1]
        return *seeds_interval(cell.scores_S, n_test=n_test), "seeds", num_seeds
    if cell.right_SC is None:
        low, high = wilson_interval(cell.mean, cell.n_test)
        return float(low), float(high), "problems", num_seeds
    kind = "both" if cell.knows_seeds and wanted != "problems" else "problems"
    return *clustered_interval(cell.right_SC, kind, weight_N=cell.weight_C), kind, num_seeds


def _means(trials: pd.DataFrame) -> pd.DataFrame:
    """The means and counts of ``learning_curves``. Of pooled variants over all their test problems."""
    trials = counting(trials)
    done = trials["state"] == TrialState.DONE
    counted = pooled_variants(trials).assign(
        exact_match=trials["exact_match"].where(done),
        cell_accuracy=trials["cell_accuracy"].where(done),
        done=done,
        failed=trials["state"] == TrialState.FAILED,
        missing=trials["state"] == MISSING,
    )
    keys = [*CURVE, "n_train"]
    curves = (
        counted.groupby([*keys, "variant"], sort=False)
        .agg(
            task_label=("task_label", "first"),
            family=("family", "first"),
            exact_match=("exact_match", "mean"),
            cell_accuracy=("cell_accuracy", "mean"),
            n_test=("n_test", "min"),
            done=("done", "sum"),
            failed=("failed", "sum"),
            missing=("missing", "sum"),
        )
        .reset_index()
    )
    columns = [*IDENTITY_COLUMNS, "n_train", "exact_match", "cell_accuracy", *_COUNTS]
    pooled = curves["variant"] != ""
    if not pooled.any():
        return curves[columns]
    answered = curves["n_test"].where(curves["exact_match"].notna(), 0)
    scores = {score: curves[score] * curves["n_test"] for score in ("exact_match", "cell_accuracy")}
    names = {"task_label": "first", "family": "first"}
    sums = dict.fromkeys(("exact_match", "cell_accuracy", "answered", *_COUNTS), "sum")
    whole = curves.assign(**scores, answered=answered).groupby(keys, sort=False).agg(names | sums).reset_index()
    for score in scores:
        whole[score] = whole[score] / whole["answered"].where(whole["answered"] > 0)
    return whole[columns]
