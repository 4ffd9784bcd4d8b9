"""Vision-language models of transformers' ``AutoModelForImageTextToText``: picture, JSON or both in, JSON grid out.

The prompt is one message of the user in the model's chat template, made by its own processor: the question's picture,
the question's compact JSON, or both, and nothing else. Loss and decoding are those of the language models
(``trainers.text``). LoRA goes on the language model; the vision tower and its projector stay as they are.

Nothing here is Gemma's alone: what the processor gives beside the tokens goes to the model as it is, such as Gemma's
``token_type_ids``, by which tokens of one picture see each other in both directions.

Shapes: B examples, T tokens of a padded sequence, N pictures (or patches) of one example, C channels, H and W height
and width in px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from task_generators import grid_json
from task_generators.problem import Grid, Problem
from task_generators.render import render
from task_generators.task import Task
from trainers.backbone import BackboneSpec, weights_path
from trainers.loading import whole_model
from trainers.pictures import picture_style
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
    stop_token_ids,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from trainers.backbone import Batch

RECIPE = {
    "learning_rate": 2e-4,
    "lr_schedule": "linear",
    "warmup_steps": 5,
    "batch_size": 8,
    "weight_decay": 0.01,
    "lora_alpha": 32,
    "max_length": 8192,
    "precision": "bf16",
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "max_new_tokens": 4096,
}
"""The paper states no LoRA settings for its vision-language model: our choice, those it states for Qwen3-4B."""
RECIPE_NOTE = "LoRA settings are open in the paper: ours are those of Qwen3-4B, on the language model alone"

FLAVORS = (
    BackboneSpec(
        name="gemma3/4b-it",
        family="vision_language",
        repo_id="google/gemma-3-4b-it",
        revision="093f9f388b31de276ce2de164bdc2081324b9767",
        lora_targets=LINEAR_TARGETS,
        recipe=RECIPE,
        num_params=4.3e9,
        license="gemma",
        gated=True,
        num_gpus=1,
        memory_gb=48,  # 9 weights, 2 LoRA and optimizer, 4 logits, the rest activations of 8 examples of 700 tokens
        note=RECIPE_NOTE,
    ),
)
ANY_REPO = BackboneSpec(
    name="gemma3/ORG/NAME",
    family="vision_language",
    lora_targets=LINEAR_TARGETS,
    recipe=RECIPE,
    num_gpus=1,
    memory_gb=48,
    note=RECIPE_NOTE,
)


ARCHITECTURES = r"(ForConditionalGeneration|ForImageTextToText)$"
"""Of the checkpoints that this family loads, as their ``config.json`` names them."""


def load(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> VisionLanguageModel:
    """Load model and processor onto ``device`` in the recipe's precision, every parameter frozen.

    With ``spec.pretrained`` off the weights are drawn as the architecture's own initialisation draws them, from a fixed
    seed. ``lora_targets`` of the loaded spec are the full names of the language model's layers. ValueError when the
    processor has no chat template, or the machine cannot have the base in 8 or 4 bits.
    """
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    source = weights_path(spec.repo_id)
    processor = AutoProcessor.from_pretrained(source, revision=spec.revision)
    if processor.chat_template is None:
        raise ValueError(f"backbone {spec.name!r}: the processor of {spec.repo_id!r} has no chat template")
    if "strftime_now" in processor.chat_template:
        processor.chat_template = STOPPED_CLOCK + processor.chat_template
    # torchvision, where it is installed, would scale pictures a little differently.
    processor.image_processor = AutoImageProcessor.from_pretrained(source, revision=spec.revision, backend="pil")
    if spec.pretrained:
        options = loading_options(recipe, "transformers", device)
        module = whole_model(AutoModelForImageTextToText, source, revision=spec.revision, **options)
    else:
        config = AutoConfig.from_pretrained(source, revision=spec.revision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hashed_seed("random weights", spec.repo_id))
            module = AutoModelForImageTextToText.from_config(config, dtype=base_dtype(recipe))
    module.requires_grad_(False)
    if recipe.precision not in QUANTIZED:
        module.to(device)
    spec = spec.model_copy(update={"lora_targets": _language_model_layers(module, spec.lora_targets)})
    return VisionLanguageModel(spec=spec, module=module.eval(), processor=processor)


@dataclass
class VisionLanguageModel:
    """A loaded vision-language model; the members are those of ``trainers.backbone.Backbone``."""

    spec: BackboneSpec
    module: PreTrainedModel
    processor: ProcessorMixin
    latent_store: None = None
    """What is kept of a picture is its pixels."""

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Batch]:
        """``input_ids``, ``labels`` and whatever else the processor gives, of each problem; see ``prompt``.

        The answer's tokens and the token that ends it follow the prompt; labels ignore the prompt. ValueError when an
        example is longer than ``recipe.max_length`` or the model's context.
        """
        import torch.nn.functional as F

        context_length = self.module.config.get_text_config().max_position_embeddings
        examples = []
        for problem in problems:
            prompt = self.prompt(task, problem, recipe)
            answer = self.answer_tokens(problem.answer)
            tokens = example_tokens(prompt.pop("input_ids").tolist(), answer, self.spec, recipe, context_length)
            for name, tensor in prompt.items():
                if tensor.ndim == 1:
                    prompt[name] = F.pad(tensor, (0, len(answer)))
            examples.append({**tokens, **prompt})
        return examples

    def collate(self, examples: Sequence[Batch], recipe: TrainRecipe, generator: torch.Generator) -> Batch:
        """Pad on the right what has one value a token to (B, T); stack pictures to (B, N, ...). No noise is drawn.

        ValueError when pictures of several sizes meet in a model that does not bring them to one.
        """
        from torch.nn.utils.rnn import pad_sequence

        batch = padded_batch(examples, pad_token_id(self.processor.tokenizer))
        for name in sorted(examples[0].keys() - batch.keys()):
            tensors = [example[name] for example in examples]
            if tensors[0].ndim == 1:
                batch[name] = pad_sequence(tensors, batch_first=True)
            else:
                batch[name] = self._stacked(name, tensors)
        return batch

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over each example's answer tokens, end token included: (B,) float32."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in _TEXT_INPUTS}
        return answer_loss(self.module, batch, **self._model_inputs(inputs))

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """Generate, decode and read one grid a problem; None where the text is no grid.

        Greedy at temperature 0. Otherwise each problem's tokens are drawn with numbers keyed by (problem_id, attempt),
        so that its answer does not depend on what else is in the batch. ValueError as in ``collate``.
        """
        import torch
        import torch.nn.functional as F

        prompts = [self.prompt(task, problem, recipe) for problem in problems]
        token_ids = [prompt.pop("input_ids").tolist() for prompt in prompts]
        longest = max(map(len, token_ids))
        inputs = {}
        for name in prompts[0]:
            tensors = [prompt[name] for prompt in prompts]
            if tensors[0].ndim == 1:
                inputs[name] = torch.stack([F.pad(tensor, (longest - len(tensor), 0)) for tensor in tensors])
            else:
                inputs[name] = self._stacked(name, tensors)
        tokenizer = self.processor.tokenizer
        inputs = self._model_inputs(inputs)
        texts = generate_texts(self.module, tokenizer, token_ids, problems, recipe, attempt, **inputs)
        return [grid_json.loads(text) for text in texts]

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json``, for ``PeftModel.from_pretrained``."""
        save_peft_adapter(self.spec, folder, lora_state, lora_config, "CAUSAL_LM")

    def prompt(self, task: Task, problem: Problem, recipe: TrainRecipe) -> Batch:
        """What the processor makes of the question, up to where the answer begins; the same to train and to answer.

        (T,): ``input_ids`` and what else has one value a token; (N, ...): pixels, in the base's own type, as the
        vision tower takes them.
        """
        content: list[dict[str, Any]] = []
        if recipe.inputs != "text":
            content.append({"type": "image", "image": self._picture(task, problem, recipe)})
        if recipe.inputs != "image":
            content.append({"type": "text", "text": grid_json.dumps(problem.question)})
        processed = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **self._thinking_off(),
        )
        prompt = {}
        for name, tensor in processed.items():
            if name == "attention_mask":
                continue
            if tensor.shape == processed["input_ids"].shape:
                prompt[name] = tensor[0]
            else:
                # In bf16 a picture of 896 x 896 px takes 5 MB, and training keeps all of them.
                prompt[name] = tensor.to(base_dtype(recipe)) if tensor.is_floating_point() else tensor
        return prompt

    def answer_tokens(self, answer: Grid) -> list[int]:
        """Token ids of the answer's JSON and the token that ends it."""
        text = grid_json.dumps(answer)
        return [*self.processor.tokenizer(text, add_special_tokens=False).input_ids, self._end_token_id]

    @cached_property
    def _end_token_id(self) -> int:
        """What ends the model's turn in its chat template; Gemma's tokenizer calls another token the end."""
        content = [{"type": "text", "text": "0"}]
        turns = [{"role": role, "content": content} for role in ("user", "assistant")]
        tokenizer = self.processor.tokenizer
        stops = stop_token_ids(self.module, tokenizer)
        conversation = self.processor.apply_chat_template(turns, **self._thinking_off())
        tokens = tokenizer(conversation, add_special_tokens=False).input_ids
        return next((token for token in reversed(tokens) if token in stops), tokenizer.eos_token_id)

    def _thinking_off(self) -> dict[str, Any]:
        """For templates that ask; the processor would take for its own what the template does not know."""
        template: Any = self.processor.chat_template
        return {"enable_thinking": False} if "enable_thinking" in template else {}

    def _picture(self, task: Task, problem: Problem, recipe: TrainRecipe) -> Any:
        """The question's picture, as Pillow has it."""
        from PIL import Image

        return Image.fromarray(render(problem.question, task.palette, picture_style(task, recipe, problem)))

    def _stacked(self, name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        if len(shapes) > 1:
            raise ValueError(
                f"backbone {self.spec.name!r}: {name} differs in shape among problems ({shapes[0]} and {shapes[-1]}); "
                "set recipe.picture_px, so that all pictures have one size"
            )
        return torch.stack(list(tensors))

    def _model_inputs(self, inputs: Batch) -> Batch:
        """(B, T) as it is, (B, N, ...) -> (B * N, ...), on the model's device."""
        return {
            name: (tensor if tensor.ndim == 2 else tensor.flatten(0, 1)).to(self.module.device)
            for name, tensor in inputs.items()
        }


_TEXT_INPUTS = ("input_ids", "attention_mask", "labels")
"""What ``answer_loss`` takes from a batch by itself."""


def _language_model_layers(module: Any, targets: Sequence[str]) -> tuple[str, ...]:
    """Full names of the language model's Linears that ``targets`` name; vision towers call layers by the same names.

    The targets as they are where the language model has none of them.
    """
    import torch

    language_model = module.get_decoder()
    return tuple(
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if part is language_model
        for name, child in part.named_modules()
        if isinstance(child, torch.nn.Linear) and name.rpartition(".")[2] in targets
    ) or tuple(targets)
