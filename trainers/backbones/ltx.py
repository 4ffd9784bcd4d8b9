"""The LTX-Video image-to-video family (HaCohen et al. 2025, arXiv 2501.00103) in diffusers' own classes.

A folder or hub repository in the pipeline's layout (``model_index.json transformer/ vae/ scheduler/``, and either
``tokenizer/ text_encoder/`` or one ready embedding with its mask) becomes a backbone. ``model_index.json`` names the
pipeline that the checkpoint is made for, and training follows it. The question's picture is the clean first latent
frame; the answer is the last frame of the video. The diffusion itself is in ``trainers.ltx_diffusion``.

Eight pixel frames share a latent frame. With 9 frames there are two: the question's, and one that holds frames 2 to 9.
In the published discrete transition three of these eight (2 to 4) still show the question.

Shapes: B batch, F frames, C channels, H and W height and width, in pixels for pictures (uint8, channels last) and in
latents elsewhere (B, C, F, H, W); L text tokens, D text channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.backbone import BackboneSpec, weights_path
from trainers.loading import whole_model
from trainers.ltx_diffusion import (
    CONDITION,
    IMAGE_TO_VIDEO,
    TEMPORAL_RATIO,
    Convention,
    flow_matching_loss,
    sample_latents,
    sampling_timesteps,
    training_timesteps,
)
from trainers.precision import QUANTIZED, base_dtype, loading_options
from trainers.prompt_embeds import prompt_embeds
from trainers.recipe import TrainRecipe
from trainers.video_backbone import VideoBackbone, check_video_recipe

if TYPE_CHECKING:
    import torch

    from trainers.backbone import Batch

ARCHITECTURES = r"^LTX"
"""Pipelines of the checkpoints that this family loads, as their ``model_index.json`` names them."""
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
PUBLISHED_RECIPE: dict[str, Any] = {
    "learning_rate": 2e-4,
    "lr_schedule": "linear",
    "batch_size": 4,
    "lora_alpha": 64,
    "gradient_clip": 1.0,
    "precision": "bf16",
}
LICENSE = "other (LTX-Video's own)"

FLAVORS = [
    BackboneSpec(
        name="ltx/2b",
        family="video",
        repo_id="Lightricks/LTX-Video",
        lora_targets=LORA_TARGETS,
        recipe=PUBLISHED_RECIPE,
        num_params=1.92e9,
        license=LICENSE,
        num_gpus=1,
        memory_gb=14,
        note="the first release, 0.9; later ones by their own repository; frame rate 25 and precision are our choice",
    ),
    BackboneSpec(
        name="ltx/13b",
        family="video",
        repo_id="Lightricks/LTX-Video-0.9.7-dev",
        lora_targets=LORA_TARGETS,
        recipe=PUBLISHED_RECIPE,
        num_params=13.04e9,
        license=LICENSE,
        num_gpus=1,
        memory_gb=48,
        note="release 0.9.7, not distilled; frame rate 25 and precision are our choice",
    ),
]
ANY_REPO = BackboneSpec(
    name="ltx/ORG/NAME",
    family="video",
    lora_targets=LORA_TARGETS,
    recipe=PUBLISHED_RECIPE,
    num_gpus=1,
    memory_gb=48,
    note="any LTX-Video checkpoint in the layout of diffusers; not LTX-2",
)

CONVENTIONS = {
    "LTXPipeline": IMAGE_TO_VIDEO,
    "LTXImageToVideoPipeline": IMAGE_TO_VIDEO,
    "LTXConditionPipeline": CONDITION,
}
"""By the pipeline that a checkpoint's ``model_index.json`` names: up to 0.9.1 the former two, from 0.9.5 the last."""

PIPELINE_MULTIPLE_PX = 32
"""The pipelines take no other heights and widths, whatever the VAE."""

DECODE_TIMESTEP = 0.05
"""What timestep-conditioned decoders (0.9.1 and later) are told, and the share of noise mixed into what they decode:
diffusers' documented setting for these models. The pipelines' default, 0, asks for a level they never saw."""

INITIALISATION_SEED = 0
"""Of specs with ``pretrained=False``: one fixed draw of the weights."""

DECODER_NOISE_SEED = 0
"""Of the noise that some decoders (0.9.1) add inside, which they draw from the global generator alone."""


class LTX(VideoBackbone):
    """A loaded, frozen LTX-Video; see ``trainers.backbone.Backbone`` for what each public method promises.

    A training example is ``video_latents`` (C, F, H, W) and ``image_latents`` (C, 1, H, W), both normalised. The
    posterior's mode stands in for a draw from it (upstream draws), so that a picture has one encoding.
    """

    temporal_ratio = TEMPORAL_RATIO

    def __init__(
        self,
        spec: BackboneSpec,
        vae: Any,
        transformer: Any,
        scheduler: Any,
        convention: Convention,
        prompt: tuple[torch.Tensor, torch.Tensor],
        empty_prompt: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):
        """A prompt is its embedding (1, L, D), in the transformer's precision, and its mask (1, L), on its device."""
        assert vae.temporal_compression_ratio == self.temporal_ratio, "an LTX-Video VAE"
        super().__init__(spec, transformer, [vae], str(prompt[0].device))
        self._vae = vae
        self._scheduler = scheduler
        self._convention = replace(convention, spatial_ratio=vae.spatial_compression_ratio)
        self._prompt = prompt
        self._empty_prompt = empty_prompt

    # --- training

    def loss(self, batch: Batch) -> torch.Tensor:
        """The model's diffusion loss, (B,), float32; see ``flow_matching_loss``."""
        on_device = {name: tensor.to(self._device) for name, tensor in batch.items()}
        return flow_matching_loss(
            self.module,
            self._convention,
            on_device["image_latents"],
            on_device["video_latents"],
            *_expanded(self._prompt, len(batch["timesteps"])),
            on_device["noise"],
            on_device["timesteps"],
        )

    def _draw_timesteps_of(
        self, video_latent_shape: Sequence[int], size: int, recipe: TrainRecipe, generator: torch.Generator
    ) -> torch.Tensor:
        import torch

        num_tokens = int(np.prod(video_latent_shape[1:]))
        if recipe.train_timesteps == "uniform":
            return training_timesteps(num_tokens, size, generator)
        steps, _ = sampling_timesteps(self._convention, self._scheduler, recipe.num_inference_steps, num_tokens)
        return steps[torch.randint(len(steps), (size,), generator=generator)]

    # --- answering

    def _noise_shape(self, num_frames: int, canvas: tuple[int, int]) -> tuple[int, ...]:
        frames = (num_frames - 1) // self.temporal_ratio + 1
        height, width = (side // self._convention.spatial_ratio for side in canvas)
        return (self._vae.config.latent_channels, frames, height, width)

    def _sample(
        self, condition: Batch, noise: torch.Tensor, recipe: TrainRecipe, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        latents = sample_latents(
            self.module,
            self._convention,
            self._scheduler,
            condition["image_latents"],
            *_expanded(self._prompt, len(noise)),
            noise,
            recipe.num_inference_steps,
            recipe.guidance_scale,
            None if self._empty_prompt is None else _expanded(self._empty_prompt, len(noise)),
        )
        return self._decodable(latents, generators)

    def _decodable(self, latents: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Not normalised, and noisy where the decoder expects that."""
        import torch

        mean, std = self._latent_statistics()
        latents = latents * std / self._vae.config.scaling_factor + mean
        if self._vae.config.timestep_conditioning:
            draws = [torch.randn(latents.shape[1:], generator=generator) for generator in generators]
            latents = (1 - DECODE_TIMESTEP) * latents + DECODE_TIMESTEP * torch.stack(draws).to(latents.device)
        return latents

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """From what ``_decodable`` returns. The decoder looks both ways in time: any frame needs all others."""
        import torch

        if not any(self._vae.config.decoder_inject_noise):
            return self._decoded(latents)
        devices = [latents.device] if latents.is_cuda else []
        with torch.random.fork_rng(devices=devices):  # drawn for the whole batch: one by one, to depend on none
            frames = []
            for one in latents.split(1):
                torch.manual_seed(DECODER_NOISE_SEED)
                frames.append(self._decoded(one))
            return torch.cat(frames)

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames (B, 3, F, H, W), in -1 .. 1."""
        latents = latents.to(self._vae.dtype)
        timestep = (
            latents.new_full((len(latents),), DECODE_TIMESTEP) if self._vae.config.timestep_conditioning else None
        )
        frames: torch.Tensor = self._vae.decode(latents, timestep, return_dict=False)[0]
        return frames

    # --- pictures and latents

    @property
    def canvas_multiple_px(self) -> int:
        """See ``VideoBackbone``."""
        return lcm(PIPELINE_MULTIPLE_PX, self._convention.spatial_ratio)

    def _video_latents(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        scaling_factor: float = self._vae.config.scaling_factor
        return self._latents(videos_BFHWC) * scaling_factor

    def _encode_questions(self, pictures_BHWC: np.ndarray, num_frames: int) -> Batch:
        # The pipelines leave the scaling factor (1 in the published models) out here, so training does too.
        return {"image_latents": self._latents(pictures_BHWC[:, None])}

    def _latents(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        """Modes of the posterior, by channel of mean 0 and spread 1 over the model's own data; float32."""
        import torch

        pixels = torch.from_numpy(videos_BFHWC).to(self._vae.device).permute(0, 4, 1, 2, 3)
        posterior = self._vae.encode((pixels.float() / 127.5 - 1).to(self._vae.dtype)).latent_dist
        mean, std = self._latent_statistics()
        return (posterior.mode().float() - mean) / std

    def _latent_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = (getattr(self._vae, name).float().view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
        return mean, std

    # --- adapters

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write ``pytorch_lora_weights.safetensors``, which the pipelines' ``load_lora_weights`` reads.

        The metadata carries rank and alpha; without it the pipeline would take alpha for the rank, in silence.
        """
        from diffusers import LTXImageToVideoPipeline

        LTXImageToVideoPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=lora_state,
            transformer_lora_adapter_metadata=lora_config.to_dict(),
        )


def check_recipe(spec: BackboneSpec, recipe: TrainRecipe) -> None:
    """ValueError for settings that these models cannot follow."""
    check_video_recipe(spec, recipe, LTX)


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> LTX:
    """Load VAE, transformer, scheduler and the prompt's embedding, frozen, in the recipe's precision.

    ``spec.repo_id`` may be a hub id or a local folder, in the pipeline's layout. ValueError when the checkpoint is of
    a kind that the pipelines' image-to-video, or this file, does not cover.
    """
    import diffusers
    import torch

    path = weights_path(spec.repo_id)
    convention = load_convention(path, spec.revision)
    scheduler = load_scheduler(path, spec.revision, convention)
    transformer_class = diffusers.LTXVideoTransformer3DModel
    config = transformer_class.load_config(path, subfolder="transformer", revision=spec.revision)
    for field in ("patch_size", "patch_size_t"):
        if config[field] != 1:
            raise ValueError(f"{spec.repo_id}: transformer {field} = {config[field]}; valid: 1")
    # First, because the text encoder is larger than the small transformer: the two are never in memory together.
    prompts = {prompt: embed_prompt(path, spec.revision, prompt, convention, device) for prompt in {"", recipe.prompt}}
    dtype = base_dtype(recipe)
    with torch.random.fork_rng(devices=[]):  # these classes draw weights even where a file then replaces them
        if spec.pretrained:
            transformer = whole_model(
                transformer_class,
                path,
                subfolder="transformer",
                revision=spec.revision,
                use_safetensors=True,
                **loading_options(recipe, "diffusers", device),
            )
        else:
            torch.manual_seed(INITIALISATION_SEED)
            transformer = transformer_class.from_config(config).to(dtype)
        vae = whole_model(
            diffusers.AutoencoderKLLTXVideo,
            path,
            subfolder="vae",
            revision=spec.revision,
            use_safetensors=True,
            torch_dtype=dtype,
        )
    for module in (transformer, vae):
        module.requires_grad_(False).eval()
    vae.to(device)
    if not (spec.pretrained and recipe.precision in QUANTIZED):  # a quantized one lies there already
        transformer.to(device)
    on_device = {prompt: (embeds.to(device, dtype), mask.to(device)) for prompt, (embeds, mask) in prompts.items()}
    return LTX(
        spec,
        vae,
        transformer,
        scheduler,
        convention,
        on_device[recipe.prompt],
        on_device[""] if recipe.prompt else None,
    )


def load_convention(path: str, revision: str | None) -> Convention:
    """How the checkpoint's own pipeline conditions and samples; ValueError when that is none of ``CONVENTIONS``."""
    import diffusers

    name = diffusers.LTXPipeline.load_config(path, revision=revision)["_class_name"]
    if name not in CONVENTIONS:
        raise ValueError(f"{path}: a checkpoint for {name}; valid pipelines: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def load_scheduler(path: str, revision: str | None, convention: Convention) -> Any:
    """The checkpoint's flow-matching Euler scheduler; ValueError for settings that the pipeline cannot follow."""
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
        path, subfolder="scheduler", revision=revision
    )
    required: dict[str, Any] = {"stochastic_sampling": False, "invert_sigmas": False}
    if convention.linear_quadratic:  # noise levels are then the pipeline's own, and any shift would contradict them
        required |= {"use_dynamic_shifting": False, "shift": 1.0, "shift_terminal": None}
    for field, value in required.items():
        if scheduler.config[field] != value:
            raise ValueError(f"{path}: scheduler {field} = {scheduler.config[field]}; valid: {value}")
    return scheduler


def embed_prompt(
    path: str, revision: str | None, prompt: str, convention: Convention, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """T5's last hidden states of a prompt (1, L, D) and the mask of its tokens (1, L), bool, on the CPU.

    Padded and masked as the convention's pipeline does, in bfloat16 as published. Computed once, then read from a file;
    see ``trainers.prompt_embeds``.
    """
    import torch
    from transformers import AutoTokenizer, T5EncoderModel

    def compute() -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {"revision": revision or "main"}
        tokenizer = AutoTokenizer.from_pretrained(path, subfolder="tokenizer", **options)
        text_encoder: Any = T5EncoderModel.from_pretrained(
            path, subfolder="text_encoder", use_safetensors=True, dtype=torch.bfloat16, **options
        )
        text_encoder.to(device)
        tokens = tokenizer(
            [prompt],
            padding="max_length",
            max_length=convention.max_text_tokens,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        encoder_mask = tokens.attention_mask.to(device) if convention.masks_text_encoder else None
        with torch.no_grad():
            embeds = text_encoder(tokens.input_ids.to(device), attention_mask=encoder_mask)[0]
        return {"prompt_embeds": embeds, "prompt_attention_mask": tokens.attention_mask.bool()}

    tensors = prompt_embeds(path, revision, prompt, compute)
    return tensors["prompt_embeds"], tensors["prompt_attention_mask"].bool()


def _expanded(prompt: tuple[torch.Tensor, torch.Tensor], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    embeds, mask = prompt
    return embeds.expand(batch, -1, -1), mask.expand(batch, -1)
