"""Figures: what they show, that nothing in them is cut or collides, that files are the same at every run."""

import itertools
import re
import time
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from orchestrator.analysis import wilson_interval
from orchestrator.report import figure_files
from orchestrator.report.curve_figures import ceilings_of, learning_curve_figure, published_points, task_curve_figure
from orchestrator.report.figures_arc import arc_figure, concept_figure, concept_radar_figure, overlap_figure
from orchestrator.report.figures_baselines import reference_figure
from orchestrator.report.figures_cost import cost_figure, worker_hours
from orchestrator.report.figures_effects import rank_figure, seed_figure
from orchestrator.report.figures_text import TEXT_PT, spread, thinned, width_in, wrapped
from orchestrator.report.figures_thresholds import efficiency_figure, paired_figure, threshold_figure
from orchestrator.report.looks import COLORS, DARK_COLORS, DARK_PAPER, FAINT, PAPER, contrast, dark_twins, look
from orchestrator.tables import task_label
from trainers.backbone import backbone_spec

SIZES = (3, 5, 10, 30, 50, 100, 300, 500, 1000, 3000, 5000)
BACKBONES = (
    "cogvideox/1.5-5b-i2v",
    "causal_lm/qwen3-4b-instruct-2507",
    "cogvideox/1.5-5b-i2v-random",
    "wan/2.1-14b-i2v",
    "causal_lm/qwen3-8b",
    "causal_lm/llama-3.1-8b-instruct",
    "ltx/13b",
    "ltx/2b",
)
TASKS = (
    ("hitori", "{}"),
    ("maze", '{"height":13,"test":{"height":21,"width":21},"width":13}'),
    ("shortest_path", '{"height":15,"width":15}'),
    *(("elementary_ca", f'{{"rule":{rule},"width":16}}') for rule in range(60, 82)),
    *(("life", f'{{"height":{height}}}') for height in range(6, 11)),
)
PAIR = [f"{name}_{side}" for side in "ab" for name in ("backbone", "lora_rank", "recipe")]


def keys(num_tasks, num_backbones, ranks=(32,)):
    for (task, params), backbone, rank in itertools.product(TASKS[:num_tasks], BACKBONES[:num_backbones], ranks):
        yield {"task": task, "task_params": params, "backbone": backbone, "lora_rank": rank, "recipe": "{}"} | {
            "task_label": task_label(task, params),
            "family": backbone_spec(backbone).family,
            "seeds": 1,
            "n_test": 200,
            "interval": "problems",
        }


def curves_frame(num_tasks, num_backbones, sizes=SIZES, ranks=(32,), baselines=True):
    rng = np.random.default_rng(0)
    counts = {"done": 1, "failed": 0, "missing": 0}
    rows = []
    for key in keys(num_tasks, num_backbones, ranks):
        half = np.exp(rng.uniform(1, 8))
        for size in sizes:
            share = rng.binomial(200, 1 / (1 + half / max(size, 1))) / 200
            rows.append(key | counts | {"n_train": size, "exact_match": share})
    for key in keys(num_tasks, 1):
        for name, share in (("baseline/copy_question", 0.05), ("baseline/majority", 0.03), ("baseline/oracle", 1.0)):
            own = {"backbone": name, "lora_rank": 0, "family": "baseline", "n_train": 0, "exact_match": share}
            rows += [key | counts | own] * baselines
    frame = pd.DataFrame(rows)
    frame["low"], frame["high"] = wilson_interval(frame["exact_match"], frame["n_test"])
    return frame


def thresholds_frame(num_tasks, num_backbones):
    rng = np.random.default_rng(1)
    rows = []
    for key in keys(num_tasks, num_backbones):
        samples = float(np.exp(rng.uniform(0.5, 10)))
        censored = "right" if samples > 5000 else "left" if samples < 3 else ""
        low, high = (4000.0, np.inf) if censored == "right" else (samples / 2, samples * 2)
        samples = {"right": np.nan, "left": 3.0}.get(censored, samples)
        rows.append(key | {"samples": samples, "low": low, "high": high, "censored": censored})
    return pd.DataFrame(rows).assign(first_n_train=pd.array([pd.NA] * len(rows), "Int64"), smallest=3, largest=5000)


def pairs_frame(num_tasks, num_backbones, ratio=False):
    rows = []
    for key in keys(num_tasks, 1):
        for a, b in itertools.combinations(BACKBONES[:num_backbones], 2):
            rows.append({name: key[name] for name in ("task", "task_params", "task_label", "seeds", "n_test")})
            rows[-1] |= dict(zip(PAIR, (a, 32, "{}", b, 32, "{}"), strict=True))
    frame = pd.DataFrame(rows)
    rng = np.random.default_rng(2)
    if ratio:
        ratios = np.exp(rng.normal(0.5, 1, len(frame)))
        return frame.assign(ratio=ratios, low=ratios / 2, high=ratios * 2, censored="")
    difference = rng.uniform(-0.9, 0.9, len(frame))
    return frame.assign(difference=difference, low=difference - 0.1, high=difference + 0.1, n_train=100, has_power=True)


def trials_frame(num_tasks, num_backbones, seeds=(0, 1, 2), sizes=(30, 100)):
    rng = np.random.default_rng(3)
    rows = [
        key
        | {"state": "done", "n_train": size, "seed": seed, "exact_match": float(rng.uniform(0.2, 0.9))}
        | {"num_workers": 4, "load_s": 36.0, "train_s": 3600.0, "eval_s": 360.0, "device": "NVIDIA H100"}
        | {"started_at": pd.Timestamp("2026-01-01", tz="UTC"), "finished_at": pd.Timestamp("2026-01-01 02", tz="UTC")}
        for key in keys(num_tasks, num_backbones)
        for size in sizes
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def concepts_frame(num_backbones):
    concepts = [
        "AboveBelow",
        "Center",
        "CleanUp",
        "ExtendToBoundary",
        "HorizontalVertical",
        "MoveToBoundary",
        "TopBottom2D",
    ]
    rows = []
    for (place, backbone), concept in itertools.product(enumerate(BACKBONES[:num_backbones]), concepts):
        share = (place + len(concept)) % 10 / 10
        low, high = wilson_interval(share, 30)
        rows += [
            {"dataset": "concept-arc", "backbone": backbone, "lora_rank": 32, "recipe": "{}", "concept": concept}
            | {"attempts": attempts, "share": share * attempts / 3, "low": float(low), "high": float(high)}
            | {"num_tasks": 10, "num_expected": 10}
            for attempts in (1, 3)
        ]
    return pd.DataFrame(rows)


def overlap_frame():
    numbers = {"only_a": 50, "both": 17, "only_b": 15, "neither": 318, "dataset": "arc_agi_1"}
    sides = [dict(zip(PAIR, (a, 32, "{}", b, 32, "{}"), strict=True)) for a, b in itertools.pairwise(BACKBONES[:3])]
    return pd.DataFrame([side | numbers for side in sides])


def references_frame(num_tasks):
    curves = curves_frame(num_tasks, 1)
    baselines = curves[curves["family"] == "baseline"].assign(reference=lambda rows: rows["backbone"].str[9:])
    ceiling = baselines.drop_duplicates("task_label").assign(reference="roundtrip", backbone=BACKBONES[0])
    return pd.concat([baselines, ceiling])


def drawn_texts(figure: Figure):
    """(text, box in inches) of everything that is written in the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = list(figure.texts)
    for legend in figure.legends:
        texts += legend.get_texts()
    for axis in figure.axes:
        texts += [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        for line in (axis.xaxis, axis.yaxis):
            low, high = sorted(line.get_view_interval())
            texts += [tick.label1 for tick in line.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted()))
            for text in shown]  # fmt: skip


def assert_legible(figure: Figure):
    """Nothing written is cut by the edge, touches something else written, or is too small to print."""
    width, height = figure.get_size_inches()
    boxes = drawn_texts(figure)
    assert boxes
    for text, box in boxes:
        assert box.x0 > -0.01, text
        assert box.x1 < width + 0.01, text
        assert box.y0 > -0.01, text
        assert box.y1 < height + 0.01, text
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 0.01 or down < 0.02, (first, second)
    assert width <= 7
    sizes = [text.get_fontsize() for text in figure.findobj(match=lambda item: hasattr(item, "get_fontsize"))]
    assert min(sizes) >= 6


@pytest.mark.parametrize(("num_tasks", "num_backbones"), [(1, 2), (2, 5), (5, 8), (12, 3), (30, 5)])
def test_learning_curves_of_any_number_are_legible(num_tasks, num_backbones):
    curves = curves_frame(num_tasks, num_backbones)
    figure = learning_curve_figure(pd.DataFrame({"backbone": BACKBONES[:2]}), curves=curves)
    assert_legible(figure)
    assert len(figure.axes) == num_tasks
    assert figure.get_figheight() < 10.5  # a page
    labels = [[text.get_text() for text in axis.get_xticklabels() if text.get_visible()] for axis in figure.axes]
    labelled = [own for own in labels if any(own)]
    assert len(labelled) >= min(num_tasks, 3), "below every column"
    for own in labelled:
        assert {"3", "5000"} <= set(own)
        assert set(own) - {""} <= set(map(str, SIZES))


@pytest.mark.parametrize(("num_backbones", "width"), [(2, 3.3), (2, 4.6), (5, 4.6), (8, 4.6), (8, 6.9)])
def test_the_curves_of_one_task_are_named_at_their_ends_or_in_a_legend(num_backbones, width):
    figure = task_curve_figure(curves_frame(2, num_backbones).query("task == 'maze'"), width=width)
    assert_legible(figure)
    written = " ".join(text for text, _ in drawn_texts(figure)).replace("\n", "")
    for name in (*BACKBONES[:num_backbones], "baseline/oracle"):
        assert name in written


def test_intervals_are_those_of_the_frame_and_seeds_and_problems_are_stated():
    curves = curves_frame(1, 1).assign(low=0.25, high=0.75, seeds=4, interval="both")
    figure = task_curve_figure(curves)
    bands = [band for band in figure.axes[0].collections if len(band.get_paths())]
    heights = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in bands])
    assert set(np.round(heights, 6)) == {0.25, 0.75}
    caption = figure.texts[-1].get_text().replace("\n", " ")
    assert "4 training seeds; 200 test problems" in caption
    assert "over training seeds and test problems" in caption


def test_an_accuracy_without_training_stands_apart_of_the_log_axis():
    figure = task_curve_figure(curves_frame(1, 1, sizes=(0, 10, 100), baselines=False))
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "10", "100"]
    assert axis.lines[-2].get_xdata()[0] < 10 or axis.lines[1].get_xdata()[0] < 10
    assert_legible(figure)


def test_published_curves_and_ceilings_lie_thin_in_the_colour_of_ours():
    curves = curves_frame(1, 2)
    published = curves[(curves["family"] != "baseline")].assign(exact_match=0.123)
    ceilings = pd.DataFrame({"task": ["hitori"], "task_params": ["{}"], "backbone": [BACKBONES[0]]})
    figure = task_curve_figure(curves, published=published, ceilings=ceilings.assign(roundtrip_exact_match=0.444))
    lines = figure.axes[0].lines
    thin = [line for line in lines if set(np.round(line.get_ydata(), 3)) == {0.123}]
    assert [line.get_color() for line in thin] == [look(name).color for name in BACKBONES[:2]]
    (ceiling,) = [line for line in lines if set(np.round(line.get_ydata(), 3)) == {0.444}]
    assert ceiling.get_color() == look(BACKBONES[0]).color
    ours = [line for line in lines if line.get_label() == BACKBONES[0]]
    assert max(line.get_linewidth() for line in (*thin, ceiling)) < ours[0].get_linewidth()
    written = " ".join(text for text, _ in drawn_texts(figure))
    assert "published" in written
    assert "ceiling" in written


def test_ceilings_come_from_the_trials():
    trials = trials_frame(2, 1)
    assert ceilings_of(trials) is None
    assert ceilings_of(trials.assign(roundtrip_exact_match=np.nan)) is None
    ceilings = ceilings_of(trials.assign(roundtrip_exact_match=0.5))
    assert ceilings["roundtrip_exact_match"].tolist() == [0.5, 0.5]
    assert ceilings["task"].tolist() == ["hitori", "maze"]


def test_published_points_are_those_of_the_packaged_table():
    curves = curves_frame(1, 2).assign(task="sudoku", task_params="{}")
    published = published_points(curves)
    if len(published):
        assert set(published["backbone"]) <= set(BACKBONES[:2])
        assert published["exact_match"].between(0, 1).all()
    assert published_points(curves.assign(task_params='{"given_share":0.123}')).empty


@pytest.mark.parametrize(("num_tasks", "num_backbones"), [(1, 2), (2, 5), (12, 3), (30, 8)])
def test_thresholds_of_any_number_are_legible(num_tasks, num_backbones):
    figure = threshold_figure(thresholds_frame(num_tasks, num_backbones))
    assert_legible(figure)
    assert figure.axes[0].get_xscale() == "log"


def test_a_threshold_that_was_not_reached_is_an_open_dot_with_an_arrow():
    frame = thresholds_frame(1, 3).assign(
        samples=[100.0, np.nan, 3.0], low=[50.0, 4000, 0], high=[200.0, np.inf, 4], censored=["", "right", "left"]
    )
    axis = threshold_figure(frame).axes[0]
    dots = {round(float(line.get_xdata()[0])): line for line in axis.lines if line.get_marker() in "os^Dv"}
    assert set(dots) == {100, 5000, 3}
    assert dots[100].get_markerfacecolor() != PAPER
    assert dots[5000].get_markerfacecolor() == dots[3].get_markerfacecolor() == PAPER
    arrows = [(line.get_marker(), float(line.get_xdata()[0])) for line in axis.lines if line.get_marker() in "<>"]
    low, high = axis.get_xlim()
    assert sorted(arrows) == [("<", low), (">", high)]
    bar = [line.get_xdata() for line in axis.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    assert any(np.allclose(ends, [50, 200]) for ends in bar)


@pytest.mark.parametrize(("num_tasks", "num_backbones"), [(1, 2), (2, 4), (12, 3), (30, 2)])
def test_comparisons_of_pairs_are_legible(num_tasks, num_backbones):
    assert_legible(efficiency_figure(pairs_frame(num_tasks, num_backbones, ratio=True)))
    assert_legible(paired_figure(pairs_frame(num_tasks, num_backbones)))


def test_a_comparison_has_the_colour_of_the_better_one_or_grey():
    frame = pairs_frame(3, 2, ratio=True).assign(ratio=[4.0, 0.25, 1.5], low=[2, 0.1, 0.8], high=[8, 0.5, 3.0])
    axis = efficiency_figure(frame).axes[0]
    dots = {float(line.get_xdata()[0]): line.get_markeredgecolor() for line in axis.lines if line.get_marker() in "os"}
    assert dots == {4.0: look(BACKBONES[0]).color, 0.25: look(BACKBONES[1]).color, 1.5: FAINT}
    assert any(set(line.get_xdata()) == {1.0} for line in axis.lines), "a line at 1"
    unknown = frame.assign(ratio=np.nan)
    assert "0.9" in drawn_texts(efficiency_figure(unknown))[0][0]


def test_ranks_seeds_baselines_and_times_are_legible():
    assert_legible(rank_figure(curves_frame(6, 2, ranks=(4, 16, 64))))
    assert_legible(rank_figure(curves_frame(2, 1, ranks=(1, 2, 4, 8, 16, 32, 64, 128))))
    assert_legible(seed_figure(trials_frame(6, 3)))
    assert_legible(reference_figure(references_frame(12)))
    assert_legible(cost_figure(trials_frame(1, 8)))


def test_each_seed_is_a_stroke():
    trials = trials_frame(1, 1, sizes=(30,)).assign(exact_match=[0.2, 0.5, 0.8])
    axis = seed_figure(trials).axes[0]
    strokes = [line for line in axis.lines if line.get_marker() == "|"]
    assert [line.get_xdata().tolist() for line in strokes] == [[0.2, 0.5, 0.8]]
    assert any(line.get_marker() == "s" and line.get_xdata()[0] == pytest.approx(0.5) for line in axis.lines)


def test_hours_count_every_worker_and_what_failed():
    trials = trials_frame(1, 1, seeds=(0, 1), sizes=(30,))
    trials.loc[1, "state"] = "failed"
    (row,) = worker_hours(trials).to_dict("records")
    assert row["train"] == pytest.approx(4.0)
    assert row["answer"] == pytest.approx(0.4)
    assert row["lost"] == pytest.approx(8.0)
    assert (row["trials"], row["on_gpu"]) == (2, True)
    assert not worker_hours(trials.assign(device="cpu"))["on_gpu"].any()


@pytest.mark.parametrize("num_backbones", [1, 2, 5])
def test_concepts_are_legible_as_radar_and_as_dots(num_backbones):
    concepts = concepts_frame(num_backbones)
    averages = concepts.drop(columns="concept").drop_duplicates(["backbone", "attempts"])
    figure = concept_figure(concepts, averages)
    assert_legible(figure)
    assert [text for text, _ in drawn_texts(figure)].count("average") == 1
    radar = concept_radar_figure(concepts)
    assert_legible(radar)
    lines = [line for line in radar.axes[0].lines if len(line.get_xdata()) == 8]
    assert len(lines) == num_backbones
    own = concepts[(concepts["backbone"] == BACKBONES[0]) & (concepts["attempts"] == 3)]["share"]
    assert lines[0].get_ydata()[:-1].tolist() == own.tolist(), "all attempts"


def test_arc_scores_and_overlap_are_legible_and_say_how_many():
    scores = concepts_frame(3).query("concept == 'Center'").assign(num_tasks=300, num_expected=400)
    figure = arc_figure(scores)
    assert_legible(figure)
    assert "75 %" in figure.texts[-1].get_text()
    figure = overlap_figure(overlap_frame())
    assert_legible(figure)
    written = [text for text, _ in drawn_texts(figure)]
    assert {"50", "17", "15"} <= set(written)
    assert "400 tasks" in figure.texts[-1].get_text().replace("\n", " ")


def test_frames_without_rows_are_a_sentence():
    curves, trials, pairs = curves_frame(1, 1), trials_frame(1, 1), pairs_frame(1, 2)
    for figure in (
        learning_curve_figure(trials, curves=curves[:0]),
        task_curve_figure(curves[:0]),
        threshold_figure(thresholds_frame(1, 1)[:0]),
        efficiency_figure(pairs_frame(1, 2, ratio=True)[:0]),
        paired_figure(pairs[:0]),
        rank_figure(curves),
        seed_figure(trials[:1]),
        cost_figure(trials[:0]),
        concept_figure(concepts_frame(1)[:0]),
        concept_radar_figure(concepts_frame(1)[:0]),
        overlap_figure(overlap_frame()[:0]),
        reference_figure(references_frame(1)[:0]),
        arc_figure(concepts_frame(1)[:0]),
    ):
        assert len(drawn_texts(figure)) == 1
        assert_legible(figure)


def test_series_can_be_seen_on_white_and_on_dark_paper():
    for light, dark in dark_twins().items():
        assert contrast(light, PAPER) >= 3, light
        assert contrast(dark, DARK_PAPER) >= 3, dark
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# Machado, Oliveira and Fernandes (2009), IEEE Transactions on Visualization and Computer Graphics 15: severity 1.
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("palette", [COLORS, DARK_COLORS])
@pytest.mark.parametrize("vision", VISION)
def test_colours_are_told_apart_with_any_colour_vision(palette, vision):
    labs = []
    for color in palette:
        part = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
        # Ottosson's OKLab, in which equal distances look about equally large
        cones = np.cbrt([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]] @ seen)
        lab = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]] @ cones
        labs.append(lab)
    distances = [np.linalg.norm(first - second) for first, second in itertools.combinations(labs, 2)]
    assert min(distances) > 0.07  # of Okabe & Ito's own palette: 0.076


def test_files_are_the_same_at_every_run(tmp_path):
    frame = thresholds_frame(2, 2)
    for run in ("a", "b"):
        paths = figure_files.save(threshold_figure(frame), tmp_path / run, "samples")
        assert [path.name for path in paths] == ["samples.png", "samples.svg", "samples.pdf"]
        time.sleep(1.05)  # PDF and SVG would write seconds
    for suffix, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        first, second = ((tmp_path / run / f"samples.{suffix}").read_bytes() for run in "ab")
        assert first == second
        assert first.startswith(magic)
    assert b"/FontType 42" in first or b"/CIDFontType2" in first or b"FlateDecode" in first
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["samples.pdf", "samples.png", "samples.svg"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        figure_files.write_whole(tmp_path / "x.png", b"x")
    assert list(tmp_path.iterdir()) == []


def test_an_svg_stands_in_a_page_beside_others():
    curves = curves_frame(1, 8)
    texts = [figure_files.svg_text(task_curve_figure(curves), "Curves", "a < b & c", name=name) for name in ("x", "y")]
    ids = [re.findall(r'\bid="([^"]+)"', text) for text in texts]
    assert not set(ids[0]) & set(ids[1])
    for text, own in zip(texts, ids, strict=True):
        assert len(own) == len(set(own))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(own)
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        assert root.get("width") == "100%"
        assert "height" not in root.attrib
        named = root.get("aria-labelledby").split()
        title, desc = (root.find(f".//*[@id='{name}']") for name in named)
        assert (title.text, desc.text) == ("Curves", "a < b & c")
        assert "<?xml" not in text
        assert "<style" not in text, "a rule in one figure would reach the whole page"
        assert "<!--" not in text
        assert "<text" in text, "text is text"
        assert len(text) < 60_000


def test_an_svg_follows_light_and_dark():
    text = figure_files.svg_text(task_curve_figure(curves_frame(1, 8)), "Curves", "", name="x")
    for plain in ("#222222", "#6b6b6b", "#e6e6e6", "#ffffff"):
        assert text.count(plain) == len(re.findall(rf"var\(--[a-z]+, {plain}\)", text)) > 0
    css = figure_files.figure_css()
    used = set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", text)))
    assert all(contrast(color, DARK_PAPER) >= 3 for color in used)
    for name in set(re.findall(r"var\((--series-[0-9a-f]{6})", text)):
        assert f"{name}: #" in css


def test_lines_of_text_fit_the_room_they_are_given():
    text = "maze(height=13, width=13, test height=21, test width=21)"
    for room in (0.4, 0.8, 1.6, 3.2):
        lines = wrapped(text, room, TEXT_PT, max_lines=30).split("\n")
        assert max(width_in(line, TEXT_PT) for line in lines) <= room
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped(text, 1.0, TEXT_PT, max_lines=2).endswith("…")
    assert wrapped("elementary_ca(rule=8)", 0.9, TEXT_PT) == "elementary_ca(\nrule=8)"


def test_tick_labels_that_would_touch_are_left_out():
    labels = [str(size) for size in SIZES]
    for room in (0.4, 0.9, 2.0, 6.0):
        places = [room * np.log(size / 3) / np.log(5000 / 3) for size in SIZES]
        kept = thinned(places, labels, 6)
        spans = [(place - width_in(label, 6) / 2, place + width_in(label, 6) / 2)
                 for place, label in zip(places, kept, strict=True) if label]  # fmt: skip
        assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))
        assert kept[0] == "3"
        assert kept[-1] == "5000"
    assert thinned(places, labels, 6) == labels, "all where there is room"


def test_labels_are_spread_as_little_as_it_takes():
    assert spread([0.2, 0.8], [0.1, 0.1], 0, 1) == pytest.approx([0.2, 0.8])
    assert spread([0.5, 0.5], [0.1, 0.1], 0, 1) == pytest.approx([0.45, 0.55])
    placed = spread([1.0, 0.99, 0.98, 0.3], [0.1] * 4, 0, 1)
    assert placed == pytest.approx([0.95, 0.85, 0.75, 0.3])
