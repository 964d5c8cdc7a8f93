"""Tiny models of the paper's families under their own ids, and its pools in their published forms.

Their tokenizers have the classes and files of the true ones, as DeepSeek Coder's LlamaTokenizerFast
over a byte-level BPE, Qwen's. Nothing is downloaded.
"""

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from qaq.data.stdlib import read
from tests.hub import Hub

DEEPSEEK, QWEN3 = "deepseek-ai/deepseek-coder-6.7b-base", "Qwen/Qwen3-0.6B"
WARRIOR = "HuggingMicah/warrior_reproduce"
MAGPIE = "Magpie-Align/Magpie-Qwen2.5-Coder-Pro-300K-v0.1"

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
EOT = "<|EOT|>"
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen3's puts an empty thought before an answer that may hold none
QWEN_TEMPLATE = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


def pairs(count: int) -> list[tuple[str, str]]:
    """Questions and answers from the standard library."""
    found = (entry.record for entry in itertools.islice(read(), count))
    return [(record["instruction"], record["response"]) for record in found]


def tokenizer(split: list[pre_tokenizers.PreTokenizer], special: list[str]) -> Tokenizer:
    """A byte-level BPE over code and English."""
    made = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["\n".join(pair) for pair in pairs(300)], trainer)
    return made


def shape(made: Tokenizer, bos: str, eos: str) -> dict[str, object]:
    """What the tiny models share."""
    return {
        "vocab_size": made.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-6,
        "bos_token_id": made.token_to_id(bos),
        "eos_token_id": made.token_to_id(eos),
    }


def deepseek(folder: Path, seed: int = 0) -> Path:
    """DeepSeek Coder: linear RoPE scaling, untied head, its tokenizer's own files and class."""
    folder.mkdir(parents=True)
    split = [
        pre_tokenizers.Split(Regex(pattern), "isolated")
        for pattern in ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")
    ]
    made = tokenizer([*split, pre_tokenizers.Digits(individual_digits=True)], [BOS, EOS, EOT])
    made.post_processor = processors.TemplateProcessing(
        single=f"{BOS}:0 $A:0",
        pair=f"{BOS}:0 $A:0 {BOS}:1 $B:1",
        special_tokens=[(BOS, made.token_to_id(BOS))],
    )
    config = LlamaConfig(**shape(made, BOS, EOS), num_key_value_heads=4, tie_word_embeddings=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="150KB")
    written = json.loads((folder / "config.json").read_text())
    written.pop("rope_parameters", None)  # as the true file, of an older Transformers, has it
    written |= {"rope_theta": 100000, "rope_scaling": {"factor": 4.0, "type": "linear"}}
    write(folder / "config.json", written)
    made.save(str(folder / "tokenizer.json"))
    write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": added(BOS),
            "eos_token": added(EOS),
            "pad_token": added(EOS),
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "model_max_length": 16384,
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizerFast",
        },
    )
    return folder


def qwen(folder: Path, third: bool = True, seed: int = 2) -> Path:
    """Qwen3, or Qwen2.5, with its template in the tokenizer's config."""
    folder.mkdir(parents=True)
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    made = tokenizer([split], QWEN_SPECIAL)
    common = shape(made, "<|endoftext|>", "<|im_end|>") | {
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (
            Qwen3ForCausalLM(Qwen3Config(head_dim=8, **common))
            if third
            else Qwen2ForCausalLM(Qwen2Config(**common))
        )
        model.to(torch.bfloat16).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 131072,
            "tokenizer_class": "Qwen2Tokenizer",
            "chat_template": QWEN_TEMPLATE,
            "unk_token": None,
            "errors": "replace",
        },
    )
    return folder


def fill(hub: Hub, work: Path, rows: int) -> None:
    """Everything that the paper's experiments take from the Hub."""
    hub.put("models", DEEPSEEK, "d" * 40, deepseek(work / "deepseek"))
    hub.put("models", QWEN3, "1" * 40, qwen(work / "qwen3"))
    found = pairs(rows)
    warrior = work / "warrior"
    warrior.mkdir()
    lines = [
        json.dumps({"messages": [said("user", q), said("assistant", a)]}) + "\n" for q, a in found
    ]
    (warrior / "train.jsonl").write_text("".join(lines))
    (warrior / "README.md").write_text("---\nlicense: mit\n---\n# warrior\n")
    hub.put("datasets", WARRIOR, "a" * 40, warrior)
    magpie = work / "magpie"
    (magpie / "data").mkdir(parents=True)
    table = [
        {
            "uuid": str(number),
            "instruction": q,
            "response": a,
            "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}],
            "difficulty": "easy",
            "language": "EN",
        }
        for number, (q, a) in enumerate(found[::-1])
    ]
    for shard in range(2):
        part = pa.Table.from_pylist(table[shard::2])
        pq.write_table(part, magpie / "data" / f"train-{shard:05d}-of-00002.parquet")
    (magpie / "README.md").write_text(
        "---\nlicense: cc-by-nc-4.0\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: data/train-*\n---\n"
    )
    hub.put("datasets", MAGPIE, "b" * 40, magpie)


def said(role: str, text: str) -> dict[str, str]:
    """A turn of a conversation."""
    return {"role": role, "content": text}


def added(text: str) -> dict[str, object]:
    """A special token as `tokenizer_config.json` writes it."""
    facts = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": text, **facts}


def write(file: Path, tree: object) -> None:
    """Write JSON."""
    file.write_text(json.dumps(tree, indent=2, ensure_ascii=False))
