"""A grid as a small palette PNG in a data URI, drawn in its task's colours, with wrong cells crossed out."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid, Split
from task_generators.render import CHESS_COLORS, Palette, RenderStyle, render
from task_generators.task import TaskSpec

PICTURE_PX, WIDE_PICTURE_PX = 96, 256
"""The longer side of a picture on the page at the most, roughly; of one much wider than high."""
WIDE = 2.5
"""Width over height from which a grid is wide."""
SCALE = 2
"""Pixels of the file for one of the page: sharp on fine screens and in print."""
LEAST_CELL_PX, MOST_CELL_PX = 5, 32
BORDER_PX = 2
BORDER_COLOR = (128, 128, 128)
UNKNOWN_COLOR = (150, 120, 150)
"""Of a code that the task does not have: a model may write any number."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Look:
    """Colours of a task's cell codes, whether border lines part the cells, and what the codes mean."""

    colors: tuple[tuple[int, int, int], ...]
    border: bool


@dataclass(frozen=True)
class Picture:
    """One grid as the page shows it."""

    role: str
    """question, answer or prediction."""
    uri: str
    """PNG, as a data URI."""
    alt: str
    height_px: int
    width_px: int
    """On the page; the file has ``SCALE`` times as many."""

    @property
    def is_wide(self) -> bool:
        """Whether it is much wider than high."""
        return self.width_px >= WIDE * self.height_px


@cache
def look_of(task: str, task_params: str) -> Look:
    """How the grids of a task are drawn; in ARC's colours where the task is no longer there."""
    params = json.loads(task_params)
    test = params.pop("test", {})
    params.pop("min_test_distance", None)
    try:
        built = TaskSpec(name=task, params=params, test=test).build(Split.TEST)
    except ValueError:
        return Look(CHESS_COLORS, True)
    return Look(built.palette.colors, built.style.border_px > 0)


def wrong_cells(answer: Grid, predicted: Grid) -> npt.NDArray[np.bool_] | None:
    """Which cells of ``predicted`` (rows, columns) differ from ``answer``; None where the sizes do."""
    if answer.shape != predicted.shape:
        return None
    wrong: npt.NDArray[np.bool_] = answer != predicted
    return wrong


def picture(role: str, grid: Grid, look: Look, wrong: npt.NDArray[np.bool_] | None = None) -> Picture:
    """Draw a grid (rows, columns) of at least one cell. Cells that are ``wrong`` (rows, columns) have a cross of black
    or white, whichever stands out, with an edge of the other."""
    known = len(look.colors)
    codes = np.where((grid < 0) | (grid >= known), known, grid).astype(np.int8)
    border_px = BORDER_PX if look.border else 0
    rows, columns = codes.shape
    room_px = SCALE * (WIDE_PICTURE_PX if columns >= WIDE * rows else PICTURE_PX)
    cell_px = int(np.clip(room_px // max(rows, columns) - border_px, LEAST_CELL_PX, MOST_CELL_PX))
    border_code = known + 1
    # The colour of a code is the code itself: one channel of the drawing is the palette picture.
    names = tuple(map(str, range(known + 1)))
    indexed = Palette(tuple((code, code, code) for code in range(known + 1)), names)
    style = RenderStyle(cell_px, border_px, (border_code, border_code, border_code))
    pixels = render(codes, indexed, style)[:, :, 0].copy()
    colors = [*look.colors, UNKNOWN_COLOR, BORDER_COLOR, BLACK, WHITE]
    black, white = len(colors) - 2, len(colors) - 1
    first_px = style.first_cell_px(codes.shape)
    for row, column in np.argwhere(wrong) if wrong is not None else ():
        top, left = (first_px[axis] + at * (cell_px + border_px) for axis, at in enumerate((row, column)))
        line, edge = (white, black) if _is_dark(colors[codes[row, column]]) else (black, white)
        _cross_out(pixels[top : top + cell_px, left : left + cell_px], line, edge)
    height_px, width_px = (-(-side // SCALE) for side in pixels.shape)
    return Picture(role, _data_uri(pixels, colors), _alt(role, grid, wrong), height_px, width_px)


def _is_dark(color: tuple[int, int, int]) -> bool:
    """Whether white has more contrast on it than black, by relative luminance (ITU-R BT.709, linearised roughly)."""
    red, green, blue = ((channel / 255) ** 2.2 for channel in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18


def _cross_out(cell: npt.NDArray[np.uint8], line: int, edge: int) -> None:
    """A cross with an edge over one cell's pixels (cell_px, cell_px), in place."""
    side = len(cell)
    down, across = np.indices(cell.shape)
    off = np.minimum(np.abs(down - across), np.abs(down + across - (side - 1)))
    inside = (np.minimum(down, across) >= side // 8) & (np.maximum(down, across) < side - side // 8)
    thick = max(1, side // 10)
    cell[inside & (off <= thick)] = edge
    cell[inside & (off < thick)] = line


def _alt(role: str, grid: Grid, wrong: npt.NDArray[np.bool_] | None) -> str:
    size = f"{role}, {grid.shape[0]} × {grid.shape[1]} cells"
    if wrong is None or not wrong.any():
        return size
    places = [f"row {row + 1} column {column + 1}" for row, column in np.argwhere(wrong)[:6].tolist()]
    more = f" and {int(wrong.sum()) - len(places)} more" if wrong.sum() > len(places) else ""
    return f"{size}; wrong: {', '.join(places)}{more}"


def _data_uri(pixels: npt.NDArray[np.uint8], colors: list[tuple[int, int, int]]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels, mode="P")
    image.putpalette([channel for color in colors for channel in color])
    encoded = BytesIO()
    bits = next(bits for bits in (1, 2, 4, 8) if len(colors) <= 2**bits)
    image.save(encoded, "PNG", bits=bits, optimize=True)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
