"""What a study found, a sentence a task: how many examples each backbone needs, and whether that can be told apart."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from orchestrator.analysis.curves import learning_curves
from orchestrator.analysis.outcomes import Outcomes
from orchestrator.analysis.solved_findings import solved_findings
from orchestrator.analysis.thresholds import efficiency_ratios, samples_to_threshold
from task_generators.task import task_class, task_names
from trainers.backbone import BackboneSpec, backbone_spec

CEILING = "baseline/oracle"
"""Is told the answers, so that what it scores is no floor for a model."""
NOTEWORTHY_BASELINE = 0.1
"""Exact match of a baseline above which it belongs into a sentence about models."""
MANY_TASKS = 4
"""From so many tasks on a sentence sums them up."""
Row = dict[str, Any]


class Finding(NamedTuple):
    """One sentence about one task."""

    task_label: str
    text: str
    """Begins with the task's label and has no full stop."""


def findings(
    trials: pd.DataFrame, predictions: pd.DataFrame | Outcomes | None = None, *, accuracy: float = 0.9
) -> list[Finding]:
    """A sentence for each task of ``trials``: first those that problems are generated for, then given ones (ARC).

    Which pretrained backbone reaches ``accuracy`` with how many examples (95 % intervals in brackets), how many times
    fewer than the next one needs, and whether that ratio could as well be 1; of a task that brings its own training
    sets, how many tasks each solves. A random-weight twin is named only where it reaches ``accuracy`` too, a baseline
    only above ``NOTEWORTHY_BASELINE``. A backbone with several LoRA ranks or recipes counts with the best of them, and
    the sentence says so. What has not finished is said. The first of very
    many sentences sums them up (from ``MANY_TASKS`` tasks on).

    Raises:
        ValueError: ``accuracy`` is not above 0 and at most 1.
    """
    if isinstance(predictions, pd.DataFrame):
        predictions = None if predictions.empty else Outcomes.of(predictions)
    learnt = trials[~is_given(trials)]
    return findings_of(
        trials,
        predictions,
        curves=learning_curves(learnt, predictions),
        samples=samples_to_threshold(learnt, predictions, accuracy=accuracy),
        ratios=efficiency_ratios(learnt, predictions, accuracy=accuracy),
        accuracy=accuracy,
    )


def findings_of(
    trials: pd.DataFrame,
    outcomes: Outcomes | None,
    *,
    curves: pd.DataFrame,
    samples: pd.DataFrame,
    ratios: pd.DataFrame,
    accuracy: float,
) -> list[Finding]:
    """``findings``, from the frames of ``learning_curves``, ``samples_to_threshold`` and ``efficiency_ratios`` of the
    trials (all with the same ``accuracy``), for who has them already."""
    samples_of = _by_task(samples)
    ratios_of = _by_task(ratios)
    found = []
    tasks = {
        task: (rows, samples_of.get(task, []), ratios_of.get(task, []))
        for task, rows in _by_task(curves[~is_given(curves)]).items()
    }
    over_all = _over_all(list(tasks.values()), accuracy)
    if over_all is not None:
        found.append(over_all)
    for rows, samples_here, ratios_here in tasks.values():
        label = str(rows[0]["task_label"])
        found.append(Finding(label, f"{label}: {_sentence(rows, samples_here, ratios_here, accuracy)}"))
    headline = trials["backbone"].map({name: is_headline(name) for name in trials["backbone"].unique()})
    solved = solved_findings(trials[is_given(trials) & headline.astype(bool)], outcomes)
    return found + [Finding(label, text) for label, text in solved]


def is_given(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether each row is of a task that brings its problems (ARC)."""
    given = {name for name in frame["task"].unique() if name in task_names() and not task_class(name).can_generate()}
    return frame["task"].isin(given)


def is_headline(backbone: str) -> bool:
    """Whether findings are about a backbone: pretrained and trained, so neither a random-weight twin nor a baseline."""
    spec = _spec(backbone)
    return spec is None or (spec.pretrained and spec.trainable)


def _sentence(curves: list[Row], samples: list[Row], ratios: list[Row], accuracy: float) -> str:
    finished = [row for row in curves if row["done"]]
    if not finished:
        return f"nothing has finished yet{_unfinished(curves, ' (', ')')}"
    best = _best_of_backbones([row for row in samples if is_headline(row["backbone"])], finished)
    reached = [row for row in best if row["censored"] != "right"]
    parts = []
    if reached:
        first, *others = reached
        text = f"{_name(first)} reaches {accuracy:g} {_examples(first, ' examples')}"
        text += "".join(f", {_name(row)} {_examples(row)}" for row in others)
        parts.append(text + (_times_fewer(first, others[0], ratios, several=len(others) > 1) if others else ""))
    missed = [row for row in best if row["censored"] == "right"]
    if missed:
        first, *others = missed
        goal = "it" if reached else f"{accuracy:g}"
        text = f"{_name(first)} does not reach {goal} {_at_largest(first, finished, ' examples')}"
        parts.append(text + "".join(f", nor does {_name(row)} {_at_largest(row, finished)}" for row in others))
    twins = [row for row in samples if not is_headline(row["backbone"]) and row["censored"] != "right"]
    too = "too, " if reached else ""
    for row in _best_of_backbones(twins, finished):
        parts.append(f"random-weight {_name(row)} reaches {accuracy:g} {too}{_examples(row, ' examples')}")
    if any(row["settings"] > 1 for row in best):
        parts.append("each with the best of its ranks and recipes")
    parts += _baselines(finished, alone=not samples)
    text = "; ".join(parts or ["no pretrained backbone has finished"])
    return text + _counts(best or finished) + _unfinished(curves, "; so far, with ")


def _over_all(tasks: list[tuple[list[Row], list[Row], list[Row]]], accuracy: float) -> Finding | None:
    """On how many of many tasks each backbone gets there, and how the first video model compares with the first other:
    (curves, samples, ratios) of each task. None for few tasks."""
    best = [
        {
            row["backbone"]: row
            for row in _best_of_backbones([row for row in samples if is_headline(row["backbone"])], [])
        }
        for _, samples, _ in tasks
    ]
    asked = Counter(name for rows in best for name in rows)
    if sum(bool(rows) for rows in best) < MANY_TASKS:
        return None
    reached = Counter(name for rows in best for name, row in rows.items() if row["censored"] != "right")
    counts = ", ".join(f"{name} on {reached[name]} of {count}" for name, count in asked.items())
    text = f"over {len(best)} tasks, {accuracy:g} is reached by {counts}"
    is_video = {name: row["family"] == "video" for rows in best for name, row in rows.items()}
    video, other = (next((name for name in asked if is_video[name] is kind), None) for kind in (True, False))
    if video is not None and other is not None:
        text += _head_to_head(video, other, best, [ratios for _, _, ratios in tasks])
    return Finding("all tasks", text)


def _head_to_head(a: str, b: str, best: list[dict[str, Row]], ratios: list[list[Row]]) -> str:
    fewer = more = open_ = 0
    logs = []
    for rows, of_task in zip(best, ratios, strict=True):
        if a not in rows or b not in rows or {rows[a]["censored"], rows[b]["censored"]} == {"right"}:
            continue
        ratio = _ratio(rows[a], rows[b], of_task) or _unpaired_ratio(rows[a], rows[b])
        fewer += ratio["low"] > 1
        more += ratio["high"] < 1
        open_ += not (ratio["low"] > 1 or ratio["high"] < 1)
        if not rows[a]["censored"] and not rows[b]["censored"]:
            logs.append(np.log(ratio["ratio"]))
    if not fewer + more + open_:
        return ""
    text = f"; {a} needs fewer examples than {b} on {fewer}, more on {more}, and on {open_} it cannot be told"
    if logs:
        times = _times(float(np.exp(np.mean(logs))))
        text += f"; where both get there ({len(logs)}), {b} needs {times} times as many (geometric mean)"
    return text


# --- parts of a sentence


def _best_of_backbones(samples: list[Row], finished: list[Row]) -> list[Row]:
    """The setting of each backbone that needs the fewest examples (or, if none gets there, is best at its largest
    size), with ``settings``, how many there are; the backbone that needs the fewest first."""
    by_backbone: dict[str, list[Row]] = {}
    for row in samples:
        by_backbone.setdefault(row["backbone"], []).append(row)
    best: list[Row] = []
    for rows in by_backbone.values():
        least = min(rows, key=lambda row: _order(row, finished))
        best.append(least | {"settings": len(rows)})
    return sorted(best, key=lambda row: _order(row, finished))


def _order(row: Row, finished: list[Row]) -> tuple[float, float]:
    if row["censored"] != "right":
        return float(row["samples"]), 0.0
    point = _point(row, finished)
    return np.inf, -float(point["exact_match"]) if point else 0.0


def _point(row: Row, finished: list[Row]) -> Row | None:
    """The point of a curve at its largest size."""
    for point in finished:
        same = all(point[name] == row[name] for name in ("backbone", "lora_rank", "recipe"))
        if same and point["n_train"] == row["largest"]:
            return point
    return None


def _name(row: Row) -> str:
    return str(row["backbone"]) + (f" r={row['lora_rank']}" if row["settings"] > 1 else "")


def _examples(row: Row, unit: str = "") -> str:
    """``with 60 [41, 83] examples``."""
    if row["censored"] == "left":
        return f"with {row['smallest']}{unit} or fewer" if row["samples"] else "without any examples"
    low = f"{row['smallest']} or fewer" if row["low"] == 0 else number(row["low"])
    high = f"more than {row['largest']}" if np.isinf(row["high"]) else number(row["high"])
    interval = "" if np.isnan(row["low"]) else f" [{low}, {high}]"
    return f"with {number(row['samples'])}{interval}{unit}"


def _times_fewer(first: Row, second: Row, ratios: list[Row], several: bool) -> str:
    """``: 1.2x [0.9, 1.8] fewer than x``; nothing where both are known by limits alone."""
    ratio = _ratio(first, second, ratios) or _unpaired_ratio(first, second)
    if ratio["censored"] not in ("", "at least"):
        return ""
    than = f" than {second['backbone']}" if several else ""
    low, high = ratio["low"], ratio["high"]
    limits = f" [{_times(low)}, {_times(high)}]" if low == low else ""
    at_least = "at least " if ratio["censored"] else ""
    doubt = "" if low > 1 else ", which may be no difference"
    return f": {at_least}{_times(ratio['ratio'])}x{limits} fewer{than}{doubt}"


def _times(ratio: float) -> str:
    """One decimal; two where one would hide on which side of 1 it is."""
    return "open" if np.isinf(ratio) else f"{ratio:.2f}" if 0.95 <= ratio < 1.05 else f"{ratio:.1f}"


def _ratio(first: Row, second: Row, ratios: list[Row]) -> Row | None:
    """How many times fewer the first needs, turned round where the table has the pair the other way."""
    for row in ratios:
        a, b = ({name: row[f"{name}_{side}"] for name in _SETTING} for side in "ab")
        if _is_of(first, a) and _is_of(second, b):
            return row
        if _is_of(first, b) and _is_of(second, a):
            with np.errstate(divide="ignore"):
                turned = {new: float(np.divide(1.0, row[old])) for new, old in _TURNED}
            return {**row, **turned, "censored": _TURNED_LIMITS.get(row["censored"], row["censored"])}
    return None


def _unpaired_ratio(first: Row, second: Row) -> Row:
    """The ratio of curves that the table does not pair, such as of two ranks: from the interval of each, on log n_train
    (Zou and Donner 2008), which is wider than one of the same test problems."""
    if first["censored"] or second["censored"]:
        limit = "at least" if first["censored"] and not second["censored"] else "unknown"
        ratio = second["samples"] / first["samples"] if first["samples"] else np.nan
        return {"ratio": ratio, "low": np.nan, "high": np.nan, "censored": limit if ratio == ratio else "unknown"}
    with np.errstate(divide="ignore"):
        (a, a_low, a_high), (b, b_low, b_high) = (
            np.log([float(row[name]) for name in ("samples", "low", "high")]) for row in (first, second)
        )
    low, high = b - a - np.hypot(b - b_low, a_high - a), b - a + np.hypot(b_high - b, a - a_low)
    return {"ratio": np.exp(b - a), "low": np.exp(low), "high": np.exp(high), "censored": ""}


_SETTING = ("backbone", "lora_rank", "recipe")
_TURNED = (("ratio", "ratio"), ("low", "high"), ("high", "low"))
_TURNED_LIMITS = {"at least": "at most", "at most": "at least"}


def _is_of(row: Row, setting: Row) -> bool:
    return all(row[name] == setting[name] for name in _SETTING)


def _at_largest(row: Row, finished: list[Row], unit: str = "") -> str:
    """``with up to 100 examples (0.31 [0.21, 0.43] there)``."""
    point = _point(row, finished)
    there = (
        f" ({_told_apart(float(point['exact_match']))} [{point['low']:.2f}, {point['high']:.2f}] there)"
        if point
        else ""
    )
    return f"with up to {row['largest']}{unit}{there}"


def _told_apart(share: float) -> str:
    """Two decimals; three where two would round it up to a threshold that it missed."""
    return f"{share:.2f}" if round(share, 2) <= share + 1e-9 else f"{share:.3f}"


def _baselines(finished: list[Row], alone: bool) -> list[str]:
    """The best point of each baseline that scores enough to be named; where there is nothing else, of every one."""
    best: dict[str, float] = {}
    for row in finished:
        if row["family"] == "baseline" and row["backbone"] != CEILING:
            best[row["backbone"]] = max(best.get(row["backbone"], 0.0), float(row["exact_match"]))
    named = {name: score for name, score in best.items() if alone or score > NOTEWORTHY_BASELINE}
    return [f"{name} {'scores' if alone else 'alone scores'} {score:.2f}" for name, score in named.items()]


def _counts(rows: list[Row]) -> str:
    """`` (1 seed, 64 test problems)``."""
    seeds, problems = ({int(row[name]) for row in rows} for name in ("seeds", "n_test"))
    plural = "" if max(seeds) == 1 else "s"
    return f" ({_range(seeds)} seed{plural}, {_range(problems)} test problem{'' if max(problems) == 1 else 's'})"


def _unfinished(curves: list[Row], before: str, after: str = "") -> str:
    """``; so far, with 20 of 24 trials done, 1 failed``; nothing where all are done."""
    done, failed, missing = (sum(int(row[name]) for row in curves) for name in ("done", "failed", "missing"))
    if not failed + missing:
        return ""
    return f"{before}{done} of {done + failed + missing} trials done{f', {failed} failed' if failed else ''}{after}"


def number(value: float) -> str:
    """A number of examples for people: ``83``, ``4.5``."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")


def _range(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


def _by_task(frame: pd.DataFrame) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for record in frame.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        found.setdefault((row["task"], row["task_params"]), []).append(row)
    return found


def _spec(backbone: str) -> BackboneSpec | None:
    """None: of another version of this package."""
    try:
        return backbone_spec(backbone)
    except ValueError:
        return None
