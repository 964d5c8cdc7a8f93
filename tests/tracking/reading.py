"""Offline runs read back with wandb's own reader, `wandb leet inspect`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from qaq.tracking.mirror import environment


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record of a run's folder."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    said = subprocess.run(
        command, env=environment(folder.parent), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in said.stdout.splitlines()]


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r[kind] for r in found if r["type"] == kind]


def shown(folder: Path) -> dict[str, Any]:
    """A run as a W&B user sees it: job type, group, config, summary, tags, and its history."""
    found = records(folder)
    (run,) = of_type(found, "run")
    points = [h["item"] for h in of_type(found, "history")]
    summary: dict[str, Any] = {}
    for update in of_type(found, "summary"):
        summary |= update["update"]
    return run | {
        "config": run["config"]["update"],
        "summary": summary,
        "group": run["run_group"],
        "job_type": run["job_type"],
        "history": points,
        "artifacts": of_type(found, "artifact"),
    }
