"""Our CogVideoX held against diffusers' own pipeline, on random miniature models of both published generations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
)

from task_generators.parse import parse
from task_generators.problem import Problem, frozen_grid
from task_generators.render import RenderStyle, render
from tests.trainers.colours import Colours
from tests.trainers.tiny_cogvideox import (
    GENERATIONS,
    LATENT_CHANNELS,
    SCALING_FACTOR,
    TEXT_CHANNELS,
    TEXT_LENGTH,
    save_backbone,
)
from trainers import lora, video_backbone
from trainers.backbone import BackboneSpec
from trainers.backbones import cogvideox
from trainers.cogvideox_diffusion import (
    denoising_loss,
    pad_video_latents,
    padded_latent_frames,
    rotary_embedding,
    sample_latents,
    sampling_timesteps,
)
from trainers.pictures import canvas_px, draw_on_canvas, picture_style
from trainers.prompt_embeds import EMPTY_PROMPT_FILE
from trainers.recipe import TrainRecipe
from trainers.rng import torch_generator

STEPS = 4
OVERFIT_STEPS = 250
RECIPE = TrainRecipe(cell_px=4, border_px=0, num_inference_steps=STEPS)


TASK = Colours(height=4, width=6)


def problems(n: int) -> list[Problem]:
    return TASK.problems(n)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: save_backbone(tmp_path_factory.mktemp(name), g) for name, g in GENERATIONS.items()}


@pytest.fixture(params=GENERATIONS)
def folder(request, folders):
    return folders[request.param]


def load(folder: Path, recipe: TrainRecipe = RECIPE, **spec) -> cogvideox.CogVideoX:
    spec = BackboneSpec(name="cogvideox/mini", family="video", repo_id=str(folder), **spec)
    return cogvideox.load(spec, recipe, "cpu")


def stock_pipeline(folder: Path, transformer=None) -> CogVideoXImageToVideoPipeline:
    pipeline = CogVideoXImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLCogVideoX.from_pretrained(folder / "vae"),
        transformer=transformer or CogVideoXTransformer3DModel.from_pretrained(folder / "transformer"),
        scheduler=cogvideox.load_scheduler(str(folder), None),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_stock(pipeline, picture, noise, prompt_embeds, output_type="latent", **options):
    """``picture``: uint8 (H, W, 3); ``noise``: (1, padded F, C, H, W)."""
    height, width, _ = picture.shape
    return pipeline(
        image=torch.from_numpy(picture).permute(2, 0, 1)[None] / 255,
        height=height,
        width=width,
        num_frames=9,
        prompt_embeds=prompt_embeds,
        guidance_scale=1,
        num_inference_steps=STEPS,
        latents=noise,
        output_type=output_type,
        **options,
    ).frames


def picture_of(problem: Problem) -> np.ndarray:
    return render(problem.question, TASK.palette, picture_style(TASK, RECIPE, problem))


# --- the pure functions


def test_rotary_positions_are_the_pipelines(folder):
    pipeline = stock_pipeline(folder)
    config = pipeline.transformer.config
    for frames, height, width in ((4, 4, 6), (2, 6, 4), (4, 2, 8)):
        expected = pipeline._prepare_rotary_positional_embeddings(height * 4, width * 4, frames, torch.device("cpu"))
        ours = rotary_embedding(config, frames, height, width, "cpu")
        assert ours is not None
        for mine, theirs in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_canvas_beyond_the_rotary_grid_is_an_error_that_names_the_cell_size(folders):
    config = load(folders["1.5"]).module.config
    with pytest.raises(ValueError, match=r"cell_px.*10 x 4.*at most 8 x 8"):
        rotary_embedding(config, 4, 10, 4, "cpu")


def test_temporal_padding_repeats_the_first_frame_in_front():
    latents = torch.randn(2, 3, 4, 4, 6)
    padded = pad_video_latents(latents, 2)
    assert padded_latent_frames(3, 2) == padded.shape[1] == 4
    assert torch.equal(padded[:, 0], latents[:, 0])
    assert torch.equal(padded[:, 1:], latents)
    assert pad_video_latents(latents, None) is latents
    assert padded_latent_frames(3, None) == 3


@pytest.mark.parametrize("timestep", [0, 1, 500, 999])
def test_loss_equals_the_published_training_step_on_the_pipelines_own_conditioning(folder, timestep):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    example = backbone.encode(TASK, problems(1), RECIPE)[0]
    prompt_embeds = torch.randn(1, TEXT_LENGTH, TEXT_CHANNELS)
    config, timesteps = pipeline.transformer.config, torch.tensor([timestep])

    # The steps of the training script, with positions and condition taken from the pipeline.
    latent = example["video_latents"][None].permute(0, 2, 1, 3, 4)
    if config.patch_size_t is not None:
        copies = latent.shape[2] % config.patch_size_t
        latent = torch.cat([latent[:, :, :1].repeat(1, 1, copies, 1, 1), latent], dim=2)
    latent = latent.permute(0, 2, 1, 3, 4)
    noise = torch.randn_like(latent)
    image = torch.from_numpy(picture_of(problems(1)[0])).permute(2, 0, 1)[None] / 127.5 - 1
    padded_num_frames = 9 if config.patch_size_t is None else 13
    _, condition = pipeline.prepare_latents(
        image, 1, LATENT_CHANNELS, padded_num_frames, *image.shape[2:], torch.float32, torch.device("cpu")
    )
    alpha = pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1).float()
    noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
    predicted_velocity = pipeline.transformer(
        hidden_states=torch.cat([noisy, condition], dim=2),
        encoder_hidden_states=prompt_embeds,
        timestep=timesteps,
        ofs=None if config.ofs_embed_dim is None else latent.new_full((1,), 2.0),
        image_rotary_emb=pipeline._prepare_rotary_positional_embeddings(
            *image.shape[2:], latent.shape[1], torch.device("cpu")
        ),
        return_dict=False,
    )[0]
    predicted_latent = alpha.sqrt() * noisy - (1 - alpha).sqrt() * predicted_velocity
    expected = (1 / (1 - alpha) * (predicted_latent - latent) ** 2).mean().reshape(1)
    true_velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latent

    loss = denoising_loss(
        backbone.module,
        pipeline.scheduler,
        example["video_latents"][None],
        example["image_latents"][None],
        prompt_embeds,
        noise,
        timesteps,
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, (predicted_velocity - true_velocity).square().mean().reshape(1), rtol=1e-3, atol=0)


def test_loss_of_a_batch_is_the_losses_of_its_examples(folder):
    backbone = load(folder)
    batch = backbone.collate(backbone.encode(TASK, problems(3), RECIPE), RECIPE, torch_generator("batch"))
    losses = backbone.loss(batch)
    assert losses.shape == (3,)
    alone = [backbone.loss({name: tensor[index : index + 1] for name, tensor in batch.items()}) for index in range(3)]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-4, atol=1e-6)
    assert len({round(value, 4) for value in losses.tolist()}) == 3


@pytest.mark.parametrize("scheduler_class", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize("name", GENERATIONS)
def test_batched_sampler_equals_the_pipeline(tmp_path, name, scheduler_class):
    folder = save_backbone(tmp_path, GENERATIONS[name], scheduler_class)
    backbone, pipeline = load(folder), stock_pipeline(folder)
    assert type(pipeline.scheduler) is scheduler_class
    examples = backbone.encode(TASK, problems(2), RECIPE)
    frames = 4 if name == "1.5" else 3
    noise = torch.randn(2, frames, LATENT_CHANNELS, 4, 6)
    prompt_embeds = torch.randn(1, TEXT_LENGTH, TEXT_CHANNELS)

    expected, generators = [], []
    for index in range(2):
        generator = torch_generator("sampler", index)
        picture = picture_of(problems(2)[index])
        expected.append(run_stock(pipeline, picture, noise[index : index + 1], prompt_embeds, generator=generator))
        generators.append(torch_generator("sampler", index))
        torch.randn(LATENT_CHANNELS, 4, 6, generator=generators[-1])  # the pipeline's draw from the image posterior
    ours = sample_latents(
        backbone.module,
        pipeline.scheduler,
        torch.stack([example["image_latents"] for example in examples]),
        prompt_embeds.expand(2, -1, -1),
        noise,
        STEPS,
        1.0,
        generators=generators,
    )
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=1e-4)


def test_schedulers_that_draw_noise_get_it_from_generators_only(tmp_path):
    folder = save_backbone(tmp_path, GENERATIONS["1.5"], CogVideoXDPMScheduler)
    backbone = load(folder)
    answers = [grids(backbone.answer(TASK, problems(2), RECIPE, 0)) for _ in range(2)]
    assert answers[0] == answers[1]


def test_guidance_equals_the_pipeline(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    image_latents = backbone.encode(TASK, problems(1), RECIPE)[0]["image_latents"][None]
    noise = torch.randn(1, padded_latent_frames(3, backbone.module.config.patch_size_t), LATENT_CHANNELS, 4, 6)
    prompts = torch.randn(2, 1, TEXT_LENGTH, TEXT_CHANNELS)
    picture = torch.from_numpy(picture_of(problems(1)[0])).permute(2, 0, 1)[None] / 255
    expected = pipeline(
        image=picture,
        height=16,
        width=24,
        num_frames=9,
        prompt_embeds=prompts[0],
        negative_prompt_embeds=prompts[1],
        guidance_scale=3,
        num_inference_steps=STEPS,
        latents=noise,
        output_type="latent",
    ).frames
    ours = sample_latents(
        backbone.module,
        pipeline.scheduler,
        image_latents,
        prompts[0],
        noise,
        STEPS,
        3.0,
        negative_prompt_embeds=prompts[1],
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_pairs_overfitted_by_our_loss_are_sampled_by_the_stock_pipeline(folder):
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
    frames = padded_latent_frames(3, transformer.config.patch_size_t)
    noise = torch.randn(1, frames, LATENT_CHANNELS, 4, 6, generator=torch_generator("sample"))
    answers = torch.stack([example["video_latents"][-1] for example in examples])
    distance = (answers[0] - answers[1]).square().mean().sqrt()

    def relative_error() -> float:
        sampled = [
            run_stock(pipeline, picture_of(problem), noise, backbone._prompt_embeds)[0, -1] for problem in problems(2)
        ]
        return float((torch.stack(sampled) - answers).square().mean().sqrt() / distance)

    error = relative_error()
    assert error < 0.25, f"after training to a loss of {loss:.4f}"
    if pipeline.vae.config.invert_scale_latents:
        # What a model sees that was trained with upstream's scaling and is sampled by the pipeline, or the reverse.
        pipeline.vae.register_to_config(invert_scale_latents=False)
        assert relative_error() > 1.5 * error


# --- the family


def grids(answers) -> list:
    return [None if grid is None else grid.tolist() for grid in answers]


def test_image_latents_are_scaled_as_the_pipeline_scales_them(folders):
    """Upstream's fine-tuning script multiplies in both generations; the pipeline divides in 1.5."""
    for name, folder in folders.items():
        backbone, pipeline = load(folder), stock_pipeline(folder)
        example = backbone.encode(TASK, problems(1), RECIPE)[0]
        image = torch.from_numpy(picture_of(problems(1)[0])).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            _, condition = pipeline.prepare_latents(
                image, 1, LATENT_CHANNELS, 9, 16, 24, torch.float32, torch.device("cpu")
            )
            raw = pipeline.vae.encode(image[:, :, None]).latent_dist.mode()[0].permute(1, 0, 2, 3)
        torch.testing.assert_close(example["image_latents"], condition[0, :1], rtol=0, atol=1e-5)
        factor = 1 / SCALING_FACTOR if name == "1.5" else SCALING_FACTOR
        torch.testing.assert_close(example["image_latents"], raw * factor, rtol=0, atol=1e-5)


def test_video_latents_are_the_scaled_mode_of_the_transition_video(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    problem = problems(1)[0]
    style = picture_style(TASK, RECIPE, problem)
    frames = [render(problem.question, TASK.palette, style)] * 4 + [render(problem.answer, TASK.palette, style)] * 5
    pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        mode = pipeline.vae.encode(pixels).latent_dist.mode()
        decoded = pipeline.decode_latents(backbone.encode(TASK, [problem], RECIPE)[0]["video_latents"][None])
        torch.testing.assert_close(decoded, pipeline.vae.decode(mode).sample, rtol=0, atol=1e-4)


def test_answers_are_what_the_stock_pipeline_draws(folder):
    backbone, pipeline = load(folder), stock_pipeline(folder)
    drawn = problems(3)
    style = picture_style(TASK, RECIPE, drawn[0])
    expected, stock_videos = [], []
    for problem in drawn:
        frames = padded_latent_frames(3, backbone.module.config.patch_size_t)
        noise = torch.randn(frames, LATENT_CHANNELS, 4, 6, generator=torch_generator("noise", problem.problem_id, 1))
        video = run_stock(pipeline, picture_of(problem), noise[None], backbone._prompt_embeds, output_type="np")[0]
        stock_videos.append((video * 255).round().astype(int))
        assert len(video) == 9
        expected.append(parse((video[-1] * 255).round().astype(np.uint8), TASK.palette, style, (4, 6)))
    answers = backbone.answer(TASK, drawn, RECIPE, 1)
    assert grids(answers) == grids(expected)
    assert len({str(grid) for grid in grids(answers)}) == 3
    same_answers, videos = backbone.answer_with_videos(TASK, drawn, RECIPE, 1, [0, 2])
    assert grids(same_answers) == grids(answers)
    assert {index: video.shape for index, video in videos.items()} == dict.fromkeys((0, 2), stock_videos[0].shape)
    for index, video in videos.items():
        assert np.abs(video.astype(int) - stock_videos[index]).max() <= 1
    # Neither the batch nor the order decides about the noise; the attempt does.
    assert grids(backbone.answer(TASK, drawn[::-1], RECIPE, 1))[::-1] == grids(answers)
    assert grids(backbone.answer(TASK, drawn[2:], RECIPE, 1)) == grids(answers)[2:]
    assert grids(backbone.answer(TASK, drawn, RECIPE, 0)) != grids(answers)


def test_pictures_that_do_not_fit_whole_patches_are_padded(folder, monkeypatch):
    """Borders give odd sizes, and the answer of the first problem is larger than its question."""
    backbone, recipe = load(folder), RECIPE.model_copy(update={"cell_px": 3, "border_px": 1})
    grown = Problem(frozen_grid([[1, 2]]), frozen_grid([[1, 2, 3], [4, 5, 6]]), problem_id="grown")
    style = picture_style(TASK, recipe, grown)
    assert style.size_px(grown.answer.shape) == (9, 13)
    example = backbone.encode(TASK, [grown], recipe)[0]
    multiple = 4 * backbone.module.config.patch_size
    height, width = -(-9 // multiple) * multiple, -(-13 // multiple) * multiple
    assert example["video_latents"].shape == (3, LATENT_CHANNELS, height // 4, width // 4)
    picture = draw_on_canvas(grown.question, TASK, style, (height, width))
    assert np.array_equal(picture[:5, :9], render(grown.question, TASK.palette, style))
    assert (picture[5:] == style.border_color).all()
    assert (picture[:, 9:] == style.border_color).all()
    small = problems(1)[0]
    mixed = backbone.encode(TASK, [grown, small], recipe)
    assert mixed[0]["video_latents"].shape == mixed[1]["video_latents"].shape  # one canvas a call, so that they stack
    read = []
    monkeypatch.setattr(video_backbone, "read_from_canvas", lambda frame, *rest: read.append((frame.shape, rest[2])))
    assert backbone.answer(TASK, [grown, small], recipe, 0) == [None, None]
    sides = [-(-side // multiple) * multiple for side in (17, 25)]
    assert sorted(read) == sorted([((height, width, 3), (2, 3)), ((*sides, 3), (4, 6))])


def test_published_styles_give_the_published_picture_sizes(folders):
    backbone = load(folders["1.0"])  # 8 px patches here; the 5B model has 16 px patches
    style = RenderStyle(cell_px=30, border_px=2)
    backbone._vae.register_to_config(block_out_channels=(8,) * 4)
    for cells, side in ((9, 304), (4, 144), (5, 176), (7, 240), (8, 272)):
        grid = frozen_grid(np.zeros((cells, cells)))
        assert canvas_px(Problem(grid, grid), style, backbone.canvas_multiple_px) == (side, side)


def test_collate_draws_from_its_generator_alone(folder):
    backbone = load(folder)
    examples = backbone.encode(TASK, problems(2), RECIPE) * 16
    state = torch.get_rng_state()
    uniform = backbone.collate(examples, RECIPE, torch_generator("a"))
    again = backbone.collate(examples, RECIPE, torch_generator("a"))
    assert all(torch.equal(uniform[name], again[name]) for name in uniform)
    assert torch.equal(torch.get_rng_state(), state)
    assert uniform["noise"].shape == (32, padded_latent_frames(3, backbone.module.config.patch_size_t), 4, 4, 6)
    assert {len(tensor) for tensor in uniform.values()} == {32}
    assert len(uniform["timesteps"].unique()) > 20
    assert 0 <= uniform["timesteps"].min() <= uniform["timesteps"].max() < 1000
    sampling = RECIPE.model_copy(update={"train_timesteps": "sampling"})
    drawn = backbone.collate(examples, sampling, torch_generator("a"))["timesteps"].unique().tolist()
    assert drawn == [249, 499, 749, 999] == sorted(sampling_timesteps(backbone._scheduler, STEPS).tolist())


def test_a_saved_adapter_loads_in_the_stock_pipeline(folder, tmp_path):
    recipe = RECIPE.model_copy(update={"lora_alpha": 12.0})  # alpha unlike the rank: the scale has to survive
    backbone = load(folder, lora_targets=cogvideox.ATTENTION + cogvideox.FEED_FORWARD)
    lora.attach(backbone.module, lora_rank=4, recipe=recipe, targets=backbone.spec.lora_targets, seed=0)
    with torch.no_grad():
        for name, parameter in backbone.module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(name)) * 0.1)
    lora.save(backbone, tmp_path / "adapter")

    pipeline = stock_pipeline(folder)
    frames = padded_latent_frames(3, backbone.module.config.patch_size_t)
    noise = torch.randn(1, frames, LATENT_CHANNELS, 4, 6)
    picture = picture_of(problems(1)[0])
    bare = run_stock(pipeline, picture, noise, backbone._prompt_embeds)
    pipeline.load_lora_weights(tmp_path / "adapter")
    adapted = run_stock(pipeline, picture, noise, backbone._prompt_embeds)
    image_latents = backbone.encode(TASK, problems(1), RECIPE)[0]["image_latents"][None]
    ours = sample_latents(
        backbone.module, pipeline.scheduler, image_latents, backbone._prompt_embeds, noise, STEPS
    ).detach()
    torch.testing.assert_close(ours, adapted, rtol=0, atol=1e-4)
    assert (adapted - bare).abs().max() > 0.1


def test_random_flavour_keeps_the_vae_and_draws_the_transformer_once_and_for_all(folder):
    state = torch.get_rng_state()
    pretrained, random, again = load(folder), load(folder, pretrained=False), load(folder, pretrained=False)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [backbone.module.transformer_blocks[0].attn1.to_q.weight for backbone in (pretrained, random, again)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert lora.base_fingerprint(random.module) == lora.base_fingerprint(again.module)
    assert lora.base_fingerprint(random._vae) == lora.base_fingerprint(pretrained._vae)
    assert not any(parameter.requires_grad for parameter in [*random.module.parameters(), *random._vae.parameters()])


def test_bfloat16_base_gives_nearly_the_float32_loss_and_the_pipelines_samples(folder):
    full, half = load(folder), load(folder, RECIPE.model_copy(update={"precision": "bf16"}))
    batch = full.collate(full.encode(TASK, problems(2), RECIPE), RECIPE, torch_generator("bf16"))
    losses = half.loss(batch)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, full.loss(batch), rtol=0.05, atol=0)
    assert [grid.shape for grid in half.answer(TASK, problems(1), RECIPE, 0)] == [(4, 6)]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_frames", 10, r"recipe.num_frames = 10: .*1 \+ a multiple of 4"),
        ("guidance_scale", 6.0, r"recipe.guidance_scale = 6: .*valid: 1"),
    ],
)
def test_settings_the_family_cannot_follow_are_errors(folders, field, value, message):
    backbone, recipe = load(folders["1.5"]), RECIPE.model_copy(update={field: value})
    with pytest.raises(ValueError, match=message):
        backbone.encode(TASK, problems(1), recipe)
    with pytest.raises(ValueError, match=message):
        backbone.answer(TASK, problems(1), recipe, 0)


def test_only_v_prediction_is_accepted(tmp_path):
    folder = save_backbone(tmp_path, GENERATIONS["1.0"])
    CogVideoXDDIMScheduler(prediction_type="epsilon").save_pretrained(folder / "scheduler")
    with pytest.raises(ValueError, match="'epsilon'; valid: v_prediction"):
        load(folder)


def test_neutral_prompt_is_embedded_once_as_the_pipeline_embeds_it(folders, tmp_path):
    from shutil import rmtree

    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    tokenizer = T5Tokenizer(extra_ids=0)
    encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).eval()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder.to(torch.bfloat16).save_pretrained(tmp_path / "text_encoder")
    pipeline = stock_pipeline(folders["1.5"])
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=encoder)
    expected = pipeline._get_t5_prompt_embeds("", max_sequence_length=TEXT_LENGTH)

    first = cogvideox.embed_prompt(str(tmp_path), None, "", TEXT_LENGTH, "cpu")
    assert first.shape == (1, TEXT_LENGTH, 8)
    torch.testing.assert_close(first, expected, rtol=0.05, atol=0.02)  # bfloat16: the last digit varies with alignment
    rmtree(tmp_path / "text_encoder")
    assert torch.equal(cogvideox.embed_prompt(str(tmp_path), None, "", TEXT_LENGTH, "cpu"), first)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [EMPTY_PROMPT_FILE]


def test_flavours_hold_valid_recipes():
    recipes = {spec.name: TrainRecipe(**spec.recipe) for spec in cogvideox.FLAVORS}
    published = recipes["cogvideox/1.5-5b-i2v"]
    assert (published.learning_rate, published.batch_size, published.lora_alpha) == (1e-4, 2, 32)
    assert (published.train_timesteps, published.precision) == ("uniform", "bf16")
    assert recipes["cogvideox/tiny"] == recipes["cogvideox/tiny-random"]
