"""The embedding of a video model's one prompt, computed once and kept, so that training never holds a text encoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EMPTY_PROMPT_FILE = "neutral_prompt_embeds.safetensors"
"""In a checkpoint's folder: what its text encoder makes of the empty prompt, as the tensor ``prompt_embeds`` (1, L, D).

A folder that has it needs no text encoder and no tokenizer.
"""


def prompt_embeds(
    path: str, revision: str | None, prompt: str, compute: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """What ``compute`` says of ``prompt`` (``prompt_embeds`` (1, L, D), perhaps a mask beside it), on the CPU.

    Read from where an earlier call left it: in a local folder itself, or beside the hub's cache. Else computed and
    written there; a folder that cannot be written is no error.
    """
    from safetensors.torch import load_file, save_file

    name = EMPTY_PROMPT_FILE
    if prompt:
        name = f"prompt_embeds_{hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest()}.safetensors"
    if Path(path).is_dir():
        file = Path(path) / name
    else:
        from huggingface_hub.constants import HF_HOME

        file = Path(HF_HOME) / "neutral-prompts" / f"{path}@{revision or 'main'}".replace("/", "--") / name
    if file.exists():
        return load_file(file)
    try:
        computed = compute()
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"recipe.prompt = {prompt!r}: {path} keeps no embedding of it and has no text encoder that can be loaded: "
            + str(error).strip().partition("\n")[0]
        ) from None
    tensors = {key: tensor.cpu().contiguous() for key, tensor in computed.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        save_file(tensors, temporary)
        temporary.replace(file)  # several workers may do this at once; each leaves a whole file
    except OSError:
        pass  # a read-only folder: the next load computes it again
    return tensors
