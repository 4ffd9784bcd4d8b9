"""Running a sweep on Ray Tune. Only this folder imports ray."""

from orchestrator.sweep.cluster import node_resources
from orchestrator.sweep.runner import SweepOutcome, run

__all__ = ["SweepOutcome", "node_resources", "run"]
