"""What hardware holds: whether a trial finds room on the nodes of a cluster, how many do at once, how much memory they
take. Plain arithmetic over resources by node, as Ray names them (``CPU``, ``GPU``, ``accelerator_type:H100``).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.specs import TrialSpec
from trainers.recipe import TrainRecipe

Resources = Mapping[str, float]
"""What one node or one bundle has, by Ray's names."""
Bundles = tuple[dict[str, float], ...]

ACCELERATOR = "accelerator_type:"
CPUS_A_GPU = 16.0
"""Of a node that ``--gpus`` names, which says nothing of CPUs."""
ROUNDING = 1e-9
BYTES_A_PARAMETER = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.56}
"""Of the frozen base; NF4 with double quantization takes 4.13 bits for a quantized weight (arXiv 2305.14314), and the
embeddings and norms stay in 16 bits."""
RECOMPUTED_SHARE = 0.35
"""Of the activations, what is left with gradient checkpointing, roughly."""
FIXED_SHARE = 0.3
"""Of what is not weights, the part that does not grow with the batch: LoRA and its optimizer, VAE, CUDA itself."""


@dataclass(frozen=True)
class GpuModel:
    """A kind of GPU by its maker's data sheet (dense bf16, without sparsity)."""

    name: str
    memory_gb: float
    bf16_tflops: float
    bandwidth_gb_per_s: float


GPU_MODELS = {
    model.name: model
    for model in (
        GpuModel("B200", 180, 2250, 8000),
        GpuModel("H200", 141, 989, 4800),
        GpuModel("GH200", 96, 989, 4000),
        GpuModel("H100", 80, 989, 3350),
        GpuModel("MI300X", 192, 1307, 5300),
        GpuModel("A100", 80, 312, 2039),
        GpuModel("A100-40G", 40, 312, 1555),
        GpuModel("L40S", 48, 362, 864),
        GpuModel("A40", 48, 150, 696),
        GpuModel("A10G", 24, 70, 600),
        GpuModel("L4", 24, 121, 300),
        GpuModel("RTX4090", 24, 165, 1008),
        GpuModel("RTX3090", 24, 71, 936),
        GpuModel("V100", 16, 112, 900),
        GpuModel("T4", 16, 65, 320),
    )
}


@dataclass(frozen=True)
class Hardware:
    """The nodes a sweep is planned for. ``gpu`` is the kind of their GPUs; None where they have none."""

    nodes: tuple[Resources, ...]
    gpu: GpuModel | None
    where: str
    """For people: ``8 x H100``, ``this machine``, ``the cluster ...``."""
    named: bool = True
    """Whether the user named it. Else a sweep may be planned here and run elsewhere: what does not fit is no error."""

    @property
    def has_gpus(self) -> bool:
        """Whether any node has a GPU."""
        return any(node.get("GPU", 0) > 0 for node in self.nodes)


def parse_gpus(text: str) -> Hardware:
    """The hardware that ``--gpus`` names: ``H100:8`` is one node of eight, ``H100:8x4`` four such nodes; ``48GB:2`` is
    a kind that has no name here, by its memory. There are ``CPUS_A_GPU`` CPUs for each. ValueError lists the names."""
    match = re.fullmatch(r"([A-Za-z0-9-]+?):(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    count, num_nodes = (int(match[2]), int(match[3] or 1)) if match else (0, 0)
    if match is None or not count or not num_nodes:
        raise ValueError(f"--gpus {text}: expected NAME:COUNT, or NAME:COUNTxNODES, for instance H100:8 or H100:8x4")
    model = named_gpu(match[1])
    if model is None:
        raise ValueError(f"--gpus {text}: unknown GPU {match[1]!r}; valid: {', '.join(GPU_MODELS)}, or as 48GB:8")
    nodes = tuple({"CPU": CPUS_A_GPU * count, "GPU": float(count)} for _ in range(num_nodes))
    where = f"{count} x {model.name}" if num_nodes == 1 else f"{num_nodes} nodes of {count} x {model.name}"
    return Hardware(nodes, model, where)


def gpu_model(device_name: str) -> GpuModel | None:
    """The model in a device's name as CUDA or Ray write it (``NVIDIA H100 80GB HBM3``, ``A100-80G``); None: unknown."""
    words = re.findall(r"[A-Z0-9]+", device_name.upper())
    names = {*words, *(first + second for first, second in itertools.pairwise(words))}  # RTX 4090
    found = [model for name, model in _by_name().items() if name in names]
    if not found:
        return None
    model = max(found, key=lambda each: len(each.name))
    return GPU_MODELS["A100-40G"] if model.name == "A100" and names & {"40G", "40GB"} else model


def named_gpu(name: str) -> GpuModel | None:
    """The model that a user names: one of ``GPU_MODELS``, or ``48GB`` for any with that memory; None: unknown."""
    memory = re.fullmatch(r"(\d{1,4})GB", name, re.IGNORECASE)
    return _of_memory(float(memory[1])) if memory and int(memory[1]) else _by_name().get(_plain(name))


def cluster_hardware(nodes: Sequence[Resources], where: str) -> Hardware:
    """The hardware of a Ray cluster from its nodes' resources, those that its autoscaler may start included. Its GPUs
    count as the smallest kind among them, or as H100s where no node says."""
    names = [name.removeprefix(ACCELERATOR) for node in nodes for name in node if name.startswith(ACCELERATOR)]
    models = [model for model in map(gpu_model, names) if model is not None]
    has_gpus = any(node.get("GPU", 0) > 0 for node in nodes)
    gpu = min(models, key=lambda model: model.memory_gb) if models else GPU_MODELS["H100"] if has_gpus else None
    return Hardware(tuple(nodes), gpu, where)


def gpus_per_worker(trial: TrialSpec, has_gpus: bool) -> float:
    """GPUs that each worker of a trial asks for: what its placement says, else its backbone's where there are any."""
    asked = trial.placement.gpus_per_worker
    if asked is not None:
        return asked
    return trial.backbone_spec.num_gpus if has_gpus else 0.0


def wants_gpu(trial: TrialSpec) -> bool:
    """Whether a trial runs on GPUs where there are any."""
    return gpus_per_worker(trial, has_gpus=True) > 0


def bundles(trial: TrialSpec, gpus_per_worker: float) -> Bundles:
    """The resources a trial holds: of one worker, or of one that waits (empty) and its ranks."""
    worker = {"CPU": trial.placement.cpus_per_worker} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    count = trial.placement.num_workers
    return (worker,) if count == 1 else ({}, *(dict(worker) for _ in range(count)))


def slots(trial_bundles: Bundles, nodes: Sequence[Resources]) -> int:
    """How many trials with these bundles idle nodes hold at once, 0: it does not fit. A bundle lies on one node, and a
    fraction of a GPU on one GPU; the bundles of a trial, which are equal, may lie on any."""
    held = [bundle for bundle in trial_bundles if bundle]
    if not held:
        return 1
    return sum(_times(held[0], node) for node in nodes) // len(held)


def placement_fault(trial: TrialSpec, hardware: Hardware) -> str:
    """Why a trial can never start on ``hardware``, in a line; empty where it can."""
    asked = bundles(trial, gpus_per_worker(trial, hardware.has_gpus))
    if slots(asked, hardware.nodes):
        return ""
    worker = ", ".join(f"{amount:g} {name}" for name, amount in asked[-1].items())
    room = [f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in hardware.nodes]
    has = "; ".join(f"{room.count(kind)} of ({kind})" for kind in dict.fromkeys(room))
    return (
        f"placement: {trial.label()} asks for {trial.placement.num_workers} x ({worker}), which do not fit on "
        f"{len(room)} node(s), {has}; lower num_workers, cpus_per_worker or gpus_per_worker, or take larger nodes"
    )


def memory_needed_gb(trial: TrialSpec) -> float:
    """GPU memory of one worker that a training step of ``trial`` takes, roughly: what the backbone states for its
    published recipe, with the weights in this trial's precision (split over the workers by ZeRO stage 3), and the
    activations of this trial's batch (those of one micro-batch, and less where they are recomputed)."""
    spec, recipe, placement = trial.backbone_spec, trial.recipe, trial.placement
    published = TrainRecipe(**spec.recipe)
    stated_gb = spec.num_params * BYTES_A_PARAMETER[published.precision] / 1e9
    rest_gb = max(0.0, spec.memory_gb - stated_gb)
    weights_gb = spec.num_params * BYTES_A_PARAMETER[recipe.precision] / 1e9
    if placement.zero_stage == 3:
        weights_gb /= placement.num_workers
    at_once = math.ceil(recipe.batch_size / placement.num_workers)
    at_once = min(at_once, placement.micro_batch_size or at_once)
    share = at_once / published.batch_size
    if placement.gradient_checkpointing:
        share *= RECOMPUTED_SHARE
    return weights_gb + rest_gb * (FIXED_SHARE + (1 - FIXED_SHARE) * share)


def memory_fault(trial: TrialSpec, hardware: Hardware) -> str:
    """Why a trial's training step does not fit the memory of its GPU, in a line; empty where it should, or runs on a
    CPU. What ``memory_gb`` states is rough, so that a fault is no proof."""
    share = gpus_per_worker(trial, hardware.has_gpus)
    if hardware.gpu is None or not share:
        return ""
    room_gb, needed_gb = hardware.gpu.memory_gb * min(1.0, share), memory_needed_gb(trial)
    if needed_gb <= room_gb:
        return ""
    part = f"{share:g} of " if share < 1 else ""
    return (
        f"memory: {trial.backbone} needs about {needed_gb:.0f} GB with precision {trial.recipe.precision}, {part}a "
        f"{hardware.gpu.name} has {room_gb:.0f} GB; try placement: "
        "{gradient_checkpointing: true, micro_batch_size: 1}, several workers with "
        "zero_stage: 3, or recipe: {precision: nf4}"
    )


def _times(bundle: Resources, node: Resources) -> int:
    return min(_times_of_one(name, amount, node.get(name, 0)) for name, amount in bundle.items())


def _times_of_one(name: str, amount: float, there: float) -> int:
    if name == "GPU" and amount < 1:
        return math.floor(1 / amount + ROUNDING) * math.floor(there + ROUNDING)
    return math.floor(there / amount + ROUNDING)


def _of_memory(memory_gb: float) -> GpuModel:
    """A GPU of which only the memory is known: as fast as the slowest one here that has as much, or the largest."""
    larger = [model for model in GPU_MODELS.values() if model.memory_gb >= memory_gb] or list(GPU_MODELS.values())
    like = min(larger, key=lambda model: model.bf16_tflops)
    return GpuModel(f"{memory_gb:g}GB GPU", memory_gb, like.bf16_tflops, like.bandwidth_gb_per_s)


def _by_name() -> dict[str, GpuModel]:
    return {_plain(name): model for name, model in GPU_MODELS.items()}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())
