"""Random miniature LTX-Video checkpoints in the layout of the stock pipelines, one kind a flavour."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from safetensors.torch import save_file

from trainers.prompt_embeds import EMPTY_PROMPT_FILE

TEXT_LENGTH, TEXT_CHANNELS, LATENT_CHANNELS = 6, 8, 8
SPATIAL_RATIO = 8


@dataclass(frozen=True)
class Kind:
    """What differs between the release 0.9 (2B) and 0.9.5 or later (13B)."""

    pipeline: str
    vae: dict
    scheduler: dict


KINDS = {
    "2b": Kind(
        "LTXPipeline",
        {
            "block_out_channels": (8,) * 4,
            "decoder_block_out_channels": (8,) * 4,
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 5,
        },
        {
            "use_dynamic_shifting": True,
            "base_shift": 0.95,
            "max_shift": 2.05,
            "base_image_seq_len": 1024,
            "max_image_seq_len": 4096,
            "shift_terminal": 0.1,
        },
    ),
    "13b": Kind(
        "LTXConditionPipeline",
        {
            "block_out_channels": (8,) * 5,
            "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 4,
            "spatio_temporal_scaling": (True,) * 4,
            "decoder_spatio_temporal_scaling": (True,) * 3,
            "decoder_inject_noise": (False,) * 4,
            "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            "upsample_residual": (True,) * 3,
            "upsample_factor": (2,) * 3,
            "timestep_conditioning": True,
            "spatial_compression_ratio": SPATIAL_RATIO,
            "temporal_compression_ratio": 8,
        },
        {"use_dynamic_shifting": False},
    ),
}


def random_transformer(**config) -> LTXVideoTransformer3DModel:
    settings = {
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "cross_attention_dim": 48,
        "num_layers": 2,
        "caption_channels": TEXT_CHANNELS,
    }
    transformer = LTXVideoTransformer3DModel(**(settings | config))
    for parameter in transformer.parameters():  # the default start hardly reacts to conditions; these weights do
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return transformer


def random_vae(kind: Kind, **config) -> AutoencoderKLLTXVideo:
    """Ratios 8 and 8. Its posterior has no width, so the pipeline's draw from it is its mode."""
    settings = {"latent_channels": LATENT_CHANNELS, "patch_size": 1, **kind.vae}
    vae = AutoencoderKLLTXVideo(**(settings | config))
    out = vae.encoder.conv_out.conv
    with torch.no_grad():
        out.weight[LATENT_CHANNELS:] = 0
        out.bias[LATENT_CHANNELS:] = -30
        vae.decoder.conv_out.conv.weight *= 4  # pictures of every colour, not of one grey
        vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, LATENT_CHANNELS))
        vae.latents_std.copy_(torch.linspace(0.2, 0.4, LATENT_CHANNELS))
    return vae


def write_tiny_checkpoint(folder: Path, flavor: str) -> Path:
    """``flavor``: the name after the slash, "2b" or "13b". Holds the neutral prompt's embedding, no text encoder."""
    kind = KINDS[flavor]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random_transformer().save_pretrained(folder / "transformer")
        random_vae(kind).save_pretrained(folder / "vae")
        prompt_embeds = torch.randn(1, TEXT_LENGTH, TEXT_CHANNELS)
    FlowMatchEulerDiscreteScheduler(**kind.scheduler).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind.pipeline}))
    mask = torch.arange(TEXT_LENGTH)[None] < 2  # a word and the end of the text; the rest is padding
    save_file({"prompt_embeds": prompt_embeds, "prompt_attention_mask": mask}, folder / EMPTY_PROMPT_FILE)
    return folder
