"""Question and answer images -> transition video -> answer image.

A video is a uint8 RGB array of shape (num_frames, height_px, width_px, 3). The first frame is always the question and
the last one always the answer. Frames are counted f = 1..F as in arXiv 2510.24448.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from task_generators.problem import Grid, Problem
from task_generators.render import Image

Interpolation: TypeAlias = Literal["discrete", "convex", "quadratic", "square_root", "tiles", "states"]
Video: TypeAlias = npt.NDArray[np.uint8]
"""uint8 RGB, shape (num_frames, height_px, width_px, 3)."""

TILE_ORDER = np.array(((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5)))
"""When each of the 4x4 tiles switches from question to answer: the ordered-dithering matrix of Bayer (1973), which
spreads every number of switched tiles evenly over the picture. The paper does not state an order; this one is ours."""
TRANSITION_VERSION = 1
"""Raised whenever the same pictures would yield another video."""


def problem_video(
    problem: Problem,
    draw: Callable[[Grid], Image],
    num_frames: int = 9,
    interpolation: Interpolation = "discrete",
) -> Video:
    """The transition video of a problem, its grids drawn by ``draw``: see ``transition_video``.

    ``states`` goes through the states that the process itself passes (a path that grows, generations, moves), as many
    of them as there are frames for, evenly spread. A problem without states goes as ``discrete`` does.

    ValueError as ``transition_video``.
    """
    pictures = video_pictures(problem, draw, num_frames, interpolation)
    if not _passes_states(num_frames, interpolation):
        return transition_video(pictures[0], pictures[1], num_frames, interpolation)
    _check_sizes(pictures[0], pictures[-1])
    _, picture_of_frame = np.unique(_state_of_frame(problem, num_frames), return_inverse=True)
    return np.stack([pictures[place] for place in picture_of_frame.tolist()])


def video_pictures(
    problem: Problem,
    draw: Callable[[Grid], Image],
    num_frames: int = 9,
    interpolation: Interpolation = "discrete",
) -> list[Image]:
    """What ``problem_video`` makes its video of: the question's picture, those of the states it shows, the answer's.

    These pictures, ``num_frames``, ``interpolation`` and ``TRANSITION_VERSION`` decide every pixel of the video,
    and are two where it has many.
    """
    if not _passes_states(num_frames, interpolation):
        return [draw(problem.question), draw(problem.answer)]
    grids = [problem.question, *problem.states, problem.answer]
    return [draw(grids[place]) for place in np.unique(_state_of_frame(problem, num_frames)).tolist()]


def _passes_states(num_frames: int, interpolation: Interpolation) -> bool:
    return interpolation == "states" and num_frames >= 2


def _state_of_frame(problem: Problem, num_frames: int) -> npt.NDArray[np.intp]:
    """For each frame the nearest state to (f - 1) / (F - 1) of the way, the later one of two; 0 is the question."""
    last, frame = len(problem.states) + 1, np.arange(num_frames)
    return (2 * frame * last + num_frames - 1) // (2 * (num_frames - 1))


def transition_video(
    question: Image, answer: Image, num_frames: int = 9, interpolation: Interpolation = "discrete"
) -> Video:
    """Turn a question image into an answer image, both (height_px, width_px, 3), over ``num_frames`` frames.

    - ``discrete``: the question while f <= F/2, then the answer (the published experiments).
    - ``convex``: (1 - a) question + a answer with a = (f - 1) / (F - 1); ``quadratic``: a squared instead of a;
      ``square_root``: its root.
    - ``states``: as ``discrete`` here, where no states are known; see ``problem_video``.
    - ``tiles``: of the 4x4 tiles, those that come first in ``TILE_ORDER`` show the answer, floor(16 a) of them.

    ValueError when the images differ in size, or for fewer than two frames or an unknown interpolation.
    """
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation = {interpolation!r}: valid choices: {', '.join(get_args(Interpolation))}")
    if num_frames < 2:
        raise ValueError(f"num_frames = {num_frames}: a transition needs at least 2 frames")
    _check_sizes(question, answer)
    frame = np.arange(1, num_frames + 1)
    if interpolation in ("discrete", "states"):
        return np.where((frame <= num_frames / 2)[:, None, None, None], question, answer)
    if interpolation == "tiles":
        # Integer division: floor(16 (f - 1) / (F - 1)) must not depend on how a float quotient rounds.
        num_switched = 16 * (frame - 1) // (num_frames - 1)
        switch_at = TILE_ORDER[_tile_of_px(question.shape[0])[:, None], _tile_of_px(question.shape[1])]
        return np.where((switch_at < num_switched[:, None, None])[..., None], answer, question)
    weight = (frame - 1) / (num_frames - 1)
    if interpolation == "quadratic":
        weight = weight**2
    elif interpolation == "square_root":
        weight = np.sqrt(weight)
    blend = weight.astype(np.float32)[:, None, None, None]
    mixed = (1 - blend) * question.astype(np.float32) + blend * answer.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def answer_image(video: Video) -> Image:
    """The last frame of a video (num_frames, height_px, width_px, 3)."""
    if video.ndim != 4 or len(video) == 0:
        raise ValueError(
            f"a video has shape (num_frames, height_px, width_px, 3) and a frame or more, not {video.shape}"
        )
    return video[-1]


def _check_sizes(question: Image, answer: Image) -> None:
    if question.shape != answer.shape:
        raise ValueError(f"question and answer images differ in size: {question.shape[:2]} and {answer.shape[:2]} px")


def _tile_of_px(length_px: int) -> npt.NDArray[np.intp]:
    """For every px of a side, the tile (0 to 3) it lies in."""
    return np.arange(length_px) * 4 // length_px
