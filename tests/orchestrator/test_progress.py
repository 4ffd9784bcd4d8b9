"""The display counts right, estimates by backbone, and is plain in a log."""

import io

import pytest
from rich.console import Console

from orchestrator import progress as module
from orchestrator.progress import Progress, clock
from orchestrator.specs import SweepSpec, expand
from orchestrator.tables import TrialState


@pytest.fixture
def specs():
    fields = {
        "name": "t",
        "backbones": ["cogvideox/tiny", "causal_lm/tiny"],
        "tasks": ["life"],
        "n_train": [3, 10, 30],
        "lora_rank": [4],
    }
    return expand(SweepSpec.model_validate(fields))


@pytest.fixture
def now(monkeypatch):
    class Clock:
        time = 100.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.time)
    return Clock


def expecting(specs, console, quiet=False):
    progress = Progress(console, quiet)
    progress.expect(specs, len(specs))
    return progress


def test_counts_and_time_left(specs, now):
    progress = expecting(specs, Console(file=io.StringIO()))
    assert progress.seconds_left() is None
    for index in (0, 3):
        progress.trial_started(specs[index])
    now.time += 10
    progress.trial_ended(specs[0], TrialState.DONE, 10.0)
    progress.trial_ended(specs[3], TrialState.DONE, 2.0)
    assert progress.seconds_left() == pytest.approx((2 * 10 + 2 * 2) / 2), "by backbone, over two workers"
    progress.trial_started(specs[1])
    now.time += 4
    assert progress.seconds_left() == pytest.approx((2 * 10 + 2 * 2 - 4) / 2)
    progress.trial_ended(specs[1], TrialState.FAILED)
    assert progress.summary().startswith("2 done, 0 running, 1 failed, elapsed 0:14, left ~")


def test_a_log_gets_plain_lines(specs, now):
    output = io.StringIO()
    with expecting(specs, Console(file=output, width=60)) as progress:
        for index in range(6):
            progress.trial_started(specs[index])
            now.time += 0.5
            state = TrialState.FAILED if index == 2 else TrialState.DONE
            progress.trial_ended(specs[index], state, 0.5, "timeout: [x]" if index == 2 else "exact_match=0.500")
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("[1/6] done cogvideox/tiny life n=3 r=4 seed=0 exact_match=0.500 0.5 s | 1 done")
    assert any(line.startswith("[3/6] failed") and "timeout: [x]" in line for line in lines), (
        "failures are never left out"
    )
    assert lines[-1].startswith("[6/6] done")
    assert len(lines) < 6, "not a line for each of many short trials"
    assert "\x1b" not in output.getvalue()


def test_a_terminal_gets_a_display(specs):
    output = io.StringIO()
    with expecting(specs, Console(file=output, width=100, force_terminal=True)) as progress:
        progress.trial_started(specs[0])
        progress.trial_ended(specs[0], TrialState.FAILED, 1.0, "timeout")
        progress.trial_started(specs[1])
    text = output.getvalue()
    assert "failed  cogvideox/tiny life n=3 r=4 seed=0: timeout" in text
    assert "1 failed" in text
    assert "cogvideox/tiny life n=10" in text


def test_retries_and_other_sweeps_are_no_failures(specs):
    output = io.StringIO()
    with expecting(specs, Console(file=output, width=200)) as progress:
        progress.trial_started(specs[0])
        progress.trial_retried(specs[0], "node_died: the node of the worker died", 4)
        progress.ended_elsewhere(specs[1], TrialState.DONE)
        progress.trial_started(specs[2])
        progress.trial_returned(specs[2])
        assert (progress.done, progress.failed, progress.retried, progress.elsewhere) == (0, 0, 1, 1)
        assert progress.summary().startswith("0 done, 0 running, 0 failed, 1 done elsewhere, elapsed ")
    assert output.getvalue().startswith("retry in 4 s  cogvideox/tiny life n=3 r=4 seed=0: node_died: the node")


def test_quiet_says_nothing(specs):
    output = io.StringIO()
    with expecting(specs, Console(file=output), quiet=True) as progress:
        progress.trial_started(specs[0])
        progress.trial_ended(specs[0], TrialState.FAILED, 1.0, "timeout")
    assert output.getvalue() == ""


def test_clock():
    assert [clock(s) for s in (0, 42.4, 725, 10890)] == ["0:00", "0:42", "12:05", "3:01:30"]
