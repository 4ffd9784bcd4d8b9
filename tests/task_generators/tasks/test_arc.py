from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from pydantic import ValidationError

from task_generators.arc_datasets import SHORT_NAMES, load_arc_dataset
from task_generators.parse import parse
from task_generators.problem import Split, frozen_grid
from task_generators.render import render
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from task_generators.tasks.arc import Arc


def message(**knobs: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TaskSpec(name="arc", params=knobs)
    text = caught.value.errors()[0]["msg"].removeprefix("Value error, ")
    assert "\n" not in text
    return text


@cache
def evaluation_tasks() -> list[Arc]:
    return [Arc(**knobs) for knobs in Arc.expand({"task": "*"})]


@pytest.fixture
def own_dataset(tmp_path):
    """A folder with tasks of random grids: ``Count/Count1`` .. ``Count/Count3``, and ``Copy/Copy1``."""
    rng = np.random.default_rng(0)

    def pair(question, answer):
        return dict(
            zip(("input", "output"), (rng.integers(0, 10, s).tolist() for s in (question, answer)), strict=True)
        )

    for number, name in enumerate(["Count/Count1", "Count/Count2", "Count/Count3", "Copy/Copy1"]):
        path = tmp_path / "own" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        train = [pair((3 + i, 4), (2, 5 + i)) for i in range(2 + number)]
        path.write_text(json.dumps({"train": train, "test": [pair((6, 6), (1, 1)), pair((2, 7), (9, 3))]}))
    return tmp_path / "own"


def test_the_splits_are_those_of_the_file(own_dataset):
    spec = TaskSpec(name="arc", params={"dataset": str(own_dataset), "task": "Count2"})
    content = json.loads((own_dataset / "Count" / "Count2.json").read_text())
    for split, seed in ((Split.TRAIN, 0), (Split.TRAIN, 5), (Split.TEST, 0)):
        pairs = content[split.value]
        problems = draw_problems(spec, split, seed, len(pairs))
        found = [{"input": p.question.tolist(), "output": p.answer.tolist()} for p in problems]
        assert sorted(map(str, found)) == sorted(map(str, pairs))
        assert found == pairs or split == Split.TRAIN, "test inputs keep their order"
        assert all(
            dict(p.metadata) == {"dataset": str(own_dataset), "task": "Count2", "concept": "Count"} for p in problems
        )
        with pytest.raises(ValueError, match=rf"{len(pairs) + 1} {split} problems asked for, it has {len(pairs)}; "):
            draw_problems(spec, split, seed, len(pairs) + 1)


def test_training_sets_nest_and_their_order_is_the_seeds():
    spec = TaskSpec(name="arc")
    whole = [problem.question.tolist() for problem in draw_problems(spec, Split.TRAIN, 0, 6)]
    assert [problem.question.tolist() for problem in draw_problems(spec, Split.TRAIN, 0, 4)] == whole[:4]
    orders = {str([p.question.tolist() for p in draw_problems(spec, Split.TRAIN, seed, 6)]) for seed in range(5)}
    assert len(orders) > 1


def test_every_grid_of_every_evaluation_task_fills_a_picture_of_400_px():
    tasks = evaluation_tasks()
    assert len(tasks) == 400
    for task in tasks:
        largest = 0
        for split in Split:
            for problem in task.given_problems(split):
                for grid in (problem.question, problem.answer):
                    assert task.style.size_px(grid.shape) == (400, 400)
                    largest = max(largest, *grid.shape)
        larger = replace(task.style, cell_px=task.style.cell_px + 1)
        assert larger.size_px((largest, largest)) != (400, 400), "the largest cells that fit"
    assert len({task.style.cell_px for task in tasks}) > 10


def test_pictures_of_all_sizes_are_read_back():
    for task in evaluation_tasks()[::40]:
        for problem in [*task.given_problems(Split.TRAIN)[:2], *task.given_problems(Split.TEST)]:
            for grid in (problem.question, problem.answer):
                image = render(grid, task.palette, task.style)
                assert np.array_equal(parse(image, task.palette, task.style, grid.shape), grid)


def test_the_verifier_finds_every_pair_and_no_other(own_dataset):
    tasks = [*evaluation_tasks()[::10], Arc(dataset=str(own_dataset), task="Copy1")]
    for task in tasks:
        for split in Split:
            for problem in task.given_problems(split):
                assert task.verify(problem) == []
                for part in ("question", "answer"):
                    wrong = getattr(problem, part).copy()
                    wrong[-1, -1] = (wrong[-1, -1] + 1) % 10
                    assert len(task.verify(replace(problem, **{part: frozen_grid(wrong)}))) == 1
        others = [other for other in tasks if other is not task]
        assert all(task.verify(other.given_problems(Split.TEST)[0]) for other in others)


def test_a_pattern_stands_for_every_task_that_matches(own_dataset):
    knobs = {"dataset": str(own_dataset), "task": "Count*"}
    assert Arc.expand(knobs) == [{**knobs, "task": f"Count{number}"} for number in (1, 2, 3)]
    assert Arc.expand({**knobs, "task": "Co*/*1"}) == [{**knobs, "task": name} for name in ("Copy1", "Count1")]
    assert Arc.expand({**knobs, "task": "Count1"}) == [{**knobs, "task": "Count1"}]
    assert Arc.expand({}) == [{}]
    assert [knobs["task"] for knobs in Arc.expand({"task": "*"})] == load_arc_dataset("arc_agi_1").names
    assert "a pattern that 3 tasks of" in message(**knobs)
    with pytest.raises(ValueError, match=r"task = 'Cuont\*': .* has no task that matches; did you mean 'Count.'\? it"):
        Arc.expand({**knobs, "task": "Cuont*"})
    with pytest.raises(ValueError, match=r"dataset = 'absent': there is no such dataset"):
        Arc.expand({"dataset": "absent", "task": "*"})


def test_a_name_with_a_bracket_is_no_pattern(own_dataset):
    (own_dataset / "a[1].json").write_text((own_dataset / "Copy" / "Copy1.json").read_text())
    knobs = {"dataset": str(own_dataset), "task": "a[1]"}
    assert Arc.expand(knobs) == [knobs]
    assert len(Arc(**knobs).given_problems(Split.TEST)) == 2


def test_all_spellings_of_a_task_are_one_spec(own_dataset):
    for name in ("Count/Count1", "Count1"):
        spec = TaskSpec(name="arc", params={"dataset": str(own_dataset), "task": name})
        assert spec.params["task"] == "Count1"
    for short, long in SHORT_NAMES.items():
        task = load_arc_dataset(long).names[0]
        one, other = (TaskSpec(name="arc", params={"dataset": dataset, "task": task}) for dataset in (short, long))
        assert one == other
    assert TaskSpec(name="arc", params={"dataset": "arc_agi_1"}) == TaskSpec(name="arc")


def test_what_a_user_gets_wrong_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("VISUAL_SWEEP_DATA", str(tmp_path))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ragged.json").write_text('{"train": [{"input": [[1], [1, 2]], "output": [[1]]}], "test": []}')
    for knobs, expected in (
        ({"dataset": "arc_agi_3"}, "task 'arc': dataset = 'arc_agi_3': there is no such dataset; valid: arc_agi_1, "),
        ({"dataset": "concept_arc"}, "dataset = 'concept_arc': ConceptARC is not there: put "),
        ({"dataset": "arc_agi_2"}, "task = 'f3e62deb': arc_agi_2_evaluation has no task of that name; it has "),
        ({"task": "f3e62dab"}, "task = 'f3e62dab': arc_agi_1_evaluation has no task of that name; did you mean 'f3e62"),
        ({"task": 195732}, "task = 195732: YAML reads a name of digits as a number; write it in quotes"),
        ({"task": "*"}, "task = '*': a pattern that 400 tasks of arc_agi_1_evaluation match; only a sweep's YAML"),
        (
            {"dataset": "bad", "task": "ragged"},
            "task = 'ragged': ragged.json: train[0].input: its rows",
        ),
    ):
        assert expected in message(**knobs)


def test_a_task_is_solved_when_every_input_is_right():
    assert Arc().trial_scores({"exact_match": 1.0, "cell_accuracy": 1.0}) == {"solved": 1.0}
    assert Arc().trial_scores({"exact_match": 0.5, "cell_accuracy": 0.99}) == {"solved": 0.0}


def test_the_problems_stay_as_they_are():
    problems = [p for split in Split for task in evaluation_tasks() for p in task.given_problems(split)]
    digest = hashlib.sha256(json.dumps([[p.question.tolist(), p.answer.tolist()] for p in problems]).encode())
    assert digest.hexdigest()[:16] == "a0bbd51fe13a8bc5"
