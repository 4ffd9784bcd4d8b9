"""The published numbers (arXiv 2510.24448) in our own names, and which of our tasks and backbones are the published."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from task_generators.arc_datasets import CONCEPT_ARC, SHORT_NAMES
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.recipe import TrainRecipe

PUBLISHED_BACKBONES = {
    "CogVideoX1.5-5B": "cogvideox/1.5-5b-i2v",
    "Wan2.1-14B": "wan/2.1-14b-i2v",
    "LTX-13B": "ltx/13b",
    "LTX-2B": "ltx/2b",
    "Qwen3-4B-Instruct-2507": "causal_lm/qwen3-4b-instruct-2507",
    "Qwen3-8B": "causal_lm/qwen3-8b",
    "Llama3.1-8B": "causal_lm/llama-3.1-8b-instruct",
    "Gemma3-4B": "gemma3/4b-it",
}
"""What the published tables call a model, and what we call it."""
SERVICES = {
    "GPT-4 [in-context]",
    "OpenAI o1-preview",
    "OpenAI GPT-4o",
    "Anthropic Claude 3.5 Sonnet",
    "Google Gemini 1.5",
}
"""Published models that nobody outside can train."""
LIFE_RULES = {
    "B3/S23": "life_conway",
    "B3/S2": "life_b3s2",
    "B3678/S34678": "life_day_and_night",
    "B3/S12345": "life_maze",
    "B2/S": "life_seeds",
}
ECA_RULES = (8, 32, 128, 160, 4, 108, 170, 250, 30, 45, 90, 150, 54, 62, 106, 110)
ANT_STEPS = (2, 3, 5, 10)
AUTHORS_TEST_DISTANCE = {
    "maze": 0.5,
    "shortest_path": 0.5,
    "connect4": 0.25,
    "life": 0.25,
    "langton_ant": 0.3,
    "sudoku": 0.3,
    "hitori": 0.3,
    "chess_mate_in_1": 0.01,
    "elementary_ca": 2 / 128,
}
"""``min_test_distance`` of the authors' public data; the paper does not mention it."""
AUTHORS_ROUNDING = 1e-3
"""A ``min_test_distance`` this near to the authors' is theirs."""
ARC_TASK = "arc"
ARC_AGI_1 = "arc_agi_1_eval"
PUBLISHED_COLUMNS = (
    "task",
    "subset",
    "backbone",
    "model",
    "n_train",
    "attempts",
    "inputs",
    "metric",
    "value",
    "n_test",
    "table",
)
NUM_ARC_TASKS = 400
NUM_CONCEPT_TASKS = 10
NUM_CONCEPT_INPUTS = 30
NUM_TEST_PROBLEMS = 200


# --- the published table


@cache
def _published() -> pd.DataFrame:
    with (files("orchestrator") / "data" / "published_results.csv").open() as file:
        rows = pd.read_csv(file, keep_default_na=False, dtype={"n_train": str, "table": str})
    rows["n_train"] = pd.to_numeric(rows["n_train"].replace("", None)).astype("Int64")
    rows["attempts"] = rows["attempts"].astype("Int64")
    rows["backbone"] = rows["model"].map(PUBLISHED_BACKBONES)
    rows["backbone"] = rows["backbone"].astype(object).where(rows["backbone"].notna(), None)
    sizes = {"tasks_solved": NUM_ARC_TASKS, "inputs_solved": NUM_CONCEPT_INPUTS}
    measured = ~rows["table"].str.startswith("fig")
    rows["n_test"] = rows["metric"].map(sizes).fillna(NUM_TEST_PROBLEMS).where(measured).astype("Int64")
    return rows[list(PUBLISHED_COLUMNS)]


def published() -> pd.DataFrame:
    """All published numbers, one row each, from the table that ships with the package.

    Columns: ``task`` and ``subset`` as published (``eca_rule_110``; a concept), ``backbone`` (ours; None for a service
    such as GPT-4), ``model`` (theirs), ``n_train`` (<NA> where a task brings its own), ``attempts``, ``inputs`` (of the
    vision-language model), ``metric``, ``value``, ``n_test`` (problems that the value is measured on; for ARC tasks,
    for a concept inputs; <NA> for what is read off a figure) and ``table``.
    """
    return _published().copy()


@cache
def published_tasks() -> dict[str, TaskSpec]:
    """The tasks of the published learning curves with all that is stated of them, by their published names."""
    tasks: dict[str, Any] = {
        "hitori_5x5": {"hitori": {"size": 5, "difficulty": "easy"}},
        "sudoku": {"sudoku": {"size": 9, "difficulty": "easy"}},
        "sudoku_mini": {"sudoku": {"size": 4, "difficulty": "easy"}},
        "connect4": {"connect4": {"height": 6, "width": 7, "connect": 4, "moves_to_win": 1}},
        "chess_mate_in_1": "chess_mate_in_1",
        "maze": {"maze": {"height": 21, "width": 21}},
        "maze_generalization": {"maze": {"height": 13, "width": 13, "test": {"height": 21, "width": 21}}},
        "shortest_path": {"shortest_path": {"layout": "any_to_any", "height": 15, "width": 15}},
        "sudoku_transcription": {"transcribe": {"of": "sudoku"}},
    }
    for rule in ECA_RULES:
        tasks[f"eca_rule_{rule}"] = {"elementary_ca": {"rule": rule, "width": 16, "steps": 7}}
    for rule_text, name in LIFE_RULES.items():
        board = {"height": 8, "width": 8, "steps": 1, "density": 0.4, "edges": "dead"}
        tasks[name] = {"life": {"rule": rule_text, **board}}
    for steps in ANT_STEPS:
        tasks[f"langton_ant_{steps}"] = {"langton_ant": {"height": 8, "width": 8, "steps": steps}}
    return {name: TaskSpec.model_validate(task) for name, task in tasks.items()}


@cache
def published_name(task: str, task_params: str) -> tuple[str, str] | None:
    """(task, subset) as the published tables call a task with these knobs (JSON, as in ``trials``).

    None for anything but exactly the published setting. ``min_test_distance`` makes no difference: the paper does not
    state it. The subset is a concept of ConceptARC, else "".
    """
    params = json.loads(task_params)
    if task == ARC_TASK:
        return _published_arc_name(params)
    distance, test = params.pop("min_test_distance", 0), params.pop("test", {})
    assert isinstance(distance, int | float)
    try:
        spec = TaskSpec(name=task, params=params, test=test)
    except ValueError:  # a task or a knob of another version of this package
        return None
    name = _names_by_spec().get((spec.name, spec.params_json()))
    return None if name is None else (name, "")


def published_backbone(backbone: str) -> str | None:
    """The backbone of ``PUBLISHED_BACKBONES`` that ``backbone`` is, by its name or its repository on the hub; else
    None: a tiny stand-in or a random-weight twin is never the published model."""
    if backbone in PUBLISHED_BACKBONES.values():
        return backbone
    try:
        spec = backbone_spec(backbone)
    except ValueError:
        return None
    if not (spec.pretrained and spec.trainable and spec.repo_id):
        return None
    own = (spec.family, spec.repo_id)
    by_repository = {(known.family, known.repo_id): known.name for known in map(backbone_spec, _OURS)}
    return by_repository.get(own)


def published_curve(
    task: str, task_params: str, backbone: str, *, recipe: str = "{}", metric: str = "exact_match"
) -> pd.DataFrame:
    """The published learning curve of a task and backbone: columns ``n_train`` and ``metric``, by ``n_train``.

    ``recipe`` (JSON) says what a vision-language model is shown. No rows where nothing is published: another setting of
    the task, a stand-in, a task without sizes such as ARC.
    """
    name, own = published_name_or_none(task, task_params), published_backbone(backbone)
    rows = _published()
    if name is None or own is None:
        rows = rows[:0]
    else:
        found = (rows["task"] == name[0]) & (rows["backbone"] == own) & (rows["metric"] == metric)
        rows = rows[found & rows["n_train"].notna() & rows["inputs"].isin(["", inputs_of(json.loads(recipe))])]
    curve = rows[["n_train", "value"]].rename(columns={"value": metric}).sort_values("n_train", ignore_index=True)
    return curve.astype({"n_train": "int64"})


def published_name_or_none(task: str, task_params: str) -> tuple[str, str] | None:
    """``published_name``; None too for what is no JSON, such as the label of many variants of a task."""
    try:
        return published_name(task, task_params)
    except json.JSONDecodeError:
        return None


_OURS = tuple(PUBLISHED_BACKBONES.values())


@cache
def _names_by_spec() -> dict[tuple[str, str], str]:
    return {(spec.name, spec.params_json()): name for name, spec in published_tasks().items()}


def _published_arc_name(params: dict[str, Any]) -> tuple[str, str] | None:
    # Without building the task: the dataset need not be where results are read.
    if not params.keys() <= {"dataset", "task"}:
        return None
    dataset = str(params.get("dataset", SHORT_NAMES["arc_agi_1"]))
    if SHORT_NAMES.get(dataset, dataset) == SHORT_NAMES["arc_agi_1"]:
        return ARC_AGI_1, ""
    if dataset != CONCEPT_ARC:
        return None
    *folders, file = str(params.get("task", "")).split("/")
    concept = folders[-1] if folders else file.rstrip("0123456789")
    return (CONCEPT_ARC, concept) if concept in _concepts() else None


@cache
def _concepts() -> frozenset[str]:
    rows = _published()
    return frozenset(rows.loc[rows["task"] == CONCEPT_ARC, "subset"])


def inputs_of(recipe: dict[str, Any]) -> str:
    """What a recipe (its fields that differ from the defaults) shows a vision-language model."""
    return str(recipe.get("inputs", TrainRecipe.model_fields["inputs"].default))
