"""What can be asked of a results folder, cell by cell: open it as a notebook (VS Code, Jupytext), or run it.

python examples/analyse.py                    # results/quickstart
python examples/analyse.py results/paper      # or any other folder, also of a sweep that still runs
"""

# %% The tables are plain Parquet: one row a trial in `trials`, one row a test problem and attempt in `predictions`.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from orchestrator import analysis, results
from orchestrator.tables import MEANINGS

arguments = [argument for argument in sys.argv[1:] if Path(argument).is_dir()]  # a notebook's kernel has others
folder = Path(arguments[0] if arguments else "results/quickstart")
if not (folder / "trials").is_dir():
    sys.exit(f"{folder}: no results there; `make quickstart` makes some, or name another folder")
pd.set_option("display.width", 160, "display.max_columns", 20, "display.max_rows", 20, "display.precision", 3)

trials = pd.read_parquet(folder / "trials")
print(trials.groupby(["task", "backbone", "n_train"]).exact_match.agg(["mean", "count"]))
print("repeats_training_answer:", MEANINGS["trials"]["repeats_training_answer"])  # what any column means

# %% `analysis.load` reads what counts, each trial once, of one folder or several; everything takes the pair it returns.
study = analysis.load(folder)
curves = analysis.learning_curves(*study)
print(curves[["task_label", "backbone", "lora_rank", "n_train", "exact_match", "low", "high", "interval", "seeds"]])

# %% How many examples does a backbone need? `censored` says where the truth lies beyond the sizes that were run.
samples = analysis.samples_to_threshold(*study, accuracy=0.9)
print(samples[["task_label", "backbone", "lora_rank", "samples", "low", "high", "censored"]])
ratios = analysis.efficiency_ratios(*study, accuracy=0.9)
print(ratios[["task_label", "backbone_a", "backbone_b", "ratio", "low", "high", "censored"]])

# %% Two backbones on the very same test problems: `only_a` is how many of them a alone got right.
paired = analysis.paired_differences(*study)
columns = ["task_label", "n_train", "backbone_a", "backbone_b", "difference", "low", "high", "only_a", "only_b"]
print(paired.sort_values("p_value")[[*columns, "p_adjusted"]].head(10))

# %% In words.
for finding in analysis.findings(*study):
    print(finding.text)

# %% A figure of one's own: exact match over training examples, with 95 % intervals.
shown = curves[(curves.n_train > 0) & curves.exact_match.notna()]
labels = list(shown.task_label.unique())[:4]
figure, axes = plt.subplots(1, max(len(labels), 1), figsize=(4 * max(len(labels), 1), 3), sharey=True, squeeze=False)
for axis, label in zip(axes[0], labels, strict=False):
    of_task = shown[shown.task_label == label]
    for (backbone, rank), curve in of_task.groupby(["backbone", "lora_rank"], sort=False):
        curve = curve.sort_values("n_train")
        error = np.clip([curve.exact_match - curve.low, curve.high - curve.exact_match], 0, None)
        axis.errorbar(curve.n_train, curve.exact_match, error, marker="o", capsize=3, label=f"{backbone} r={rank}")
    axis.set(title=label, xscale="log", xlabel="training examples", ylim=(-0.03, 1.03))
    axis.legend(fontsize="xx-small")
axes[0, 0].set_ylabel("exact match")
figure.tight_layout()
figure.savefig(folder / "analyse.png", dpi=150)
print(folder / "analyse.png")

# %% Wrong answers, cell by cell: of the trained trial with most answers that can be read and are wrong. Grids are 2-D
# arrays here; of a large folder read those of a few trials only.
flags = study.predictions.assign(wrong=study.predictions.parsed & ~study.predictions.exact_match)
trained = study.trials.trial_id[study.trials.family != "baseline"]
num_wrong = flags[flags.trial_id.isin(trained)].groupby("trial_id").wrong.sum()
if num_wrong.empty:
    sys.exit("no trained backbone has answered anything yet")
worst = num_wrong.idxmax()
print(study.trials.set_index("trial_id").loc[worst, ["task", "backbone", "n_train", "seed", "exact_match"]].to_dict())
answered = results.load_predictions(folder, trial_ids=[worst])
answered = answered[answered.parsed & ~answered.exact_match]
right_size = [row for row in answered.itertuples() if row.predicted.shape == row.answer.shape]
print(f"{len(answered)} wrong answers, {len(answered) - len(right_size)} of them of another size")
for row in sorted(right_size, key=lambda row: -row.cell_accuracy)[:2]:  # the nearest misses
    wrong = row.predicted != row.answer
    print(f"\n{row.problem_id}: {wrong.sum()} of {wrong.size} cells wrong, in brackets")
    for codes, marks in zip(row.predicted, wrong, strict=True):
        print("".join(f"[{code}]" if mark else f" {code} " for code, mark in zip(codes, marks, strict=True)))

# %% Where on the grid are they? The share of these answers that are wrong in each cell.
shape = right_size[0].answer.shape if right_size else (0, 0)
of_shape = [row.predicted != row.answer for row in right_size if row.answer.shape == shape]
if of_shape:
    print(pd.DataFrame(np.mean(of_shape, axis=0)).round(2).to_string(header=False, index=False))
