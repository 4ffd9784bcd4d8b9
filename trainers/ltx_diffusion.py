"""The flow matching of LTX-Video image-to-video: training loss and sampler, as pure functions of latents.

The sampler is that of diffusers' ``LTXImageToVideoPipeline`` or ``LTXConditionPipeline`` (whichever the checkpoint
names) without pictures, VAE and text encoder. The loss is that of Lightricks' LTX-Video-Trainer, with the pipeline's
conditioning. Tests hold both against diffusers.

Shapes: B batch, C latent channels, F latent frames, H and W latent height and width, S = F H W tokens, L text tokens,
D text channels. Latents are (B, C, F, H, W), float32; the first latent frame is the question's picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

FRAME_RATE_HZ = 25
"""The pipelines' default, which places frames in time for the model; open in the paper. The trainer takes a file's own
rate, and 24 without one."""

TEMPORAL_RATIO = 8
"""Pixel frames a latent frame; the first latent frame holds one."""


@dataclass(frozen=True)
class Convention:
    """What differs between the two pipelines, in training as in sampling."""

    causal_positions: bool
    """True (checkpoints since 0.9.5): latent frame k > 0 stands at the first pixel frame that it holds, 8 k - 7. False:
    at 8 k. The trainer knows 8 k alone, in conflict with the pipeline that samples 0.9.5 and later; we train as the
    pipeline samples."""
    linear_quadratic: bool
    """True: half of the sampling steps lie at noise levels above 0.975. False: levels as the scheduler shifts them."""
    max_text_tokens: int
    masks_text_encoder: bool
    """True: padding is hidden from the text encoder too, not from the transformer alone."""
    spatial_ratio: int = 32
    """Pixels a latent pixel, per side; the VAE's."""


IMAGE_TO_VIDEO = Convention(
    causal_positions=False, linear_quadratic=False, max_text_tokens=128, masks_text_encoder=False
)
CONDITION = Convention(causal_positions=True, linear_quadratic=True, max_text_tokens=256, masks_text_encoder=True)


def training_timesteps(num_tokens: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """The trainer's draw, (size,), float32 in 0 .. 1000: logit-normal, shifted towards noise for longer videos.

    The shift goes linearly through 0.95 at 1024 tokens and 2.05 at 4096, and on beyond both, as upstream.
    """
    import torch

    shift = 0.95 + (num_tokens - 1024) * (2.05 - 0.95) / (4096 - 1024)
    return torch.sigmoid(torch.randn(size, generator=generator) + shift) * 1000


def sampling_timesteps(
    convention: Convention, scheduler: Any, num_inference_steps: int, num_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(timesteps, noise levels) that ``sample_latents`` visits, descending, float32 on the CPU.

    The levels have one entry more, the last: 0. ValueError when the schedule has no such number of steps.
    """
    if scheduler.config.shift_terminal and num_inference_steps < 2:  # one level cannot be both the first and the last
        raise ValueError(f"recipe.num_inference_steps = {num_inference_steps}: this checkpoint takes 2 or more")
    # The schedules are the pipelines', call for call: float32 and float64 in the same places.
    if convention.linear_quadratic:
        from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule

        timesteps = (linear_quadratic_schedule(num_inference_steps) * 1000).numpy().astype(np.float32)
        scheduler.set_timesteps(num_inference_steps, sigmas=timesteps / 1000, timesteps=timesteps)
    else:
        from diffusers.pipelines.ltx.pipeline_ltx_image2video import calculate_shift

        config = scheduler.config
        scheduler.set_timesteps(
            num_inference_steps,
            sigmas=np.linspace(1.0, 1 / num_inference_steps, num_inference_steps),
            mu=calculate_shift(
                num_tokens,
                config.get("base_image_seq_len", 256),
                config.get("max_image_seq_len", 4096),
                config.get("base_shift", 0.5),
                config.get("max_shift", 1.15),
            ),
        )
    return scheduler.timesteps.clone(), scheduler.sigmas.clone()


def noise_latents(
    image_latents_BCFHW: torch.Tensor, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The video at noise levels ``timesteps`` / 1000, (B,), behind the picture's one clean latent frame.

    x_t = (1 - s) x_0 + s noise (Lipman et al. 2022, arXiv 2210.02747). The first latent frame of ``latents`` and
    ``noise`` is without effect.
    """
    import torch

    levels = (timesteps / 1000).view(-1, 1, 1, 1, 1)
    noisy = (1 - levels) * latents + levels * noise
    return torch.cat([image_latents_BCFHW, noisy[:, :, 1:]], dim=2)


def velocity(
    transformer: Any,
    convention: Convention,
    latents_BCFHW: torch.Tensor,
    prompt_embeds_BLD: torch.Tensor,
    prompt_mask_BL: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """One forward pass in the precision of ``prompt_embeds``; the predicted noise - x_0, float32, shape of the latents.

    ``timesteps``: (B,), float32 in 0 .. 1000. Tokens of the first latent frame, the picture, are told timestep 0.
    """
    import torch

    batch, _, frames, height, width = latents_BCFHW.shape
    token_timesteps = timesteps.unsqueeze(1).repeat(1, frames * height * width)
    token_timesteps[:, : height * width] = 0
    # Tokens are latent pixels: published checkpoints have patches of one.
    output_BSC = transformer(
        hidden_states=latents_BCFHW.flatten(2).transpose(1, 2).to(prompt_embeds_BLD.dtype),
        encoder_hidden_states=prompt_embeds_BLD,
        timestep=token_timesteps,
        encoder_attention_mask=prompt_mask_BL,
        return_dict=False,
        **_positions(convention, batch, (frames, height, width), latents_BCFHW.device),
    )[0]
    assert torch.is_tensor(output_BSC)
    return output_BSC.float().transpose(1, 2).unflatten(2, (frames, height, width))


def flow_matching_loss(
    transformer: Any,
    convention: Convention,
    image_latents_BCFHW: torch.Tensor,
    video_latents_BCFHW: torch.Tensor,
    prompt_embeds_BLD: torch.Tensor,
    prompt_mask_BL: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the predicted noise - x_0, one float32 value an example, shape (B,).

    As the trainer's with first-frame conditioning: the first latent frame is clean, has timestep 0 and is left out.
    The trainer conditions a share of its examples (0.1 by default), to keep text-to-video alive; here every question
    is a picture, so every example is conditioned. It also rounds the timestep that it tells the model to an integer;
    the pipelines do not, nor does this.

    ``image_latents`` have one frame. ``timesteps``: (B,), float32 in 0 .. 1000. Noising and loss are float32 in every
    precision of the model.
    """
    assert noise.shape == video_latents_BCFHW.shape, f"noise {tuple(noise.shape)}"
    noisy = noise_latents(image_latents_BCFHW, video_latents_BCFHW, noise, timesteps)
    predicted = velocity(transformer, convention, noisy, prompt_embeds_BLD, prompt_mask_BL, timesteps)
    error = (predicted - (noise - video_latents_BCFHW))[:, :, 1:]
    return error.square().flatten(1).mean(dim=1)


def sample_latents(
    transformer: Any,
    convention: Convention,
    scheduler: Any,
    image_latents_BCFHW: torch.Tensor,
    prompt_embeds_BLD: torch.Tensor,
    prompt_mask_BL: torch.Tensor,
    noise: torch.Tensor,
    num_inference_steps: int,
    guidance_scale: float = 1.0,
    negative_prompt: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Denoise a batch of videos by Euler steps: latents (B, C, F, H, W), float32, picture in front.

    ``image_latents``: (B, C, 1, H, W). ``noise``: the shape of the result. ``guidance_scale`` 1 means no guidance;
    above 1 ``negative_prompt`` (embeddings (B, L, D) and mask (B, L)) is required. ValueError as in
    ``sampling_timesteps``.

    Equal to ``LTXConditionPipeline`` with image_cond_noise_scale = 0. Its default, 0.15, noises the picture, for
    livelier motion; here every cell of the picture counts, and training shows it clean, so sampling does too.
    """
    import torch

    guided = guidance_scale > 1.0
    timesteps, levels = sampling_timesteps(convention, scheduler, num_inference_steps, noise[0, 0].numel())
    embeds, mask = prompt_embeds_BLD, prompt_mask_BL
    if guided:
        assert negative_prompt is not None, "guidance needs a negative prompt"
        embeds, mask = torch.cat([negative_prompt[0], embeds]), torch.cat([negative_prompt[1], mask])
    with torch.no_grad():
        latents = torch.cat([image_latents_BCFHW, noise[:, :, 1:]], dim=2).float()
        for index, timestep in enumerate(timesteps.to(noise.device)):
            model_input = torch.cat([latents, latents]) if guided else latents
            slope = velocity(transformer, convention, model_input, embeds, mask, timestep.expand(len(model_input)))
            if guided:
                unconditional, conditional = slope.chunk(2)
                slope = unconditional + guidance_scale * (conditional - unconditional)
            step = (levels[index + 1] - levels[index]).to(noise.device)
            latents = torch.cat([latents[:, :, :1], latents[:, :, 1:] + step * slope[:, :, 1:]], dim=2)
    return latents


def _positions(
    convention: Convention, batch: int, latent_size: tuple[int, int, int], device: torch.device | str
) -> dict[str, Any]:
    """Where each token stands, in seconds and pixels, in the form in which the pipeline tells the transformer."""
    import torch

    temporal_scale_s, spatial_ratio = TEMPORAL_RATIO / FRAME_RATE_HZ, convention.spatial_ratio
    if not convention.causal_positions:
        frames, height, width = latent_size
        scale = (temporal_scale_s, spatial_ratio, spatial_ratio)
        return {"num_frames": frames, "height": height, "width": width, "rope_interpolation_scale": scale}
    grid = torch.meshgrid(*(torch.arange(side, device=device) for side in latent_size), indexing="ij")
    frame, row, column = (axis.flatten() for axis in grid)
    pixel_frame = (frame * TEMPORAL_RATIO + 1 - TEMPORAL_RATIO).clamp(min=0)
    coordinates = torch.stack([pixel_frame, row * spatial_ratio, column * spatial_ratio]).float()
    coordinates[0] *= 1.0 / FRAME_RATE_HZ
    return {"video_coords": coordinates.expand(batch, -1, -1)}
