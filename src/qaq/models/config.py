"""Which language model, in which precision, with which chat template."""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """A causal language model; `docs/models.md` has an example of each kind.

    `id` is the name of an embedded model (`embedded:smollm2-135m-instruct`), a folder, a GGUF file,
    or a Hub id. `name`, under which results show it, is taken from the id where it is empty.
    `chat_template` is null for the tokenizer's own, `<name>` for `conf/templates/<name>.jinja`
    of this project, or a path to a Jinja file (base models borrow the template of their instruct
    sibling; the template of another family gives wrong perplexities silently).
    `allow_split_markers` permits a template whose control texts (`<|user|>`) are not tokens of
    their own; the model must have been trained so. `base` is where an adapter's base model lies, if
    not where the adapter says. `dtype` "auto" is bfloat16 on hardware that has it and float32
    elsewhere.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset(
        {"name", "id", "revision", "chat_template", "base", "allow_split_markers"}
    )

    id: str = Field(min_length=1)
    name: str = ""
    revision: str | None = None
    dtype: DType = "auto"
    chat_template: str | None = None
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    allow_split_markers: bool = False
    trust_remote_code: bool = False
    base: str | None = None

    def __post_init__(self) -> None:
        """Take the name from the id where none is given."""
        if not self.name:
            object.__setattr__(self, "name", name_of(self.id))

    @property
    def label(self) -> str:
        """The model in a message: its name, and its id where that says more."""
        return self.name if self.name == self.id else f"{self.name} ({self.id})"


def name_of(model_id: str) -> str:
    """The last part of a Hub id or a path, in characters that a file name may hold.

    A folder that is only called `final` or `checkpoint-100` has its parent's name before it.
    """
    last = [p for p in Path(model_id.rpartition(":")[2]).expanduser().parts if p not in ("/", "..")]
    name = last[-1].removesuffix(".gguf") if last else "model"
    if len(last) > 1 and re.fullmatch(r"(final|model|merged|best|last|checkpoint-\d+)", name):
        name = f"{last[-2]}-{name}"
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelsConfig:
    """The three roles: the strong and the weak scorer, and the model that is fine-tuned."""

    strong: ModelConfig
    weak: ModelConfig
    target: ModelConfig
