"""What a trial of a video backbone leaves for the report: some of its videos, and the ceiling of its VAE."""

import io
import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from orchestrator import results, roundtrip, trial
from orchestrator.specs import TrialSpec
from orchestrator.trial import BackboneCache, run_and_record, run_trial
from task_generators.problem import Split
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.kept_video import kept_video
from trainers.pictures import picture_style, read_from_canvas
from trainers.recipe import Placement, TrainRecipe
from trainers.video_backbone import VideoBackbone

RECIPE = TrainRecipe(**backbone_spec("cogvideox/tiny").recipe | {"max_steps": 2, "batch_size": 2})
SPEC = TrialSpec(
    backbone="cogvideox/tiny",
    task=TaskSpec(name="life", params={"height": 4, "width": 4}),
    n_train=2,
    lora_rank=2,
    n_test=6,
    recipe=RECIPE,
)
OF_ONE_EXECUTION = {"run_id", "started_at", "finished_at", "train_s", "eval_s", "load_s", "encode_s"} | {
    "peak_memory_bytes"
}


def placed(**placement):
    return SPEC.model_copy(update={"placement": Placement(**placement)})


def numbers(result):
    return {item.name: getattr(result, item.name) for item in fields(result) if item.name not in OF_ONE_EXECUTION}


def answers(predictions):
    return [(p.index, p.attempt, str(p.predicted), p.scores) for p in predictions]


@pytest.fixture(scope="module")
def cache():
    return BackboneCache()


@pytest.fixture
def measured(monkeypatch):
    """The sizes of the batches whose ceiling was measured; another process has measured nothing yet."""
    monkeypatch.setattr(roundtrip, "_measured", {})
    sizes, real = [], VideoBackbone.roundtrip

    def counted(self, task, problems, recipe):
        sizes.append(len(problems))
        return real(self, task, problems, recipe)

    monkeypatch.setattr(VideoBackbone, "roundtrip", counted)
    return sizes


def test_the_first_videos_are_kept_and_show_what_was_read(tmp_path, cache):
    result = run_and_record(SPEC, str(tmp_path), backbone_cache=cache)
    kept, predictions = results.load_videos(tmp_path), results.load_predictions(tmp_path)
    assert kept["index"].tolist() == list(range(Placement().keep_videos))
    assert set(kept["attempt"]) == {0}
    assert set(kept["run_id"]) == {result.run_id}
    task = SPEC.task.build(Split.TEST)
    by_problem = predictions.set_index("problem_id")
    for row in kept.itertuples():
        assert (row.num_frames, row.height_px, row.width_px) == (9, 32, 32)
        frames = np.split(np.asarray(Image.open(io.BytesIO(row.strip)).convert("RGB")), row.num_frames, axis=1)
        problem = by_problem.loc[row.problem_id]
        style = picture_style(task, RECIPE, _Shapes(problem))
        first = read_from_canvas(frames[0], task, style, problem["question"].shape, RECIPE)
        last = read_from_canvas(frames[-1], task, style, problem["answer"].shape, RECIPE)
        assert np.mean(first == problem["question"]) > 0.9
        assert np.mean(last == problem["predicted"]) > 0.9
    run_and_record(SPEC, str(tmp_path / "again"), backbone_cache=cache)
    columns = ["trial_id", "problem_id", "index", "strip"]
    assert results.load_videos(tmp_path / "again", columns).equals(kept[columns]), "the same bytes"


class _Shapes:
    def __init__(self, problem):
        self.question, self.answer = problem["question"], problem["answer"]


def test_neither_videos_nor_the_ceiling_change_any_other_number(cache, measured, monkeypatch, tmp_path):
    result, predictions, losses = run_trial(SPEC, backbone_cache=cache, results_uri=str(tmp_path / "one"))
    assert measured == [6]
    assert result.roundtrip_exact_match == 1.0
    assert [p.video is not None for p in predictions] == [True] * 4 + [False] * 2
    monkeypatch.setattr(trial, "roundtrip_ceiling", lambda *arguments: None)
    bare = placed(keep_videos=0)
    assert bare.trial_id == SPEC.trial_id
    plain, plain_predictions, plain_losses = run_trial(bare, backbone_cache=cache, results_uri=str(tmp_path / "two"))
    assert all(p.video is None for p in plain_predictions)
    assert numbers(result) == numbers(plain) | {"roundtrip_exact_match": 1.0}
    assert answers(predictions) == answers(plain_predictions)
    assert [row.loss for row in losses] == [row.loss for row in plain_losses]


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("keep_videos", [1, 100])
def test_as_many_as_asked_for_of_the_first_attempt(cache, attempts, keep_videos):
    spec = placed(keep_videos=keep_videos, eval_batch_size=4)
    spec = spec.model_copy(update={"recipe": RECIPE.model_copy(update={"attempts": attempts})})
    predictions = run_trial(spec, backbone_cache=cache)[1]
    kept = [(p.index, p.attempt) for p in predictions if p.video is not None]
    assert kept == [(index, 0) for index in range(min(keep_videos, 6))]


def test_a_batch_that_is_halved_keeps_them_too(cache, monkeypatch):
    whole = run_trial(SPEC, backbone_cache=cache)[1]
    real = VideoBackbone._videos

    def limited(self, questions, *rest):
        if len(questions) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, questions, *rest)

    monkeypatch.setattr(VideoBackbone, "_videos", limited)
    result, halved, _ = run_trial(SPEC, backbone_cache=cache)
    assert result.eval_batch_size == 3
    assert [p.video and p.index for p in halved] == [p.video and p.index for p in whole]


def test_only_what_answers_by_videos_has_any(tmp_path):
    oracle = SPEC.model_copy(update={"backbone": "baseline/oracle", "n_train": 0, "lora_rank": 0})
    assert run_and_record(oracle, str(tmp_path)).roundtrip_exact_match is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "trials"]
    assert results.load_trials(tmp_path)["roundtrip_exact_match"].isna().all()
    assert results.load_videos(tmp_path).empty
    assert results.compact(tmp_path)["videos"] == 0


def test_the_ceiling_is_measured_once_for_a_folder(tmp_path, cache, measured):
    folder = str(tmp_path)
    run = {"backbone_cache": cache, "results_uri": folder}
    assert run_trial(SPEC, **run)[0].roundtrip_exact_match == 1.0
    run_trial(SPEC.model_copy(update={"seed": 1, "n_train": 4, "lora_rank": 4}), **run)
    run_trial(placed(latents="off"), **run)
    roundtrip._measured.clear()  # another worker
    assert run_trial(SPEC, **run)[0].roundtrip_exact_match == 1.0
    twin = SPEC.model_copy(update={"backbone": "cogvideox/tiny-random"})
    assert run_trial(twin, results_uri=folder)[0].roundtrip_exact_match == 1.0
    assert measured == [6]
    (file,) = (tmp_path / "roundtrips").iterdir()
    assert json.loads(file.read_text())["roundtrip_exact_match"] == 1.0
    for damage in ("", "{}", '{"roundtrip_exact_match": null}', "[1]"):
        roundtrip._measured.clear()
        file.write_text(damage)
        assert run_trial(SPEC, **run)[0].roundtrip_exact_match == 1.0
        assert json.loads(file.read_text())["roundtrip_exact_match"] == 1.0
    assert measured == [6] * 5
    smaller = RECIPE.model_copy(update={"cell_px": 1})
    assert run_trial(SPEC.model_copy(update={"recipe": smaller}), **run)[0].roundtrip_exact_match < 1
    assert len(list((tmp_path / "roundtrips").iterdir())) == 2


def test_a_ceiling_that_does_not_fit_or_cannot_be_stored_fails_no_trial(tmp_path, cache, measured, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(roundtrip, "put_bytes", full)
        result = run_trial(SPEC, backbone_cache=cache, results_uri=str(tmp_path))[0]
    assert result.roundtrip_exact_match == 1.0
    assert not (tmp_path / "roundtrips").exists()
    roundtrip._measured.clear()

    def too_large(self, task, problems, recipe):
        measured.append(len(problems))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(VideoBackbone, "roundtrip", too_large)
    measured.clear()
    for _ in range(2):
        row = run_and_record(SPEC, str(tmp_path), backbone_cache=cache)
        assert (row.state, row.roundtrip_exact_match, row.eval_batch_size) == ("done", None, 6)
    assert measured == [6, 3, 1], "tried once"
    assert results.load_trials(tmp_path)["roundtrip_exact_match"].isna().all()
    assert not (tmp_path / "roundtrips").exists(), "another machine may have the room"


def test_a_ceiling_that_cannot_be_measured_costs_no_trial(tmp_path, cache, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no VAE today")

    monkeypatch.setattr(VideoBackbone, "roundtrip", fails)
    with pytest.warns(UserWarning, match="the ceiling of its VAE is not known: no VAE today"):
        result = run_and_record(SPEC, str(tmp_path), backbone_cache=cache)
    assert (result.state, result.roundtrip_exact_match) == ("done", None)
    assert len(results.load_predictions(tmp_path)) == SPEC.n_test


@pytest.fixture
def filmed(predictions):
    """As ``predictions``, with a video each."""
    draw = np.random.default_rng(0)
    return [replace(p, video=kept_video(draw.integers(0, 256, (5, 16, 24, 3), np.uint8))) for p in predictions]


def test_videos_are_written_read_and_compacted_as_all_rows(tmp_path, make_result, filmed, predictions, losses):
    for number in range(5):
        results.write(tmp_path, make_result(f"t{number}"), filmed if number else predictions, losses)
    before = results.load_videos(tmp_path)
    assert before["trial_id"].tolist() == [f"t{number}" for number in range(1, 5) for _ in filmed]
    assert before["strip"].tolist() == [p.video.strip for p in filmed] * 4
    assert before["height_px"].tolist() == [16] * 8
    assert results.compact(tmp_path) == {"trials": 5, "predictions": 5, "losses": 5, "videos": 4}
    assert results.load_videos(tmp_path).equals(before)
    assert results.load_videos(tmp_path, ["index"], ["t2", "t0"])["index"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="videos has no 'frames'"):
        results.load_videos(tmp_path, ["frames"])
    results.write(tmp_path, make_result("t1", minute=1), predictions)  # a newer execution, which kept none
    assert "t1" not in set(results.load_videos(tmp_path)["trial_id"])


def test_the_row_that_makes_a_trial_count_comes_after_its_videos(tmp_path, make_result, filmed, monkeypatch):
    real, written = results.folder.put_bytes, []

    def full_at_last(folder, directory, name, data):
        written.append(Path(directory).name)
        if written[-1] == "trials":
            raise OSError(28, "No space left on device")
        real(folder, directory, name, data)

    monkeypatch.setattr(results.folder, "put_bytes", full_at_last)
    with pytest.raises(OSError, match="No space"):
        results.write(tmp_path, make_result("a"), filmed)
    assert written == ["predictions", "videos", "trials"]
    assert not list(tmp_path.rglob("*.parquet")), "what never counts takes no room"


def test_some_videos_are_read_without_the_others(tmp_path, make_result, filmed, monkeypatch):
    monkeypatch.setattr("orchestrator.results.files.VIDEOS_PER_GROUP", 4)
    for number in range(8):
        results.write(tmp_path, make_result(f"t{number}"), filmed)
    results.compact(tmp_path)
    (file,) = (tmp_path / "videos").glob("[!.]*")
    assert pq.ParquetFile(file).num_row_groups == 4


def test_a_video_file_that_is_damaged_is_skipped_and_set_aside(tmp_path, make_result, filmed):
    for trial_id in ("a", "b"):
        results.write(tmp_path, make_result(trial_id), filmed)
    bad = next((tmp_path / "videos").glob("a-*"))
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="is skipped"):
        assert set(results.load_videos(tmp_path)["trial_id"]) == {"b"}
    with pytest.warns(UserWarning, match="is set aside"):
        assert len(results.set_aside_damaged(tmp_path)) == 1
    assert len(results.load_trials(tmp_path)) == 2


def test_folders_from_before_there_were_videos_or_ceilings_are_read(tmp_path, make_result, predictions):
    results.write(tmp_path, make_result("old"), predictions)
    (file,) = (tmp_path / "trials").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["roundtrip_exact_match"]), file)
    results.write(tmp_path, make_result("new", roundtrip_exact_match=0.5), predictions)
    for _ in range(2):
        rows = results.load_trials(tmp_path).set_index("trial_id")
        assert rows["roundtrip_exact_match"].isna().to_dict() == {"new": False, "old": True}
        assert results.load_videos(tmp_path).empty
        assert results.load_videos(tmp_path).columns.tolist()[-1] == "strip"
        results.compact(tmp_path)


def test_ranks_that_share_a_trial_keep_videos_and_agree_on_the_ceiling(tmp_path):
    """At ZeRO stage 3, which shards the transformer while the VAE is whole on every rank."""
    spec = placed(num_workers=2, zero_stage=3, keep_videos=3).model_copy(update={"n_test": 5})
    file = tmp_path / "spec.json"
    file.write_text(spec.model_dump_json())
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, "-m", "orchestrator.trial", str(file), "--results", str(tmp_path / "results")]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    row = results.load_trials(tmp_path / "results").iloc[0]
    assert (row["roundtrip_exact_match"], row["num_workers"], row["zero_stage"]) == (1.0, 2, 3)
    kept = results.load_videos(tmp_path / "results")
    assert kept["index"].tolist() == [0, 1, 2], "of both ranks"
    assert len(list((tmp_path / "results" / "roundtrips").iterdir())) == 1
