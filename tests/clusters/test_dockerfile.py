import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "clusters" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, rest in (line.split(maxsplit=1) for line in text.splitlines() if line.strip())]


def of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def test_the_base_image_has_a_version():
    for image in of("FROM"):
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image)


def test_it_runs_as_a_user_whom_kubernetes_can_tell_from_root():
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", of("USER")[-1])


def test_the_folders_it_works_in_are_its_users():
    (made,) = [rest for rest in of("RUN") if "--owner=ubuntu" in rest]  # docker would make them root's
    home = re.search(r"HOME=(\S+)", of("ENV")[0]).group(1)
    assert all(folder in made.split() or folder == home for folder in of("WORKDIR"))


def test_what_it_copies_is_in_the_repository():
    for rest in of("COPY"):
        *sources, _ = [word for word in rest.split() if not word.startswith("--")]
        assert all((ROOT / source).exists() for source in sources), sources
        assert "." not in sources  # a whole checkout would take .git, results and what lies about along


def test_every_package_of_the_project_gets_in():
    packages = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), flags=re.DOTALL).group(1)
    names = re.findall(r'"([\w.]+)"', packages)
    copied = " ".join(of("COPY"))
    made = " ".join(of("RUN"))
    for name in names:
        assert name.split(".")[0] in copied.split()
        assert name.replace(".", "/") in made  # setuptools wants the folder when dependencies are installed


def test_dependencies_are_installed_in_the_tested_versions():
    installs = [part for rest in of("RUN") for part in rest.split("&&") if "pip install" in part]
    assert installs
    for install in installs:
        assert "--constraint constraints.txt" in install or "--no-deps" in install
        assert "--no-cache-dir" in install


def test_no_secret_gets_into_a_layer():
    secret = re.compile(r"token|secret_key|password|api_key|credential", re.IGNORECASE)
    assert of("ARG") == []
    assert [rest for rest in of("ENV") if secret.search(rest)] == []


def test_the_clusters_run_the_ray_of_the_image():
    for name in ("kuberay_cluster", "kuberay_job"):
        spec = yaml.safe_load((ROOT / "clusters" / f"{name}.yaml").read_text())["spec"]
        assert spec.get("rayClusterSpec", spec)["rayVersion"] == pinned("ray")


def test_mounted_secrets_have_a_folder_of_the_images_user():
    home = re.search(r"HOME=(\S+)", of("ENV")[0]).group(1)
    for place in ("aws", "gcp"):
        for target in yaml.safe_load((ROOT / "clusters" / f"{place}.yaml").read_text())["file_mounts"]:
            assert target.startswith(f"{home}/")
            assert any(target in rest for rest in of("RUN"))


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    checked = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
