"""A Hugging Face Hub on this machine, over HTTP, with faults that can be planted.

ROOT/models/OWNER/NAME/<commit>/files and ROOT/datasets/…; a file `main` beside the commits names
the one that the branch means.
"""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

ERRORS = {
    "401": (401, "GatedRepo", "Access to it is restricted. Please log in."),
    "403": (403, "GatedRepo", "Access to it is restricted; you are not in the authorized list."),
    "404": (404, "RepoNotFound", "Repository not found"),
    "429": (429, "", "rate limited"),
    "503": (503, "", "unavailable"),
}


@dataclass
class Fault:
    """What happens to the next `times` answers whose path holds `match`: a status of `ERRORS`,
    `cut` (half of the body), or `slow` (`seconds` for each answer)."""

    kind: str = ""
    times: int = 0
    match: str = ""
    seconds: float = 0.0


@dataclass
class Hub:
    """The server: its files, the fault that is planted, and what was asked for."""

    root: Path
    fault: Fault = field(default_factory=Fault)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, kind: str, name: str, commit: str, files: Path) -> None:
        """Publish a folder as a commit; the branch main means it from now on."""
        place = self.root / kind / name
        place.mkdir(parents=True, exist_ok=True)
        (place / commit).symlink_to(files.resolve())
        (place / "main").write_text(commit)

    def commit(self, kind: str, name: str, revision: str) -> str | None:
        """The commit of a revision; empty of an unknown one, None of an unknown repository."""
        folder = self.root / kind / name
        if not folder.is_dir():
            return None
        if revision in ("main", "HEAD"):
            return (folder / "main").read_text().strip()
        return revision if (folder / revision).is_dir() else ""

    def takes_effect(self, command: str, path: str) -> Fault:
        """The planted fault, if it is for this answer."""
        with self.lock:
            planted = self.fault
            fits = planted.kind and planted.times > 0 and planted.match in path
            if not fits or (planted.kind == "cut" and command == "HEAD"):
                return Fault()
            planted.times -= 1
            return Fault(planted.kind, 1, planted.match, planted.seconds)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A Hub over the files below `root`; clients need `HF_ENDPOINT=hub.url`."""
    hub = Hub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that downloads use."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        """Answer, or do what the planted fault says."""
        url = urlparse(self.path)
        fault = self.hub.takes_effect(self.command, url.path)
        self.hub.asked.append(f"{self.command} {url.path}{f' {fault.kind}' if fault.kind else ''}")
        if fault.kind in ERRORS:
            code, name, text = ERRORS[fault.kind]
            extra = {"Retry-After": "1"} if fault.kind == "429" else {}
            self.error(code, name, text, **extra)
            return
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        api = parts[0] == "api"
        parts = parts[1:] if api else parts
        kind = parts[0] if parts[0] in ("models", "datasets") else "models"
        parts = parts[1:] if parts[0] == kind else parts
        name, rest = "/".join(parts[:2]), parts[2:]
        if api and rest[:1] in ([], ["revision"], ["tree"]):
            self.listed(kind, name, rest, parse_qs(url.query))
        elif rest[:1] == ["resolve"]:
            self.resolved(kind, name, rest, cut=fault.kind == "cut")
        else:
            self.error(404, "EntryNotFound", "not here")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Facts about some paths."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        paths = json.loads(body)["paths"] if body[:1] == "{" else parse_qs(body)["paths"]
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")][1:]
        commit = self.hub.commit(parts[0], "/".join(parts[1:3]), parts[4])
        if not commit:
            self.error(404, "RepoNotFound", "no such repository")
            return
        base = self.hub.root / parts[0] / "/".join(parts[1:3]) / commit
        self.json([entry(base, base / path) for path in paths if (base / path).exists()])

    def listed(self, kind: str, name: str, rest: list[str], query: dict[str, list[str]]) -> None:
        """A repository's facts or its files."""
        commit = self.hub.commit(kind, name, rest[1] if rest else "main")
        if not commit:
            unknown = "RepoNotFound" if commit is None else "RevisionNotFound"
            self.error(404, unknown, "Repository or revision not found")
            return
        base = self.hub.root / kind / name / commit
        if rest[:1] == ["tree"]:
            at = base.joinpath(*rest[2:])
            deep = query.get("recursive", ["false"])[0].lower() == "true"
            found = sorted(at.rglob("*") if deep else at.iterdir()) if at.exists() else []
            self.json([entry(base, path) for path in found])
            return
        files = [str(p.relative_to(base)) for p in sorted(base.rglob("*")) if p.is_file()]
        when = "2026-01-01T00:00:00.000Z"
        facts: dict[str, Any] = {
            "_id": "0" * 24,
            "id": name,
            "sha": commit,
            "private": False,
            "gated": False,
        }
        facts |= {"lastModified": when, "createdAt": when, "tags": [], "downloads": 0, "likes": 0}
        readme = base / "README.md"
        lines = readme.read_text().splitlines() if readme.is_file() else []
        said = [line.split(": ", 1)[1] for line in lines if line.startswith("license: ")]
        facts["tags"] = [f"license:{licence}" for licence in said]
        self.json(facts | {"siblings": [{"rfilename": file} for file in files]})

    def resolved(self, kind: str, name: str, rest: list[str], cut: bool) -> None:
        """The content of a file, or a range of it."""
        commit = self.hub.commit(kind, name, rest[1])
        file = (self.hub.root / kind / name / (commit or "-")).joinpath(*rest[2:])
        if not commit or not file.is_file():
            unknown = "EntryNotFound" if commit else "RepoNotFound"
            self.error(404, unknown, "no such file", **({"X-Repo-Commit": commit or ""}))
            return
        body = file.read_bytes()
        facts = {"ETag": f'"{oid(file)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked and self.command == "GET":
            first, _, last = asked.partition("=")[2].partition("-")
            start, end = int(first), int(last) + 1 if last else len(body)
            facts["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
            self.reply(body[start:end], 206, cut, **facts)
        else:
            self.reply(body, 200, cut, **facts)

    def json(self, value: Any, code: int = 200, **headers: str) -> None:
        """Answer with JSON."""
        facts = {"Content-Type": "application/json"} | headers
        self.reply(json.dumps(value).encode(), code, **facts)

    def error(self, code: int, name: str, text: str, **headers: str) -> None:
        """Answer as the Hub does that something cannot be had."""
        known = {"X-Error-Code": name, "X-Error-Message": text} if name else {}
        self.json({"error": text}, code, **known, **headers)

    def reply(self, body: bytes, code: int, cut: bool = False, **headers: str) -> None:
        """Send an answer, or half of it."""
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()


def oid(path: Path) -> str:
    """What the Hub calls a content."""
    return hashlib.sha1(path.read_bytes()).hexdigest()


def entry(base: Path, path: Path) -> dict[str, Any]:
    """A file or folder in a listing."""
    name = str(path.relative_to(base))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": oid(path)}
