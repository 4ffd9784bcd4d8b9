"""Pretrain the tiny CogVideoX transformer.

    python -m trainers.pretraining.tiny_video --out trainers/weights/cogvideox-tiny

``CogVideoXTransformer3DModel`` of about a million parameters on nine-frame transition videos of the rules in
``procedural.SHORT_LIBRARY``, in the latents of the trained tiny VAE (``tiny_vae`` runs first, into the same folder).
Every rule has a caption, a fixed random text embedding; the neutral caption, the one that adapters are trained with, is
all zeros and stands for any rule. Tens of minutes on one CPU core; seeds are fixed.

Shapes: B batch, F latent frames, C latent channels, H and W latent height and width (= grid cells), L tokens, D width.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import save_file

from task_generators.rng import problem_rng
from trainers.cogvideox_diffusion import denoising_loss, sample_latents
from trainers.pretraining.muon import Muon
from trainers.pretraining.procedural import SHORT_FAMILIES, SHORT_LIBRARY, TransitionBatch, sample_batch
from trainers.pretraining.tiny_vae import CELL_PX, NUM_FRAMES
from trainers.rng import hashed_seed

TEXT_TOKENS, TEXT_DIM = 4, 32
TRANSFORMER = {
    "num_attention_heads": 3,
    "attention_head_dim": 32,
    "in_channels": 8,
    "out_channels": 4,
    "num_layers": 4,
    "time_embed_dim": 96,
    "ofs_embed_dim": 96,
    "text_embed_dim": TEXT_DIM,
    "max_text_seq_length": TEXT_TOKENS,
    "patch_size": 1,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_width": 32,
    "sample_height": 32,
    "sample_frames": NUM_FRAMES,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": False,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.0120,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "snr_shift_scale": 1.0,
    "clip_sample": False,
    "set_alpha_to_one": True,
}
SMALL_SHAPES, LARGE_SHAPES = ((5, 6), (6, 6), (4, 8), (4, 10)), ((8, 8), (4, 16))
LARGE_SHARE = 0.15
"""Last share of the steps, on larger grids; positions are relative, so small ones teach most, at half the cost."""
NEUTRAL_SHARE = 0.1


def captions(rules: np.ndarray) -> torch.Tensor:
    """The text embedding of each rule, (B, L, D); rule -1 is the neutral caption of zeros."""
    table = torch.randn(len(SHORT_LIBRARY) + 1, TEXT_TOKENS, TEXT_DIM, generator=torch.Generator().manual_seed(7))
    table[-1] = 0
    return table[torch.from_numpy(rules)]


_COLORS = torch.tensor([rule.colors for rule in SHORT_LIBRARY]).float() / 127.5 - 1  # (rules, codes, 3)


def cell_colors(codes: np.ndarray, rules: np.ndarray) -> torch.Tensor:
    """The colours in [-1, 1] of grids of codes (B, rows, columns), each in its rule's: (B, rows, columns, 3)."""
    index = torch.from_numpy(codes).long().flatten(1).unsqueeze(-1).expand(-1, -1, 3)
    return _COLORS[torch.from_numpy(rules)].gather(1, index).view(*codes.shape, 3)


class GridEncoder:
    """The VAE's encoder on discrete transition videos of flat cells, exact and thirty times faster.

    Without residual layers the encoder is affine from the pixels down to its middle block, and such a video has but two
    colours a cell. So that part is one matrix for each shape of grid, found by probing the encoder itself; the middle
    block and the output layers run as they are.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        assert vae.config.layers_per_block == 0, "residual layers would make the down blocks non-linear"
        self.vae = vae
        self._affine: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor, torch.Size]] = {}

    def _down(self, cells: torch.Tensor) -> torch.Tensor:
        """Down blocks on cells (B, 1 or 2 grids, rows, columns, 3); two grids make a video, one makes an image."""
        images = cells.permute(1, 0, 4, 2, 3).repeat_interleave(CELL_PX, dim=3).repeat_interleave(CELL_PX, dim=4)
        counts = [1] if len(images) == 1 else [NUM_FRAMES // 2, NUM_FRAMES - NUM_FRAMES // 2]
        video = torch.cat(
            [image.unsqueeze(2).expand(-1, -1, count, -1, -1) for image, count in zip(images, counts, strict=True)], 2
        )
        hidden, _ = self.vae.encoder.conv_in(video)
        for block in self.vae.encoder.down_blocks:
            hidden, _ = block(hidden)
        return hidden

    @torch.no_grad()
    def __call__(self, cells: torch.Tensor) -> torch.Tensor:
        """Scaled latents (B, F, C, H, W), the posterior's mode, of ``cells`` (B, 1 or 2 grids, rows, columns, 3)."""
        shape = tuple(cells.shape[1:])
        if shape not in self._affine:
            offset = self._down(torch.zeros(1, *shape))
            impulses = torch.eye(math.prod(shape)).view(-1, *shape)
            matrix = torch.cat([(self._down(chunk) - offset).flatten(1) for chunk in impulses.split(32)])
            self._affine[shape] = matrix, offset.flatten(), offset.shape[1:]
        matrix, bias, size = self._affine[shape]
        hidden = torch.addmm(bias, cells.flatten(1), matrix).view(-1, *size)
        encoder = self.vae.encoder
        hidden, _ = encoder.mid_block(hidden)
        hidden, _ = encoder.conv_out(encoder.conv_act(encoder.norm_out(hidden)))
        return hidden.chunk(2, dim=1)[0].transpose(1, 2) * self.vae.config.scaling_factor


def encode(encoder: GridEncoder, batch: TransitionBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled latents (B, F, C, H, W) of the discrete transition video, and of its first frame alone (B, 1, C, H, W)."""
    pair = torch.stack([cell_colors(grids, batch.rules) for grids in (batch.questions, batch.answers)], dim=1)
    return encoder(pair), encoder(pair[:, :1])


@dataclass(frozen=True)
class Pretraining:
    """What the loop works with; ``save`` leaves a folder that ``trainers.backbones.cogvideox`` loads."""

    encoder: GridEncoder
    transformer: CogVideoXTransformer3DModel
    scheduler: CogVideoXDDIMScheduler
    log: list[dict[str, float]]

    def save(self, folder: Path) -> None:
        """Write transformer, scheduler, neutral caption and log into ``folder``, beside the VAE."""
        self.transformer.save_pretrained(folder / "transformer", safe_serialization=True)
        self.scheduler.save_pretrained(folder / "scheduler")
        save_file({"prompt_embeds": captions(np.array([-1]))}, folder / "neutral_prompt_embeds.safetensors")
        (folder / "transformer_log.json").write_text(json.dumps(self.log, indent=1) + "\n")


@torch.no_grad()
def accuracy(work: Pretraining, shape: tuple[int, int] = (6, 6), per_family: int = 64) -> dict[str, float]:
    """Held-out cell accuracy of the last frame by family, with the caption given and one sampling step.

    Cells that the rule leaves unchanged are left out, so copying the question scores 0.
    """
    rng, scores = problem_rng("tiny_video", "held out"), {}
    for family in SHORT_FAMILIES:
        batch = sample_batch(rng, per_family, shape, SHORT_LIBRARY, family)
        latents, image_latents = encode(work.encoder, batch)
        noise = torch.randn(
            per_family, latents.shape[1] + 1, *latents.shape[2:], generator=torch.Generator().manual_seed(1)
        )
        sample = sample_latents(work.transformer, work.scheduler, image_latents, captions(batch.rules), noise, 1)[:, 1:]
        vae = work.encoder.vae
        decoded = vae.decode(sample.transpose(1, 2) / vae.config.scaling_factor).sample[:, :, -1]
        means = torch.nn.functional.avg_pool2d(decoded, CELL_PX).permute(0, 2, 3, 1)
        distances = ((means[:, :, :, None] - _COLORS[torch.from_numpy(batch.rules)][:, None, None]) ** 2).sum(-1)
        hits = distances.argmin(-1).numpy() == batch.answers
        scores[family] = float(hits[batch.answers != batch.questions].mean())
    return scores


def train(folder: Path, steps: int, learning_rate: float, batch_size: int, seed: int = 0) -> None:
    """Pretrain from scratch beside ``folder/vae``; Muon on the matrices of the blocks, AdamW on the rest."""
    torch.manual_seed(hashed_seed("tiny_video", seed))
    rng = problem_rng("tiny_video", "training", seed)
    vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae").eval().requires_grad_(False)
    transformer = CogVideoXTransformer3DModel(**TRANSFORMER)
    work = Pretraining(GridEncoder(vae), transformer, CogVideoXDDIMScheduler(**SCHEDULER), [])
    parameters = dict(transformer.named_parameters())
    matrices = [p for name, p in parameters.items() if p.ndim == 2 and (".attn1." in name or ".ff." in name)]
    others = [p for p in parameters.values() if not any(p is matrix for matrix in matrices)]
    optimizers = [
        Muon(matrices, lr=learning_rate),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    running: list[float] = []
    start = time.process_time()
    for step in range(1, steps + 1):
        rate = min(1, step / 100) * min(1.0, (steps + 1 - step) / (0.6 * steps))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate
        shapes = LARGE_SHAPES if step > (1 - LARGE_SHARE) * steps else SMALL_SHAPES
        batch = sample_batch(rng, batch_size, shapes[rng.integers(len(shapes))], SHORT_LIBRARY)
        latents, image_latents = encode(work.encoder, batch)
        rules = np.where(rng.random(batch_size) < NEUTRAL_SHARE, -1, batch.rules)
        timesteps = torch.from_numpy(rng.integers(0, 1000, size=batch_size))
        timesteps[torch.from_numpy(rng.random(batch_size) < 0.5)] = 999  # pure noise: the answer has to be worked out
        noise = torch.randn(batch_size, latents.shape[1] + 1, *latents.shape[2:])
        loss = denoising_loss(
            transformer, work.scheduler, latents, image_latents, captions(rules), noise, timesteps
        ).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0, error_if_nonfinite=True)
        for optimizer in optimizers:
            optimizer.step()
        running.append(loss.item())
        if step % 250 == 0 or step == steps:
            row = {"step": step, "cpu_s": time.process_time() - start, "loss": float(np.mean(running))}
            running.clear()
            if step % 1000 == 0 or step == steps:
                row |= accuracy(work)
            work.log.append({key: round(value, 4) for key, value in row.items()})
            print(work.log[-1], flush=True)
            work.save(folder)


def main() -> None:
    """Pretrain and save beside ``--out``/vae; what is there at any moment can be loaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args.out, args.steps, args.learning_rate, args.batch_size)


if __name__ == "__main__":
    main()
