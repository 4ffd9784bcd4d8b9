"""The HTML report: what it says, that nothing in the tables can break out of it, and that it is one file."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from orchestrator import analysis, results
from orchestrator.report.page import write_report
from orchestrator.report.page_parts import redacted
from orchestrator.report.provenance import Source
from orchestrator.specs import SweepSpec, expand

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"
VOID = {"meta", "link", "img", "input", "br"}


def cells(**fields):
    defaults = {
        "name": "study",
        "backbones": ["cogvideox/tiny", "causal_lm/tiny", "baseline/oracle"],
        "tasks": [{"life": {"height": 5, "width": 5}}, {"elementary_ca": {"rule": 30, "width": 8}}],
        "seeds": [0, 1],
        "n_train": [3, 10],
        "n_test": 12,
    }
    return expand(SweepSpec.model_validate(defaults | fields))


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text by section; asserts that tags are balanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        section = next((attrs.get("id") for tag, attrs in self.open if tag == "section"), "")
        if not any(tag in ("style", "script") for tag, _ in self.open):
            self.texts[section] = self.texts.get(section, "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def page_of(study, folder, **options):
    path = folder / "report.html"
    options.setdefault("sources", [Source(str(folder), "study", "name: study\n")])
    assert write_report(study, path, **options) == path
    text = path.read_text()
    return Page(text), text


@pytest.fixture
def study(tmp_path, write_study):
    write_study(tmp_path / "results", cells())
    return analysis.load(tmp_path / "results")


def test_a_page_says_what_was_found_and_where_it_is_from(study, tmp_path):
    yaml = "name: study  # by hand & eye\n"
    page, _ = page_of(study, tmp_path, sources=[Source("results/study", "study", yaml)])
    assert "18 of 18 trials are done." in page.texts[""]
    assert (
        "2 backbones and 1 baseline on 2 tasks; n_train 3 to 10; 12 test problems a task; 2 training seeds."
        in (page.texts[""])
    )
    assert "life(height=5, width=5)" in page.texts["headline"]
    assert yaml in page.texts["provenance"]
    assert "results/study" in page.texts["provenance"]
    assert "abc123" in page.texts["provenance"]
    assert "Run from 2026-01-01 00:00 to 2026-01-01 00:18 UTC" in page.texts["provenance"]
    assert "Not complete" not in page.texts[""]


def test_numbers_are_those_of_the_tables(study, tmp_path):
    page, _ = page_of(study, tmp_path)
    text = page.texts["learning-curves"]
    assert "0.25 [" in text, "3 of 12 problems"
    assert "0.75 [" in text, "10 of 12, one of them unreadable"
    assert "1.00 [" in text, "the oracle"


def test_headings_are_in_order_and_every_link_has_its_place(study, tmp_path):
    page, _ = page_of(study, tmp_path)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = {attrs["href"][1:] for attrs in page.all("a")}
    wanted |= {name for _, attrs in page.elements for name in attrs.get("aria-labelledby", "").split()}
    assert wanted <= set(ids)


def test_tables_figures_and_pictures_are_described(study, tmp_path):
    page, _ = page_of(study, tmp_path)
    tables = page.all("table")
    assert tables
    assert len(page.all("caption")) == len(tables)
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    regions = [attrs for _, attrs in page.elements if attrs.get("role") == "region"]
    assert all("tabindex" in attrs and ("aria-label" in attrs or "aria-labelledby" in attrs) for attrs in regions)
    assert all(attrs["alt"] for attrs in page.all("img"))
    drawings = page.all("svg")
    assert drawings
    assert all(attrs["role"] == "img" for attrs in drawings)


def test_nothing_is_loaded_from_elsewhere(study, tmp_path):
    page, text = page_of(study, tmp_path)
    for tag, attrs in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attrs.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert "@import" not in text
    assert all(match.startswith(("#", "data:")) for match in re.findall(r"url\(['\"]?([^'\")]*)", text))


def test_the_policy_allows_our_script_alone(study, tmp_path):
    page, text = page_of(study, tmp_path)
    (policy,) = [attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_hostile_text_of_tables_and_yaml_stays_text(tmp_path, write_study, make_result):
    folder = tmp_path / "results"
    done, failed = cells(seeds=[0]), cells(seeds=[1])
    write_study(folder, done, sweep=HOSTILE, device=HOSTILE, versions={"code_version": HOSTILE})
    for spec in failed[:3]:
        texts = {"backbone": HOSTILE, "task": HOSTILE, "task_params": "{}", "sweep": HOSTILE}
        error = f"Traceback\n{HOSTILE}"
        row = make_result(spec.trial_id, "failed", error=error, error_kind=HOSTILE, **texts)
        results.write(folder, row)
    sources = [Source(HOSTILE, HOSTILE, HOSTILE)]
    page, text = page_of(analysis.load(folder), tmp_path, sources=sources, figures=tmp_path / "figures")
    assert len(page.all("script")) == 1
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert all(attrs["src"].startswith("data:") for attrs in page.all("img"))
    assert HOSTILE in page.texts["provenance"]
    assert HOSTILE in page.texts["failures"]
    assert "49" not in re.findall(r"\{\{.*?\}\}", text)
    assert text.count("<script") == 1


def test_a_half_finished_sweep_says_what_is_missing_and_failed(tmp_path, write_study, make_result):
    trials = cells()
    write_study(tmp_path / "results", trials[3:])
    for spec in trials[:2]:
        values = {"backbone": spec.backbone, "family": spec.backbone_spec.family, "n_train": spec.n_train}
        error = f"Traceback ...\nRuntimeError: step {spec.n_train} at 0x7f{spec.n_train}"
        row = make_result(spec.trial_id, "failed", error=error, error_kind="error", **values)
        results.write(tmp_path / "results", row)
    rows = analysis.with_missing(results.load_trials(tmp_path / "results"), trials)
    trials_table = rows.assign(results_uri=str(tmp_path / "results"))
    predictions = analysis.load(tmp_path / "results").predictions
    page, _ = page_of(analysis.Study(trials_table, predictions), tmp_path)
    assert "Not complete:" in page.texts[""]
    assert "15 of 18 trials are done; 2 failed; 1 has not run yet." in page.texts[""]
    assert page.texts["failures"].count("RuntimeError") == 1, "one cause: only numbers differ"
    assert "Failed trials by cause (2 trials)" in page.texts["failures"]


def test_nothing_finished_is_a_page_too(tmp_path, make_result):
    results.write(tmp_path / "results", make_result("t", "failed", error="ValueError: no", error_kind="bad_spec"))
    page, _ = page_of(analysis.load(tmp_path / "results"), tmp_path)
    assert "0 of 1 trial are done; 1 failed." in page.texts[""]
    assert "gallery" not in page.texts
    assert "ValueError: no" in page.texts["failures"]


def test_times_add_up_and_gpu_hours_count_every_worker(study, tmp_path):
    from orchestrator.report.provenance import costs

    made = costs(study.trials)
    frame = made.tables[0].frame.set_index("backbone")
    minutes = {name: frame.loc[name, "hours"] * 60 for name in frame.index}
    assert minutes["all"] == pytest.approx(sum(range(1, 19)))
    assert minutes["all"] == pytest.approx(sum(value for name, value in minutes.items() if name != "all"))
    trained = minutes["cogvideox/tiny"] + minutes["causal_lm/tiny"]
    assert frame.loc["all", "gpu_hours"] * 60 == pytest.approx(2 * trained), "two workers each; the oracle was on CPU"
    assert frame.loc["cogvideox/tiny", "train_hours"] * 3600 == pytest.approx(8 * 60)


def test_files_hold_every_figure_and_table_of_the_page(study, tmp_path):
    page, _ = page_of(study, tmp_path, figures=tmp_path / "figures")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    tables = [attrs["id"].removeprefix("table-") for attrs in page.all("table")]
    assert {f"{name}.{suffix}" for name in tables for suffix in ("csv", "tex", "md")} <= names
    stems = {name.rsplit(".", 1)[0] for name in names if name.endswith(".svg")}
    assert "learning_curves" in stems
    assert len(stems) > len(page.all("svg"))
    assert {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf")} <= names


def test_the_same_tables_give_the_same_page(study, tmp_path):
    assert page_of(study, tmp_path)[1] == page_of(study, tmp_path)[1]


def test_passwords_in_uris_are_not_shown(study, tmp_path):
    yaml = "results: s3://AKIA:hush@bucket/a\nother: https://x/y?token=hush&n=3\nplain: s3://bucket/b@c\n"
    page, text = page_of(study, tmp_path, sources=[Source("s3://AKIA:hush@bucket/a", "study", yaml)])
    assert "hush" not in text
    assert "s3://…@bucket/a" in page.texts["provenance"]
    assert redacted("plain: s3://bucket/b@c") == "plain: s3://bucket/b@c"
    assert redacted("abfss://files@account/x?sv=1&sig=SECRET") == "abfss://files@account/x?sv=1&sig=…"
    assert redacted("s3://KEY:SE/CRET@b") == "s3://…@b"
    assert redacted("https://u:se@cret@host/x") == "https://…@host/x"
    assert redacted("AWS_SECRET_ACCESS_KEY=abcdef123 and hf_abcdefgh") == "AWS_SECRET_ACCESS_KEY=… and hf_…"
    assert redacted("Authorization: Bearer abc.def.ghi") == "Authorization: Bearer …"
    assert redacted("max_new_tokens: 100000") == "max_new_tokens: 100000"
    assert redacted("mail me@example.org, 3 @ 4") == "mail me@example.org, 3 @ 4"


def test_a_page_that_cannot_be_written_is_one_line_and_leaves_the_old_one(study, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="cannot be written"):
        write_report(study, tmp_path / "file" / "report.html", sources=[])
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("accuracy", [0, -0.1, 1.1, float("nan")])
def test_an_accuracy_that_is_no_share_is_refused(study, tmp_path, accuracy):
    with pytest.raises(ValueError, match="accuracy: expected a share"):
        write_report(study, tmp_path / "report.html", sources=[], accuracy=accuracy)
    assert not (tmp_path / "report.html").exists()


def test_a_small_study_is_a_small_file(study, tmp_path):
    assert len(page_of(study, tmp_path)[1]) < 400_000
