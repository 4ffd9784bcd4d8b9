from dataclasses import replace

import numpy as np
import pytest

from task_generators.problem import Problem, Split, frozen_grid
from task_generators.rng import problem_seeds
from task_generators.splits import draw_problems, in_test_partition
from task_generators.task import TaskSpec, task_class, task_names

OTHERS = [name for name in task_names() if name != "transcribe" and task_class(name).can_generate()]


def transcription(of: str, **params: object) -> TaskSpec:
    return TaskSpec(name="transcribe", params={"of": of, "params": params})


@pytest.mark.parametrize("name", OTHERS)
def test_question_and_answer_are_the_question_of_the_other_task(name: str) -> None:
    seeds = problem_seeds(("transcribe",), np.arange(6))
    task, other = transcription(name).build(), TaskSpec(name=name).build()
    batch = task.generate_many(seeds)
    assert np.array_equal(batch.questions, other.generate_many(seeds).questions)
    for split in Split:
        for problem in draw_problems(transcription(name), split, 0, 6):
            assert np.array_equal(problem.question, problem.answer)
            assert not list(problem.states)
            assert task.verify(problem) == []


@pytest.mark.parametrize("name", OTHERS)
def test_it_looks_like_the_other_task_and_is_cut_where_that_is(name: str) -> None:
    task, other = transcription(name).build(), TaskSpec(name=name).build()
    assert (task.palette, task.style, task.symmetries) == (other.palette, other.style, other.symmetries)
    assert task.generator_version == other.generator_version
    questions = np.stack([problem.question for problem in other.draw(40, "cut")])
    on_test_side = in_test_partition(other, questions)
    assert 0 < on_test_side.sum() < 40
    assert np.array_equal(in_test_partition(task, questions), on_test_side)


def test_knobs_of_the_other_task_turn_its_questions() -> None:
    (problem,) = draw_problems(transcription("maze", height=7, width=11), Split.TRAIN, 0, 1)
    assert problem.question.shape == (7, 11)
    wider = TaskSpec(name="transcribe", params={"of": "life"}, test={"params": {"width": 12}})
    assert draw_problems(wider, Split.TEST, 0, 1)[0].answer.shape == (8, 12)
    assert draw_problems(wider, Split.TRAIN, 0, 1)[0].answer.shape == (8, 8)


def test_one_task_has_one_name() -> None:
    assert transcription("sudoku", size=9) == TaskSpec(name="transcribe")
    assert transcription("maze", start=[1, 1]) == transcription("maze", start=(1, 1)) == transcription("maze")
    assert transcription("maze", start=[3, 1]).label() == "transcribe(of=maze, params={'start': (3, 1)})"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"of": "transcribe"},
            "of = 'transcribe': expected another task that generates its problems: chess_mate_in_1, ",
        ),
        ({"of": "arc"}, "of = 'arc': expected another task that generates its problems: "),
        ({"of": "sudku"}, "of = 'sudku': expected another task .*, sudoku"),
        ({"params": {"siz": 4}}, "task 'sudoku': unknown knob siz; valid knobs: size, difficulty, givens"),
        ({"of": "life", "params": {"height": 0}}, "task 'life': height = 0: "),
    ],
)
def test_what_cannot_be_transcribed_is_one_line(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"task 'transcribe': {message}") as caught:
        TaskSpec(name="transcribe", params=params)
    assert "\n" not in str(caught.value).split("Value error, ")[-1].split(" [type=")[0]


def test_the_verifier_compares() -> None:
    task = TaskSpec(name="transcribe").build()
    (problem,) = task.draw(1, "wrong")
    wrong = problem.question.copy()
    wrong[4, 4] = (wrong[4, 4] + 1) % 10
    for damaged in (replace(problem, answer=wrong), replace(problem, question=wrong)):
        assert task.verify(damaged) == ["the answer is not the question"]
    assert task.verify(Problem(frozen_grid([[1, 2]]), frozen_grid([[1], [2]]))) == ["the answer is not the question"]
