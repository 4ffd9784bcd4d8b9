"""What out of memory is, on a GPU and on the CPU, and how to have the memory back."""

from __future__ import annotations

import gc
import traceback

SIGNS = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""In the plain RuntimeErrors of torch's CPU allocator (its words differ by system), of CUDA's driver and libraries."""


class TrainingOutOfMemoryError(RuntimeError):
    """Training ran out of memory with micro-batches of ``micro_batch_size`` examples.

    Picklable, so that it comes whole out of another process.
    """

    error_kind = "out_of_memory"

    def __init__(self, micro_batch_size: int, reason: str) -> None:
        super().__init__(micro_batch_size, reason)
        self.micro_batch_size = micro_batch_size
        self.reason = reason

    def __str__(self) -> str:
        return f"out of memory while training with micro-batches of {self.micro_batch_size}: {self.reason}"

    @property
    def smaller_micro_batch_size(self) -> int | None:
        """Half as many examples, at least one; None when it was one."""
        return self.micro_batch_size // 2 or None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the device or of this process did not suffice."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def forget_frames(error: BaseException) -> None:
    """Drop the local variables that the tracebacks of ``error`` keep alive: among them are the tensors in the way."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


def free_memory() -> None:
    """Give back what only garbage and torch's cache hold. Call it outside of the ``except`` block."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
