"""The schema for editors accepts what a sweep may say and refuses what it may not."""

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator import cli
from orchestrator.specs import SweepSpec
from orchestrator.sweep_entries import BackboneEntry, TrialEntry
from orchestrator.sweep_exclude import ExcludeEntry
from orchestrator.sweep_schema import sweep_schema
from task_generators.task import task_class, task_names

SHIPPED = sorted(Path(str(files("orchestrator"))).glob("sweeps/*.yaml"))
BASE = """
name: study
backbones: [cogvideox/tiny, {causal_lm/tiny: {n_train: [5], axes: {top_k: [1, 5]}}}, causal_lm/org/model@abc]
tasks:
  - elementary_ca: {rule: 90, width: 12, test: {width: 16}, min_test_distance: 0.1, recipe: {batch_size: 5}}
  - life:
  - maze
seeds: [0, 1]
n_train: [3, 10]
lora_rank: [8, 16]
n_test: 60
recipe: {learning_rate: 1e-4, picture_px: null, precision: bf16}
axes: {max_steps: [1, 2], learning_rate: [1e-3, 0.002]}
placement: {timeout_s: 60}
trials: [{backbone: causal_lm/tiny, task: {life: {height: 6}}, seed: 3, n_train: 7, lora_rank: 2}]
exclude: [{backbone: cogvideox/*, n_train: 10}, {params: {rule: [90, 91]}, recipe: {max_steps: [1, 3]}, seed: 0}]
gpu_hour_usd: {H100: 2.5}
callbacks: [tensorboard]
"""


@pytest.fixture(scope="module")
def validator():
    schema = sweep_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(validator, text):
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_validate(validator, path):
    assert errors(validator, path.read_text()) == []


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("backbones: [", "backbones: [baseline/oracle, causal_lm//data/model, "),
        ("n_train: [3, 10]", "n_train: all\ntasks: [{arc: {task: '00576224'}}]"),
        ("gpu_hour_usd: {H100: 2.5}", "gpu_hour_usd: 2"),
        ("callbacks:", "search: threshold\ncallbacks:"),
        ("callbacks:", "search: {threshold: {accuracy: 0.8}}\ncallbacks:"),
        ("callbacks:", "search: {optuna: {space: {lora_alpha: {low: 1e-1, high: 8}, top_p: [0.5, 1]}}}\ncallbacks:"),
    ],
)
def test_what_loads_validates(validator, load, change):
    text = BASE.replace(*change) if change[0] else BASE
    if "arc:" in text:
        text = "\n".join(["name: x\nbackbones: [baseline/oracle]", *change[1].splitlines()])
    load(text)
    assert errors(validator, text) == []


WRONG = {
    "unknown key": ("lora_rank:", "lora_ranks:"),
    "no name": ("name: study", ""),
    "name": ("name: study", "name: a/b"),
    "task": ("  - maze", "  - maize"),
    "knob": ("rule: 90,", "rul: 90,"),
    "knob value": ("rule: 90,", "rule: 900,"),
    "test knob": ("test: {width: 16}", "test: {widht: 16}"),
    "two names": ("  - maze", "  - {maze: {}, sudoku: {}}"),
    "backbone": ("[cogvideox/tiny,", "[cogvideox/tinny,"),
    "backbone key": ("{n_train: [5],", "{n_trian: [5],"),
    "recipe field": ("learning_rate: 1e-4", "learning_rat: 1e-4"),
    "recipe value": ("learning_rate: 1e-4", "learning_rate: fast"),
    "recipe choice": ("precision: bf16", "precision: fp8"),
    "axis": ("axes: {max_steps: [1, 2]", "axes: {max_step: [1, 2]"),
    "axis value": ("axes: {max_steps: [1, 2]", "axes: {max_steps: [1, 0]"),
    "axis without a list": ("axes: {max_steps: [1, 2]", "axes: {max_steps: 1"),
    "placement": ("timeout_s: 60", "timeout: 60"),
    "n_train": ("n_train: [3, 10]", "n_train: [3, ten]"),
    "n_train no list": ("n_train: [3, 10]", "n_train: 3"),
    "n_train missing": ("n_train: [3, 10]", ""),
    "n_train twice": ("n_train: [3, 10]", "n_train: [3, 3]"),
    "seed": ("seeds: [0, 1]", "seeds: [-1]"),
    "rank": ("lora_rank: [8, 16]", "lora_rank: [0]"),
    "n_test": ("n_test: 60", "n_test: 0"),
    "pattern key": ("{backbone: cogvideox/*,", "{backbones: cogvideox/*,"),
    "empty pattern": ("[{backbone: cogvideox/*, n_train: 10}", "[{}"),
    "listed trial": ("trials: [{backbone: causal_lm/tiny, ", "trials: [{"),
    "half a product": ("backbones:", "results: here #"),
    "price": ("{H100: 2.5}", "{H100: -1}"),
    "callback": ("[tensorboard]", "[tensorbord]"),
    "search": ("callbacks:", "search: treshold\ncallbacks:"),
    "search without a space": ("callbacks:", "search: optuna\ncallbacks:"),
    "search key": ("callbacks:", "search: {threshold: {acuracy: 0.8}}\ncallbacks:"),
    "include": ("callbacks:", "include: one.yaml #"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_load_does_not_validate(validator, load, case):
    assert WRONG[case][0] in BASE
    text = BASE.replace(*WRONG[case], 1)
    with pytest.raises(ValueError, match="study"):
        load(text)
    assert errors(validator, text)


@pytest.mark.parametrize("name", task_names())
def test_every_knob_may_have_its_values(validator, name):
    for knob, field in task_class(name).model_fields.items():
        for value in [field.get_default(call_default_factory=True), *(field.examples or [])]:
            entry = {name: {knob: json.loads(json.dumps(value, default=str))}}
            document = {"name": "x", "backbones": ["causal_lm/tiny"], "tasks": [entry], "n_train": [3]}
            assert [error.message for error in validator.iter_errors(document)] == []
            entry[name] = {f"{knob}_": value}
            assert not validator.is_valid(document)


def test_the_schema_has_the_keys_that_there_are():
    schema = sweep_schema()
    assert set(schema["properties"]) == set(SweepSpec.model_fields)
    assert set(schema["properties"]["trials"]["items"]["properties"]) == set(TrialEntry.model_fields)
    assert set(schema["properties"]["exclude"]["items"]["properties"]) == set(ExcludeEntry.model_fields)
    assert set(schema["$defs"]["backbone_overrides"]["properties"]) == set(BackboneEntry.model_fields) - {"name"}


def test_the_command_prints_or_writes_it(tmp_path, capsys):
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == sweep_schema()
    path = tmp_path / "sweep.schema.json"
    assert cli.main(["schema", "--out", str(path)]) == 0
    assert json.loads(path.read_text()) == sweep_schema()
    assert "# yaml-language-server: $schema=sweep.schema.json" in capsys.readouterr().out
    assert cli.main(["schema", "--out", str(tmp_path / "absent" / "x.json")]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err
