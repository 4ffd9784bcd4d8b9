"""Adapters that a sweep keeps, trained on two workers at every ZeRO stage, in the hands of the stock libraries."""

import os
from pathlib import Path

import pytest
import ray
import torch
from diffusers import CogVideoXImageToVideoPipeline
from peft import PeftModel

from orchestrator import results
from orchestrator.specs import SweepSpec, expand
from orchestrator.sweep import cluster
from orchestrator.sweep import run as run_sweep
from task_generators.problem import Split
from task_generators.splits import draw_problems
from trainers import lora
from trainers.backbone import load_backbone
from trainers.recipe import Placement
from trainers.rng import torch_generator
from trainers.train import train

BACKBONES = ("cogvideox/tiny", "causal_lm/tiny")
RANK, ALPHA = 2, 8
"""Their ratio is not 1: an alpha that gets lost is seen."""


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setattr(cluster.os, "cpu_count", lambda: 2)
    for name, value in cluster.QUIET_TUNE.items():
        patch.setenv(name, value)
    patch.setenv("PYTHONPATH", os.fspath(Path(__file__).resolve().parents[2]))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    patch.undo()


def by_stock(backbone, folder):
    """The backbone with its module adapted by the library that its users would load it with."""
    if backbone.spec.family == "language":
        backbone.module = PeftModel.from_pretrained(backbone.module, folder).base_model.model
    else:
        parts = {"tokenizer": None, "text_encoder": None, "vae": backbone._vae, "scheduler": backbone._scheduler}
        CogVideoXImageToVideoPipeline(transformer=backbone.module, **parts).load_lora_weights(folder)
    backbone.module.eval()
    return backbone


def loss_of(backbone, examples, recipe):
    with torch.no_grad():
        return backbone.loss(backbone.collate(examples, recipe, torch_generator("adapter test")))


@pytest.fixture(scope="module")
def by_plain_torch():
    """Per backbone: loss without an adapter, and with one that plain torch trained in this process."""
    found = {}
    for trial in trials_of({}):
        backbone = load_backbone(trial.backbone_spec, trial.recipe, "cpu")
        problems = draw_problems(trial.task, Split.TRAIN, trial.seed, trial.n_train)
        examples = backbone.encode(trial.task.build(Split.TRAIN), problems, trial.recipe)
        bare = loss_of(backbone, examples, trial.recipe)
        with lora.attached(backbone, lora_rank=RANK, recipe=trial.recipe, seed=trial.seed):
            train(backbone, examples, trial.recipe, Placement(), seed=trial.seed)
            found[trial.backbone] = examples, bare, loss_of(backbone, examples, trial.recipe)
    return found


def sweep_of(placement, folder=""):
    return SweepSpec.model_validate(
        {
            "name": "adapters",
            "backbones": list(BACKBONES),
            "tasks": [{"elementary_ca": {"width": 8, "steps": 1}}],
            "n_train": [4],
            "lora_rank": [RANK],
            "n_test": 3,
            "recipe": {"max_steps": 8, "batch_size": 5, "lora_alpha": ALPHA, "max_new_tokens": 24},
            "placement": placement,
            "results": str(folder),
        }
    )


def trials_of(placement):
    return expand(sweep_of(placement))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_stock_libraries_load_them_with_the_same_output(tmp_path, by_plain_torch, zero_stage):
    spec = sweep_of({"num_workers": 2, "zero_stage": zero_stage, "keep_adapters": True}, tmp_path)
    trials = expand(spec)
    outcome = run_sweep(spec, trials, quiet=True)
    assert (outcome.done, outcome.failed) == (2, 0)
    rows = results.load_trials(tmp_path).set_index("trial_id")
    for trial in trials:
        row = rows.loc[trial.trial_id]
        assert (row["num_workers"], row["zero_stage"]) == (2, zero_stage)
        backbone = load_backbone(trial.backbone_spec, trial.recipe, "cpu")
        backbone = by_stock(backbone, tmp_path / "adapters" / trial.trial_id)
        examples, bare, trained = by_plain_torch[trial.backbone]
        loss = loss_of(backbone, examples, trial.recipe)
        torch.testing.assert_close(loss, trained, rtol=1e-3, atol=1e-4)
        assert (loss - bare).abs().max() > 20 * (loss - trained).abs().max()
        assert (loss - bare).abs().max() > 0.01
        problems = draw_problems(trial.task, Split.TEST, 0, trial.n_test)
        answers = backbone.answer(trial.task.build(Split.TEST), problems, trial.recipe, 0)
        predictions = results.load_predictions(tmp_path, trial_ids=[trial.trial_id]).sort_values("index")
        kept = [None if grid is None else [list(line) for line in grid] for grid in predictions["predicted"]]
        assert [None if grid is None else grid.tolist() for grid in answers] == kept
