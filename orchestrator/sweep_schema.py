"""The JSON Schema of a sweep's YAML, so that editors complete and check it as it is written.

    sweep schema --out sweep.schema.json

and, as the first line of a YAML beside that file (editors with the YAML language server read it: VS Code, Neovim ...):

    # yaml-language-server: $schema=sweep.schema.json

It says what can be said of one file alone: keys, names, types, bounds. ``sweep plan`` checks the rest.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from orchestrator.search_entries import SearchEntry
from orchestrator.specs import SweepSpec
from orchestrator.sweep_entries import LARGEST_INT, LARGEST_SET, OVERRIDES
from orchestrator.sweep_exclude import FAMILIES
from task_generators.task import task_class, task_names
from trainers.backbone import any_repository_names, backbone_names, backbone_spec
from trainers.recipe import Placement, TrainRecipe

Schema = dict[str, Any]

NUMBER_TEXT = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
"""YAML 1.1 reads ``1e-4`` as a text; it counts as the number that it is."""
SWEEP_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
DESCRIPTIONS = {
    "name": "name of the sweep",
    "backbones": "models to adapt: a name, or a name with what differs for it; sweep backbones lists them",
    "tasks": "what they learn: a name, or a name with its knobs and what differs for it; sweep tasks lists them",
    "seeds": "repeats: training problems, LoRA weights and noise are drawn anew for each",
    "n_train": "sizes of the training sets, each holding the smaller ones; all: those that there are (arc)",
    "lora_rank": "ranks of the LoRA weights",
    "n_test": "size of the test set, the same one for all trials of a task",
    "recipe": "what differs from the backbones' published recipes",
    "axes": "fields of the recipe and their values; every combination is a trial",
    "placement": "where and how safely trials run; changes no number",
    "trials": "cells one by one, beside the product of the axes or in place of it",
    "include": "sweeps, as files relative to this one, whose cells join this sweep's",
    "exclude": "patterns of cells to leave out; a cell goes that matches all keys of one pattern",
    "search": "in place of running every cell",
    "results": "folder or URI (s3://, gs://) of the tables; default: results/NAME",
    "gpu_hour_usd": "US dollars a GPU-hour, or those of each accelerator type, for the estimate of sweep plan",
    "callbacks": "loggers of Ray to send results to as well",
    "test": "knobs that differ for the test problems: train small, test large",
    "min_test_distance": "share of cells in which a training problem must differ from every test problem",
    "seed": "one of the seeds",
    "backbone": "name of a backbone",
    "task": "a task, written as under tasks",
    "family": "family of backbones",
    "params": "knobs of the task and their values",
}


def schema(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep schema``: print the JSON Schema, or write it to ``--out``."""
    text = json.dumps(sweep_schema(), indent=1)
    if arguments.out is None:
        print(text)
        return 0
    try:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{arguments.out}: the schema cannot be written: {error.strerror or error}") from None
    console.print(
        f"{arguments.out}: editors check a YAML beside it whose first line is\n"
        f"# yaml-language-server: $schema={Path(arguments.out).name}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def sweep_schema() -> Schema:
    """A JSON Schema (draft 2020-12) of a sweep as people write it; names and knobs are those that there are now."""
    definitions = {
        "recipe": _of_model(TrainRecipe),
        "placement": _of_model(Placement),
        "search": _search(),
        "backbone_name": _backbone_name(),
        "backbone": _named(_ref("backbone_overrides"), backbone_names(), _any_repository()),
        "task": _tasks(),
        "axes": _axes(),
        **_axis_values(),
    }
    definitions["backbone_overrides"] = _object({**_overrides(), "axes": _ref("axes")})
    for name in task_names():
        definitions[f"task_{name}"] = _task(name)
    fields = {
        **_overrides(),
        "name": {"type": "string", "pattern": SWEEP_NAME},
        "backbones": {"type": "array", "items": _ref("backbone")},
        "tasks": {"type": "array", "items": _ref("task")},
        "axes": _ref("axes"),
        "trials": {"type": "array", "items": _trial()},
        "include": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "exclude": {"type": "array", "items": _pattern()},
        "search": {"anyOf": [_ref("search"), {"type": "null"}]},
        "results": {"type": "string"},
        "gpu_hour_usd": {
            "anyOf": [_price(), {"type": "object", "minProperties": 1, "additionalProperties": _price()}, _NULL]
        },
        "callbacks": {"type": "array", "items": {"enum": ["tensorboard", "wandb", "mlflow"]}, "uniqueItems": True},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sweep",
        "description": (SweepSpec.__doc__ or "").split("\n\n")[0],
        **_object({key: fields[key] for key in SweepSpec.model_fields}, ["name"]),
        "anyOf": [{"required": keys} for keys in (["backbones", "tasks"], ["trials"], ["include"])],
        "dependentRequired": {"backbones": ["tasks"], "tasks": ["backbones"]},
        **_n_train_somewhere(),
        "$defs": definitions,
    }


_NULL: Schema = {"type": "null"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    """A mapping with these keys and no others, described where the keys are."""
    described = {
        key: {"description": DESCRIPTIONS[key], **value} if key in DESCRIPTIONS else value
        for key, value in properties.items()
    }
    return {
        "type": "object",
        "properties": described,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _of_model(model: type[BaseModel]) -> Schema:
    """What pydantic says of a model, with every model it is made of written in place."""
    whole = model.model_json_schema()
    return _as_written(whole, whole.pop("$defs", {}))


def _as_written(schema: Any, definitions: Schema) -> Any:
    if isinstance(schema, list):
        return [_as_written(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _as_written(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    plain = {key: _as_written(value, definitions) for key, value in schema.items() if not _is_title(key, value)}
    if plain.get("type") == "number":
        plain |= {"type": ["number", "string"], "pattern": NUMBER_TEXT}
    return plain


def _is_title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str)


def _axis_values() -> dict[str, Schema]:
    def integers(low: int, high: int) -> Schema:
        return {"type": "integer", "minimum": low, "maximum": high}

    size: Schema = {"anyOf": [integers(1, LARGEST_SET), {"const": "all"}]}
    return {
        "seed_value": integers(0, LARGEST_INT),
        "rank_value": integers(1, LARGEST_INT),
        "size_value": size,
        "sizes": {"anyOf": [{"const": "all"}, _list_of(_ref("size_value"))]},
    }


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}


def _overrides() -> dict[str, Schema]:
    """The keys that a sweep, a backbone's entry and a task's entry have in common."""
    values = {
        "seeds": _list_of(_ref("seed_value")),
        "n_train": _ref("sizes"),
        "lora_rank": _list_of(_ref("rank_value")),
        "n_test": _ref("size_value"),
        "recipe": _ref("recipe"),
        "placement": _ref("placement"),
    }
    return {key: values[key] for key in OVERRIDES}


def _search() -> Schema:
    """One kind of search with its keys, or its name alone where all its keys have defaults."""
    kinds: dict[str, Schema] = _of_model(SearchEntry)["properties"]
    alone = [kind for kind, entry in kinds.items() if not any(part.get("required") for part in entry["anyOf"])]
    return {"anyOf": [{"enum": alone}, {**_object(kinds), "minProperties": 1, "maxProperties": 1}]}


def _price() -> Schema:
    return {"type": ["number", "string"], "minimum": 0, "pattern": NUMBER_TEXT}


def _any_repository() -> str:
    families = sorted({name.split("/", 1)[0] for name in any_repository_names()})
    return f"^({'|'.join(map(re.escape, families))})/.*/.*$"


def _backbone_name() -> Schema:
    return {"type": "string", "anyOf": [{"enum": backbone_names()}, {"pattern": _any_repository()}]}


def _named(overrides: Schema, names: list[str], pattern: str | None = None) -> Schema:
    """An entry of a list: a name, or one name with a mapping of what differs (or with nothing)."""
    differs: Schema = {"anyOf": [overrides, _NULL]}
    plain: Schema = {"type": "string", "enum": names} if pattern is None else _ref("backbone_name")
    return {
        "anyOf": [
            plain,
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "properties": dict.fromkeys(names, differs),
                **({"patternProperties": {pattern: differs}} if pattern else {}),
                "additionalProperties": False,
            },
        ]
    }


def _tasks() -> Schema:
    entry = _named({}, task_names())
    entry["anyOf"][1]["properties"] = {name: {"anyOf": [_ref(f"task_{name}"), _NULL]} for name in task_names()}
    return entry


def _task(name: str) -> Schema:
    """The knobs of a task and what an entry of it may say besides."""
    task = task_class(name)
    knobs: dict[str, Schema] = _of_model(task).get("properties", {})
    distance: Schema = {"type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": NUMBER_TEXT}
    summary = " ".join((task.__doc__ or "").split("\n\n")[0].split())
    beside = {"test": _object(dict(knobs)), "min_test_distance": distance, **_overrides()}
    assert not set(knobs) & set(beside), f"a knob of {name} has the name of a key of a task's entry"
    return {"description": summary, **_object({**beside, **knobs})}


def _axes() -> Schema:
    fields: dict[str, Schema] = _of_model(TrainRecipe)["properties"]
    plain = {name: {key: part for key, part in field.items() if key != "default"} for name, field in fields.items()}
    return _object({name: _list_of(field) for name, field in plain.items()})


def _trial() -> Schema:
    values = {
        "backbone": _ref("backbone_name"),
        "task": _ref("task"),
        "seed": _ref("seed_value"),
        "n_train": _ref("size_value"),
        "lora_rank": _ref("rank_value"),
        "n_test": _ref("size_value"),
        "recipe": _ref("recipe"),
        "placement": _ref("placement"),
    }
    return _object(values, ["backbone", "task"])


def _pattern() -> Schema:
    def one_or_more(value: Schema) -> Schema:
        return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}

    fields: dict[str, Schema] = _of_model(TrainRecipe)["properties"]
    knobs = sorted({knob for name in task_names() for knob in task_class(name).model_fields})
    values = {
        "backbone": one_or_more({"type": "string"}),
        "family": one_or_more({"enum": list(FAMILIES)}),
        "task": one_or_more({"type": "string"}),
        "seed": one_or_more(_ref("seed_value")),
        "n_train": one_or_more(_ref("rank_value")),
        "lora_rank": one_or_more(_ref("rank_value")),
        "params": {"type": "object", "propertyNames": {"enum": knobs}},
        "recipe": _object({name: one_or_more(field) for name, field in fields.items()}),
    }
    return {**_object(values), "minProperties": 1}


def _n_train_somewhere() -> Schema:
    """A product needs ``n_train``: the sweep's, or that of every task, or that of every backbone it matters to."""
    own: Schema = {"type": "object", "additionalProperties": {"type": "object", "required": ["n_train"]}}
    ignoring = [name for name in backbone_names() if "n_train" not in backbone_spec(name).varies_with]
    of_baseline: Schema = {"anyOf": [{"enum": ignoring}, {"type": "object", "propertyNames": {"enum": ignoring}}]}
    return {
        "if": {"required": ["backbones"], "not": {"required": ["n_train"]}},
        "then": {
            "anyOf": [
                {"properties": {"tasks": {"items": own}}},
                {"properties": {"backbones": {"items": {"anyOf": [own, of_baseline]}}}},
                {"properties": {"backbones": {"maxItems": 0}}},
            ]
        },
    }
