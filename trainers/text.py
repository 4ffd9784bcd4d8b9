"""What the families that answer in text share: the loss on the answer's tokens, generation, the adapter's files.

Shapes: B examples, T tokens of a padded sequence, N new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from task_generators import grid_json
from task_generators.problem import Problem
from task_generators.rng import problem_rng
from trainers.backbone import BackboneSpec
from trainers.json_decoding import grid_processor
from trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteria

    from trainers.backbone import Batch

LINEAR_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a block, by the names that Llama, Qwen, Mistral and Gemma share."""
IGNORED_LABEL = -100
"""The label of a token that the loss leaves out: prompts and padding."""
STOPPED_CLOCK = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""For chat templates that write the date into the prompt: a trial must not depend on the day it runs. That day is what
Llama's templates write where there is no clock."""


def padded_batch(examples: Sequence[Batch], pad_token_id: int) -> Batch:
    """``input_ids``, ``labels`` (T,) each -> these and ``attention_mask`` (B, T), padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    input_ids = [example["input_ids"] for example in examples]
    labels = [example["labels"] for example in examples]
    return {
        "input_ids": pad_sequence(input_ids, batch_first=True, padding_value=pad_token_id),
        "attention_mask": pad_sequence([torch.ones_like(tokens) for tokens in input_ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL),
    }


def answer_loss(module: Any, batch: Batch, **inputs: Any) -> torch.Tensor:
    """Mean cross-entropy over each example's answer tokens, end token included: (B,) float32.

    ``batch`` is a ``padded_batch`` (labels of the prompt ignored); ``inputs`` go to the module beside its tokens.
    """
    import torch.nn.functional as F

    labels_BT = batch["labels"]
    # Logits of the prompt are never made: with a vocabulary of 150,000 they would take most of the memory.
    first_answer_token = int((labels_BT != IGNORED_LABEL).any(dim=0).nonzero()[0])
    num_logits = labels_BT.shape[1] - first_answer_token + 1
    device = module.device
    logits_BTV = module(
        input_ids=batch["input_ids"].to(device),
        attention_mask=batch["attention_mask"].to(device),
        use_cache=False,
        logits_to_keep=num_logits,
        **inputs,
    ).logits[:, :-1]
    targets_BT = labels_BT[:, first_answer_token:].to(device)
    losses_BT = F.cross_entropy(
        logits_BTV.float().transpose(1, 2), targets_BT, ignore_index=IGNORED_LABEL, reduction="none"
    )
    return losses_BT.sum(dim=1) / (targets_BT != IGNORED_LABEL).sum(dim=1)


def generate_texts(
    module: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    problems: Sequence[Problem],
    recipe: TrainRecipe,
    attempt: int,
    **inputs: Any,
) -> list[str]:
    """One text a prompt by the module's ``generate``: greedy, or drawn with numbers keyed by (problem_id, attempt).

    A sequence stops at an end token, or as soon as it holds a whole grid: what would follow changes nothing of what
    ``grid_json.loads`` reads, and can be thousands of tokens. Prompts (token ids) are padded on the left. ``inputs``
    go to ``generate`` beside the tokens. With ``recipe.decoding`` "json" nothing but a grid can be written; ValueError
    then when the tokenizer cannot spell one.
    """
    import torch
    from transformers import GenerationConfig

    was_training = module.training
    module.eval()
    padding = pad_token_id(tokenizer)
    longest = max(len(prompt) for prompt in prompts)
    padded = [[padding] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    device = module.device
    stop_tokens = stop_token_ids(module, tokenizer)
    processors = sampling_processors(problems, recipe, attempt)
    if recipe.decoding == "json":
        processors.insert(0, grid_processor(tokenizer, stop_tokens))
    try:
        with torch.inference_mode():
            tokens_BT = module.generate(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=GenerationConfig(
                    max_new_tokens=recipe.max_new_tokens,
                    do_sample=False,  # the sampling processors leave a single token to choose
                    use_cache=True,
                    num_beams=1,
                    # What is not said here comes from the checkpoint's own generation settings. Some of these punish
                    # repetition, which is what grids consist of.
                    repetition_penalty=1.0,
                    no_repeat_ngram_size=0,
                    eos_token_id=stop_tokens,
                    pad_token_id=padding,
                ),
                logits_processor=processors,
                stopping_criteria=[_whole_grid_criterion(tokenizer, longest)],
                **inputs,
            )
    finally:
        module.train(was_training)
    return tokenizer.batch_decode(tokens_BT[:, longest:], skip_special_tokens=True)


def _whole_grid_criterion(tokenizer: PreTrainedTokenizerBase, num_prompt_tokens: int) -> StoppingCriteria:
    """Ends each sequence whose new tokens hold a grid with all its brackets."""
    import torch
    from transformers import StoppingCriteria

    closing = _closing_tokens(tokenizer)

    def holds_grid(tokens_T: torch.Tensor) -> bool:
        text = tokenizer.decode(tokens_T, skip_special_tokens=True)
        return grid_json.loads(text + "!") is not None  # a grid that lacks brackets is only read where the text ends

    class WholeGrid(StoppingCriteria):
        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
            ended_B = [
                token_id in closing and holds_grid(input_ids[row, num_prompt_tokens:])
                for row, token_id in enumerate(input_ids[:, -1].tolist())
            ]
            return torch.tensor(ended_B, device=input_ids.device)

    return WholeGrid()


@lru_cache(maxsize=2)
def _closing_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that can be the last of a grid."""
    return frozenset(token_id for piece, token_id in tokenizer.get_vocab().items() if "]" in piece)


def example_tokens(
    prompt: Sequence[int], answer: Sequence[int], spec: BackboneSpec, recipe: TrainRecipe, context_length: int
) -> Batch:
    """``input_ids`` and ``labels`` (T,) of prompt and answer; labels ignore the prompt.

    ValueError when there are more than ``recipe.max_length`` or ``context_length`` tokens: nothing is ever cut off.
    """
    import torch

    num_tokens = len(prompt) + len(answer)
    if recipe.max_length is not None and num_tokens > recipe.max_length:
        raise ValueError(
            f"backbone {spec.name!r}: an example has {num_tokens} tokens, more than recipe.max_length = "
            f"{recipe.max_length}; choose smaller grids or a larger max_length"
        )
    if num_tokens > context_length:
        raise ValueError(
            f"backbone {spec.name!r}: an example has {num_tokens} tokens, more than the {context_length} of its "
            "context; choose smaller grids"
        )
    return {
        "input_ids": torch.tensor([*prompt, *answer]),
        "labels": torch.tensor([IGNORED_LABEL] * len(prompt) + list(answer)),
    }


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token, or the end token for tokenizers without one (padding is masked either way)."""
    pad = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is None else pad


def stop_token_ids(module: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model was published with."""
    published = module.generation_config.eos_token_id
    published = [published] if isinstance(published, int) else list(published or [])
    return sorted({tokenizer.eos_token_id, *published})


def save_peft_adapter(
    spec: BackboneSpec, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any, task_type: str | None
) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, for ``PeftModel.from_pretrained``."""
    from safetensors.torch import save_file

    config = copy(lora_config)
    config.base_model_name_or_path = spec.repo_id
    config.revision = spec.revision
    config.task_type = task_type
    config.inference_mode = True
    config.save_pretrained(folder)
    tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in lora_state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def sampling_processors(problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> LogitsProcessorList:
    """Temperature, top-k and top-p as transformers has them, then a keyed draw; empty at temperature 0."""
    import torch
    from transformers import (
        LogitsProcessor,
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    if recipe.temperature == 0:
        return LogitsProcessorList()
    draws_BN = torch.stack(
        [
            torch.from_numpy(problem_rng("answer", problem.problem_id, attempt).random(recipe.max_new_tokens))
            for problem in problems
        ]
    )
    top_p = TopPLogitsWarper(recipe.top_p) if recipe.top_p < 1 else None

    class KeyedDraw(LogitsProcessor):
        """Inverts each row's distribution at that row's next uniform number, and leaves this token alone possible.

        ``generate(do_sample=True)`` draws all rows from one global generator, so that a row would depend on the others.
        """

        def __init__(self) -> None:
            self.num_drawn = 0

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
            possible_BC = _possible_tokens(scores)
            scores_BC: Any = scores.gather(1, possible_BC)
            if top_p is not None:
                scores_BC = top_p(input_ids, scores_BC)
            cumulative_BC = scores_BC.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
            draw_B1 = draws_BN[:, self.num_drawn, None].to(scores.device) * cumulative_BC[:, -1:]
            self.num_drawn += 1
            place_B1 = torch.searchsorted(cumulative_BC, draw_B1, right=True)
            # A draw that rounds up to the total would point past the last token that has any probability.
            last_B1 = (cumulative_BC < cumulative_BC[:, -1:]).sum(dim=-1, keepdim=True)
            token_B1 = possible_BC.gather(1, torch.minimum(place_B1, last_B1))
            return torch.full_like(scores, -torch.inf).scatter(1, token_B1, 0.0)

    processors = LogitsProcessorList([TemperatureLogitsWarper(recipe.temperature)])
    if recipe.top_k:
        processors.append(TopKLogitsWarper(recipe.top_k))
    processors.append(KeyedDraw())
    return processors


def _possible_tokens(scores_BV: torch.Tensor) -> torch.Tensor:
    """Ids (B, C), ascending in each row, of C tokens among which are all that have a finite score.

    Top-k or a grid's grammar leaves some dozens of a vocabulary of 150,000, which are dear to sort and to sum.
    """
    import torch

    batch_size, vocabulary_size = scores_BV.shape
    num_possible = int((scores_BV > -torch.inf).sum(dim=-1).max())
    if num_possible > vocabulary_size // 4:
        return torch.arange(vocabulary_size, device=scores_BV.device).expand(batch_size, -1)
    return scores_BV.topk(num_possible).indices.sort(dim=-1).values
