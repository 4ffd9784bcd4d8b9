"""Reading a picture that heavy JPEG compression has smeared: draw a reading, compress it, compare, correct.

At quality 5, colour is kept as one value for 16 x 16 px, so that cells and lines not aligned to these blocks bleed into
their neighbours. What bleeds where follows from the reading itself.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from task_generators.render import Image

QUALITIES = (5, 10, 20)
"""From 20 on, what bleeds no longer changes a reading."""
CORRECTIONS = (1, 1, 2, 3, 4)
"""By how many times its difference a cell is corrected, round by round: what bleeds out of a cell, it lacks itself."""
COMPARABLE_ERROR = 12.0
"""Mean difference of pixels from which on a picture is not a compressed drawing with a few wrong cells."""
SAME_ERROR, SAME_CELL_ERROR = 1.0, 12.0
"""Mean difference of pixels, and of a cell in a channel, up to which two pictures are the same but for the encoder."""

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]


def read_compressed(
    image: Image,
    guesses: list[Codes],
    colors: npt.NDArray[np.float64],
    background: tuple[int, int, int],
    tops: Ints,
    lefts: Ints,
    cell_px: int,
    margin_px: int,
) -> Codes | None:
    """The codes (rows, columns) whose drawing, compressed, is this picture (height_px, width_px, 3), or None.

    Starts from ``guesses`` and corrects each by how its cells differ from the picture's. ``colors`` (K, 3); ``tops``
    and ``lefts``: first px of the cells; the mean of a cell leaves out ``margin_px`` on every side.
    """
    picture = image.astype(np.int16)
    observed = _cell_means(image, tops, lefts, cell_px, margin_px)
    for quality in QUALITIES:
        least_error = np.inf
        for guess in guesses:
            codes = guess
            for correction in CORRECTIONS:
                drawn = _compressed(_drawing(image.shape, codes, colors, background, tops, lefts, cell_px), quality)
                error = float(np.abs(drawn.astype(np.int16) - picture).mean())
                least_error = min(least_error, error)
                residual = observed - _cell_means(drawn, tops, lefts, cell_px, margin_px)
                if error < SAME_ERROR and np.abs(residual).max() < SAME_CELL_ERROR:
                    return codes
                wanted = colors[codes] + correction * residual
                better = ((wanted[:, :, None] - colors) ** 2).sum(axis=-1).argmin(axis=-1).astype(np.int8)
                if error > COMPARABLE_ERROR:
                    break
                is_wrong = np.abs(residual).max(axis=-1) >= SAME_CELL_ERROR
                codes = np.where(is_wrong, better, codes)
        if least_error > COMPARABLE_ERROR:
            return None
    return None


def _drawing(
    shape: tuple[int, ...],
    codes: Codes,
    colors: npt.NDArray[np.float64],
    background: tuple[int, int, int],
    tops: Ints,
    lefts: Ints,
    cell_px: int,
) -> Image:
    drawing: Image = np.empty(shape, dtype=np.uint8)
    drawing[:] = background
    for row, top in zip(colors[codes].astype(np.uint8), tops, strict=True):
        for color, left in zip(row, lefts, strict=True):
            drawing[max(0, top) : top + cell_px, max(0, left) : left + cell_px] = color
    return drawing


def _compressed(image: Image, quality: int) -> Image:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(PillowImage.open(file))


def _cell_means(image: Image, tops: Ints, lefts: Ints, cell_px: int, margin_px: int) -> npt.NDArray[np.float64]:
    inner = np.arange(margin_px, cell_px - margin_px)
    rows = image[tops[:, None] + inner].mean(axis=1)
    means: npt.NDArray[np.float64] = rows[:, lefts[:, None] + inner].mean(axis=2)
    return means
