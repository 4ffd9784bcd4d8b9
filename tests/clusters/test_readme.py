import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
README = (CLUSTERS / "README.md").read_text()
FILES = sorted(path for path in CLUSTERS.iterdir() if path.name != "README.md")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_readme_names_every_file_and_says_what_to_fill_in(path):
    assert f"`{path.name}`" in README
    for word in set(re.findall(r"FILL_IN_\w+", path.read_text())) - {"FILL_IN_"}:
        stem = re.sub(r"_\d+$", "", word)  # FILL_IN_WORKER_HOST_1, _2 ...
        assert re.search(rf"\b{stem}", README), word


def test_the_readme_asks_for_nothing_that_no_file_has():
    used = " ".join(path.read_text() for path in FILES)
    assert all(word in used for word in re.findall(r"FILL_IN_\w+", README))


def test_every_file_of_the_readme_is_there():
    named = set(re.findall(r"clusters/([\w.]+)", README))
    assert named
    assert all((CLUSTERS / name).is_file() for name in named)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_bash_reads_every_block(block):
    checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_sweep_knows_every_command_and_option_of_the_readme():
    from orchestrator import cli

    commands = re.findall(r"(?:^|-- |auto )sweep ([^#\n]+)", "\n".join(BLOCKS), flags=re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        cli._parser().parse_args(command.split())  # SystemExit where it is wrong


@pytest.mark.parametrize("name", ["submit", "status", "logs", "stop"])
def test_ray_knows_every_option_of_its_job_commands(name):
    jobs = pytest.importorskip("ray.dashboard.modules.job.cli", reason="comes with ray[default]")
    known = {option for parameter in getattr(jobs, name).params for option in parameter.opts}
    calls = re.findall(rf"ray job {name}([^#\n]*)", "\n".join(BLOCKS))
    assert calls
    for call in calls:
        assert set(re.findall(r"--[a-z-]+", call.split(" -- ")[0])) <= known


SECRETS = {
    "a token of the hub": r"hf_[A-Za-z0-9]{20,}",
    "a key of AWS": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "a key of Google": r"AIza[0-9A-Za-z_-]{35}",
    "a key or token in hexadecimal": r"\b[0-9a-f]{32,}\b",
}


@pytest.mark.parametrize("path", [*FILES, CLUSTERS / "README.md"], ids=lambda path: path.name)
def test_no_file_holds_a_secret(path):
    text = path.read_text()
    assert [kind for kind, pattern in SECRETS.items() if re.search(pattern, text)] == []
