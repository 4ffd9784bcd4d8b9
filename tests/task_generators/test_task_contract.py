"""What every task promises. Tasks are found by file name, so a new file is held to all of this without further ado."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from task_generators import grid_json
from task_generators.problem import Problem, Split
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems, in_test_partition
from task_generators.task import Task, TaskSpec, task_class, task_names

NUM_TRAIN, NUM_TEST = 2000, 200
ANSWERED_BY_COPYING = {"transcribe"}
"""Tasks whose answer is the question."""

pytestmark = pytest.mark.parametrize("name", task_names())


@cache
def problems(name: str, split: Split = Split.TRAIN, seed: int = 0, n: int = 0) -> list[Problem]:
    """As many as a test wants, or as a task of given problems has."""
    n = n or (NUM_TRAIN if split == Split.TRAIN else NUM_TEST)
    if not task_class(name).can_generate():
        n = min(n, len(task(name).given_problems(split)))
    return draw_problems(TaskSpec(name=name), split, seed, n)


@cache
def task(name: str) -> Task:
    return TaskSpec(name=name).build()


def generated(built: Task, n: int) -> list[Problem]:
    """Problems as the task generates them, before any split; its given ones if it generates none."""
    if not built.can_generate():
        return list(built.given_problems(Split.TRAIN))[:n]
    batch = built.generate_many(problem_seeds(("contract",), np.arange(n)))
    return [batch.problem(place) for place in range(n)]


def contents(drawn: list[Problem]) -> list[tuple]:
    return [
        (problem.problem_id, problem.question.tolist(), problem.answer.tolist(), dict(problem.metadata))
        for problem in drawn
    ]


def digest_of_both_splits(name: str) -> str:
    drawn = contents(problems(name, n=50) + problems(name, Split.TEST, n=5))
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def every(items: list, count: int) -> list:
    """At most ``count`` of the items, evenly spread."""
    return items[:: max(1, len(items) // count)][:count]


def test_it_generates_in_one_way_or_is_given_its_problems(name: str) -> None:
    cls = task_class(name)
    overridden = [getattr(cls, method) is not getattr(Task, method) for method in ("generate", "generate_many")]
    assert sum(overridden) <= 1
    assert any(overridden) or len(task(name).given_problems(Split.TRAIN)) > 0


def test_grids_are_frozen_codes_of_the_palette(name: str) -> None:
    num_codes = len(task(name).palette.colors)
    drawn = problems(name) + problems(name, Split.TEST)
    for problem in drawn:
        for grid in (problem.question, problem.answer):
            assert grid.dtype == np.int8
            assert grid.ndim == 2
            assert not grid.flags.writeable
            assert 0 <= grid.min() <= grid.max() < num_codes
        assert json.loads(json.dumps(dict(problem.metadata))) == dict(problem.metadata)


def test_states_lead_from_the_question_to_the_answer(name: str) -> None:
    for problem in every(problems(name), 100):
        states = list(problem.states)
        for grid in states:
            assert grid.dtype == np.int8
            assert not grid.flags.writeable
            assert grid.shape == problem.answer.shape
            assert 0 <= grid.min() <= grid.max() < len(task(name).palette.colors)
        # A process moves: no state is its neighbour, unless the process has come to rest.
        whole = [problem.question, *states, problem.answer]
        if states and not np.array_equal(states[-1], problem.answer):
            assert all(not np.array_equal(*pair) for pair in pairwise(whole))


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
    for problem in problems(name) + problems(name, Split.TEST):
        score = task(name).score(problem, problem.answer)
        assert score["exact_match"] is True
        assert score["cell_accuracy"] == 1.0
        assert score.get("valid_solution", True) is True


def test_the_verifier_finds_every_problem_right(name: str) -> None:
    """All of them, or as many as 10 CPU seconds verify: proofs of a mate in two take 20 ms each."""
    drawn = problems(name, Split.TEST) + problems(name)
    started = time.process_time()
    for number, problem in enumerate(drawn):
        if number >= 300 and time.process_time() - started > 10:
            break
        assert task(name).verify(problem) == []


def test_the_verifier_finds_what_is_wrong(name: str) -> None:
    """One cell of the answer, or of the question. A changed question may be another right one, but seldom is."""
    rng = np.random.default_rng(2)
    num_codes = len(task(name).palette.colors)
    found: dict[str, list[bool]] = {"question": [], "answer": []}
    for problem in every(problems(name), 50):
        for part, outcomes in found.items():
            wrong = getattr(problem, part).copy()
            cell = tuple(rng.integers(0, wrong.shape))
            wrong[cell] = (wrong[cell] + rng.integers(1, num_codes)) % num_codes
            faults = task(name).verify(replace(problem, **{part: wrong}))
            assert all(isinstance(fault, str) and fault and "\n" not in fault for fault in faults)
            outcomes.append(bool(faults))
    assert all(found["answer"])
    assert np.mean(found["question"]) > 0.8


def test_wrong_and_unreadable_answers_score_below(name: str) -> None:
    rng = np.random.default_rng(0)
    num_codes = len(task(name).palette.colors)
    for problem in problems(name):
        wrong = problem.answer.copy()
        cell = tuple(rng.integers(0, wrong.shape))
        wrong[cell] = (wrong[cell] + rng.integers(1, num_codes)) % num_codes
        score = task(name).score(problem, wrong)
        assert score["exact_match"] is False
        assert 0 <= score["cell_accuracy"] < 1
        assert score["cell_accuracy"] == pytest.approx(1 - 1 / wrong.size)
    for problem in every(problems(name), 50):
        for no_answer in (None, problem.answer[:-1], problem.answer[:, :-1], np.zeros((40, 1), dtype=np.int8)):
            score = task(name).score(problem, no_answer)
            assert score["exact_match"] is False
            assert score["cell_accuracy"] == 0
            assert not score.get("valid_solution", False)


def test_every_score_is_there_however_bad_the_answer(name: str) -> None:
    """Any grid of the right shape gets finite scores; yes-or-no scores stay yes or no."""
    rng = np.random.default_rng(1)
    for problem in every(problems(name), 200):
        noise = rng.integers(0, len(task(name).palette.colors), problem.answer.shape).astype(np.int8)
        for grid in (noise, problem.question, np.zeros_like(problem.answer)):
            score = task(name).score(problem, grid)
            assert {"exact_match", "cell_accuracy"} <= set(score)
            assert all(isinstance(value, bool) or np.isfinite(value) for value in score.values())


def test_the_question_is_not_the_answer(name: str) -> None:
    copied = [task(name).score(problem, problem.question)["exact_match"] for problem in problems(name)]
    assert all(copied) if name in ANSWERED_BY_COPYING else np.mean(copied) < 0.5


def test_training_sets_nest_and_seeds_differ(name: str) -> None:
    for n in (1, 7, 1000):
        assert contents(problems(name, n=n)) == contents(problems(name)[:n])
    if task_class(name).can_generate():
        assert contents([TaskSpec(name=name).problem(Split.TRAIN, 0, 6)]) == contents(problems(name)[6:7])
        first, second = ({p.question.tobytes() for p in problems(name, seed=seed, n=200)} for seed in (0, 1))
        assert len(first & second) < 100


def test_the_test_split_ignores_the_seed_and_nests(name: str) -> None:
    assert contents(problems(name, Split.TEST, 0)) == contents(problems(name, Split.TEST, 1))
    assert contents(problems(name, Split.TEST, n=3)) == contents(problems(name, Split.TEST)[:3])


def test_problem_ids_and_questions_are_distinct(name: str) -> None:
    drawn = problems(name) + problems(name, Split.TEST)
    assert len({problem.problem_id for problem in drawn}) == len(drawn)
    for split in Split:
        questions = {(p.question.shape, p.question.tobytes()) for p in problems(name, split)}
        assert len(questions) == len(problems(name, split))


def test_splits_share_no_symmetric_copy(name: str) -> None:
    if not task_class(name).can_generate():
        pytest.skip("its splits are given")
    questions = {split: np.stack([problem.question for problem in problems(name, split)]) for split in Split}
    keys = {split: set(task(name).canonical_keys(questions[split]).tolist()) for split in Split}
    assert not keys[Split.TRAIN] & keys[Split.TEST]
    assert in_test_partition(task(name), questions[Split.TEST]).all()
    assert not in_test_partition(task(name), questions[Split.TRAIN]).any()


def test_a_problem_does_not_depend_on_its_batch(name: str) -> None:
    if not task_class(name).can_generate():
        pytest.skip("it generates none")
    seeds = problem_seeds(("batch",), np.arange(20))
    whole = task(name).generate_many(seeds)
    alone = task(name).generate_many(seeds[13:14])
    assert contents([whole.problem(13)]) == contents([alone.problem(0)])
    keys = task(name).canonical_keys(whole.questions)
    assert keys.dtype == np.uint64
    assert keys.shape == (20,)
    assert keys[13] == task(name).canonical_keys(alone.questions)[0]


@cache
def digests_in_a_fresh_process() -> dict[str, str]:
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_task_contract import digest_of_both_splits, task_names\n"
        "print(json.dumps({name: digest_of_both_splits(name) for name in reversed(task_names())}))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONHASHSEED": "17", "PYTHONPATH": str(here.parents[1])}
    command = [sys.executable, "-c", script, str(here)]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_a_fresh_process_draws_the_same_in_another_order(name: str) -> None:
    assert digests_in_a_fresh_process()[name] == digest_of_both_splits(name)


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
            assert contents(generated(task(name), 100)) != contents(generated(turned, 100)), knob


def test_the_problem_space_is_told(name: str) -> None:
    assert task(name).problem_space()
    assert task(name).problem_space() != Task.problem_space(task(name))


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
