"""Groups of trials with their outcomes, and what two of them say held against each other problem by problem."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.cells import counting, pooled_variants
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.paired_tests import (
    crossed_interval,
    detectable_difference,
    detectable_normal,
    holm_adjusted,
    mean_interval,
    paired_interval,
    sign_flip_p_value,
    student_p_value,
    unpaired_interval,
)
from orchestrator.tables import TrialState

Interval = Literal["problems", "both"]
IDENTITY = ["task", "task_params", "task_label", "n_train"]
SIDE = ["backbone", "family", "lora_rank", "recipe"]
ESTIMATES = [
    "score_a",
    "score_b",
    "difference",
    "low",
    "high",
    "interval",
    "only_a",
    "only_b",
    "both",
    "neither",
    "p_value",
    "p_adjusted",
    "detectable",
    "has_power",
    "n_test",
    "seeds",
    "shared_seeds",
    "sd_over_seeds",
]
PAIR_COLUMNS = [*IDENTITY, *(f"{name}_a" for name in SIDE), *(f"{name}_b" for name in SIDE), *ESTIMATES]
_COUNTS = ["only_a", "only_b", "both", "neither", "n_test", "seeds", "shared_seeds"]


@dataclass(frozen=True, eq=False)
class TrialGroup:
    """The finished trials of one curve at one n_train; of many variants of a task together where they are pooled."""

    task: str
    task_params: str
    """Of one variant, or the label of all of them."""
    task_label: str
    n_train: int
    backbone: str
    family: str
    lora_rank: int
    recipe: str
    order: int
    """Place of its first trial in the table."""
    trial_ids: dict[str, dict[int, str]]
    """By variant ("" where variants are not pooled), the finished trials by seed."""
    scores: dict[str, dict[int, float]]
    """Likewise their mean scores, as the table ``trials`` has them."""
    n_test: int
    """The fewest test problems of any of its trials."""


def finished_groups(trials: pd.DataFrame, score: str) -> list[TrialGroup]:
    """The groups that have a finished trial, in the order of their first one; variants pooled by ``pooled_variants``.

    Of trials that differ in ``n_test`` alone one counts, see ``cells.counting``.
    """
    trials = counting(trials)
    done = trials["state"] == TrialState.DONE
    if not done.any():
        return []
    rows = pooled_variants(trials)[done]
    rows = rows.assign(score=rows[score].astype(float) if score in rows else np.nan, order=np.arange(len(rows)))
    columns = ["task", "task_params", "task_label", "n_train", *SIDE]
    rest = ["variant", "seed", "trial_id", "n_test", "score", "order"]
    grouped: dict[tuple[Any, ...], TrialGroup] = {}
    ordered = rows.sort_values("n_test", kind="stable")[[*columns, *rest]]  # the fewest test problems first
    for row in ordered.itertuples(index=False, name=None):
        key = row[: len(columns)]
        variant, seed, trial_id, n_test, value, order = row[len(columns) :]
        if key not in grouped:
            named: dict[str, Any] = dict(zip(columns, key, strict=True))
            grouped[key] = TrialGroup(**named, order=order, trial_ids={}, scores={}, n_test=n_test)
        grouped[key].trial_ids.setdefault(variant, {})[seed] = trial_id
        grouped[key].scores.setdefault(variant, {})[seed] = value
    return sorted(grouped.values(), key=lambda group: group.order)


def outcomes_of(predictions: pd.DataFrame | Outcomes | None, score: str) -> Outcomes:
    """Outcomes by ``score``, none where there are no predictions or they lack the column; ``Outcomes`` stay so."""
    if isinstance(predictions, Outcomes):
        return predictions
    if predictions is None or predictions.empty or score not in predictions:
        return Outcomes({})
    return Outcomes.of(predictions, score)


def is_yes_or_no(outcomes: Outcomes) -> bool:
    """Whether every score is 0, 1 or nothing: then right answers can be counted."""
    return all(bool(np.all((row == 0) | (row == 1) | np.isnan(row))) for row in outcomes.values())


def pair_table(
    pairs: Iterable[tuple[TrialGroup, TrialGroup]], outcomes: Outcomes, *, interval: Interval = "problems"
) -> pd.DataFrame:
    """One row of ``PAIR_COLUMNS`` for each pair of cells that have anything to compare; see ``paired_differences``."""
    if interval not in ("problems", "both"):
        raise ValueError(f"interval = {interval!r}: valid are 'problems' and 'both'")
    yes_or_no = is_yes_or_no(outcomes)
    rows = [row for a, b in pairs if (row := _compared(a, b, outcomes, yes_or_no, interval)) is not None]
    table = pd.DataFrame(rows, columns=[*PAIR_COLUMNS, "_draws", "_mean_square"])
    table[_COUNTS] = table[_COUNTS].astype("Int64")
    floats = ["score_a", "score_b", "difference", "low", "high", "p_value", "sd_over_seeds", "_draws", "_mean_square"]
    table[floats] = table[floats].astype(float)
    table["p_adjusted"] = holm_adjusted(table["p_value"])
    table["detectable"] = _detectable(table)
    table["has_power"] = table["has_power"].astype("boolean")
    return table.drop(columns=["_draws", "_mean_square"])


def _compared(
    a: TrialGroup, b: TrialGroup, outcomes: Outcomes, yes_or_no: bool, interval: Interval
) -> dict[str, Any] | None:
    """One row, or None where no variant has finished trials of both."""
    row: dict[str, Any] = {"task": a.task, "task_params": a.task_params, "task_label": a.task_label}
    row["n_train"] = max(a.n_train, b.n_train)  # a baseline that ignores the training set has 0
    for side, cell in (("a", a), ("b", b)):
        row |= {f"{name}_{side}": getattr(cell, name) for name in SIDE}
    blocks = [_block(a, b, variant, outcomes) for variant in a.trial_ids if variant in b.trial_ids]
    known = [block for block in blocks if block is not None and block[0].shape[1]]
    if not known:
        return _from_means(a, b, row)
    row |= {"interval": "problems", "seeds": min(min(len(left), len(right)) for left, right, _ in known)}
    row["shared_seeds"] = min(len(left) if shared else 0 for left, right, shared in known)
    means = [(left.sum(axis=0) / len(left), right.sum(axis=0) / len(right)) for left, right, _ in known]
    per_problem = [of_a - of_b for of_a, of_b in means]
    difference_N = np.concatenate(per_problem) if len(known) > 1 else per_problem[0]
    row |= {f"score_{side}": sum(mean[at].sum() for mean in means) / len(difference_N) for at, side in enumerate("ab")}
    row["difference"] = row["score_a"] - row["score_b"]
    row["n_test"] = len(difference_N)
    cluster_N = np.repeat(np.arange(len(known)), [len(part) for part in per_problem]) if len(blocks) > 1 else None
    left_SN, right_SN, shared = known[0]
    crossed = len(blocks) == 1 and shared and len(left_SN) > 1
    row["sd_over_seeds"] = float((left_SN - right_SN).mean(axis=1).std(ddof=1)) if crossed else np.nan
    if not yes_or_no:
        sums = difference_N if cluster_N is None else np.bincount(cluster_N, difference_N) / np.bincount(cluster_N)
        row["low"], row["high"] = mean_interval(sums)
        row["p_value"] = student_p_value(sums)
        return row
    row |= _counts(known)
    unit = lcm(*{len(left) if shared else lcm(len(left), len(right)) for left, right, shared in known})
    whole_N = np.rint(difference_N * unit).astype(np.int64)
    whole_C = whole_N if cluster_N is None else np.bincount(cluster_N, whole_N).astype(np.int64)
    row["low"], row["high"] = paired_interval(difference_N, cluster_N)
    row["p_value"] = sign_flip_p_value(whole_C)
    draws = difference_N if cluster_N is None else np.bincount(cluster_N, difference_N) / np.bincount(cluster_N)
    row |= {"_draws": len(draws), "_mean_square": ((draws**2).sum() + 1) / (len(draws) + 1)}
    if interval == "both" and crossed and left_SN.shape[1] > 1:
        row["interval"] = "both"
        row["low"], row["high"], row["p_value"] = crossed_interval(left_SN - right_SN)
    return row


def _block(
    a: TrialGroup, b: TrialGroup, variant: str, outcomes: Outcomes
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], bool] | None:
    """(S, N) outcomes of either on the same problems of one variant, and whether row s of both is of the same seed.

    Problems that either gave no score are left out. None where one of them has no outcomes.
    """
    of_a, of_b = a.trial_ids[variant], b.trial_ids[variant]
    seeds_a = [seed for seed in of_a if of_a[seed] in outcomes]
    seeds_b = [seed for seed in of_b if of_b[seed] in outcomes]
    shared = sorted(set(seeds_a) & set(seeds_b))
    if shared:
        seeds_a = seeds_b = shared
    if not seeds_a or not seeds_b:
        return None
    left, right = outcomes.stacked(of_a[seed] for seed in seeds_a), outcomes.stacked(of_b[seed] for seed in seeds_b)
    shortest = min(left.shape[1], right.shape[1])
    left, right = left[:, :shortest], right[:, :shortest]
    if np.isnan(left.sum()) or np.isnan(right.sum()):
        scored = ~(np.isnan(left).any(axis=0) | np.isnan(right).any(axis=0))
        left, right = left[:, scored], right[:, scored]
    return left, right, bool(shared)


def _counts(
    blocks: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], bool]],
) -> dict[str, int]:
    """Problems that only a, only b, both, neither got right, summed over pairs of trials (of one seed where shared)."""
    both = only_a = only_b = total = 0.0
    for left, right, shared in blocks:
        if shared:
            together, of_a, of_b, pairs = float(np.vdot(left, right)), left.sum(), right.sum(), left.size
        else:
            together = float((left.sum(axis=0) * right.sum(axis=0)).sum())
            of_a, of_b, pairs = left.sum() * len(right), right.sum() * len(left), left.size * len(right)
        both += together
        only_a += float(of_a) - together
        only_b += float(of_b) - together
        total += pairs
    counts = {"only_a": only_a, "only_b": only_b, "both": both, "neither": total - both - only_a - only_b}
    return {name: round(count) for name, count in counts.items()}


def _from_means(a: TrialGroup, b: TrialGroup, row: dict[str, Any]) -> dict[str, Any] | None:
    """Without predictions, from the scores of the trials: over shared seeds if there are several, else as if the two
    had answered different problems, which is wider (Newcombe's hybrid of two Wilson intervals, 1998)."""
    variants = [variant for variant in a.scores if variant in b.scores]
    if len(variants) != 1:
        return None
    of_a, of_b = a.scores[variants[0]], b.scores[variants[0]]
    shared = sorted(set(of_a) & set(of_b))
    left_S = np.array([of_a[seed] for seed in shared or of_a])
    right_S = np.array([of_b[seed] for seed in shared or of_b])
    if np.isnan(left_S).any() or np.isnan(right_S).any():
        return None
    row |= {"score_a": float(left_S.mean()), "score_b": float(right_S.mean()), "shared_seeds": len(shared)}
    row |= {"difference": row["score_a"] - row["score_b"], "seeds": min(len(left_S), len(right_S))}
    row["n_test"] = min(a.n_test, b.n_test)
    if len(shared) > 1:
        low, high = mean_interval(left_S - right_S)
        spread = float((left_S - right_S).std(ddof=1))
        p_value = student_p_value(left_S - right_S)
        return row | {"low": low, "high": high, "interval": "seeds", "sd_over_seeds": spread, "p_value": p_value}
    low, high = unpaired_interval(row["score_a"], row["score_b"], a.n_test, b.n_test)
    return row | {"low": low, "high": high, "interval": "problems"}


def _detectable(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The column ``detectable``: exact for one pair of trials a problem, by the normal approximation for several."""
    counted = (table["_mean_square"].notna() & table["only_a"].notna()).to_numpy()
    result = np.full(len(table), np.nan)
    seeds = table["seeds"].to_numpy(float, na_value=np.nan)
    n, square = table["_draws"].to_numpy(), table["_mean_square"].to_numpy()
    single, several = counted & (seeds == 1), counted & (seeds > 1)
    result[single] = detectable_difference(n[single].astype(np.int64), square[single])
    result[several] = np.minimum(detectable_normal(n[several], square[several], seeds[several]), 1.0)
    return result


def power_flags(table: pd.DataFrame, meaningful: float) -> pd.Series:
    """Whether each row's cell would tell a true difference of ``meaningful``; null where that is not known."""
    return (table["detectable"] <= meaningful).astype("boolean").where(table["detectable"].notna())
