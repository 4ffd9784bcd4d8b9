"""How a backbone and a curve look and are called, everywhere the same: colour, marker, dashes, name."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import pandas as pd

from orchestrator.analysis import CURVE
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec
from trainers.recipe import TrainRecipe

# Okabe & Ito's palette, told apart with any colour vision; their yellow and black are left out (paper, text).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
BASELINE_DASHES: tuple[Any, ...] = ((0, (6, 2)), (0, (1, 1.6)), (0, (6, 2, 1, 2)), (0, (3, 2)))
INK, FAINT, GRID = "#222222", "#6b6b6b", "#e6e6e6"
PALEST = 0.7
"""Share of white in the last of several curves of one backbone, which differ in rank or recipe."""
Curve = tuple[str, int, str]
"""(backbone, lora_rank, recipe): the values of ``CURVE`` after the task's."""


@dataclass(frozen=True)
class Look:
    """How a backbone is drawn, always the same: one colour a model, hollow markers for its random-weight twin."""

    color: str
    marker: str = ""
    linestyle: Any = "-"
    hollow: bool = False


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
    """The look of one curve (backbone, lora_rank, recipe): its backbone's, paler for each one that comes after another
    of the same backbone, and with another marker."""
    from matplotlib.colors import to_hex, to_rgb

    how = look(str(key[0]))
    siblings = [other for other in names if other[0] == key[0]]
    place = siblings.index(key)
    if place == 0:
        return how
    white = PALEST * place / max(1, len(siblings) - 1)
    red, green, blue = ((1 - white) * part + white for part in to_rgb(how.color))
    color = to_hex((red, green, blue))
    marker = MARKERS[(MARKERS.index(how.marker) + place) % len(MARKERS)] if how.marker in MARKERS else how.marker
    return replace(how, color=color, marker=marker)


def curves_of(curves: pd.DataFrame) -> list[tuple[Curve, pd.DataFrame]]:
    """Curves of one task: trained backbones first, each kind in the order of the sweep."""
    groups: list[tuple[Any, pd.DataFrame]] = [(key[2:], group) for key, group in curves.groupby(CURVE, sort=False)]
    return sorted(groups, key=lambda item: item[1]["family"].iloc[0] == "baseline")


def curve_names(curves: pd.DataFrame) -> dict[Curve, str]:
    """A name a curve (backbone, lora_rank, recipe): the backbone, with rank and recipe only where they tell apart."""
    keys = [key for _, of_task in curves.groupby("task_label", sort=False) for key, _ in curves_of(of_task)]
    keys = list(dict.fromkeys(keys))
    by_backbone: dict[str, list[Curve]] = {}
    for key in keys:
        by_backbone.setdefault(key[0], []).append(key)
    names = {}
    for key in keys:
        backbone, lora_rank, recipe = key
        siblings = by_backbone[backbone]
        extra = [f"r={lora_rank}"] if len({other[1] for other in siblings}) > 1 else []
        if len({other[2] for other in siblings}) > 1:
            fields = [json.loads(other[2]) for other in siblings]
            own = json.loads(recipe)
            differing = sorted({name for other in fields for name in other | own if other.get(name) != own.get(name)})
            extra += [f"{name}={own.get(name, _default(name))}" for name in differing]
        names[key] = " ".join([backbone, *extra])
    return names


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
