"""Whether the packages that ``pyproject.toml`` asks for are installed, in the versions it asks for."""

from __future__ import annotations

import importlib.metadata
import tomllib
from functools import lru_cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = "visual-sweep"
PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


@lru_cache(maxsize=1)
def requirements() -> dict[str, tuple[Requirement, ...]]:
    """What this package needs, by extra; "" are the packages that every installation needs.

    A checkout's ``pyproject.toml`` comes before the installed metadata: an editable installation's metadata keep what
    was asked for on the day it was installed.
    """
    if PYPROJECT.is_file():
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        by_extra = {"": project["dependencies"], **project.get("optional-dependencies", {})}
        return {canonicalize_name(extra): tuple(map(Requirement, texts)) for extra, texts in by_extra.items()}
    metadata = importlib.metadata.metadata(DISTRIBUTION)
    found: dict[str, list[Requirement]] = {
        "": [],
        **{canonicalize_name(extra): [] for extra in metadata.get_all("Provides-Extra") or ()},
    }
    for requirement in map(Requirement, metadata.get_all("Requires-Dist") or ()):
        owners = [e for e in found if requirement.marker is None or requirement.marker.evaluate({"extra": e})]
        for extra in [""] if "" in owners else owners:
            found[extra].append(requirement)
    return {extra: tuple(needed) for extra, needed in found.items()}


def unmet(extra: str = "") -> list[str]:
    """What is not as it should be, one phrase a package: ``av is not installed``, ``torch 2.3.0, not <2.14,>=2.11``."""
    by_extra = requirements()
    assert canonicalize_name(extra) in by_extra, f"pyproject.toml has no extra {extra!r}: {sorted(by_extra)}"
    faults = []
    for requirement in by_extra[canonicalize_name(extra)]:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} {version}, not {requirement.specifier}")
    return faults
