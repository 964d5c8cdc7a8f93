"""Benchmark files: found, checked by hash, cut to a subset, and refused with a clear sentence."""

import gzip
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import evalplus.eval as checker
import pytest
from evalplus.data.mbpp import mbpp_deserialize_inputs
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS, MBPP_OUTPUT_SET_EQ_TASKS

from qaq.evaluation import benchmarks
from qaq.evaluation.benchmarks import Benchmark, identity, load
from qaq.evaluation.config import SUITES, BenchmarkConfig, Suite
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import Sample
from qaq.evaluation.problems import OWN_NUMBERS, SPECIAL
from qaq.host.errors import DataError

ORACLES = (MBPP_OUTPUT_NOT_NONE_TASKS, MBPP_OUTPUT_SET_EQ_TASKS)
Make = Callable[..., Benchmark]

ROW = {
    "task_id": "Own/0",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "canonical_solution": "    return x\n",
    "base_input": [[1]],
    "plus_input": [],
    "contract": "",
    "atol": 0,
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file comes from this machine's cache, and none from the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for suite in SUITES.values():
        if suite.release:
            monkeypatch.delenv(suite.release.override, raising=False)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_real_files_are_the_known_releases(shared_data: Path) -> None:
    folder = shared_data / "evalplus"
    humaneval = load("humaneval", folder / "HumanEvalPlus.jsonl")
    mbpp = load("mbpp", folder / "MbppPlus.jsonl")
    assert (len(humaneval.problems), len(mbpp.problems)) == (164, 378)
    assert (humaneval.format, mbpp.format) == ("humaneval", "mbpp")


def test_the_override_variable_of_evalplus_is_honoured(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shared_data / "evalplus" / "MbppPlus.jsonl"
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(file))
    assert load("mbpp", limit=2).path == file.resolve()


def test_the_configured_file_wins_over_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write(tmp_path / "own.jsonl", ROW)
    monkeypatch.setenv("HUMANEVAL_OVERRIDE_PATH", str(tmp_path / "other.jsonl"))
    assert load("humaneval", own, allow_unknown=True).path == own


def test_a_file_with_another_hash_is_refused_and_says_how_to_allow_it(tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", ROW)
    with pytest.raises(DataError, match=r"unknown version of humaneval .*allow_unknown_data=true"):
        load("humaneval", own)
    with pytest.raises(DataError, match="unknown version"):
        identity("humaneval", own)
    assert len(load("humaneval", own, allow_unknown=True).problems) == 1


def test_identity_follows_the_content_and_not_the_path(tmp_path: Path) -> None:
    first = identity("mini", write(tmp_path / "a.jsonl", ROW))
    assert identity("mini", write(tmp_path / "b.jsonl", ROW)) == first
    assert identity("mini", write(tmp_path / "b.jsonl", ROW | {"atol": 1})) != first


def test_a_release_is_fetched_once_checked_and_kept(shared_data: Path, tmp_path: Path) -> None:
    content = (shared_data / "evalplus" / "HumanEvalPlus.jsonl").read_bytes()
    source = tmp_path / "release.jsonl.gz"
    source.write_bytes(gzip.compress(content, 1))
    target = benchmarks._evalplus_cache() / "HumanEvalPlus-v0.1.10.jsonl"
    benchmarks._download("humaneval", source.as_uri(), target)
    assert load("humaneval", limit=1).path == target


def test_a_damaged_download_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "release.jsonl.gz"
    source.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    target = tmp_path / "cache" / "x.jsonl"
    with pytest.raises(DataError, match="unknown version"):
        benchmarks._download("humaneval", source.as_uri(), target)
    assert not target.exists()


def test_without_file_and_network_the_fix_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"benchmark\.files\.mbpp=FILE or MBPP_OVERRIDE_PATH=FILE"):
        benchmarks._download("mbpp", (tmp_path / "absent").as_uri(), tmp_path / "t.jsonl")


def test_a_path_that_does_not_exist_is_named_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no such file: .*benchmark\.files\.humaneval"):
        load("humaneval", tmp_path / "absent.jsonl")
    monkeypatch.setenv("HUMANEVAL_OVERRIDE_PATH", str(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match=r"no such file: .*HUMANEVAL_OVERRIDE_PATH"):
        load("humaneval")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{k: v for k, v in ROW.items() if k != "contract"}],
            "line 1: field 'contract' is missing",
        ),
        ([ROW | {"base_input": "1"}], "field 'base_input' is str, expected list"),
        ([ROW | {"atol": "0"}], "field 'atol' is str, expected int or float"),
        ([ROW, ROW], "line 2: task Own/0 occurs twice"),
        ([[1, 2]], "line 1: found list, expected a JSON object"),
        (
            [ROW | {"task_id": "A/b_c"}, ROW | {"task_id": "A_b/c"}],
            "A/b_c and A_b/c would have one",
        ),
        (
            [ROW | {"entry_point": "find_zero"}],
            "'Own/0' asks for find_zero, which EvalPlus judges by",
        ),
        ([], "no problems"),
    ],
)
def test_a_bad_row_is_named_with_its_line(rows: list[object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load("mini", write(tmp_path / "bad.jsonl", *rows))


@pytest.mark.parametrize("line", ['{"task_id": ', "[" * 100_000, "1" * 5000])
def test_a_line_that_is_not_json_is_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path / "bad.jsonl", ROW)
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(DataError, match="line 2: not JSON"):
        load("mini", file)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(json.dumps(ROW).encode() + b"\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load("mini", file)


def test_an_mbpp_task_must_end_in_a_number(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", ROW | {"task_id": "Own/first"})
    with pytest.raises(DataError, match="must end in a number"):
        load("mbpp", file, allow_unknown=True)


def special_names() -> dict[str, set[str]]:
    """The names in EvalPlus's own comparison, by form."""
    source = inspect.getsource(checker.unsafe_execute)
    mbpp, humaneval = source.split('if dataset == "humaneval"')
    names = [set(re.findall(r'"(\w+)"\s*== entry_point', part)) for part in (mbpp, humaneval)]
    return {"mbpp": names[0].union(*(oracle for oracle in ORACLES)), "humaneval": names[1]}


def test_the_functions_with_rules_of_their_own_are_those_of_evalplus() -> None:
    assert special_names() == SPECIAL


@pytest.mark.parametrize("name", sorted(SPECIAL["mbpp"]))
def test_a_function_of_ones_own_has_no_name_with_a_rule_of_its_own(
    name: str, tmp_path: Path
) -> None:
    def read(task: str, form: str = "mbpp") -> Benchmark:
        file = write(tmp_path / "own.jsonl", ROW | {"entry_point": name, "task_id": task})
        return load("own", suite=Suite(file=file, format=form))

    with pytest.raises(DataError, match=f"asks for {name}, .*give your function another name"):
        read("Own/1000")
    assert read("Mbpp/164") and read("Own/0", "humaneval")


@pytest.mark.parametrize("task", ["Own/2", "2", "Own/999", "Mbpp2/2"])
def test_a_task_of_ones_own_has_no_number_by_which_inputs_are_changed(
    task: str, tmp_path: Path
) -> None:
    """Else the lists of task 2 would come as tuples, and a right program for lists would fail."""
    suite = Suite(file=write(tmp_path / "own.jsonl", ROW | {"task_id": task}), format="mbpp")
    with pytest.raises(DataError, match="number your own tasks from 1000, or call it Mbpp/"):
        load("own", suite=suite)


def test_no_number_from_which_own_tasks_count_is_one_that_evalplus_knows() -> None:
    numbers = re.findall(r"\b\d+\b", inspect.getsource(mbpp_deserialize_inputs))
    assert len(numbers) > 50 and max(map(int, numbers)) < OWN_NUMBERS


def test_problems_without_tests_are_refused_where_they_would_be_judged(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"task_id": "Own/1", "base_input": []}]
    suite = Suite(file=write(tmp_path / "own.jsonl", *rows))
    with pytest.raises(DataError, match=r"1 of 2 problems have no tests \(the first: Own/1\), so "):
        benchmarks.refuse_untested(load("own", suite=suite))
    benchmarks.refuse_untested(load("own", suite=suite, tasks=["Own/0"]))  # it was left out
    benchmarks.refuse_untested(load("own", suite=replace(suite, judge="one of my own")))


def test_a_packed_file_is_the_same_benchmark(tmp_path: Path) -> None:
    plain = Suite(file=write(tmp_path / "own.jsonl", ROW))
    packed = Suite(file=tmp_path / "own.jsonl.gz")
    assert plain.file and packed.file
    packed.file.write_bytes(gzip.compress(plain.file.read_bytes()))
    assert identity("own", suite=packed) == identity("own", suite=plain)
    found = load("own", suite=packed)
    assert found.problems == load("own", suite=plain).problems
    right = "def f(x):\n    return x\n"
    result = judge(found, [Sample("Own/0", 0, "", right)], JudgeSettings(), tmp_path / "work")
    assert result.outcomes[0].plus_passed
    packed.file.write_bytes(packed.file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"own\.jsonl\.gz: a damaged \.gz file"):
        load("own", suite=packed)


def test_a_subset_is_chosen_by_name_and_then_cut() -> None:
    chosen = load("mini", tasks=["Mini/7", "Mini/3", "Mini/5"], limit=2)
    assert [p.task_id for p in chosen.problems] == ["Mini/3", "Mini/5"]


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"no task 'mini/3'; did you mean Mini/3\?"):
        load("mini", tasks=["mini/3"])
    with pytest.raises(DataError, match="the list is empty"):
        load("mini", tasks=[])


def test_tasks_of_several_suites_are_given_to_their_own(tmp_path: Path) -> None:
    files = {
        "humaneval": write(
            tmp_path / "a.jsonl", ROW | {"task_id": "A/0"}, ROW | {"task_id": "A/1"}
        ),
        "mbpp": write(tmp_path / "b.jsonl", ROW | {"task_id": "B/1007"}),
    }

    suites = {n: benchmarks.suite_of(n, f, allow_unknown=True) for n, f in files.items()}

    def split(*tasks: str) -> dict[str, tuple[str, ...] | None]:
        return benchmarks.split_tasks(suites, tasks)

    assert split("B/1007", "A/1") == {"humaneval": ("A/1",), "mbpp": ("B/1007",)}
    assert benchmarks.split_tasks(suites, None) == {
        "humaneval": None,
        "mbpp": None,
    }
    with pytest.raises(DataError, match=r"there is no task 'B/1008'; did you mean B/1007\?"):
        split("A/0", "B/1008")
    with pytest.raises(DataError, match="names no task of mbpp"):
        split("A/0")


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(DataError, match="expected 1 or more"):
        load("mini", limit=limit)


def own(suites: object, **more: object) -> BenchmarkConfig:
    return BenchmarkConfig(name="own", suites=suites, **more)  # type: ignore[arg-type]


def test_a_suite_of_ones_own_has_any_name_and_its_own_file(tmp_path: Path) -> None:
    file = write(tmp_path / "strings.jsonl", ROW)
    config = own({"strings": {"file": str(file), "title": "Strings"}})
    assert config.faults() == []
    loaded = load("strings", suite=config.resolved["strings"])
    assert (loaded.name, loaded.judge, len(loaded.problems)) == ("strings", "evalplus", 1)


def test_form_judge_and_prompt_of_ones_own_count_in_the_key_and_the_title_does_not(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "a.jsonl", ROW | {"task_id": "Own/1001"})
    plain = identity("own", suite=Suite(file=file))
    assert identity("own", suite=Suite(file=file, title="Mine")) == plain
    assert identity("own", suite=Suite(file=file, format="mbpp")) != plain
    assert identity("own", suite=Suite(file=file, prompt="Do {problem}")) != plain
    assert identity("mini", file) == plain  # the keys of known suites have no further part


@pytest.mark.parametrize(
    ("suites", "more", "sentence"),
    [
        (["humanevil"], {}, "there is no suite 'humanevil'"),
        ({"own": {}}, {}, "benchmark.suites.own: file is null"),
        ({"own": {"file": "absent.jsonl"}}, {}, "no such file: absent.jsonl"),
        (["mini"], {"files": {"minni": "x"}}, "benchmark.files.minni: the benchmark has no such"),
        ({"own": {"file": __file__, "prompt": "no place"}}, {}, "{problem}"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said_with_its_field(
    suites: object, more: dict[str, object], sentence: str
) -> None:
    (fault,) = own(suites, **more).faults()
    assert sentence in fault
