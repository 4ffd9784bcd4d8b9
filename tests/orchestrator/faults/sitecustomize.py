"""Makes trials go wrong inside of Ray's workers: on their PYTHONPATH, Python imports it at its start.

Which trial, and how, is in its recipe's weight decay; a small tiny language model is what goes wrong.
"""

import ctypes
import os

from trainers.backbones.causal_lm import CausalLM

OUT_OF_MEMORY_ABOVE_ONE = 0.25
HANGS_IN_NATIVE_CODE = 0.5
OUT_OF_MEMORY = 0.75


def on_last_rank() -> bool:
    return int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1


def faulty_collate(self, examples, recipe, generator):
    self.fault = recipe.weight_decay if on_last_rank() else None
    return collate(self, examples, recipe, generator)


def faulty_loss(self, batch):
    import torch

    if self.fault == HANGS_IN_NATIVE_CODE:
        ctypes.PyDLL(None).sleep(10**6)  # a PyDLL keeps the interpreter's lock: no thread of Python runs any more
    limit = {OUT_OF_MEMORY_ABOVE_ONE: 1, OUT_OF_MEMORY: 0}.get(self.fault, 10**6)
    if len(batch["input_ids"]) > limit:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return loss(self, batch)


collate, loss = CausalLM.collate, CausalLM.loss
CausalLM.collate, CausalLM.loss = faulty_collate, faulty_loss
