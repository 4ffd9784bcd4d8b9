"""What else moves the scores: references, pretraining, LoRA rank, seed, recipe; repeats of training answers; paths."""

from __future__ import annotations

import json
from functools import partial

import pandas as pd

from orchestrator.analysis import CURVE
from orchestrator.analysis.baselines import path_scores, reference_scores, training_repeats
from orchestrator.analysis.effects import pretraining_effects, rank_effects, recipe_effects, seed_effects
from orchestrator.report.figures_effects import rank_figure, seed_figure
from orchestrator.report.material import Material
from orchestrator.report.page_parts import Block, Figure, Section, extent_of, table
from orchestrator.report.sections_learning import difference_figure, pair_table


def references(material: Material) -> Section | None:
    """Baselines, and the ceiling that drawing, encoding, decoding and reading leave."""
    scores = reference_scores(material.trials)
    if scores.empty:
        return None
    is_ceiling = scores["reference"] == "roundtrip"
    names = scores["backbone"].where(~is_ceiling, "ceiling of " + scores["backbone"].astype(str))
    frame = scores.assign(name=names, n_train=scores["n_train"].where(scores["n_train"] > 0).astype("Int64"))
    headings = {"task_label": "task", "name": "reference", "n_train": "n_train"}
    headings |= {"exact_match": "exact match [95 % interval]", "seeds": "seeds", "n_test": "test problems"}
    made = table("references", "Baselines and ceilings", frame, headings, estimate="exact_match")
    return Section(
        "references",
        "Baselines and ceilings",
        "A backbone has learnt something where it is above every baseline but the oracle; a video backbone cannot be "
        "above its ceiling, the share of right answers that survive drawing, encoding, decoding and reading.",
        [made.of(scores)],
        extent=extent_of(scores),
    )


def pretraining(material: Material) -> Section | None:
    """Pretrained backbones against their random-weight twins."""
    effects = pretraining_effects(material.trials, material.outcomes)
    if effects.empty:
        return None
    caption = "Pretrained backbone (a) against its twin with random weights (b), at the largest n_train of both"
    return Section(
        "pretraining",
        "Effect of pretraining",
        "A positive difference is what pretraining brings: both have the same architecture, examples and settings.",
        [
            difference_figure(material, "pretraining_effects", "Effect of pretraining", effects),
            pair_table(material, "pretraining_effects", caption, effects),
        ],
        extent=extent_of(effects),
    )


def ranks(material: Material) -> Section | None:
    """LoRA ranks against each other."""
    effects = rank_effects(material.trials, material.outcomes)
    if effects.empty:
        return None
    caption = "Larger LoRA rank (a) against smaller (b), at the largest n_train of both"
    ours = {"lora_rank_a": "rank a", "lora_rank_b": "rank b"}
    return Section(
        "lora-rank",
        "Effect of the LoRA rank",
        "A positive difference speaks for the larger rank; one whose interval holds 0 speaks for neither.",
        [
            Figure(
                "lora_rank",
                "Exact match by LoRA rank",
                "The table below has the numbers.",
                partial(rank_figure, material.curves),
            ),
            pair_table(material, "rank_effects", caption, effects, ours),
        ],
        extent=extent_of(effects),
    )


def seeds(material: Material) -> Section | None:
    """How much hangs on the training seed."""
    by_backbone = seed_effects(material.trials, material.outcomes, by=["backbone"])
    by_backbone = by_backbone[by_backbone["sd"].notna()]
    if by_backbone.empty:
        return None
    points = seed_effects(material.trials, material.outcomes)
    headings = {
        "backbone": "backbone",
        "sd": "sd over seeds",
        "noise_sd": "sd of the finite test set",
        "seed_sd": "sd due to the seed [95 % interval]",
        "share": "share of variance",
        "p_value": "p",
        "points": "points",
        "seeds": "seeds",
        "n_test": "test problems",
    }
    caption = "Spread of exact match over training seeds, by backbone"
    made = table("seed_effects_by_backbone", caption, by_backbone, headings, estimate="seed_sd", decimals=3)
    several = points[points["sd"].notna()].assign(curve=lambda rows: material.named(rows))
    of_points = {"task_label": "task", "curve": "backbone", "n_train": "n_train", "score": "exact match"} | headings
    of_points = {name: text for name, text in of_points.items() if name not in ("backbone", "points")}
    largest = several.groupby(CURVE, sort=False)["n_train"].transform("max") == several["n_train"]
    at_end = table(
        "seed_effects",
        "The same for each curve, at its largest n_train",
        several[largest],
        of_points,
        estimate="seed_sd",
        decimals=3,
    )
    return Section(
        "seeds",
        "Effect of the seed",
        "What another draw of training problems and of all else that is random in training would change, beyond the "
        "noise of a finite test set.",
        [
            Figure(
                "seeds",
                "Exact match by training seed",
                "The tables below have the spread over seeds.",
                partial(seed_figure, material.trials),
            ),
            made,
            at_end.of(points),
        ],
        extent=extent_of(by_backbone),
    )


def recipes(material: Material) -> Section | None:
    """Fields of the recipe that vary within a task and backbone, each with all else equal."""
    blocks: list[Block] = []
    frames = []
    for field in _varying_fields(material.trials):
        effects = recipe_effects(material.trials, material.outcomes, field=field)
        if len(effects):
            frames.append(effects)
            caption = f"{field}: one value (a) against another (b), at the largest n_train of both"
            ours = {"value_a": f"{field} a", "value_b": f"{field} b"}
            blocks.append(pair_table(material, f"recipe_effects_{field}", caption, effects, ours))
    if not blocks:
        return None
    return Section(
        "recipe",
        "Effect of the recipe",
        "Each row changes one setting and leaves all others as they are.",
        blocks,
        extent=extent_of(pd.concat(frames)),
    )


def repeats(material: Material) -> Section | None:
    """How often an output is a training answer, word for word."""
    shares = training_repeats(material.trials)
    if shares.empty:
        return None
    frame = shares.assign(curve=material.named(shares))
    largest = frame.groupby(CURVE, sort=False)["n_train"].transform("max") == frame["n_train"]
    headings = {"task_label": "task", "curve": "backbone", "n_train": "n_train"}
    headings |= {"repeats_training_answer": "share [95 % interval]", "seeds": "seeds", "n_test": "test problems"}
    caption = "Share of outputs that equal some training answer, at the largest n_train"
    made = table("training_repeats", caption, frame[largest], headings, estimate="repeats_training_answer")
    return Section(
        "repeats",
        "Repeats of training answers",
        "A high share next to a low exact match is a model that recalls; where few different answers exist, right ones "
        "repeat as well.",
        [made.of(shares)],
        extent=extent_of(shares),
    )


def paths(material: Material) -> Section | None:
    """Path success rate and relative path length."""
    scores = path_scores(material.trials, material.predictions)
    if scores.empty:
        return None
    names = {"path_success": "PSR", "relative_path_length": "RPL"}
    frame = scores.assign(curve=material.named(scores), score=scores["metric"].map(names).fillna(scores["metric"]))
    headings = {"task_label": "task", "curve": "backbone", "n_train": "n_train", "score": "score"}
    headings |= {"value": "value [95 % interval]", "seeds": "seeds", "n_test": "problems"}
    made = table("path_scores", "Path success rate and relative path length", frame, headings, estimate="value")
    return Section(
        "paths",
        "Paths",
        "PSR is the share of problems answered with any path from start to end, RPL how long these paths are over the "
        "shortest: 1 at best.",
        [made.of(scores)],
        extent=extent_of(scores),
    )


def _varying_fields(trials: pd.DataFrame) -> list[str]:
    """Fields of the recipe with several values within one task, backbone and rank, by name."""
    which = ["task", "task_params", "backbone", "lora_rank"]
    distinct = trials[[*which, "recipe"]].drop_duplicates()
    several = distinct[distinct.duplicated(which, keep=False)]
    fields: set[str] = set()
    for _, rows in several.groupby(which, sort=False):
        recipes_here = [json.loads(recipe) for recipe in rows["recipe"]]
        names = {name for recipe in recipes_here for name in recipe}
        fields |= {name for name in names if len({json.dumps(recipe.get(name)) for recipe in recipes_here}) > 1}
    return sorted(fields)
