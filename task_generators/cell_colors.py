"""Which colours the cells and border lines of a damaged picture have, and which gain and offsets explain them.

The model of a picture: a palette colour c becomes clip(gain * c + offset), with an offset for each channel; then come
blur, a shift of some px, pixel noise and clipping again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from task_generators.render import Image, Palette, RenderStyle

MIN_NOISE = 8.0
"""Below this standard deviation of the pixels, the clipping of noise moves no mean by more than rounding does."""
LINE_WEIGHT = 3.0
"""Of the border lines' colour in a fit; a group of like cells weighs between 1 and 5."""
GROUP_RADIUS = 16.0
"""RGB distance up to which cells count as of one colour: less than half of that between any two palette colours."""
MAX_GROUPS = 40
MODEL_ERROR, SHIFT_PX = 5.0, 2.0
"""Standard deviations: of a sum of pixels about what lines and shift say, without noise; and of a shift."""
FLUSH_FRAME_ERROR = 20.0
"""Of the colour of lines that are seen at the very edge of the picture only."""
NUM_TINTS = 6

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CellPlaces:
    """Where the cells of a drawing lie: row (``tops``) or column (``lefts``), in px, of the first pixel of each."""

    tops: Ints
    lefts: Ints
    style: RenderStyle

    @classmethod
    def as_drawn(cls, shape: tuple[int, int], style: RenderStyle) -> CellPlaces:
        """The places of the cells of a drawn grid of ``shape`` (rows, columns)."""
        pitch = style.cell_px + style.border_px
        top, left = style.first_cell_px(shape)
        return cls(top + pitch * np.arange(shape[0]), left + pitch * np.arange(shape[1]), style)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.tops), len(self.lefts)

    @property
    def margin_px(self) -> int:
        """What is left out on each side of a cell: in cells of 16 px, what a shift of 3 px reaches."""
        return self.style.cell_px // 5

    @property
    def inner_px(self) -> int:
        """Side of the square in each cell that is looked at."""
        return self.style.cell_px - 2 * self.margin_px


@dataclass(frozen=True, eq=False)
class ObservedColors:
    """Colours of the ``cells`` (cells, 3), row by row, and of the border ``line`` (3,), the clipping of noise undone.

    ``line_error``: standard error of the line's colour, infinite where there are no lines. ``noise``: standard
    deviation of the pixels.
    """

    cells: Floats
    line: Floats
    line_error: float
    noise: float


def observed_colors(image: Image, places: CellPlaces) -> ObservedColors:
    """Measure a picture (height_px, width_px, 3) at the places of its cells."""
    from task_generators.pixel_means import cell_statistics

    num_cells = len(places.tops) * len(places.lefts)
    means, deviations = np.empty((num_cells, 3)), np.empty((num_cells, 3))
    margin, inner = places.margin_px, places.inner_px
    cell_statistics(image, places.tops + margin, places.lefts + margin, inner, means, deviations)
    noise = float(np.median(deviations))
    line, line_error = _line_color(image, means, places, noise)
    return ObservedColors(without_clipping(means, noise), without_clipping(line, noise), line_error, noise)


def as_seen(colors: npt.NDArray[np.float64], tint: Floats) -> Floats:
    """Colours (K, 3) through a tint (gain, offset red, green, blue)."""
    seen: Floats = np.clip(tint[0] * colors + tint[1:], 0, 255)
    return seen


def likely_tints(
    observed: ObservedColors, palette: Palette, style: RenderStyle, with_background: bool = False
) -> tuple[Floats, Floats]:
    """The likeliest tints (gain, offset red, green, blue), shape (tints, 4), and their costs (minus log-likelihoods).

    ``with_background``: cells may also have the colour of the border. Several tints are returned because a picture of
    few colours may have several explanations, under which its cells have different codes.
    """
    from task_generators.color_fit import DEVIATION, MAX_GROUP_WEIGHT, fit_tint, group_colors

    groups, counts = np.empty((MAX_GROUPS, 3)), np.empty(MAX_GROUPS)
    num_groups = group_colors(observed.cells, GROUP_RADIUS, groups, counts)
    groups, weights = groups[:num_groups], np.minimum(np.sqrt(counts[:num_groups]), MAX_GROUP_WEIGHT)
    has_lines = math.isfinite(observed.line_error)
    if has_lines:
        groups = np.concatenate([groups, observed.line[None]])
        weights = np.append(weights, LINE_WEIGHT / (1 + (observed.line_error / DEVIATION) ** 2))
    colors = np.array([*palette.colors, style.border_color], dtype=np.float64)
    tints, costs = np.empty((NUM_TINTS, 4)), np.empty(NUM_TINTS)
    num_cell_colors = len(palette.colors) + with_background
    fit_tint(groups, weights, colors, num_cell_colors, int(has_lines), _first_guesses(), tints, costs)
    order = costs.argsort()
    return tints[order], costs[order]


@cache
def _first_guesses() -> Floats:
    """Tints (guesses, 4) that lie close enough together for a search to find the best from one of them."""
    from task_generators.color_fit import tint_cost

    gains, offsets = np.arange(1.0, 0.69, -0.06), np.arange(-60.0, 61.0, 20.0)
    mesh = np.stack(np.meshgrid(gains, offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 4)
    return np.array([guess for guess in mesh if tint_cost(guess) < 5.0])


def without_clipping(means: Floats, noise: float) -> Floats:
    """Colours whose pixels, after Gaussian noise (a standard deviation) and clipping to 0..255, have these means."""
    if noise < MIN_NOISE:
        return means
    colors: Floats = np.clip(np.interp(means, _clipped_means(round(noise)), np.arange(-40, 296)), 0, 255)
    return colors


@cache
def _clipped_means(noise: int) -> Floats:
    """Means of pixels of colour -40 ... 295 after Gaussian noise and clipping to 0..255, ascending."""

    def excess(color: float, limit: float) -> float:  # mean of max(pixel - limit, 0)
        z = (color - limit) / noise
        density, share = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), math.erfc(-z / math.sqrt(2)) / 2
        return noise * density + (color - limit) * share

    return np.array([excess(color, 0) - excess(color, 255) for color in range(-40, 296)])


def _line_color(image: Image, means: Floats, places: CellPlaces, noise: float) -> tuple[Floats, float]:
    """The mean colour (3,) of the border lines, and its standard error (infinite without lines).

    Two neighbouring cells and the line between them: what the pixels from the inside of the one to the inside of the
    other add up to does not change with blur, and changes with a shift in proportion to the difference of the cells. So
    a linear regression over all such places finds the line's colour whatever the blur and the shift are.
    """
    style, margin, inner = places.style, places.margin_px, places.inner_px
    numbers, sums, differences = [], [], []
    is_one_cell = places.shape == (1, 1)
    least_error = 0.0
    for axis in (0, 1) if style.border_px else ():
        first, across = (places.tops, places.lefts) if axis == 0 else (places.lefts, places.tops)
        # Lines run along axis 0 of these, and are crossed along axis 1.
        picture = image.transpose(1, 0, 2) if axis == 0 else image
        cells = means.reshape(*places.shape, 3)
        cells = cells.transpose(1, 0, 2) if axis == 0 else cells
        profile = picture[across[:, None] + margin + np.arange(inner)].mean(axis=1)
        running = np.concatenate([np.zeros((len(across), 1, 3)), profile.cumsum(axis=1)], axis=1)
        between = running[:, first[1:] + margin] - running[:, first[:-1] + margin + inner]
        numbers.append(np.full(between[..., 0].size, style.border_px))
        sums.append((between - margin * (cells[:, :-1] + cells[:, 1:])).reshape(-1, 3))
        difference = np.zeros((between[..., 0].size, 3, 2))
        difference[..., axis] = (cells[:, :-1] - cells[:, 1:]).reshape(-1, 3)
        differences.append(difference)
        # The frame: both outer lines together, each with as much of what lies beyond as there is on the other side. A
        # shift moves lines at the very edge out of the picture, so those are a last resort.
        outside = min(int(first[0]), picture.shape[1] - int(first[-1]) - style.cell_px, style.border_px + 4)
        if outside >= style.border_px + 3 or (outside >= style.border_px and is_one_cell):
            least_error = 0.0 if outside >= style.border_px + 3 else FLUSH_FRAME_ERROR
            before = running[:, first[0] + margin] - running[:, first[0] - outside]
            after = running[:, first[-1] + style.cell_px + outside] - running[:, first[-1] + margin + inner]
            numbers.append(np.full(len(across), 2 * outside))
            sums.append(before + after - margin * (cells[:, 0] + cells[:, -1]))
            difference = np.zeros((len(across), 3, 2))
            difference[..., axis] = cells[:, -1] - cells[:, 0]
            differences.append(difference)
    if not any(map(len, numbers)):
        return np.zeros(3), math.inf
    number = np.concatenate(numbers).astype(np.float64)
    total, difference = np.concatenate(sums), np.concatenate(differences)
    # Each sum is over two margins and a line, of means over the inner side of cells; the cells' own means add a little.
    sum_error = noise * math.sqrt((2 * margin + style.border_px) / inner + 2 * (margin / inner) ** 2)
    sum_error = math.hypot(sum_error, MODEL_ERROR)
    # Normal equations for the line's three channels and the shifts along both axes; the shifts are small beforehand.
    weak = (sum_error / 255) ** 2
    normal, right = np.diag([weak, weak, weak, *[(sum_error / SHIFT_PX) ** 2] * 2]), np.zeros(5)
    for channel in range(3):
        known = np.zeros((len(number), 5))
        known[:, channel] = number
        known[:, 3:] = difference[:, channel]
        normal += known.T @ known
        right += known.T @ total[:, channel]
    covariance = np.linalg.inv(normal)
    line: Floats = np.clip((covariance @ right)[:3], 0, 255)
    line_error = sum_error * math.sqrt(covariance.diagonal()[:3].mean())
    return line, max(least_error, line_error)
