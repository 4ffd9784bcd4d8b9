"""Figures as files: PNG, SVG and PDF of each, the same bytes at every run; and SVG as text for the HTML page."""

from __future__ import annotations

import html
import io
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.report.figures_text import style
from orchestrator.report.looks import AXIS, FAINT, GRID, INK, PAPER, dark_twins

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_VARIABLES = {INK: "ink", FAINT: "faint", AXIS: "axis", GRID: "grid", PAPER: "paper"}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "ModDate": None},
}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``folder/name`` as ``.png`` (200 dots an inch), ``.svg`` and ``.pdf``; returns the three paths.

    Text stays text in SVG and PDF (fonts of type 42). No file says when it was made, so that the same figure gives the
    same bytes. A file is whole or absent.
    """
    return [save_as(figure, folder / f"{name}.{suffix}") for suffix in _METADATA]


def save_as(figure: Figure, path: Path) -> Path:
    """Write one file, in the format that its suffix says: ``.png``, ``.svg`` or ``.pdf``."""
    content = rendered(figure, path.suffix[1:], path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return path


def printable(text: str) -> str:
    """``text`` without control characters, and without those that turn the direction of what follows around."""
    return _UNPRINTABLE.sub("", text)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it, so that a reader never sees a part of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rendered(figure: Figure, suffix: str, name: str, *, transparent: bool = False) -> bytes:
    """The bytes of a ``png``, ``svg`` or ``pdf`` file; ``name`` goes into the ids of an SVG."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(style(name)):
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=_METADATA[suffix], transparent=transparent)
    content = buffer.getvalue()
    return printable(content.decode()).encode() if suffix == "svg" else content


def svg_text(figure: Figure, title: str, description: str, *, name: str | None = None) -> str:
    """The figure as an ``<svg>`` element to stand in an HTML page, as wide as its place there.

    ``title`` and ``description`` are what a screen reader says. ``name`` (else the title) makes the ids unique: figures
    of one page need different ones. Text stays text, in the page's font. The background is transparent and colours are
    CSS variables with the light colour as what they fall back to: ``--ink``, ``--faint``, ``--axis``, ``--grid``,
    ``--paper``, and one for each series that needs another colour on dark paper, set by ``figure_css``. Colours are in
    attributes and in ``style`` attributes, so that a content security policy has to allow inline styles.
    """
    prefix = re.sub(r"[^a-z0-9]+", "-", (name or title).lower()).strip("-") or "figure"
    text = rendered(figure, "svg", prefix, transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.DOTALL)  # its rule for * would reach the whole page
    head, body = text[: text.index(">") + 1], text[text.index(">") + 1 :]
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # nothing refers to a group
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'(href="#|url\(#)([^")]+)', rf"\1{prefix}-\2", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = re.sub(r"#[0-9a-fA-F]{6}\b", _variable, body)
    body = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", body)
    body = re.sub(r'\b(?:d|x|y)="[^"]*"', _rounded, body)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><")
    body = re.sub(r"<g>(<[^<>]*/>)</g>", r"\1", body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} width="100%" '
        f'stroke-linejoin="round" stroke-linecap="butt" role="img" aria-labelledby="{prefix}-title {prefix}-desc">'
        f'<title id="{prefix}-title">{html.escape(title)}</title>'
        f'<desc id="{prefix}-desc">{html.escape(description)}</desc>{body}'
    )


def figure_css() -> str:
    """The colours of series on dark paper, as custom properties to set where the page is dark: declarations alone,
    ``--series-332288: #56b4e9; ...``."""
    return " ".join(f"--series-{light[1:]}: {dark};" for light, dark in dark_twins().items() if light != dark)


def _rounded(match: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point: a third of the page's size is the digits behind."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[0])


def _variable(match: re.Match[str]) -> str:
    color = match[0].lower()
    twin = dark_twins().get(color)
    if color in _VARIABLES:
        return f"var(--{_VARIABLES[color]}, {color})"
    return f"var(--series-{color[1:]}, {color})" if twin not in (None, color) else color
