"""Problems for people's eyes: a labelled sheet as PNG, transition videos side by side as GIF or MP4."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from task_generators.problem import Problem, Split
from task_generators.render import Image, contact_sheet, render
from task_generators.splits import draw_problems
from task_generators.task import Task, TaskSpec, task_names
from task_generators.transition_video import Interpolation, problem_video
from trainers.pictures import canvas_px, draw_on_canvas

SHEET_WIDTH_PX = 1600
"""Problems are laid out in as many columns as fit this width."""
STATES_SHOWN = 6
"""Of the states between question and answer, at most this many, evenly spread."""
CAPTION_CHARS = 48
MOST_PIXELS = 200_000_000
"""More than this in one file is no look at problems any more, and takes gigabytes."""
OVERVIEW_PX = (160, 128)
"""Width and height into which the pictures of an overview are scaled."""
GAP_PX = 28
ARROW_PX = 28
LABEL_PX = 22
HEAD_PX = 74
SWATCH_PX = 14
INK, FAINT, FRAME = (30, 30, 30), (115, 115, 115), (205, 205, 205)
FRAME_MS, LAST_FRAME_MS = 160, 1200
MP4_FRAMES_PER_S = 8


def write_sheet(spec: TaskSpec, split: Split, seed: int, n: int, with_states: bool, path: Path) -> int:
    """A PNG of the first ``n`` problems of a split, each a row from question to answer; returns how many there are.

    ValueError when the file cannot be written, or the split has no such problems.
    """
    task, problems = spec.build(split), _first_problems(spec, split, seed, n)
    _check_pixels(task, problems, 2 + STATES_SHOWN * with_states)
    cards = [_card(task, problem, f"{index}   question", with_states) for index, problem in enumerate(problems)]
    columns = max(1, min(len(cards), SHEET_WIDTH_PX // (max(card.shape[1] for card in cards) + GAP_PX)))
    cards_image = contact_sheet(cards, columns, gap_px=GAP_PX)
    subtitle = f"{split} split" + (f", seed {seed}" if split == Split.TRAIN else "") + f"   ·   {task.problem_space()}"
    head = _head(task, spec.label(), subtitle, cards_image.shape[1])
    width = max(head.width, cards_image.shape[1])
    sheet = PillowImage.new("RGB", (width, head.height + cards_image.shape[0]), "white")
    sheet.paste(head, (0, 0))
    sheet.paste(PillowImage.fromarray(cards_image), (0, head.height))
    _save(sheet, path)
    return len(problems)


def write_overview(path: Path) -> int:
    """A PNG with a problem of every task at its defaults, pictures scaled to one size; returns how many there are.

    ValueError when the file cannot be written.
    """
    cards = []
    for name in task_names():
        spec = TaskSpec(name=name)
        (problem,) = _first_problems(spec, Split.TRAIN, 0, 1)
        cards.append(_card(spec.build(), problem, name, False, OVERVIEW_PX))
    columns = max(1, SHEET_WIDTH_PX // (max(card.shape[1] for card in cards) + GAP_PX))
    _save(PillowImage.fromarray(contact_sheet(cards, columns, gap_px=GAP_PX)), path)
    return len(cards)


def write_videos(
    spec: TaskSpec, split: Split, seed: int, n: int, num_frames: int, interpolation: Interpolation, path: Path
) -> int:
    """The transition videos of the first ``n`` problems side by side, as they are trained on, in an animated GIF or an
    MP4 (by the suffix of ``path``); returns how many there are.

    ValueError when the file cannot be written, or the split has no such problems.
    """
    task, problems = spec.build(split), _first_problems(spec, split, seed, n)
    _check_pixels(task, problems, num_frames)
    videos = []
    for problem in problems:
        draw = partial(draw_on_canvas, task=task, style=task.style, canvas=canvas_px(problem, task.style))
        videos.append(problem_video(problem, draw, num_frames, interpolation))
    columns = max(1, min(len(videos), SHEET_WIDTH_PX // (max(video.shape[2] for video in videos) + GAP_PX)))
    frames = [contact_sheet([video[frame] for video in videos], columns, gap_px=GAP_PX) for frame in range(num_frames)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (_write_gif if path.suffix == ".gif" else _write_mp4)(frames, path)
    except OSError as error:
        raise ValueError(f"--out {path}: cannot be written: {error}") from None
    return len(problems)


def _first_problems(spec: TaskSpec, split: Split, seed: int, n: int) -> list[Problem]:
    task = spec.build(split)
    return draw_problems(spec, split, seed, n if task.can_generate() else min(n, len(task.given_problems(split))))


def _save(sheet: PillowImage.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--out {path}: cannot be written: {error}") from None


def _check_pixels(task: Task, problems: Sequence[Problem], pictures_each: int) -> None:
    heights, widths = zip(*(canvas_px(problem, task.style) for problem in problems), strict=True)
    if len(problems) * pictures_each * max(heights) * max(widths) > MOST_PIXELS:
        raise ValueError(f"--n {len(problems)}: the pictures are too large for so many problems or frames")


def _card(task: Task, problem: Problem, label: str, with_states: bool, fit_px: tuple[int, int] | None = None) -> Image:
    """Question, arrow, answer, with a label above and what the metadata says below: uint8 (height_px, width_px, 3).

    With ``fit_px`` the pictures are scaled into that width and height, and the metadata is left out.
    """
    states = list(problem.states) if with_states else []
    if len(states) > STATES_SHOWN:
        states = [states[place] for place in np.linspace(0, len(states) - 1, STATES_SHOWN).round().astype(int)]
    grids = [problem.question, *states, problem.answer]
    names = [label, *[""] * len(states), "answer" if fit_px is None else ""]
    pictures = [_framed(render(grid, task.palette, task.style), fit_px) for grid in grids]
    widths = [max(picture.width, 64) for picture in pictures]
    height = max(picture.height for picture in pictures)
    caption = _caption(problem) if fit_px is None else ""
    canvas = PillowImage.new(
        "RGB", (sum(widths) + ARROW_PX * (len(grids) - 1), LABEL_PX + height + (LABEL_PX if caption else 0)), "white"
    )
    draw, left = ImageDraw.Draw(canvas), 0
    for place, (name, picture, width) in enumerate(zip(names, pictures, widths, strict=True)):
        draw.text((left, 3), name, fill=FAINT if fit_px is None else INK, font=_font(13))
        canvas.paste(picture, (left, LABEL_PX))
        left += width
        if place + 1 < len(grids):
            _arrow(draw, left, LABEL_PX + height // 2)
            left += ARROW_PX
    if caption:
        draw.text((0, LABEL_PX + height + 4), caption, fill=FAINT, font=_font(12))
    return np.asarray(canvas)


def _head(task: Task, title: str, subtitle: str, width: int) -> PillowImage.Image:
    """Title, subtitle and the palette's legend, which breaks into lines that fit ``width`` px."""
    font = _font(13)
    entries = [(color, f"{code} {name}") for code, (color, name) in enumerate(zip(*_colors(task), strict=True))]
    places, left, line = [], GAP_PX, 0
    for _, text in entries:
        length = SWATCH_PX + 6 + int(font.getlength(text)) + 18
        if left > GAP_PX and left + length > max(width, 480):
            left, line = GAP_PX, line + 1
        places.append((left, HEAD_PX + line * (SWATCH_PX + 8)))
        left += length
    head_width = max(
        width, 480, int(_font(20).getlength(title)) + 2 * GAP_PX, int(font.getlength(subtitle)) + 2 * GAP_PX
    )
    head = PillowImage.new("RGB", (head_width, HEAD_PX + (line + 1) * (SWATCH_PX + 8)), "white")
    draw = ImageDraw.Draw(head)
    draw.text((GAP_PX, 14), title, fill=INK, font=_font(20))
    draw.text((GAP_PX, 44), subtitle, fill=FAINT, font=font)
    for (color, text), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + SWATCH_PX, y + SWATCH_PX), fill=color, outline=FRAME)
        draw.text((x + SWATCH_PX + 6, y - 1), text, fill=INK, font=font)
    return head


def _colors(task: Task) -> tuple[Sequence[tuple[int, int, int]], Sequence[str]]:
    return task.palette.colors, task.palette.names


def _caption(problem: Problem) -> str:
    text = "  ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in problem.metadata.items()
    )
    return text if len(text) <= CAPTION_CHARS else text[: CAPTION_CHARS - 1] + "…"


def _framed(picture: Image, fit_px: tuple[int, int] | None) -> PillowImage.Image:
    """A thin line around a picture, so that white ones have an edge."""
    image = PillowImage.fromarray(picture)
    if fit_px is not None:
        scale = min(fit_px[0] / image.width, fit_px[1] / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), PillowImage.Resampling.BOX)
    framed = PillowImage.new("RGB", (image.width + 2, image.height + 2), FRAME)
    framed.paste(image, (1, 1))
    return framed


def _arrow(draw: ImageDraw.ImageDraw, left: int, middle: int) -> None:
    tip = left + ARROW_PX - 7
    draw.line((left + 7, middle, tip, middle), fill=FAINT, width=2)
    draw.polygon([(tip + 2, middle), (tip - 6, middle - 5), (tip - 6, middle + 5)], fill=FAINT)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)


def _write_gif(frames: Sequence[Image], path: Path) -> None:
    first, *rest = [PillowImage.fromarray(frame) for frame in frames]
    durations = [FRAME_MS] * len(rest) + [LAST_FRAME_MS]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)


def _write_mp4(frames: Sequence[Image], path: Path) -> None:
    try:
        import av
    except ImportError:
        raise ValueError(
            f"--out {path}: an MP4 needs PyAV (pip install 'visual-sweep[video]'); or choose a GIF"
        ) from None
    height, width = (side + side % 2 for side in frames[0].shape[:2])  # H.264 wants even sides
    held = [*frames, *[frames[-1]] * (LAST_FRAME_MS * MP4_FRAMES_PER_S // 1000)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=MP4_FRAMES_PER_S, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in held:
            even = np.full((height, width, 3), 255, dtype=np.uint8)
            even[: frame.shape[0], : frame.shape[1]] = frame
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
