"""vLLM's public API as far as qaq speaks it, over a model that Transformers runs; with faults.

What the real server answers is kept in tests/models/test_vllm.py's nightly test, which needs it.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class Server(ThreadingHTTPServer):
    """A server of one model; `faults` are statuses, or "cut", for the next answers."""

    daemon_threads = True

    def __init__(self, folder: Path, name: str, longest: int = 2048, lora: bool = True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = {name: AutoModelForCausalLM.from_pretrained(folder).eval()}
        self.folder, self.name, self.longest, self.lora = folder, name, longest, lora
        self.faults: list[int | str] = []
        self.asked: list[dict[str, Any]] = []
        self.written: list[int] = []  # tokens of each answer
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @torch.inference_mode()
    def logits(self, model: str, ids: list[int]) -> torch.Tensor:
        with self.lock:
            found: torch.Tensor = self.models[model](torch.tensor([ids])).logits[0].float()
        return found


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        listed = [
            {"id": n, "root": str(server.folder), "parent": None if n == server.name else n,
             "max_model_len": server.longest} for n in server.models
        ]  # fmt: skip
        self.say({"version": "test"} if self.path == "/version" else {"data": listed})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        if self.path == "/v1/load_lora_adapter":
            if not server.lora:
                return self.say({"error": {"message": "LoRA is not enabled"}}, 404)
            base = AutoModelForCausalLM.from_pretrained(server.folder)
            tuned = PeftModel.from_pretrained(base, body["lora_path"]).eval()
            server.models[body["lora_name"]] = tuned
            return self.say("ok")
        server.asked.append(body)
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            return self.say({"error": {"message": "as planned"}}, fault)
        if not body.get("stream"):
            ids = body["prompt"]
            likely = server.logits(body["model"], ids).log_softmax(-1)
            entries = [{str(t): {"logprob": float(likely[n, t])}} for n, t in enumerate(ids[1:])]
            return self.say({"choices": [{"prompt_logprobs": [None, *entries]}]})
        return self.answer(body, cut=fault == "cut")

    def answer(self, body: dict[str, Any], cut: bool) -> None:
        """Greedily, token by token, until it is ended here or the client has enough."""
        ids, count = list(body["prompt"]), 0
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while count < body["max_tokens"] and not (cut and count == 2):
                ids.append(int(self.server.logits(body["model"], ids)[-1].argmax()))
                count += 1
                self.line(json.dumps({"choices": [{"token_ids": ids[-1:]}]}))
                if ids[-1] in body["stop_token_ids"]:
                    break
            if not cut:
                self.line("[DONE]")
        except OSError:  # the client left
            pass
        self.server.written.append(count)
        self.close_connection = True

    def line(self, text: str) -> None:
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def say(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(folder: Path, name: str, **settings: Any) -> Iterator[Server]:
    """A server while the block runs."""
    server = Server(folder, name, **settings)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
