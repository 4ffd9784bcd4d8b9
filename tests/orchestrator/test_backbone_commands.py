"""What `sweep backbones` shows, and how plan and run meet weights that cannot be had."""

import io
import socket

import numpy as np
import pytest
from huggingface_hub import constants
from rich.console import Console
from safetensors.numpy import save_file

from orchestrator import backbone_commands, sweep
from orchestrator.backbone_commands import parameters, unavailable
from orchestrator.cli import main
from orchestrator.specs import TrialSpec, expand, load_sweep
from orchestrator.trial import run_trial
from task_generators.task import TaskSpec
from trainers.backbone import WEIGHTS_FOLDER, BackboneSpec, backbone_names, backbone_spec
from trainers.recipe import Placement, TrainRecipe

LARGE = "causal_lm/qwen3-4b-instruct-2507"


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No hub, and nothing in its cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def write_sweep(tmp_path, *backbones, **keys):
    lines = [f"name: s\nbackbones: [{', '.join(backbones)}]\ntasks: [life]\nn_train: [3, 10]\nn_test: 4"]
    (tmp_path / "s.yaml").write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in keys.items())]))
    return "s.yaml"


def listed(capsys, *arguments):
    assert main(["backbones", *arguments]) == 0
    return capsys.readouterr().out


def text_at(width, specs):
    console = Console(file=io.StringIO(), width=width)
    backbone_commands._list(specs, console)
    return console.file.getvalue()


def test_the_list_says_what_each_needs_and_may_be_used_for(capsys):
    text = listed(capsys)
    assert all(name in text for name in backbone_names())
    assert max(map(len, text.splitlines())) <= 160
    for family in backbone_commands.FAMILIES:
        shown = listed(capsys, "--family", family)
        for name in backbone_names():
            assert (f" {name} " in shown) == (backbone_spec(name).family == family)


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_list_fits_the_terminal(width):
    specs = [
        BackboneSpec(
            name=f"video_family/a-rather-long-flavour-{i}",
            family="vision_language",
            repo_id="Org/Name",
            num_params=5.57e9,
            license="a-licence-of-many-words-indeed",
            gated=True,
            num_gpus=2,
            memory_gb=38,
            note="some words " * 9,
        )
        for i in range(2)
    ]
    text = text_at(width, specs)
    assert max(map(len, text.splitlines())) <= width
    for words in ("5.6 B", "2 GPUs, 38 GB", "gated"):
        assert text.count(words) == 2
    assert ("some words" in text) == (width >= 120)


@pytest.mark.parametrize(
    ("number", "text"),
    [(5.57e9, "5.6 B"), (135e6, "135 M"), (13e9, "13 B"), (957e3, "957 k"), (0, ""), (99.9e6, "100 M"), (1e9, "1 B")],
)
def test_numbers_of_parameters_in_short(number, text):
    assert parameters(number) == text


@pytest.mark.parametrize("name", [*backbone_names(), "cogvideox/Org/Other@abc"])
def test_every_backbone_in_full_with_a_sweep_that_can_be_run(name, capsys, tmp_path):
    text = listed(capsys, name)
    spec = backbone_spec(name)
    assert f"backbone: {name}\n" in text
    assert spec.repo_id in text
    assert all(target in text for target in spec.lora_targets)
    for field in TrainRecipe.model_fields if spec.trainable else ():
        differs = getattr(TrainRecipe(**spec.recipe), field) != TrainRecipe.model_fields[field].default
        assert (f" {field} * " in text) == differs
        assert f" {field} " in text
    (tmp_path / "own.yaml").write_text(text.split("In a sweep:\n")[1])
    assert {trial.backbone for trial in expand(load_sweep("own.yaml"))} == {name}


def test_where_the_weights_are(capsys, tmp_path):
    assert "where: none needed" in listed(capsys, "baseline/oracle")
    assert "where: on disk: " in listed(capsys, "causal_lm/tiny")
    assert "HF_HUB_OFFLINE is set: hf download Qwen/Qwen3-4B-Instruct-2507" in listed(capsys, LARGE)
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen3-4B-Instruct-2507" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_text("weights")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / (backbone_spec(LARGE).revision or "main")).write_text("abc")
    assert f"where: in the cache: {snapshot}" in listed(capsys, LARGE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cogvideox/tny"], "unknown backbone 'cogvideox/tny'; did you mean 'cogvideox/tiny'? valid: "),
        (["--family", "audio"], "invalid choice: 'audio'"),
        (["cogvideox/tiny", "--family", "video"], "--family video: leave it out"),
    ],
)
def test_wrong_input_is_one_line(arguments, expected, capsys):
    assert main(["backbones", *arguments]) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert errors.count("\n") == 1


# --- weights that cannot be had, before anything is spent


def test_run_ends_with_one_line_before_anything_is_started(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *args, **kwargs: pytest.fail("the sweep was started"))
    assert main(["run", write_sweep(tmp_path, "baseline/oracle", LARGE)]) == 2
    output, errors = capsys.readouterr()
    assert errors.startswith(f"error: backbone {LARGE}: HF_HUB_OFFLINE is set and Qwen/")
    assert errors.count("\n") == 1
    assert output == ""
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_plan_warns_and_counts_all_the_same(tmp_path, capsys):
    assert main(["plan", write_sweep(tmp_path, "causal_lm/tiny", LARGE)]) == 0
    output, errors = capsys.readouterr()
    assert errors.startswith(f"warning: backbone {LARGE}: HF_HUB_OFFLINE is set")
    assert errors.count("\n") == 1, "once for all trials of a backbone"
    assert "4 of 4 trials to run" in output
    assert main(["plan", write_sweep(tmp_path, "causal_lm/tiny", "baseline/oracle")]) == 0
    assert capsys.readouterr().err == ""


def test_a_weights_folder_brings_what_the_hub_does_not(tmp_path):
    path = write_sweep(tmp_path, LARGE, placement="{weights_folder: weights}")
    (fault,) = unavailable(expand(load_sweep(path)))
    assert fault == (f"backbone {LARGE}: placement.weights_folder = weights: there is no such folder on this machine")
    model = tmp_path / "weights" / "Qwen" / "Qwen3-4B-Instruct-2507"
    model.mkdir(parents=True)
    (fault,) = unavailable(expand(load_sweep(path)))
    assert "is no folder of weights" in fault
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    save_file({"weights": np.zeros(1)}, model / "model.safetensors")
    assert unavailable(expand(load_sweep(path))) == []


def test_weights_that_may_not_be_read_are_one_line(tmp_path, monkeypatch):
    def refuse(spec):
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(backbone_commands, "check_available", refuse)
    trials = expand(load_sweep(write_sweep(tmp_path, "causal_lm/tiny")))
    assert unavailable(trials) == ["backbone causal_lm/tiny: /secret: Permission denied"]


def test_a_base_of_4_bits_needs_a_gpu_here_but_not_where_a_cluster_runs_it(tmp_path, monkeypatch):
    path = write_sweep(tmp_path, "causal_lm/tiny: {recipe: {precision: nf4}}", "causal_lm/tiny-random")
    (fault,) = unavailable(expand(load_sweep(path)))
    assert fault == "backbone causal_lm/tiny: recipe.precision = nf4: needs a GPU; on a CPU choose fp32 or bf16"
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    with_gpu = write_sweep(tmp_path, "causal_lm/tiny: {recipe: {precision: nf4}, placement: {gpus_per_worker: 1}}")
    assert not any("needs a GPU" in fault for fault in unavailable(expand(load_sweep(with_gpu))))


def test_several_backbones_wait_for_an_absent_hub_together(tmp_path, monkeypatch):
    """The client itself; a name that no server knows."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        template = f"http://127.0.0.1:{unused.getsockname()[1]}/{{repo_id}}/{{filename}}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    names = [f"cogvideox/Org/Model-{i}" for i in range(5)]
    faults = unavailable(expand(load_sweep(write_sweep(tmp_path, *names))))
    assert [fault.split(": ")[0].removeprefix("backbone ") for fault in faults] == names
    assert all("cannot be reached" in fault for fault in faults)


def test_a_trial_reads_its_weights_from_the_weights_folder(tmp_path):
    """The tiny backbone, as if it were a repository of the hub that is not in reach."""
    (tmp_path / "weights" / "Org").mkdir(parents=True)
    (tmp_path / "weights" / "Org" / "Tiny").symlink_to(WEIGHTS_FOLDER / "cogvideox-tiny")
    published = backbone_spec("cogvideox/tiny")
    recipe = TrainRecipe(**published.recipe | {"max_steps": 2, "lora_targets": published.lora_targets})
    task = TaskSpec(name="elementary_ca", params={"width": 6, "steps": 2})
    sizes = {"n_train": 2, "n_test": 2, "lora_rank": 2, "recipe": recipe}
    placement = Placement(weights_folder=str(tmp_path / "weights"))
    copy = TrialSpec(backbone="cogvideox/Org/Tiny", task=task, placement=placement, **sizes)
    original = TrialSpec(backbone="cogvideox/tiny", task=task, **sizes)
    assert copy.trial_id == copy.model_copy(update={"placement": Placement()}).trial_id
    losses = [[row.loss for row in run_trial(spec)[2]] for spec in (copy, original)]
    assert losses[0] == losses[1]
    with pytest.raises((OSError, ValueError)):
        run_trial(copy.model_copy(update={"placement": Placement()}))
