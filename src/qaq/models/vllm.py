"""A model that vLLM serves, asked through the server's public API for scores and answers.

vLLM pins its own PyTorch and Transformers, so it lives in an environment of its own, and several
servers of one model are its replicas:

    vllm serve MODEL --port 8000
    qaq run … runtime.vllm=http://127.0.0.1:8000

Prompts go out and answers come back as token ids, and every setting of sampling is sent; so the
server's tokenizer, chat template and defaults take no part. Before the first request each server is
asked what it serves, and for the log-probabilities of a fixed text, which are held against those of
the files that the key names, computed here on the processor (`reference`).
"""

import contextlib
import hashlib
import http.client
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]

from qaq.host.errors import ModelError, StageError
from qaq.host.fetching import BUSY, WAITS
from qaq.host.paths import cache_dir
from qaq.host.terminal import show
from qaq.models.config import ModelConfig
from qaq.models.identity import folder_of, identity, parts
from qaq.models.vllm_requests import Replica, asked, explanation, posted, prompt_logprobs, version
from qaq.models.weights import tensors
from qaq.store.cache import remembered_sha256
from qaq.store.keys import content_key
from qaq.store.tables import read_json, write_json

A = TypeVar("A")
B = TypeVar("B")

PER_SERVER = 64  # requests that a server has at once
COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})")
# Greatest mean difference of a token's log-probability, in nats, that rounding explains.
BOUNDS = {"float32": 0.002, "float16": 0.02, "bfloat16": 0.1}
PROBE = (
    "Write a function that returns the n-th Fibonacci number, and say why it is fast.\n\n"
    "```python\ndef fibonacci(n: int) -> int:\n    a, b = 0, 1\n    for _ in range(n):\n"
    "        a, b = b, a + b\n    return a\n```\n\nEach step needs one addition, so the time grows "
    "with n and not with the number itself, as it would in the recursive version: that one calls "
    "itself twice and computes the same values again and again. Paris is the capital of France."
)


class Served:
    """All replicas of one model, with an adapter or without, checked to be that model."""

    def __init__(self, config: ModelConfig, urls: Sequence[str], adapter: Path | None = None):
        """Ask each server what it serves.

        Args:
            config: the model that the key names.
            adapter: the folder of a PEFT adapter, which each server is made to load.

        Raises:
            ModelError: a server has another model, or no room for adapters.
            StageError: one does not answer.
        """
        if parts(config)[1] is not None:
            raise ModelError(
                f"{config.label} is an adapter's folder, which vLLM does not serve as a model; "
                "merge it (merge_and_unload, save_pretrained), or leave runtime.vllm out"
            )
        self.label = config.label
        self.replicas = [admitted(config, url, adapter) for url in urls]
        self.version = ", ".join(dict.fromkeys(version(r.url) for r in self.replicas))
        self._compare(config, adapter)

    def each(self, ask: Callable[[A, Replica], B], items: Sequence[A]) -> Iterator[tuple[int, B]]:
        """`ask` of every item at some replica: the item's place and what came, as they come.

        A replica that is busy, was cut or is gone is tried again, and so are the others.

        Raises:
            ModelError: a server refuses the request.
            StageError: no server answers, though asked again for a while.
        """
        pool = ThreadPoolExecutor(PER_SERVER * len(self.replicas))
        try:
            asked = {
                pool.submit(self._patiently, at, partial(ask, item)): at
                for at, item in enumerate(items)
            }
            for future in as_completed(asked):
                yield asked[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def logprobs(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """The log-probability (nats) of each token, given those before it; the first one's is NaN.

        Raises:
            ModelError: a prompt leaves no room for one more token, which vLLM always writes.
            StageError: as for `each`.
        """
        self.refuse_longer(max(map(len, prompts), default=0) + 1)
        found = dict(self.each(prompt_logprobs, prompts))
        return [found[at] for at in range(len(prompts))]

    def refuse_longer(self, tokens: int) -> None:
        """Refuse texts that a server was not started for.

        Raises:
            ModelError: prompt and answer together are longer than a server takes.
        """
        short = min(self.replicas, key=lambda replica: replica.longest)
        if tokens > short.longest:
            raise ModelError(
                f"{short.url} serves {self.label} with at most {short.longest} tokens, and "
                f"{tokens} are needed; start it with --max-model-len {tokens}"
            )

    def _patiently(self, at: int, ask: Callable[[Replica], B]) -> B:
        for attempt, wait in enumerate((*WAITS, None)):
            replica = self.replicas[(at + attempt) % len(self.replicas)]
            try:
                return ask(replica)
            except urllib.error.HTTPError as error:
                said = f"{error.code}: {explanation(error)}"
                if error.code not in BUSY:
                    raise ModelError(f"{replica.url} refuses a request: {said}") from None
            except (OSError, http.client.HTTPException) as error:
                said = str(error) or type(error).__name__
            if wait is not None:
                time.sleep(wait)
        raise StageError(
            f"{replica.url} does not answer ({said}), though asked {len(WAITS) + 1} times. What "
            "was finished is kept: see that the server runs, and run the same command again"
        )

    def _compare(self, config: ModelConfig, adapter: Path | None) -> None:
        """Hold each server's log-probabilities against those of the files."""
        known = reference(config, adapter)
        if known is None:
            show(
                f"{config.label}: its weights do not fit this machine's free memory, so vLLM's "
                "log-probabilities are not held against them; only its name was looked at",
                error=True,
            )
            return
        ids, expected = known
        for replica in self.replicas:
            found = self._patiently(0, lambda _, r=replica: prompt_logprobs(ids, r))  # type: ignore[misc]
            gaps = [abs(a - b) for a, b in zip(found[1:], expected[1:], strict=True)]
            gap = sum(gaps) / len(gaps)
            if not gap <= BOUNDS[config.dtype]:
                raise ModelError(
                    f"{replica.url} serves other numbers than {config.label} "
                    f"{'with its adapter ' if adapter else ''}has in {config.dtype}: the "
                    f"log-probability of a token of a known text differs by {gap:.3g} nats "
                    f"(expected at most {BOUNDS[config.dtype]:g}). Serve the same weights, with "
                    f"--dtype {config.dtype}"
                )


def admitted(config: ModelConfig, url: str, adapter: Path | None) -> Replica:
    """The server at `url`, if it says that it serves this model; the adapter is loaded there.

    Raises:
        ModelError: it serves another one, or takes no adapters.
        StageError: it does not answer.
    """
    try:
        listed = asked(f"{url}/models")["data"]
        served = [m for m in listed if _is(m, config)]
        if not served:
            shown = ", ".join(f"{m['id']} ({m.get('root')})" for m in listed)
            raise ModelError(
                f"{url} serves {shown or 'nothing'}, expected {config.label}; start it with: "
                f"vllm serve {folder_of(config)} --served-model-name {config.id} --dtype "
                f"{config.dtype}"
            )
        name = served[0]["id"]
        longest = int(served[0].get("max_model_len") or 0) or 1 << 30
        if adapter is not None:
            name = _adapter_name(adapter)
            if name not in [m["id"] for m in listed]:
                _load_adapter(url, name, adapter)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"runtime.vllm: there is no vLLM server at {url} ({error or type(error).__name__}); "
            f"start it with: vllm serve {config.id}",
            exit_code=2,
        ) from error
    return Replica(url, name, longest)


def _is(served: dict[str, Any], config: ModelConfig) -> bool:
    """Whether an entry of a server's list is this model, as far as the list says.

    `root` is what `vllm serve` was given: a folder or a Hub id. A Hub's folder has the commit in
    its path.
    """
    root, folder = str(served.get("root") or served["id"]), folder_of(config)
    if served.get("parent"):  # an adapter
        return False
    commit = COMMIT.search(root)
    if commit and config.revision and commit[1] != config.revision:
        return False
    return config.id in (served["id"], root) or Path(root).resolve() == folder.resolve()


def _adapter_name(folder: Path) -> str:
    """A name that says which adapter it is: one that a server knows by it is this one."""
    files = "".join(remembered_sha256(f) for f in sorted(folder.glob("adapter_*")))
    return f"{folder.name}-{hashlib.sha256(files.encode()).hexdigest()[:16]}"


def _load_adapter(url: str, name: str, folder: Path) -> None:
    rank = read_json(folder / "adapter_config.json")["r"]
    try:
        body = {"lora_name": name, "lora_path": str(folder.absolute())}
        with posted(f"{url}/load_lora_adapter", body) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        raise ModelError(
            f"{url} does not load the adapter {folder} ({error.code}: {explanation(error)}). The "
            "server must see this folder; start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in "
            f"its environment and --enable-lora --max-lora-rank {rank}"
        ) from None


def reference(config: ModelConfig, adapter: Path | None) -> tuple[list[int], list[float]] | None:
    """A fixed text's tokens and their log-probabilities by the model's own files.

    Computed by the model's own forward on the processor, in the precision of the key, once for a
    model; None where its weights do not fit the free memory.
    """
    import torch
    import transformers

    from qaq.models.load import load_model, load_tokenizer

    files = [remembered_sha256(f) for f in sorted(adapter.glob("adapter_*"))] if adapter else []
    case = {
        "model": identity(config),
        "dtype": config.dtype,
        "adapter": files,
        "text": PROBE,
        "versions": [torch.__version__, transformers.__version__],
    }
    memory = cache_dir() / "vllm" / f"{content_key(case)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = read_json(memory)
        return known["ids"], known["logprobs"]
    numbers = sum(math.prod(shape) for shape in tensors(folder_of(config), config.label).values())
    width = 4 if config.dtype == "float32" else 2
    if 1.3 * numbers * width > psutil.virtual_memory().available:
        return None
    ids: list[int] = load_tokenizer(config)(PROBE)["input_ids"]
    model = load_model(config, "cpu", adapter=adapter)
    with torch.inference_mode():
        likely = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        chosen = likely[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    logprobs = [0.0, *chosen.tolist()]
    memory.parent.mkdir(exist_ok=True)
    write_json(memory, {"ids": ids, "logprobs": logprobs})
    return ids, logprobs
