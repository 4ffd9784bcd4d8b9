"""A video small enough to be kept beside the numbers of its trial: its frames side by side in one lossy picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from task_generators.transition_video import Video

LARGEST_HEIGHT_PX = 256
LARGEST_SIDE_PX = 16383
"""Of any WebP picture."""
WEBP_QUALITY = 80


@dataclass(frozen=True)
class KeptVideo:
    """The frames of one video from left to right in one WebP picture; one libwebp makes equal bytes of equal frames."""

    num_frames: int
    height_px: int
    """Of one frame as it is kept."""
    width_px: int
    strip: bytes
    """WebP, ``height_px`` high and ``num_frames * width_px`` wide."""


def kept_video(video_FHWC: Video) -> KeptVideo:
    """What is kept of a uint8 RGB video, (num_frames, height_px, width_px, 3).

    It is scaled down, and never up, to frames of ``LARGEST_HEIGHT_PX`` at most and a strip of ``LARGEST_SIDE_PX``.
    """
    num_frames, height, width, _ = video_FHWC.shape
    scale = min(1.0, LARGEST_HEIGHT_PX / height, LARGEST_SIDE_PX / (num_frames * width))
    height_px, width_px = max(1, int(height * scale)), max(1, int(width * scale))
    frames = [Image.fromarray(frame) for frame in np.ascontiguousarray(video_FHWC)]
    strip = Image.new("RGB", (num_frames * width_px, height_px))
    for place, frame in enumerate(frames):
        if scale < 1:  # the mean of what falls together: cells keep their colours, and borders get no halos
            frame = frame.resize((width_px, height_px), Image.Resampling.BOX)
        strip.paste(frame, (place * width_px, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return KeptVideo(num_frames, height_px, width_px, buffer.getvalue())
