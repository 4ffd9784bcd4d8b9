"""ARC-AGI and ConceptARC by their official rules, from the trials of the task ``arc``.

ARC-AGI: a few attempts (two) at each test input; a task counts if all its inputs are right in any attempt; the score is
the share of tasks. ConceptARC: an input counts if any attempt (of three) is right; the score of a concept is the share
of its inputs (ten tasks of three), that of a model the mean over the sixteen concepts.

One row of these tables is for a model: ``dataset`` and ``backbone, family, lora_rank, recipe``. Several seeds are
averaged; of several n_train the largest of each task counts. What has not finished is left out of every share and
stated: ``num_tasks`` of ``num_expected``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.cells import counting
from orchestrator.analysis.intervals import wilson_interval
from orchestrator.analysis.solved_findings import inputs_interval
from orchestrator.tables import TrialState
from task_generators.arc_datasets import PACKAGED, SHORT_NAMES, load_arc_dataset
from trainers.recipe import TrainRecipe

ARC = "arc"
MODEL = ["dataset", "backbone", "family", "lora_rank", "recipe"]
SCORE_COLUMNS = [
    *MODEL,
    "attempts",
    "tasks_solved",
    "num_tasks",
    "share",
    "low",
    "high",
    "inputs_right",
    "num_inputs",
    "inputs_share",
    "inputs_low",
    "inputs_high",
    "num_expected",
    "num_in_dataset",
    "seeds",
]
CONCEPT_COLUMNS = [
    *MODEL,
    "concept",
    "attempts",
    "inputs_right",
    "num_inputs",
    "share",
    "low",
    "high",
    "num_tasks",
    "num_expected",
    "seeds",
]
_SIDE = MODEL[1:]
_LISTS = ["tasks_only_a", "tasks_both", "tasks_only_b"]
OVERLAP_COLUMNS = [
    "dataset",
    *(f"{name}_a" for name in _SIDE),
    *(f"{name}_b" for name in _SIDE),
    "attempts",
    "only_a",
    "both",
    "only_b",
    "neither",
    "num_tasks",
    "num_expected",
    *_LISTS,
]


def arc_scores(trials: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for each model and number of ``attempts`` (1 to as many as were made): what it solves.

    - ``tasks_solved`` of ``num_tasks`` (all inputs right), ``share``, ``low``, ``high`` (95 %, Wilson over tasks): the
      score of ARC-AGI. ``inputs_right`` of ``num_inputs``, ``inputs_share``, ``inputs_low``, ``inputs_high`` (the same
      with inputs clustered by task). Of several seeds the means: then counts need not be whole.
    - ``num_tasks`` have finished, of ``num_expected`` that the study has (failed and missing trials count there); where
      the two differ the shares are of those that finished. ``num_in_dataset``: how many the dataset has, null where it
      is not at hand. ``seeds``: the fewest that a task has.

    Without ``predictions`` of a trial, its own scores tell the result of all attempts alone.
    """
    rows = []
    for model in _models(trials, predictions):
        for attempts in model.attempts:
            tasks = model.tasks(attempts)
            low, high = wilson_interval(tasks.solved_T.mean(), len(tasks.names))
            row = model.identity | {"attempts": attempts, "tasks_solved": tasks.solved_T.sum()}
            row |= {"num_tasks": len(tasks.names), "share": tasks.solved_T.mean(), "low": float(low)}
            row |= {"high": float(high), "num_expected": model.num_expected, "seeds": tasks.seeds}
            row["num_in_dataset"] = tasks_in(model.identity["dataset"])
            share = float(tasks.right_T.sum() / tasks.inputs_T.sum())
            low_inputs, high_inputs = inputs_interval(tasks.right_T / tasks.inputs_T, tasks.inputs_T)
            row |= {"inputs_right": tasks.right_T.sum(), "num_inputs": tasks.inputs_T.sum(), "inputs_share": share}
            rows.append(row | {"inputs_low": low_inputs, "inputs_high": high_inputs})
    return _typed(rows, SCORE_COLUMNS)


def concept_scores(trials: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for each model, concept and number of ``attempts``: the score of ConceptARC, inputs right in any attempt.

    ``inputs_right`` of ``num_inputs``, ``share``, ``low``, ``high`` (95 %, inputs clustered by task), ``num_tasks`` and
    ``num_expected`` as in ``arc_scores``. Datasets without concepts (ARC-AGI) have no rows. ``concept_averages`` gives
    the score of a model.
    """
    rows = []
    for model in _models(trials, predictions):
        if model.identity["dataset"] in PACKAGED:
            continue
        expected = pd.Series([concept_of(name) for name in model.expected]).value_counts(sort=False)
        for attempts in model.attempts:
            tasks = model.tasks(attempts)
            concepts = np.array([concept_of(name) for name in tasks.names])
            for concept in dict.fromkeys(concepts):
                here = concepts == concept
                right_T, inputs_T = tasks.right_T[here], tasks.inputs_T[here]
                share = float(right_T.sum() / inputs_T.sum())
                low, high = inputs_interval(right_T / inputs_T, inputs_T)
                row = model.identity | {"concept": concept, "attempts": attempts, "seeds": tasks.seeds}
                row |= {"inputs_right": tasks.right_T[here].sum(), "num_inputs": tasks.inputs_T[here].sum()}
                row |= {"share": share, "low": low, "high": high, "num_tasks": here.sum()}
                rows.append(row | {"num_expected": expected[concept]})
    return _typed(rows, CONCEPT_COLUMNS)


def concept_averages(concepts: pd.DataFrame) -> pd.DataFrame:
    """The mean over concepts, each counting alike: one row for each model and number of attempts in ``concepts``.

    ``concepts`` is from ``concept_scores``, or any frame with ``concept`` and ``share`` and some of the columns that
    name a model. Columns: those, ``share``, ``low`` and ``high`` (95 %, from the concepts' own intervals, where there
    are any: these concepts, other tasks of them), ``concepts``: how many there were.
    """
    keys = [name for name in (*MODEL, "attempts") if name in concepts]
    means = concepts.assign(concepts=1).groupby(keys, sort=False, dropna=False)
    table = means.agg(share=("share", "mean"), concepts=("concepts", "sum")).reset_index()
    table["low"] = table["high"] = np.nan
    if {"low", "high"} <= set(concepts.columns):
        # Concepts are independent: squared half-widths add up, each side for itself (Newcombe's square-and-add).
        squares = concepts.assign(
            below=(concepts["share"] - concepts["low"]).astype(float) ** 2,
            above=(concepts["high"] - concepts["share"]).astype(float) ** 2,
        )
        grouped = squares.groupby(keys, sort=False, dropna=False)
        below, above = (np.sqrt(grouped[side].sum(min_count=1).to_numpy()) for side in ("below", "above"))
        table["low"] = (table["share"] - below / table["concepts"]).clip(0, 1)
        table["high"] = (table["share"] + above / table["concepts"]).clip(0, 1)
    return table[[*keys, "share", "low", "high", "concepts"]]


def solved_overlap(
    trials: pd.DataFrame, predictions: pd.DataFrame | None = None, *, attempts: int | None = None
) -> pd.DataFrame:
    """Which tasks two models solve, one row for every two of a dataset: the paper's figure 2.

    ``only_a``, ``both``, ``only_b``, ``neither`` count the ``num_tasks`` that both finished, of ``num_expected``; of
    several seeds more than half must solve a task. ``tasks_only_a``, ``tasks_both``, ``tasks_only_b`` list their names.
    ``attempts``: how many count; None for all that were made.
    """
    by_dataset: dict[str, list[tuple[_Model, int, dict[str, bool]]]] = {}
    for model in _models(trials, predictions):
        counted = max(model.attempts) if attempts is None else attempts
        if counted in model.attempts:
            tasks = model.tasks(counted)
            solved = dict(zip(tasks.names, (tasks.solved_T > 0.5).tolist(), strict=True))
            by_dataset.setdefault(model.identity["dataset"], []).append((model, counted, solved))
    rows = []
    for dataset, models in by_dataset.items():
        for (a, attempts_a, of_a), (b, attempts_b, of_b) in combinations(models, 2):
            names = [name for name in of_a if name in of_b]
            only_a = [name for name in names if of_a[name] and not of_b[name]]
            both = [name for name in names if of_a[name] and of_b[name]]
            only_b = [name for name in names if of_b[name] and not of_a[name]]
            row: dict[str, Any] = {"dataset": dataset, "attempts": max(attempts_a, attempts_b), "num_tasks": len(names)}
            for side, model in (("a", a), ("b", b)):
                row |= {f"{name}_{side}": model.identity[name] for name in _SIDE}
            row |= {"only_a": len(only_a), "both": len(both), "only_b": len(only_b)}
            row["neither"] = len(names) - len(only_a) - len(both) - len(only_b)
            row["num_expected"] = len({*a.expected, *b.expected})
            rows.append(row | dict(zip(_LISTS, (only_a, both, only_b), strict=True)))
    return _typed(rows, OVERLAP_COLUMNS)


def concept_of(task: str) -> str:
    """The concept of a task's name: its folder where it has one (``Count/1``), else the name without its number."""
    return task.rsplit("/", 2)[-2] if "/" in task else task.rstrip("0123456789")


def tasks_in(dataset: str) -> int | None:
    """How many tasks a dataset has; None where it is not at hand."""
    try:
        return len(load_arc_dataset(dataset).names)
    except ValueError:
        return None


class _Tasks(NamedTuple):
    """A model's finished tasks. T = task."""

    names: list[str]
    solved_T: npt.NDArray[np.float64]  # noqa: N815
    """Share of seeds that solved the task."""
    right_T: npt.NDArray[np.float64]  # noqa: N815
    """Inputs right, mean over seeds."""
    inputs_T: npt.NDArray[np.int64]  # noqa: N815
    seeds: int


class _Model(NamedTuple):
    identity: dict[str, Any]
    expected: list[str]
    """Names of all tasks of the study, finished or not."""
    attempts: list[int]
    """Numbers of attempts for which the score of every finished trial is known."""
    rows: pd.DataFrame
    """Finished trials: arc_task, seed, n_test, right_at_k for k in attempts, in the study's order of tasks."""

    @property
    def num_expected(self) -> int:
        return len(self.expected)

    def tasks(self, attempts: int) -> _Tasks:
        right = self.rows[f"right_{attempts}"].to_numpy(float)
        solved = right == self.rows["n_test"].to_numpy()
        counted = pd.DataFrame({"name": self.rows["arc_task"], "right": right, "solved": solved.astype(float)})
        counted["n_test"] = self.rows["n_test"]
        by_task = counted.groupby("name", sort=False)
        means = by_task.agg(
            right=("right", "mean"), solved=("solved", "mean"), inputs=("n_test", "max"), seeds=("right", "size")
        )
        names = [str(name) for name in means.index]
        arrays = (means["solved"].to_numpy(float), means["right"].to_numpy(float), means["inputs"].to_numpy(np.int64))
        return _Tasks(names, *arrays, int(means["seeds"].min()))


def _models(trials: pd.DataFrame, predictions: pd.DataFrame | None) -> Iterator[_Model]:
    """The models that have a finished trial of the task ``arc``, in the order of ``trials``."""
    of_arc = counting(trials[trials["task"] == ARC], given_at_largest=True)
    if of_arc.empty:
        return
    # Imported here: the task's file brings the datasets' pictures' palette along, which no other study needs.
    from task_generators.tasks.arc import Arc

    params = [json.loads(text) for text in of_arc["task_params"]]
    defaults = {name: Arc.model_fields[name].default for name in ("dataset", "task")}
    datasets = [str(knobs.get("dataset", defaults["dataset"])) for knobs in params]
    of_arc = of_arc.assign(
        dataset=[SHORT_NAMES.get(name, name) for name in datasets],
        arc_task=[str(knobs.get("task", defaults["task"])) for knobs in params],
    )
    done = of_arc[of_arc["state"] == TrialState.DONE]
    firsts = _first_right(done, predictions)
    default_attempts = TrainRecipe().attempts
    for key, rows in of_arc.groupby(MODEL, sort=False):
        identity: dict[str, Any] = dict(zip(MODEL, key, strict=True))
        finished = rows[(rows["state"] == TrialState.DONE) & rows["exact_match"].notna()]
        if finished.empty:
            continue
        made = int(json.loads(str(identity["recipe"])).get("attempts", default_attempts))
        rights = [firsts.get(trial_id) for trial_id in finished["trial_id"]]
        counts = {made: (finished["exact_match"] * finished["n_test"]).round().to_numpy(float)}
        if all(first is not None for first in rights):
            known = [first for first in rights if first is not None]
            made = max(made, *(int(first[np.isfinite(first)].max(initial=0)) + 1 for first in known))
            counts = {k: np.array([float((first < k).sum()) for first in known]) for k in range(1, made + 1)}
        columns = {f"right_{k}": right for k, right in counts.items()}
        expected = list(dict.fromkeys(of_arc.loc[of_arc["dataset"] == identity["dataset"], "arc_task"]))
        yield _Model(identity, expected, list(counts), finished.assign(**columns))


def _first_right(done: pd.DataFrame, predictions: pd.DataFrame | None) -> dict[str, npt.NDArray[np.float64]]:
    """By trial, the number (from 0) of the first attempt that is right for each test input, infinite if none is; of
    trials whose predictions are whole."""
    if predictions is None or predictions.empty or done.empty:
        return {}
    ids = pd.Index(done["trial_id"])
    place = ids.get_indexer(predictions["trial_id"])
    at = np.flatnonzero(place >= 0)
    num_inputs = done["n_test"].to_numpy(np.int64)
    starts = np.r_[0, np.cumsum(num_inputs)]
    index = predictions["index"].to_numpy(np.int64)[at]
    inside = index < num_inputs[place[at]]
    at, index = at[inside], index[inside]
    slot = starts[place[at]] + index
    attempt = predictions["attempt"].to_numpy(np.float64)[at]
    right = predictions["exact_match"].astype("boolean").fillna(False).to_numpy(bool)[at]
    first, answered = np.full(starts[-1], np.inf), np.zeros(starts[-1], bool)
    answered[slot] = True
    np.minimum.at(first, slot[right], attempt[right])
    whole = np.add.reduceat(answered, starts[:-1]) == num_inputs
    return {str(ids[row]): first[starts[row] : starts[row + 1]] for row in np.flatnonzero(whole)}


def _typed(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """A frame with all ``columns``, those of numbers typed even when there are no rows."""
    table = pd.DataFrame(rows, columns=columns)
    whole = {"lora_rank", "lora_rank_a", "lora_rank_b", "attempts", "num_tasks", "num_inputs", "num_expected", "seeds"}
    whole |= {"only_a", "both", "only_b", "neither"}
    texts = {"dataset", "concept", *_LISTS, *(f"{name}{side}" for name in MODEL for side in ("", "_a", "_b"))} - whole
    for name in columns:
        if name == "num_in_dataset":
            table[name] = table[name].astype("Int64")
        elif name not in texts:
            table[name] = table[name].astype("int64" if name in whole else "float64")
    return table
