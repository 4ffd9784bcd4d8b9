"""What the page is made of: sections of figures and tables, as plain values that the template only lays out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import pandas as pd

from orchestrator.report import table_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

MOST_ROWS = 250
"""Rows of a table on the page; a longer one is whole among the files that ``figures`` writes."""
_SECRET = re.compile(
    r"(\b(?!abfss?:)[a-z][a-z0-9+.-]*://)(?:[^\s'\"?#]*:[^\s'\"?#]*@|[^/\s@'\"]+@)",  # of abfs it is the container
    re.IGNORECASE,
)
_SECRET_WORD = re.compile(
    r"\b(hf_|Bearer\s+|\w*(?:TOKEN|SECRET|PASSWORD|ACCESS_KEY|API_KEY)\w*\s*[=:]\s*)(?!\d+\b)[^\s'\",;]{6,}",
    re.IGNORECASE,
)
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:key|secret|token|password|sig|credential)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it says, and what its column is sorted by."""

    text: str
    sort: str


@dataclass(frozen=True)
class Column:
    """Heading of a column, and whether it holds numbers, which stand at the right."""

    heading: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """A table of the page; the first column heads its rows."""

    narrow: ClassVar[bool] = False
    name: str
    """Of the files it is written to, and of its element."""
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    frame: pd.DataFrame
    """What is written to the CSV file, whole."""
    estimate: str | None = None
    total: Sequence[Cell] = ()
    """The last row, where it sums up the others."""
    more: int = 0
    """Rows that are only in the files."""

    def texts(self) -> pd.DataFrame:
        """What it says on the page, as a frame of strings."""
        rows = [*self.rows, *([self.total] if self.total else [])]
        headings = [column.heading for column in self.columns]
        return pd.DataFrame([[cell.text for cell in row] for row in rows], columns=headings, dtype=object)

    def of(self, frame: pd.DataFrame) -> Table:
        """The same on the page, with all of ``frame`` in the CSV file."""
        return replace(self, frame=frame)


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    name: str
    title: str
    description: str
    """What it shows, for people who do not see it."""
    draw: Callable[[], Drawing]
    """Draws it; nothing is drawn that is shown nowhere."""
    narrow: bool = False
    """As wide as a column, not as the page."""
    on_page: bool = True
    """Otherwise it is among the files alone."""


Block: TypeAlias = Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of the page that a question of the reader's leads to."""

    anchor: str
    title: str
    reading: str
    """How to read it, in one plain sentence."""
    blocks: Sequence[Block]
    extent: str = ""
    """How many test problems and seeds it rests on."""
    notes: Sequence[str] = field(default_factory=tuple)
    sentences: Sequence[str] = field(default_factory=tuple)
    """Findings, in words."""

    @property
    def figures(self) -> list[Figure]:
        """Its figures."""
        return [block for block in self.blocks if isinstance(block, Figure)]

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [block for block in self.blocks if isinstance(block, Table)]


def table(
    name: str,
    caption: str,
    frame: pd.DataFrame,
    headings: Mapping[str, str],
    *,
    estimate: str | None = None,
    decimals: int = 2,
    most_rows: int = MOST_ROWS,
    order: Sequence[int] | None = None,
    total: bool = False,
) -> Table:
    """A table of the columns of ``frame`` that ``headings`` names, in that order, those that are all null left out.

    ``low`` and ``high`` are folded into ``estimate``. ``order`` says which rows come first (positions in the frame),
    where the page has not room for all. ``total`` says that the last row sums up the others.
    """
    names = [column for column in headings if column in frame.columns and (frame[column].notna().any() or frame.empty)]
    on_page = frame.iloc[list(order)] if order is not None else frame
    on_page = on_page.iloc[:most_rows]
    folded = [bound for bound in ("low", "high") if estimate is not None and bound in frame.columns]
    rounded = on_page[[*names, *folded]].copy()
    for column in [estimate, *folded] if folded else []:  # 0.00 and no 5.0e-04, which is for small p-values
        rounded[column] = rounded[column].astype("float64").round(decimals)
    texts = table_files.shown(rounded, estimate=estimate if folded else None, decimals=decimals)
    columns, columns_of_cells = [], []
    for column in names:
        numeric = pd.api.types.is_numeric_dtype(frame[column]) and not pd.api.types.is_bool_dtype(frame[column])
        columns.append(Column(headings[column], numeric))
        values = on_page[column].tolist()
        cells = zip(texts[column].tolist(), values, strict=True)
        columns_of_cells.append([Cell(text, _sort_key(value)) for text, value in cells])
    rows = list(zip(*columns_of_cells, strict=True))
    last = rows.pop() if total and rows else ()
    more = len(frame) - len(on_page)
    return Table(name, caption, columns, rows, frame, estimate if folded else None, last, more)


def _sort_key(value: Any) -> str:
    """A number as JavaScript reads it (null is empty and comes last), else the text."""
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        number = float(value)
        if math.isinf(number):
            return "Infinity" if number > 0 else "-Infinity"
        return "" if math.isnan(number) else repr(number)
    return str(value)


def redacted(text: str) -> str:
    """``text`` without what looks like a secret: ``s3://k:secret@bucket`` is ``s3://…@bucket``; tokens."""
    return _SECRET_WORD.sub(r"\1…", _SECRET_PARAMETER.sub(r"\1…", _SECRET.sub(r"\1…@", text)))


def counted(number: int, noun: str) -> str:
    """``1 trial``, ``1,234 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def extent_of(frame: pd.DataFrame) -> str:
    """``200 test problems; 3 seeds`` from the columns ``n_test`` and ``seeds`` of an analysis."""
    parts = []
    for column, noun in (("n_test", "test problem"), ("seeds", "seed")):
        values = frame[column].dropna() if column in frame.columns else pd.Series(dtype=float)
        values = values[values > 0]
        if len(values):
            low, high = int(values.min()), int(values.max())
            parts.append(counted(low, noun) if low == high else f"{low:,} to {high:,} {noun}s")
    return "; ".join(parts)
