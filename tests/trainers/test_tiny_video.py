"""The tiny video backbone: the fast encoder is exact, the shipped weights are what their README says, training runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

from trainers.backbone import WEIGHTS_FOLDER
from trainers.pretraining import tiny_vae, tiny_video
from trainers.pretraining.muon import orthogonalise
from trainers.pretraining.procedural import SHORT_LIBRARY, sample_batch

SHIPPED = WEIGHTS_FOLDER / "cogvideox-tiny"


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLCogVideoX:
    torch.set_num_threads(1)
    return AutoencoderKLCogVideoX.from_pretrained(SHIPPED / "vae").eval().requires_grad_(False)


def test_grid_encoder_equals_the_vae(vae):
    batch = sample_batch(np.random.default_rng(0), 4, (3, 4), SHORT_LIBRARY)
    video_latents, image_latents = tiny_video.encode(tiny_video.GridEncoder(vae), batch)
    images = [
        tiny_video.cell_colors(grids, batch.rules)
        .permute(0, 3, 1, 2)
        .repeat_interleave(tiny_vae.CELL_PX, 2)
        .repeat_interleave(tiny_vae.CELL_PX, 3)
        for grids in (batch.questions, batch.answers)
    ]
    video = torch.stack([images[0]] * 4 + [images[1]] * 5, dim=2)
    for pixels, latents in ((video, video_latents), (video[:, :, :1], image_latents)):
        with torch.no_grad():
            expected = vae.encode(pixels).latent_dist.mode().transpose(1, 2) * vae.config.scaling_factor
        torch.testing.assert_close(latents, expected, atol=2e-4, rtol=1e-3)


def test_shipped_vae_keeps_every_colour(vae):
    assert tiny_vae.cell_accuracy(vae, (4, 4), num_clips=16) > 0.98


def test_shipped_transformer_is_the_one_described(vae):
    transformer = CogVideoXTransformer3DModel.from_pretrained(SHIPPED / "transformer")
    readme = (SHIPPED / "README.md").read_text()
    for module in (transformer, vae):
        assert f"{sum(p.numel() for p in module.parameters()):,}" in readme
    log = json.loads((SHIPPED / "transformer_log.json").read_text())
    assert log[-1]["loss"] < log[0]["loss"] / 5
    assert not any("pickle" in path.name or path.suffix == ".bin" for path in SHIPPED.rglob("*"))


def test_pretraining_runs_and_leaves_a_folder_that_loads(tmp_path: Path, vae, monkeypatch):
    vae.save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(tiny_video, "SMALL_SHAPES", ((3, 3),))
    monkeypatch.setattr(tiny_video, "LARGE_SHAPES", ((3, 4),))
    monkeypatch.setattr(tiny_video, "accuracy", lambda work: {})
    tiny_video.train(tmp_path, steps=3, learning_rate=1e-3, batch_size=4)
    first = (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    tiny_video.train(tmp_path, steps=3, learning_rate=1e-3, batch_size=4)
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() == first, "fixed seeds"
    CogVideoXTransformer3DModel.from_pretrained(tmp_path / "transformer")


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8)])
def test_orthogonalise_flattens_the_spectrum(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    singular_values = torch.linalg.svdvals(orthogonalise(matrices))
    assert singular_values.min() > 0.5
    assert singular_values.max() < 1.3
