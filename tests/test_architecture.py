"""Imports point one way: task_generators <- trainers <- orchestrator, and only the scheduler's files know Ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL_LIBRARIES = {"torch", "diffusers", "transformers", "peft", "deepspeed", "accelerate"}
FORBIDDEN = {
    "task_generators": {"ray", "trainers", "orchestrator"} | MODEL_LIBRARIES,
    "trainers": {"ray", "orchestrator"},
    "orchestrator": set(),
}


def source_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    """Top-level names of everything a file imports, at the top, in functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which package is meant"
            names.add((node.module or "").split(".")[0])
    return names


def may_import_ray(path: Path) -> bool:
    parts = path.relative_to(ROOT / "orchestrator").parts
    return parts[0].startswith("sweep") and parts[0] != "sweeps"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    files = source_files(package)
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(names)
        for path in files
        if (names := imported_packages(path) & FORBIDDEN[package])
    }
    assert wrong == {}


def test_only_the_sweep_imports_ray() -> None:
    wrong = [
        path for path in source_files("orchestrator") if "ray" in imported_packages(path) and not may_import_ray(path)
    ]
    assert wrong == []


def test_task_generators_load_without_model_libraries_or_compilation() -> None:
    """Also what is imported indirectly counts; numba waits for the first problem that needs it."""
    heavy = sorted(MODEL_LIBRARIES | {"ray", "numba", "pandas", "pyarrow", "matplotlib"})
    script = (
        "import sys; from task_generators.task import task_class, task_names\n"
        "import task_generators.transition_video, task_generators.grid_json, task_generators.splits\n"
        "for name in task_names(): task_class(name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
