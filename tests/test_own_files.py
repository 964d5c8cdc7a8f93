"""Files of one's own that say or give what they must not: refused by name, and hashed whole."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from qaq import cli
from qaq.data.config import SOURCES, DataConfig
from qaq.data.identity import identity
from qaq.evaluation import benchmarks
from qaq.evaluation.config import DATA, Suite
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.judge.names import JUDGES
from qaq.evaluation.judge.samples import Wanted, judge_file
from qaq.evaluation.outcomes import Sample
from qaq.host import plugins
from qaq.host.errors import ConfigError, UserError
from qaq.host.plugins import PluginError, source_hash
from qaq.models.config import ModelConfig
from qaq.run.catalogue import lines
from qaq.run.compose import compose
from qaq.run.pipeline import plan
from qaq.scoring import metrics
from qaq.scoring.config import FRAMINGS, FramingConfig
from qaq.scoring.framing import make_framer
from qaq.selection.config import RULES, fingerprint
from qaq.selection.pool import Pool
from qaq.selection.rules import select

REGISTRIES = (SOURCES, JUDGES, FRAMINGS, RULES, metrics.METRICS)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Puts a file into a folder of QAQ_PATH; nothing of it stays behind."""
    folder = tmp_path / "own"
    folder.mkdir()
    for registry in REGISTRIES:
        len(registry)
        for held in ("_values", "_modules", "_makers"):
            monkeypatch.setattr(registry, held, dict(getattr(registry, held)))
    monkeypatch.setattr(metrics, "_TITLES", dict(metrics._TITLES))
    monkeypatch.setattr(plugins, "_STATE", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("QAQ_PATH", str(folder))
    monkeypatch.setenv("QAQ_PLUGINS_SEEN", "{}")
    source_hash.cache_clear()

    def write(name: str, text: str) -> Path:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        source_hash.cache_clear()
        return folder / name

    yield write
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", "")):
            del sys.modules[name]
    source_hash.cache_clear()


METRIC = """
from qaq.scoring.metrics import column, metric

@metric({title!r})
def {name}(columns):
    return column(columns, "nll_a")
"""
RULE = """
from typing import ClassVar, Literal
import numpy as np
from pydantic.dataclasses import dataclass
from qaq.selection.config import FORBID, rule
from qaq.selection.decision import Decision, decide

@dataclass(frozen=True, kw_only=True, config=FORBID)
class Mine:
    needs: ClassVar = {needs}
    spans: ClassVar = {spans}
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = False
    method: Literal["mine"] = "mine"
    metric: str = "dens"

@rule(Mine)
def mine(config, pool, size, seed):
    n = len(pool)
    return {returned}
"""
GOOD = 'decide(pool, ["kept: all"], np.zeros(n, int))'


def rule_text(needs='("strong",)', spans='("a",)', returned=GOOD):
    return RULE.format(needs=needs, spans=spans, returned=returned)


def test_a_rule_that_takes_a_metric_by_its_name_has_the_metric_s_hash(own):
    own("mine_rule.py", rule_text())
    file = own("dens_file.py", METRIC.format(name="dens", title="density"))
    config = compose(["selector=mine", "train=none"])
    before = fingerprint(config.selector)
    assert set(before) == {"rule/mine", "metric/dens"}
    keys = [s.key for s in plan(config) if s.kind == "subset"]
    file.write_text(file.read_text() + "# another\n")
    source_hash.cache_clear()
    assert fingerprint(config.selector)["metric/dens"] != before["metric/dens"]
    assert [s.key for s in plan(config) if s.kind == "subset"] != keys


def test_a_rule_of_ours_with_a_metric_of_ours_has_no_hash_beside_a_metric_of_the_user(own):
    own("dens_file.py", METRIC.format(name="dens", title="density"))
    assert fingerprint(compose(["selector=rmi_band"]).selector) == {}


@pytest.mark.parametrize(
    ("name", "title", "message"),
    [
        ("ifd", "mine", "ifd, which stands for ifd_loss_ratio"),
        ("perplexity", "mine", "perplexity, which stands for perplexity_pair"),
        ("all", "mine", "all, which stands for every metric"),
        ("fresh", "RMI", "'RMI' is the title of the metric rmi already"),
    ],
)
def test_a_metric_cannot_be_taken_for_another(own, name, title, message):
    own("mine_metric.py", METRIC.format(name=name, title=title))
    with pytest.raises(PluginError, match=message):
        len(metrics.METRICS)


SOURCE = """
from qaq.data.sources import source

@source("mine"{more})
def mine(config):
    yield {{"question": "q", "answer": config.path.read_text()}}
"""


def test_a_source_with_an_identity_keeps_the_content_of_its_path(own, tmp_path):
    own("mine_source.py", SOURCE.format(more=", identity=lambda config: {'commit': 'abc'}"))
    path = tmp_path / "a.txt"
    config = DataConfig(name="m", source="mine", path=path)
    path.write_text("one")
    before = identity(config)
    assert set(before) == {"source/mine", "commit", "path_sha256"}
    path.write_text("other")
    assert identity(config) != before
    path.unlink()  # what is no file may be an address, which `identity` answers for
    assert set(identity(config)) == {"source/mine", "commit"}


def test_a_file_of_another_name_in_the_folder_of_a_source_is_another_pool(own, tmp_path):
    own("mine_source.py", SOURCE.format(more=""))
    folder = tmp_path / "rows"
    (folder / "easy").mkdir(parents=True)
    (folder / "easy" / "a.txt").write_text("one")
    config = DataConfig(name="m", source="mine", path=folder)
    before = identity(config)
    (folder / "easy").rename(folder / "hard")
    assert identity(config) != before
    (folder / "hard").rename(folder / "easy")
    assert identity(config) == before


FRAMING = """
from qaq.scoring.framing import Framed, Rendering, Span, framing

@framing("mine")
def mine(config, model, tokenizer, system_prompt):
    return {returned}
"""
FRAMED = 'Framed((Rendering((0, 1), (Span("q", {start}, 2),)),), {{"q": len(q)}})'


@pytest.mark.parametrize("takes", ["q, a", "q, a, input_start", "q, a, input_start=None", "q, *a"])
def test_a_framing_may_be_a_function_of_two_or_three(own, takes):
    own("mine_framing.py", FRAMING.format(returned=f"lambda {takes}: {FRAMED.format(start=1)}"))
    model = ModelConfig(name="m", id="/nowhere")
    framer = make_framer(FramingConfig(name="mine", kind="mine"), model, None, None)
    assert framer("four", "x", None).bytes == {"q": 4}


def test_a_span_with_nothing_before_it_is_refused(own):
    own("mine_framing.py", FRAMING.format(returned=f"lambda q, a: {FRAMED.format(start=0)}"))
    model = ModelConfig(name="m", id="/nowhere")
    framer = make_framer(FramingConfig(name="mine", kind="mine"), model, None, None)
    with pytest.raises(UserError, match=r"gave Span.*expected .* 1 <= start"):
        framer("four", "x", None)


@pytest.mark.parametrize(
    ("needs", "spans", "message"),
    [
        ('"strong"', '("a",)', "needs = 'strong'; expected a tuple of some of strong, weak"),
        ('("strogn",)', '("a",)', r"needs = \('strogn',\); expected"),
        ('("queries",)', "()", r".*queries are compared with embeddings"),
        ('("strong",)', '("answer",)', r"spans = \('answer',\); expected .* q, q_given_a"),
        ('("strong",)', '"q_given_a"', "spans = 'q_given_a'; expected a tuple"),
        ("None", "()", "needs = None; expected"),
    ],
)
def test_a_rule_that_says_it_reads_what_there_is_not_is_refused(own, needs, spans, message):
    own("mine_rule.py", rule_text(needs, spans))
    with pytest.raises(PluginError, match=rf"mine_rule.py:\d+: TypeError: Mine has {message}"):
        len(RULES)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "mine returned NoneType; a rule returns a Decision"),
        (
            'decide(pool, ["k"], np.zeros(n - 1, int))',
            r"label of shape \(3,\) .*expected 4 integer",
        ),
        ('decide(pool, ["k"], np.zeros(n))', "type float64; .*expected 4 integers"),
        ('decide(pool, ["k", "d"], np.zeros(n, bool))', "type bool; .*expected 4 integers"),
        ('decide(pool, ["k"], np.zeros(n, int), score=np.zeros(2))', "a score of shape"),
        ('decide(pool, ["k", "d"], np.arange(n))', "labels from 0 to 3 for 2 texts"),
        ('decide(pool, ["k", "d"], np.full(n, -2))', "labels from -2 to -2 for 2 texts"),
        ("exit(0)", r"mine_rule.py:\d+: it ended the program"),
    ],
)
def test_what_a_rule_returns_is_a_decision_about_every_row(own, returned, message):
    own("mine_rule.py", rule_text(returned=returned))
    mine = RULES["mine"].config()
    with pytest.raises(UserError, match=message):
        select(mine, Pool(np.arange(4, dtype=np.uint64)))


def test_reasons_are_looked_for_in_score_tables_alone_and_counts_are_numbers(own):
    label = "np.array([0, -1, 0, 0])"
    returned = f'decide(pool, ["k"], {label}, roles=("overlaps",), selectable=np.int64(3))'
    own("mine_rule.py", rule_text(needs='("overlaps",)', returned=returned))
    decision = select(RULES["mine"].config(), Pool(np.arange(4, dtype=np.uint64)))
    assert decision.counts() == {"k": 3, "no score: not a finite number": 1}
    assert type(decision.selectable) is int


@pytest.mark.parametrize(
    ("needs", "kinds"),
    [
        ('("embeddings",)', {"embeddings": 1}),
        ('("embeddings", "queries")', {"embeddings": 2}),
        ('("overlaps",)', {"overlaps": 1}),
    ],
)
def test_a_rule_without_parameters_for_them_gets_vectors_and_overlaps(own, needs, kinds):
    own("mine_rule.py", rule_text(needs, "()"))
    stages = plan(compose(["selector=mine", "train=none"]))
    subset = next(s for s in stages if s.kind == "subset")
    found = [s.kind for role, s in subset.inputs.items() if role != "pairs"]
    assert {kind: found.count(kind) for kind in found} == kinds


JUDGE = """
from qaq.evaluation.judge.registry import judge
from qaq.evaluation.outcomes import Outcome

@judge("mine")
def mine(problems, samples, bench):
    {given}
"""
GIVEN = "{how} [Outcome(s.task_id, s.index, s.raw, {base}, {plus}, {failure}) for s in samples]"


def judged(raw="def f(): pass"):
    suite = Suite(file=DATA / "mini.jsonl", judge="mine")
    bench = benchmarks.load("mini", suite=suite, limit=1)
    samples = [Sample(p.task_id, 0, raw, raw) for p in bench.problems]
    return judge(bench, samples, JudgeSettings(), Path("unused"))


@pytest.mark.parametrize("how", ["return", "yield from"])
def test_a_judge_of_one_s_own_gives_outcomes_one_by_one_or_together(own, how):
    given = GIVEN.format(how=how, base="'pass'", plus="'fail'", failure="'wrong'")
    own("mine_judge.py", JUDGE.format(given=given))
    (outcome,) = judged().outcomes
    assert (outcome.solution, outcome.base_passed, outcome.plus_passed) == (
        "def f(): pass",
        True,
        False,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GIVEN.format(how="return", base="True", plus="True", failure="None"), "expected base_"),
        (GIVEN.format(how="return", base="'passed'", plus="'passed'", failure="None"), "passed"),
        (
            GIVEN.format(how="return", base="'pass'", plus="None", failure="None"),
            "one set of tests",
        ),
        (GIVEN.format(how="return", base="'fail'", plus="'fail'", failure="'bad'"), "FAIL|wrong"),
        ("return [{} for s in samples]", "expected an Outcome for each sample"),
        ("pass", "mine_judge.py: TypeError"),
        ("yield 1 / 0", r"mine_judge.py:\d+: ZeroDivisionError"),
    ],
)
def test_a_judge_that_speaks_other_words_is_refused(own, given, message):
    own("mine_judge.py", JUDGE.format(given=given))
    with pytest.raises(UserError, match=message):
        judged()


def test_a_judge_gets_the_text_of_a_sample_from_a_file_as_it_does_in_a_run(own, tmp_path):
    given = GIVEN.format(how="return", base="'pass'", plus="'pass'", failure="None")
    own("mine_judge.py", JUDGE.format(given=given))
    suite = Suite(file=DATA / "mini.jsonl", judge="mine")
    bench = benchmarks.load("mini", suite=suite, limit=1)
    file = tmp_path / "samples.jsonl"
    (task,) = bench.by_id()
    file.write_text(json.dumps({"task_id": task, "solution": "x = 1\n"}))
    for name, wanted in (("a", Wanted()), ("b", Wanted(sanitize=True))):
        _, _, result = judge_file(file, lambda: bench, JudgeSettings(), wanted, tmp_path / name)
        assert [o.solution for o in result.outcomes] == ["x = 1\n"]


def test_a_suite_whose_name_has_a_slash_is_refused_before_anything_runs(own):
    own("benchmark/two.yaml", f"name: two\nsuites: {{own/easy: {{file: {DATA / 'mini.jsonl'}}}}}\n")
    with pytest.raises(ConfigError, match=r"benchmark.suites: .* found own/easy, take own_easy"):
        compose(["benchmark=two"])


def test_an_option_for_a_model_may_start_from_another_one(own):
    own("model/exact.yaml", "defaults: [gemma3_270m]\ndtype: float32\n")
    model = compose(["model@models.strong=exact"]).models.strong
    usual = compose(["model@models.strong=gemma3_270m"]).models.strong
    assert (model.id, model.dtype) == (usual.id, "float32")
    other = compose(["model@models.strong=exact", "models.strong.id=own/model"]).models.strong
    assert (other.id, other.name) == ("own/model", "own-model")


def test_one_suite_of_several_is_judged_by_the_name_of_both(own, tmp_path, capsys):
    given = GIVEN.format(how="return", base="'pass'", plus="'pass'", failure="None")
    own("mine_judge.py", JUDGE.format(given=given))
    suite = f"{{file: {DATA / 'mini.jsonl'}, judge: mine}}"
    own("benchmark/pair.yaml", f"name: pair\nsuites:\n  easy: {suite}\n  hard: {suite}\n")
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"task_id": "Mini/0", "solution": "x = 1\n"}))
    more = ["--tasks", "given", "--out", str(tmp_path / "result.json")]
    assert cli.main(["judge", str(samples), "--suite", "pair", *more]) == 2
    assert "--suite pair:easy or --suite pair:hard" in capsys.readouterr().err
    assert cli.main(["judge", str(samples), "--suite", "pair:hard", *more]) == 0
    assert capsys.readouterr().out.startswith("hard: 1 tasks, 1 samples")


def test_a_rule_and_a_source_of_one_s_own_are_listed_with_what_they_say_they_are(own):
    text = rule_text().replace(
        "    needs:", '    """The rows as they come. More."""\n\n    needs:', 1
    )
    own("mine_rule.py", text)
    text = SOURCE.format(more="").replace("    yield", '    """One row, twice."""\n    yield', 1)
    own("mine_source.py", text)
    assert "mine The rows as they come" in [" ".join(line.split()) for line in lines("rules")]
    assert "mine One row, twice" in [" ".join(line.split()) for line in lines("data")]
