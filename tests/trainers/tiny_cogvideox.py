"""Random miniature CogVideoX checkpoints of both published generations, in the layout of the stock pipeline."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import save_file

from trainers.prompt_embeds import EMPTY_PROMPT_FILE

TEXT_LENGTH, TEXT_CHANNELS, LATENT_CHANNELS, SCALING_FACTOR = 4, 8, 4, 0.7
PUBLISHED_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "snr_shift_scale": 1.0,
    "clip_sample": False,
}


@dataclass(frozen=True)
class Generation:
    """What differs between CogVideoX 1.0 and 1.5 image-to-video models."""

    transformer: dict
    invert_scale_latents: bool


GENERATIONS = {
    "1.0": Generation({"patch_size": 2, "sample_height": 6, "sample_width": 8}, False),
    "1.5": Generation(
        {"patch_size": 1, "patch_size_t": 2, "ofs_embed_dim": 16, "sample_height": 8, "sample_width": 8}, True
    ),
}


def random_transformer(generation: Generation) -> CogVideoXTransformer3DModel:
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=16,
        text_embed_dim=TEXT_CHANNELS,
        num_layers=2,
        max_text_seq_length=TEXT_LENGTH,
        use_rotary_positional_embeddings=True,
        **generation.transformer,
    )
    for parameter in transformer.parameters():  # the default start hardly reacts to conditions; these weights do
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return transformer


def random_vae(generation: Generation) -> AutoencoderKLCogVideoX:
    """Spatial factor 4, temporal factor 4. Its posterior has no width, so the pipeline's draw from it is its mode."""
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(8,) * 3,
        layers_per_block=0,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        scaling_factor=SCALING_FACTOR,
        invert_scale_latents=generation.invert_scale_latents,
    )
    out = vae.encoder.conv_out.conv
    with torch.no_grad():
        out.weight[:LATENT_CHANNELS] *= 5  # latents of a spread near one, as those of trained models
        out.weight[LATENT_CHANNELS:] = 0
        out.bias[LATENT_CHANNELS:] = -30
    return vae


def save_backbone(folder: Path, generation: Generation, scheduler_class: type = CogVideoXDDIMScheduler) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random_transformer(generation).save_pretrained(folder / "transformer")
        random_vae(generation).save_pretrained(folder / "vae")
        scheduler_class(**PUBLISHED_SCHEDULE).save_pretrained(folder / "scheduler")
        prompt_embeds = torch.randn(1, TEXT_LENGTH, TEXT_CHANNELS)
        save_file({"prompt_embeds": prompt_embeds}, folder / EMPTY_PROMPT_FILE)
    return folder


def write_tiny_checkpoint(folder: Path, flavor: str) -> Path:
    """Of the generation of the flavour: 1.5, as all that are published for image-to-video but one."""
    return save_backbone(folder, GENERATIONS[flavor.split("-")[0]])
