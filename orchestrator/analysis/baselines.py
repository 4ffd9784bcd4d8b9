"""What a score is to be held against: baselines without a model, the ceiling that drawing leaves, repeated answers, and
the scores of paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.cells import BASELINE, IDENTITY_COLUMNS, counting, pooled_variants
from orchestrator.analysis.intervals import clustered_interval, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.paired_groups import TrialGroup, finished_groups
from orchestrator.analysis.paired_tests import mean_interval
from orchestrator.tables import TrialState

ROUNDTRIP = "roundtrip_exact_match"
REFERENCE_COLUMNS = [
    "task",
    "task_params",
    "task_label",
    "reference",
    "backbone",
    "family",
    "n_train",
    "exact_match",
    "low",
    "high",
    "n_test",
    "seeds",
]
REPEAT_COLUMNS = [*IDENTITY_COLUMNS, "n_train", "repeats_training_answer", "low", "high", "n_test", "seeds"]
PATH_COLUMNS = [*IDENTITY_COLUMNS, "n_train", "metric", "value", "low", "high", "interval", "n_test", "seeds"]
PATH_METRICS = ("path_success", "relative_path_length")
"""The paper's PSR (share of answers that are a path) and RPL (their mean length over the shortest)."""


def reference_scores(trials: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """What each task's scores are to be held against, one row a (task, reference).

    ``reference`` is a baseline's name without its family (``copy_question``, ``majority``, ``oracle``), with
    ``n_train`` 0 where it ignores the training set; or ``roundtrip``, a row for each video ``backbone``: the share of
    test answers that survive drawing, the backbone's encoder and decoder, and reading, a ceiling for its answers (null
    in tables of before it was measured: then there is no row). Recipes whose numbers differ have rows of their own.
    ``exact_match`` is the mean over seeds, ``low`` and ``high`` its 95 % Wilson interval over ``n_test`` problems.
    ``predictions`` are not needed.
    """
    trials = counting(trials)
    finished = trials["state"] == TrialState.DONE
    if not finished.any():
        return _typed([], REFERENCE_COLUMNS)
    done = pooled_variants(trials)[finished].rename(columns={"n_train": "size"})
    parts = []
    for_baselines = done[(done["family"] == BASELINE) & done["exact_match"].notna()]
    if len(for_baselines):
        names = for_baselines["backbone"].str.split("/").str[-1]
        parts.append(for_baselines.assign(reference=names, n_train=for_baselines["size"]))
    if ROUNDTRIP in done:
        measured = done[done[ROUNDTRIP].notna()]
        ceiling = measured[ROUNDTRIP].astype(float)
        parts.append(measured.assign(reference="roundtrip", n_train=0, exact_match=ceiling))
    rows = []
    identity = ["task", "task_params", "task_label", "reference", "backbone", "family", "n_train"]
    for part in parts:
        # Recipes may draw in other sizes, which have other ceilings.
        for key, of_reference in part.groupby([*identity, "recipe"], sort=False):
            scores, n_tests = of_reference["exact_match"].to_numpy(float), of_reference["n_test"].to_numpy(float)
            # Of pooled variants each test problem counts alike; the seeds of one variant answer the same ones.
            num_variants = of_reference["variant"].nunique()
            n_test = int(n_tests.sum() / len(of_reference) * num_variants)
            mean = float(np.average(scores, weights=n_tests))
            low, high = wilson_interval(mean, n_test)
            row = dict(zip(identity, key[:-1], strict=True)) | {
                "exact_match": mean,
                "low": float(low),
                "high": float(high),
            }
            seeds = of_reference["seed"].nunique() if row["family"] == BASELINE else 1  # a ceiling is measured once
            row |= {"n_test": n_test, "seeds": seeds}
            rows += [row] if row not in rows else []
    order = {label: place for place, label in enumerate(dict.fromkeys(done["task_label"]))}
    table = _typed(rows, REFERENCE_COLUMNS)
    return table.sort_values("task_label", key=lambda labels: labels.map(order), kind="stable", ignore_index=True)


def training_repeats(trials: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """How often a model answers with a training answer, word for word: one row a trained curve's point.

    ``repeats_training_answer`` is the share of outputs that equal some training answer (table 11 of arXiv 2510.24448),
    the mean over seeds; ``low`` and ``high`` its 95 % Wilson interval over ``n_test`` problems. Where many test answers
    occur in training too, right answers repeat as well. Points without training problems have no row. ``predictions``
    are not needed.
    """
    rows = []
    for group in finished_groups(trials, "repeats_training_answer"):
        mean, n_test, seeds = _mean_score(group)
        if np.isfinite(mean):
            low, high = wilson_interval(mean, n_test)
            row = _identity(group) | {"repeats_training_answer": mean, "low": float(low), "high": float(high)}
            rows.append(row | {"n_test": n_test, "seeds": seeds})
    return _typed(rows, REPEAT_COLUMNS)


def path_scores(trials: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """Scores of tasks that ask for a path, one row a (curve's point, ``metric``): table 2 of arXiv 2510.24448.

    ``path_success``: share of test problems answered with any path from start to end. ``relative_path_length``: mean of
    path length over shortest length, 1 at best, of those problems that were answered with a path; ``n_test`` counts
    them. ``low`` and ``high`` (95 %): of the first as for ``exact_match``, over problems with one seed and over seeds
    and problems ("both") with several; of the second Student's over problems, each the mean of its seeds.

    ``predictions`` need the two columns (``analysis.load(..., predictions=[*PREDICTION_COLUMNS, *PATH_METRICS])``).
    Without them the values come from ``trials``, the first with Wilson's interval, the second with Student's over seeds
    (null with one).
    """
    rows: list[dict[str, Any]] = []
    for metric in PATH_METRICS:
        if metric not in trials or not trials[metric].notna().any():
            continue
        of_task = trials[trials["task"].isin(trials.loc[trials[metric].notna(), "task"].unique())]
        outcomes = Outcomes({})
        if predictions is not None and metric in predictions:
            here = predictions["trial_id"].isin(of_task["trial_id"])
            outcomes = Outcomes.of(predictions.loc[here, ["trial_id", "index", metric]], metric)
        for group in finished_groups(of_task, metric):
            estimate = _path_estimate(group, metric, outcomes)
            if np.isfinite(estimate["value"]):
                rows.append(_identity(group) | {"metric": metric} | estimate)
    return _typed(rows, PATH_COLUMNS)


def _path_estimate(group: TrialGroup, metric: str, outcomes: Outcomes) -> dict[str, Any]:
    ids = [trial for by_seed in group.trial_ids.values() for trial in by_seed.values()]
    right_SN: npt.NDArray[np.float64] = outcomes.stacked(ids)
    if len(group.trial_ids) == 1 and len(right_SN) == len(ids) and right_SN.size:
        seeds = len(ids)
        if metric == "path_success" and not np.isnan(right_SN).any():
            kind = "both" if seeds > 1 else "problems"
            low, high = clustered_interval(right_SN, kind)
            estimate = {"value": float(right_SN.mean()), "low": low, "high": high, "interval": kind}
            return estimate | {"n_test": right_SN.shape[1], "seeds": seeds}
        if metric == "relative_path_length":
            known = ~np.isnan(right_SN)
            answered = known.any(axis=0)
            if answered.any():
                sums, counts = np.where(known, right_SN, 0.0)[:, answered].sum(axis=0), known[:, answered].sum(axis=0)
                low, high = _ratio_interval(sums, counts)
                estimate = {"value": float(sums.sum() / counts.sum()), "low": low, "high": high, "interval": "problems"}
                return estimate | {"n_test": int(answered.sum()), "seeds": seeds}
            return {"value": np.nan}
    mean, n_test, seeds = _mean_score(group)
    estimate = {"value": mean, "n_test": n_test, "seeds": seeds, "low": np.nan, "high": np.nan, "interval": None}
    if metric == "path_success":
        low_high = [float(bound) for bound in wilson_interval(mean, n_test)]
        return estimate | {"low": low_high[0], "high": low_high[1], "interval": "problems"}
    scores = [score for by_seed in group.scores.values() for score in by_seed.values()]
    if len(group.scores) == 1 and len(scores) > 1 and not np.isnan(scores).any():
        low, high = mean_interval(np.array(scores))
        return estimate | {"low": max(low, 1.0), "high": high, "interval": "seeds"}
    return estimate


def _ratio_interval(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % Student interval of sums / counts over problems that were answered by one to all seeds (a ratio estimator:
    Cochran, "Sampling Techniques", 1977, section 2.11); never below 1, the shortest path."""
    ratio = sums.sum() / counts.sum()
    residuals = (sums - ratio * counts) / counts.mean()
    low, high = mean_interval(ratio + residuals)
    return max(low, 1.0), high


def _mean_score(group: TrialGroup) -> tuple[float, int, int]:
    """Mean over seeds and variants of the trials' scores, where they have one; test problems; fewest seeds."""
    means = [
        np.nanmean(scores) for by_seed in group.scores.values() if not np.isnan(scores := [*by_seed.values()]).all()
    ]
    seeds = min((len(by_seed) for by_seed in group.scores.values()), default=0)
    return (float(np.mean(means)) if means else np.nan), group.n_test * max(len(means), 1), seeds


def _identity(group: TrialGroup) -> dict[str, Any]:
    return {name: getattr(group, name) for name in (*IDENTITY_COLUMNS, "n_train")}


def _typed(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """A frame with all ``columns``, those of numbers typed even when there are no rows."""
    table = pd.DataFrame(rows, columns=columns)
    for name in columns:
        if name in ("lora_rank", "n_train", "n_test", "seeds"):
            table[name] = table[name].astype("int64")
        elif name in ("exact_match", "repeats_training_answer", "value", "low", "high"):
            table[name] = table[name].astype("float64")
    return table
