"""Problems for people: a contact sheet as PNG, a table as Parquet."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from orchestrator.tables import PROBLEMS
from task_generators.problem import Problem, Split
from task_generators.render import Image, contact_sheet, render
from task_generators.splits import draw_problems
from task_generators.task import Task, TaskSpec

LABEL_PX = 22
GAP_PX = 12
SHEET_WIDTH_PX = 1400
"""Pairs are laid out in as many columns as fit this width."""


def problems_table(spec: TaskSpec, split: Split, seed: int, n: int) -> pa.Table:
    """The first ``n`` problems of a split as ``PROBLEMS``; the test split is one for all seeds, its seed reads 0."""
    seed = 0 if split == Split.TEST else seed
    rows = [
        {
            "problem_id": problem.problem_id,
            "split": split.value,
            "seed": seed,
            "index": index,
            "question": problem.question.tolist(),
            "answer": problem.answer.tolist(),
            "metadata": json.dumps(dict(problem.metadata), sort_keys=True),
        }
        for index, problem in enumerate(draw_problems(spec, split, seed, n))
    ]
    return pa.Table.from_pylist(rows, schema=PROBLEMS)


def write_problems(table: pa.Table, path: Path) -> None:
    """Write a table of problems whole or not at all. ValueError when the place cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary)
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"--out {path}: cannot be written: {error.strerror or error}") from None


def write_preview(spec: TaskSpec, seed: int, n: int, path: Path) -> None:
    """A PNG of the first ``n`` training problems, question and answer side by side, each pair with its index."""
    task = spec.build(Split.TRAIN)
    pairs = [_pair(task, problem, index) for index, problem in enumerate(draw_problems(spec, Split.TRAIN, seed, n))]
    columns = max(1, min(len(pairs), SHEET_WIDTH_PX // (max(pair.shape[1] for pair in pairs) + GAP_PX)))
    sheet = PillowImage.fromarray(contact_sheet(pairs, columns, gap_px=GAP_PX))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--out {path}: cannot be written: {error}") from None


def _pair(task: Task, problem: Problem, index: int) -> Image:
    """Question and answer with their names above them: uint8 (height_px, width_px, 3)."""
    pictures = [render(grid, task.palette, task.style) for grid in (problem.question, problem.answer)]
    height = max(picture.shape[0] for picture in pictures)
    widths = [max(picture.shape[1], 96) for picture in pictures]
    canvas = PillowImage.new("RGB", (sum(widths) + GAP_PX, height + LABEL_PX), "white")
    draw, left = ImageDraw.Draw(canvas), 0
    for name, picture, width in zip((f"{index}  question", "answer"), pictures, widths, strict=True):
        draw.text((left, 2), name, fill=(60, 60, 60), font=ImageFont.load_default(size=13))
        canvas.paste(PillowImage.fromarray(picture), (left, LABEL_PX))
        left += width + GAP_PX
    return np.asarray(canvas)
