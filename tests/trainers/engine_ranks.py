"""One rank of the multi-process tests: trains the toys at every ZeRO stage, rank 0 saves what came out.

python -m tests.trainers.engine_ranks FILE
python -m torch.distributed.run --nproc_per_node 2 -m tests.trainers.engine_ranks FILE
"""

from __future__ import annotations

import gc
import os
import sys

import torch

from orchestrator.checkpoints import ResultsCheckpoints
from tests.trainers.test_engine import RECIPE, Outcome, problems, run_trial
from tests.trainers.toy import ToyLanguageModel, ToyRegressor, regression_examples, token_examples
from trainers import lora
from trainers.checkpoint import Checkpoints
from trainers.engine import leave_process_group, world
from trainers.evaluate import evaluate
from trainers.recipe import Placement
from trainers.train import NonFiniteLossError, train


def resumed(stage: int, num_workers: int, folder: str) -> dict:
    """What a training that was interrupted in its fourth step makes of its checkpoint, and what others make of it."""
    backbone, examples = ToyRegressor(), regression_examples(10)
    placement = Placement(num_workers=num_workers, zero_stage=stage, micro_batch_size=2)
    storage = ResultsCheckpoints(folder, f"toy-{stage}")

    def interrupt(row):
        if row.step == 4:
            raise NonFiniteLossError("an error on all ranks at once")

    def go_on(placement, on_step=None):
        with lora.attached(backbone, lora_rank=3, recipe=RECIPE, seed=1):
            try:
                checkpoints = Checkpoints(storage, every_s=1e-9)
                result = train(backbone, examples, RECIPE, placement, seed=5, on_step=on_step, checkpoints=checkpoints)
            except NonFiniteLossError:
                return None
            return result.resumed_from_step, [row.loss for row in result.losses], lora.lora_state(backbone.module)

    assert go_on(placement, interrupt) is None
    from_third, from_last = go_on(placement), go_on(placement)
    from_other_stage = go_on(placement.model_copy(update={"zero_stage": (stage + 1) % 4}))
    return {"from_third": from_third, "from_last": from_last, "from_other_stage": from_other_stage}


def main(path: str) -> None:
    num_workers = int(os.environ.get("WORLD_SIZE", "1"))
    outcomes: dict[str, Outcome] = {}
    toys = {
        "regressor": (ToyRegressor(), regression_examples(10)),
        "bf16": (ToyRegressor(torch.bfloat16), regression_examples(10)),
        "qwen3": (ToyLanguageModel(), token_examples(10)),
    }
    for stage in (0, 1, 2, 3):
        for name, (backbone, examples) in toys.items():
            micro_batch_size = 2 if name == "regressor" else None
            placement = Placement(num_workers=num_workers, zero_stage=stage, micro_batch_size=micro_batch_size)
            outcomes[f"{name} {stage}"] = run_trial(backbone, examples, placement)
    backbone = toys["regressor"][0]
    poisoned = [{**example, "target": example["target"] / 0} for example in regression_examples(10)]
    raised = ""
    with lora.attached(backbone, lora_rank=2, recipe=RECIPE, seed=0):
        try:
            train(backbone, poisoned, RECIPE, Placement(num_workers=num_workers, zero_stage=3), seed=0)
        except NonFiniteLossError as error:
            raised = str(error)
    checkpoints = {stage: resumed(stage, num_workers, f"{path}.results") for stage in (0, 1, 2, 3)}
    fingerprint = lora.base_fingerprint(backbone.module)
    task, test_problems = problems()
    predictions = evaluate(backbone, task, test_problems, RECIPE.model_copy(update={"attempts": 2}), Placement())
    gc.collect()
    if world().rank == 0:
        torch.save(
            {
                "outcomes": outcomes,
                "raised": raised,
                "checkpoints": checkpoints,
                "num_engines": sum(type(thing).__name__ == "DeepSpeedEngine" for thing in gc.get_objects()),
                "fingerprint": fingerprint,
                "predictions": [(p.problem_id, p.attempt, p.parsed, p.scores) for p in predictions],
            },
            path,
        )
    leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
