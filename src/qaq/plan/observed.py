"""What stages took before on this machine, by the manifests of a store: rates for a plan.

A table of devices knows peaks; a store knows what this machine reached, with this model, in this
precision. Only what ran on the same hardware counts, the latest of its kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from qaq.host import hardware
from qaq.plan.estimate import START_SECONDS, Work
from qaq.run.stage import Stage
from qaq.store.manifest import Artifact
from qaq.store.tables import read_json, read_jsonl

SAME = ("cpu", "cores", "cuda")  # facts about a machine that a rate depends on
SHORTEST = 5.0  # seconds that a rate can be read from


@dataclass(frozen=True)
class Rate:
    """Tokens a second, or seconds for each answer and its judgement; and which artifact says so.

    `devices` shared the work: cards, or the processors of so many hosts.
    """

    tokens: float | None
    answer: float | None
    source: str
    devices: int = 1

    def applied(self, work: Work, answers: int, devices: int = 1) -> Work:
        """The same work at this rate, on so many devices."""
        tokens = (self.tokens or 1.0) * devices / self.devices
        seconds = answers * self.answer if self.answer else work.tokens / tokens
        return replace(work, seconds=START_SECONDS + seconds)


def rate_of(stage: Stage, artifacts: Iterable[Artifact]) -> Rate | None:
    """The rate of the latest stage of this kind with this model on this machine; None of none."""
    here = hardware.describe()
    wanted = _conditions(stage.kind, stage.identity)
    alike = [
        artifact
        for artifact in artifacts
        if artifact.manifest["kind"] == stage.kind
        and wanted == _conditions(stage.kind, artifact.manifest)
        and all(artifact.manifest.get("hardware", {}).get(f) == here[f] for f in SAME)
    ]
    latest = sorted(alike, key=lambda a: str(a.manifest.get("created")), reverse=True)
    return next((found for a in latest if (found := _readable(stage.kind, a))), None)


def _conditions(kind: str, identity: Any) -> tuple[Any, ...]:
    """What makes two stages alike in speed: weights, precision, and how long answers may be."""
    config = identity.get("config") or {}
    model, answers = config.get("model") or {}, config.get("eval") or {}
    return (
        (identity.get("outside") or {}).get("weights"),
        model.get("dtype"),
        *(answers.get(field) for field in ("prompt", "max_new_tokens", "generator")),
    )


def _readable(kind: str, artifact: Artifact) -> Rate | None:
    """The rate that an artifact tells; None of a damaged one, which the run that reads it names."""
    try:
        return _seen(kind, artifact)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _seen(kind: str, artifact: Artifact) -> Rate | None:
    """The rate that an artifact's own record tells; None where it tells none."""
    name, manifest = artifact.path.name, artifact.manifest
    if kind == "outcomes":
        facts = read_json(artifact.path / "scores.json")
        spent = facts["generation_seconds"] + facts["judge_seconds"]
        count = facts["problems"] * facts["samples"]
        return Rate(None, spent / count, name) if count and spent else None
    if kind == "adapter":
        summary = manifest["summary"]
        # those of the summary are of its last try alone
        seconds = manifest["seconds"] if manifest.get("tries", 1) > 1 else summary["seconds"]
        paces = [(summary["tokens"], seconds)]
        shared = int(summary.get("processes", "1").split()[0])
    else:  # a record of each process
        paces = [_pace(record) for record in sorted(artifact.path.glob("record*.jsonl"))]
        shared = len(paces)
    tokens = sum(tokens / seconds for tokens, seconds in paces if seconds > SHORTEST)
    devices = shared if manifest["hardware"]["cuda"] else 1
    return Rate(tokens, None, name, devices) if tokens else None


def _pace(record: Path) -> tuple[float, float]:
    """Tokens and seconds between the shards of each try that a record tells of."""
    lines = [line for line in read_jsonl(record) if "tokens" in line]
    steps = [(b["tokens"] - a["tokens"], b["time"] - a["time"]) for a, b in pairwise(lines)]
    steps = [step for step in steps if step[0] > 0]  # counting begins anew in a resumed try
    return sum(tokens for tokens, _ in steps), sum(seconds for _, seconds in steps)
