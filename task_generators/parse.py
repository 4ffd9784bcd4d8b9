"""Image -> grid: the code of every cell, and how sure it is, from clean, damaged or model-made pictures.

A picture that looks as it was drawn is read at a glance: mean colour of each cell's inside, nearest palette colour.
Where that leaves a doubt, one gain and one offset a channel are fitted to all cells and border lines together, with
pixel noise and its clipping taken into account, and the cells are read through them. What heavy compression smears is
told by compressing the reading and comparing.

Read exactly, with cells of 16 px and more: Gaussian noise of sigma 60, JPEG quality 5, a gain of 0.7, an offset of -60
to 60 in each channel, blur of radius 2 px, shifts up to 3 px, one at a time and in mild combination. What no reader can
tell: a picture without border lines and of one or two colours may be explained by several offsets and palette colours.
The smallest damage wins, and the confidence says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from task_generators.cell_colors import CellPlaces, Floats, Ints, ObservedColors, as_seen, likely_tints, observed_colors
from task_generators.compression import read_compressed
from task_generators.find_drawing import drawing_within, expected_slots, found_slots, unshifted
from task_generators.problem import Grid, frozen_grid
from task_generators.render import Image, Palette, RenderStyle

UNEXPLAINED_DISTANCE = 70.0
"""RGB distance to the nearest colour from which on a cell matches nothing: as far as palette colours are apart."""
MAX_UNEXPLAINED_SHARE = 0.5
"""Where more than this share of the cells matches no colour, there is no grid."""
MAX_NOISE = 68.0
"""Standard deviation of the pixels of a cell above which a picture is noise: that of uniformly random pixels is 74."""
MIN_NOISE_PX = 8
"""Side of the inside of a cell from which on noise is told from what blurs into it."""
DOUBTFUL_CONFIDENCE = 0.9
EXPLAINED_DEVIATION = 3.0
"""Root mean square deviation of the cells up to which a tint explains them, and compression need not be thought of."""
MAX_COMPRESSED_NOISE, MIN_COMPRESSED_CELL_PX = 25.0, 8
BACKGROUND_MIN_GAIN = 2.0
"""By how much background must make a picture likelier (log-likelihood) before a part of it is taken for background."""
MAX_BACKGROUND_SHARE = 0.02
"""Of the slots inside a drawing, those that may look like background."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read from a picture.

    ``grid``: the codes (rows, columns), or None where the picture could not be read. ``confidence``: float32 of the
    same shape, 0 to 1: how likely each code is right, among the palette's codes and "none of them", and over the tints
    that explain the picture; shape (0, 0) without a grid.
    """

    grid: Grid | None
    confidence: npt.NDArray[np.float32]


UNREADABLE = Reading(None, np.zeros((0, 0), dtype=np.float32))


def parse(
    image: npt.NDArray[Any], palette: Palette, style: RenderStyle, shape: tuple[int, int] | None = None
) -> Grid | None:
    """The grid (rows, columns) of ``read_picture``, or None where the picture could not be read. Never raises."""
    return read_picture(image, palette, style, shape).grid


def read_picture(
    image: npt.NDArray[Any], palette: Palette, style: RenderStyle, shape: tuple[int, int] | None = None
) -> Reading:
    """Read one picture (height_px, width_px, 3); see ``read_pictures``. Never raises, whatever ``image`` is."""
    pixels = _as_pixels(image)
    return UNREADABLE if pixels is None else read_pictures(pixels[None], palette, style, shape)[0]


def read_pictures(
    images: npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
    palette: Palette,
    style: RenderStyle,
    shape: tuple[int, int] | None = None,
) -> list[Reading]:
    """Read N pictures (N, height_px, width_px, 3), fastest as one uint8 array, or any other sequence of pictures.

    Pixels are 0 to 255, integers or floats. With a ``shape`` (rows, columns) a picture has ``style.size_px(shape)``.
    Without, the drawing is looked for: as the style draws it, or anywhere on a larger canvas of the border's colour
    (which then must not be a colour of the palette), to which it may be aligned by its border lines or by the edges of
    its cells. Where there are neither, in a drawing of one colour without lines, it starts where the style has it.

    A picture is unreadable (no grid, no exception) when its size does not fit, when a pixel is not finite, when its
    cells hold noise alone, when more than half of them match no colour, or when it shows background alone.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        return [read_picture(image, palette, style, shape) for image in images]
    if images.ndim != 4 or images.shape[-1] != 3 or images.size == 0:
        return [UNREADABLE] * (len(images) if images.ndim else 0)
    images = np.require(images, requirements=["C", "W"])  # one memory layout, so that kernels are compiled once
    if shape is None:
        return _read_inferred(images, palette, style)
    if min(shape) < 1 or images.shape[1:3] != style.size_px(shape):
        return [UNREADABLE] * len(images)
    places = CellPlaces.as_drawn(shape, style)
    codes, confidence, is_sure = _glance(images, palette, places)
    return [
        Reading(codes[n], confidence[n]) if is_sure[n] else _read_carefully(images[n], palette, places)
        for n in range(len(images))
    ]


def _as_pixels(image: Any) -> Image | None:
    """The picture as uint8 (height_px, width_px, 3), or None where it is none, is empty or has a pixel not finite."""
    try:
        pixels = np.asarray(image)
    except Exception:  # an object may do anything when it is asked for its numbers
        return None
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.size == 0 or pixels.dtype.kind not in "uif":
        return None
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        return None
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def _glance(
    images: npt.NDArray[np.uint8], palette: Palette, places: CellPlaces
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Codes and confidence (N, rows, columns), and whether each picture needs no closer look (N,)."""
    from task_generators.pixel_means import read_at_a_glance

    codes = np.empty((len(images), *places.shape), dtype=np.int8)
    confidence = np.empty(codes.shape, dtype=np.float32)
    is_sure = np.empty(len(images), dtype=np.uint8)
    read_at_a_glance(
        images.reshape(*images.shape[:2], -1),
        places.tops + places.margin_px,
        places.lefts + places.margin_px,
        places.inner_px,
        (places.tops[:, None] - 1 - np.arange(places.style.border_px)).ravel(),
        palette.array(),
        np.array(places.style.border_color, dtype=np.float32),
        codes,
        confidence,
        is_sure,
    )
    codes.setflags(write=False)
    return codes, confidence, is_sure


def _read_carefully(image: Image, palette: Palette, places: CellPlaces) -> Reading:
    """Read a picture whose cells have known places."""
    observed = observed_colors(image, places)
    return _read_through(image, observed, *likely_tints(observed, palette, places.style), palette, places)


def _read_through(
    image: Image, observed: ObservedColors, tints: Floats, costs: Floats, palette: Palette, places: CellPlaces
) -> Reading:
    """Read cells through the likeliest of the tints (tints, 4), or, in doubt, as those of a compressed picture.

    ``places``: where the cells were drawn, if the picture was compressed and nothing else.
    """
    colors, style = palette.array().astype(np.float64), places.style
    if observed.noise > MAX_NOISE and places.inner_px >= MIN_NOISE_PX:
        return UNREADABLE
    reading = _nearest(observed.cells, as_seen(colors, tints[0]), places.shape)
    untinted = _nearest(observed.cells, colors, places.shape)
    guesses = [found.grid for found in (untinted, reading) if found.grid is not None]
    in_doubt = (
        len(guesses) < 2 or not np.array_equal(guesses[0], guesses[1]) or reading.confidence.min() < DOUBTFUL_CONFIDENCE
    )
    if reading.grid is not None and in_doubt:
        unexplained = observed.cells - as_seen(colors, tints[0])[reading.grid.ravel()]
        in_doubt = math.sqrt((unexplained**2).mean()) > EXPLAINED_DEVIATION
    if guesses and in_doubt and observed.noise < MAX_COMPRESSED_NOISE and style.cell_px >= MIN_COMPRESSED_CELL_PX:
        codes = read_compressed(
            image, guesses, colors, style.border_color, places.tops, places.lefts, style.cell_px, places.margin_px
        )
        if codes is not None:
            return Reading(frozen_grid(codes), np.ones(codes.shape, dtype=np.float32))
    if reading.grid is None:
        return UNREADABLE
    likelihoods = np.exp(costs[0] - costs)
    agreeing = likelihoods[0] * reading.confidence
    for tint, likelihood in zip(tints[1:], likelihoods[1:], strict=True):
        other = _nearest(observed.cells, as_seen(colors, tint), places.shape)
        if likelihood > 1e-3 and other.grid is not None:
            agreeing += likelihood * other.confidence * (other.grid == reading.grid)
    return Reading(reading.grid, (agreeing / likelihoods.sum()).astype(np.float32))


def _nearest(cells: Floats, seen: Floats, shape: tuple[int, int]) -> Reading:
    """The code of the nearest of the colours as ``seen`` (codes, 3) for each cell colour (cells, 3)."""
    from task_generators.pixel_means import nearest_colors

    codes = np.empty(len(cells), dtype=np.int8)
    confidence = np.empty(len(cells), dtype=np.float32)
    squared_distances = np.empty(len(cells))
    nearest_colors(cells, seen, codes, confidence, squared_distances)
    if (squared_distances > UNEXPLAINED_DISTANCE**2).mean() > MAX_UNEXPLAINED_SHARE:
        return UNREADABLE
    return Reading(frozen_grid(codes.reshape(shape)), confidence.reshape(shape))


def _read_inferred(images: npt.NDArray[np.uint8], palette: Palette, style: RenderStyle) -> list[Reading]:
    """Read pictures (N, height_px, width_px, 3) whose drawings have unknown sizes and places."""
    tops, lefts = (expected_slots(side_px, style) for side_px in images.shape[1:3])
    if tops is None or lefts is None:
        return [UNREADABLE] * len(images)
    # The background is one more colour that a place for a cell may have.
    with_background = Palette((*palette.colors, style.border_color), (*palette.names, "background"))
    codes, confidence, is_sure = _glance(images, with_background, CellPlaces(tops, lefts, style))
    is_background = codes == len(palette.colors)
    is_sure &= _is_background_beyond(images, tops, lefts, style)
    readings = []
    for n in range(len(images)):
        box: tuple[slice, slice] | None = slice(None), slice(None)
        if is_sure[n] and is_background[n].any():
            box = drawing_within(np.where(is_background[n], -1.0, 1.0))
        if is_sure[n] and box is not None and not is_background[n][box].any():
            readings.append(Reading(codes[n][box], confidence[n][box]))
        else:
            readings.append(_find_and_read(images[n], palette, style))
    return readings


def _is_background_beyond(
    images: npt.NDArray[np.uint8], tops: Ints, lefts: Ints, style: RenderStyle
) -> npt.NDArray[np.bool_]:
    """Whether what remains below and to the right of the slots, if that is more than a sliver, is background (N,)."""
    from task_generators.pixel_means import SURE_DEVIATION

    is_background = np.ones(len(images), dtype=bool)
    for strips, starts in ((images, lefts), (images.transpose(0, 2, 1, 3), tops)):
        end = int(starts[-1]) + style.cell_px + style.border_px
        if strips.shape[2] - end > style.cell_px // 5:
            rest = strips[:, :, end:].mean(axis=2)
            blocks = rest[:, : rest.shape[1] // style.cell_px * style.cell_px]
            means = blocks.reshape(len(images), -1, style.cell_px, 3).mean(axis=2)
            is_background &= (np.abs(means - np.array(style.border_color)) <= SURE_DEVIATION).all(axis=(1, 2))
    return is_background


def _find_and_read(image: Image, palette: Palette, style: RenderStyle) -> Reading:
    """Read a picture whose drawing has an unknown size and place."""
    tops, lefts = (found_slots(image, axis, style) for axis in (0, 1))
    if tops is None or lefts is None:
        return UNREADABLE
    observed = observed_colors(image, CellPlaces(tops, lefts, style))
    places = CellPlaces(unshifted(tops, image.shape[0], style), unshifted(lefts, image.shape[1], style), style)
    tints, costs = likely_tints(observed, palette, style)
    background_tints, background_costs = likely_tints(observed, palette, style, with_background=True)
    if background_costs[0] >= costs[0] - BACKGROUND_MIN_GAIN:
        return _read_through(image, observed, tints, costs, palette, places)
    seen = as_seen(np.array([*palette.colors, style.border_color], dtype=np.float64), background_tints[0])
    distances = np.minimum(((observed.cells[:, None] - seen) ** 2).sum(axis=-1), UNEXPLAINED_DISTANCE**2)
    unlike_background = (distances[:, -1] - distances[:, :-1].min(axis=1)).reshape(places.shape)
    box = drawing_within(unlike_background)
    if box is None:
        return UNREADABLE
    if (unlike_background[box] < 0).mean() > MAX_BACKGROUND_SHARE:
        return _read_through(image, observed, tints, costs, palette, places)
    cells = observed.cells.reshape(*places.shape, 3)[box].reshape(-1, 3)
    inside = ObservedColors(cells, observed.line, observed.line_error, observed.noise)
    places = CellPlaces(places.tops[box[0]], places.lefts[box[1]], style)
    return _read_through(image, inside, background_tints, background_costs, palette, places)
