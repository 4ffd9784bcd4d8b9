"""Our cells beside the published ones (arXiv 2510.24448): difference, interval, verdict, and how the runs differ."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.cells import counting
from orchestrator.analysis.curves import CURVE
from orchestrator.analysis.intervals import NORMAL_95, clustered_interval, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.published_table import (
    ARC_AGI_1,
    ARC_TASK,
    AUTHORS_ROUNDING,
    AUTHORS_TEST_DISTANCE,
    NUM_ARC_TASKS,
    NUM_CONCEPT_TASKS,
    PUBLISHED_BACKBONES,
    inputs_of,
    published,
    published_backbone,
    published_curve,
    published_name,
    published_name_or_none,
)
from orchestrator.analysis.solved_findings import inputs_interval
from orchestrator.analysis.stated_settings import deviations, open_choices
from orchestrator.tables import TrialState, task_label
from task_generators.arc_datasets import CONCEPT_ARC
from trainers.backbone import backbone_spec

__all__ = [
    "PUBLISHED_BACKBONES",
    "compare_published",
    "published",
    "published_backbone",
    "published_curve",
    "published_name",
]

COMPARED_COLUMNS = (
    "task",
    "task_params",
    "backbone",
    "lora_rank",
    "recipe",
    "task_label",
    "family",
    "model",
    "published_task",
    "subset",
    "n_train",
    "attempts",
    "inputs",
    "metric",
    "ours",
    "low",
    "high",
    "published",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "seeds",
    "n_test",
    "interval",
    "deviations",
    "open_choices",
    "table",
)
SCORES = {
    "exact_match": "exact_match",
    "path_success_rate": "path_success",
    "relative_path_length": "relative_path_length",
    "verbatim_training_output_rate": "repeats_training_answer",
    "relative_accuracy": "cell_accuracy",
    "inputs_solved": "exact_match",
    "tasks_solved": "solved",
}
"""Our score for a published metric. That "relative accuracy" is ``cell_accuracy`` is our reading."""
MEANS = {"relative_path_length", "relative_accuracy"}
"""Metrics that are means over test problems and not shares of them."""
COMPARED_PREDICTION_COLUMNS = (
    "trial_id",
    "index",
    "attempt",
    "exact_match",
    "cell_accuracy",
    "path_success",
    "relative_path_length",
)
"""Columns of ``predictions`` that a comparison reads; those of scores may be absent."""
_NUM_TASKS = {ARC_AGI_1: NUM_ARC_TASKS, CONCEPT_ARC: NUM_CONCEPT_TASKS}


class _Measured(NamedTuple):
    """A mean or share of ours, of the first ``attempts``; ``spread``: standard deviation over problems of a mean."""

    value: float
    low: float
    high: float
    n_test: int
    interval: str
    attempts: int
    spread: float = np.nan


def compare_published(trials: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row for each published cell that finished trials have, and for each rank and recipe that they have it with.

    Columns: those of ``CURVE``, ``task_label``, ``family``; the published cell (``model``, ``published_task``,
    ``subset``, ``n_train``, ``attempts``, ``inputs``, ``metric``, ``table``); ``ours`` (mean over seeds) with ``low``
    and ``high``; ``published``; ``difference`` (ours - published) with ``difference_low`` and ``difference_high``;
    ``verdict``; ``seeds``, ``n_test`` (ours: problems; for ARC tasks, for a concept inputs), ``interval``; and
    ``deviations`` and ``open_choices``, lists of texts (see ``stated_settings``).

    The published value is itself measured, on 200 problems (400 ARC tasks, 30 inputs of a concept) which are not ours:
    the interval of the difference of two shares is Newcombe's (1998, method 10: from the Wilson interval of each);
    with several seeds of ours, from the clustered interval of ours (Zou and Donner 2008). Of a published mean (relative
    path length, relative accuracy) no spread is published: it is taken to be that of our ``predictions``. The verdict
    is ``within`` where the interval of the difference holds 0, else ``above`` or ``below``; ``unknown`` where a mean
    comes without predictions. The published numbers have one training seed each: how much another one would change
    them is not known, and in no interval. Of many cells about one in twenty is outside by chance.

    The first attempts of a trial that has more than were published count, where ``predictions`` are given. A service
    is never matched, nor a stand-in for a published model or the random-weight twin of one.
    """
    matches = []
    wanted: dict[_Needed, set[str]] = {}
    for (backbone, task, subset, n_train, *_), own in _own_cells(trials).items():
        recipe = json.loads(own[0]["recipe"])
        own_attempts = int(recipe.get("attempts", 1))
        rows = [
            row for row in _published_cells().get((backbone, task, subset), ()) if row["n_train"] in (None, n_train)
        ]
        rows = [row for row in rows if row["inputs"] in ("", inputs_of(recipe))]
        paths = next((row["value"] for row in rows if row["metric"] == "path_success_rate"), 1.0)
        for row in rows:
            fewer = min(other["attempts"] for other in rows if other["metric"] == row["metric"])
            if own_attempts < row["attempts"] and fewer < row["attempts"]:
                continue  # what a single attempt gives has a published value of its own
            scored = [trial for trial in own if pd.notna(trial.get(SCORES[row["metric"]]))]
            if scored:
                needed = _Needed.of(scored, row["metric"], min(own_attempts, row["attempts"]), own_attempts)
                if needed is not None:
                    wanted.setdefault(needed, set()).update(trial["trial_id"] for trial in scored)
                matches.append((scored, recipe, row, paths, needed))
    outcomes = {} if predictions is None or not wanted else _outcomes(predictions, wanted)
    compared = []
    for own, recipe, row, paths, needed in matches:
        known = outcomes.get(needed) if needed is not None else None
        if known is not None and not all(trial["trial_id"] in known for trial in own):
            known = None
        measured = _measure(own, row["metric"], known, int(recipe.get("attempts", 1)), needed)
        compared.append(_row(own, recipe, row, measured, paths))
    frame = pd.DataFrame(compared, columns=list(COMPARED_COLUMNS))
    return frame.astype({"n_train": "Int64"})


Row = dict[str, Any]


@cache
def _published_cells() -> dict[tuple[str, str, str], list[Row]]:
    """The published values of our backbones by (backbone, task, subset); ``n_train`` is None where a task brings its
    own."""
    rows = published()
    rows = rows[rows["backbone"].notna() & rows["metric"].isin(SCORES) & rows["n_test"].notna()]
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for record in rows.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        numbers = {name: None if pd.isna(row[name]) else int(row[name]) for name in ("n_train", "attempts", "n_test")}
        cells.setdefault((row["backbone"], row["task"], row["subset"]), []).append(row | numbers)
    return cells


def _own_cells(trials: pd.DataFrame) -> dict[tuple[Any, ...], list[Row]]:
    """Finished trials of published backbones and tasks, by the names of the published cell and what else tells cells
    apart. The tasks of ARC are one cell together, each with its own training set."""
    trials = counting(trials, given_at_largest=True)
    done = trials[trials["state"] == TrialState.DONE]
    own_names = {name: published_backbone(name) for name in done["backbone"].unique()}
    done = done[done["backbone"].map(own_names).notna()]
    wanted = ["trial_id", *CURVE, "family", "seed", "n_train", "n_test", *sorted(set(SCORES.values()))]
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in done[[name for name in wanted if name in done]].to_dict("records"):
        name = published_name_or_none(row["task"], row["task_params"])
        if name is not None:
            is_arc = row["task"] == ARC_TASK
            size, params = (None, "") if is_arc else (int(row["n_train"]), row["task_params"])
            curve = (params, row["backbone"], row["lora_rank"], row["recipe"])
            cells.setdefault((own_names[row["backbone"]], *name, size, *curve), []).append(
                {str(key): value for key, value in row.items()}
            )
    return cells


class _Needed(NamedTuple):
    """A score problem by problem, of the first ``attempts``; the whole trial's number will not do."""

    score: str
    attempts: int

    @classmethod
    def of(cls, own: list[Row], metric: str, attempts: int, own_attempts: int) -> _Needed | None:
        """What a metric of the trials of one cell needs, if anything."""
        score = "exact_match" if metric in ("tasks_solved", "inputs_solved") else SCORES[metric]
        if metric not in MEANS and attempts == own_attempts and (_is_arc(own) or len(own) == 1):
            return None
        return cls(score, attempts)


def _outcomes(predictions: pd.DataFrame, wanted: dict[_Needed, set[str]]) -> dict[_Needed, Outcomes]:
    """Outcomes by what is wanted of which trials, as far as the columns of ``predictions`` go."""
    found = {}
    codes, names = pd.factorize(predictions["trial_id"])
    for needed, trial_ids in wanted.items():
        if needed.score in predictions:
            rows = np.isin(names, list(trial_ids))[codes] & (predictions["attempt"] < needed.attempts).to_numpy()
            found[needed] = Outcomes.of(predictions.loc[rows, ["trial_id", "index", needed.score]], needed.score)
    return found


def newcombe_interval(share: float, low: float, high: float, other_share: float, other_n: int) -> tuple[float, float]:
    """95 % interval of ``share`` - ``other_share``, from the 95 % interval of the first and the size of the other.

    Newcombe (1998), Statistics in Medicine 17, 873-890, method 10, where the interval of the first is Wilson's; with
    another one the same step is Zou and Donner's (2008), Statistics in Medicine 27, 1693-1702.
    """
    other_low, other_high = (float(bound) for bound in wilson_interval(other_share, other_n))
    below = float(np.hypot(share - low, other_high - other_share))
    above = float(np.hypot(high - share, other_share - other_low))
    return share - other_share - below, share - other_share + above


def _measure(
    own: list[Row], metric: str, known: Outcomes | None, own_attempts: int, needed: _Needed | None
) -> _Measured:
    """A published metric of the trials of one cell; ``known``: what was ``needed`` of them, as far as it is there."""
    score = SCORES[metric]
    attempts = own_attempts if known is None or needed is None else needed.attempts
    if _is_arc(own):
        return _measure_arc(own, metric, known, attempts)
    value, n_test = float(np.mean([row[score] for row in own])), min(int(row["n_test"]) for row in own)
    if metric in MEANS:
        spread, half = (np.nan, np.nan) if known is None else _spread(known.stacked(row["trial_id"] for row in own))
        return _Measured(value, value - half, value + half, n_test, "problems", attempts, spread)
    if known is not None:
        right_SN = known.stacked(row["trial_id"] for row in own)
        kind = "both" if len(right_SN) > 1 else "problems"
        low, high = clustered_interval(right_SN, kind)
        return _Measured(float(right_SN.mean()), low, high, right_SN.shape[1], kind, attempts)
    bounds = wilson_interval(value, n_test)
    return _Measured(value, float(bounds[0]), float(bounds[1]), n_test, "problems", attempts)


def _spread(values_SN: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Standard deviation over problems of a problem's mean over seeds, and half the 95 % interval (Student's t) of the
    mean over the problems that have a value."""
    from scipy.special import stdtrit

    measured_SN = ~np.isnan(values_SN)
    counts = measured_SN.sum(axis=0)
    per_problem = np.where(measured_SN, values_SN, 0).sum(axis=0)[counts > 0] / counts[counts > 0]
    if len(per_problem) < 2:
        return np.nan, np.nan
    spread = float(per_problem.std(ddof=1))
    return spread, float(stdtrit(len(per_problem) - 1, 0.975)) * spread / len(per_problem) ** 0.5


def _measure_arc(own: list[Row], metric: str, known: Outcomes | None, attempts: int) -> _Measured:
    """The share of ARC tasks all of whose inputs are right, or of inputs, over the tasks that all seeds have."""
    seeds = sorted({row["seed"] for row in own})
    shares: dict[str, dict[int, tuple[float, int]]] = {}
    for row in own:
        right = row["exact_match"] if known is None else float(known[row["trial_id"]].mean())
        shares.setdefault(row["task_params"], {})[row["seed"]] = (right, int(row["n_test"]))
    whole = [by_seed for by_seed in shares.values() if len(by_seed) == len(seeds)] or [
        {seeds[0]: by_seed[min(by_seed)]} for by_seed in shares.values()
    ]
    share_SN = np.array([[by_seed[seed][0] for seed in sorted(by_seed)] for by_seed in whole]).T
    inputs_N = np.array([next(iter(by_seed.values()))[1] for by_seed in whole])
    kind = "both" if len(share_SN) > 1 else "problems"
    if metric == "tasks_solved":
        solved_SN = (share_SN > 1 - 1e-9).astype(float)
        low, high = clustered_interval(solved_SN, kind)
        return _Measured(float(solved_SN.mean()), low, high, len(inputs_N), kind, attempts)
    if kind == "both":
        low, high = clustered_interval(share_SN, kind, weight_N=inputs_N)
    else:
        low, high = inputs_interval(share_SN[0], inputs_N)
    value = float((share_SN @ inputs_N).mean() / inputs_N.sum())
    return _Measured(value, low, high, int(inputs_N.sum()), kind, attempts)


def _difference(cell: Row, measured: _Measured, path_share: float) -> tuple[float, float]:
    """95 % interval of ours - published; not-a-number where ours has none."""
    if cell["metric"] not in MEANS:
        return newcombe_interval(measured.value, measured.low, measured.high, cell["value"], cell["n_test"])
    published_n = cell["n_test"] * (path_share if cell["metric"] == "relative_path_length" else 1)
    published_half = NORMAL_95 * measured.spread / max(1.0, published_n) ** 0.5
    half = float(np.hypot(measured.high - measured.value, published_half))
    return measured.value - cell["value"] - half, measured.value - cell["value"] + half


def _row(own: list[Row], recipe: Row, cell: Row, measured: _Measured, path_share: float) -> Row:
    """One row of the comparison. ``path_share``: of the published answers, those that a path length is known of."""
    first = own[0]
    low, high = _difference(cell, measured, path_share)
    is_arc = _is_arc(own)
    spec = backbone_spec(cell["backbone"])
    seeds = sorted({int(row["seed"]) for row in own})
    targets = backbone_spec(first["backbone"]).lora_targets
    stated_n_test = None if is_arc else cell["n_test"]
    found = deviations(spec, recipe, targets, int(first["lora_rank"]), seeds, measured.n_test, stated_n_test)
    if measured.attempts != cell["attempts"]:
        found.append(f"attempts {measured.attempts} (stated: {cell['attempts']})")
    tasks, all_tasks = len({row["task_params"] for row in own}), _NUM_TASKS.get(cell["task"], 1)
    if is_arc and tasks < all_tasks:
        found.append(f"{tasks} of the {all_tasks} tasks")
    chosen = open_choices(spec, recipe)
    distance = json.loads(first["task_params"]).get("min_test_distance", 0)
    authors = AUTHORS_TEST_DISTANCE.get(first["task"], 0)
    if abs(distance - authors) > AUTHORS_ROUNDING:
        chosen.append(f"min_test_distance = {distance:g} (authors' data: {authors:g})")
    if cell["metric"] == "relative_accuracy":
        chosen.append("relative accuracy read as cell_accuracy")
    return {
        **{name: first[name] for name in (*CURVE, "family")},
        "task_params": "" if is_arc else first["task_params"],
        "lora_rank": int(first["lora_rank"]),
        "task_label": f"{cell['task']} {cell['subset']}".strip() if is_arc else _label(*map(first.get, CURVE[:2])),
        "model": cell["model"],
        "published_task": cell["task"],
        "subset": cell["subset"],
        "n_train": cell["n_train"],
        "attempts": cell["attempts"],
        "inputs": cell["inputs"],
        "metric": cell["metric"],
        "ours": measured.value,
        "low": measured.low,
        "high": measured.high,
        "published": cell["value"],
        "difference": measured.value - cell["value"],
        "difference_low": low,
        "difference_high": high,
        "verdict": "unknown" if np.isnan(low) else "above" if low > 0 else "below" if high < 0 else "within",
        "seeds": len(seeds),
        "n_test": measured.n_test,
        "interval": measured.interval,
        "deviations": found,
        "open_choices": chosen,
        "table": cell["table"],
    }


def _is_arc(own: list[Row]) -> bool:
    return bool(own[0]["task"] == ARC_TASK)


_label = cache(task_label)
