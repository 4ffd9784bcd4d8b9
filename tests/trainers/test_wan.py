"""Our Wan held against diffusers' own pipeline, on random miniature models of all three kinds."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanImageToVideoPipeline
from diffusers.pipelines.wan import pipeline_wan_i2v
from PIL import Image

from task_generators.parse import parse
from task_generators.problem import Problem
from tests.trainers.colours import Colours
from tests.trainers.tiny_wan import FLOW_SHIFTS, LATENT_CHANNELS, write_tiny_checkpoint
from trainers import lora
from trainers.backbone import BackboneSpec, backbone_spec, check_recipe, flavors
from trainers.backbones import wan
from trainers.gradient_checkpointing import gradient_checkpointing
from trainers.pictures import canvas_px, draw_on_canvas, picture_style
from trainers.prompt_embeds import EMPTY_PROMPT_FILE
from trainers.recipe import Placement, TrainRecipe
from trainers.rng import torch_generator
from trainers.train import train
from trainers.wan_checkpoint import cleaned_prompt, embed_prompt
from trainers.wan_diffusion import flow_matching_loss, noise_levels, sample_latents

KINDS = ("2.1-14b-i2v", "2.2-5b-ti2v", "2.2-a14b-i2v")
NUM_FRAMES, STEPS = 5, 4
RECIPE = TrainRecipe(cell_px=16, border_px=0, num_frames=NUM_FRAMES, num_inference_steps=STEPS)


TASK = Colours(height=2, width=3)


def problems(n: int) -> list[Problem]:
    return TASK.problems(n)


def rank_recipe() -> TrainRecipe:
    return RECIPE.model_copy(update={"max_steps": 6, "batch_size": 2, "learning_rate": 1e-2, "gradient_clip": 0.05})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: write_tiny_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def folder(request, folders):
    return folders[request.param]


def load(folder: Path, recipe: TrainRecipe = RECIPE, **spec) -> wan.Wan:
    spec = {"lora_targets": (lora.ALL_LINEAR,)} | spec
    return wan.load(BackboneSpec(name="wan/mini", family="video", repo_id=str(folder), **spec), recipe, "cpu")


def stock_pipeline(folder: Path) -> WanImageToVideoPipeline:
    pipeline = WanImageToVideoPipeline.from_pretrained(folder, tokenizer=None, text_encoder=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture_of(backbone: wan.Wan, problem: Problem) -> np.ndarray:
    style = picture_style(TASK, RECIPE, problem)
    return draw_on_canvas(problem.question, TASK, style, canvas_px(problem, style, backbone.canvas_multiple_px))


def noise_for(backbone: wan.Wan, *key: str | int) -> torch.Tensor:
    canvas = picture_of(backbone, problems(1)[0]).shape[:2]
    return torch.randn(1, *backbone._noise_shape(NUM_FRAMES, canvas), generator=torch_generator(*key))


def run_stock(pipeline, picture, noise, prompt_embeds, output_type="latent", **options):
    """``picture``: uint8 (H, W, 3); ``noise``: (1, C, F, H, W)."""
    height, width, _ = picture.shape
    return pipeline(
        image=Image.fromarray(picture),
        height=height,
        width=width,
        num_frames=NUM_FRAMES,
        prompt_embeds=prompt_embeds,
        num_inference_steps=STEPS,
        latents=noise,
        output_type=output_type,
        **{"guidance_scale": 1, **options},
    ).frames


def inputs_of(experts, run) -> list[dict]:
    """The keyword arguments of every forward pass of the transformers while ``run`` runs."""
    seen: list[dict] = []
    hooks = [
        expert.register_forward_pre_hook(
            lambda _, args, kwargs, number=number: seen.append({"expert": number} | kwargs), with_kwargs=True
        )
        for number, expert in enumerate(experts)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


def condition_of(examples) -> dict:
    names = [name for name in ("condition_latents", "image_embeds") if name in examples[0]]
    return {name: torch.stack([example[name] for example in examples]) for name in names}


def sampled(backbone, examples, noise, scheduler=None, **options):
    prompt_embeds = backbone._prompt_embeds.expand(len(examples), -1, -1)
    scheduler = scheduler or backbone._scheduler
    return sample_latents(
        backbone._denoiser, scheduler, condition_of(examples), prompt_embeds, noise, STEPS, **options
    ).detach()


# --- training step and sampler against the pipeline


def test_loss_conditions_the_transformer_as_the_pipeline_does(folder):
    """At the pipeline's first step its latents are pure noise; so are ours at a share of noise of one."""
    backbone, pipeline = load(folder), stock_pipeline(folder)
    problem = problems(1)[0]
    noise = noise_for(backbone, "condition")
    stock_experts = [expert for expert in (pipeline.transformer, pipeline.transformer_2) if expert is not None]
    stock = inputs_of(
        stock_experts, lambda: run_stock(pipeline, picture_of(backbone, problem), noise, backbone._prompt_embeds)
    )[0]
    example = backbone.encode(TASK, [problem], RECIPE)[0]
    ours = inputs_of(
        backbone._denoiser.experts,
        lambda: flow_matching_loss(
            backbone._denoiser,
            example["video_latents"][None],
            condition_of([example]),
            backbone._prompt_embeds,
            noise,
            noise_levels(pipeline.scheduler, STEPS)[0][:1],
            torch.ones(1),
        ),
    )
    assert len(ours) == 1
    for name in ("expert", "hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_image"):
        if torch.is_tensor(stock[name]):
            torch.testing.assert_close(ours[0][name], stock[name], rtol=0, atol=1e-5, check_dtype=False)
        else:
            assert ours[0][name] == stock[name]
    channels = LATENT_CHANNELS if folder.name.startswith("2.2-5b-ti2v") else 2 * LATENT_CHANNELS + 4
    assert ours[0]["hidden_states"].shape[1] == channels


def test_loss_is_the_squared_error_of_the_velocity(folder):
    backbone = load(folder)
    batch = backbone.collate(backbone.encode(TASK, problems(1), RECIPE), RECIPE, torch_generator("velocity"))
    sigma, clean, noise = batch["sigmas"].view(-1, 1, 1, 1, 1), batch["video_latents"], batch["noise"]
    noisy = (1 - sigma) * clean + sigma * noise
    denoiser = backbone._denoiser
    expert = denoiser.expert_at(float(batch["timesteps"]))
    condition = {name: batch[name] for name in ("condition_latents", "image_embeds") if name in batch}
    velocity = denoiser.velocity(expert, noisy, condition, backbone._prompt_embeds, batch["timesteps"])
    first = 1 if denoiser.expand_timesteps else 0
    expected = (velocity - (noise - clean))[:, :, first:].square().mean()
    torch.testing.assert_close(backbone.loss(batch), expected[None])


def test_a_first_frame_that_is_given_clean_has_no_part_in_the_loss(folders):
    backbone = load(folders["2.2-5b-ti2v"])
    batch = backbone.collate(backbone.encode(TASK, problems(2), RECIPE), RECIPE, torch_generator("first frame"))
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    for name in ("video_latents", "noise"):
        changed[name][:, :, 0] += 1
    assert torch.equal(backbone.loss(changed), backbone.loss(batch))
    torch.testing.assert_close(batch["video_latents"][:, :, :1], batch["condition_latents"], rtol=0, atol=1e-5)


def test_loss_of_a_batch_is_the_losses_of_its_examples(folder):
    backbone = load(folder)
    batch = backbone.collate(backbone.encode(TASK, problems(4), RECIPE), RECIPE, torch_generator("batch"))
    losses = backbone.loss(batch)
    alone = [backbone.loss({name: tensor[index : index + 1] for name, tensor in batch.items()}) for index in range(4)]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-4, atol=1e-6)
    assert len({round(value, 4) for value in losses.tolist()}) == 4


@pytest.mark.parametrize("sampler", ["own", "euler"])
def test_batched_sampler_equals_the_pipeline(folder, sampler):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    if sampler == "euler":
        shift = next(FLOW_SHIFTS[kind] for kind in KINDS if folder.name.startswith(kind))
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler = wan.sampler(backbone._scheduler, RECIPE.model_copy(update={"sampler": sampler}))
    noise = torch.cat([noise_for(backbone, "sampler", index) for index in range(2)])
    expected = [
        run_stock(pipeline, picture_of(backbone, problem), noise[index : index + 1], backbone._prompt_embeds)
        for index, problem in enumerate(problems(2))
    ]
    examples = backbone.encode(TASK, problems(2), RECIPE)
    ours = sampled(backbone, examples, noise, scheduler)
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=1e-5)
    assert torch.equal(sampled(backbone, examples, noise, scheduler), ours)  # a scheduler with a memory would differ
    assert (ours[0] - ours[1]).abs().max() > 0.1


def test_each_expert_samples_its_own_steps(folders):
    backbone, pipeline = load(folders["2.2-a14b-i2v"]), stock_pipeline(folders["2.2-a14b-i2v"])
    noise = noise_for(backbone, "experts")
    stock = inputs_of(
        (pipeline.transformer, pipeline.transformer_2),
        lambda: run_stock(pipeline, picture_of(backbone, problems(1)[0]), noise, backbone._prompt_embeds),
    )
    examples = backbone.encode(TASK, problems(1), RECIPE)
    ours = inputs_of(backbone._denoiser.experts, lambda: sampled(backbone, examples, noise))
    assert [call["expert"] for call in ours] == [call["expert"] for call in stock] == [0, 0, 1, 1]


def test_guidance_equals_the_pipeline(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    negative = torch.randn(backbone._prompt_embeds.shape, generator=torch_generator("negative"))
    noise = noise_for(backbone, "guidance")
    picture = picture_of(backbone, problems(1)[0])
    expected = run_stock(
        pipeline, picture, noise, backbone._prompt_embeds, guidance_scale=3, negative_prompt_embeds=negative
    )
    examples = backbone.encode(TASK, problems(1), RECIPE)
    ours = sampled(backbone, examples, noise, guidance_scale=3.0, negative_prompt_embeds_BLD=negative)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_pairs_overfitted_by_our_loss_are_sampled_by_the_stock_pipeline(folder):
    """Two pairs, so that the model has to look at the picture: training and pipeline must condition alike."""
    backbone, pipeline = load(folder, pretrained=False), stock_pipeline(folder)
    recipe = RECIPE.model_copy(update={"train_timesteps": "sampling"})
    examples = backbone.encode(TASK, problems(2), recipe)
    module = backbone.module.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(module.parameters())
    num_steps = 220 if backbone._denoiser.expand_timesteps else 100
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=num_steps, pct_start=0.1)
    generator = torch_generator("overfit")
    for _ in range(num_steps):
        loss = backbone.loss(backbone.collate(examples * 2, recipe, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    module.requires_grad_(False).eval()
    pipeline.transformer = backbone._denoiser.experts[0]
    if pipeline.transformer_2 is not None:
        pipeline.transformer_2 = backbone._denoiser.experts[1]
    answers = torch.stack([example["video_latents"][:, -1] for example in examples])
    distance = (answers[0] - answers[1]).square().mean().sqrt()
    noise = noise_for(backbone, "overfitted")
    drawn = [run_stock(pipeline, picture_of(backbone, p), noise, backbone._prompt_embeds) for p in problems(2)]
    error = (torch.stack([latents[0, :, -1] for latents in drawn]) - answers).square().mean().sqrt() / distance
    assert error < 0.25, f"after training to a loss of {loss:.4f}"
    frames = [backbone._decode_last_frames(latents)[0].astype(int) for latents in drawn]
    wanted = [backbone._decode_last_frames(example["video_latents"][None])[0].astype(int) for example in examples]
    for index in range(2):
        own, other = (np.abs(frames[index] - wanted[which]).mean() for which in (index, 1 - index))
        assert own < 0.5 * other


# --- two experts


def test_a_mixed_batch_trains_each_expert_on_its_own_examples(folders):
    backbone = load(folders["2.2-a14b-i2v"])
    module, boundary = backbone.module.requires_grad_(True), backbone._denoiser.boundary_timestep
    batch = backbone.collate(backbone.encode(TASK, problems(6), RECIPE), RECIPE, torch_generator("mixed"))
    is_high = batch["timesteps"] >= boundary
    assert 0 < is_high.sum() < 6

    def gradients(rows) -> dict[str, torch.Tensor]:
        module.zero_grad()
        backbone.loss({name: tensor[rows] for name, tensor in batch.items()}).sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
        return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}

    mixed, high, low = gradients(slice(None)), gradients(is_high), gradients(~is_high)
    for name, gradient in mixed.items():
        own, other = (low, high) if name.startswith("transformer_2.") else (high, low)
        torch.testing.assert_close(gradient, own[name], rtol=1e-3, atol=1e-5)
        assert not other[name].any()
    assert sum(bool(gradient.any()) for gradient in mixed.values()) > 0.9 * len(mixed)


def test_an_expert_without_examples_runs_where_ranks_must_keep_step(folders, monkeypatch):
    """The same losses and gradients, from a forward pass whose result counts nothing."""
    backbone = load(folders["2.2-a14b-i2v"])
    backbone.module.requires_grad_(True)
    batch = backbone.collate(backbone.encode(TASK, problems(2), RECIPE), RECIPE, torch_generator("idle"))
    batch["timesteps"] = torch.full((2,), 100)

    def outcome():
        backbone.module.zero_grad()
        losses = []
        calls = inputs_of(backbone._denoiser.experts, lambda: losses.append(backbone.loss(batch)))
        losses[0].sum().backward()
        gradients = [parameter.grad.clone() for parameter in backbone.module.parameters()]
        return [call["expert"] for call in calls], losses[0].detach(), gradients

    experts_alone, losses_alone, gradients_alone = outcome()
    monkeypatch.setattr("trainers.wan_diffusion._runs_with_others", lambda expert: True)
    experts, losses, gradients = outcome()
    assert (experts_alone, experts) == ([1], [0, 1])
    assert torch.equal(losses, losses_alone)
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_alone, strict=True))


# --- the family


def grids(answers) -> list:
    return [None if grid is None else grid.tolist() for grid in answers]


def test_answers_are_what_the_stock_pipeline_draws(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    drawn = problems(3)
    style = picture_style(TASK, RECIPE, drawn[0])
    pictures = np.stack([picture_of(backbone, problem) for problem in drawn])
    expected, stock_videos = [], []
    for problem, picture in zip(drawn, pictures, strict=True):
        noise = noise_for(backbone, "noise", problem.problem_id, 1)
        video = run_stock(pipeline, picture, noise, backbone._prompt_embeds, output_type="np")[0]
        assert len(video) == NUM_FRAMES
        stock_videos.append((video * 255).round().astype(int))
        expected.append(stock_videos[-1][-1])

    def frames(order, attempt=1) -> np.ndarray:
        keys = [(drawn[index].problem_id, attempt) for index in order]
        return np.stack(list(backbone.last_frames(pictures[order], keys, RECIPE))).astype(int)

    ours = frames([0, 1, 2])
    assert np.abs(ours - expected).max() <= 1
    assert min(np.abs(ours[a] - ours[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.5
    # Neither the batch nor the order decides about the noise; the attempt does.
    assert np.abs(frames([2, 0])[[1, 0]] - ours[[0, 2]]).max() <= 1
    assert np.abs(frames([1], attempt=0) - ours[[1]]).mean() > 0.5
    parsed = [parse(frame[:32, :48].astype(np.uint8), TASK.palette, style, (2, 3)) for frame in ours]
    assert grids(backbone.answer(TASK, drawn, RECIPE, 1)) == grids(parsed)
    answers, videos = backbone.answer_with_videos(TASK, drawn, RECIPE, 1, [2])
    assert grids(answers) == grids(parsed)
    assert list(videos) == [2]
    assert np.abs(videos[2].astype(int) - stock_videos[2]).max() <= 1


def test_collate_draws_from_its_generator_alone(folder):
    backbone = load(folder)
    examples = backbone.encode(TASK, problems(2), RECIPE) * 16
    state = torch.get_rng_state()
    uniform = backbone.collate(examples, RECIPE, torch_generator("a"))
    again = backbone.collate(examples, RECIPE, torch_generator("a"))
    assert all(torch.equal(uniform[name], again[name]) for name in uniform)
    assert torch.equal(torch.get_rng_state(), state)
    assert {len(tensor) for tensor in uniform.values()} == {32}
    assert uniform["noise"].shape == uniform["video_latents"].shape
    assert len(uniform["timesteps"].unique()) > 20
    torch.testing.assert_close(uniform["timesteps"] / 1000, uniform["sigmas"], rtol=0, atol=1e-3)
    assert uniform["sigmas"].mean() > 0.6  # the shift towards noise
    for sampler in ("own", "euler"):
        sampling = RECIPE.model_copy(update={"train_timesteps": "sampling", "sampler": sampler})
        drawn = backbone.collate(examples, sampling, torch_generator("a"))
        visited = inputs_of(
            backbone._denoiser.experts,
            lambda recipe=sampling: sampled(
                backbone, examples[:1], noise_for(backbone, "visited"), wan.sampler(backbone._scheduler, recipe)
            ),
        )
        assert set(drawn["timesteps"].tolist()) == {float(call["timestep"].max()) for call in visited}


@pytest.mark.parametrize("lora_targets", [(lora.ALL_LINEAR,), ("to_q", "to_k", "ffn.net.2")])
def test_a_saved_adapter_loads_in_the_stock_pipeline(folder, tmp_path, lora_targets):
    recipe = RECIPE.model_copy(update={"lora_alpha": 12.0})  # alpha unlike the rank: the scale has to survive
    backbone, pipeline = load(folder), stock_pipeline(folder)
    lora.attach(backbone.module, lora_rank=4, recipe=recipe, targets=lora_targets, seed=0)
    with torch.no_grad():
        for name, parameter in backbone.module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(name)) * 0.1)
    lora.save(backbone, tmp_path / "adapter")

    noise, picture = noise_for(backbone, "adapter"), picture_of(backbone, problems(1)[0])
    outputs = [run_stock(pipeline, picture, noise, backbone._prompt_embeds)]
    pipeline.load_lora_weights(tmp_path / "adapter")
    outputs.append(run_stock(pipeline, picture, noise, backbone._prompt_embeds))
    if pipeline.transformer_2 is not None:
        second = {"weight_name": wan.SECOND_ADAPTER_FILE, "load_into_transformer_2": True}
        pipeline.load_lora_weights(tmp_path / "adapter", **second)
        outputs.append(run_stock(pipeline, picture, noise, backbone._prompt_embeds))
    ours = sampled(backbone, backbone.encode(TASK, problems(1), RECIPE), noise)
    torch.testing.assert_close(ours, outputs[-1], rtol=0, atol=1e-4)
    for before, after in pairwise(outputs):
        assert (after - before).abs().max() > 0.01


def test_training_lowers_the_loss_and_changes_nothing_but_the_adapter(folder):
    recipe = RECIPE.model_copy(update={"max_steps": 12, "learning_rate": 2e-2, "batch_size": 4})
    backbone = load(folder)
    examples = backbone.encode(TASK, problems(2), recipe)
    batch = backbone.collate(examples * 8, recipe, torch_generator("held out noise"))
    before = lora.base_fingerprint(backbone.module)
    with lora.attached(backbone, lora_rank=4, recipe=recipe, seed=0):
        with torch.no_grad():
            losses = [backbone.loss(batch).mean()]
        train(backbone, examples, recipe, Placement(), seed=0)
        with torch.no_grad():
            losses.append(backbone.loss(batch).mean())
    assert losses[1] < 0.9 * losses[0]
    assert lora.base_fingerprint(backbone.module) == before


def test_gradient_checkpointing_changes_no_gradient(folder):
    backbone = load(folder)
    batch = backbone.collate(backbone.encode(TASK, problems(2), RECIPE), RECIPE, torch_generator("checkpointing"))
    gradients = []
    with lora.attached(backbone, lora_rank=4, recipe=RECIPE, seed=0):
        backbone.module.train()
        trained = [parameter for parameter in backbone.module.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad(backbone.loss(batch).sum(), trained))
        with gradient_checkpointing("wan/mini", backbone.module):
            gradients.append(torch.autograd.grad(backbone.loss(batch).sum(), trained))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert any(gradient.any() for gradient in gradients[0])


def test_random_weights_are_drawn_once_and_for_all(folder):
    state = torch.get_rng_state()
    pretrained, random, again = load(folder), load(folder, pretrained=False), load(folder, pretrained=False)
    assert torch.equal(torch.get_rng_state(), state)
    prints = [lora.base_fingerprint(backbone.module) for backbone in (pretrained, random, again)]
    assert prints[0] != prints[1] == prints[2]
    experts = [lora.base_fingerprint(expert) for expert in random._denoiser.experts]
    assert len(set(experts)) == len(experts)
    assert lora.base_fingerprint(random._vae) == lora.base_fingerprint(pretrained._vae)
    modules = [*random.module.parameters(), *(p for encoder in random._encoders for p in encoder.parameters())]
    assert not any(parameter.requires_grad for parameter in modules)


@pytest.mark.parametrize("pretrained", [True, False])
def test_bfloat16_base_gives_nearly_the_float32_loss(folder, pretrained):
    half_recipe = RECIPE.model_copy(update={"precision": "bf16"})
    full, half = load(folder, pretrained=pretrained), load(folder, half_recipe, pretrained=pretrained)
    types = {name: parameter.dtype for name, parameter in half.module.named_parameters()}
    assert {types[name] for name in types if "to_q" in name} == {torch.bfloat16}
    assert {types[name] for name in types if "time_embedder" in name} == {torch.float32}
    examples = full.encode(TASK, problems(2), RECIPE)
    assert all(
        torch.equal(a["video_latents"], b["video_latents"])
        for a, b in zip(examples, half.encode(TASK, problems(2), half_recipe), strict=True)
    )  # the VAE stays float32
    batch = full.collate(examples, RECIPE, torch_generator("bf16"))
    losses = half.loss(batch)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, full.loss(batch), rtol=0.05, atol=0)
    question = picture_of(full, problems(1)[0])[None]
    frames = [next(each.last_frames(question, [("bf16", 0)], RECIPE)).astype(int) for each in (full, half)]
    assert np.abs(frames[0] - frames[1]).mean() < 8


def test_encodings_are_kept_apart_where_another_setting_makes_them(folders):
    keys = set()
    for kind in KINDS:
        backbone = load(folders[kind])
        keys.add(backbone._encoder_fingerprint)
        backbone._denoiser = replace(backbone._denoiser, expand_timesteps=not backbone._denoiser.expand_timesteps)
        del backbone._encoder_fingerprint
        keys.add(backbone._encoder_fingerprint)
    assert len(keys) == 2 * len(KINDS)


# --- what users may get wrong


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_frames", 6, r"recipe.num_frames = 6: .*1 \+ a multiple of 4"),
        ("sampler", "ddim", r"recipe.sampler = ddim: .*own, unipc, euler"),
        ("guidance_scale", 5.0, r"recipe.guidance_scale = 5: .*valid: 1"),
    ],
)
def test_settings_the_family_cannot_follow_are_errors(folders, field, value, message):
    backbone, recipe = load(folders["2.1-14b-i2v"]), RECIPE.model_copy(update={field: value})
    with pytest.raises(ValueError, match=message):
        check_recipe(backbone.spec, recipe)
    with pytest.raises(ValueError, match=message):
        backbone.answer(TASK, problems(1), recipe, 0)


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("transformer/config.json", "in_channels", 16, "not a Wan image-to-video model: 16 input channels; valid: 12"),
        ("transformer/config.json", "pos_embed_seq_len", 514, "needs a last picture"),
        ("vae/config.json", "scale_factor_temporal", 8, "8 frames a latent frame; valid: 4"),
        ("model_index.json", "transformer_2", [None, None], "no transformer_2 of a Wan model"),
        ("scheduler/scheduler_config.json", "prediction_type", "epsilon", "'epsilon'.*valid: 'flow_prediction'"),
        ("scheduler/scheduler_config.json", "_class_name", "DDIMScheduler", "'DDIMScheduler'; valid schedulers: UniPC"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(tmp_path, part, field, value, message):
    import json

    folder = write_tiny_checkpoint(tmp_path, "2.2-a14b-i2v")
    config = json.loads((folder / part).read_text())
    (folder / part).write_text(json.dumps(config | {field: value}))
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_samplers_take_over_the_checkpoints_shift():
    euler, unipc = FlowMatchEulerDiscreteScheduler(shift=4.0), UniPCMultistepScheduler(flow_shift=6.0)
    recipes = {name: RECIPE.model_copy(update={"sampler": name}) for name in wan.Wan.samplers}
    assert wan.sampler(euler, recipes["own"]) is wan.sampler(euler, recipes["euler"]) is euler
    assert wan.sampler(unipc, recipes["own"]) is wan.sampler(unipc, recipes["unipc"]) is unipc
    assert wan.sampler(euler, recipes["unipc"]).config.flow_shift == 4.0
    assert wan.sampler(unipc, recipes["euler"]).config.shift == 6.0


# --- the prompt


def test_neutral_prompt_is_embedded_once_as_the_pipeline_embeds_it(folders, tmp_path, monkeypatch):
    from shutil import rmtree

    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

    tokenizer = T5Tokenizer(extra_ids=0)
    config = UMT5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    encoder = UMT5EncoderModel(config).eval().to(torch.bfloat16)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder.save_pretrained(tmp_path / "text_encoder")
    pipeline = stock_pipeline(folders["2.1-14b-i2v"])
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=encoder)
    monkeypatch.setattr(pipeline_wan_i2v, "ftfy", type("ftfy", (), {"fix_text": staticmethod(str)}), raising=False)
    for prompt in ("", " a  puzzle\n&amp;amp; its answer "):
        with torch.no_grad():
            expected = pipeline._get_t5_prompt_embeds(prompt)
        ours = embed_prompt(str(tmp_path), None, prompt, "cpu")
        assert ours.shape == (1, 512, 8)
        torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.02)
        assert cleaned_prompt(prompt) == pipeline_wan_i2v.prompt_clean(prompt)
    first = embed_prompt(str(tmp_path), None, "", "cpu")
    assert 0 < first[0].any(dim=-1).sum() < 5  # the rest is padding: zeros
    rmtree(tmp_path / "text_encoder")
    assert torch.equal(embed_prompt(str(tmp_path), None, "", "cpu"), first)
    assert EMPTY_PROMPT_FILE in {file.name for file in tmp_path.iterdir()}


def test_a_prompt_that_cannot_be_cleaned_as_published_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ValueError, match=r"'“quoted”'.*pip install ftfy"):
        cleaned_prompt("“quoted”")


# --- the flavours


def test_flavours_hold_the_published_recipe():
    for spec in flavors("wan").values():
        recipe = TrainRecipe(**spec.recipe)
        check_recipe(spec, recipe)
        assert (recipe.learning_rate, recipe.batch_size, recipe.lora_alpha) == (1e-4, 1, 32)
        assert (recipe.gradient_clip, recipe.precision, recipe.lr_schedule) == (0.05, "bf16", "constant")
        assert spec.lora_targets == (lora.ALL_LINEAR,)
        assert 2e-9 * spec.num_params < spec.memory_gb
        assert ("nothing is published" in spec.note) == ("2.2" in spec.name)
    assert set(flavors("wan")) == set(KINDS)


def test_any_other_repository_is_a_backbone():
    spec = backbone_spec("wan/Some-Lab/Wan-I2V@0123abc")
    assert (spec.repo_id, spec.revision, spec.family) == ("Some-Lab/Wan-I2V", "0123abc", "video")


def test_importing_the_family_loads_no_model_library():
    code = "import sys, trainers.backbones.wan; print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
