"""``sweep report``: what it prints, what it writes and where, of one source or several."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from orchestrator.analysis import load
from orchestrator.cli import main
from orchestrator.report import Source, write_report
from orchestrator.specs import expand, load_sweep

SWEEP = {
    "backbones": ["cogvideox/tiny", "causal_lm/tiny", "baseline/oracle"],
    "tasks": [{"life": {"height": 4, "width": 4}}, {"elementary_ca": {"rule": 90, "width": 8, "steps": 1}}],
    "seeds": [0],
    "n_train": [3, 6, 12],
    "n_test": 8,
}


@pytest.fixture
def study(tmp_path, monkeypatch, write_study):
    """Two sweeps in folders of their own: ``b.yaml`` has seed 1 too, of which one trial has not run."""
    monkeypatch.chdir(tmp_path)
    for name, seeds in (("a", [0]), ("b", [0, 1])):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, **SWEEP, "seeds": seeds}))
        trials = expand(load_sweep(path))
        last = [trial for trial in trials if trial.seed == 1][-1:]
        write_study(f"results/{name}", [trial for trial in trials if trial not in last])
    return tmp_path


def test_it_prints_a_sentence_a_task_and_writes_one_page(study, capsys):
    assert main(["report", "a.yaml"]) == 0
    printed = capsys.readouterr()
    sentences = [line for line in printed.out.splitlines() if line.startswith("- ")]
    assert len(sentences) == 2
    assert all("reaches 0.9" in line or "does not reach 0.9" in line for line in sentences)
    assert printed.out.splitlines()[-1] == "Report: results/a/report.html"
    assert not printed.err
    page = (study / "results" / "a" / "report.html").read_text()
    assert "1 training seed" in page
    assert "name: a" in page, "the sweep's YAML"
    assert [path.name for path in (study / "results" / "a").iterdir() if path.suffix] == ["report.html"]


def test_several_sources_are_one_study(study, capsys):
    assert main(["report", "results/a", "b.yaml", "--out", "both.html", "--accuracy", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "Tables: results/a/" in out
    assert "Tables: results/b/" in out
    assert "reaches 0.5 with" in out
    page = (study / "both.html").read_text()
    assert "2 training seeds" in page
    assert "1 has not run yet" in page
    assert len(load(["results/a", "b.yaml"]).trials) == len(load("b.yaml").trials), "what both have counts once"


def test_figures_and_tables_are_files_too(study):
    assert main(["report", "a.yaml", "--figures", "figures"]) == 0
    files = {path.name for path in (study / "figures").iterdir()}
    for figure in ("learning_curves", "learning_curve_01", "samples_to_threshold"):
        assert {f"{figure}.png", f"{figure}.svg", f"{figure}.pdf"} <= files
    for table in ("headline", "learning_curves", "samples_to_threshold"):
        assert {f"{table}.csv", f"{table}.tex", f"{table}.md"} <= files


def test_several_processes_draw_the_same_page(study):
    from orchestrator.report import Material, write_page

    material = Material.of(load("a.yaml"))
    pages = [
        write_page(material, study / f"{count}.html", sources=[Source("results/a")], figures=folder, processes=count)
        for count, folder in ((1, study / "one"), (2, study / "two"))
    ]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    one, two = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (study / "one", study / "two")
    )
    assert one == two


def test_what_is_set_on_the_command_line_counts_here_too(study, capsys):
    assert main(["report", "b.yaml", "--set", "tasks=[{life: {height: 4, width: 4}}]", "--out", "life.html"]) == 0
    out = capsys.readouterr().out
    assert "elementary_ca" not in out
    assert len([line for line in out.splitlines() if line.startswith("- ")]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yaml", "--out", "folder"], "--out folder: expected the name of a page, such as report.html"),
        (["a.yaml", "--out", "folder.html"], "--out folder.html: it is a folder"),
        (["results/a", "--set", "seeds=[1]"], "--set: there is no sweep's YAML that it could change"),
        (["a.yaml", "--accuracy", "1.2"], "1.2: expected a share above 0, at most 1"),
        (["a.yaml", "--accuracy", "nan"], "nan: expected a share above 0, at most 1"),
        (["a.yaml", "absent"], "absent: neither a results folder nor a sweep's YAML"),
        (["a.yaml", "--out", "a.yaml/report.html"], "cannot be written"),
        (["a.yaml", "--figures", "a.yaml"], "cannot be written"),
        (["results"], "results results: no trial has a row there yet"),
    ],
)
def test_what_is_wrong_is_one_line(study, capsys, arguments, message):
    (study / "folder.html").mkdir()
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error


def test_a_notebook_writes_the_report_in_one_call(study):
    path = write_report(load(["a.yaml", "b.yaml"]), study / "x" / "report.html", sources=[Source("results/a")])
    assert "learning curves" in path.read_text().lower()


def test_run_ends_with_findings_and_the_page(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    spec = {"name": "small", **SWEEP, "backbones": ["baseline/majority", "baseline/oracle"], "n_train": [3]}
    (tmp_path / "small.yaml").write_text(json.dumps(spec))
    assert main(["run", "small.yaml"]) == 0
    out = capfd.readouterr().out
    assert out.count("\n- ") == 2
    assert "Report: results/small/report.html" in out
    assert (tmp_path / "results" / "small" / "report.html").stat().st_size > 10_000


def test_what_labels_hold_is_text_everywhere(tmp_path, monkeypatch, write_study):
    """Dollars are no formulas, control characters and marks that turn the reading direction are gone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump({"name": "odd", **SWEEP, "seeds": [0, 1], "n_train": [3]}))
    trials = [trial for trial in expand(load_sweep("odd.yaml")) if trial.backbone == "cogvideox/tiny"]
    for seed, prompt in enumerate(["$\\win$ now", "a\x00b\u202ec"]):
        of_seed = [trial for trial in trials if trial.seed == seed]
        write_study("results/odd", of_seed, recipe=json.dumps({"prompt": prompt}), sweep=prompt)
    assert main(["report", "results/odd", "--figures", "figures"]) == 0
    for path in [tmp_path / "results" / "odd" / "report.html", *(tmp_path / "figures").glob("*.svg")]:
        text = path.read_text()
        assert "\x00" not in text
        assert "\u202e" not in text
    assert "$\\win$" in (tmp_path / "figures" / "learning_curve_01.svg").read_text()


STUDIO = """
import time
from orchestrator.report.studio import Studio
if __name__ == "__main__":
    with Studio(2) as studio:
        studio._ask(time.time).result()
        print(*studio._pool._processes, flush=True)
        time.sleep(600)
"""


def test_processes_that_draw_end_with_the_one_that_asked(tmp_path):
    script = tmp_path / "draws.py"
    script.write_text(STUDIO)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    asking = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        drawing = [int(pid) for pid in asking.stdout.readline().split()]
        assert drawing
    finally:
        os.kill(asking.pid, signal.SIGKILL)
        asking.wait()
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in drawing):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
