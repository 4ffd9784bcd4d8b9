"""The diffusion of Wan image-to-video (arXiv 2503.20314): training loss and sampler, as pure functions of latents.

The sampler is ``WanImageToVideoPipeline`` without pictures, VAE and text encoder; the loss is flow matching with the
pipeline's conditioning. Tests hold both against diffusers.

Shapes: B batch, C latent channels, F latent frames, H and W latent height and width, T image tokens, L text tokens,
D channels of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.engine import world

if TYPE_CHECKING:
    import torch

    from trainers.backbone import Batch

TEMPORAL_RATIO = 4
"""Frames a latent frame; the mask that stands beside the condition has one channel for each of them."""


@dataclass(frozen=True)
class Denoiser:
    """The transformers of a checkpoint, and how they see question, noise and time.

    Two kinds of conditioning. Beside the noise (``expand_timesteps`` false): mask and condition are further input
    channels. In place of it (``expand_timesteps`` true, 2.2 TI2V): the first latent frame is the picture, at time 0.
    """

    experts: tuple[Any, ...]
    """One transformer, or that for high noise and that for low noise."""
    boundary_timestep: float | None
    """Where high noise begins, included; None with one transformer."""
    expand_timesteps: bool

    def expert_at(self, timestep: float) -> Any:
        """The transformer that the pipeline uses at this timestep."""
        return self.experts[0 if self.boundary_timestep is None or timestep >= self.boundary_timestep else -1]

    def velocity(
        self,
        expert: Any,
        latents_BCFHW: torch.Tensor,
        condition: Batch,
        prompt_embeds_BLD: torch.Tensor,
        timesteps_B: torch.Tensor,
    ) -> torch.Tensor:
        """One forward pass in the precision of ``prompt_embeds``: noise - clean latents, shape of the noisy latents.

        ``condition``: ``condition_latents`` (B, C, F, H, W) of the picture followed by mid-grey frames, or (B, C, 1,
        H, W) of the picture alone; ``image_embeds`` (B, T, D) for models that have image cross-attention.
        """
        import torch

        condition_latents = condition["condition_latents"]
        if self.expand_timesteps:
            model_input = torch.cat([condition_latents, latents_BCFHW[:, :, 1:]], dim=2)
            timesteps = token_timesteps(timesteps_B, latents_BCFHW.shape, expert.config.patch_size)
        else:
            model_input = torch.cat([latents_BCFHW, picture_mask(condition_latents), condition_latents], dim=1)
            timesteps = timesteps_B
        image_embeds = condition.get("image_embeds")
        return expert(
            hidden_states=model_input.to(prompt_embeds_BLD.dtype),
            timestep=timesteps,
            encoder_hidden_states=prompt_embeds_BLD,
            encoder_hidden_states_image=None if image_embeds is None else image_embeds.to(prompt_embeds_BLD.dtype),
            return_dict=False,
        )[0]


def picture_mask(condition_latents_BCFHW: torch.Tensor) -> torch.Tensor:
    """(B, 4, F, H, W): 1 where the condition shows the picture, which is the whole first latent frame; else 0.

    ``WanImageToVideoPipeline.prepare_latents`` repeats the first frame's mask four times, and so fills that frame.
    """
    batch, _, *sizes = condition_latents_BCFHW.shape
    mask = condition_latents_BCFHW.new_zeros(batch, TEMPORAL_RATIO, *sizes)
    mask[:, :, 0] = 1
    return mask


def token_timesteps(timesteps_B: torch.Tensor, latent_shape: Sequence[int], patch_size: Sequence[int]) -> torch.Tensor:
    """A time for every token, float32 (B, tokens): 0 in the first latent frame, which is clean."""
    _, _, frames, height, width = latent_shape
    tokens_a_frame = -(-height // patch_size[1]) * -(-width // patch_size[2])
    times = timesteps_B.float()[:, None, None].repeat(1, frames, tokens_a_frame)
    times[:, 0] = 0
    return times.flatten(1)


def noise_levels(scheduler: Any, num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The timesteps (as the transformer sees them) and the shares of noise at which ``num_steps`` steps evaluate it.

    Both (num_steps,), descending, on the CPU. UniPC cuts timesteps down to whole numbers, its shares of noise not.
    """
    fresh = fresh_scheduler(scheduler)
    fresh.set_timesteps(num_steps)
    return fresh.timesteps, fresh.sigmas[:num_steps]


def fresh_scheduler(scheduler: Any) -> Any:
    """A scheduler of the same class and settings without a past: UniPC remembers the steps of an earlier run."""
    return type(scheduler).from_config(scheduler.config)


def flow_matching_loss(
    denoiser: Denoiser,
    video_latents_BCFHW: torch.Tensor,
    condition: Batch,
    prompt_embeds_BLD: torch.Tensor,
    noise: torch.Tensor,
    timesteps_B: torch.Tensor,
    sigmas_B: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the velocity noise - clean, at (1 - sigma) clean + sigma noise: float32 (B,).

    Which weighting the paper used is open. Here every noise level counts alike, as in diffusion-pipe; DiffSynth-Studio
    adds a bell-shaped weight. A first latent frame that is given clean is left out: nothing is predicted there.
    ``condition`` as in ``Denoiser.velocity``. Noising and loss are float32 in every precision of the model.
    """
    clean, noise = video_latents_BCFHW.float(), noise.float()
    sigmas = sigmas_B.float().view(-1, 1, 1, 1, 1)
    noisy = (1 - sigmas) * clean + sigmas * noise
    velocity = _velocity_by_experts(denoiser, noisy, condition, prompt_embeds_BLD, timesteps_B)
    squared_error = (velocity - (noise - clean)) ** 2
    if denoiser.expand_timesteps:
        squared_error = squared_error[:, :, 1:]
    return squared_error.flatten(1).mean(dim=1)


def _velocity_by_experts(
    denoiser: Denoiser, noisy: torch.Tensor, condition: Batch, prompt_embeds: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The velocity of each example from the one expert of its timestep; float32.

    An expert without examples gets a gradient of zero, not none: AdamW then treats it as ZeRO does, which keeps all
    gradients in one buffer.
    """
    import torch

    if denoiser.boundary_timestep is None:
        return denoiser.velocity(denoiser.experts[0], noisy, condition, prompt_embeds, timesteps).float()
    is_low_noise = timesteps < denoiser.boundary_timestep
    rows, velocities = [], []
    nothing = noisy.new_zeros(())
    for expert, is_its_own in zip(denoiser.experts, (~is_low_noise, is_low_noise), strict=True):
        own = is_its_own.nonzero().flatten()
        idle = len(own) == 0
        if idle and not _runs_with_others(expert):
            trained = [parameter.sum() for parameter in expert.parameters() if parameter.requires_grad]
            nothing = nothing + (0 * torch.stack(trained).sum() if trained else 0)
            continue
        chosen = own.new_zeros(1) if idle else own
        part = {name: tensor[chosen] for name, tensor in condition.items()}
        velocity = denoiser.velocity(expert, noisy[chosen], part, prompt_embeds[chosen], timesteps[chosen]).float()
        if idle:
            nothing = nothing + 0 * velocity.sum()
        else:
            rows.append(own)
            velocities.append(velocity)
    return torch.cat(velocities)[torch.cat(rows).argsort()] + nothing


def _runs_with_others(expert: Any) -> bool:
    """Whether a rank may not skip a forward pass of ``expert``.

    ZeRO-3 gathers weights in the order of the forward passes, ZeRO-1 and 2 sum gradients in the order of the backward
    passes; ranks that go in different orders wait for ever, or sum the wrong ones.
    """
    return world().size > 1 or any(hasattr(parameter, "ds_id") for parameter in expert.parameters())


def sample_latents(
    denoiser: Denoiser,
    scheduler: Any,
    condition: Batch,
    prompt_embeds_BLD: torch.Tensor,
    noise_BCFHW: torch.Tensor,
    num_inference_steps: int,
    guidance_scale: float = 1.0,
    negative_prompt_embeds_BLD: torch.Tensor | None = None,
) -> torch.Tensor:
    """Denoise a batch of videos: normalised latents (B, C, F, H, W).

    The denoising loop of ``WanImageToVideoPipeline``: latents in float32, the transformer in the precision of
    ``prompt_embeds``. ``condition`` as in ``Denoiser.velocity``. ``guidance_scale`` 1 means no guidance; above 1
    ``negative_prompt_embeds`` are required, and both experts are guided by it. ``scheduler`` is left untouched.
    """
    import torch

    guided = guidance_scale > 1
    assert not guided or negative_prompt_embeds_BLD is not None, "guidance needs negative_prompt_embeds"
    scheduler = fresh_scheduler(scheduler)
    scheduler.set_timesteps(num_inference_steps, device=noise_BCFHW.device)
    latents = noise_BCFHW.float()
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            expert, timesteps = denoiser.expert_at(float(timestep)), timestep.expand(len(latents))
            velocity = denoiser.velocity(expert, latents, condition, prompt_embeds_BLD, timesteps)
            if guided and negative_prompt_embeds_BLD is not None:
                unguided = denoiser.velocity(expert, latents, condition, negative_prompt_embeds_BLD, timesteps)
                velocity = unguided + guidance_scale * (velocity - unguided)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        if denoiser.expand_timesteps:
            latents = torch.cat([condition["condition_latents"].to(latents.dtype), latents[:, :, 1:]], dim=2)
    return latents
