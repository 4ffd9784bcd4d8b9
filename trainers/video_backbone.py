"""What the families of video diffusion models share: pictures in, latents kept, the last frame read as the answer.

A family brings its encoder, loss and sampler; the way from a problem to pixels and back is the same for all.

Shapes: B batch, F frames, H and W height and width in px; pictures and videos are uint8 with channels last. Latents
have the family's own layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from task_generators.problem import Grid, Problem
from task_generators.render import RenderStyle
from task_generators.task import Task
from task_generators.transition_video import TRANSITION_VERSION, Video, problem_video, video_pictures
from trainers import lora
from trainers.backbone import BackboneSpec
from trainers.latent_store import LatentStore
from trainers.pictures import canvas_px, draw_on_canvas, picture_style, read_from_canvas
from trainers.recipe import TrainRecipe
from trainers.rng import torch_generator

if TYPE_CHECKING:
    import torch

    from trainers.backbone import Batch

PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**22}
"""Pixels, over all frames, that pass through a VAE at once. CPU: seven tiny videos, measured: twice as fast as 32 at
once (cache), and six times as fast as one by one (small convolutions miss the fast kernels). GPU: four videos of 9
frames of 336 x 336."""


class VideoBackbone:
    """A loaded, frozen video model; see ``trainers.backbone.Backbone`` for what each public method promises.

    A family sets ``temporal_ratio`` and implements the methods that raise NotImplementedError here, plus ``loss`` and
    ``save_adapter``.
    """

    temporal_ratio: int
    """Frames a latent frame of the family's VAE; a video has 1 + a multiple of it."""
    samplers: tuple[str, ...] = ("own",)
    """Values of ``recipe.sampler`` that the family has."""

    def __init__(self, spec: BackboneSpec, module: torch.nn.Module, encoders: Sequence[torch.nn.Module], device: str):
        """``module`` gets the LoRA weights; ``encoders`` (VAE, image encoder) decide what a picture's latents are."""
        self.spec = spec
        self.module = module
        self.latent_store = LatentStore()
        self._encoders = encoders
        self._device = device

    # --- what a family brings

    @property
    def canvas_multiple_px(self) -> int:
        """Height and width of every picture are multiples of this: spatial ratio of the VAE times the patch size."""
        raise NotImplementedError

    def _video_latents(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        """Latents of whole videos, first dimension B, normalised as the transformer sees them.

        No random draw: the posterior's mode stands for the picture. float32, on any device.
        """
        raise NotImplementedError

    def _encode_questions(self, pictures_BHWC: np.ndarray, num_frames: int) -> Batch:
        """The condition of a video whose first frame is the picture: tensors, first dimension B."""
        raise NotImplementedError

    def _noise_shape(self, num_frames: int, canvas: tuple[int, int]) -> tuple[int, ...]:
        """Shape of one video's noise: its latents, and padding frames where the family has them."""
        raise NotImplementedError

    def _draw_timesteps(self, size: int, recipe: TrainRecipe, generator: torch.Generator) -> torch.Tensor:
        """Noise levels of ``size`` training examples, (B,), as the family's published training draws them."""
        raise NotImplementedError

    def _sample(
        self, condition: Batch, noise: torch.Tensor, recipe: TrainRecipe, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Denoise ``noise`` (B, ...) like the stock pipeline; ``generators`` (one a video): for samplers that draw."""
        raise NotImplementedError

    def _decodable(self, latents: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Latents as the transformer sees them, as the decoder takes them, and as ``_sample`` returns them.

        ``generators`` (one a video): for decoders that take noisy latents.
        """
        return latents

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """All frames (B, 3, F, H, W), about -1 .. 1, of what ``_decodable`` returns, as the stock pipeline decodes."""
        raise NotImplementedError

    # --- training

    def _encode_videos(self, videos_BFHWC: np.ndarray) -> Batch:
        """Tensors, first dimension B: ``video_latents`` and the condition; float32, on any device."""
        condition = self._encode_questions(videos_BFHWC[:, 0], videos_BFHWC.shape[1])
        return {"video_latents": self._video_latents(videos_BFHWC), **condition}

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Batch]:
        """Latents and condition of each transition video, float32 on the CPU; each video is encoded once for ever.

        All problems of a call share one canvas, so that they stack.
        """
        check_video_recipe(self.spec, recipe, type(self))
        styles = [picture_style(task, recipe, problem) for problem in problems]
        sizes = [
            canvas_px(problem, style, self.canvas_multiple_px) for problem, style in zip(problems, styles, strict=True)
        ]
        canvas = (max(height for height, _ in sizes), max(width for _, width in sizes)) if sizes else (0, 0)

        def of_problem(make: Callable[..., Any], index: int) -> Any:
            draw = partial(draw_on_canvas, task=task, style=styles[index], canvas=canvas)
            return make(problems[index], draw, recipe.num_frames, recipe.transition)

        video = partial(of_problem, problem_video)
        kind = f"video {TRANSITION_VERSION} {recipe.num_frames} {recipe.transition}"
        keys = [self._latent_key(kind, *of_problem(video_pictures, index)) for index in range(len(problems))]
        pixels = recipe.num_frames * canvas[0] * canvas[1]
        return self.latent_store.fetch(
            keys,
            lambda positions: self._encoded(
                self._encode_videos, (video(index) for index in positions), len(positions), pixels
            ),
            self._at_once(pixels),
        )

    def collate(self, examples: Sequence[Batch], recipe: TrainRecipe, generator: torch.Generator) -> Batch:
        """Stack examples; draw ``timesteps`` (B,) and ``noise`` (B, ...) on the CPU."""
        import torch

        batch = {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        size = len(examples)
        latent_shape = batch["video_latents"].shape[1:]
        batch |= self._draw_noise_levels(latent_shape, size, recipe, generator)
        shape = self._noise_shape_of(latent_shape)
        batch["noise"] = torch.randn(size, *shape, generator=generator)
        return batch

    def _draw_noise_levels(
        self, video_latent_shape: Sequence[int], size: int, recipe: TrainRecipe, generator: torch.Generator
    ) -> Batch:
        """``timesteps`` (B,), and what else says how noisy an example is, where timesteps alone do not."""
        return {"timesteps": self._draw_timesteps_of(video_latent_shape, size, recipe, generator)}

    def _draw_timesteps_of(
        self, video_latent_shape: Sequence[int], size: int, recipe: TrainRecipe, generator: torch.Generator
    ) -> torch.Tensor:
        """``_draw_timesteps`` for families whose noise levels depend on the size of a video."""
        return self._draw_timesteps(size, recipe, generator)

    def _noise_shape_of(self, video_latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the noise that goes with video latents of that shape."""
        return tuple(video_latent_shape)

    # --- answering

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """Sample a video from each question's picture and read its last frame."""
        return self.answer_with_videos(task, problems, recipe, attempt, ())[0]

    def answer_with_videos(
        self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int, kept: Collection[int]
    ) -> tuple[list[Grid | None], dict[int, Video]]:
        """The very answers of ``answer``, and by its place the whole video behind each problem at a place of ``kept``.

        A video is uint8 (F, H, W, 3). Keeping it costs no more than its pixels: decoders make all frames in any case.
        """
        check_video_recipe(self.spec, recipe, type(self))
        styles = [picture_style(task, recipe, problem) for problem in problems]
        grids: list[Grid | None] = [None] * len(problems)
        videos: dict[int, Video] = {}
        for canvas, indices in self._by_canvas(problems, styles).items():
            questions = np.stack([draw_on_canvas(problems[i].question, task, styles[i], canvas) for i in indices])
            keys = [(problems[i].problem_id, attempt) for i in indices]
            whole = [place for place, index in enumerate(indices) if index in kept]
            for index, video in zip(indices, self._videos(questions, keys, recipe, whole), strict=True):
                grids[index] = read_from_canvas(video[-1], task, styles[index], problems[index].answer.shape, recipe)
                if index in kept:
                    videos[index] = video
        return grids, videos

    def last_frames(
        self, questions_BHWC: np.ndarray, keys: Sequence[tuple[str, int]], recipe: TrainRecipe
    ) -> Iterator[np.ndarray]:
        """The last frame (H, W, 3) of the video sampled for each picture; noise keyed by (problem_id, attempt)."""
        return (video[-1] for video in self._videos(questions_BHWC, keys, recipe))

    def _videos(
        self,
        questions_BHWC: np.ndarray,
        keys: Sequence[tuple[str, int]],
        recipe: TrainRecipe,
        whole: Collection[int] = (),
    ) -> Iterator[Video]:
        """As ``last_frames``: of the pictures at the places ``whole`` all frames, of others the last one of them."""
        import torch

        canvas = (questions_BHWC.shape[1], questions_BHWC.shape[2])
        pixels = recipe.num_frames * canvas[0] * canvas[1]
        encode = partial(self._encode_questions, num_frames=recipe.num_frames)
        encoded = self.latent_store.fetch(
            [self._latent_key(f"question {recipe.num_frames}", picture) for picture in questions_BHWC],
            lambda positions: self._encoded(encode, (questions_BHWC[i] for i in positions), len(positions), pixels),
            self._at_once(pixels),
        )
        condition = {name: torch.stack([one[name] for one in encoded]).to(self._device) for name in encoded[0]}
        generators = [torch_generator("noise", problem_id, attempt) for problem_id, attempt in keys]
        shape = self._noise_shape(recipe.num_frames, canvas)
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(self._device)
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                latents = self._sample(condition, noise, recipe, generators)
        finally:
            self.module.train(was_training)
        return self._decoded_videos(latents, pixels, whole)

    def _decoded_videos(self, latents: torch.Tensor, pixels_each: int, whole: Collection[int] = ()) -> Iterator[Video]:
        """The frames of what ``_decodable`` returns, a few videos at once: all frames of those at the places ``whole``,
        the last one (1, H, W, 3) of others."""
        import torch

        size = self._at_once(pixels_each)
        for start in range(0, len(latents), size):
            with torch.no_grad():
                frames_BCFHW = self._decode(latents[start : start + size])
            last_frames = _pictures(frames_BCFHW[:, :, -1:])
            for place, last_frame in enumerate(last_frames):
                yield _pictures(frames_BCFHW[place : place + 1])[0] if start + place in whole else last_frame

    def _decode_last_frames(self, latents: torch.Tensor) -> np.ndarray:
        """The last frame, uint8 (B, H, W, 3), of what ``_decodable`` returns."""
        return _pictures(self._decode(latents)[:, :, -1:])[:, 0]

    # --- the ceiling

    def roundtrip(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Grid | None]:
        """What is read of each problem's own answer once it went through the VAE and back, without the transformer.

        The transition video is encoded as for training; the last frame is decoded, and read, as of a sampled video. A
        problem whose answer does not survive this can be answered by chance alone.
        """
        import torch

        check_video_recipe(self.spec, recipe, type(self))
        styles = [picture_style(task, recipe, problem) for problem in problems]
        grids: list[Grid | None] = [None] * len(problems)
        for canvas, indices in self._by_canvas(problems, styles).items():
            pixels = recipe.num_frames * canvas[0] * canvas[1]
            videos = (
                problem_video(
                    problems[i],
                    partial(draw_on_canvas, task=task, style=styles[i], canvas=canvas),
                    recipe.num_frames,
                    recipe.transition,
                )
                for i in indices
            )
            encoded = self._encoded(lambda batch: {"": self._video_latents(batch)}, videos, len(indices), pixels)
            generators = [torch_generator("roundtrip noise", problems[i].problem_id) for i in indices]
            with torch.no_grad():
                stacked = torch.stack([one[""] for one in encoded]).to(self._device)
                latents = self._decodable(stacked, generators)
            for index, video in zip(indices, self._decoded_videos(latents, pixels), strict=True):
                grids[index] = read_from_canvas(video[-1], task, styles[index], problems[index].answer.shape, recipe)
        return grids

    def roundtrip_key(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> str:
        """Names all that ``roundtrip`` depends on: the VAE, the pictures, how they become a video and are read."""
        styles = [picture_style(task, recipe, problem) for problem in problems]
        pictures: list[np.ndarray] = []
        for canvas, indices in self._by_canvas(problems, styles).items():
            for i in indices:
                draw = partial(draw_on_canvas, task=task, style=styles[i], canvas=canvas)
                pictures += video_pictures(problems[i], draw, recipe.num_frames, recipe.transition)
        video = f"{TRANSITION_VERSION} {recipe.num_frames} {recipe.transition}"
        read = [(problem.problem_id, problem.answer.tolist()) for problem in problems]
        reading = f"{recipe.output_size} {type(task).__name__} {task.palette} {styles} {read}"
        return self._latent_key(f"roundtrip {video} {reading}", *pictures)

    def _by_canvas(
        self, problems: Sequence[Problem], styles: Sequence[RenderStyle]
    ) -> dict[tuple[int, int], list[int]]:
        """Places of the problems that share a canvas, by its height and width in px."""
        by_canvas: dict[tuple[int, int], list[int]] = {}
        for index, (problem, style) in enumerate(zip(problems, styles, strict=True)):
            by_canvas.setdefault(canvas_px(problem, style, self.canvas_multiple_px), []).append(index)
        return by_canvas

    # --- encoding

    def _at_once(self, pixels_each: int) -> int:
        return max(1, PIXELS_AT_ONCE[self._device.split(":")[0]] // max(1, pixels_each))

    def _encoded(self, encode: Any, arrays: Iterator[np.ndarray], count: int, pixels_each: int) -> list[Batch]:
        """``encode`` applied to ``count`` arrays, a fixed number at once; one dict of float32 CPU tensors each.

        The last group is filled up: kernels may round differently for groups of another size, and a picture must have
        the same latents whatever it was encoded with.
        """
        import torch

        size = self._at_once(pixels_each)
        encoded: list[Batch] = []
        while len(encoded) < count:
            group = [next(arrays) for _ in range(min(size, count - len(encoded)))]
            filled = np.stack(group + group[-1:] * (size - len(group)))
            with torch.no_grad():
                tensors = {name: tensor.float().cpu() for name, tensor in encode(filled).items()}
            encoded += [{name: tensor[i].clone() for name, tensor in tensors.items()} for i in range(len(group))]
        return encoded

    def _latent_key(self, kind: str, *pictures: np.ndarray) -> str:
        """Names the latents of what ``kind`` makes of pictures (H, W, 3): of all their pixels."""
        digest = hashlib.blake2b(f"{self._encoder_fingerprint} {kind} ".encode(), digest_size=16)
        for picture in pictures:
            digest.update(f"{picture.shape} ".encode())
            digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest()

    @cached_property
    def _encoder_fingerprint(self) -> str:
        """Weights, precision and kind of device of what encodes a picture, and the family: its code normalises."""
        weights = " ".join(lora.base_fingerprint(encoder) for encoder in self._encoders)
        return f"{type(self).__name__} {self._device.split(':')[0]} {weights}"


def _pictures(frames_BCFHW: torch.Tensor) -> np.ndarray:
    """uint8 (B, F, H, W, 3) of frames in -1 .. 1; what is beyond is cut off."""
    import torch

    pixels = (frames_BCFHW.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).cpu().numpy()


def check_video_recipe(spec: BackboneSpec, recipe: TrainRecipe, family: type[VideoBackbone]) -> None:
    """ValueError for settings that a video family cannot follow."""
    if (recipe.num_frames - 1) % family.temporal_ratio:
        raise ValueError(
            f"recipe.num_frames = {recipe.num_frames}: {spec.name} takes 1 + a multiple of {family.temporal_ratio} "
            "frames"
        )
    if recipe.sampler not in family.samplers:
        raise ValueError(f"recipe.sampler = {recipe.sampler}: {spec.name} has {', '.join(family.samplers)}")
    if recipe.prompt and spec.repo_id.startswith("package:"):
        raise ValueError(f"recipe.prompt = {recipe.prompt!r}: {spec.name} comes without a text encoder; valid: ''")
    if recipe.guidance_scale != 1 and not recipe.prompt:
        raise ValueError(
            f"recipe.guidance_scale = {recipe.guidance_scale:g}: guidance leads away from the empty prompt, and that "
            "is the prompt; valid: 1, or another recipe.prompt"
        )
