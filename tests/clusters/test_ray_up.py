import copy
import re
import shutil
from pathlib import Path

import pytest
import yaml

CLUSTERS = Path(__file__).parents[2] / "clusters"
CLOUDS = ("aws", "gcp")
PLACES = (*CLOUDS, "onprem")


@pytest.fixture(scope="module")
def ray_util():
    return pytest.importorskip("ray.autoscaler._private.util")


def read(place: str) -> dict:
    return yaml.safe_load((CLUSTERS / f"{place}.yaml").read_text())


@pytest.fixture(params=PLACES)
def place(request) -> str:
    return request.param


@pytest.fixture
def prepared(place, ray_util) -> dict:
    """As `ray up` sees it: with the provider's defaults where the file says nothing."""
    pytest.importorskip("jsonschema", reason="Ray checks cluster files with it")
    config = ray_util.prepare_config(read(place))
    ray_util.validate_config(config)
    return config


def commands(config: dict) -> list[str]:
    kinds = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    starts = ("head_start_ray_commands", "worker_start_ray_commands")
    return [command for kind in (*kinds, *starts) for command in config[kind]]


def test_ray_takes_the_file_and_adds_no_command_of_its_own(place, prepared):
    written = (CLUSTERS / f"{place}.yaml").read_text().split()
    added = [command for command in commands(prepared) if not _is_within(command.split(), written)]
    assert added == []


def _is_within(words: list[str], text: list[str]) -> bool:
    return any(text[start : start + len(words)] == words for start in range(len(text)))


def test_a_misspelt_field_is_no_valid_file(place, ray_util):
    pytest.importorskip("jsonschema", reason="Ray checks cluster files with it")
    config = read(place) | {"idle_timeout_minuets": 5}
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        ray_util.validate_config(ray_util.prepare_config(config))


def test_ray_start_knows_every_option(prepared):
    from ray.scripts.scripts import start

    known = {name for parameter in start.params for name in parameter.opts}
    starts = [command for command in commands(prepared) if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        assert set(re.findall(r"--[a-z-]+", command.split("ray start")[1])) <= known


def test_the_dashboard_listens_on_localhost_and_ray_asks_for_a_token(place, prepared):
    (head,) = [command for command in prepared["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
    if place in CLOUDS:
        assert "--env RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]
        token = next(each for each in prepared["docker"]["run_options"] if "RAY_AUTH_TOKEN_PATH" in each)
        folder = next(iter(prepared["file_mounts"]))
        assert token.split("=")[1].startswith(f"{folder}/")
    else:
        assert all("environment.sh" in each for each in commands(prepared) if "ray start" in each)


@pytest.mark.parametrize("place", CLOUDS)
def test_gpu_nodes_come_and_go_with_the_trials_and_the_head_stays(prepared):
    groups = prepared["available_node_types"]
    head = groups[prepared["head_node_type"]]
    assert head["max_workers"] == 0
    assert not head["resources"].get("GPU")
    assert not _is_spot(head)
    workers = {name: group for name, group in groups.items() if group is not head}
    assert all(group["min_workers"] == 0 for group in workers.values())
    assert all(map(_is_spot, workers.values()))
    assert 0 < prepared["idle_timeout_minutes"] <= 60
    with_gpus = [group["resources"] for group in workers.values() if group["resources"].get("GPU")]
    assert len({_kind(resources) for resources in with_gpus}) == len(with_gpus) >= 2


def _kind(resources: dict) -> str:
    (kind,) = [name for name in resources if name.startswith("accelerator_type:")]
    return kind


def _is_spot(group: dict) -> bool:
    config = group["node_config"]
    market = config.get("InstanceMarketOptions", {}).get("MarketType")
    return market == "spot" or config.get("scheduling", {}).get("provisioningModel") == "SPOT"


DRIVERS_NAMES = {
    "g6e.2xlarge": "NVIDIA L40S",
    "p4de.24xlarge": "NVIDIA A100-SXM4-80GB",
    "p5.48xlarge": "NVIDIA H100 80GB HBM3",
    "g2-standard-8": "NVIDIA L4",
    "a2-ultragpu-1g": "NVIDIA A100-SXM4-80GB",
    "a3-highgpu-8g": "NVIDIA H100 80GB HBM3",
}
"""Of the GPUs of a machine type, by the clouds' documentation and `nvidia-smi`."""


@pytest.mark.parametrize("place", CLOUDS)
def test_the_kinds_of_gpus_are_as_ray_will_find_them_and_as_the_plan_knows_them(prepared):
    nvidia = pytest.importorskip("ray._private.accelerators.nvidia_gpu").NvidiaGPUAcceleratorManager
    from orchestrator.capacity import GPU_MODELS

    for group in prepared["available_node_types"].values():
        if group["resources"].get("GPU"):
            kind = _kind(group["resources"]).removeprefix("accelerator_type:")
            machine = group["node_config"].get("InstanceType") or group["node_config"]["machineType"]
            assert kind == nvidia._gpu_name_to_accelerator_type(DRIVERS_NAMES[machine])
            assert kind in GPU_MODELS


@pytest.mark.parametrize("place", CLOUDS)
def test_trials_find_room_on_the_groups_that_may_come(prepared):
    from orchestrator.capacity import slots

    nodes = [
        {name: float(amount) for name, amount in group["resources"].items()}
        for group in prepared["available_node_types"].values()
        for _ in range(group["max_workers"])
    ]
    worker = {"CPU": 1.0, "GPU": 1.0}
    assert slots((worker,), nodes) >= 16
    assert slots(({}, *[worker] * 16), nodes) >= 1  # num_workers: 16, over nodes


@pytest.mark.parametrize("place", CLOUDS)
def test_a_cluster_can_reach_every_group_up_to_the_common_limit(prepared):
    groups = prepared["available_node_types"].values()
    assert max(group["max_workers"] for group in groups) <= prepared["max_workers"]


def test_the_hosts_of_onprem_all_join(ray_util):
    config = ray_util.prepare_config(read("onprem"))
    (group,) = config["available_node_types"].values()
    assert group["min_workers"] == group["max_workers"] == len(config["provider"]["worker_ips"]) > 0


def test_ec2_knows_every_field_of_a_node():
    session = pytest.importorskip("botocore.session", reason="the model of EC2's API comes with botocore")
    from botocore.validate import ParamValidator

    model = session.get_session().get_service_model("ec2")
    request = model.operation_model("RunInstances").input_shape
    for name, group in read("aws")["available_node_types"].items():
        faults = ParamValidator().validate({**group["node_config"], "MinCount": 1, "MaxCount": 1}, request)
        assert not faults.has_errors(), f"{name}: {faults.generate_report()}"


def test_ray_derives_an_aws_cluster_without_public_ports_but_ssh(monkeypatch, tmp_path):
    moto = pytest.importorskip("moto", reason="stands for AWS")
    pytest.importorskip("boto3")
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    with moto.mock_aws():
        from ray.autoscaler._private.util import prepare_config

        config = prepare_config(read("aws"))
        bootstrapped = bootstrap_aws(copy.deepcopy(config))
        ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
        used = {
            identity
            for group in bootstrapped["available_node_types"].values()
            for identity in group["node_config"]["SecurityGroupIds"]
        }
        rules = [
            rule
            for group in ec2.describe_security_groups(GroupIds=sorted(used))["SecurityGroups"]
            for rule in group["IpPermissions"]
        ]
    public = [rule for rule in rules if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in public] == [(22, 22)]
    for name, group in bootstrapped["available_node_types"].items():
        profile = group["node_config"]["IamInstanceProfile"]["Name"]
        assert profile == ("visual-sweep-head" if name == "head" else "visual-sweep-worker")


def test_compute_engine_knows_every_field_of_a_node():
    pytest.importorskip("googleapiclient", reason="the model of Compute Engine's API comes with it")
    import json

    import googleapiclient

    documents = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    schemas = json.loads((documents / "compute.v1.json").read_text())["schemas"]
    for name, group in read("gcp")["available_node_types"].items():
        assert _unknown(group["node_config"], schemas["Instance"], schemas) == [], name


def _unknown(value, schema: dict, schemas: dict, path: str = "") -> list[str]:
    """Fields of ``value`` that a Google API's schema does not know, or whose type or choices are others."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object":
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        known = schema.get("properties", {})
        faults = [f"{path}.{key}" for key in value if key not in known]
        return faults + [
            fault
            for key in value.keys() & known.keys()
            for fault in _unknown(value[key], known[key], schemas, f"{path}.{key}")
        ]
    if schema["type"] == "array":
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [fault for each in value for fault in _unknown(each, schema["items"], schemas, path)]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r}"]
    types = {"boolean": bool, "integer": int, "string": (str, int), "number": (int, float)}  # int64 travels as a string
    return [] if isinstance(value, types[schema["type"]]) else [f"{path}: {value!r}"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the nodes have bash")
def test_bash_reads_every_command(prepared):
    import subprocess

    for command in commands(prepared):
        subprocess.run(["bash", "-n", "-c", command], check=True)
