"""How kernels are compiled. Import this inside functions only, as every file of kernels: numba takes half a second to
load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function for numbers and arrays at its first call, and keep the machine code on disk.

    It is kept beside the source, or in the user's cache folder, or where ``NUMBA_CACHE_DIR`` says. Where nothing can be
    written, as in a container with a read-only image and no home, every process compiles anew.
    """
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(error_model="numpy")(function)
