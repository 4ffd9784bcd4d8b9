import numpy as np
import pytest

from task_generators.parse import parse, read_picture, read_pictures
from task_generators.problem import Grid, frozen_grid
from task_generators.render import (
    ARC_COLORS,
    ARC_NAMES,
    CHESS_COLORS,
    MAZE_PALETTE,
    Palette,
    RenderStyle,
    render,
    render_many,
)
from tests.task_generators.picture_damage import DAMAGES, noisy, tinted

ARC = Palette(ARC_COLORS, ARC_NAMES)
CHESS = Palette(CHESS_COLORS, tuple("abcdefghijklm"))
LIFE = Palette(ARC_COLORS[:2], ARC_NAMES[:2])
ANT = Palette(((255, 255, 255), (0, 0, 0), (255, 65, 54)), ("white", "black", "ant"))
ECA = Palette(((46, 134, 171), (255, 255, 255), (0, 0, 0)), ("not yet computed", "off", "on"))
PUBLISHED = RenderStyle(cell_px=30, border_px=2, multiple_px=16)
LINED = RenderStyle(cell_px=16, border_px=2)
BARE = RenderStyle(cell_px=16)
STYLES = [PUBLISHED, LINED, BARE, RenderStyle(8), RenderStyle(5, 3, (255, 255, 255), 7), RenderStyle(1)]


def drawn(shape: tuple[int, int], shares: list[float]) -> Grid:
    return frozen_grid(np.random.default_rng(3).choice(len(shares), shape, p=shares))


def grids_of_one_colour() -> list[tuple[Palette, RenderStyle, Grid]]:
    return [(ARC, PUBLISHED, frozen_grid(np.full((2, 3), code))) for code in range(len(ARC_COLORS))]


PICTURES = {
    "chess": [(CHESS, PUBLISHED, drawn((8, 8), [0.7, *[0.025] * 12]))],
    "sudoku": [(ARC, PUBLISHED, drawn((9, 9), [0.5, *[0.5 / 9] * 9]))],
    "hitori": [(ARC, PUBLISHED, drawn((5, 5), [0.75, 0.25]))],
    "life": [(LIFE, PUBLISHED, drawn((8, 8), [0.6, 0.4])), (LIFE, PUBLISHED, frozen_grid(np.eye(8) * 0))],
    "hanoi": [(ARC, PUBLISHED, frozen_grid([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [5, 0, 4]]))],
    "connect4": [(Palette(ARC_COLORS[:3], ARC_NAMES[:3]), PUBLISHED, drawn((6, 7), [0.6, 0.2, 0.2]))],
    "maze": [(MAZE_PALETTE, BARE, drawn((13, 13), [0.5, 0.4, 0.01, 0.01, 0.08]))],
    "elementary_ca": [(ECA, BARE, drawn((8, 16), [0.8, 0.1, 0.1])), (ECA, BARE, drawn((8, 16), [0, 0.5, 0.5]))],
    "ant": [(ANT, BARE, drawn((8, 8), [0.5, 0.48, 0.02]))],
    "arc": [(ARC, RenderStyle(20, 2), drawn((3, 12), [0.1] * 10)), (ARC, LINED, drawn((10, 10), [0.9, 0, 0.1]))],
    "one colour": grids_of_one_colour(),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 9), (3, 7), (21, 2)])
@pytest.mark.parametrize("told", [True, False], ids=["given", "inferred"])
def test_pictures_are_lossless(style: RenderStyle, shape: tuple[int, int], told: bool) -> None:
    if style.multiple_px > style.cell_px + style.border_px and not told:
        pytest.skip("the size of a picture does not tell how many cells of one colour it has")
    grid = drawn(shape, [0.1] * 10)
    reading = read_picture(render(grid, ARC, style), ARC, style, shape if told else None)
    assert np.array_equal(reading.grid, grid)
    assert reading.grid.dtype == np.int8
    assert not reading.grid.flags.writeable
    assert reading.confidence.shape == shape
    assert reading.confidence.dtype == np.float32
    assert reading.confidence.min() > 0.9


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("told", [True, False], ids=["given", "inferred"])
def test_every_damage_alone_and_a_mild_combination_are_survived(name: str, damage: str, told: bool) -> None:
    for palette, style, grid in PICTURES[name]:
        spoiled = DAMAGES[damage](render(grid, palette, style))
        assert np.array_equal(parse(spoiled, palette, style, grid.shape if told else None), grid)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", PICTURES)
def test_a_drawing_is_found_on_a_larger_canvas(name: str, damage: str) -> None:
    for palette, style, grid in PICTURES[name][:2]:
        picture = render(grid, palette, style)
        height, width, _ = picture.shape
        canvas = np.full((height + 48, width + 80, 3), style.border_color, dtype=np.uint8)
        canvas[:height, :width] = picture
        assert np.array_equal(parse(DAMAGES[damage](canvas), palette, style), grid)


@pytest.mark.parametrize("name", ["sudoku", "maze", "chess", "ant"])
@pytest.mark.parametrize("place", [(5, 11), (40, 17), (64, 0)])
def test_a_drawing_is_found_anywhere(name: str, place: tuple[int, int]) -> None:
    palette, style, grid = PICTURES[name][0]
    picture = render(grid, palette, style)
    canvas = np.full((picture.shape[0] + 64, picture.shape[1] + 20, 3), style.border_color, dtype=np.uint8)
    canvas[place[0] : place[0] + picture.shape[0], place[1] : place[1] + picture.shape[1]] = picture
    for spoiled in (canvas, noisy(canvas, 30), tinted(canvas, 0.8, 0)):
        assert np.array_equal(parse(spoiled, palette, style), grid)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("corner", [False, True], ids=["in the middle", "in the middle of a corner"])
def test_a_drawing_is_found_in_the_middle_of_a_large_picture(corner: bool, damage: str) -> None:
    for shape in ((1, 1), (1, 2), (2, 1), (3, 3), (4, 8), (9, 3)):
        for cell_px, code in ((16, 0), (17, 9), (25, 1)):
            style, grid = RenderStyle(cell_px, 2, multiple_px=256), np.full(shape, code, dtype=np.int8)
            grid[0, 0] = 5
            picture = render(grid, ARC, style)
            canvas = np.full((288, 400, 3) if corner else picture.shape, style.border_color, dtype=np.uint8)
            canvas[: picture.shape[0], : picture.shape[1]] = picture
            assert np.array_equal(parse(DAMAGES[damage](canvas), ARC, style), grid), (shape, cell_px, code)


def test_small_cells_survive_mild_noise() -> None:
    grid, style = drawn((30, 30), [0.1] * 10), RenderStyle(8)
    assert np.array_equal(parse(noisy(render(grid, ARC, style), 20), ARC, style, grid.shape), grid)


def test_floats_and_integers_are_read_as_bytes_are() -> None:
    grid = drawn((4, 4), [0.1] * 10)
    image = render(grid, ARC, PUBLISHED)
    for pixels in (image.astype(np.float32) + 0.4, image.astype(np.float64), image.astype(np.int64)):
        assert np.array_equal(parse(pixels, ARC, PUBLISHED, (4, 4)), grid)


def test_many_pictures_are_read_as_one_by_one() -> None:
    grids = np.random.default_rng(0).integers(0, 10, (5, 4, 4)).astype(np.int8)
    images = render_many(grids, ARC, PUBLISHED)
    images[1] = tinted(images[1], 1, 50)
    images[3] = 85
    for shape in ((4, 4), None):
        together = read_pictures(images, ARC, PUBLISHED, shape)
        for reading, image in zip(together, images, strict=True):
            alone = read_picture(image, ARC, PUBLISHED, shape)
            assert np.array_equal(reading.grid, alone.grid) or reading.grid is alone.grid is None
            assert np.array_equal(reading.confidence, alone.confidence)
        assert [reading.grid is not None for reading in together][:3] == [True, True, True]
        of_a_list = read_pictures([image[:, ::-1] for image in images], ARC, PUBLISHED, shape)
        assert np.array_equal(of_a_list[0].grid, grids[0][:, ::-1])


def test_smeared_cells_are_read_as_their_nearest_colour_and_doubted() -> None:
    grid = drawn((6, 6), [0.5, 0.5])
    image = render(grid, LIFE, BARE)
    image[16:32, 32:48] = np.array(ARC_COLORS[1]) * 0.55
    reading = read_picture(image, LIFE, BARE, (6, 6))
    others = np.ones((6, 6), dtype=bool)
    others[1, 2] = False
    assert np.array_equal(reading.grid[others], grid[others])
    assert reading.grid[1, 2] == 1
    assert reading.confidence[1, 2] < 0.6 < reading.confidence[others].min()


def test_what_has_two_explanations_is_doubted() -> None:
    bare_and_one_coloured = np.full((64, 64, 3), (255, 97, 40), dtype=np.uint8)  # between red and orange
    assert read_picture(bare_and_one_coloured, ARC, BARE, (4, 4)).confidence.max() < 0.8


def test_pictures_of_another_size_are_not_read() -> None:
    image = render(drawn((9, 9), [0.1] * 10), ARC, PUBLISHED)
    for wrong in (image[1:], image[:, :-1], image[..., :2], image[0], np.zeros((0, 0, 3), np.uint8)):
        assert parse(wrong, ARC, PUBLISHED, (9, 9)) is None
    assert parse(image[:20, :20], ARC, PUBLISHED) is None  # not even one cell
    assert parse(image, ARC, PUBLISHED, (0, 9)) is None


def test_background_alone_and_noise_alone_are_no_grids() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (144, 144, 3)).astype(np.uint8)
    background = np.full((144, 144, 3), 85, dtype=np.uint8)
    for shape in ((4, 4), None):
        assert parse(noise, ARC, PUBLISHED, shape) is None
    assert parse(background, ARC, PUBLISHED) is None


@pytest.mark.parametrize("garbage", [None, "text", 5, [], [[1, 2]], {}, object(), np.array("text"), np.zeros(3)])
def test_what_is_no_picture_is_not_read(garbage: object) -> None:
    for shape in ((4, 4), None):
        reading = read_picture(garbage, ARC, PUBLISHED, shape)
        assert reading.grid is None
        assert reading.confidence.shape == (0, 0)


def test_any_picture_gives_codes_of_the_palette_or_nothing() -> None:
    rng = np.random.default_rng(0)
    num_read = 0
    for _ in range(150):
        style, palette = STYLES[rng.integers(len(STYLES))], (ARC, ANT, MAZE_PALETTE)[rng.integers(3)]
        shape = tuple(rng.integers(1, 7, 2))
        height, width = style.size_px(shape) if rng.random() < 0.7 else rng.integers(1, 120, 2)
        ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
        image = (
            rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
            np.full((height, width, 3), rng.integers(0, 256, 3)).astype(np.uint8),
            np.full((height, width, 3), [np.nan, np.inf, -np.inf][rng.integers(3)]),
            rng.normal(100, 500, (height, width, 3)),
            ramp.astype(np.float32),
            ramp[:, :, [2, 1, 0]].astype(np.uint8)[::-1],
        )[rng.integers(6)]
        for told in (shape, None):
            reading = read_picture(image, palette, style, told)
            if reading.grid is None:
                assert reading.confidence.shape == (0, 0)
                continue
            num_read += 1
            assert np.isfinite(image).all()
            assert reading.grid.shape == reading.confidence.shape
            assert told is None or reading.grid.shape == told
            assert 0 <= reading.grid.min() <= reading.grid.max() < len(palette.colors)
            assert 0 <= reading.confidence.min() <= reading.confidence.max() <= 1
    assert num_read > 10
