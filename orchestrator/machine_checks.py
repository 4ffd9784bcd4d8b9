"""What ``sweep doctor`` looks at on a machine: one function a check, each of which returns one ``Check``.

Nothing is changed, nothing downloaded; what could hang or crash (Ray, DeepSpeed) is tried in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from trainers.backbone import BackboneSpec, backbone_names, backbone_spec
from trainers.installed import requirements, unmet
from trainers.weights_source import (
    HUB_TIMEOUT_S,
    cache_folder,
    call_within,
    free_bytes,
    hub_fault,
    is_hub_id,
    is_offline,
)

ROOT = Path(__file__).resolve().parent.parent
PROCESS_TIMEOUT_S = 120
"""A first import of DeepSpeed or start of Ray from a cold network disk takes most of this."""
LOCAL = "local"
GB = 1e9
DISK_PROBLEM_GB, DISK_WARNING_GB = 1, 10
SHARED_MEMORY_GB = 2
"""NCCL and Ray's object store pass tensors through it; a container has 64 MB unless told otherwise."""
MEMORY_GB = 4

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """What one look found, and what to do about it (empty where nothing is to be done)."""

    name: str
    status: Status
    finding: str
    advice: str = ""


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str
    memory_gb: float
    free_gb: float
    capability: tuple[int, int]


# --- software


def python() -> Check:
    """The interpreter."""
    return Check(
        "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}"
    )


def packages() -> Check:
    """What every installation needs, against the bounds in pyproject.toml."""
    faults, count = unmet(), len(requirements()[""])
    if not faults:
        return Check("packages", "ok", f"all {count} within the versions this package was tested with")
    status: Status = "problem" if any("not installed" in fault for fault in faults) else "warning"
    return Check("packages", status, "; ".join(faults), "pip install --editable . (or make quickstart)")


def extras() -> Check:
    """The optional ones."""
    absent = {extra: unmet(extra) for extra in requirements() if extra}
    parts = [f"{extra}: no ({', '.join(faults)})" if faults else f"{extra}: yes" for extra, faults in absent.items()]
    wanted = [extra for extra, faults in absent.items() if faults]
    advice = f"only if you need them: pip install --editable '.[{','.join(wanted)}]'" if wanted else ""
    return Check("extras", "ok", "; ".join(parts), advice)


def torch_build() -> Check:
    """The build of torch and its threads."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU"
    finding = f"{torch.__version__} ({build} build), {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    if build == "CPU" and _driver_version():
        advice = "install a CUDA build of torch: https://pytorch.org/get-started/locally"
        return Check("torch", "problem", f"{finding}; this machine has a GPU that it cannot use", advice)
    return Check("torch", "ok", finding)


def cuda() -> Check:
    """The devices, their memory, what they compute in."""
    devices = gpus()
    driver = _driver_version()
    if not devices:
        if driver:
            return Check("cuda", "problem", f"driver {driver}, but torch sees no device", _no_device_advice())
        return Check(
            "cuda", "ok", "no GPU here: tiny and small backbones run, those of billions of parameters need one"
        )
    import torch

    parts = [
        f"{gpu.name}, {gpu.free_gb:.0f} of {gpu.memory_gb:.0f} GB free, compute capability {gpu.capability[0]}."
        f"{gpu.capability[1]}"
        for gpu in devices
    ]
    finding = f"{len(devices)} device(s), driver {driver or 'unknown'}; {'; '.join(parts)}"
    compiled = [int(arch.split("_")[1].rstrip("af")) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    old = [gpu for gpu in devices if compiled and gpu.capability[0] * 10 + gpu.capability[1] < min(compiled)]
    if old:
        return Check("cuda", "problem", finding, f"this torch has no code for {old[0].name}: install a build that has")
    if any(gpu.capability < (8, 0) for gpu in devices):  # bf16 in hardware from Ampere on
        return Check("cuda", "warning", f"{finding}; no bf16 in hardware", "set recipe.precision: fp32")
    if any(gpu.free_gb < gpu.memory_gb / 2 for gpu in devices):
        return Check("cuda", "warning", f"{finding}; bf16", "other processes hold GPU memory, see: nvidia-smi")
    return Check("cuda", "ok", f"{finding}; bf16")


def nccl() -> Check:
    """What ranks of one trial talk through."""
    import torch.distributed

    backends = [name for name in ("nccl", "gloo") if getattr(torch.distributed, f"is_{name}_available")()]
    if not backends:
        return Check("nccl", "problem", "torch has neither nccl nor gloo", "install an official build of torch")
    if "nccl" in backends and torch.cuda.is_available():
        return Check("nccl", "ok", f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}, gloo for CPU ranks")
    if gpus():
        return Check("nccl", "problem", "no NCCL: trials of several GPUs cannot run", "install an official CUDA torch")
    return Check("nccl", "ok", "gloo, for trials of several CPU ranks; NCCL is used where there are GPUs")


def deepspeed() -> Check:
    """Whether it can be imported, and what it could compile its operators with."""
    done = run_python("import deepspeed; print('version', deepspeed.__version__)")
    version = next((line.split()[-1] for line in done.splitlines() if line.startswith("version ")), "")
    tools = {
        "g++": shutil.which("g++"),
        "ninja": shutil.which("ninja", path=f"{Path(sys.executable).parent}:{_path()}"),
    }
    absent = [name for name, found in tools.items() if not found]
    if not version:
        advice = "trials of several workers, or with a zero_stage, need it; if it looks for nvcc, set CUDA_HOME"
        return Check("deepspeed", "problem", f"cannot be imported: {_last_line(done)}", advice)
    compiles = f"no {', no '.join(absent)}: fine, as no operator is compiled" if absent else "g++ and ninja are here"
    return Check("deepspeed", "ok", f"{version}; {compiles}")


def ray() -> Check:
    """Whether a local Ray can start and run a task, or what the cluster that RAY_ADDRESS names has."""
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    nodes, answer = ray_nodes(address)
    if nodes is None:
        advice = (
            "try: python -c \"import ray; ray.init(address='local')\"; look at the disk room, and at /dev/shm"
            if address == LOCAL
            else "start the cluster (clusters/README.md), or unset RAY_ADDRESS to run on this machine"
        )
        return Check("ray", "problem", f"{address}: {answer}", advice)
    if address == LOCAL:
        return Check("ray", "ok", f"{_installed('ray')}: a local Ray starts and runs a task")
    total = [sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")]
    finding = f"{_installed('ray')}: {address} runs tasks; {len(nodes)} nodes, {total[0]:g} CPU, {total[1]:g} GPU"
    return Check("ray", "ok", finding)


@lru_cache
def ray_nodes(address: str) -> tuple[list[dict[str, float]] | None, str]:
    """Resources of each node of the Ray at ``address`` (``local``: one started for this and ended), after a task ran
    there; None and the reason where that fails."""
    script = (
        "import json; from orchestrator.sweep import node_resources\n"
        f"print('nodes', json.dumps(node_resources({address!r})))"
    )
    done = run_python(script)
    for line in done.splitlines():
        if line.startswith("nodes "):
            return json.loads(line.removeprefix("nodes ")), ""
    return None, _last_line(done)


# --- machine


def memory() -> Check:
    """RAM that new processes can have."""
    free = free_memory_gb()
    if free is None:
        return Check("memory", "ok", "this system does not say")
    if free < MEMORY_GB:
        return Check("memory", "warning", f"{free:.1f} GB free", "end other programs; run fewer trials: --workers 1")
    return Check("memory", "ok", f"{free:.1f} GB free")


def shared_memory() -> Check:
    """Size of /dev/shm."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("/dev/shm", "ok", "there is none on this system")
    free = free_bytes(folder) / GB
    advice = "in a container: docker run --shm-size=8g (Kubernetes: an emptyDir of medium Memory at /dev/shm)"
    if free < SHARED_MEMORY_GB:
        return Check("/dev/shm", "warning", f"{free:.1f} GB free", advice)
    return Check("/dev/shm", "ok", f"{free:.1f} GB free")


def disk(name: str, folder: Path, advice: str) -> Check:
    """Room on the disk of ``folder``, which need not exist yet, and whether it can be written."""
    here = folder
    while not here.exists():
        here = here.parent
    free = free_bytes(folder) / GB
    finding = f"{free:.0f} GB free at {folder}"
    if not os.access(here, os.W_OK):
        return Check(name, "problem", f"{folder} cannot be written", advice)
    if free < DISK_WARNING_GB:
        return Check(
            name, "problem" if free < DISK_PROBLEM_GB else "warning", f"{free:.1f} GB free at {folder}", advice
        )
    return Check(name, "ok", finding)


def weights_disk() -> Check:
    """Where the hub's client keeps weights."""
    return disk("weights disk", cache_folder(), "make room, or set HF_HOME to a larger disk")


def temporary_disk() -> Check:
    """Where Ray keeps its sessions."""
    return disk("temporary disk", Path(tempfile.gettempdir()), "make room, or set TMPDIR to a larger disk")


# --- the hub


def hub() -> Check:
    """Whether the hub answers, and as whom we ask."""
    from huggingface_hub import HfApi, constants, get_token

    advice = (
        "`hf download ORG/NAME` elsewhere and copy the cache, or placement.weights_folder; tiny backbones need none"
    )
    if is_offline():
        return Check("hub", "warning", "HF_HUB_OFFLINE is set: only what is in the cache", f"unset it, or {advice}")
    if get_token() is None:
        spec = _hub_specs()[0].model_copy(update={"revision": None})
        fault = hub_fault(spec)
        if "cannot be reached" in fault:
            return Check("hub", "warning", f"{constants.ENDPOINT} cannot be reached", advice)
        return Check(
            "hub", "ok", f"{constants.ENDPOINT} answers; no token", "for gated models set HF_TOKEN (hf auth login)"
        )
    try:
        user = call_within(HUB_TIMEOUT_S, lambda: HfApi().whoami())
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            return Check(
                "hub", "problem", f"{constants.ENDPOINT} refuses the token", "make a new HF_TOKEN, or unset it"
            )
        return Check("hub", "warning", f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})", advice)
    return Check("hub", "ok", f"{constants.ENDPOINT} answers; signed in as {user.get('name', '?')}")


def gated_models() -> Check:
    """Whether our gated flavours are open to this account."""
    from concurrent.futures import ThreadPoolExecutor

    gated = [spec for spec in _hub_specs() if spec.gated]
    if not gated:
        return Check("gated models", "ok", "none among the backbones")
    if is_offline():
        return Check("gated models", "ok", "not asked: HF_HUB_OFFLINE is set")
    with ThreadPoolExecutor(len(gated)) as threads:
        faults = dict(zip([spec.name for spec in gated], threads.map(hub_fault, gated), strict=True))
    if any("cannot be reached" in fault for fault in faults.values()):
        return Check("gated models", "ok", "not asked: the hub cannot be reached")
    shut = [spec for spec in gated if faults[spec.name]]
    finding = "; ".join(f"{name}: {'no' if fault else 'yes'}" for name, fault in faults.items())
    advice = "; ".join(dict.fromkeys(faults[spec.name] for spec in shut))
    return Check("gated models", "warning" if shut else "ok", finding, advice and f"only if you need them: {advice}")


# --- what the checks share


def gpus() -> list[Gpu]:
    """The CUDA devices that torch sees here."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(properties.name, total / GB, free / GB, (properties.major, properties.minor)))
    return found


def free_memory_gb() -> float | None:
    """RAM that is available within the control group's limit; None where the system does not say (no Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        available = fields["MemAvailable"] * 1024
    except (OSError, LookupError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            available = min(available, int(limit) - int(used))
    except (OSError, ValueError):
        pass  # no control group of version 2
    return available / GB


def run_python(script: str, timeout_s: float = PROCESS_TIMEOUT_S) -> str:
    """What ``script`` prints, errors included, in an interpreter of its own that ends after ``timeout_s``."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": paths},
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # a driver of Ray ends its Ray at this
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"no answer within {timeout_s:g} s"


def _hub_specs() -> list[BackboneSpec]:
    specs = [backbone_spec(name) for name in backbone_names()]
    return sorted((spec for spec in specs if is_hub_id(spec.repo_id)), key=lambda spec: spec.gated)


def _installed(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


@lru_cache(maxsize=1)
def _driver_version() -> str:
    """Of the NVIDIA driver; empty where there is none."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.split()), "")


def _no_device_advice() -> str:
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}: unset it"
    return "the driver may be too old for this build of torch, or the container was started without --gpus all"


def _last_line(text: str) -> str:
    return next((" ".join(line.split()) for line in reversed(text.splitlines()) if line.strip()), "no output")
