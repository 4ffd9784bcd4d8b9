from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from task_generators.problem import Grid, Problem, frozen_grid
from task_generators.render import Image, render
from task_generators.tasks.maze import Maze
from task_generators.transition_video import (
    Interpolation,
    answer_image,
    problem_video,
    transition_video,
    video_pictures,
)

RNG = np.random.default_rng(0)
QUESTION = RNG.integers(0, 256, (26, 19, 3)).astype(np.uint8)
ANSWER = RNG.integers(0, 256, (26, 19, 3)).astype(np.uint8)
BLACK, WHITE = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
every_interpolation = pytest.mark.parametrize("interpolation", get_args(Interpolation))


@every_interpolation
@pytest.mark.parametrize("num_frames", [2, 3, 9, 16, 49])
def test_starts_with_the_question_and_ends_with_the_answer(interpolation: Interpolation, num_frames: int) -> None:
    video = transition_video(QUESTION, ANSWER, num_frames, interpolation)
    assert video.shape == (num_frames, 26, 19, 3)
    assert video.dtype == np.uint8
    assert np.array_equal(video[0], QUESTION)
    assert np.array_equal(answer_image(video), ANSWER)


@every_interpolation
def test_brightens_steadily_from_black_to_white(interpolation: Interpolation) -> None:
    means = transition_video(BLACK, WHITE, 33, interpolation).mean(axis=(1, 2, 3))
    assert (np.diff(means) >= 0).all()


def test_discrete_is_the_default_and_switches_after_half_of_the_frames() -> None:
    for num_frames in (8, 9):
        video = transition_video(BLACK, WHITE, num_frames)
        is_answer = [bool(frame.all()) for frame in video]
        assert is_answer == [f > num_frames / 2 for f in range(1, num_frames + 1)]


@pytest.mark.parametrize(
    ("interpolation", "weight"),
    [("convex", lambda a: a), ("quadratic", lambda a: a * a), ("square_root", lambda a: a**0.5)],
)
def test_blends_follow_their_formula(interpolation: Interpolation, weight) -> None:
    video = transition_video(QUESTION, ANSWER, 9, interpolation).astype(float)
    for f in range(1, 10):
        a = weight((f - 1) / 8)
        expected = (1 - a) * QUESTION.astype(float) + a * ANSWER.astype(float)
        assert np.abs(video[f - 1] - expected).max() <= 0.51


def test_tiles_switch_whole_one_after_the_other_and_never_back() -> None:
    video = transition_video(BLACK, WHITE, 17, "tiles")
    tiles = video.reshape(17, 4, 4, 4, 4, 3)
    assert (tiles.min(axis=(2, 4, 5)) == tiles.max(axis=(2, 4, 5))).all()
    is_answer = tiles[:, :, 0, :, 0, 0] == 255
    assert is_answer.sum(axis=(1, 2)).tolist() == list(range(17))
    assert (is_answer[:-1] <= is_answer[1:]).all()
    mixed = transition_video(QUESTION, ANSWER, 9, "tiles")
    assert (np.all(mixed == QUESTION, axis=-1) | np.all(mixed == ANSWER, axis=-1)).all()


def test_refuses_what_has_no_transition() -> None:
    with pytest.raises(ValueError, match=r"differ in size: \(26, 19\) and \(16, 16\) px"):
        transition_video(QUESTION, BLACK)
    with pytest.raises(ValueError, match="num_frames = 1: a transition needs at least 2 frames"):
        transition_video(QUESTION, ANSWER, num_frames=1)
    with pytest.raises(ValueError, match="interpolation = 'cubic': valid choices: discrete, convex"):
        transition_video(QUESTION, ANSWER, interpolation="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a frame or more"):
        answer_image(np.zeros((0, 4, 4, 3), np.uint8))


def drawn(grid: Grid) -> Image:
    return np.repeat(grid.astype(np.uint8)[..., None], 3, axis=-1)


def counting(num_states: int) -> Problem:
    grids = [frozen_grid([[code]]) for code in range(num_states + 2)]
    return Problem(grids[0], grids[-1], states=grids[1:-1])


@pytest.mark.parametrize(
    ("num_states", "num_frames", "codes"),
    [
        (7, 9, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (3, 9, [0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (15, 5, [0, 4, 8, 12, 16]),
        (100, 2, [0, 101]),
        (0, 9, [0, 0, 0, 0, 1, 1, 1, 1, 1]),
        (0, 4, [0, 0, 1, 1]),
    ],
)
def test_a_video_may_go_through_real_states(num_states: int, num_frames: int, codes: list[int]) -> None:
    video = problem_video(counting(num_states), drawn, num_frames, "states")
    assert video[:, 0, 0, 0].tolist() == codes
    assert video.shape == (num_frames, 1, 1, 3)


def test_without_states_a_video_through_states_is_the_discrete_one() -> None:
    for num_frames in range(2, 12):
        videos = [problem_video(counting(0), drawn, num_frames, kind) for kind in ("states", "discrete")]
        assert np.array_equal(*videos)


def test_the_real_states_of_a_maze_grow_its_path() -> None:
    (problem,) = Maze(height=9, width=9).draw(1)
    video = problem_video(problem, lambda grid: render(grid, Maze.palette, Maze.style), 9, "states")
    marked = [(frame == Maze.palette.colors[4]).all(axis=-1).sum() for frame in video]
    assert marked == sorted(marked)
    assert len(set(marked)) > 4


@every_interpolation
@pytest.mark.parametrize("num_frames", [2, 3, 9, 49])
def test_a_video_is_made_of_its_pictures(interpolation: Interpolation, num_frames: int) -> None:
    """Problems that differ in a grid that is shown differ in a picture, and only these have another video."""
    problem = Maze(height=9, width=9).draw(1, "pictures")[0]
    maze = Maze(height=9, width=9)

    def draw(grid: Grid) -> Image:
        return render(grid, maze.palette, maze.style)

    pictures = video_pictures(problem, draw, num_frames, interpolation)
    video = problem_video(problem, draw, num_frames, interpolation)
    assert np.array_equal(pictures[0], video[0])
    assert np.array_equal(pictures[-1], video[-1])
    for place, state in enumerate(problem.states):
        states = [*problem.states[:place], frozen_grid(0 * state), *problem.states[place + 1 :]]
        other = replace(problem, states=tuple(states))
        other_pictures = video_pictures(other, draw, num_frames, interpolation)
        is_shown = not np.array_equal(problem_video(other, draw, num_frames, interpolation), video)
        assert is_shown == any(not np.array_equal(*pair) for pair in zip(pictures, other_pictures, strict=True))
