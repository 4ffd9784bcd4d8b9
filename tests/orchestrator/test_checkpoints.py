"""Trials that are interrupted at any moment end with the numbers of one that never was."""

import shutil

import pyarrow.fs
import pytest

from orchestrator import checkpoints, results
from orchestrator.checkpoints import ResultsCheckpoints
from orchestrator.specs import TrialSpec
from orchestrator.trial import BackboneCache, run_and_record, run_trial
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.engine import TorchEngine
from trainers.recipe import Placement, TrainRecipe

STEPS = 3
EVERY_STEP = Placement(checkpoint_every_s=1e-9)
BACKBONES = ("causal_lm/tiny", "cogvideox/tiny")


class Killed(BaseException):
    """Passes every handler, as the end of a process does."""


def spec_of(backbone, placement=EVERY_STEP, **recipe):
    whole = {**backbone_spec(backbone).recipe, "max_steps": STEPS, "max_new_tokens": 24, **recipe}
    return TrialSpec(
        backbone=backbone,
        task=TaskSpec(name="elementary_ca", params={"width": 8, "steps": 1}),
        n_train=4,
        lora_rank=2,
        n_test=3,
        recipe=TrainRecipe(**whole),
        placement=placement,
    )


@pytest.fixture(scope="module")
def cache():
    """One warm worker a backbone for all tests here."""
    return {backbone: BackboneCache() for backbone in BACKBONES}


@pytest.fixture(scope="module")
def uninterrupted(cache):
    return {
        backbone: run_trial(spec_of(backbone, Placement()), backbone_cache=cache[backbone]) for backbone in BACKBONES
    }


def killed_at(phase, done):
    def progress(*now):
        if now[:2] == (phase, done):
            raise Killed

    return progress


def kill(spec, folder, cache, phase, done):
    with pytest.raises(Killed):
        run_and_record(spec, str(folder), backbone_cache=cache, progress=killed_at(phase, done))


def finish(spec, folder, cache):
    """Run to the end; the row, what was predicted and the losses, as the tables have them."""
    run_and_record(spec, str(folder), backbone_cache=cache)
    row = results.load_trials(folder).iloc[0]
    predictions = results.load_predictions(folder).sort_values("index")
    return row, predictions, results.load_losses(folder).sort_values("step")


def assert_same(expected, row, predictions, losses):
    result, expected_predictions, expected_losses = expected
    assert row["state"] == "done"
    for name, value in result.metrics.items():
        assert row[name] == value, name
    assert (row["train_loss"], row["train_steps"]) == (result.train_loss, result.train_steps)
    for name in ("step", "loss", "learning_rate", "grad_norm"):
        assert losses[name].tolist() == [getattr(loss, name) for loss in expected_losses], name
    grids = [None if p is None else [list(line) for line in p] for p in predictions["predicted"]]
    assert grids == [None if p.predicted is None else p.predicted.tolist() for p in expected_predictions]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("phase", "done", "resumed"), [("train", 1, None), ("train", 3, 2), ("evaluate", 0, 3)])
def test_a_killed_trial_goes_on(tmp_path, cache, uninterrupted, monkeypatch, backbone, phase, done, resumed):
    kill(spec_of(backbone), tmp_path, cache[backbone], phase, done)
    assert results.load_trials(tmp_path).empty
    trained = []
    step = TorchEngine.step
    monkeypatch.setattr(TorchEngine, "step", lambda *arguments: trained.append(1) or step(*arguments))
    row, predictions, losses = finish(spec_of(backbone), tmp_path, cache[backbone])
    assert_same(uninterrupted[backbone], row, predictions, losses)
    assert len(trained) == STEPS - (resumed or 0)
    assert row["resumed_from_step"] == resumed if resumed else row.isna()["resumed_from_step"]
    assert not list((tmp_path / "checkpoints").iterdir()), "nothing is left once the row is there"


def test_one_that_was_never_interrupted_says_so(tmp_path, cache, uninterrupted):
    row, *tables = finish(spec_of("causal_lm/tiny"), tmp_path, cache["causal_lm/tiny"])
    assert_same(uninterrupted["causal_lm/tiny"], row, *tables)
    assert row.isna()["resumed_from_step"]


def test_a_kill_while_one_is_written_leaves_the_one_before(tmp_path, cache, uninterrupted, monkeypatch):
    written = []

    def make_current(self, manifest):
        if len(written) == 1:
            raise Killed
        written.append(manifest)
        original(self, manifest)

    original = ResultsCheckpoints.make_current
    monkeypatch.setattr(ResultsCheckpoints, "make_current", make_current)
    with pytest.raises(Killed):
        run_and_record(spec_of("causal_lm/tiny"), str(tmp_path), backbone_cache=cache["causal_lm/tiny"])
    monkeypatch.undo()
    row, *tables = finish(spec_of("causal_lm/tiny"), tmp_path, cache["causal_lm/tiny"])
    assert row["resumed_from_step"] == 1
    assert_same(uninterrupted["causal_lm/tiny"], row, *tables)


def truncate(folder):
    path = next(folder.rglob("torch.pt"))
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(folder):
    path = next(folder.rglob("torch.pt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": truncate,
    "a flipped bit": flip_a_bit,
    "a part is missing": lambda folder: next(folder.rglob("progress.json")).unlink(),
    "all is missing": lambda folder: shutil.rmtree(next(folder.rglob("torch.pt")).parent),
    "no JSON": lambda folder: next(folder.rglob("current.json")).write_text("{"),
    "no manifest": lambda folder: next(folder.rglob("current.json")).write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_ignored(tmp_path, cache, uninterrupted, damage):
    spec = spec_of("causal_lm/tiny")
    kill(spec, tmp_path, cache["causal_lm/tiny"], "train", 3)
    DAMAGES[damage](tmp_path / "checkpoints" / spec.trial_id)
    row, *tables = finish(spec, tmp_path, cache["causal_lm/tiny"])
    assert row.isna()["resumed_from_step"]
    assert_same(uninterrupted["causal_lm/tiny"], row, *tables)


@pytest.mark.parametrize("other", [{"zero_stage": 1}, {"zero_stage": None}])
def test_that_of_another_placement_is_ignored(tmp_path, cache, other):
    placement = EVERY_STEP.model_copy(update={"zero_stage": 0 if other["zero_stage"] is None else None})
    kill(spec_of("causal_lm/tiny", placement), tmp_path, BackboneCache(), "train", 3)
    changed = spec_of("causal_lm/tiny", EVERY_STEP.model_copy(update=other))
    row, *_ = finish(changed, tmp_path, BackboneCache())
    assert (row["state"], row.isna()["resumed_from_step"]) == ("done", True)


def test_that_of_another_recipe_is_ignored(tmp_path, cache, uninterrupted):
    """As if two recipes shared an id: their folders are one trial's."""
    other, spec = spec_of("causal_lm/tiny", learning_rate=1e-3), spec_of("causal_lm/tiny")
    kill(other, tmp_path, cache["causal_lm/tiny"], "train", 3)
    (tmp_path / "checkpoints" / other.trial_id).rename(tmp_path / "checkpoints" / spec.trial_id)
    row, *tables = finish(spec, tmp_path, cache["causal_lm/tiny"])
    assert row.isna()["resumed_from_step"]
    assert_same(uninterrupted["causal_lm/tiny"], row, *tables)


def test_an_object_store_keeps_them_too(tmp_path, cache, monkeypatch):
    """Any file system of pyarrow's: here one that is not known to be local."""
    store = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())

    def opened(uri):
        return results.ResultsFolder(str(uri), store, "study")

    (tmp_path / "study").mkdir()
    monkeypatch.setattr(checkpoints, "open_folder", opened)
    kill(spec_of("causal_lm/tiny"), tmp_path / "rows", cache["causal_lm/tiny"], "train", 3)
    assert len(list((tmp_path / "study" / "checkpoints").rglob("torch.pt"))) == 1
    row, *_ = finish(spec_of("causal_lm/tiny"), tmp_path / "rows", cache["causal_lm/tiny"])
    assert row["resumed_from_step"] == 2
    assert not list((tmp_path / "study" / "checkpoints").iterdir())


def test_without_a_folder_it_is_said():
    with pytest.raises(ValueError, match=r"placement\.checkpoint_every_s = 1e-09: needs a results folder"):
        run_trial(spec_of("causal_lm/tiny"))
