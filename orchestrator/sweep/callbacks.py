"""Loggers that a sweep's ``callbacks`` name: Ray Tune's own, off by default. Then every trial is a Tune trial."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ray import tune

if TYPE_CHECKING:
    from orchestrator.specs import SweepSpec

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def logger_callbacks(sweep: SweepSpec) -> list[tune.Callback]:
    """A callback for each name. ValueError when its package is not installed."""
    found: list[tune.Callback] = []
    for name in sweep.callbacks:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ValueError(f"callbacks = {name}: needs the package {PACKAGES[name]}: pip install {PACKAGES[name]}")
        found.append(_callback(name, sweep))
    return found


def _callback(name: str, sweep: SweepSpec) -> tune.Callback:
    if name == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()
    if name == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        return WandbLoggerCallback(project=sweep.name)
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(experiment_name=sweep.name)


def storage_folder(sweep: SweepSpec, temporary: str) -> str:
    """Where Tune keeps the files of its trials: only TensorBoard's are of use later, and lie beside the tables."""
    if "tensorboard" in sweep.callbacks and "://" not in sweep.results_uri:
        return str(Path(sweep.results_uri, "tensorboard").absolute())
    return temporary
