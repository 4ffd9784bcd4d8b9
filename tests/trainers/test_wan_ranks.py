import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.trainers.test_wan import TASK, load, problems, rank_recipe
from tests.trainers.tiny_wan import write_tiny_checkpoint
from trainers import lora
from trainers.recipe import Placement
from trainers.rng import torch_generator
from trainers.train import example_indices, train

REPOSITORY = Path(__file__).parents[2]


def test_two_ranks_train_two_experts_as_one_process_does(tmp_path):
    """Also where the ranks' examples need different experts, and a step needs one expert only."""
    folder, recipe = write_tiny_checkpoint(tmp_path / "checkpoint", "2.2-a14b-i2v"), rank_recipe()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ranks = subprocess.Popen(
        [sys.executable, *launcher, "-m", "tests.trainers.wan_ranks", str(folder), str(tmp_path / "outcomes.pt")],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    backbone = load(folder)
    examples = backbone.encode(TASK, problems(3), recipe)
    experts = []
    for step in range(recipe.max_steps):
        indices = example_indices(len(examples), recipe.batch_size, 5, step)
        batch = backbone.collate([examples[i] for i in indices], recipe, torch_generator("noise", 5, step))
        experts.append((batch["timesteps"] < backbone._denoiser.boundary_timestep).tolist())
    assert {tuple(sorted(of_step)) for of_step in experts} == {(False, False), (False, True), (True, True)}
    with lora.attached(backbone, lora_rank=2, recipe=recipe, seed=1):
        losses = [row.loss for row in train(backbone, examples, recipe, Placement(), seed=5).losses]
        weights = lora.lora_state(backbone.module)
    output, _ = ranks.communicate(timeout=300)
    assert ranks.returncode == 0, output
    outcomes = torch.load(tmp_path / "outcomes.pt")
    for stage, (their_losses, their_weights) in outcomes.items():
        torch.testing.assert_close(torch.tensor(their_losses), torch.tensor(losses), rtol=1e-4, atol=0, msg=str(stage))
        for name, tensor in weights.items():
            assert (their_weights[name] - tensor).norm() < 1e-2 * tensor.norm(), f"stage {stage}: {name}"
