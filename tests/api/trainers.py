"""Reads a stanza with the trainer's own code: `python trainers.py FOLDER TRAINER STANZA TOKENIZER`.

FOLDER holds LLaMA-Factory and Axolotl, installed without what they depend on. Of that only what
reads records is needed; sound, browsers and kernels, which they import on the way, are replaced.
Prints a JSON list: of each record what is read, and what is learnt from it.
"""

import contextlib
import importlib.machinery
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

ABSENT = (
    *("torchaudio", "av", "trl", "torchdata", "addict", "colorama", "bitsandbytes", "fire"),
    *(
        "dotenv",
        "optimum",
        "axolotl_contribs_mit",
        "axolotl_contribs_lgpl",
        "posthog",
        "langdetect",
    ),
    *("mistral_common", "schedulefree"),
)


class Replaced:
    """An import hook for the packages that are not here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".", maxsplit=1)[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> ModuleType:
        made: Any = MagicMock()
        made.__spec__, made.__path__, made.__name__ = spec, [], spec.name
        return made  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        pass


def llamafactory(stanza: Path) -> list[list[str]]:
    from llamafactory.data.loader import _load_single_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import DataArguments

    (name,) = json.loads(stanza.read_text())
    settings = DataArguments(dataset_dir=str(stanza.parent), dataset=name)
    nothing = dict.fromkeys(("cache_dir", "hf_hub_token", "ms_hub_token", "om_hub_token"))
    model = SimpleNamespace(**nothing, trust_remote_code=False)
    process = SimpleNamespace(
        should_log=False,
        local_process_index=0,
        main_process_first=lambda *_, **__: contextlib.nullcontext(),
    )
    (one,) = get_dataset_list([name], str(stanza.parent))
    rows = _load_single_dataset(one, model, settings, process)
    return [
        [r["_system"] + "".join(t["content"] for t in r["_prompt"]), r["_response"][0]["content"]]
        for r in rows
    ]


def axolotl(stanza: Path, tokenizer: str) -> list[list[str]]:
    from axolotl.prompt_strategies import load, user_defined
    from datasets import load_dataset
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    whole: Any = OmegaConf.to_container(OmegaConf.load(stanza))
    (entry,) = whole["datasets"]
    config = SimpleNamespace(
        train_on_inputs=False, sequence_len=2048, chat_template="tokenizer_default"
    )
    for name in ("get", "__getitem__"):
        setattr(config, name, lambda key, default=None: getattr(config, key, default))
    if isinstance(entry["type"], dict):
        form = user_defined.UserDefinedDatasetConfig(**entry["type"])
        strategy = user_defined.load(words, config, ds_cfg=form)
    else:
        settings: Any = type("Settings", (dict,), {"__getattr__": dict.get})
        strategy = load(entry["type"], words, settings(vars(config)), entry)
    found = []
    for row in load_dataset(entry["ds_type"], data_files=entry["path"], split="train"):
        made = strategy.tokenize_prompt(dict(row))
        learnt = [label for label in made["labels"] if label != -100]
        found.append([words.decode(made["input_ids"]), words.decode(learnt)])
    return found


if __name__ == "__main__":
    folder, trainer, file, model_folder = sys.argv[1:]
    sys.path.insert(0, folder)
    sys.meta_path.append(Replaced())  # type: ignore[arg-type]
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    read = (
        llamafactory(Path(file)) if trainer == "llamafactory" else axolotl(Path(file), model_folder)
    )
    print(json.dumps(read))
