"""``sweep doctor [SWEEP.yaml]``: checks the machine, and what a sweep needs of it; says what to do.

Each check prints one line as it ends: ok, warning (some sweeps will not run, or badly) or problem (none will, or not
this one). The checks of the machine are in ``orchestrator.machine_checks``; here are those of a sweep.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orchestrator import machine_checks
from orchestrator.backbone_commands import unavailable, weights_source
from orchestrator.machine_checks import Check, Status, disk, free_memory_gb, gpus, ray_nodes
from orchestrator.specs import SweepSpec, TrialSpec, expand, load_sweep
from trainers.weights_source import located

STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "problem": "red"}
NAME_WIDTH = 15
AT_ONCE = 4

NamedCheck = tuple[str, Callable[[], Check]]


def doctor(arguments: argparse.Namespace, console: Console) -> int:
    """``sweep doctor [SWEEP.yaml] [--no-ray] [--json]``; exit status 1 when there is a problem."""
    checks = machine_list(with_ray=not arguments.no_ray)
    if arguments.sweep is not None:
        sweep = load_sweep(arguments.sweep)
        checks += sweep_list(sweep, expand(sweep), with_ray=not arguments.no_ray)
    else:
        checks.append(("results disk", partial(disk, "results disk", Path("results"), "make room")))
    done = []
    for check in run_checks(checks):
        done.append(check)
        if not arguments.json:
            console.print(_line(check), soft_wrap=True)
    counts = Counter(check.status for check in done)
    if arguments.json:
        print(json.dumps([asdict(check) for check in done], indent=2))
    else:
        numbers = [f"{counts['ok']} ok"]
        for status in ("warning", "problem"):
            numbers.append(f"{counts[status]} {status}{'' if counts[status] == 1 else 's'}")
        console.print(Text(", ".join(numbers), style="bold"))
    return int(counts["problem"] > 0)


def machine_list(*, with_ray: bool) -> list[NamedCheck]:
    """The checks of this machine, in the order in which they are shown."""
    checks: list[NamedCheck] = [
        ("python", machine_checks.python),
        ("packages", machine_checks.packages),
        ("extras", machine_checks.extras),
        ("torch", machine_checks.torch_build),
        ("cuda", machine_checks.cuda),
        ("nccl", machine_checks.nccl),
        ("deepspeed", machine_checks.deepspeed),
        ("ray", machine_checks.ray),
        ("memory", machine_checks.memory),
        ("/dev/shm", machine_checks.shared_memory),
        ("temporary disk", machine_checks.temporary_disk),
        ("weights disk", machine_checks.weights_disk),
        ("hub", machine_checks.hub),
        ("gated models", machine_checks.gated_models),
    ]
    return [check for check in checks if with_ray or check[0] != "ray"]


def sweep_list(sweep: SweepSpec, trials: Sequence[TrialSpec], *, with_ray: bool) -> list[NamedCheck]:
    """The checks of what ``sweep`` needs here (of GPUs: on the cluster of RAY_ADDRESS, where there is one)."""
    by_backbone: dict[str, list[TrialSpec]] = {}
    for trial in trials:
        by_backbone.setdefault(trial.backbone, []).append(trial)
    return [
        ("results", partial(check_results, sweep)),
        *(("weights", partial(check_weights, cells)) for cells in by_backbone.values()),
        ("GPUs", partial(check_gpus, trials, with_ray=with_ray)),
        ("trial memory", partial(check_memory, trials)),
    ]


def run_checks(checks: Sequence[NamedCheck]) -> Iterator[Check]:
    """What each check finds, in order, several at work at once. One that fails itself is a warning that says how."""
    # torch survives no import by two threads at once: it is imported here, or else by one check at a time.
    try:
        import torch.distributed  # noqa: F401

        at_once = AT_ONCE
    except Exception:  # whatever is wrong with it, the check of torch will say so
        at_once = 1
    with ThreadPoolExecutor(at_once) as threads:
        for future in [threads.submit(_guarded, name, function) for name, function in checks]:
            yield future.result()


def check_results(sweep: SweepSpec) -> Check:
    """Whether the results folder can be written (it is made when it is not there), and has room."""
    from orchestrator import results

    try:
        results.check_writable(sweep.results_uri)
    except ValueError as error:
        return Check("results", "problem", str(error), "set results: to another folder, or give yourself the right")
    if "://" in sweep.results_uri:
        return Check("results", "ok", f"{sweep.results_uri} can be written")
    return disk("results", Path(sweep.results_uri), "make room, or set results: to another disk")


def check_weights(trials: Sequence[TrialSpec]) -> Check:
    """Whether the weights of one backbone, which all ``trials`` have, can be had."""
    faults = unavailable(trials)
    if faults:
        return Check("weights", "problem", "; ".join(faults))  # each says what to do
    spec = located(trials[0].backbone_spec, trials[0].placement.weights_folder)
    return Check("weights", "ok", f"{spec.name}: {weights_source(spec)}")


def check_gpus(trials: Sequence[TrialSpec], *, with_ray: bool) -> Check:
    """Whether the sweep's largest trial fits the GPUs that there are, and whether large backbones have any."""
    address = os.environ.get("RAY_ADDRESS")
    if address and not with_ray:
        return Check("GPUs", "ok", f"not asked of {address} (--no-ray)")
    if address:
        nodes, answer = ray_nodes(address)
        if nodes is None:
            return Check("GPUs", "warning", f"not known: {answer}", "see the check of ray")
        available, where = sum(node.get("GPU", 0) for node in nodes), f"the cluster {address}"
    else:
        available, where = float(len(gpus())), "this machine"
    asked, trial = max(((_gpus_asked(trial, available), trial) for trial in trials), key=lambda pair: pair[0])
    if asked > available:
        return Check(
            "GPUs",
            "problem",
            f"{trial.label()} asks for {asked:g}, {where} has {available:g}",
            "lower placement.num_workers or gpus_per_worker, or run it on a larger cluster (RAY_ADDRESS)",
        )
    on_cpu = sorted({trial.backbone for trial in trials if trial.backbone_spec.num_gpus and _on_cpu(trial, available)})
    if on_cpu:
        finding = f"{', '.join(on_cpu)} would run without a GPU on {where}"
        return Check(
            "GPUs", "warning", finding, "days a trial: run it where there are GPUs, or take a smaller backbone"
        )
    return Check("GPUs", "ok", f"a trial takes up to {asked:g}, {where} has {available:g}")


def check_memory(trials: Sequence[TrialSpec]) -> Check:
    """Whether a training step of each backbone fits the memory of the device it runs on."""
    if os.environ.get("RAY_ADDRESS"):
        return Check("trial memory", "ok", "not checked: the memory of a cluster's devices is not seen from here")
    devices, free_gb = gpus(), free_memory_gb()
    faults = []
    for trial in {trial.backbone: trial for trial in trials}.values():
        on_cpu = _on_cpu(trial, len(devices))
        room_gb = free_gb if on_cpu else min(device.memory_gb for device in devices)
        if room_gb is not None and trial.backbone_spec.memory_gb > room_gb:
            has = f"{room_gb:.0f} GB of {'RAM are free' if on_cpu else 'a GPU'}"
            faults.append(f"{trial.backbone} needs about {trial.backbone_spec.memory_gb:g} GB, {has}")
    if faults:
        advice = "placement: {gradient_checkpointing: true, micro_batch_size: 1}"
        if devices:
            advice += ", several workers with zero_stage: 3, or recipe: {precision: nf4}"
        return Check("trial memory", "warning", "; ".join(faults), advice)
    return Check("trial memory", "ok", "a training step of every backbone should fit")


def _gpus_asked(trial: TrialSpec, available: float) -> float:
    """As ``orchestrator.sweep`` asks for them: a backbone's own number only where there are any."""
    asked = trial.placement.gpus_per_worker
    if asked is None:
        asked = trial.backbone_spec.num_gpus if available else 0.0
    return asked * trial.placement.num_workers


def _on_cpu(trial: TrialSpec, available: float) -> bool:
    return not available or _gpus_asked(trial, available) == 0


def _guarded(name: str, function: Callable[[], Check]) -> Check:
    try:
        return function()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(name, "warning", f"this check itself failed ({reason})", "look at it by hand")


def _line(check: Check) -> Text:
    text = Text(f"{check.status:<8} ", style=STYLES[check.status])
    text.append(f"{check.name:<{NAME_WIDTH}} ", style="bold").append(check.finding, style="not bold default")
    return text.append(f" -> {check.advice}", style="default") if check.advice else text
