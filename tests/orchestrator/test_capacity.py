"""What fits where, by plain arithmetic."""

import pytest

from orchestrator.capacity import (
    GPU_MODELS,
    bundles,
    cluster_hardware,
    gpu_model,
    gpus_per_worker,
    memory_fault,
    memory_needed_gb,
    parse_gpus,
    placement_fault,
    slots,
)
from orchestrator.specs import TrialSpec
from trainers.backbone import backbone_spec
from trainers.recipe import Placement, TrainRecipe

NODE = {"CPU": 16.0, "GPU": 8.0}


def trial(backbone="cogvideox/1.5-5b-i2v", recipe=None, **placement):
    published = TrainRecipe(**backbone_spec(backbone).recipe | (recipe or {}))
    return TrialSpec(
        backbone=backbone,
        task={"name": "life"},
        n_train=3,
        lora_rank=4,
        recipe=published,
        placement=Placement(**placement),
    )


@pytest.mark.parametrize(
    ("placement", "nodes", "expected"),
    [
        ({"gpus_per_worker": 1}, [NODE], 8),
        ({"gpus_per_worker": 1}, [NODE, NODE], 16),
        ({"gpus_per_worker": 3}, [NODE], 2),
        ({"gpus_per_worker": 0.3}, [{"CPU": 100, "GPU": 8}], 24),  # 3 on each GPU, not 26 over all
        ({"gpus_per_worker": 0.5, "cpus_per_worker": 4}, [NODE], 4),
        ({"gpus_per_worker": 0}, [NODE], 16),
        ({"gpus_per_worker": 1, "num_workers": 4}, [NODE, {"CPU": 4, "GPU": 4}], 3),
        ({"gpus_per_worker": 1, "num_workers": 12}, [NODE, {"CPU": 4, "GPU": 4}], 1),
        ({"gpus_per_worker": 9}, [NODE, NODE], 0),
        ({"cpus_per_worker": 32, "gpus_per_worker": 1}, [NODE], 0),
        ({"gpus_per_worker": 1}, [], 0),
    ],
)
def test_slots(placement, nodes, expected):
    spec = trial(**placement)
    assert slots(bundles(spec, gpus_per_worker(spec, has_gpus=True)), nodes) == expected


def test_a_trial_that_never_fits_is_told_with_what_it_asks_for():
    hardware = cluster_hardware([NODE], "here")
    assert not placement_fault(trial(gpus_per_worker=8), hardware)
    fault = placement_fault(trial(num_workers=3, gpus_per_worker=4), hardware)
    assert "3 x (1 CPU, 4 GPU)" in fault
    assert "1 of (16 CPU, 8 GPU)" in fault


def test_a_backbone_takes_gpus_only_where_there_are_any():
    assert gpus_per_worker(trial(), has_gpus=True) == 1
    assert gpus_per_worker(trial(), has_gpus=False) == 0
    assert gpus_per_worker(trial(gpus_per_worker=2), has_gpus=False) == 2


def test_hardware_that_is_not_here():
    assert parse_gpus("H100:8").nodes == parse_gpus("h100:8x1").nodes
    four = parse_gpus("A100-40G:2x4")
    assert [node["GPU"] for node in four.nodes] == [2.0] * 4
    assert four.gpu == GPU_MODELS["A100-40G"]
    assert parse_gpus("48GB:2").gpu.memory_gb == 48
    for wrong in ("H100", "H100:0", "H100:", ":8", "H100:8x", "0GB:1", "8xH100"):
        with pytest.raises(ValueError, match="--gpus"):
            parse_gpus(wrong)
    with pytest.raises(ValueError, match=r"unknown GPU 'H1000'.*A100"):
        parse_gpus("H1000:8")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40G"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA GH200 480GB", "GH200"),
    ],
)
def test_names_as_drivers_write_them(device, name):
    assert gpu_model(device) == GPU_MODELS[name]


def test_a_device_that_is_not_listed_is_unknown():
    assert gpu_model("Quadro P600") is None


def test_the_smallest_gpu_of_a_cluster_counts():
    nodes = [NODE | {"accelerator_type:H100": 1.0}, NODE | {"accelerator_type:A100-40G": 1.0}]
    assert cluster_hardware(nodes, "there").gpu == GPU_MODELS["A100-40G"]
    assert cluster_hardware([{"CPU": 4.0}], "there").gpu is None


def test_memory_follows_precision_batch_and_recomputation():
    stated = backbone_spec("cogvideox/1.5-5b-i2v")
    full = memory_needed_gb(trial())
    assert full == pytest.approx(stated.memory_gb)
    weights = stated.num_params * 2e-9
    assert full - memory_needed_gb(trial(recipe={"precision": "int8"})) == pytest.approx(weights / 2)
    assert memory_needed_gb(trial(recipe={"precision": "fp32"})) - full == pytest.approx(weights)
    assert memory_needed_gb(trial(micro_batch_size=1)) < full
    assert memory_needed_gb(trial(gradient_checkpointing=True)) < full
    assert memory_needed_gb(trial(recipe={"batch_size": 64})) > 2 * full
    sharded = memory_needed_gb(trial(num_workers=2, zero_stage=3))
    assert sharded == pytest.approx(memory_needed_gb(trial(num_workers=2)) - weights / 2)


def test_a_step_that_is_too_large_for_its_share_of_a_gpu():
    large = trial("wan/2.1-14b-i2v")
    assert not memory_fault(large, parse_gpus("H100:1"))
    fault = memory_fault(large, parse_gpus("A100-40G:1"))
    assert "wan/2.1-14b-i2v needs about 72 GB" in fault
    assert "A100-40G has 40 GB" in fault
    assert memory_fault(trial(gpus_per_worker=0.25), parse_gpus("H100:1"))
    assert not memory_fault(trial(gpus_per_worker=0), parse_gpus("T4:1"))


@pytest.mark.parametrize("device", ["NVIDIA L40", "Tesla T400", "B2000", "V1000", "NVIDIA A10", "H1000"])
def test_a_gpu_is_not_known_by_a_part_of_its_name(device):
    assert gpu_model(device) is None
