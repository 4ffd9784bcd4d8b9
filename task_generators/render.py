"""Grid -> image. Images are uint8 RGB arrays of shape (height_px, width_px, 3); ``task_generators.parse`` reads them.

A grid is drawn as flat square cells, optionally separated (and framed) by border lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid

Image: TypeAlias = npt.NDArray[np.uint8]
"""uint8 RGB, shape (height_px, width_px, 3)."""


@dataclass(frozen=True)
class Palette:
    """RGB colours (0 to 255) of the cell codes 0, 1, 2, ...; ``names`` says in a word what each code means."""

    colors: tuple[tuple[int, int, int], ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.colors) == len(self.names), "one name a colour"

    def array(self) -> npt.NDArray[np.float32]:
        """Colours as float32, shape (codes, 3)."""
        return np.asarray(self.colors, dtype=np.float32)


@dataclass(frozen=True)
class RenderStyle:
    """How a grid is drawn: side of a cell in px, width of the border lines in px (0: none) and their colour.

    Where the cells do not fill a multiple of ``multiple_px`` px, a margin of the border colour makes up for it, half of
    it on either side: the published 9x9 Sudoku has 290 px of cells and lines in a picture of 304 px.
    """

    cell_px: int
    border_px: int = 0
    border_color: tuple[int, int, int] = (85, 85, 85)
    multiple_px: int = 1

    def size_px(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width in px of a drawn grid of ``shape`` (rows, columns)."""
        return self._side_px(shape[0]), self._side_px(shape[1])

    def first_cell_px(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Row and column, in px, of the top left pixel of the first cell of a drawn grid of ``shape``."""
        pitch = self.cell_px + self.border_px
        top, left = ((self._side_px(cells) - cells * pitch + self.border_px) // 2 for cells in shape)
        return top, left

    def _side_px(self, num_cells: int) -> int:
        side_px = num_cells * (self.cell_px + self.border_px) + self.border_px
        return -(-side_px // self.multiple_px) * self.multiple_px


ARC_COLORS = (
    (0, 0, 0),
    (0, 116, 217),
    (255, 65, 54),
    (46, 204, 64),
    (255, 220, 0),
    (170, 170, 170),
    (240, 18, 190),
    (255, 133, 27),
    (127, 219, 255),
    (135, 12, 37),
)
ARC_NAMES = ("black", "blue", "red", "green", "yellow", "grey", "fuchsia", "orange", "teal", "brown")
CHESS_COLORS = (*ARC_COLORS, (119, 17, 153), (34, 187, 153), (119, 153, 102))
"""Thirteen codes: purple, jade and sage stay furthest from all others and from the grey of the border lines (77 or more
in RGB), also in pictures darkened to 0.7 and with channels offset by 60, up or down, and clipped."""
MAZE_PALETTE = Palette(
    colors=((71, 48, 45), (255, 255, 255), (244, 96, 54), (72, 191, 132), (46, 134, 171)),
    names=("wall", "open", "end", "start", "solution"),
)


def render(grid: Grid, palette: Palette, style: RenderStyle) -> Image:
    """Draw a grid (rows, columns) -> uint8 (height_px, width_px, 3). ValueError when a code is not in the palette."""
    image: Image = render_many(grid[None], palette, style)[0]
    return image


def render_many(grids: npt.NDArray[np.int8], palette: Palette, style: RenderStyle) -> npt.NDArray[np.uint8]:
    """Draw grids of one shape (N, rows, columns) -> uint8 (N, height_px, width_px, 3).

    ValueError when a cell's code is not in the palette, or when the grids have no cells.
    """
    if grids.ndim != 3 or 0 in grids.shape[1:]:
        raise ValueError(f"expected grids of shape (N, rows, columns) with a cell or more, got shape {grids.shape}")
    if grids.size and (grids.min() < 0 or grids.max() >= len(palette.colors)):
        raise ValueError(f"cell codes must lie in 0..{len(palette.colors) - 1}, got {grids.min()}..{grids.max()}")
    num_grids, rows, columns = grids.shape
    pitch = style.cell_px + style.border_px
    height, width = style.size_px((rows, columns))
    images = np.empty((num_grids, height, width, 3), dtype=np.uint8)
    if style.border_px or (height, width) != (rows * pitch, columns * pitch):
        # A whole row at once: numpy copies runs of three bytes twenty times slower.
        images.reshape(num_grids, height, width * 3)[:] = np.tile(np.array(style.border_color, dtype=np.uint8), width)
    # One row of pixels of every code, the border line to its right included, makes one row of pixels of the picture,
    # and copies of that fill the cells.
    pixels_of_code = np.empty((len(palette.colors), pitch, 3), dtype=np.uint8)
    pixels_of_code[:] = style.border_color
    pixels_of_code[:, : style.cell_px] = np.asarray(palette.colors, dtype=np.uint8)[:, None]
    pixel_rows = pixels_of_code[grids].reshape(num_grids, rows, 1, columns * pitch * 3)
    top, left = style.first_cell_px((rows, columns))
    used = images[:, top : top + rows * pitch].reshape(num_grids, rows, pitch, width * 3)
    used[:, :, : style.cell_px, left * 3 : (left + columns * pitch) * 3] = pixel_rows
    return images


def contact_sheet(images: Sequence[Image], columns: int, gap_px: int = 8, background: int = 255) -> Image:
    """Lay images out in rows of ``columns``, each in a slot as large as the largest, on one background colour."""
    slot_h = max(image.shape[0] for image in images) + gap_px
    slot_w = max(image.shape[1] for image in images) + gap_px
    rows = -(-len(images) // columns)
    sheet: Image = np.full((rows * slot_h + gap_px, columns * slot_w + gap_px, 3), background, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = gap_px + index // columns * slot_h, gap_px + index % columns * slot_w
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
