"""What a sweep is: ``SweepSpec`` (the YAML) and ``load_sweep``; ``TrialSpec`` and ``expand`` are to be had here too.

Importing this file loads neither torch, ray nor pandas, so that a YAML is checked in milliseconds. Everything a user
can get wrong is found in ``load_sweep`` and ``expand``, before anything is spent, and is a ``ValueError`` of one line
that names the file, the place, the value and the valid choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from orchestrator.search_entries import SearchEntry
from orchestrator.search_plan import check_search
from orchestrator.sweep_cells import expand
from orchestrator.sweep_entries import (
    Axes,
    BackboneEntry,
    Callbacks,
    NumProblems,
    Prices,
    Ranks,
    Seeds,
    TaskEntry,
    TrainingSets,
    TrialEntry,
    distinct,
)
from orchestrator.sweep_exclude import ExcludeEntry
from orchestrator.sweep_yaml import one_line, read_yaml, set_value
from orchestrator.trial_spec import SPEC_VERSION, TrialSpec, task_json
from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec, task_class
from trainers.recipe import Placement, TrainRecipe

__all__ = ["SPEC_VERSION", "SweepSpec", "TrialSpec", "check_problems", "expand", "load_sweep"]

TRAINING_PROBLEMS_CHECKED = 3
HANDED_DOWN = ("recipe", "placement", "n_test", "seeds")
"""Keys of an including sweep that hold for the sweeps it includes."""
SET_EVERYWHERE = (*HANDED_DOWN, "n_train", "lora_rank", "axes")
"""Keys that the command line sets in included sweeps too."""


class SweepSpec(BaseModel):
    """A sweep as people write it in YAML: the axes, and what differs from the published recipes.

    Its cells are the product ``backbones`` x ``tasks`` x ``axes`` x ``lora_rank`` x ``n_train`` x ``seeds``, the cells
    that ``trials`` lists, and those of the sweeps in ``include``, without what ``exclude`` matches.

    A recipe is resolved in this order, later ones winning, field by field: defaults of ``TrainRecipe``, the backbone's
    published recipe, the sweep's ``recipe``, the backbone entry's, the task entry's. A placement likewise. Of
    ``seeds``, ``n_train``, ``lora_rank`` and ``n_test`` too the task entry's wins over the backbone entry's, and that
    over the sweep's.

    Some tasks have no generator but a fixed set of problems each (``arc``). They are always tested on their whole test
    set, whatever ``n_test`` says, and ``n_train`` may be ``all``. A sweep that has both kinds of task gives the one or
    the other an ``n_train`` of its own::

        tasks: [life, {arc: {task: "*", n_train: [all]}}]
        n_train: [3, 10, 30]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    backbones: tuple[BackboneEntry, ...] = ()
    tasks: tuple[TaskEntry, ...] = ()
    seeds: Seeds = (0,)
    n_train: TrainingSets | None = None
    lora_rank: Ranks = (64,)
    n_test: NumProblems = 200
    recipe: TrainRecipe = TrainRecipe()
    axes: Axes = {}
    """Fields of the recipe and their values: every trained backbone runs with every combination of those that mean
    something to it and that its own recipe does not fix. A backbone may have axes of its own."""
    placement: Placement = Placement()
    trials: tuple[TrialEntry, ...] = ()
    """Cells beside the product, or in place of it."""
    include: Annotated[tuple[str, ...], AfterValidator(distinct)] = ()
    """Files, relative to this one, whose cells join this sweep's; a cell that is in several counts once, as the first
    of them places it. ``recipe``, ``placement`` (field by field), ``n_test`` and ``seeds`` given here take the place of
    those keys in the files; what an entry or a listed trial says for itself there still holds, and so does each file's
    own ``exclude``. All else that is no cell, such as ``name``, ``results`` and ``search``, is as said here."""
    exclude: tuple[ExcludeEntry, ...] = ()
    """Patterns of cells to leave out, included ones too."""
    search: SearchEntry | None = None
    results: str = ""
    """Folder or URI (``s3://``, ``gs://``) of the tables; the default is ``results/<name>``."""
    gpu_hour_usd: Prices = None
    callbacks: Callbacks = ()
    """Ray's own loggers to send results to as well."""

    _included: tuple[SweepSpec, ...] = PrivateAttr(())

    @property
    def results_uri(self) -> str:
        """Where the tables go: a URI, or a local folder relative to the working directory."""
        return self.results or f"results/{self.name}"

    def included(self) -> tuple[SweepSpec, ...]:
        """The sweeps that ``include`` names, read by ``load_sweep``, with what is handed down to them."""
        assert len(self._included) == len(self.include), "a sweep with `include` comes from load_sweep"
        return self._included


class _IncludedError(ValueError):
    """An error that names the included file it is in."""


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read and check a sweep's YAML. ``overrides`` are ``recipe.learning_rate=2e-4`` from a command line.

    ValueError of one line, which begins with the name of the file it is in, for everything a user can get wrong.
    """
    return _load(Path(path), overrides, {}, ())


def _load(path: Path, overrides: Sequence[str], handed_down: dict[str, Any], above: tuple[Path, ...]) -> SweepSpec:
    """``above``: the files that include this one, the outermost first."""
    content: dict[str, Any] = {}
    try:
        content = read_yaml(path)
        for key, value in handed_down.items():
            own = content.get(key)
            content[key] = own | value if isinstance(own, dict) and isinstance(value, dict) else value
        for override in overrides:
            set_value(content, override)
        sweep = SweepSpec.model_validate(content)
        _check_parts(sweep)
        handed_down = {key: content[key] for key in HANDED_DOWN if key in sweep.model_fields_set}
        sweep._included = tuple(
            _load_included(path, place, name, overrides, handed_down, above) for place, name in enumerate(sweep.include)
        )
        check_search(sweep, expand(sweep))
    except ValidationError as error:
        raise ValueError(f"{path}: {one_line(error, SweepSpec, content)}") from None
    except _IncludedError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sweep


def _check_parts(sweep: SweepSpec) -> None:
    """ValueError for half a product, or nothing at all."""
    keys = ", ".join(SweepSpec.model_fields)
    elsewhere = bool(sweep.trials or sweep.include)
    for key, other in (("backbones", "tasks"), ("tasks", "backbones")):
        if not getattr(sweep, key) and (getattr(sweep, other) or not elsewhere):
            if key in sweep.model_fields_set:
                raise ValueError(f"{key} = []: expected at least one, or trials, or include")
            raise ValueError(f"{key}: missing; keys: {keys}")


def _load_included(
    path: Path,
    place: int,
    name: str,
    overrides: Sequence[str],
    handed_down: dict[str, Any],
    above: tuple[Path, ...],
) -> SweepSpec:
    included = path.parent / name
    chain = (*above, path)
    if included.resolve() in [file.resolve() for file in chain]:
        around = " > ".join(str(file) for file in (*chain, included))
        raise ValueError(f"include[{place}] = {name!r}: a sweep cannot include itself: {around}")
    if not included.is_file():
        raise ValueError(f"include[{place}] = {name!r}: there is no file {included}; paths are relative to this file")
    passed_on = [override for override in overrides if override.strip().split("=")[0].split(".")[0] in SET_EVERYWHERE]
    try:
        return _load(included, passed_on, handed_down, chain)
    except ValueError as error:
        raise _IncludedError(f"{error} (included by {path})") from None


def check_problems(trials: Sequence[TrialSpec]) -> None:
    """Draw every test set once, and the first training problems of every task. ValueError when a task has fewer test
    problems than a trial asks for, or no training problems."""
    tasks = {id(trial.task): trial.task for trial in trials}  # the trials of a sweep share them
    names = {key: task_json(task) for key, task in tasks.items()}
    test_sets: dict[tuple[str, int], TaskSpec] = {}
    training_sets: dict[str, TrialSpec] = {}
    for trial in trials:
        name = names[id(trial.task)]
        test_sets.setdefault((name, trial.n_test), trial.task)
        training_sets.setdefault(name, trial)
    for (_, n_test), task in test_sets.items():
        if task_class(task.name).can_generate():  # else n_test is the number of those that there are
            draw_problems(task, Split.TEST, 0, n_test)
    for trial in training_sets.values():
        draw_problems(trial.task, Split.TRAIN, trial.seed, min(trial.n_train, TRAINING_PROBLEMS_CHECKED))
