"""Grid -> image and image -> grid. Images are uint8 RGB arrays of shape (height_px, width_px, 3).

A grid is drawn as flat square cells, optionally separated (and framed) by border lines. Reading an image back takes
the mean colour of the inner part of every cell and picks the nearest palette colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid, frozen_grid

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

    def cells(self, image: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The part of an image that holds the cells, as a view (rows, cell_px + border_px, columns, same, 3).

        Each cell comes with the border lines below and to the right of it.
        """
        pitch = self.cell_px + self.border_px
        top, left = ((self._side_px(cells) - cells * pitch + self.border_px) // 2 for cells in shape)
        inner = image[top : top + shape[0] * pitch, left : left + shape[1] * pitch]
        return inner.reshape(shape[0], pitch, shape[1], pitch, 3)

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
MAZE_PALETTE = Palette(
    colors=((71, 48, 45), (255, 255, 255), (244, 96, 54), (72, 191, 132), (46, 134, 171)),
    names=("wall", "open", "end", "start", "solution"),
)


def render(grid: Grid, palette: Palette, style: RenderStyle) -> Image:
    """Draw a grid (rows, columns). ValueError when a cell's code is not in the palette."""
    if grid.min() < 0 or grid.max() >= len(palette.colors):
        raise ValueError(f"cell codes must lie in 0..{len(palette.colors) - 1}, got {grid.min()}..{grid.max()}")
    colors = np.asarray(palette.colors, dtype=np.uint8)
    image: Image = np.empty((*style.size_px(grid.shape), 3), dtype=np.uint8)
    image[:] = style.border_color
    style.cells(image, grid.shape)[:, : style.cell_px, :, : style.cell_px] = colors[grid][:, None, :, None]
    return image


def parse(
    image: npt.NDArray[np.uint8] | npt.NDArray[np.float32], palette: Palette, style: RenderStyle, shape: tuple[int, int]
) -> Grid | None:
    """Read back a grid of the given ``shape`` (rows, columns), or None when the image's size does not fit it.

    Works on any image of ``style.size_px(shape)``; a quarter of each cell on every side is left out, which forgives
    blur and shifts of that many pixels.
    """
    if image.shape != (*style.size_px(shape), 3):
        return None
    margin = style.cell_px // 4
    inner = style.cells(image, shape)[:, margin : style.cell_px - margin, :, margin : style.cell_px - margin]
    means = inner.mean(axis=(1, 3), dtype=np.float32)
    distances = ((means[:, :, None, :] - palette.array()) ** 2).sum(axis=-1)
    return frozen_grid(distances.argmin(axis=-1))


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
