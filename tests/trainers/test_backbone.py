from __future__ import annotations

import subprocess
import sys

import pytest

from trainers import backbone
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec, family_names, flavors, weights_path
from trainers.recipe import TrainRecipe


@pytest.mark.parametrize("name", backbone_names())
def test_every_backbone_keeps_the_promises_of_its_spec(name):
    spec = backbone_spec(name)
    family_file, _, flavor = name.partition("/")
    assert spec.name == name
    assert flavors(family_file)[flavor] is spec
    TrainRecipe(**spec.recipe)  # only known fields with valid values
    assert set(spec.recipe) <= set(TrainRecipe.model_fields)
    if spec.trainable:
        assert spec.lora_targets
        assert spec.repo_id
        assert spec.varies_with == {"seed", "n_train", "lora_rank"}
    else:
        assert "lora_rank" not in spec.varies_with


def test_every_family_offers_a_flavor_and_a_loader():
    assert "baseline" in family_names()
    for family_file in family_names():
        module = backbone.importlib.import_module(f"trainers.backbones.{family_file}")
        assert callable(module.load)
        assert flavors(family_file)


@pytest.mark.parametrize("name", ["baseline", "baseline/oracel", "cogvideo/tiny", "", "/", "baseline/oracle/x"])
def test_misspelt_names_list_the_valid_ones(name):
    with pytest.raises(ValueError, match=r"unknown backbone .*valid backbones: .*baseline/oracle"):
        backbone_spec(name)


def test_package_weights_resolve_to_their_folder_and_hub_ids_pass_through():
    assert weights_path("package:some-tiny") == str(backbone.WEIGHTS_FOLDER / "some-tiny")
    assert weights_path("THUDM/CogVideoX1.5-5B-I2V") == "THUDM/CogVideoX1.5-5B-I2V"
    assert weights_path("/data/model") == "/data/model"


def test_a_spec_refuses_unknown_fields_and_changes():
    with pytest.raises(ValueError, match="lora_target"):
        BackboneSpec(name="a/b", family="video", lora_target=("q",))
    with pytest.raises(ValueError, match="frozen"):
        backbone_spec("baseline/oracle").name = "x"


def test_specs_load_without_a_model_library():
    """In a fresh interpreter: listing every backbone imports none of the libraries that load weights."""
    heavy = ("torch", "diffusers", "transformers", "peft", "deepspeed", "ray")
    code = (
        "import sys; from trainers import train, lora, engine, evaluate; from trainers.backbone import backbone_names; "
        f"assert backbone_names(); print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
