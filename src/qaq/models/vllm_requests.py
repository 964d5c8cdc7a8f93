"""What is asked of a vLLM server over HTTP, and what its answers hold."""

import contextlib
import http.client
import json
import math
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qaq.store.tables import parse_json

TIMEOUT = 600.0  # seconds without a byte
LOWEST = -9999.0  # what vLLM writes for a log-probability of minus infinity


@dataclass(frozen=True)
class Replica:
    """One server: its address, the name to ask it for, and the longest text that it takes."""

    url: str
    model: str
    longest: int


def prompt_logprobs(ids: Sequence[int], replica: Replica) -> list[float]:
    """The log-probability of each token by one replica; the first one's is NaN.

    Raises:
        OSError: it gave none.
    """
    body = {
        "model": replica.model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,  # of the token itself, and of none beside it
    }
    with posted(f"{replica.url}/completions", body) as answer:
        found = parse_json(answer.read().decode())["choices"][0]["prompt_logprobs"]
    if len(found) != len(ids):
        raise OSError(f"{len(found)} log-probabilities for {len(ids)} tokens")
    pairs = zip(ids[1:], found[1:], strict=True)
    values = [float(entry[str(token)]["logprob"]) for token, entry in pairs]
    return [math.nan, *(v if v > LOWEST else -math.inf for v in values)]


def events(replica: Replica, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pieces of an answer as they are written; to stop reading ends it on the server too.

    Raises:
        OSError: the answer was cut.
    """
    with posted(f"{replica.url}/completions", body | {"stream": True}) as answer:
        for line in answer:
            text = line.decode().removeprefix("data:").strip()
            if text == "[DONE]":
                return
            if text:
                piece = parse_json(text)
                if "error" in piece:
                    raise OSError(str(piece["error"]))
                yield from piece["choices"]
    raise OSError("the answer was cut")


@contextlib.contextmanager
def posted(url: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    """What a server says to a request, open to be read."""
    with urllib.request.urlopen(_request(url, body), timeout=TIMEOUT) as answer:
        yield answer


def version(url: str) -> str:
    """What the server says that it is."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
        return f"vLLM {asked(url.removesuffix('/v1') + '/version')['version']}"
    return "vLLM"


def asked(url: str) -> Any:
    """What a server says at an address, as JSON."""
    with urllib.request.urlopen(_request(url), timeout=60) as answer:
        return parse_json(answer.read().decode())


def _request(url: str, body: dict[str, Any] | None = None) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):  # the server's own variable
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data, headers)


def explanation(error: urllib.error.HTTPError) -> str:
    """What a server says of a request that it refuses, on one line."""
    text = error.read().decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(parse_json(text)["error"]["message"])
    return " ".join(text.split())[:400]
