import pytest
from pydantic import ValidationError

from task_generators.task import TaskSpec, task_class, task_names


def message(named: object) -> str:
    """The one line a user sees."""
    with pytest.raises(ValidationError) as caught:
        TaskSpec.model_validate(named)
    return caught.value.errors()[0]["msg"].removeprefix("Value error, ")


def test_tasks_are_the_files() -> None:
    assert {"elementary_ca", "life", "maze", "sudoku"} <= set(task_names())
    assert task_names() == sorted(task_names())


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("mase", "unknown task 'mase'; valid tasks: "),
        ({"maze": {"heigth": 9}}, "task 'maze': unknown knob heigth; valid knobs: height, width, start, end"),
        ({"maze": {"test": {"heigth": 9}}}, "task 'maze': unknown knob test.heigth; valid knobs: height"),
        ({"maze": {"height": 10}}, "task 'maze': height = 10: expected an odd number, such as 9 or 11"),
        ({"maze": {"height": 3}}, "task 'maze': height = 3: Input should be greater than or equal to 5"),
        ({"maze": {"start": [2, 1]}}, "task 'maze': start = [2, 1]: expected an odd row from 1 to 19"),
        ({"maze": {"end": [1, 1]}}, "task 'maze': start = [1, 1]: expected another room than the end"),
        ({"maze": [9]}, "task 'maze': expected a mapping of its knobs, got [9]"),
        ({"sudoku": {"size": 6}}, "task 'sudoku': size = 6: Input should be 4 or 9"),
        ({"sudoku": {"size": 4, "givens": 3}}, "task 'sudoku': givens = 3: expected 4 to 15 for size 4"),
        ({"sudoku": {"difficulty": "fiendish"}}, "Input should be 'easy', 'medium' or 'hard'"),
        ({"sudoku": {"difficulty": "hard", "givens": 30}}, "task 'sudoku': givens = 30: leave it out, or"),
        (
            {"elementary_ca": {"rule": 256}},
            "task 'elementary_ca': rule = 256: Input should be less than or equal to 255",
        ),
        ({"elementary_ca": {"boundary": "open"}}, "Input should be 'periodic' or 'fixed'"),
        ({"life": {"rule": "conways"}}, "task 'life': rule = 'conways': expected B, digits 0 to 8, /S, digits 0 to 8"),
        ({"arc": {"min_test_distance": 0.1}}, "task 'arc': min_test_distance: leave it out, its problems are given"),
        ({"life": {"density": "much"}}, "task 'life': density = 'much': Input should be a valid number"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_naming_it(named: object, expected: str) -> None:
    assert expected in message(named)
    assert "\n" not in message(named)


def test_all_spellings_of_a_task_are_one_spec() -> None:
    assert TaskSpec.model_validate("life") == TaskSpec(name="life") == TaskSpec.model_validate({"life": None})
    assert TaskSpec.model_validate({"life": {"height": 8}}) == TaskSpec(name="life")
    assert TaskSpec.model_validate({"life": {"rule": "b3/s32"}}) == TaskSpec(name="life")
    assert TaskSpec.model_validate({"life": {"height": "6"}}) == TaskSpec(name="life", params={"height": 6})
    assert TaskSpec.model_validate({"maze": {"height": 9, "end": [7, 19]}}) == TaskSpec(
        name="maze", params={"height": 9}
    )
    assert TaskSpec.model_validate({"life": {"test": {"height": 8}}}) == TaskSpec(name="life")


def test_labels_and_json_show_what_differs_from_the_defaults() -> None:
    spec = TaskSpec.model_validate({"elementary_ca": {"rule": 90, "width": 16, "test": {"width": 24}}})
    assert spec.label() == "elementary_ca(rule=90, test width=24)"
    assert spec.params_json() == '{"rule":90,"test":{"width":24}}'


def test_a_task_is_found_by_its_file_name() -> None:
    for name in task_names():
        assert task_class(name).__module__ == f"task_generators.tasks.{name}"
