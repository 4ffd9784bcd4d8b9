"""A video becomes one small picture whose parts are its frames."""

import io

import numpy as np
import pytest
from PIL import Image

from trainers.kept_video import LARGEST_HEIGHT_PX, LARGEST_SIDE_PX, kept_video


def flat_frames(num_frames, height, width):
    """Every frame of another grey."""
    video = np.empty((num_frames, height, width, 3), np.uint8)
    video[:] = np.linspace(0, 250, num_frames).astype(np.uint8)[:, None, None, None]
    return video


@pytest.mark.parametrize(
    ("shape", "kept_px"),
    [
        ((9, 64, 56), (64, 56)),
        ((9, 480, 832), (256, 443)),
        ((81, 256, 512), (101, 202)),  # or the strip would be wider than WebP allows
        ((2, 5000, 1), (256, 1)),
        ((3, 1, 12000), (1, 5461)),
    ],
)
def test_frames_lie_side_by_side_and_fit(shape, kept_px):
    video = flat_frames(*shape)
    kept = kept_video(video)
    assert (kept.num_frames, kept.height_px, kept.width_px) == (shape[0], *kept_px)
    strip = Image.open(io.BytesIO(kept.strip))
    assert (strip.format, strip.size) == ("WEBP", (kept.num_frames * kept.width_px, kept.height_px))
    assert kept.height_px <= LARGEST_HEIGHT_PX
    assert strip.size[0] <= LARGEST_SIDE_PX
    pixels = np.asarray(strip.convert("RGB")).astype(int)
    for place, frame in enumerate(video):
        middle = pixels[kept.height_px // 2, place * kept.width_px + kept.width_px // 2]
        assert np.abs(middle - frame[0, 0]).max() <= 12
    assert kept_video(video.copy()) == kept, "the same bytes every time"
