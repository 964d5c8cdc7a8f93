"""Which language model, in which precision, with which chat template."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """A causal language model.

    `id` is the name of an embedded model (`embedded:smollm2-135m-instruct`), a folder, or a Hub id.
    `chat_template` is null for the tokenizer's own, `<name>` for `conf/templates/<name>.jinja`
    of this project, or a path to a Jinja file (base models borrow the template of their instruct
    sibling; the template of another family gives wrong perplexities silently).
    `dtype` "auto" is bfloat16 on hardware that has it and float32 elsewhere.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name", "id", "revision", "chat_template"})

    name: str
    id: str
    revision: str | None = None
    dtype: DType = "auto"
    chat_template: str | None = None
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelsConfig:
    """The three roles: the strong and the weak scorer, and the model that is fine-tuned."""

    strong: ModelConfig
    weak: ModelConfig
    target: ModelConfig
