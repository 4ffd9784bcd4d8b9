"""The Ray to run on: started here or joined, what its nodes have, and how many trials find room there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from orchestrator.capacity import Bundles
from orchestrator.specs import TrialSpec

OBJECT_STORE_BYTES = 256 * 1024**2
"""Of a Ray started here. Only specs travel through it; Ray's default is a third of the machine's memory."""

QUIET_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files a trial double the overhead
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours stops within a second and keeps the rows
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # Tune's state is never read again
    "TUNE_MAX_PENDING_TRIALS_PG": str(10**6),  # our searcher hands out no more than find room
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints its banner at any verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves trials beside anything else on the machine
}

ROUNDING = 1e-9

Nodes = dict[str, dict[str, float]]
"""What each node has (or has left), by the node's id."""


@contextmanager
def joined_ray(cpus: float) -> Iterator[None]:
    """A Ray to run on: the caller's, the one RAY_ADDRESS names, or one started here that ends with the block.

    ``cpus`` is how many one started here is to have at least, real or not.
    """
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what failed is a row and a line of the display
    try:
        with _caller_s_or_new_ray(cpus):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _caller_s_or_new_ray(cpus: float) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    for name, value in QUIET_TUNE.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, **quiet)
    else:
        _make_importable_in_workers()
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, round(cpus)) if cpus else None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def node_resources(address: str) -> list[dict[str, float]]:
    """Join the Ray at ``address`` (``local``: start a small one), run a task, and leave (end) it: resources by node.

    For a process of its own, such as ``sweep doctor`` starts: raises whatever Ray raises, and may wait long for it.
    What an autoscaler may still start counts as nodes.
    """
    for name, value in QUIET_TUNE.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"num_cpus": 1, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(address=address, **options)
    try:
        ray.get(ray.remote(lambda: None).remote())
        return list(nodes().values())
    finally:
        ray.shutdown()


def nodes() -> Nodes:
    """The nodes of the Ray that was joined, and those that its autoscaler may still start."""
    alive = {node["NodeID"]: dict(node["Resources"]) for node in ray.nodes() if node["Alive"]}
    return alive | _nodes_to_come(alive)


def _nodes_to_come(alive: Nodes) -> Nodes:
    """What the autoscaler may start, by the limits of each of its node groups; none where there is no autoscaler."""
    config = ray._private.state.state.get_cluster_config()  # no public call says so
    if config is None:
        return {}
    to_come: Nodes = {}
    for group in config.node_group_configs:
        resources = {name: float(amount) for name, amount in group.resources.items() if amount > 0}
        running = sum(_is_of_group(node, resources) for node in alive.values())
        for place in range(running, group.max_count):
            to_come[f"{group.name}-{place}"] = resources
    return to_come


def _is_of_group(node: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    return all(node.get(name) == amount for name, amount in resources.items() if name in ("CPU", "GPU"))


def shape(trial_bundles: Bundles) -> str:
    """The same text for trials that the same workers can run."""
    return ";".join(",".join(f"{name}:{amount:g}" for name, amount in sorted(each.items())) for each in trial_bundles)


class Room:
    """Which trials find room: a book of what is free on each node, kept by this driver alone.

    What other jobs of the cluster hold is not in it: then Ray lets a trial wait, and nothing is lost.
    """

    def __init__(self, nodes_at_start: Nodes, max_trials: int | None = None) -> None:
        self._total = nodes_at_start
        self._free = {name: dict(node) for name, node in nodes_at_start.items()}
        self._taken: dict[int, list[tuple[str, dict[str, float]]]] = {}
        self._max_trials = max_trials

    @property
    def num_trials(self) -> int:
        """Trials that have room now."""
        return len(self._taken)

    def has_gpus(self) -> bool:
        """Whether any node has a GPU."""
        return any(node.get("GPU", 0) > 0 for node in self._total.values())

    def fits(self, trial_bundles: Bundles) -> bool:
        """Whether there is room for one more."""
        if self._max_trials is not None and self.num_trials >= self._max_trials:
            return False
        return _placed(self._free, trial_bundles) is not None

    def take(self, owner: int, trial_bundles: Bundles) -> None:
        """Note that ``owner`` has these bundles now."""
        placed = _placed(self._free, trial_bundles) or []
        for name, bundle in placed:
            for resource, amount in bundle.items():
                self._free[name][resource] -= amount
        self._taken[owner] = placed

    def give_back(self, owner: int) -> None:
        """Note that ``owner`` has gone."""
        for name, bundle in self._taken.pop(owner):
            for resource, amount in bundle.items() if name in self._free else ():
                self._free[name][resource] += amount

    def update(self, nodes_now: Nodes) -> None:
        """Nodes came or went."""
        for name in self._free.keys() - nodes_now.keys():
            del self._free[name]
        for name in nodes_now.keys() - self._free.keys():
            self._free[name] = dict(nodes_now[name])
        self._total = nodes_now

    def check(self, spec: TrialSpec, trial_bundles: Bundles) -> None:
        """ValueError when a trial finds no room on an idle cluster: its placement group would wait for ever."""
        if _placed({name: dict(node) for name, node in self._total.items()}, trial_bundles) is not None:
            return
        bundle = max(trial_bundles, key=lambda each: sum(each.values()))
        asked = ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())
        has = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in self._total.values())
        raise ValueError(
            f"placement: {spec.label()} asks for {spec.placement.num_workers} x ({asked}), which do not fit "
            f"on {len(self._total)} node(s) of ({has}); lower num_workers, cpus_per_worker or gpus_per_worker"
        )

    def capacity(self, trial_bundles: Bundles, most: int) -> int:
        """How many such trials an idle cluster holds, from 1 to ``most``."""
        free = {name: dict(node) for name, node in self._total.items()}
        count = 0
        while count < most and (placed := _placed(free, trial_bundles)) is not None:
            for name, bundle in placed:
                for resource, amount in bundle.items():
                    free[name][resource] -= amount
            count += 1
        return max(1, count)


def _placed(free: Nodes, trial_bundles: Bundles) -> list[tuple[str, dict[str, float]]] | None:
    """Which node takes each bundle, and what that holds there, the largest first; None when one finds no room."""
    left: Nodes = {}
    placed = []
    for bundle in sorted(map(_held, trial_bundles), key=lambda each: -sum(each.values())):
        if not bundle:
            continue
        for name, node in free.items():
            room = left.get(name, node)
            if all(room.get(resource, 0) >= amount - ROUNDING for resource, amount in bundle.items()):
                left[name] = {key: value - bundle.get(key, 0) for key, value in room.items()}
                placed.append((name, bundle))
                break
        else:
            return None
    return placed


def _held(bundle: Mapping[str, float]) -> dict[str, float]:
    """What a bundle takes of a node: a share of a GPU lies on one GPU, so three of 0.3 fill it."""
    share = bundle.get("GPU", 0)
    return dict(bundle) | ({"GPU": 1 / int(1 / share + ROUNDING)} if 0 < share < 1 else {})


def _make_importable_in_workers() -> None:
    """A Ray started here inherits this environment: let its workers find this very checkout, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])


def cpus_for(trials: Sequence[TrialSpec], workers: int | None) -> float:
    """CPUs that a Ray started here needs for ``workers`` of the largest of these trials; 0: those of the machine."""
    return workers * max((trial.placement.cpus_per_worker for trial in trials), default=1) if workers else 0.0
