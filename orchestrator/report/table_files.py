"""Tables as files: CSV for programs, LaTeX for the paper, Markdown for the notes."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.report.figure_files import printable, write_whole

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "−": "$-$",
    "∞": r"$\infty$",
}
_MARKDOWN = str.maketrans({"\\": "\\\\", "|": "\\|", "*": "\\*", "_": "\\_", "`": "\\`", "<": "&lt;", "[": "\\["})
_LEAD = ("task_label", "family", "backbone", "backbone_a", "backbone_b")


def write(
    frame: pd.DataFrame,
    folder: Path,
    name: str,
    *,
    caption: str = "",
    estimate: str | None = None,
    decimals: int = 2,
    cells: pd.DataFrame | None = None,
) -> list[Path]:
    """Write ``folder/name`` as ``.csv``, ``.tex`` and ``.md``; returns the three paths. Each file is whole or absent.

    The CSV has every column at full precision, null as an empty cell. Its text is what the user's own YAML and the
    tables say, unchanged: a program that takes cells beginning with ``=``, ``+``, ``-`` or ``@`` for formulas should
    open it as text. LaTeX (``booktabs``) and Markdown have ``cells``, a frame of strings, else what ``shown``
    makes of the frame.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = shown(frame, estimate=estimate, decimals=decimals) if cells is None else cells
    texts = {
        "csv": frame.to_csv(index=False, lineterminator="\n"),
        "tex": latex(cells, caption=caption, label=f"tab:{name}"),
        "md": markdown(cells, caption=caption),
    }
    paths = [folder / f"{name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, printable(text).encode())
    return paths


def shown(frame: pd.DataFrame, *, estimate: str | None = None, decimals: int = 2) -> pd.DataFrame:
    """The frame as text for people: every cell a string, ``low`` and ``high`` folded into the ``estimate`` before them.

    ``0.52 [0.41, 0.63]``; an open end is ``∞``, null is an empty string. Without ``estimate`` it is the last column of
    decimal numbers before ``low``. ``task`` and ``task_params`` go where ``task_label`` says the same.
    """
    columns = list(frame.columns)
    folded = "low" in columns and "high" in columns
    if folded and estimate is None:
        before = columns[: columns.index("low")]
        decimal = [name for name in before if pd.api.types.is_float_dtype(frame[name])]
        estimate = decimal[-1] if decimal else None
    if "task_label" in columns:
        columns = [name for name in columns if name not in ("task", "task_params")]
    leads = [name for name in _LEAD if name in columns]
    columns = leads + [name for name in columns if name not in leads]
    if folded and estimate is not None:
        columns = [name for name in columns if name not in ("low", "high")]
    cells = {}
    for name in columns:
        texts = [cell(value, decimals) for value in frame[name].tolist()]
        if folded and name == estimate:
            ends = zip(frame["low"].tolist(), frame["high"].tolist(), strict=True)
            texts = [_with_interval(text, low, high, decimals) for text, (low, high) in zip(texts, ends, strict=True)]
        cells[name] = texts
    return pd.DataFrame(cells, columns=columns, dtype=object)


def cell(value: Any, decimals: int = 2) -> str:
    """One value as text for people: null is empty, counts have no decimals, numbers of 100 and more none either."""
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(cell(item, decimals) for item in value)
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return str(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isinf(number):
            return "∞" if number > 0 else "-∞"
        if abs(number) >= 100:
            return f"{number:.0f}"
        if number and abs(number) < 0.5 * 10**-decimals:  # a p-value, say: 0.00 would be wrong
            return f"{number:.1e}"
        return f"{number:.{decimals}f}"
    return str(value)


def latex(cells: pd.DataFrame, *, caption: str = "", label: str = "") -> str:
    """A ``table`` with ``booktabs`` rules of a frame of strings; needs ``\\usepackage{booktabs}`` (and, for straight
    quotation marks, the T1 font encoding)."""
    aligned = "".join("r" if right else "l" for right in _numeric(cells))
    lines = ["\\begin{table}", "  \\centering"]
    if caption:
        lines.append(f"  \\caption{{{latex_text(caption)}}}")
    if label:
        lines.append(f"  \\label{{{label}}}")
    lines += [f"  \\begin{{tabular}}{{{aligned}}}", "    \\toprule"]
    lines.append("    " + " & ".join(latex_text(heading(name)) for name in cells.columns) + " \\\\")
    lines.append("    \\midrule")
    numeric = _numeric(cells)
    for row in cells.itertuples(index=False):
        texts = [latex_text(_minus(text) if right else text) for text, right in zip(row, numeric, strict=True)]
        if texts and texts[0].startswith("["):  # \\[ would take it for the space after the line
            texts[0] = "{}" + texts[0]
        lines.append("    " + " & ".join(texts) + " \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def markdown(cells: pd.DataFrame, *, caption: str = "") -> str:
    """A pipe table of a frame of strings."""
    rules = ["---:" if right else "---" for right in _numeric(cells)]
    lines = [f"{markdown_text(caption)}\n"] if caption else []
    lines.append("| " + " | ".join(markdown_text(heading(name)) for name in cells.columns) + " |")
    lines.append("| " + " | ".join(rules) + " |")
    lines += ["| " + " | ".join(markdown_text(text) for text in row) + " |" for row in cells.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def heading(column: object) -> str:
    """The name of a column as a heading: ``task_label`` is ``task``, underscores are spaces."""
    return {"task_label": "task"}.get(str(column), str(column).replace("_", " "))


def latex_text(text: object) -> str:
    """``text`` with every character that means something to LaTeX escaped."""
    return "".join(_LATEX.get(character, character) for character in " ".join(str(text).split()))


def markdown_text(text: object) -> str:
    """``text`` on one line, with every character that means something to Markdown escaped."""
    return " ".join(str(text).split()).translate(_MARKDOWN)


def _numeric(cells: pd.DataFrame) -> Sequence[bool]:
    """Which columns hold numbers alone, and stand at the right."""

    def is_number(text: str) -> bool:
        return text == "" or re.fullmatch(r"-?(∞|\d[\d.]*(e[-+]\d+)?)( \[.*\])?", text) is not None

    return [any(cells[name]) and all(is_number(str(text)) for text in cells[name]) for name in cells.columns]


def _minus(text: object) -> str:
    """A number with a minus sign in place of the hyphen, which LaTeX would print as one."""
    return re.sub(r"(?<![\w.])-(?=[\d∞])", "−", str(text))


def _with_interval(text: str, low: Any, high: Any, decimals: int) -> str:
    ends = [cell(low, decimals), cell(high, decimals)]
    return f"{text} [{ends[0]}, {ends[1]}]" if all(ends) else text
