"""What a user of transformers, peft and diffusers would write for one trial: the other side of ``benchmarks.train``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from task_generators import grid_json
from task_generators.problem import Grid, Problem
from task_generators.task import Task
from task_generators.transition_video import problem_video
from trainers.backbone import BackboneSpec, weights_path
from trainers.pictures import canvas_px, draw_on_canvas, picture_style, read_from_canvas
from trainers.recipe import TrainRecipe

WARMUP = {"linear": "linear", "constant": "constant_with_warmup", "cosine": "cosine"}


class TrainerLoop:
    """Language: ``transformers.Trainer`` and ``peft.get_peft_model``; answers by ``generate`` on padded batches."""

    def __init__(self, spec: BackboneSpec, recipe: TrainRecipe, lora_rank: int, device: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = weights_path(spec.repo_id)
        self.spec, self.recipe, self.lora_rank, self.device = spec, recipe, lora_rank, device
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.base: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device)
        self.model: Any = None

    def attach(self) -> None:
        """Fresh LoRA weights."""
        from peft import LoraConfig, get_peft_model

        if self.model is not None:
            self.base = self.model.unload()
        config = LoraConfig(
            r=self.lora_rank,
            lora_alpha=int(self.recipe.lora_alpha),
            target_modules=list(self.spec.lora_targets),
            task_type="CAUSAL_LM",
        )
        self.model = get_peft_model(self.base, config)

    def encode(self, task: Task, problems: Sequence[Problem]) -> list[dict[str, list[int]]]:
        """Prompt, answer, end token; the loss leaves the prompt out."""
        examples = []
        for problem in problems:
            prompt = self._prompt(problem)
            answer = self.tokenizer(grid_json.dumps(problem.answer), add_special_tokens=False).input_ids
            answer = [*answer, self.tokenizer.eos_token_id]
            examples.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
        return examples

    def train(self, examples: Sequence[dict[str, list[int]]]) -> None:
        """``recipe.max_steps`` steps of the Trainer, logging every step as we do."""
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

        recipe = self.recipe
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=recipe.max_steps,
                per_device_train_batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                lr_scheduler_type=WARMUP[recipe.lr_schedule],
                warmup_steps=recipe.warmup_steps,
                weight_decay=recipe.weight_decay,
                max_grad_norm=recipe.gradient_clip,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=self.device == "cpu",
            )
            collator = DataCollatorForSeq2Seq(self.tokenizer, label_pad_token_id=-100)
            trainer = Trainer(self.model, arguments, train_dataset=list(examples), data_collator=collator)
            trainer.log = lambda *rest, **named: None  # type: ignore[method-assign]  # it prints every step
            trainer.train()

    def answer(self, task: Task, problems: Sequence[Problem], batch_size: int) -> list[Grid | None]:
        """Greedy texts, read as grids."""
        self.model.eval()
        grids: list[Grid | None] = []
        self.tokenizer.padding_side = "left"
        for start in range(0, len(problems), batch_size):
            prompts = [self._prompt(problem) for problem in problems[start : start + batch_size]]
            inputs = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.device)
            with torch.no_grad():
                tokens = self.model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=self.recipe.max_new_tokens,
                    do_sample=False,
                )
            texts = self.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            grids += [grid_json.loads(text) for text in texts]
        self.tokenizer.padding_side = "right"
        return grids

    def _prompt(self, problem: Problem) -> list[int]:
        text = grid_json.dumps(problem.question)
        return list(self.tokenizer(text + (self.tokenizer.sep_token or "\n")).input_ids)


class DiffusersLoop:
    """Video: the steps of diffusers' ``train_cogvideox_image_to_video_lora.py``, and the stock pipeline to answer.

    As there: videos are encoded before training and a latent is drawn from the posterior at every step, the loss is the
    weighted error of the clean latents, accelerate wraps model and optimizer. The text encoder that the example keeps
    is left out, since this checkpoint has none: its one embedding is given, which favours this side. The image latents
    are scaled as the pipeline scales them, because the example's other way would train what sampling never sees.
    """

    def __init__(self, spec: BackboneSpec, recipe: TrainRecipe, lora_rank: int, device: str) -> None:
        import diffusers
        from safetensors.torch import load_file

        path = weights_path(spec.repo_id)
        self.spec, self.recipe, self.lora_rank, self.device = spec, recipe, lora_rank, device
        self.pipeline = diffusers.CogVideoXImageToVideoPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=diffusers.AutoencoderKLCogVideoX.from_pretrained(path, subfolder="vae"),
            transformer=diffusers.CogVideoXTransformer3DModel.from_pretrained(path, subfolder="transformer"),
            scheduler=diffusers.CogVideoXDDIMScheduler.from_pretrained(path, subfolder="scheduler"),
        ).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.prompt_embeds = load_file(f"{path}/neutral_prompt_embeds.safetensors")["prompt_embeds"].to(device)
        self.pipeline.transformer.requires_grad_(False)
        self.pipeline.vae.requires_grad_(False)

    def attach(self) -> None:
        """Fresh LoRA weights."""
        from peft import LoraConfig

        transformer = self.pipeline.transformer
        if getattr(transformer, "peft_config", None):
            transformer.unload_lora()
        transformer.add_adapter(
            LoraConfig(
                r=self.lora_rank,
                lora_alpha=int(self.recipe.lora_alpha),
                init_lora_weights=True,
                target_modules=list(self.spec.lora_targets),
            )
        )

    def encode(self, task: Task, problems: Sequence[Problem]) -> list[tuple[Any, Any]]:
        """Posteriors of each video and of its first frame, one after another as the example does."""
        vae = self.pipeline.vae
        encoded = []
        with torch.no_grad():
            for problem in problems:
                style = picture_style(task, self.recipe, problem)
                canvas = canvas_px(problem, style, 8)
                frames = problem_video(
                    problem,
                    lambda grid, style=style, canvas=canvas: draw_on_canvas(grid, task, style, canvas),
                    self.recipe.num_frames,
                    self.recipe.transition,
                )
                pixels = torch.from_numpy(frames).to(self.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
                encoded.append((vae.encode(pixels).latent_dist, vae.encode(pixels[:, :, :1]).latent_dist))
        return encoded

    def train(self, examples: Sequence[tuple[Any, Any]]) -> None:
        """``recipe.max_steps`` steps."""
        from accelerate import Accelerator
        from diffusers.optimization import get_scheduler

        recipe, transformer, scheduler = self.recipe, self.pipeline.transformer, self.pipeline.scheduler
        vae_config, config = self.pipeline.vae.config, transformer.config
        accelerator = Accelerator(cpu=self.device == "cpu")
        parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
            lr=recipe.learning_rate,
            betas=(recipe.adam_beta1, recipe.adam_beta2),
            weight_decay=recipe.weight_decay,
        )
        schedule = get_scheduler(
            WARMUP[recipe.lr_schedule],
            optimizer=optimizer,
            num_warmup_steps=recipe.warmup_steps,
            num_training_steps=recipe.max_steps,
        )

        def collate(items: Sequence[tuple[Any, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
            videos = torch.cat([video.sample() for video, _ in items]) * vae_config.scaling_factor
            image_scale = (
                1 / vae_config.scaling_factor if vae_config.invert_scale_latents else vae_config.scaling_factor
            )
            images = torch.cat([image.sample() for _, image in items]) * image_scale
            return videos.permute(0, 2, 1, 3, 4), images.permute(0, 2, 1, 3, 4)

        data = list(examples) * -(-recipe.batch_size // len(examples))  # fewer than a batch: given several times
        loader = DataLoader(data, recipe.batch_size, shuffle=True, collate_fn=collate, drop_last=True)
        transformer.train()
        model, optimizer, schedule = accelerator.prepare(transformer, optimizer, schedule)
        step = 0
        while step < recipe.max_steps:
            for videos, images in loader:
                size, frames, channels, height, width = videos.shape
                if config.patch_size_t and frames % config.patch_size_t:
                    videos = torch.cat([videos[:, : config.patch_size_t - frames % config.patch_size_t], videos], dim=1)
                padding = videos.new_zeros(size, videos.shape[1] - 1, channels, height, width)
                condition = torch.cat([images, padding], dim=1)
                timesteps = torch.randint(scheduler.config.num_train_timesteps, (size,), device=videos.device)
                noisy = scheduler.add_noise(videos, torch.randn_like(videos), timesteps)
                rotary = self.pipeline._prepare_rotary_positional_embeddings(
                    height * 2 ** (len(vae_config.block_out_channels) - 1),
                    width * 2 ** (len(vae_config.block_out_channels) - 1),
                    videos.shape[1],
                    videos.device,
                )
                ofs = None if config.ofs_embed_dim is None else videos.new_full((1,), 2.0)
                output = model(
                    hidden_states=torch.cat([noisy, condition], dim=2),
                    encoder_hidden_states=self.prompt_embeds.expand(size, -1, -1),
                    timestep=timesteps,
                    ofs=ofs,
                    image_rotary_emb=rotary,
                    return_dict=False,
                )[0]
                predicted = scheduler.get_velocity(output, noisy, timesteps)
                weights = 1 / (1 - scheduler.alphas_cumprod.to(videos.device)[timesteps])
                loss = (weights.view(-1, 1, 1, 1, 1) * (predicted - videos) ** 2).reshape(size, -1).mean(dim=1).mean()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(parameters, recipe.gradient_clip)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                loss.detach().item()  # the example logs it
                step += 1
                if step == recipe.max_steps:
                    break
        accelerator.free_memory()

    def answer(self, task: Task, problems: Sequence[Problem], batch_size: int) -> list[Grid | None]:
        """The last frame of the stock pipeline's video, read as a grid."""
        self.pipeline.transformer.eval()
        grids: list[Grid | None] = []
        for start in range(0, len(problems), batch_size):
            batch = problems[start : start + batch_size]
            styles = [picture_style(task, self.recipe, problem) for problem in batch]
            canvas = canvas_px(batch[0], styles[0], 8)
            pictures = [
                Image.fromarray(draw_on_canvas(problem.question, task, style, canvas))
                for problem, style in zip(batch, styles, strict=True)
            ]
            videos = self.pipeline(
                image=pictures if len(pictures) > 1 else pictures[0],
                prompt_embeds=self.prompt_embeds.expand(len(batch), -1, -1),
                height=canvas[0],
                width=canvas[1],
                num_frames=self.recipe.num_frames,
                num_inference_steps=self.recipe.num_inference_steps,
                guidance_scale=1.0,
                output_type="np",
            ).frames
            for problem, style, video in zip(batch, styles, videos, strict=True):
                frame = (np.asarray(video[-1]) * 255).round().astype(np.uint8)
                grids.append(read_from_canvas(frame, task, style, problem.answer.shape, self.recipe))
        return grids


LOOPS: dict[str, Any] = {"causal_lm": TrainerLoop, "cogvideox": DiffusersLoop}
"""By family file."""
