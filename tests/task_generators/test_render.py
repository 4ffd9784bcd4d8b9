import dataclasses

import numpy as np
import pytest

from task_generators.problem import Grid, frozen_grid
from task_generators.render import (
    ARC_COLORS,
    ARC_NAMES,
    CHESS_COLORS,
    Palette,
    RenderStyle,
    contact_sheet,
    render,
    render_many,
)

ARC = Palette(ARC_COLORS, ARC_NAMES)
PUBLISHED = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
STYLES = [PUBLISHED, RenderStyle(16), RenderStyle(8), RenderStyle(5, 3, (255, 255, 255), 7), RenderStyle(1)]


def random_grid(shape: tuple[int, int]) -> Grid:
    return frozen_grid(np.random.default_rng(0).integers(0, len(ARC_COLORS), shape))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 9), (3, 7), (21, 2)])
def test_every_pixel_is_its_cells_colour_or_the_border(style: RenderStyle, shape: tuple[int, int]) -> None:
    grid = random_grid(shape)
    image = render(grid, ARC, style)
    assert image.dtype == np.uint8
    assert image.shape == (*style.size_px(shape), 3)
    expected = np.full(image.shape, style.border_color)
    top, left = style.first_cell_px(shape)
    for (row, column), code in np.ndenumerate(grid):
        y, x = top + row * (style.cell_px + style.border_px), left + column * (style.cell_px + style.border_px)
        expected[y : y + style.cell_px, x : x + style.cell_px] = ARC_COLORS[code]
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("style", STYLES)
def test_many_grids_are_drawn_as_one_by_one(style: RenderStyle) -> None:
    grids = np.random.default_rng(0).integers(0, 10, (4, 5, 3)).astype(np.int8)
    images = render_many(grids, ARC, style)
    assert images.dtype == np.uint8
    assert np.array_equal(images, [render(grid, ARC, style) for grid in grids])
    assert render_many(grids[:0], ARC, style).shape == (0, *style.size_px((5, 3)), 3)


@pytest.mark.parametrize("shape", [(3, 3), (2, 0, 3), (2, 3, 0)])
def test_what_is_no_batch_of_grids_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected grids of shape"):
        render_many(np.zeros(shape, dtype=np.int8), ARC, PUBLISHED)


def test_chess_colours_are_told_apart_from_each_other_and_the_border() -> None:
    colors = np.array([*CHESS_COLORS, PUBLISHED.border_color], dtype=float)
    distances = np.linalg.norm(colors[:, None] - colors, axis=-1)
    assert distances[~np.eye(len(colors), dtype=bool)].min() > 70
    assert CHESS_COLORS[:10] == ARC_COLORS
    assert len(CHESS_COLORS) == 13


@pytest.mark.parametrize(
    ("shape", "style", "size_px"),
    [
        ((9, 9), PUBLISHED, (304, 304)),
        ((4, 4), PUBLISHED, (144, 144)),
        ((5, 5), PUBLISHED, (176, 176)),
        ((8, 8), PUBLISHED, (272, 272)),
        ((21, 21), RenderStyle(16), (336, 336)),
        ((8, 16), RenderStyle(16), (128, 256)),
    ],
)
def test_published_sizes(shape: tuple[int, int], style: RenderStyle, size_px: tuple[int, int]) -> None:
    assert style.size_px(shape) == size_px


def test_cells_lines_and_margin_lie_where_the_style_says() -> None:
    style = RenderStyle(cell_px=3, border_px=2, border_color=(9, 9, 9), multiple_px=16)
    image = render(frozen_grid([[1, 2]]), ARC, style)
    # 1 x 2 cells take 7 x 12 px; the margins to 16 px are 9 and 4.
    is_border = (image == 9).all(axis=-1)
    assert is_border.shape == (16, 16)
    rows, columns = slice(4 + 2, 4 + 5), (slice(2 + 2, 2 + 5), slice(2 + 7, 2 + 10))
    for code, cells in zip((1, 2), columns, strict=True):
        assert (image[rows, cells] == ARC_COLORS[code]).all()
        is_border[rows, cells] = True
    assert is_border.all()


@pytest.mark.parametrize("code", [-1, len(ARC_COLORS)])
def test_codes_outside_the_palette_are_not_drawn(code: int) -> None:
    with pytest.raises(ValueError, match=r"cell codes must lie in 0\.\.9"):
        render(frozen_grid([[0, code]]), ARC, PUBLISHED)


def test_styles_can_be_resized() -> None:
    small = dataclasses.replace(PUBLISHED, cell_px=8, border_px=0)
    assert small.size_px((9, 9)) == (80, 80)
    assert render(random_grid((9, 9)), ARC, small).shape == (80, 80, 3)


def test_contact_sheet_shows_every_picture_whole() -> None:
    images = [np.full((height, 10, 3), 100 + index, np.uint8) for index, height in enumerate((4, 6, 5))]
    sheet = contact_sheet(images, columns=2, gap_px=3)
    assert sheet.shape == (2 * 9 + 3, 2 * 13 + 3, 3)
    for index, image in enumerate(images):
        assert (sheet == 100 + index).sum() == image.size
