"""A worker that stays up: trial after trial on the backbone it loaded, by both engines, none the worse for it."""

import gc
from pathlib import Path

import pytest
import torch

from orchestrator.specs import TrialSpec
from orchestrator.trial import BackboneCache, run_and_record, run_trial
from task_generators.task import TaskSpec
from trainers import lora
from trainers.backbone import backbone_spec
from trainers.recipe import Placement, TrainRecipe

ROUNDS = 3
PLACEMENTS = [
    Placement(),
    Placement(gradient_checkpointing=True, micro_batch_size=1),
    Placement(zero_stage=0),
    Placement(zero_stage=2, gradient_checkpointing=True),
    Placement(zero_stage=3),
]
MOST_GROWTH_BYTES = 40 * 2**20
"""Of twenty trials. One backbone of one trial that stays is 4 MB, its activations and engine are more."""


def spec_of(backbone, placement, seed=0):
    recipe = {**backbone_spec(backbone).recipe, "max_steps": 2, "batch_size": 2, "max_new_tokens": 8}
    return TrialSpec(
        backbone=backbone,
        task=TaskSpec(name="elementary_ca", params={"width": 8, "steps": 1}),
        seed=seed,
        n_train=2,
        lora_rank=2,
        n_test=1,
        recipe=TrainRecipe(**recipe),
        placement=placement,
    )


SPECS = [
    spec_of(backbone, placement, seed)
    for backbone in ("cogvideox/tiny", "causal_lm/tiny")
    for seed, placement in enumerate(PLACEMENTS)
]


def numbers(spec, cache=None):
    """Everything of a trial that its spec decides."""
    result, predictions, losses = run_trial(spec, backbone_cache=cache)
    return (
        result.metrics,
        result.train_loss,
        [(row.step, row.loss, row.grad_norm) for row in losses],
        [None if p.predicted is None else p.predicted.tolist() for p in predictions],
    )


def alive():
    """Tensors, modules and engines that are reachable."""
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Module, torch.optim.Optimizer)
    # By type: isinstance would ask objects that pretend, and some of those raise.
    return sum(issubclass(type(thing), kinds) for thing in gc.get_objects())


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_thirty_warm_trials_leak_nothing_and_equal_cold_ones():
    cold = [numbers(spec) for spec in SPECS]  # the first ones before anything that DeepSpeed leaves in a process
    cache = BackboneCache()
    counts, sizes = [], []
    for _ in range(ROUNDS):
        assert [numbers(spec, cache) for spec in SPECS] == cold, "bitwise"
        counts.append(alive())
        sizes.append(resident_bytes())
    assert len(SPECS) * ROUNDS == 30
    assert counts[1:] == counts[:-1]
    assert sizes[-1] - sizes[0] < MOST_GROWTH_BYTES


def test_a_changed_base_fails_the_trial_and_the_next_one_gets_a_fresh_one(tmp_path, monkeypatch):
    cache, spec = BackboneCache(), spec_of("causal_lm/tiny", Placement())
    cold = numbers(spec, cache)
    detach = lora.detach

    def forget_to_detach_a_change(module):
        detach(module)
        next(module.parameters()).data.view(torch.int32)[0, 0] += 1  # the last bit of one weight

    monkeypatch.setattr(lora, "detach", forget_to_detach_a_change)
    with pytest.raises(AssertionError, match="changed the weights of its frozen base"):
        run_and_record(spec, str(tmp_path), backbone_cache=cache)
    monkeypatch.undo()
    assert numbers(spec, cache) == cold
