import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
TIMEOUT_S = 20

STUBS = {
    # Two nodes are two processes: what Slurm starts on each, signals are passed on, the highest status is srun's.
    "srun": """
        echo "$@" >> "$RECORD/srun"
        while [[ $1 == --* ]]; do shift; done
        pids=()
        for node in 0 1; do
            SLURM_PROCID=$node "$@" & pids+=($!)
        done
        trap 'kill -TERM "${pids[@]}" 2> /dev/null' TERM
        highest=0
        for pid in "${pids[@]}"; do
            while true; do
                status=0
                wait "$pid" || status=$?
                kill -0 "$pid" 2> /dev/null || break
            done
            ((status > highest)) && highest=$status
        done
        exit "$highest"
    """,
    "scontrol": """
        echo "scontrol $*" >> "$RECORD/events"
        [[ $1 == show ]] && printf 'node-0\\nnode-1\\n'
        exit 0
    """,
    # As Ray's: on the head it runs what stands behind --, on others it waits for the head's end.
    "ray": """
        echo "$@" >> "$RECORD/ray-$SLURM_PROCID"
        [[ -n ${RAY_FAILS:-} ]] && exit 0
        if ((SLURM_PROCID > 0)); then
            trap 'exit 0' TERM
            while [[ ! -e $RECORD/head_ended ]]; do sleep 0.05; done
            exit 0
        fi
        while [[ $1 != -- ]]; do shift; done
        shift
        trap 'kill -TERM -- $(pgrep -P $$) $(pgrep -f "^bash $SWEEP_STUB") 2> /dev/null' TERM
        "$@" &
        entrypoint=$!
        while true; do
            status=0
            wait "$entrypoint" || status=$?
            kill -0 "$entrypoint" 2> /dev/null || break
        done
        touch "$RECORD/head_ended"
        exit "$status"
    """,
    "sweep": """
        printf '%s\\n' "$RAY_ADDRESS" "$RAY_AUTH_MODE" "$RAY_TMPDIR" "$@" > "$RECORD/sweep"
        echo "sweep begins" >> "$RECORD/events"
        trap 'sleep 0.3; echo "sweep keeps its rows" >> "$RECORD/events"; exit 143' TERM
        for ((tenths = 0; tenths < ${SWEEP_TENTHS:-0}; tenths++)); do sleep 0.1; done
        exit "${SWEEP_STATUS:-0}"
    """,
}


@pytest.fixture
def job(tmp_path):
    """Starts the batch script as Slurm would on the first of two nodes; ``tmp_path / "record"`` is what was called."""
    bin_folder = tmp_path / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    (tmp_path / "record").mkdir()
    for name, body in STUBS.items():
        (bin_folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (bin_folder / name).chmod(0o755)
    started = []

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": "/usr/bin:/bin",
            "USER": "somebody",
            "HOME": str(tmp_path / "home"),
            "RECORD": str(tmp_path / "record"),
            "SWEEP_STUB": str(bin_folder / "sweep"),
            "VISUAL_SWEEP_VENV": str(tmp_path / "venv"),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node-[0-1]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "96",
            **variables,
        }
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output


def wait_for(condition) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def events(tmp_path) -> list[str]:
    file = tmp_path / "record" / "events"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("status", [0, 1, 2, 130])
def test_the_job_ends_with_the_status_of_the_sweep(job, status):
    assert ended(job("my.yaml", SWEEP_STATUS=str(status)))[0] == status


def test_both_nodes_start_the_same_ray_and_the_first_one_the_sweep(job, tmp_path):
    assert ended(job("my sweep.yaml", "--set", "recipe.prompt=a b")) == (0, "")
    nodes = [(tmp_path / "record" / f"ray-{node}").read_text() for node in (0, 1)]
    assert nodes[0] == nodes[1]
    address = re.search(r"--address (\S+)", nodes[0]).group(1)
    assert address.startswith("node-0:")
    assert "--min-nodes 2" in nodes[0]
    told, mode, temporary, *arguments = (tmp_path / "record" / "sweep").read_text().splitlines()
    assert (told, mode) == (address, "token")
    assert temporary.endswith("somebody")
    assert arguments == ["run", "my sweep.yaml", "--set", "recipe.prompt=a b"]


def test_ray_takes_the_options_on_head_and_workers(job, tmp_path):
    symmetric_run = pytest.importorskip("ray.scripts.symmetric_run")
    ended(job("my.yaml"))
    recorded = (tmp_path / "record" / "ray-1").read_text().split(" -- ")[0].split()[1:]
    options = symmetric_run.curate_and_validate_ray_start_args(recorded)
    names = {option.split("=")[0] for option in options if option.startswith("--")}
    from ray.scripts.scripts import start

    assert names <= {name for parameter in start.params for name in parameter.opts}
    # `ray start` refuses these on a node that joins, and every node of `ray symmetric-run` gets the same options.
    assert not names & {"--head", "--port", "--redis-shard-ports", "--include-dashboard", "--dashboard-host"}


def test_a_ray_that_does_not_start_is_no_success(job):
    status, output = ended(job("my.yaml", RAY_FAILS="yes"))
    assert status == 1
    assert "Ray did not start" in output


def test_before_the_time_is_over_the_sweep_stops_and_the_job_is_queued_again(job, tmp_path):
    process = job("my.yaml", SWEEP_TENTHS="300")
    wait_for(lambda: "sweep begins" in events(tmp_path))
    os.kill(process.pid, signal.SIGUSR1)
    status, output = ended(process)
    assert status == 0, output
    assert events(tmp_path)[1:] == ["sweep begins", "sweep keeps its rows", "scontrol requeue 4711"]
    (tmp_path / "record" / "head_ended").unlink()
    assert ended(job("my.yaml", SWEEP_STATUS="1"))[0] == 1  # run again under its number: no status of before counts


def test_a_cancelled_job_stops_its_sweep_and_is_not_queued_again(job, tmp_path):
    process = job("my.yaml", SWEEP_TENTHS="300")
    wait_for(lambda: "sweep begins" in events(tmp_path))
    os.kill(process.pid, signal.SIGTERM)
    status, output = ended(process)
    assert status == 143, output
    assert events(tmp_path)[1:] == ["sweep begins", "sweep keeps its rows"]


def test_the_token_is_in_a_file_for_us_alone_and_in_no_command(job, tmp_path):
    ended(job("my.yaml"))
    file = tmp_path / "home" / ".local" / "state" / "visual_sweep" / "slurm" / "4711" / "ray_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    token = file.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert not [each for each in (tmp_path / "record").iterdir() if token in each.read_text()]


def test_jobs_on_one_node_have_their_own_ports(job, tmp_path):
    ended(job("my.yaml"))
    (tmp_path / "record" / "head_ended").unlink()
    ended(job("my.yaml", SLURM_JOB_ID="4712"))
    calls = (tmp_path / "record" / "ray-0").read_text()
    ports = [int(port) for port in re.findall(r"--address \S+:(\d+)", calls)]
    assert len(set(ports)) == 2
    assert all(1024 < port < 32768 for port in ports)  # below Linux's ephemeral ports


@pytest.mark.parametrize(("arguments", "variables"), [((), {}), (("my.yaml",), {"VISUAL_SWEEP_VENV": "/no/such"})])
def test_what_is_missing_is_said_before_anything_starts(job, tmp_path, arguments, variables):
    status, output = ended(job(*arguments, **variables))
    assert status == 2
    assert output.startswith("error: no ")
    assert events(tmp_path) == []


def test_slurm_reads_every_directive():
    lines = SCRIPT.read_text().splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [index for index, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert directives
    assert max(directives) < first_command


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    checked = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
