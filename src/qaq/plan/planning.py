"""`qaq plan`: every stage with its key, whether it is there or why it has to run, its estimate.

Works without a network: what cannot be looked up is listed, and estimated from plain assumptions.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qaq.host.hardware import cores
from qaq.host.progress import duration
from qaq.host.runtime import RuntimeConfig
from qaq.plan.devices import LARGE, SMALL, device_named
from qaq.plan.estimate import Work
from qaq.plan.observed import rate_of
from qaq.plan.sizes import Known
from qaq.plan.work import devices_of, estimate, held_by, tasks_of
from qaq.run.comparison import combine
from qaq.run.fingerprints import tolerant
from qaq.run.pipeline import Run
from qaq.run.stage import Stage, in_order
from qaq.run.sweep import jobs_of
from qaq.store import failures
from qaq.store.keys import fields_that_differ
from qaq.store.manifest import Artifact
from qaq.store.store import Store

SHOWN = 80  # characters of a difference


@dataclass(frozen=True)
class Planned:
    """A stage of a plan: its state, why it has to run, its estimate, and what it costs.

    `state` is `cached`, `to run`, or `unknown` where the key rests on what could not be looked up.
    `dollars` are for all devices that the run holds; `idle` is the part of those that wait.
    """

    stage: Stage
    state: str
    why: str
    artifact: Artifact | None
    work: Work | None
    dollars: float | None
    idle: float = 0.0
    room: float | None = None  # bytes of memory that one device has

    @property
    def too_large(self) -> bool:
        """Whether it needs more memory than one device has."""
        return bool(self.work and self.room and self.work.memory > self.room)

    @property
    def key(self) -> str:
        """The start of the key, as it is shown."""
        return self.stage.key[:8] if self.state != "unknown" else "?" * 8


def plan_lines(
    overrides: list[str],
    device: str | None = None,
    price: float | None = None,
    rows: int | None = None,
    tokens: tuple[int, int] | None = None,
) -> list[str]:
    """The plan of an experiment, or of a sweep, as text.

    Args:
        overrides: as `qaq run` takes them.
        device: a name of `qaq.plan.devices`; None = this machine's.
        price: dollars an hour of one device; None = the table's.
        rows, tokens: rows of the pool, and tokens of question and answer, where they are known
            better than they can be found out here.
    """
    jobs = jobs_of(overrides)
    known = Known(tokens=tokens, rows=rows)
    with tolerant():
        runs = [Run(config) for config in combine(jobs)] if len(jobs) > 1 else jobs
        planned = examine(runs, known, device, price)
        name = max(len(one.stage.name) for one in planned)
        width = max(len(_figures(one)) for one in planned)
        lines = [_line(one, name, width) for one in planned]
        strengths = [text for run in runs if (text := strength(run))]
        missing = dict.fromkeys(text for p in planned for text in p.stage.unresolved)
        unknown = [f"  cannot run yet: {text}" for text in missing]
        return [*lines, *_totals(planned, known), *strengths, *unknown]


def opening(runs: Sequence[Run]) -> str:
    """How many stages the runs have, how many are to be made, and about how long."""
    planned = examine(runs, Known(tokens=None, rows=None), None, None)
    return _opening(planned, " (qaq plan … shows each)")


def outlook(goals: Iterable[Stage], runtime: RuntimeConfig) -> str:
    """The same of these stages and all that they rest on."""
    stages = in_order(goals)
    runtimes = dict.fromkeys((stage.key for stage in stages), runtime)
    return _opening(_examined(stages, runtimes, Known(), None, None))


def _opening(planned: list[Planned], more: str = "") -> str:
    left = [one for one in planned if one.artifact is None]
    stages = f"{len(planned)} {'stage' if len(planned) == 1 else 'stages'}"
    if not left:
        return f"{stages}, all there already"
    known = [one.work.seconds for one in left if one.work]
    # a stage that loads a model takes more than a moment
    models = [s for s in left if hasattr(s.stage.config, "model") or s.stage.kind == "synthesis"]
    lacking = any(not one.work for one in models)
    when = f"about {duration(sum(known))} on this machine" if known else "a few seconds"
    if lacking:
        when = f"at least {duration(sum(known))}" if known else "nobody can say how long"
    return f"{stages}, {len(left)} to make: {when}{more}"


def examine(
    runs: Sequence[Run], known: Known, device: str | None, price: float | None
) -> list[Planned]:
    """Every stage of the runs, each key once."""
    runtimes: dict[str, RuntimeConfig] = {}
    for run in runs:
        for stage in run.stages:
            runtimes.setdefault(stage.key, run.config.runtime)
    every = in_order(stage for run in runs for stage in run.stages)
    return _examined(every, runtimes, known, device, price)


def _examined(
    stages: list[Stage],
    runtimes: dict[str, RuntimeConfig],
    known: Known,
    device: str | None,
    price: float | None,
) -> list[Planned]:
    store = Store(next(iter(runtimes.values())).store)
    others = list(store.all())
    found = []
    for stage in stages:
        artifact = None if stage.unresolved else stage.find(store)
        card = device_named(device, _dtype(stage))
        work = None
        if artifact is None and card is not None:
            seen = None if device or stage.unresolved else rate_of(stage, others)
            work = estimate(stage, store, runtimes[stage.key], card, known, seen)
        state = "cached" if artifact else "unknown" if stage.unresolved else "to run"
        why = "" if artifact else _why(stage, store, others)
        used = devices_of(stage, runtimes[stage.key], card.kind if card else "cuda")
        held = held_by(runtimes[stage.key], card.kind if card else "cuda")
        rate = price if price is not None else card.price if card else None
        dollars = None if work is None or rate is None else work.seconds / 3600 * rate * held
        idle = (dollars or 0.0) * (held - used) / held
        room = card.memory if card else None
        found.append(Planned(stage, state, why, artifact, work, dollars, idle, room))
    if any(p.artifact is None for p in found):
        _note_device(known, device, price, found)
    return found


def strength(run: Run) -> str | None:
    """What so many tasks, seeds and comparisons can show; None where nothing is compared."""
    from qaq.evidence.power import ASSUMED_DISCORDANCE, planned, statement
    from qaq.reporting.family import as_good, contrasts

    spec = run.stages[-1].config
    arms = getattr(spec, "suites", ()) and spec.arms
    compared = contrasts(spec.primary, arms) if arms else []
    if not compared:
        return None
    bench = run.config.benchmark
    counts = [tasks_of(*named) for named in bench.resolved.items()]
    tasks = sum(min(bench.limit or count, count) for count in counts)
    tasks = len(bench.tasks) if bench.tasks else tasks
    runs = {arm.name: len(arm.seeds[: spec.primary.seeds]) for arm in arms}
    can = planned(tasks, runs, compared)
    size = f"{tasks} tasks, {can.seeds} {'run' if can.seeds == 1 else 'runs'} of each arm"
    size += f", if two equal arms disagree on {ASSUMED_DISCORDANCE:.0%} of the tasks"
    held = any(arm.method == "full" for arm in arms) and bool(as_good(spec.primary, arms))
    return f"{size}: {statement(can, held)}"


def _dtype(stage: Stage) -> str:
    model = getattr(stage.config, "model", None)
    return str(model.dtype) if model is not None else "bfloat16"


def _why(stage: Stage, store: Store, others: list[Artifact]) -> str:
    """Why a stage has to run: what became of the last try, or what is new in it."""
    if stage.unresolved:
        return ""
    work = store.work_folder(stage.kind, stage.key)
    failure = failures.read(work)
    if not failure and (held := store.find(stage.kind, stage.key)):
        return f"{', '.join(stage.lacking(held))} not scored yet"
    if failure:
        return f"failed: {failure.message.splitlines()[0]}"
    if work.is_dir():
        return "continues where it stopped"
    alike = [
        a for a in others if (a.manifest["kind"], a.manifest["name"]) == (stage.kind, stage.name)
    ]
    if alike:
        latest = max(alike, key=lambda a: str(a.manifest.get("created")))
        changed = fields_that_differ(latest.manifest, stage.identity)
        if changed:
            first = (
                changed[0] if len(changed[0]) <= SHOWN else changed[0].split(": ")[0] + " differs"
            )
            return first + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
    return "new"


def _line(one: Planned, name: int, figures: int) -> str:
    head = f"{one.stage.kind:<10} {one.stage.name:<{name}} {one.key}  {one.state:<7}"
    if one.artifact:
        spent = float(one.artifact.manifest.get("seconds", 0))
        return f"{head}  took {duration(spent)}"
    return f"{head}  {_figures(one):<{figures}}  {one.why}".rstrip()


def _figures(one: Planned) -> str:
    if not one.work:
        return ""
    money = "" if one.dollars is None else f"  {one.dollars:8.2f} $"
    return (
        f"{_count(one.work.tokens):>7} tokens {one.work.flops:8.1e} FLOP"
        f" {duration(one.work.seconds):>8}"
        f" {one.work.memory / 1e9:6.1f} GB{'!' if one.too_large else ' '}{money}"
    )


def _totals(planned: list[Planned], known: Known) -> list[str]:
    counts = Counter(p.state for p in planned)
    lines = [f"{len(planned)} stages: {', '.join(f'{n} {s}' for s, n in sorted(counts.items()))}"]
    works = [p.work for p in planned if p.work]
    if works:
        seconds = sum(w.seconds for w in works)
        money = [p.dollars for p in planned if p.dollars is not None]
        idle = sum(p.idle for p in planned)
        waiting = f" ({idle:.2f} $ of it for devices that wait)" if idle else ""
        price = f", {sum(money):.2f} ${waiting}" if money else ""
        lines.append(
            f"to run, about: {_count(sum(w.tokens for w in works))} tokens, "
            f"{sum(w.flops for w in works):.1e} FLOP, {duration(seconds)}{price}; "
            f"the most memory at once {max(w.memory for w in works) / 1e9:.1f} GB"
        )
    if any(p.too_large for p in planned):
        lines.append(
            "  !: more memory than one device has. Lower runtime.token_budget or "
            "runtime.generation_batch, set train.gradient_checkpointing=true, or shard the model"
        )
    lines += [f"  assumed: {text}" for text in known.assumed]
    return lines


def _note_device(
    known: Known, device: str | None, price: float | None, planned: list[Planned]
) -> None:
    card = device_named(device, next((_dtype(p.stage) for p in planned if p.work), "bfloat16"))
    if card is None:
        known.note("this machine's GPU is not in the table; --device says which one to count with")
        return
    asked = price if price is not None else card.price
    cost = f", {asked:g} $ an hour each" if asked is not None else ""
    shares = [
        f"{card.share(card.scoring, size):.0%} and {card.share(card.training, size):.0%}"
        for size in (LARGE, SMALL)
    ]
    sizes = f" ({shares[1]} with {SMALL / 1e9:g}B parameters)" if card.kind == "cuda" else ""
    known.note(
        f"{card.name}: {card.flops / 1e12:.3g} TFLOP/s, of which scoring and training reach "
        f"{shares[0]}{sizes}{cost}"
    )
    if any(p.stage.kind == "outcomes" and p.work for p in planned):
        known.note(
            "answers as long as eval.max_new_tokens allows, judged at the pace of right ones by "
            f"as many workers as this machine has cores ({cores()}), unless runtime.judge_workers "
            "says how many, where none ran"
        )


def _count(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"
