"""What a knob does: LoRA rank, a field of the recipe, pretraining, the training seed.

All but the seed's are paired differences: two trials that differ in one thing answered the same problems. Their tables
have the columns of ``paired_differences``, a being the side with the larger value (pretraining: the pretrained one).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.cells import BASELINE, IDENTITY_COLUMNS
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.paired import MEANINGFUL
from orchestrator.analysis.paired_groups import (
    Interval,
    TrialGroup,
    finished_groups,
    outcomes_of,
    pair_table,
    power_flags,
)
from trainers.backbone import BackboneSpec, backbone_spec
from trainers.recipe import TrainRecipe

SEED_COLUMNS = ["score", "sd", "noise_sd", "seed_sd", "low", "high", "share", "p_value", "seeds", "n_test", "points"]


def rank_effects(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | Outcomes | None = None,
    *,
    score: str = "exact_match",
    interval: Interval = "problems",
    meaningful: float = MEANINGFUL,
) -> pd.DataFrame:
    """The difference that the LoRA rank makes: a row for every two ranks of one task, n_train, backbone and recipe.

    Columns as ``paired_differences``; ``lora_rank_a`` is the larger rank, so that a positive ``difference`` speaks for
    more of them.
    """
    groups = [group for group in finished_groups(trials, score) if group.family != BASELINE]
    pairs = _pairs_within(groups, lambda group: (group.backbone, group.recipe), lambda group: group.lora_rank)
    return _effects(pairs, predictions, score, interval, meaningful)


def recipe_effects(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | Outcomes | None = None,
    *,
    field: str,
    score: str = "exact_match",
    interval: Interval = "problems",
    meaningful: float = MEANINGFUL,
) -> pd.DataFrame:
    """The difference that one ``field`` of the recipe makes, all else being equal.

    Columns as ``paired_differences``, then ``value_a`` and ``value_b``: the field's values as JSON, the default of
    ``TrainRecipe`` where a recipe does not name it. Of numbers the larger one is a.

    Raises:
        ValueError: a recipe has no such field.
    """
    if field not in TrainRecipe.model_fields:
        raise ValueError(f"field = {field!r}: valid are {', '.join(TrainRecipe.model_fields)}")
    default = json.loads(TrainRecipe().model_dump_json())[field]

    def split(group: TrialGroup) -> tuple[str, Any]:
        recipe = json.loads(group.recipe)
        value = recipe.pop(field, default)
        return json.dumps(recipe, sort_keys=True), value

    groups = [group for group in finished_groups(trials, score) if group.family != BASELINE]
    pairs = list(
        _pairs_within(
            groups,
            lambda group: (group.backbone, group.lora_rank, split(group)[0]),
            lambda group: split(group)[1],
        )
    )
    table = _effects(pairs, predictions, score, interval, meaningful)
    for side in ("a", "b"):
        recipes = (json.loads(recipe) for recipe in table[f"recipe_{side}"])
        values = [json.dumps(recipe.get(field, default)) for recipe in recipes]
        table[f"value_{side}"] = pd.Series(values, dtype=object, index=table.index)
    return table


def pretraining_effects(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | Outcomes | None = None,
    *,
    score: str = "exact_match",
    interval: Interval = "problems",
    meaningful: float = MEANINGFUL,
) -> pd.DataFrame:
    """The difference that pretraining makes: each pretrained backbone (a) against its random twin (b).

    The twin has the architecture of the same repository with freshly drawn weights (``BackboneSpec.pretrained`` is
    False). Both have the same task, n_train, rank and recipe. Columns as ``paired_differences``.
    """
    groups = [group for group in finished_groups(trials, score) if group.family != BASELINE]
    specs = {group.backbone: _spec(group.backbone) for group in groups}

    def repository(group: TrialGroup) -> tuple[object, ...]:
        spec = specs[group.backbone]
        name = (spec.repo_id, spec.revision) if spec is not None and spec.repo_id else (group.backbone,)
        return (*name, group.family, group.lora_rank, group.recipe)

    def is_pretrained(group: TrialGroup) -> bool:
        spec = specs[group.backbone]
        return spec is None or spec.pretrained

    pairs = _pairs_within(groups, repository, is_pretrained)
    return _effects(pairs, predictions, score, interval, meaningful)


def seed_effects(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | Outcomes | None = None,
    *,
    score: str = "exact_match",
    by: Sequence[str] = (*IDENTITY_COLUMNS, "n_train"),
) -> pd.DataFrame:
    """How much of the score hangs on the training seed, beyond the noise of a finite test set.

    One row for each value of ``by`` (default: a curve's point; ``by=["backbone"]`` pools all of a backbone's points,
    which says far more than two or three seeds do):

    - ``score``: mean over seeds and points; ``sd``: standard deviation over seeds of the score, as observed.
    - ``noise_sd``: what ``sd`` would be if seeds did not matter, since single answers are a matter of luck: from the
      residual of problems x seeds where predictions are known, else binomial, sqrt(p (1 - p) / n_test), which is too
      much where some problems are hard for all seeds.
    - ``seed_sd``: what is left, sqrt(sd^2 - noise_sd^2) or 0, with ``low`` and ``high`` (95 %): the random effect of
      the seed by analysis of variance, exact for normal scores (F distribution; Searle, Casella and McCulloch,
      "Variance Components", 1992, section 3.6). ``share``: seed_sd^2 / sd^2, the part of the variance over seeds that
      is theirs; ``p_value`` of the F test that there is none.
    - ``seeds`` (fewest of a point), ``n_test`` (fewest), ``points`` with several seeds.

    With one seed all of these but ``score``, ``seeds`` and ``n_test`` are null.
    """
    by = list(by)
    groups = [group for group in finished_groups(trials, score) if group.family != BASELINE]
    outcomes = outcomes_of(predictions, score)
    rows = []
    for group in groups:
        identity = {name: getattr(group, name) for name in (*IDENTITY_COLUMNS, "n_train")}
        variances = [
            _seed_variance(
                np.array([group.scores[variant][seed] for seed in by_seed]), by_seed.values(), outcomes, group
            )
            for variant, by_seed in group.trial_ids.items()
        ]
        num_problems = sum(row["n_test"] for row in variances)  # of all pooled variants
        rows += [identity | row | {"n_test": num_problems} for row in variances]
    points = pd.DataFrame(rows, columns=[*IDENTITY_COLUMNS, "n_train", *_POINT])
    unknown = [name for name in by if name not in points]
    if unknown:
        raise ValueError(f"by: {', '.join(unknown)}: valid are {', '.join([*IDENTITY_COLUMNS, 'n_train'])}")
    known = points["freedom"] > 0
    weighted = points.assign(
        between=(points["between"] * points["freedom"]).where(known),
        noise=(points["noise"] * points["freedom"]).where(known),
        freedom=points["freedom"].where(known, 0),
        noise_freedom=points["noise_freedom"].where(known, 0),
        points=known.astype(int),
    )
    sums = {name: (name, "sum") for name in ("between", "noise", "freedom", "noise_freedom", "points")}
    grouped = weighted.groupby(by, sort=False, dropna=False)
    table = grouped.agg(score=("score", "mean"), seeds=("seeds", "min"), n_test=("n_test", "min"), **sums).reset_index()
    freedom = table["freedom"].astype(float)
    between, noise = (
        (table[name].astype(float) / freedom.where(freedom > 0)).to_numpy() for name in ("between", "noise")
    )
    table["sd"], table["noise_sd"] = np.sqrt(between), np.sqrt(noise)
    excess = np.maximum(between - noise, 0)
    table["seed_sd"] = np.sqrt(excess)
    table["share"] = np.divide(excess, between, out=np.where(np.isnan(between), np.nan, 0.0), where=between > 0)
    low, high, p_value = _variance_bounds(between, noise, freedom.to_numpy(), table["noise_freedom"].to_numpy(float))
    table["low"], table["high"], table["p_value"] = np.sqrt(low), np.sqrt(high), p_value
    table["points"] = table["points"].astype(int)
    return table[[*by, *SEED_COLUMNS]]


_POINT = ["score", "between", "noise", "freedom", "noise_freedom", "seeds", "n_test"]


def _seed_variance(
    scores_S: np.ndarray[Any, np.dtype[np.float64]], trial_ids: Any, outcomes: Outcomes, group: TrialGroup
) -> dict[str, float]:
    """One point: variance of the seeds' scores, what noise alone makes of it, and the degrees of freedom of both."""
    right_SN = outcomes.stacked(trial_ids)
    right_SN = right_SN[:, ~np.isnan(right_SN).any(axis=0)] if right_SN.size else right_SN
    num_seeds, n_test = len(scores_S), group.n_test
    if len(right_SN) == num_seeds and right_SN.shape[1] > 1:
        scores_S, n_test = right_SN.mean(axis=1), right_SN.shape[1]
    row = {"score": float(scores_S.mean()), "seeds": num_seeds, "n_test": n_test, "freedom": num_seeds - 1}
    if num_seeds < 2 or np.isnan(scores_S).any():
        return row | {"between": np.nan, "noise": np.nan, "freedom": 0, "noise_freedom": 0}
    row["between"] = float(scores_S.var(ddof=1))
    if len(right_SN) == num_seeds and n_test > 1:
        residual_SN = right_SN - right_SN.mean(axis=0) - scores_S[:, None] + scores_S.mean()
        freedom = (num_seeds - 1) * (n_test - 1)
        return row | {"noise": float((residual_SN**2).sum()) / freedom / n_test, "noise_freedom": freedom}
    mean = float(np.clip(scores_S.mean(), 0, 1))
    return row | {"noise": mean * (1 - mean) / max(n_test - 1, 1), "noise_freedom": num_seeds * max(n_test - 1, 1)}


def _variance_bounds(between: Any, noise: Any, freedom: Any, noise_freedom: Any) -> tuple[Any, Any, Any]:
    """95 % bounds of the seed's variance, and the p-value of F. Arrays, element by element; NaN without freedom."""
    from scipy.special import fdtrc, fdtri

    known = np.asarray(freedom) > 0
    d1, d2 = (np.where(known, count, 1.0) for count in (freedom, noise_freedom))
    # F is (noise + seed) / noise times an F variable: divide by its quantiles, take the noise off again.
    low, high = (
        np.where(known, np.maximum(between / fdtri(d1, d2, tail) - noise, 0.0), np.nan) for tail in (0.975, 0.025)
    )
    none = np.where(between > 0, np.inf, 0.0)
    ratio = np.divide(between, noise, out=none, where=known & (noise > 0))
    p_value = np.where(np.isinf(ratio), 0.0, fdtrc(d1, d2, np.where(np.isinf(ratio), 1.0, ratio)))
    return low, high, np.where(known, p_value, np.nan)


def _effects(
    pairs: Iterable[tuple[TrialGroup, TrialGroup]],
    predictions: pd.DataFrame | Outcomes | None,
    score: str,
    interval: Interval,
    meaningful: float,
) -> pd.DataFrame:
    listed = list(pairs)
    outcomes = outcomes_of(predictions, score) if listed else Outcomes({})  # seconds, where predictions are millions
    table = pair_table(listed, outcomes, interval=interval)
    table["has_power"] = power_flags(table, meaningful)
    return table


def _pairs_within(
    groups: Sequence[TrialGroup],
    same: Callable[[TrialGroup], Any],
    value: Callable[[TrialGroup], Any],
) -> Iterator[tuple[TrialGroup, TrialGroup]]:
    """Every two groups of one task and n_train that agree in ``same``, not in ``value``; the larger number first."""
    alike: dict[tuple[Any, ...], list[TrialGroup]] = {}
    for group in groups:
        alike.setdefault((group.task, group.task_params, group.n_train, same(group)), []).append(group)
    for members in alike.values():
        for a, b in combinations(members, 2):
            value_a, value_b = value(a), value(b)
            if value_a == value_b:
                continue
            numbers = isinstance(value_a, int | float) and isinstance(value_b, int | float)
            yield (b, a) if numbers and value_b > value_a else (a, b)


def _spec(backbone: str) -> BackboneSpec | None:
    """Its spec; None for a backbone that this version does not know."""
    try:
        return backbone_spec(backbone)
    except ValueError:
        return None
