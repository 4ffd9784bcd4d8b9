"""Problems as a Parquet table: what ``sweep generate`` writes and ``sweep verify`` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from orchestrator.tables import PROBLEMS
from task_generators.problem import Problem, Split, frozen_grid
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec

ROWS_AT_ONCE = 10_000
TASK_KEY = b"task"
"""Key of the schema's metadata that holds the task, knobs of the split included, as ``TaskSpec`` in JSON."""


def problems_table(spec: TaskSpec, split: Split, seed: int, n: int) -> pa.Table:
    """The first ``n`` problems of a split as ``PROBLEMS``; the test split is one for all seeds, its seed reads 0."""
    seed = 0 if split == Split.TEST else seed
    problems = draw_problems(spec, split, seed, n)
    of_split = TaskSpec(name=spec.name, params={**spec.params, **(spec.test if split == Split.TEST else {})})
    metadata = {TASK_KEY: of_split.model_dump_json().encode()}
    chunks = [
        pa.Table.from_pylist(
            [
                _row(problem, split, seed, index)
                for index, problem in enumerate(problems[first : first + ROWS_AT_ONCE], first)
            ],
            schema=PROBLEMS.with_metadata(metadata),
        )
        for first in range(0, n, ROWS_AT_ONCE)
    ]
    return pa.concat_tables(chunks)


def _row(problem: Problem, split: Split, seed: int, index: int) -> dict[str, Any]:
    return {
        "problem_id": problem.problem_id,
        "split": split.value,
        "seed": seed,
        "index": index,
        "question": problem.question.tolist(),
        "answer": problem.answer.tolist(),
        "metadata": json.dumps(dict(problem.metadata), sort_keys=True),
    }


def write_problems(table: pa.Table, path: Path) -> None:
    """Write a table of problems whole or not at all. ValueError when the place cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary)
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"--out {path}: cannot be written: {error.strerror or error}") from None


def read_problems(path: Path) -> tuple[TaskSpec, Split, list[Problem]]:
    """A table that ``write_problems`` wrote: the task with the knobs of its split, the split, and its problems.

    ValueError when the file is no such table.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None
    named = (table.schema.metadata or {}).get(TASK_KEY)
    if named is None or not set(PROBLEMS.names) <= set(table.column_names):
        raise ValueError(f"{path}: holds no problems that sweep generate wrote")
    try:
        spec = TaskSpec.model_validate_json(named)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: the task it names is not there: {' '.join(message.split())}") from None
    splits = set(table["split"].to_pylist())
    if len(splits) != 1 or not splits <= set(Split):
        raise ValueError(f"{path}: expected problems of one split, train or test, not of {len(splits)}")
    rows = table.select(["question", "answer", "metadata", "problem_id"]).to_pylist()
    return spec, Split(splits.pop()), [_problem(path, number, row) for number, row in enumerate(rows)]


def _problem(path: Path, number: int, row: dict[str, Any]) -> Problem:
    try:
        metadata = json.loads(row["metadata"])
        question, answer = frozen_grid(row["question"]), frozen_grid(row["answer"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: row {number}: no problem: {' '.join(str(error).split())}") from None
    return Problem(question, answer, metadata, problem_id=str(row["problem_id"]))
