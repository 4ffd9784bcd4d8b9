"""Rows that a sweep left behind: of the same cell as a missing trial, but made with another recipe, task or test set.

A ``trial_id`` is a hash, so that a changed field makes a finished trial count as missing. Here is said which field.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState
from task_generators.task import task_class
from trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_CHANGE = "the task's generator or the backbone's revision changed"
"""All fields that a row holds are equal: what else is part of a trial's identity is in no column."""
MAX_CANDIDATES = 64
"""Missing trials that a row is compared with at most, where none has its task or its recipe."""

_Cell = tuple[str, str, int, int, int]
"""Backbone, task name, seed, n_train, lora_rank."""
_Signature = tuple[str, str, int]
"""Recipe and task parameters as canonical JSON, n_test."""


@dataclass(frozen=True, slots=True)
class StaleRow:
    """A finished row and the missing trial that takes its place."""

    trial_id: str
    trial: TrialSpec
    changes: tuple[str, ...]
    """``recipe.learning_rate 0.0001 -> 0.0002``: from the row to the sweep as it is now."""


def stale_rows(
    missing: Sequence[TrialSpec], rows: pd.DataFrame, sweep_name: str, trial_ids: Collection[str]
) -> list[StaleRow]:
    """The ``done`` rows of the sweep ``sweep_name`` that are of the cell of a ``missing`` trial, each once, beside the
    trial that differs least. ``trial_ids`` are those of the sweep as it is now; ``rows`` is the ``trials`` table."""
    old = rows[(rows["state"] == TrialState.DONE) & (rows["sweep"] == sweep_name)]
    current = frozenset(trial_ids)
    old = old.loc[[trial_id not in current for trial_id in old["trial_id"]]]
    columns = ("trial_id", "backbone", "task", "seed", "n_train", "lora_rank", "recipe", "task_params", "n_test")
    by_cell = _by_cell(missing, set(zip(*(old[name] for name in columns[1:6]), strict=True)))
    known: dict[tuple[str, _Signature, _Signature], tuple[str, ...]] = {}
    found = []
    identities = zip(*(old[name] for name in columns), strict=True)
    for trial_id, backbone, task, seed, n_train, lora_rank, *signature in identities:
        candidates = by_cell.get((backbone, task, int(seed), int(n_train), int(lora_rank)))
        if candidates is None:
            continue
        was: _Signature = (signature[0], signature[1], int(signature[2]))
        best: tuple[int, TrialSpec, tuple[str, ...]] | None = None
        for now, trial in candidates.like(was):
            key = (task, was, now)
            if key not in known:
                known[key] = changes(task, was, now)
            if best is None or len(known[key]) < best[0]:
                best = (len(known[key]), trial, known[key])
        assert best is not None, "a cell has at least one trial"
        found.append(StaleRow(trial_id, best[1], best[2]))
    return found


def by_change(rows: Sequence[StaleRow]) -> list[tuple[tuple[str, ...], int, TrialSpec]]:
    """The changes there are, the most frequent first: which fields, how many rows, the first row's trial."""
    counts = Counter(row.changes for row in rows)
    examples = {row.changes: row.trial for row in reversed(rows)}
    return [(changed, count, examples[changed]) for changed, count in counts.most_common()]


def changes(task: str, was: _Signature, now: _Signature) -> tuple[str, ...]:
    """The fields in which two trials of one cell differ, as ``name old -> new``; what is in no column where none do."""
    defaults = TrainRecipe().model_dump(mode="json")
    found = _differing("recipe.", json.loads(was[0]), json.loads(now[0]), defaults)
    found += _differing(f"{task}.", json.loads(was[1]), json.loads(now[1]), _task_defaults(task))
    if was[2] != now[2]:
        found.append(f"n_test {was[2]} -> {now[2]}")
    return tuple(found) or (UNKNOWN_CHANGE,)


class _Candidates:
    """The missing trials of one cell."""

    def __init__(self) -> None:
        self._trials: dict[_Signature, TrialSpec] = {}
        self._by_params: dict[str, list[_Signature]] = {}
        self._by_recipe: dict[str, list[_Signature]] = {}

    def add(self, signature: _Signature, trial: TrialSpec) -> None:
        if signature not in self._trials:
            self._trials[signature] = trial
            self._by_params.setdefault(signature[1], []).append(signature)
            self._by_recipe.setdefault(signature[0], []).append(signature)

    def like(self, was: _Signature) -> list[tuple[_Signature, TrialSpec]]:
        """Those that a row may be compared with: of the same task, else of the same recipe, else any."""
        chosen = self._by_params.get(was[1]) or self._by_recipe.get(was[0]) or list(self._trials)
        return [(signature, self._trials[signature]) for signature in chosen[:MAX_CANDIDATES]]


def _by_cell(missing: Sequence[TrialSpec], wanted: Collection[_Cell]) -> dict[_Cell, _Candidates]:
    """The ``missing`` trials of the cells ``wanted``."""
    recipes: dict[int, str] = {}
    params: dict[int, str] = {}
    found: dict[_Cell, _Candidates] = {}
    for trial in missing:
        cell = (trial.backbone, trial.task.name, trial.seed, trial.n_train, trial.lora_rank)
        if cell not in wanted:
            continue
        # recipes and tasks are shared by many trials: each is put into JSON once
        recipe_json = recipes.get(id(trial.recipe))
        if recipe_json is None:
            recipe_json = recipes[id(trial.recipe)] = trial.recipe_json()
        params_json = params.get(id(trial.task))
        if params_json is None:
            params_json = params[id(trial.task)] = trial.task.params_json()
        candidates = found.get(cell)
        if candidates is None:
            candidates = found[cell] = _Candidates()
        candidates.add((recipe_json, params_json, trial.n_test), trial)
    return found


def _differing(prefix: str, was: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    found = []
    for name in dict.fromkeys([*was, *now]):
        old, new = (values.get(name, defaults.get(name)) for values in (was, now))
        if old != new:
            found.append(f"{prefix}{name} {_plain(old)} -> {_plain(new)}")
    return found


def _task_defaults(task: str) -> dict[str, Any]:
    try:
        fields = task_class(task).model_fields
    except ValueError:  # a task of an earlier version
        return {}
    return {name: json.loads(json.dumps(field.default, default=str)) for name, field in fields.items()}


def _plain(value: Any) -> str:
    """A value as it is written in a YAML."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if not isinstance(value, str) else value
