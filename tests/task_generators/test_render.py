import dataclasses

import numpy as np
import pytest

from task_generators.problem import Grid, frozen_grid
from task_generators.render import ARC_COLORS, ARC_NAMES, Palette, RenderStyle, contact_sheet, parse, render

ARC = Palette(ARC_COLORS, ARC_NAMES)
PUBLISHED = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
STYLES = [PUBLISHED, RenderStyle(16), RenderStyle(8), RenderStyle(5, 3, (255, 255, 255), 7), RenderStyle(1)]


def random_grid(shape: tuple[int, int]) -> Grid:
    return frozen_grid(np.random.default_rng(0).integers(0, len(ARC_COLORS), shape))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 9), (3, 7), (21, 2)])
def test_pictures_are_lossless(style: RenderStyle, shape: tuple[int, int]) -> None:
    grid = random_grid(shape)
    image = render(grid, ARC, style)
    assert image.dtype == np.uint8
    assert image.shape == (*style.size_px(shape), 3)
    read = parse(image, ARC, style, shape)
    assert np.array_equal(read, grid)
    assert not read.flags.writeable


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


@pytest.mark.parametrize("spoil", ["noise", "gain", "offset", "shift", "float"])
def test_reading_forgives_mild_damage(spoil: str) -> None:
    grid = random_grid((9, 9))
    image = render(grid, ARC, PUBLISHED)
    rng = np.random.default_rng(1)
    damaged = {
        "noise": np.clip(image + rng.normal(0, 40, image.shape), 0, 255).astype(np.uint8),
        "gain": (image * 0.9).astype(np.uint8),
        "offset": np.clip(image.astype(int) + 15, 0, 255).astype(np.uint8),
        "shift": np.roll(image, (5, -5), axis=(0, 1)),
        "float": image.astype(np.float32),
    }[spoil]
    assert np.array_equal(parse(damaged, ARC, PUBLISHED, grid.shape), grid)


def test_pictures_of_another_size_are_not_read() -> None:
    image = render(random_grid((9, 9)), ARC, PUBLISHED)
    for wrong in (image[1:], image[:, :-1], image[..., :2], image[0], np.zeros((0, 0, 3), np.uint8)):
        assert parse(wrong, ARC, PUBLISHED, (9, 9)) is None


def test_any_picture_of_the_right_size_gives_codes_of_the_palette() -> None:
    rng = np.random.default_rng(0)
    size_px = RenderStyle(8).size_px((4, 5))
    for image in (rng.integers(0, 256, (*size_px, 3)).astype(np.uint8), np.full((*size_px, 3), 255, np.uint8)):
        grid = parse(image, ARC, RenderStyle(8), (4, 5))
        assert 0 <= grid.min() <= grid.max() < len(ARC_COLORS)


@pytest.mark.parametrize("code", [-1, len(ARC_COLORS)])
def test_codes_outside_the_palette_are_not_drawn(code: int) -> None:
    with pytest.raises(ValueError, match=r"cell codes must lie in 0\.\.9"):
        render(frozen_grid([[0, code]]), ARC, PUBLISHED)


def test_styles_can_be_resized() -> None:
    small = dataclasses.replace(PUBLISHED, cell_px=8, border_px=0)
    assert small.size_px((9, 9)) == (80, 80)
    grid = random_grid((9, 9))
    assert np.array_equal(parse(render(grid, ARC, small), ARC, small, (9, 9)), grid)


def test_contact_sheet_shows_every_picture_whole() -> None:
    images = [np.full((height, 10, 3), 100 + index, np.uint8) for index, height in enumerate((4, 6, 5))]
    sheet = contact_sheet(images, columns=2, gap_px=3)
    assert sheet.shape == (2 * 9 + 3, 2 * 13 + 3, 3)
    for index, image in enumerate(images):
        assert (sheet == 100 + index).sum() == image.size
