"""The CogVideoX image-to-video family (Yang et al. 2024, arXiv 2408.06072) in diffusers' own classes.

A folder or hub repository in the pipeline's layout (``transformer/ vae/ scheduler/``, and either ``tokenizer/
text_encoder/`` or one ready embedding) becomes a backbone. The question's picture conditions the model, the answer is
the last frame of the video. The diffusion itself is in ``trainers.cogvideox_diffusion``.

Shapes: B batch, F frames, C channels, H and W height and width, in pixels for pictures (uint8, channels last) and in
latents elsewhere; L text tokens, D text channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.backbone import BackboneSpec, weights_path
from trainers.cogvideox_diffusion import denoising_loss, padded_latent_frames, sample_latents, sampling_timesteps
from trainers.loading import whole_model
from trainers.precision import QUANTIZED, base_dtype, loading_options
from trainers.prompt_embeds import prompt_embeds
from trainers.recipe import TrainRecipe
from trainers.video_backbone import VideoBackbone, check_video_recipe

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

PUBLISHED_RECIPE: dict[str, Any] = {
    "learning_rate": 1e-4,
    "lr_schedule": "constant",
    "batch_size": 2,
    "lora_alpha": 32,
    "gradient_clip": 1.0,
    "precision": "bf16",  # open in the paper
}

ANY_REPO = BackboneSpec(
    name="cogvideox/ORG/NAME",
    family="video",
    lora_targets=ATTENTION,
    recipe=PUBLISHED_RECIPE,
    num_gpus=1,
    memory_gb=40,
)
FLAVORS = [
    BackboneSpec(
        name="cogvideox/tiny",
        family="video",
        repo_id="package:cogvideox-tiny",
        lora_targets=ATTENTION + FEED_FORWARD,
        recipe=TINY_RECIPE,
        num_params=957e3,
        license="apache-2.0",
        note=TINY_NOTE,
    ),
    BackboneSpec(
        name="cogvideox/tiny-random",
        family="video",
        repo_id="package:cogvideox-tiny",
        pretrained=False,
        lora_targets=ATTENTION + FEED_FORWARD,
        recipe=TINY_RECIPE,
        num_params=957e3,
        license="apache-2.0",
        note=f"{TINY_NOTE}; transformer never pretrained",
    ),
    BackboneSpec(
        name="cogvideox/1.5-5b-i2v",
        family="video",
        repo_id="THUDM/CogVideoX1.5-5B-I2V",
        lora_targets=ATTENTION,
        recipe=PUBLISHED_RECIPE,
        num_params=5.57e9,
        license="other (CogVideoX)",
        num_gpus=1,
        memory_gb=40,
    ),
    BackboneSpec(
        name="cogvideox/1.5-5b-i2v-random",
        family="video",
        repo_id="THUDM/CogVideoX1.5-5B-I2V",
        pretrained=False,
        lora_targets=ATTENTION,
        recipe=PUBLISHED_RECIPE,
        num_params=5.57e9,
        license="other (CogVideoX)",
        num_gpus=1,
        memory_gb=40,
        note="to compare cogvideox/1.5-5b-i2v with; transformer never pretrained",
    ),
]

ARCHITECTURES = r"^CogVideoX"
"""Pipelines of the checkpoints that this family loads, as their ``model_index.json`` names them."""
INITIALISATION_SEED = 0
"""Of flavours with ``pretrained=False``: one fixed draw of the weights."""


class CogVideoX(VideoBackbone):
    """A loaded, frozen CogVideoX; see ``trainers.backbone.Backbone`` for what each public method promises.

    A training example is ``video_latents`` (F, C, H, W) and ``image_latents`` (1, C, H, W), both scaled. The
    posterior's mode stands in for a draw from it (upstream draws), so that a picture has one encoding; the noise that
    upstream's script adds to the conditioning picture, which the pipeline does not, is left out too.
    """

    temporal_ratio = 4
    samplers = ("own", "ddim", "dpm")
    module: Any

    def __init__(
        self,
        spec: BackboneSpec,
        vae: Any,
        transformer: Any,
        scheduler: Any,
        prompt_embeds: torch.Tensor,
        empty_prompt_embeds: torch.Tensor | None = None,
    ):
        """The embeddings: (1, L, D), in the transformer's precision and on its device, as are the modules."""
        if scheduler.config.prediction_type != "v_prediction":
            raise ValueError(
                f"{spec.repo_id}: scheduler prediction_type = {scheduler.config.prediction_type!r}; valid: v_prediction"
            )
        assert vae.config.temporal_compression_ratio == self.temporal_ratio, "a CogVideoX VAE"
        super().__init__(spec, transformer, [vae], str(prompt_embeds.device))
        self._vae = vae
        self._scheduler = scheduler
        self._prompt_embeds = prompt_embeds
        self._empty_prompt_embeds = empty_prompt_embeds

    # --- training

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

    def _draw_timesteps(self, size: int, recipe: TrainRecipe, generator: torch.Generator) -> torch.Tensor:
        import torch

        if recipe.train_timesteps == "sampling":
            steps = sampling_timesteps(sampler(self._scheduler, recipe), recipe.num_inference_steps).cpu()
            return steps[torch.randint(len(steps), (size,), generator=generator)]
        return torch.randint(self._scheduler.config.num_train_timesteps, (size,), generator=generator)

    def _noise_shape_of(self, video_latent_shape: Sequence[int]) -> tuple[int, ...]:
        frames, *rest = video_latent_shape
        return (padded_latent_frames(frames, self.module.config.patch_size_t), *rest)

    # --- answering

    def _noise_shape(self, num_frames: int, canvas: tuple[int, int]) -> tuple[int, ...]:
        frames = (num_frames - 1) // self.temporal_ratio + 1
        height, width = (side // self._spatial_ratio for side in canvas)
        return self._noise_shape_of((frames, self._vae.config.latent_channels, height, width))

    def _sample(
        self, condition: Batch, noise: torch.Tensor, recipe: TrainRecipe, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        negative = self._empty_prompt_embeds
        latents = sample_latents(
            self.module,
            sampler(self._scheduler, recipe),
            condition["image_latents"],
            self._prompt_embeds.expand(len(noise), -1, -1),
            noise,
            recipe.num_inference_steps,
            recipe.guidance_scale,
            None if negative is None else negative.expand(len(noise), -1, -1),
            generators=generators,
        )
        frames = (recipe.num_frames - 1) // self.temporal_ratio + 1
        return latents[:, -frames:]  # as the pipeline: padding frames are never decoded

    # --- pictures and latents

    @property
    def canvas_multiple_px(self) -> int:
        """See ``VideoBackbone``."""
        return self._spatial_ratio * int(self.module.config.patch_size)

    @property
    def _spatial_ratio(self) -> int:
        return 2 ** (len(self._vae.config.block_out_channels) - 1)

    @property
    def _image_scale(self) -> float:
        """What image latents are multiplied with. 1.5 models divide by the scaling factor; upstream's fine-tuning
        script multiplies, in conflict with the pipeline that later samples. We train as the pipeline samples."""
        factor: float = self._vae.config.scaling_factor
        return 1 / factor if self._vae.config.invert_scale_latents else factor

    def _video_latents(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        scaling_factor: float = self._vae.config.scaling_factor
        return self._latents(videos_BFHWC) * scaling_factor

    def _encode_questions(self, pictures_BHWC: np.ndarray, num_frames: int) -> Batch:
        return {"image_latents": self._latents(pictures_BHWC[:, None]) * self._image_scale}

    def _latents(self, videos_BFHWC: np.ndarray) -> torch.Tensor:
        """Modes of the posterior, unscaled float32 (B, F, C, H, W)."""
        import torch

        pixels = torch.from_numpy(videos_BFHWC).to(self._vae.device).permute(0, 4, 1, 2, 3)
        posterior = self._vae.encode((pixels.float() / 127.5 - 1).to(self._vae.dtype)).latent_dist
        return posterior.mode().permute(0, 2, 1, 3, 4).float()

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B, F, C, H, W). The decoder is causal in time: the last frame needs all before it."""
        unscaled = (latents / self._vae.config.scaling_factor).permute(0, 2, 1, 3, 4)
        frames: torch.Tensor = self._vae.decode(unscaled.to(self._vae.dtype)).sample
        return frames

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
    check_video_recipe(spec, recipe, CogVideoX)


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> CogVideoX:
    """Load VAE, transformer, scheduler and the prompt's embedding, frozen, in the recipe's precision.

    ``spec.repo_id`` may be a hub id, a local folder or a folder of the package, all in the pipeline's layout.
    """
    import diffusers
    import torch

    path = weights_path(spec.repo_id)
    transformer_class = diffusers.CogVideoXTransformer3DModel
    config = transformer_class.load_config(path, subfolder="transformer", revision=spec.revision)
    # First, because the text encoder is as large as the transformer: the two are never in memory together.
    embeds = {
        prompt: embed_prompt(path, spec.revision, prompt, config["max_text_seq_length"], device)
        for prompt in {"", recipe.prompt}
    }
    dtype = base_dtype(recipe)
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(INITIALISATION_SEED)
            transformer = transformer_class.from_config(config).to(dtype)
    vae = whole_model(
        diffusers.AutoencoderKLCogVideoX,
        path,
        subfolder="vae",
        revision=spec.revision,
        use_safetensors=True,
        torch_dtype=dtype,
    )
    for module in (transformer, vae):
        module.requires_grad_(False).eval()
    vae.to(device)
    if recipe.precision not in QUANTIZED:  # a quantized one lies there already
        transformer.to(device)
    on_device = {prompt: tensor.to(device, dtype) for prompt, tensor in embeds.items()}
    scheduler = load_scheduler(path, spec.revision)
    return CogVideoX(
        spec, vae, transformer, scheduler, on_device[recipe.prompt], on_device[""] if recipe.prompt else None
    )


def load_scheduler(path: str, revision: str | None) -> Any:
    """The scheduler of the folder or repository, in the class that its configuration names (DDIM or DPM)."""
    import diffusers

    schedulers = {cls.__name__: cls for cls in (diffusers.CogVideoXDDIMScheduler, diffusers.CogVideoXDPMScheduler)}
    config = diffusers.CogVideoXDDIMScheduler.load_config(path, subfolder="scheduler", revision=revision)
    name = config["_class_name"]
    if name not in schedulers:
        raise ValueError(f"{path}: scheduler {name!r}; valid schedulers: {', '.join(schedulers)}")
    return schedulers[name].from_config(config)


def sampler(scheduler: Any, recipe: TrainRecipe) -> Any:
    """The scheduler that samples: the checkpoint's own, or that of ``recipe.sampler`` with its configuration."""
    import diffusers

    classes = {"ddim": diffusers.CogVideoXDDIMScheduler, "dpm": diffusers.CogVideoXDPMScheduler}
    return scheduler if recipe.sampler == "own" else classes[recipe.sampler].from_config(scheduler.config)


def embed_prompt(path: str, revision: str | None, prompt: str, max_text_seq_length: int, device: str) -> torch.Tensor:
    """T5's last hidden states of a prompt (1, L, D), on the CPU: padded to the full length and unmasked, as the
    pipeline does, in bfloat16 as published. Computed once, then read from a file; see ``trainers.prompt_embeds``."""
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
            max_length=max_text_seq_length,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            return {"prompt_embeds": text_encoder(tokens.input_ids.to(device))[0]}

    return prompt_embeds(path, revision, prompt, compute)["prompt_embeds"]
