"""Weights that lack a tensor are refused, whatever library loads them."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from trainers.backbone import backbone_spec, load_backbone, weights_path
from trainers.recipe import TrainRecipe


@pytest.mark.parametrize(
    ("name", "file", "tensor"),
    [
        ("causal_lm/tiny", "model.safetensors", "q_proj"),
        ("cogvideox/tiny", "transformer/diffusion_pytorch_model.safetensors", "to_q"),
        ("cogvideox/tiny", "vae/diffusion_pytorch_model.safetensors", "conv_in"),
    ],
)
@pytest.mark.parametrize("fault", ["missing", "another shape"])
def test_weights_that_are_not_whole_are_an_error(tmp_path, name, file, tensor, fault):
    spec = backbone_spec(name)
    folder = tmp_path / "model"
    shutil.copytree(weights_path(spec.repo_id), folder)
    tensors = load_file(folder / file)
    for key in [key for key in tensors if tensor in key and key.endswith("weight")]:
        if fault == "missing":
            del tensors[key]
        else:
            tensors[key] = tensors[key][:-1].clone()
    save_file(tensors, folder / file, metadata={"format": "pt"})
    spec = spec.model_copy(update={"repo_id": str(folder)})
    with pytest.raises(ValueError, match=rf"weights are not whole|weights do not fit|{tensor}"):
        load_backbone(spec, TrainRecipe(**spec.recipe), "cpu")
