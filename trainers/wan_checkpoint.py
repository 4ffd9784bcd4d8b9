"""Reading a Wan checkpoint: transformers, image encoder, scheduler and the prompt's embedding.

A checkpoint is a hub repository or a local folder in the layout of ``WanImageToVideoPipeline``. Shapes: L text tokens,
D text channels.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from trainers.backbone import BackboneSpec
from trainers.loading import whole_model
from trainers.precision import QUANTIZED, base_dtype, loading_options
from trainers.prompt_embeds import prompt_embeds
from trainers.recipe import TrainRecipe
from trainers.wan_diffusion import TEMPORAL_RATIO, Denoiser

if TYPE_CHECKING:
    import torch

INITIALISATION_SEED = 0
"""Of specs with ``pretrained=False``: one fixed draw of the weights."""
TEXT_TOKENS = 512
"""Length of every text embedding; image cross-attention counts on it (``WanAttnProcessor``)."""
EXPERT_NAMES = ("transformer", "transformer_2")
"""Subfolders of a checkpoint: high noise (or all noise), and low noise."""
FLOW_PREDICTION = "flow_prediction"


def load_denoiser(
    path: str, spec: BackboneSpec, recipe: TrainRecipe, num_train_timesteps: int, device: str
) -> Denoiser:
    """The transformer, or both experts, on ``device``, conditioned as the checkpoint's configuration says.

    ValueError, before any weights are read, for a checkpoint that does not go on from one first picture.
    """
    from diffusers import AutoencoderKLWan, DiffusionPipeline, WanTransformer3DModel

    pipeline = DiffusionPipeline.load_config(path, revision=spec.revision)
    boundary_ratio = pipeline.get("boundary_ratio")
    names = EXPERT_NAMES[:1] if boundary_ratio is None else EXPERT_NAMES
    for name in names:
        if pipeline.get(name, (None, None))[1] != WanTransformer3DModel.__name__:
            raise ValueError(
                f"{path}: no {name} of a Wan model: {pipeline.get(name)}; valid: {WanTransformer3DModel.__name__}"
            )
    vae = AutoencoderKLWan.load_config(path, subfolder="vae", revision=spec.revision)
    transformer = WanTransformer3DModel.load_config(path, subfolder=EXPERT_NAMES[0], revision=spec.revision)
    expand_timesteps = bool(pipeline.get("expand_timesteps"))
    latent_channels, in_channels = vae.get("z_dim", 16), transformer.get("in_channels", 16)
    expected = latent_channels if expand_timesteps else 2 * latent_channels + TEMPORAL_RATIO
    if in_channels != expected:
        raise ValueError(f"{path}: not a Wan image-to-video model: {in_channels} input channels; valid: {expected}")
    if transformer.get("pos_embed_seq_len") is not None:
        raise ValueError(f"{path}: this Wan model needs a last picture too; valid: models of a first picture only")
    if vae.get("scale_factor_temporal", TEMPORAL_RATIO) != TEMPORAL_RATIO:
        raise ValueError(f"{path}: {vae['scale_factor_temporal']} frames a latent frame; valid: {TEMPORAL_RATIO}")
    return Denoiser(
        experts=tuple(_load_transformer(path, spec, name, recipe, device) for name in names),
        boundary_timestep=None if boundary_ratio is None else boundary_ratio * num_train_timesteps,
        expand_timesteps=expand_timesteps,
    )


def _load_transformer(path: str, spec: BackboneSpec, name: str, recipe: TrainRecipe, device: str) -> Any:
    """One expert on ``device``; where its weights are drawn, the layers that diffusers keeps in float32 are float32."""
    import torch
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng(devices=[]):  # also loading draws weights, before those of the file replace them
        if spec.pretrained:
            transformer = whole_model(
                WanTransformer3DModel,
                path,
                subfolder=name,
                revision=spec.revision,
                use_safetensors=True,
                **loading_options(recipe, "diffusers", device),
            )
            return transformer if recipe.precision in QUANTIZED else transformer.to(device)
        torch.manual_seed(INITIALISATION_SEED + EXPERT_NAMES.index(name))
        config = WanTransformer3DModel.load_config(path, subfolder=name, revision=spec.revision)
        transformer = WanTransformer3DModel.from_config(config)
    in_float32 = set(WanTransformer3DModel._keep_in_fp32_modules)
    for parameter_name, parameter in transformer.named_parameters():
        if not in_float32 & set(parameter_name.split(".")):
            parameter.data = parameter.data.to(base_dtype(recipe))
    return transformer.to(device)


def load_image_encoder(path: str, revision: str | None) -> tuple[Any, Any]:
    """CLIP's vision model in float32 and its image processor: the one of Pillow, alike on every machine."""
    import torch
    import transformers

    options: dict[str, Any] = {"revision": revision or "main"}
    image_encoder = whole_model(
        transformers.CLIPVisionModel,
        path,
        subfolder="image_encoder",
        use_safetensors=True,
        dtype=torch.float32,
        **options,
    )
    processor_class = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return image_encoder, processor_class.from_pretrained(path, subfolder="image_processor", **options)


def load_scheduler(path: str, revision: str | None) -> Any:
    """The scheduler of the folder or repository, in the class that its configuration names (UniPC or Euler)."""
    import diffusers

    config = diffusers.UniPCMultistepScheduler.load_config(path, subfolder="scheduler", revision=revision)
    classes = {
        cls.__name__: cls for cls in (diffusers.UniPCMultistepScheduler, diffusers.FlowMatchEulerDiscreteScheduler)
    }
    name = config["_class_name"]
    if name not in classes:
        raise ValueError(f"{path}: scheduler {name!r}; valid schedulers: {', '.join(classes)}")
    scheduler = classes[name].from_config(config)
    prediction = scheduler.config.get("prediction_type", FLOW_PREDICTION)
    if prediction != FLOW_PREDICTION or not scheduler.config.get("use_flow_sigmas", True):
        raise ValueError(
            f"{path}: scheduler with prediction_type = {prediction!r}, use_flow_sigmas = "
            f"{scheduler.config.get('use_flow_sigmas')}; valid: {FLOW_PREDICTION!r}, True"
        )
    return scheduler


def embed_prompt(path: str, revision: str | None, prompt: str, device: str) -> torch.Tensor:
    """UMT5's last hidden states of a prompt (1, L, D), on the CPU, in bfloat16 as published.

    As ``WanImageToVideoPipeline._get_t5_prompt_embeds``: padding is masked, cut off, and zeros take its place. Computed
    once, then read from a file; see ``trainers.prompt_embeds``.
    """
    import torch
    from transformers import AutoTokenizer, UMT5EncoderModel

    def compute() -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {"revision": revision or "main"}
        tokenizer = AutoTokenizer.from_pretrained(path, subfolder="tokenizer", **options)
        text_encoder: Any = UMT5EncoderModel.from_pretrained(
            path, subfolder="text_encoder", use_safetensors=True, dtype=torch.bfloat16, **options
        )
        text_encoder.to(device)
        tokens = tokenizer(
            [cleaned_prompt(prompt)],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(device)
        with torch.no_grad():
            hidden_states = text_encoder(tokens.input_ids.to(device), mask).last_hidden_state
        return {"prompt_embeds": hidden_states.masked_fill(mask[..., None] == 0, 0)}

    return prompt_embeds(path, revision, prompt, compute)["prompt_embeds"]


def cleaned_prompt(prompt: str) -> str:
    """diffusers' ``prompt_clean`` of the Wan pipelines: broken text mended, HTML entities read, one space at a time.

    Text is mended by ftfy, which leaves plain ASCII as it is. ValueError for other text where ftfy is not installed.
    """
    if not prompt.isascii():
        try:
            import ftfy
        except ImportError:
            raise ValueError(
                f"recipe.prompt = {prompt!r}: characters beyond ASCII need ftfy: pip install ftfy"
            ) from None
        prompt = ftfy.fix_text(prompt)
    return " ".join(html.unescape(html.unescape(prompt)).split())
