"""`qaq plan`: why a stage runs, and about what it takes."""

import itertools
import json
import re
import weakref
from pathlib import Path

import pytest

from qaq.cli import main
from qaq.data.config import DataConfig
from qaq.host import hardware
from qaq.host.errors import UserError
from qaq.host.progress import duration
from qaq.models.config import ModelConfig
from qaq.plan import counting
from qaq.plan.devices import device_named
from qaq.plan.estimate import Work
from qaq.plan.observed import rate_of
from qaq.plan.planning import opening, plan_lines, strength
from qaq.plan.sizes import SAMPLE, Known, named_size, shape_of, spread
from qaq.run.compose import compose
from qaq.run.fingerprints import tolerant
from qaq.run.pipeline import Run, plan
from qaq.store.store import Store

PAPER = [
    "data=warriorcoder", "train=paper", "eval=chat", "benchmark=code", "selector=diff_high",
    "model@models.strong=deepseek_coder_6_7b", "model@models.weak=qwen3_0_6b",
    "model@models.target=deepseek_coder_6_7b", "runtime=h200",
]  # fmt: skip


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, no benchmark data, nothing cached."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("qaq.evaluation.benchmarks._download", _no_network)
    monkeypatch.chdir(tmp_path)


def _no_network(suite, url, target):
    raise UserError(f"the {suite} problems could not be fetched")


def test_the_paper_s_run_is_estimated_offline_and_says_on_what_that_rests(offline, capsys):
    assert main(["plan", *PAPER, "metrics=all", "--device", "h200"]) == 0
    out = capsys.readouterr().out
    scores, weak = (line for line in out.splitlines() if line.startswith("scores"))
    # 550M tokens in three passes at the rates of results/performance/scoring_h100.json
    strong_hours = float(re.search(r"([\d.]+) h ", scores)[1])
    assert strong_hours == pytest.approx(550e6 / 47_279 / 3600, rel=0.1)
    weak_minutes = float(re.search(r"([\d.]+) min ", weak)[1])
    assert weak_minutes == pytest.approx(550e6 / 162_547 / 60, rel=0.1)
    assert "7.1e+18 FLOP" in scores  # 2 x 6.7e9 a token, the head only where one is scored
    assert "310,000 rows" in out
    assert "6.7B parameters, from its name" in out
    assert "0.6B parameters, from its name" in out
    assert "cannot run yet: the data set HuggingMicah/warrior_reproduce is not whole in" in out
    assert "????????" in scores  # a key that cannot be known is not shown
    assert re.search(r"to run, about: .* \d+\.\d\d \$", out)


def test_a_rule_that_reads_the_question_alone_and_behind_its_answer_needs_half_of_it(offline):
    planned = {
        more: "\n".join(plan_lines([*PAPER, *more], "h200")) for more in ((), ("metrics=all",))
    }
    tokens = [
        float(re.search(r"scores +warriorcoder-deepseek\S+ .*?(\d+)M tokens", text)[1])
        for text in planned.values()
    ]
    assert tokens == [238, 540]


def test_what_the_user_knows_better_replaces_the_assumption(offline):
    lines = "\n".join(plan_lines(PAPER, "h200", price=10.0, rows=1000, tokens=(50, 100)))
    assert "50 + 100 tokens, as --tokens says" in lines
    assert "10 $ an hour each" in lines


def test_a_run_opens_with_its_stages_and_the_time_that_its_plan_says(offline):
    lines = plan_lines(["experiment=quickstart"])
    total = next(line for line in lines if line.startswith("to run, about:"))
    said = opening([Run(compose(["experiment=quickstart"]))])
    assert said.startswith("21 stages, 21 to make: about ") and len(said) <= 100
    assert said.split("about ")[1].split(" on this machine")[0] in total


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--tokens", "3"], "expected two counts with a comma between them, as 120,480"),
        (["--rows", "-5"], "expected a whole number above 0"),
    ],
)
def test_counts_that_are_none_are_refused(option, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", *option])
    assert said in capsys.readouterr().err


def test_two_cores_are_the_same_on_every_machine(monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: 64)
    device = device_named("2cores", "bfloat16")
    assert (device.name, device.flops) == ("2 CPU cores", 2 * 532e9)


def test_an_unknown_device_is_a_mistake_that_names_the_known(capsys):
    assert main(["plan", "--device", "h300"]) == 2
    assert "h200" in capsys.readouterr().err


def test_a_run_still_refuses_what_cannot_be_looked_up(offline):
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        plan(compose(PAPER))


def test_a_sweep_names_each_stage_once_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "-m", "selector=rmi_band,random", "ratio=0.1,0.25", "seed=1,2"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^scores ", out, re.M)) == 1
    assert len(re.findall(r"^report ", out, re.M)) == 1
    assert len(re.findall(r"^adapter ", out, re.M)) == 8
    assert not (tmp_path / "artifacts").exists()


def test_it_says_why_a_stage_has_to_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = plan(compose([]))[0]
    store = Store(tmp_path / "artifacts")
    (store.work("pairs", pairs.key) / "out" / "pairs.parquet").write_bytes(b"")
    facts = {**pairs.identity, "summary": {}, "seconds": 61.0, "created": "2026-01-01"}
    store.publish("pairs", pairs.name, pairs.key, facts)
    assert main(["plan", "selector=random", "data.limit=9", "--tokens", "5,5"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "to run" in line
    assert "config.data.limit: None -> 9" in line
    again = plan(compose(["data.limit=9"]))[0]
    work = store.work("pairs", again.key)
    assert main(["plan", "selector=random", "data.limit=9", "--tokens", "5,5"]) == 0
    assert "continues where it stopped" in capsys.readouterr().out
    failure = {"message": "it broke", "traceback": "", "code": 1, "at": ""}
    (work / "failure.json").write_text(json.dumps(failure))
    assert main(["plan", "selector=random", "data.limit=9", "--tokens", "5,5"]) == 0
    assert "failed: it broke" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("deepseek-ai/deepseek-coder-6.7b-base", 6.7e9),
        ("Qwen/Qwen3-0.6B", 0.6e9),
        ("embedded:smollm2-135m-instruct", 135e6),
        ("gpt2", None),
    ],
)
def test_a_name_tells_the_size_or_nothing(name, size):
    assert named_size(name) == size


def test_a_model_of_unknown_size_is_not_counted_and_that_is_told(tmp_path):
    known = Known()
    assert known.model(ModelConfig(name="secret", id="someone/secret")) is None
    assert any("not counted" in text for text in known.assumed)


def test_the_shape_in_a_config_has_the_parameters_that_the_model_has(tiny_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    shape = shape_of(json.loads((tiny_model / "config.json").read_text()))
    assert shape.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.02)


@pytest.mark.parametrize(
    "family",
    [
        *("gpt2", "gptj", "codegen", "gpt_neo", "gpt_neox", "falcon", "starcoder2"),
        *("gemma3_text", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss"),
    ],
)
def test_a_family_s_own_names_defaults_and_experts_are_understood(family):
    """From what Transformers writes into the file: only what differs from the family's defaults."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[family]()
    config.num_hidden_layers = 4
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:4]
    if family == "gpt_neo":
        config.attention_types, config.attention_layers = [[["global"], 4]], ["global"] * 4
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_of(config.to_diff_dict() | {"model_type": family})
    assert shape.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.05)


def test_an_expert_that_a_token_does_not_pass_takes_memory_and_no_time():
    """Mixtral 8x7B, by its card: 46.7 billion parameters, of which a token uses 12.9."""
    shape = shape_of({
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2,
        "tie_word_embeddings": False,
    })  # fmt: skip
    assert shape.parameters == pytest.approx(46.7e9, rel=0.01)
    assert shape.body + 2 * shape.head == pytest.approx(12.9e9, rel=0.01)


@pytest.mark.parametrize(
    "tree",
    [
        *({}, {"model_type": "nobody_knows"}, {"hidden_size": "wide"}),
        {"model_type": "llama", "hidden_size": "wide"},
        {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 7},
    ],
)
def test_a_config_without_a_known_shape_is_a_note(tmp_path, tree):
    (tmp_path / "config.json").write_text(json.dumps(tree))
    known = Known()
    assert known.model(ModelConfig(id=str(tmp_path), name="mine")) is None
    assert known.model(ModelConfig(id=f"{tmp_path}/", name="mine-7b")).parameters == 7e9
    assert any("from its name (its config.json says no shape)" in text for text in known.assumed)


def test_the_rows_of_a_file_are_counted_and_sampled_from_all_over_it(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"question": "q" * 7, "answer": "a" * (7 if n < 5000 else 21)} for n in range(10_000)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(name="rows", source="jsonl", path=Path(file))
    sample = Known().sample(data, None)
    assert sample.rows == 10_000
    mean = sum(len(answer) for _, answer, *_ in sample.texts) / len(sample.texts)
    assert mean == pytest.approx(14, abs=0.3)


@pytest.mark.parametrize("count", [0, 1, SAMPLE, 2 * SAMPLE, 2 * SAMPLE + 1, 100_000])
def test_a_source_is_counted_and_thinned_while_it_is_read(count):
    held, most = weakref.WeakSet(), 0

    class Entry:
        def __init__(self, number):
            self.number = number

    def entries():
        nonlocal most
        for number in range(count):
            held.add(entry := Entry(number))
            yield entry
            most = max(most, len(held))

    rows, some = spread(entries())
    numbers = [entry.number for entry in some]
    assert rows == count and most <= 2 * SAMPLE + 2
    assert min(count, SAMPLE) <= len(numbers) <= 2 * SAMPLE
    assert len({b - a for a, b in itertools.pairwise(numbers)}) <= 1 and numbers[:1] in ([], [0])
    assert not numbers or count - numbers[-1] <= count // SAMPLE + 1


def test_a_line_nested_without_end_is_left_out_of_a_sample(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("[" * 200_000 + "\n" + json.dumps({"question": "q", "answer": "a"}) + "\n")
    sample = Known().sample(DataConfig(name="rows", source="jsonl", path=Path(file)), None)
    assert [text[:2] for text in sample.texts] == [("q", "a")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5.0 s"), (89, "89.0 s"), (90, "1.5 min"), (7200, "2.0 h")]
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_it_says_what_the_comparison_can_show_before_anything_runs():
    with tolerant():
        few, many = (
            strength(Run(compose(["experiment=table1_main", f"benchmark={b}"])))
            for b in ("mini", "code")
        )
    assert few is not None and many is not None
    size = "48 tasks, 3 runs of each arm, if two equal arms disagree on 10% of the tasks"
    assert few.startswith(f"{size}: A difference below 31.1 points would probably be missed")
    assert many.startswith("542 tasks, 3 runs of each arm")
    assert "A difference below 6.1 points would probably be missed (80% power, 5 comp" in many
    assert "An arm that is as good is shown to lose less than" in many


def test_it_says_what_an_arm_may_lose_only_where_arms_are_held_to_it():
    fixed = ["experiment=table1_main", "benchmark=mini", "primary.as_good=[]"]
    said = strength(Run(compose(fixed)))
    assert said is not None and "would probably be missed" in said and "as good" not in said


def test_it_says_nothing_of_power_where_nothing_is_compared():
    assert strength(Run(compose(["experiment=planted_noise"]))) is None
    assert strength(Run(compose(["selector=random"]))) is None


@pytest.mark.parametrize(
    "runtime", [["runtime=h200"], ["runtime=h100x8"], ["runtime=h100x8", "runtime.accelerate=fsdp"]]
)
def test_the_composed_examples_fit_the_cards_they_are_for(offline, runtime):
    device = "h200" if "h200" in runtime[0] else "h100"
    lines = plan_lines([*PAPER[:-1], *runtime, "hydra/launcher=slurm_8gpu"], device)
    assert not any("!:" in line for line in lines)


def seconds_in(line):
    """The time that a line of a plan says."""
    value, unit = re.search(r"([\d.]+) (s|min|h) ", line).groups()
    return float(value) * {"s": 1, "min": 60, "h": 3600}[unit]


def test_cards_that_wait_are_paid_for_and_shown(offline):
    eight = [*PAPER[:-1], "runtime=h100x8"]
    lines = plan_lines(eight, "h100", price=3.0)
    answers = next(line for line in lines if line.startswith("outcomes"))
    seconds = seconds_in(answers)
    dollars = float(re.search(r"([\d.]+) \$", answers)[1])
    assert dollars == pytest.approx(seconds / 3600 * 3.0 * 8, rel=0.05)
    total = next(line for line in lines if line.startswith("to run"))
    assert "for devices that wait)" in total
    one = plan_lines(PAPER, "h200")
    assert not any("devices that wait" in line for line in one)


def test_more_workers_judge_faster(offline):
    def seconds(workers):
        lines = plan_lines([*PAPER, f"runtime.judge_workers={workers}"], "h200")
        return sum(seconds_in(line) for line in lines if line.startswith("outcomes"))

    saved = (164 * 0.111 + 378 * 0.148) * (1 - 1 / 20) * 2  # two models, both suites
    assert seconds(1) - seconds(20) == pytest.approx(saved, abs=9)  # minutes have one digit


def test_what_no_card_has_room_for_is_marked_and_told(offline):
    lines = plan_lines(PAPER, "rtx4090")
    adapter = next(line for line in lines if line.startswith("adapter"))
    scores = next(line for line in lines if line.startswith("scores"))
    assert re.search(r"87\.\d GB!", adapter)
    assert re.search(r"18\.\d GB(?!!)", scores)  # of 24 GB
    assert any(line.startswith("  !: more memory than one device has") for line in lines)


def test_processes_share_the_processor_and_each_holds_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [plan_lines(["data.limit=9", f"runtime.processes={n}"], "cpu") for n in (1, 2)]
    one, two = (next(x for x in plan if x.startswith("scores")) for plan in lines)
    seconds, memory = r"([\d.]+) s ", r"([\d.]+) GB"
    assert re.search(seconds, one)[1] == re.search(seconds, two)[1]
    assert float(re.search(memory, two)[1]) == pytest.approx(
        2 * float(re.search(memory, one)[1]), rel=0.05
    )


def test_the_paper_s_size_fits_the_card_that_the_page_plans_it_for(offline):
    lines = plan_lines(["experiment=table1_main", "scale=paper"], "h200")
    assert any(line.startswith("adapter") for line in lines)
    assert not any("!:" in line for line in lines)


def published(store, stage, files, **facts):
    """An artifact of that stage with these files, as a run on this machine leaves it."""
    for name, content in files.items():
        file = store.work(stage.kind, stage.key) / "out" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    known = {"summary": {}, "seconds": 95.0, "created": "2026-01-01", "tries": 1}
    facts = {**stage.identity, **known, "hardware": hardware.describe(), **facts}
    return store.publish(stage.kind, stage.name, stage.key, facts)


def rate_in(line):
    """Tokens a second behind the start of a process, by a line of a plan."""
    count, unit = re.search(r"([\d.]+)(k?) tokens", line).groups()
    return float(count) * (1000 if unit else 1) / (seconds_in(line) - 10)


ADAPTER = ["selector=random", "data.limit=9", "train.epochs=50"]
PLANNED = ["--tokens", "12,60"]


def test_a_plan_takes_the_rate_of_what_ran_here_before(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = next(s for s in plan(compose([*ADAPTER, "seed=7"])) if s.kind == "adapter")
    facts = {"summary": {"tokens": 3600, "seconds": 90.0}}
    made = published(Store(tmp_path / "artifacts"), before, {"adapter": b""}, **facts)
    assert main(["plan", *ADAPTER, *PLANNED]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("adapter"))
    assert rate_in(line) == pytest.approx(40, rel=0.05)
    assert f"at the rate of {made.path.name}" in out
    assert main(["plan", *ADAPTER, *PLANNED, "--device", "h200"]) == 0  # another device
    assert "at the rate of" not in capsys.readouterr().out


def test_the_tokens_of_all_tries_of_a_training_took_the_seconds_of_all(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = next(s for s in plan(compose([*ADAPTER, "seed=7"])) if s.kind == "adapter")
    facts = {"summary": {"tokens": 3600, "seconds": 9.0}, "seconds": 90.0, "tries": 2}
    published(Store(tmp_path / "artifacts"), before, {"adapter": b""}, **facts)
    assert main(["plan", *ADAPTER, *PLANNED]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("adapter"))
    assert rate_in(line) == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize("cards", [(), ("NVIDIA H100 80GB HBM3",) * 8])
def test_a_rate_is_that_of_each_card_and_of_a_processor_whatever_its_processes(
    tmp_path, monkeypatch, cards
):
    monkeypatch.setattr(hardware, "cuda_devices", lambda: cards)
    before = next(s for s in plan(compose([*ADAPTER, "seed=7"])) if s.kind == "adapter")
    facts = {"summary": {"tokens": 3600, "seconds": 90.0, "processes": "8 (MULTI_GPU)"}}
    made = published(Store(tmp_path), before, {"adapter": b""}, **facts)
    rate = rate_of(before, [made])
    work = Work(tokens=7200, flops=1.0, seconds=1.0, memory=1.0)
    one, eight = (rate.applied(work, 0, count).seconds - 10 for count in (1, 8))
    assert eight == pytest.approx(180 if cards else 22.5)
    assert one == pytest.approx(8 * 180 if cards else 180)


def test_the_processes_of_a_stage_are_as_fast_as_all_their_records_say(tmp_path, monkeypatch):
    scores = next(s for s in plan(compose(["data.limit=9"])) if s.kind == "scores")
    lines = [{"step": n, "tokens": 600 * n, "time": 10.0 * n} for n in range(3)]
    record = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = dict.fromkeys(["record.jsonl", "record-1.jsonl", "record-2.jsonl"], record)
    rate = rate_of(scores, [published(Store(tmp_path), scores, files)])
    assert rate.tokens == pytest.approx(180)  # a processor's, for its three processes


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("outcomes", {"scores.json": b""}),
        ("outcomes", {"scores.json": b"[1]"}),
        ("outcomes", {"scores.json": b'{"generation_seconds": 1}'}),
        ("outcomes", {"samples.jsonl": b""}),
        ("scores", {"record.jsonl": b"\xff\xfe\n{}\n"}),
        ("scores", {"record.jsonl": b"1\n2\n"}),
        ("scores", {"record.jsonl": b'{"tokens": 1}\n{"tokens": 9}\n'}),
        ("adapter", {"adapter": b""}),  # its manifest has no summary of a training
    ],
)
def test_a_damaged_artifact_has_no_rate_and_ends_no_plan(
    tmp_path, capsys, monkeypatch, kind, files
):
    monkeypatch.chdir(tmp_path)
    stages = plan(compose([*ADAPTER, "seed=7", "selector=rmi_middle"]))
    published(Store(Path("artifacts")), next(s for s in stages if s.kind == kind), files)
    assert main(["plan", *ADAPTER, "selector=rmi_middle", "framing=chat", *PLANNED]) == 0
    assert "at the rate of" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", bytes(500), b"PAR1" + bytes(500) + b"PAR1"])
def test_a_pool_that_cannot_be_read_is_counted_by_its_source(
    tmp_path, capsys, monkeypatch, content
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"Which number is {n}?", "answer": f"{n}"} for n in range(300)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ask = ["selector=random", "data=jsonl", f"data.path={file}"]
    assert main(["plan", *ask]) == 0
    figures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("adapter")]
    pairs = plan(compose(ask))[0]
    published(Store(Path("artifacts")), pairs, {"pairs.parquet": content})
    assert main(["plan", *ask]) == 0
    assert figures and figures[0] in capsys.readouterr().out


def test_counts_that_were_torn_in_the_cache_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "cache_dir", lambda: tmp_path)
    model, texts = ModelConfig(id="someone/secret"), counting.made_texts(12, 60)
    counted = counting.encoded(texts, model, None, 512, None)
    [kept] = (tmp_path / "lengths").iterdir()
    kept.write_bytes(b"")
    assert counting.encoded(texts, model, None, 512, None) == counted
    assert counted.longest > 72 and kept.stat().st_size


def test_a_pool_that_models_write_is_counted_as_the_hours_it_takes(offline):
    pool = ["data=synthetic", "train=none", "selector=full"]
    said = opening([Run(compose(pool))])
    assert re.search(r"to make: about [\d.]+ (h|d) on this machine", said), said
    few = opening([Run(compose([*pool, "data.synthesis.questions=20"]))])
    assert re.search(r"about [\d.]+ min", few), few
    lines = "\n".join(plan_lines(pool))
    assert "coders: no question left out, every text as long as it may be" in lines
