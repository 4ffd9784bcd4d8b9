"""Tables in files: nothing lost in CSV, nothing that LaTeX or Markdown takes for its own."""

import io
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from orchestrator.report import table_files

NASTY = 'a_b & 50% #1 {x} $5 ~ ^ \\ <i> "q" | `c` *d* [e] …'


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "task": ["life", "maze", "maze"],
            "task_params": ["{}", '{"height":9}', "{}"],
            "task_label": ["life", "maze(height=9)", NASTY],
            "backbone": ["cogvideox/tiny", "=1+1", "line\nbreak"],
            "samples": [1 / 3, 123.456, np.nan],
            "low": [0.1234567890123, 100.0, 400.0],
            "high": [0.5, np.inf, np.inf],
            "first_n_train": pd.array([10, None, 300], dtype="Int64"),
            "seeds": [1, 2, 3],
            "is_apart": [True, False, True],
            "p_value": [1e-9, 0.04, np.nan],
        }
    )


def test_three_files_are_written_and_nothing_else(tmp_path, frame):
    paths = table_files.write(frame, tmp_path / "new", "samples", caption="100 % of it")
    assert [path.name for path in paths] == ["samples.csv", "samples.tex", "samples.md"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    again = [path.read_bytes() for path in table_files.write(frame, tmp_path / "b", "samples", caption="100 % of it")]
    assert again == [path.read_bytes() for path in paths]


def test_a_csv_gives_the_frame_back(tmp_path, frame):
    path = table_files.write(frame, tmp_path, "samples")[0]
    back = pd.read_csv(path, dtype={"first_n_train": "Int64"})
    pd.testing.assert_frame_equal(back, frame, check_dtype=False, check_exact=True)


def test_an_interval_is_folded_into_its_estimate(frame):
    cells = table_files.shown(frame)
    assert list(cells.columns)[:3] == ["task_label", "backbone", "samples"]
    assert not {"low", "high", "task", "task_params"} & set(cells.columns)
    assert cells["samples"].tolist() == ["0.33 [0.12, 0.50]", "123 [100, ∞]", " [400, ∞]"]
    assert cells["first_n_train"].tolist() == ["10", "", "300"]
    assert cells["is_apart"].tolist() == ["yes", "no", "yes"]
    assert cells["p_value"].tolist() == ["1.0e-09", "0.04", ""]
    assert table_files.shown(frame, estimate="p_value")["p_value"].tolist()[1] == "0.04 [100, ∞]"


def test_latex_escapes_everything_that_it_would_read(tmp_path, frame):
    text = table_files.write(frame, tmp_path, "samples", caption="50 % & more")[1].read_text()
    assert r"\caption{50 \% \& more}" in text
    escaped = (
        r"a\_b \& 50\% \#1 \{x\} \$5 \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{}i\textgreater{}"
    )
    assert escaped in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(frame)
    assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1, "as many cells in every row"
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    negative = table_files.latex(pd.DataFrame({"d": ["-0.5 [-1.0, 1.0e-05]"], "b": ["qwen-4b"]}))
    assert "$-$0.5 [$-$1.0, 1.0e-05]" in negative
    assert "qwen-4b" in negative


def test_latex_compiles(tmp_path, frame):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    path = table_files.write(frame, tmp_path, "samples")[1]
    document = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}"
    (tmp_path / "all.tex").write_text(document + path.read_text() + "\\end{document}")
    subprocess.run(["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_a_markdown_table_has_as_many_cells_in_every_row(tmp_path, frame):
    text = table_files.write(frame, tmp_path, "samples", caption="A | B")[2].read_text()
    lines = text.splitlines()
    assert lines[0] == r"A \| B"
    rows = lines[2:]
    assert len(rows) == 2 + len(frame)
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1
    assert r"\`c\`" in text
    assert "<i>" not in text
    assert "line break" in text
    alignment = rows[1].strip("| ").split(" | ")
    heads = [head.strip() for head in rows[0].strip("|").split("|")]
    assert dict(zip(heads, alignment, strict=True))["seeds"] == "---:"
    assert alignment[0] == "---"


def test_a_frame_without_rows_or_columns_is_a_table_too(tmp_path, frame):
    for number, empty in enumerate((frame[:0], pd.DataFrame())):
        paths = table_files.write(empty, tmp_path, f"empty_{number}")
        assert all(path.exists() for path in paths)
    assert list(pd.read_csv(io.StringIO((tmp_path / "empty_0.csv").read_text())).columns) == list(frame.columns)


def test_numbers_are_as_precise_as_people_read_them():
    assert [table_files.cell(value) for value in (0.125, 3.14159, 99.994, 1234.5, 7, np.int64(7), np.float64(0))] == [
        "0.12",
        "3.14",
        "99.99",
        "1234",
        "7",
        "7",
        "0.00",
    ]
    assert [table_files.cell(value) for value in (None, np.nan, pd.NA, pd.NaT, -np.inf, ["a", 1], np.bool_(True))] == [
        "",
        "",
        "",
        "",
        "-∞",
        "a, 1",
        "yes",
    ]
