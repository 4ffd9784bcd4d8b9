"""Trials share the work of encoding: through the results folder, over sizes, ranks and twins with the same encoder."""

from itertools import product

import pytest

from orchestrator.specs import TrialSpec
from orchestrator.trial import BackboneCache, run_trial
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.recipe import Placement, TrainRecipe

RECIPE = TrainRecipe(**backbone_spec("cogvideox/tiny").recipe | {"max_steps": 1, "batch_size": 2})
SIZES, RANKS, N_TEST = (2, 4, 9), (2, 4), 5
SPEC = TrialSpec(
    backbone="cogvideox/tiny",
    task=TaskSpec(name="life", params={"height": 4, "width": 4}),
    n_train=2,
    lora_rank=2,
    n_test=N_TEST,
    recipe=RECIPE,
)


def run(results_folder, cache, **changes):
    return run_trial(SPEC.model_copy(update=changes), backbone_cache=cache, results_uri=str(results_folder))


@pytest.fixture(scope="module")
def cache():
    return BackboneCache()


def test_every_picture_is_encoded_once_for_all_sizes_ranks_and_twins(tmp_path, cache):
    shared, alone = [], []
    for lora_rank, n_train in product(RANKS, SIZES):
        changes = {"lora_rank": lora_rank, "n_train": n_train}
        shared.append(run(tmp_path, cache, **changes))
        off = Placement(latents="off")
        alone.append(run(tmp_path, cache, **changes, placement=off))
    for (stored, stored_predictions, stored_losses), (plain, plain_predictions, plain_losses) in zip(
        shared, alone, strict=True
    ):
        assert [row.loss for row in stored_losses] == [row.loss for row in plain_losses]  # bitwise
        assert [str(p.predicted) for p in stored_predictions] == [str(p.predicted) for p in plain_predictions]
        assert plain.num_encoded == plain.n_train + N_TEST
        assert plain.num_latents_reused == 0
        assert stored.encode_s > 0
    assert sum(result.num_encoded for result, *_ in shared) == max(SIZES) + N_TEST
    assert sum(result.num_encoded for result, *_ in alone) == len(RANKS) * (sum(SIZES) + len(SIZES) * N_TEST)
    twin = run(tmp_path, None, backbone="cogvideox/tiny-random", n_train=max(SIZES))[0]
    assert twin.num_encoded == 0, "the same encoder"


def test_other_pictures_and_precisions_are_other_latents(tmp_path, cache):
    assert run(tmp_path, cache)[0].num_encoded == 2 + N_TEST
    assert run(tmp_path, cache, seed=1)[0].num_encoded == 2  # other training problems, the same test set
    larger = RECIPE.model_copy(update={"cell_px": 16})
    assert run(tmp_path, cache, recipe=larger)[0].num_encoded == 2 + N_TEST
    convex = RECIPE.model_copy(update={"transition": "convex"})
    assert run(tmp_path, cache, recipe=convex)[0].num_encoded == 2
    rounded = RECIPE.model_copy(update={"precision": "bf16"})
    assert run(tmp_path, BackboneCache(), recipe=rounded)[0].num_encoded == 2 + N_TEST


@pytest.mark.parametrize(
    ("latents", "results_uri", "found"),
    [
        ("results", "{tmp}/x", "{tmp}/x/latents"),
        ("results", "s3://bucket/x", "{node}"),
        ("results", None, None),
        ("node", "{tmp}/x", "{node}"),
        ("off", "{tmp}/x", None),
    ],
)
def test_where_latents_are_kept(tmp_path, monkeypatch, latents, results_uri, found):
    from orchestrator import trial

    monkeypatch.setattr(trial.tempfile, "gettempdir", lambda: str(tmp_path / "node"))
    spec = SPEC.model_copy(update={"placement": Placement(latents=latents)})
    folder = trial._latents_folder(spec, results_uri and results_uri.format(tmp=tmp_path))
    if found == "{node}":
        assert folder.parent == tmp_path / "node"
    else:
        assert str(folder) == str(found and found.format(tmp=tmp_path))
