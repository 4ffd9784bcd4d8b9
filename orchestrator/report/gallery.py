"""The gallery: which test problems the page shows of each task and backbone, and the cards it shows them on.

Examples are a function of the tables: the trial with the most training problems and the smallest seed of each task and
backbone, and of its test problems the first right ones, the first wrong ones and the hardest, by their place in the
test set. Nothing is picked for its looks.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis import MAX_VARIANTS, Outcomes, variants_label
from orchestrator.report.gallery_frames import Frames, VideoKey, frames_of
from orchestrator.report.grid_pictures import Look, Picture, look_of, picture, wrong_cells
from orchestrator.tables import TrialState, task_label

if TYPE_CHECKING:
    from task_generators.problem import Grid

MOST_CARDS = 640
"""Examples on a page: about two megabytes of pictures and markup."""
MOST_PER_GROUP = 6
"""Examples of one task and backbone: as many right as wrong ones, and the hardest."""
COLUMNS = ("trial_id", "problem_id", "index", "attempt", "parsed", "exact_match", "question", "answer", "predicted")


class Example(NamedTuple):
    """One test problem of one trial that is to be shown."""

    trial_id: str
    place: int
    """In the test set, from 0: the column ``index``."""
    hardest: bool


@dataclass(frozen=True)
class Group:
    """The examples of one task and backbone."""

    task_label: str
    backbone: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Card:
    """What the page shows of one example."""

    task_label: str
    variant: str
    """The task's own label, where ``task_label`` pools several."""
    backbone: str
    seed: int
    n_train: int
    problem_id: str
    index: int
    verdict: str
    """right, wrong or unreadable."""
    detail: str
    """How wrong, in words."""
    attempts: str
    hardest: bool
    num_right: int
    """Trials of this task, baselines apart, that answer the problem."""
    num_trials: int
    pictures: Sequence[Picture]
    """Of question, answer and, where it could be read, prediction."""
    key: VideoKey
    frames: Frames | None = None
    """Of the video whose last frame is the prediction, where it was kept."""

    @property
    def wide(self) -> bool:
        """Whether the pictures stand better above than beside each other."""
        return all(picture.is_wide for picture in self.pictures)

    @property
    def solved_share(self) -> float:
        """Share of trials that answer the problem; the hardest have the least."""
        return self.num_right / self.num_trials if self.num_trials else 0.0


@dataclass(frozen=True)
class Gallery:
    """Cards by task, and what the page says of how they were chosen."""

    tasks: Sequence[tuple[str, Sequence[Card]]]
    notes: Sequence[str]

    @property
    def cards(self) -> list[Card]:
        """All of them."""
        return [card for _, cards in self.tasks for card in cards]

    @property
    def backbones(self) -> list[str]:
        """Those that have cards, in order."""
        return list(dict.fromkeys(card.backbone for card in self.cards))


def gallery(trials: pd.DataFrame, predictions: pd.DataFrame, outcomes: Outcomes | None = None) -> Gallery:
    """Cards of the finished among ``trials`` (with ``results_uri``, as ``analysis.load`` gives them).

    Only the grids of the chosen trials are read. ``outcomes`` saves their reckoning from ``predictions`` a second time.

    Raises:
        ValueError: a results folder cannot be read any more.
    """
    outcomes = Outcomes.of(predictions) if outcomes is None else outcomes
    solved = _solved_counts(trials, outcomes)
    groups, notes = choose(trials, outcomes, solved)
    examples = [example for group in groups for example in group.examples]
    chosen = trials[trials["trial_id"].isin({example.trial_id for example in examples})]
    rows = {str(row["trial_id"]): row for row in chosen.to_dict("records")}
    grids = _load_grids(chosen, examples)
    by_task: dict[str, list[Card]] = {}
    for group in groups:
        for example in group.examples:
            attempts = grids.get((example.trial_id, example.place))
            if attempts:
                row = rows[example.trial_id]
                card = _card(group, example, row, attempts, solved[str(row["task"]), str(row["task_params"])])
                by_task.setdefault(group.task_label, []).append(card)
    uris = {trial_id: str(row["results_uri"]) for trial_id, row in rows.items()}
    frames, frame_notes = frames_of(by_task, uris)
    with_frames = [
        (label, [replace(card, frames=frames.get(card.key)) for card in cards]) for label, cards in by_task.items()
    ]
    return Gallery(with_frames, [*notes, *frame_notes])


def choose(
    trials: pd.DataFrame, outcomes: Outcomes, solved: Mapping[tuple[str, str], tuple[npt.NDArray[np.int64], int]]
) -> tuple[list[Group], list[str]]:
    """The examples to show, by task and backbone in the order of ``trials``, and notes on what was left out."""
    done = trials[(trials["state"] == TrialState.DONE) & trials["trial_id"].isin(list(outcomes))]
    notes = []
    trained = done[done["family"] != "baseline"]
    if 0 < len(trained) < len(done):
        notes.append("Baselines are left out: a copied question or a right answer tells nothing new.")
        done = trained
    done = _shown_trials(done)
    pools: list[tuple[str, str, pd.DataFrame]] = []
    for task, of_task in done.groupby("task", sort=False):
        variants = trials.loc[trials["task"] == task, "task_params"].nunique()
        if variants > MAX_VARIANTS:
            parts: list[tuple[str, pd.DataFrame]] = [(variants_label(str(task), variants), of_task)]
        else:
            by_params = of_task.groupby("task_params", sort=False)
            parts = [(task_label(str(task), str(params)), rows) for params, rows in by_params]
        for label, rows in parts:
            pools += [(label, str(name), of_backbone) for name, of_backbone in rows.groupby("backbone", sort=False)]
    if len(pools) > MOST_CARDS:
        kept = np.unique(np.linspace(0, len(pools) - 1, MOST_CARDS).round().astype(int))
        notes.append(f"Of {len(pools)} pairs of a task and a backbone {len(kept)} are shown, evenly spread.")
        pools = [pools[place] for place in kept]
    per_group = min(MOST_PER_GROUP, max(1, MOST_CARDS // max(1, len(pools))))
    groups = [Group(label, backbone, _examples(rows, outcomes, solved, per_group)) for label, backbone, rows in pools]
    return groups, notes


def _shown_trials(done: pd.DataFrame) -> pd.DataFrame:
    """One trial a task (and variant) and backbone, in their order: the backbone's commonest rank and recipe there, the
    largest n_train, the smallest seed."""
    which = ["task", "task_params", "backbone"]
    commonest = done.groupby([*which, "lora_rank", "recipe"], sort=False)["trial_id"].transform("size")
    best_first = done.assign(_commonest=commonest).sort_values(
        ["_commonest", "n_train", "seed", "trial_id"], ascending=[False, False, True, True], kind="stable"
    )
    return best_first.drop_duplicates(which).drop(columns="_commonest").sort_index()


def _examples(
    shown: pd.DataFrame,
    outcomes: Outcomes,
    solved: Mapping[tuple[str, str], tuple[npt.NDArray[np.int64], int]],
    number: int,
) -> list[Example]:
    """The hardest, the first right and the first wrong problems of ``shown``, in turn, until there are ``number``."""
    trial_ids, indices, rights, shares = [], [], [], []
    for trial_id, task, params in zip(shown["trial_id"], shown["task"], shown["task_params"], strict=True):
        right = outcomes[trial_id] > 0.5
        counts, num_trials = solved[task, params]
        trial_ids += [trial_id] * len(right)
        indices.append(np.arange(len(right)))
        rights.append(right)
        shares.append(counts[: len(right)] / max(1, num_trials))
    index, right, share = np.concatenate(indices), np.concatenate(rights), np.concatenate(shares)
    # by place in the test set, so that of pooled variants each gives its first problem before any gives its second
    first = np.lexsort((np.arange(len(index)), index))
    hardest = first[np.argsort(share[first], kind="stable")]
    hardest = hardest[share[hardest] < 1]
    orders = [first[right[first]].tolist(), first[~right[first]].tolist(), hardest.tolist()]
    num_hardest = min(len(hardest), max(1, number // 3)) if number > 1 else 0
    found: dict[int, None] = {}
    for place in orders[2][:num_hardest]:
        found[place] = None
    queues = [iter(order) for order in (orders[1], orders[0])]
    while len(found) < number and queues:
        for queue in list(queues):
            place = next((place for place in queue if place not in found), None)
            if place is None:
                queues.remove(queue)
            elif len(found) < number:
                found[place] = None
    chosen = set(orders[2][:num_hardest])
    ordered = sorted(found, key=lambda place: (not right[place], place in chosen, index[place], place))
    return [Example(trial_ids[place], int(index[place]), place in chosen) for place in ordered]


def _solved_counts(
    trials: pd.DataFrame, outcomes: Outcomes
) -> dict[tuple[str, str], tuple[npt.NDArray[np.int64], int]]:
    """By (task, task_params): how many trials answer each test problem (n_test,), and of how many; baselines apart."""
    done = trials[(trials["state"] == TrialState.DONE) & trials["trial_id"].isin(list(outcomes))]
    counts = {}
    for key, rows in done.groupby(["task", "task_params"], sort=False):
        trained = rows[rows["family"] != "baseline"]
        ids = (trained if len(trained) else rows)["trial_id"]
        longest = max(len(outcomes[trial_id]) for trial_id in rows["trial_id"])
        right = np.zeros(longest, dtype=np.int64)
        for trial_id in ids:  # a trial with a smaller test set has the first of the problems
            own = outcomes[trial_id]
            right[: len(own)] += own > 0.5
        task, params = key
        counts[str(task), str(params)] = (right, len(ids))
    return counts


def _load_grids(rows: pd.DataFrame, examples: Sequence[Example]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The predictions with grids of the ``examples``, by (trial_id, index), in the order of the attempts."""
    from orchestrator import results

    wanted = {(example.trial_id, example.place) for example in examples}
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for uri, of_uri in rows.groupby("results_uri", sort=False):
        loaded = results.load_predictions(str(uri), COLUMNS, set(of_uri["trial_id"]))
        keys = list(zip(loaded["trial_id"], loaded["index"].astype(int), strict=True))
        chosen = loaded[[key in wanted for key in keys]].sort_values("attempt", kind="stable")
        for record in chosen.to_dict("records"):
            found.setdefault((str(record["trial_id"]), int(record["index"])), []).append(
                {str(name): value for name, value in record.items()}
            )
    return found


def _card(
    group: Group,
    example: Example,
    row: Mapping[Hashable, Any],
    attempts: Sequence[dict[str, Any]],
    solved: tuple[npt.NDArray[np.int64], int],
) -> Card:
    shown = next((attempt for attempt in attempts if attempt["exact_match"]), attempts[0])
    look = look_of(str(row["task"]), str(row["task_params"]))
    variant = task_label(str(row["task"]), str(row["task_params"]))
    verdict, detail, pictures = _judged(shown, look)
    number = int(shown["attempt"]) + 1
    return Card(
        task_label=group.task_label,
        variant=variant if variant != group.task_label else "",
        backbone=group.backbone,
        seed=int(row["seed"]),
        n_train=int(row["n_train"]),
        problem_id=str(shown["problem_id"]),
        index=example.place,
        verdict=verdict,
        detail=detail,
        attempts=f"attempt {number} of {len(attempts)}" if len(attempts) > 1 else "",
        hardest=example.hardest,
        num_right=int(solved[0][example.place]),
        num_trials=solved[1],
        pictures=pictures,
        key=(example.trial_id, example.place, int(shown["attempt"])),
    )


def _judged(shown: Mapping[str, Any], look: Look) -> tuple[str, str, list[Picture]]:
    """Verdict, how wrong in words, and the pictures of question, answer and prediction."""
    question: Grid = np.asarray(shown["question"])
    answer: Grid = np.asarray(shown["answer"])
    pictures = [picture("question", question, look), picture("answer", answer, look)]
    if shown["predicted"] is None or not np.size(shown["predicted"]):
        return "unreadable", "no grid could be read from the output", pictures
    predicted: Grid = np.asarray(shown["predicted"])
    wrong = wrong_cells(answer, predicted)
    drawn = picture("prediction", predicted, look, wrong)
    if shown["exact_match"]:
        return "right", "every cell is right", [*pictures, drawn]
    if wrong is None:
        sizes = [" × ".join(map(str, grid.shape)) for grid in (predicted, answer)]
        return "wrong", f"size {sizes[0]}, the answer has {sizes[1]}", [*pictures, drawn]
    return "wrong", f"{int(wrong.sum())} of {wrong.size} cells wrong", [*pictures, drawn]
