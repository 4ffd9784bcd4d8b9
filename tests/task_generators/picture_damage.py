"""What may happen to a picture on its way through a video model, a codec or a camera."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageFilter

from task_generators.render import Image


def noisy(image: Image, sigma: float) -> Image:
    noise = np.random.default_rng(1).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def compressed(image: Image, quality: int) -> Image:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(PillowImage.open(file))


def tinted(image: Image, gain: float, *offset: float) -> Image:
    return np.clip(np.rint(image * gain + np.array(offset)), 0, 255).astype(np.uint8)


def blurred(image: Image, radius_px: float) -> Image:
    return np.asarray(PillowImage.fromarray(image).filter(ImageFilter.GaussianBlur(radius_px)))


def shifted(image: Image, down_px: int, right_px: int, fill: tuple[int, int, int] | None = None) -> Image:
    """Moves the picture; what comes in repeats the edge, or has the colour ``fill``."""
    height, width, _ = image.shape
    wide = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    if fill is not None:
        wide[:] = fill
        wide[3:-3, 3:-3] = image
    return wide[3 - down_px : 3 - down_px + height, 3 - right_px : 3 - right_px + width]


def mildly_spoiled(image: Image) -> Image:
    spoiled = shifted(tinted(image, 0.85, 20, -20, 10), 1, -1)
    return compressed(noisy(blurred(spoiled, 1), 20), 30)


DAMAGES: dict[str, Callable[[Image], Image]] = {
    "noise": lambda image: noisy(image, 60),
    "JPEG": lambda image: compressed(image, 5),
    "gain": lambda image: tinted(image, 0.7, 0),
    "brighter": lambda image: tinted(image, 1, 60),
    "darker": lambda image: tinted(image, 1, -60),
    "red": lambda image: tinted(image, 1, 60, -60, -60),
    "cold": lambda image: tinted(image, 1, -60, 0, 60),
    "blur": lambda image: blurred(image, 2),
    "shift": lambda image: shifted(image, 3, -3),
    "shift up": lambda image: shifted(image, -3, 3, (85, 85, 85)),
    "mild combination": mildly_spoiled,
}
