"""Inside the sandbox: EvalPlus 0.3.1's whole `evaluate`, for numbers that match published ones.

Nothing of its verdicts is changed: its own pool, its own ground-truth file, its own limits, and
HumanEval/32 fails as it does everywhere. Around each sample stand only the ring, the note of why
it failed and the decoy's question afterwards. Verdicts leave as they come, so that a judge that
dies loses none; a judge that goes on gives EvalPlus the known ones without running them again.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import evalplus.evaluate as runner
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS

from qaq.evaluation.judge import checks as judge_checks

Order = dict[str, Any]
_original = runner.check_correctness


class _Here:
    """What EvalPlus's forked workers need to know."""

    emit: Any = None
    new: int = 0
    known: list[dict[str, Any]] = []  # noqa: RUF012  (set once, before the fork)


def run(order: Order, emit: Any) -> None:
    """Judge all samples with one call of `evaluate`, then compare its file with what was told."""
    judge_checks.install(repaired=False)
    fault = judge_checks.control()
    if fault is not None:
        raise RuntimeError(f"the judge cannot judge in this sandbox: {fault}")
    _Here.emit, _Here.new, _Here.known = emit, len(order["items"]), order["known"]
    everything = order["items"] + order["known"]
    folder = Path(os.environ["TMPDIR"], "stock")
    folder.mkdir()
    samples = folder / "samples.jsonl"
    with samples.open("w") as file:
        for item in everything:
            line = {"task_id": item["task_id"], "solution": item["solution"]}
            file.write(json.dumps(line) + "\n")
    runner.check_correctness = check
    runner.evaluate(dataset=order["dataset"], samples=str(samples), parallel=order["workers"])
    result = json.loads((folder / "samples_eval_results.json").read_text(encoding="utf-8"))
    judged = sorted((s["task_id"], s["solution"]) for t in result["eval"].values() for s in t)
    asked = sorted((i["task_id"], i["solution"]) for i in everything)
    if result["hash"] != order["md5"] or judged != asked:
        raise RuntimeError("EvalPlus's result file is not about the samples that it was given")


def truth(order: Order, emit: Any) -> None:
    """Have EvalPlus write its own ground-truth file (into `$XDG_CACHE_HOME/evalplus`)."""
    names = MBPP_OUTPUT_NOT_NONE_TASKS if order["dataset"] == "mbpp" else []
    load = runner.get_mbpp_plus if order["dataset"] == "mbpp" else runner.get_human_eval_plus
    runner.get_groundtruth(load(), order["md5"], names)


def check(
    dataset: str,
    completion_id: int,
    problem: dict[str, Any],
    solution: str,
    expected_output: dict[str, Any],
    base_only: bool,
    fast_check: bool,
    identifier: str,
    min_time_limit: float,
    gt_time_limit_factor: float,
) -> dict[str, Any]:
    """`check_correctness`, which also tells its verdict; runs in one of EvalPlus's workers."""
    place = re.search(r"\(line (\d+) in ", identifier)
    if place is None:
        raise RuntimeError(f"EvalPlus named a sample {identifier!r}")
    number = int(place.group(1)) - 1
    if number >= _Here.new:
        known = _Here.known[number - _Here.new]
        return {
            "completion_id": completion_id,
            "task_id": problem["task_id"],
            "_identifier": identifier,
            "solution": solution,
            "base": (known["base"], []),
            "plus": (known["plus"], []),
        }
    _Here.emit({"event": "start", "id": number})
    judge_checks.forget()
    result: dict[str, Any] = _original(
        dataset, completion_id, problem, solution, expected_output, base_only, fast_check,
        identifier, min_time_limit, gt_time_limit_factor,
    )  # fmt: skip
    limits = judge_checks.Limits(min_time_limit, gt_time_limit_factor)
    found = judge_checks.note(dataset, problem, solution, expected_output, limits)
    _Here.emit({"event": "result", "id": number, "raisable": False} | found)
    return result
