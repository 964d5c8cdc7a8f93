"""Sends offline runs to the W&B server, later and as often as one likes: `qaq sync`.

The sending is wandb's own (`wandb sync`), which marks a run folder when it is done and skips it the
next time. Runs keep the ids they were given when mirrored, so even a folder made twice ends as one
run. Makers go before users, so that an artifact belongs to the stage that made it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qaq.host.errors import DataError
from qaq.tracking.mirror import environment, ledger


@dataclass(frozen=True)
class Synced:
    """What a call of `sync` found: run folders sent now, sent before, and failed."""

    sent: tuple[str, ...]
    before: tuple[str, ...]
    failed: tuple[str, ...]


def sync(store: Path, seconds: float = 600.0) -> Synced:
    """Send the offline runs of a store to the server.

    Args:
        store: the artifact store; its runs lie in `<store>/wandb`.
        seconds: time limit for the runs of stages that do not rest on each other.

    Returns:
        What was sent. Without a key, or with the server away, every run is among the failed.

    Raises:
        DataError: there are no offline runs.
    """
    folder = store.absolute() / "wandb"
    lines = [x for x in ledger(folder) if x["mode"] == "offline"]
    runs = {x["folder"]: x.get("depth", 0) for x in lines if (folder / x["folder"]).is_dir()}
    if not runs:
        raise DataError(f"{folder}: no offline runs; run something with tracking.wandb=offline")
    before = [name for name in runs if _is_synced(folder / name)]
    waiting = [name for name in runs if name not in before]
    for depth in sorted(set(runs.values())):
        batch = [folder / name for name in waiting if runs[name] == depth]
        if batch:
            _send(folder, batch, seconds)
    sent = [name for name in waiting if _is_synced(folder / name)]
    return Synced(tuple(sent), tuple(before), tuple(n for n in waiting if n not in sent))


def _is_synced(run: Path) -> bool:
    return any(run.glob("*.wandb.synced"))


def _send(folder: Path, runs: Sequence[Path], seconds: float) -> None:
    """Send run folders with wandb's own command; its words go to standard error."""
    command = [sys.executable, "-m", "wandb", "sync", "-n", "1", *map(str, runs)]
    settings = environment(folder) | {"WANDB_SILENT": "false"}
    # A key may lie in the user's own netrc or settings file, so those stay readable.
    settings.pop("WANDB_CONFIG_DIR")
    if "WANDB_CONFIG_DIR" in os.environ:
        settings["WANDB_CONFIG_DIR"] = os.environ["WANDB_CONFIG_DIR"]
    try:
        subprocess.run(command, env=settings, stdout=sys.stderr, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        print(f"sending took longer than {seconds:.0f} s; run qaq sync again", file=sys.stderr)
