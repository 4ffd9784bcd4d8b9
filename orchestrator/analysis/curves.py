"""Learning curves: one row a (curve, n_train), with an interval and what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.analysis.intervals import wilson_interval
from orchestrator.tables import TrialState, task_label
from task_generators.task import task_class, task_names

if TYPE_CHECKING:
    from orchestrator.specs import TrialSpec

CURVE = ["task", "task_params", "backbone", "lora_rank", "recipe"]
"""Columns that name one learning curve."""
MISSING = "missing"
"""State of a trial of a sweep that has no row yet."""
MAX_VARIANTS = 20
"""A task with more variants than this (400 of ``arc``) counts as one, where each would take a line or a panel."""


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


def learning_curves(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a (curve, n_train): means over seeds of finished trials, with an interval and what is not there.

    Columns: those of ``CURVE``, ``family``, ``task_label``, ``n_train``, ``exact_match``, ``cell_accuracy`` (means over
    seeds, null where nothing finished), ``low`` and ``high`` (95 % Wilson interval of ``exact_match`` over the test
    problems; all seeds answer the same ones, so more seeds do not narrow it), ``n_test``, and the number of trials by
    state: ``done``, ``failed``, ``missing``. Rows keep the order in which curves first appear in ``trials``. A task
    with more than ``MAX_VARIANTS`` variants has one curve for all of them.
    """
    done = trials["state"] == TrialState.DONE
    counted = trials.assign(
        exact_match=trials["exact_match"].where(done),
        cell_accuracy=trials["cell_accuracy"].where(done),
        done=done,
        failed=trials["state"] == TrialState.FAILED,
        missing=trials["state"] == MISSING,
    )
    curves = (
        counted.groupby([*CURVE, "n_train"], sort=False)
        .agg(
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
    pairs = zip(curves["task"], curves["task_params"], strict=True)
    curves["task_label"] = [task_label(task, params) for task, params in pairs]
    curves = _pool_variants(curves)
    curves["low"], curves["high"] = wilson_interval(curves["exact_match"], curves["n_test"])
    return curves


def variants_label(task: str, num_variants: int) -> str:
    """The name of many variants of one task as a whole: ``arc (400 variants)``."""
    return f"{task} ({num_variants} variants)"


def _pool_variants(curves: pd.DataFrame) -> pd.DataFrame:
    """One curve in place of those of all variants of a task that has more than ``MAX_VARIANTS``: means over all their
    test problems. Training sets that come with the variants, such as ARC's, differ in size, and go to ``n_train`` 0."""
    num_variants = curves.groupby("task")["task_params"].transform("nunique")
    many = num_variants > MAX_VARIANTS
    if not many.any():
        return curves
    pooled = curves[many].copy()
    labels = [variants_label(task, count) for task, count in zip(pooled["task"], num_variants[many], strict=True)]
    pooled["task_label"] = pooled["task_params"] = labels
    given = {name for name in pooled["task"].unique() if name in task_names() and not task_class(name).can_generate()}
    pooled.loc[pooled["task"].isin(given), "n_train"] = 0
    finished = pooled["exact_match"].notna()
    for score in ("exact_match", "cell_accuracy"):
        pooled[score] = pooled[score] * pooled["n_test"]
    pooled["answered"] = pooled["n_test"].where(finished, 0)
    sums = dict.fromkeys(("exact_match", "cell_accuracy", "answered", "n_test", "done", "failed", "missing"), "sum")
    keys = [*CURVE, "n_train"]
    pooled = pooled.groupby(keys, sort=False).agg({"family": "first", "task_label": "first", **sums}).reset_index()
    for score in ("exact_match", "cell_accuracy"):
        pooled[score] = pooled[score] / pooled["answered"].where(pooled["answered"] > 0)
    return pd.concat([curves[~many], pooled.drop(columns="answered")], ignore_index=True)
