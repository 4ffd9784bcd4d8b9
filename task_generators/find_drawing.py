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
NOISE_FACTOR = 4.0
"""Steps inside cells count by what they exceed this multiple of their median, as few of those that noise makes do."""
SAME_STEPS = 1.05
"""Cells lie where those of a drawing as large as the picture do, unless steps are this much smaller elsewhere."""
CLEAR_SHARE = 0.6
"""A place that the style itself would choose is preferred to one with at most this much clearer edges."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


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
    strips = _strip_means(image if axis == 0 else image.transpose(1, 0, 2))
    phases = _likely_phases(strips, expected, style)
    clearness = _edges_by_phase(strips, style)
    is_expected = phases[0] == expected[0] % pitch
    fills_the_side = is_expected and style.size_px((len(expected), len(expected)))[0] == side_px
    if clearness.max() < MIN_CLEARNESS * (FILLED_FACTOR if fills_the_side else 1):
        return expected if is_expected else _slots_from(int(phases[0]), side_px, style)
    shifts = np.array(sorted(range(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1), key=abs))
    near = clearness[(phases[:, None] + shifts) % pitch]
    likely = 0 if near[0].max() >= CLEAR_SHARE * near.max() else int(near.max(axis=1).argmax())
    phase = int(phases[likely] + shifts[near[likely].argmax()]) % pitch
    if near[likely].max() < CLEAR_SHARE * clearness.max():
        phase = int(clearness.argmax())
    slots = _slots_from(phase, side_px, style)
    return slots if len(slots) else expected


def _strip_means(picture: Image) -> Floats:
    """Means (height_px, strips, 3) of strips of ``STRIP_PX`` px of the rows of a picture (height_px, width_px, 3)."""
    height, width, _ = picture.shape
    strip_px = min(STRIP_PX, width)
    # As a product of matrices: numpy's own mean over an axis this short takes five times as long.
    strips = picture[:, : width // strip_px * strip_px].astype(np.float32, order="C").reshape(-1, strip_px * 3)
    means: Floats = strips @ np.tile(np.eye(3, dtype=np.float32) / strip_px, (strip_px, 1))
    return means.reshape(height, -1, 3)


def _likely_phases(strips: Floats, expected: Ints, style: RenderStyle) -> Ints:
    """Where, modulo the pitch, the style may have put the first cell of the drawing in this picture.

    First comes, if it is likely, where a drawing as large as the picture begins, with its cells as ``expected``.
    Smaller ones that the style centres on a canvas begin elsewhere, every other one half a pitch away. Of places that
    far apart, those are left that make the least steps inside cells. ``strips`` (height_px, strips, 3).
    """
    pitch = style.cell_px + style.border_px
    smaller = range(1, min(len(expected), style.multiple_px) + 1)
    fitting = [(cells, cells) for cells in smaller if style.size_px((cells, cells))[0] <= len(strips)]
    firsts = [int(expected[0]), *(style.first_cell_px(shape)[0] for shape in fitting)]
    phases = np.array(list(dict.fromkeys(first % pitch for first in firsts)))
    if len(phases) == 1:
        return phases
    steps = _steps_inside_cells(strips, phases, style)
    best = 0 if steps[0] <= SAME_STEPS * steps.min() else int(steps.argmin())
    from_best = (phases - phases[best] + pitch // 2) % pitch - pitch // 2
    return phases[np.abs(from_best) <= min(2 * MAX_SHIFT_PX, pitch // 2 - 1)]


def _slots_from(phase: int, side_px: int, style: RenderStyle) -> Ints:
    """First px of every place for a cell, where one of them is ``phase`` modulo the pitch."""
    pitch = style.cell_px + style.border_px
    overhang_px = style.cell_px // 5
    first = phase - pitch if phase - pitch >= -overhang_px else phase
    slots: Ints = np.arange(first, side_px - style.cell_px + overhang_px + 1, pitch)
    return slots


def unshifted(slots: Ints, side_px: int, style: RenderStyle) -> Ints:
    """The ``slots`` found along a side where the style would have them, if that is no more than a shift away."""
    expected = expected_slots(side_px, style)
    assert expected is not None, "slots were found, so there is room for them"
    pitch = style.cell_px + style.border_px
    moved_px = (int(slots[0] - expected[0]) + pitch // 2) % pitch - pitch // 2
    return slots - moved_px if abs(moved_px) <= MAX_SHIFT_PX else slots


def _edges_by_phase(strips: Floats, style: RenderStyle) -> npt.NDArray[np.float64]:
    """How clear the edges between rows are if the first px of a cell, modulo the pitch, is 0, 1, ... pitch - 1.

    In squared steps of colour, on average over all places where there should be an edge. ``strips`` (height_px, strips,
    3): means of parts of rows.
    """
    pitch = style.cell_px + style.border_px
    height, num_strips, _ = strips.shape
    steps = np.zeros(-(-height // pitch) * pitch)
    steps[1:height] = ((strips[1:] - strips[:-1]) ** 2).sum(axis=(1, 2))
    folded = steps.reshape(-1, pitch).sum(axis=0)
    # Squares of noise, summed over so many strips and channels, scatter this much about their mean.
    scatter = (2 / (height / pitch * num_strips * 3)) ** 0.5
    folded = np.maximum(folded - (1 + NUM_DEVIATIONS * scatter) * np.median(folded), 0)
    # A cell's first px is a step, and so is that of the border line before it; blur spreads them.
    clearness = np.zeros(pitch)
    for step_px in {0, -style.border_px}:
        for blur_px, weight in ((0, 1.0), (-1, 0.5), (1, 0.5), (-2, 0.25), (2, 0.25)):
            clearness += weight * np.roll(folded, -step_px - blur_px)
    return clearness * pitch / (height * num_strips)


def _steps_inside_cells(strips: Floats, phases: Ints, style: RenderStyle) -> npt.NDArray[np.float64]:
    """How much colours change inside cells if cells begin at the rows ``phases`` modulo the pitch, for each of these.

    From the one half of a cell to the other (an edge lies between them) and from its middle to the rest (a border line
    lies there), in squared steps of colour, summed over ``strips`` (height_px, strips, 3) and averaged over all places
    for a cell. The right phase has the least: any other has edges in the middle of cells, those of the whole drawing if
    no others. Blur flattens lines and edges but not this, which needs no sharp ones.
    """
    pitch, margin_px = style.cell_px + style.border_px, style.cell_px // 5
    half_px = (style.cell_px - 2 * margin_px) // 2
    quarter_px = half_px // 2
    if quarter_px < 1:
        return np.zeros(len(phases))
    height, num_strips, _ = strips.shape
    running = np.zeros((height + 1, num_strips, 3))
    strips.cumsum(axis=0, out=running[1:])
    steps = []
    for phase in phases:
        starts = np.arange(phase - pitch, height, pitch) + margin_px
        starts = starts[(starts >= 0) & (starts + 2 * half_px <= height)]
        upper = running[starts + half_px] - running[starts]
        lower = running[starts + 2 * half_px] - running[starts + half_px]
        middle = running[starts + half_px + quarter_px] - running[starts + half_px - quarter_px]
        middle = middle / (2 * quarter_px) - (upper + lower - middle) / (2 * (half_px - quarter_px))
        halves = (upper - lower) / half_px
        steps.append((halves**2 + middle**2).sum(axis=2))
    noise = min((float(np.median(each)) for each in steps if len(each)), default=0.0)
    return np.array([np.maximum(each - NOISE_FACTOR * noise, 0).sum() / max(1, len(each)) for each in steps])


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
