"""What steps the optimizer: plain torch on one worker, DeepSpeed ZeRO 0 to 3 on several or when asked for.

Both do the same arithmetic on the same global batch: AdamW on the LoRA weights in float32, the global gradient norm
clipped, the learning rate given by the caller. ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) only decides where
gradients (2), optimizer states (1) and weights (3) are kept. Shapes: b = examples of one micro-batch.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainers.lora import gathered
from trainers.recipe import Placement, TrainRecipe

if TYPE_CHECKING:
    import torch

    from trainers.backbone import Backbone, Batch

DEEPSPEED_STAGE_ON_SEVERAL_WORKERS = 1
DEEPSPEED_TAG = "deepspeed"
"""Subfolder of a checkpoint for what DeepSpeed writes."""


@dataclass(frozen=True)
class World:
    """This process's place among those that share a trial."""

    rank: int
    size: int


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass sees, and how much each of its examples counts."""

    batch: Batch
    weights: torch.Tensor
    """Shape (b,): the share of each example in the global batch's mean loss; 0 for one that only fills a gap."""
    dropout_seed: int
    """Seeds the device's generator before the forward pass, so that dropout repeats."""


@dataclass(frozen=True)
class StepOutcome:
    """One optimizer step: mean loss over the global batch, and the norm of its gradient before clipping."""

    loss: float
    grad_norm: float


class Engine(Protocol):
    """Runs one optimizer step at a time; ``close`` leaves a plain module with the trained weights."""

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepOutcome:
        """Forward and backward this rank's share of the global batch, then update the weights, on all ranks alike."""

    def save(self, folder: Path) -> None:
        """Write this rank's part of the weights and of the optimizer's state to files in ``folder``. Collective."""

    def load(self, folder: Path) -> None:
        """Take over what the ranks of an equal engine saved; ``folder`` holds the parts of all ranks. Collective."""

    def close(self) -> None:
        """Give up everything but the weights. Collective; the engine cannot be used afterwards."""


def make_engine(backbone: Backbone, recipe: TrainRecipe, placement: Placement, num_micro_batches: int) -> Engine:
    """The engine that ``placement`` asks for, on the parameters of ``backbone.module`` that require gradients."""
    if placement.num_workers == 1 and placement.zero_stage is None:
        return TorchEngine(backbone, recipe)
    join_process_group(placement, module_device(backbone.module))
    stage = DEEPSPEED_STAGE_ON_SEVERAL_WORKERS if placement.zero_stage is None else placement.zero_stage
    return DeepSpeedEngine(backbone, recipe, stage, num_micro_batches)


class TorchEngine:
    """One process, ``torch.optim.AdamW``."""

    def __init__(self, backbone: Backbone, recipe: TrainRecipe) -> None:
        self._backbone = backbone
        self._parameters = [p for p in backbone.module.parameters() if p.requires_grad]
        self._optimizer = _adamw(self._parameters, recipe)
        self._clip = recipe.gradient_clip

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepOutcome:
        """See ``Engine.step``."""
        import torch

        loss_sum = 0.0
        for micro_batch in micro_batches:
            torch.manual_seed(micro_batch.dropout_seed)
            weighted = (self._backbone.loss(micro_batch.batch) * micro_batch.weights).sum()
            weighted.backward()
            loss_sum += weighted.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip or float("inf")).item()
        _set_learning_rate(self._optimizer, learning_rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepOutcome(loss_sum, grad_norm)

    def save(self, folder: Path) -> None:
        """See ``Engine.save``."""
        import torch

        weights = [parameter.detach() for parameter in self._parameters]
        torch.save({"weights": weights, "optimizer": self._optimizer.state_dict()}, folder / "torch.pt")

    def load(self, folder: Path) -> None:
        """See ``Engine.load``."""
        import torch

        kept = torch.load(folder / "torch.pt", map_location="cpu", weights_only=True)
        for parameter, weights in zip(self._parameters, kept["weights"], strict=True):
            parameter.data.copy_(weights)
        self._optimizer.load_state_dict(kept["optimizer"])

    def close(self) -> None:
        """See ``Engine.close``."""
        self._optimizer.zero_grad(set_to_none=True)


class DeepSpeedEngine:
    """One or several processes, DeepSpeed with ZeRO stage 0, 1, 2 or 3.

    DeepSpeed runs in its float32 mode whatever the precision of the frozen base, which it leaves as it is: its bf16
    mode would round the LoRA weights to bf16, and drifts at stage 0.
    """

    def __init__(self, backbone: Backbone, recipe: TrainRecipe, stage: int, num_micro_batches: int) -> None:
        import torch

        deepspeed = _import_deepspeed(module_device(backbone.module))
        self._module = backbone.module
        self._stage = stage
        self._attributes = _attributes(backbone.module)
        parameters = [p for p in backbone.module.parameters() if p.requires_grad]
        self._optimizer = _adamw(parameters, recipe)
        config = {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only counts with it; losses arrive weighted
            "gradient_accumulation_steps": num_micro_batches,
            "gradient_clipping": recipe.gradient_clip,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        }
        # Stage 3 puts its own in place for the whole process, which rounds differently in what comes after.
        self._linear = torch.nn.functional.linear
        # DeepSpeed leaves hooks on the module it is given: it gets a throw-away one around the one that is kept.
        self._engine, *_ = deepspeed.initialize(
            model=_loss_module(backbone), optimizer=self._optimizer, model_parameters=parameters, config=config
        )

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepOutcome:
        """See ``Engine.step``."""
        import torch
        import torch.distributed as dist

        assert len(micro_batches) == self._engine.gradient_accumulation_steps()
        _set_learning_rate(self._engine.optimizer, learning_rate)
        loss_sum = torch.zeros((), dtype=torch.float64)
        for index, micro_batch in enumerate(micro_batches):
            torch.manual_seed(micro_batch.dropout_seed)
            weighted = (self._engine(micro_batch.batch) * micro_batch.weights).sum()
            # DeepSpeed averages gradients over the ranks; the weights already are shares of the global batch.
            self._engine.backward(weighted * world().size, scale_wrt_gas=False)
            loss_sum += weighted.item()
            if index == len(micro_batches) - 1 and self._stage == 0:
                unclipped = self._stage_0_grad_norm()
            self._engine.step()
        device_loss = loss_sum.to(module_device(self._module))
        dist.all_reduce(device_loss)
        grad_norm = unclipped if self._stage == 0 else self._zero_grad_norm()
        return StepOutcome(device_loss.item(), grad_norm)

    def save(self, folder: Path) -> None:
        """See ``Engine.save``."""
        # Every rank may have a disk of its own, and DeepSpeed makes folders on some ranks only.
        (folder / DEEPSPEED_TAG).mkdir(exist_ok=True)
        self._engine.save_checkpoint(str(folder), tag=DEEPSPEED_TAG, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """See ``Engine.load``."""
        # Not strict: the frozen weights are not in there.
        path, _ = self._engine.load_checkpoint(str(folder), tag=DEEPSPEED_TAG, load_module_strict=False)
        assert path is not None, f"DeepSpeed found no checkpoint in {folder}"

    def close(self) -> None:
        """See ``Engine.close``. After stage 3 every rank holds the whole module again, and needs the memory for it."""
        import torch

        try:
            if self._stage == 3:
                _unshard(self._module)
        finally:
            self._engine.destroy()
            _forget_stage_3_engines()
            _restore_attributes(self._module, self._attributes)
            torch.nn.functional.linear = self._linear
            del self._engine, self._optimizer
        if module_device(self._module).type == "cuda":
            gc.collect()  # an engine is full of reference cycles; its device memory must not outlive the trial

    def _stage_0_grad_norm(self) -> float:
        """Norm of the summed gradient; DeepSpeed keeps none at stage 0."""
        import torch

        gradients = [p.grad for p in self._module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item()

    def _zero_grad_norm(self) -> float:
        """Norm of the summed gradient; infinite where DeepSpeed found it so and skipped the update."""
        if getattr(self._engine.optimizer, "overflow", False):
            return float("inf")
        return float(self._engine.get_global_grad_norm())


def world() -> World:
    """This process's rank and the number of ranks; (0, 1) where no process group was joined."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return World(rank=0, size=1)
    return World(rank=dist.get_rank(), size=dist.get_world_size())


def join_process_group(placement: Placement, device: torch.device) -> None:
    """Join the process group of ``placement.num_workers`` ranks; nothing to do when this process is in it already.

    Several workers: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT come from the environment; every rank must call. One
    worker: a group of one, without a port. ``device`` is where this rank's weights lie. ValueError when the environment
    and the placement disagree.
    """
    import torch
    import torch.distributed as dist

    backend = "gloo"
    os.environ["LOCAL_RANK"] = str(device.index or 0)  # from nowhere else does DeepSpeed take this rank's device
    if device.type == "cuda":
        backend = "nccl"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        if placement.num_workers == 1:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        else:
            missing = [v for v in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if v not in os.environ]
            if missing:
                raise ValueError(
                    f"num_workers: {placement.num_workers} workers need {', '.join(missing)} in the environment; "
                    "start the ranks by the sweep or by `python -m torch.distributed.run`"
                )
            dist.init_process_group(backend)
    size = dist.get_world_size()
    if size != placement.num_workers:
        raise ValueError(f"num_workers: the placement asks for {placement.num_workers}, the process group has {size}")


def leave_process_group() -> None:
    """Leave the process group, if one was joined. Only at the process's end: DeepSpeed cannot use another one."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def module_device(module: torch.nn.Module) -> torch.device:
    """Where the module's parameters lie."""
    return next(module.parameters()).device


def _adamw(parameters: list[torch.nn.Parameter], recipe: TrainRecipe) -> torch.optim.AdamW:
    import torch

    return torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        weight_decay=recipe.weight_decay,
    )


def _set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet, and on the CPU without compiling anything."""
    # It calls collectives by names that torch deprecates: a warning at every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.type == "cuda" else "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Its shared-memory op only serves tensor-parallel inference, yet every CPU rank would compile it first (g++, 25 s).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _loss_module(backbone: Backbone) -> torch.nn.Module:
    """A module whose forward pass is the backbone's loss: batch -> (b,)."""
    import torch

    class LossModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = backbone.module

        def forward(self, batch: Batch) -> torch.Tensor:
            return backbone.loss(batch)

    return LossModule()


def _unshard(module: torch.nn.Module) -> None:
    """Undo ZeRO-3's sharding: give every submodule plain, whole parameters in place of the sharded ones."""
    import torch

    plain: dict[int, torch.nn.Parameter] = {}
    for child in module.modules():
        restored: dict[str, torch.nn.Parameter | None] = {}
        for name, parameter in child._parameters.items():
            if parameter is None:
                restored[name] = None
                continue
            if id(parameter) not in plain:
                with gathered([parameter]):
                    whole = parameter.detach().clone()
                plain[id(parameter)] = torch.nn.Parameter(whole, requires_grad=parameter.requires_grad)
            restored[name] = plain[id(parameter)]
        child._parameters = restored


def _forget_stage_3_engines() -> None:
    """Empty the two places where DeepSpeed keeps the modules, and by their hooks the engines, of stage 3 for ever."""
    from deepspeed.runtime.zero import parameter_offload

    parameter_offload.FWD_MODULE_STACK.clear()
    coordinator = parameter_offload.PartitionedParameterCoordinator
    for function in vars(coordinator).values():  # one method has a cache, inside a decorator that hides it
        for cell in getattr(function, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()


def _attributes(module: torch.nn.Module) -> dict[torch.nn.Module, set[str]]:
    """The attribute names of every submodule."""
    return {child: set(vars(child)) for child in module.modules()}


def _restore_attributes(module: torch.nn.Module, before: dict[torch.nn.Module, set[str]]) -> None:
    """Delete what DeepSpeed hung on the submodules since ``before``."""
    for child in module.modules():
        for name in set(vars(child)) - before[child]:
            delattr(child, name)
