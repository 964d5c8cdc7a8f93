"""The Hub as a source, against a server on this machine that speaks its protocol.

The client reads its address and its offline switch when it is imported, so each look at the Hub is
a process of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

COMMIT = "a" * 40
LINES = [json.dumps({"instruction": f"Say {i}", "response": f"print({i})"}) for i in range(5)]
FILES = {"train.jsonl": "\n".join(LINES).encode(), "README.md": b"# demo\n"}

LOOK = """
import json, sys
from qaq.data import identity, sources
from qaq.data.config import DataConfig
from qaq.host.errors import DataError

said = []
for settings in json.loads(sys.argv[1]):
    config = DataConfig(name="demo", source="hub", **settings)
    try:
        rows = [entry.record["response"] for entry in sources.read(config)]
        said.append([identity.identity(config), sources.label(config), rows])
    except DataError as error:
        said.append(str(error))
print(json.dumps(said))
"""


class Hub(BaseHTTPRequestHandler):
    """One data set, `me/demo`, with one commit."""

    def log_message(self, *_):
        pass

    def reply(self, body=b"", code=200, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value):
        self.reply(json.dumps(value).encode(), Content_Type="application/json")

    def do_GET(self):
        path, base = urlparse(self.path).path, "/api/datasets/me/demo"
        resolve = "/datasets/me/demo/resolve/"
        name = path.removeprefix(resolve).partition("/")[2]
        if path in (base, f"{base}/revision/main", f"{base}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            self.reply_json({"id": "me/demo", "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"{base}/tree/"):
            self.reply_json([entry(name) for name in FILES])
        elif path.startswith(resolve) and name in FILES:
            tag = f'"{entry(name)["oid"]}"'
            self.reply(FILES[name], ETag=tag, X_Repo_Commit=COMMIT)
        elif path.startswith(resolve):
            self.reply(code=404, X_Error_Code="EntryNotFound")
        else:
            self.reply(b"{}", 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = json.loads(body)["paths"] if body[:1] == "{" else parse_qs(body)["paths"]
        self.reply_json([entry(name) for name in paths if name in FILES])


def entry(name):
    content = FILES[name]
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Read data sets in a new process; `offline` cuts it off."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path_factory.mktemp("hub")

    def look(*settings, offline=False):
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", LOOK, json.dumps(settings)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(done.stdout)

    yield look
    server.shutdown()
    server.server_close()


def test_rows_come_from_the_commit_that_the_branch_means_and_mistakes_are_named(look):
    good, no_split, no_set, no_revision = look(
        {"hub_id": "me/demo"},
        {"hub_id": "me/demo", "split": "validation"},
        {"hub_id": "me/other"},
        {"hub_id": "me/demo", "revision": "gone"},
    )
    rows = [f"print({i})" for i in range(5)]
    assert good == [{"revision": COMMIT, "split": "train"}, "me/demo", rows]
    assert "data.split" in no_split and "'validation'" in no_split
    assert "me/other" in no_set and "data.hub_id" in no_set
    assert "gone" in no_revision and "data.revision" in no_revision


def test_without_a_network_the_cache_answers_but_never_with_another_commit(look):
    look({"hub_id": "me/demo"})
    good, other, unknown = look(
        {"hub_id": "me/demo"},
        {"hub_id": "me/demo", "revision": "b" * 40},
        {"hub_id": "me/other"},
        offline=True,
    )
    assert good[0]["revision"] == COMMIT and len(good[2]) == 5
    assert f"holds {COMMIT}" in other and "b" * 40 in other
    assert "data=parquet" in unknown
