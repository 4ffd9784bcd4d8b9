"""How long a trial should take by arithmetic alone, before anything has been measured: a rough guess.

A forward pass costs 2 FLOPs a parameter and token (Kaplan et al., arXiv 2001.08361, section 2.1); the backward pass
through a frozen base computes no gradients of its weights and costs as much again, and gradient checkpointing one more
forward pass. Attention's own cost, LoRA, and the VAE are left out. A video has one token for each square of
``TOKEN_PX`` px of each latent frame, a grid as text two for each cell (a digit and a comma). The processor reaches a
fixed share of its peak; a call of the model takes no less than its overhead, nor than reading its weights once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.capacity import BYTES_A_PARAMETER, GpuModel
from task_generators.problem import Problem, Split
from task_generators.task import TaskSpec
from trainers.backbone import BackboneSpec
from trainers.pictures import canvas_px, picture_style
from trainers.recipe import Placement, TrainRecipe

PARTS = ("other", "load", "encode", "train", "answer")
"""What a trial's time goes to; ``other`` is drawing problems, scoring and writing."""
Seconds = tuple[float, float, float, float, float]
"""One number for each of ``PARTS``."""
GUESS_FACTOR = 4.0
"""A guess may be wrong by so much, either way."""

TOKEN_PX = 16
"""8 px a latent and 2 latents a patch: CogVideoX, Wan 2.1. LTX has 32 px a token, so that its guess is high."""
FRAMES_A_LATENT = 4
IMAGE_TOKENS = 256
"""Of one picture in a vision-language model (Gemma 3, arXiv 2503.19786, section 2)."""
CHAT_TOKENS = 60
GPU_UTILISATION, CPU_UTILISATION = 0.3, 0.15
CPU_CORE_GFLOPS, CPU_BANDWIDTH_GB_PER_S = 100.0, 10.0
GPU_CALL_S, CPU_CALL_S = 0.03, 0.004
"""What one call of a model takes at least: Python, launching kernels."""
LOAD_GB_PER_S = 1.0
OTHER_S, UNTRAINED_S = 1.0, 0.1
"""Drawing problems, scoring, writing rows, and a share of the worker's start."""
LEAST_S = 1e-4
UNKNOWN_PARAMS = 4e9
"""Of a backbone that is trained and states no number: any repository of a family."""
UNKNOWN_CELLS = 100
UNKNOWN_SIDE_PX = 256


@dataclass(frozen=True)
class Processor:
    """What a worker computes on: FLOPs and bytes a second that a model reaches, and what a call costs at least."""

    flops_per_s: float
    bytes_per_s: float
    call_s: float

    @classmethod
    def of_gpu(cls, model: GpuModel, gpus: float = 1.0) -> Processor:
        """``gpus`` of them, or a fraction of one."""
        return cls(model.bf16_tflops * 1e12 * GPU_UTILISATION * gpus, model.bandwidth_gb_per_s * 1e9 * gpus, GPU_CALL_S)

    @classmethod
    def of_cpu(cls, cores: float = 1.0) -> Processor:
        """``cores`` of today's server CPUs, in fp32."""
        return cls(CPU_CORE_GFLOPS * 1e9 * CPU_UTILISATION * cores, CPU_BANDWIDTH_GB_PER_S * 1e9, CPU_CALL_S)


def guess(
    backbone: BackboneSpec,
    task: TaskSpec,
    recipe: TrainRecipe,
    placement: Placement,
    n_train: int,
    n_test: int,
    processor: Processor,
) -> Seconds:
    """Seconds of each of ``PARTS``, none of them 0. Proportional to ``max_steps`` (train), ``n_test`` and ``attempts``
    (answer); encoding, training and answering are shared by the workers."""
    if backbone.family == "baseline" or not backbone.trainable:
        return UNTRAINED_S, LEAST_S, LEAST_S, LEAST_S, LEAST_S * n_test * recipe.attempts
    params = backbone.num_params or UNKNOWN_PARAMS
    weights_bytes = params * BYTES_A_PARAMETER[recipe.precision]
    load_s = weights_bytes / (LOAD_GB_PER_S * 1e9)
    num_workers = placement.num_workers

    def pass_s(tokens: float) -> float:
        """One forward pass of ``tokens`` tokens."""
        flops_s = 2 * params * tokens / processor.flops_per_s
        return max(processor.call_s, weights_bytes / processor.bytes_per_s, flops_s)

    def batched_s(tokens: float) -> float:
        """A problem's share of a forward pass of ``tokens`` tokens of each problem answered at once."""
        return pass_s(tokens * placement.eval_batch_size) / placement.eval_batch_size

    question, answer = _tokens(backbone, task, recipe, Split.TRAIN)
    passes = 3 if placement.gradient_checkpointing else 2
    examples = recipe.batch_size / num_workers
    train_s = recipe.max_steps * passes * pass_s(examples * (question + answer))
    question, answer = _tokens(backbone, task, recipe, Split.TEST)
    if backbone.family == "video":
        encode_s = n_train / num_workers * pass_s(question + answer)
        steps = recipe.num_inference_steps * (2 if recipe.guidance_scale > 1 else 1)
        one_s = steps * batched_s(question + answer)
    else:
        encode_s = LEAST_S * max(1, n_train)
        one_s = batched_s(question) + min(answer, recipe.max_new_tokens) * batched_s(1)
    answer_s = n_test * recipe.attempts * one_s / num_workers
    return OTHER_S, load_s, max(encode_s, LEAST_S), train_s, answer_s


def _tokens(backbone: BackboneSpec, task: TaskSpec, recipe: TrainRecipe, split: Split) -> tuple[float, float]:
    """Tokens of a question and of its answer; of a video all of them count as the answer's."""
    what = (backbone.family, task.name, task.params_json(), split)
    return _tokens_of(*what, recipe.num_frames, recipe.inputs, recipe.cell_px, recipe.border_px, recipe.picture_px)


@lru_cache(maxsize=100_000)  # a sweep may have as many recipes, but few sizes of pictures
def _tokens_of(
    family: str,
    task_name: str,
    params_json: str,
    split: Split,
    num_frames: int,
    inputs: str,
    cell_px: int | None,
    border_px: int | None,
    picture_px: int | None,
) -> tuple[float, float]:
    problem = _example(task_name, params_json, split)
    if family == "video":
        sizes = {"cell_px": cell_px, "border_px": border_px, "picture_px": picture_px}
        side = _picture_px(_task(task_name, params_json), TrainRecipe.model_validate(sizes), split, problem)
        latent_frames = 1 + -(-(num_frames - 1) // FRAMES_A_LATENT)
        return 0.0, float(latent_frames * -(-side[0] // TOKEN_PX) * -(-side[1] // TOKEN_PX))
    cells = (problem.question.size, problem.answer.size) if problem is not None else (UNKNOWN_CELLS, UNKNOWN_CELLS)
    question = 2.0 * cells[0] if family == "language" or "text" in inputs else 0.0
    if family == "vision_language" and "image" in inputs:
        question += IMAGE_TOKENS
    return question + CHAT_TOKENS, 2.0 * cells[1]


def _picture_px(task: TaskSpec, recipe: TrainRecipe, split: Split, problem: Problem | None) -> tuple[int, int]:
    if problem is None:
        return UNKNOWN_SIDE_PX, UNKNOWN_SIDE_PX
    try:
        return canvas_px(problem, picture_style(task.build(split), recipe, problem), TOKEN_PX)
    except ValueError:  # a picture_px too small for the cells: the trial will say so itself
        return UNKNOWN_SIDE_PX, UNKNOWN_SIDE_PX


@lru_cache(maxsize=10_000)
def _example(name: str, params_json: str, split: Split) -> Problem | None:
    """One problem of a task, for its size; None where it cannot be drawn."""
    try:
        task = _task(name, params_json).build(split)
        return next(iter(task.given_problems(split)), None) or task.draw(1, "size")[0]
    except (ValueError, NotImplementedError):
        return None


def _task(name: str, params_json: str) -> TaskSpec:
    params = json.loads(params_json)
    test = params.pop("test", {})
    params.pop("min_test_distance", None)
    return TaskSpec(name=name, params=params, test=test)
