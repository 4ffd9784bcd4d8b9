"""What `sweep doctor` finds on machines that lack one thing or another."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from orchestrator import doctor, machine_checks
from orchestrator.cli import main
from orchestrator.doctor import run_checks
from orchestrator.machine_checks import GB, Check, Gpu, run_python
from orchestrator.specs import expand, load_sweep
from trainers.backbone import backbone_spec

LARGE = "cogvideox/1.5-5b-i2v"
SMALL_GPU = Gpu("Small", memory_gb=16, free_gb=15, capability=(8, 6))


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Nothing but this folder: no hub, no cluster, nothing cached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    machine_checks.ray_nodes.cache_clear()


@pytest.fixture
def without_processes(monkeypatch):
    """DeepSpeed and Ray answer at once, as if they had started."""
    nodes = 'nodes [{"CPU": 1}]'
    monkeypatch.setattr(machine_checks, "run_python", lambda script: nodes if "ray" in script else "version 9.9")


def write_sweep(tmp_path, *backbones, **keys):
    lines = [f"name: s\nbackbones: [{', '.join(backbones)}]\ntasks: [life]\nn_train: [3]\nn_test: 4"]
    (tmp_path / "s.yaml").write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in keys.items())]))
    return "s.yaml"


def trials_of(tmp_path, *backbones, **keys):
    return expand(load_sweep(write_sweep(tmp_path, *backbones, **keys)))


def checks_of(capsys, *arguments):
    status = main(["doctor", "--json", *arguments])
    found = [Check(**check) for check in json.loads(capsys.readouterr().out)]
    assert status == any(check.status == "problem" for check in found)
    return found


def test_one_line_a_check(without_processes, capsys):
    status = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    names = [line[9:24].strip() for line in lines[:-1]]
    assert names == [name for name, _ in doctor.machine_list(with_ray=True)] + ["results disk"]
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "warning", "problem"}
    assert lines[-1].startswith(f"{sum(line.startswith('ok ') for line in lines)} ok, ")
    assert status == any(line.startswith("problem") for line in lines)


def test_json_and_without_ray(without_processes, capsys):
    found = {check.name: check for check in checks_of(capsys, "--no-ray")}
    assert "ray" not in found
    assert found["python"].finding.startswith(sys.version.split()[0])
    assert found["hub"].status == "warning"
    assert "HF_HUB_OFFLINE" in found["hub"].finding


def test_a_sweep_adds_what_it_needs(without_processes, capsys, tmp_path):
    good = checks_of(capsys, write_sweep(tmp_path, "causal_lm/tiny", "baseline/oracle"))[-5:]
    assert [check.name for check in good] == ["results", "weights", "weights", "GPUs", "trial memory"]
    assert {check.status for check in good} == {"ok"}
    bad = checks_of(capsys, write_sweep(tmp_path, "causal_lm/tiny", LARGE))
    (weights,) = [check for check in bad if check.name == "weights" and check.status == "problem"]
    assert weights.finding.startswith(f"backbone {LARGE}: HF_HUB_OFFLINE is set")


def test_what_is_wrong_with_a_sweep_is_bad_input(capsys, tmp_path):
    assert main(["doctor", "absent.yaml"]) == 2
    assert main(["doctor", write_sweep(tmp_path, "causal_lm/tny")]) == 2
    assert "did you mean 'causal_lm/tiny'" in capsys.readouterr().err


def test_a_check_that_fails_itself_is_a_line():
    def broken():
        raise RuntimeError("of\nmany lines")

    broken_line, good = run_checks([("one", broken), ("two", lambda: Check("two", "ok", "fine"))])
    assert broken_line == Check(
        "one", "warning", "this check itself failed (RuntimeError: of many lines)", "look at it by hand"
    )
    assert good.finding == "fine"


# --- single checks


def test_packages_that_are_absent_are_a_problem_and_others_a_warning(monkeypatch):
    for faults, status in ([], "ok"), (["torch 9, not <3"], "warning"), (["av is not installed"], "problem"):
        monkeypatch.setattr(machine_checks, "unmet", lambda extra="", faults=faults: faults)
        check = machine_checks.packages()
        assert check.status == status
        assert all(fault in check.finding for fault in faults)
        assert bool(check.advice) == bool(faults)


def test_extras_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(machine_checks, "unmet", lambda extra="": ["av is not installed"] if extra == "video" else [])
    check = machine_checks.extras()
    assert "video: no (av is not installed)" in check.finding
    assert "'.[video]'" in check.advice


def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch):
    import torch

    monkeypatch.setattr(machine_checks, "_driver_version", lambda: "550.1")
    monkeypatch.setattr(machine_checks, "gpus", list)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert machine_checks.torch_build().status == "problem"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in machine_checks.cuda().advice
    monkeypatch.setattr(machine_checks, "_driver_version", lambda: "")
    assert (machine_checks.torch_build().status, machine_checks.cuda().status) == ("ok", "ok")


@pytest.mark.parametrize(
    ("gpu", "status", "words"),
    [
        (SMALL_GPU, "ok", "Small, 15 of 16 GB free, compute capability 8.6; bf16"),
        (Gpu("Old", 16, 15, (7, 5)), "warning", "no bf16"),
        (Gpu("Busy", 80, 10, (9, 0)), "warning", "10 of 80 GB free"),
        (Gpu("Ancient", 8, 8, (3, 5)), "problem", "Ancient"),
    ],
)
def test_what_is_said_of_a_gpu(monkeypatch, gpu, status, words):
    import torch

    monkeypatch.setattr(machine_checks, "gpus", lambda: [gpu])
    monkeypatch.setattr(machine_checks, "_driver_version", lambda: "550.1")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86", "sm_90a", "compute_90"])
    check = machine_checks.cuda()
    assert check.status == status
    assert words in check.finding


def test_disk_room(tmp_path, monkeypatch):
    for free_gb, status in ((50, "ok"), (5, "warning"), (0.5, "problem")):
        monkeypatch.setattr(machine_checks, "free_bytes", lambda folder, free_gb=free_gb: free_gb * GB)
        check = machine_checks.disk("results disk", tmp_path / "not" / "there", "make room")
        assert (check.status, check.advice) == (status, "" if status == "ok" else "make room")
    assert list(tmp_path.iterdir()) == []


def test_little_memory_is_a_warning(monkeypatch):
    for free_gb, status in ((1.0, "warning"), (100.0, "ok"), (None, "ok")):
        monkeypatch.setattr(machine_checks, "free_memory_gb", lambda free_gb=free_gb: free_gb)
        assert machine_checks.memory().status == status


def test_deepspeed_and_ray_that_do_not_start(monkeypatch):
    monkeypatch.setattr(machine_checks, "run_python", lambda script: "Traceback\nRuntimeError: no nvcc\n")
    assert machine_checks.deepspeed().finding == "cannot be imported: RuntimeError: no nvcc"
    assert machine_checks.ray().finding == "local: RuntimeError: no nvcc"
    assert (machine_checks.deepspeed().status, machine_checks.ray().status) == ("problem", "problem")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert "unset RAY_ADDRESS" in machine_checks.ray().advice


def test_a_local_ray_starts_and_ends():
    assert machine_checks.ray() == Check(
        "ray", "ok", f"{machine_checks._installed('ray')}: a local Ray starts and runs a task"
    )


def test_a_process_that_hangs_is_ended():
    started = time.monotonic()
    assert run_python("import time; time.sleep(60)", timeout_s=0.5) == "no answer within 0.5 s"
    assert time.monotonic() - started < 10
    assert "ZeroDivisionError" in run_python("1 / 0")


def test_the_hub_without_a_network_or_with_a_refused_token(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(machine_checks, "hub_fault", lambda spec: "X cannot be reached (why)")
    assert machine_checks.hub().status == "warning"
    monkeypatch.setattr(machine_checks, "hub_fault", lambda spec: "")
    assert machine_checks.hub().status == "ok"
    assert "HF_TOKEN" in machine_checks.hub().advice

    class RefusedError(Exception):
        response = SimpleNamespace(status_code=401)

    def refuse(self):
        raise RefusedError

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub.HfApi, "whoami", refuse)
    assert machine_checks.hub().status == "problem"
    monkeypatch.setattr(huggingface_hub.HfApi, "whoami", lambda self: {"name": "ada"})
    assert "signed in as ada" in machine_checks.hub().finding


def test_gated_models_say_which_terms_to_accept(monkeypatch):
    gated = [backbone_spec(LARGE).model_copy(update={"name": f"a/{name}", "gated": True}) for name in ("open", "shut")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(machine_checks, "_hub_specs", lambda: gated)
    monkeypatch.setattr(machine_checks, "hub_fault", lambda spec: "accept the terms" if spec.name == "a/shut" else "")
    check = machine_checks.gated_models()
    assert (check.status, check.finding) == ("warning", "a/open: yes; a/shut: no")
    assert "accept the terms" in check.advice


# --- what a sweep needs


def test_more_gpus_than_there_are_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "gpus", lambda: [SMALL_GPU])
    trials = trials_of(tmp_path, LARGE, placement="{num_workers: 2}")
    check = doctor.check_gpus(trials, with_ray=True)
    assert check.status == "problem"
    assert "asks for 2, this machine has 1" in check.finding
    assert doctor.check_gpus(trials_of(tmp_path, LARGE), with_ray=True).status == "ok"
    monkeypatch.setattr(doctor, "gpus", list)
    check = doctor.check_gpus(trials, with_ray=True)
    assert check.status == "warning"
    assert f"{LARGE} would run without a GPU" in check.finding
    asked = trials_of(tmp_path, "causal_lm/tiny", placement="{gpus_per_worker: 1}")
    assert doctor.check_gpus(asked, with_ray=True).status == "problem"


def test_a_cluster_is_asked_for_its_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(doctor, "ray_nodes", lambda address: ([{"CPU": 8, "GPU": 4}, {"CPU": 8}], ""))
    for num_workers, status in ((4, "ok"), (5, "problem")):
        trials = trials_of(tmp_path, LARGE, placement=f"{{num_workers: {num_workers}}}")
        assert doctor.check_gpus(trials, with_ray=True).status == status
        assert doctor.check_gpus(trials, with_ray=False).status == "ok"


def test_memory_of_the_device_that_a_trial_runs_on(tmp_path, monkeypatch):
    trials = trials_of(tmp_path, LARGE, "causal_lm/tiny")
    monkeypatch.setattr(doctor, "free_memory_gb", lambda: 8.0)
    monkeypatch.setattr(doctor, "gpus", lambda: [SMALL_GPU])
    check = doctor.check_memory(trials)
    assert check.status == "warning"
    assert f"{LARGE} needs about {backbone_spec(LARGE).memory_gb:g} GB, 16 GB of a GPU" in check.finding
    assert "causal_lm/tiny" not in check.finding
    monkeypatch.setattr(doctor, "gpus", list)
    assert "8 GB of RAM are free" in doctor.check_memory(trials).finding
    monkeypatch.setattr(doctor, "gpus", lambda: [Gpu("Large", 141, 140, (9, 0))])
    assert doctor.check_memory(trials).status == "ok"


def test_results_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    path = write_sweep(tmp_path, "baseline/oracle", results="file/below")
    assert doctor.check_results(load_sweep(path)).status == "problem"
