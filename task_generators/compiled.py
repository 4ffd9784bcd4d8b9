"""How kernels are compiled. Import this inside functions only, as every file of kernels: numba takes half a second to
load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function for numbers and arrays at its first call, and keep the machine code on disk.

    It is kept beside the source, or in the user's cache folder, or where ``NUMBA_CACHE_DIR`` says. Where nothing can be
    written, as in a container with a read-only image and no home, every process compiles anew. An edit of this file's
    kernels is noticed, one of another file that they call is not: delete ``__pycache__`` after such an edit.

    Other threads of Python run meanwhile: a kernel may change nothing but arrays that its caller alone holds.
    """
    try:
        return numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(error_model="numpy", nogil=True)(function)


def compiled_inside(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled code calls: without what Python would need to call it, or a cache of its
    own. Give whole numbers to it from variables that change: numba would compile it once more for each constant."""
    options: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options)(function)
