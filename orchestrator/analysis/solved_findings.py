"""What a study found on tasks that bring their own training sets (ARC): how many of them each backbone solves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.cells import counting
from orchestrator.analysis.intervals import effective_n, variance_parts, wilson_interval
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.paired_tests import paired_interval
from orchestrator.tables import TrialState
from task_generators.arc_datasets import CONCEPT_ARC, SHORT_NAMES

DEFAULT_DATASET = SHORT_NAMES["arc_agi_1"]
COUNTED_BY_INPUT = {CONCEPT_ARC}
"""Datasets whose published score counts test inputs; of the others a task counts if all of its inputs are right."""


def solved_findings(trials: pd.DataFrame, outcomes: Outcomes | None = None) -> list[tuple[str, str]]:
    """(label, sentence) for each dataset that ``trials`` of pretrained backbones are of, in their order.

    Of each backbone how many tasks (of ConceptARC: test inputs) it solves in any of its attempts, with a 95 % interval
    (the inputs of one task are one draw); then whether the first two differ on what both have finished (95 % interval
    of the paired difference). Of several seeds the mean counts. ``outcomes`` tell the inputs of ConceptARC apart.
    """
    trials = counting(trials, given_at_largest=True)
    datasets = [json.loads(params).get("dataset", DEFAULT_DATASET) for params in trials["task_params"]]
    found = []
    for dataset, of_dataset in trials.groupby(pd.Series(datasets, index=trials.index, dtype=object), sort=False):
        unit = "inputs" if dataset in COUNTED_BY_INPUT else "tasks"
        label = f"{of_dataset['task'].iloc[0]} {dataset}"
        found.append((label, f"{label}: {_sentence(of_dataset, unit, outcomes)}"))
    return found


def inputs_interval(share_T: npt.NDArray[np.float64], inputs_T: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of the share of inputs right over T tasks, whose inputs are one draw each: Wilson's with as many
    draws as the variance implies (Rao and Scott 1992), no more than inputs and no fewer than tasks."""
    parts = variance_parts(share_T[None, :], inputs_T.astype(float))
    draws = np.clip(effective_n(parts.mean, parts.problems, len(share_T)), len(share_T), inputs_T.sum())
    low, high = wilson_interval(parts.mean, float(draws))
    return float(low), float(high)


def _sentence(trials: pd.DataFrame, unit: str, outcomes: Outcomes | None) -> str:
    done = trials[trials["state"] == TrialState.DONE]
    unfinished = len(trials) - len(done)
    if done.empty:
        return f"nothing has finished yet ({len(trials)} trials to come)"
    solved = {name: _solved(rows, unit, outcomes) for name, rows in done.groupby(["backbone", "lora_rank", "recipe"])}
    by_share = sorted(solved.items(), key=lambda item: -_share(item[1])[0])
    best: dict[str, tuple[dict[str, npt.NDArray[np.float64]], int]] = {}
    for name, by_task in by_share:
        shown, count = best.get(str(name[0]), (by_task, 0))
        best[str(name[0])] = (shown, count + 1)
    parts: list[str] = []
    for backbone, (by_task, settings) in best.items():
        share, total = _share(by_task)
        shares_T = np.array([right.mean() for right in by_task.values()])
        low, high = inputs_interval(shares_T, np.array([len(right) for right in by_task.values()]))
        of_settings = f" (the best of {settings} settings)" if settings > 1 else ""
        verb = " solves" if not parts else ""
        units = f" {unit}" if not parts else ""
        right = f"{share * total:.1f}".removesuffix(".0")
        parts.append(f"{backbone}{of_settings}{verb} {right} of {total}{units} ({share:.2f} [{low:.2f}, {high:.2f}])")
    text = ", ".join(parts)
    if len(best) > 1:
        (first, (of_first, _)), (second, (of_second, _)) = list(best.items())[:2]
        text += _difference(first, of_first, second, of_second, unit)
    seeds = done["seed"].nunique()
    text += f" ({seeds} seed{'s' * (seeds > 1)})"
    return text + (f"; so far, with {len(done)} of {len(trials)} trials done" if unfinished else "")


def _solved(rows: pd.DataFrame, unit: str, outcomes: Outcomes | None) -> dict[str, npt.NDArray[np.float64]]:
    """By task what its seeds got right on average: (1,) for a task as a whole, else one number an input."""
    by_task: dict[str, list[npt.NDArray[np.float64]]] = {}
    columns = ("trial_id", "task_params", "exact_match", "n_test")
    for trial, task, exact_match, n_test in zip(*(rows[name] for name in columns), strict=True):
        if unit == "tasks":
            right = np.array([float(exact_match > 1 - 1e-9)])
        elif outcomes is not None and trial in outcomes:
            right = outcomes[trial]
        else:
            right = np.full(int(n_test), float(exact_match))
        by_task.setdefault(task, []).append(right)
    return {task: np.mean(seeds, axis=0) for task, seeds in by_task.items()}


def _share(by_task: dict[str, npt.NDArray[np.float64]]) -> tuple[float, int]:
    right = np.concatenate(list(by_task.values()))
    return float(right.mean()), len(right)


def _difference(first: str, of_first: dict[str, Any], second: str, of_second: dict[str, Any], unit: str) -> str:
    """How much more the first solves of what both have finished, and whether that can be told from nothing."""
    common = [task for task in of_first if task in of_second and len(of_first[task]) == len(of_second[task])]
    if not common:
        return ""
    a, b = (np.concatenate([of_task[task] for task in common]) for of_task in (of_first, of_second))
    cluster = np.concatenate([np.full(len(of_first[task]), place) for place, task in enumerate(common)])
    low, high = paired_interval(a - b, cluster)
    doubt = ", which may be no difference" if low <= 0 <= high else ""
    only_a, only_b = int(((a > 0.5) & (b <= 0.5)).sum()), int(((b > 0.5) & (a <= 0.5)).sum())
    both = int(((a > 0.5) & (b > 0.5)).sum())
    on = f" on the {len(a)} {unit} that both have" if len(common) < max(len(of_first), len(of_second)) else ""
    return (
        f": {a.mean() - b.mean():.2f} [{low:.2f}, {high:.2f}] more than {second}{on}{doubt}; {both} solved by both, "
        f"{only_a} by {first} alone, {only_b} by {second} alone"
    )
