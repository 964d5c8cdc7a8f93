"""Running one experiment from its configuration to the printed result."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from qaq.host import hardware
from qaq.host.errors import StageError, UserError
from qaq.host.runtime import store_option
from qaq.run.handover import hand_over, planned
from qaq.run.pipeline import Run
from qaq.run.runner import Result, make
from qaq.run.stage import Stage, in_order
from qaq.selection.config import SubsetStage
from qaq.store.store import Store
from qaq.tracking.live import following
from qaq.training.config import AdapterStage


def execute(run: Run, say: Callable[[str], None], command: str | None, report: bool = True) -> int:
    """Make what is missing, print the result; returns the exit code.

    Args:
        command: what to run again after a failure; None leaves that to the caller.
        report: whether to make the report as well.

    Returns:
        0: all is there. 2: a stage met a mistake of the user's. 1: a stage failed otherwise.
    """
    refuse_without_card(run)
    store = Store(run.config.runtime.store)
    stages = run.stages if report else run.stages[:-1]
    if run.config.runtime.only is not None:
        stages = in_order(s for s in stages if s.key in run.config.runtime.only)
        report = False
        if not stages:
            raise UserError("runtime.only: no stage of this experiment has one of these keys")
    tracked = planned(run, store, report)
    with following(tracked):
        results = make(stages, store, run.config.runtime, say)
    kept_offline = hand_over(tracked, results, report, say)
    results = push_adapters(results, say)
    page = results[-1].artifact if report else None
    if page is not None:
        say("\n" + (page.path / "summary.txt").read_text(encoding="utf-8").rstrip())
        say(f"\nreport: {page.path / 'index.html'}")
    failed = [r for r in results if r.error]
    if failed:
        said = [failures(failed, results, command)]
        say("\n".join([*said, *syncing(kept_offline, store.root)]))
        return 2 if all(r.error and r.error.exit_code == 2 for r in failed) else 1
    if page is not None:
        say("\n".join(what_next(results, store.root)))
    for text in syncing(kept_offline, store.root):
        say(text)
    return 0


def refuse_without_card(run: Run, stages: Sequence[Stage] | None = None) -> None:
    """Refuse `device=cuda` on a machine with too few cards while a model is still to run.

    Before the plan is made, which asks the Hub, where the store says that nothing is there yet.
    `stages`: those that are to run, where that is not the whole of a run.

    Raises:
        UserError: there is no card, or none for each process, or PyTorch cannot use it.
    """
    runtime = run.config.runtime
    needed = runtime.processes if runtime.hosts == 1 else 1  # other hosts are not seen from here
    if runtime.device != "cuda" or len(hardware.cuda_devices()) >= needed:
        return
    store = Store(runtime.store)
    fresh = stages is None and next(iter(store.all()), None) is None
    if fresh or any(s.uses_model and s.find(store) is None for s in stages or run.stages):
        from qaq.models.load import torch_device  # knows more than nvidia-smi; takes seconds

        torch_device("cuda", needed - 1)


def what_next(results: list[Result], root: Path) -> list[str]:
    """Commands that go on from a finished run, with the names of what it made."""
    made = [(r.stage, r.artifact) for r in results if r.artifact]
    at = store_option(root)
    chosen = [a for stage, a in made if isinstance(stage.config, SubsetStage)]
    rules = [a for a in chosen if a.manifest["summary"].get("method") != "full"]
    said = [f"qaq report {made[-1][1].path.name}{at}"]
    for subset in rules[-1:]:  # what a subset holds and why; its rows, to train elsewhere
        said.append(f"qaq audit {subset.path.name}{at}")
        said.append(f"qaq export {subset.path.name} chosen.jsonl{at}")
    return [f"{'next:' if not k else '':<8}{text}" for k, text in enumerate(said)]


def syncing(kept_offline: bool, root: Path) -> list[str]:
    """How to send W&B runs that are kept on this machine: the last line of a run."""
    return [f"W&B:    qaq sync{store_option(root)}"] if kept_offline else []


def push_adapters(results: list[Result], say: Callable[[str], None]) -> list[Result]:
    """Send the finished adapters to the Hub where the recipe asks for it; marks what failed."""
    errors: dict[str, StageError] = {}
    for result in results:
        config = result.stage.config
        recipe = config.train if isinstance(config, AdapterStage) else None
        if recipe is None or recipe.push_to_hub is None or result.artifact is None:
            continue
        from qaq.training.hub import push, repository

        folder = result.artifact.path
        try:
            sent = push(folder, repository(recipe.push_to_hub, folder), recipe.hub_public)
            say(f"Hub       {sent}")
        except StageError as error:
            errors[result.stage.key] = error
    return [replace(r, error=r.error or errors.get(r.stage.key)) for r in results]


def failures(failed: list[Result], results: list[Result], command: str | None) -> str:
    """What failed, what was left out because of it, and what to do."""
    counts = Counter(r.state for r in results)
    lines = [f"\n{len(failed)} of {len(results)} stages failed:"]
    lines += [f"  {r.error}" for r in failed]
    if counts["skipped"]:
        lines.append(f"{counts['skipped']} stages that rest on them were left out.")
    if command:
        lines.append(f"To continue, with only what is missing: {command}")
    return "\n".join(lines)
