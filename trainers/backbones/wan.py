"""The Wan image-to-video family (Wan Team 2025, arXiv 2503.20314) in diffusers' own classes.

A folder or hub repository in the pipeline's layout becomes a backbone; which kind of Wan it is stands in its
configuration files: 2.1 (picture beside the noise, CLIP embedding of it), 2.2 A14B (two experts, no CLIP), 2.2 TI2V
(picture in place of the first latent frame). The diffusion itself is in ``trainers.wan_diffusion``.

Shapes: B batch, F frames, C channels, H and W height and width, in pixels for pictures (uint8, channels last) and in
latents elsewhere; T image tokens, L text tokens, D channels of either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.backbone import BackboneSpec, weights_path
from trainers.loading import whole_model
from trainers.lora import ALL_LINEAR
from trainers.precision import base_dtype
from trainers.recipe import TrainRecipe
from trainers.video_backbone import VideoBackbone, check_video_recipe
from trainers.wan_checkpoint import (
    EXPERT_NAMES,
    FLOW_PREDICTION,
    embed_prompt,
    load_denoiser,
    load_image_encoder,
    load_scheduler,
)
from trainers.wan_diffusion import TEMPORAL_RATIO, Denoiser, flow_matching_loss, noise_levels, sample_latents

if TYPE_CHECKING:
    import torch

    from trainers.backbone import Batch

PUBLISHED_RECIPE: dict[str, Any] = {
    "learning_rate": 1e-4,
    "lr_schedule": "constant",
    "batch_size": 1,
    "lora_alpha": 32,
    "gradient_clip": 0.05,
    "precision": "bf16",  # open in the paper
}
BORROWED_RECIPE_NOTE = "nothing is published for this model: the recipe is that of wan/2.1-14b-i2v"

FLAVORS = [
    BackboneSpec(
        name="wan/2.1-14b-i2v",
        family="video",
        repo_id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        revision="b184e23a8a16b20f108f727c902e769e873ffc73",
        lora_targets=(ALL_LINEAR,),
        recipe=PUBLISHED_RECIPE,
        num_params=16.4e9,
        license="apache-2.0",
        num_gpus=1,
        memory_gb=72,  # 33 weights, 6 LoRA and optimizer, 3 VAE and CLIP, the rest activations of 9 frames of 336 px
    ),
    BackboneSpec(
        name="wan/2.2-5b-ti2v",
        family="video",
        repo_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        revision="b8fff7315c768468a5333511427288870b2e9635",
        lora_targets=(ALL_LINEAR,),
        recipe=PUBLISHED_RECIPE,
        num_params=5.0e9,
        license="apache-2.0",
        num_gpus=1,
        memory_gb=24,  # 10 weights, 3 LoRA and optimizer, 3 VAE, the rest activations
        note=BORROWED_RECIPE_NOTE,
    ),
    BackboneSpec(
        name="wan/2.2-a14b-i2v",
        family="video",
        repo_id="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        revision="596658fd9ca6b7b71d5057529bbf319ecbc61d74",
        lora_targets=(ALL_LINEAR,),
        recipe=PUBLISHED_RECIPE,
        num_params=28.6e9,
        license="apache-2.0",
        num_gpus=1,
        memory_gb=98,  # 57 weights, 10 LoRA and optimizer, the rest VAE and activations of one expert
        note=f"two experts, each with a LoRA of its own; {BORROWED_RECIPE_NOTE}",
    ),
]

ANY_REPO = BackboneSpec(
    name="wan/ORG/NAME",
    family="video",
    lora_targets=(ALL_LINEAR,),
    recipe=PUBLISHED_RECIPE,
    num_gpus=1,
    memory_gb=72,
    note=BORROWED_RECIPE_NOTE,
)

ARCHITECTURES = r"^Wan"
"""Pipelines of the checkpoints that this family loads, as their ``model_index.json`` names them."""
SECOND_ADAPTER_FILE = "pytorch_lora_weights_transformer_2.safetensors"
"""The low-noise expert's adapter. Not a subfolder's: the pipeline would read the folder's own file in its place."""
PIPELINE_MULTIPLE_PX = 16
"""``WanImageToVideoPipeline`` takes no other heights and widths."""


class Wan(VideoBackbone):
    """A loaded, frozen Wan; see ``trainers.backbone.Backbone`` for what each public method promises.

    A training example is ``video_latents`` (C, F, H, W), ``condition_latents`` (C, F or 1, H, W), both normalised, and
    for models with image cross-attention ``image_embeds`` (T, D).
    """

    temporal_ratio = TEMPORAL_RATIO
    samplers = ("own", "unipc", "euler")

    def __init__(
        self,
        spec: BackboneSpec,
        vae: Any,
        denoiser: Denoiser,
        scheduler: Any,
        prompt_embeds: torch.Tensor,
        empty_prompt_embeds: torch.Tensor | None = None,
        image_encoder: Any = None,
        image_processor: Any = None,
    ):
        """The embeddings: (1, L, D), in the transformer's precision and on its device, as are the modules."""
        import torch

        experts = denoiser.experts
        module = experts[0] if len(experts) == 1 else torch.nn.ModuleDict(dict(zip(EXPERT_NAMES, experts, strict=True)))
        module.eval()
        encoders = [vae] if image_encoder is None else [vae, image_encoder]
        super().__init__(spec, module, encoders, str(prompt_embeds.device))
        self._vae = vae
        self._denoiser = denoiser
        self._scheduler = scheduler
        self._prompt_embeds = prompt_embeds
        self._empty_prompt_embeds = empty_prompt_embeds
        self._image_encoder = image_encoder
        self._image_processor = image_processor

    # --- training

    def loss(self, batch: Batch) -> torch.Tensor:
        """The model's diffusion loss, (B,), float32; see ``flow_matching_loss``."""
        device = self._prompt_embeds.device
        here = {name: tensor.to(device) for name, tensor in batch.items()}
        return flow_matching_loss(
            self._denoiser,
            here["video_latents"],
            {name: here[name] for name in ("condition_latents", "image_embeds") if name in here},
            self._prompt_embeds.expand(len(here["timesteps"]), -1, -1),
            here["noise"],
            here["timesteps"],
            here["sigmas"],
        )

    def _draw_noise_levels(
        self, video_latent_shape: Sequence[int], size: int, recipe: TrainRecipe, generator: torch.Generator
    ) -> Batch:
        """``timesteps`` and ``sigmas`` (B,): one of the sampler's own pairs each, drawn uniformly.

        Of the schedule with as many steps as the model was trained with, or of that which answers. So the checkpoint's
        shift towards noise holds in training too. DiffSynth-Studio draws like this; diffusion-pipe draws times from a
        logit-normal distribution; which of them the paper used is open.
        """
        import torch

        sampling = recipe.train_timesteps == "sampling"
        num_steps = recipe.num_inference_steps if sampling else self._scheduler.config.num_train_timesteps
        timesteps, sigmas = noise_levels(sampler(self._scheduler, recipe), num_steps)
        drawn = torch.randint(num_steps, (size,), generator=generator)
        return {"timesteps": timesteps[drawn], "sigmas": sigmas[drawn]}

    # --- answering

    def _noise_shape(self, num_frames: int, canvas: tuple[int, int]) -> tuple[int, ...]:
        frames = (num_frames - 1) // self.temporal_ratio + 1
        height, width = (side // self._vae.config.scale_factor_spatial for side in canvas)
        return (self._vae.config.z_dim, frames, height, width)

    def _sample(
        self, condition: Batch, noise: torch.Tensor, recipe: TrainRecipe, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        negative = self._empty_prompt_embeds
        return sample_latents(
            self._denoiser,
            sampler(self._scheduler, recipe),
            condition,
            self._prompt_embeds.expand(len(noise), -1, -1),
            noise,
            recipe.num_inference_steps,
            recipe.guidance_scale,
            None if negative is None else negative.expand(len(noise), -1, -1),
        )

    # --- pictures and latents

    @property
    def canvas_multiple_px(self) -> int:
        """See ``VideoBackbone``."""
        patch_px = self._vae.config.scale_factor_spatial * self._denoiser.experts[0].config.patch_size[1]
        return math.lcm(patch_px, PIPELINE_MULTIPLE_PX)

    @cached_property
    def _encoder_fingerprint(self) -> str:
        """Also what normalises latents and pictures: settings, which no hash of weights knows."""
        config = self._vae.config
        processor = None if self._image_processor is None else self._image_processor.to_dict()
        settings = [config.latents_mean, config.latents_std, self._denoiser.expand_timesteps, processor]
        return f"{super()._encoder_fingerprint} {settings}"

    def _video_latents(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        return self._latents(self._pixels(videos_BFHWC))

    def _encode_questions(self, pictures_BHWC: np.ndarray, num_frames: int) -> Batch:
        """The picture alone, or followed by mid-grey frames; CLIP's last hidden states but one."""
        import torch

        video = self._pixels(pictures_BHWC[:, None])
        if not self._denoiser.expand_timesteps:
            batch, channels, _, *size = video.shape
            video = torch.cat([video, video.new_zeros(batch, channels, num_frames - 1, *size)], dim=2)
        condition = {"condition_latents": self._latents(video)}
        if self._image_encoder is not None:
            from PIL import Image

            pictures = [Image.fromarray(picture) for picture in pictures_BHWC]
            inputs = self._image_processor(images=pictures, return_tensors="pt").to(self._image_encoder.device)
            condition["image_embeds"] = self._image_encoder(**inputs, output_hidden_states=True).hidden_states[-2]
        return condition

    def _pixels(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        """In [-1, 1], (B, 3, F, H, W), on the VAE's device and in its precision."""
        import torch

        pixels = torch.from_numpy(videos_BFHWC).to(self._vae.device).permute(0, 4, 1, 2, 3)
        return (2 * (pixels.float() / 255) - 1).to(self._vae.dtype)

    def _latents(self, pixels_BCFHW: torch.Tensor) -> torch.Tensor:
        """Modes of the posterior, normalised, float32 (B, C, F, H, W)."""
        mode = self._vae.encode(pixels_BCFHW).latent_dist.mode().float()
        mean, std = self._latent_statistics(mode)
        return (mode - mean) * (1 / std)

    def _latent_statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each latent channel, (1, C, 1, 1, 1)."""
        config = self._vae.config
        mean, std = (latents.new_tensor(of).view(1, -1, 1, 1, 1) for of in (config.latents_mean, config.latents_std))
        return mean, std

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """From normalised latents. The decoder is causal in time: the last frame needs all before it."""
        latents = latents.to(self._vae.dtype)
        mean, std = self._latent_statistics(latents)
        frames: torch.Tensor = self._vae.decode(latents / (1 / std) + mean).sample
        return frames

    # --- adapters

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write ``pytorch_lora_weights.safetensors``, and for the second expert ``SECOND_ADAPTER_FILE`` beside it.

        ``pipeline.load_lora_weights(folder)`` reads the first; the second it reads when told to:
        ``load_lora_weights(folder, weight_name=SECOND_ADAPTER_FILE, load_into_transformer_2=True)``. The metadata of
        each carries rank and alpha; without it the pipeline would take alpha for the rank, in silence.
        """
        from diffusers import WanImageToVideoPipeline

        states: dict[str | None, dict[str, torch.Tensor]] = {None: lora_state}
        if len(self._denoiser.experts) > 1:
            states = {
                file: {
                    name.removeprefix(f"{expert}."): tensor
                    for name, tensor in lora_state.items()
                    if name.startswith(f"{expert}.")
                }
                for expert, file in zip(EXPERT_NAMES, (None, SECOND_ADAPTER_FILE), strict=True)
            }
        for file, state in states.items():
            targets = sorted({name.partition(".lora_")[0] for name in state})
            WanImageToVideoPipeline.save_lora_weights(
                folder,
                transformer_lora_layers=state,
                weight_name=file,
                transformer_lora_adapter_metadata=lora_config.to_dict() | {"target_modules": targets},
            )


def check_recipe(spec: BackboneSpec, recipe: TrainRecipe) -> None:
    """ValueError for settings that these models cannot follow."""
    check_video_recipe(spec, recipe, Wan)


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> Wan:
    """Load VAE, transformers, scheduler, image encoder and the prompt's embedding, frozen, in the recipe's precision.

    VAE and image encoder are float32 in every precision, as published. ``spec.repo_id`` may be a hub id or a local
    folder in the pipeline's layout. ValueError for a checkpoint that is no Wan image-to-video model.
    """
    import diffusers
    import torch

    path = weights_path(spec.repo_id)
    scheduler = load_scheduler(path, spec.revision)
    # First, because the text encoder is as large as a transformer: the two are never in memory together.
    embeds = {prompt: embed_prompt(path, spec.revision, prompt, device) for prompt in {"", recipe.prompt}}
    denoiser = load_denoiser(path, spec, recipe, scheduler.config.num_train_timesteps, device)
    vae: Any = whole_model(
        diffusers.AutoencoderKLWan,
        path,
        subfolder="vae",
        revision=spec.revision,
        use_safetensors=True,
        torch_dtype=torch.float32,
    )
    image_encoder, image_processor = None, None
    if denoiser.experts[0].config.image_dim is not None:
        image_encoder, image_processor = load_image_encoder(path, spec.revision)
    for module in (*denoiser.experts, vae, image_encoder):
        if module is not None:
            module.requires_grad_(False).eval()
    for encoder in (vae, image_encoder):
        if encoder is not None:
            encoder.to(device)
    on_device = {prompt: tensor.to(device, base_dtype(recipe)) for prompt, tensor in embeds.items()}
    return Wan(
        spec,
        vae,
        denoiser,
        scheduler,
        on_device[recipe.prompt],
        on_device[""] if recipe.prompt else None,
        image_encoder,
        image_processor,
    )


def sampler(scheduler: Any, recipe: TrainRecipe) -> Any:
    """The scheduler that samples: the checkpoint's own, or UniPC or Euler with its shift towards noise."""
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    config = scheduler.config
    shift = config.flow_shift if isinstance(scheduler, UniPCMultistepScheduler) else config.shift
    steps = config.num_train_timesteps
    if recipe.sampler == "unipc" and not isinstance(scheduler, UniPCMultistepScheduler):
        return UniPCMultistepScheduler(
            num_train_timesteps=steps, prediction_type=FLOW_PREDICTION, use_flow_sigmas=True, flow_shift=shift
        )
    if recipe.sampler == "euler" and not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=steps, shift=shift)
    return scheduler
