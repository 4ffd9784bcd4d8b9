"""Where weights come from, and the one line that is said when they cannot be had. The hub is stood in for."""

import json
import os
import shutil
import socket
import time
from email.message import Message
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file

from trainers import installed, weights_source
from trainers.backbone import BackboneSpec, backbone_names, backbone_spec, weights_path
from trainers.weights_source import call_within, check_available, folder_fault, local_folder, located

REPO_ID = "Org/Some-Model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def spec_of(repo_id=REPO_ID, family="language", **fields):
    name = "cogvideox/test" if family == "video" else "causal_lm/test"
    return BackboneSpec(name=name, family=family, repo_id=repo_id, **fields)


def write_model(folder, shards=2):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    names = [f"model-{i}.safetensors" for i in range(shards)]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: n for n in names}}))
    for name in names:
        save_file({"weights": np.zeros(1)}, folder / name)
    return folder


def write_pipeline(folder, parts=("transformer", "vae")):
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
        save_file({"weights": np.zeros(1)}, folder / part / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return folder


def snapshot_in(cache):
    repository = cache / "models--Org--Some-Model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


@pytest.fixture
def hub(monkeypatch):
    """A hub that has ``files`` (name: bytes); set ``error`` to what it raises."""
    state = SimpleNamespace(files={"config.json": 10}, error=None, asked=[])

    def metadata(url, timeout):
        state.asked.append(url)
        assert timeout <= 5
        if state.error:
            raise state.error
        if url.split("/main/")[-1].split(f"/{COMMIT}/")[-1] not in state.files:
            raise errors.EntryNotFoundError("404")

    def model_info(self, repo_id, revision, files_metadata, timeout):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=s) for n, s in state.files.items()])

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    return state


def hub_error(kind, status):
    response = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind("long\nmessage\nof many lines", response=response)


def fault_of(spec):
    with pytest.raises(ValueError, match=rf"^backbone {spec.name}: ") as caught:
        check_available(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_that_ships_with_the_package_is_available():
    shipped = [backbone_spec(name) for name in backbone_names()]
    shipped = [spec for spec in shipped if not spec.repo_id or spec.repo_id.startswith("package:")]
    assert len(shipped) > 3
    for spec in shipped:
        check_available(spec)
    assert "there is no folder" in fault_of(spec_of("package:no-such-weights"))


# --- placement.weights_folder


@pytest.mark.parametrize("name", ["Org/Some-Model", "Some-Model"])
def test_a_weights_folder_stands_for_the_hub_and_its_revision(tmp_path, name, hub):
    folder = write_model(tmp_path / "weights" / name)
    spec = located(spec_of(revision=COMMIT), str(tmp_path / "weights"))
    assert (spec.repo_id, spec.revision, spec.name) == (str(folder), None, "causal_lm/test")
    check_available(spec)
    assert local_folder(spec) == folder
    assert hub.asked == []


def test_what_a_weights_folder_lacks_or_cannot_hold_stays_as_it_is(tmp_path):
    for repo_id in (REPO_ID, "package:qwen3-tiny", "", "/data/model", "./model"):
        assert located(spec_of(repo_id), str(tmp_path)) == spec_of(repo_id)
        assert located(spec_of(repo_id), None) == spec_of(repo_id)
    with pytest.raises(ValueError, match=r"placement.weights_folder = /no/such: there is no such folder"):
        located(spec_of(), "/no/such")


# --- folders


def test_a_local_folder_has_to_be_whole(tmp_path):
    folder = tmp_path / "model"
    assert f"there is no folder {folder}" in fault_of(spec_of(str(folder)))
    folder.mkdir()
    assert "none of model_index.json, config.json" in fault_of(spec_of(str(folder)))
    (folder / "config.json").write_text("{}")
    assert "holds no weights" in fault_of(spec_of(str(folder)))
    assert "has no tokenizer" in fault_of(spec_of(str(folder), pretrained=False))
    (folder / "tokenizer.json").write_text("{}")
    check_available(spec_of(str(folder), pretrained=False))
    write_model(folder)
    check_available(spec_of(str(folder)))
    (folder / "model-1.safetensors").unlink()
    assert "lacks 1 of its files of weights, such as model-1.safetensors" in fault_of(spec_of(str(folder)))
    (folder / "pytorch_model.bin").write_text("all of it")
    check_available(spec_of(str(folder)))


def test_a_pipeline_has_to_have_its_parts(tmp_path):
    folder = write_pipeline(tmp_path / "pipeline")
    assert folder_fault(folder) == ""
    index = {"_class_name": "P", "image_encoder": ["transformers", "C"], "nothing": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder": ["transformers", "T"]}))
    assert "has no folder image_encoder" in folder_fault(folder)
    write_pipeline(folder, ["image_encoder"])
    assert folder_fault(folder) == ""
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert "transformer holds no weights" in folder_fault(folder)
    assert folder_fault(folder, pretrained=False) == ""
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "vae holds no weights" in folder_fault(folder, pretrained=False)


# --- the hub's cache, and the hub


@pytest.mark.parametrize("family", ["language", "video"])
@pytest.mark.parametrize("revision", [None, COMMIT])
def test_what_is_whole_in_the_cache_needs_no_hub(cache, monkeypatch, hub, family, revision):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    spec = spec_of(family=family, revision=revision)
    assert f"HF_HUB_OFFLINE is set and {REPO_ID} is not" in fault_of(spec)
    snapshot = snapshot_in(cache)
    (write_model if family == "language" else write_pipeline)(snapshot)
    check_available(spec)
    assert local_folder(spec) == snapshot
    next(snapshot.rglob("*.safetensors")).unlink()
    assert f"hf download {REPO_ID}" in fault_of(spec), "a download that was broken off"
    assert local_folder(spec) is None
    assert hub.asked == []


def test_a_model_on_the_hub_is_asked_for_and_not_downloaded(cache, hub):
    check_available(spec_of())
    assert hub.asked == [f"https://huggingface.co/{REPO_ID}/resolve/main/config.json"]
    check_available(spec_of(revision=COMMIT))
    assert COMMIT in hub.asked[-1]
    assert "none of model_index.json, transformer/config.json" in fault_of(spec_of(family="video"))
    hub.files["transformer/config.json"] = 1
    check_available(spec_of(family="video"))
    assert list(cache.rglob("*")) == []


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (errors.GatedRepoError, 403, f"gated: accept the terms at https://huggingface.co/{REPO_ID} and set HF_TOKEN"),
        (errors.RepositoryNotFoundError, 404, f"{REPO_ID} is not on https://huggingface.co, or is private"),
        (errors.RevisionNotFoundError, 404, f"{REPO_ID} has no revision {COMMIT}"),
        (errors.HfHubHTTPError, 401, "refuses Org/Some-Model (401)"),
        (errors.HfHubHTTPError, 503, "answers 503 for Org/Some-Model: try again later"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(hub, monkeypatch, kind, status, expected):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    hub.error = hub_error(kind, status)
    assert expected in fault_of(spec_of(revision=COMMIT))


def test_who_has_a_token_is_told_to_accept_the_terms_with_its_account(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    hub.error = hub_error(errors.GatedRepoError, 403)
    assert "with the account whose token HF_TOKEN holds" in fault_of(spec_of())


def test_a_malformed_repository_is_told_so():
    assert "is no repository id: expected ORG/NAME" in fault_of(spec_of("a/b/c"))


def test_no_hub_is_said_at_once(monkeypatch):
    """The client itself, at an address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{port}/{{repo_id}}/{{filename}}")
    started = time.monotonic()
    assert "cannot be reached" in fault_of(spec_of())
    assert time.monotonic() - started < weights_source.HUB_TIMEOUT_S + 1


def test_a_hub_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(weights_source, "HUB_TIMEOUT_S", 0.2)
    monkeypatch.setattr(weights_source, "_has_config", lambda spec: time.sleep(5))
    started = time.monotonic()
    assert "cannot be reached (no answer within 0.2 s)" in fault_of(spec_of())
    assert time.monotonic() - started < 2


def test_a_call_with_a_time_limit_returns_and_raises_as_the_function_does():
    assert call_within(5, lambda: 3) == 3
    with pytest.raises(KeyError, match="why"):
        call_within(5, lambda: {}["why"])
    with pytest.raises(TimeoutError):
        call_within(0.05, lambda: time.sleep(1))


def test_the_disk_has_to_have_room_for_what_would_be_downloaded(hub, cache, monkeypatch):
    hub.files |= {"model-0.safetensors": 6e9, "model-1.safetensors": 3e9, "pytorch_model.bin": 9e9}
    hub.files |= {"original/consolidated.safetensors": 9e9, "model.fp16.safetensors": 9e9}
    monkeypatch.setattr(weights_source, "free_bytes", lambda folder: 8e9)
    fault = fault_of(spec_of())
    assert "needs 9.0 GB for its download" in fault
    assert "8.0 GB free: make room, or set HF_HOME" in fault
    snapshot = snapshot_in(cache)
    snapshot.mkdir(parents=True)
    (snapshot / "model-1.safetensors").write_text("is here already")
    check_available(spec_of())
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *args, **kwargs: 1 / 0)
    monkeypatch.setattr(weights_source, "free_bytes", lambda folder: 0)
    check_available(spec_of())


def test_the_parts_of_a_pipeline_are_counted_and_its_single_file_is_not(hub):
    hub.files = {"model_index.json": 1, "transformer/diffusion_pytorch_model-1-of-2.safetensors": 5}
    hub.files |= {
        "transformer/diffusion_pytorch_model-2-of-2.safetensors": 4,
        "vae/diffusion_pytorch_model.safetensors": 2,
    }
    hub.files |= {
        "text_encoder/model.safetensors": 1,
        "text_encoder/pytorch_model.bin": 50,
        "all-in-one.safetensors": 99,
    }
    assert weights_source.download_bytes(spec_of(family="video")) == 12


# --- extras and families


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    requirement = installed.Requirement("no-such-package-here>=3")
    monkeypatch.setattr(installed, "requirements", lambda: {"": (), "quantized": (requirement,)})
    fault = fault_of(
        backbone_spec("causal_lm/tiny").model_copy(update={"name": "causal_lm/test", "extra": "quantized"})
    )
    assert "no-such-package-here is not installed: pip install '.[quantized]'" in fault


def test_every_extra_that_a_message_names_exists():
    assert {backbone_spec(name).extra for name in backbone_names()} | {"quantized"} <= set(installed.requirements())


def test_a_family_may_have_the_first_word(monkeypatch):
    from trainers.backbones import causal_lm

    seen = []
    monkeypatch.setattr(causal_lm, "check_available", seen.append, raising=False)
    check_available(backbone_spec("causal_lm/tiny"))
    assert [spec.name for spec in seen] == ["causal_lm/tiny"]

    def refuse(spec):
        raise ValueError("its file is not in the package some-package")

    monkeypatch.setattr(causal_lm, "check_available", refuse)
    with pytest.raises(ValueError, match="its file is not in the package"):
        check_available(spec_of("pypi:some-package/file.gguf"))


def test_what_is_installed_is_held_against_its_bounds(monkeypatch):
    wanted = {"": ("numpy<1", "pillow", "no-such-package-here", "pywin32; sys_platform == 'win32'")}
    table = {extra: tuple(map(installed.Requirement, texts)) for extra, texts in wanted.items()}
    monkeypatch.setattr(installed, "requirements", lambda: table)
    too_new, absent = installed.unmet()
    assert too_new.startswith("numpy ")
    assert too_new.endswith(", not <1")
    assert absent == "no-such-package-here is not installed"


def test_requirements_come_from_the_checkout_or_else_from_the_metadata(monkeypatch, tmp_path):
    installed.requirements.cache_clear()
    assert "numpy" in {requirement.name for requirement in installed.requirements()[""]}
    metadata = Message()
    for requirement in ("numpy<3,>=1.26", 'av>=14; extra == "video"', "odd; sys_platform == 'plan9'"):
        metadata["Requires-Dist"] = requirement
    metadata["Provides-Extra"] = "video"
    monkeypatch.setattr(installed, "PYPROJECT", tmp_path / "absent.toml")
    monkeypatch.setattr(installed.importlib.metadata, "metadata", lambda name: metadata)
    installed.requirements.cache_clear()
    found = {extra: [requirement.name for requirement in needed] for extra, needed in installed.requirements().items()}
    installed.requirements.cache_clear()
    assert found == {"": ["numpy"], "video": ["av"]}


@pytest.mark.parametrize(
    ("family", "spoil", "expected"),
    [
        ("causal_lm", lambda folder: None, ""),
        ("gemma3", lambda folder: None, "which is no model of the family gemma3"),
        ("causal_lm", lambda folder: (folder / "config.json").write_text("{"), "is no JSON"),
        ("causal_lm", lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (
            "causal_lm",
            lambda folder: os.truncate(folder / "model.safetensors", 5000),
            "model.safetensors cannot be read",
        ),
    ],
    ids=["whole", "another family", "no JSON", "no tokenizer", "cut off"],
)
def test_a_local_folder_is_looked_through_before_anything_is_spent(tmp_path, family, spoil, expected):
    folder = tmp_path / "model"
    shutil.copytree(weights_path("package:qwen3-tiny"), folder)
    spoil(folder)
    spec = backbone_spec(f"{family}/{folder}")
    if not expected:
        check_available(spec)
        return
    with pytest.raises(ValueError, match=expected):
        check_available(spec)
