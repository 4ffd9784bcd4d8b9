"""What a backbone is to the training loop: ``BackboneSpec`` (how one is named), ``Backbone`` (what one can do).

Importing this file, or a family's file, imports neither torch nor any model library: specs load on a laptop in
milliseconds. Weights load in the ``load`` function of the family's file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from task_generators.problem import Grid, Problem
from task_generators.task import Task
from trainers.precision import check_quantization
from trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    import torch

    from trainers.latent_store import LatentStore

    Batch = dict[str, torch.Tensor]

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""The tiny backbones that ship with the package, one ``save_pretrained`` folder each."""


class BackboneSpec(BaseModel):
    """One flavour of a backbone family. ``recipe`` holds the published settings that differ from ``TrainRecipe()``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Literal["video", "language", "vision_language", "baseline"]
    repo_id: str = ""
    """Hub id, local folder, or ``package:NAME`` for a folder under ``trainers/weights``."""
    revision: str | None = None
    """Commit on the hub that the weights are pinned to; None: the newest."""
    pretrained: bool = True
    """False: the architecture of ``repo_id`` with freshly drawn weights (fixed seed); the VAE or tokenizer is kept."""
    lora_targets: tuple[str, ...] = ()
    recipe: dict[str, Any] = {}
    num_params: float = 0
    """Of the frozen model, VAE and text encoder apart."""
    license: str = ""
    """Of the weights, as the hub names it."""
    gated: bool = False
    """True: the hub gives the weights only to accounts that accepted their terms."""
    extra: str = ""
    """Extra of this package that brings the weights or their reader."""
    install: str = ""
    """Quicker way to what the extra brings, as a command."""
    num_gpus: float = 0
    memory_gb: float = 0.5
    """GPU memory (or RAM) that a training step of the published recipe needs, roughly."""
    varies_with: frozenset[Literal["seed", "n_train", "lora_rank"]] = frozenset({"seed", "n_train", "lora_rank"})
    """Axes of the sweep that change the result; a baseline that ignores one gets a single trial for all its values."""
    trainable: bool = True
    """False: nothing to train; ``answer`` follows ``encode`` of the training problems at once."""
    note: str = ""
    """One line for people, shown wherever the backbone's numbers are."""


class Backbone(Protocol):
    """A loaded, frozen model and the way it sees a task. Shapes: B = batch.

    All randomness comes in through generators, so that a trial is a function of its spec: ``collate`` draws the noise
    of a whole global batch at once, whatever way the batch is later cut over workers and micro-batches.
    """

    spec: BackboneSpec
    module: torch.nn.Module
    """What LoRA is attached to; every parameter frozen."""
    latent_store: LatentStore | None
    """Where dear encodings are kept for other trials; a trial sets its own. None: encoding costs nothing here."""

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Batch]:
        """What training needs of each problem, one dict of tensors each (latents, token ids ...); no gradients."""

    def collate(self, examples: Sequence[Batch], recipe: TrainRecipe, generator: torch.Generator) -> Batch:
        """Stack examples into one batch, first dimension B on every tensor, with the noise and timesteps drawn."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """The model's own training loss, one value an example, shape (B,), through ``self.module``."""

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """One predicted grid a problem, None where the output cannot be read. Uses only the question (and the answer's
        shape where the protocol gives it). Random draws are keyed by (problem_id, attempt), never by the batch."""

    def save_adapter(self, folder: Path, lora_state: dict[str, torch.Tensor], lora_config: Any) -> None:
        """Write LoRA weights in the format that the stock pipeline of this family loads."""


class UntrainedBackbone(Protocol):
    """What a backbone with ``spec.trainable == False`` is: examples go in once, answers come out, no gradients."""

    spec: BackboneSpec

    def encode(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Any]:
        """What ``fit`` needs of each problem."""

    def fit(self, examples: Sequence[Any]) -> None:
        """Take in the training examples, in place of those of an earlier trial; called by ``train``."""

    def answer(self, task: Task, problems: Sequence[Problem], recipe: TrainRecipe, attempt: int) -> list[Grid | None]:
        """As ``Backbone.answer``."""


def family_names() -> list[str]:
    """Files under ``trainers/backbones``, sorted."""
    import trainers.backbones as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


@cache
def flavors(family_file: str) -> dict[str, BackboneSpec]:
    """The flavours a family's file offers, by the name after the slash."""
    return {spec.name.split("/", 1)[1]: spec for spec in _family(family_file).FLAVORS}


def backbone_names() -> list[str]:
    """Public names of all backbones, sorted."""
    return sorted(spec.name for family_file in family_names() for spec in flavors(family_file).values())


def any_repository_names() -> list[str]:
    """``FAMILY/ORG/NAME[@REVISION]`` of the families that load any repository of their kind."""
    return [f"{file}/ORG/NAME[@REVISION]" for file in family_names() if hasattr(_family(file), "ANY_REPO")]


@cache
def backbone_spec(name: str) -> BackboneSpec:
    """Look up ``file/flavor``, or make the spec of ``file/ORG/NAME[@REVISION]``: any repository of the family's kind.

    A local folder stands for a repository too, when it is absolute or begins with a dot: ``causal_lm//data/model``,
    ``causal_lm/./model``. Such a backbone has the recipe of the family's ``ANY_REPO``. ValueError lists the names there
    are.
    """
    family_file, _, flavor = name.partition("/")
    if family_file in family_names():
        if flavor in flavors(family_file):
            return flavors(family_file)[flavor]
        any_repo: BackboneSpec | None = getattr(_family(family_file), "ANY_REPO", None)
        if any_repo is not None and "/" in flavor:
            repo_id, _, revision = flavor.partition("@")
            return any_repo.model_copy(update={"name": name, "repo_id": repo_id, "revision": revision or None})
    valid = ", ".join([*backbone_names(), *any_repository_names()])
    raise ValueError(f"unknown backbone {name!r}; valid backbones: {valid}")


def _family(family_file: str) -> Any:
    return importlib.import_module(f"trainers.backbones.{family_file}")


def check_recipe(spec: BackboneSpec, recipe: TrainRecipe) -> None:
    """ValueError when the family cannot follow ``recipe``; loads nothing. Families may offer a ``check_recipe``."""
    check = getattr(_family(spec.name.split("/", 1)[0]), "check_recipe", None)
    if check is not None:
        check(spec, recipe)


def load_backbone(spec: BackboneSpec, recipe: TrainRecipe, device: str) -> Backbone:
    """Load the frozen weights onto ``device`` ("cpu", "cuda:0" ...) in the recipe's precision.

    ValueError when 8 or 4 bits are asked for where they cannot be had.
    """
    check_quantization(spec.pretrained, recipe, device)
    return _family(spec.name.split("/", 1)[0]).load(spec, recipe, device)


def weights_path(repo_id: str) -> str:
    """Resolve ``package:NAME`` to its folder; hub ids and local folders pass through."""
    if repo_id.startswith("package:"):
        return str(WEIGHTS_FOLDER / repo_id.removeprefix("package:"))
    return repo_id
