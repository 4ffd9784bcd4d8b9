"""Every way to get a sweep wrong: one line that names the file, the place, the value, the valid choices."""

import pytest

from orchestrator.specs import load_sweep

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
    "nested for ever": (BASE + "recipe: " + "[" * 3000 + "]" * 3000 + "\n", "nested more than 50 levels deep"),
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
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {n_trian: [3]}}]"),
        "backbones[1].causal_lm/tiny.n_trian: unknown key 'n_trian'; did you mean 'n_train'? valid: name, recipe, ",
    ),
    "another name": (
        BASE.replace("causal_lm/tiny]", "{causal_lm/tiny: {name: life}}]"),
        "backbones[1].causal_lm/tiny: unknown key of causal_lm/tiny 'name'; valid: recipe, placement, axes, seeds, ",
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
    "no backbones": (BASE.replace("[cogvideox/tiny, causal_lm/tiny]", "[]"), "backbones = []: expected at least one"),
    "half a product": ("name: study\nbackbones: [causal_lm/tiny]\nn_train: [3]\n", "tasks: missing; keys: name, "),
    "nothing": ("name: study\n", "backbones: missing; keys: name, "),
    "prices": (BASE + "gpu_hour_usd: {H100: -1}\n", "gpu_hour_usd = {'H100': -1}: expected US dollars a GPU-hour"),
    "price yes": (BASE + "gpu_hour_usd: true\n", "gpu_hour_usd = True: expected US dollars a GPU-hour"),
    "callback": (BASE + "callbacks: [tensorbord]\n", "callbacks[0] = 'tensorbord': input should be 'tensorboard', "),
    "search": (BASE + "search: {treshold: {}}\n", "search: unknown kind of search 'treshold'; did you"),
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


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("recipe", "expected KEY=VALUE, for instance recipe.learning_rate=2e-4"),
        ("=3", "expected KEY=VALUE"),
        ("recipe..x=1", "expected KEY=VALUE"),
        ("name.x=3", "name is 'study', no mapping"),
        ("tasks.0.life=3", "tasks is a list; give all of it: tasks=[...]"),
        ("recipe.max_steps=[", "'[' is not valid YAML"),
    ],
)
def test_wrong_overrides(load, override, expected):
    with pytest.raises(ValueError, match=r"study\.yaml: --set") as caught:
        load(BASE, [override])
    assert expected in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(ValueError, match=r"absent.yaml: the sweep cannot be read: No such file"):
        load_sweep(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_sweep(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it is not UTF-8 text"):
        load_sweep(tmp_path / "binary.yaml")
