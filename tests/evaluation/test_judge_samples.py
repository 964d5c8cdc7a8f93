"""`qaq judge`: samples from a file, and what is said about files that do not fit."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qaq import cli
from qaq.evaluation.benchmarks import Benchmark

Make = Callable[..., Benchmark]
RIGHT = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return x\n"


@pytest.fixture
def judged(
    make_benchmark: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Judge lines (or bytes) for two tasks on the command line: exit code and all that it said."""
    data = make_benchmark(["one", "two"]).path

    def run(lines: list[object] | bytes, *more: str) -> tuple[int, str]:
        file = tmp_path / "samples.jsonl"
        content = (
            lines
            if isinstance(lines, bytes)
            else "".join(json.dumps(line) + "\n" for line in lines).encode()
        )
        file.write_bytes(content)
        code = cli.main(["judge", str(file), "--suite", "mini", "--data", str(data), *more])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def sample(task: int, solution: str = RIGHT) -> dict[str, str]:
    return {"task_id": f"Own/{task}", "solution": solution}


def test_the_result_is_a_file_in_evalplus_form_with_its_conditions(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = judged([sample(0), {"task_id": "Own/1", "completion": "    return x\n"}])
    assert code == 0
    assert "pass@1 base 0.500, plus 0.500" in said and "ring" in said and "repaired" in said
    result = json.loads((tmp_path / "samples_eval_results.json").read_text())
    statuses = {t: [s["base_status"] for s in found] for t, found in result["eval"].items()}
    assert statuses == {"Own/0": ["pass"], "Own/1": ["fail"]}
    assert result["eval"]["Own/1"][0]["solution"] == "def f(x):\n    return x\n"
    assert result["conditions"]["judge"] == "repaired" and result["conditions"]["sandbox"]
    assert sorted(p.name for p in tmp_path.iterdir() if "judging" in p.name) == []


def test_several_samples_of_a_task_and_a_part_of_the_tasks(
    judged: Callable[..., tuple[int, str]],
) -> None:
    lines = [sample(0, WRONG), sample(0)]
    assert "1 tasks, 2 samples" in judged(lines, "--limit", "1")[1]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([sample(0)], "judge only the 1 that have one with --tasks given (--tasks Own/0)"),
        ([sample(7)], "unknown tasks: Own/7"),
        (b"", "no samples"),
        (b"\x1f\x8b damaged", "a damaged .gz file"),
        ([sample(0), sample(1), sample(7)], "unknown tasks: Own/7"),
        ([sample(0), sample(0), sample(1), sample(2)], "Own/0 has 2"),
        ([sample(0), {"task_id": "Own/1"}], "line 2: found the fields ['task_id'], expected"),
        ([sample(0), {"task_id": 1, "solution": ""}], "line 2: task_id is int, expected text"),
        ([sample(0), ["Own/1"]], "line 2: found list, expected a JSON object"),
        (b'{"task_id": "Own/0", "solution": "\xff"}\n', "not UTF-8 (byte 34)"),
        (b'{"task_id": "Own/0", \n', "line 1: not JSON"),
        (
            b'{"n": ' + b"1" * 5000 + b"}\n",
            "line 1: not JSON (it holds an integer of more than 4300",
        ),
        (b'{"n": ' + b"[" * 100_000, "line 1: not JSON (it is nested too deeply"),
    ],
)
def test_samples_that_do_not_fit_are_the_users_mistake_and_nothing_is_written(
    judged: Callable[..., tuple[int, str]],
    tmp_path: Path,
    lines: list[object] | bytes,
    sentence: str,
) -> None:
    before = sorted(tmp_path.iterdir())
    code, said = judged(lines)
    assert code == 2 and sentence in said and "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "samples.jsonl"])


def test_a_result_that_exists_is_not_overwritten(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    out = tmp_path / "samples_eval_results.json"
    out.write_text("mine")
    code, said = judged([sample(0), sample(1)])
    assert (code, out.read_text()) == (2, "mine") and "is not overwritten" in said


def test_an_unknown_task_of_a_selection_is_named_with_the_nearest(
    judged: Callable[..., tuple[int, str]],
) -> None:
    code, said = judged([sample(0)], "--tasks", "Own/9")
    assert code == 2 and "there is no task 'Own/9'" in said


FENCED = f"Here it is:\n```python\n{RIGHT}```\n"


def test_packed_files_and_files_with_a_byte_order_mark_are_read(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    lines = "".join(json.dumps(sample(task)) + "\n" for task in (0, 1)).encode()
    for number, content in enumerate((gzip.compress(lines), b"\xef\xbb\xbf" + lines)):
        code, said = judged(content, "--out", str(tmp_path / f"{number}.json"))
        assert code == 0 and "pass@1 base 1.000, plus 1.000" in said


def test_a_folder_in_evalplus_form_is_judged_into_the_file_where_evalplus_would_write(
    make_benchmark: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_benchmark(["one", "two"]).path
    for task, number, solution in ((0, 0, RIGHT), (0, 1, WRONG), (1, 0, WRONG), (1, 1, WRONG)):
        file = tmp_path / "mine" / f"Own_{task}" / f"{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(solution)
    assert cli.main(["judge", str(tmp_path / "mine"), "--suite", "mini", "--data", str(data)]) == 0
    assert "2 tasks, 4 samples\npass@1 base 0.250" in capsys.readouterr().out
    assert (tmp_path / "mine" / "eval_results.json").is_file()


def test_raw_answers_are_refused_until_it_is_said_whether_to_sanitise_them(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    lines = [sample(0, FENCED), sample(1, FENCED)]
    code, said = judged(lines)
    assert code == 2 and "every sample is a syntax error" in said and "--sanitize" in said
    assert "2 with a code fence" in said
    code, said = judged(lines, "--sanitize", "--out", str(tmp_path / "a.json"))
    assert code == 0 and "pass@1 base 1.000" in said
    code, said = judged(lines, "--no-sanitize", "--out", str(tmp_path / "b.json"))
    assert code == 0 and "pass@1 base 0.000" in said and "syntax 2" in said


@pytest.mark.parametrize("other", ["", "\n", "Sorry"])
def test_an_answer_that_is_blank_or_a_word_does_not_make_the_others_programs(
    judged: Callable[..., tuple[int, str]], other: str
) -> None:
    """Each of these is a program to Python, and was taken for proof that programs were meant."""
    tilde = f"Sure.\n~~~py\n{RIGHT}~~~\n"
    code, said = judged([sample(t, text) for t in (0, 1) for text in (FENCED, tilde, other)])
    assert code == 2 and "most samples are no programs (4 of 6, 4 with a code fence)" in said
    assert "add --sanitize" in said and "--no-sanitize" in said


def test_programs_of_which_few_are_fenced_or_most_are_broken_are_judged(
    judged: Callable[..., tuple[int, str]],
) -> None:
    code, said = judged([sample(t, text) for t in (0, 1) for text in (RIGHT, FENCED, "def", "f(")])
    assert code == 0 and "pass@1 base 0.250" in said and "syntax 6" in said


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_workers_are_counted_from_one(
    judged: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str], count: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        judged([sample(0)], "--workers", count)
    assert ended.value.code == 2
    assert f"found '{count}'; expected a whole number above 0" in capsys.readouterr().err


def test_answers_of_which_only_the_beginning_is_searched_are_counted_beside_the_number(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = judged([sample(0, "x" * 60_000 + "\n" + FENCED), sample(1, FENCED)], "--sanitize")
    assert code == 0 and "pass@1 base 0.500" in said
    assert "1 of 2 answers are longer than 60000 characters or 1500 lines: only their beg" in said
    result = json.loads((tmp_path / "samples_eval_results.json").read_text())
    assert result["conditions"]["in_part"] == 1


def test_only_the_tasks_that_have_samples_or_a_part_of_the_samples(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert "1 tasks, 1 samples" in judged([sample(1)], "--tasks", "given")[1]
    more = ["--tasks", "Own/0", "--out", str(tmp_path / "part.json")]
    assert "1 tasks, 1 samples" in judged([sample(0), sample(1)], *more)[1]


def test_missing_samples_are_named_before_a_benchmark_is_looked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaq.evaluation.benchmarks.load", lambda *a, **k: pytest.fail("looked"))
    assert cli.main(["judge", str(tmp_path / "no.jsonl"), "--suite", "humaneval"]) == 2
    assert "no.jsonl: cannot be read (No such file or directory)" in capsys.readouterr().err


PROGRAMS = {
    "asyncio": "import asyncio\nasync def g(x):\n    await asyncio.sleep(0)\n    return x + 1\n"
    "def f(x):\n    return asyncio.run(g(x))\n",
    "home": "import os, tempfile\nHOME = os.environ['HOME']\n"
    "def f(x):\n    return x + (os.path.isdir(HOME) and os.path.isdir(tempfile.gettempdir()))\n",
    "a thread, if there are any": "import threading\n"
    "def f(x):\n    try:\n        threading.Thread(target=print).start()\n"
    "    except RuntimeError:\n        return x + 1\n",
}


@pytest.mark.parametrize("level", ["bubblewrap", "unshare", "landlock", "limits"])
def test_at_each_level_right_programs_pass_from_a_folder_of_ones_own(
    make_benchmark: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = make_benchmark(list(PROGRAMS)).path
    (tmp_path / "my work").mkdir()
    monkeypatch.chdir(tmp_path / "my work")
    rows = [sample(task, program) for task, program in enumerate(PROGRAMS.values())]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = cli.main(
        ["judge", "mine.jsonl", "--suite", "mini", "--data", str(data), "--sandbox", level]
    )
    said = capsys.readouterr()
    if "no sandbox" in said.err or "does not work" in said.err:
        pytest.skip(f"{level} is not to be had here")
    assert code == 0 and "pass@1 base 1.000, plus 1.000" in said.out, said
    assert Path("mine_eval_results.json").is_file()


GETTING_OUT = """
import array, socket
def f(x):
    done = 0
    for attempt in (
        lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        lambda: socket.socketpair()[0].connect("/x"),
        lambda: socket.socketpair()[0].bind("\\0x"),
        lambda: socket.send_fds(socket.socketpair()[0], [b"x"], [0]),
    ):
        try:
            attempt()
        except PermissionError:
            done += 1
    return x + (done == 5)
"""


def test_a_pair_of_streams_reaches_nothing_and_passes_on_no_descriptor(
    judged: Callable[..., tuple[int, str]],
) -> None:
    assert "pass@1 base 1.000" in judged([sample(0, GETTING_OUT)], "--tasks", "given")[1]
