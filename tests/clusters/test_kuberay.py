import copy
from pathlib import Path

import pytest
import yaml

CLUSTERS = Path(__file__).parents[2] / "clusters"
LABEL = "app.kubernetes.io/part-of"

# --- the fields of KubeRay v1.6's custom resources (ray.io/v1), by its API reference


def fields(*required: str, **properties: dict) -> dict:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


STRING, WHOLE, FLAG, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "number"}
ANYTHING = {"type": "object"}
TEXTS = {"type": "object", "additionalProperties": STRING}
GROUP = {"template": ANYTHING, "resources": TEXTS, "labels": TEXTS, "rayStartParams": TEXTS}
AUTOSCALER = fields(
    resources=ANYTHING,
    image=STRING,
    imagePullPolicy=STRING,
    securityContext=ANYTHING,
    idleTimeoutSeconds=WHOLE,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env={"type": "array"},
    envFrom={"type": "array"},
    volumeMounts={"type": "array"},
)
HEAD = fields("template", **GROUP, headService=ANYTHING, enableIngress=FLAG, serviceType=STRING)
WORKERS = fields(
    "groupName",
    "minReplicas",
    "maxReplicas",
    "template",
    **GROUP,
    suspend=FLAG,
    groupName=STRING,
    replicas=WHOLE,
    minReplicas=WHOLE,
    maxReplicas=WHOLE,
    idleTimeoutSeconds=WHOLE,
    scaleStrategy=ANYTHING,
    numOfHosts=WHOLE,
)
RAY_CLUSTER_SPEC = fields(
    "headGroupSpec",
    upgradeStrategy=ANYTHING,
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=STRING, enableK8sTokenAuth=FLAG),
    suspend=FLAG,
    managedBy=STRING,
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=TEXTS,
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=ANYTHING,
    headGroupSpec=HEAD,
    rayVersion=STRING,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_JOB_SPEC = fields(
    activeDeadlineSeconds=WHOLE | {"minimum": 1},
    backoffLimit=WHOLE | {"minimum": 0},
    rayClusterSpec=RAY_CLUSTER_SPEC,
    submitterPodTemplate=ANYTHING,
    metadata=TEXTS,
    clusterSelector=TEXTS,
    submitterConfig=fields(backoffLimit=WHOLE),
    managedBy=STRING,
    deletionStrategy=ANYTHING,
    entrypoint=STRING,
    runtimeEnvYAML=STRING,
    jobId=STRING,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointResources=STRING,
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    ttlSecondsAfterFinished=WHOLE,
    preRunningDeadlineSeconds=WHOLE | {"minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    suspend=FLAG,
)
METADATA = fields(name=STRING, generateName=STRING, namespace=STRING, labels=TEXTS, annotations=TEXTS)
SCHEMAS = {
    kind: fields(
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        apiVersion={"const": "ray.io/v1"},
        kind=STRING,
        metadata=METADATA,
        spec=s,
    )
    for kind, s in (("RayCluster", RAY_CLUSTER_SPEC), ("RayJob", RAY_JOB_SPEC))
}


def read(name: str) -> list[dict]:
    return list(yaml.safe_load_all((CLUSTERS / name).read_text()))


@pytest.fixture(params=["kuberay_cluster.yaml", "kuberay_job.yaml"])
def resource(request) -> dict:
    (found,) = read(request.param)
    return found


@pytest.fixture
def cluster_spec(resource) -> dict:
    return resource["spec"].get("rayClusterSpec", resource["spec"])


def pod_templates(resource: dict) -> dict[str, dict]:
    spec = resource["spec"].get("rayClusterSpec", resource["spec"])
    templates = {"head": spec["headGroupSpec"]["template"]}
    templates |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    if "submitterPodTemplate" in resource["spec"]:
        templates["submitter"] = resource["spec"]["submitterPodTemplate"]
    return templates


def test_kuberay_knows_every_field(resource):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(resource, SCHEMAS[resource["kind"]])
    misspelt = copy.deepcopy(resource)
    misspelt["spec"]["enableInTreeAutoscalling"] = True
    with pytest.raises(jsonschema.ValidationError, match="enableInTreeAutoscalling"):
        jsonschema.validate(misspelt, SCHEMAS[resource["kind"]])


def test_kubernetes_knows_every_field_of_the_pods(resource):
    kubernetes = pytest.importorskip("kubernetes_validate", reason="Kubernetes' own schemas come with it")
    for name, template in pod_templates(resource).items():
        metadata = {"name": name} | template["metadata"]
        kubernetes.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, "1.32", True
        )


def test_kubernetes_knows_every_field_of_what_is_shared():
    kubernetes = pytest.importorskip("kubernetes_validate", reason="Kubernetes' own schemas come with it")
    documents = read("kuberay_shared.yaml")
    for document in documents:
        kubernetes.validate(document, "1.32", True)
    assert len(documents) == len({document["kind"] for document in documents}) == 3


@pytest.fixture
def derived(cluster_spec) -> dict:
    """What Ray's autoscaler makes of it; `_derive...` ends with Ray's own check of the result."""
    autoscaling = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    pytest.importorskip("jsonschema", reason="Ray checks the result with it")
    metadata = {"name": "visual-sweep", "namespace": "default"}
    return autoscaling._derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": cluster_spec})


def test_ray_scales_the_groups_from_nothing_and_counts_what_their_pods_have(derived, cluster_spec):
    groups = derived["available_node_types"]
    head = groups.pop(derived["head_node_type"])
    assert head["resources"].get("GPU", 0) == 0
    for spec in cluster_spec["workerGroupSpecs"]:
        group = groups[spec["groupName"]]
        limits = spec["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["min_workers"] == 0 < group["max_workers"]
        assert group["resources"]["CPU"] == int(limits["cpu"])
        assert group["resources"].get("GPU", 0) == int(limits.get("nvidia.com/gpu", 0))
        assert group["resources"]["memory"] > 0
    assert 1 <= derived["idle_timeout_minutes"] <= 60


def test_groups_with_gpus_say_of_which_kind(derived):
    from orchestrator.capacity import GPU_MODELS

    groups = [each["resources"] for each in derived["available_node_types"].values() if each["resources"].get("GPU")]
    kinds = [name.split(":")[1] for group in groups for name in group if name.startswith("accelerator_type:")]
    assert len(groups) == len(set(kinds)) >= 2
    assert set(kinds) <= GPU_MODELS.keys()


def test_large_trials_find_room_over_pods(derived):
    from orchestrator.capacity import slots

    nodes = [
        group["resources"] for group in derived["available_node_types"].values() for _ in range(group["max_workers"])
    ]
    assert slots(({}, *[{"CPU": 1.0, "GPU": 1.0}] * 16), nodes) >= 1


def test_pods_have_no_more_rights_than_they_need(resource):
    templates = pod_templates(resource)
    for name, template in templates.items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 1000, name  # the image's
        # Only the autoscaler, beside the head, talks to Kubernetes.
        assert pod["automountServiceAccountToken"] == (name == "head"), name
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"], name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys(), name


def test_the_readme_makes_every_secret_that_pods_name(resource, cluster_spec):
    readme = (CLUSTERS / "README.md").read_text()
    named = {cluster_spec["authOptions"]["secretName"]}
    for template in pod_templates(resource).values():
        for container in template["spec"]["containers"]:
            sources = [variable.get("valueFrom", {}).get("secretKeyRef") for variable in container.get("env", [])]
            named |= {source["name"] for source in sources if source}
    assert all(f"kubectl create secret generic {name} " in readme for name in named)


def test_secrets_are_named_and_not_written_and_may_be_left_out(resource):
    secret = {"HF_TOKEN", "WANDB_API_KEY"}
    for name, template in pod_templates(resource).items():
        for container in template["spec"]["containers"]:
            variables = {variable["name"]: variable for variable in container.get("env", [])}
            assert secret <= variables.keys() or name == "submitter"
            for each in secret & variables.keys():
                assert "value" not in variables[each]
                assert variables[each]["valueFrom"]["secretKeyRef"]["optional"]


def test_nothing_is_reached_from_outside_and_ray_asks_for_a_token(cluster_spec):
    head = cluster_spec["headGroupSpec"]
    assert cluster_spec["authOptions"]["mode"] == "token"
    assert head["serviceType"] == "ClusterIP"
    assert not head.get("enableIngress")
    assert all("hostPort" not in port for port in head["template"]["spec"]["containers"][0]["ports"])


def test_the_network_policy_covers_every_pod_and_lets_each_reach_ray(resource):
    policy = next(each for each in read("kuberay_shared.yaml") if each["kind"] == "NetworkPolicy")["spec"]
    covered = policy["podSelector"]["matchLabels"]
    admitted = policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert covered == admitted
    for template in pod_templates(resource).values():
        assert covered.items() <= template["metadata"]["labels"].items()


def test_what_pods_mount_is_there(resource):
    claims = {
        each["metadata"]["name"] for each in read("kuberay_shared.yaml") if each["kind"] == "PersistentVolumeClaim"
    }
    accounts = {each["metadata"]["name"] for each in read("kuberay_shared.yaml") if each["kind"] == "ServiceAccount"}
    for template in pod_templates(resource).values():
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = [mount for container in pod["containers"] for mount in container.get("volumeMounts", [])]
        assert {mount["name"] for mount in mounts} == volumes.keys()
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in volumes.values()
            if "persistentVolumeClaim" in volume
        }
        assert used <= claims
        assert pod.get("serviceAccountName", "visual-sweep") in accounts


def test_both_files_describe_the_same_cluster():
    (cluster,), (job,) = read("kuberay_cluster.yaml"), read("kuberay_job.yaml")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_a_job_that_is_tried_again_ends_some_time():
    (job,) = read("kuberay_job.yaml")
    spec = job["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"]  # without it, a time to live means nothing
    mounts = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    sweep = spec["entrypoint"].split()[2]
    assert any(sweep.startswith(f"{mount['mountPath']}/") for mount in mounts)
