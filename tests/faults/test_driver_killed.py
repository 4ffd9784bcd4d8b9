"""SIGKILL of the driver, anywhere in a sweep's life."""

import random
import re
import time

from orchestrator.claims import Claims

YAML = """
backbones: [baseline/majority, causal_lm/tiny]
tasks: [{elementary_ca: {width: 8, steps: 1}}]
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
n_train: [3, 6, 10]
lora_rank: [2]
n_test: 6
exclude:
  - {backbone: causal_lm/tiny, n_train: [6, 10]}
  - {backbone: causal_lm/tiny, seed: [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]}
recipe: {max_steps: 12, batch_size: 2, max_new_tokens: 24}
placement: {checkpoint_every_s: 0.05}
"""
KILLS = 20
WHILE_STARTING = (0, 3, 8, 15)
"""Which of the kills come before any row, at a random moment of the start; the others once a random number of rows more
are there."""
LONGEST_START_S = 8.0
TRIAL_S = 0.4


def test_twenty_kills_of_the_driver(make_sweep):
    sweep = make_sweep(YAML)
    draw = random.Random(7)
    faults, left = ("slow_trials", "compact_always"), len(sweep.trials)
    assert left == 64
    for kill in range(KILLS):
        before = sweep.done()
        driver = sweep.start(*faults, trial_s=TRIAL_S)
        if kill in WHILE_STARTING:
            time.sleep(draw.uniform(0, LONGEST_START_S))
        else:
            most = 2 * (left - len(before)) // (KILLS - kill)  # so that the last kills meet the last trials
            sweep.wait_for_rows(len(before) + min(left - len(before), draw.randint(1, max(1, most))), driver)
            time.sleep(draw.uniform(0, TRIAL_S))
        driver.kill()
        with Claims(sweep.results) as claims:
            assert claims.held_by_others() == set(), "what a dead driver had in hand is free at once"
        driver.process.wait()
        assert "Traceback" not in driver.errors
        assert before <= sweep.done()
    before = sweep.done()
    last = sweep.run(*faults, trial_s=0)
    assert last.process.returncode == 0, last.errors
    said = re.search(r"(\d+) of 64 trials to run|Nothing to run", last.output)
    assert said, last.output
    assert int(said[1] or 0) == 64 - len(before)
    sweep.assert_as_if_uninterrupted()
    assert not list(sweep.results.glob("checkpoints/*")), "of no use any more"
