"""Where trials find room, told by a book of the nodes: no Ray runs."""

import pytest

from orchestrator.capacity import bundles
from orchestrator.specs import SweepSpec, expand
from orchestrator.sweep.cluster import Room

NODE = {"CPU": 16.0, "GPU": 8.0}


def trial(**placement):
    fields = {"name": "t", "backbones": ["causal_lm/tiny"], "tasks": ["life"], "n_train": [3], "placement": placement}
    return expand(SweepSpec.model_validate(fields))[0]


def asked(**placement):
    return bundles(trial(**placement), placement.get("gpus_per_worker", 0))


@pytest.mark.parametrize(
    ("placement", "nodes", "count"),
    [
        ({"gpus_per_worker": 1}, 1, 8),
        ({"gpus_per_worker": 1}, 3, 24),
        ({"gpus_per_worker": 0.25, "cpus_per_worker": 0.5}, 1, 32),
        ({"gpus_per_worker": 0.3, "cpus_per_worker": 0.5}, 1, 24),
        ({"gpus_per_worker": 3}, 2, 4),
        ({"cpus_per_worker": 5}, 2, 6),
        ({"num_workers": 6, "gpus_per_worker": 1}, 2, 2),
    ],
)
def test_room_is_what_the_nodes_have(placement, nodes, count):
    room = Room({str(i): dict(NODE) for i in range(nodes)})
    assert room.capacity(asked(**placement), 1000) == count
    taken = 0
    while room.fits(asked(**placement)):
        room.take(taken, asked(**placement))
        taken += 1
    assert taken == count
    room.give_back(0)
    assert room.fits(asked(**placement))


def test_nodes_come_and_go():
    room = Room({"a": dict(NODE)})
    whole = asked(gpus_per_worker=8)
    room.take(1, whole)
    assert not room.fits(whole)
    room.update({"a": dict(NODE), "b": dict(NODE)})
    assert room.fits(whole)
    room.take(2, whole)
    room.update({"b": dict(NODE)})
    room.give_back(1)
    assert not room.fits(whole), "what was lost with its node is not there again"
    room.give_back(2)
    assert room.fits(whole)
    assert room.num_trials == 0


def test_at_most_so_many_trials():
    room = Room({"a": dict(NODE)}, max_trials=2)
    for owner in range(2):
        assert room.fits(asked())
        room.take(owner, asked())
    assert not room.fits(asked())


def test_what_never_fits_is_an_error_that_says_what_there_is():
    room = Room({"a": dict(NODE), "b": {"CPU": 2.0}})
    room.check(trial(gpus_per_worker=8), asked(gpus_per_worker=8))
    large = trial(gpus_per_worker=1, num_workers=9)
    with pytest.raises(ValueError, match=r"asks for 9 x .* 2 node\(s\) of \(16 CPU, 8 GPU; 2 CPU, 0 GPU\); lower"):
        room.check(large, bundles(large, 1))


@pytest.mark.parametrize("placement", [{"gpus_per_worker": 1.5}, {"gpus_per_worker": 0.5, "num_workers": 2}])
def test_shares_of_gpus_are_for_trials_of_one_worker(placement):
    with pytest.raises(ValueError, match="a share of a GPU is below 1, and for trials of one worker"):
        trial(**placement)
