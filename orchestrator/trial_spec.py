"""What a trial is: ``TrialSpec``, one cell of a sweep, and the ``trial_id`` that names it in every table."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property

from pydantic import BaseModel, ConfigDict, model_validator

from orchestrator.sweep_entries import NonNegativeInt, PositiveInt
from task_generators.problem import Split
from task_generators.task import TaskSpec, task_class
from trainers.backbone import BackboneSpec, backbone_spec
from trainers.recipe import Placement, TrainRecipe

SPEC_VERSION = 1
"""Part of every ``trial_id``. Raised when the meaning of an existing field or default changes, so that old rows no
longer count as done."""


class TrialSpec(BaseModel):
    """One cell of a sweep. What it says decides every number of the trial's row; ``placement`` decides none of them.

    A task that generates nothing is tested on its whole test set: ``n_test`` becomes the number of its problems.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    task: TaskSpec
    seed: NonNegativeInt = 0
    n_train: NonNegativeInt
    lora_rank: NonNegativeInt
    n_test: PositiveInt = 200
    recipe: TrainRecipe = TrainRecipe()
    placement: Placement = Placement()

    @model_validator(mode="after")
    def _whole_test_set(self) -> TrialSpec:
        given = num_given(self.task, Split.TEST)
        if given is not None:
            object.__setattr__(self, "n_test", given)
        return self

    @property
    def backbone_spec(self) -> BackboneSpec:
        """The backbone it names."""
        return backbone_spec(self.backbone)

    @cached_property
    def trial_id(self) -> str:
        """16 hex digits that name this trial in every table: equal for specs that must give equal numbers."""
        ids = TrialIds(
            self.backbone_spec, task_json(self.task), self.task.build().generator_version, self.recipe_json()
        )
        return ids.of(self.seed, self.n_train, self.lora_rank, self.n_test)

    def recipe_json(self) -> str:
        """Canonical JSON of the recipe's fields that differ from the defaults."""
        return recipe_json(self.recipe)

    def label(self) -> str:
        """A short name for people: ``cogvideox/tiny life n=30 r=16 seed=0``, without axes that do not apply."""
        axes = [f"n={self.n_train}"] if self.n_train else []
        axes += [f"r={self.lora_rank}"] if self.lora_rank else []
        return " ".join([self.backbone, self.task.label(), *axes, f"seed={self.seed}"])


class TrialIds:
    """The ids of the trials of one backbone, task and recipe.

    An id is the hash of this JSON, keys sorted and without spaces: ``backbone``, ``generator_version``, ``lora_rank``,
    ``n_test`` (unless 200), ``n_train``, ``recipe`` (JSON in a string), ``revision`` (unless there is none), ``seed``
    (unless 0), ``spec_version``, ``task`` (JSON in a string). A sweep has many trials that share all but its numbers,
    so the rest is written once.
    """

    def __init__(self, spec: BackboneSpec, task_json: str, generator_version: int, recipe_json: str) -> None:
        revision = "" if spec.revision is None else f'"revision":{json.dumps(spec.revision)},'
        self._before = f'{{"backbone":{json.dumps(spec.name)},"generator_version":{generator_version},"lora_rank":'
        self._between = f'"recipe":{json.dumps(recipe_json)},{revision}'
        self._after = f'"spec_version":{SPEC_VERSION},"task":{json.dumps(task_json)}}}'

    def of(self, seed: int, n_train: int, lora_rank: int, n_test: int) -> str:
        """The id of one trial, 16 hex digits."""
        numbers = f"{lora_rank}," + (f'"n_test":{n_test},' if n_test != _N_TEST else "") + f'"n_train":{n_train},'
        identity = self._before + numbers + self._between + (f'"seed":{seed},' if seed else "") + self._after
        return hashlib.blake2b(identity.encode(), digest_size=8, person=b"trial").hexdigest()


_N_TEST = TrialSpec.model_fields["n_test"].default
_COMPACT = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def num_given(task: TaskSpec, split: Split) -> int | None:
    """How many problems a split has; None where as many as are asked for are generated."""
    if task_class(task.name).can_generate():
        return None
    return len(task.build(split).given_problems(split))


def task_json(task: TaskSpec) -> str:
    """Canonical JSON of a task: its name, and its knobs that differ from the defaults."""
    return json.dumps({"name": task.name, "params": json.loads(task.params_json())}, sort_keys=True)


def recipe_json(recipe: TrainRecipe) -> str:
    """Canonical JSON of a recipe's fields that differ from the defaults."""
    return _COMPACT.encode(recipe.model_dump(mode="json", exclude_defaults=True))
