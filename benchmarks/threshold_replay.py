"""What ``search: threshold`` needs of a grid that was measured in full, beside plain bisection: a table.

    python -m benchmarks.threshold_replay [--results published_results.csv] [--orders 20]

The file (by default the published results) has one score a row with the columns task, model, n_train, metric, attempts,
inputs and value; each (task, model) with exact_match is a curve. Trials end in the order in which they were given
out, ``max_running`` at once. Shares are of all cells of the file, and of the training examples of all cells. An answer
that is not measured on both sides is inferred: how many were right stands beside how many the search itself expected
to be. A second table is of simulated curves, whose true thresholds are known.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.search_entries import ThresholdEntry
from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState
from orchestrator.threshold import ThresholdSearch, wilson_interval
from task_generators.rng import problem_rng
from task_generators.task import TaskSpec
from trainers.recipe import TrainRecipe

PUBLISHED = Path(__file__).resolve().parents[1] / "orchestrator" / "data" / "published_results.csv"
ACCURACY = 0.9
N_TEST = 200
SIZES = (3, 5, 10, 30, 50, 100, 300, 500, 1000, 3000, 5000)

Scores = dict[int, float]
"""n_train -> score, ascending in n_train."""
_Place = TypeVar("_Place", bound=Hashable)
Curves = Mapping[tuple[str, str], Scores]
"""(task, model) -> scores."""


@dataclass(frozen=True)
class Replay:
    """What a search measured of a full grid."""

    cells: float
    """Share of the grid's cells."""
    examples: float
    """Share of the grid's training examples."""
    num_right: int
    """Curves whose threshold is the one that the full grid gives."""
    num_curves: int
    num_inferred: int = 0
    """Answers that were not measured on both sides."""
    num_inferred_right: int = 0
    expected_right: float = 0.0
    """Of the inferred answers, by the chances that the search gave them."""


def published_curves(path: Path) -> dict[tuple[str, str], Scores]:
    """The learning curves of a file of published results, in its order."""
    curves: dict[tuple[str, str], Scores] = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] == "exact_match" and row["attempts"] == "1" and not row["inputs"] and row["n_train"]:
                curves[row["task"], row["model"]][int(row["n_train"])] = float(row["value"])
    return {key: dict(sorted(scores.items())) for key, scores in curves.items()}


def backbone_by_backbone(curves: Curves) -> list[tuple[str, str]]:
    """The curves in the order of a sweep: all tasks of the first model, then all of the next."""
    models = list(dict.fromkeys(model for _, model in curves))
    return sorted(curves, key=lambda key: models.index(key[1]))


def full_grid_threshold(scores: Scores, accuracy: float = ACCURACY) -> int | None:
    """The smallest size that reaches the accuracy; None where none does."""
    return next((n_train for n_train, score in scores.items() if score >= accuracy), None)


def bisection(curves: Curves) -> Replay:
    """Plain bisection of each curve, as ``bisect.bisect_left`` does it."""
    found, measured = _bisected(curves)
    return _replay(curves, measured, found)


def _bisected(curves: Mapping[_Place, Scores]) -> tuple[dict[_Place, int | None], list[int]]:
    """The thresholds, and the sizes that were measured."""
    measured, found = [], {}
    for key, scores in curves.items():
        sizes = list(scores)
        low, high = 0, len(sizes)
        while low < high:
            middle = (low + high) // 2
            measured.append(sizes[middle])
            if scores[sizes[middle]] >= ACCURACY:
                high = middle
            else:
                low = middle + 1
        found[key] = sizes[low] if low < len(sizes) else None
    return found, measured


def both_sides(curves: Curves) -> Replay:
    """The least that any search can need that measures the size below the threshold and the threshold itself."""
    measured = []
    for scores in curves.values():
        sizes = list(scores)
        threshold = full_grid_threshold(scores)
        at = len(sizes) if threshold is None else sizes.index(threshold)
        measured += sizes[max(at - 1, 0) : at + 1]
    return _replay(curves, measured, {key: full_grid_threshold(scores) for key, scores in curves.items()})


def searched(
    curves: Curves,
    order: Sequence[tuple[str, str]] | None = None,
    max_running: int = 1,
    confidence: float = ThresholdEntry().confidence,
) -> Replay:
    """``ThresholdSearch`` without repeats (there is one score a cell), with curves in ``order``."""
    search = search_of(curves, order, max_running, confidence)
    measured = [trial.n_train for trial in run(search, curves)]
    findings = [each for each in search.findings() if each.state in ("found", "never")]
    found = {(each.task, each.backbone): each.n_train for each in findings}
    inferred = [each for each in findings if each.basis == "inferred"]
    return replace(
        _replay(curves, measured, found),
        num_inferred=len(inferred),
        num_inferred_right=sum(
            each.n_train == full_grid_threshold(curves[each.task, each.backbone]) for each in inferred
        ),
        expected_right=sum(each.chance for each in inferred),
    )


def search_of(
    curves: Curves,
    order: Sequence[tuple[str, str]] | None = None,
    max_running: int | None = 1,
    confidence: float = ThresholdEntry().confidence,
) -> ThresholdSearch:
    """A search over the cells of ``curves``."""
    keys = backbone_by_backbone(curves) if order is None else order
    trials = [_trial(task, model, n_train) for task, model in keys for n_train in curves[task, model]]
    entry = ThresholdEntry(accuracy=ACCURACY, repeats=0, confidence=confidence)
    return ThresholdSearch(trials, entry, max_running=max_running)


def run(search: ThresholdSearch, curves: Curves) -> Iterable[TrialSpec]:
    """Give a search the scores that it asks for, first asked, first answered; yields each trial before its score."""
    running = search.ready()
    while running:
        trial = running.pop(0)
        yield trial
        score = curves[trial.task.label(), trial.backbone][trial.n_train]
        search.ended(trial, TrialState.DONE, {"exact_match": score})
        running += search.ready()


def near_the_accuracy(curves: Curves) -> str:
    """How many of the cells that a search measures have an interval of 95 % that contains the accuracy."""
    measured = list(run(search_of(curves), curves))
    scores = [curves[trial.task.label(), trial.backbone][trial.n_train] for trial in measured]
    intervals = [wilson_interval(score, N_TEST) for score in scores]
    return f"{sum(low <= ACCURACY <= high for low, high in intervals)} of {len(measured)}"


class _PublishedTask(TaskSpec):
    """A task by its published name, which need not be one of ours."""

    def label(self) -> str:
        return self.name

    def params_json(self) -> str:
        return "{}"


def _trial(task: str, model: str, n_train: int) -> TrialSpec:
    fields: dict[str, Any] = {"seed": 0, "n_train": n_train, "lora_rank": 64, "n_test": N_TEST, "recipe": TrainRecipe()}
    spec = _PublishedTask.model_construct(name=task, params={}, test={}, min_test_distance=0.0)
    trial = TrialSpec.model_construct(backbone=model, task=spec, **fields)
    trial.__dict__["trial_id"] = f"{task} {model} {n_train}"
    return trial


def _replay(curves: Curves, measured: Sequence[int], found: Mapping[tuple[str, str], int | None]) -> Replay:
    return Replay(
        cells=len(measured) / sum(map(len, curves.values())),
        examples=sum(measured) / sum(map(sum, curves.values())),
        num_right=sum(key in found and found[key] == full_grid_threshold(curves[key]) for key in curves),
        num_curves=len(curves),
    )


@dataclass(frozen=True)
class Accuracy:
    """How far thresholds are from the true ones, and what they took."""

    right: float
    """Share of curves whose threshold is the true one."""
    within_one_size: float
    cells: float
    """Trials, as a share of the grid's cells."""
    examples: float
    num_inferred: int = 0
    num_inferred_right: int = 0
    """Those that are what the true curve gives."""
    expected_right: float = 0.0


def true_curves(num_tasks: int, key: int) -> dict[tuple[int, str], Scores]:
    """True accuracies of two backbones on ``num_tasks`` tasks, by (rule, backbone).

    Logistic in log n_train up to a ceiling: a task sets middle, steepness and ceiling, a backbone shifts the middle.
    """
    rng = problem_rng("simulated learning curves", key)
    curves = {}
    for rule in range(num_tasks):
        middle, steepness = rng.uniform(0.7, 3.7), math.exp(rng.normal(1.4, 0.5))
        ceiling = 1.0 if rng.random() < 0.8 else rng.uniform(0.6, 1.0)
        for backbone, shift in (("cogvideox/tiny", 0.0), ("causal_lm/tiny", 0.5)):
            own = middle + shift + rng.normal(0, 0.3)
            curves[rule, backbone] = {n: ceiling / (1 + math.exp(-steepness * (math.log10(n) - own))) for n in SIZES}
    return curves


def simulated(
    curves: Mapping[tuple[int, str], Scores],
    repeats: int | None,
    key: int,
    confidence: float = ThresholdEntry().confidence,
) -> Accuracy:
    """A search with ``repeats`` (None: plain bisection) over scores of ``N_TEST`` answers to ``curves``' accuracies."""
    tasks = {rule: TaskSpec(name="elementary_ca", params={"rule": rule}) for rule, _ in curves}
    rules = {task.label(): rule for rule, task in tasks.items()}

    def score(rule: int, backbone: str, n_train: int, seed: int) -> float:
        rng = problem_rng("simulated scores", key, rule, backbone, n_train, seed)
        return float(rng.binomial(N_TEST, curves[rule, backbone][n_train])) / N_TEST

    inferred = []
    if repeats is None:
        observed = {place: {n: score(*place, n, 0) for n in SIZES} for place in curves}
        found, measured = _bisected(observed)
    else:
        trials = [
            TrialSpec(backbone=backbone, task=tasks[rule], n_train=n_train, lora_rank=16, n_test=N_TEST)
            for backbone in dict.fromkeys(backbone for _, backbone in curves)
            for rule in tasks
            for n_train in SIZES
        ]
        entry = ThresholdEntry(accuracy=ACCURACY, repeats=repeats, confidence=confidence)
        search = ThresholdSearch(trials, entry, max_running=1)
        measured = []
        while running := search.ready():
            for trial in running:
                measured.append(trial.n_train)
                share = score(rules[trial.task.label()], trial.backbone, trial.n_train, trial.seed)
                search.ended(trial, TrialState.DONE, {"exact_match": share})
        findings = {(rules[each.task], each.backbone): each for each in search.findings()}
        found = {place: each.n_train for place, each in findings.items()}
        inferred = [(place, each.chance) for place, each in findings.items() if each.basis == "inferred"]
    errors = [abs(_place(found[place]) - _place(full_grid_threshold(curves[place]))) for place in curves]
    return Accuracy(
        right=sum(error == 0 for error in errors) / len(errors),
        within_one_size=sum(error <= 1 for error in errors) / len(errors),
        cells=len(measured) / (len(SIZES) * len(curves)),
        examples=sum(measured) / (sum(SIZES) * len(curves)),
        num_inferred=len(inferred),
        num_inferred_right=sum(found[place] == full_grid_threshold(curves[place]) for place, _ in inferred),
        expected_right=sum(chance for _, chance in inferred),
    )


def _place(n_train: int | None) -> int:
    return len(SIZES) if n_train is None else SIZES.index(n_train)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=PUBLISHED, help="CSV of scores")
    parser.add_argument("--orders", type=int, default=20, help="random orders of the curves")
    parser.add_argument("--tasks", type=int, default=100, help="simulated tasks, of two curves each")
    arguments = parser.parse_args()
    curves = published_curves(arguments.results)
    print(f"{'':34s} {'cells':>6s} {'examples':>9s}  thresholds found")
    _print("plain bisection", bisection(curves))
    _print("both sides of each threshold only", both_sides(curves))
    for max_running in (1, 8, 64):
        _print(f"search, {max_running} at once", searched(curves, max_running=max_running))
    _print("search, every answer measured", searched(curves, confidence=1))
    shuffled = random.Random(0)
    orders = [shuffled.sample(list(curves), len(curves)) for _ in range(arguments.orders)]
    for max_running in (1, 8):
        replays = [searched(curves, order, max_running) for order in orders]
        print(f"{len(orders)} random orders, {max_running} at once")
        for name in ("cells", "examples"):
            values = [getattr(each, name) for each in replays]
            print(f"  {name}: mean {sum(values) / len(values):.1%}, {min(values):.1%} to {max(values):.1%}")
        wrong = [each.num_curves - each.num_right for each in replays]
        print(f"  thresholds not found: {sum(wrong)} of {sum(each.num_curves for each in replays)}")
        inferred, right = sum(each.num_inferred for each in replays), sum(each.num_inferred_right for each in replays)
        print(f"  inferred: {inferred}, right {right}, expected {sum(each.expected_right for each in replays):.1f}")
    print(f"measured cells whose interval contains {ACCURACY:g}: {near_the_accuracy(curves)}")
    print(f"\n{'simulated curves':40s} {'cells':>6s} {'examples':>9s}  right  within one size")
    true = true_curves(arguments.tasks, key=0)
    for name, repeats, confidence in (
        ("plain bisection", None, 1.0),
        ("search, every answer measured", 0, 1.0),
        ("search", 0, ThresholdEntry().confidence),
        ("search, every answer measured, 2 repeats", 2, 1.0),
        ("search, 2 repeats", 2, ThresholdEntry().confidence),
    ):
        each = simulated(true, repeats, key=0, confidence=confidence)
        shares = f"{each.cells:6.1%} {each.examples:9.1%}  {each.right:5.1%}  {each.within_one_size:.1%}"
        print(f"{name:40s} {shares}{_inferred(each)}", flush=True)


def _print(name: str, replay: Replay) -> None:
    found = f"{replay.num_right} of {replay.num_curves}{_inferred(replay)}"
    print(f"{name:34s} {replay.cells:6.1%} {replay.examples:9.1%}  {found}", flush=True)


def _inferred(result: Replay | Accuracy) -> str:
    if not result.num_inferred:
        return ""
    return (
        f"; {result.num_inferred} inferred, {result.num_inferred_right} of them right"
        f" (expected {result.expected_right:.1f})"
    )


if __name__ == "__main__":
    main()
