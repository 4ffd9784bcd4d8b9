"""The command as people type it: what it prints, writes and answers to wrong input."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageSequence

from orchestrator import results
from orchestrator.cli import main
from orchestrator.problem_files import problems_table, write_problems
from orchestrator.specs import expand, load_sweep
from orchestrator.trial import run_and_record
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_class, task_names
from trainers.backbone import backbone_names

YAML = """
name: small
backbones: [baseline/majority, baseline/oracle]
tasks: [{life: {height: 5, width: 5}}, {elementary_ca: {rule: 90, width: 10, steps: 3}}]
n_train: [3, 10]
n_test: 6
"""


@pytest.fixture
def sweep_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(YAML)
    return "small.yaml"


@pytest.fixture
def half_done(sweep_yaml, make_result):
    """Two trials done, one failed, three to run."""
    trials = expand(load_sweep(sweep_yaml))
    for trial in trials[:2]:
        run_and_record(trial, "results/small")
    error = {"error_kind": "out_of_memory", "error": "Traceback\nRuntimeError: no memory is left"}
    results.write("results/small", make_result(trials[2].trial_id, "failed", **error))
    return sweep_yaml


def lines_of(capsys):
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def counts(lines):
    """Rows of a table of counts: backbone and task -> (to run, done, failed)."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    return {(row[0], row[1].split("(")[0]): tuple(map(int, row[2:5])) for row in cells}


def test_plan_counts_and_starts_nothing(sweep_yaml, capsys, tmp_path):
    assert main(["plan", sweep_yaml]) == 0
    lines = lines_of(capsys)
    assert counts(lines)["baseline/majority", "life"] == (2, 0, 0)
    assert counts(lines)["all", ""] == (6, 0, 0)
    assert lines[-1] == "6 of 6 trials to run: sweep run small.yaml"
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_plan_and_status_of_a_half_finished_sweep(half_done, capsys):
    assert main(["plan", half_done]) == 0
    lines = lines_of(capsys)
    assert counts(lines)["baseline/majority", "life"] == (0, 2, 0)
    assert counts(lines)["baseline/majority", "elementary_ca"] == (1, 0, 1)
    assert counts(lines)["all", ""] == (3, 2, 1)
    assert lines[-1].startswith("3 of 6 trials to run"), "what failed for good is left alone"
    assert main(["status", half_done]) == 0
    lines = lines_of(capsys)
    assert "2 of 6 trials done, 1 failed, 3 not run yet. Tables: results/small" in lines
    assert "out_of_memory: baseline/majority elementary_ca" in lines[-2]
    assert "RuntimeError: no memory is left (attempts: 1)" in lines[-2]
    assert "--retry-failed out_of_memory" in lines[-1]
    assert main(["plan", half_done, "--set", "n_train=[3]"]) == 0
    assert counts(lines_of(capsys))["all", ""] == (2, 1, 1), "a cell that is done for one sweep is done for all"


def test_report_of_a_half_finished_sweep(half_done, capsys, tmp_path):
    assert main(["report", half_done]) == 0
    text = "\n".join(lines_of(capsys))
    assert "failed" in text
    assert "missing" in text
    assert "baseline/oracle: is told the answer" in text, "what the numbers are"
    page = tmp_path / "results" / "small" / "report.html"
    assert f"Report: {page.relative_to(tmp_path)}" in text
    assert "1 failed" in page.read_text()
    assert main(["report", "results/small", "--out", "elsewhere/page.html"]) == 0
    assert (tmp_path / "elsewhere" / "page.html").stat().st_size > 10_000


def test_what_failed_for_good_is_left_alone(half_done, capsys):
    for trial in expand(load_sweep(half_done))[3:]:
        run_and_record(trial, "results/small")
    for options in ([], ["--retry-failed", "timeout", "--retry-failed", "file_system"], ["--retry-failed", "none"]):
        assert main(["run", half_done, *options]) == 1
        assert lines_of(capsys)[0].startswith("Nothing to run: 5 trials are done, 1 failed before and are left alone")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--retry-failed", "oom"], "--retry-failed: invalid choice: 'oom'"),
        (["--retry-failed", "all", "--retry-failed", "timeout"], "--retry-failed: all goes with no other kind"),
    ],
)
def test_kinds_to_retry_are_checked(half_done, capsys, options, complaint):
    assert main(["run", half_done, *options]) == 2
    assert complaint in capsys.readouterr().err


def test_compact(half_done, capsys):
    before = results.load_trials("results/small")
    assert main(["compact", "results/small"]) == 0
    merged = {"predictions": 2, "losses": 0, "videos": 0, "trials": 3}
    assert lines_of(capsys) == [", ".join(f"{table}: {count} files merged" for table, count in merged.items())]
    assert sorted(results.load_trials("results/small")["trial_id"]) == sorted(before["trial_id"])


def test_tasks(capsys):
    assert main(["tasks"]) == 0
    text = "\n".join(lines_of(capsys))
    assert all(name in text for name in task_names())
    for name in task_names():
        assert main(["tasks", name]) == 0
        text = "\n".join(lines_of(capsys))
        assert all(knob in text for knob in task_class(name).model_fields)
        assert "symmetries: " in text
        assert "problem space: " in text
        assert all(color in text for color in TaskSpec(name=name).build().palette.names)


def test_backbones(capsys):
    assert main(["backbones"]) == 0
    text = "\n".join(lines_of(capsys))
    assert all(name in text for name in backbone_names())


def test_a_task_as_its_knobs_say(capsys):
    assert main(["tasks", "elementary_ca", "--param", "width=5", "--param", "steps=2"]) == 0
    text = "\n".join(lines_of(capsys))
    assert "with: elementary_ca(width=5, steps=2)" in text
    assert "2^5 = 32 first rows" in text
    assert "48 x 80 px" in text
    assert "periodic | fixed" in text
    assert "3 to 255" in text
    (question,) = [line for line in text.splitlines() if line.count(" 0") == 0 and line.startswith(" ")]
    assert set(question.split()) <= {"1", "2"}, "codes can be read without colours"


@pytest.mark.parametrize("name", task_names())
def test_preview_of_every_task(name, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["preview", name, "--n", "2", "--split", "test", "--states", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    picture = np.asarray(Image.open(out))
    present = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert set(TaskSpec(name=name).build().palette.colors) <= present, "the legend shows every colour"


def test_preview_of_all_tasks(tmp_path, capsys):
    out = tmp_path / "all.png"
    assert main(["preview", "--out", str(out)]) == 0
    assert f"a problem of each of {len(task_names())} tasks" in capsys.readouterr().out
    assert Image.open(out).height > 500


def test_preview_lays_out_many_problems(tmp_path):
    sheets = []
    for n in ("4", "30"):
        out = tmp_path / f"{n}.png"
        assert main(["preview", "life", "--param", "height=6", "--n", n, "--seed", "1", "--out", str(out)]) == 0
        sheets.append(np.asarray(Image.open(out)))
    assert sheets[1].shape[0] > sheets[0].shape[0]
    assert sheets[1].shape[1] <= 1700


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_preview_of_transition_videos(suffix, tmp_path):
    out = tmp_path / f"video.{suffix}"
    command = ["preview", "maze", "--param", "height=7", "--param", "width=9", "--n", "3", "--frames", "5"]
    assert main([*command, "--interpolation", "states", "--out", str(out)]) == 0
    if suffix == "gif":
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(out))]
    else:
        import av

        with av.open(str(out)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    blue = [(np.abs(frame.astype(int) - (46, 134, 171)).max(axis=-1) < 20).sum() for frame in frames]
    assert len(frames) >= 5
    assert blue[0] == 0
    assert blue == sorted(blue)
    assert len(set(blue)) > 2, "the path grows"


@pytest.mark.parametrize("split", list(Split))
def test_generate(tmp_path, capsys, split):
    out = tmp_path / "deep" / "x.parquet"
    command = ["generate", "elementary_ca", "--n", "7", "--split", split.value, "--seed", "3"]
    assert main([*command, "--param", "rule=90", "--param", "width=9", "--out", str(out)]) == 0
    frame = pd.read_parquet(out)
    assert frame.columns.tolist() == ["problem_id", "split", "seed", "index", "question", "answer", "metadata"]
    expected = draw_problems(TaskSpec(name="elementary_ca", params={"rule": 90, "width": 9}), split, 3, 7)
    assert frame["problem_id"].tolist() == [problem.problem_id for problem in expected]
    assert (frame["seed"] == (0 if split == Split.TEST else 3)).all()
    for row, problem in zip(frame.itertuples(), expected, strict=True):
        assert np.array_equal(np.stack(row.question), problem.question)
        assert np.array_equal(np.stack(row.answer), problem.answer)


def test_verify_finds_what_is_wrong_in_an_export(tmp_path, capsys):
    out = str(tmp_path / "life.parquet")
    assert main(["generate", "life", "--param", "rule=seeds", "--n", "50", "--split", "test", "--out", out]) == 0
    assert main(["verify", out]) == 0
    assert lines_of(capsys)[-1] == f"{out}: 50 problems of life(rule=B2/S), 50 of them distinct, 0 wrong"
    table = pq.read_table(out)
    rows = table.to_pylist()
    rows[7]["answer"][0][0] = 1 - rows[7]["answer"][0][0]
    rows[9]["question"] = rows[8]["question"]
    rows[9]["answer"] = rows[8]["answer"]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), out)
    assert main(["verify", out]) == 1
    text = lines_of(capsys)
    assert text[-1].endswith("2 wrong")
    assert text[0].startswith(rows[7]["problem_id"] + ": the answer is not the question 1 generations later")
    assert text[1] == f"{rows[9]['problem_id']}: the question of {rows[8]['problem_id']} again"


def test_a_training_set_of_a_small_space_may_repeat(tmp_path, capsys):
    out = str(tmp_path / "hanoi.parquet")
    assert main(["generate", "hanoi", "--param", "disks=3", "--n", "50", "--out", out]) == 0
    assert main(["verify", out]) == 0
    assert lines_of(capsys)[-1] == f"{out}: 50 problems of hanoi(disks=3), 24 of them distinct, 0 wrong"


def test_knobs_of_the_test_split_on_the_command_line(tmp_path):
    out = str(tmp_path / "maze.parquet")
    knobs = ["--param", "height=7", "--param", "test.height=11", "--param", "min_test_distance=0.1"]
    for split, height in ((Split.TRAIN, 7), (Split.TEST, 11)):
        assert main(["generate", "maze", *knobs, "--n", "3", "--split", split.value, "--out", out]) == 0
        assert len(pd.read_parquet(out)["question"][0]) == height
        assert main(["verify", out]) == 0


def test_verify_uses_the_knobs_of_the_test_split(tmp_path):
    spec = TaskSpec(name="maze", params={"height": 7, "width": 7}, test={"height": 11})
    for split in Split:
        write_problems(problems_table(spec, split, 0, 5), tmp_path / "x.parquet")
        assert main(["verify", str(tmp_path / "x.parquet")]) == 0


def test_verify_survives_tampered_tables(tmp_path, capsys):
    out = str(tmp_path / "x.parquet")
    assert main(["generate", "shortest_path", "--n", "3", "--out", out]) == 0
    table = pq.read_table(out)

    def verified(**changed) -> tuple[int, str]:
        rows = table.to_pylist()
        rows[0] |= changed
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), out)
        capsys.readouterr()
        status = main(["verify", out])
        output, errors = capsys.readouterr()
        assert "Traceback" not in output + errors
        return status, output + errors

    for metadata in ("{}", "[]", "null"):
        assert verified(metadata=metadata)[0] == 1
    assert verified(question=[[0, 1], [0]])[0] == 2
    assert verified(split="test") == (2, f"error: {out}: expected problems of one split, train or test, not of 2\n")
    for task in (b"", b"{", b'{"name":"nope"}', b'{"name":"maze","params":{"height":4}}'):
        pq.write_table(table.replace_schema_metadata({b"task": task}), out)
        assert main(["verify", out]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_task_without_training_problems_is_found_at_planning_time(sweep_yaml, capsys):
    tasks = "tasks=[{hitori: {size: 3}}]"
    assert main(["plan", sweep_yaml, "--set", tasks, "--set", "n_test=100"]) == 0
    tasks = "tasks=[{life: {min_test_distance: 0.99}}]"
    assert main(["plan", sweep_yaml, "--set", tasks]) == 2
    assert "distinct train problems asked for, only 0 found" in capsys.readouterr().err


WRONG = {
    "generate very many": (["generate", "life", "--n", "9999999999", "--out", "x.parquet"], "1000000 problems at most"),
    "preview pixels": (
        ["preview", "maze", "--param", "height=255", "--param", "width=255", "--n", "100"],
        "--n 100: the pictures are too large",
    ),
    "preview frames": (["preview", "life", "--frames", "100000000", "--out", "x.gif"], "1000 frames at most"),
    "preview param": (["preview", "--param", "a=b"], "--param a=b: name the task whose knob this is"),
    "seed": (
        ["generate", "life", "--n", "3", "--seed", str(2**63), "--out", "x.parquet"],
        "from 0 to 9223372036854775807",
    ),
    "dataset": (["tasks", "arc", "--param", "dataset=/" + "a" * 5000], "error: task 'arc': dataset = "),
    "n_train huge": (["plan", "small.yaml", "--set", "n_train=[1000000000000]"], "less than or equal to 10000000"),
    "verify absent": (["verify", "absent.parquet"], "absent.parquet: cannot be read as Parquet"),
    "verify other": (["verify", "list.yaml"], "list.yaml: cannot be read as Parquet"),
    "no command": ([], "the following arguments are required: COMMAND"),
    "unknown command": (["rnu", "small.yaml"], "invalid choice: 'rnu'"),
    "absent file": (["run", "absent.yaml"], "absent.yaml: the sweep cannot be read: No such file or directory"),
    "list": (["run", "list.yaml"], "list.yaml: a sweep is a mapping of keys"),
    "override": (
        ["run", "small.yaml", "--set", "recipe.max_step=3"],
        "recipe.max_step: unknown key 'max_step'; did you",
    ),
    "n_train 0": (["run", "small.yaml", "--set", "n_train=[0]"], "small.yaml: n_train[0] = 0: input should be greater"),
    "no such test set": (
        ["plan", "small.yaml", "--set", "tasks=[{elementary_ca: {width: 4}}]"],
        "task elementary_ca(width=4): 6 distinct test problems asked for, only",
    ),
    "folder below a file": (["run", "small.yaml", "--set", "results=list.yaml/x"], "results folder"),
    "workers no number": (["run", "small.yaml", "--workers", "two"], "two: expected a whole number above 0"),
    "rank": (
        ["plan", "small.yaml", "--set", "lora_rank=[-1]"],
        "small.yaml: lora_rank[0] = -1: input should be greater",
    ),
    "folder is a file": (["run", "small.yaml", "--set", "results=list.yaml"], "results folder"),
    "folder is unreadable": (["status", "small.yaml", "--set", "results=list.yaml"], "results folder"),
    "scheme": (["plan", "small.yaml", "--set", "results=ftp://x/y"], "results 'ftp://x/y' cannot be opened"),
    "workers": (["run", "small.yaml", "--workers", "0"], "0: expected a whole number above 0"),
    "report of nothing": (["report", "small.yaml"], "results results/small: no trial has a row there yet"),
    "report of no folder": (["report", "absent"], "absent: neither a results folder nor a sweep's YAML"),
    "compact no folder": (["compact", "absent"], "absent: there is no results folder"),
    "task": (["tasks", "lief"], "unknown task 'lief'; did you mean 'life'? valid: "),
    "preview too many": (["preview", "life", "--n", "501"], "--n 501: a preview shows 500 problems at most"),
    "preview task": (["preview", "lief"], "unknown task 'lief'; did you mean 'life'?"),
    "preview knob": (
        ["preview", "life", "--param", "hieght=3"],
        "unknown knob of life 'hieght'; did you mean 'height'?",
    ),
    "preview value": (["preview", "life", "--param", "height=no"], "height"),
    "preview format": (
        ["preview", "life", "--param", "height"],
        "--param 'height': expected KEY=VALUE, for instance rule=90",
    ),
    "preview out": (["preview", "life", "--out", "x.nonsense"], "--out x.nonsense: cannot be written"),
    "generate n": (["generate", "life", "--n", "0", "--out", "x.parquet"], "0: expected a whole number above 0"),
    "generate out": (
        ["generate", "life", "--n", "1", "--out", "list.yaml/x.parquet"],
        "--out list.yaml/x.parquet: cannot be written: ",
    ),
    "generate suffix": (
        ["generate", "life", "--n", "1", "--out", "x.csv"],
        "--out x.csv: problems are written as Parquet",
    ),
    "generate too many": (
        ["generate", "elementary_ca", "--param", "width=3", "--n", "9", "--split", "test", "--out", "x.parquet"],
        "distinct test problems asked for",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_status_2(case, sweep_yaml, capsys, tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n")
    arguments, expected = WRONG[case]
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert errors.startswith("error: ")
    assert expected in errors
    assert errors.count("\n") == 1
    assert "trials to run" not in output
    assert "Nothing" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.yaml", "small.yaml"], "nothing was started"
