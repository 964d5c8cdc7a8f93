"""The judge's own process: `python -m qaq.evaluation.judge.inside`, inside a sandbox level.

Its order comes on standard input (one JSON object), its answers leave on standard output (one
JSON object a line); it needs no file of the host but the benchmark and the ground truth. Modes:
`sanitize` (raw text to program), `truth` (run the canonical solutions, write what they return),
`judge` (verdicts on functions) and `stdio` (verdicts on whole programs).

It never imports torch; of EvalPlus's dependencies it leaves out `datasets`, which takes a second
and half a gigabyte of address space and is used for another benchmark only.
"""

import functools
import importlib.metadata
import json
import multiprocessing
import os
import pickle
import resource
import sys
import threading
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qaq.evaluation.sandbox import ring

EVALPLUS = "0.3.1"
HANG_SECONDS = 180.0  # beyond two sets at EvalPlus's cap and the loading of a truth
TRUTH_SECONDS = 1800.0
CONTROL = -1  # the number of the item that is no sample
LEAST_MEMORY = 8 << 30

Order = dict[str, Any]
Work = Callable[[], dict[str, Any]]


def main() -> None:
    """Read the order, restrict this process, do the work, say `done`."""
    order: Order = json.load(sys.stdin)
    emit = _emitter()
    try:
        _enclose(order)
        _check_version()
        _leave_out_datasets()
        MODES[order["mode"]](order, emit)
    except BaseException:
        trace = traceback.format_exc().strip()
        print(trace, file=sys.stderr, flush=True)
        emit({"event": "error", "text": trace.splitlines()[-1]})
        os._exit(1)
    emit({"event": "done"})
    os._exit(0)


def truth_file(folder: str | Path, task_id: str) -> Path:
    """Where the ground truth of one task lies."""
    return Path(folder, task_id.replace("/", "_") + ".pkl")


def _emitter() -> Any:
    """Events go to what was standard output; anything else printed here goes to the log."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    return emit


def _enclose(order: Order) -> None:
    """Restrict this process as the level asks, and end it when the host's process ends."""
    multiprocessing.set_start_method("fork")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with_host, args=(order["leash"],), daemon=True).start()
    if order["self_restrict"]:
        ring.restrict_judge(
            os.environ["TMPDIR"],
            [*ring.import_folders(), Path(__file__).resolve().parents[2]],
            read=order["read"],
            write=order["write"],
            most_abi=order["most_abi"],
        )


def _end_with_host(leash: int) -> None:
    """The host holds the other end of this pipe; it ends when the host does, however it ends."""
    os.read(leash, 1)
    os._exit(1)


def _check_version() -> None:
    found = importlib.metadata.version("evalplus")
    if found != EVALPLUS:
        raise RuntimeError(
            f"found evalplus {found}, expected {EVALPLUS}: the judge knows that version's checker; "
            f"install evalplus=={EVALPLUS}"
        )


def _leave_out_datasets() -> None:
    stand_in = types.ModuleType("datasets")
    stand_in.load_dataset = None  # type: ignore[attr-defined]
    sys.modules["datasets"] = stand_in


def _sanitize(order: Order, emit: Any) -> None:
    from qaq.evaluation.judge import sanitize as judge_sanitize

    judge_sanitize.run(order, emit)


def _problems(order: Order) -> dict[str, dict[str, Any]]:
    """The problems as EvalPlus reads them (it turns some lists into tuples and sets)."""
    from evalplus.data import get_human_eval_plus, get_mbpp_plus

    load = get_mbpp_plus if order["dataset"] == "mbpp" else get_human_eval_plus
    return dict(load())


def _truth(order: Order, emit: Any) -> None:
    """Run canonical solutions as EvalPlus does, one at a time, and write what they returned."""
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
    from evalplus.gen.util import trusted_exec

    from qaq.evaluation.judge import pool as judge_pool

    problems = _problems(order)
    items = order["items"]

    def work(number: int) -> dict[str, Any]:
        problem = problems[items[number]]
        code = problem["prompt"] + problem["canonical_solution"]
        name = problem["entry_point"]
        only_none = order["dataset"] == "mbpp" and name in MBPP_OUTPUT_NOT_NONE_TASKS
        truth: dict[str, Any] = {}
        for part in ("base", "plus"):
            truth[part], truth[f"{part}_time"] = trusted_exec(
                code, problem[f"{part}_input"], name, record_time=True, output_not_none=only_none
            )
        with truth_file(order["write"][0], items[number]).open("wb") as file:
            pickle.dump(truth, file, protocol=pickle.HIGHEST_PROTOCOL)
        return {}

    judge_pool.run(range(len(items)), work, emit, workers=1, deadline=TRUTH_SECONDS, attempts=1)


def _judge(order: Order, emit: Any) -> None:
    """Verdicts by EvalPlus's checker, each task's ground truth loaded when it is its turn."""
    from qaq.evaluation.judge import checks

    checks.install(repaired=order["repaired"])
    problems = _problems(order)
    limits = checks.Limits(order["seconds"], order["factor"], order["memory"])

    @functools.lru_cache(maxsize=1)
    def task(task_id: str) -> checks.Task:
        with truth_file(order["truth"], task_id).open("rb") as file:
            return checks.Task(order["dataset"], problems[task_id], dict(pickle.load(file)))

    def check(helper: Any, item: dict[str, str]) -> Work:
        known = task(item["task_id"])  # a fault here is the judge's, not the sample's
        return lambda: checks.verdict(helper, known, item["solution"], limits, spare=order["spare"])

    _each(order, emit, check, checks.control)


def _stdio(order: Order, emit: Any) -> None:
    """Verdicts on whole programs, from the tests in the benchmark's file."""
    from qaq.evaluation.judge import stdio
    from qaq.evaluation.problems import read_file, read_problems

    file = Path(order["file"])
    problems = {p.task_id: p for p in read_problems(file, read_file(file), order["form"])}
    limits = stdio.Limits(order["seconds"], order["memory"])

    def check(helper: Any, item: dict[str, str]) -> Work:
        known = problems[item["task_id"]]
        return lambda: stdio.verdict(helper, known, item["solution"], limits, spare=order["spare"])

    _each(order, emit, check, stdio.control(limits))


def _each(
    order: Order,
    emit: Any,
    check: Callable[[Any, dict[str, str]], Work],
    control: Callable[[Any], str | None],
) -> None:
    """Judge each item in a worker with a helper of its own, after trivial ones as a control.

    Whatever goes wrong around one sample is that sample's outcome, once the control has shown that
    the judge itself still works: it takes the samples' own way, through a worker and its helper.
    """
    from qaq.evaluation.judge import pool as judge_pool
    from qaq.evaluation.judge.runs import Helper

    items = order["items"]
    mine: list[Helper] = []  # the worker's own

    def work(number: int) -> dict[str, Any]:
        try:
            if not mine:
                mine.append(Helper(order["most_abi"]).__enter__())
                _limit_memory(order["memory"])
        except Exception:
            return {"failed": traceback.format_exc()}
        if number == CONTROL:
            return {"fault": control(mine[0])}
        judged = check(mine[0], items[number])
        try:
            return judged()
        except Exception:
            mine.pop().__exit__()
            return {"failed": traceback.format_exc()}

    def must_work() -> None:
        found: list[dict[str, Any]] = []
        judge_pool.run(
            [CONTROL], work, found.append, workers=1, deadline=HANG_SECONDS, attempts=1
        )  # fmt: skip
        fault = found[-1].get("fault", f"its worker {found[-1].get('why')}")
        if fault is not None:
            raise RuntimeError(f"the judge cannot judge in this sandbox: {fault}")

    def sound(event: dict[str, Any]) -> None:
        if event["event"] == "lost":
            must_work()
        emit(event)

    must_work()
    judge_pool.run(range(len(items)), work, sound, workers=order["workers"], deadline=HANG_SECONDS)


def _limit_memory(sample: int) -> None:
    """Bound this worker, too: answers can be made to grow where they are read.

    Only the soft limit: a helper that it starts later may set its own.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = max(2 * sample, LEAST_MEMORY)
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


MODES = {"sanitize": _sanitize, "truth": _truth, "judge": _judge, "stdio": _stdio}

if __name__ == "__main__":
    main()
