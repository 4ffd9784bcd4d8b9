"""What there is to analyse: the trials and predictions of one or several results folders or sweeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from orchestrator.analysis.curves import with_missing
from orchestrator.tables import TrialState

if TYPE_CHECKING:
    from orchestrator.specs import SweepSpec, TrialSpec

PREDICTION_COLUMNS = (
    *("trial_id", "problem_id", "index", "attempt", "parsed", "exact_match", "cell_accuracy", "valid_solution"),
    *("path_success", "relative_path_length", "repeats_training_answer"),
)
"""Columns of ``predictions`` that are read for analysis: not the grids, which take most of the time and memory."""
_RANK = {TrialState.DONE: 0, TrialState.PRUNED: 1, TrialState.FAILED: 2}


class Study(NamedTuple):
    """Two frames, made to be handed on: ``analysis.learning_curves(*study)``."""

    trials: pd.DataFrame
    """One row a trial, those of a sweep without a row with the state ``missing``; ``results_uri`` says where from."""
    predictions: pd.DataFrame
    """One row a (trial, test problem, attempt), with ``PREDICTION_COLUMNS``."""


def load(sources: str | Path | Sequence[str | Path], predictions: Sequence[str] = PREDICTION_COLUMNS) -> Study:
    """The trials and predictions of ``sources``, each a results folder, its URI, or a sweep's YAML.

    Of a YAML there are its cells alone, those without a row too. A trial that several sources have counts once, in its
    best state. ``predictions`` are the columns to read; none of them reads no predictions.

    Raises:
        ValueError: a source is neither, cannot be read, or no trial has a row.
    """

    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    frames = []
    for source in map(str, listed):
        if Path(source).suffix in (".yaml", ".yml"):
            from orchestrator.specs import expand, load_sweep

            sweep = load_sweep(source)
            frames.append(of_sweep(sweep, expand(sweep)))
        else:
            frames.append(of_folder(source))
    trials = merged(frames)
    check_any_row(trials, list(map(str, listed)))
    return Study(trials, predictions_of(trials, predictions))


def of_folder(source: str) -> pd.DataFrame:
    """All rows of a results folder or URI, sorted for people.

    Raises:
        ValueError: there is no such folder, or it cannot be read.
    """
    from orchestrator import results

    if "://" not in source and not os.path.isdir(source):  # Path.is_dir raises for a name that is too long
        raise ValueError(f"{source}: neither a results folder nor a sweep's YAML")
    rows = results.load_trials(source)
    order = ["task", "task_params", "family", "backbone", "lora_rank", "recipe", "n_train", "seed"]
    return rows.sort_values(order).assign(results_uri=source)


def check_any_row(trials: pd.DataFrame, sources: Sequence[str]) -> None:
    """A ``ValueError`` where no trial has a row yet."""
    if not trials["state"].isin(list(_RANK)).any():
        raise ValueError(f"results {', '.join(sources)}: no trial has a row there yet")


def of_sweep(sweep: SweepSpec, trials: Sequence[TrialSpec]) -> pd.DataFrame:
    """The rows of a sweep's ``trials``, in their order, those that have none with the state ``missing``."""
    from orchestrator import results

    rows = results.load_trials(sweep.results_uri, trial_ids={trial.trial_id for trial in trials})
    return with_missing(rows, trials).assign(results_uri=sweep.results_uri)


def merged(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The trials of several sources, each trial once and in its best state, in the order of the sources."""
    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    filled = [frame.dropna(axis="columns", how="all") for frame in frames]
    columns = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    trials = pd.concat(filled, ignore_index=True).reindex(columns=columns)
    rank = trials["state"].map(_RANK).fillna(len(_RANK))
    best = trials.assign(_rank=rank).sort_values("_rank", kind="stable").drop_duplicates("trial_id")
    return best.sort_index().drop(columns="_rank").reset_index(drop=True)


def predictions_of(trials: pd.DataFrame, columns: Sequence[str] = PREDICTION_COLUMNS) -> pd.DataFrame:
    """The predictions of the finished among ``trials`` (with ``results_uri``, as ``load`` gives them)."""
    from orchestrator import results

    done = trials[trials["state"] == TrialState.DONE]
    if not columns or done.empty:
        return pd.DataFrame(columns=list(columns))
    parts = [
        results.load_predictions(str(uri), columns, None if len(done) == len(trials) else set(of_uri["trial_id"]))
        for uri, of_uri in done.groupby("results_uri", sort=False)
    ]
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
