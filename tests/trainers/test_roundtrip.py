"""The ceiling: what drawing, the VAE there and back, and reading leave of right answers, whatever the transformer."""

import importlib

import numpy as np
import pytest
import torch

from task_generators.problem import Split
from task_generators.splits import draw_problems
from task_generators.task import TaskSpec
from tests.trainers.colours import Colours
from trainers.backbone import backbone_spec, load_backbone
from trainers.recipe import Placement, TrainRecipe
from trainers.roundtrip import roundtrip_exact_match
from trainers.video_backbone import VideoBackbone

RECIPE = TrainRecipe(**backbone_spec("cogvideox/tiny").recipe)
LIFE = TaskSpec(name="life", params={"height": 4, "width": 4})
PROBLEMS = draw_problems(LIFE, Split.TEST, 0, 10)
TASK = LIFE.build(Split.TEST)
MINIATURES = ("cogvideox/1.5-5b-i2v", "wan/2.1-14b-i2v", "ltx/2b", "ltx/13b")


def texts(grids):
    return [str(grid) for grid in grids]


@pytest.fixture(scope="module")
def tiny():
    return load_backbone(backbone_spec("cogvideox/tiny"), RECIPE, "cpu")


@pytest.fixture(scope="module", params=MINIATURES)
def miniature(request, tmp_path_factory):
    """A random checkpoint of the family's classes, and a recipe for it."""
    family, _, flavor = request.param.partition("/")
    folder = tmp_path_factory.mktemp(flavor)
    importlib.import_module(f"tests.trainers.tiny_{family}").write_tiny_checkpoint(folder, flavor)
    spec = backbone_spec(request.param).model_copy(update={"repo_id": str(folder), "revision": None})
    recipe = TrainRecipe(cell_px=16, border_px=0)
    return load_backbone(spec, recipe, "cpu"), recipe


def ceiling(backbone, recipe=RECIPE, **placement):
    return roundtrip_exact_match(backbone, TASK, PROBLEMS, recipe, Placement(**placement))


def test_a_good_vae_leaves_every_answer_and_small_cells_do_not_survive_it(tiny):
    assert texts(tiny.roundtrip(TASK, PROBLEMS, RECIPE)) == texts(problem.answer for problem in PROBLEMS)
    assert ceiling(tiny) == 1
    small = RECIPE.model_copy(update={"cell_px": 1})
    assert ceiling(tiny, small) < 1
    read = tiny.roundtrip(TASK, PROBLEMS, small)
    right = [np.array_equal(grid, problem.answer) for grid, problem in zip(read, PROBLEMS, strict=True)]
    assert ceiling(tiny, small) == np.mean(right)


def test_neither_the_transformer_nor_a_global_draw_takes_part(miniature, monkeypatch):
    backbone, recipe = miniature

    def forbidden(*arguments, **named):
        raise AssertionError("the transformer was asked")

    for module in backbone.module.modules():
        monkeypatch.setattr(module, "forward", forbidden)
    task = Colours(height=2, width=4)
    problems = task.problems(5)
    state = torch.get_rng_state()
    together = texts(backbone.roundtrip(task, problems, recipe))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert texts(backbone.roundtrip(task, problems, recipe)) == together
    assert texts(backbone.roundtrip(task, [problem], recipe)[0] for problem in problems) == together, (
        "alone as together"
    )


def test_it_is_the_last_frame_of_the_encoded_training_video(miniature):
    """What a perfect transformer would sample: the latents that training aims at."""
    backbone, recipe = miniature
    task = Colours(height=2, width=4)
    problems = task.problems(3)
    seen = []
    decode = backbone._decode
    backbone._decode = lambda latents: seen.append(latents) or decode(latents)
    try:
        backbone.roundtrip(task, problems, recipe)
    finally:
        del backbone._decode
    latents = torch.stack([example["video_latents"] for example in backbone.encode(task, problems, recipe)])
    generators = [torch.Generator() for _ in problems]
    expected = backbone._decodable(latents, generators)
    decoder_takes_noise = getattr(backbone._vae.config, "timestep_conditioning", False)
    torch.testing.assert_close(torch.cat(seen), expected, rtol=0, atol=0.5 if decoder_takes_noise else 0)


@pytest.mark.parametrize("limit", [1, 3, 0])
def test_memory_that_does_not_suffice_halves_the_batch_and_then_gives_up(tiny, monkeypatch, limit):
    sizes, roundtrip = [], VideoBackbone.roundtrip

    def limited(self, task, problems, recipe):
        sizes.append(len(problems))
        if len(problems) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return roundtrip(self, task, problems, recipe)

    monkeypatch.setattr(VideoBackbone, "roundtrip", limited)
    assert ceiling(tiny, eval_batch_size=8) == (1 if limit else None)
    assert sizes[:2] == [8, 4]
    assert sizes[-1] == (1 if limit < 2 else 2)
    if not limit:
        assert sizes.count(1) == 1, "once is enough to know"


def test_another_error_is_raised(tiny, monkeypatch):
    def broken(self, task, problems, recipe):
        raise RuntimeError("broken")

    monkeypatch.setattr(VideoBackbone, "roundtrip", broken)
    with pytest.raises(RuntimeError, match="broken"):
        ceiling(tiny)


def test_the_key_names_what_decides_and_nothing_else(tiny):
    def key(backbone=tiny, task=TASK, problems=PROBLEMS, **changes):
        return backbone.roundtrip_key(task, problems, RECIPE.model_copy(update=changes))

    assert key() == key(learning_rate=1.0, num_inference_steps=7, attempts=3, max_steps=1, batch_size=1)
    twin = load_backbone(backbone_spec("cogvideox/tiny-random"), RECIPE, "cpu")
    assert key(twin) == key(), "the same VAE"
    changes = [{"cell_px": 16}, {"border_px": 1}, {"num_frames": 5}, {"output_size": "inferred"}]
    changes += [{"transition": "convex"}, {"picture_px": 64, "cell_px": None}]
    others = [key(**change) for change in changes]
    others += [key(problems=PROBLEMS[:9]), key(problems=PROBLEMS[::-1])]
    other_task = TaskSpec(name="maze")
    others.append(key(task=other_task.build(Split.TEST), problems=draw_problems(other_task, Split.TEST, 0, 10)))
    bf16 = RECIPE.model_copy(update={"precision": "bf16"})
    others.append(key(load_backbone(backbone_spec("cogvideox/tiny"), bf16, "cpu")))
    assert len({key(), *others}) == len(others) + 1
