"""Drivers that share a results folder: no trial is in two hands, and what a dead one held is free again."""

import json
import os
import subprocess
import sys
import threading

import pytest

from orchestrator.claims import HEARTBEAT_S, LEASE_S, WORKERS_OUTLIVE_S, Claims


class Clock:
    now = 0.0

    def __call__(self):
        return Clock.now


@pytest.fixture
def open_claims(tmp_path):
    Clock.now = 0.0
    opened = []

    def open_one(name, **options):
        claims = Claims(tmp_path, name=name, **options)
        claims.__enter__()
        opened.append(claims)
        return claims

    yield open_one
    for claims in opened:
        claims.__exit__()


def test_a_trial_is_in_one_hand(open_claims):
    first, second = open_claims("a"), open_claims("b")
    assert first.take(["x", "y"]) == {"x", "y"}
    assert second.take(["y", "z"]) == {"z"}
    assert second.held_by_others() == {"x", "y"}
    assert first.take(["z", "w"]) == {"w"}


def test_what_is_given_back_is_free_and_rows_are_told(open_claims):
    first, second = open_claims("a"), open_claims("b")
    first.take(["x", "y"])
    second.take(["z"])
    assert second.others_have_ended_trials(), "the first look"
    first.release("x", ended=False)
    assert second.take(["x"]) == {"x"}
    assert not second.others_have_ended_trials()
    first.release("y", ended=True)
    assert second.held_by_others(at_most_old_s=-1) == set()
    assert second.others_have_ended_trials(), "so its row is to be looked for before y is taken"
    assert not second.others_have_ended_trials()


def test_the_end_of_a_driver_gives_everything_back(open_claims, tmp_path):
    first, second = open_claims("a"), open_claims("b")
    first.take(["x"])
    first.__exit__()
    assert second.take(["x"]) == {"x"}
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["b.json"]


def test_a_silent_driver_loses_its_lease(open_claims):
    """Told by each driver's own clock alone: how long another's number has stood still."""
    first, second = open_claims("a", monotonic=Clock()), open_claims("b", monotonic=Clock())
    first.take(["x"])
    assert second.take(["x"]) == set()
    Clock.now += LEASE_S - 1
    assert second.take(["x"]) == set()
    first.beat()
    Clock.now += LEASE_S - 1
    assert second.take(["x"]) == set(), "it has shown life"
    Clock.now += LEASE_S + 1
    assert second.take(["x"]) == {"x"}


def test_beats_are_rare(open_claims, tmp_path):
    first = open_claims("a", monotonic=Clock())

    def beats():
        return json.loads((tmp_path / "claims/a.json").read_text())["beat"]

    before = beats()
    for _ in range(100):
        Clock.now += HEARTBEAT_S / 50
        first.beat()
    assert 1 <= beats() - before <= 2


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path, open_claims):
    code = (
        "import sys, os, signal; from orchestrator.claims import Claims\n"
        f"claims = Claims({str(tmp_path)!r}); claims.__enter__(); claims.take(['x'])\n"
        "print('holds', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "holds" in dead.stdout
    assert len(list((tmp_path / "claims").iterdir())) == 1
    assert open_claims("b").take(["x"]) == {"x"}, "at once, without its lease"
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["b.json"]


def test_a_driver_that_dies_beside_us_leaves_its_workers_a_moment(tmp_path, open_claims):
    """Its process is a zombie then: its parent, this test, has not asked about it. What it held is free soon."""
    code = (
        "import sys; from orchestrator.claims import Claims\n"
        f"claims = Claims({str(tmp_path)!r}); claims.__enter__(); claims.take(['x'])\n"
        "print('holds', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "holds\n"
        ours = open_claims("b", monotonic=Clock())
        assert ours.held_by_others() == {"x"}
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        Clock.now += WORKERS_OUTLIVE_S
        assert ours.held_by_others() == {"x"}, "its worker may be about to write the row"
        Clock.now += WORKERS_OUTLIVE_S
        assert ours.take(["x"]) == {"x"}
        assert Clock.now < LEASE_S


def test_a_full_disk_stops_no_driver(open_claims, monkeypatch):
    ours = open_claims("a")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.claims.put_bytes", full)
    assert ours.take(["x"]) == {"x"}
    ours.release("x", ended=False)
    monkeypatch.undo()
    assert ours.take(["x"]) == {"x"}
    assert open_claims("b").take(["x", "y"]) == {"y"}


FILE = {"beat": 1, "num_ended": 0, "held": [], "asked": [], "process": None}
FOREIGN = [
    {"held": None},
    {"held": 5},
    {"held": [["x"]]},
    {"beat": "1"},
    {"process": "x"},
    {"process": [1]},
    {"process": {}},
]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"beat": 1}', "\x00\xff", *(json.dumps(FILE | {"held": ["x"]} | other) for other in FOREIGN)],
)
def test_foreign_files_are_no_claims(tmp_path, open_claims, content):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "stray.json").write_text(content)
    assert open_claims("b").take(["x"]) == {"x"}


def test_drivers_that_ask_at_the_same_moment(tmp_path):
    """Many rounds of several drivers that all want everything: each trial in one hand at most, and all in some."""
    everything = [f"trial-{i}" for i in range(60)]
    taken: dict[str, list[str]] = {}
    errors = []
    start = threading.Barrier(4)

    def drive(name):
        try:
            with Claims(tmp_path, name=name) as claims:
                start.wait()
                while left := [trial for trial in everything if trial not in taken]:
                    for trial in claims.take(left[:3]):
                        taken.setdefault(trial, []).append(name)
                start.wait()  # whoever leaves gives back what it holds
        except Exception as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=drive, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert sorted(taken) == sorted(everything)
    assert all(len(names) == 1 for names in taken.values()), taken
    assert not os.listdir(tmp_path / "claims")
