"""Grid <-> compact JSON text, the form in which language models see problems: ``[[0,1],[2,3]]``."""

from __future__ import annotations

import json
import re

from task_generators.problem import Grid, frozen_grid

MAX_TEXT_CHARS = 300_000
"""Longer texts are not read: the largest grids, 255 x 255 cells, take half of this."""

# Every repetition is possessive (*+, ?+), so that no text makes the reader go back: reading is linear in the length.
_START = re.compile(r"\[\s*+(?=\[\s*+-?+[0-9])")
_ROW = re.compile(r"\s*+,?+\s*+\[\s*+(-?+[0-9]{1,4}+(?:\s*+,\s*+-?+[0-9]{1,4}+)*+)(?:\s*+,)?+(?:\s*+\])?+")
_END = re.compile(r"\s*+,?+\s*+\]")
_CUT_OFF = re.compile(r"\s*+(?:,\s*+)?+(?:\Z|```[^\[\]]*+\Z|(?<=\s)[A-Za-z][^\[\]]*+\Z)")


def dumps(grid: Grid) -> str:
    """The grid as JSON without spaces: a list of rows."""
    return json.dumps(grid.tolist(), separators=(",", ":"))


def loads(text: str) -> Grid | None:
    """The first grid in a model's output, or None where there is none. Never raises; linear in the text's length.

    Forgives what language models do around a grid they know: prose and code fences before and after it, spaces and
    line breaks, a comma too many, no comma between two rows, and missing closing brackets. Does not guess cells: rows
    of unequal length, numbers that are no int8, and anything but whole numbers between the brackets are no grid.
    """
    if len(text) > MAX_TEXT_CHARS:
        return None
    position = 0
    while start := _START.search(text, position):
        position = start.end()
        rows: list[list[int]] = []
        while row := _ROW.match(text, position):
            rows.append([int(number) for number in row[1].split(",")])
            position = row.end()
        is_whole = _END.match(text, position) or _CUT_OFF.match(text, position)
        if is_whole and (grid := _grid(rows)) is not None:
            return grid
    return None


def _grid(rows: list[list[int]]) -> Grid | None:
    width = len(rows[0])
    if any(len(row) != width or min(row) < -128 or max(row) > 127 for row in rows):
        return None
    return frozen_grid(rows)
