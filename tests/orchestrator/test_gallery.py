"""Which examples the page shows, and how a grid is drawn."""

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator import analysis, results
from orchestrator.report import gallery as galleries
from orchestrator.report import gallery_frames
from orchestrator.report.gallery import gallery
from orchestrator.report.grid_pictures import Look, look_of, picture, wrong_cells
from orchestrator.specs import SweepSpec, expand
from task_generators.task import TaskSpec

COLORS = ((10, 20, 30), (200, 210, 220), (40, 120, 60))


def cells(**fields):
    defaults = {
        "name": "study",
        "backbones": ["cogvideox/tiny", "causal_lm/tiny", "baseline/oracle"],
        "tasks": [{"life": {"height": 5, "width": 5}}, {"elementary_ca": {"rule": 30, "width": 8}}],
        "seeds": [0, 1],
        "n_train": [3, 10],
        "n_test": 16,
    }
    return expand(SweepSpec.model_validate(defaults | fields))


@pytest.fixture
def study(tmp_path, write_study):
    write_study(tmp_path, cells())
    return analysis.load(tmp_path)


def pixels_of(shown):
    data = base64.b64decode(shown.uri.removeprefix("data:image/png;base64,"))
    image = Image.open(BytesIO(data))
    assert image.mode == "P"
    return np.asarray(image.convert("RGB"))


# --- pictures


def test_a_cell_has_its_tasks_colour_and_the_picture_the_shape_of_the_grid():
    grid = np.array([[0, 1, 2], [2, 0, 1]], np.int8)
    pixels = pixels_of(picture("question", grid, Look(COLORS, border=False)))
    cell_px = pixels.shape[0] // 2
    assert pixels.shape == (2 * cell_px, 3 * cell_px, 3)
    for row in range(2):
        for column in range(3):
            middle = pixels[row * cell_px + cell_px // 2, column * cell_px + cell_px // 2]
            assert tuple(middle) == COLORS[grid[row, column]]


def test_only_wrong_cells_are_crossed_out_and_the_alt_text_names_them():
    answer = np.array([[0, 1, 2], [2, 0, 1]], np.int8)
    predicted = answer.copy()
    predicted[1, 2] = 0
    look = Look(COLORS, border=True)
    plain, crossed = (picture("prediction", predicted, look, wrong) for wrong in (None, wrong_cells(answer, predicted)))
    rows, columns = np.nonzero((pixels_of(plain) != pixels_of(crossed)).any(axis=2))
    height, width = pixels_of(plain).shape[:2]
    assert rows.size
    assert rows.min() >= height // 2
    assert columns.min() >= 2 * width // 3
    added = {tuple(color) for color in pixels_of(crossed)[rows, columns]}
    assert added == {(0, 0, 0), (255, 255, 255)}, "seen on any colour"
    assert "row 2 column 3" in crossed.alt
    assert "wrong" not in plain.alt


def test_wrong_cells_of_another_size_are_unknown():
    assert wrong_cells(np.zeros((2, 2), np.int8), np.zeros((2, 3), np.int8)) is None


@pytest.mark.parametrize("code", [-3, 11, 127])
def test_a_code_that_the_task_does_not_have_is_drawn(code):
    pixels = pixels_of(picture("prediction", np.array([[code, 0]], np.int8), Look(COLORS, border=False)))
    assert tuple(pixels[5, 5]) not in COLORS


@pytest.mark.parametrize("shape", [(1, 1), (30, 30), (1, 60), (60, 1)])
def test_pictures_of_any_shape_fit_a_card(shape):
    shown = picture("answer", np.zeros(shape, np.int8), Look(COLORS, border=True))
    assert 1 <= shown.width_px <= 280
    assert 1 <= shown.height_px <= 280


def test_looks_are_those_of_the_task_and_a_removed_task_has_some():
    maze = TaskSpec(name="maze").build()
    assert look_of("maze", "{}").colors == maze.palette.colors
    assert len(look_of("gone", '{"knob":1}').colors) >= 10


# --- examples


def test_every_task_and_backbone_has_right_wrong_and_hardest_examples_of_the_largest_n_train(study):
    made = gallery(*study)
    assert [label for label, _ in made.tasks] == ["elementary_ca(rule=30, width=8)", "life(height=5, width=5)"]
    for _, of_task in made.tasks:
        for backbone in ("cogvideox/tiny", "causal_lm/tiny"):
            own = [card for card in of_task if card.backbone == backbone]
            assert {(card.n_train, card.seed) for card in own} == {(10, 0)}
            assert {card.verdict for card in own} >= {"right", "wrong"}
            assert any(card.hardest for card in own)
            assert len({card.index for card in own}) == len(own), "no example twice"
            assert all((card.index < 10) == (card.verdict == "right") for card in own if card.index != 7)
    assert not any(card.backbone == "baseline/oracle" for card in made.cards)


def test_the_hardest_are_those_that_fewest_trials_answer(study):
    made = gallery(*study)
    counts = {card.index: card.num_right for card in made.cards}
    assert all(card.num_trials == 8 for card in made.cards), "two backbones, seeds and sizes; the oracle is left out"
    assert counts[0] == 8
    assert all(card.num_right == 0 for card in made.cards if card.hardest)


def test_an_unreadable_prediction_says_so_and_has_no_picture(study, monkeypatch):
    monkeypatch.setattr(galleries, "MOST_PER_GROUP", 16)
    unreadable = [card for card in gallery(*study).cards if card.index == 7]
    assert unreadable
    for card in unreadable:
        assert card.verdict == "unreadable"
        assert [shown.role for shown in card.pictures] == ["question", "answer"]


def test_the_attempt_that_is_right_is_shown(tmp_path, write_study):
    write_study(tmp_path, cells(seeds=[0], n_train=[10]), attempts=3)
    made = gallery(*analysis.load(tmp_path))
    assert {card.attempts for card in made.cards if card.verdict == "right"} == {"attempt 3 of 3"}
    assert {card.attempts for card in made.cards if card.verdict == "wrong"} == {"attempt 1 of 3"}


def test_only_the_chosen_trials_grids_are_read(study, monkeypatch):
    asked = []
    load = results.load_predictions

    def watched(uri, columns=None, trial_ids=None):
        asked.append((set(columns), set(trial_ids)))
        return load(uri, columns, trial_ids)

    monkeypatch.setattr(results, "load_predictions", watched)
    made = gallery(*study)
    ((columns, trial_ids),) = asked
    assert "question" in columns
    assert len(trial_ids) == 4, "one a task and backbone"
    assert {card.key[0] for card in made.cards} == trial_ids


def test_the_same_tables_give_the_same_gallery_in_any_order_of_the_rows(study):
    shuffled = analysis.Study(study.trials, study.predictions.sample(frac=1, random_state=0))
    assert gallery(*study) == gallery(*shuffled)


def test_a_page_has_room_for_so_many_examples_and_says_what_it_left_out(study, monkeypatch):
    monkeypatch.setattr(galleries, "MOST_CARDS", 3)
    made = gallery(*study)
    assert len(made.cards) == 3
    assert any("Of 4 pairs of a task and a backbone 3 are shown" in note for note in made.notes)


def test_many_variants_of_a_task_share_one_pool(tmp_path, write_study):
    rules = [{"elementary_ca": {"rule": rule, "width": 6}} for rule in range(1, 24)]
    write_study(tmp_path, cells(tasks=rules, backbones=["causal_lm/tiny"], seeds=[0], n_train=[3], n_test=4))
    made = gallery(*analysis.load(tmp_path))
    ((label, of_task),) = made.tasks
    assert label == "elementary_ca (23 variants)"
    assert len(of_task) == galleries.MOST_PER_GROUP
    assert len({card.variant for card in of_task}) > 1


def test_baselines_alone_are_shown_and_nothing_finished_is_no_gallery(tmp_path, write_study, make_result):
    write_study(tmp_path / "a", cells(backbones=["baseline/oracle"]))
    assert {card.verdict for card in gallery(*analysis.load(tmp_path / "a")).cards} == {"right"}
    results.write(tmp_path / "b", make_result("t", "failed", error="x", error_kind="error"))
    assert gallery(*analysis.load(tmp_path / "b")).cards == []


def test_an_answer_of_another_size_says_which(tmp_path, write_study, make_result, predictions):
    row = replace(
        predictions[0], predicted=np.zeros((3, 3), np.int8), scores={"exact_match": False, "cell_accuracy": 0}
    )
    results.write(tmp_path, make_result("t", n_test=1), [row])
    (card,) = gallery(*analysis.load(tmp_path)).cards
    assert card.detail == "size 3 × 3, the answer has 2 × 3"


# --- frames


@pytest.fixture
def strips(study, monkeypatch):
    """A kept video of every problem of the video backbone's trials; one that is no picture."""
    buffer = BytesIO()
    Image.new("RGB", (4 * 16, 16), (200, 10, 10)).save(buffer, "WEBP")
    video_trials = study.trials.loc[study.trials["family"] == "video", "trial_id"]

    def load_videos(uri, columns=None, trial_ids=None):
        rows = [
            (trial_id, index, 0, 4, 16, 16, b"no picture" if index == 0 else buffer.getvalue())
            for trial_id in sorted(set(trial_ids) & set(video_trials))
            for index in range(16)
        ]
        names = ["trial_id", "index", "attempt", "num_frames", "height_px", "width_px", "strip"]
        return pd.DataFrame(rows, columns=names)

    monkeypatch.setattr(results, "load_videos", load_videos)
    return buffer.getvalue()


def test_examples_of_video_backbones_show_their_frames(study, strips):
    made = gallery(*study)
    for card in made.cards:
        assert (card.frames is not None) == (card.backbone == "cogvideox/tiny" and card.index != 0)
    shown = next(card.frames for card in made.cards if card.frames)
    assert base64.b64decode(shown.uri.removeprefix("data:image/webp;base64,")) == strips


def test_frames_have_a_budget_that_tasks_share(study, strips, monkeypatch):
    monkeypatch.setattr(gallery_frames, "MOST_FRAME_BYTES", 2 * len(strips))
    made = gallery(*study)
    shown = [card.task_label for card in made.cards if card.frames]
    assert len(shown) == 2
    assert len(set(shown)) == 2
    assert any("more examples are kept" in note for note in made.notes)


def test_a_folder_without_videos_has_a_gallery(study):
    assert all(card.frames is None for card in gallery(*study).cards)
