"""How long trials take, guessed from the recipe at first, then from finished trials; and what that costs.

    estimator = Estimator(results.load_trials(uri))
    estimator.seconds(trial)  # Estimate(seconds=412.0, basis="36 finished trials", level="task")

A measured trial corrects the guess of ``orchestrator.roofline`` part by part (load, encode, train, answer): the
estimate of a part is the guess times what finished trials took over what was guessed for them. As the guess is
proportional to ``max_steps``, ``n_test`` and ``attempts``, this is seconds a training step and seconds an answer where
recipes differ in nothing else; where they do (batch, frames, another task's pictures) the guess says by how much.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.capacity import (
    GPU_MODELS,
    GpuModel,
    Hardware,
    gpu_model,
    gpus_per_worker,
    named_gpu,
    slots,
    wants_gpu,
)
from orchestrator.roofline import GUESS_FACTOR, PARTS, Processor, Seconds, guess
from orchestrator.specs import TrialSpec
from orchestrator.tables import TrialState
from task_generators.task import TaskSpec
from trainers.backbone import BackboneSpec, backbone_spec
from trainers.recipe import Placement, TrainRecipe

if TYPE_CHECKING:
    import pandas as pd

GUESSED = "a rough guess from steps and parameters: nothing like it has finished yet"
_TIMES = ("load_s", "encode_s", "train_s", "eval_s")
"""Columns of the parts after ``other``."""
_Key = tuple[Any, ...]
Level = Literal["task", "backbone", "guess"]
"""What an estimate rests on: finished trials of the same backbone and task, of the same backbone, or nothing."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds from a trial's start to its row, and what they rest on, in words."""

    seconds: float
    basis: str
    level: Level = "guess"

    @property
    def guessed(self) -> bool:
        """Whether it is arithmetic alone, which may be wrong by ``GUESS_FACTOR`` either way."""
        return self.level == "guess"


@dataclass(slots=True)
class _Measured:
    """Sums over finished trials of one kind: what was measured and what was guessed, by part."""

    num_trials: int = 0
    took_s: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))
    guessed_s: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))

    def add(self, took_s: Iterable[float], guessed_s: Iterable[float]) -> None:
        self.num_trials += 1
        for index, (took, guessed) in enumerate(zip(took_s, guessed_s, strict=True)):
            self.took_s[index] += took
            self.guessed_s[index] += guessed

    def corrected(self, guessed_s: Seconds) -> float:
        parts = zip(guessed_s, self.took_s, self.guessed_s, strict=True)
        return sum(part * took / guessed for part, took, guessed in parts)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is known of trials that take equally long."""

    reference_s: Seconds
    guessed_s: float
    keys: Sequence[_Key]
    trial: TrialSpec
    """Kept, so that the ids of its task, recipe and placement never come to name others."""


class Estimator:
    """Seconds that trials take. ``rows`` is the ``trials`` table of a results folder (``done`` rows count), or None.

    An estimate rests on finished trials of the same backbone and task; else on those of the same backbone; else on a
    guess. Trials on GPUs and on CPUs are kept apart. Where there are rows of the kind of GPU that ``hardware`` has,
    those of other kinds do not count; else they do, by how the kinds' guesses differ. Without ``hardware`` it has
    H100s. Needs pandas only for what ``rows`` is made of.
    """

    def __init__(self, rows: pd.DataFrame | None = None, hardware: Hardware | None = None) -> None:
        self._gpu = (hardware.gpu if hardware is not None else None) or GPU_MODELS["H100"]
        self._on_cpu_only = hardware is not None and not hardware.has_gpus
        self._measured: dict[_Key, _Measured] = {}
        self._kinds: dict[_Key, _Kind] = {}
        self._estimates: dict[_Key, Estimate] = {}
        if rows is not None and len(rows):
            self._add_rows(rows)

    def seconds(self, trial: TrialSpec) -> Estimate:
        """The estimate for one trial. Trials that share the objects of their task, recipe and placement, as those of
        ``expand`` do, cost a look-up."""
        kind = _kind(trial)
        estimate = self._estimates.get(kind)
        if estimate is None:
            estimate = self._estimates[kind] = self._estimate(self._known(trial, kind))
        return estimate

    def observe(self, trial: TrialSpec, elapsed_s: float) -> None:
        """Take in that ``trial`` is done and took ``elapsed_s``; later estimates rest on it too."""
        known = self._known(trial, _kind(trial))
        self._add(self._split(elapsed_s, known.reference_s, known.keys), known.reference_s, known.keys)
        self._estimates.clear()

    def _estimate(self, known: _Kind) -> Estimate:
        levels: tuple[Level, Level] = ("task", "backbone")
        for key, level in zip(known.keys, levels, strict=True):
            measured = self._measured.get(key)
            if measured is not None:
                plural = "" if measured.num_trials == 1 else "s"
                of_what = "" if level == "task" else " of this backbone on other tasks"
                basis = f"{measured.num_trials} finished trial{plural}{of_what}"
                return Estimate(measured.corrected(known.reference_s), basis, level)
        return Estimate(known.guessed_s, GUESSED)

    def _known(self, trial: TrialSpec, kind: _Key) -> _Kind:
        if kind not in self._kinds:
            on_gpu = wants_gpu(trial) and not self._on_cpu_only
            keys = _keys(trial.backbone, trial.task.name, trial.task.params_json(), on_gpu)
            if on_gpu:
                processor = Processor.of_gpu(self._gpu, min(1.0, gpus_per_worker(trial, has_gpus=True)))
            else:
                processor = Processor.of_cpu(max(1.0, trial.placement.cpus_per_worker))
            numbers = (trial.n_train, trial.n_test)
            guessed_s = sum(guess(trial.backbone_spec, trial.task, trial.recipe, trial.placement, *numbers, processor))
            identity = (trial.backbone_spec, trial.task, trial.recipe, trial.placement.num_workers, *numbers)
            reference_s = _reference(*identity, self._gpu if on_gpu else None)
            self._kinds[kind] = _Kind(reference_s, guessed_s, keys, trial)
        return self._kinds[kind]

    def _split(self, elapsed_s: float, guessed_s: Seconds, keys: Sequence[_Key]) -> list[float]:
        """``elapsed_s`` over the parts, as they are estimated now."""
        measured = next((self._measured[key] for key in keys if key in self._measured), None)
        parts = list(guessed_s)
        if measured is not None:
            ratios = zip(measured.took_s, measured.guessed_s, strict=True)
            parts = [part * took / guessed for part, (took, guessed) in zip(guessed_s, ratios, strict=True)]
        total = sum(parts)
        return [part * elapsed_s / total for part in parts] if total else [elapsed_s, 0.0, 0.0, 0.0, 0.0]

    def _add(self, took_s: Sequence[float], guessed_s: Sequence[float], keys: Sequence[_Key]) -> None:
        for key in keys:
            self._measured.setdefault(key, _Measured()).add(took_s, guessed_s)

    # --- rows

    def _add_rows(self, rows: pd.DataFrame) -> None:
        rows = rows[rows["state"] == TrialState.DONE]
        devices = _texts(rows, "device")
        same = [device == "cpu" or gpu_model(device) == self._gpu for device in devices]
        if any(known and device != "cpu" for known, device in zip(same, devices, strict=True)):
            rows, devices = rows[same], [device for device, known in zip(devices, same, strict=True) if known]
        times = [_numbers(rows, name) for name in _TIMES]
        steps, num_workers = _numbers(rows, "train_steps"), _numbers(rows, "num_workers")
        elapsed = elapsed_s(rows)
        names = ("backbone", "task", "task_params", "recipe")
        identities = zip(*(rows[name] for name in (*names, "n_train", "n_test")), strict=True)
        known: dict[_Key, tuple[Seconds, Sequence[_Key]] | None] = {}
        for index, identity in enumerate(identities):
            workers = 1 if math.isnan(num_workers[index]) else int(num_workers[index])
            kind = (*identity, workers, devices[index])
            if kind not in known:
                known[kind] = self._guess_of_row(*kind)
            found = known[kind]
            if found is None:
                continue
            guessed_s, keys = found
            measured = [column[index] for column in times]
            if math.isnan(measured[2]) or math.isnan(measured[3]):
                if not math.isnan(elapsed[index]):
                    self._add(self._split(elapsed[index], guessed_s, keys), guessed_s, keys)
                continue
            parts = [0.0 if math.isnan(part) else part for part in measured]
            other_s = 0.0 if math.isnan(elapsed[index]) else max(0.0, elapsed[index] - sum(parts))
            max_steps = known_steps(identity[3])
            if steps[index] > 0 and steps[index] != max_steps:
                guessed_s = (*guessed_s[:3], guessed_s[3] * steps[index] / max_steps, guessed_s[4])
            self._add([other_s, *parts], guessed_s, keys)

    def _guess_of_row(
        self,
        backbone: str,
        task: str,
        task_params: str,
        recipe_json: str,
        n_train: int,
        n_test: int,
        num_workers: int,
        device: str,
    ) -> tuple[Seconds, Sequence[_Key]] | None:
        """As the trial of a row would have been guessed on its own device, and where it counts; None where this version
        cannot read its spec."""
        try:
            spec: BackboneSpec = backbone_spec(backbone)
            recipe, task_spec = TrainRecipe.model_validate_json(recipe_json), task_of_row(task, task_params)
        except ValueError:
            return None
        on_gpu = device != "cpu" if device else spec.num_gpus > 0
        gpu = (gpu_model(device) or self._gpu) if on_gpu else None
        guessed_s = _reference(spec, task_spec, recipe, num_workers, int(n_train), int(n_test), gpu)
        return guessed_s, _keys(backbone, task, task_params, on_gpu)


def _reference(
    spec: BackboneSpec,
    task: TaskSpec,
    recipe: TrainRecipe,
    num_workers: int,
    n_train: int,
    n_test: int,
    gpu: GpuModel | None,
) -> Seconds:
    """The guess that measured trials are compared with: by what rows tell, so for one whole GPU (or one CPU core) a
    worker and otherwise the default placement. What a placement changes beyond that is in what was measured."""
    processor = Processor.of_cpu() if gpu is None else Processor.of_gpu(gpu)
    return guess(spec, task, recipe, Placement(num_workers=num_workers), n_train, n_test, processor)


def task_of_row(task: str, task_params: str) -> TaskSpec:
    """The task of a row's columns ``task`` and ``task_params``. ValueError where it is not one of this version's."""
    params = json.loads(task_params)
    beside = {name: params.pop(name) for name in ("test", "min_test_distance") if name in params}
    return TaskSpec(name=task, params=params, **beside)


def known_steps(recipe_json: str) -> int:
    """``max_steps`` of a row's recipe."""
    return int(json.loads(recipe_json).get("max_steps", TrainRecipe.model_fields["max_steps"].default))


def elapsed_s(rows: pd.DataFrame) -> list[float]:
    """Seconds from each trial's start to its row; NaN where the row does not say."""
    if not {"started_at", "finished_at"} <= set(rows.columns):
        return [math.nan] * len(rows)
    import pandas as pd

    started, finished = (pd.to_datetime(rows[name], utc=True) for name in ("started_at", "finished_at"))
    return [float(seconds) for seconds in (finished - started).dt.total_seconds()]


# --- what a sweep costs


@dataclass(frozen=True)
class Cost:
    """What trials take together. Ranges span what is guessed; ``usd`` is None where no price is given."""

    num_trials: int = 0
    work_s: float = 0.0
    """One trial after another."""
    wall_s: float = 0.0
    """As many at once as the hardware holds."""
    gpu_hours: float = 0.0
    guessed_s: float = 0.0
    """The part of ``work_s`` that is guessed."""
    slots: int = 0
    """Most trials at once."""
    usd: float | None = None
    levels: Mapping[Level, int] = field(default_factory=dict)
    """What the estimates rest on -> number of trials."""
    basis: str = ""
    """Of the estimates, where all have the same."""

    @property
    def range_factors(self) -> tuple[float, float]:
        """By what the totals may be multiplied at the least and at the most; (1, 1) where all is measured."""
        share = self.guessed_s / self.work_s if self.work_s else 0.0
        return 1 - share * (1 - 1 / GUESS_FACTOR), 1 + share * (GUESS_FACTOR - 1)


def cost(
    trials: Sequence[TrialSpec],
    estimator: Estimator,
    hardware: Hardware,
    gpu_hour_usd: float | Mapping[str, float] | None = None,
) -> Cost:
    """Time, GPU-hours and money of ``trials`` on ``hardware``.

    The wall time takes trials of one shape (workers, CPUs, GPUs) at a time, on all the nodes, and is no less than the
    longest trial. ``gpu_hour_usd`` is a price, or prices by kind of GPU. ValueError when they lack the kind there is.
    """
    price = gpu_price(gpu_hour_usd, hardware)
    has_gpus = hardware.has_gpus
    shapes: dict[_Key, list[float]] = {}
    shape_of: dict[_Key, _Key] = {}
    levels: Counter[Level] = Counter()
    bases: set[str] = set()
    guessed_s = longest_s = 0.0
    for trial in trials:
        estimate = estimator.seconds(trial)
        pair = (trial.backbone, id(trial.placement))
        if pair not in shape_of:
            placement = trial.placement
            shape_of[pair] = (placement.num_workers, placement.cpus_per_worker, gpus_per_worker(trial, has_gpus))
        shapes.setdefault(shape_of[pair], []).append(estimate.seconds)
        levels[estimate.level] += 1
        bases.add(estimate.basis)
        guessed_s += estimate.seconds if estimate.guessed else 0.0
        longest_s = max(longest_s, estimate.seconds)
    wall_s = gpu_hours = 0.0
    most = 0
    for (num_workers, cpus, gpus), seconds in shapes.items():
        worker = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        at_once = min(len(seconds), max(1, slots((dict(worker),) * num_workers, hardware.nodes)))
        most = max(most, at_once)
        wall_s += sum(seconds) / at_once
        gpu_hours += sum(seconds) * num_workers * gpus / 3600
    work_s = sum(map(sum, shapes.values()))
    usd = None if price is None else price * gpu_hours
    basis = bases.pop() if len(bases) == 1 else ""
    return Cost(len(trials), work_s, max(wall_s, longest_s), gpu_hours, guessed_s, most, usd, levels, basis)


def gpu_price(gpu_hour_usd: float | Mapping[str, float] | None, hardware: Hardware) -> float | None:
    """Dollars an hour of one GPU of ``hardware``; None where no price or no GPU is given."""
    if gpu_hour_usd is None or isinstance(gpu_hour_usd, (int, float)):
        return gpu_hour_usd
    for name in gpu_hour_usd:
        if named_gpu(name) is None:
            raise ValueError(f"gpu_hour_usd.{name}: unknown GPU; valid: {', '.join(GPU_MODELS)}, or as 48GB")
    if hardware.gpu is None:
        return None
    for name, price in gpu_hour_usd.items():
        if named_gpu(name) == hardware.gpu:
            return price
    prices = ", ".join(gpu_hour_usd)
    raise ValueError(f"gpu_hour_usd: has no price of {hardware.gpu.name}, only of {prices}; add it, or see --gpus")


def _kind(trial: TrialSpec) -> _Key:
    """Equal for trials that take equally long."""
    ids = (id(trial.task), id(trial.recipe), id(trial.placement))
    return (trial.backbone, trial.n_train, trial.n_test, *ids)


def _keys(backbone: str, task: str, task_params: str, on_gpu: bool) -> tuple[_Key, _Key]:
    return (backbone, on_gpu, task, task_params), (backbone, on_gpu)


def _numbers(rows: pd.DataFrame, name: str) -> list[float]:
    if name not in rows:
        return [math.nan] * len(rows)
    return [float(value) for value in rows[name].to_numpy(dtype="float64", na_value=math.nan)]


def _texts(rows: pd.DataFrame, name: str) -> list[str]:
    if name not in rows:
        return [""] * len(rows)
    return [value if isinstance(value, str) else "" for value in rows[name]]
