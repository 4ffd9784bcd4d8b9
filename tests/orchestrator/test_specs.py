"""Expansion, identity and every way to get a sweep wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.specs import TrialSpec, check_problems, expand, load_sweep
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


@pytest.fixture
def load(tmp_path):
    def load_text(text, overrides=()):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_sweep(path, overrides)

    return load_text


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


GIVEN = """
name: given
backbones: [causal_lm/tiny, baseline/oracle]
tasks: [{arc: {dataset: OWN, task: "Count*", recipe: {attempts: 3}}}]
n_train: all
"""


@pytest.fixture
def own_dataset(tmp_path):
    """ARC tasks ``Count1`` .. ``Count3`` with 1 to 3 demonstrations and two test inputs each, and ``Copy1`` with 4."""
    for num_demonstrations, name in enumerate(("Count1", "Count2", "Count3", "Copy1"), start=1):
        pairs = [{"input": [[i]], "output": [[i, i]]} for i in range(num_demonstrations + 2)]
        task = {"train": pairs[:num_demonstrations], "test": pairs[num_demonstrations:]}
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / f"{name}.json").write_text(json.dumps(task))
    return GIVEN.replace("OWN", str(tmp_path / "own"))


def cells(trials):
    return [(trial.backbone, trial.task.params["task"], trial.n_train, trial.n_test) for trial in trials]


def test_a_pattern_becomes_one_task_a_match_with_all_its_demonstrations(load, own_dataset):
    sweep = load(own_dataset)
    trials = expand(sweep)
    assert cells(trials) == [
        *(("causal_lm/tiny", f"Count{n}", n, 2) for n in (1, 2, 3)),
        *(("baseline/oracle", f"Count{n}", 0, 2) for n in (1, 2, 3)),
    ]
    assert {trial.recipe.attempts for trial in trials} == {3}
    assert expand(load(own_dataset.replace("all", "[all]"))) == trials
    assert expand(load(own_dataset + "n_test: 7\n")) == expand(load(own_dataset + "n_test: all\n")) == trials
    check_problems(trials)


def test_numbers_that_come_to_the_same_are_one_trial(load, own_dataset):
    trials = expand(load(own_dataset.replace("all", "[1, all]")))
    assert [(task, n) for _, task, n, _ in cells(trials)][:-3] == [
        ("Count1", 1),
        ("Count2", 1),
        ("Count2", 2),
        ("Count3", 1),
        ("Count3", 3),
    ]
    one = own_dataset.replace("Count*", "Count3")
    assert len(expand(load(one.replace("all", "[3, all]")))) == len(expand(load(one))) == 2


def test_tasks_of_both_kinds_in_one_sweep(load, own_dataset):
    text = own_dataset.replace("tasks: [", "tasks: [life, ").replace("n_train: all", "n_train: [3, 10]\nn_test: 50")
    with pytest.raises(ValueError, match=r"n_train = 3: arc\(.*task=Count1\) has 1 training problems; .* all"):
        load(text)
    mixed = expand(load(text.replace("recipe:", "n_train: [all], recipe:")))
    assert [(trial.task.name, trial.n_train, trial.n_test) for trial in mixed] == [
        *(("life", n, 50) for n in (3, 10)),
        *(("arc", n, 2) for n in (1, 2, 3)),
        ("life", 0, 50),
        *[("arc", 0, 2)] * 3,
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("Count*", "Cuont*"), "tasks[0].arc: task = 'Cuont*': "),
        (("Count*", "Cuont1"), "has no task of that name; did you mean 'Count1'? it has Copy1, Count1, Count2, Count3"),
        (('"Count*"', "00576224"), "YAML reads a name of digits as a number; write it in quotes"),
        (("dataset: ", "dataset: /absent"), "tasks[0].arc: dataset = '/absent/"),
        (("all", "[1, 4]"), "n_train = 4: arc("),
        (("all", "[all, all]"), "n_train: all is there twice in ['all', 'all']"),
        (("all", "[1, ALL]"), "n_train[1] = 'ALL': input should be a valid integer, or all"),
        (("recipe:", "n_train: [2, 2], recipe:"), "tasks[0].arc.n_train: 2 is there twice in [2, 2]"),
        (("recipe:", "n_train: [], recipe:"), "tasks[0].arc.n_train = []: "),
        (
            ("tasks: [", "tasks: [life, "),
            "n_train = all: life generates as many problems as are asked for; give numbers",
        ),
        (("n_train: all", "n_train: [1]\nn_test: none"), "n_test = 'none': input should be a valid integer, or all"),
        (
            ("tasks: [", "n_test: all\ntasks: [{life: {n_train: [3]}}, "),
            "n_test = all: life generates as many problems as are asked for; give a number",
        ),
        (
            ("recipe:", "recipe: {attempts: 3}}}, {arc: {dataset: OWN, task: Count1, recipe:"),
            "the same trial is there twice: causal_lm/tiny arc",
        ),
    ],
)
def test_what_is_wrong_with_given_problems_is_one_line(load, own_dataset, tmp_path, change, expected):
    text = own_dataset.replace(*change).replace("OWN", str(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"^\S*study\.yaml: [^\n]*\Z") as caught:
        load(text)
    assert expected in str(caught.value)


def test_a_whole_dataset_is_one_trial_a_task_and_cell(load):
    text = GIVEN.replace("OWN", "arc_agi_1").replace("Count*", "*")
    trials = expand(load(text + "seeds: [0, 1, 2]\nlora_rank: [8, 16]\n"))
    check_problems(trials)
    assert len(trials) == 400 * (3 * 2 + 1)
    assert len({trial.trial_id for trial in trials}) == len(trials)


def test_a_trial_on_given_problems_says_how_many_there_are(load, own_dataset):
    trial = expand(load(own_dataset))[1]
    fields = trial.model_dump()
    assert TrialSpec(**{**fields, "n_test": 200}) == trial
    del fields["n_test"]
    assert TrialSpec(**fields).trial_id == trial.trial_id


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


WRONG = {
    "list": ("- a\n- b\n", "a sweep is a mapping of keys (name, backbones, tasks, ...), this file is a list"),
    "empty": ("", "this file is empty"),
    "not yaml": ("name: [a\nb: {", "line 2: not valid YAML: expected"),
    "unknown key": (BASE + "n_trian: [3]\n", "n_trian: unknown key 'n_trian'; did you mean 'n_train'? valid: name, "),
    "unknown recipe key": (
        BASE + "recipe: {learning_rat: 1}\n",
        "recipe.learning_rat: unknown key 'learning_rat'; did you",
    ),
    "unknown placement key": (BASE + "placement: {gpus: 1}\n", "placement.gpus: unknown key 'gpus'; "),
    "recipe value": (BASE + "recipe: {max_steps: 0}\n", "recipe.max_steps = 0: input should be greater than 0"),
    "recipe choice": (
        BASE + "recipe: {transition: linear}\n",
        "recipe.transition = 'linear': input should be 'discrete', ",
    ),
    "recipe is a list": (BASE + "recipe: [1]\n", "recipe = [1]: "),
    "misspelt task": (BASE.replace("- life", "- lfe"), "tasks[1]: unknown task 'lfe'; did you mean 'life'? valid: "),
    "misspelt knob": (
        BASE.replace("rule:", "rul:"),
        "tasks[0].elementary_ca: unknown knob of elementary_ca 'rul'; did",
    ),
    "misspelt test knob": (
        BASE.replace("rule: 90", "test: {widht: 9}"),
        "unknown knob of elementary_ca in test 'widht'; did",
    ),
    "knob value": (BASE.replace("rule: 90", "rule: 900"), "rule = 900"),
    "task recipe": (
        BASE.replace("rule: 90", "recipe: {max_step: 9}"),
        "tasks[0].elementary_ca.recipe.max_step: unknown key 'max_step'; did you mean 'max_steps'?",
    ),
    "misspelt backbone": (
        BASE.replace("causal_lm/tiny]", "causal_lm/tinny]"),
        "backbones[1]: unknown backbone 'causal_lm/tinny'; did you mean 'causal_lm/tiny'? valid: ",
    ),
    "backbone recipe": (
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {recipe: {max_steps: -1}}}]"),
        "backbones[1].causal_lm/tiny.recipe.max_steps = -1: input should be greater than 0",
    ),
    "backbone override": (
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {n_train: [3]}}]"),
        "backbones[1].causal_lm/tiny.n_train: unknown key 'n_train'; ",
    ),
    "another name": (
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {name: life}}]"),
        "backbones[1].causal_lm/tiny: unknown key of causal_lm/tiny 'name'; valid: recipe, placement, axes, lora_rank",
    ),
    "frames the VAE cannot take": (
        BASE + "recipe: {num_frames: 8}\n",
        "recipe.num_frames = 8: cogvideox/tiny takes 1 +",
    ),
    "axis": (BASE + "axes: {max_step: [1]}\n", "axes: unknown recipe field 'max_step'; did you mean 'max_steps'?"),
    "axis value": (BASE + "axes: {max_steps: [1, 0]}\n", "axes: max_steps = 0: input should be greater than 0"),
    "axis twice": (BASE + "axes: {learning_rate: [1e-4, 0.0001]}\n", "axes: learning_rate: 0.0001 is there twice"),
    "axis of another family": (
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {axes: {sampler: [own]}}}]"),
        "axes.sampler: means nothing to causal_lm/tiny",
    ),
    "axis and own recipe": (
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {recipe: {top_k: 3}, axes: {top_k: [1]}}}]"),
        "axes.top_k: the recipe of causal_lm/tiny fixes top_k",
    ),
    "axes are a list": (BASE + "axes: [max_steps]\n", "axes = ['max_steps']: input should be a mapping"),
    "yes as a number": (BASE + "placement: {timeout_s: true}\n", "timeout_s = true: expected a value, got a yes or no"),
    "too many sampling steps": (BASE + "recipe: {num_inference_steps: 1001}\n", "recipe.num_inference_steps = 1001:"),
    "prompt without encoder": (BASE + "recipe: {prompt: a cat}\n", "recipe.prompt = 'a cat': cogvideox/tiny comes"),
    "no axis": (BASE + "axes: {max_steps: []}\n", "axes: max_steps: expected a list of values"),
    "axis and task": (
        BASE.replace("- life", "- life: {recipe: {max_steps: 3}}") + "axes: {max_steps: [1, 2]}\n",
        "axes.max_steps: a task's own recipe fixes max_steps",
    ),
    "guidance": (BASE + "recipe: {guidance_scale: 3}\n", "recipe.guidance_scale = 3: guidance leads away from"),
    "infinity": (BASE + "recipe: {temperature: .inf}\n", "recipe.temperature = inf: input should be a finite number"),
    "no targets": (BASE + "recipe: {lora_targets: []}\n", "recipe.lora_targets = []: list should have at least 1 item"),
    "huge seed": (BASE.replace("[0, 1]", f"[{2**63}]"), f"seeds[0] = {2**63}: input should be less than"),
    "no date": (BASE.replace("[0, 1]", "2020-99-99"), "not valid YAML: month must be in 1..12"),
    "two names": (
        BASE.replace("- life", "- {life: {}, maze: {}}"),
        "tasks[1]: expected a task's name, or one name with",
    ),
    "n_train 0": (BASE.replace("[3, 10]", "[0, 10]"), "n_train[0] = 0: input should be greater than 0"),
    "n_train text": (BASE.replace("[3, 10]", "[3, ten]"), "n_train[1] = 'ten': input should be a valid integer"),
    "n_train true": (BASE.replace("[3, 10]", "[true]"), "n_train[0] = True: input should be a valid integer"),
    "n_train empty": (BASE.replace("[3, 10]", "[]"), "n_train = []: "),
    "n_train no list": (BASE.replace("[3, 10]", "3"), "n_train = 3: input should be a list"),
    "negative rank": (BASE.replace("[8, 16]", "[-8]"), "lora_rank[0] = -8: input should be greater than 0"),
    "negative seed": (BASE.replace("[0, 1]", "[-1]"), "seeds[0] = -1: input should be greater than or equal to 0"),
    "n_test 0": (BASE + "n_test: 0\n", "n_test = 0: input should be greater than 0"),
    "repeat": (BASE.replace("[3, 10]", "[3, 10, 3]"), "n_train: 3 is there twice in [3, 10, 3]"),
    "repeated task": (BASE.replace("- life", "- life\n  - life"), "the same trial is there twice: cogvideox/tiny life"),
    "repeated key": (BASE + "seeds: [5]\n", "line 10: the key 'seeds' is there twice"),
    "missing key": (BASE.replace("n_train: [3, 10]", ""), "n_train: missing; keys: name, backbones, "),
    "name": (BASE.replace("name: study", "name: a/b"), "name = 'a/b': "),
    "python object": (
        BASE + "x: !!python/object/apply:os.system [ls]\n",
        "not valid YAML: could not determine a constructor",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_that_names_the_place(case, load):
    text, expected = WRONG[case]
    with pytest.raises(ValueError, match=r"^\S*study\.yaml: ") as caught:
        load(text)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("override", ["recipe", "=3", "name.x=3", "recipe.max_steps=[", "recipe..x=1"])
def test_wrong_overrides(load, override):
    with pytest.raises(ValueError, match="--set"):
        load(BASE, [override])


def test_unreadable_files(tmp_path):
    with pytest.raises(ValueError, match=r"absent.yaml: the sweep cannot be read: No such file"):
        load_sweep(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_sweep(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it is not UTF-8 text"):
        load_sweep(tmp_path / "binary.yaml")


def test_a_transcription_is_another_trial_when_the_other_task_generates_anew(monkeypatch):
    def trial(name):
        return TrialSpec(backbone="baseline/oracle", task=name, n_train=0, lora_rank=0).trial_id

    before = {name: trial(name) for name in ("transcribe", "sudoku", "life")}
    sudoku = task_class("sudoku")
    monkeypatch.setattr(sudoku, "generator_version", sudoku.generator_version + 1)
    assert trial("transcribe") != before["transcribe"]
    assert trial("sudoku") != before["sudoku"]
    assert trial("life") == before["life"]


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
