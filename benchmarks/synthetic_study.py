"""A results folder as large as the paper's study repeated with seeds and ranks. EVERY NUMBER IN IT IS INVENTED.

    python -m benchmarks.synthetic_study results/synthetic                    # 10,000 trials and those of ARC
    python -m benchmarks.synthetic_study results/synthetic --trials 500

For looking at reports and timing them, never for findings: rows carry the sweep ``synthetic``, and ``synthetic`` as
host and device. The cells are those of ``orchestrator/sweeps/paper_*.yaml``, with more backbones, ranks and seeds on
the tasks that generate problems until there are ``--trials`` of them; ARC's tasks once. The problems are real: each
task's own test set. The answers are drawn from this model:

- A trial of a backbone that the paper has on a task is right, on average over problems, with the probability
  ``Phi(a + b log n_train)`` fitted to the published exact match; another backbone needs ``EXAMPLES_NEEDED`` times the
  examples of one that is published, another rank ``rank_factor`` times; a task without published numbers gets a
  curve drawn from its name.
- Problems differ in difficulty, the same for all trials of the task (and some of it for one backbone alone); seeds
  shift a whole trial. Both are normal on the scale of ``Phi``, widened so that the average stays as said.
- A wrong answer is the right one with some cells changed, now and then with a row missing, or unreadable. What
  encoding and decoding loses (``roundtrip_exact_match``) no answer of that video backbone gets right.
- About one trial in a hundred failed. Baselines answer as their names say, without any model.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.synthetic_answers import EXAMPLES_NEEDED, SYNTHETIC, answers_of
from orchestrator import results
from orchestrator.results.files import encode_executions
from orchestrator.results.folder import COMPACTED
from orchestrator.specs import TrialSpec, expand, load_sweep
from orchestrator.tables import LOSSES, PREDICTIONS, TRIALS, TrialState
from task_generators.rng import problem_rng

SWEEPS = Path(__file__).parents[1] / "orchestrator" / "sweeps"
GENERATED_SWEEPS = ("paper_games.yaml", "paper_routes.yaml", "paper_automata.yaml", "paper_vlm.yaml")
ARC_SWEEPS = ("paper_arc.yaml", "paper_concept_arc.yaml")
RANKS = {"cogvideox/1.5-5b-i2v": (64, 16, 4), "causal_lm/qwen3-4b-instruct-2507": (32, 16, 4)}
"""Published backbone -> its ranks and those of the backbones that are measured by it, the published rank first."""
STEPS = {"video": 2500, "language": 625}
FIRST_SEED = 42
FAILED = 0.012
ERRORS = {
    "out_of_memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.41 GiB (synthetic)",
    "timeout": "TimeoutError: the trial took longer than placement.timeout_s = 7200 s (synthetic)",
    "non_finite_loss": "trainers.train.NonFiniteLossError: the loss is nan at step 41 <synthetic & invented>",
    "worker_died": "ray.exceptions.RayActorError: the actor died unexpectedly (synthetic)",
    "error": "RuntimeError: something that nobody has seen before (synthetic)",
}
TRIALS_PER_FILE = 600
LOSS_ROWS = 10
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
WORKERS = 16
ROUNDTRIP = "roundtrip_exact_match"
SCHEMAS = {
    "trials": TRIALS if ROUNDTRIP in TRIALS.names else TRIALS.append(pa.field(ROUNDTRIP, pa.float64())),
    "predictions": PREDICTIONS,
    "losses": LOSSES,
}


def study_trials(trials: int, predictions: int) -> list[TrialSpec]:
    """``trials`` cells of tasks that generate problems, the paper's first; the baselines of their tasks; and ARC's, all
    of them if there is a whole seed of the others, else as large a share (ConceptARC only if its data is there)."""
    one_seed = _generated([FIRST_SEED], predictions)
    seeds = [FIRST_SEED + number for number in range(-(-trials // len(one_seed)))]
    cells = _generated(seeds, predictions)
    cells.sort(key=lambda spec: (spec.seed, _ranks(spec.backbone).index(spec.lora_rank)))
    chosen = cells[:trials]
    tasks = {spec.task.label() for spec in chosen}
    baselines = "backbones=[baseline/copy_question, baseline/majority, baseline/oracle]"
    for name in GENERATED_SWEEPS[:-1]:
        overrides = [baselines, f"seeds=[{FIRST_SEED}]", f"n_test={predictions}", "exclude=[]"]
        chosen += [spec for spec in expand(load_sweep(SWEEPS / name, overrides)) if spec.task.label() in tasks]
    arc = [spec for name in ARC_SWEEPS for spec in _arc(name)]
    return chosen + arc[:: max(1, len(one_seed) // trials)]


def _ranks(backbone: str) -> tuple[int, ...]:
    return RANKS.get(EXAMPLES_NEEDED.get(backbone, (backbone,))[0], (32,))


def _generated(seeds: Sequence[int], predictions: int) -> list[TrialSpec]:
    backbones = []
    for name in (*RANKS, *EXAMPLES_NEEDED):
        steps = STEPS["language" if name.startswith("causal_lm") else "video"]
        backbones.append(f"{{{name}: {{lora_rank: {list(_ranks(name))}, recipe: {{max_steps: {steps}}}}}}}")
    cells: list[TrialSpec] = []
    for name in GENERATED_SWEEPS:
        overrides = [f"seeds={list(seeds)}", f"n_test={predictions}"]
        if name != "paper_vlm.yaml":
            overrides.append(f"backbones=[{', '.join(backbones)}]")
        cells += expand(load_sweep(SWEEPS / name, overrides))
    return cells


def _arc(name: str) -> list[TrialSpec]:
    try:
        return list(expand(load_sweep(SWEEPS / name)))
    except ValueError as error:
        print(f"left out: {error}")
        return []


def trial_row(spec: TrialSpec, number: int, metrics: dict[str, float]) -> dict[str, Any]:
    """The row of trial ``number``, a failed one if there are no ``metrics``."""
    rng = problem_rng(SYNTHETIC, "row", spec.trial_id)
    backbone, recipe = spec.backbone_spec, spec.recipe
    trained = backbone.trainable
    examples = recipe.max_steps * recipe.batch_size if trained else 0
    example_s = backbone.num_params / 1e9 * (0.05 if backbone.family == "video" else 0.008)
    train_s = float(examples * example_s * rng.lognormal(0, 0.05)) if trained else None
    eval_s = float(0.2 + spec.n_test * recipe.attempts * example_s * 10 * rng.lognormal(0, 0.05))
    started_at = BEGIN + timedelta(seconds=number // WORKERS * 240 + number % WORKERS)
    row: dict[str, Any] = {
        "trial_id": spec.trial_id,
        "run_id": f"{problem_rng(SYNTHETIC, spec.trial_id).integers(2**63):016x}",
        "sweep": SYNTHETIC,
        "state": TrialState.DONE.value if metrics else TrialState.FAILED.value,
        "backbone": spec.backbone,
        "family": backbone.family,
        "task": spec.task.name,
        "task_params": spec.task.params_json(),
        "seed": spec.seed,
        "n_train": spec.n_train,
        "n_test": spec.n_test,
        "lora_rank": spec.lora_rank,
        "recipe": spec.recipe_json(),
        "num_workers": 1,
        "attempts": 1,
        "retries": 0,
        "host": SYNTHETIC,
        "device": SYNTHETIC,
        "code_version": SYNTHETIC,
        "started_at": started_at,
        "finished_at": started_at + timedelta(seconds=(train_s or 0) + eval_s),
    }
    if not metrics:
        kind = str(rng.choice(list(ERRORS)))
        lines = ["Traceback (most recent call last):", '  File "synthetic.py", line 1, in train', ERRORS[kind]]
        return row | {"error_kind": kind, "error": "\n".join(lines)}
    row |= metrics | {
        "eval_s": eval_s,
        "load_s": float(rng.uniform(20, 60)) if number < WORKERS else 0.01,
        "peak_memory_bytes": int(backbone.memory_gb * 2**30 * rng.uniform(0.8, 0.95)),
        "micro_batch_size": recipe.batch_size,
        "eval_batch_size": spec.placement.eval_batch_size,
    }
    if trained:
        row |= {
            "train_loss": float(0.4 * math.exp(-(metrics["cell_accuracy"])) * rng.lognormal(0, 0.1)),
            "train_steps": recipe.max_steps,
            "train_s": train_s,
            "encode_s": float(spec.n_train * example_s * 0.2),
            "num_trainable_params": int(spec.lora_rank * math.sqrt(backbone.num_params) * 8),
        }
    return row


def loss_columns(row: dict[str, Any]) -> dict[str, pa.Array]:
    """``LOSS_ROWS`` losses that fall to the trial's ``train_loss``."""
    steps = np.linspace(1, row["train_steps"], LOSS_ROWS).astype(np.int32)
    return {
        "step": pa.array(steps),
        "loss": pa.array(row["train_loss"] * (1 + 3 * np.exp(-steps / row["train_steps"] * 8))),
        "learning_rate": pa.array(np.full(LOSS_ROWS, 1e-4)),
        "grad_norm": pa.array(np.linspace(1, 0.2, LOSS_ROWS)),
        "samples_per_s": pa.array(np.full(LOSS_ROWS, row["train_steps"] / max(row["train_s"], 1e-9))),
    }


def _table(name: str, row: dict[str, Any], columns: dict[str, pa.Array]) -> pa.Table:
    """The columns of one trial with those that name it; null where it has none."""
    length = len(next(iter(columns.values())))
    columns = columns | {key: pa.repeat(row[key], length) for key in ("trial_id", "run_id")}
    arrays = [columns.get(field.name, pa.nulls(0)) for field in SCHEMAS[name]]
    arrays = [
        array.cast(field.type) if len(array) else pa.nulls(length, field.type)
        for array, field in zip(arrays, SCHEMAS[name], strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMAS[name])


def write_study(results_uri: str | Path, trials: int = 10_000, predictions: int = 200) -> tuple[int, int]:
    """Write the folder, over the same rows if they are there already; how many trials and predictions it has.

    The files are what compaction leaves: writing a file a trial and table and merging them would take far longer.
    """
    specs = {spec.trial_id: spec for spec in study_trials(trials, predictions)}
    rows, num_predictions = [], 0
    started = {trial_id: number for number, trial_id in enumerate(specs)}
    ids = sorted(specs)
    for file, start in enumerate(range(0, len(ids), TRIALS_PER_FILE)):
        parts: dict[str, list[pa.Table]] = {"predictions": [], "losses": []}
        for trial_id in ids[start : start + TRIALS_PER_FILE]:
            spec = specs[trial_id]
            trained = spec.backbone_spec.trainable
            fails = trained and problem_rng(SYNTHETIC, "fails", trial_id).random() < FAILED
            answers = None if fails else answers_of(spec)
            rows.append(trial_row(spec, started[trial_id], answers.metrics if answers else {}))
            if answers:
                parts["predictions"].append(_table("predictions", rows[-1], answers.columns))
                if trained:
                    parts["losses"].append(_table("losses", rows[-1], loss_columns(rows[-1])))
        num_predictions += sum(map(len, parts["predictions"]))
        for name, tables in parts.items():
            if tables:
                _put(results_uri, name, file, pa.concat_tables(tables), [len(table) for table in tables])
    _put(results_uri, "trials", 0, pa.Table.from_pylist(rows, schema=SCHEMAS["trials"]), [1] * len(rows))
    return len(rows), num_predictions


def _put(results_uri: str | Path, table: str, file: int, rows: pa.Table, lengths: Sequence[int]) -> None:
    folder = results.open_folder(results_uri)
    name = f"{COMPACTED}{SYNTHETIC}-{file:04d}.parquet"
    results.put_bytes(folder, f"{folder.root}/{table}", name, encode_executions(rows, lengths))


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", help="folder to write, such as results/synthetic")
    parser.add_argument("--trials", type=int, default=10_000, help="of tasks that generate problems")
    parser.add_argument("--predictions", type=int, default=200, help="test problems of such a trial")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    trials, predictions = write_study(arguments.results, arguments.trials, arguments.predictions)
    elapsed_s = time.perf_counter() - begin
    print(f"{trials} trials, {predictions} predictions, all invented: {arguments.results} ({elapsed_s:.0f} s)")


if __name__ == "__main__":
    main()
