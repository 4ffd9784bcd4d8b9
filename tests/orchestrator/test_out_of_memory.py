"""Trials whose batches are too large for the memory: simulated, in the forward pass or deep inside of the module."""

import gc
import weakref

import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from orchestrator import results
from orchestrator.specs import TrialSpec
from orchestrator.trial import BackboneCache, run_and_record, run_trial
from task_generators.task import TaskSpec
from trainers.backbone import backbone_spec
from trainers.backbones.causal_lm import CausalLM
from trainers.recipe import Placement, TrainRecipe

BATCH_SIZE = 5
ERRORS = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: torch.empty(2**60),
    "python": lambda: bytearray(2**60),
}


def spec_of(**placement):
    recipe = backbone_spec("causal_lm/tiny").recipe
    recipe = {**recipe, "max_steps": 3, "batch_size": BATCH_SIZE, "max_new_tokens": 24, "learning_rate": 1e-4}
    return TrialSpec(
        backbone="causal_lm/tiny",
        task=TaskSpec(name="elementary_ca", params={"width": 8, "steps": 1}),
        n_train=6,
        lora_rank=2,
        n_test=7,
        recipe=TrainRecipe(**recipe),
        placement=Placement(**placement),
    )


@pytest.fixture(scope="module")
def cache():
    return BackboneCache()


@pytest.fixture(scope="module")
def roomy(cache):
    """The trial where nothing is too large."""
    return run_trial(spec_of(), backbone_cache=cache)


class SmallMemory:
    """Raises where a batch of more than ``limit`` examples passes; what it had made by then must be gone later."""

    def __init__(self, limit, kind, from_call=1):
        self.limit, self.kind, self.from_call = limit, kind, from_call
        self.calls, self.held = 0, []

    def pass_through(self, size):
        self.calls += 1
        for reference in self.held:
            assert reference() is None, "an earlier try still holds memory"
        if size > self.limit and self.calls >= self.from_call:
            ballast = torch.zeros(1000)
            self.held.append(weakref.ref(ballast))
            error = ERRORS[self.kind]()
            raise error


def limit_module(monkeypatch, memory):
    """Deep inside of the module, in its second layer, where ZeRO-3 has gathered some of the weights."""
    forward = Qwen3MLP.forward

    def limited(self, hidden_BTC):
        if self.training:
            memory.pass_through(len(hidden_BTC))
        return forward(self, hidden_BTC)

    monkeypatch.setattr(Qwen3MLP, "forward", limited)


@pytest.mark.parametrize("kind", ERRORS)
def test_the_micro_batch_is_halved_until_it_fits(monkeypatch, cache, roomy, kind):
    limit_module(monkeypatch, SmallMemory(1, kind))
    backbone = cache.get(spec_of().backbone_spec, spec_of().recipe, "cpu")
    result, predictions, losses = run_trial(spec_of(), backbone_cache=cache)
    assert (roomy[0].micro_batch_size, result.micro_batch_size) == (BATCH_SIZE, 1)
    assert [row.loss for row in losses] == pytest.approx([row.loss for row in roomy[2]], rel=1e-4)
    assert result.train_loss == pytest.approx(roomy[0].train_loss, rel=1e-4)
    assert len(predictions) == 7
    assert cache.get(spec_of().backbone_spec, spec_of().recipe, "cpu") is backbone, "the worker stays warm"


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_deepspeed_too(monkeypatch, roomy, zero_stage):
    limit_module(monkeypatch, SmallMemory(2, "gpu"))
    cache = BackboneCache()
    for _ in range(2):  # the second one on the worker that the first one left
        result, _, losses = run_trial(spec_of(zero_stage=zero_stage), backbone_cache=cache)
        assert (result.micro_batch_size, result.zero_stage) == (2, zero_stage)
        assert [row.loss for row in losses] == pytest.approx([row.loss for row in roomy[2]], rel=1e-4)
    gc.collect()
    assert not any(type(thing).__name__ == "DeepSpeedEngine" for thing in gc.get_objects())


def test_training_goes_on_from_its_checkpoint(monkeypatch, tmp_path, cache, roomy):
    """Too large from the third step on."""
    num_layers = cache.get(spec_of().backbone_spec, spec_of().recipe, "cpu").module.config.num_hidden_layers
    limit_module(monkeypatch, SmallMemory(3, "gpu", from_call=2 * num_layers + 1))
    result = run_and_record(spec_of(checkpoint_every_s=1e-9), str(tmp_path), backbone_cache=cache)
    assert (result.micro_batch_size, result.resumed_from_step) == (2, 2)
    losses = results.load_losses(tmp_path).sort_values("step")["loss"].tolist()
    assert losses[:2] == [row.loss for row in roomy[2][:2]]
    assert losses[2] == pytest.approx(roomy[2][2].loss, rel=1e-4)


def test_one_example_that_does_not_fit_fails_the_trial(monkeypatch, tmp_path, cache):
    limit_module(monkeypatch, SmallMemory(0, "gpu"))
    with pytest.raises(RuntimeError, match=r"out of memory while training with micro-batches of 1: CUDA out of memory"):
        run_and_record(spec_of(), str(tmp_path), backbone_cache=cache)
    row = results.load_trials(tmp_path).iloc[0]
    assert (row["state"], row["error_kind"]) == ("failed", "out_of_memory")
    assert row[["micro_batch_size", "eval_batch_size"]].isna().all()
    assert "in limited" in row["error"], "where it happened"


@pytest.mark.parametrize("kind", ERRORS)
def test_answering_halves_its_batches(monkeypatch, cache, roomy, kind):
    """Seven problems; a limit of two: seven at once, three, then one at a time or as few as fit."""
    memory, answer, sizes = SmallMemory(2, kind), CausalLM.answer, []

    def limited(self, task, problems, recipe, attempt):
        sizes.append(len(problems))
        memory.pass_through(len(problems))
        return answer(self, task, problems, recipe, attempt)

    monkeypatch.setattr(CausalLM, "answer", limited)
    result, predictions, _ = run_trial(spec_of(), backbone_cache=cache)
    assert sizes == [7, 3, *[1] * 7]
    assert (roomy[0].eval_batch_size, result.eval_batch_size) == (7, 1)
    assert [p.index for p in predictions] == list(range(7))
    for expected, prediction in zip(roomy[1], predictions, strict=True):
        assert prediction.scores == expected.scores
    assert result.metrics == roomy[0].metrics


def test_one_problem_that_does_not_fit_fails_the_trial(monkeypatch, tmp_path, cache):
    monkeypatch.setattr(CausalLM, "answer", lambda self, task, problems, *rest: ERRORS["cpu"]())
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        run_and_record(spec_of(), str(tmp_path), backbone_cache=cache)
    assert results.load_trials(tmp_path)["error_kind"].tolist() == ["out_of_memory"]


def test_what_was_used_is_said_of_untrained_backbones_too():
    spec = spec_of(eval_batch_size=4).model_copy(update={"backbone": "baseline/oracle"})
    result = run_trial(spec)[0]
    assert (result.micro_batch_size, result.eval_batch_size, result.resumed_from_step) == (None, 4, None)
