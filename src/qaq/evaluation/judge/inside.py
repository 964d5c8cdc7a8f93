"""The judge's own process: `python -m qaq.evaluation.judge.inside`, inside a sandbox level.

Its order comes on standard input (one JSON object), its answers leave on standard output (one
JSON object a line); it needs no file of the host but the benchmark and the ground truth. Modes:
`sanitize` (raw text to program), `truth` (run the canonical solutions, write what they return),
`judge` (verdicts), and `stock_truth` and `stock` (the same two by EvalPlus alone, `judge_stock`).

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
from pathlib import Path
from typing import Any

from qaq.evaluation.sandbox import ring

EVALPLUS = "0.3.1"
HANG_SECONDS = 300.0  # beyond two sets at EvalPlus's cap, the decoy and the loading of a truth
TRUTH_SECONDS = 1800.0

Order = dict[str, Any]


def main() -> None:
    """Read the order, restrict this process, do the work, say `done`."""
    order: Order = json.load(sys.stdin)
    emit = _emitter()
    try:
        _enclose(order)
        _check_version()
        if not order["mode"].startswith("stock"):
            _leave_out_datasets()
        MODES[order["mode"]](order, emit)
    except BaseException:
        told = traceback.format_exc().strip()
        print(told, file=sys.stderr, flush=True)
        emit({"event": "error", "text": told.splitlines()[-1]})
        os._exit(1)
    emit({"event": "done"})
    os._exit(0)  # EvalPlus leaves a thread behind that would hold the exit for 20 seconds


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
    from qaq.evaluation.judge import checks as judge_checks
    from qaq.evaluation.judge import pool as judge_pool

    judge_checks.install(repaired=order["repaired"])
    fault = judge_checks.control()
    if fault is not None:
        raise RuntimeError(f"the judge cannot judge in this sandbox: {fault}")
    problems = _problems(order)
    items = order["items"]
    limits = judge_checks.Limits(order["seconds"], order["factor"])

    @functools.lru_cache(maxsize=1)
    def truth(task_id: str) -> dict[str, Any]:
        with truth_file(order["truth"], task_id).open("rb") as file:
            return dict(pickle.load(file))

    def work(number: int) -> dict[str, Any]:
        item = items[number]
        task_id = item["task_id"]
        return judge_checks.verdict(
            order["dataset"],
            problems[task_id],
            item["solution"],
            truth(task_id),
            limits,
            spare=order["spare"],
        )

    judge_pool.run(range(len(items)), work, emit, workers=order["workers"], deadline=order["hang"])


def _stock(order: Order, emit: Any) -> None:
    from qaq.evaluation.judge import stock as judge_stock

    judge_stock.run(order, emit)


def _stock_truth(order: Order, emit: Any) -> None:
    from qaq.evaluation.judge import stock as judge_stock

    judge_stock.truth(order, emit)


MODES = {
    "sanitize": _sanitize,
    "truth": _truth,
    "judge": _judge,
    "stock": _stock,
    "stock_truth": _stock_truth,
}

if __name__ == "__main__":
    main()
