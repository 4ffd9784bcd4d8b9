"""What every flavour promises to the training loop, held on a checkpoint of its own classes.

Flavours that ship with the package are taken as they are; for each of the others its family's ``tiny_FAMILY.py``
writes a random miniature in the published layout.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from trainers import lora
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec, check_recipe, load_backbone
from trainers.engine import MicroBatch, TorchEngine
from trainers.recipe import Placement, TrainRecipe
from trainers.rng import torch_generator
from trainers.train import train

NAMES = [name for name in backbone_names() if backbone_spec(name).trainable]
TASK = TaskSpec(name="life", params={"height": 4, "width": 4})
QUICK = {
    "max_steps": 2,
    "batch_size": 2,
    "cell_px": 8,
    "border_px": 0,
    "num_inference_steps": 2,
    "max_new_tokens": 6,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def tiny_spec(tmp_path_factory):
    specs: dict[str, BackboneSpec] = {}

    def find(name: str) -> BackboneSpec:
        if name not in specs:
            spec, (family_file, _, flavor) = backbone_spec(name), name.partition("/")
            if not spec.repo_id.startswith("package:"):
                writer = importlib.import_module(f"tests.trainers.tiny_{family_file}")
                folder: Path = tmp_path_factory.mktemp(flavor)
                writer.write_tiny_checkpoint(folder, flavor)
                spec = spec.model_copy(update={"repo_id": str(folder), "revision": None})
            specs[name] = spec
        return specs[name]

    return find


@pytest.fixture(scope="module")
def loaded(tiny_spec):
    backbones = {}

    def load(name: str):
        if name not in backbones:
            spec = tiny_spec(name)
            recipe = TrainRecipe(**spec.recipe | QUICK)
            check_recipe(spec, recipe)
            backbones.clear()  # one at a time in memory
            backbones[name] = load_backbone(spec, recipe, "cpu"), recipe
        return backbones[name]

    return load


def problems(split: Split, n: int):
    return draw_problems(TASK, split, 0, n)


def one_step(backbone, recipe, placement=None):
    """Losses of the recipe's steps from fresh LoRA weights, and the LoRA weights after them."""
    examples = backbone.encode(TASK.build(Split.TRAIN), problems(Split.TRAIN, 3), recipe)
    with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=0):
        result = train(backbone, examples, recipe, placement or Placement(), seed=0)
        return [row.loss for row in result.losses], lora.lora_state(backbone.module)


@pytest.mark.parametrize("name", NAMES)
def test_base_is_frozen_and_every_published_target_is_there(loaded, name):
    backbone, recipe = loaded(name)
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert not backbone.module.training
    for target in backbone.spec.lora_targets:
        lora.attach(backbone.module, lora_rank=2, recipe=recipe, targets=[target], seed=0)
        lora.detach(backbone.module)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_costs_what_its_examples_cost(loaded, name):
    backbone, recipe = loaded(name)
    examples = backbone.encode(TASK.build(Split.TRAIN), problems(Split.TRAIN, 3), recipe)
    batch = backbone.collate(examples, recipe, torch_generator("contract"))
    again = backbone.collate(examples, recipe, torch_generator("contract"))
    assert all(len(tensor) == 3 for tensor in batch.values())
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    with torch.no_grad():
        losses = backbone.loss(batch)
        apart = [backbone.loss({key: tensor[i : i + 1] for key, tensor in batch.items()}) for i in range(3)]
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()
    torch.testing.assert_close(torch.cat(apart), losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_training_changes_the_adapter_alone_and_repeats_bitwise(loaded, name):
    backbone, recipe = loaded(name)
    before = lora.base_fingerprint(backbone.module)
    losses, state = one_step(backbone, recipe)
    again, state_again = one_step(backbone, recipe)
    assert np.isfinite(losses).all()
    assert losses == again
    assert all(torch.equal(state[key], state_again[key]) for key in state)
    assert any(tensor.any() for key, tensor in state.items() if "lora_B" in key)
    assert lora.base_fingerprint(backbone.module) == before


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_and_accumulation_change_nothing_but_rounding(loaded, name):
    backbone, recipe = loaded(name)
    recipe = recipe.model_copy(update={"lora_dropout": 0.0})
    plain, _ = one_step(backbone, recipe)
    other, _ = one_step(backbone, recipe, Placement(gradient_checkpointing=True, micro_batch_size=1))
    assert other == pytest.approx(plain, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_answers_depend_on_problem_and_attempt_alone(loaded, name):
    backbone, recipe = loaded(name)
    task, asked = TASK.build(Split.TEST), problems(Split.TEST, 3)
    together = [str(grid) for grid in backbone.answer(task, asked, recipe, 0)]
    assert len(together) == 3
    assert [str(backbone.answer(task, [problem], recipe, 0)[0]) for problem in reversed(asked)] == together[::-1]


@pytest.mark.parametrize("name", NAMES)
def test_adapters_are_safetensors_alone(loaded, name, tmp_path):
    backbone, recipe = loaded(name)
    with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=0):
        lora.save(backbone, tmp_path)
    suffixes = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert ".safetensors" in suffixes
    assert suffixes <= {".safetensors", ".json"}


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_base_trains_float32_adapters(tiny_spec, name):
    spec = tiny_spec(name)
    recipe = TrainRecipe(**spec.recipe | QUICK | {"precision": "bf16"})
    backbone = load_backbone(spec, recipe, "cpu")
    assert any(parameter.dtype == torch.bfloat16 for parameter in backbone.module.parameters())
    examples = backbone.encode(TASK.build(Split.TRAIN), problems(Split.TRAIN, 2), recipe)
    batch = backbone.collate(examples, recipe, torch_generator("contract"))
    with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=0):
        micro_batch = MicroBatch(batch, torch.full((2,), 0.5), dropout_seed=0)
        outcome = TorchEngine(backbone, recipe).step([micro_batch], 1e-3)
        assert {tensor.dtype for tensor in lora.lora_state(backbone.module).values()} == {torch.float32}
    assert np.isfinite([outcome.loss, outcome.grad_norm]).all()
    assert outcome.grad_norm > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_eight_and_four_bits_need_a_gpu(tiny_spec, name, precision):
    spec = tiny_spec(name)
    recipe = TrainRecipe(**spec.recipe | QUICK | {"precision": precision})
    with pytest.raises(ValueError, match=rf"recipe.precision = {precision}: needs a GPU"):
        load_backbone(spec, recipe, "cpu")
