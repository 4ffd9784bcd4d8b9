"""What a sweep may say beside a plain product: entries of their own, listed trials, exclusion, included files."""

import pytest

from orchestrator.specs import expand, load_sweep
from trainers.recipe import Placement

BASE = """
name: study
backbones: [cogvideox/tiny, causal_lm/tiny, baseline/majority]
tasks:
  - elementary_ca: {rule: 90, width: 12}
  - life
seeds: [0, 1]
n_train: [3, 10]
lora_rank: [8, 16]
"""


def ids(trials):
    return {trial.trial_id for trial in trials}


def of(trials, backbone, task):
    return [trial for trial in trials if (trial.backbone, trial.task.name) == (backbone, task)]


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


# --- entries


@pytest.mark.parametrize(
    ("key", "of_backbone", "of_task", "read"),
    [
        ("seeds", [5], [6, 7], lambda trial: trial.seed),
        ("n_train", [5], [6, 7], lambda trial: trial.n_train),
        ("lora_rank", [5], [6, 7], lambda trial: trial.lora_rank),
        ("n_test", 5, 6, lambda trial: trial.n_test),
    ],
)
def test_an_entry_says_its_own_and_the_tasks_wins(load, key, of_backbone, of_task, read):
    text = BASE.replace("causal_lm/tiny", f"{{causal_lm/tiny: {{{key}: {of_backbone}}}}}")
    text = text.replace("width: 12", f"width: 12, {key}: {of_task}")
    plain, own = expand(load(BASE)), expand(load(text))

    def values(trials, backbone, task):
        return {read(trial) for trial in of(trials, backbone, task)}

    def as_set(value):
        return set(value) if isinstance(value, list) else {value}

    assert values(own, "causal_lm/tiny", "life") == as_set(of_backbone)
    assert values(own, "causal_lm/tiny", "elementary_ca") == as_set(of_task)
    assert values(own, "cogvideox/tiny", "elementary_ca") == as_set(of_task)
    assert of(own, "cogvideox/tiny", "life") == of(plain, "cogvideox/tiny", "life")


def test_placements_are_laid_over_each_other_field_by_field(load):
    text = BASE.replace("causal_lm/tiny", "{causal_lm/tiny: {placement: {num_workers: 2, eval_batch_size: 2}}}")
    text = text.replace("width: 12", "width: 12, placement: {eval_batch_size: 3}")
    trials = expand(load(text + "placement: {timeout_s: 9, num_workers: 4}\n"))
    found = {(trial.backbone, trial.task.name): trial.placement for trial in trials}
    assert found["cogvideox/tiny", "life"] == Placement(timeout_s=9, num_workers=4)
    assert found["causal_lm/tiny", "life"] == Placement(timeout_s=9, num_workers=2, eval_batch_size=2)
    assert found["causal_lm/tiny", "elementary_ca"] == Placement(timeout_s=9, num_workers=2, eval_batch_size=3)


def test_n_train_may_be_the_entries_alone(load):
    text = BASE.replace("n_train: [3, 10]\n", "")
    with pytest.raises(ValueError, match="n_train: missing; keys: name, "):
        load(text)
    trials = expand(load(text.replace("width: 12", "n_train: [4]").replace("- life", "- life: {n_train: [5, 6]}")))
    assert {(trial.task.name, trial.n_train) for trial in trials} == {("elementary_ca", 4), ("life", 5), ("life", 6)}


# --- exclude


@pytest.mark.parametrize(
    ("pattern", "goes"),
    [
        ("{backbone: cogvideox/*}", lambda trial: trial.backbone == "cogvideox/tiny"),
        ("{backbone: [c*, baseline/oracle], seed: 1}", lambda trial: trial.backbone[0] == "c" and trial.seed == 1),
        ("{family: [language, baseline]}", lambda trial: trial.backbone != "cogvideox/tiny"),
        ("{task: life, n_train: [10, 11]}", lambda trial: trial.task.name == "life" and trial.n_train == 10),
        ("{params: {rule: 90}}", lambda trial: trial.task.name == "elementary_ca"),
        ("{params: {height: [8, 9], rule: B3*}}", lambda trial: trial.task.name == "life"),
        ("{lora_rank: 8, recipe: {learning_rate: 2e-4}}", lambda trial: trial.lora_rank == 8 and _rate(trial) == 2e-4),
        ("{recipe: {learning_rate: [1e-3, 0.0002]}}", lambda trial: _rate(trial) == 2e-4),
    ],
)
def test_cells_that_match_a_whole_pattern_are_left_out(load, pattern, goes):
    text = BASE + "axes: {learning_rate: [1e-4, 2e-4]}\n"
    everything = expand(load(text))
    left = expand(load(text + f"exclude: [{pattern}]\n"))
    assert 0 < len(left) < len(everything)
    assert left == [trial for trial in everything if not goes(trial)]


def _rate(trial):
    return trial.recipe.learning_rate if trial.backbone != "baseline/majority" else None


def test_an_axis_that_does_not_apply_matches_nothing(load):
    text = BASE.replace("baseline/majority", "baseline/oracle")
    left = expand(load(text + "exclude: [{seed: 0}]\n"))
    assert {(trial.backbone, trial.seed) for trial in left} == {
        ("cogvideox/tiny", 1),
        ("causal_lm/tiny", 1),
        ("baseline/oracle", 0),
    }


def test_a_combination_that_is_not_valid_may_be_excluded(load):
    text = BASE.replace("causal_lm/tiny, ", "") + "axes: {num_frames: [8, 9]}\n"
    with pytest.raises(ValueError, match=r"recipe.num_frames = 8: cogvideox/tiny takes 1 \+"):
        load(text)
    assert {trial.recipe.num_frames for trial in expand(load(text + "exclude: [{recipe: {num_frames: 8}}]\n"))} == {9}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("[{task: lief}]", "exclude[0].task = lief: no trial of the sweep has that; there are elementary_ca, life"),
        ("[{seed: 0}, {n_train: 4}]", "exclude[1].n_train = 4: no trial of the sweep has that; there are 3, 10"),
        ("[{params: {rle: 90}}]", "exclude[0].params: unknown knob 'rle'; did you mean 'rule'? valid: rule, "),
        ("[{params: {rule: []}}]", "exclude[0].params: rule: expected a value or a list of them"),
        ("[{recipe: {max_step: 9}}]", "exclude[0].recipe: unknown recipe field 'max_step'; did you mean 'max_steps'?"),
        ("[{recipe: {max_steps: 0}}]", "exclude[0].recipe: max_steps = 0: input should be greater than 0"),
        ("[{family: vidio}]", "exclude[0].family[0]: unknown family 'vidio'; did you mean 'video'? valid: video, "),
        ("[{task: life, params: {width: 12}}]", "exclude[0]: no trial of the sweep matches all of task = life, params"),
        ("[{backbone: '*'}]", "exclude: leaves none of the 40 trials"),
        ("[{}]", "exclude[0]: a pattern needs at least one key; valid: backbone, "),
        ("[{seeds: 0}]", "exclude[0].seeds: unknown key 'seeds'; did you mean 'seed'? valid: backbone, "),
        ("[{n_train: ten}]", "exclude[0].n_train[0] = 'ten': input should be a valid integer"),
        ("{seed: 0}", "exclude = {'seed': 0}: input should be a list"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_one_line(load, patterns, expected):
    with pytest.raises(ValueError, match=r"^\S*study\.yaml: [^\n]*\Z") as caught:
        load(BASE + f"exclude: {patterns}\n")
    assert expected in str(caught.value)


# --- trials


LISTED = "{backbone: causal_lm/tiny, task: {life: {width: 6}}, seed: 4, n_train: 7, lora_rank: 2, n_test: 9}"


def test_listed_trials_stand_alone_or_beside_the_product(load):
    (alone,) = expand(load(f"name: study\ntrials: [{LISTED}]\n"))
    assert alone.label() == "causal_lm/tiny life(width=6) n=7 r=2 seed=4"
    assert alone.n_test == 9
    product = expand(load(BASE))
    both = expand(load(BASE + f"trials: [{LISTED}]\n"))
    assert ids(both) == ids(product) | {alone.trial_id}
    names = [trial.backbone for trial in both]
    assert names == sorted(names, key=["cogvideox/tiny", "causal_lm/tiny", "baseline/majority"].index)


def test_a_listed_trial_is_the_products_cell(load):
    axes = "axes: {max_steps: [1, 2]}\n"  # not for listed trials
    text = "name: study\nseeds: [3]\nlora_rank: [8]\nn_train: [5]\nn_test: 20\nrecipe: {lora_alpha: 5}\n"
    entry = "backbone: causal_lm/tiny, task: life, recipe: {attempts: 2}, placement: {timeout_s: 5}"
    listed = expand(load(text + axes + f"trials: [{{{entry}}}]\n"))
    product = "backbones: [{causal_lm/tiny: {recipe: {attempts: 2}, placement: {timeout_s: 5}}}]\ntasks: [life]\n"
    assert listed == expand(load(text + product))


def test_a_listed_trial_collapses_what_its_backbone_ignores(load):
    (trial,) = expand(load("name: study\ntrials: [{backbone: baseline/oracle, task: life, n_train: 30, seed: 2}]\n"))
    assert (trial.seed, trial.n_train, trial.lora_rank) == (0, 0, 0)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (f"[{LISTED}, {LISTED}]", "the same trial is there twice: causal_lm/tiny life(width=6) n=7"),
        (
            "[{backbone: causal_lm/tiny, task: life, n_train: 3, seed: 0, lora_rank: 8}]",
            "the same trial is there twice",
        ),
        (
            "[{backbone: causal_lm/tiny, task: life}]",
            "trials[0].seed: missing, and the sweep has several seeds: [0, 1]",
        ),
        ("[{backbone: causal_lm/tiny, n_train: 3}]", "trials[0].task: missing; keys: backbone, task, seed, "),
        ("[{backbone: causal_lm/tyni, task: life}]", "trials[0].backbone: unknown backbone 'causal_lm/tyni'; did you"),
        ("[{backbone: causal_lm/tiny, task: lfe}]", "trials[0].task: unknown task 'lfe'; did you mean 'life'?"),
        ("[{backbone: causal_lm/tiny, task: {life: {widht: 3}}}]", "trials[0].task.life: unknown knob of life 'widht'"),
        ("[{backbone: causal_lm/tiny, task: {life: {seeds: [1]}}}]", "trials[0]: seeds: write seed beside task"),
        ("[{backbone: causal_lm/tiny, task: life, n_train: [3]}]", "trials[0].n_train = [3]: input should be a valid"),
        ("[{backbone: causal_lm/tiny, task: life, recipe: {max_step: 3}}]", "trials[0].recipe.max_step: unknown key"),
        ("[life]", "trials[0] = 'life': input should be a mapping"),
    ],
)
def test_what_is_wrong_with_a_listed_trial_is_one_line(load, entries, expected):
    with pytest.raises(ValueError, match=r"^\S*study\.yaml: [^\n]*\Z") as caught:
        load(BASE + f"trials: {entries}\n")
    assert expected in str(caught.value)


# --- include


def test_cells_of_included_sweeps_join_and_count_once(write):
    write("parts/one.yaml", BASE + "exclude: [{seed: 1}]\n")
    write("parts/two.yaml", BASE.replace("study", "two").replace("- life", "- maze: {height: 7, width: 7}"))
    write("parts/both.yaml", "name: both\ninclude: [one.yaml, two.yaml]\n")
    path = write("all.yaml", f"name: all\ninclude: [parts/both.yaml, parts/two.yaml]\ntrials: [{LISTED}]\n")
    one, two, everything = (
        expand(load_sweep(path.parent / name)) for name in ("parts/one.yaml", "parts/two.yaml", path)
    )
    assert ids(one) & ids(two)
    assert ids(everything) > ids(one) | ids(two)
    assert len(everything) == len(ids(everything)) == len(ids(one) | ids(two)) + 1
    assert load_sweep(path).results_uri == "results/all"
    names = [trial.backbone for trial in everything]
    assert len(list(dict.fromkeys(names))) == sum(a != b for a, b in zip(names, [None, *names], strict=False))


def test_what_an_including_sweep_says_takes_the_place_of_the_included_ones_keys(write):
    text = BASE.replace("causal_lm/tiny", "{causal_lm/tiny: {recipe: {max_steps: 3}, seeds: [9]}}")
    write("one.yaml", text + "recipe: {max_steps: 5, lora_alpha: 4}\nplacement: {timeout_s: 7}\n")
    above = "recipe: {max_steps: 2}\nplacement: {cpus_per_worker: 2}\nn_test: 30\nseeds: [5]\n"
    path = write("all.yaml", "name: all\ninclude: [one.yaml]\n" + above)
    as_if_set = ["recipe.max_steps=2", "placement.cpus_per_worker=2", "n_test=30", "seeds=[5]"]
    assert expand(load_sweep(path)) == expand(load_sweep(path.parent / "one.yaml", as_if_set))
    found = {trial.backbone: trial for trial in expand(load_sweep(path))}
    assert (found["cogvideox/tiny"].seed, found["cogvideox/tiny"].recipe.max_steps) == (5, 2)
    assert (found["causal_lm/tiny"].seed, found["causal_lm/tiny"].recipe.max_steps) == (9, 3)
    assert found["causal_lm/tiny"].recipe.lora_alpha == 4
    assert found["causal_lm/tiny"].placement == Placement(timeout_s=7, cpus_per_worker=2)


def test_the_command_line_reaches_included_sweeps(write):
    write("one.yaml", BASE)
    path = write("all.yaml", "name: all\ninclude: [one.yaml]\n")
    overrides = ["recipe.learning_rate=2e-4", "n_train=[4]", "lora_rank=[2]", "results=elsewhere"]
    sweep = load_sweep(path, overrides)
    assert expand(sweep) == expand(load_sweep(path.parent / "one.yaml", overrides))
    assert {(trial.n_train, trial.recipe.learning_rate) for trial in expand(sweep)} == {(4, 2e-4)}
    assert sweep.results_uri == "elsewhere"


def test_exclude_reaches_included_cells_and_no_further_up(write):
    write("one.yaml", BASE + "exclude: [{n_train: 3, task: life}]\n")
    text = f"name: all\ninclude: [one.yaml]\ntrials: [{LISTED.replace('n_train: 7', 'n_train: 3')}]\n"
    everything = expand(load_sweep(write("all.yaml", text)))
    assert {trial.n_train for trial in everything if trial.task.name == "life"} == {3, 10}
    fewer = expand(load_sweep(write("all.yaml", text + "exclude: [{backbone: cogvideox/*}]\n")))
    assert fewer == [trial for trial in everything if trial.backbone != "cogvideox/tiny"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("[absent.yaml]", "all.yaml: include[0] = 'absent.yaml': there is no file "),
        ("[one.yaml, all.yaml]", "all.yaml: include[1] = 'all.yaml': a sweep cannot include itself: "),
        ("[around.yaml]", "around.yaml: include[0] = 'all.yaml': a sweep cannot include itself: "),
        ("[one.yaml, one.yaml]", "all.yaml: include: one.yaml is there twice in ["),
        ("one.yaml", "all.yaml: include = 'one.yaml': input should be a list"),
        ("[wrong.yaml]", "wrong.yaml: tasks[1]: unknown task 'lfe'; did you mean 'life'?"),
        ("[twice.yaml]", "twice.yaml: the same trial is there twice"),
        ("[broken.yaml]", "broken.yaml: line 1: not valid YAML: "),
        ("[{one: 1}]", "all.yaml: include[0] = {'one': 1}: input should be a valid string"),
    ],
)
def test_what_is_wrong_with_an_included_sweep_names_the_file_it_is_in(write, include, expected):
    write("one.yaml", BASE)
    write("around.yaml", "name: around\ninclude: [all.yaml]\n")
    write("wrong.yaml", BASE.replace("- life", "- lfe"))
    write("twice.yaml", BASE.replace("- life", "- life\n  - life"))
    write("broken.yaml", "name: ]")
    path = write("all.yaml", f"name: all\ninclude: {include}\n")
    with pytest.raises(ValueError, match=rf"^{path.parent}/\S*\.yaml: [^\n]*\Z") as caught:
        load_sweep(path)
    assert expected in str(caught.value)
    if not expected.startswith("all.yaml"):
        assert str(caught.value).endswith(f"(included by {path})")
