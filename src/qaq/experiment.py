"""Running one experiment from its configuration to the printed result."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from qaq.config import Config
from qaq.errors import StageError
from qaq.pipeline import Stage, in_order, plan
from qaq.runner import Result, run
from qaq.store import Store
from qaq.tracking.handover import hand_over


def execute(config: Config, say: Callable[[str], None]) -> int:
    """Make what is missing, print the result; returns the exit code.

    0: all is there. 2: a stage met a mistake of the user's. 1: a stage failed otherwise.
    """
    stages = plan(config)
    store = Store(config.runtime.store)
    results = run(stages, store, config.runtime, say)
    hand_over(config, store, results, say)
    results = push_adapters(config, results, say)
    failed = [r for r in results if r.error]
    if failed:
        say(failures(failed, results))
        return 2 if all(r.error and r.error.exit_code == 2 for r in failed) else 1
    report = results[-1].artifact
    if report is not None:
        say("\n" + (report.path / "summary.txt").read_text().rstrip())
        say(f"\nreport: {report.path / 'index.html'}")
    return 0


def push_adapters(
    config: Config, results: list[Result], say: Callable[[str], None]
) -> list[Result]:
    """Send the finished adapters to the Hub where the recipe asks for it; marks what failed."""
    where = config.train.push_to_hub
    if where is None:
        return results
    from qaq.training.hub import push

    errors: dict[str, StageError] = {}
    for result in results:
        if result.stage.kind != "adapter" or result.artifact is None:
            continue
        repository = f"{where}-{result.stage.name}"
        try:
            say(f"Hub       {push(result.artifact.path, repository, config.train.hub_public)}")
        except StageError as error:
            errors[result.stage.key] = error
    return [replace(r, error=r.error or errors.get(r.stage.key)) for r in results]


def failures(failed: list[Result], results: list[Result]) -> str:
    """What failed, what was left out because of it, and what to do."""
    counts = Counter(r.state for r in results)
    lines = [f"\n{len(failed)} of {len(results)} stages failed:"]
    lines += [f"  {r.error}" for r in failed]
    if counts["skipped"]:
        lines.append(f"{counts['skipped']} stages that rest on them were left out.")
    lines.append("Run the same command again: it makes only what is missing.")
    return "\n".join(lines)


def show_plan(configs: list[Config]) -> list[str]:
    """One line per stage of all configurations, each key once: kind, name, key, state."""
    stages = in_order(stage for config in configs for stage in plan(config))
    store = Store(configs[0].runtime.store)
    states = {s.key: "cached" if store.find(s.kind, s.key) else "to run" for s in stages}
    lines = [plan_line(stage, states[stage.key]) for stage in stages]
    counts = Counter(states.values())
    total = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    return [*lines, f"{len(stages)} stages: {total}"]


def plan_line(stage: Stage, state: str) -> str:
    """A stage as one line of a plan."""
    return f"{stage.kind:<9} {stage.name:<44} {stage.key[:8]}  {state}"
