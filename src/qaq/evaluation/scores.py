"""The figures of one model on one benchmark, from its answers and the verdicts on them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean
from typing import TYPE_CHECKING, Any

from qaq.evaluation.answers import names_function
from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.config import OutcomesStage
from qaq.evaluation.outcomes import FAILURES, JudgeResult, Outcome, Sample

if TYPE_CHECKING:
    from qaq.evaluation.generation.generate import Completion

PASS_AT = (1, 5, 10, 25, 50, 100)


@dataclass(frozen=True)
class Answers:
    """What the model wrote, sample by sample, and how well it foresees the canonical solutions."""

    completions: "tuple[Completion, ...]"
    samples: tuple[Sample, ...]
    bits: dict[str, float | None]


def summarise(
    config: OutcomesStage, benchmark: Benchmark, answers: Answers, verdict: JudgeResult
) -> dict[str, Any]:
    """The figures of one model on one benchmark, and everything they depend on.

    `at_limit`, `no_code` and `cut` count answers that hit the length limit, whose program does not
    define the asked function, and that were ended by their text and not by the model. Where
    programs are suspected of cheating, a second number counts them as failed.
    """
    by_task: dict[str, list[Outcome]] = {p.task_id: [] for p in benchmark.problems}
    for outcome in verdict.outcomes:
        by_task[outcome.task_id].append(outcome)
    tasks = list(by_task.values())
    entry = {p.task_id: p.entry_point for p in benchmark.problems}
    known = [b for b in answers.bits.values() if b is not None]
    conditions = asdict(verdict)
    del conditions["outcomes"], conditions["reused"], conditions["seconds"]
    return conditions | {
        "benchmark": config.suite,
        "benchmark_md5": benchmark.md5,
        "problems": len(tasks),
        "samples": config.eval.samples,
        "pass_at_1_base": fmean(share([o.base_passed for o in task]) for task in tasks),
        "pass_at_1_plus": fmean(share([o.plus_passed for o in task]) for task in tasks),
        "pass_at_1_plus_without_suspects": fmean(
            share([o.plus_passed and not o.suspect for o in task]) for task in tasks
        ),
        "pass_at_k": {
            str(k): {
                "base": fmean(pass_at(k, [o.base_passed for o in task]) for task in tasks),
                "plus": fmean(pass_at(k, [o.plus_passed for o in task]) for task in tasks),
            }
            for k in PASS_AT
            if k <= config.eval.samples
        },
        "failures": {f: sum(o.failure == f for o in verdict.outcomes) for f in FAILURES},
        "bits_per_byte": fmean(known) if known else None,
        "bits_unknown": len(tasks) - len(known),
        "at_limit": sum(c.finish == "length" for c in answers.completions),
        "no_code": sum(not names_function(o.solution, entry[o.task_id]) for o in verdict.outcomes),
        "cut": sum(c.finish == "stop" for c in answers.completions),
        "finish": dict(Counter(c.finish for c in answers.completions)),
        "new_tokens": sum(c.new_tokens for c in answers.completions),
        "generation_seconds": round(sum(c.seconds for c in answers.completions), 3),
        "judge_seconds": verdict.seconds,
        "prompt": config.eval.prompt,
        "bits_prompt": config.eval.bits_prompt or config.eval.prompt,
        "generator": config.eval.generator,
        "dtype": config.model.dtype,
        "max_new_tokens": config.eval.max_new_tokens,
        "temperature": config.eval.temperature,
        "seed": config.eval.seed,
    }


def share(passed: Sequence[bool]) -> float:
    """The share of samples that passed."""
    return sum(passed) / len(passed)


def pass_at(k: int, passed: Sequence[bool]) -> float:
    """Probability that one of `k` samples passes: unbiased (Chen et al. 2021, arXiv 2107.03374)."""
    n, correct = len(passed), sum(passed)
    return 1 - comb(n - correct, k) / comb(n, k)
