"""Fresh LoRA weights on a warm, frozen base: attach, detach, read, load, save; proof that nothing else trains.

The base is changed in place and comes back bitwise, so one process loads a backbone once and adapts it trial after
trial. LoRA weights are float32 whatever the precision of the base (Hu et al. 2021, arXiv 2106.09685; layers of peft).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.recipe import TrainRecipe
from trainers.rng import torch_generator

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from trainers.backbone import Backbone, UntrainedBackbone

ADAPTER_NAME = "default"
ALL_LINEAR = "all-linear"
"""A LoRA target that stands for every ``torch.nn.Linear`` of the module."""


@contextmanager
def attached(
    backbone: Backbone | UntrainedBackbone, *, lora_rank: int, recipe: TrainRecipe, seed: int
) -> Iterator[None]:
    """Attach fresh LoRA weights to ``backbone.module`` for the length of the block; nothing to do for an untrained one.

    Targets are the recipe's, or else the backbone's own. ValueError as in ``attach``.
    """
    if not backbone.spec.trainable:
        yield
        return
    module = backbone.module  # type: ignore[union-attr]  # a trainable backbone has one
    targets = backbone.spec.lora_targets if recipe.lora_targets is None else recipe.lora_targets
    attach(module, lora_rank=lora_rank, recipe=recipe, targets=targets, seed=seed)
    try:
        yield
    finally:
        detach(module)


def attach(
    module: torch.nn.Module, *, lora_rank: int, recipe: TrainRecipe, targets: Sequence[str], seed: int
) -> LoraConfig:
    """Put LoRA layers of ``lora_rank`` on every Linear whose dotted name ends in one of ``targets``, in place.

    The first weights (A uniform as in a Linear, B zero) depend on (seed, parameter name) alone: not on the global
    random state, which stays as it was, nor on the device or the base's precision.
    ValueError when the rank is not positive, or a target names no Linear of the module.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    assert not _lora_parameters(module), "LoRA is attached already"
    if lora_rank <= 0:
        raise ValueError(f"lora_rank: expected a positive number, got {lora_rank}")
    config = LoraConfig(
        r=lora_rank,
        lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]  # annotated int, any number works
        lora_dropout=recipe.lora_dropout,
        target_modules=_linear_names(module, targets),
    )
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws weights of its own, on the CPU, before ours replace them
        inject_adapter_in_model(config, module, ADAPTER_NAME)
    for name, parameter in _lora_parameters(module).items():
        parameter.data = parameter.data.float()
        if "lora_A" in name.split("."):
            bound = 1 / math.sqrt(parameter[0].numel())  # kaiming_uniform_(a=sqrt(5)), what torch.nn.Linear starts from
            draw = torch.rand(parameter.shape, generator=torch_generator("lora", seed, name))
            parameter.data.copy_(draw * (2 * bound) - bound)
        else:
            parameter.data.zero_()
    assert_only_lora_trains(module)
    return config


def detach(module: torch.nn.Module) -> None:
    """Take all LoRA layers off again, in place; the base is then what it was before ``attach``, bit for bit."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            parent_name, _, child_name = name.rpartition(".")
            setattr(module.get_submodule(parent_name), child_name, layer.get_base_layer())
    if hasattr(module, "peft_config"):
        del module.peft_config


def lora_config(module: torch.nn.Module) -> LoraConfig:
    """The peft configuration of the attached adapter."""
    config: Any = module.peft_config
    return config[ADAPTER_NAME]


def lora_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the LoRA weights, float32 on the CPU, by ``<path in the module>.lora_A.weight`` (and ``lora_B``).

    While ZeRO-3 shards the module this is a collective call: every rank makes it, and every rank gets whole tensors.
    """
    parameters = _lora_parameters(module)
    with gathered(list(parameters.values())):
        return {name: parameter.detach().float().cpu().clone() for name, parameter in parameters.items()}


def load_lora_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy weights saved by ``lora_state`` into the attached adapter; ValueError when names or shapes differ."""
    parameters = _lora_parameters(module)
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = differing[0]
        raise ValueError(
            f"LoRA weights do not fit: {len(differing)} differ, first {name!r}: "
            f"shape {found.get(name)} given, {expected.get(name)} expected"
        )
    for name, parameter in parameters.items():
        parameter.data.copy_(state[name])


def save(backbone: Backbone, folder: Path) -> None:
    """Write the attached adapter to ``folder`` in the family's stock format. Every rank calls; rank 0 writes."""
    from trainers.engine import world

    state = lora_state(backbone.module)
    if world().rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        backbone.save_adapter(folder, state, lora_config(backbone.module))


def num_trainable_params(module: torch.nn.Module) -> int:
    """How many numbers training changes; right under ZeRO-3 too, where a rank holds only its share."""
    return sum(
        getattr(parameter, "ds_numel", parameter.numel())
        for parameter in module.parameters()
        if parameter.requires_grad
    )


def assert_only_lora_trains(module: torch.nn.Module) -> None:
    """Fail unless the parameters that require gradients are exactly the LoRA weights, and these are float32."""
    import torch

    lora = {id(parameter) for parameter in _lora_parameters(module).values()}
    assert lora, "no LoRA weights are attached"
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad == (id(parameter) in lora), f"{name}: requires_grad is {parameter.requires_grad}"
        assert not parameter.requires_grad or parameter.dtype == torch.float32, f"{name}: {parameter.dtype}"


def base_fingerprint(module: torch.nn.Module) -> str:
    """Hash of every parameter and buffer of the base: name, dtype, shape and bytes; LoRA weights are left out.

    The same with and without an adapter, so it shows that a trial changed nothing but its own adapter.
    """
    import torch

    lora = {id(parameter) for parameter in _lora_parameters(module).values()}
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if id(tensor) in lora:
            continue
        name = name.replace(".base_layer.", ".")
        with gathered([tensor]):
            cells = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(cells.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def base_checksum(module: torch.nn.Module) -> list[int]:
    """Sum of the bits of every parameter and buffer of a module without an adapter, computed where each lies.

    As fast as memory is read, so that every trial can afford it. Any accident with the weights changes it but one that
    reorders a tensor; ``base_fingerprint`` is the exact, slow one.
    """
    import torch

    sums = []
    for tensor in [*module.parameters(), *module.buffers()]:
        flat = tensor.detach().contiguous().reshape(-1)
        if flat.storage_offset() * flat.element_size() % 8:
            flat = flat.clone()  # eight bytes at a time want aligned memory
        cells = flat.view(torch.uint8)
        num_whole = cells.numel() // 8 * 8
        total = cells[:num_whole].view(torch.int64).sum() + cells[num_whole:].sum(dtype=torch.int64)
        sums.append(int(total.item()))
    return sums


def gathered(tensors: Sequence[torch.Tensor]) -> Any:
    """A context in which parameters that ZeRO-3 shards are whole on every rank; no effect on any other tensor.

    Without it, reading them gives tensors of shape [0].
    """
    sharded = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(sharded)


def _lora_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """LoRA weights by their name without the adapter's."""
    return {
        name.replace(f".{ADAPTER_NAME}.", "."): parameter
        for name, parameter in module.named_parameters()
        if {"lora_A", "lora_B"} & set(name.split("."))
    }


def _linear_names(module: torch.nn.Module, targets: Sequence[str]) -> list[str]:
    """Full dotted names of the Linears that ``targets`` stand for, in the module's order."""
    import torch

    linear = [name for name, child in module.named_modules() if isinstance(child, torch.nn.Linear)]
    chosen: set[str] = set()
    for target in targets:
        matching = {name for name in linear if target == ALL_LINEAR or name == target or name.endswith(f".{target}")}
        if not matching:
            valid = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(f"lora_targets: {target!r} names no Linear layer; valid targets: {', '.join(valid)}")
        chosen |= matching
    if not chosen:
        raise ValueError(f"lora_targets: expected at least one name, got none; {ALL_LINEAR!r} stands for every Linear")
    return [name for name in linear if name in chosen]
