"""``sweep compare --published``, as far as it can be seen without the command line around it."""

import argparse
import json

import pandas as pd
import pytest
from rich.console import Console

from orchestrator import results
from orchestrator.compare_commands import add_compare_arguments, compare
from trainers.backbone import backbone_spec
from trainers.recipe import TrainRecipe

VIDEO = "cogvideox/1.5-5b-i2v"


@pytest.fixture
def run(tmp_path):
    """Runs the command; returns its exit status and what it printed, spaces and line ends alike."""

    def command(*arguments):
        parser = argparse.ArgumentParser()
        add_compare_arguments(parser)
        with (tmp_path / "printed").open("w+") as file:
            status = compare(parser.parse_args(list(map(str, arguments))), Console(file=file, width=200))
            file.seek(0)
            return status, " ".join(file.read().split())

    return command


@pytest.fixture
def write(tmp_path, make_result):
    """Writes a row of a trial as the paper states it, but for ``fields``, to the folder ``name``."""

    def row(name, exact_match, state="done", **fields):
        folder = tmp_path / name
        recipe = TrainRecipe.model_validate(backbone_spec(VIDEO).recipe).model_dump(mode="json", exclude_defaults=True)
        own = {"backbone": VIDEO, "family": "video", "task": "maze", "task_params": "{}", "seed": 42, "n_train": 100}
        own |= {"n_test": 200, "lora_rank": 64, "recipe": json.dumps(recipe)} | fields
        metrics = {"exact_match": exact_match, "cell_accuracy": 1.0} if state == "done" else {}
        trial_id = f"{abs(hash((name, exact_match, str(own)))):016x}"
        results.write(folder, make_result(trial_id, state, metrics=metrics, **own))
        return folder

    return row


def test_our_cells_stand_beside_the_published_ones(run, write):
    write("own", 0.9)
    write("own", 0.2, n_train=30)
    folder = write("own", 0.5, n_train=7)
    status, text = run("--published", folder)
    assert status == 0
    assert "0.900 [0.85, 0.93]" in text
    assert "0.940" in text
    assert "2 published cells: 1 within, 1 below." in text
    assert f"{VIDEO}: nothing stated is done otherwise" in text
    assert "max_steps = " in text
    assert "min_test_distance = 0 (authors' data: 0.5)" in text


def test_deviations_are_listed_and_ranks_told_apart(run, write):
    write("own", 0.9, lora_rank=16)
    folder = write("own", 0.9)
    _, text = run("--published", folder)
    assert f"{VIDEO} r=16" in text
    assert "differs from what is stated in: lora_rank 16 (stated: 64) (in 1 of 2)" in text
    assert "1 published cell (2 comparisons" in text


def test_several_folders_are_compared_at_once_and_written_as_csv(run, write, tmp_path):
    folders = [write("one", 0.9), write("two", 0.5, n_train=300, lora_rank=8)]
    out = tmp_path / "new" / "compared.csv"
    status, text = run("--published", *folders, "--out", out)
    assert status == 0
    assert str(out) in text
    frame = pd.read_csv(out)
    assert frame["n_train"].tolist() == [100, 300]
    assert frame["deviations"].fillna("").tolist() == ["", "lora_rank 8 (stated: 64)"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backbone": "cogvideox/tiny"}, [VIDEO, "cogvideox/tiny", "stand-in is never"]),
        ({"backbone": "baseline/oracle", "family": "baseline"}, ["baselines alone"]),
        ({"task_params": '{"height":9}'}, ["maze(height=9)", "paper_*.yaml"]),
        ({"n_train": 7}, ["no finished trial has a published n_train"]),
        ({"state": "failed"}, ["no trial is done yet"]),
    ],
)
def test_where_nothing_matches_one_line_says_why(run, write, tmp_path, fields, words):
    folder = write("own", 0.9, **fields)
    out = tmp_path / "compared.csv"
    status, text = run("--published", folder, "--out", out)
    assert status == 0
    assert text.startswith("Nothing to compare: ")
    assert len((tmp_path / "printed").read_text().splitlines()) == 1
    for word in words:
        assert word in text
    assert list(pd.read_csv(out)) != []


def test_what_is_no_source_or_no_place_to_write_is_one_line(run, write, tmp_path):
    with pytest.raises(ValueError, match=r"^nowhere: neither a results folder nor a sweep's YAML$"):
        run("--published", "nowhere")
    folder = write("own", 0.9)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--out .*cannot be written"):
        run("--published", folder, "--out", tmp_path / "file" / "x.csv")


def test_it_has_to_be_said_with_what_to_compare(run, write, capsys):
    folder = write("own", 0.9)
    with pytest.raises(SystemExit) as stop:
        run(folder)
    assert stop.value.code == 2
    assert "--published" in capsys.readouterr().err
