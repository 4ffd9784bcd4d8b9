"""In which precision the frozen base is loaded; LoRA weights, gradients and the optimizer stay float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    import torch

QUANTIZED = ("int8", "nf4")


def base_dtype(recipe: TrainRecipe) -> torch.dtype:
    """The floating-point type that the base computes in: float32, or bfloat16 (also of a base of 8 or 4 bits)."""
    import torch

    return torch.float32 if recipe.precision == "fp32" else torch.bfloat16


def loading_options(recipe: TrainRecipe, library: Literal["diffusers", "transformers"], device: str) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for the base itself (not for a VAE or a text encoder).

    With 8 or 4 bits (LLM.int8, arXiv 2208.07339; NF4 with double quantization, arXiv 2305.14314) the module lies on
    ``device`` once loaded, and must not be cast; ``check_quantization`` says whether they can be had.
    """
    dtype_name = "torch_dtype" if library == "diffusers" else "dtype"
    options: dict[str, Any] = {dtype_name: base_dtype(recipe)}
    if recipe.precision not in QUANTIZED:
        return options
    import torch

    if library == "diffusers":
        from diffusers import BitsAndBytesConfig
    else:
        from transformers import BitsAndBytesConfig
    if recipe.precision == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return options | {"quantization_config": config, "device_map": {"": device}}


def check_quantization(pretrained: bool, recipe: TrainRecipe, device: str) -> None:
    """ValueError when the base is to have 8 or 4 bits and cannot: no GPU, no bitsandbytes, random weights."""
    if recipe.precision not in QUANTIZED:
        return
    from importlib.util import find_spec

    if device == "cpu":
        raise ValueError(f"recipe.precision = {recipe.precision}: needs a GPU; on a CPU choose fp32 or bf16")
    if not pretrained:
        raise ValueError(f"recipe.precision = {recipe.precision}: random weights have fp32 or bf16")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"recipe.precision = {recipe.precision}: needs bitsandbytes: pip install '.[quantized]'")
