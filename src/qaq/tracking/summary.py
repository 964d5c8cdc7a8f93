"""What an arm's W&B run says in its summary: its subset, pass@1, bits per byte and costs. Pure
but for reading the artifacts' own figures.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from qaq.store.tables import read_json
from qaq.tracking.job import FinishedStage

RATES = ("pass_at_1_base", "pass_at_1_plus", "bits_per_byte")


def arm_summary(
    made: Mapping[str, FinishedStage], read: Iterable[FinishedStage]
) -> dict[str, float | int | str]:
    """The summary of one arm and seed.

    `pass_at_1_base`, `pass_at_1_plus` and `bits_per_byte` are means over the tasks of all suites,
    and under `SUITE/` those of each; what was not measured is left out, never 0.

    Args:
        made: the arm's own stages by role.
        read: what they were made from; scores and embeddings among it are the cost of choosing.
    """
    manifests = {role: read_json(s.folder / "manifest.json") for role, s in made.items()}
    found: dict[str, float | int | str] = {}
    for role in ("subset", "adapter"):
        facts = scalars(manifests.get(role, {}).get("summary") or {})
        found |= {f"{role}/{name}": value for name, value in facts.items()}
    if found.get("subset/rows"):
        found["subset/share"] = float(found["subset/kept"]) / float(found["subset/rows"])
    suites = {
        role.partition("/")[2]: read_json(stage.folder / "scores.json")
        for role, stage in made.items()
        if stage.kind == "outcomes"
    }
    for suite, scores in suites.items():
        found |= {f"{suite}/{name}": scores[name] for name in RATES if scores[name] is not None}
    found |= overall(suites.values())
    return found | _costs(manifests, read)


def overall(suites: Iterable[Mapping[str, Any]]) -> dict[str, float | int]:
    """The rates over the tasks of all suites; one that a suite lacks, or has of a part, is not."""
    suites = list(suites)
    tasks = sum(s["problems"] for s in suites)
    found: dict[str, float | int] = {"tasks": tasks} if tasks else {}
    for name in RATES if tasks else ():
        unknown = name == "bits_per_byte" and any(s.get("bits_unknown") for s in suites)
        if not unknown and all(s[name] is not None for s in suites):
            found[name] = sum(s[name] * s["problems"] for s in suites) / tasks
    return found


def _costs(
    manifests: Mapping[str, Mapping[str, Any]], read: Iterable[FinishedStage]
) -> dict[str, float]:
    """Seconds of choosing, training and judging; joules and memory of training."""
    scored = [
        read_json(stage.folder / "manifest.json").get("seconds")
        for stage in read
        if stage.kind in ("scores", "embeddings")
    ]
    judged = [m.get("seconds") for role, m in manifests.items() if role.startswith("outcomes")]
    adapter = manifests.get("adapter", {})
    peak = adapter.get("peak_rss_mib")
    costs = {
        "scoring_seconds": _sum(scored),
        "training_seconds": adapter.get("seconds"),
        "evaluation_seconds": _sum(judged),
        "energy_joules": adapter.get("energy_joules"),
        "peak_gib": None if peak is None else peak / 1024,
    }
    return {f"cost/{name}": value for name, value in costs.items() if value is not None}


def _sum(values: list[float | None]) -> float | None:
    """The sum, or None where a value is missing: a part would pass for the whole."""
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None


def scalars(tree: Mapping[str, Any], above: str = "") -> dict[str, float | int | str]:
    """The numbers and words of a summary by path (`reasons/kept: highest`); lists are left out."""
    found: dict[str, float | int | str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{above}{name}/")
        elif isinstance(value, (float, int, str)):
            found[f"{above}{name}"] = value
    return found
