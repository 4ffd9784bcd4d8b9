"""The CogVideoX image-to-video family (Yang et al. 2024, arXiv 2408.06072) in diffusers' own classes.

A folder or hub repository in the pipeline's layout (``transformer/ vae/ scheduler/``, and either ``tokenizer/
text_encoder/`` or one ready embedding) becomes a backbone. The question's picture conditions the model, the answer is
the last frame of the video. The diffusion itself is in ``trainers.cogvideox_diffusion``.

Shapes: B batch, F frames, C channels, H and W height and width, in pixels for pictures (uint8, channels last) and in
latents elsewhere; L text tokens, D text channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from task_generators.problem import Grid, Problem
from task_generators.render import Image, RenderStyle
from task_generators.task import Task
from task_generators.transition_video import problem_video
from trainers.backbone import BackboneSpec, weights_path
from trainers.cogvideox_diffusion import denoising_loss, padded_latent_frames, sample_latents, sampling_timesteps
from trainers.pictures import canvas_px, draw_on_canvas, picture_style, read_from_canvas
from trainers.recipe import TrainRecipe
from trainers.rng import torch_generator

if TYPE_CHECKING:
    import torch

    from trainers.backbone import Batch

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
TINY_NOTE = "a toy of a million parameters: its numbers exercise the path and say nothing about large video models"
TINY_RECIPE: dict[str, Any] = {
    "max_steps": 240,
    "learning_rate": 8e-3,
    "lr_schedule": "linear",
    "warmup_steps": 20,
    "decay_share": 0.4,
    "batch_size": 16,
    "adam_beta2": 0.95,
    "gradient_clip": 0.3,
    "cell_px": 8,
    "border_px": 0,
    "train_timesteps": "sampling",
    "num_inference_steps": 1,
}

FLAVORS = [
    BackboneSpec(
        name="cogvideox/tiny",
        family="video",
        repo_id="package:cogvideox-tiny",
        lora_targets=ATTENTION + FEED_FORWARD,
        recipe=TINY_RECIPE,
        note=TINY_NOTE,
    ),
    BackboneSpec(
        name="cogvideox/tiny-random",
        family="video",
        repo_id="package:cogvideox-tiny",
        pretrained=False,
        lora_targets=ATTENTION + FEED_FORWARD,
        recipe=TINY_RECIPE,
        note=f"{TINY_NOTE}; transformer never pretrained",
    ),
    BackboneSpec(
        name="cogvideox/1.5-5b-i2v",
        family="video",
        repo_id="THUDM/CogVideoX1.5-5B-I2V",
        lora_targets=ATTENTION,
        recipe={
            "learning_rate": 1e-4,
            "lr_schedule": "constant",
            "batch_size": 2,
            "lora_alpha": 32,
            "gradient_clip": 1.0,
            "precision": "bf16",
        },
        num_gpus=1,
        memory_gb=40,
    ),
]

TEMPORAL_RATIO = 4
"""Frames a latent frame of every CogVideoX VAE."""
NEUTRAL_PROMPT = ""
NEUTRAL_PROMPT_FILE = "neutral_prompt_embeds.safetensors"
"""Holds the tensor ``prompt_embeds``, shape (1, L, D)."""
INITIALISATION_SEED = 0
"""Of flavours with ``pretrained=False``: one fixed draw of the weights."""
MAX_VAE_PIXELS = 2**18
"""Pixels, over all frames, that pass through the VAE at once: seven tiny videos. Measured on a CPU: twice as fast as 32
at once (cache), and six times as fast as one by one (small convolutions miss the fast kernels)."""


class CogVideoX:
    """A loaded, frozen CogVideoX; see ``trainers.backbone.Backbone`` for what each method promises."""

    def __init__(self, spec: BackboneSpec, vae: Any, transformer: Any, scheduler: Any, prompt_embeds: torch.Tensor):
        """``prompt_embeds``: (1, L, D), in the transformer's precision and on its device, as are the modules."""
        if scheduler.config.prediction_type != "v_prediction":
            raise ValueError(
                f"{spec.repo_id}: scheduler prediction_type = {scheduler.config.prediction_type!r}; valid: v_prediction"
            )
        assert vae.config.temporal_compression_ratio == TEMPORAL_RATIO, "a CogVideoX VAE"
        self.spec = spec
        self.module = transformer
        self._vae = vae
        self._scheduler = scheduler
        self._prompt_embeds = prompt_embeds

    # --- training

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Batch]:
        """Scaled latents of each transition video and of its first frame, float32 on the CPU.

        ``video_latents`` (F, C, H, W) and ``image_latents`` (1, C, H, W). All problems of a call share one canvas, so
        that they stack. The posterior's mode stands in for a draw from it (upstream draws), so that a picture has one
        encoding; the noise that upstream's script adds to the conditioning picture, which the pipeline does not, is
        left out too.
        """
        check_recipe(self.spec, recipe)
        styles = [picture_style(task, recipe, problem) for problem in problems]
        sizes = [self._canvas(problem, style) for problem, style in zip(problems, styles, strict=True)]
        canvas = (max(height for height, _ in sizes), max(width for _, width in sizes)) if sizes else (0, 0)
        examples: list[Batch] = []
        for chunk in _chunks(range(len(problems)), recipe.num_frames * canvas[0] * canvas[1]):
            videos = np.stack(
                [
                    problem_video(
                        problems[index],
                        partial(draw_on_canvas, task=task, style=styles[index], canvas=canvas),
                        recipe.num_frames,
                        recipe.transition,
                    )
                    for index in chunk
                ]
            )
            video_latents = self._encode(videos) * self._vae.config.scaling_factor
            image_latents = self._encode(videos[:, :1]) * self._image_scale
            examples += [
                {"video_latents": video.cpu(), "image_latents": image.cpu()}
                for video, image in zip(video_latents, image_latents, strict=True)
            ]
        return examples

    def collate(self, examples: Sequence[Batch], recipe: TrainRecipe, generator: torch.Generator) -> Batch:
        """Stack examples; draw ``timesteps`` (B,) and ``noise`` (B, padded F, C, H, W) on the CPU."""
        import torch

        batch = {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        size, frames, *rest = batch["video_latents"].shape
        if recipe.train_timesteps == "sampling":
            steps = sampling_timesteps(self._scheduler, recipe.num_inference_steps).cpu()
            batch["timesteps"] = steps[torch.randint(len(steps), (size,), generator=generator)]
        else:
            last = self._scheduler.config.num_train_timesteps
            batch["timesteps"] = torch.randint(last, (size,), generator=generator)
        padded_frames = padded_latent_frames(frames, self.module.config.patch_size_t)
        batch["noise"] = torch.randn(size, padded_frames, *rest, generator=generator)
        return batch

    def loss(self, batch: Batch) -> torch.Tensor:
        """The model's diffusion loss, (B,), float32; see ``denoising_loss``."""
        device = self._prompt_embeds.device
        return denoising_loss(
            self.module,
            self._scheduler,
            batch["video_latents"].to(device),
            batch["image_latents"].to(device),
            self._prompt_embeds.expand(len(batch["timesteps"]), -1, -1),
            batch["noise"].to(device),
            batch["timesteps"].to(device),
        )

    # --- answering

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """Sample a video from each question's picture and read its last frame."""
        check_recipe(self.spec, recipe)
        styles = [picture_style(task, recipe, problem) for problem in problems]
        grids: list[Grid | None] = [None] * len(problems)
        indices_by_canvas: dict[tuple[int, int], list[int]] = {}
        for index, (problem, style) in enumerate(zip(problems, styles, strict=True)):
            indices_by_canvas.setdefault(self._canvas(problem, style), []).append(index)
        for canvas, indices in indices_by_canvas.items():
            questions = np.stack([draw_on_canvas(problems[i].question, task, styles[i], canvas) for i in indices])
            keys = [(problems[i].problem_id, attempt) for i in indices]
            for index, frame in zip(indices, self._last_frames(questions, keys, recipe), strict=True):
                grids[index] = read_from_canvas(frame, task, styles[index], problems[index].answer.shape, recipe)
        return grids

    def _last_frames(
        self, questions: np.ndarray, keys: Sequence[tuple[str, int]], recipe: TrainRecipe
    ) -> Iterator[Image]:
        """The last frame of the video sampled for each question picture (B, H, W, 3); noise keyed by ``keys``."""
        import torch

        device = self._prompt_embeds.device
        chunks = list(_chunks(range(len(questions)), recipe.num_frames * questions.shape[1] * questions.shape[2]))
        encoded = [self._encode(questions[chunk.start : chunk.stop, None]) for chunk in chunks]
        image_latents = torch.cat(encoded) * self._image_scale
        frames = (recipe.num_frames - 1) // self._vae.config.temporal_compression_ratio + 1
        padded_frames = padded_latent_frames(frames, self.module.config.patch_size_t)
        generators = [torch_generator("noise", problem_id, attempt) for problem_id, attempt in keys]
        shape = (padded_frames, *image_latents.shape[2:])
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)
        was_training = self.module.training
        self.module.eval()
        try:
            latents = sample_latents(
                self.module,
                self._scheduler,
                image_latents,
                self._prompt_embeds.expand(len(keys), -1, -1),
                noise,
                recipe.num_inference_steps,
                generators=generators,
            )
        finally:
            self.module.train(was_training)
        latents = latents[:, padded_frames - frames :]  # as the pipeline: padding frames are never decoded
        for chunk in chunks:
            yield from self._decode_last_frame(latents[chunk.start : chunk.stop])

    # --- pictures and latents

    @property
    def _image_scale(self) -> float:
        """What image latents are multiplied with. 1.5 models divide by the scaling factor; upstream's fine-tuning
        script multiplies, in conflict with the pipeline that later samples. We train as the pipeline samples."""
        factor: float = self._vae.config.scaling_factor
        return 1 / factor if self._vae.config.invert_scale_latents else factor

    def _canvas(self, problem: Problem, style: RenderStyle) -> tuple[int, int]:
        """Height and width in px of the canvas that holds question and answer, in whole patches."""
        multiple_px = 2 ** (len(self._vae.config.block_out_channels) - 1) * self.module.config.patch_size
        return canvas_px(problem, style, multiple_px)

    def _encode(self, videos: np.ndarray) -> torch.Tensor:
        """Modes of the posterior, unscaled float32 (B, F, C, H, W), of uint8 videos (B, F, H, W, 3)."""
        import torch

        with torch.no_grad():
            pixels = torch.from_numpy(videos).to(self._prompt_embeds.device).permute(0, 4, 1, 2, 3)
            posterior = self._vae.encode((pixels.float() / 127.5 - 1).to(self._vae.dtype)).latent_dist
            return posterior.mode().permute(0, 2, 1, 3, 4).float()

    def _decode_last_frame(self, latents: torch.Tensor) -> Iterator[Image]:
        """The last frame, uint8 (H, W, 3), of every video of scaled latents (B, F, C, H, W).

        The decoder is causal in time, so the earlier frames have to be decoded with it.
        """
        import torch

        with torch.no_grad():
            unscaled = (latents / self._vae.config.scaling_factor).permute(0, 2, 1, 3, 4)
            frames = self._vae.decode(unscaled.to(self._vae.dtype)).sample[:, :, -1].float()
            pixels = (frames.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
        yield from pixels.permute(0, 2, 3, 1).cpu().numpy()

    # --- adapters

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write ``pytorch_lora_weights.safetensors``, which the pipeline's ``load_lora_weights`` reads.

        The metadata carries rank and alpha; without it the pipeline would take alpha for the rank, in silence.
        """
        from diffusers import CogVideoXImageToVideoPipeline

        CogVideoXImageToVideoPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=lora_state,
            transformer_lora_adapter_metadata=lora_config.to_dict(),
        )


def check_recipe(spec: BackboneSpec, recipe: TrainRecipe) -> None:
    """ValueError for settings that these models cannot follow."""
    if (recipe.num_frames - 1) % TEMPORAL_RATIO:
        raise ValueError(
            f"recipe.num_frames = {recipe.num_frames}: {spec.name} takes 1 + a multiple of {TEMPORAL_RATIO} frames"
        )
    if recipe.guidance_scale != 1:
        raise ValueError(
            f"recipe.guidance_scale = {recipe.guidance_scale:g}: {spec.name} sees one neutral prompt, "
            "so there is nothing to guide away from; valid: 1"
        )


def _chunks(indices: range, pixels_each: int) -> Iterator[range]:
    """Cut ``indices`` into even parts of at most ``MAX_VAE_PIXELS``, or of one item where an item is larger."""
    at_most = max(1, MAX_VAE_PIXELS // max(1, pixels_each))
    parts = -(-len(indices) // at_most)
    for part in range(parts):
        yield indices[part * len(indices) // parts : (part + 1) * len(indices) // parts]


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> CogVideoX:
    """Load VAE, transformer, scheduler and the neutral prompt's embedding, frozen, in the recipe's precision.

    ``spec.repo_id`` may be a hub id, a local folder or a folder of the package, all in the pipeline's layout.
    """
    import diffusers
    import torch

    path = weights_path(spec.repo_id)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[recipe.precision]
    options: dict[str, Any] = {"revision": spec.revision, "use_safetensors": True, "torch_dtype": dtype}
    transformer_class = diffusers.CogVideoXTransformer3DModel
    config = transformer_class.load_config(path, subfolder="transformer", revision=spec.revision)
    # First, because the text encoder is as large as the transformer: the two are never in memory together.
    prompt_embeds = neutral_prompt_embeds(path, spec.revision, config["max_text_seq_length"], device)
    if spec.pretrained:
        transformer = transformer_class.from_pretrained(path, subfolder="transformer", **options)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(INITIALISATION_SEED)
            transformer = transformer_class.from_config(config).to(dtype)
    vae = diffusers.AutoencoderKLCogVideoX.from_pretrained(path, subfolder="vae", **options)
    for module in (transformer, vae):
        module.requires_grad_(False).eval().to(device)
    return CogVideoX(spec, vae, transformer, load_scheduler(path, spec.revision), prompt_embeds.to(device, dtype))


def load_scheduler(path: str, revision: str | None) -> Any:
    """The scheduler of the folder or repository, in the class that its configuration names (DDIM or DPM)."""
    import diffusers

    schedulers = {cls.__name__: cls for cls in (diffusers.CogVideoXDDIMScheduler, diffusers.CogVideoXDPMScheduler)}
    config = diffusers.CogVideoXDDIMScheduler.load_config(path, subfolder="scheduler", revision=revision)
    name = config["_class_name"]
    if name not in schedulers:
        raise ValueError(f"{path}: scheduler {name!r}; valid schedulers: {', '.join(schedulers)}")
    return schedulers[name].from_config(config)


def neutral_prompt_embeds(path: str, revision: str | None, max_text_seq_length: int, device: str) -> torch.Tensor:
    """The embedding (1, L, D) of ``NEUTRAL_PROMPT``, on the CPU; no other text is ever shown to the model.

    Read from ``NEUTRAL_PROMPT_FILE`` in a local folder, or from where an earlier call left it (the same folder, or
    beside the hub's cache). Else the repository's text encoder computes it, in bfloat16 as published, once, and is
    dropped again.
    """
    from safetensors.torch import load_file, save_file

    if Path(path).is_dir():
        file = Path(path) / NEUTRAL_PROMPT_FILE
    else:
        from huggingface_hub.constants import HF_HOME

        name = f"{path}@{revision or 'main'}".replace("/", "--")
        file = Path(HF_HOME) / "neutral-prompts" / name / NEUTRAL_PROMPT_FILE
    if file.exists():
        return load_file(file)["prompt_embeds"]
    prompt_embeds = _embed_prompt(path, revision, max_text_seq_length, device)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        save_file({"prompt_embeds": prompt_embeds}, temporary)
        temporary.replace(file)  # several workers may do this at once; each leaves a whole file
    except OSError:
        pass  # a read-only folder: the next load computes it again
    return prompt_embeds


def _embed_prompt(path: str, revision: str | None, max_text_seq_length: int, device: str) -> torch.Tensor:
    """T5's last hidden states of ``NEUTRAL_PROMPT``, padded to the full length and unmasked, as the pipeline does."""
    import torch
    from transformers import AutoTokenizer, T5EncoderModel

    options: dict[str, Any] = {"revision": revision or "main"}
    tokenizer = AutoTokenizer.from_pretrained(path, subfolder="tokenizer", **options)
    text_encoder: Any = T5EncoderModel.from_pretrained(
        path, subfolder="text_encoder", use_safetensors=True, dtype=torch.bfloat16, **options
    )
    text_encoder.to(device)
    tokens = tokenizer(
        [NEUTRAL_PROMPT],
        padding="max_length",
        max_length=max_text_seq_length,
        truncation=True,
        add_special_tokens=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        embeds: torch.Tensor = text_encoder(tokens.input_ids.to(device))[0]
    return embeds.cpu()
