"""Small backbones for tests of the training code: a regression network and a language model, random and frozen."""

from __future__ import annotations

import torch

from task_generators.problem import frozen_grid
from trainers.backbone import BackboneSpec

torch.set_num_threads(1)  # toys are too small to share out, and a busy machine makes waiting threads dear

WIDTH = 400
"""400 x 400 weights: more than the 100,000 numbers below which ZeRO-3 leaves a parameter whole."""


class ToyRegressor:
    """Predicts four numbers from eight. Its noise comes from the generator; ``poison`` makes a loss infinite."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.module = torch.nn.Sequential(
            torch.nn.Linear(8, WIDTH),
            torch.nn.GELU(),
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.LayerNorm(WIDTH),
            torch.nn.Linear(WIDTH, 4),
        )
        for parameter in self.module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
            parameter.requires_grad_(False)
        self.module.to(dtype).eval()
        self._dtype = dtype
        self.spec = BackboneSpec(name="toy/regressor", family="video", lora_targets=("0", "2", "4"))
        self.collated: list[torch.Tensor] = []

    def collate(self, examples, recipe, generator):
        inputs = torch.stack([example["input"] for example in examples])
        self.collated.append(inputs)
        return {
            "input": inputs + 0.1 * torch.randn(inputs.shape, generator=generator),
            "target": torch.stack([example["target"] for example in examples]),
        }

    def loss(self, batch):
        output = self.module(batch["input"].to(self._dtype)).float()
        return (output - batch["target"]).square().mean(dim=1)

    def answer(self, task, problems, recipe, attempt):
        """The question's largest code everywhere; unreadable for a question that starts with 0."""
        return [
            None if problem.question[0, 0] == 0 else frozen_grid(0 * problem.answer + problem.question.max() + attempt)
            for problem in problems
        ]

    def save_adapter(self, folder, lora_state, lora_config):
        torch.save({"state": lora_state, "rank": lora_config.r}, folder / "adapter.pt")


def regression_examples(n: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 8, generator=generator)
    return [
        {"input": row, "target": torch.stack([row.sum(), row[0] * row[1], row[2].sin(), row.max()])} for row in inputs
    ]


class ToyLanguageModel:
    """A random Qwen3 of two layers; its tied embedding is large enough for ZeRO-3 to shard.

    So are its layers from an ``intermediate_size`` of 2048 on.
    """

    def __init__(self, intermediate_size: int = 128) -> None:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        config = Qwen3Config(
            vocab_size=2048,
            hidden_size=64,
            intermediate_size=intermediate_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.module = Qwen3ForCausalLM(config).eval().requires_grad_(False)
        self.spec = BackboneSpec(name="toy/qwen3", family="language", lora_targets=("q_proj", "v_proj", "down_proj"))

    def collate(self, examples, recipe, generator):
        return {"token_ids": torch.stack([example["token_ids"] for example in examples])}

    def loss(self, batch):
        logits = self.module(input_ids=batch["token_ids"]).logits[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), batch["token_ids"][:, 1:], reduction="none"
        ).mean(dim=1)


def token_examples(n: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [{"token_ids": torch.randint(0, 50, (12,), generator=generator)} for _ in range(n)]


def tiny_cogvideox() -> torch.nn.Module:
    from diffusers import CogVideoXTransformer3DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=8,
            num_layers=2,
            sample_width=4,
            sample_height=4,
            sample_frames=5,
            patch_size=2,
            max_text_seq_length=4,
            use_rotary_positional_embeddings=True,
        )
    return transformer.eval().requires_grad_(False)
