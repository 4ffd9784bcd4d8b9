"""How fast the tables of a large sweep are read, compacted and as small files, beside plain ``pandas.read_parquet``.

    python -m benchmarks.tables_at_size                    # 10,000 trials of 200 predictions: a quarter of an hour
    python -m benchmarks.tables_at_size --trials 1000

Rows are made up (8x8 grids, every fifth answer wrong, some unreadable); their files are what a sweep writes, one a
trial and table, then compacted. ``pandas.read_parquet`` of the compacted folder with the same columns and filters is
the limit: it neither drops duplicates nor looks at what counts. Each figure is the best of ``ROUNDS`` (of small files:
the first) in this process, with pandas imported; "CPU" is that call's processor time, which a busy machine does not
stretch. A fresh process counts its imports; memory is its peak.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from orchestrator import results
from orchestrator.results.files import encode_execution, execution_name
from orchestrator.tables import PREDICTIONS, TRIALS, TrialResult, TrialState, trials_table

ROUNDS = 3
SIDE = 8
SOME_TRIALS = 100
FLAT = ["trial_id", "index", "exact_match"]
START = datetime(2026, 1, 1, tzinfo=UTC)


def executions(trials: int, predictions: int) -> Iterator[tuple[str, str, pa.Table, pa.Table]]:
    """``trial_id``, ``run_id``, and the rows of both tables, trial after trial in no order of their ids."""
    draw = random.Random(0)
    generator = np.random.default_rng(0)
    template: pa.Table | None = None
    questions = _grids(generator, predictions)
    answers = _grids(generator, predictions)
    index = np.arange(predictions, dtype=np.int32)
    for number in range(trials):
        trial_id, run_id = f"{draw.getrandbits(64):016x}", f"{draw.getrandbits(64):016x}"
        share = draw.random()
        result = TrialResult(
            trial_id=trial_id,
            run_id=run_id,
            state=TrialState.DONE,
            backbone=f"family/{number % 5}",
            family="video",
            task="life",
            task_params="{}",
            seed=number % 7,
            n_train=(3, 10, 30, 100)[number % 4],
            n_test=predictions,
            lora_rank=16,
            recipe=json.dumps({"learning_rate": 1e-4, "max_steps": 2000, "targets": ["q", "k", "v", "out"]}),
            metrics={"exact_match": share, "cell_accuracy": share, "parsed": 0.98},
            train_loss=share,
            finished_at=START + timedelta(seconds=number),
        )
        row = trials_table(result) if template is None else _like(template, result)
        template = row
        right = generator.random(predictions) < share
        columns = {
            "trial_id": pa.array([trial_id] * predictions),
            "run_id": pa.array([run_id] * predictions),
            "problem_id": pa.array([f"life/test/{i}" for i in range(predictions)]),
            "index": pa.array(index),
            "attempt": pa.array(np.zeros(predictions, np.int32)),
            "parsed": pa.array(index % 50 != 0),
            "exact_match": pa.array(right),
            "cell_accuracy": pa.array(np.where(right, 1.0, 0.5)),
            "question": questions,
            "answer": answers,
            "predicted": _grids(generator, predictions, unreadable=index % 50 == 0),
        }
        arrays = [columns.get(field.name, pa.nulls(predictions, field.type)) for field in PREDICTIONS]
        yield (
            trial_id,
            run_id,
            row,
            pa.Table.from_arrays(
                [a.cast(f.type) for a, f in zip(arrays, PREDICTIONS, strict=True)], schema=PREDICTIONS
            ),
        )


def _like(template: pa.Table, result: TrialResult) -> pa.Table:
    """``trials_table`` in a tenth of its time: a row where only what differs is put anew."""
    metrics = {name: float(value) for name, value in result.metrics.items()}
    arrays = []
    for field in TRIALS:
        if field.name in metrics:
            value = metrics[field.name]
        elif field.name in ("trial_id", "run_id", "backbone", "seed", "n_train", "train_loss", "finished_at"):
            value = getattr(result, field.name)
        else:
            arrays.append(template[field.name].chunk(0))
            continue
        arrays.append(pa.array([value], field.type))
    return pa.Table.from_arrays(arrays, schema=TRIALS)


def _grids(generator: np.random.Generator, count: int, unreadable: np.ndarray | None = None) -> pa.ListArray:
    present = count if unreadable is None else int((~unreadable).sum())
    values = pa.array((generator.random(present * SIDE * SIDE) < 0.4).astype(np.int8))
    rows = pa.ListArray.from_arrays(pa.array(np.arange(present * SIDE + 1, dtype=np.int32) * SIDE), values)
    if unreadable is None:
        return pa.ListArray.from_arrays(pa.array(np.arange(present + 1, dtype=np.int32) * SIDE), rows)
    offsets = np.concatenate([[0], np.cumsum(~unreadable)]).astype(np.int32) * SIDE
    return pa.ListArray.from_arrays(pa.array(offsets), rows, mask=pa.array(unreadable))


def fill(folder: str, trials: int, predictions: int) -> list[str]:
    """Write small files for so many trials; their ids. Without waiting for the disk, which a sweep does."""
    opened = results.open_folder(folder)
    ids = []
    for trial_id, run_id, row, rows in executions(trials, predictions):
        for table, content in (("predictions", rows), ("trials", row)):
            path = Path(opened.root, table)
            path.mkdir(parents=True, exist_ok=True)
            (path / execution_name(trial_id, run_id)).write_bytes(encode_execution(content))
        ids.append(trial_id)
    return ids


def best_s(call: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """The shortest of ``rounds`` calls: seconds by the clock, seconds of processor time (all threads)."""
    times = []
    for _ in range(rounds):
        start, cpu_start = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - cpu_start))
    return min(times)


def in_fresh_process(code: str) -> tuple[float, float]:
    """Seconds and peak MiB of ``code`` in a Python of its own."""
    measured = f"import resource\nfrom orchestrator import results\nimport pandas as pd\n{code}\n"
    measured += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", measured], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, float(done.stdout.split()[-1])


def readers(folder: str, some: list[str]) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name of a question -> ours, and plain pandas'."""
    trials, predictions = f"{folder}/trials", f"{folder}/predictions"
    few = [("trial_id", "in", some)]
    return {
        "load_trials": (lambda: results.load_trials(folder), lambda: pd.read_parquet(trials)),
        "load_trials, 3 columns": (
            lambda: results.load_trials(folder, columns=["trial_id", "n_train", "exact_match"]),
            lambda: pd.read_parquet(trials, columns=["trial_id", "n_train", "exact_match"]),
        ),
        f"load_trials, {len(some)} trials": (
            lambda: results.load_trials(folder, trial_ids=some),
            lambda: pd.read_parquet(trials, filters=few),
        ),
        "load_predictions, 3 flat columns": (
            lambda: results.load_predictions(folder, columns=FLAT),
            lambda: pd.read_parquet(predictions, columns=FLAT),
        ),
        f"load_predictions, {len(some)} trials": (
            lambda: results.load_predictions(folder, trial_ids=some),
            lambda: pd.read_parquet(predictions, filters=few),
        ),
        f"load_predictions, 3 columns of {len(some)} trials": (
            lambda: results.load_predictions(folder, columns=FLAT, trial_ids=some),
            lambda: pd.read_parquet(predictions, columns=FLAT, filters=few),
        ),
    }


def print_readers(folder: str, some: list[str], rounds: int, plain: bool) -> None:
    """One line a question."""
    for name, (ours, pandas) in readers(folder, some).items():
        if not plain and "flat" in name:
            continue  # minutes
        print_line(name, best_s(ours, rounds), best_s(pandas, rounds) if plain else None)


def print_line(name: str, ours: tuple[float, float], pandas: tuple[float, float] | None = None) -> None:
    """Seconds and processor seconds of ours and of plain pandas."""
    figures = f"{ours[0]:>9.3f}{ours[1]:>9.3f}"
    print(f"  {name:<44}{figures}" + ("" if pandas is None else f"{pandas[0]:>10.3f}{pandas[1]:>9.3f}"), flush=True)


def print_states(folder: str) -> None:
    """How long the endings of all trials take, at first and again."""
    states = results.TrialStates(folder)
    print_line("TrialStates.refresh, first", best_s(states.refresh, 1))
    print_line("TrialStates.refresh, nothing new", best_s(states.refresh))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--predictions", type=int, default=200)
    parser.add_argument("--folder", help="keep the tables here, and read those that are here already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tables-") as temporary:
        folder = arguments.folder or temporary
        if not Path(folder, "trials").exists():
            start = time.perf_counter()
            fill(folder, arguments.trials, arguments.predictions)
            elapsed_s = time.perf_counter() - start
            print(f"{arguments.trials} trials x {arguments.predictions} predictions written: {elapsed_s:.0f} s")
        ids = sorted(path.name.split("-")[0] for path in Path(folder, "trials").glob("[0-9a-f]*.parquet"))
        if ids and not ids[0].startswith("compacted"):
            print(f"\nseconds, small files{'':<26}{'ours':>9}{'CPU':>9}", flush=True)
            print_states(folder)
            print_readers(folder, random.Random(1).sample(ids, min(SOME_TRIALS, len(ids))), 1, plain=False)
            compact_s, compact_mib = in_fresh_process(f"results.compact({folder!r})")
            print(f"\ncompact: {compact_s:.0f} s, peak {compact_mib:.0f} MiB", flush=True)
        ids = sorted(results.load_trials(folder)["trial_id"])
        some = random.Random(1).sample(ids, min(SOME_TRIALS, len(ids)))
        for table in ("trials", "predictions"):
            sizes = [path.stat().st_size for path in Path(folder, table).glob("*.parquet")]
            print(f"{table}: {len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB")
        print(f"\nseconds, compacted{'':<28}{'ours':>9}{'CPU':>9}{'pandas':>10}{'CPU':>9}", flush=True)
        print_states(folder)
        print_readers(folder, some, ROUNDS, plain=True)
        print(f"\nfresh process{'':<33}{'s':>7}{'peak MiB':>12}")
        for name, code in {
            "imports alone": "pass",
            "load_trials, cold": f"results.load_trials({folder!r})",
            "load_predictions, 3 flat columns, cold": f"results.load_predictions({folder!r}, columns={FLAT!r})",
            "load_predictions, everything": f"results.load_predictions({folder!r})",
        }.items():
            elapsed_s, peak_mib = in_fresh_process(code)
            print(f"  {name:<44}{elapsed_s:>9.2f}{peak_mib:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
