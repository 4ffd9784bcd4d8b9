"""What the cells of a picture look like, compiled. Import this inside functions only (numba is slow to load).

N pictures, H and W their height and width in px; R rows and C columns of cells; K colours.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from task_generators.compiled import compiled

SURE_DEVIATION = 14.0
"""A cell whose mean is this near (in every channel) to a palette colour is read without a second look. Less than half
of the smallest distance between palette colours, and less than any damage that could turn one colour into another."""
SURE_LINE_DEVIATION = 24.0
"""The same for the mean of the border lines, which tell a picture that is tinted as a whole."""
MATCH_DEVIATION = 12.0
"""Standard deviation, per colour distance, that confidences are stated for."""
OUTLIER_DISTANCE = 45.0
"""From this RGB distance on, no palette colour explains a cell better than none."""


@compiled
def read_at_a_glance(
    images: npt.NDArray[np.uint8],
    tops: npt.NDArray[np.int64],
    lefts: npt.NDArray[np.int64],
    inner_px: int,
    lines: npt.NDArray[np.int64],
    colors: npt.NDArray[np.float32],
    line_color: npt.NDArray[np.float32],
    codes: npt.NDArray[np.int8],
    confidence: npt.NDArray[np.float32],
    is_sure: npt.NDArray[np.uint8],
) -> None:
    """Nearest colour of every cell's mean, and whether every cell and the border lines are near enough to be sure.

    ``images`` (N, H, W * 3); ``tops`` (R,) and ``lefts`` (C,): where the inner squares of ``inner_px`` px begin;
    ``lines``: pixel rows that hold nothing but ``line_color`` (3,), may be empty; ``colors`` (K, 3). Fills in ``codes``
    and ``confidence`` (N, R, C) and ``is_sure`` (N,).
    """
    num_images, _, row_values = images.shape
    num_colors = len(colors)
    column_sums = np.zeros(row_values, dtype=np.uint32)
    for n in range(num_images):
        sure = True
        for channel in range(3):
            total = 0
            for line in range(len(lines)):
                for x in range(channel, row_values, 3):
                    total += images[n, lines[line], x]
            if abs(3 * total - line_color[channel] * row_values * len(lines)) > (
                SURE_LINE_DEVIATION * row_values * len(lines)
            ):
                sure = False
        for i in range(len(tops)):
            for x in range(row_values):
                column_sums[x] = 0
            for y in range(tops[i], tops[i] + inner_px):
                for x in range(row_values):
                    column_sums[x] += images[n, y, x]
            for j in range(len(lefts)):
                red, green, blue = 0, 0, 0
                for x in range(3 * lefts[j], 3 * (lefts[j] + inner_px), 3):
                    red += column_sums[x]
                    green += column_sums[x + 1]
                    blue += column_sums[x + 2]
                area = np.float32(inner_px * inner_px)
                mean_red, mean_green, mean_blue = red / area, green / area, blue / area
                nearest, first, second = 0, 1e9, 1e9
                for k in range(num_colors):
                    dr, dg, db = mean_red - colors[k, 0], mean_green - colors[k, 1], mean_blue - colors[k, 2]
                    distance = float(dr * dr + dg * dg + db * db)
                    if distance < first:
                        nearest, first, second = k, distance, first
                    elif distance < second:
                        second = distance
                codes[n, i, j] = nearest
                confidence[n, i, j] = match_confidence(first, second)
                sure = sure and (
                    abs(mean_red - colors[nearest, 0]) <= SURE_DEVIATION
                    and abs(mean_green - colors[nearest, 1]) <= SURE_DEVIATION
                    and abs(mean_blue - colors[nearest, 2]) <= SURE_DEVIATION
                )
        is_sure[n] = sure


@compiled
def match_confidence(first: float, second: float) -> float:
    """Chance, 0 to 1, that the nearest colour is right: Gaussian deviations, or no colour of the palette at all.

    ``first`` and ``second``: squared RGB distances of the nearest and the next colour.
    """
    scale = -0.5 / (MATCH_DEVIATION * MATCH_DEVIATION)
    outlier = OUTLIER_DISTANCE * OUTLIER_DISTANCE
    return 1.0 / (1.0 + math.exp(scale * max(second - first, 0.0)) + math.exp(min(scale * (outlier - first), 80.0)))


@compiled
def cell_statistics(
    image: npt.NDArray[np.uint8],
    tops: npt.NDArray[np.int64],
    lefts: npt.NDArray[np.int64],
    inner_px: int,
    means: npt.NDArray[np.float64],
    deviations: npt.NDArray[np.float64],
) -> None:
    """Mean and noise of every cell's inner square, by channel, both filled in as (R * C, 3).

    The noise is the root mean square distance from the median on the side that has more room to 0 or 255, so that
    pixels clipped on the other side do not make it smaller.
    """
    histogram = np.zeros(256, dtype=np.int64)
    num_columns = len(lefts)
    area = inner_px * inner_px
    for i in range(len(tops)):
        for j in range(num_columns):
            for channel in range(3):
                for value in range(256):
                    histogram[value] = 0
                total = 0
                for y in range(tops[i], tops[i] + inner_px):
                    for x in range(lefts[j], lefts[j] + inner_px):
                        value = image[y, x, channel]
                        histogram[value] += 1
                        total += value
                seen, median = 0, 0
                while seen + histogram[median] < (area + 1) // 2:
                    seen += histogram[median]
                    median += 1
                step = 1 if median < 128 else -1
                squares = 0.0
                count = histogram[median]
                value = median + step
                while 0 <= value < 256:
                    squares += histogram[value] * (value - median) ** 2
                    count += histogram[value]
                    value += step
                means[i * num_columns + j, channel] = total / area
                # The median's own bin lies half on this side, half on the other where nothing is clipped.
                deviations[i * num_columns + j, channel] = math.sqrt(squares / max(1, min(count, area // 2)))


@compiled
def nearest_colors(
    observed: npt.NDArray[np.float64],
    seen: npt.NDArray[np.float64],
    codes: npt.NDArray[np.int8],
    confidence: npt.NDArray[np.float32],
    nearest: npt.NDArray[np.float64],
) -> None:
    """For each cell (cells, 3) the nearest of the colours ``seen`` (K, 3), its confidence and its squared distance."""
    for cell in range(len(observed)):
        first, second = 1e9, 1e9
        for k in range(len(seen)):
            distance = 0.0
            for channel in range(3):
                distance += (observed[cell, channel] - seen[k, channel]) ** 2
            if distance < first:
                codes[cell], first, second = k, distance, first
            elif distance < second:
                second = distance
        confidence[cell] = match_confidence(first, second)
        nearest[cell] = first
