"""Where in a picture the cells of a drawing may lie, found from its border lines or from the edges of its cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from task_generators.render import Image, RenderStyle

MAX_SHIFT_PX = 3
STRIP_PX = 8
"""Pixel rows are compared by means over strips this long: shorter than any cell that is read through heavy noise."""
MIN_CLEARNESS = 150.0
"""Weaker edges are those of compression; one cell in a hundred with a colour of its own makes stronger ones."""
FILLED_FACTOR = 5.0
"""How much clearer edges must be to move a drawing that would fill the picture where the style has it."""
NUM_DEVIATIONS = 5.0
CLEAR_SHARE = 0.6
"""A place that the style itself would choose is preferred to one with at most this much clearer edges."""

Ints = npt.NDArray[np.int64]


def expected_slots(side_px: int, style: RenderStyle) -> Ints | None:
    """First px of every cell along a side of ``side_px``, as the style draws them.

    Where a number of cells makes exactly this side, these cells; else as many as fit from the top left, as on a canvas
    larger than the drawing. None where not even one cell fits.
    """
    pitch = style.cell_px + style.border_px
    most = (side_px - style.border_px) // pitch
    if most < 1:
        return None
    for cells in range(most, max(0, most - style.multiple_px), -1):
        if style.size_px((cells, cells))[0] == side_px:
            return style.first_cell_px((cells, cells))[0] + pitch * np.arange(cells)
    return style.border_px + pitch * np.arange(most)


def found_slots(image: Image, axis: int, style: RenderStyle) -> Ints | None:
    """First px of every place for a cell along ``axis`` (0: rows, 1: columns), aligned to the edges in the picture.

    As many places as fit, at most a fifth of a cell beyond the picture: those outside the drawing hold background.
    """
    side_px, pitch = image.shape[axis], style.cell_px + style.border_px
    expected = expected_slots(side_px, style)
    if expected is None:
        return None
    clearness = _edges_by_phase(image if axis == 0 else image.transpose(1, 0, 2), style)
    fills_the_side = style.size_px((len(expected), len(expected)))[0] == side_px
    if clearness.max() < MIN_CLEARNESS * (FILLED_FACTOR if fills_the_side else 1):
        return expected
    # Where the style puts the first cell, also in a drawing with a margin of its own on a canvas.
    smaller = range(1, min(len(expected), style.multiple_px) + 1)
    phases = np.array([expected[0], *(style.first_cell_px((cells, cells))[0] for cells in smaller)])
    shifts = np.array(sorted(range(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1), key=abs))
    near = clearness[(phases[:, None] + shifts) % pitch]
    likely = 0 if near[0].max() >= CLEAR_SHARE * near.max() else int(near.max(axis=1).argmax())
    phase = int(phases[likely] + shifts[near[likely].argmax()]) % pitch
    if near[likely].max() < CLEAR_SHARE * clearness.max():
        phase = int(clearness.argmax())
    overhang_px = style.cell_px // 5
    first = phase - pitch if phase - pitch >= -overhang_px else phase
    slots: Ints = np.arange(first, side_px - style.cell_px + overhang_px + 1, pitch)
    return slots if len(slots) else expected


def unshifted(slots: Ints, side_px: int, style: RenderStyle) -> Ints:
    """The ``slots`` found along a side where the style would have them, if that is no more than a shift away."""
    expected = expected_slots(side_px, style)
    assert expected is not None, "slots were found, so there is room for them"
    pitch = style.cell_px + style.border_px
    moved_px = (int(slots[0] - expected[0]) + pitch // 2) % pitch - pitch // 2
    return slots - moved_px if abs(moved_px) <= MAX_SHIFT_PX else slots


def _edges_by_phase(picture: Image, style: RenderStyle) -> npt.NDArray[np.float64]:
    """How clear the edges between rows are if the first px of a cell, modulo the pitch, is 0, 1, ... pitch - 1.

    In squared steps of colour, on average over all places where there should be an edge.
    """
    pitch = style.cell_px + style.border_px
    height, width, _ = picture.shape
    strip_px = min(STRIP_PX, width)
    strips = picture[:, : width // strip_px * strip_px].reshape(height, width // strip_px, strip_px, 3)
    means = strips.mean(axis=2, dtype=np.float32)
    steps = np.zeros(-(-height // pitch) * pitch)
    steps[1:height] = ((means[1:] - means[:-1]) ** 2).sum(axis=(1, 2))
    folded = steps.reshape(-1, pitch).sum(axis=0)
    # Squares of noise, summed over so many strips and channels, scatter this much about their mean.
    scatter = (2 / (height / pitch * means.shape[1] * 3)) ** 0.5
    folded = np.maximum(folded - (1 + NUM_DEVIATIONS * scatter) * np.median(folded), 0)
    # A cell's first px is a step, and so is that of the border line before it; blur spreads them.
    clearness = np.zeros(pitch)
    for step_px in {0, -style.border_px}:
        for blur_px, weight in ((0, 1.0), (-1, 0.5), (1, 0.5), (-2, 0.25), (2, 0.25)):
            clearness += weight * np.roll(folded, -step_px - blur_px)
    return clearness * pitch / (height * means.shape[1])


def drawing_within(unlike_background: npt.NDArray[np.float64]) -> tuple[slice, slice] | None:
    """The rectangle of slots with the largest sum, or None where no slot is above 0: all is background."""
    num_rows, num_columns = unlike_background.shape
    best, box = 0.0, None
    above = np.zeros((num_rows + 1, num_columns + 1))  # sums of all slots above and to the left
    above[1:, 1:] = unlike_background.cumsum(axis=0).cumsum(axis=1)
    for top in range(num_rows):
        band = above[top + 1 :] - above[top]
        lowest = np.minimum.accumulate(band, axis=1)
        sums = band[:, 1:] - lowest[:, :-1]
        if sums.max() > best:
            best = float(sums.max())
            bottom, right = np.unravel_index(sums.argmax(), sums.shape)
            left = int(band[bottom, : right + 1].argmin())
            box = slice(top, top + int(bottom) + 1), slice(left, int(right) + 1)
    return box
