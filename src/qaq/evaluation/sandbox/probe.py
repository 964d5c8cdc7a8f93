"""Run inside a level: try what must not be possible, without the ring and then within it.

One line a trial, `held STAGE NAME` or `escaped STAGE NAME`, and `done` at the end. The stages are
`outer` (what the level alone stops) and `inner` (what a sample meets).
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from qaq.evaluation.sandbox import ring

OUTER = ("read", "write", "delete", "connect")
INNER = (*OUTER, "fork", "signal", "chmod")


def main() -> None:
    """Try everything at both stages."""
    outside = Path(os.environ["QAQ_PROBE_OUTSIDE"])
    port = int(os.environ["QAQ_PROBE_PORT"])
    scratch = os.environ["TMPDIR"]
    libraries = ring.import_folders()
    most_abi = int(os.environ["QAQ_PROBE_ABI"])
    if os.environ["QAQ_PROBE_LANDLOCK"] == "1":
        ring.restrict_judge(scratch, libraries, most_abi=most_abi)
    _try("outer", OUTER, outside, port)
    ring.tighten(scratch, libraries, keep={1}, most_abi=most_abi)
    _try("inner", INNER, outside, port)
    print("done", flush=True)


def _try(stage: str, names: tuple[str, ...], outside: Path, port: int) -> None:
    secret, new = outside / f"secret-{stage}", outside / f"new-{stage}"
    trials: dict[str, Callable[[], object]] = {
        "read": secret.read_text,
        "write": new.touch,
        "delete": secret.unlink,
        "connect": lambda: socket.create_connection(("127.0.0.1", port), timeout=2),
        "fork": _fork,
        "signal": lambda: os.kill(os.getppid(), 0),
        "chmod": lambda: Path(os.environ["TMPDIR"]).chmod(0o777),
    }
    for name in names:
        try:
            trials[name]()
        except OSError:
            print(f"held {stage} {name}")
        else:
            print(f"escaped {stage} {name}")


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


if __name__ == "__main__":
    main()
