"""Gradient checkpointing: activations are computed anew in the backward pass instead of kept (Chen et al. 2016).

diffusers' and transformers' models bring it; this turns it on and off, in whatever part of a module offers it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def gradient_checkpointing(name: str, module: torch.nn.Module) -> Iterator[None]:
    """Within the block the module, or each outermost part of it that can, keeps no activations of its layers.

    ValueError when no part can; ``name`` is the backbone's, for that message. Acts in training mode only.
    """
    switches = _switches(module)
    if not switches:
        raise ValueError(f"placement.gradient_checkpointing = True: backbone {name!r} does not offer it")
    try:
        for on, _ in switches:
            on()
        yield
    finally:
        for _, off in switches:
            off()


def _switches(module: Any) -> list[tuple[Callable[[], None], Callable[[], None]]]:
    """How to turn it on and off, for each outermost part that offers it."""
    if getattr(module, "_supports_gradient_checkpointing", False):  # diffusers: never re-entrant
        return [(module.enable_gradient_checkpointing, module.disable_gradient_checkpointing)]
    if getattr(module, "supports_gradient_checkpointing", False):  # transformers

        def on() -> None:
            # Re-entrant checkpoints would give no gradient: the inputs of a frozen base require none.
            with _without_rename_warning():
                module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

        def off() -> None:
            with _without_rename_warning():
                module.gradient_checkpointing_disable()
            module.disable_input_require_grads()  # or a hook stays on the embedding

        return [(on, off)]
    return [switch for child in module.children() for switch in _switches(child)]


@contextmanager
def _without_rename_warning() -> Iterator[None]:
    """Newer versions of transformers call it activation checkpointing; this name works in all of version 5."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message="`gradient_checkpointing")
        yield
