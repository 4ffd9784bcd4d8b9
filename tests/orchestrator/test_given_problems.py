"""Sweeps over tasks whose problems are given, such as ARC: patterns, all demonstrations, whole test sets."""

import json

import pytest

from orchestrator.specs import TrialSpec, check_problems, expand

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
