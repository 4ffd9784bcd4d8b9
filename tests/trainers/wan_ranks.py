"""One rank of the two-process test of a Wan with two experts: trains it at ZeRO stages 2 and 3, rank 0 saves losses.

python -m torch.distributed.run --nproc_per_node 2 -m tests.trainers.wan_ranks CHECKPOINT FILE
"""

from __future__ import annotations

import os
import sys

import torch

from tests.trainers.test_wan import TASK, load, problems, rank_recipe
from trainers import lora
from trainers.engine import leave_process_group, world
from trainers.recipe import Placement
from trainers.train import train


def main(checkpoint: str, file: str) -> None:
    """Losses and LoRA weights by ZeRO stage; the last stage shards the base, so it comes last."""
    num_workers = int(os.environ.get("WORLD_SIZE", "1"))
    outcomes = {}
    for stage in (2, 3):
        backbone, recipe = load(checkpoint), rank_recipe()
        placement = Placement(num_workers=num_workers, zero_stage=stage)
        with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=1):
            result = train(backbone, backbone.encode(TASK, problems(3), recipe), recipe, placement, seed=5)
            outcomes[stage] = [row.loss for row in result.losses], lora.lora_state(backbone.module)
    if world().rank == 0:
        torch.save(outcomes, file)
    leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
