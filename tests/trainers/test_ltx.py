"""Our LTX-Video held against diffusers' own pipelines, on random miniature checkpoints of both generations."""

import json
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from task_generators.parse import parse
from task_generators.problem import Problem, frozen_grid
from task_generators.render import render
from tests.trainers.colours import Colours
from tests.trainers.tiny_ltx import (
    KINDS,
    LATENT_CHANNELS,
    SPATIAL_RATIO,
    TEXT_CHANNELS,
    TEXT_LENGTH,
    random_vae,
    write_tiny_checkpoint,
)
from trainers import lora
from trainers.backbone import BackboneSpec, backbone_spec
from trainers.backbones import ltx
from trainers.ltx_diffusion import sample_latents, sampling_timesteps, training_timesteps
from trainers.pictures import picture_style
from trainers.prompt_embeds import EMPTY_PROMPT_FILE
from trainers.recipe import TrainRecipe
from trainers.rng import torch_generator

STEPS = 4
OVERFIT_STEPS = 150
RECIPE = TrainRecipe(cell_px=8, border_px=0, num_inference_steps=STEPS)
SHAPE = (LATENT_CHANNELS, 2, 4, 8)
"""Of one video's latents: 9 frames of 32 x 64 px."""


TASK = Colours(height=4, width=8)


def problems(n: int) -> list[Problem]:
    return TASK.problems(n)


@pytest.fixture(autouse=True)
def posterior_without_draws(monkeypatch):
    """Our encodings are the posterior's mode. A pipeline that takes it too draws its noise from the generator first."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {flavor: write_tiny_checkpoint(tmp_path_factory.mktemp(flavor), flavor) for flavor in KINDS}


@pytest.fixture(params=KINDS)
def folder(request, folders):
    return folders[request.param]


def load(folder: Path, recipe: TrainRecipe = RECIPE, **spec) -> ltx.LTX:
    spec = BackboneSpec(name="ltx/mini", family="video", repo_id=str(folder), lora_targets=ltx.LORA_TARGETS, **spec)
    return ltx.load(spec, recipe, "cpu")


def stock_pipeline(folder: Path):
    named = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipeline = {"LTXPipeline": LTXImageToVideoPipeline, "LTXConditionPipeline": LTXConditionPipeline}[named](
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLLTXVideo.from_pretrained(folder / "vae"),
        transformer=LTXVideoTransformer3DModel.from_pretrained(folder / "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_stock(pipeline, picture, generator, prompt, output_type="latent", **options):
    """``picture``: uint8 (H, W, 3). Latents (C, F, H, W), or frames (F, H, W, 3) with ``output_type="np"``."""
    height, width, _ = picture.shape
    if isinstance(pipeline, LTXConditionPipeline):
        options["image_cond_noise_scale"] = 0
    frames = pipeline(
        image=torch.from_numpy(picture).permute(2, 0, 1)[None] / 255,
        height=height,
        width=width,
        num_frames=9,
        prompt_embeds=prompt[0],
        prompt_attention_mask=prompt[1],
        **{"guidance_scale": 1, "num_inference_steps": STEPS} | options,
        generator=generator,
        decode_timestep=ltx.DECODE_TIMESTEP,
        output_type=output_type,
    ).frames[0]
    if output_type == "latent" and frames.ndim == 2:  # tokens
        frames = frames.T.unflatten(1, (2, height // SPATIAL_RATIO, width // SPATIAL_RATIO))
    return frames


def picture_of(problem: Problem) -> np.ndarray:
    return render(problem.question, TASK.palette, picture_style(TASK, RECIPE, problem))


def grids(answers) -> list:
    return [None if grid is None else grid.tolist() for grid in answers]


def noise_of(*key) -> torch.Tensor:
    return torch.randn(1, *SHAPE, generator=torch_generator(*key))


def calls_of(transformer, run) -> list[dict]:
    """Keyword arguments of every forward pass of ``transformer`` while ``run`` runs."""
    calls = []
    hook = transformer.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    return calls


def sample(backbone: ltx.LTX, examples: list, noise: torch.Tensor, prompt=None, **options) -> torch.Tensor:
    embeds, mask = prompt or backbone._prompt
    return sample_latents(
        backbone.module,
        backbone._convention,
        backbone._scheduler,
        torch.stack([example["image_latents"] for example in examples]),
        embeds.expand(len(noise), -1, -1),
        mask.expand(len(noise), -1),
        noise,
        STEPS,
        **options,
    )


# --- training and sampling


def test_training_shows_the_transformer_what_the_stock_pipeline_shows_it(folder):
    """Picture, noise, timestep of every token, positions and mask, at every noise level that the pipeline visits."""
    backbone, pipeline = load(folder), stock_pipeline(folder)
    picture = picture_of(problems(1)[0])
    expected = calls_of(
        pipeline.transformer, lambda: run_stock(pipeline, picture, torch_generator("s"), backbone._prompt)
    )
    example = backbone.encode(TASK, problems(1), RECIPE)[0]
    assert len(expected) == STEPS
    for index, theirs in enumerate(expected):
        batch = {
            **{name: tensor[None] for name, tensor in example.items()},
            "noise": noise_of("s"),
            "timesteps": theirs["timestep"].max()[None],
        }
        (ours,) = calls_of(backbone.module, lambda batch=batch: backbone.loss(batch))
        for name in theirs.keys() - {"hidden_states", "attention_kwargs", "return_dict"}:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)
        pictures = slice(0, 4 * 8)
        torch.testing.assert_close(ours["hidden_states"][:, pictures], theirs["hidden_states"][:, pictures])
        if index == 0:
            torch.testing.assert_close(ours["hidden_states"], theirs["hidden_states"], rtol=0, atol=1e-5)


def test_loss_is_the_mean_squared_error_of_the_velocity_behind_the_picture(folder):
    backbone = load(folder)
    batch = backbone.collate(backbone.encode(TASK, problems(3), RECIPE), RECIPE, torch_generator("batch"))
    (call,) = calls_of(backbone.module, lambda: backbone.loss(batch))
    with torch.no_grad():
        predicted = backbone.module(**call)[0]
    levels = (batch["timesteps"] / 1000).view(-1, 1, 1, 1, 1)
    mixture = (1 - levels) * batch["video_latents"] + levels * batch["noise"]
    tokens, target = (
        tensor.flatten(2).transpose(1, 2) for tensor in (mixture, batch["noise"] - batch["video_latents"])
    )
    torch.testing.assert_close(call["hidden_states"][:, 32:], tokens[:, 32:])
    losses = backbone.loss(batch)
    torch.testing.assert_close(losses, (predicted - target)[:, 32:].square().mean(dim=(1, 2)), rtol=1e-5, atol=1e-6)
    # One value an example, whatever the others are.
    alone = [backbone.loss({name: tensor[index : index + 1] for name, tensor in batch.items()}) for index in range(3)]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-4, atol=1e-6)
    assert len({round(value, 4) for value in losses.tolist()}) == 3


def test_loss_ignores_noise_and_latents_of_the_first_frame(folder):
    backbone = load(folder)
    batch = backbone.collate(backbone.encode(TASK, problems(2), RECIPE), RECIPE, torch_generator("batch"))
    loss = backbone.loss(batch)
    for name in ("noise", "video_latents"):
        changed = batch[name].clone()
        changed[:, :, 0] += 1
        assert torch.equal(backbone.loss(batch | {name: changed}), loss)
        changed[:, :, 1] += 1
        assert not torch.allclose(backbone.loss(batch | {name: changed}), loss)


def test_batched_sampler_equals_the_stock_pipeline(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    expected = [
        run_stock(pipeline, picture_of(problem), torch_generator("s", index), backbone._prompt)
        for index, problem in enumerate(problems(2))
    ]
    ours = sample(backbone, backbone.encode(TASK, problems(2), RECIPE), torch.cat([noise_of("s", 0), noise_of("s", 1)]))
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-5)


def test_guidance_equals_the_stock_pipeline(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    prompts = torch.randn(2, 1, TEXT_LENGTH, TEXT_CHANNELS, generator=torch_generator("prompts"))
    masks = torch.arange(TEXT_LENGTH)[None] < torch.tensor([[5], [1]])
    expected = run_stock(
        pipeline,
        picture_of(problems(1)[0]),
        torch_generator("s"),
        (prompts[0], masks[:1]),
        guidance_scale=3,
        negative_prompt_embeds=prompts[1],
        negative_prompt_attention_mask=masks[1:],
    )
    examples = backbone.encode(TASK, problems(1), RECIPE)
    ours = sample(
        backbone,
        examples,
        noise_of("s"),
        (prompts[0], masks[:1]),
        guidance_scale=3.0,
        negative_prompt=(prompts[1], masks[1:]),
    )
    torch.testing.assert_close(ours[0], expected, rtol=0, atol=1e-5)
    unguided = sample(backbone, examples, noise_of("s"), (prompts[0], masks[:1]))
    assert (ours - unguided).abs().max() > 0.1


def test_padding_of_the_prompt_is_masked(folder):
    backbone = load(folder)
    examples, (embeds, mask) = backbone.encode(TASK, problems(1), RECIPE), backbone._prompt
    assert not mask.all()
    latents = sample(backbone, examples, noise_of("s"))
    changed = [embeds + where.unsqueeze(-1) for where in (~mask, mask)]
    torch.testing.assert_close(sample(backbone, examples, noise_of("s"), (changed[0], mask)), latents)
    assert not torch.allclose(sample(backbone, examples, noise_of("s"), (changed[1], mask)), latents, atol=1e-3)


def test_pairs_overfitted_by_our_loss_are_answered_by_the_stock_pipeline(folder):
    """Two pairs, so that the model has to look at the picture: training and pipeline must condition alike."""
    backbone, pipeline = load(folder, pretrained=False), stock_pipeline(folder)
    examples = backbone.encode(TASK, problems(2), RECIPE)
    transformer = backbone.module.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(transformer.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=OVERFIT_STEPS, pct_start=0.1)
    generator = torch_generator("overfit")
    for _ in range(OVERFIT_STEPS):
        loss = backbone.loss(backbone.collate(examples * 4, RECIPE, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    pipeline.transformer = transformer.eval()
    answers = torch.stack([example["video_latents"][:, -1] for example in examples])
    sampled = [
        run_stock(pipeline, picture_of(problem), torch_generator("s"), backbone._prompt) for problem in problems(2)
    ]
    error = (torch.stack(sampled)[:, :, -1] - answers).square().mean().sqrt()
    assert error < 0.25 * (answers[0] - answers[1]).square().mean().sqrt(), f"after training to a loss of {loss:.4f}"
    # So are the pictures: the last frame that the pipeline shows is what this VAE makes of the answer.
    mean, std = backbone._latent_statistics()
    with torch.no_grad():
        frames = backbone._decoded(torch.stack([example["video_latents"] for example in examples]) * std + mean)
    expected = (frames[:, :, -1].permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1).numpy()
    shown = np.stack(
        [
            run_stock(pipeline, picture_of(problem), torch_generator("s"), backbone._prompt, output_type="np")[-1]
            for problem in problems(2)
        ]
    )
    assert np.square(shown - expected).mean() < 0.25 * np.square(expected[0] - expected[1]).mean()


# --- noise levels


def test_training_noise_levels_are_the_published_draw():
    """Logit-normal of spread one; its median is the logistic of a shift that is linear in the number of tokens."""
    for num_tokens, shift in ((1024, 0.95), (4096, 2.05), (2560, 1.5), (242, 0.67)):
        drawn = training_timesteps(num_tokens, 20000, torch_generator("levels")) / 1000
        assert 0 < drawn.min() < drawn.max() < 1
        logits = torch.logit(drawn.double())
        assert abs(logits.median() - shift) < 0.03
        assert abs(logits.std() - 1) < 0.03


def test_collate_draws_from_its_generator_alone(folder):
    backbone = load(folder)
    examples = backbone.encode(TASK, problems(2), RECIPE) * 16
    state = torch.get_rng_state()
    uniform = backbone.collate(examples, RECIPE, torch_generator("a"))
    again = backbone.collate(examples, RECIPE, torch_generator("a"))
    assert all(torch.equal(uniform[name], again[name]) for name in uniform)
    assert torch.equal(torch.get_rng_state(), state)
    assert uniform["noise"].shape == (32, *SHAPE)
    assert {len(tensor) for tensor in uniform.values()} == {32}
    assert torch.equal(uniform["timesteps"], training_timesteps(2 * 4 * 8, 32, torch_generator("a")))
    sampling = RECIPE.model_copy(update={"train_timesteps": "sampling"})
    drawn = backbone.collate(examples, sampling, torch_generator("a"))["timesteps"].unique()
    visited, levels = sampling_timesteps(backbone._convention, backbone._scheduler, STEPS, 2 * 4 * 8)
    assert torch.equal(drawn, visited.flip(0))
    torch.testing.assert_close(levels[:-1] * 1000, visited)
    assert (visited[0], levels[-1]) == (1000, 0)


def test_dynamic_shift_follows_the_length_of_the_video(folders):
    backbone = load(folders["2b"])
    means = [
        sampling_timesteps(backbone._convention, backbone._scheduler, STEPS, num_tokens)[0].mean()
        for num_tokens in (64, 1024, 4096)
    ]
    assert means == sorted(means)
    assert means[0] < means[-1] - 10


# --- the family


def test_video_latents_are_what_the_pipelines_decode(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    problem = problems(1)[0]
    style = picture_style(TASK, RECIPE, problem)
    frames = [render(problem.question, TASK.palette, style)] * 4 + [render(problem.answer, TASK.palette, style)] * 5
    pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None] / 127.5 - 1
    example = backbone.encode(TASK, [problem], RECIPE)[0]
    vae = pipeline.vae
    with torch.no_grad():
        mode = vae.encode(pixels).latent_dist.mode()
    latents = example["video_latents"][None]
    ours = pipeline._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    torch.testing.assert_close(ours, mode, rtol=0, atol=1e-5)
    assert latents.shape[1:] == SHAPE
    # The encoder is causal: the picture alone has the latents that it has as a first frame.
    torch.testing.assert_close(example["image_latents"], example["video_latents"][:, :1], rtol=0, atol=1e-4)


def frames_of(backbone: ltx.LTX, drawn: list[Problem], attempt: int) -> np.ndarray:
    pictures = np.stack([picture_of(problem) for problem in drawn])
    keys = [(problem.problem_id, attempt) for problem in drawn]
    return np.stack(list(backbone.last_frames(pictures, keys, RECIPE))).astype(int)


def test_answers_are_what_the_stock_pipeline_draws(folder):
    """Decoding noise included, where the decoder takes some."""
    backbone, pipeline = load(folder), stock_pipeline(folder)
    drawn = problems(3)
    style = picture_style(TASK, RECIPE, drawn[0])
    expected, stock_videos = [], []
    for problem in drawn:
        generator = torch_generator("noise", problem.problem_id, 1)
        video = run_stock(pipeline, picture_of(problem), generator, backbone._prompt, output_type="np")
        assert len(video) == 9
        stock_videos.append((video * 255).round().astype(int))
        expected.append(stock_videos[-1][-1])
    answers, videos = backbone.answer_with_videos(TASK, drawn, RECIPE, 1, [1])
    assert grids(answers) == grids(backbone.answer(TASK, drawn, RECIPE, 1))
    assert list(videos) == [1]
    assert np.abs(videos[1].astype(int) - stock_videos[1]).max() <= 1
    frames = frames_of(backbone, drawn, 1)
    for ours, theirs, answer in zip(frames, expected, answers, strict=True):
        assert np.abs(ours - theirs).max() <= 1
        assert grids([answer]) == grids([parse(theirs.astype(np.uint8), TASK.palette, style, (4, 8))])
    # Neither the batch nor the order decides about the noise; the attempt does.
    assert np.abs(frames_of(backbone, drawn[::-1], 1)[::-1] - frames).max() <= 1
    assert np.abs(frames_of(backbone, drawn[2:], 1) - frames[2:]).max() <= 1
    assert np.abs(frames_of(backbone, drawn, 0) - frames).mean() > 10
    assert np.array_equal(frames_of(backbone, drawn, 1), frames)


def test_decoders_that_add_noise_inside_give_the_same_answer_every_time(folders, tmp_path):
    folder = copytree(folders["2b"], tmp_path / "noisy")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = random_vae(KINDS["2b"], decoder_inject_noise=(True,) * 5)
        for name, parameter in vae.named_parameters():
            if "per_channel_scale" in name:
                torch.nn.init.normal_(parameter)
        vae.save_pretrained(folder / "vae")
        backbone = load(folder)
        latents = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert not torch.equal(backbone._decoded(latents), backbone._decoded(latents))  # the noise has an effect
        state = torch.get_rng_state()
        frames = backbone._decode_last_frames(latents)
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(backbone._decode_last_frames(latents[2:]), frames[2:])


def test_canvas_is_a_multiple_of_what_the_pipelines_take(folder):
    backbone = load(folder)
    grown = Problem(frozen_grid([[1, 2]]), frozen_grid([[1, 2, 3, 4, 5], [4, 5, 6, 7, 8]]), problem_id="grown")
    example = backbone.encode(TASK, [grown], RECIPE)[0]
    assert example["video_latents"].shape == (LATENT_CHANNELS, 2, 32 // SPATIAL_RATIO, 64 // SPATIAL_RATIO)
    (answer,) = backbone.answer(TASK, [grown], RECIPE, 0)
    assert answer is None or answer.shape == (2, 5)


def test_a_saved_adapter_loads_in_the_stock_pipeline(folder, tmp_path):
    recipe = RECIPE.model_copy(update={"lora_alpha": 12.0})  # alpha unlike the rank: the scale has to survive
    backbone = load(folder)
    lora.attach(backbone.module, lora_rank=4, recipe=recipe, targets=backbone.spec.lora_targets, seed=0)
    with torch.no_grad():
        for name, parameter in backbone.module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(name)) * 0.1)
    lora.save(backbone, tmp_path / "adapter")

    pipeline, picture = stock_pipeline(folder), picture_of(problems(1)[0])
    bare = run_stock(pipeline, picture, torch_generator("s"), backbone._prompt)
    pipeline.load_lora_weights(tmp_path / "adapter")
    adapted = run_stock(pipeline, picture, torch_generator("s"), backbone._prompt)
    ours = sample(backbone, backbone.encode(TASK, problems(1), RECIPE), noise_of("s"))[0]
    torch.testing.assert_close(ours, adapted, rtol=0, atol=1e-4)
    assert (adapted - bare).abs().max() > 0.1


def test_lora_is_on_every_published_target(folder):
    backbone = load(folder)
    lora.attach(backbone.module, lora_rank=2, recipe=RECIPE, targets=ltx.LORA_TARGETS, seed=0)
    # A and B; two blocks, each with self-attention, cross-attention and feed-forward.
    assert len(lora.lora_state(backbone.module)) == 2 * 2 * (4 + 4 + 2)


def test_bfloat16_base_gives_nearly_the_float32_loss_and_samples(folder):
    full, half = load(folder), load(folder, RECIPE.model_copy(update={"precision": "bf16"}))
    examples = full.encode(TASK, problems(2), RECIPE)
    batch = full.collate(examples, RECIPE, torch_generator("bf16"))
    losses = half.loss(batch)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, full.loss(batch), rtol=0.05, atol=0)
    noise = torch.cat([noise_of("s", 0), noise_of("s", 1)])
    exact, rounded = (sample(backbone, examples, noise) for backbone in (full, half))
    assert rounded.dtype == torch.float32
    assert (rounded - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()
    condition = {"image_latents": examples[0]["image_latents"][None]}
    frames = []
    for backbone in (full, half):
        with torch.no_grad():
            latents = backbone._sample(condition, noise[:1], RECIPE, [torch_generator("decode")])
            frames.append(backbone._decode_last_frames(latents).astype(int))
    assert np.abs(frames[0] - frames[1]).mean() < 8
    assert np.abs(frames[0] - frames[0].mean()).mean() > 40


def test_random_flavour_keeps_the_vae_and_draws_the_transformer_once_and_for_all(folder):
    state = torch.get_rng_state()
    pretrained, random, again = load(folder), load(folder, pretrained=False), load(folder, pretrained=False)
    assert torch.equal(torch.get_rng_state(), state)
    fingerprints = [lora.base_fingerprint(backbone.module) for backbone in (pretrained, random, again)]
    assert fingerprints[1] == fingerprints[2] != fingerprints[0]
    assert lora.base_fingerprint(random._vae) == lora.base_fingerprint(pretrained._vae)
    assert not any(parameter.requires_grad for parameter in [*random.module.parameters(), *random._vae.parameters()])


# --- what cannot be followed


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_frames", 13, r"recipe.num_frames = 13: .*1 \+ a multiple of 8"),
        ("sampler", "ddim", "recipe.sampler = ddim: .* has own"),
        ("guidance_scale", 6.0, r"recipe.guidance_scale = 6: .*valid: 1"),
    ],
)
def test_settings_the_family_cannot_follow_are_errors(field, value, message):
    with pytest.raises(ValueError, match=message):
        ltx.check_recipe(backbone_spec("ltx/2b"), RECIPE.model_copy(update={field: value}))
    ltx.check_recipe(backbone_spec("ltx/2b"), RECIPE)


def test_one_sampling_step_is_an_error_where_the_schedule_cannot_have_one(folders):
    recipe = RECIPE.model_copy(update={"num_inference_steps": 1})
    with pytest.raises(ValueError, match=r"recipe.num_inference_steps = 1: .* 2 or more"):
        load(folders["2b"]).answer(TASK, problems(1), recipe, 0)
    assert len(load(folders["13b"]).answer(TASK, problems(1), recipe, 0)) == 1


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        ("model_index.json", "_class_name", "LTX2Pipeline", "LTX2Pipeline; valid pipelines: LTXPipeline, "),
        ("scheduler/scheduler_config.json", "stochastic_sampling", True, "stochastic_sampling = True; valid: False"),
        ("scheduler/scheduler_config.json", "use_dynamic_shifting", True, "use_dynamic_shifting = True; valid: False"),
        ("transformer/config.json", "patch_size", 2, "patch_size = 2; valid: 1"),
    ],
)
def test_checkpoints_of_another_kind_are_refused(folders, tmp_path, file, field, value, message):
    folder = copytree(folders["13b"], tmp_path / "other")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {field: value}))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_prompt_is_embedded_once_as_the_pipeline_embeds_it(folder, tmp_path):
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    folder = copytree(folder, tmp_path / "with-text-encoder")
    (folder / EMPTY_PROMPT_FILE).unlink()
    tokenizer = T5TokenizerFast(extra_ids=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = T5EncoderModel(
            T5Config(vocab_size=len(tokenizer), d_model=TEXT_CHANNELS, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        )
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.eval().to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    pipeline = stock_pipeline(folder)
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=encoder)
    expected = pipeline.encode_prompt("", do_classifier_free_guidance=False)

    embeds, mask = load(folder)._prompt
    torch.testing.assert_close(embeds, expected[0].float(), rtol=0.05, atol=0.02)  # the last digit varies by alignment
    assert torch.equal(mask, expected[1])
    assert mask.sum() == 1  # the end of the text
    rmtree(folder / "text_encoder")
    again = load(folder)._prompt
    assert torch.equal(again[0], embeds)
    assert torch.equal(again[1], mask)


def test_flavours_hold_the_published_recipe():
    for name, lora_rank in (("ltx/2b", 64), ("ltx/13b", 64), ("ltx/some/repo", 64)):
        spec = backbone_spec(name)
        recipe = TrainRecipe(**spec.recipe)
        assert (recipe.learning_rate, recipe.lr_schedule, recipe.batch_size) == (2e-4, "linear", 4)
        assert (recipe.lora_alpha, recipe.gradient_clip, recipe.train_timesteps) == (lora_rank, 1.0, "uniform")
        ltx.check_recipe(spec, recipe)
