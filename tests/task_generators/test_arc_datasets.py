from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from task_generators import arc_datasets
from task_generators.arc_datasets import ArcDataset, load_arc_dataset

TASK = {
    "train": [{"input": [[0, 1], [2, 3]], "output": [[9]]}, {"input": [[4, 5, 6]], "output": [[7, 8], [8, 7]]}],
    "test": [{"input": [[1, 1]], "output": [[2], [2]]}],
}
NAMES = ["ARC/Count/Count10", "ARC/Count/Count2", "ARC/Copy/Copy1", "ARC/Copy/Count2", "top"]


def task_with(**changes: object) -> dict:
    return {**json.loads(json.dumps(TASK)), **changes}


def write_folder(root: Path, contents: dict[str, object]) -> Path:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root


def write_zip(path: Path, contents: dict[str, object]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return path


@pytest.fixture(params=["folder", "zip"])
def write(request, tmp_path):
    """Writes a dataset in one form and the other; returns its path."""

    def write(contents: dict[str, object], name: str = "dataset") -> str:
        if request.param == "zip":
            return str(write_zip(tmp_path / f"{name}.zip", contents))
        return str(write_folder(tmp_path / name, contents))

    return write


def test_folder_and_zip_hold_the_same_tasks(write):
    hidden = ["__MACOSX/Count/._Count3.json", ".git/x.json", "ARC/Count/._Count1.json", "README.md", "a.jsonl"]
    dataset = load_arc_dataset(write({f"{name}.json": TASK for name in NAMES} | dict.fromkeys(hidden, b"no json")))
    assert dataset.names == ["Copy1", "Copy/Count2", "Count/Count2", "Count10", "top"], "2 comes before 10"
    assert [dataset.task(name).concept for name in dataset.names] == ["Copy", "Copy", "Count", "Count", None]
    for name in dataset.names:
        task = dataset.task(name)
        assert task.name == name
        for pairs, expected in ((task.demonstrations, TASK["train"]), (task.tests, TASK["test"])):
            assert [(x.tolist(), y.tolist()) for x, y in pairs] == [
                (pair["input"], pair["output"]) for pair in expected
            ]
            assert all(grid.dtype == np.int8 and not grid.flags.writeable for pair in pairs for grid in pair)
        assert task.largest_side() == 3
        assert dataset.decoded_json(name) == TASK


def test_patterns_match_file_by_file(write):
    dataset = load_arc_dataset(write({f"{name}.json": TASK for name in NAMES}))
    assert dataset.matching("*") == dataset.names
    assert dataset.matching("Count*") == ["Copy/Count2", "Count/Count2", "Count10"]
    assert dataset.matching("Count/*") == ["Count/Count2", "Count10"]
    assert dataset.matching("*/Copy?") == ["Copy1"]
    assert dataset.matching("A*/C*/*[12]") == ["Copy1", "Copy/Count2", "Count/Count2"]
    assert dataset.matching("count*") == dataset.matching("Co") == dataset.matching("*/*/*/*") == []


def test_a_task_goes_by_any_ending_that_is_its_own(write):
    dataset = load_arc_dataset(write({f"{name}.json": TASK for name in NAMES}))
    assert dataset.full_name("ARC/Count/Count10") == dataset.full_name("Count/Count10") == "Count10"
    assert dataset.full_name("ARC/Copy/Count2") == "Copy/Count2"
    assert dataset.full_name("Count2") is dataset.full_name("nt10") is dataset.full_name("") is None
    assert "several tasks of that name: Copy/Count2, Count/Count2" in dataset.unknown("Count2")
    assert "did you mean 'Count10'?" in dataset.unknown("Conut10")
    nested = ArcDataset("nested", ["1", "a/1", "b/a/1"], lambda path: TASK)
    assert [nested.full_name(name) for name in nested.names] == nested.names
    assert len(set(nested.names)) == 3


WRONG = {
    "no JSON": (b"{", "not valid JSON: "),
    "no text": (b"\xff\xfe\x00\x01\x02", "not valid JSON: "),
    "deep": (b"[" * 100_000, "not valid JSON: "),
    "a list": ([TASK], "expected {"),
    "no test": ({"train": TASK["train"]}, "expected {"),
    "no demonstration": (task_with(train=[]), "train: expected a list of input and output pairs"),
    "mapping for pairs": (task_with(test={}), "test: expected a list of input and output pairs"),
    "no output": (task_with(test=[{"input": [[1]]}]), "test[0]: has no output"),
    "pair is a list": (task_with(train=[[[1]], [[2]]]), "train[0]: has no input"),
    "grid is null": (task_with(train=[{"input": [[1]], "output": None}]), "train[0].output: expected a list of rows"),
    "empty grid": (task_with(train=[{"input": [], "output": [[1]]}]), "train[0].input: expected a list of rows"),
    "empty row": (task_with(train=[{"input": [[]], "output": [[1]]}]), "train[0].input: expected a list of rows"),
    "flat grid": (task_with(train=[{"input": [1, 2], "output": [[1]]}]), "train[0].input: expected a list of rows"),
    "ragged": (task_with(train=[{"input": [[1, 2], [1]], "output": [[1]]}]), "train[0].input: its rows differ"),
    "colour 10": (
        task_with(test=[{"input": [[10]], "output": [[1]]}]),
        "10 is no colour; valid: 0 to 9",
    ),
    "colour -1": (task_with(test=[{"input": [[1]], "output": [[-1]]}]), "test[0].output: -1 is no colour"),
    "colour 1.0": (task_with(test=[{"input": [[1.0]], "output": [[1]]}]), "1.0 is no colour"),
    "colour true": (task_with(test=[{"input": [[True]], "output": [[1]]}]), "true is no colour"),
    "colour text": (task_with(test=[{"input": [["1"]], "output": [[1]]}]), '"1" is no colour'),
    "31 rows": (task_with(test=[{"input": [[1]] * 31, "output": [[1]]}]), "31 x 1 cells; at most 30 x 30"),
    "leak": (
        task_with(test=[{"input": [[3]], "output": [[0]]}, {"input": [[0, 1], [2, 3]], "output": [[0]]}]),
        "test[1]: its input is that of a demonstration",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(case, write):
    content, expected = WRONG[case]
    dataset = load_arc_dataset(write({"A/bad.json": content, "A/good.json": TASK}))
    with pytest.raises(ValueError, match=r"^A/bad\.json: [^\n]*\Z") as caught:
        dataset.task("bad")
    assert expected in str(caught.value)
    assert dataset.task("good").concept == "A", "one bad file spoils no other"


def test_files_too_large_are_not_read(write):
    bomb = b"[" + b" " * arc_datasets.MAX_TASK_BYTES + b"]"
    with pytest.raises(ValueError, match=r"bomb\.json.* (too large|larger than)"):
        load_arc_dataset(write({"bomb.json": bomb})).task("bomb")


def test_a_zip_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arc_datasets, "MAX_ZIP_BYTES", 5 * len(json.dumps(TASK)))
    assert len(load_arc_dataset(str(write_zip(tmp_path / "5.zip", {f"{i}.json": TASK for i in range(5)}))).names) == 5
    with pytest.raises(ValueError, match="too large"):
        load_arc_dataset(str(write_zip(tmp_path / "6.zip", {f"{i}.json": TASK for i in range(6)})))


def test_places_without_a_dataset(tmp_path):
    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "empty").mkdir()
    damaged = bytearray(write_zip(tmp_path / "whole.zip", {"a.json": TASK}).read_bytes())
    damaged[40] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    for name, expected in {
        "text.zip": "is no zip that can be read",
        "damaged.zip": "is no zip that can be read",
        "empty": "there is no ARC-format JSON in ",
        "absent": "there is no such dataset; valid: arc_agi_1, ",
        "absent.zip": "there is no such dataset; valid: arc_agi_1, ",
    }.items():
        with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
            load_arc_dataset(str(tmp_path / name))
        assert expected in str(caught.value)
    for name in ("", "~nobody/arc", "..."):
        with pytest.raises(ValueError, match="no such dataset"):
            load_arc_dataset(name)


@pytest.mark.parametrize("place", ["concept_arc", "ConceptARC", "concept-arc.zip", "ConceptARC-main.zip"])
def test_concept_arc_is_found_under_its_spellings_without_its_minimal_tasks(place, tmp_path, monkeypatch):
    monkeypatch.setenv(arc_datasets.DATA_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(
        ValueError, match=r"victorvikram/ConceptARC, .*, at .*/concept_arc or .*concept_arc\.zip "
    ) as caught:
        load_arc_dataset("concept_arc")
    assert str(tmp_path) in str(caught.value)
    paths = ["corpus/Count/Count1", "corpus/Count/Count2", "corpus/Count/CountMinimal", "MinimalTasks/CopyMinimal"]
    contents = {f"{path}.json": TASK for path in [*paths, "corpus/Copy/OriginalARCEvalSet/Copy1"]}
    write_zip(tmp_path / place, contents) if place.endswith(".zip") else write_folder(tmp_path / place, contents)
    assert load_arc_dataset("concept_arc").names == ["Count1", "Count2"]
    assert "CountMinimal" in load_arc_dataset(str(tmp_path / place)).names, "by its path all of it is there"


def test_any_dataset_in_the_data_folder_goes_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv(arc_datasets.DATA_FOLDER_VARIABLE, str(tmp_path))
    write_zip(tmp_path / "my-tasks.zip", {"a.json": TASK})
    assert load_arc_dataset("my_tasks").names == ["a"]
    monkeypatch.delenv(arc_datasets.DATA_FOLDER_VARIABLE)
    assert arc_datasets.data_folder() == Path.home() / ".cache" / "visual_sweep"


@pytest.mark.parametrize(
    ("name", "num_tasks", "num_tests", "num_demonstrations"),
    [
        ("arc_agi_1_training", 400, 416, 1302),
        ("arc_agi_1_evaluation", 400, 419, 1363),
        ("arc_agi_2_training", 1000, 1076, 3232),
        ("arc_agi_2_evaluation", 120, 167, 359),
    ],
)
def test_the_packaged_datasets_are_whole(name, num_tasks, num_tests, num_demonstrations):
    dataset = load_arc_dataset(name)
    tasks = [dataset.task(task) for task in dataset.names]
    assert len(tasks) == num_tasks
    assert sum(len(task.tests) for task in tasks) == num_tests
    assert sum(len(task.demonstrations) for task in tasks) == num_demonstrations
    assert max(task.largest_side() for task in tasks) == arc_datasets.MAX_SIDE
    assert load_arc_dataset("arc_agi_1") is load_arc_dataset("arc_agi_1_evaluation")


def test_concept_arc_itself(monkeypatch):
    folder = os.environ.get(arc_datasets.DATA_FOLDER_VARIABLE, str(Path(__file__).parents[3] / "shared" / "data"))
    monkeypatch.setenv(arc_datasets.DATA_FOLDER_VARIABLE, folder)
    if arc_datasets._place("concept_arc") is None:
        pytest.skip(f"ConceptARC is not in {folder}")
    dataset = load_arc_dataset("concept_arc")
    tasks = [dataset.task(name) for name in dataset.names]
    assert Counter(Counter(task.concept for task in tasks).values()) == {10: 16}, "16 concepts of 10 tasks"
    assert {len(task.tests) for task in tasks} == {3}
    assert {task.name.rstrip("0123456789") == task.concept for task in tasks} == {True}
