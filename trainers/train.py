"""The one training loop: LoRA weights on a frozen backbone, the same losses however the work is cut.

The global batch of a step, its order and its noise depend on (seed, step) alone. Each rank computes its slice in
micro-batches, and every example counts 1 / batch_size. So the number of workers, the micro-batch size and the ZeRO
stage change losses only by rounding (dropout apart, which draws per forward pass).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trainers import lora
from trainers.engine import MicroBatch, make_engine, module_device, world
from trainers.recipe import Placement, TrainRecipe
from trainers.rng import hashed_seed, torch_generator

if TYPE_CHECKING:
    from trainers.backbone import Backbone, Batch, UntrainedBackbone

TRAIN_LOSS_SHARE = 0.1
"""``TrainResult.train_loss`` is the mean over this last share of the steps (at least one step)."""


class NonFiniteLossError(RuntimeError):
    """The loss, or its gradient, is infinite or not a number: the weights are worthless from this step on."""

    error_kind = "non_finite_loss"


@dataclass(frozen=True)
class LossRow:
    """One optimizer step: a row of the ``losses`` table."""

    step: int
    """Counts from 1."""
    loss: float
    """Mean over the global batch, before the update."""
    learning_rate: float
    grad_norm: float
    """Norm of the LoRA gradient before clipping."""
    samples_per_s: float


@dataclass(frozen=True)
class TrainResult:
    """What training leaves besides the weights."""

    num_trainable_params: int
    losses: list[LossRow]
    train_s: float
    train_loss: float | None
    """Mean loss of the last tenth of the steps; None where nothing was trained."""


def train(
    backbone: Backbone | UntrainedBackbone,
    examples: Sequence[Any],
    recipe: TrainRecipe,
    placement: Placement,
    *,
    seed: int,
    on_step: Callable[[LossRow], None] | None = None,
) -> TrainResult:
    """Train the LoRA weights attached to ``backbone.module`` on encoded ``examples`` for ``recipe.max_steps`` steps.

    Leaves the trained adapter attached to a plain torch module in evaluation mode. ``on_step`` runs after every step,
    on every rank. An untrained backbone takes the examples in by its ``fit`` and nothing else happens.
    With several workers every rank calls this with the same arguments, its environment set as ``join_process_group``
    says, and gets the same losses.

    Raises:
        NonFiniteLossError: on every rank, at the first step whose loss or gradient norm is not finite.
        ValueError: no examples, or ranks missing from the environment.
    """
    import torch

    started = time.perf_counter()
    if not backbone.spec.trainable:
        backbone.fit(examples)  # type: ignore[union-attr]
        return TrainResult(0, [], time.perf_counter() - started, None)
    if not examples:
        raise ValueError("n_train: expected at least one training example, got none")
    trained: Backbone = backbone  # type: ignore[assignment]
    module = trained.module
    lora.assert_only_lora_trains(module)
    device = module_device(module)
    plan = _forward_plan(recipe.batch_size, placement)
    num_trainable_params = lora.num_trainable_params(module)
    losses: list[LossRow] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.train()
        engine = make_engine(trained, recipe, placement, num_micro_batches=len(plan[0]))
        assert world().size == placement.num_workers
        slices = plan[world().rank]
        try:
            for step in range(recipe.max_steps):
                step_started = time.perf_counter()
                rate = learning_rate(recipe, step)
                outcome = engine.step(_micro_batches(trained, examples, recipe, slices, seed, step), rate)
                samples_per_s = recipe.batch_size / (time.perf_counter() - step_started)
                losses.append(LossRow(step + 1, outcome.loss, rate, outcome.grad_norm, samples_per_s))
                _check_finite(losses[-1])
                if on_step is not None:
                    on_step(losses[-1])
        except Exception as error:
            # Closing takes all ranks; one that fails alone must not wait for the others, or its error is never seen.
            if world().size == 1 or isinstance(error, NonFiniteLossError):
                engine.close()
            raise
        else:
            engine.close()
        finally:
            module.eval()
    tail = losses[-max(1, round(TRAIN_LOSS_SHARE * len(losses))) :]
    return TrainResult(
        num_trainable_params=num_trainable_params,
        losses=losses,
        train_s=time.perf_counter() - started,
        train_loss=math.fsum(row.loss for row in tail) / len(tail),
    )


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """The rate of optimizer step ``step`` (from 0).

    It rises linearly over ``warmup_steps`` (the first step already moves), stays, and decays over the last
    ``decay_share`` of all steps, never before the warm-up is over; step ``max_steps`` would be the first at zero.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    decay_start = max(recipe.warmup_steps, round(recipe.max_steps * (1 - recipe.decay_share)))
    progress = max(0, step - decay_start) / max(1, recipe.max_steps - decay_start)
    if recipe.lr_schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    if recipe.lr_schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return recipe.learning_rate


def example_indices(n_examples: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which examples make the global batch of optimizer step ``step`` (from 0): ``batch_size`` indices.

    Batches are consecutive cuts of an endless row of epochs, each a shuffle of all examples keyed by (seed, epoch). So
    an epoch never repeats an example, and a batch larger than the training set holds several epochs.
    """
    import torch

    first, last = step * batch_size, (step + 1) * batch_size
    epochs = range(first // n_examples, (last - 1) // n_examples + 1)
    order = [
        index
        for epoch in epochs
        for index in torch.randperm(n_examples, generator=torch_generator("epoch", seed, epoch)).tolist()
    ]
    offset = first - epochs.start * n_examples
    return order[offset : offset + batch_size]


def _forward_plan(batch_size: int, placement: Placement) -> list[list[range]]:
    """Positions in the global batch, by rank and by micro-batch; an empty range where a rank has nothing left to do.

    Slices are contiguous and differ by at most one example. Every rank has as many micro-batches, because sharded
    weights are gathered by all ranks together in every forward pass.
    """
    workers = placement.num_workers
    bounds = [batch_size * rank // workers for rank in range(workers + 1)]
    largest_slice = max(end - start for start, end in pairwise(bounds))
    size = min(placement.micro_batch_size or largest_slice, largest_slice)
    return [
        [range(min(at, end), min(at + size, end)) for at in range(start, start + largest_slice, size)]
        for start, end in pairwise(bounds)
    ]


def _micro_batches(
    backbone: Backbone, examples: Sequence[Batch], recipe: TrainRecipe, slices: Sequence[range], seed: int, step: int
) -> list[MicroBatch]:
    """This rank's part of the global batch of one step, on the module's device."""
    import torch

    indices = example_indices(len(examples), recipe.batch_size, seed, step)
    batch = backbone.collate([examples[i] for i in indices], recipe, torch_generator("noise", seed, step))
    device = module_device(backbone.module)
    micro_batches = []
    for positions in slices:
        weight = 1 / recipe.batch_size if positions else 0.0
        positions = positions or range(1)  # nothing left for this rank: it runs an example that does not count
        micro_batches.append(
            MicroBatch(
                batch={name: cells[positions.start : positions.stop].to(device) for name, cells in batch.items()},
                weights=torch.full((len(positions),), weight, device=device),
                dropout_seed=hashed_seed("dropout", seed, step, positions.start),
            )
        )
    return micro_batches


def _check_finite(row: LossRow) -> None:
    for name, value in (("loss", row.loss), ("gradient norm", row.grad_norm)):
        if not math.isfinite(value):
            raise NonFiniteLossError(f"step {row.step}: {name} is {value} at learning rate {row.learning_rate:g}")
