"""The work that a plan tells of a stage, against what is really run and what was measured."""

import json
from pathlib import Path

import pytest

from qaq.plan import counting
from qaq.plan.counting import Counted
from qaq.plan.devices import DEVICES, device_named
from qaq.plan.estimate import (
    START_SECONDS,
    ModelSize,
    generating,
    model_of_size,
    scoring,
    training,
)
from qaq.plan.sizes import Known, model_folder
from qaq.run.compose import compose
from qaq.training.config import TrainConfig

H200 = DEVICES["h200"]
NAMES = sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "framing").iterdir())
MEASURED = Path(__file__).parents[2] / "results" / "performance"
ROW = Counted(100.0, 90.0, 100)  # tokens, labels, the longest


@pytest.mark.parametrize("name", NAMES)
def test_a_stand_in_counts_about_what_the_models_own_tokenizer_does(name):
    config = compose(["data.limit=64"])
    framing, model = compose([f"framing={name}"]).framing, config.models.weak
    texts = Known().sample(config.data, None).texts
    own, other = (counting.scored(texts, model, f, framing, None) for f in (_folder(model), None))
    assert other.run == pytest.approx(own.run, rel=0.25)
    assert other.predicted == pytest.approx(own.predicted, rel=0.25)


def _folder(model):
    folder = model_folder(model)
    if folder is None or not folder.is_dir():
        pytest.skip("the embedded model is not unpacked (make)")
    return folder


def test_made_texts_have_the_length_that_was_asked_for():
    config = compose(["framing=plain"])
    counted = counting.scored(
        counting.made_texts(120, 480), config.models.weak, None, config.framing, None
    )
    assert counted.predicted == 2 * (120 + 480)  # each text alone and after the other


def test_a_question_that_leaves_its_answer_no_room_is_not_counted():
    config = compose(["framing=cherry"])
    both, fits = (
        counting.scored(texts, config.models.weak, None, config.framing, None)
        for texts in (
            [*counting.made_texts(10, 20), *counting.made_texts(600, 20)],
            counting.made_texts(10, 20),
        )
    )
    assert both.run == fits.run / 2


def test_counts_are_kept_and_made_again_for_other_texts(monkeypatch):
    config = compose(["framing=plain"])
    ask = config.models.weak, None, config.framing, None
    first = counting.scored(counting.made_texts(7, 9), *ask)
    monkeypatch.setattr(counting, "stand_in", None)  # what is kept needs no tokenizer
    assert counting.scored(counting.made_texts(7, 9), *ask) == first
    with pytest.raises(TypeError):
        counting.scored(counting.made_texts(7, 10), *ask)


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
    row = Counted(run["tokens_after_merging"], run["scored_tokens"], 2048)
    work = scoring(1, row, size, 2048, "bfloat16", device, 1)
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


def test_training_counts_the_rows_in_every_epoch():
    recipe = TrainConfig(name="r", batch_size=8, learning_rate=1e-4, epochs=3, cutoff_tokens=2048)
    shared = model_of_size(1e9), recipe, 4096, "bfloat16", H200
    work = training(250, ROW, *shared, 1)
    assert work.tokens == 250 * 3 * 100
    twice = training(250, ROW, *shared, 2)
    assert twice.seconds < work.seconds
    assert twice.flops == work.flops


def test_fine_tuning_is_counted_by_the_encoder_that_cuts_the_rows():
    config = compose([])
    texts = counting.made_texts(10, 3000)
    system = "word " * 50
    told, bare = (
        counting.encoded(texts, config.models.target, None, 256, s) for s in (system, None)
    )
    assert bare.longest == told.longest == 256
    assert told.predicted < bare.predicted  # a system prompt takes room


def test_one_batch_of_answers_is_bound_by_reading_the_weights():
    prompt = Counted(180, 0.0, 500)
    work = generating(16, prompt, 100, model_of_size(6.7e9), 16, "bfloat16", H200)
    assert work.seconds == pytest.approx(10 + 100 * 13.4e9 / 4.8e12, rel=0.1)


def test_every_answer_has_room_for_the_longest_prompt():
    shape = ModelSize(6.5e9, 1e8, 4096, 32, 2 * 32 * 4096, 32256, False)  # DeepSeek Coder 6.7B
    prompt = counting.asked("humaneval", (), "word " * 40)
    assert prompt.longest == 452 + 40 + 1  # and the blank at the end
    work = generating(164, prompt, 768, shape, 96, "bfloat16", H200)
    cache = 96 * (493 + 768) * 2 * 32 * 4096 * 2
    assert work.memory == pytest.approx(cache + 2 * shape.parameters)


def test_prompts_of_an_unknown_suite_are_counted_by_their_texts():
    counted = counting.asked("mine", ["one two three", "one"], None)
    assert (counted.run, counted.longest) == (62, 63)


def test_eight_cards_that_share_the_weights_hold_an_eighth_each():
    model = model_of_size(6.7e9)
    recipe = TrainConfig(name="r", batch_size=8, learning_rate=1e-4, epochs=1)
    own, shared = (
        training(1000, ROW, model, recipe, 512, "bfloat16", DEVICES["h100"], 8, sharded)
        for sharded in (False, True)
    )
    assert own.memory - shared.memory == pytest.approx(13.4e9 * 7 / 8)
    assert own.seconds == shared.seconds


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero3"])
def test_eight_cards_of_80_gb_have_room_for_what_their_runtime_takes(name):
    runtime, model = compose([f"runtime={name}"]).runtime, model_of_size(6.7e9)
    recipe = TrainConfig(name="r", batch_size=128, learning_rate=1e-4, epochs=1)
    row, sharded, budget = Counted(600.0, 480.0, 2048), name != "ddp", runtime.token_budget
    work = training(1000, row, model, recipe, budget, "bfloat16", DEVICES["h100"], 8, sharded)
    assert work.memory < 80e9


def test_work_done_again_for_gradient_checkpointing_takes_its_time():
    model = model_of_size(6.7e9)
    recipes = (
        TrainConfig(
            name="r", batch_size=8, learning_rate=1e-4, epochs=1, gradient_checkpointing=again
        )
        for again in (False, True)
    )
    once, again = (training(1000, ROW, model, r, 512, "bfloat16", H200, 1) for r in recipes)
    assert again.seconds - START_SECONDS == pytest.approx(4 / 3 * (once.seconds - START_SECONDS))
    assert again.memory < once.memory


def test_on_a_processor_the_output_head_is_held_packed_too(monkeypatch):
    processor(monkeypatch, "amx_bf16")
    size = model_of_size(1e9)
    card, cpu = (
        scoring(9, ROW, size, 512, "float32", device, 1).memory
        for device in (H200, device_named("cpu", "float32"))
    )
    assert cpu - card == pytest.approx(4 * size.head)


def test_a_rate_is_read_between_the_shards_of_each_try(tmp_path):
    from qaq.plan.observed import _pace

    lines = [(0, 100, 10.0), (1, 300, 12.0), (2, 50, 99.0), (3, 450, 103.0)]  # begun anew at 50
    record = tmp_path / "record.jsonl"
    record.write_text(
        "".join(json.dumps({"step": s, "tokens": n, "time": t}) + "\n" for s, n, t in lines)
    )
    assert _pace(record) == (200 + 400, 2.0 + 4.0)
