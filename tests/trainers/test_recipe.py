from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainers.recipe import Placement, TrainRecipe


def test_yaml_numbers_written_as_text_are_the_same_recipe():
    assert TrainRecipe(learning_rate="3e-4") == TrainRecipe(learning_rate=0.0003)
    assert TrainRecipe(lora_targets=["q", "k"]) == TrainRecipe(lora_targets=("q", "k"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_steps", 0),
        ("learning_rate", 0),
        ("lr_schedule", "exponential"),
        ("warmup_steps", -1),
        ("decay_share", 0),
        ("decay_share", 1.1),
        ("batch_size", 0),
        ("gradient_clip", -1),
        ("precision", "fp16"),
        ("lora_dropout", 1),
        ("num_frames", 1),
        ("transition", "linear"),
        ("guidance_scale", 0.5),
        ("top_p", 0),
        ("attempts", 0),
        ("learning_rat", 1e-4),
    ],
)
def test_a_recipe_refuses_what_makes_no_sense(field, value):
    with pytest.raises(ValidationError, match=field):
        TrainRecipe(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_workers", 0),
        ("zero_stage", 4),
        ("micro_batch_size", 0),
        ("eval_batch_size", 0),
        ("timeout_s", 0),
        ("gpu", 1),
    ],
)
def test_a_placement_refuses_what_makes_no_sense(field, value):
    with pytest.raises(ValidationError, match=field):
        Placement(**{field: value})


def test_recipe_and_placement_share_no_field():
    """What changes the numbers and what does not is told apart by the class a field is in."""
    assert not set(TrainRecipe.model_fields) & set(Placement.model_fields)


def test_both_are_frozen():
    for spec in (TrainRecipe(), Placement()):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(spec, next(iter(type(spec).model_fields)), 1)
