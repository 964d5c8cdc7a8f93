"""A real but tiny language model, made on the spot: nothing is downloaded and nothing is chance.

A Llama of two layers with random weights, and a byte-level BPE tokenizer trained on a few lines
of code, with ChatML as its chat template. It knows nothing, but every stage runs on it in seconds.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

LINES = [
    "Write a function that returns the sum of two numbers.\n",
    "def add(a, b):\n    return a + b\n",
    "Check whether a string is a palindrome.\n",
    "def is_palindrome(text):\n    return text == text[::-1]\n",
    "for i in range(len(values)):\n    if values[i] > best:\n        best = values[i]\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n",
    "The following is the answer in Python, the user and the assistant of the system.\n",
]


def build_tiny_model(folder: Path, seed: int = 0, vocabulary: int = 512) -> Path:
    """Write config, safetensors weights and tokenizer into `folder`; the same bytes each time.

    Args:
        folder: made if missing.
        seed: of the random weights; two seeds give two models with one tokenizer.
        vocabulary: its greatest size; 256 bytes and 3 special tokens are always there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(vocabulary)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float()
    model.generation_config.max_new_tokens = 32
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tokenizer(vocabulary: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text has tokens, and decoding gives the text back."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        model_max_length=2048,
    )
