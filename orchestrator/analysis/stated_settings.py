"""What the paper (arXiv 2510.24448) states of each model's training and answering, and how a run differs from it.

A published number may be missed for two reasons that must not be mixed up: a **deviation**, where the run does other
than the paper states, and an **open choice**, where the paper states nothing and every run has to choose.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from trainers.backbone import BackboneSpec, backbone_spec
from trainers.recipe import TrainRecipe

STATED_LORA_RANK = {"video": 64, "language": 32}
STATED_SEED = {"video": 42, "language": 3407}
"""One seed each: the paper repeats nothing, and has no error bars."""
STATED_FIELDS = {
    "video": (
        "lora_alpha",
        "lora_targets",
        "learning_rate",
        "lr_schedule",
        "batch_size",
        "gradient_clip",
        "transition",
    ),
    "language": (
        "lora_alpha",
        "lora_targets",
        "learning_rate",
        "lr_schedule",
        "warmup_steps",
        "batch_size",
        "weight_decay",
        "max_length",
        "decoding",
        "temperature",
        "top_p",
        "top_k",
        "max_new_tokens",
    ),
    "vision_language": (),
}
"""Fields of the recipe that the paper states, by family; ``batch_size`` is its batch x accumulation. Their values are
those of the backbone's own recipe, over the defaults of ``TrainRecipe``. Of its vision-language model the paper states
no settings at all, and of Wan's LoRA targets only a dash."""
STATED_BY_SOME = {"lora_dropout": {"causal_lm/llama-3.1-8b-instruct"}}
"""Fields that the paper states for some backbones alone."""
NOT_STATED = {"lora_targets": {"wan/2.1-14b-i2v"}}
OPEN_FIELDS = {
    "video": (
        "max_steps",
        "precision",
        "num_frames",
        "num_inference_steps",
        "sampler",
        "guidance_scale",
        "train_timesteps",
        "prompt",
        "output_size",
        "picture_px",
        "cell_px",
    ),
    "language": ("max_steps", "precision"),
    "vision_language": (
        "max_steps",
        "precision",
        "lora_alpha",
        "lora_targets",
        "learning_rate",
        "lr_schedule",
        "warmup_steps",
        "batch_size",
        "weight_decay",
        "decoding",
        "temperature",
    ),
}
"""Fields that the paper leaves open and every run has to choose; others that it leaves open count where they differ
from the defaults."""
NEVER_OPEN = {"attempts", "inputs"}
"""Fields that say which published cell a trial is."""


def stated_recipe(published: BackboneSpec) -> dict[str, Any]:
    """The fields of the recipe that the paper states for a published backbone, and their values."""
    fields = [name for name in STATED_FIELDS[published.family] if published.name not in NOT_STATED.get(name, ())]
    fields += [name for name, backbones in STATED_BY_SOME.items() if published.name in backbones]
    recipe = TrainRecipe.model_validate(published.recipe)
    stated = {name: getattr(recipe, name) for name in fields}
    if "lora_targets" in stated:
        stated["lora_targets"] = published.lora_targets
    if stated.get("lr_schedule") == "constant":
        stated["warmup_steps"] = 0
    elif "lr_schedule" in stated:
        stated["decay_share"] = 1.0  # a linear decay is one over all steps
    return stated


def deviations(
    published: BackboneSpec,
    own_recipe: Mapping[str, Any],
    own_targets: Collection[str],
    lora_rank: int,
    seeds: Collection[int],
    n_test: int,
    stated_n_test: int | None,
) -> list[str]:
    """How a run differs from what the paper states, each as ``learning_rate 0.0002 (stated: 0.0001)``.

    Args:
        published: the backbone that the paper trained.
        own_recipe: the run's recipe where it differs from ``TrainRecipe()`` (the column ``recipe``, read).
        own_targets: the LoRA targets of the run's own backbone, which hold where the recipe names none.
        lora_rank: the run's.
        seeds: the run's.
        n_test: test problems that the run answered.
        stated_n_test: how many the paper has; None where it states none.
    """
    recipe = _recipe(own_recipe)
    found = []
    rank, seed = STATED_LORA_RANK.get(published.family), STATED_SEED.get(published.family)
    if rank is not None and lora_rank != rank:
        found.append(_deviation("lora_rank", lora_rank, rank))
    for name, stated in _stated(published.name).items():
        own = recipe.get(name)
        if name == "lora_targets":
            own = tuple(own or own_targets)
            if set(own) == set(stated):
                continue
        if own != stated:
            found.append(_deviation(name, own, stated))
    if seed is not None and set(seeds) != {seed}:
        found.append(_deviation("seeds" if len(seeds) > 1 else "seed", sorted(seeds), seed))
    if stated_n_test is not None and n_test != stated_n_test:
        found.append(_deviation("n_test", n_test, stated_n_test))
    return found


def open_choices(published: BackboneSpec, own_recipe: Mapping[str, Any]) -> list[str]:
    """What a run chose where the paper states nothing, each as ``max_steps = 2500``; arguments as of ``deviations``."""
    recipe, default = _recipe(own_recipe), _defaults()
    closed = {*_stated(published.name), *NEVER_OPEN}
    chosen = [name for name in OPEN_FIELDS[published.family] if recipe.get(name) is not None and name not in closed]
    chosen += [
        name for name in own_recipe if name not in closed and name not in chosen and recipe[name] != default.get(name)
    ]
    return [f"{name} = {_plain(recipe[name])}" for name in chosen]


@cache
def _stated(name: str) -> dict[str, Any]:
    return stated_recipe(backbone_spec(name))


@cache
def _defaults() -> dict[str, Any]:
    return TrainRecipe().model_dump()


def _recipe(own_recipe: Mapping[str, Any]) -> dict[str, Any]:
    """All fields; of rows of other versions of this package those that this one does not know too."""
    return {**_defaults(), **own_recipe}


def _deviation(name: str, own: Any, stated: Any) -> str:
    return f"{name} {_plain(own)} (stated: {_plain(stated)})"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, str):
        return value or "''"
    return f"{value:g}" if isinstance(value, float) else str(value)
