from __future__ import annotations

import gc

import pytest
import torch

from tests.trainers.toy import WIDTH, ToyLanguageModel, ToyRegressor, regression_examples, tiny_cogvideox
from trainers import lora
from trainers.backbone import backbone_spec, load_backbone
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

RECIPE = TrainRecipe(max_steps=2, learning_rate=1e-2, batch_size=4)
MODULES = {
    "regressor": (lambda: ToyRegressor().module, ("0", "2")),
    "qwen3": (lambda: ToyLanguageModel().module, ("q_proj", "down_proj")),
    "cogvideox": (tiny_cogvideox, ("to_q", "to_out.0", "ff.net.0.proj")),
}


@pytest.fixture(params=MODULES)
def module_and_targets(request):
    make, targets = MODULES[request.param]
    return make(), targets


def structure(module):
    """Everything about a module that could tell that something was attached once."""
    return {
        name: (type(child), child.training, set(vars(child)), list(child._modules), list(child._parameters))
        for name, child in module.named_modules()
    }


def test_detach_gives_the_base_back(module_and_targets):
    module, targets = module_and_targets
    before, fingerprint, parameters = structure(module), lora.base_fingerprint(module), list(module.parameters())
    for _ in range(2):
        lora.attach(module, lora_rank=2, recipe=RECIPE, targets=targets, seed=0)
        assert structure(module) != before
        assert lora.base_fingerprint(module) == fingerprint
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data.normal_()
        lora.detach(module)
        assert structure(module) == before
        assert lora.base_fingerprint(module) == fingerprint
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_first_weights_depend_on_the_seed_alone(module_and_targets):
    module, targets = module_and_targets

    def first_weights(seed, global_seed, dtype=torch.float32):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        module.to(dtype)
        lora.attach(module, lora_rank=2, recipe=RECIPE, targets=targets, seed=seed)
        assert torch.equal(torch.get_rng_state(), state), "the global random state moved"
        weights = lora.lora_state(module)
        lora.assert_only_lora_trains(module)
        lora.detach(module)
        return weights

    weights = first_weights(seed=0, global_seed=1)
    for again in (first_weights(0, global_seed=2), first_weights(0, global_seed=1, dtype=torch.bfloat16)):
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[name], again[name]) for name in weights)
    other = first_weights(seed=1, global_seed=1)
    for name in weights:
        assert weights[name].dtype == torch.float32
        if "lora_A" in name:
            assert not torch.equal(weights[name], other[name])
            bound = weights[name].shape[1] ** -0.5
            assert weights[name].abs().max() <= bound
            assert weights[name].std() == pytest.approx(bound / 3**0.5, rel=0.3)
        else:
            assert not weights[name].any()


def test_fresh_lora_changes_no_output():
    backbone = ToyRegressor()
    inputs = torch.randn(3, 8)
    before = backbone.module(inputs)
    with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0):
        assert torch.equal(backbone.module(inputs), before)


def test_number_of_trainable_parameters_follows_the_rank():
    for rank in (1, 5):
        backbone = ToyRegressor()
        with lora.attached(backbone, lora_rank=rank, recipe=RECIPE, seed=0):
            assert lora.num_trainable_params(backbone.module) == rank * ((8 + WIDTH) + 2 * WIDTH + (WIDTH + 4))


def test_recipe_targets_override_the_backbones_and_all_linear_means_all():
    backbone = ToyRegressor()
    for targets, expected in ((("4",), {"4"}), (("all-linear",), {"0", "2", "4"})):
        recipe = RECIPE.model_copy(update={"lora_targets": targets})
        with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=0):
            assert {name.split(".")[0] for name in lora.lora_state(backbone.module)} == expected


def test_bad_rank_and_targets_are_named():
    module = ToyRegressor().module
    with pytest.raises(ValueError, match="lora_rank: expected a positive number, got -1"):
        lora.attach(module, lora_rank=-1, recipe=RECIPE, targets=["0"], seed=0)
    with pytest.raises(ValueError, match="'to_q' names no Linear layer; valid targets: 0, 2, 4"):
        lora.attach(module, lora_rank=1, recipe=RECIPE, targets=["0", "to_q"], seed=0)
    with pytest.raises(ValueError, match="lora_targets"):
        lora.attach(module, lora_rank=1, recipe=RECIPE, targets=[], seed=0)
    assert not hasattr(module, "peft_config")


def test_assert_only_lora_trains_notices_a_thawed_base():
    backbone = ToyRegressor()
    with pytest.raises(AssertionError, match="no LoRA weights"):
        lora.assert_only_lora_trains(backbone.module)
    with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0):
        lora.assert_only_lora_trains(backbone.module)
        backbone.module[3].weight.requires_grad_(True)
        with pytest.raises(AssertionError, match=r"3\.weight"):
            lora.assert_only_lora_trains(backbone.module)


def test_fingerprint_notices_one_changed_bit_of_the_base():
    backbone = ToyRegressor(torch.bfloat16)
    before = lora.base_fingerprint(backbone.module)
    bits = backbone.module[2].bias.data.view(torch.int16)
    bits[7] ^= 1
    assert lora.base_fingerprint(backbone.module) != before
    bits[7] ^= 1
    assert lora.base_fingerprint(backbone.module) == before


def test_checksum_notices_one_changed_bit_and_no_adapter_that_is_gone(module_and_targets):
    module, targets = module_and_targets
    before = lora.base_checksum(module)
    lora.attach(module, lora_rank=2, recipe=RECIPE, targets=targets, seed=0)
    lora.detach(module)
    assert lora.base_checksum(module) == before
    for dtype, integers in ((torch.float32, torch.int32), (torch.bfloat16, torch.int16)):
        module.to(dtype)
        whole = lora.base_checksum(module)
        for parameter in list(module.parameters())[:3]:
            bits = parameter.data.view(integers).view(-1)
            bits[len(bits) // 2] ^= 1
            assert lora.base_checksum(module) != whole
            bits[len(bits) // 2] ^= 1
        assert lora.base_checksum(module) == whole


def test_state_loads_back_and_refuses_what_does_not_fit():
    backbone = ToyRegressor()
    with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0):
        train(backbone, regression_examples(4), RECIPE, Placement(), seed=0)
        state = lora.lora_state(backbone.module)
        trained = backbone.module(torch.ones(1, 8))
    with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=1):
        lora.load_lora_state(backbone.module, state)
        assert torch.equal(backbone.module(torch.ones(1, 8)), trained)
        with pytest.raises(ValueError, match="LoRA weights do not fit: 6 differ"):
            lora.load_lora_state(backbone.module, {})
    with (
        lora.attached(backbone, lora_rank=3, recipe=RECIPE, seed=1),
        pytest.raises(ValueError, match=r"'0\.lora_A\.weight': shape \(2, 8\) given, \(3, 8\) expected"),
    ):
        lora.load_lora_state(backbone.module, state)


def test_save_hands_the_backbone_what_it_needs(tmp_path):
    backbone = ToyRegressor()
    with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0):
        lora.save(backbone, tmp_path / "new" / "folder")
        state = lora.lora_state(backbone.module)
    saved = torch.load(tmp_path / "new" / "folder" / "adapter.pt")
    assert saved["rank"] == 2
    assert saved["state"].keys() == state.keys()


def test_attached_detaches_after_an_error_and_leaves_untrained_backbones_alone():
    backbone = ToyRegressor()
    fingerprint = lora.base_fingerprint(backbone.module)
    with pytest.raises(RuntimeError, match="boom"), lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0):
        raise RuntimeError("boom")
    assert lora.base_fingerprint(backbone.module) == fingerprint
    assert not hasattr(backbone.module, "peft_config")
    oracle = load_backbone(backbone_spec("baseline/oracle"), RECIPE, "cpu")
    with lora.attached(oracle, lora_rank=2, recipe=RECIPE, seed=0):
        pass


def test_ten_trials_leak_nothing():
    backbone = ToyRegressor()
    fingerprint = lora.base_fingerprint(backbone.module)

    def trial(seed):
        with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=seed):
            train(backbone, regression_examples(4), RECIPE, Placement(), seed=seed)
        backbone.collated.clear()

    def num_alive():
        gc.collect()
        return sum(type(thing) in (torch.nn.Parameter, torch.nn.Linear) for thing in gc.get_objects())

    trial(0)
    before = num_alive()
    for seed in range(1, 10):
        trial(seed)
    assert num_alive() == before
    assert lora.base_fingerprint(backbone.module) == fingerprint
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.module.modules())
