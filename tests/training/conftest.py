"""A stage's work order on the tiny model, and a tokenizer built like DeepSeek Coder's."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qaq.host.runtime import RuntimeConfig
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS, SUBSET, write_rows

MakeJob = Callable[..., Job]


def some_pairs(count: int) -> list[tuple[str, str]]:
    """Questions and answers of different lengths, the same each time."""
    chance = random.Random(0)
    return [
        (
            f"Write function number {i} that adds {chance.randint(0, 999)} to its argument.",
            f"def f{i}(a):\n    return a + {i}\n" * chance.randint(1, 5),
        )
        for i in range(count)
    ]


@pytest.fixture
def make_job(tmp_path: Path, tiny_model: Path) -> MakeJob:
    """Builds a job; keyword arguments go to the recipe, `runtime` to the runtime."""

    def build(
        name: str = "job",
        rows: int = 20,
        pairs: list[tuple[str, str]] | None = None,
        kept: Callable[[int], bool] = lambda i: True,
        runtime: dict[str, Any] | None = None,
        share: float = 1.0,
        seed: int = 1,
        **train: Any,
    ) -> Job:
        folder = tmp_path / name
        for part in ("pairs", "subset", "out", "scratch"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        texts = some_pairs(rows) if pairs is None else pairs
        ids = [f"{i:016x}" for i in range(len(texts))]
        write_rows(
            folder / "pairs" / "pairs.parquet",
            [
                {"row_id": i, "question": q, "answer": a, "source": "test", "defect": None}
                for i, (q, a) in zip(ids, texts, strict=True)
            ],
            PAIRS,
        )
        nothing = {"score": None, "stratum": None, "rank": None, "reason": "chosen"}
        write_rows(
            folder / "subset" / "rows.parquet",
            [{"row_id": row, "kept": kept(i), **nothing} for i, row in enumerate(ids)],
            SUBSET,
        )
        recipe = {"name": "test", "batch_size": 8, "learning_rate": 1e-2, "epochs": 1} | train
        return Job(
            kind="adapter",
            module="qaq.training.stage",
            name=name,
            key="0" * 64,
            config={
                "model": {"name": "tiny", "id": str(tiny_model), "dtype": "float32"},
                "train": recipe,
                "system_prompt": "You write Python.",
                "share": share,
                "seed": seed,
            },
            inputs={"pairs": folder / "pairs", "subset": folder / "subset"},
            out=folder / "out",
            scratch=folder / "scratch",
            runtime=RuntimeConfig(**({"device": "cpu"} | (runtime or {}))),
        )

    return build


@pytest.fixture(scope="session")
def deepseek_tokenizer() -> PreTrainedTokenizerFast:
    """A small BPE tokenizer cut up as DeepSeek Coder's `tokenizer.json` cuts text.

    Line breaks, letters, punctuation and digits are isolated before merging; `<|EOT|>` is an
    added token that is not in the list of special ones.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated"),
            pre_tokenizers.Split(Regex(r"\s?\p{L}+"), "isolated"),
            pre_tokenizers.Split(Regex(r"\s?\p{P}+"), "isolated"),
            pre_tokenizers.Split(Regex(r"[一-龥ࠀ-一가-퟿]+"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([text for pair in some_pairs(50) for text in pair], trainer)
    core.add_tokens([AddedToken("<|EOT|>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<｜begin▁of▁sentence｜>",
        eos_token="<｜end▁of▁sentence｜>",
        pad_token="<｜end▁of▁sentence｜>",
    )
