from __future__ import annotations

import pytest
import torch

from tests.trainers.toy import ToyLanguageModel, ToyRegressor, regression_examples, tiny_cogvideox, token_examples
from trainers import lora
from trainers.backbone import BackboneSpec
from trainers.gradient_checkpointing import gradient_checkpointing
from trainers.recipe import Placement, TrainRecipe
from trainers.train import train

RECIPE = TrainRecipe(max_steps=3, learning_rate=1e-2, batch_size=5)


class ToyVideo:
    """A tiny CogVideoX, or two of them that take turns by the noise's sign, as models of several experts do."""

    def __init__(self, num_experts: int = 1) -> None:
        self._experts = [tiny_cogvideox() for _ in range(num_experts)]
        if num_experts == 1:
            self.module = self._experts[0]
        else:
            self.module = torch.nn.ModuleDict({f"expert_{i}": expert for i, expert in enumerate(self._experts)})
        self.spec = BackboneSpec(name="toy/video", family="video", lora_targets=("to_q", "to_v"))

    def collate(self, examples, recipe, generator):
        latents_BFCHW = torch.stack([example["latents"] for example in examples])
        return {"latents": latents_BFCHW, "noise": torch.randn(latents_BFCHW.shape, generator=generator)}

    def loss(self, batch):
        latents_BFCHW, noise_BFCHW = batch["latents"], batch["noise"]
        expert = self._experts[int(noise_BFCHW[0, 0, 0, 0, 0] > 0) % len(self._experts)]
        B, F, _, H, W = latents_BFCHW.shape
        angles = torch.zeros(F * H * W // 4, 16)
        output_BFCHW = expert(
            hidden_states=latents_BFCHW + noise_BFCHW,
            encoder_hidden_states=torch.zeros(B, 4, 8),
            timestep=torch.full((B,), 500),
            image_rotary_emb=(angles.cos(), angles.sin()),
            return_dict=False,
        )[0]
        return (output_BFCHW - noise_BFCHW).square().mean(dim=(1, 2, 3, 4))


def latent_examples(n):
    generator = torch.Generator().manual_seed(3)
    return [{"latents": torch.randn(2, 4, 4, 4, generator=generator)} for _ in range(n)]


TOYS = {
    "qwen3": lambda: (ToyLanguageModel(), token_examples(8)),
    "sharded qwen3": lambda: (ToyLanguageModel(intermediate_size=2048), token_examples(8)),
    "cogvideox": lambda: (ToyVideo(), latent_examples(8)),
    "two experts": lambda: (ToyVideo(2), latent_examples(8)),
}


class SavedBytes:
    """Counts what autograd keeps for the backward pass at most: the sum over a step is enough to compare."""

    def __init__(self):
        self.total = 0

    def __enter__(self):
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception):
        self._hooks.__exit__(*exception)

    def _pack(self, tensor):
        self.total += tensor.numel() * tensor.element_size()
        return tensor


def run(toy, placement, dropout=0.0):
    backbone, examples = TOYS[toy]()
    recipe = RECIPE.model_copy(update={"lora_dropout": dropout})
    with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=0), SavedBytes() as saved:
        result = train(backbone, examples, recipe, placement, seed=0)
        return [row.loss for row in result.losses], lora.lora_state(backbone.module), saved.total


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("toy", TOYS)
def test_the_same_training_with_less_kept(toy, dropout):
    losses, weights, kept = run(toy, Placement(), dropout)
    again, weights_again, kept_again = run(toy, Placement(gradient_checkpointing=True), dropout)
    assert again == pytest.approx(losses, rel=1e-6)
    for name in weights:
        torch.testing.assert_close(weights_again[name], weights[name], rtol=0, atol=1e-5)
    assert kept_again < 0.7 * kept, "activations are still kept"


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_deepspeed_trains_the_same(zero_stage):
    """Also where ZeRO-3 has sharded the layers that are computed anew."""
    losses, weights, _ = run("sharded qwen3", Placement())
    placement = Placement(zero_stage=zero_stage, gradient_checkpointing=True, micro_batch_size=2)
    again, weights_again, _ = run("sharded qwen3", placement)
    assert again == pytest.approx(losses, rel=1e-6)
    for name in weights:
        torch.testing.assert_close(weights_again[name], weights[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("toy", TOYS)
def test_it_is_off_afterwards_and_reaches_every_part(toy):
    module = TOYS[toy]()[0].module.train()

    def on(part):
        return [name for name, child in part.named_modules() if getattr(child, "gradient_checkpointing", False) is True]

    def hooks():
        return [name for name, child in module.named_modules() if child._forward_hooks or child._forward_pre_hooks]

    parts = module.values() if isinstance(module, torch.nn.ModuleDict) else [module]
    assert not on(module)
    with gradient_checkpointing("toy", module):
        assert all(on(part) for part in parts)
    assert not on(module)
    assert not hooks()


def test_a_module_that_offers_none_is_a_clear_error():
    backbone = ToyRegressor()
    with (
        lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0),
        pytest.raises(ValueError, match=r"gradient_checkpointing = True: backbone 'toy/regressor' does not offer it"),
    ):
        train(backbone, regression_examples(4), RECIPE, Placement(gradient_checkpointing=True), seed=0)
