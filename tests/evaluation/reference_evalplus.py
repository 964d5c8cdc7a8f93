"""EvalPlus 0.3.1 as it is, for comparison: `python reference_evalplus.py repaired|stock …`.

    reference_evalplus.py HOW DATASET SAMPLES.jsonl PARALLEL

No sandbox and nothing of qaq's: only for programs known to be harmless. `repaired` adds the
recorded pass of HumanEval/32 and the limit of 4 s; memory comes from EvalPlus's own variable. The
verdicts are in EvalPlus's own result file; the seconds of the evaluation, without the start of the
interpreter and without the 20 s that a thread of EvalPlus's holds the exit, are printed.
"""

import os
import sys
import time

import evalplus.eval as checker
import evalplus.evaluate as runner

how, dataset, samples, parallel = sys.argv[1:]
original = checker._poly


def recording(xs: list[float], x: float) -> float:
    value = original(xs, x)
    names = sys._getframe(1).f_locals
    if "progress" in names and abs(value) <= names["atol"]:
        names["details"][names["i"]] = True
        names["progress"].value += 1
    return value


settings = {}
if how == "repaired":
    checker._poly = recording
    settings["min_time_limit"] = 4.0
started = time.monotonic()
runner.evaluate(dataset=dataset, samples=samples, parallel=int(parallel), **settings)
print(f"seconds {time.monotonic() - started:.3f}", flush=True)
os._exit(0)
