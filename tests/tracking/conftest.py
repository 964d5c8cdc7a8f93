"""Stages to mirror, and a small W&B server that notes what it is asked."""

import functools
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qaq.store.tables import write_json, write_jsonl
from qaq.tracking.job import FinishedStage, MirrorJob, TrackedRun, run_id

LOSSES = [2.0, 1.5, 1.25, 1.125]
STEP = {  # what else fine-tuning records of a step
    "learning_rate": 1e-4,
    "grad_norm": 0.5,
    "tokens_per_second": 900.0,
    "memory_mib": 800,
}
SCORES = {
    "problems": 4,
    "pass_at_1_base": 0.5,
    "pass_at_1_plus": 0.25,
    "bits_per_byte": 0.75,
    "bits_unknown": 0,
}
CHAIN = (
    ("pairs", ()),
    ("scores", ("pairs",)),
    ("subset", ("pairs", "scores")),
    ("adapter", ("pairs", "subset")),
    ("outcomes", ("adapter",)),
    ("report", ("pairs", "scores", "subset", "adapter", "outcomes")),
)


ARM = {"subset": "subset", "adapter": "adapter", "outcomes/mini": "outcomes"}  # role: kind


def tracked(job_type: str, made: dict[str, str], **config: Any) -> TrackedRun:
    """A run that shows stages of the chain: `made` maps roles to their kinds."""
    keys = {role: key_of(kind) for role, kind in made.items()}
    identity = run_id("small", job_type, keys)
    return TrackedRun(identity, job_type, job_type, config, ("small", job_type), keys)


def build_chain(root: Path, **changes: Any) -> MirrorJob:
    """A job of one stage of each kind, each reading the ones before it.

    It has a run for the arm, one for the comparison, and one for the scores by themselves.
    """
    stages = tuple(_stage(root, kind, inputs) for kind, inputs in CHAIN)
    runs = (
        tracked("arm", ARM, rule="ifd", ratio=0.25, seed=1),
        tracked("comparison", {"report": "report"}, arms=["ifd"]),
        tracked("scores", {"scores": "scores"}),
    )
    fields = {
        "experiment": "small",
        "project": "qaq",
        "entity": None,
        "mode": "offline",
        "dir": root / "store" / "wandb",
        "stages": stages,
        "runs": runs,
    }
    return MirrorJob(**(fields | changes))


@pytest.fixture
def chain(tmp_path: Path) -> Callable[..., MirrorJob]:
    """`build_chain` in the test's own folder; arguments change the job's fields."""
    return functools.partial(build_chain, tmp_path)


def key_of(kind: str) -> str:
    return hashlib.sha256(kind.encode()).hexdigest()


def _stage(root: Path, kind: str, inputs: tuple[str, ...]) -> FinishedStage:
    folder = root / "store" / kind / f"one-{key_of(kind)[:8]}"
    if not folder.exists():
        folder.mkdir(parents=True)
        record: list[dict[str, Any]] = [{"time": 1.0, "device": "cpu"}]
        if kind == "adapter":
            record += [
                {"time": 2.0 + i, "step": i + 1, "loss": loss, **STEP}
                for i, loss in enumerate(LOSSES)
            ]
            (folder / "adapter.safetensors").write_bytes(b"weights" * 1000)
        write_jsonl(folder / "record.jsonl", record)
        if kind == "report":
            _report(folder)
        if kind == "outcomes":
            write_json(folder / "scores.json", SCORES)
        manifest = {
            "kind": kind,
            "name": "one",
            "key": key_of(kind),
            "config": {"seed": 1, "train": {"epochs": 3}},
            "summary": {"rows": 10, "kept": 4, "reasons": {"dropped: lower": 6}},
            "seconds": 1.5,
            "peak_rss_mib": 100,
            "packages": {"python": "3.11"},
            "hardware": {"cores": 2},
            "files": {file.name: {"bytes": 20, "sha256": "0" * 64} for file in folder.glob("*.*")},
        }
        write_json(folder / "manifest.json", manifest)
    return FinishedStage(kind, "one", key_of(kind), folder, {k: key_of(k) for k in inputs})


def _report(folder: Path) -> None:
    import matplotlib.figure

    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    (folder / "tables" / "results.csv").write_text("arm,rows,plus\nfull,600,0.25\nuntuned,,0.2\n")
    matplotlib.figure.Figure().savefig(folder / "figures" / "quality.png")
    (folder / "index.html").write_text("<p>page</p>")
    (folder / "results.json").write_text(json.dumps({"verdict": ["Nothing differs."]}))


@dataclass
class Server:
    """What the server was asked: GraphQL operations by name with their variables, and the rest."""

    url: str
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    streams: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def variables(self, operation: str) -> list[dict[str, Any]]:
        return [variables for name, variables in self.operations if name == operation]

    def history(self, run: str) -> list[str]:
        """The lines of a run's history that have arrived."""
        return [
            line
            for chunk in self.streams.get(run, ())
            for line in chunk.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        ]


@pytest.fixture
def wandb_server() -> Iterator[Server]:
    """Answers as much of W&B's protocol as sending offline runs takes."""
    server = Server(url="")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            self._body()
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            stream = re.match(r"/files/[^/]*/[^/]*/(\w+)/file_stream", self.path)
            if stream:
                server.streams.setdefault(stream[1], []).append(json.loads(body))
            if self.path != "/graphql":
                return self._answer({})
            request = json.loads(body)
            variables = request.get("variables") or {}
            name = request.get("operationName") or "?"
            server.operations.append((name, variables))
            self._answer({"data": _reply(name, variables, server.url)})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, value: object) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:  # a client that hangs up is no news
            pass

    with Quiet(("127.0.0.1", 0), Handler) as web:
        server.url = f"http://127.0.0.1:{web.server_address[1]}"
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield server
        web.shutdown()


def _reply(name: str, variables: dict[str, Any], url: str) -> dict[str, Any]:
    if name == "UpsertBucket":
        project = {"id": "P", "name": variables.get("project"), "entity": {"id": "E", "name": "me"}}
        bucket = {"id": "B", "name": variables.get("name"), "config": "{}", "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if name == "CreateArtifact":
        # "Committed" tells the client that these contents are on the server already.
        newest = {"id": "A", "versionIndex": 0}
        artifact = {"id": variables["input"]["digest"], "state": "COMMITTED"}
        artifact["artifactSequence"] = {"latestArtifact": newest}
        return {"createArtifact": {"artifact": artifact}}
    if name == "CreateRunFiles":
        files = [{"name": f, "uploadUrl": f"{url}/upload/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
    if name == "UseArtifact":
        return {"useArtifact": {"artifact": {"id": "A"}}}
    return {}
