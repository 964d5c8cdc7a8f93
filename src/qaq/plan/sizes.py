"""What an estimate rests on, as far as this machine has it: rows, their texts, a model's shape.

Nothing is downloaded. Where something is not on this machine a plain assumption takes its place,
and is listed (`Known.assumed`).
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.identity import FORMS, data_files
from qaq.data.rows import Entry, Pair, read_rows
from qaq.host.errors import QaqError
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.identity import EMBEDDED, is_folder
from qaq.plan.counting import Texts, made_texts
from qaq.plan.estimate import ModelSize, model_of_size
from qaq.store.keys import content_key
from qaq.store.manifest import Artifact
from qaq.store.tables import parse_json, read_json

SAMPLE = 256
# Rows of pools that cannot be counted from here; the sources are in conf/data and in the paper.
ROWS = {
    "HuggingMicah/warrior_reproduce": (310_000, "the paper's count; the data set's page says 329K"),
    "Magpie-Align/Magpie-Qwen2.5-Coder-Pro-300K-v0.1": (300_000, "the data set's page"),
}
STDLIB_ROWS = 2_600
SHAPE = (  # what is read of every config.json
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"),
    "tie_word_embeddings",
)
CALLED = {  # other names of what only some have
    "num_key_value_heads": ("num_kv_heads",),
    "intermediate_size": ("ffn_dim", "n_inner", "ffn_hidden_size"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "used": ("num_experts_per_tok", "num_experts_per_token", "moe_k"),
    "dense": ("first_k_dense_replace",),
}
UNGATED = {  # their MLPs have two layers, not three
    *("apertus", "arcee", "biogpt", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "mpt", "nemotron", "opt", "persimmon", "phi", "starcoder2", "xglm"),
}
UNREAD = (120, 480)  # tokens of question and answer in a pool that cannot be read


@dataclass(frozen=True)
class Sample:
    """Rows of a pool, and the texts of some; `made` up where only their length is known."""

    rows: int
    texts: Texts
    made: bool = False


@dataclass
class Known:
    """Finds sizes, once each, and collects what had to be assumed."""

    tokens: tuple[int, int] | None = None  # of question and answer, if the user says so
    rows: int | None = None
    assumed: dict[str, None] = field(default_factory=dict)
    _samples: dict[str, Sample] = field(default_factory=dict)
    _models: dict[str, ModelSize | None] = field(default_factory=dict)

    def sample(self, data: DataConfig, pool: Artifact | None) -> Sample:
        """The number of the pool's rows, and the texts of some."""
        name = content_key([repr(data), str(pool and pool.path)])
        if name not in self._samples:
            self._samples[name] = self._sample(data, pool)
        return self._samples[name]

    def reader(self, model: ModelConfig, sample: Sample) -> Path | None:
        """The folder whose tokenizer reads the sample; None for the stand-in."""
        if sample.made:
            return None  # its length is in the stand-in's tokens
        folder = model_folder(model)
        if folder is None or not any(folder.glob("tokenizer*")):
            self.note(f"the tokenizer of {model.name} is not here: up to six letters are a token")
            return None
        return folder

    def model(self, config: ModelConfig) -> ModelSize | None:
        """The model's shape; None where neither its files nor its name tell its size."""
        if config.id not in self._models:
            self._models[config.id] = self._shape(config)
        return self._models[config.id]

    def note(self, text: str) -> None:
        """Add an assumption to the list."""
        self.assumed[text] = None

    def _sample(self, data: DataConfig, pool: Artifact | None) -> Sample:
        rows, texts = (pool and _published(pool)) or self._read(data)
        if self.rows:
            self.note(f"{data.name}: {self.rows:,} rows, as --rows says")
        elif not rows:
            self.note(f"the rows of {data.name} are not known; --rows says how many to count with")
        if texts and self.tokens is None:
            return Sample(self.rows or rows, texts)
        q, a = self.tokens or UNREAD
        where = "as --tokens says" if self.tokens else "assumed, since the pool is not here"
        self.note(f"rows of {data.name}: {q} + {a} tokens, {where}")
        return Sample(self.rows or rows, made_texts(q, a), made=True)

    def _read(self, data: DataConfig) -> tuple[int, Texts]:
        try:
            rows, entries = self._source(data)
            pairs = [
                row
                for e in entries
                if isinstance(e, Entry)
                for row in read_rows(e, "sample", data.fields, data.turns, data.system)
            ]
        except (QaqError, OSError) as error:
            self.note(f"{data.name} cannot be read: {str(error).splitlines()[0]}")
            return data.limit or 0, []
        texts = [
            (p.question, p.answer, p.input_start, p.system) for p in pairs if isinstance(p, Pair)
        ]
        return min(rows, data.limit) if data.limit and rows else rows or data.limit or 0, texts

    def _source(self, data: DataConfig) -> tuple[int, Iterator[Any]]:
        """The number of records, and some of them, spread over the source."""
        if data.source == "hub":
            rows, why = ROWS.get(data.hub_id or "", (0, "not known"))
            if rows and not self.rows:
                self.note(f"{data.name}: {rows:,} rows ({why})")
            return rows, iter(())
        if data.synthesis is not None:
            return data.synthesis.questions, iter(())
        if data.source == "stdlib":
            if not self.rows:
                self.note(f"{data.name}: about {STDLIB_ROWS:,} rows, if no limit is set")
            return STDLIB_ROWS, islice(sources.read(data), SAMPLE)
        files = data_files(data) if data.source in FORMS else []
        if data.source == "jsonl" and all(file.suffix == ".jsonl" for file in files):
            rows = sum(map(_lines, files))
            step = max(1, rows // SAMPLE)
            return rows, chain.from_iterable(_spread_lines(file, step) for file in files)
        if data.source == "parquet":
            rows = sum(pq.ParquetFile(file).metadata.num_rows for file in files)
            return rows, islice(sources.read(data), SAMPLE)
        return spread(sources.read(data))

    def _shape(self, config: ModelConfig) -> ModelSize | None:
        folder = model_folder(config)
        if folder and (folder / "config.json").is_file():
            with contextlib.suppress(Exception):  # whatever it is, loading says what is wrong
                tree = read_json(folder / "config.json")
                return shape_of(tree.get("text_config") or tree)
        parameters = named_size(f"{config.id} {config.name}")
        if parameters is None:
            self.note(f"{config.name}: neither its files nor its name tell its size; not counted")
            return None
        why = "its config.json says no shape" if folder else "it is not here"
        self.note(f"{config.name}: {parameters / 1e9:g}B parameters, from its name ({why})")
        return model_of_size(parameters)


def spread(entries: Iterable[Any]) -> tuple[int, Iterator[Any]]:
    """How many there are, and some from all over: every n-th, n a power of two; few are held."""
    held: list[Any] = []
    count, step = 0, 1
    for entry in entries:
        if count % step == 0:
            held.append(entry)
        if len(held) > 2 * SAMPLE:
            held, step = held[::2], 2 * step
        count += 1
    return count, iter(held)


def _published(pool: Artifact) -> tuple[int, Texts] | None:
    """Rows and first texts of a finished pool; None of a damaged one, which a run makes again."""
    columns = ["question", "answer", "input_start", "system"]
    try:
        with pq.ParquetFile(pool.path / "pairs.parquet") as file:
            known = [c for c in columns if c in file.schema_arrow.names]
            first = next(file.iter_batches(SAMPLE, columns=known), None)
            found = first.to_pylist() if first is not None else []
            return file.metadata.num_rows, [tuple(map(row.get, columns)) for row in found]
    except (OSError, ValueError):
        return None


def model_folder(config: ModelConfig) -> Path | None:
    """Where the model's files lie on this machine, if they do."""
    if config.id.startswith(EMBEDDED):
        return embedded.folder_of(config.id.removeprefix(EMBEDDED))
    if is_folder(config):
        return Path(config.id).expanduser()
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.id, "config.json", revision=config.revision or "main")
    return Path(found).parent if isinstance(found, str) else None


def shape_of(tree: dict[str, Any]) -> ModelSize:
    """The shape that a `config.json` describes: grouped-query attention, MLPs, experts.

    Raises:
        Exception: it describes none that is known; what a family's own checks raise has no base.
    """
    tree = _filled(tree)
    hidden, layers = tree["hidden_size"], tree["num_hidden_layers"]
    heads = tree["num_attention_heads"]
    groups = 1 if tree.get("multi_query") else _named(tree, "num_key_value_heads") or heads
    width = tree.get("head_dim") or hidden // heads
    attention = hidden * width * (2 * heads + 2 * groups)
    unit = (2 if tree.get("model_type") in UNGATED else 3) * hidden  # of a neuron of an MLP
    wide = _named(tree, "intermediate_size") or 4 * hidden
    experts, used = _named(tree, "experts") or 1, _named(tree, "used") or 1
    dense = layers if experts == 1 else _named(tree, "dense") or 0
    expert = unit * (tree.get("moe_intermediate_size") or wide)
    shared = unit * (tree.get("shared_expert_intermediate_size") or 0)
    shared += expert * (tree.get("n_shared_experts") or 0)
    active = dense * unit * wide + (layers - dense) * (shared + used * expert)
    return ModelSize(
        body=float(layers * attention + active),
        head=float(hidden * tree["vocab_size"]),
        hidden=hidden,
        layers=layers,
        cache=float(2 * layers * groups * width),
        vocabulary=tree["vocab_size"],
        shared=bool(tree["tie_word_embeddings"]),
        resting=float((layers - dense) * (experts - used) * expert),
    )


def _filled(tree: dict[str, Any]) -> dict[str, Any]:
    """With what the file leaves to the defaults of its family, or calls otherwise (`n_embd`)."""
    if all(tree.get(name) is not None for name in SHAPE):
        return tree
    from transformers import AutoConfig  # takes seconds

    known = AutoConfig.for_model(**tree)
    return dict(known.to_dict()) | {name: getattr(known, name) for name in SHAPE}


def _named(tree: dict[str, Any], what: str) -> int | None:
    return next((int(tree[n]) for n in (what, *CALLED[what]) if tree.get(n) is not None), None)


def named_size(name: str) -> float | None:
    """Parameters that a model's name tells (`6.7b`, `135m`), or None."""
    found = re.search(r"(?<![\w.])(\d+(?:[._]\d+)?)\s*([bm])(?![a-z0-9])", name.lower())
    if not found:
        return None
    return float(found[1].replace("_", ".")) * (1e9 if found[2] == "b" else 1e6)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _spread_lines(path: Path, step: int) -> Iterator[Entry]:
    with path.open("rb") as file:
        for number, line in enumerate(islice(file, 0, None, step)):
            try:
                yield Entry(number * step + 1, parse_json(line))
            except ValueError:
                continue
