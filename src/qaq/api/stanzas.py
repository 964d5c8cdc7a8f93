"""What a trainer needs to be given so that it reads the chosen records: `qaq select --for`.

llamafactory: an entry of dataset_info.json, beside the records
axolotl:      OUT.axolotl.yaml, the entry of `datasets:`
trl:          OUT.trl.py, whose `dataset()` has what SFTTrainer reads
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from qaq.api.records import csv_header
from qaq.data.config import Fields
from qaq.data.forms import Layout, layout_of
from qaq.data.identity import PACKED, bare_name
from qaq.data.rows import Entry
from qaq.data.separated import delimiter_of
from qaq.data.turns import ANSWERING, ASKING, ROLES
from qaq.host.errors import DataError, UserError
from qaq.store.tables import appearing, read_json, write_json

INFO = "dataset_info.json"
ENDS = {"axolotl": "axolotl.yaml", "trl": "trl.py"}
KEYS = (("role", "content"), ("from", "value"))  # of a turn


@dataclass(frozen=True)
class RecordForm:
    """How the chosen records are laid out, all alike.

    `role` and `content` are the keys of a turn, `user` and `assistant` the roles' names.
    """

    layout: Layout
    role: str = ""
    content: str = ""
    user: str = ""
    assistant: str = ""


def form_of_records(records: Iterable[Any], fields: Fields | None) -> RecordForm:
    """The one layout that all records share.

    Raises:
        UserError: they have several, or one that no trainer is told of by names.
    """
    layouts: dict[Layout | None, Any] = {}
    names: dict[str, set[str]] = {ASKING: set(), ANSWERING: set()}
    keys: set[tuple[str, str]] = set()
    for entry in records:
        record: Any = entry.record if isinstance(entry, Entry) else entry
        layout = layout_of(record, fields)
        layouts.setdefault(layout and layout._replace(input=None, system=None), record)
        if layout and (layout.input or layout.system):
            layouts.setdefault(layout, record)
        for turn in record[layout.turns] if layout and layout.turns else ():
            keys.update(pair for pair in KEYS if set(pair) <= set(turn))
            role = str(turn.get("role", turn.get("from")))
            names.get(ROLES.get(role.strip().lower(), ""), set()).add(role)
    known = [layout for layout in layouts if layout is not None]
    bare = {layout._replace(input=None, system=None) for layout in known}
    parts, systems = ({getattr(one, n) for one in known} - {None} for n in ("input", "system"))
    if None in layouts or len(bare) != 1 or len(parts) > 1 or len(systems) > 1:
        raise UserError(
            "--for: the records are not all of one form whose fields have names (question and "
            "answer, or turns); leave it out, and write qaq export's chat messages instead"
        )
    whole = {"input": max(parts, default=None), "system": max(systems, default=None)}
    layout = known[0]._replace(**whole)
    if not layout.turns:
        return RecordForm(layout)
    if len(keys) != 1 or any(len(found) != 1 for found in names.values()):
        found = ", ".join(sorted(names[ASKING] | names[ANSWERING]))
        raise UserError(
            f"--for: the turns name their roles in several ways ({found}); leave it out"
        )
    ((role, content),) = keys
    return RecordForm(layout, role, content, *(min(names[side]) for side in (ASKING, ANSWERING)))


def stanza_file(trainer: str, out: Path) -> Path:
    """The file that the trainer's part is written to.

    Raises:
        UserError: the trainer does not read such a file.
    """
    bare = bare_name(out)
    if trainer == "llamafactory" and out.suffix.lower() in PACKED:
        raise UserError("--for llamafactory: it reads no packed files; end OUT without .gz")
    if bare.lower().endswith((".ndjson", ".jsonlines", ".jl", ".tsv")):
        raise UserError(f"--for {trainer}: end OUT in .jsonl or .csv, which it knows")
    if trainer == "llamafactory":
        return out.with_name(INFO)
    return out.with_name(f"{bare.partition('.')[0]}.{ENDS[trainer]}")


def write_stanza(trainer: str, out: Path, form: RecordForm, source: str, force: bool) -> Path:
    """Write the trainer's part; returns its file.

    Raises:
        UserError: dataset_info.json has an entry of that name, and not `force`; or the records are
            CSV with another separator than a comma.
    """
    if source == "csv" and delimiter_of(csv_header(out)) != ",":
        raise UserError(f"--for {trainer}: it reads CSV with commas; {out} has another separator")
    path = stanza_file(trainer, out)
    if trainer == "llamafactory":
        _write_info(path, out, form, force)
        return path
    text = _axolotl(out, form, source) if trainer == "axolotl" else _trl(out, form, source)
    with appearing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _write_info(path: Path, out: Path, form: RecordForm, force: bool) -> None:
    """Add the entry, which is named after the file, to those that are there."""
    name = bare_name(out).partition(".")[0]
    try:
        entries = read_json(path) if path.exists() else {}
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); correct it, or move it away") from None
    if not isinstance(entries, dict) or (name in entries and not force):
        raise UserError(f"{path} has an entry {name} already; replace it with --force")
    layout = form.layout
    system = {"system": layout.system} if layout.system else {}
    if layout.turns:
        entry: dict[str, Any] = {
            "file_name": out.name,
            "formatting": "sharegpt",
            "columns": {"messages": layout.turns} | system,
            "tags": {  # LLaMA-Factory forgets its defaults for those that are not given
                "role_tag": form.role,
                "content_tag": form.content,
                "user_tag": form.user,
                "assistant_tag": form.assistant,
                "observation_tag": "observation",
                "function_tag": "function_call",
                "system_tag": "system",
            },
        }
    else:
        columns = {"prompt": layout.question, "query": layout.input, "response": layout.answer}
        given = {key: value for key, value in columns.items() if value} | system
        entry = {"file_name": out.name, "formatting": "alpaca", "columns": given}
    write_json(path, entries | {name: entry})


def _axolotl(out: Path, form: RecordForm, source: str) -> str:
    """Pairs as text with blank lines between the parts; turns by the model's template."""
    kind = {"jsonl": "json"}.get(source, source)
    layout = form.layout
    entry: dict[str, Any] = {"path": str(out.absolute()), "ds_type": kind}
    if layout.turns:
        entry |= {
            "type": "chat_template",
            "field_messages": layout.turns,
            "message_property_mappings": {"role": form.role, "content": form.content},
        }
    else:
        entry["type"] = {
            "field_instruction": layout.question,
            "field_output": layout.answer,
            **({"field_input": layout.input} if layout.input else {}),
            **({"field_system": layout.system} if layout.system else {}),
            "format": "{instruction}\n\n{input}\n\n" if layout.input else "{instruction}\n\n",
            "no_input_format": "{instruction}\n\n",
        }
    return OmegaConf.to_yaml({"datasets": [entry]})


def _trl(out: Path, form: RecordForm, source: str) -> str:
    kind = {"jsonl": "json"}.get(source, source)
    layout, lines = form.layout, _trl_pair(form.layout)
    if layout.turns:
        roles = {form.user: "user", form.assistant: "assistant"}
        lines = [
            f"roles = {json.dumps(roles)}",
            f"turns = [(t[{form.role!r}], t[{form.content!r}]) for t in record[{layout.turns!r}]]",
            'turns = [{"role": roles.get(r, r), "content": c} for r, c in turns]',
            *_trl_system(layout, "turns"),
            'return {"messages": turns}',
        ]
    body = "\n".join(f"    {line}" for line in lines)
    return f'''"""Chosen records for TRL: SFTTrainer(..., train_dataset=dataset())."""

from pathlib import Path

from datasets import load_dataset

FILE = Path(__file__).with_name({out.name!r})


def _converted(record):
{body}


def dataset():
    rows = load_dataset({kind!r}, data_files=str(FILE), split="train")
    return rows.map(_converted, remove_columns=rows.column_names)
'''


def _trl_pair(layout: Layout) -> list[str]:
    lines = [f"question = record[{layout.question!r}] or ''"]
    if layout.input:
        lines.append(f"part = record[{layout.input!r}]")
        lines.append('question = "\\n\\n".join(text for text in (question, part) if text)')
    return [
        *lines,
        'prompt = [{"role": "user", "content": question}]',
        *_trl_system(layout, "prompt"),
        f"completion = [{{'role': 'assistant', 'content': str(record[{layout.answer!r}])}}]",
        'return {"prompt": prompt, "completion": completion}',
    ]


def _trl_system(layout: Layout, turns: str) -> list[str]:
    """The record's system column as the first turn, unless there is one."""
    if not layout.system:
        return []
    return [
        f"system = record[{layout.system!r}]",
        f'if system and {turns}[0]["role"] != "system":',
        f'    {turns}.insert(0, {{"role": "system", "content": system}})',
    ]
