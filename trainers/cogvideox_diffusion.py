"""The diffusion of CogVideoX image-to-video: training loss and sampler, as pure functions of latents.

Both follow diffusers: the sampler is ``CogVideoXImageToVideoPipeline`` without pictures, VAE and text encoder, and the
loss is that of the published fine-tuning scripts with the pipeline's conditioning. Tests hold both against diffusers.

Shapes: B batch, F latent frames, C latent channels, H and W latent height and width, L text tokens, D text channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OFS = 2.0
"""The offset that CogVideoX 1.5 image-to-video models are conditioned on; the pipeline knows no other value."""


def padded_latent_frames(latent_frames: int, patch_size_t: int | None) -> int:
    """Latent frames after padding to whole temporal patches (None: 1.0 models, which have no temporal patches)."""
    return latent_frames if patch_size_t is None else -(-latent_frames // patch_size_t) * patch_size_t


def pad_video_latents(video_latents_BFCHW: torch.Tensor, patch_size_t: int | None) -> torch.Tensor:
    """Prepend copies of the first latent frame up to whole temporal patches; the pipeline drops them when decoding."""
    import torch

    missing = padded_latent_frames(video_latents_BFCHW.shape[1], patch_size_t) - video_latents_BFCHW.shape[1]
    if missing == 0:
        return video_latents_BFCHW
    first_frames = video_latents_BFCHW[:, :1].expand(-1, missing, -1, -1, -1)
    return torch.cat([first_frames, video_latents_BFCHW], dim=1)


def condition_latents(image_latents_BFCHW: torch.Tensor, latent_frames: int) -> torch.Tensor:
    """The image condition of ``latent_frames`` (padding included): [image, 0, 0, ...] along frames.

    The image latent has one frame. It stands at the very front, beside the padding frame where there is one:
    ``CogVideoXImageToVideoPipeline.prepare_latents``.
    """
    import torch

    batch, frames, *rest = image_latents_BFCHW.shape
    assert frames == 1, f"an image latent has one frame, not {frames}"
    return torch.cat([image_latents_BFCHW, image_latents_BFCHW.new_zeros(batch, latent_frames - 1, *rest)], dim=1)


def rotary_embedding(
    transformer_config: Any, latent_frames: int, latent_height: int, latent_width: int, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(cos, sin) of the 3-D rotary positions, each (tokens, head dim); None for models without rotary positions.

    ``latent_frames`` counts the padded frames. The same as the pipeline's ``_prepare_rotary_positional_embeddings``:
    1.0 models stretch their training grid over the canvas, 1.5 models cut the canvas out of a larger grid. ValueError
    when the canvas is larger than that grid.
    """
    config = transformer_config
    if not config.use_rotary_positional_embeddings:
        return None
    if config.patch_size_t is not None and (latent_height > config.sample_height or latent_width > config.sample_width):
        raise ValueError(
            f"recipe.cell_px: the picture's latents are {latent_height} x {latent_width}, "
            f"this model takes at most {config.sample_height} x {config.sample_width}"
        )
    return _rotary_embedding(
        config.attention_head_dim,
        config.patch_size,
        config.patch_size_t,
        (config.sample_height, config.sample_width),
        (latent_frames, latent_height, latent_width),
        str(device),
    )


@lru_cache(maxsize=64)
def _rotary_embedding(
    head_dim: int,
    patch_size: int,
    patch_size_t: int | None,
    sample_size: tuple[int, int],
    latent_size: tuple[int, int, int],
    device: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid

    latent_frames, latent_height, latent_width = latent_size
    grid_size = (latent_height // patch_size, latent_width // patch_size)
    base_height, base_width = sample_size[0] // patch_size, sample_size[1] // patch_size
    if patch_size_t is None:
        cos, sin = get_3d_rotary_pos_embed(
            embed_dim=head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid_size, base_width, base_height),
            grid_size=grid_size,
            temporal_size=latent_frames,
            device=torch.device(device),
        )
    else:
        cos, sin = get_3d_rotary_pos_embed(
            embed_dim=head_dim,
            crops_coords=None,
            grid_size=grid_size,
            temporal_size=-(-latent_frames // patch_size_t),
            grid_type="slice",
            max_size=(base_height, base_width),
            device=torch.device(device),
        )
    return cos, sin


def _velocity(
    transformer: Any,
    noisy_latents: torch.Tensor,
    condition: torch.Tensor,
    prompt_embeds: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """One forward pass, in the precision of ``prompt_embeds``; the predicted velocity as float32, shape of the noisy
    latents."""
    import torch

    dtype = prompt_embeds.dtype
    _, latent_frames, _, latent_height, latent_width = noisy_latents.shape
    config = transformer.config
    return transformer(
        hidden_states=torch.cat([noisy_latents.to(dtype), condition.to(dtype)], dim=2),
        encoder_hidden_states=prompt_embeds,
        timestep=timesteps,
        ofs=None if config.ofs_embed_dim is None else prompt_embeds.new_full((1,), OFS),
        image_rotary_emb=rotary_embedding(config, latent_frames, latent_height, latent_width, noisy_latents.device),
        return_dict=False,
    )[0].float()


def denoising_loss(
    transformer: Any,
    scheduler: Any,
    video_latents_BFCHW: torch.Tensor,
    image_latents_BFCHW: torch.Tensor,
    prompt_embeds_BLD: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """The published training objective, one float32 value an example, shape (B,).

    The clean latents that the predicted velocity implies are compared with the true ones, squared, and weighted with
    1 / (1 - alphas_cumprod): the mean squared error of the velocity. With a zero terminal SNR the weight there is 1.

    ``video_latents`` (scaled) may still lack the temporal padding; ``noise`` has the padded shape. ``image_latents``
    (scaled as the pipeline scales them) have one frame. ``timesteps``: (B,), int64. Noising and loss are float32 in
    every precision of the model: in bfloat16 1 - alphas_cumprod has no digits left near timestep 0.
    """
    latents = pad_video_latents(video_latents_BFCHW, transformer.config.patch_size_t).float()
    assert noise.shape == latents.shape, f"noise {tuple(noise.shape)} for latents {tuple(latents.shape)}"
    noisy_latents = scheduler.add_noise(latents, noise.float(), timesteps)
    condition = condition_latents(image_latents_BFCHW, latents.shape[1])
    velocity = _velocity(transformer, noisy_latents, condition, prompt_embeds_BLD, timesteps)
    # sqrt(a) * noisy - sqrt(1 - a) * velocity, the clean latents: upstream's use of get_velocity, arguments swapped.
    predicted_latents = scheduler.get_velocity(velocity, noisy_latents, timesteps)
    weight = 1 / (1 - scheduler.alphas_cumprod.to(latents.device)[timesteps])
    squared_error = (predicted_latents - latents) ** 2
    return weight.float() * squared_error.flatten(1).mean(dim=1)


def sampling_timesteps(scheduler: Any, num_inference_steps: int) -> torch.Tensor:
    """The timesteps that ``sample_latents`` visits, descending, int64, shape (num_inference_steps,)."""
    scheduler.set_timesteps(num_inference_steps)
    return scheduler.timesteps


def sample_latents(
    transformer: Any,
    scheduler: Any,
    image_latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    noise: torch.Tensor,
    num_inference_steps: int,
    guidance_scale: float = 1.0,
    negative_prompt_embeds: torch.Tensor | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> torch.Tensor:
    """Denoise a batch of videos; scaled latents (B, F, C, H, W), padding frames in front included.

    The denoising loop of ``CogVideoXImageToVideoPipeline``, in the precision of ``prompt_embeds`` (B, L, D).
    ``image_latents``: (B, 1, C, H, W), scaled. ``noise``: the padded shape. ``guidance_scale`` 1 means no guidance;
    above 1 ``negative_prompt_embeds`` are required. ``generators``: one a video, for schedulers that draw noise at
    every step (DPM); required there, so that no draw comes from a global generator.
    """
    import torch
    from diffusers import CogVideoXDPMScheduler

    guided = guidance_scale > 1.0
    draws_noise = isinstance(scheduler, CogVideoXDPMScheduler)
    assert not guided or negative_prompt_embeds is not None, "guidance needs negative_prompt_embeds"
    assert not draws_noise or generators is not None, "this scheduler draws noise at every step: pass generators"
    dtype = prompt_embeds.dtype
    with torch.no_grad():
        condition = condition_latents(image_latents.to(dtype), noise.shape[1])
        latents = noise.to(dtype) * scheduler.init_noise_sigma
        if guided and negative_prompt_embeds is not None:
            prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
            condition = torch.cat([condition, condition])
        scheduler.set_timesteps(num_inference_steps, device=noise.device)
        timesteps = scheduler.timesteps
        previous_clean = None
        for index, timestep in enumerate(timesteps):
            model_input = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
            batch_timesteps = timestep.expand(model_input.shape[0])
            velocity = _velocity(transformer, model_input, condition, prompt_embeds, batch_timesteps)
            if guided:
                unconditional, conditional = velocity.chunk(2)
                velocity = unconditional + guidance_scale * (conditional - unconditional)
            if draws_noise:
                earlier = timesteps[index - 1] if index > 0 else None
                latents, previous_clean = scheduler.step(
                    velocity,
                    previous_clean,
                    timestep,
                    earlier,
                    latents,
                    generator=list(generators or ()),
                    return_dict=False,
                )
            else:
                latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            latents = latents.to(dtype)
    return latents
