"""How a trial trains and answers (``TrainRecipe``), and where and how safely it runs (``Placement``)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

VIDEO_FIELDS = frozenset(
    {
        "num_frames",
        "transition",
        "output_size",
        "train_timesteps",
        "num_inference_steps",
        "sampler",
        "prompt",
        "guidance_scale",
    }
)
PICTURE_FIELDS = frozenset({"cell_px", "border_px", "picture_px"})
TEXT_FIELDS = frozenset({"max_length", "decoding", "max_new_tokens", "temperature", "top_p", "top_k"})
IGNORED_FIELDS = {
    "video": TEXT_FIELDS | {"inputs"},
    "language": VIDEO_FIELDS | PICTURE_FIELDS | {"inputs"},
    "vision_language": VIDEO_FIELDS,
}
"""Fields of the recipe that mean nothing to a family's kind of backbone."""


def _without_booleans(model: type[BaseModel], values: Any) -> Any:
    """``values`` as they are. ValueError for a yes or no in place of a number, which pydantic would take for 1 or 0."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, bool) and name in model.model_fields and model.model_fields[name].annotation is not bool:
            raise ValueError(f"{name} = {str(value).lower()}: expected a value, got a yes or no")
    return values


class TrainRecipe(BaseModel):
    """Everything that changes the weights or the answers; part of a trial's identity.

    A default here stands in where a backbone's published recipe is silent. What the paper leaves open (steps,
    precision, sampler, prompts) is our choice, and named so in the README.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # --- optimisation
    max_steps: int = Field(default=500, gt=0, description="optimizer steps (open in the paper)")
    learning_rate: float = Field(default=1e-4, gt=0)
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(default="constant", description="decay after warm-up")
    warmup_steps: int = Field(default=0, ge=0)
    decay_share: float = Field(
        default=1.0, gt=0, le=1, description="last share of the steps over which the rate decays"
    )
    batch_size: int = Field(
        default=2, gt=0, description="examples an optimizer step, over all workers and micro-batches"
    )
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    gradient_clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    precision: Literal["fp32", "bf16", "int8", "nf4"] = Field(
        default="fp32",
        description="of the frozen base; LoRA weights stay fp32. int8 and nf4 (8, 4 bits): GPU only, extra `quantized`",
    )

    # --- LoRA (the rank is an axis of the sweep)
    lora_alpha: float = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_targets: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="module names; null: the backbone's own"
    )

    # --- pictures and videos (video and vision-language families)
    cell_px: int | None = Field(default=None, gt=0, description="side of a cell; null: the task's published style")
    border_px: int | None = Field(default=None, ge=0, description="border lines; null: the task's published style")
    picture_px: int | None = Field(
        default=None,
        gt=0,
        description="side of every picture, with cells as large as fit it; null: as the cells need. The published maze "
        "generalisation draws 13x13 and 21x21 mazes 336 px wide",
    )
    num_frames: int = Field(default=9, gt=1, description="frames of the transition video")
    transition: Literal["discrete", "convex", "quadratic", "square_root", "tiles", "states"] = Field(
        default="discrete", description="how the video goes from question to answer; states: through the real ones"
    )
    output_size: Literal["given", "inferred"] = Field(
        default="given", description="of the answer's grid: told to the reader (as published), or read from the picture"
    )
    train_timesteps: Literal["uniform", "sampling"] = Field(
        default="uniform", description="noise levels trained on: all, or only those that num_inference_steps visits"
    )
    num_inference_steps: int = Field(
        default=50, gt=0, le=1000, description="sampling steps (open in the paper); schedules have 1000"
    )
    sampler: Literal["own", "ddim", "dpm", "euler", "unipc"] = Field(
        default="own", description="own: the checkpoint's; the others where the family has them (open in the paper)"
    )
    prompt: str = Field(default="", description="the one neutral prompt of every video (open in the paper)")
    guidance_scale: float = Field(
        default=1.0,
        ge=1,
        description="away from the empty prompt; above 1 only with another prompt (open in the paper)",
    )

    # --- text (language and vision-language families)
    inputs: Literal["text", "image", "image_and_text"] = Field(
        default="image_and_text", description="what a vision-language model sees of the question"
    )
    max_length: int | None = Field(
        default=None, gt=0, description="longest training example in tokens; null: the model's context"
    )
    decoding: Literal["free", "json"] = Field(
        default="free", description="json: only tokens that continue a compact JSON grid can be chosen"
    )
    max_new_tokens: int = Field(default=4096, gt=0)
    temperature: float = Field(default=0.0, ge=0, description="0: greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0: off")

    # --- answering
    attempts: int = Field(default=1, gt=0, description="independent answers to each test problem")

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any) -> Any:
        return _without_booleans(cls, value)

    @model_validator(mode="after")
    def _one_size(self) -> TrainRecipe:
        if self.picture_px is not None and self.cell_px is not None:
            raise ValueError(f"picture_px = {self.picture_px}: leave it out, or leave out cell_px = {self.cell_px}")
        return self


class Placement(BaseModel):
    """Where and how safely a trial runs. Never changes its identity or its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any) -> Any:
        return _without_booleans(cls, value)

    num_workers: int = Field(default=1, gt=0, le=100_000)
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float | None = Field(default=None, ge=0, description="null: the backbone's own where GPUs exist")
    zero_stage: Literal[0, 1, 2, 3] | None = Field(
        default=None, description="DeepSpeed ZeRO stage; null: plain torch on one worker, stage 1 on several"
    )
    micro_batch_size: int | None = Field(default=None, gt=0, description="examples a forward pass; null: all at once")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations: less memory, more time")
    eval_batch_size: int = Field(default=32, gt=0, description="test problems answered at once")
    timeout_s: float | None = Field(default=None, gt=0, le=31_536_000, description="hard limit of one trial")
    checkpoint_every_s: float | None = Field(
        default=None, gt=0, description="a killed trial goes on from its last checkpoint; null: from its start"
    )
    latents: Literal["results", "node", "off"] = Field(
        default="results",
        description="where encoded pictures are kept for other trials: under the results folder (a URI: on the node), "
        "on each node, or nowhere",
    )
    weights_folder: str | None = Field(
        default=None, description="folder that holds ORG/NAME as on the hub; what it lacks comes from the hub"
    )
    keep_adapters: bool = Field(default=False, description="keep each trial's LoRA weights under results/adapters")
    keep_videos: int = Field(
        default=4, ge=0, description="keep the videos that answered a trial's first test problems, this many; 0: none"
    )

    @model_validator(mode="after")
    def _shares_of_gpus(self) -> Placement:
        share = self.gpus_per_worker
        if share is not None and share != int(share) and (share > 1 or self.num_workers > 1):
            raise ValueError(
                f"gpus_per_worker = {share:g}: a share of a GPU is below 1, and for trials of one worker; "
                f"num_workers is {self.num_workers}"
            )
        return self
