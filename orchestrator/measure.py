"""What a row says of the process that made it: versions of code and packages, most memory in use."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

PACKAGES = ("numpy", "torch", "diffusers", "transformers", "peft", "deepspeed", "ray")


def reset_peak_memory(device: str) -> None:
    """Begin a new measurement of ``peak_memory_bytes`` (on Linux and GPUs; elsewhere the process's peak counts)."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux


def peak_memory_bytes(device: str) -> int:
    """Most memory in use since ``reset_peak_memory``: resident size (CPU), or what torch allocated on the GPU."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found, "Linux says so in every status file"
        return int(found[1]) * 1024
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """``code_version`` (git's name of the checkout, else the installed version) and those of packages."""
    found = {"code_version": _code_version(), "python_version": platform.python_version()}
    for package in PACKAGES:
        try:
            found[f"{package}_version"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _code_version() -> str:
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--tags"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # no git, or no commit yet
    try:
        return importlib.metadata.version("visual-sweep")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
