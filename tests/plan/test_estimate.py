"""The work that a plan tells of a stage, against what is really run and what was measured."""

import json
from pathlib import Path

import pytest

from qaq.plan.devices import DEVICES, device_named
from qaq.plan.estimate import (
    START_SECONDS,
    Lengths,
    ModelSize,
    generating,
    model_of_size,
    scoring,
    training,
)
from qaq.plan.sizes import Known
from qaq.run.compose import compose
from qaq.scoring.config import FramingConfig
from qaq.training.config import TrainConfig

H200 = DEVICES["h200"]
NAMES = sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "framing").iterdir())
MEASURED = Path(__file__).parents[2] / "results" / "performance"


@pytest.mark.parametrize("times", [1, 5])  # answers as they are, and too long for most framings
def test_scoring_counts_the_tokens_of_the_merged_renderings(times):
    """Against the framer and the planner that really score, on the embedded model."""
    from qaq.models.load import load_tokenizer
    from qaq.scoring.framing import make_framer
    from qaq.scoring.plan import merge

    config = compose(["data.limit=64"])
    known = Known()
    model = config.models.weak
    texts = [(q, a * times) for q, a in known._sample(config.data, None)[1]]
    pool, size = Lengths(len(texts), known._tokens(texts, model)), known.model(model)
    tokenizer = load_tokenizer(model)
    for name in NAMES:
        framing = compose([f"framing={name}"]).framing
        framer = make_framer(framing, model, tokenizer, None)
        real = sum(len(r.ids) for q, a in texts for r in merge(framer(q, a).renderings))
        told = scoring(pool, size, framing, 0, 1536, "bfloat16", H200, 1).tokens
        template = 0.1 if name in ("chat", "authors", "r_ifd") else 0.01  # its length is assumed
        assert told == pytest.approx(real, rel=template), name


def test_a_question_that_leaves_its_answer_no_room_is_not_counted():
    framing = compose(["framing=cherry"]).framing
    pool = Lengths(2, ((10, 20), (600, 20)))
    work = scoring(pool, model_of_size(1e9), framing, 0, 2048, "bfloat16", H200, 1)
    assert work.tokens == 10 + 2 * 20 + 8


def processor(monkeypatch, flag):
    """The two cores of the benchmarks, of a kind that a flag tells."""
    monkeypatch.setattr("qaq.host.hardware.cores", lambda: 2)
    monkeypatch.setattr("qaq.host.hardware.cpu_flags", lambda: frozenset({flag}))


def seconds_of(run, device):
    """What a plan tells for the pairs of a benchmark of scoring."""
    heads = 1 if run["parameters"] < 1e9 else 2  # the large shape's head is not its embedding
    size = ModelSize(
        body=run["parameters"] - heads * run["head_parameters"],
        head=run["head_parameters"],
        hidden=1024,
        layers=28,
        cache=1,
        vocabulary=49152,
        shared=heads == 1,
    )
    answers = run["tokens_after_merging"] - run["scored_tokens"]  # chat runs them a third time
    pool = Lengths(1, ((run["scored_tokens"] // 2 - answers, answers),))
    bare = FramingConfig(name="b", kind="chat", reverse_instruction="{answer}", max_tokens=1 << 20)
    work = scoring(pool, size, bare, 0, 2048, "bfloat16", device, 1)
    assert work.tokens == pytest.approx(run["tokens_after_merging"], rel=0.01)
    return work.seconds - START_SECONDS


def test_scoring_on_a_card_is_as_fast_as_was_measured_with_large_and_small_models():
    runs = json.loads((MEASURED / "scoring_h100.json").read_text())
    assert {run["model"] for run in runs} == {"6.7b", "0.6b"}
    for run in runs:
        measured = run["pairs"] / run["pairs_per_second"]["qaq bfloat16"]
        assert seconds_of(run, DEVICES["h100"]) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("file", "flag"), [("scoring.json", "amx_bf16"), ("scoring_epyc.json", "avx512_bf16")]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_scoring_on_a_processor_is_as_fast_as_was_measured(monkeypatch, file, flag, dtype):
    same = json.loads((MEASURED / "scoring.json").read_text())  # model and rows of both
    run = same | json.loads((MEASURED / file).read_text())
    processor(monkeypatch, flag)
    measured = run["pairs"] / run["pairs_per_second"][f"qaq {dtype}"]
    assert seconds_of(run, device_named("cpu", dtype)) == pytest.approx(measured, rel=0.25)


def test_a_small_model_reaches_less_of_a_card_and_as_much_of_a_processor(monkeypatch):
    processor(monkeypatch, "amx_bf16")
    cpu = device_named("cpu", "bfloat16")
    assert H200.share(0.6, 1e8) < H200.share(0.6, 1e9) < H200.share(0.6, 1e10) == 0.6
    assert cpu.share(0.6, 1e8) == 0.6


def test_training_counts_the_kept_rows_in_every_epoch_cut_to_the_limit():
    pool = Lengths(1000, ((10, 75), (10, 3000)))  # with 15 tokens of template: 100, and 2048
    recipe = TrainConfig(name="r", batch_size=8, learning_rate=1e-4, epochs=3, cutoff_tokens=2048)
    work = training(pool, model_of_size(1e9), recipe, 0.25, 4096, "bfloat16", H200, 1)
    assert work.tokens == 1000 * 0.25 * 3 * (100 + 2048) / 2
    twice = training(pool, model_of_size(1e9), recipe, 0.25, 4096, "bfloat16", H200, 2)
    assert twice.seconds < work.seconds
    assert twice.flops == work.flops


def test_one_batch_of_answers_is_bound_by_reading_the_weights():
    work = generating(16, 100, model_of_size(6.7e9), 16, "bfloat16", H200)
    assert work.seconds == pytest.approx(10 + 100 * 13.4e9 / 4.8e12, rel=0.1)


def test_eight_cards_that_share_the_weights_hold_an_eighth_each():
    pool, model = Lengths(1000, ((10, 90),)), model_of_size(6.7e9)
    recipe = TrainConfig(name="r", batch_size=8, learning_rate=1e-4, epochs=1)
    own, shared = (
        training(pool, model, recipe, 1.0, 512, "bfloat16", DEVICES["h100"], 8, sharded)
        for sharded in (False, True)
    )
    assert own.memory - shared.memory == pytest.approx(13.4e9 * 7 / 8)
    assert own.seconds == shared.seconds


def test_work_done_again_for_gradient_checkpointing_takes_its_time():
    pool, model = Lengths(1000, ((10, 90),)), model_of_size(6.7e9)
    recipes = (
        TrainConfig(
            name="r", batch_size=8, learning_rate=1e-4, epochs=1, gradient_checkpointing=again
        )
        for again in (False, True)
    )
    once, again = (training(pool, model, r, 1.0, 512, "bfloat16", H200, 1) for r in recipes)
    assert again.seconds - START_SECONDS == pytest.approx(4 / 3 * (once.seconds - START_SECONDS))
    assert again.memory < once.memory


def test_on_a_processor_the_output_head_is_held_packed_too(monkeypatch):
    processor(monkeypatch, "amx_bf16")
    pool, size = Lengths(9, ((10, 90),)), model_of_size(1e9)
    framing = FramingConfig(name="chat", kind="chat")
    card, cpu = (
        scoring(pool, size, framing, 0, 512, "float32", device, 1).memory
        for device in (H200, device_named("cpu", "float32"))
    )
    assert cpu - card == pytest.approx(4 * size.head)
