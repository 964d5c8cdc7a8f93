"""A file from the web: cut or busy servers are asked again, and a cut file is never used."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qaq.evaluation import benchmarks
from qaq.host import fetching
from qaq.host.errors import DataError

BODY = gzip.compress(b"problems" * 1000)


class Server(BaseHTTPRequestHandler):
    """Answers by what `plan` says: a status, or `cut`."""

    plan: list[str]

    def log_message(self, *_):
        pass

    def do_GET(self):
        step = self.plan.pop(0) if self.plan else "200"
        self.send_response(200 if step == "cut" else int(step))
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2] if step == "cut" else BODY)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "WAITS", (0.01, 0.01))
    handler = type("Handler", (Server,), {"plan": []})
    made = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{made.server_port}/file.gz"
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("plan", [["cut"], ["503", "429"], ["cut", "500"]])
def test_what_a_busy_server_or_a_cut_kept_back_is_fetched_again(server, plan):
    handler, url = server
    handler.plan = list(plan)
    assert fetching.fetch(url) == BODY


@pytest.mark.parametrize("plan", [["cut"] * 3, ["503"] * 3, ["404"]])
def test_what_cannot_be_had_is_an_error_of_the_system(server, plan):
    handler, url = server
    handler.plan = list(plan)
    with pytest.raises(OSError):
        fetching.fetch(url)
    assert not handler.plan


def test_a_benchmark_that_is_cut_on_every_try_is_one_sentence_and_no_file(server, tmp_path):
    handler, url = server
    handler.plan = ["cut"] * 3
    target = tmp_path / "HumanEvalPlus-v0.1.10.jsonl"
    with pytest.raises(DataError, match=r"could not be fetched.*transfer was cut.*HUMANEVAL"):
        benchmarks._download("humaneval", url, target)
    assert not list(tmp_path.iterdir())
