"""Running a sweep on Ray Tune. Only this folder imports ray."""

from orchestrator.sweep.runner import SweepOutcome, node_resources, run

__all__ = ["SweepOutcome", "node_resources", "run"]
