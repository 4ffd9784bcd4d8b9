"""Where a backbone's frozen weights come from, and whether they can be had, said before anything is spent.

In this order: a folder of the package, a local folder, ``placement.weights_folder``, the hub's cache, the hub. Nothing
here loads or downloads weights; the hub is asked for headers and for the sizes of files.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from trainers.backbone import BackboneSpec, weights_path
from trainers.installed import unmet

Result = TypeVar("Result")

HUB_TIMEOUT_S = 4.0
"""Longest wait for an answer of the hub."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
CONFIG_FILES = ("model_index.json", "config.json", "transformer/config.json")
"""One of these is in every folder of weights: diffusers' pipelines, transformers' models, and the parts of a pipeline
that we load one by one (which leave no ``model_index.json`` in the hub's cache)."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")
TEXT_PARTS = ("text_encoder", "tokenizer")
"""Parts of a pipeline that are not needed where the prompt's embedding is kept; see ``trainers.prompt_embeds``."""


def located(spec: BackboneSpec, weights_folder: str | None) -> BackboneSpec:
    """The spec, with a folder in place of its hub id where ``placement.weights_folder`` has one.

    Looked for are ``ORG/NAME`` and ``NAME``; the folder stands for the pinned revision too. Only where the weights are
    read from changes: a trial's identity goes by the backbone's name. ValueError when there is no such
    ``weights_folder``.
    """
    if weights_folder is None or not is_hub_id(spec.repo_id):
        return spec
    root = Path(weights_folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"placement.weights_folder = {weights_folder}: there is no such folder on this machine")
    for name in (spec.repo_id, spec.repo_id.rsplit("/", 1)[-1]):
        if (root / name).is_dir():
            return spec.model_copy(update={"repo_id": str((root / name).resolve()), "revision": None})
    return spec


def check_available(spec: BackboneSpec) -> None:
    """ValueError of one line, which says what to do, when the weights of ``spec`` cannot be had from this machine.

    Checks, as far as they apply: the extra that the backbone needs, what its family says (``check_available`` in the
    family's file), the folder, the hub's cache, and only then the hub: whether it can be reached, whether the
    repository and revision exist, whether its terms are accepted, and whether the disk has room for the download.
    Waits ``HUB_TIMEOUT_S`` at most for each of these two answers.
    """
    fault = _fault(spec)
    if fault:
        raise ValueError(f"backbone {spec.name}: {fault}")


def local_folder(spec: BackboneSpec) -> Path | None:
    """Where the whole weights are on this machine: package, local folder or the hub's cache; None: not here."""
    if is_hub_id(spec.repo_id):
        return _cached_folder(spec)
    folder = Path(weights_path(spec.repo_id))
    return folder if spec.repo_id and not folder_fault(folder, pretrained=spec.pretrained) else None


def is_hub_id(repo_id: str) -> bool:
    """True for ``ORG/NAME`` or ``NAME`` on the hub; False for no weights, ``package:...``, and local folders."""
    return bool(repo_id) and ":" not in repo_id and not repo_id.startswith(".") and not Path(repo_id).is_absolute()


def folder_fault(folder: Path, *, pretrained: bool = True) -> str:
    """What a folder of weights lacks, in a few words; empty when it is whole.

    With ``pretrained`` off only the configuration and the encoders are asked for, as the weights are drawn anew.
    """
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if not any((folder / name).is_file() for name in CONFIG_FILES):
        return f"{folder} is no folder of weights: it has none of {', '.join(CONFIG_FILES)}"
    is_pipeline = (folder / "model_index.json").is_file() or (folder / "transformer" / "config.json").is_file()
    if not is_pipeline:
        return _part_fault(folder) if pretrained else ""
    wanted = {"transformer", "vae"} | _listed_parts(folder / "model_index.json")
    for name in sorted(wanted):
        part = folder / name
        if not part.is_dir():
            return f"{folder} has no folder {name}"
        # Schedulers, tokenizers and processors have no config.json of that name, and no weights.
        if (part / "config.json").is_file() and (pretrained or not name.startswith("transformer")):
            fault = _part_fault(part)
            if fault:
                return fault
    return ""


def call_within(timeout_s: float, function: Callable[[], Result]) -> Result:
    """What ``function`` returns or raises; TimeoutError after ``timeout_s``, when it is left behind in its thread.

    Timeouts of HTTP libraries do not cover the look-up of a host's name, which can take half a minute.
    """
    answers: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((True, function()))
        except Exception as error:  # raised again below, in the thread that asked
            answers.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        returned, answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if not returned:
        raise answer
    return answer


def hub_fault(spec: BackboneSpec) -> str:
    """Why the hub would not give us the spec's repository, in a line that says what to do; empty when it would."""
    from huggingface_hub import constants, errors

    repo_id, host = spec.repo_id, constants.ENDPOINT
    at = f" at revision {spec.revision}" if spec.revision else ""
    try:
        found = call_within(HUB_TIMEOUT_S, lambda: _has_config(spec))
    except errors.GatedRepoError:
        token = "with the account whose token HF_TOKEN holds" if _has_token() else "and set HF_TOKEN to your token"
        return f"{repo_id} is gated: accept the terms at {host}/{repo_id} {token}"
    except errors.RepositoryNotFoundError:
        return f"{repo_id} is not on {host}, or is private: check the name, and that HF_TOKEN may read it"
    except errors.RevisionNotFoundError:
        return f"{repo_id} has no revision {spec.revision} on {host}"
    except errors.HFValidationError:
        return f"{repo_id!r} is no repository id: expected ORG/NAME, or a folder that begins with / or ."
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            return f"{host} refuses {repo_id} ({status}): accept its terms there, and check HF_TOKEN"
        return f"{host} answers {status} for {repo_id}: try again later, or {_elsewhere(spec)}"
    except Exception as error:  # of whatever HTTP library this version of huggingface_hub uses
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{repo_id} is not in the cache and {host} cannot be reached ({reason}): {_elsewhere(spec)}"
    if not found:
        return f"{repo_id}{at} on {host} has none of {', '.join(_config_files(spec))}: not a model of this kind"
    return ""


def download_bytes(spec: BackboneSpec) -> int:
    """Size of the weight files that are still to be downloaded. Asks the hub; raises what the hub's client raises."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    found = HfApi().model_info(spec.repo_id, revision=spec.revision, files_metadata=True, timeout=HUB_TIMEOUT_S)
    sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
    return sum(
        sizes[name]
        for name in _loaded_files(list(sizes))
        if not isinstance(try_to_load_from_cache(spec.repo_id, name, revision=spec.revision), str)
    )


def cache_folder() -> Path:
    """Where the hub's client keeps what it downloads (HF_HOME, HF_HUB_CACHE)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """True when HF_HUB_OFFLINE forbids the hub's client to use the network."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def free_bytes(folder: Path) -> int:
    """Room on the disk that ``folder``, which need not exist yet, lies on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _fault(spec: BackboneSpec) -> str:
    if spec.extra and (faults := unmet(spec.extra)):
        how = spec.install or f"pip install '.[{spec.extra}]'"
        return f"{', '.join(faults)}: {how}"
    family = importlib.import_module(f"trainers.backbones.{spec.name.split('/', 1)[0]}")
    ask_family = getattr(family, "check_available", None)
    if ask_family is not None:
        ask_family(spec)
    if not spec.repo_id:
        return ""
    if is_hub_id(spec.repo_id):
        return _fault_of_hub_repository(spec)
    if ":" in spec.repo_id and not spec.repo_id.startswith("package:") and not Path(spec.repo_id).is_absolute():
        assert ask_family is not None, f"only the family can say where {spec.repo_id} is"
        return ""
    folder = Path(weights_path(spec.repo_id))
    return folder_fault(folder, pretrained=spec.pretrained) or _wrong_folder(folder, spec, family)


def _wrong_folder(folder: Path, spec: BackboneSpec, family: Any) -> str:
    """Why a local folder is none of the family's, or cannot be read; empty when nothing speaks against it."""
    from safetensors import SafetensorError, safe_open

    for file in [folder / "model_index.json", folder / "config.json", *sorted(folder.glob("*/config.json"))]:
        if file.is_file():
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                return f"{file} is no JSON"
    is_text = spec.family in ("language", "vision_language")
    index = folder / ("config.json" if is_text else "model_index.json")
    content = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    if not content and not is_text:  # a pipeline without its index: its transformer names the family
        content = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    found = (content.get("architectures") or [""])[0] if is_text else content.get("_class_name", "")
    wanted = getattr(family, "ARCHITECTURES", "")
    if found and wanted and not re.search(wanted, found):
        return f"{folder} holds a {found}, which is no model of the family {spec.name.split('/', 1)[0]} ({wanted})"
    if is_text and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"{folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}"
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{file} cannot be read: {error}"
    return ""


def _fault_of_hub_repository(spec: BackboneSpec) -> str:
    if _cached_folder(spec) is not None:
        return ""
    if is_offline():
        return (
            f"HF_HUB_OFFLINE is set and {spec.repo_id} is not (whole) in the cache {cache_folder()}: unset it, or "
            f"{_elsewhere(spec)}"
        )
    fault = hub_fault(spec)
    if fault:
        return fault
    try:
        needed = call_within(HUB_TIMEOUT_S, lambda: download_bytes(spec))
    except Exception:  # the hub gives the files but not their sizes: no reason to stop anyone
        return ""
    free = free_bytes(cache_folder())
    if needed > free:
        return (
            f"{spec.repo_id} needs {needed / 1e9:.1f} GB for its download and {cache_folder()} has {free / 1e9:.1f} GB "
            "free: make room, or set HF_HOME to a larger disk"
        )
    return ""


def _cached_folder(spec: BackboneSpec) -> Path | None:
    """The snapshot of the revision in the hub's cache, when it is whole. Never asks the network."""
    from huggingface_hub import errors, try_to_load_from_cache

    for name in CONFIG_FILES:
        try:
            found = try_to_load_from_cache(spec.repo_id, name, revision=spec.revision)
        except errors.HFValidationError:
            return None
        if isinstance(found, str):
            folder = Path(found).parents[name.count("/")]
            return None if folder_fault(folder, pretrained=spec.pretrained) else folder
    return None


def _has_config(spec: BackboneSpec) -> bool:
    """Ask for the headers of the repository's configuration: that file is gated as the weights are."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    for name in _config_files(spec):
        try:
            get_hf_file_metadata(hf_hub_url(spec.repo_id, name, revision=spec.revision), timeout=HUB_TIMEOUT_S)
        except errors.EntryNotFoundError:
            continue
        return True
    return False


def _config_files(spec: BackboneSpec) -> tuple[str, ...]:
    return ("model_index.json", "transformer/config.json") if spec.family == "video" else ("config.json",)


def _elsewhere(spec: BackboneSpec) -> str:
    command = f"hf download {spec.repo_id}" + (f" --revision {spec.revision}" if spec.revision else "")
    return f"run `{command}` where the hub is in reach, or set placement.weights_folder to a folder that has it"


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _listed_parts(model_index: Path) -> set[str]:
    """Folders that a pipeline's index names, text encoders apart."""
    try:
        index = json.loads(model_index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {
        name
        for name, value in index.items()
        if isinstance(value, list) and value[:1] not in ([], [None]) and not name.startswith(TEXT_PARTS)
    }


def _part_fault(folder: Path) -> str:
    """What one model's folder lacks: any weights, or shards that its index names (a download that was broken off)."""
    files = {path.name for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.exists()}
    if not files:
        return f"{folder} holds no weights ({', '.join(WEIGHT_SUFFIXES)})"
    absent, shards = [], set()
    for path in folder.glob("*.index.json"):
        try:
            named = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, AttributeError):
            return f"{path} cannot be read"
        absent.append(sorted(named - files))
        shards |= named
    if not absent or not all(absent) or files - shards:  # no shards, one whole set of them, or a file of all weights
        return ""
    return f"{folder} lacks {len(absent[0])} of its files of weights, such as {absent[0][0]}"


def _loaded_files(names: list[str]) -> list[str]:
    """Of a repository's files those weights that diffusers or transformers would load: no other format, no variant."""
    is_pipeline = "model_index.json" in names or "transformer/config.json" in names
    loaded: dict[str, dict[str, list[str]]] = {}
    for name in names:
        part, base = os.path.split(name)
        stem, suffix = os.path.splitext(base)
        if part.count("/") or bool(part) != is_pipeline or "." in stem or suffix not in (".safetensors", ".bin"):
            continue
        if stem.startswith(("model", "diffusion_pytorch_model", "pytorch_model")):
            loaded.setdefault(part, {}).setdefault(suffix, []).append(name)
    return [name for formats in loaded.values() for name in formats.get(".safetensors") or formats[".bin"]]
