"""What ``sweep`` says of backbones: the list, one of them in full, and which weights a sweep cannot have."""

from __future__ import annotations

import argparse
import os
import typing
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.specs import TrialSpec
from orchestrator.sweep_yaml import unknown
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec, family_names
from trainers.precision import check_quantization
from trainers.recipe import TrainRecipe
from trainers.weights_source import check_available, is_hub_id, is_offline, local_folder, located

FAMILIES: tuple[str, ...] = typing.get_args(BackboneSpec.model_fields["family"].annotation)
WIDE = 120
"""Characters a line from which the list shows all its columns."""
CHECKED_AT_ONCE = 8
"""Backbones whose weights are asked for at the same time: the wait for an absent hub is that for one of them."""


def backbones(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep backbones [NAME] [--family FAMILY]``."""
    if arguments.name is not None:
        if arguments.family is not None:
            raise ValueError(
                f"--family {arguments.family}: leave it out to see {arguments.name}, or leave out the name"
            )
        try:
            spec = backbone_spec(arguments.name)
        except ValueError:
            raise ValueError(unknown("backbone", arguments.name, [*backbone_names(), *_any_repository()])) from None
        _show(spec, console)
        return 0
    specs = [backbone_spec(name) for name in backbone_names()]
    _list([spec for spec in specs if arguments.family in (None, spec.family)], console)
    others: dict[str, list[str]] = {}
    for name, spec in _any_repository().items():
        others.setdefault(spec.family, []).append(name)
    for family, names in others.items():
        if arguments.family in (None, family):
            folder = names[0].replace("ORG/NAME", "/data/model")
            text = f"Any other {_words(family)} model: {', '.join(names)} (NAME@REVISION); or a folder: {folder}"
            console.print(Text(text), soft_wrap=True)
    console.print("One in full, with its recipe: sweep backbones NAME", highlight=False, soft_wrap=True)
    return 0


def unavailable(trials: Iterable[TrialSpec]) -> list[str]:
    """One line for each distinct backbone among ``trials`` whose weights cannot be had, or not in its precision.

    Looks from this machine, also where RAY_ADDRESS names a cluster: what a node's own disk holds is not seen, so a
    ``weights_folder`` has to be there under the same path on this machine too. Of GPUs, a cluster's are trusted to
    exist. Loads and downloads nothing; with an absent hub it takes about as long as one wait for it.
    """
    distinct: dict[tuple[Any, ...], TrialSpec] = {}
    for trial in trials:
        key = (trial.backbone, trial.placement.weights_folder, trial.recipe.precision, trial.placement.gpus_per_worker)
        distinct.setdefault(key, trial)
    if not distinct:
        return []
    devices = [_device(trial) for trial in distinct.values()]  # may import torch, which threads must not do at once
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as threads:
        faults = list(threads.map(_fault, distinct.values(), devices))
    return list(dict.fromkeys(filter(None, faults)))


def check_weights(trials: Sequence[TrialSpec]) -> None:
    """ValueError of one line when a backbone of ``trials`` cannot be loaded; see ``unavailable``."""
    faults = unavailable(trials)
    if faults:
        raise ValueError("; ".join(faults))


def weights_source(spec: BackboneSpec) -> str:
    """Where the weights are, without asking the network: a folder, the hub's cache, or that they are to be fetched."""
    if not spec.repo_id:
        return "none needed"
    folder = local_folder(spec)
    if folder is not None:
        return f"{'in the cache' if is_hub_id(spec.repo_id) else 'on disk'}: {folder}"
    if is_hub_id(spec.repo_id):
        gate = ", once its terms are accepted and HF_TOKEN is set" if spec.gated else ""
        missing = "not in the cache, and HF_HUB_OFFLINE is set" if is_offline() else "to download at the first load"
        return f"{missing}{gate}: hf download {spec.repo_id}" + (
            f" --revision {spec.revision}" if spec.revision else ""
        )
    try:
        check_available(spec)
    except ValueError as error:
        return f"not here: {str(error).removeprefix(f'backbone {spec.name}: ')}"
    return f"on disk: {spec.repo_id}"


def parameters(num_params: float) -> str:
    """``5.6 B``, ``135 M``, ``1.2 M``; empty where the number is not known."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if num_params >= size:
            number = num_params / size
            return f"{number:.0f} {unit}" if number >= 99.5 else f"{number:.2g} {unit}"
    return ""


def _any_repository() -> dict[str, BackboneSpec]:
    """``causal_lm/ORG/NAME`` and the like: the families that load any repository of their kind."""
    found = {}
    for family_file in family_names():
        with suppress(ValueError):
            found[f"{family_file}/ORG/NAME"] = backbone_spec(f"{family_file}/ORG/NAME")
    return found


def _fault(trial: TrialSpec, device: str) -> str:
    try:
        check_available(located(trial.backbone_spec, trial.placement.weights_folder))
        check_quantization(trial.backbone_spec.pretrained, trial.recipe, device)
    except ValueError as error:
        message = str(error)
        return message if message.startswith("backbone ") else f"backbone {trial.backbone}: {message}"
    except OSError as error:  # a folder that this account must not read
        return f"backbone {trial.backbone}: {error.filename or 'its weights'}: {error.strerror or error}"
    return ""


def _device(trial: TrialSpec) -> str:
    if trial.recipe.precision in ("fp32", "bf16"):
        return "cpu"  # any device will do, and asking for one loads torch
    asked = trial.placement.gpus_per_worker
    if (trial.backbone_spec.num_gpus if asked is None else asked) == 0:
        return "cpu"
    if os.environ.get("RAY_ADDRESS"):
        return "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _list(specs: Sequence[BackboneSpec], console: Console) -> None:
    wide = console.width >= WIDE
    table = Table()
    table.add_column("backbone", overflow="fold", min_width=22)
    if wide:
        table.add_column("family", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("needs", justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    if wide:
        table.add_column("about", ratio=1)
    for spec in specs:
        licence = " ".join(filter(None, [spec.license, "(gated)" if spec.gated else ""]))
        row = [spec.name, _words(spec.family), parameters(spec.num_params), _needs(spec), licence, spec.note]
        table.add_row(*(Text(cell) for cell in (row if wide else [row[0], *row[2:5]])))
    console.print(table)


def _needs(spec: BackboneSpec) -> str:
    gpus = f"{spec.num_gpus:g} GPU{'s' if spec.num_gpus > 1 else ''}, " if spec.num_gpus else ""
    return f"{gpus}{spec.memory_gb:g} GB"


def _show(spec: BackboneSpec, console: Console) -> None:
    revision = f" at revision {spec.revision}" if spec.revision else ""
    gated = f"gated: accept the terms at https://huggingface.co/{spec.repo_id} and set HF_TOKEN" if spec.gated else ""
    targets = ", ".join(spec.lora_targets)
    for title, text in (
        ("backbone", spec.name),
        ("family", _words(spec.family)),
        ("about", spec.note),
        ("parameters", parameters(spec.num_params)),
        ("weights", f"{spec.repo_id}{revision}" if spec.repo_id else ""),
        ("where", weights_source(spec)),
        ("start", "" if spec.pretrained else "freshly drawn weights, from a fixed seed"),
        ("licence", ", ".join(filter(None, [spec.license, gated]))),
        ("extra", f"pip install '.[{spec.extra}]'" if spec.extra else ""),
        ("needs", f"{_needs(spec)} a worker, roughly, for a training step"),
        ("LoRA on", targets if spec.trainable else "nothing: it is not trained"),
    ):
        if text:
            console.print(Text(f"{title}: ", style="bold").append(Text(text, style="not bold")), soft_wrap=True)
    if spec.trainable:
        _print_recipe(spec, console)
    console.print(Text("In a sweep:", style="bold"))
    console.print(Text(_example(spec)), soft_wrap=True)


def _print_recipe(spec: BackboneSpec, console: Console) -> None:
    """Field by field; those in which the backbone differs from ``TrainRecipe()`` first, with what they would be."""
    fields = TrainRecipe.model_fields
    recipe, default = TrainRecipe(**spec.recipe), TrainRecipe()
    values = {name: (getattr(recipe, name), getattr(default, name)) for name in fields}
    table = Table("recipe", "value", "default", "meaning", title="*: differs from the default", title_justify="left")
    for differs in (True, False):
        for name, (value, usual) in values.items():
            if (value != usual) == differs:
                cells = [f"{name} *" if differs else name, _plain(value), _plain(usual) if differs else ""]
                style = "bold" if differs else ""
                table.add_row(*(Text(cell, style=style) for cell in cells), Text(fields[name].description or ""))
        table.add_section()
    console.print(table)


def _example(spec: BackboneSpec) -> str:
    """A whole sweep of this backbone, as it can be saved and run."""
    steps = TrainRecipe(**spec.recipe).max_steps
    override = f"   # or {spec.name}: {{recipe: {{max_steps: {steps * 2}}}}}" if spec.trainable else ""
    return f"name: my-sweep\nbackbones:\n  - {spec.name}{override}\ntasks: [life]\nn_train: [10, 30]"


def _plain(value: Any) -> str:
    """A value as it is written in a YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _words(family: str) -> str:
    return family.replace("_", "-")
