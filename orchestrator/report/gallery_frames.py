"""The frames of generated videos, for the examples whose videos the results folder keeps."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from orchestrator.report.gallery import Card

VideoKey: TypeAlias = tuple[str, int, int]
"""(trial_id, index, attempt)."""
MOST_FRAME_BYTES = 1_200_000
"""Of all the videos of a page, as WebP."""


@dataclass(frozen=True)
class Frames:
    """The frames of a generated video side by side."""

    uri: str
    """WebP, as a data URI."""
    num_frames: int
    height_px: int
    width_px: int
    """Of one frame."""


def frames_of(
    by_task: Mapping[str, Sequence[Card]], uris: Mapping[str, str]
) -> tuple[dict[VideoKey, Frames], list[str]]:
    """The videos that are kept of the cards, as many as ``MOST_FRAME_BYTES`` hold, every task in turn; and notes.

    ``uris`` says which results folder holds a trial. A strip that is no picture of the size its row says is left out.
    """
    keys = [cards[place].key for cards, place in _in_turn(by_task)]
    kept = _load({key[0] for key in keys}, set(keys), uris)
    frames: dict[VideoKey, Frames] = {}
    used, left_out = 0, 0
    for key in keys:
        if key not in kept:
            continue
        strip, shown = kept[key]
        if used + len(strip) > MOST_FRAME_BYTES:
            left_out += 1
            continue
        used += len(strip)
        frames[key] = shown
    notes = [f"The frames of {left_out} more examples are kept in the results but left out here."] if left_out else []
    return frames, notes


def _load(trial_ids: set[str], keys: set[VideoKey], uris: Mapping[str, str]) -> dict[VideoKey, tuple[bytes, Frames]]:
    from orchestrator import results

    found = {}
    for uri in dict.fromkeys(uris[trial_id] for trial_id in sorted(trial_ids)):
        videos = results.load_videos(uri, trial_ids={trial_id for trial_id in trial_ids if uris[trial_id] == uri})
        names = ("trial_id", "index", "attempt", "num_frames", "height_px", "width_px", "strip")
        for trial_id, index, attempt, num_frames, height_px, width_px, strip in zip(
            *(videos[name] for name in names), strict=True
        ):
            key = (str(trial_id), int(index), int(attempt))
            size_px = (int(num_frames) * int(width_px), int(height_px))
            if key in keys and _size_px(strip) == size_px:
                uri_of_strip = "data:image/webp;base64," + base64.b64encode(strip).decode()
                found[key] = (strip, Frames(uri_of_strip, int(num_frames), int(height_px), int(width_px)))
    return found


def _size_px(strip: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP picture; None where it is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(strip), formats=["WEBP"]) as image:
            image.load()
            return image.size
    except (UnidentifiedImageError, OSError):
        return None


def _in_turn(by_task: Mapping[str, Sequence[Card]]) -> Iterator[tuple[Sequence[Card], int]]:
    for place in range(max(map(len, by_task.values()), default=0)):
        yield from ((cards, place) for cards in by_task.values() if place < len(cards))
