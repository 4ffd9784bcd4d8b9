"""Text in figures: type sizes, the width of a line of text, wrapping, and labels that do not collide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that a figure is the same on every machine."""
COLUMN_IN, PAGE_IN = 3.3, 6.9
"""Width of one column and of the whole page of a two-column paper; figures are drawn at the size they are printed."""
TITLE_PT, TEXT_PT, SMALL_PT = 7.5, 7.0, 6.0
HINTING = 1.03
"""How much wider than its outlines a line of pixels can be."""
LINE = 1.25
"""Distance of two lines of text over their size."""


def style(name: str) -> dict[Any, Any]:
    """matplotlib's settings for a figure; ``name`` makes the ids in its SVG the same at every drawing."""
    return {
        "font.family": FONT,
        "font.size": TEXT_PT,
        "axes.linewidth": 0.6,
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a $ in somebody's label is a dollar
    }


@cache
def width_in(text: str, size_pt: float, bold: bool = False) -> float:
    """Width in inches of the widest line of ``text``."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family=FONT, weight="bold" if bold else "normal")))
    font.set_size(size_pt, 720)  # ten times as fine as a point, without the rounding of a small size
    widths = []
    for line in text.split("\n"):
        font.set_text(line, 0.0)
        widths.append(font.get_width_height()[0] / 64 / 720)
    return HINTING * max(widths)


def height_in(text: str, size_pt: float) -> float:
    """Height in inches of all lines of ``text``."""
    return (text.count("\n") + 1) * size_pt * LINE / 72


@cache
def wrapped(text: str, room_in: float, size_pt: float, max_lines: int = 4, bold: bool = False) -> str:
    """``text`` in lines no wider than ``room_in`` inches; what goes beyond ``max_lines`` ends in an ellipsis.

    Lines break at spaces, and where a word alone is too wide after punctuation, or else anywhere.
    """
    lines: list[str] = []
    line = ""
    for word in _pieces(text, room_in, size_pt, bold):
        if line.strip() and width_in((line + word).rstrip(), size_pt, bold) > room_in:
            lines.append(line.rstrip())
            line = word.lstrip()
        else:
            line += word
    lines.append(line.rstrip())
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        while len(lines[-1]) > 1 and width_in(lines[-1] + "…", size_pt, bold) > room_in:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return "\n".join(lines)


def _pieces(text: str, room_in: float, size_pt: float, bold: bool) -> list[str]:
    """Parts that lines may break between: words, and of one that is too wide its parts, broken at the mildest place."""
    pieces = re.findall(r"\S+\s*|\s+", text)
    for after in ("(,", "_/-", "=", None):
        parts = []
        for piece in pieces:
            if width_in(piece.rstrip(), size_pt, bold) <= room_in:
                parts.append(piece)
            else:
                parts += list(piece) if after is None else re.findall(f"[^{after}]*[{after}]+|[^{after}]+", piece)
        pieces = parts
    return pieces


def thinned(positions: Sequence[float], labels: Sequence[str], size_pt: float, gap_in: float = 0.05) -> list[str]:
    """``labels`` centred at ``positions`` (ascending, in inches), those that would touch another one made empty.

    The first and the last stay where both fit, since they say what was measured.
    """
    kept = [""] * len(labels)
    if not labels:
        return kept
    halves = [width_in(label, size_pt) / 2 for label in labels]
    last = len(labels) - 1
    right = -float("inf")
    for place in range(last + 1):
        before_last = place == last or positions[place] + halves[place] + gap_in <= positions[last] - halves[last]
        if positions[place] - halves[place] >= right + gap_in and (before_last or place == 0):
            kept[place] = labels[place]
            right = positions[place] + halves[place]
    if last and kept[0] and positions[0] + halves[0] + gap_in > positions[last] - halves[last]:
        kept[last] = ""
    return kept


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Centres of labels of the given ``heights`` that do not touch, as near to ``wanted`` as that allows.

    Within ``low`` and ``high`` where all of them fit there; the order of ``wanted`` is kept.
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    groups: list[list[int]] = []
    centres: list[float] = []

    def settle(group: list[int]) -> float:
        total = sum(heights[place] for place in group)
        offset, sums = 0.0, 0.0
        for place in group:
            sums += wanted[place] - (offset + heights[place] / 2)
            offset += heights[place]
        start = min(max(sums / len(group), low), max(low, high - total))
        return start + total / 2

    for place in order:
        groups.append([place])
        centres.append(settle([place]))
        while len(groups) > 1:
            above, below = groups[-1], groups[-2]
            room = (sum(heights[p] for p in above) + sum(heights[p] for p in below)) / 2
            if centres[-1] - centres[-2] >= room - 1e-9:
                break
            groups[-2:] = [below + above]
            centres[-2:] = [settle(groups[-1])]
    result = [0.0] * len(wanted)
    for group, centre in zip(groups, centres, strict=True):
        at = centre - sum(heights[place] for place in group) / 2
        for place in group:
            result[place] = at + heights[place] / 2
            at += heights[place]
    return result
