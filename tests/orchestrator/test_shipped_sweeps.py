"""The sweeps in orchestrator/sweeps: that they load, say what they are, and are the cells that were published."""

import csv
import os
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

import orchestrator
from orchestrator.analysis.published_table import PUBLISHED_BACKBONES, SERVICES
from orchestrator.analysis.published_table import published_name as name_and_subset
from orchestrator.specs import TrialSpec, expand, load_sweep
from task_generators import arc_datasets
from task_generators.problem import Split
from task_generators.splits import draw_problems
from trainers.backbone import backbone_spec

SWEEPS = Path(orchestrator.__file__).parent / "sweeps"
FILES = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
PUBLISHED = Path(orchestrator.__file__).parent / "data" / "published_results.csv"

GRIDS = ["paper_games", "paper_routes", "paper_automata"]
NEED_CONCEPT_ARC = {"paper_concept_arc", "paper"}
NUMBERS = {"One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5, "Six": 6}


@pytest.fixture(scope="module", autouse=True)
def data_folder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            arc_datasets.DATA_FOLDER_VARIABLE, os.environ.get(arc_datasets.DATA_FOLDER_VARIABLE, str(SHARED_DATA))
        )
        yield


@pytest.fixture(scope="module")
def trials_of(data_folder):
    @cache
    def trials(name):
        if name in NEED_CONCEPT_ARC and arc_datasets._place("concept_arc") is None:
            pytest.skip("ConceptARC is not there")
        return expand(load_sweep(SWEEPS / f"{name}.yaml"))

    return trials


@pytest.fixture(scope="module")
def published():
    with PUBLISHED.open(newline="") as file:
        return list(csv.DictReader(file))


def header(name):
    lines = (SWEEPS / f"{name}.yaml").read_text().splitlines()
    comment = [line.removeprefix("#").strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]
    return " ".join(comment)


def published_name(trial):
    """How the published tables call the task of a trial."""
    name, subset = name_and_subset(trial.task.name, trial.task.params_json())
    assert not subset
    return name


def published_cells(rows):
    """(task, backbone, n_train) of every row of the learning curves, and of the bars that were read off them."""
    cells = set()
    for row in rows:
        if row["table"] in {"2", "12", "13", "14", "15", "16"}:
            cells.add((row["task"], PUBLISHED_BACKBONES[row["model"]], int(row["n_train"])))
        elif row["table"] in {"fig7", "fig9"}:
            assert row["metric"] == "samples_to_0.9"
            cells.add((row["task"], PUBLISHED_BACKBONES[row["model"]], int(row["value"])))
    return cells


@pytest.mark.parametrize("name", FILES)
def test_it_is_named_as_its_file_and_says_how_to_run_it_and_how_many_trials_it_is(name, trials_of):
    trials, text = trials_of(name), header(name)
    assert load_sweep(SWEEPS / f"{name}.yaml").name == name
    assert f"sweep run orchestrator/sweeps/{name}.yaml" in re.sub(" +", " ", text)
    stated = re.search(r"(\d[\d,]*|[A-Z][a-z]+) (trained )?trials", text)
    assert stated is not None
    number = NUMBERS.get(stated[1]) or int(stated[1].replace(",", ""))
    counted = [trial for trial in trials if trial.backbone_spec.trainable or not stated[2]]
    assert len(counted) == number
    assert len({trial.trial_id for trial in trials}) == len(trials)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("paper", "ablation"))])
def test_its_header_says_what_it_costs_what_to_expect_and_how_to_shrink_it(name):
    text = header(name)
    assert "To shrink:" in text
    assert re.search(r"GPU hours?|minutes on", text), "what it costs"
    assert re.search(r"Published|published|Expect|Measured", text)


@pytest.mark.parametrize("name", FILES)
def test_the_changes_that_its_header_offers_give_a_sweep(name):
    for command in re.findall(r"(?:--set (?:'[^']+'|[^\s',;:)]+) ?)+", header(name)):
        overrides = [quoted or plain for quoted, plain in re.findall(r"--set (?:'([^']+)'|([^\s',;:)]+))", command)]
        if name == "paper" and "include" not in command:
            overrides.append("include=[paper_games.yaml]")  # the others are read elsewhere
        if (name == "paper_concept_arc" or "concept_arc" in command) and arc_datasets._place("concept_arc") is None:
            continue
        assert expand(load_sweep(SWEEPS / f"{name}.yaml", overrides)), command


def test_the_learning_curves_of_the_paper_are_the_published_cells_and_no_others(trials_of, published):
    trials = [trial for name in GRIDS for trial in trials_of(name)]
    cells = Counter((published_name(trial), trial.backbone, trial.n_train) for trial in trials)
    assert set(cells.values()) == {1}
    assert set(cells) == published_cells(published)


def test_the_cells_that_only_a_figure_has_are_the_two_where_the_paper_disagrees_with_itself(published):
    tables = [row for row in published if not row["table"].startswith("fig")]
    assert published_cells(published) - published_cells(tables) == {
        ("eca_rule_108", "cogvideox/1.5-5b-i2v", 100),
        ("eca_rule_250", "cogvideox/1.5-5b-i2v", 100),
    }


def test_every_published_model_is_a_backbone_or_a_service(published):
    models = {row["model"] for row in published if row["table"] != "fig2"}  # figure 2 counts tasks of table 1
    assert models == PUBLISHED_BACKBONES.keys() | SERVICES
    assert all(backbone_spec(name).name == name for name in PUBLISHED_BACKBONES.values())


def test_arc_is_run_for_every_published_model_on_all_of_its_tasks(trials_of, published):
    rows = [row for row in published if row["table"] == "1" and row["model"] not in SERVICES]
    attempts = {PUBLISHED_BACKBONES[row["model"]]: 0 for row in rows}
    for row in rows:
        backbone = PUBLISHED_BACKBONES[row["model"]]
        attempts[backbone] = max(attempts[backbone], int(row["attempts"]))
    trials = trials_of("paper_arc")
    assert Counter(trial.backbone for trial in trials) == dict.fromkeys(attempts, 400)
    assert all(trial.recipe.attempts == attempts[trial.backbone] for trial in trials)
    tasks = [trial.task.build() for trial in trials]
    assert {task.dataset for task in tasks} == {"arc_agi_1_evaluation"}
    assert all(
        trial.n_train == len(task.given_problems(Split.TRAIN)) for trial, task in zip(trials, tasks, strict=True)
    )


def test_concept_arc_is_run_for_every_published_model_and_concept(trials_of, published):
    rows = [row for row in published if row["table"] == "9" and row["model"] not in SERVICES]
    concepts: Counter[tuple[str, str, int, int]] = Counter()
    for trial in trials_of("paper_concept_arc"):
        task = trial.task.build()
        assert task.dataset == "concept_arc"
        concept = task.task.rstrip("0123456789").rsplit("/", 1)[-1]
        concepts[trial.backbone, concept, trial.recipe.attempts, trial.n_test] += 1
    wanted = {(PUBLISHED_BACKBONES[row["model"]], row["subset"], int(row["attempts"]), 3) for row in rows}
    assert concepts == dict.fromkeys(wanted, 10)


def test_the_vision_language_cells_are_the_published_ones(trials_of, published):
    rows = [row for row in published if row["table"] in {"10", "11"}]
    cells = Counter(
        (published_name(trial), trial.backbone, trial.n_train, trial.recipe.inputs) for trial in trials_of("paper_vlm")
    )
    assert cells == dict.fromkeys(
        {(row["task"], PUBLISHED_BACKBONES[row["model"]], int(row["n_train"]), row["inputs"]) for row in rows}, 1
    )


def test_the_whole_paper_is_its_parts(trials_of):
    parts = [path.stem for path in SWEEPS.glob("paper_*.yaml")]
    ids = [trial.trial_id for name in parts for trial in trials_of(name)]
    assert Counter(ids) == Counter(trial.trial_id for trial in trials_of("paper"))


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("paper_*.yaml")))
def test_every_trial_of_a_paper_sweep_has_the_stated_rank_and_one_budget_of_examples(name, trials_of):
    trials = trials_of(name)
    seen = {trial.recipe.max_steps * trial.recipe.batch_size for trial in trials}
    assert len(seen) == 1, "what differs between cells is how many of the examples seen are distinct"
    assert max(trial.n_train for trial in trials) <= seen.pop(), "no training set is larger than what is seen of it"
    for trial in trials:
        assert trial.lora_rank == {"video": 64}.get(trial.backbone_spec.family, 32)
        assert trial.task.name == "arc" or trial.n_test == 200
        stated = {field: value for field, value in trial.backbone_spec.recipe.items() if field != "max_steps"}
        assert {field: getattr(trial.recipe, field) for field in stated} == stated
    assert len({trial.seed for trial in trials}) == 1


def test_there_are_enough_problems_for_the_largest_training_sets_of_every_sweep(trials_of):
    largest: dict[tuple[str, str], TrialSpec] = {}
    for name in FILES:
        if name not in NEED_CONCEPT_ARC:
            for trial in trials_of(name):
                if trial.task.name != "arc":
                    key = (trial.task.name, trial.task.params_json())
                    largest[key] = max(largest.get(key, trial), trial, key=lambda each: each.n_train)
    for trial in largest.values():
        assert len(draw_problems(trial.task, Split.TEST, 0, trial.n_test)) == trial.n_test
        assert len(draw_problems(trial.task, Split.TRAIN, trial.seed, trial.n_train)) == trial.n_train


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("ablation_")])
def test_an_ablation_runs_on_a_laptop_and_varies_one_thing(name, trials_of):
    trials = trials_of(name)
    assert all(trial.backbone_spec.num_gpus == 0 for trial in trials)
    assert all(trial.backbone.split("/")[1].startswith("tiny") for trial in trials if trial.backbone_spec.trainable)
    varied = name.removeprefix("ablation_")
    values = defaultdict(set)
    for trial in trials:
        if varied == "pretraining":
            family, flavor = trial.backbone.split("/")
            key, value = (family, flavor.removesuffix("-random")), trial.backbone_spec.pretrained
        elif varied == "lora_rank":
            key, value = trial.backbone, trial.lora_rank
        elif trial.backbone_spec.family == "video":
            key, value = trial.backbone, getattr(trial.recipe, varied)
            default = trial.backbone_spec.recipe | {varied: value}
            assert trial.recipe.model_dump(exclude_defaults=True) == type(trial.recipe)(**default).model_dump(
                exclude_defaults=True
            )
        else:
            continue
        values[key, trial.task.label(), trial.n_train, trial.seed].add(value)
    assert len({frozenset(each) for each in values.values()}) == 1, "every cell has every value"
    assert len(next(iter(values.values()))) > 1
