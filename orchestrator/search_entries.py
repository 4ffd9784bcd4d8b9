"""What people write under ``search:`` in a sweep's YAML."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ThresholdEntry(BaseModel):
    """``search: threshold``: the smallest ``n_train`` of the list that reaches an accuracy, instead of all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.9


class SearchEntry(BaseModel):
    """The ``search`` of a sweep; one of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: ThresholdEntry | None = None
