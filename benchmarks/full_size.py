"""One LoRA training step of the full-size models on a GPU: time, model FLOP utilisation and memory, random weights.

    python -m benchmarks.full_size [--only qwen3-4b|cogvideox1.5-5b] [--steps 8]

The architectures are those of the published configuration files, the weights are random, so nothing is downloaded.
CogVideoX1.5-5B: 9 frames of 336 x 336, rank 64, batch 2. Qwen3-4B: sequences of 1,024 tokens, rank 32, batch 8. Base in
bfloat16, LoRA in float32, plain torch, with and without gradient checkpointing, micro-batches of 1, 2 ...

Model FLOPs of a step count 4 P T for the frozen linear layers (forward, and backward to the activations; there is no
gradient of frozen weights) and 12 L S T D for attention (S keys a token), without what checkpointing repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trainers import lora
from trainers.backbone import BackboneSpec
from trainers.backbones import causal_lm, cogvideox
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

PEAK_BF16_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bfloat16 peaks by part of the device's name, from NVIDIA's data sheets."""

QWEN3_4B = {
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "vocab_size": 151936,
    "max_position_embeddings": 262144,
    "tie_word_embeddings": True,
}
COGVIDEOX_15_5B = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "in_channels": 32,
    "out_channels": 16,
    "time_embed_dim": 512,
    "ofs_embed_dim": 512,
    "text_embed_dim": 4096,
    "num_layers": 42,
    "patch_size": 2,
    "patch_size_t": 2,
    "sample_width": 300,
    "sample_height": 300,
    "sample_frames": 81,
    "max_text_seq_length": 224,
    "use_rotary_positional_embeddings": True,
    "patch_bias": False,
}
SEQUENCE_TOKENS = 1024
PICTURE_PX = 336


@dataclass(frozen=True)
class Case:
    """A loaded model with examples, and what a step of it costs."""

    name: str
    backbone: Any
    examples: list[dict[str, torch.Tensor]]
    recipe: TrainRecipe
    lora_rank: int
    flops_a_sample: float


def qwen3(device: str, small: bool) -> Case:
    """Qwen3-4B on random tokens, half of each sequence the answer."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(
        **QWEN3_4B | ({"num_hidden_layers": 1, "hidden_size": 256, "vocab_size": 512} if small else {})
    )
    with torch.device(device):
        module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    module.requires_grad_(False)
    spec = BackboneSpec(name="causal_lm/random", family="language", lora_targets=causal_lm.LINEAR_TARGETS)
    backbone = causal_lm.CausalLM(spec=spec, module=module, tokenizer=_NoTokenizer())  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    examples = []
    for _ in range(8):
        tokens = torch.randint(config.vocab_size, (SEQUENCE_TOKENS,), generator=generator)
        labels = tokens.clone()
        labels[: SEQUENCE_TOKENS // 2] = -100
        examples.append({"input_ids": tokens, "labels": labels})
    linear = sum(child.weight.numel() for child in module.modules() if isinstance(child, torch.nn.Linear))
    linear -= config.hidden_size * config.vocab_size // 2  # logits of the prompt are never made
    width = config.num_attention_heads * config.head_dim
    flops = _flops(linear, SEQUENCE_TOKENS, config.num_hidden_layers, width, causal=True)
    recipe = TrainRecipe(learning_rate=2e-4, batch_size=8, lora_alpha=32, precision="bf16")
    return Case("Qwen3-4B", backbone, examples, recipe, 32, flops)


class _NoTokenizer:
    """Stands where padding asks for a token: all sequences here are of one length."""

    pad_token_id = 0


def cogvideox_15(device: str, small: bool) -> Case:
    """CogVideoX1.5-5B on random latents of 9 frames of 336 x 336."""
    import diffusers

    smaller = {"num_layers": 1, "num_attention_heads": 2, "text_embed_dim": 64}
    config = COGVIDEOX_15_5B | (smaller if small else {})
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # 22 GB of float32 weights are never made
    try:
        with torch.device(device):
            module = diffusers.CogVideoXTransformer3DModel.from_config(config)
    finally:
        torch.set_default_dtype(default)
    module.requires_grad_(False)
    spec = BackboneSpec(name="cogvideox/random", family="video", lora_targets=cogvideox.ATTENTION)
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    text_shape = (1, config["max_text_seq_length"], config["text_embed_dim"])
    prompt = torch.zeros(text_shape, dtype=torch.bfloat16, device=device)
    backbone = cogvideox.CogVideoX(spec, _NoVae(), module, scheduler, prompt)
    generator = torch.Generator().manual_seed(0)
    side = PICTURE_PX // 8
    examples = [
        {
            "video_latents": torch.randn(3, 16, side, side, generator=generator),
            "image_latents": torch.randn(1, 16, side, side, generator=generator),
        }
        for _ in range(2)
    ]
    tokens = config["max_text_seq_length"] + 2 * (side // 2) ** 2  # 3 latent frames, padded to 4, are 2 patches in time
    linear = sum(child.weight.numel() for child in module.transformer_blocks.modules() if _is_block_linear(child))
    width = config["num_attention_heads"] * config["attention_head_dim"]
    flops = _flops(linear, tokens, config["num_layers"], width, causal=False)
    recipe = TrainRecipe(learning_rate=1e-4, batch_size=2, lora_alpha=32, precision="bf16")
    return Case("CogVideoX1.5-5B", backbone, examples, recipe, 64, flops)


class _NoVae:
    """Latents are given: only the configuration that the backbone checks is here."""

    class config:  # noqa: N801
        """As of the published VAE."""

        temporal_compression_ratio = 4


def _is_block_linear(module: torch.nn.Module) -> bool:
    # The modulation layers (normN.linear) see one vector a video, not every token.
    return isinstance(module, torch.nn.Linear) and module.in_features != 512


def _flops(linear_params: int, tokens: int, layers: int, width: int, causal: bool) -> float:
    attention = 12 * layers * tokens * tokens * width * (0.5 if causal else 1.0)
    return 4.0 * linear_params * tokens + attention


def rows(case: Case, steps: int, device: str) -> Iterator[str]:
    """One line a (gradient checkpointing, micro-batch)."""
    peak = next((flops for name, flops in PEAK_BF16_FLOPS.items() if name in _device_name(device)), None)
    for checkpointing in (False, True):
        for micro_batch_size in [size for size in (1, 2, 4, 8) if size <= case.recipe.batch_size]:
            placement = Placement(gradient_checkpointing=checkpointing, micro_batch_size=micro_batch_size)
            label = f"{case.name:16} {'yes' if checkpointing else 'no':>13} {micro_batch_size:>11}"
            try:
                step_s, memory_gib = _step(case, placement, steps, device)
            except Exception as error:
                if "out of memory" not in str(error).lower():
                    raise
                yield f"{label} out of memory"
                continue
            flops = case.flops_a_sample * case.recipe.batch_size / step_s
            utilisation = f"{100 * flops / peak:6.1f}%" if peak else "unknown"
            yield f"{label} {step_s:9.3f} {case.recipe.batch_size / step_s:10.2f} {utilisation:>7} {memory_gib:9.1f}"


def _step(case: Case, placement: Placement, steps: int, device: str) -> tuple[float, float]:
    """Median seconds of a step after two to warm up, and peak GiB."""
    times: list[float] = []
    last = 0.0

    def clock(row: Any) -> None:
        nonlocal last
        now = time.perf_counter()
        times.append(now - last)
        last = now

    recipe = case.recipe.model_copy(update={"max_steps": steps + 2})
    with lora.attached(case.backbone, lora_rank=case.lora_rank, recipe=recipe, seed=0):
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats(device)
        last = time.perf_counter()
        train(case.backbone, case.examples, recipe, placement, seed=0, on_step=clock)
        peak = torch.cuda.max_memory_allocated(device) / 2**30 if device != "cpu" else float("nan")
    if device != "cpu":
        torch.cuda.empty_cache()
    return sorted(times[2:])[len(times[2:]) // 2], peak


def _device_name(device: str) -> str:
    return "CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def main() -> None:
    """Print the table."""
    cases: dict[str, Callable[[str, bool], Case]] = {"qwen3-4b": qwen3, "cogvideox1.5-5b": cogvideox_15}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(cases))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="one narrow layer, to see this script run on a CPU")
    arguments = parser.parse_args()
    if arguments.device == "cpu" and not arguments.small:
        parser.error("no GPU is visible: these models need one (or --small)")
    print(f"{_device_name(arguments.device)}, torch {torch.__version__}")
    print(f"{'model':16} checkpointing micro-batch    step s  samples/s     MFU  peak GiB")
    for name, make in cases.items():
        if arguments.only in (None, name):
            case = make(arguments.device, arguments.small)
            for row in rows(case, arguments.steps, arguments.device):
                print(row, flush=True)
            del case


if __name__ == "__main__":
    main()
