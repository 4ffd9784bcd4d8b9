"""Which of two backbones is better on the very same test problems, by how much, and whether a cell could tell at all.

from orchestrator import analysis
analysis.paired_differences(*analysis.load("results/quickstart"))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from orchestrator.analysis.cells import BASELINE
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.paired_groups import (
    Interval,
    TrialGroup,
    finished_groups,
    outcomes_of,
    pair_table,
    power_flags,
)

MEANINGFUL = 0.1
"""Difference of two shares that is worth telling: ten of a hundred problems."""


def paired_differences(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | Outcomes | None = None,
    *,
    score: str = "exact_match",
    interval: Interval = "problems",
    meaningful: float = MEANINGFUL,
    baselines: bool = False,
) -> pd.DataFrame:
    """One row for each task, n_train and pair of backbones: the difference on the problems that both answered.

    Pairs: every two curves of different backbones of one task. Backbones differ in LoRA rank and recipe by their
    published settings, so these need not agree; only where both backbones have several curves (a sweep over ranks) are
    those paired that have the rank, and the recipe fields that vary, in common. Baselines take part with ``baselines``,
    against trained backbones; one that ignores the training set against every n_train. The variants of a task with more
    than ``MAX_VARIANTS`` are compared as one, with n_train 0, each variant's problems a cluster.

    Columns: ``task``, ``task_params``, ``task_label``, ``n_train``; ``backbone``, ``family``, ``lora_rank``, ``recipe``
    of either, ending in ``_a`` and ``_b`` (a is the one that comes first in ``trials``);

    - ``score_a``, ``score_b``, ``difference`` (a - b) with ``low`` and ``high`` (95 %). Seeds that both have are
      compared seed by seed (the same seed draws the same training problems), else the mean over one's seeds with that
      over the other's. ``interval`` says what the interval is over: "problems" (these trained models, other problems of
      the same kind), "both" (other seeds too; option ``interval="both"``, which needs two shared seeds), and without
      predictions "seeds" for several seeds, or "problems" as if the problems were not the same (wider).
    - ``only_a``, ``only_b``, ``both``, ``neither``: problems by who was right, summed over the seeds' pairs.
    - ``p_value``: McNemar's exact test for one seed; for several its generalisation, the exact sign-flip test of the
      problems' summed differences, so that one problem answered by several seeds counts once. With ``interval="both"``
      the one that belongs to that interval. ``p_adjusted``: Holm's, for all rows of the table.
    - ``detectable``: the smallest true difference that the cell would find (5 %, two-sided) in 80 % of repetitions,
      given its number of problems and the discordance that it shows; ``has_power``: whether that is at most
      ``meaningful`` (both over problems, whatever ``interval``). A row without power and without a small p-value says
      nothing about which is better. The exact test is cautious where few problems differ: ``p_value`` may be above .05
      where the interval leaves 0 out.
    - ``n_test``, ``seeds`` (of the one that has fewer), ``shared_seeds``, ``sd_over_seeds`` (of the difference).

    Scores that are not yes or no (``cell_accuracy``) have Student's interval and test, no counts and no power.
    """
    groups = finished_groups(trials, score)
    pairs = _backbone_pairs(groups, baselines)
    table = pair_table(pairs, outcomes_of(predictions, score), interval=interval)
    table["has_power"] = power_flags(table, meaningful)
    return table


def _backbone_pairs(groups: Sequence[TrialGroup], baselines: bool) -> Iterator[tuple[TrialGroup, TrialGroup]]:
    """Pairs of groups of one task and n_train whose backbones differ, the one that comes first in the table first."""
    places: dict[tuple[str, str], dict[int, list[TrialGroup]]] = {}
    variants: dict[tuple[str, str, str], dict[tuple[int, str], None]] = {}
    ignoring: dict[tuple[str, str], list[TrialGroup]] = {}
    for group in groups:
        task = (group.task, group.task_params)
        if group.family == BASELINE and group.n_train == 0:
            ignoring.setdefault(task, []).append(group)
        else:
            places.setdefault(task, {}).setdefault(group.n_train, []).append(group)
        if group.family != BASELINE:
            variants.setdefault((*task, group.backbone), {})[group.lora_rank, group.recipe] = None
    agreeing: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
    for task, by_n_train in places.items():
        for here in by_n_train.values():
            together = sorted([*here, *ignoring.get(task, [])], key=lambda group: group.order) if baselines else here
            for a, b in combinations(together, 2):
                if a.backbone == b.backbone or (a.family == BASELINE and b.family == BASELINE):
                    continue
                if BASELINE in (a.family, b.family):
                    if baselines:
                        yield a, b
                    continue
                key = (*task, a.backbone, b.backbone)
                if key not in agreeing:
                    of_a, of_b = (list(variants[(*task, name)]) for name in (a.backbone, b.backbone))
                    agreeing[key] = set(_agreeing(of_a, of_b))
                if (a.lora_rank, a.recipe, b.lora_rank, b.recipe) in agreeing[key]:
                    yield a, b


def _agreeing(of_a: list[tuple[int, str]], of_b: list[tuple[int, str]]) -> Iterator[tuple[int, str, int, str]]:
    """The pairs of (rank, recipe) of two backbones that agree in what varies within both and has common values."""
    knobs_a, knobs_b = ([_knobs(rank, recipe) for rank, recipe in curves] for curves in (of_a, of_b))
    names = {name for knobs in knobs_a + knobs_b for name in knobs}
    matched = []
    for name in sorted(names):
        values_a, values_b = ({knobs.get(name) for knobs in side} for side in (knobs_a, knobs_b))
        if len(values_a) > 1 and len(values_b) > 1 and values_a & values_b:
            matched.append((name, values_a & values_b))
    for (rank_a, recipe_a), a in zip(of_a, knobs_a, strict=True):
        for (rank_b, recipe_b), b in zip(of_b, knobs_b, strict=True):
            if all(a.get(name) == b.get(name) and a.get(name) in common for name, common in matched):
                yield rank_a, recipe_a, rank_b, recipe_b


def _knobs(rank: int, recipe: str) -> dict[str, str]:
    """Rank and recipe fields as text by name, so that any value can be held against another."""
    return {"lora_rank": str(rank), **{name: json.dumps(value) for name, value in json.loads(recipe).items()}}
