"""Tiny random Wan checkpoints of all kinds, in the layout of ``WanImageToVideoPipeline``."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from trainers.prompt_embeds import EMPTY_PROMPT_FILE

LATENT_CHANNELS, TEXT_TOKENS, TEXT_CHANNELS, IMAGE_CHANNELS = 4, 512, 16, 16
BOUNDARY_RATIO = 0.8

TRANSFORMERS = {
    "2.1-14b-i2v": {
        "in_channels": 2 * LATENT_CHANNELS + 4,
        "image_dim": IMAGE_CHANNELS,
        "added_kv_proj_dim": 32,
    },
    "2.2-5b-ti2v": {"in_channels": LATENT_CHANNELS},
    "2.2-a14b-i2v": {"in_channels": 2 * LATENT_CHANNELS + 4},
}
VAES = {
    "2.2-5b-ti2v": {
        "is_residual": True,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "in_channels": 12,
        "out_channels": 12,
    }
}
FLOW_SHIFTS = {"2.1-14b-i2v": 3.0, "2.2-5b-ti2v": 5.0, "2.2-a14b-i2v": 3.0}


def write_tiny_checkpoint(folder: Path, flavor: str) -> Path:
    """Random weights, the same for every call; ``flavor``: a name after ``wan/``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        two_experts = "a14b" in flavor
        image_encoder = image_processor = None
        if "image_dim" in TRANSFORMERS[flavor]:
            image_encoder, image_processor = _random_image_encoder()
        pipeline = WanImageToVideoPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=_random_vae(flavor),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFTS[flavor]
            ),
            image_encoder=image_encoder,
            image_processor=image_processor,
            transformer=_random_transformer(flavor),
            transformer_2=_random_transformer(flavor) if two_experts else None,
            boundary_ratio=BOUNDARY_RATIO if two_experts else None,
            expand_timesteps="ti2v" in flavor,
        )
        pipeline.save_pretrained(folder)
        prompt_embeds = torch.zeros(1, TEXT_TOKENS, TEXT_CHANNELS)
        prompt_embeds[:, 0] = torch.randn(TEXT_CHANNELS)  # the empty prompt is one token, the rest is padding
        save_file({"prompt_embeds": prompt_embeds}, folder / EMPTY_PROMPT_FILE)
    return folder


def _random_transformer(flavor: str) -> WanTransformer3DModel:
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_CHANNELS,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=32,
        **TRANSFORMERS[flavor],
    )
    for name, parameter in transformer.named_parameters():
        if parameter.ndim > 1 and "scale_shift_table" not in name:  # the default start hardly reacts to conditions
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer


def _random_vae(flavor: str) -> AutoencoderKLWan:
    """Spreads as those of trained models: of latents, once they are normalised, one; of pixels about a half."""
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        **VAES.get(flavor, {}),
    )
    tiles = np.random.default_rng(0).random((8, 3, 5, 8, 8))
    pixels = torch.from_numpy(tiles.repeat(8, axis=3).repeat(8, axis=4)).float() * 2 - 1
    decoded: list[torch.Tensor] = []
    out = vae.decoder.conv_out
    hook = out.register_forward_hook(lambda module, args, output: decoded.append(output))
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
        vae.decode(latents)
        std, mean = torch.std_mean(torch.cat(decoded, dim=2), dim=(0, 2, 3, 4))
        contrast = 0.6 / std
        out.weight *= contrast.view(-1, 1, 1, 1, 1)
        out.bias.copy_((out.bias - mean) * contrast)
    hook.remove()
    vae.register_to_config(
        latents_mean=latents.mean(dim=(0, 2, 3, 4)).tolist(), latents_std=latents.std(dim=(0, 2, 3, 4)).tolist()
    )
    return vae


def _random_image_encoder() -> tuple[CLIPVisionModel, CLIPImageProcessorPil]:
    config = CLIPVisionConfig(
        hidden_size=IMAGE_CHANNELS,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    size = {"shortest_edge": 28}
    return CLIPVisionModel(config), CLIPImageProcessorPil(size=size, crop_size={"height": 28, "width": 28})
