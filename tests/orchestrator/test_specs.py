"""Expansion of a sweep, and the identity of its trials."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

from orchestrator.specs import SPEC_VERSION, TrialSpec, expand, load_sweep
from task_generators.task import TaskSpec, task_class
from trainers.backbone import backbone_spec
from trainers.recipe import Placement, TrainRecipe

BASE = """
name: study
backbones: [cogvideox/tiny, causal_lm/tiny]
tasks:
  - elementary_ca: {rule: 90, width: 12}
  - life
seeds: [0, 1]
n_train: [3, 10]
lora_rank: [8, 16]
"""


LARGE = f"""
name: large
backbones: [causal_lm/tiny]
tasks: {[{"elementary_ca": {"rule": rule}} for rule in range(50)]}
seeds: [0, 1]
n_train: {list(range(1, 11))}
axes: {{learning_rate: [1e-4, 2e-4], lora_alpha: {list(range(1, 11))}}}
"""


def test_training_problems_may_be_kept_away_from_test_problems(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nbackbones: [baseline/oracle]\nn_train: [3]\ntasks: [{life: {min_test_distance: 0.25}}, life]"
    )
    near, far = reversed(expand(load_sweep(path)))
    assert far.task.min_test_distance == 0.25
    assert json.loads(far.task.params_json()) == {"min_test_distance": 0.25}
    assert near.trial_id != far.trial_id


def test_every_cell_is_there_once_and_backbones_stay_together(load):
    trials = expand(load(BASE))
    assert len(trials) == 2 * 2 * 2 * 2 * 2
    assert len({trial.trial_id for trial in trials}) == len(trials)
    names = [trial.backbone for trial in trials]
    assert names == sorted(names, reverse=True), "a worker keeps its backbone"
    assert [trial.trial_id for trial in expand(load(BASE))] == [trial.trial_id for trial in trials]


def test_axes_that_do_not_matter_to_a_backbone_collapse(load):
    text = BASE.replace("[cogvideox/tiny, causal_lm/tiny]", "[baseline/copy_question, baseline/majority]")
    trials = expand(load(text))
    copying = [trial for trial in trials if trial.backbone == "baseline/copy_question"]
    assert [(trial.n_train, trial.lora_rank, trial.seed) for trial in copying] == [(0, 0, 0)] * 2
    majority = [trial for trial in trials if trial.backbone == "baseline/majority"]
    assert {(trial.n_train, trial.lora_rank, trial.seed) for trial in majority} == {
        (n, 0, seed) for n in (3, 10) for seed in (0, 1)
    }


def test_recipes_resolve_from_the_general_to_the_particular(load):
    published = backbone_spec("cogvideox/tiny").recipe
    assert "max_steps" in published
    assert published["max_steps"] not in (11, 12, 13)
    text = """
name: study
backbones: [cogvideox/tiny, {causal_lm/tiny: {recipe: {max_steps: 12}, placement: {eval_batch_size: 5}}}]
tasks: [life, {maze: {height: 7, width: 7, recipe: {max_steps: 13}}}]
n_train: [3]
lora_rank: [4]
"""
    steps = [trial.recipe.max_steps for trial in expand(load(text))]
    assert steps == [published["max_steps"], 13, 12, 13]
    text = text.replace(
        "n_train", "recipe: {max_steps: 11, learning_rate: 1e-4}\nplacement: {cpus_per_worker: 2}\nn_train"
    )
    trials = expand(load(text))
    assert [trial.recipe.max_steps for trial in trials] == [11, 13, 12, 13]
    assert trials[0].recipe.learning_rate == 0.0001
    assert trials[0].placement == Placement(cpus_per_worker=2)
    assert trials[2].placement == Placement(cpus_per_worker=2, eval_batch_size=5)


def test_a_backbone_can_have_ranks_of_its_own(load):
    text = BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {lora_rank: [4]}}]")
    ranks = {(trial.backbone, trial.lora_rank) for trial in expand(load(text))}
    assert ranks == {("cogvideox/tiny", 8), ("cogvideox/tiny", 16), ("causal_lm/tiny", 4)}


def test_axes_run_every_combination_on_trained_backbones(load):
    text = BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {axes: {attempts: [1, 2]}}}, baseline/oracle]")
    plain = expand(load(text.replace(": {axes: {attempts: [1, 2]}}", ": {}")))
    varied = expand(load(text + "axes: {learning_rate: [1e-4, 0.002], lora_alpha: [8, 32, 64]}"))
    counts = {
        name: tuple(sum(trial.backbone == name for trial in trials) for trials in (plain, varied))
        for name in ("cogvideox/tiny", "causal_lm/tiny", "baseline/oracle")
    }
    assert counts == {"cogvideox/tiny": (16, 96), "causal_lm/tiny": (16, 192), "baseline/oracle": (2, 2)}
    assert {trial.recipe.learning_rate for trial in varied if trial.backbone != "baseline/oracle"} == {1e-4, 2e-3}
    assert len({trial.trial_id for trial in varied}) == len(varied)


def test_axes_leave_out_what_a_backbone_fixes_or_ignores(load):
    text = BASE.replace("cogvideox/tiny", "{cogvideox/tiny: {recipe: {max_steps: 7}}}")
    varied = expand(load(text + "axes: {max_steps: [5, 6], decoding: [free, json], num_inference_steps: [1, 2]}"))
    found = {}
    for trial in varied:
        recipe = trial.recipe
        found.setdefault(trial.backbone, set()).add((recipe.max_steps, recipe.decoding, recipe.num_inference_steps))
    assert found["cogvideox/tiny"] == {(7, "free", 1), (7, "free", 2)}
    assert found["causal_lm/tiny"] == {(n, how, 50) for n in (5, 6) for how in ("free", "json")}


def test_any_repository_of_a_family_is_a_backbone(load):
    text = BASE.replace("causal_lm/tiny", "causal_lm/org/model@abc123, causal_lm//data/model")
    found = {trial.backbone: trial for trial in expand(load(text))}
    spec = found["causal_lm/org/model@abc123"].backbone_spec
    assert (spec.repo_id, spec.revision, spec.family) == ("org/model", "abc123", "language")
    local = found["causal_lm//data/model"].backbone_spec
    assert (local.repo_id, local.revision) == ("/data/model", None)


def test_command_line_overrides(load):
    sweep = load(BASE, ["recipe.learning_rate=2e-4", "seeds=[7]", "results=s3://bucket/study"])
    assert {trial.recipe.learning_rate for trial in expand(sweep)} == {2e-4}
    assert sweep.seeds == (7,)
    assert sweep.results_uri == "s3://bucket/study"
    assert load(BASE).results_uri == "results/study"


def spec(**changes):
    fields = {
        "backbone": "baseline/majority",
        "task": TaskSpec(name="life", params={"height": 6, "width": 6}),
        "n_train": 30,
        "lora_rank": 0,
    }
    return TrialSpec(**(fields | changes))


def test_trial_ids_are_pinned():
    """These change when a default's meaning, a generator or the identity itself changes; then SPEC_VERSION must too."""
    assert spec().trial_id == "16e367ed9cb92055"
    assert spec(seed=1, recipe=TrainRecipe(num_frames=13)).trial_id == "68fc615912974a75"
    assert spec(task=TaskSpec(name="elementary_ca", params={"rule": 30})).trial_id == "9aabfe39f3596184"


def documented_id(trial):
    """The id as ``TrialIds`` describes it."""
    numbers = {"n_train": trial.n_train, "lora_rank": trial.lora_rank}
    numbers |= {name: value for name, value in (("seed", trial.seed),) if value}
    numbers |= {name: value for name, value in (("n_test", trial.n_test),) if value != 200}
    identity = numbers | {
        "spec_version": SPEC_VERSION,
        "generator_version": trial.task.build().generator_version,
        "backbone": trial.backbone,
        "task": json.dumps({"name": trial.task.name, "params": json.loads(trial.task.params_json())}, sort_keys=True),
        "recipe": trial.recipe_json(),
    }
    identity |= {"revision": trial.backbone_spec.revision} if trial.backbone_spec.revision else {}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8, person=b"trial").hexdigest()


def test_ids_are_the_hash_of_the_documented_json(load):
    text = BASE.replace("causal_lm/tiny]", "'causal_lm/org/mödel \"x\\@v1', baseline/majority]")
    trials = expand(load(text + "n_test: 50\nrecipe: {prompt: '', lora_targets: ['a\"b']}\n"))
    trials += [spec(), spec(seed=3, n_test=7, backbone="causal_lm/a/b@é")]
    assert [trial.trial_id for trial in trials] == [documented_id(trial) for trial in trials]


def test_identity_is_what_decides_the_numbers():
    assert spec(placement=Placement(num_workers=8, eval_batch_size=1)).trial_id == spec().trial_id
    assert spec(recipe=TrainRecipe(max_steps=TrainRecipe().max_steps)).trial_id == spec().trial_id
    assert spec(task=TaskSpec(name="life", params={"width": 6, "height": 6})).trial_id == spec().trial_id
    different = [
        spec(),
        spec(seed=1),
        spec(n_train=31),
        spec(lora_rank=1),
        spec(n_test=100),
        spec(backbone="baseline/oracle"),
        spec(recipe=TrainRecipe(learning_rate=3e-4)),
        spec(task=TaskSpec(name="life")),
        spec(task=TaskSpec(name="life", params={"height": 6, "width": 6}, test={"height": 7})),
    ]
    assert len({trial.trial_id for trial in different}) == len(different)


def test_a_trial_survives_json(load):
    for trial in expand(load(BASE)):
        again = TrialSpec.model_validate_json(trial.model_dump_json())
        assert again == trial
        assert again.trial_id == trial.trial_id


def test_numbers_may_be_written_either_way(load):
    one, other = (expand(load(BASE + f"recipe: {{learning_rate: {rate}}}\n")) for rate in ("3e-4", "0.0003"))
    assert [trial.trial_id for trial in one] == [trial.trial_id for trial in other]


def test_a_transcription_is_another_trial_when_the_other_task_generates_anew(monkeypatch):
    def trial(name):
        return TrialSpec(backbone="baseline/oracle", task=name, n_train=0, lora_rank=0).trial_id

    before = {name: trial(name) for name in ("transcribe", "sudoku", "life")}
    sudoku = task_class("sudoku")
    monkeypatch.setattr(sudoku, "generator_version", sudoku.generator_version + 1)
    assert trial("transcribe") != before["transcribe"]
    assert trial("sudoku") != before["sudoku"]
    assert trial("life") == before["life"]


def test_many_cells_share_what_they_have_in_common(load):
    trials = expand(load(LARGE))
    assert len(trials) == 20_000
    assert len({trial.trial_id for trial in trials}) == len(trials)
    assert len({id(trial.task) for trial in trials}) == 50
    assert len({id(trial.recipe) for trial in trials}) == 20
    assert len({id(trial.placement) for trial in trials}) == 1


def test_a_sweep_is_expanded_once_and_its_changed_copies_anew(load):
    sweep = load(BASE)
    first, second = expand(sweep), expand(sweep)
    assert all(one is other for one, other in zip(first, second, strict=True))
    second.clear()
    assert expand(sweep) == first
    fewer = sweep.model_copy(update={"seeds": (5,)})
    assert {trial.seed for trial in expand(fewer)} == {5}
    assert len(pickle.dumps(sweep)) == len(pickle.dumps(load(BASE))), "no trials in it"


def test_importing_specs_is_light():
    code = (
        "import time, sys, json; began = time.process_time(); import orchestrator.specs;"
        "print(json.dumps([time.process_time() - began, "
        "[name for name in ('torch', 'ray', 'pandas', 'pyarrow', 'numba') if name in sys.modules]]))"
    )
    root = Path(__file__).resolve().parents[2]
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert runs[0][1] == []
    assert min(seconds for seconds, _ in runs) < 0.6, "0.3 s on an idle machine"
