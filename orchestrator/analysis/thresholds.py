"""How many training problems a backbone needs to reach an accuracy, and how many times fewer than another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from orchestrator.analysis.bootstrap import accuracy_draws, cell_draws, percentile_interval
from orchestrator.analysis.cells import IDENTITY_COLUMNS, Curve, curves_of, learning
from orchestrator.analysis.intervals import Floats
from orchestrator.analysis.outcomes import Outcomes

_TOLERANCE = 1e-9
"""A mean of seeds such as (0.85 + 0.95) / 2 reaches 0.9."""
SAMPLES_COLUMNS = ["samples", "low", "high", "interval", "censored", "first_n_train", "smallest", "largest"]
RATIO_IDENTITY = ["task", "task_params", "task_label", "backbone_a", "lora_rank_a", "recipe_a"]
RATIO_COLUMNS = [
    *RATIO_IDENTITY,
    *("backbone_b", "lora_rank_b", "recipe_b"),
    *("ratio", "low", "high", "interval", "censored", "samples_a", "samples_b", "seeds", "n_test"),
]


def samples_to_threshold(
    trials: pd.DataFrame, predictions: pd.DataFrame | Outcomes | None = None, *, accuracy: float = 0.9
) -> pd.DataFrame:
    """One row a curve of a trained backbone: the n_train with which its exact match first reaches ``accuracy``.

    Columns: those of ``CURVE``, ``task_label``, ``family``, then

    - ``samples``: interpolated linearly on log n_train between the finished sizes; NaN where it is never reached;
    - ``low``, ``high``: 95 % limits, by drawing the whole curve anew (``accuracy_draws``). ``high`` is infinite where
      more than 2.5 % of the draws do not reach ``accuracy`` at any size, ``low`` is 0 where more than 2.5 % reach it at
      the smallest already;
    - ``interval``: what they are over: test ``problems``; ``both``, where all sizes have several seeds; ``binomial``
      without predictions, from the means and ``n_test`` alone, the sizes apart from each other;
    - ``censored``: ``right``: never reached, ``samples`` > ``largest``; ``left``: reached at the smallest size already,
      ``samples`` <= ``smallest`` (which stands in ``samples``; 0 where it is reached without training); else "";
    - ``first_n_train``: the smallest size whose mean is at least ``accuracy``, <NA> if none (the paper's figures 7, 9);
    - ``smallest``, ``largest`` n_train, ``seeds`` and ``n_test`` (fewest of any size).

    A curve that falls below ``accuracy`` again has still reached it: the first crossing counts, for draws too. An
    accuracy without training problems is not interpolated from, as log 0 is nowhere.

    Raises:
        ValueError: ``accuracy`` is not above 0 and at most 1.
    """
    _check_accuracy(accuracy)
    rows = []
    for place, curve in enumerate(learning(curves_of(trials, predictions))):
        crossing = Crossing.of(curve, accuracy, place)
        low, high = percentile_interval(crossing.lower_B, crossing.upper_B)
        estimates = {"samples": crossing.samples, "low": low, "high": high, "interval": curve.interval}
        estimates |= {"censored": crossing.censored, "first_n_train": _first_n_train(curve, accuracy)}
        rows.append(curve.columns() | estimates | curve.counts())
    frame = pd.DataFrame(rows, columns=[*IDENTITY_COLUMNS, *SAMPLES_COLUMNS, "seeds", "n_test"])
    return frame.astype({"first_n_train": "Int64"})


def efficiency_ratios(
    trials: pd.DataFrame,
    predictions: pd.DataFrame | Outcomes | None = None,
    *,
    accuracy: float = 0.9,
    reference: str | None = None,
) -> pd.DataFrame:
    """One row a task and pair of trained backbones: how many times fewer training problems a needs than b.

    Columns: ``task``, ``task_params``, ``task_label``, ``backbone_a``, ``lora_rank_a``, ``recipe_a``, the same of b,
    then ``ratio`` = ``samples_b`` / ``samples_a`` (of ``samples_to_threshold``) with ``low`` and ``high`` (95 %, both
    curves drawn on the same test problems and seeds; 0 or infinite where open), ``interval``, ``censored``, ``seeds``
    and ``n_test`` (fewest). Where a never reaches ``accuracy``, or b at its smallest size, ``ratio`` is ``at most``
    what stands there; the other way round ``at least``; where both, ``unknown`` and NaN.

    Pairs come in the order in which backbones first appear; with ``reference`` it is b of every pair. Curves pair up
    if they have the same LoRA rank and recipe, or if the two backbones have no rank (recipe) in common in this task,
    as published recipes differ by family.

    Simulated coverage (as in tests/orchestrator/test_analysis_coverage.py): 95-96 % with one seed, 5 or 10; 97 % with
    three, whose t quantile is wide; 98 % with one seed and 64 test problems, more if b reaches ``accuracy`` only at its
    largest size.

    Raises:
        ValueError: ``accuracy`` is not above 0 and at most 1, or ``reference`` has no curve.
    """
    _check_accuracy(accuracy)
    curves = learning(curves_of(trials, predictions))
    backbones = {_named(curve, "backbone") for curve in curves}
    if reference is not None and curves and reference not in backbones:
        raise ValueError(f"reference: {reference!r} has no learning curve; there are {', '.join(sorted(backbones))}")
    crossings = [Crossing.of(curve, accuracy, place) for place, curve in enumerate(curves)]
    rows = []
    for a, b in matched_pairs(curves, reference):
        curve_a, curve_b, of_a, of_b = curves[a], curves[b], crossings[a], crossings[b]
        ratio, censored = _ratio(of_a, of_b)
        low, high = ratio_interval(of_a, of_b)
        names = dict(zip(RATIO_IDENTITY[:3], (*curve_a.key[:2], curve_a.task_label), strict=True))
        for side, curve in (("a", curve_a), ("b", curve_b)):
            names |= {f"{field}_{side}": _named(curve, field) for field in ("backbone", "lora_rank", "recipe")}
        counts_a, counts_b = curve_a.counts(), curve_b.counts()
        fewest = {name: min(counts_a[name], counts_b[name]) for name in ("seeds", "n_test")}
        estimates = {"ratio": ratio, "low": low, "high": high, "censored": censored}
        estimates |= {"interval": _weaker(curve_a.interval, curve_b.interval)}
        rows.append(names | estimates | {"samples_a": of_a.samples, "samples_b": of_b.samples} | fewest)
    return pd.DataFrame(rows, columns=RATIO_COLUMNS)


def matched_pairs(curves: Sequence[Curve], reference: str | None = None) -> Iterator[tuple[int, int]]:
    """Places (a, b) of curves of one task and different backbones that ``efficiency_ratios`` compares."""
    by_task: dict[tuple[object, ...], list[int]] = {}
    for place, curve in enumerate(curves):
        by_task.setdefault(curve.key[:2], []).append(place)
    order = {name: rank for rank, name in enumerate(dict.fromkeys(_named(curve, "backbone") for curve in curves))}
    for places in by_task.values():
        options: dict[tuple[str, object], set[object]] = {}
        for place in places:
            for field in ("lora_rank", "recipe"):
                options.setdefault((field, _named(curves[place], "backbone")), set()).add(_named(curves[place], field))
        for pair in combinations(sorted(places, key=lambda place: order[_named(curves[place], "backbone")]), 2):
            first, second = (_named(curves[place], "backbone") for place in pair)
            if first == second or (reference is not None and reference not in (first, second)):
                continue
            if all(
                _named(curves[pair[0]], field) == _named(curves[pair[1]], field)
                or not options[field, first] & options[field, second]
                for field in ("lora_rank", "recipe")
            ):
                yield (pair[1], pair[0]) if first == reference else pair


@dataclass(frozen=True)
class Crossing:
    """Where a curve reaches an accuracy: between ``lower`` and ``upper``, which are one number unless censored."""

    lower: float
    upper: float
    samples: float
    censored: str
    lower_B: Floats  # noqa: N815
    """The same of each draw."""
    upper_B: Floats  # noqa: N815

    @classmethod
    def of(cls, curve: Curve, accuracy: float, stream: int = 0) -> Crossing:
        """Of ``curve``; ``stream`` as in ``accuracy_draws``."""
        sizes_K = np.array([cell.n_train for cell in curve.sizes], dtype=float)
        means_K = np.array([cell.mean for cell in curve.sizes])
        zero_shot = curve.zero_shot
        lower, upper = crossings(means_K[None], sizes_K, accuracy)
        lower_B, upper_B = crossings(accuracy_draws(curve, stream), sizes_K, accuracy)
        censored = "right" if np.isinf(upper[0]) else "left" if lower[0] == 0 else ""
        samples = {"right": np.nan, "left": sizes_K[0]}.get(censored, lower[0])
        if zero_shot is not None:
            known_B = cell_draws(zero_shot, stream) >= accuracy - _TOLERANCE
            lower_B, upper_B = np.where(known_B, 0, lower_B), np.where(known_B, sizes_K[0], upper_B)
            if zero_shot.mean >= accuracy - _TOLERANCE:
                return cls(0.0, float(sizes_K[0]), 0.0, "left", lower_B, upper_B)
        return cls(float(lower[0]), float(upper[0]), float(samples), censored, lower_B, upper_B)


def crossings(accuracy_BK: Floats, sizes_K: Floats, accuracy: float) -> tuple[Floats, Floats]:
    """(B,), (B,): between which sizes each of B curves first reaches ``accuracy``, by linear interpolation on log n.

    Lower and upper are the same unless it is reached at the smallest size already (0 to it) or never (largest to inf).
    """
    reached_BK = accuracy_BK >= accuracy - _TOLERANCE
    first_B = reached_BK.argmax(axis=1)
    never_B, at_once_B = ~reached_BK.any(axis=1), reached_BK[:, 0]
    draws, before_B = np.arange(len(accuracy_BK)), np.maximum(first_B - 1, 0)
    below_B, above_B = accuracy_BK[draws, before_B], accuracy_BK[draws, first_B]
    rise_B = np.where(above_B > below_B, above_B - below_B, 1.0)
    share_B = np.clip((accuracy - below_B) / rise_B, 0, 1)
    log_sizes_K = np.log(sizes_K)
    crossing_B = np.exp(log_sizes_K[before_B] + share_B * (log_sizes_K[first_B] - log_sizes_K[before_B]))
    lower_B = np.where(never_B, sizes_K[-1], np.where(at_once_B, 0.0, crossing_B))
    upper_B = np.where(never_B, np.inf, np.where(at_once_B, sizes_K[0], crossing_B))
    return lower_B, upper_B


def ratio_interval(a: Crossing, b: Crossing) -> tuple[float, float]:
    """95 % interval of samples of b / samples of a, draw by draw."""
    return percentile_interval(_divide(b.lower_B, a.upper_B), _divide(b.upper_B, a.lower_B))


def _ratio(a: Crossing, b: Crossing) -> tuple[float, str]:
    """The ratio b / a or the limit that is known of it, and which."""
    low = float(_divide(np.array(b.lower), np.array(a.upper)))
    high = float(_divide(np.array(b.upper), np.array(a.lower)))
    if low > 0 and np.isinf(high):
        return low, "at least"
    if low == 0:
        return (np.nan, "unknown") if np.isinf(high) else (high, "at most")
    return low, ""


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Quotients of what is 0 to infinite; a lower limit never has 0 / 0, an upper never infinite / infinite."""
    with np.errstate(divide="ignore"):
        quotient: Floats = np.divide(numerator, denominator)
    return quotient


def _first_n_train(curve: Curve, accuracy: float) -> int | None:
    return next((cell.n_train for cell in curve.cells if cell.mean >= accuracy - _TOLERANCE), None)


def _named(curve: Curve, field: str) -> str:
    """The value of one column of ``CURVE``, as it is."""
    value: str = curve.columns()[field]  # type: ignore[assignment]
    return value


def _weaker(a: str, b: str) -> str:
    """What an interval of two curves is of: what can be said of both."""
    return min(a, b, key=("binomial", "problems", "both").index)


def _check_accuracy(accuracy: float) -> None:
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy: {accuracy} is not above 0 and at most 1")
