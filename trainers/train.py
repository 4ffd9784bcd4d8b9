"""The one training loop: LoRA weights on a frozen backbone, the same losses however the work is cut.

The global batch of a step, its order and its noise depend on (seed, step) alone. Each rank computes its slice in
micro-batches, and every example counts 1 / batch_size. So the number of workers, the micro-batch size and the ZeRO
stage change losses only by rounding (dropout apart, which draws per forward pass).
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trainers import lora
from trainers.checkpoint import Checkpoints, TrainingProgress
from trainers.engine import Engine, MicroBatch, make_engine, module_device, world
from trainers.gradient_checkpointing import gradient_checkpointing
from trainers.out_of_memory import TrainingOutOfMemoryError, forget_frames, is_out_of_memory
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
    """Seconds, with those that earlier executions spent up to the checkpoint this one went on from."""
    train_loss: float | None
    """Mean loss of the last tenth of the steps; None where nothing was trained."""
    micro_batch_size: int | None = None
    """Most examples of one forward pass; None where nothing was trained."""
    resumed_from_step: int | None = None
    """Steps done when this execution took over from a checkpoint; None when it began anew."""


def train(
    backbone: Backbone | UntrainedBackbone,
    examples: Sequence[Any],
    recipe: TrainRecipe,
    placement: Placement,
    *,
    seed: int,
    on_step: Callable[[LossRow], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Train the LoRA weights attached to ``backbone.module`` on encoded ``examples`` for ``recipe.max_steps`` steps.

    Leaves the trained adapter attached to a plain torch module in evaluation mode. ``on_step`` runs after every step
    that is computed here, on every rank. An untrained backbone takes the examples in by its ``fit`` and nothing else
    happens. With ``checkpoints`` it goes on from the current one, and leaves one at its end.
    With several workers every rank calls this with the same arguments, its environment set as ``join_process_group``
    says, and gets the same losses.

    Raises:
        NonFiniteLossError: on every rank, at the first step whose loss or gradient norm is not finite.
        TrainingOutOfMemoryError: on the ranks it happens to. The adapter is worthless then; after DeepSpeed so is the
            module, which may still be sharded.
        ValueError: no examples, ranks missing from the environment, or no gradient checkpointing in this backbone.
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
    num_trainable_params = lora.num_trainable_params(module)
    size = _micro_batch_size(recipe.batch_size, placement)
    saving = gradient_checkpointing(trained.spec.name, module) if placement.gradient_checkpointing else nullcontext()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), saving:
        module.train()
        try:
            loop = _Loop(trained, examples, recipe, placement, seed, on_step, checkpoints, started)
            loop.run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            forget_frames(error)
            raise TrainingOutOfMemoryError(size, str(error).partition("\n")[0]) from error
        finally:
            module.eval()
    return TrainResult(
        num_trainable_params=num_trainable_params,
        losses=loop.losses,
        train_s=loop.train_s,
        train_loss=mean_train_loss(loop.losses),
        micro_batch_size=size,
        resumed_from_step=loop.resumed_from_step,
    )


def mean_train_loss(losses: Sequence[LossRow]) -> float:
    """Mean loss of the last tenth of some steps, of the last one at least."""
    tail = losses[-max(1, round(TRAIN_LOSS_SHARE * len(losses))) :]
    return math.fsum(row.loss for row in tail) / len(tail)


class _Loop:
    """The steps of one training, from its start or from a checkpoint to its end."""

    def __init__(
        self,
        backbone: Backbone,
        examples: Sequence[Batch],
        recipe: TrainRecipe,
        placement: Placement,
        seed: int,
        on_step: Callable[[LossRow], None] | None,
        checkpoints: Checkpoints | None,
        started: float,
    ) -> None:
        self._backbone, self._examples, self._recipe, self._placement = backbone, examples, recipe, placement
        self._seed, self._on_step, self._checkpoints = seed, on_step, checkpoints
        self._started = started
        self._train_s_before = 0.0
        self._num_saved: int | None = None
        self.losses: list[LossRow] = []
        self.resumed_from_step: int | None = None

    @property
    def train_s(self) -> float:
        return self._train_s_before + time.perf_counter() - self._started

    def run(self) -> None:
        """Train to the last step; the engine is closed afterwards."""
        plan = _forward_plan(self._recipe.batch_size, self._placement)
        key = _checkpoint_key(self._backbone, self._examples, self._recipe, self._placement, self._seed)
        engine = make_engine(self._backbone, self._recipe, self._placement, num_micro_batches=len(plan[0]))
        assert world().size == self._placement.num_workers
        try:
            self._restore(engine, key)
            for step in range(len(self.losses), self._recipe.max_steps):
                self._step(engine, plan[world().rank], step)
                if self._checkpoints is not None and self._checkpoints.due():
                    self._save(engine, key)
            if self._num_saved != len(self.losses):
                self._save(engine, key)
        except NonFiniteLossError:
            engine.close()  # all ranks are here
            raise
        except Exception:
            # Closing takes all ranks; one that fails alone must not wait for the others, or its error is never seen.
            if world().size == 1:
                with suppress(Exception):  # it may have failed anywhere, and that first error is the one to see
                    engine.close()
            raise
        engine.close()

    def _step(self, engine: Engine, slices: Sequence[range], step: int) -> None:
        step_started = time.perf_counter()
        rate = learning_rate(self._recipe, step)
        outcome = engine.step(
            _micro_batches(self._backbone, self._examples, self._recipe, slices, self._seed, step), rate
        )
        samples_per_s = self._recipe.batch_size / (time.perf_counter() - step_started)
        row = LossRow(step + 1, outcome.loss, rate, outcome.grad_norm, samples_per_s)
        _check_finite(row)
        self.losses.append(row)
        if self._on_step is not None:
            self._on_step(row)

    def _restore(self, engine: Engine, key: dict[str, Any]) -> None:
        progress = None if self._checkpoints is None else self._checkpoints.restore(engine, key)
        if progress is not None:
            self.losses = [LossRow(**row) for row in progress.losses]
            self._train_s_before = progress.train_s
            self.resumed_from_step = self._num_saved = len(progress.losses)

    def _save(self, engine: Engine, key: dict[str, Any]) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(engine, TrainingProgress([asdict(row) for row in self.losses], self.train_s), key)
            self._num_saved = len(self.losses)


def _checkpoint_key(
    backbone: Backbone, examples: Sequence[Any], recipe: TrainRecipe, placement: Placement, seed: int
) -> dict[str, Any]:
    """What a training must share with the one that wrote a checkpoint, to go on from it. Survives JSON."""
    packages = ["torch"] if placement.num_workers == 1 and placement.zero_stage is None else ["torch", "deepspeed"]
    return {
        "backbone": backbone.spec.name,
        "revision": backbone.spec.revision,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "num_examples": len(examples),
        "num_trainable_params": lora.num_trainable_params(backbone.module),
        "num_workers": placement.num_workers,
        "zero_stage": placement.zero_stage,
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


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


def _slice_bounds(batch_size: int, num_workers: int) -> list[tuple[int, int]]:
    """Start and end of each rank's contiguous slice of the global batch; they differ by at most one in length."""
    return list(pairwise(batch_size * rank // num_workers for rank in range(num_workers + 1)))


def _micro_batch_size(batch_size: int, placement: Placement) -> int:
    """Most examples of one forward pass."""
    largest_slice = max(end - start for start, end in _slice_bounds(batch_size, placement.num_workers))
    return min(placement.micro_batch_size or largest_slice, largest_slice)


def _forward_plan(batch_size: int, placement: Placement) -> list[list[range]]:
    """Positions in the global batch, by rank and by micro-batch; an empty range where a rank has nothing left to do.

    Every rank has as many micro-batches, because sharded weights are gathered by all ranks together in every forward
    pass.
    """
    bounds = _slice_bounds(batch_size, placement.num_workers)
    largest_slice = max(end - start for start, end in bounds)
    size = _micro_batch_size(batch_size, placement)
    return [
        [range(min(at, end), min(at + size, end)) for at in range(start, start + largest_slice, size)]
        for start, end in bounds
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
