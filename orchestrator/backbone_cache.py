"""The backbone that a worker keeps from trial to trial, and proof that no trial changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainers import lora
from trainers.backbone import BackboneSpec, load_backbone
from trainers.recipe import TrainRecipe

if TYPE_CHECKING:
    from trainers.backbone import Backbone, UntrainedBackbone


class BackboneCache:
    """Keeps the backbone loaded last, so that the next trial of the same backbone skips loading.

    LoRA attaches to it and detaches again, which leaves its weights bitwise as they were. So a trial's numbers are the
    same on a warm and on a cold worker.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._backbone: Backbone | UntrainedBackbone | None = None
        self._checksum: list[int] = []

    def get(self, spec: BackboneSpec, recipe: TrainRecipe, device: str) -> Backbone | UntrainedBackbone:
        """The backbone, loaded now unless it is the one loaded last in the same precision, with the same prompt."""
        key = (spec.name, spec.repo_id, spec.revision, recipe.precision, recipe.prompt, device)
        if self._backbone is None or key != self._key:
            self.clear()  # first: two large backbones may not fit together
            self._backbone, self._key = load_backbone(spec, recipe, device), key
            self._checksum = _base_checksum(self._backbone)
        return self._backbone

    def check_unchanged(self) -> None:
        """AssertionError when the frozen weights are no longer those that were loaded."""
        assert self._backbone is not None
        assert _base_checksum(self._backbone) == self._checksum, "the trial changed the weights of its frozen base"

    def clear(self) -> None:
        """Give the backbone's memory back."""
        self._backbone, self._key = None, None


def _base_checksum(backbone: Backbone | UntrainedBackbone) -> list[int]:
    return lora.base_checksum(backbone.module) if backbone.spec.trainable else []  # type: ignore[union-attr]
