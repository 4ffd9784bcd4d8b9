"""How a backbone and a curve look and are called, everywhere the same: colour, marker, dashes, name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from zlib import crc32

import pandas as pd

from orchestrator.analysis import CURVE
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec
from trainers.recipe import TrainRecipe

# Okabe & Ito's palette, told apart with any colour vision; their yellow and black are left out (paper, text), and their
# sky blue and orange, too pale for white paper, have indigo and brown in their place there and are used on dark paper.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#332288", "#7A4F00")
DARK_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""The same on dark paper."""
MARKERS = ("o", "s", "^", "D", "v", "P")
BASELINE_DASHES: tuple[Any, ...] = ((0, (6, 2)), (0, (1, 1.6)), (0, (6, 2, 1, 2)), (0, (3, 2)))
INK, FAINT, AXIS, GRID, PAPER = "#222222", "#6b6b6b", "#b0b0b0", "#e6e6e6", "#ffffff"
DARK_PAPER = "#15171a"
SHADES = (0.0, 0.2, 0.4, 0.6)
"""Shares of black (on dark paper: of white) in the curves of one backbone, which differ in rank or recipe."""
Curve = tuple[str, int, str]
"""(backbone, lora_rank, recipe): the values of ``CURVE`` after the task's."""


@dataclass(frozen=True)
class Look:
    """How a backbone is drawn, always the same: one colour a model, hollow markers for its random-weight twin."""

    color: str
    marker: str = ""
    linestyle: Any = "-"
    hollow: bool = False


@cache
def look(name: str) -> Look:
    """The look of a backbone by its place among those there are, or by its name's hash where a repository names it;
    grey for one that is no longer there."""
    try:
        spec = backbone_spec(name)
    except ValueError:
        return Look(FAINT, "x")
    if name not in backbone_names():
        place = crc32(name.encode())
        return Look(COLORS[place % len(COLORS)], MARKERS[place // len(COLORS) % len(MARKERS)])
    same_kind = [other for other in map(backbone_spec, backbone_names()) if other.trainable == spec.trainable]
    if not spec.trainable:
        place = [other.name for other in same_kind].index(name)
        return Look(FAINT, linestyle=BASELINE_DASHES[place % len(BASELINE_DASHES)])
    models = list(dict.fromkeys(_model(other) for other in same_kind))
    place = models.index(_model(spec))
    marker = MARKERS[place // len(COLORS) % len(MARKERS)]
    return Look(COLORS[place % len(COLORS)], marker, "-" if spec.pretrained else (0, (4, 2)), not spec.pretrained)


def look_among(key: Curve, names: dict[Curve, str]) -> Look:
    """The look of one curve (backbone, lora_rank, recipe): its backbone's, darker for each one that comes after another
    of the same backbone, and with another marker. What has one name (see ``curve_names``) has one look."""
    how = look(str(key[0]))
    siblings = list(dict.fromkeys(name for other, name in names.items() if other[0] == key[0]))
    place = siblings.index(names[key])
    if place == 0:
        return how
    shade = SHADES[max(1, round(place * (len(SHADES) - 1) / (len(siblings) - 1)))]
    color = _mixed(how.color, "#000000", shade) if how.color in COLORS else how.color
    marker = MARKERS[(MARKERS.index(how.marker) + place) % len(MARKERS)] if how.marker in MARKERS else how.marker
    return replace(how, color=color, marker=marker)


@cache
def dark_twins() -> dict[str, str]:
    """Every colour that a curve can have, as ``#rrggbb`` in lower case -> the one to draw it in on dark paper."""
    pairs = list(zip(COLORS, DARK_COLORS, strict=True))
    return {_mixed(light, "#000000", by): _mixed(dark, "#ffffff", by) for light, dark in pairs for by in SHADES}


def contrast(color: str, paper: str) -> float:
    """Contrast of two colours ``#rrggbb``, 1 to 21 (WCAG 2.2: relative luminance, at least 3 for graphics)."""
    first, second = sorted((_luminance(color), _luminance(paper)))
    return (second + 0.05) / (first + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _mixed(color: str, other: str, share: float) -> str:
    """``color`` with a ``share`` of ``other`` in it, as ``#rrggbb`` in lower case."""
    pairs = [(int(color[start : start + 2], 16), int(other[start : start + 2], 16)) for start in (1, 3, 5)]
    return "#" + "".join(f"{round((1 - share) * first + share * second):02x}" for first, second in pairs)


def curves_of(curves: pd.DataFrame) -> list[tuple[Curve, pd.DataFrame]]:
    """Curves of one task: trained backbones first, each kind in the order of the sweep."""
    groups: list[tuple[Any, pd.DataFrame]] = [(key[2:], group) for key, group in curves.groupby(CURVE, sort=False)]
    return sorted(groups, key=lambda item: item[1]["family"].iloc[0] == "baseline")


def curve_names(curves: pd.DataFrame) -> dict[Curve, str]:
    """A name a curve (backbone, lora_rank, recipe): the backbone, with rank and recipe only where they tell it from
    another curve of the same task. Curves of different tasks may have one name."""
    apart: dict[Curve, set[str]] = {}
    for _, of_task in curves.groupby("task_label", sort=False):
        by_backbone: dict[str, list[Curve]] = {}
        for key, _ in curves_of(of_task):
            by_backbone.setdefault(key[0], []).append(key)
        for siblings in by_backbone.values():
            fields = _differing(siblings)
            for key in siblings:
                apart.setdefault(key, set()).update(fields)
    names = {}
    for key, fields in apart.items():
        backbone, lora_rank, recipe = key
        extra = [f"r={lora_rank}"] if "lora_rank" in fields else []
        own = json.loads(recipe) if fields else {}
        extra += [f"{name}={own.get(name, _default(name))}" for name in sorted(fields - {"lora_rank"})]
        names[key] = " ".join([backbone, *extra])
    return names


def _differing(siblings: Sequence[Curve]) -> set[str]:
    """``lora_rank`` and the recipe fields in which curves of one backbone and task differ."""
    fields = {"lora_rank"} if len({rank for _, rank, _ in siblings}) > 1 else set()
    texts = {recipe for _, _, recipe in siblings}
    if len(texts) > 1:
        recipes = [json.loads(text) for text in texts]
        for name in {name for recipe in recipes for name in recipe}:
            values = [json.dumps(recipe.get(name, _default(name)), sort_keys=True, default=str) for recipe in recipes]
            fields |= {name} if len(set(values)) > 1 else set()
    return fields


def _default(recipe_field: str) -> Any:
    """What a recipe holds where its row says nothing of the field."""
    field = TrainRecipe.model_fields.get(recipe_field)
    return "default" if field is None else field.default


def _model(spec: BackboneSpec) -> tuple[str, str]:
    """What a pretrained flavour and its random twin share."""
    return spec.name.split("/", 1)[0], spec.repo_id


def notes(trials: pd.DataFrame) -> list[str]:
    """One line a backbone that has something to say about its numbers."""
    known = [backbone_spec(name) for name in trials["backbone"].unique() if name in backbone_names()]
    return [f"{spec.name}: {spec.note}" for spec in known if spec.note]


def value_range(values: pd.Series) -> str:
    """``64``, or ``10 to 200`` of several."""
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
