"""Training on ZeRO 0 to 3, on one and two workers, differs from plain torch by rounding alone."""

import pytest

from benchmarks.zero_differences import BACKBONES, measure, placements

STEPS, N_TEST = 2, 2


@pytest.fixture(scope="module")
def measured():
    return measure(STEPS, N_TEST)


def test_every_stage_trains_as_plain_torch_does(measured):
    assert len(measured) == len(BACKBONES) * (1 + len(list(placements(1))) + len(list(placements(2))))
    assert len({tuple(trained.losses) for trained, _ in measured.values()}) > len(BACKBONES), "nothing was cut"
    for case, (trained, difference) in measured.items():
        assert len(trained.losses) == STEPS
        assert difference.loss < 1e-5, case
        assert difference.grad_norm < 1e-4, case
        assert difference.weight < 1e-4, case


def test_the_weights_moved_by_far_more(measured):
    for case, (trained, difference) in measured.items():
        moved = max(weights.abs().max().item() for name, weights in trained.lora_state.items() if "lora_B" in name)
        assert moved > 100 * difference.weight, case
        assert moved > 1e-4, case
