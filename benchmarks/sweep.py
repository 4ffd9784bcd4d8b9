"""What scheduling costs: our sweeps beside plain Ray Tune and a bare pool of Ray actors, in one run.

    python -m benchmarks.sweep [--trials 1000] [--tune-trials 100] [--many 10000] [--part overhead|many|warm]
                                                                                        (or: make bench-sweep)

- **overhead**: trials that sleep 50 ms, on two workers, each way in a process and a Ray of its own, one after another:
  the bare pool (the limit: nothing is recorded), our sweep (which also writes a row a trial, that a resume needs), and
  Ray Tune's defaults with a function trainable. Wall time from the started Ray to the last result, the start of the
  workers included; overhead a trial = wall / trials - 50 ms / 2. Tune's defaults take seconds a trial, so they run
  fewer trials unless ``--tune-trials`` says otherwise; their overhead a trial does not shrink with the number.
- **many**: 10,000 trials that do nothing, in one sweep; how much the driver's memory grows.
- **warm**: the tiny backbones with and without re-using workers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

TRIAL_S = 0.05
WORKERS = 2


def recorded(seconds: float, spec: Any, results_uri: str, *, execution: Any, **unused: Any) -> Any:
    """A trial that takes so long and does nothing but write its row."""
    from orchestrator import results
    from orchestrator.tables import TrialResult, TrialState

    time.sleep(seconds)
    row = TrialResult(
        trial_id=spec.trial_id,
        run_id=execution.run_id,
        state=TrialState.DONE,
        backbone=spec.backbone,
        family="baseline",
        task=spec.task.name,
        task_params=spec.task.params_json(),
        seed=spec.seed,
        n_train=spec.n_train,
        n_test=spec.n_test,
        lora_rank=spec.lora_rank,
        recipe=spec.recipe_json(),
        metrics={"exact_match": 0.0},
        started_at=execution.started_at,
        finished_at=datetime.now(UTC),
    )
    results.write(results_uri, replace(row, attempts=execution.attempts))
    return row


def sweep_of(num_trials: int, folder: str, **fields: Any) -> Any:
    """A sweep of so many distinct baseline trials."""
    from orchestrator.specs import SweepSpec

    defaults = {
        "name": "bench",
        "backbones": ["baseline/majority"],
        "tasks": ["life"],
        "n_train": [3],
        "seeds": list(range(num_trials)),
        "results": folder,
    }
    return SweepSpec.model_validate(defaults | fields)


def start_ray() -> None:
    """Two CPUs, whatever the machine has."""
    import os

    import ray

    from orchestrator.sweep.cluster import OBJECT_STORE_BYTES

    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE_BYTES,
    )


def ours(num_trials: int) -> dict[str, float]:
    """Our sweep of trials that sleep."""
    import os

    from orchestrator.specs import expand
    from orchestrator.sweep import run
    from orchestrator.sweep.cluster import QUIET_TUNE

    os.environ |= QUIET_TUNE
    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        sweep = sweep_of(num_trials, folder)
        trials = expand(sweep)
        began = time.perf_counter()
        outcome = run(sweep, trials, quiet=True, run_trial=partial(recorded, TRIAL_S))
        seconds = time.perf_counter() - began
    assert outcome.done == num_trials, outcome
    return {"trials": num_trials, "wall_s": seconds}


def pool(num_trials: int) -> dict[str, float]:
    """Two bare actors that sleep."""
    import ray
    from ray.util import ActorPool

    start_ray()

    @ray.remote(num_cpus=1)
    class Sleeper:
        def run(self, place: int) -> int:
            time.sleep(TRIAL_S)
            return place

    began = time.perf_counter()
    actors = [Sleeper.remote() for _ in range(WORKERS)]
    done = list(ActorPool(actors).map_unordered(lambda actor, place: actor.run.remote(place), range(num_trials)))
    seconds = time.perf_counter() - began
    assert len(done) == num_trials
    return {"trials": num_trials, "wall_s": seconds}


def tune_defaults(num_trials: int) -> dict[str, float]:
    """Ray Tune as its introduction has it: a function, ``tune.report``, all defaults."""
    from ray import tune

    start_ray()

    def trial(config: dict[str, int]) -> None:
        time.sleep(TRIAL_S)
        tune.report({"exact_match": 0.0})

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tuner = tune.Tuner(
            tune.with_resources(trial, {"CPU": 1}),
            param_space={"seed": tune.grid_search(list(range(num_trials)))},
            run_config=tune.RunConfig(storage_path=folder),
        )
        grid = tuner.fit()
        seconds = time.perf_counter() - began
    assert len(grid) == num_trials
    return {"trials": num_trials, "wall_s": seconds}


def many(num_trials: int) -> dict[str, float]:
    """A sweep of trials that do nothing: how much memory its driver takes."""
    import os

    from orchestrator.measure import peak_memory_bytes, reset_peak_memory
    from orchestrator.specs import expand
    from orchestrator.sweep import run
    from orchestrator.sweep.cluster import QUIET_TUNE

    os.environ |= QUIET_TUNE
    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        sweep = sweep_of(num_trials, folder)
        trials = expand(sweep)
        run(sweep, trials[:2], quiet=True, run_trial=partial(recorded, 0.0))  # what is loaded once is no growth
        reset_peak_memory("cpu")
        before = peak_memory_bytes("cpu")
        began = time.perf_counter()
        outcome = run(sweep, trials, quiet=True, run_trial=partial(recorded, 0.0))
        seconds = time.perf_counter() - began
        growth = peak_memory_bytes("cpu") - before
    assert outcome.done == num_trials - 2, outcome
    return {"trials": num_trials, "wall_s": seconds, "growth_mb": growth / 1e6}


def warm(backbone: str, reuse: bool) -> dict[str, float]:
    """Real trials of a tiny backbone on one worker that is kept, or on a new one for each."""
    import os

    from orchestrator.specs import expand
    from orchestrator.sweep import run, runner
    from orchestrator.sweep.cluster import QUIET_TUNE

    os.environ |= QUIET_TUNE
    start_ray()
    if not reuse:
        runner.MAX_CHUNK = 1  # type: ignore[misc]
        runner.tune.TuneConfig = partial(_cold, runner.tune.TuneConfig)
    with tempfile.TemporaryDirectory() as folder:
        sweep = sweep_of(
            6,
            folder,
            backbones=[backbone],
            tasks=[{"elementary_ca": {"width": 8, "steps": 1}}],
            lora_rank=[4],
            n_test=4,
            recipe={"max_steps": 2, "max_new_tokens": 24},
        )
        trials = expand(sweep)
        began = time.perf_counter()
        outcome = run(sweep, trials, quiet=True, workers=1)
        seconds = time.perf_counter() - began
    assert outcome.done == len(trials), outcome
    return {"trials": len(trials), "wall_s": seconds}


def _cold(config_class: Any, **fields: Any) -> Any:
    return config_class(**fields | {"reuse_actors": False})


def measured(function: str, *arguments: object) -> dict[str, float]:
    """What a function of this file returns, in a process of its own."""
    code = (
        "import json, sys; from benchmarks import sweep\n"
        f"print('RESULT ' + json.dumps(sweep.{function}(*json.loads(sys.argv[1]))), flush=True)"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{function} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def overhead_s(found: dict[str, float]) -> float:
    """Seconds a trial beyond its share of the two workers."""
    return found["wall_s"] / found["trials"] - TRIAL_S / WORKERS


def main() -> None:
    """Run the parts asked for and print their tables."""
    parser = argparse.ArgumentParser(description="What scheduling costs.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--tune-trials", type=int, default=100)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--part", choices=["overhead", "many", "warm"], action="append")
    arguments = parser.parse_args()
    parts = arguments.part or ["overhead", "many", "warm"]
    if "overhead" in parts:
        limit = measured("pool", arguments.trials)
        swept = measured("ours", arguments.trials)
        plain = measured("tune_defaults", arguments.tune_trials)
        print(f"{'':22}{'trials':>8}{'wall s':>9}{'overhead ms a trial':>21}")
        for name, found in (("bare actor pool", limit), ("our sweep", swept), ("Ray Tune's defaults", plain)):
            print(f"{name:22}{found['trials']:8.0f}{found['wall_s']:9.1f}{1000 * overhead_s(found):21.1f}")
        print(f"our wall time is {swept['wall_s'] / limit['wall_s']:.2f}x the pool's (target: at most 1.5x)")
        print(
            f"Tune's overhead is {overhead_s(plain) / overhead_s(swept):.0f}x ours (target: at least 20x)", flush=True
        )
    if "many" in parts:
        found = measured("many", arguments.many)
        print(
            f"{found['trials']:.0f} trials that do nothing: {found['wall_s']:.0f} s, the driver's memory grows by "
            f"{found['growth_mb']:.0f} MB at most (target: under 300)",
            flush=True,
        )
    for backbone in ("causal_lm/tiny", "cogvideox/tiny") if "warm" in parts else ():
        kept, new = measured("warm", backbone, True), measured("warm", backbone, False)
        ratio = new["wall_s"] / kept["wall_s"]
        print(
            f"{backbone}, {kept['trials']:.0f} trials: {kept['wall_s']:.1f} s on a warm worker, "
            f"{new['wall_s']:.1f} s on a new one each, {ratio:.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
