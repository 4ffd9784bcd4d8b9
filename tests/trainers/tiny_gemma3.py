"""A tiny random Gemma 3 with its eyes (SigLIP), in the layout of ``google/gemma-3-4b-it`` on the hub."""

import json
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast

PICTURE_PX, PATCH_PX, TOKENS_PER_PICTURE = 32, 8, 4
SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
# As published with google/gemma-3-4b-it, but for the parts about system messages.
CHAT_TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""


def write_tiny_checkpoint(folder: Path, flavor: str = "4b-it") -> Path:
    """Random weights, the same for every call; ``flavor``: a name after ``gemma3/``, of which there is one kind."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    _write_json(
        folder / "processor_config.json",
        {"image_seq_length": TOKENS_PER_PICTURE, "processor_class": "Gemma3Processor"},
    )
    _write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_pan_and_scan": None,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "Gemma3ImageProcessor",
            "image_seq_length": TOKENS_PER_PICTURE,
            "image_std": [0.5, 0.5, 0.5],
            "pan_and_scan_max_num_crops": None,
            "pan_and_scan_min_crop_size": None,
            "pan_and_scan_min_ratio_to_activate": None,
            "processor_class": "Gemma3Processor",
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": PICTURE_PX, "width": PICTURE_PX},
        },
    )
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    stops = [ids["<eos>"], ids["<end_of_turn>"]]
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "max_position_embeddings": 512,
            "sliding_window": 48,  # shorter than the longest prompts of the tests
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": PICTURE_PX,
            "patch_size": PATCH_PX,
            "vision_use_head": False,
        },
        mm_tokens_per_image=TOKENS_PER_PICTURE,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        pad_token_id=ids["<pad>"],
        bos_token_id=ids["<bos>"],
        eos_token_id=stops,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gemma3ForConditionalGeneration(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                # The default start hardly reacts to pictures, has a projector of zeros, and embeddings so small that no
                # hidden state makes one token certain.
                std = 0.3 if "embed_tokens" in name else 1.5 if "projector" in name else 0.15
                torch.nn.init.normal_(parameter, std=std)
            elif "post_" in name and "language_model" in name:
                parameter.data.fill_(3)  # else the last token speaks louder than the layers, and is repeated for ever
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<bos>"], eos_token_id=stops, pad_token_id=ids["<pad>"], do_sample=True, top_k=64, top_p=0.95
    )
    model.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """Characters that can be printed, so that different tokens are different texts, and Gemma's special tokens."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *sorted(string.printable)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
            "sot_token": "<start_of_turn>",
            "eot_token": "<end_of_turn>",
        },
        clean_up_tokenization_spaces=False,
    )


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
