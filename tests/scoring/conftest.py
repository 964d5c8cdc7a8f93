"""A tiny model ready to score, and pairs of many lengths."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.models.config import ModelConfig
from qaq.models.load import Positions, load_model, load_tokenizer
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import Framer, make_framer


@dataclass(frozen=True)
class Tiny:
    """The tiny model with its tokenizer and config."""

    config: ModelConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def framer(
        self,
        kind: str,
        system: str | None = None,
        positions: Positions | None = None,
        **options: Any,
    ) -> Framer:
        """A framer of that kind for this model."""
        framing = FramingConfig(name=kind, kind=kind, **options)  # type: ignore[arg-type]
        return make_framer(framing, self.config, self.tokenizer, system, positions)


@pytest.fixture(scope="session")
def tiny(tiny_model: Path) -> Tiny:
    config = ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")
    return Tiny(config, load_model(config, "cpu"), load_tokenizer(config))


PAIRS = [
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("Check a palindrome, please.", "def is_palindrome(text):\n    return text == text[::-1]"),
    (
        "Überprüfe, ob n gerade ist 你好",
        "def gerade(n):\n    return n % 2 == 0  # <|im_end|> bleibt Text",
    ),
    ("Print it.", "print(it)"),
    (
        "Write a class that holds a stack of items with push and pop, and say how it works.",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n"
        "    def push(self, item):\n"
        "        self.items.append(item)\n\n    def pop(self):\n        return self.items.pop()\n",
    ),
]
