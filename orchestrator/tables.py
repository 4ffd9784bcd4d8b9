"""The four tables that are the product: their columns, and the types whose fields become rows.

``trials`` has one row a trial, ``predictions`` one row a (trial, test problem, attempt), ``losses`` one row a (trial,
optimizer step), ``videos`` one row a video that is kept. The scores of the tasks here are columns of every file, null
where a task has no such score, because ``pandas.read_parquet`` keeps the columns of the first file alone. A score that
another task brings is an extra nullable float64 column; ``orchestrator.results`` unites files that differ.
A value that does not exist is null, never 0. ``run_id`` names one execution of a trial: rows of the four tables belong
together when it agrees, however often the trial was started.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from task_generators.task import TaskSpec

if TYPE_CHECKING:
    from trainers.evaluate import Prediction
    from trainers.train import LossRow

GRID = pa.list_(pa.list_(pa.int8()))
"""A grid as rows of cells."""
TIME = pa.timestamp("us", tz="UTC")

TRIALS = pa.schema(
    [
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        ("sweep", pa.string()),
        pa.field("state", pa.string(), nullable=False),
        pa.field("backbone", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("task_params", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("n_train", pa.int64(), nullable=False),
        pa.field("n_test", pa.int64(), nullable=False),
        pa.field("lora_rank", pa.int64(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        ("exact_match", pa.float64()),
        ("cell_accuracy", pa.float64()),
        ("valid_solution", pa.float64()),
        ("solved", pa.float64()),
        ("path_success", pa.float64()),
        ("relative_path_length", pa.float64()),
        ("parsed", pa.float64()),
        ("repeats_training_answer", pa.float64()),
        ("roundtrip_exact_match", pa.float64()),
        ("num_trainable_params", pa.int64()),
        ("train_loss", pa.float64()),
        ("train_steps", pa.int64()),
        ("train_s", pa.float64()),
        ("eval_s", pa.float64()),
        ("load_s", pa.float64()),
        ("encode_s", pa.float64()),
        ("num_encoded", pa.int64()),
        ("num_latents_reused", pa.int64()),
        ("peak_memory_bytes", pa.int64()),
        ("device", pa.string()),
        ("num_workers", pa.int64()),
        ("zero_stage", pa.int64()),
        ("micro_batch_size", pa.int64()),
        ("eval_batch_size", pa.int64()),
        ("resumed_from_step", pa.int64()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int64()),
        ("retries", pa.int64()),
        ("host", pa.string()),
        ("started_at", TIME),
        ("finished_at", TIME),
        ("code_version", pa.string()),
        ("python_version", pa.string()),
        ("numpy_version", pa.string()),
        ("torch_version", pa.string()),
        ("diffusers_version", pa.string()),
        ("transformers_version", pa.string()),
        ("peft_version", pa.string()),
        ("deepspeed_version", pa.string()),
        ("ray_version", pa.string()),
    ]
)
PREDICTIONS = pa.schema(
    [
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("parsed", pa.bool_(), nullable=False),
        pa.field("exact_match", pa.bool_(), nullable=False),
        ("cell_accuracy", pa.float64()),
        ("valid_solution", pa.bool_()),
        ("path_success", pa.bool_()),
        ("relative_path_length", pa.float64()),
        ("repeats_training_answer", pa.bool_()),
        pa.field("question", GRID, nullable=False),
        pa.field("answer", GRID, nullable=False),
        ("predicted", GRID),
    ]
)
LOSSES = pa.schema(
    [
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("samples_per_s", pa.float64()),
    ]
)
VIDEOS = pa.schema(
    [
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("height_px", pa.int32(), nullable=False),
        pa.field("width_px", pa.int32(), nullable=False),
        pa.field("strip", pa.binary(), nullable=False),
    ]
)
PROBLEMS = pa.schema(
    [
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("question", GRID, nullable=False),
        pa.field("answer", GRID, nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
"""What ``sweep generate`` writes."""

SCHEMAS = {"trials": TRIALS, "predictions": PREDICTIONS, "losses": LOSSES, "videos": VIDEOS}

_IDENTITY = {
    "trial_id": "names the cell, as a hash of what the trial is; joins the tables",
    "run_id": "names one execution of the trial; rows of the four tables belong together when it agrees",
}
MEANINGS: dict[str, dict[str, str]] = {
    "trials": _IDENTITY
    | {
        "sweep": "name of the sweep whose run wrote the row; several sweeps may share a folder",
        "state": "done, pruned (a search stopped it early; the numbers are those up to then) or failed",
        "backbone": "family_file/flavor, as in the sweep's YAML",
        "family": "video, language, vision_language or baseline",
        "task": "name of the task",
        "task_params": "JSON of the knobs that differ from the task's defaults; under test those of the test set alone",
        "seed": "draws the training problems and everything random in training; the test set ignores it",
        "n_train": "training problems; n=30 is the first 30 of n=100",
        "n_test": "test problems",
        "lora_rank": "rank of the LoRA matrices",
        "recipe": "JSON of the recipe that differs from the defaults of TrainRecipe",
        "exact_match": "share of test problems whose answer is right in every cell (in any of several attempts)",
        "cell_accuracy": "mean share of right cells; an answer of the wrong size or none counts 0",
        "valid_solution": "share of test problems answered with any right answer, where a task has several",
        "solved": "arc: 1 when every test input of the ARC task is answered rightly, else 0; null for other tasks",
        "path_success": "share of test problems answered with any path from start to end (the paper's PSR)",
        "relative_path_length": "mean of path length / shortest length over answers that are paths (the paper's RPL)",
        "parsed": "share of outputs that could be read as a grid at all",
        "repeats_training_answer": "share of outputs that equal some training answer; null without training problems",
        "roundtrip_exact_match": "share of test problems whose own answer survives drawing, the video backbone's VAE "
        "(there and back) and reading: its ceiling on the task; null for other families, or where memory ran out",
        "num_trainable_params": "numbers that LoRA trains",
        "train_loss": "mean loss of the last tenth of the steps (at least one); null where nothing was trained",
        "train_steps": "optimizer steps",
        "train_s": "seconds of training, with what earlier executions spent up to resumed_from_step",
        "eval_s": "seconds of answering the test set, encoding included",
        "load_s": "seconds until the backbone was ready; near 0 on a warm worker",
        "encode_s": "seconds of encoding the training problems",
        "num_encoded": "pictures and videos that went through a video backbone's encoder (rank 0's part)",
        "num_latents_reused": "pictures and videos that an earlier trial had encoded",
        "peak_memory_bytes": "most memory in use on rank 0: of the process on CPU, of the device's allocator on GPU",
        "device": "name of rank 0's device",
        "num_workers": "data-parallel ranks",
        "zero_stage": "DeepSpeed ZeRO stage; null for plain torch on one worker",
        "micro_batch_size": "most examples of a training forward pass on one rank; less than asked if memory ran out",
        "eval_batch_size": "problems answered at once; less than asked for if memory ran out",
        "resumed_from_step": "step of the checkpoint that training went on from; null when it began anew",
        "error_kind": "out_of_memory, timeout, worker_died, ...: the group of the error; null unless failed",
        "error": "traceback, or one line; null unless failed",
        "attempts": "executions of the trial up to this one; those that failed for passing reasons do not count",
        "retries": "executions before this one that failed for passing reasons (a node died ...); null in old files",
        "host": "machine of rank 0",
        "started_at": "when the execution started, UTC by the clock of host",
        "finished_at": "when the execution ended, UTC by the clock of host",
        "code_version": "git's name of the checkout, else the installed version",
    }
    | {
        f"{package}_version": f"version of {package}; null where it is not installed"
        for package in ("python", "numpy", "torch", "diffusers", "transformers", "peft", "deepspeed", "ray")
    },
    "predictions": _IDENTITY
    | {
        "problem_id": "names the test problem; the same for every trial of the task",
        "index": "place of the problem in the test set, from 0",
        "attempt": "which of several answers to the problem, from 0",
        "parsed": "whether the output could be read as a grid at all",
        "exact_match": "whether the answer is right in every cell",
        "cell_accuracy": "share of right cells; 0 for an answer of the wrong size or none",
        "valid_solution": "whether it is any right answer, where a task has several",
        "path_success": "whether it is any path from start to end, where a task asks for one",
        "relative_path_length": "path length / shortest length, where the answer is a path",
        "repeats_training_answer": "whether the output equals some training answer; null without training problems",
        "question": "grid of cell codes (see the task), as rows of int8",
        "answer": "the right grid; of several right ones the one that exact_match means",
        "predicted": "the grid that was read from the output; null where none could be read",
    },
    "losses": _IDENTITY
    | {
        "step": "optimizer step, from 1",
        "loss": "mean over the global batch, before the update",
        "learning_rate": "of this step",
        "grad_norm": "norm of the LoRA gradient before clipping",
        "samples_per_s": "training examples a second, of all ranks",
    },
    "videos": _IDENTITY
    | {
        "problem_id": "names the test problem; the same for every trial of the task",
        "index": "place of the problem in the test set, from 0; those below placement.keep_videos have a row",
        "attempt": "which of several answers to the problem, from 0; kept of the first",
        "num_frames": "frames of the video that answered it; the first shows the question, the last is the answer",
        "height_px": "height of a frame as it is kept, at most 256",
        "width_px": "width of a frame as it is kept",
        "strip": "the frames from left to right as one lossy WebP picture, bytes",
    },
}
"""What the columns mean, by table; a column that is none of these is a score that its task's file explains."""


class TrialState(StrEnum):
    """How a trial ended. One that has no row has not ended."""

    DONE = "done"
    PRUNED = "pruned"
    """A search stopped it early; its row has the numbers up to then."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One row of ``trials``: fields are columns, and so is each of ``metrics`` (name -> mean over test problems).

    Times are in seconds; ``train_s`` counts what earlier executions spent up to ``resumed_from_step``.
    ``peak_memory_bytes`` is of the process (CPU) or the device's allocator (GPU) of rank 0.
    """

    trial_id: str
    run_id: str
    state: TrialState
    backbone: str
    family: str
    task: str
    task_params: str
    seed: int
    n_train: int
    n_test: int
    lora_rank: int
    recipe: str
    sweep: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    roundtrip_exact_match: float | None = None
    """The ceiling that a video backbone's VAE leaves on the test set; see ``trainers.roundtrip``."""
    num_trainable_params: int | None = None
    train_loss: float | None = None
    train_steps: int | None = None
    train_s: float | None = None
    eval_s: float | None = None
    load_s: float | None = None
    encode_s: float | None = None
    """Of the training problems; the test problems' pictures are encoded while answering."""
    num_encoded: int | None = None
    """Pictures and videos that went through the encoder of a video backbone (rank 0's part)."""
    num_latents_reused: int | None = None
    """Those that an earlier trial had encoded."""
    peak_memory_bytes: int | None = None
    device: str | None = None
    num_workers: int | None = None
    zero_stage: int | None = None
    micro_batch_size: int | None = None
    """Most examples of one forward pass of training; less than asked for where memory ran out."""
    eval_batch_size: int | None = None
    """Problems answered at once; less than asked for where memory ran out."""
    resumed_from_step: int | None = None
    """The step of the checkpoint that training went on from; None when it began anew."""
    error_kind: str | None = None
    error: str | None = None
    attempts: int = 1
    """Executions that count against the trial, this one included."""
    retries: int = 0
    """Executions before this one that failed for passing reasons (a node that died, ...); not in ``attempts``."""
    host: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """``code_version``, ``torch_version`` ... as the columns are called."""


def new_run_id() -> str:
    """A name for one execution of a trial that no other has."""
    return uuid.uuid4().hex[:16]


def trials_table(result: TrialResult) -> pa.Table:
    """One row with the columns of ``TRIALS`` and the task's own metrics."""
    row: dict[str, Any] = {item.name: getattr(result, item.name) for item in fields(result)}
    metrics, versions = row.pop("metrics"), row.pop("versions")
    own = [name for name in metrics if name not in TRIALS.names]
    row |= {"state": result.state.value, **versions, **{name: float(value) for name, value in metrics.items()}}
    schema = pa.schema([*TRIALS, *(pa.field(name, pa.float64()) for name in own)])
    return pa.Table.from_pylist([row], schema=schema)


def predictions_table(trial_id: str, run_id: str, predictions: Sequence[Prediction]) -> pa.Table:
    """One row a prediction, with the columns of ``PREDICTIONS`` and the task's own scores as float64."""
    own = sorted({name for prediction in predictions for name in prediction.scores} - set(PREDICTIONS.names))
    rows = [
        {
            "trial_id": trial_id,
            "run_id": run_id,
            "problem_id": prediction.problem_id,
            "index": prediction.index,
            "attempt": prediction.attempt,
            "parsed": prediction.parsed,
            "question": prediction.question.tolist(),
            "answer": prediction.answer.tolist(),
            "predicted": None if prediction.predicted is None else prediction.predicted.tolist(),
            **{name: float(value) if name in own else value for name, value in prediction.scores.items()},
        }
        for prediction in predictions
    ]
    schema = pa.schema([*PREDICTIONS, *(pa.field(name, pa.float64()) for name in own)])
    return pa.Table.from_pylist(rows, schema=schema)


def videos_table(trial_id: str, run_id: str, predictions: Sequence[Prediction]) -> pa.Table:
    """One row a prediction whose video is kept, with the columns of ``VIDEOS``."""
    rows = [
        {
            "trial_id": trial_id,
            "run_id": run_id,
            "problem_id": prediction.problem_id,
            "index": prediction.index,
            "attempt": prediction.attempt,
            "num_frames": prediction.video.num_frames,
            "height_px": prediction.video.height_px,
            "width_px": prediction.video.width_px,
            "strip": prediction.video.strip,
        }
        for prediction in predictions
        if prediction.video is not None
    ]
    return pa.Table.from_pylist(rows, schema=VIDEOS)


def losses_table(trial_id: str, run_id: str, losses: Sequence[LossRow]) -> pa.Table:
    """One row an optimizer step, with the columns of ``LOSSES``."""
    own = [name for name in LOSSES.names if name not in ("trial_id", "run_id")]
    rows = [{"trial_id": trial_id, "run_id": run_id, **{name: getattr(row, name) for name in own}} for row in losses]
    return pa.Table.from_pylist(rows, schema=LOSSES)


def task_label(task: str, task_params: str) -> str:
    """``elementary_ca(rule=90, width=12)`` from the columns ``task`` and ``task_params``, even of a removed task."""
    params = json.loads(task_params)
    beside = {name: params.pop(name) for name in ("test", "min_test_distance") if name in params}
    try:
        return TaskSpec(name=task, params=params, **beside).label()
    except ValueError:
        return f"{task}({task_params})"
