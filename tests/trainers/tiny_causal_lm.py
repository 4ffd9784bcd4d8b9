"""Tiny random language models in the classes, tokenizer styles and chat formats of the flavours of ``causal_lm``."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHATML = """
{%- for message in messages -%}
    {{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
# As Qwen3's hybrid models: an empty thought where thinking is off, and nothing where it is on.
HYBRID = CHATML + (
    "{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false -%}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"
)
SMOLLM2 = (
    "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}"
    "{%- endif -%}" + CHATML
)
# As Llama 3, with the clock of 3.2.
LLAMA3 = """{{- bos_token -}}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + strftime_now('%d %b %Y') + '\n\n<|eot_id|>' -}}
{%- for message in messages -%}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
"""

SIZE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,  # of so few channels: with the usual 0.02 layers would hardly change what passes through
}


def write_tiny_checkpoint(folder: Path, flavor: str) -> Path:
    """Random weights, the same for every call, of the kind of ``flavor``: a name after ``causal_lm/``."""
    if flavor.startswith("qwen3"):
        template = HYBRID if flavor == "qwen3-8b" else CHATML
        tokenizer = chat_tokenizer(template, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), digits_a_token=1)
        model_class, config_class, tied = Qwen3ForCausalLM, Qwen3Config, flavor != "qwen3-8b"
    elif flavor.startswith("llama-3"):
        special = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        tokenizer = chat_tokenizer(LLAMA3, special, digits_a_token=3)
        model_class, config_class, tied = LlamaForCausalLM, LlamaConfig, False
    elif flavor.startswith("smollm2"):
        tokenizer = chat_tokenizer(SMOLLM2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), digits_a_token=1)
        model_class, config_class, tied = LlamaForCausalLM, LlamaConfig, True
    else:
        raise ValueError(f"no tiny checkpoint for causal_lm/{flavor}")
    tokenizer.save_pretrained(folder)
    config = config_class(
        **SIZE,
        vocab_size=len(tokenizer) + 5,  # published models have more rows than their tokenizers have tokens
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        # A frozen head of the usual small weights could never be sure of a token, whatever LoRA puts before it.
        torch.nn.init.normal_(model.get_output_embeddings().weight, std=0.3)
    # Published settings sample, punish repetition, and stop at more than one token.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        repetition_penalty=1.5,
        eos_token_id=[tokenizer.eos_token_id, 0],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    return folder


def chat_tokenizer(template: str, special: tuple[str, ...], *, digits_a_token: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with brackets merged; the last of ``special`` ends a message, the first begins or pads a text."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("[", "["), ("]", "]"), ("]", ","), ("],", "["), (",", "[")]
    numbers = [""]
    for length in range(1, digits_a_token + 1):
        longer = [(number, str(digit)) for number in numbers for digit in range(10)]
        merges += longer if length > 1 else []
        numbers = ["".join(pair) for pair in longer]
    vocabulary = {piece: index for index, piece in enumerate([*special, *pieces, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf"\d{{1,{digits_a_token}}}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        pad_token=special[0],
        eos_token=special[-1],
        additional_special_tokens=list(special[1:-1]),
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
