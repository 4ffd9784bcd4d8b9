"""Language models of transformers' ``AutoModelForCausalLM``: compact JSON grid in, compact JSON grid out.

The prompt is the question's JSON and nothing else (the paper's neutral prompt), inside the tokenizer's chat template
where it has one, else followed by the tokenizer's separator. The loss is the next-token loss on the answer and its end.

Shapes: B examples, T tokens of a padded sequence, N new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from task_generators import grid_json
from task_generators.problem import Grid, Problem
from task_generators.task import Task
from trainers.backbone import BackboneSpec, weights_path
from trainers.recipe import TrainRecipe
from trainers.rng import hashed_seed
from trainers.text import (
    IGNORED_LABEL,
    LINEAR_TARGETS,
    answer_loss,
    generate_texts,
    pad_token_id,
    padded_batch,
    save_peft_adapter,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trainers.backbone import Batch

TINY_NOTE = "a toy of a million parameters: its numbers exercise the whole path and say nothing about large models"

TINY_RECIPE = {
    "max_steps": 220,
    "learning_rate": 4e-3,
    "lr_schedule": "linear",
    "warmup_steps": 5,
    "batch_size": 4,
    "max_new_tokens": 512,
}

FLAVORS = (
    BackboneSpec(
        name="causal_lm/tiny",
        family="language",
        repo_id="package:qwen3-tiny",
        lora_targets=LINEAR_TARGETS,
        recipe=TINY_RECIPE,
        note=TINY_NOTE,
    ),
    BackboneSpec(
        name="causal_lm/tiny-random",
        family="language",
        repo_id="package:qwen3-tiny",
        pretrained=False,
        lora_targets=LINEAR_TARGETS,
        recipe=TINY_RECIPE,
        note=f"random weights, never pretrained; {TINY_NOTE}",
    ),
    BackboneSpec(
        name="causal_lm/qwen3-4b-instruct-2507",
        family="language",
        repo_id="Qwen/Qwen3-4B-Instruct-2507",
        lora_targets=LINEAR_TARGETS,
        recipe={
            "learning_rate": 2e-4,
            "lr_schedule": "linear",
            "warmup_steps": 5,
            "batch_size": 8,  # published as 2 examples x 4 accumulation steps: micro_batch_size 2 of the placement
            "weight_decay": 0.01,
            "lora_alpha": 32,
            "precision": "bf16",  # open in the paper
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 20,
            "max_new_tokens": 4096,
        },
        num_gpus=1,
        memory_gb=24,
    ),
)


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> CausalLM:
    """Load model and tokenizer onto ``device`` in the recipe's precision, every parameter frozen.

    With ``spec.pretrained`` off the weights are drawn as the architecture's own initialisation draws them, from a fixed
    seed. ValueError when the tokenizer has no end-of-sequence token.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = weights_path(spec.repo_id)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[recipe.precision]
    tokenizer = AutoTokenizer.from_pretrained(source, revision=spec.revision)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"backbone {spec.name!r}: the tokenizer of {spec.repo_id!r} has no end-of-sequence token")
    if spec.pretrained:
        module = AutoModelForCausalLM.from_pretrained(source, revision=spec.revision, dtype=dtype)
    else:
        config = AutoConfig.from_pretrained(source, revision=spec.revision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hashed_seed("random weights", spec.repo_id))
            module = AutoModelForCausalLM.from_config(config, dtype=dtype)
    module.requires_grad_(False)
    module.to(device)
    return CausalLM(spec=spec, module=module.eval(), tokenizer=tokenizer)


@dataclass
class CausalLM:
    """A loaded causal language model; the members are those of ``trainers.backbone.Backbone``."""

    spec: BackboneSpec
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    latent_store: None = None
    """Tokens cost nothing to make again."""

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Batch]:
        """``input_ids`` and ``labels`` of each problem, (T,) each: prompt, answer, end token; labels ignore the prompt.

        ValueError when an example is longer than the model's context.
        """
        import torch

        longest = self.module.config.max_position_embeddings
        examples = []
        for problem in problems:
            prompt = self.prompt_tokens(problem.question)
            answer = self.answer_tokens(problem.answer)
            if len(prompt) + len(answer) > longest:
                raise ValueError(
                    f"backbone {self.spec.name!r}: an example has {len(prompt) + len(answer)} tokens, more than the "
                    f"{longest} of its context; choose smaller grids"
                )
            examples.append(
                {
                    "input_ids": torch.tensor(prompt + answer),
                    "labels": torch.tensor([IGNORED_LABEL] * len(prompt) + answer),
                }
            )
        return examples

    def collate(self, examples: Sequence[Batch], recipe: TrainRecipe, generator: torch.Generator) -> Batch:
        """Pad on the right to (B, T) ``input_ids``, ``attention_mask`` and ``labels``. This family draws no noise."""
        return padded_batch(examples, pad_token_id(self.tokenizer))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over each example's answer tokens, end token included: (B,) float32."""
        return answer_loss(self.module, batch)

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """Generate, decode and read one grid a problem; None where the text is no grid.

        Greedy at temperature 0. Otherwise each problem's tokens are drawn with numbers keyed by (problem_id, attempt),
        so that its answer does not depend on what else is in the batch.
        """
        prompts = [self.prompt_tokens(problem.question) for problem in problems]
        texts = generate_texts(self.module, self.tokenizer, prompts, problems, recipe, attempt)
        return [grid_json.loads(text) for text in texts]

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json``, for ``PeftModel.from_pretrained``."""
        save_peft_adapter(self.spec, folder, lora_state, lora_config, "CAUSAL_LM")

    def prompt_tokens(self, question: Grid) -> list[int]:
        """Token ids up to where the answer begins."""
        text = grid_json.dumps(question)
        if self.tokenizer.chat_template is None:
            return self.tokenizer(text + (self.tokenizer.sep_token or "\n")).input_ids
        message = [{"role": "user", "content": text}]
        tokens: Any = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        return tokens

    def answer_tokens(self, answer: Grid) -> list[int]:
        """Token ids of the answer's JSON and the end token."""
        text = grid_json.dumps(answer)
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]
