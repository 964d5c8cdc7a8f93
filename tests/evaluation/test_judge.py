"""The judge: verdicts, resume after a kill, dead and hung judges, second chances, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import evalplus.sanitize
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.evaluation.benchmarks import Benchmark, load
from qaq.evaluation.judge import checks as judge_checks
from qaq.evaluation.judge import phases as judge_phases
from qaq.evaluation.judge import pool as judge_pool
from qaq.evaluation.judge import sanitize as judge_sanitize
from qaq.evaluation.judge.journal import Journal
from qaq.evaluation.judge.judge import JudgeSettings, canonical_check, judge
from qaq.evaluation.judge.truth import folder_of
from qaq.evaluation.outcomes import JudgeResult, Sample
from qaq.host.errors import DataError, QaqError

Make = Callable[..., Benchmark]
RIGHT = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return x\n"


def judged(make: Make, programs: list[str], work: Path, **settings: Any) -> JudgeResult:
    samples = [Sample(f"Own/{i}", 0, "", program) for i, program in enumerate(programs)]
    return judge(make(programs), samples, JudgeSettings(**settings), work)


def verdicts(result: JudgeResult) -> list[tuple[str | None, str | None, str | None]]:
    return [(o.base_status, o.plus_status, o.failure) for o in result.outcomes]


def test_outcomes_come_in_the_order_of_the_samples_with_their_conditions(
    make_benchmark: Make, tmp_path: Path
) -> None:
    result = judged(make_benchmark, [WRONG, RIGHT, WRONG], tmp_path / "work")
    assert verdicts(result) == [
        ("fail", "fail", "wrong"),
        ("pass", "pass", None),
        ("fail", "fail", "wrong"),
    ]
    assert (result.judge, result.evalplus, result.memory_gib) == ("repaired", "0.3.1", 8.0)
    assert "ring" in result.sandbox
    assert result.repairs


def test_raw_text_is_sanitised_as_evalplus_does(make_benchmark: Make, tmp_path: Path) -> None:
    chatter = f"Here you are:\n```python\nimport os\n{RIGHT}\nprint(f(1))\n```\nDone."
    samples = [Sample("Own/0", 0, chatter), Sample("Own/0", 1, "no program at all")]
    result = judge(make_benchmark(["one"]), samples, JudgeSettings(), tmp_path / "work")
    assert [o.solution for o in result.outcomes] == [
        evalplus.sanitize.sanitize(sample.raw, "f") for sample in samples
    ]
    assert [o.base_passed for o in result.outcomes] == [True, False]


def test_text_that_breaks_the_sanitiser_is_a_failed_sample_and_nothing_more(
    make_benchmark: Make, tmp_path: Path
) -> None:
    texts = [
        "def f(x):\n\x00    return 1\n",
        "def f(x):\n    return '\ud800'\n",
        "(" * 50_000,
        RIGHT,
    ]
    samples = [Sample(f"Own/{i}", 0, text) for i, text in enumerate(texts)]
    result = judge(make_benchmark(texts), samples, JudgeSettings(), tmp_path / "work")
    assert [o.plus_passed for o in result.outcomes] == [False, False, False, True]
    assert all(o.failure for o in result.outcomes[:3])


def test_several_samples_of_a_task_keep_their_places(make_benchmark: Make, tmp_path: Path) -> None:
    samples = [Sample("Own/0", i, "", RIGHT if i % 2 else WRONG) for i in range(6)]
    result = judge(make_benchmark(["one"]), samples, JudgeSettings(), tmp_path / "work")
    assert [(o.index, o.base_passed) for o in result.outcomes] == [
        (i, i % 2 == 1) for i in range(6)
    ]


def test_a_finished_judgement_is_not_done_again(make_benchmark: Make, tmp_path: Path) -> None:
    first = judged(make_benchmark, [RIGHT, WRONG], tmp_path / "work")
    again = judged(make_benchmark, [RIGHT, WRONG], tmp_path / "work")
    assert (first.reused, again.reused) == (0, 2)
    assert again.outcomes == first.outcomes


def test_verdicts_under_other_limits_or_for_other_programs_are_not_reused(
    make_benchmark: Make, tmp_path: Path
) -> None:
    judged(make_benchmark, [RIGHT, WRONG], tmp_path / "work")
    other = judged(make_benchmark, [RIGHT, WRONG], tmp_path / "work", min_time_limit=5.0)
    assert other.reused == 0
    changed = judged(make_benchmark, [WRONG, RIGHT], tmp_path / "work")
    assert changed.reused == 0
    assert [o.base_passed for o in changed.outcomes] == [False, True]


def test_stock_has_evalplus_own_limits_and_neither_repair_nor_second_chance(
    make_benchmark: Make, tmp_path: Path
) -> None:
    programs = [RIGHT, WRONG, "def f(x):\n    import time\n    time.sleep(2)\n    return x + 1\n"]
    result = judged(make_benchmark, programs, tmp_path / "work", judge="stock")
    assert verdicts(result) == [
        ("pass", "pass", None),
        ("fail", "fail", "wrong"),
        ("fail", "fail", "timeout"),  # 0.3.1 calls a limit hit within the function a failure
    ]
    assert (result.min_time_limit, result.memory_gib, result.repairs) == (1.0, 4.0, ())
    assert result.flips == ()


def test_a_program_too_slow_for_the_limit_is_judged_again_and_marked(
    make_benchmark: Make, tmp_path: Path
) -> None:
    slow = "import time\ndef f(x):\n    time.sleep(1.3 * (x == 1))\n    return x + 1\n"
    stuck = "import time\ndef f(x):\n    time.sleep(60)\n"
    result = judged(make_benchmark, [slow, stuck, RIGHT], tmp_path / "work", min_time_limit=1.0)
    assert [o.plus_passed for o in result.outcomes] == [True, False, True]
    assert [o.flipped for o in result.outcomes] == [True, False, False]
    assert result.flips == ("Own/0",)
    assert result.outcomes[1].failure == "timeout"


SCRIPT = """
import sys
from pathlib import Path
from qaq.evaluation.benchmarks import load
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import Sample
slow = "import time\\ndef f(x):\\n    time.sleep(0.1)\\n    return x + 1\\n"
benchmark = load("mini", Path(sys.argv[1]))
samples = [Sample(p.task_id, 0, "", slow) for p in benchmark.problems]
result = judge(benchmark, samples, JudgeSettings(workers=2), Path(sys.argv[2]))
print(result.reused, sum(o.plus_passed for o in result.outcomes))
"""


def lines_of(journal: Path) -> list[dict[str, Any]]:
    if not journal.exists():
        return []
    return [
        json.loads(line)
        for line in journal.read_text().splitlines(keepends=True)
        if line[-1] == "\n"
    ]


def test_after_a_kill_nothing_runs_on_and_nothing_is_judged_twice(
    make_benchmark: Make, tmp_path: Path
) -> None:
    benchmark = make_benchmark(["task"] * 8)
    command = [sys.executable, "-c", SCRIPT, str(benchmark.path), str(tmp_path / "work")]
    journal = tmp_path / "work" / "journal.jsonl"
    victim = subprocess.Popen(command)
    while len(lines_of(journal)) < 3:
        time.sleep(0.02)
    below = psutil.Process(victim.pid).children(recursive=True)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []
    before = len(lines_of(journal))
    assert before < 8
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    reused, passed = map(int, ended.stdout.split())
    assert (reused, passed) == (before, 8)
    assert len({line["sha"] for line in lines_of(journal)}) == len(lines_of(journal)) == 8


def in_another_thread(act: Callable[[psutil.Process], None], work: Path) -> Future[None]:
    """Do something to the judge's process once it has given its first verdict."""

    def is_judge(process: psutil.Process) -> bool:
        try:
            return "qaq.evaluation.judge.inside" in process.cmdline() and "python" in process.name()
        except psutil.NoSuchProcess:  # one that ended since it was listed
            return False

    def wait_and_act() -> None:
        while not lines_of(work / "journal.jsonl"):
            time.sleep(0.02)
        act(next(filter(is_judge, psutil.Process().children(recursive=True))))

    thread = ThreadPoolExecutor(1)
    acted = thread.submit(wait_and_act)
    thread.shutdown(wait=False)
    return acted


SLOW = "import time\ndef f(x):\n    time.sleep(0.2)\n    return x + 1\n"


def test_a_killed_judge_is_replaced_and_no_verdict_is_lost(
    make_benchmark: Make, tmp_path: Path
) -> None:
    acted = in_another_thread(lambda inside: inside.kill(), tmp_path / "work")
    result = judged(make_benchmark, [SLOW] * 6, tmp_path / "work")
    acted.result()
    assert [o.plus_passed for o in result.outcomes] == [True] * 6


@pytest.mark.slow
def test_a_hung_judge_is_noticed_and_replaced(
    make_benchmark: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_phases, "SILENCE", 4.0)
    acted = in_another_thread(lambda inside: inside.suspend(), tmp_path / "work")
    result = judged(make_benchmark, [SLOW] * 6, tmp_path / "work")
    acted.result()
    assert [o.plus_passed for o in result.outcomes] == [True] * 6


def test_a_judge_that_cannot_work_is_an_error_and_not_a_row_of_failures(
    make_benchmark: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"HUMANEVAL_OVERRIDE_PATH": "/nonexistent.jsonl"}
    judged(make_benchmark, [RIGHT], tmp_path / "before")
    monkeypatch.setattr(judge_phases.judge_truth, "override", lambda _: nowhere)
    with pytest.raises(QaqError, match=r"the judge cannot work: .*nonexistent"):
        judged(make_benchmark, [RIGHT], tmp_path / "work")


def test_the_control_programs_notice_a_checker_that_does_not_check() -> None:
    code = """
import evalplus.eval as checker
from qaq.evaluation.judge import checks
from qaq.evaluation.judge.runs import Helper

def silent(*arguments):  # no verdict reaches the judge
    pass

def without_details(*arguments):
    arguments[8].value = 0

def always(*arguments):  # passes everything, so the decoy finds it
    for i in range(len(arguments[3])):
        arguments[9][i] = True
    arguments[10].value = len(arguments[3])
    arguments[8].value = 0

checks.install(repaired=True)
with Helper(99) as helper:
    print(checks.control(helper))
    for broken in (silent, without_details, always):
        checks._execute = broken
        print(checks.control(helper))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sound, *broken = ended.stdout.splitlines()
    assert sound == "None"
    assert [line.split(" {")[0] for line in broken] == [
        "a right program was judged",
        "a right program was judged",
        "a wrong program was judged",
    ]


LIMITED = """
import resource, sys
from pathlib import Path
from qaq.evaluation.benchmarks import load
from qaq.evaluation.config import EvalConfig
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import Sample
from qaq.host.errors import SandboxError

most = int(sys.argv[2])
resource.setrlimit(getattr(resource, sys.argv[1]), (most, most))
benchmark = load("mini", limit=1)
(problem,) = benchmark.problems
sample = Sample(problem.task_id, 0, "", problem.prompt + problem.canonical_solution)
for start in (
    lambda: JudgeSettings.of(EvalConfig(name="own")),
    lambda: judge(benchmark, [sample], JudgeSettings(), Path(sys.argv[3])).outcomes[0].plus_passed,
):
    try:
        print(start())
    except SandboxError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("limit", "most", "said"),
    [
        ("RLIMIT_AS", 6 << 30, "is promised 8 GiB, and the hard limit of memory here is 6 GiB (ul"),
        ("RLIMIT_DATA", 6 << 30, "lower eval.memory_gib"),
        ("RLIMIT_STACK", 8 << 20, "True"),
    ],
)
def test_a_hard_limit_below_the_promised_memory_is_named_before_anything_runs(
    own_cache: Path, tmp_path: Path, limit: str, most: int, said: str
) -> None:
    command = [sys.executable, "-c", LIMITED, limit, str(most), str(tmp_path / "work")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    first, second = ended.stdout.splitlines()
    assert said in second, ended
    assert first.startswith("JudgeSettings") if limit == "RLIMIT_STACK" else first == second


def test_what_a_killed_run_left_beside_the_ground_truth_is_removed(
    make_benchmark: Make, tmp_path: Path
) -> None:
    benchmark = make_benchmark(["one"], contract="left behind")  # a file with a truth of its own
    left = folder_of(benchmark) / ".making-abc"
    left.mkdir()
    (left / "Own_0.pkl").write_bytes(b"half")
    samples = [Sample("Own/0", 0, "", RIGHT)]
    assert judge(benchmark, samples, JudgeSettings(), tmp_path / "work").outcomes[0].plus_passed
    assert [file.name for file in folder_of(benchmark).iterdir()] == ["Own_0.pkl"]


def test_a_canonical_solution_that_cannot_run_is_named_as_the_files_fault(
    make_benchmark: Make, tmp_path: Path
) -> None:
    benchmark = make_benchmark(["one"], canonical_solution="    return x.absent\n")
    with pytest.raises(DataError, match=r"own\.jsonl: a canonical solution could not be run"):
        judge(benchmark, [Sample("Own/0", 0, "", RIGHT)], JudgeSettings(), tmp_path / "work")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([("Own/0", 0)], r"tasks without a sample: Own/1"),
        ([("Own/0", 0), ("Own/1", 0), ("Other/7", 0)], r"unknown tasks: Other/7"),
        ([("Own/0", 0), ("Own/1", 0), ("Own/1", 0)], r"doubled samples: Own/1 #0"),
    ],
)
def test_samples_that_do_not_fit_are_refused_before_any_work(
    samples: list[tuple[str, int]], message: str, make_benchmark: Make, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        judge(
            make_benchmark(["one", "two"]),
            [Sample(task, index, "", RIGHT) for task, index in samples],
            JudgeSettings(),
            tmp_path / "work",
        )
    assert not (tmp_path / "work").exists()


def test_a_subset_can_be_judged(own_cache: Path, tmp_path: Path) -> None:
    check = canonical_check("mini", limit=3, workdir=tmp_path)
    assert (check.tasks, check.plus_passed) == (3, 3)


def test_the_journal_ignores_a_torn_line_and_other_fingerprints(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path, "a")
    first.put("first", "x", {"base": "pass"})
    first.close()
    with path.open("a") as file:
        file.write('{"fingerprint": "a", "phase": "fi')
    second = Journal(path, "a")
    second.put("first", "y", {"base": "fail"})
    second.close()
    assert Journal(path, "a").get("first", "x") == {"base": "pass"}
    assert Journal(path, "a").get("first", "y") == {"base": "fail"}
    assert Journal(path, "b").get("first", "x") is None


def pooled(work: Callable[[int], dict[str, Any]], count: int, **more: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    settings = {"workers": 2, "deadline": 30.0} | more
    judge_pool.run(range(count), work, events.append, **settings)
    return [e for e in events if e["event"] != "start"]


def test_a_workers_death_loses_only_the_item_that_kills_it() -> None:
    def work(item: int) -> dict[str, Any]:
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": item * item}

    events = pooled(work, 8)
    assert {e["id"]: e.get("square") for e in events} == {
        i: None if i == 3 else i * i for i in range(8)
    }
    assert [e["why"] for e in events if e["event"] == "lost"] == ["died"]


def test_an_item_gets_a_second_try_after_a_death(tmp_path: Path) -> None:
    mark = tmp_path / "tried"

    def work(item: int) -> dict[str, Any]:
        if item == 1 and not mark.exists():
            mark.touch()
            os._exit(1)
        return {}

    assert [e["event"] for e in pooled(work, 3)] == ["result"] * 3


def test_a_hung_worker_is_replaced() -> None:
    def work(item: int) -> dict[str, Any]:
        if item == 0:
            time.sleep(100)
        return {}

    events = pooled(work, 3, deadline=1.0, attempts=1)
    assert sorted((e["id"], e["event"]) for e in events) == [
        (0, "lost"),
        (1, "result"),
        (2, "result"),
    ]


def test_a_fault_of_the_judges_own_is_raised_and_not_scored() -> None:
    def work(item: int) -> dict[str, Any]:
        raise KeyError("no ground truth")

    with pytest.raises(judge_pool.WorkError, match="no ground truth"):
        pooled(work, 1)


LINES = st.lists(
    st.sampled_from(
        ["", "def f(x):", "    return x", "    y = (1,", "    2)", '"""', "Here you are:", "x = 1",
         "    ", "```", "if x:", "\tpass", "print(x)", "import os", "class A:"]
    ),
    max_size=14,
)  # fmt: skip


@given(LINES)
def test_the_faster_search_finds_what_evalplus_finds(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert judge_sanitize.code_extract(text) == evalplus.sanitize.code_extract(text)


def test_the_mini_benchmark_needs_no_file_of_the_users() -> None:
    assert load("mini").path.is_relative_to(Path(judge_checks.__file__).parents[1])
