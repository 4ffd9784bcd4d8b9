"""What every task promises. Tasks are found by file name, so a new file is held to all of this without further ado."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from task_generators import grid_json
from task_generators.problem import Problem, Split
from task_generators.render import RenderStyle, parse, render
from task_generators.rng import problem_rng
from task_generators.splits import draw_problems, in_test_partition
from task_generators.task import Task, TaskSpec, task_class, task_names

NUM_PROBLEMS = 25

pytestmark = pytest.mark.parametrize("name", task_names())


@cache
def problems(name: str, split: Split = Split.TRAIN, seed: int = 0, n: int = NUM_PROBLEMS) -> list[Problem]:
    return draw_problems(TaskSpec(name=name), split, seed, n)


def task(name: str) -> Task:
    return TaskSpec(name=name).build()


def contents(drawn: list[Problem]) -> list[tuple]:
    return [
        (problem.problem_id, problem.question.tolist(), problem.answer.tolist(), dict(problem.metadata))
        for problem in drawn
    ]


def digest_of_both_splits(name: str) -> str:
    drawn = contents(problems(name, n=5) + problems(name, Split.TEST, n=5))
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def test_grids_are_frozen_codes_of_the_palette(name: str) -> None:
    num_codes = len(task(name).palette.colors)
    for problem in problems(name) + problems(name, Split.TEST):
        for grid in (problem.question, problem.answer, *problem.states):
            assert grid.dtype == np.int8
            assert grid.ndim == 2
            assert not grid.flags.writeable
            assert 0 <= grid.min() <= grid.max() < num_codes
        assert json.loads(json.dumps(dict(problem.metadata))) == dict(problem.metadata)


def test_problems_travel_to_workers(name: str) -> None:
    for problem in problems(name)[:3]:
        copy = pickle.loads(pickle.dumps(problem))
        assert contents([copy]) == contents([problem])
        assert [state.tolist() for state in copy.states] == [state.tolist() for state in problem.states]


def test_palette_tells_codes_apart(name: str) -> None:
    colors = np.array(task(name).palette.colors)
    distances = np.abs(colors[:, None] - colors).max(axis=-1)
    assert distances[~np.eye(len(colors), dtype=bool)].min() >= 50
    assert len(set(task(name).palette.names)) == len(colors)


def test_the_stored_answer_scores_one(name: str) -> None:
    for problem in problems(name):
        score = task(name).score(problem, problem.answer)
        assert score["exact_match"] is True
        assert score["cell_accuracy"] == 1.0


def test_wrong_and_unreadable_answers_score_below(name: str) -> None:
    rng = np.random.default_rng(0)
    num_codes = len(task(name).palette.colors)
    for problem in problems(name):
        wrong = problem.answer.copy()
        cell = tuple(rng.integers(0, wrong.shape))
        wrong[cell] = (wrong[cell] + rng.integers(1, num_codes)) % num_codes
        score = task(name).score(problem, wrong)
        assert score["exact_match"] is False
        assert 0 < score["cell_accuracy"] < 1
        for no_answer in (None, problem.answer[:-1], problem.answer[:, :-1]):
            score = task(name).score(problem, no_answer)
            assert score["exact_match"] is False
            assert score["cell_accuracy"] == 0


def test_the_question_is_not_the_answer(name: str) -> None:
    copied = [task(name).score(problem, problem.question)["exact_match"] for problem in problems(name)]
    assert np.mean(copied) < 0.5


def test_training_sets_nest_and_seeds_differ(name: str) -> None:
    assert contents(problems(name, n=7)) == contents(problems(name)[:7])
    assert contents([TaskSpec(name=name).problem(Split.TRAIN, 0, 6)]) == contents(problems(name)[6:7])
    first, second = ({problem.question.tobytes() for problem in problems(name, seed=seed)} for seed in (0, 1))
    assert len(first & second) < NUM_PROBLEMS / 2


def test_the_test_split_ignores_the_seed(name: str) -> None:
    assert contents(problems(name, Split.TEST, 0)) == contents(problems(name, Split.TEST, 1))


def test_problem_ids_and_questions_are_distinct(name: str) -> None:
    both = problems(name, n=200) + problems(name, Split.TEST)
    assert len({problem.problem_id for problem in both}) == len(both)
    assert len({problem.question.tobytes() for problem in both}) == len(both)


def test_splits_share_no_symmetric_copy(name: str) -> None:
    keys = {split: {task(name).canonical_key(problem) for problem in problems(name, split, n=200)} for split in Split}
    assert not keys[Split.TRAIN] & keys[Split.TEST]
    assert all(in_test_partition(task(name), problem) for problem in problems(name, Split.TEST))
    assert not any(in_test_partition(task(name), problem) for problem in problems(name))


@cache
def digests_in_a_fresh_process() -> dict[str, str]:
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_task_contract import digest_of_both_splits, task_names\n"
        "print(json.dumps({name: digest_of_both_splits(name) for name in task_names()}))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONHASHSEED": "17", "PYTHONPATH": str(here.parents[1])}
    command = [sys.executable, "-c", script, str(here)]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_a_fresh_process_draws_the_same(name: str) -> None:
    assert digests_in_a_fresh_process()[name] == digest_of_both_splits(name)


@pytest.mark.parametrize("sigma", [0, 20])
@pytest.mark.parametrize("small", [False, True], ids=["published", "8 px"])
def test_pictures_are_read_back(name: str, small: bool, sigma: float) -> None:
    style, palette = RenderStyle(cell_px=8) if small else task(name).style, task(name).palette
    rng = np.random.default_rng(0)
    for problem in problems(name)[:5]:
        for grid in (problem.question, problem.answer, *list(problem.states)[::10]):
            image = render(grid, palette, style)
            noisy = np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)
            assert np.array_equal(parse(noisy, palette, style, grid.shape), grid)


def test_json_round_trip(name: str) -> None:
    for problem in problems(name):
        for grid in (problem.question, problem.answer):
            assert np.array_equal(grid_json.loads(grid_json.dumps(grid)), grid)


def test_every_knob_is_described_and_turns(name: str) -> None:
    """A knob's ``examples`` are values other than its default; each must change what the same random draw gives."""
    for knob, field in task_class(name).model_fields.items():
        assert field.description
        assert field.examples
        for value in field.examples:
            turned = TaskSpec(name=name, params={knob: value}).build()
            assert turned.model_dump()[knob] != task(name).model_dump()[knob]
            both = [
                [built.generate(problem_rng("knob", index)) for index in range(20)] for built in (task(name), turned)
            ]
            assert contents(both[0]) != contents(both[1]), knob


def test_bad_knobs_are_one_line_that_lists_the_knobs(name: str) -> None:
    with pytest.raises(ValueError, match="unknown knob colour; valid knobs: ") as caught:
        TaskSpec(name=name, params={"colour": 1})
    first_line = str(caught.value).split("Value error, ")[-1].split(" [type=")[0]
    assert "\n" not in first_line
    for knob in task_class(name).model_fields:
        assert knob in first_line


def test_the_spec_survives_its_own_json(name: str) -> None:
    for knob, field in task_class(name).model_fields.items():
        spec = TaskSpec(name=name, params={knob: field.examples[0]})
        again = TaskSpec.model_validate_json(spec.model_dump_json())
        assert again == spec
        assert TaskSpec.model_validate({name: json.loads(spec.params_json())}) == spec
    assert TaskSpec.model_validate(name).params_json() == "{}"


def test_symmetries_are_named(name: str) -> None:
    assert task(name).symmetries
    assert 0 < task(name).test_share < 1
