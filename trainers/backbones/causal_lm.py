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
from task_generators.rng import problem_rng
from task_generators.task import Task
from trainers.backbone import BackboneSpec, weights_path
from trainers.recipe import TrainRecipe
from trainers.rng import hashed_seed

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

    from trainers.backbone import Batch

LINEAR_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a block, by the names that Llama, Qwen, Mistral and Gemma share."""

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

IGNORED_LABEL = -100
"""The label of a token that the loss leaves out: prompts and padding."""


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
        import torch
        from torch.nn.utils.rnn import pad_sequence

        input_ids = [example["input_ids"] for example in examples]
        labels = [example["labels"] for example in examples]
        return {
            "input_ids": pad_sequence(input_ids, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(tokens) for tokens in input_ids], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL),
        }

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over each example's answer tokens, end token included: (B,) float32."""
        import torch.nn.functional as F

        labels_BT = batch["labels"]
        # Logits of the prompt are never made: with a vocabulary of 150,000 they would take most of the memory.
        first_answer_token = int((labels_BT != IGNORED_LABEL).any(dim=0).nonzero()[0])
        num_logits = labels_BT.shape[1] - first_answer_token + 1
        device = self.module.device
        logits_BTV = self.module(
            input_ids=batch["input_ids"].to(device),
            attention_mask=batch["attention_mask"].to(device),
            use_cache=False,
            logits_to_keep=num_logits,
        ).logits[:, :-1]
        targets_BT = labels_BT[:, first_answer_token:].to(device)
        losses_BT = F.cross_entropy(
            logits_BTV.float().transpose(1, 2), targets_BT, ignore_index=IGNORED_LABEL, reduction="none"
        )
        return losses_BT.sum(dim=1) / (targets_BT != IGNORED_LABEL).sum(dim=1)

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """Generate, decode and read one grid a problem; None where the text is no grid.

        Greedy at temperature 0. Otherwise each problem's tokens are drawn with numbers keyed by (problem_id, attempt),
        so that its answer does not depend on what else is in the batch.
        """
        import torch
        from transformers import GenerationConfig

        was_training = self.module.training
        self.module.eval()
        prompts = [self.prompt_tokens(problem.question) for problem in problems]
        longest = max(len(prompt) for prompt in prompts)
        padded = [[self.pad_token_id] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self.module.device
        try:
            with torch.inference_mode():
                tokens_BT = self.module.generate(
                    input_ids=torch.tensor(padded, device=device),
                    attention_mask=torch.tensor(mask, device=device),
                    generation_config=GenerationConfig(
                        max_new_tokens=recipe.max_new_tokens,
                        do_sample=False,  # the sampling processors leave a single token to choose
                        eos_token_id=self.stop_token_ids,
                        pad_token_id=self.pad_token_id,
                    ),
                    logits_processor=_sampling_processors(problems, recipe, attempt),
                )
        finally:
            self.module.train(was_training)
        texts = self.tokenizer.batch_decode(tokens_BT[:, longest:], skip_special_tokens=True)
        return [grid_json.loads(text) for text in texts]

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json``, for ``PeftModel.from_pretrained``."""
        from copy import copy

        from safetensors.torch import save_file

        config = copy(lora_config)
        config.base_model_name_or_path = self.spec.repo_id
        config.revision = self.spec.revision
        config.task_type = "CAUSAL_LM"
        config.inference_mode = True
        config.save_pretrained(folder)
        tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in lora_state.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

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

    @property
    def pad_token_id(self) -> int:
        """The padding token, or the end token for tokenizers without one (padding is masked either way)."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    @property
    def stop_token_ids(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's, and those that the model was published with."""
        published = self.module.generation_config.eos_token_id
        published = [published] if isinstance(published, int) else list(published or [])
        return sorted({self.tokenizer.eos_token_id, *published})


def _sampling_processors(problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> LogitsProcessorList:
    """Temperature, top-k and top-p as transformers has them, then a keyed draw; empty at temperature 0."""
    import torch
    from transformers import (
        LogitsProcessor,
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList()
    if recipe.temperature == 0:
        return processors
    draws_BN = torch.stack(
        [
            torch.from_numpy(problem_rng("answer", problem.problem_id, attempt).random(recipe.max_new_tokens))
            for problem in problems
        ]
    )

    class KeyedDraw(LogitsProcessor):
        """Inverts each row's distribution at that row's next uniform number, and leaves this token alone possible.

        ``generate(do_sample=True)`` draws all rows from one global generator, so that a row would depend on the others.
        """

        def __init__(self) -> None:
            self.num_drawn = 0

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
            cumulative_BV = scores.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
            draw_B1 = draws_BN[:, self.num_drawn, None].to(scores.device) * cumulative_BV[:, -1:]
            self.num_drawn += 1
            token_B1 = torch.searchsorted(cumulative_BV, draw_B1, right=True)
            # A draw that rounds up to the total would point past the last token that has any probability.
            last_B1 = (cumulative_BV < cumulative_BV[:, -1:]).sum(dim=-1, keepdim=True)
            chosen = torch.full_like(scores, -torch.inf)
            return chosen.scatter(1, torch.minimum(token_B1, last_B1), 0.0)

    processors.append(TemperatureLogitsWarper(recipe.temperature))
    if recipe.top_k:
        processors.append(TopKLogitsWarper(recipe.top_k))
    if recipe.top_p < 1:
        processors.append(TopPLogitsWarper(recipe.top_p))
    processors.append(KeyedDraw())
    return processors
